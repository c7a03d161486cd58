"""The bundled model: converted once, into a cache that others may use too."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors import deserialize

import jaxmoe
from jaxmoe.checkpoints import bundled
from jaxmoe.checkpoints.bundled import BUNDLED, converted

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    """A user's cache directory with the demo model in it."""
    path = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(path))
        converted("demo")
    return path


@pytest.fixture
def in_cache(cache, monkeypatch) -> Path:
    """This test's user has that cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    return cache


@pytest.fixture
def no_process(monkeypatch):
    """Starting a process, as a conversion does, fails."""

    def run(*_, **__):
        raise AssertionError("converted again")

    monkeypatch.setattr(subprocess, "run", run)


def names(path: Path) -> list[str]:
    """What is in a directory, hidden files too."""
    return sorted(child.name for child in path.iterdir())


# -- the cache -----------------------------------------------------------------------


def test_converted_once(in_cache, no_process):
    """Every start would convert anew, or leave something beside the checkpoint."""
    path = converted("demo")
    assert path.parent == in_cache / "jaxmoe"
    assert names(path.parent) == [path.name]
    assert path.name.startswith("demo-")
    assert (path / "jaxmoe.json").exists() and (path / "tokenizer.json").exists()


@pytest.mark.parametrize("home", [None, ""], ids=["not set", "empty"])
def test_the_cache_is_in_the_home_directory(monkeypatch, tmp_path, home):
    """Files would land in the working directory, or in a root directory."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if home is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", home)
    assert bundled.cache_directory() == tmp_path / ".cache" / "jaxmoe"


@pytest.fixture
def fast(cache, monkeypatch) -> list[Path]:
    """Conversions take no time; the sources that were converted."""
    (whole,) = (cache / "jaxmoe").iterdir()
    sources = []

    def convert(source, out):
        sources.append(source)
        shutil.copytree(whole, out)

    monkeypatch.setattr(bundled, "_convert", convert)
    return sources


def test_another_model_has_another_place(cache, fast, monkeypatch, tmp_path):
    """A release with other weights would go on with those converted before."""
    source = shutil.copytree(BUNDLED["demo"], tmp_path / "hf")
    monkeypatch.setitem(BUNDLED, "demo", source)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first = converted("demo")
    assert first.name == names(cache / "jaxmoe")[0], "equal files, one name"
    assert converted("demo") == first and fast == [source]
    content = (source / "model.safetensors").read_bytes()
    changed = content[:-1] + bytes([content[-1] ^ 1])
    (source / "model.safetensors").write_bytes(changed)
    second = converted("demo")
    assert second != first and fast == [source, source]
    assert names(first.parent) == sorted([first.name, second.name])


def _without_manifest(path: Path) -> None:
    (path / "jaxmoe.json").unlink()


def _without_a_weight(path: Path) -> None:
    shutil.rmtree(path / "params" / "head.weight")


def _empty(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


def _a_file(path: Path) -> None:
    shutil.rmtree(path)
    path.touch()


@pytest.mark.parametrize(
    "damage", [_without_manifest, _without_a_weight, _empty, _a_file]
)
def test_a_damaged_cache_is_made_anew(cache, fast, monkeypatch, tmp_path, damage):
    """Who cleans up old files would lose the demo for good."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = shutil.copytree(cache / "jaxmoe", tmp_path / "jaxmoe")
    (name,) = names(path)
    damage(path / name)
    assert converted("demo") == path / name
    assert len(fast) == 1
    assert names(path) == [name]
    assert names(path / name) == names(cache / "jaxmoe" / name)
    assert converted("demo") == path / name and len(fast) == 1


@pytest.mark.slow
def test_two_processes_at_once(tmp_path):
    """A test run with several workers would find half a checkpoint, or leave two."""
    code = "from jaxmoe.checkpoints.bundled import converted; print(converted('demo'))"
    env = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    run = [sys.executable, "-c", code]
    both = [subprocess.Popen(run, env=env, **pipe) for _ in range(2)]
    said = []
    for process in both:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        said.append(out)
    (name,) = names(tmp_path / "jaxmoe")
    assert said == [f"{tmp_path / 'jaxmoe' / name}\n"] * 2


def test_a_faster_process_is_no_error(cache, tmp_path, monkeypatch):
    """The slower one of two would fail, or put its own in place of the other's."""
    (whole,) = (cache / "jaxmoe").iterdir()

    def convert(source, out):
        shutil.copytree(whole, out)
        faster = shutil.copytree(whole, out.parents[1] / whole.name)
        (faster / "theirs").touch()

    monkeypatch.setattr(bundled, "_convert", convert)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert "theirs" in names(converted("demo"))
    assert names(tmp_path / "jaxmoe") == [whole.name]


def test_a_failed_conversion_leaves_nothing(tmp_path, monkeypatch):
    """The next start would take half a checkpoint for a whole one."""
    source = tmp_path / "hf"
    source.mkdir()
    (source / "model.safetensors").write_bytes(b"no weights")
    (source / "config.json").write_text("{}")
    monkeypatch.setitem(BUNDLED, "demo", source)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    match = f"(?s)converting the bundled {source} failed.*try `python -m convert"
    with pytest.raises(OSError, match=match):
        converted("demo")
    assert names(tmp_path / "cache" / "jaxmoe") == []


@pytest.mark.parametrize("kind", ["a file", "no permission", "full"])
def test_a_home_that_cannot_be_written(fast, tmp_path, monkeypatch, kind):
    """A user without a writable home could not run the demo."""
    home = tmp_path / "home"
    if kind == "a file":
        home.touch()
    code = {"no permission": errno.EACCES, "full": errno.EDQUOT}.get(kind)
    mkdir = Path.mkdir

    def refuse(path, *args, **options):
        if code and home in path.parents:
            raise OSError(code, os.strerror(code), str(path))
        mkdir(path, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refuse)
        patch.setenv("XDG_CACHE_HOME", str(home))
        patch.setattr(bundled, "_OWN", [])
        model = jaxmoe.load("demo")
        own = Path(bundled._OWN[0].name)
        assert converted("demo").parent == own, "once for this process"
        assert len(fast) == 1 and len(names(own)) == 1
        bundled._OWN[0].cleanup()
    assert model.config.num_experts == 64
    assert home.is_file() or not home.exists()


def test_an_installation_without_weights(monkeypatch, tmp_path):
    """One would be told of a missing file deep in the converter."""
    monkeypatch.setitem(BUNDLED, "demo", tmp_path)
    match = "should hold the model 'demo'.*no model.safetensors; install jaxmoe again"
    with pytest.raises(FileNotFoundError, match=match):
        jaxmoe.load("demo")


# -- what is loaded ------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(cache) -> jaxmoe.Model:
    """`jaxmoe.load("demo")`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        return jaxmoe.load("demo")


def test_the_config_is_the_demos(model):
    """The demo would be another model, or lack its tokenizer."""
    config = model.config
    assert (config.family, config.num_layers) == ("qwen3_moe", 4)
    assert (config.num_experts, config.experts_per_token) == (64, 8)
    assert (config.d_model, config.vocab_size) == (128, 208)
    assert config.generation.temperature == 0.7
    assert model.decode(model.encode("2,5,8,12=27:")) == "2,5,8,12=27:"


def bits(array) -> np.ndarray:
    """bfloat16 as uint16, in one row."""
    return np.asarray(array).view(np.uint16).ravel()


def shipped() -> dict[str, np.ndarray]:
    """The bits of each tensor that ships, read by the safetensors library."""
    content = (BUNDLED["demo"] / "model.safetensors").read_bytes()
    found = dict(deserialize(content))
    assert {tensor["dtype"] for tensor in found.values()} == {"BF16"}
    return {name: np.frombuffer(t["data"], np.uint16) for name, t in found.items()}


def test_the_weights_are_those_that_ship(model):
    """A matrix would be turned, rounded, or stand in another's place."""
    stored = shipped()
    layer, experts = "model.layers.2.", "model.layers.2.mlp.experts."
    matrices = {
        "embed.weight": stored["model.embed_tokens.weight"],
        "head.weight": stored["lm_head.weight"],
        "final_norm.scale": stored["model.norm.weight"],
        "layers.2.feed_forward.router.weight": stored[layer + "mlp.gate.weight"],
        "layers.2.mixer.q.weight": stored[layer + "self_attn.q_proj.weight"],
        "layers.2.mixer.k.weight": stored[layer + "self_attn.k_proj.weight"],
        "layers.2.feed_forward.gate_up": np.stack(
            [
                stored[f"{experts}{e}.{part}_proj.weight"]
                for e in range(64)
                for part in ("gate", "up")
            ]
        ),
        "layers.2.feed_forward.down": np.stack(
            [stored[f"{experts}{e}.down_proj.weight"] for e in range(64)]
        ),
    }
    for name, matrix in matrices.items():
        held = bits(model.params[name])
        assert np.array_equal(held, matrix.ravel()), name
        assert held.any(), name


def test_a_directory_named_demo_is_another_model(in_cache, tmp_path, monkeypatch):
    """Where one works would decide what the demo is; or ./demo could not be read."""
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "thesis.txt").write_text("years")
    monkeypatch.chdir(tmp_path)
    assert jaxmoe.load("demo").config.num_experts == 64
    for path in ("./demo", Path("demo")):
        with pytest.raises((OSError, ValueError), match="demo"):
            jaxmoe.load(path)
    assert names(tmp_path / "demo") == ["thesis.txt"]


def test_loaded_twice_answers_alike(in_cache, model):
    """The demo would not be the same at every start."""
    again = jaxmoe.load("demo")
    assert again.config == model.config
    same = jax.tree.map(np.array_equal, again.params, model.params)
    assert all(same.values())
