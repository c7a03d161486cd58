"""Conversion and export: every byte arrives, and comes back."""

import json
import os
import subprocess
import sys
import types
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from convert import ConversionError, convert, export
from convert.__main__ import main
from jaxmoe.checkpoints import chunks, safetensors, store, weight_files
from jaxmoe.checkpoints.hub import find_directory
from jaxmoe.checkpoints.plan import default_tensors
from jaxmoe.checkpoints.small_files import SMALL_FILES, TOKENIZER_FILES
from jaxmoe.families.config_json import from_hf
from jaxmoe.families.registry import FAMILIES
from jaxmoe.nn.decoder import abstract_params


def fuse_last(make):
    """One layer of two fused."""
    return lambda tensors: make.fuse(tensors, 2)


def fuse_both(make):
    """Both fused."""
    return lambda tensors: make.fuse(make.fuse(tensors, 0), 2)


def same(make):
    """Every expert apart."""
    return lambda tensors: tensors


@pytest.fixture(params=[same, fuse_last, fuse_both])
def layout(request, make):
    """Experts apart, mixed with fused ones, and all fused."""
    return request.param(make)


@pytest.mark.thorough
@pytest.mark.parametrize("shards", [1, 3])
def test_parameters(make, layout, wanted, load, tmp_path, shards):
    """A parameter would hold another tensor, or its parts in another order."""
    convert(make(layout, shards=shards), tmp_path / "ckpt", verify=True)
    expected = wanted(make.tensors(make.config), make.config)
    found = load(tmp_path / "ckpt")
    assert found.keys() == expected.keys()
    for name, param in expected.items():
        assert found[name].dtype == param.dtype
        assert found[name].tobytes() == param.tobytes(), name


@pytest.mark.parametrize("shards", [1, 3])
def test_export_gives_back_the_files(make, layout, trees, tmp_path, shards):
    """A file of the source would come back with other bytes."""
    source = make(layout, shards=shards)
    convert(source, tmp_path / "ckpt")
    export(tmp_path / "ckpt", tmp_path / "again")
    assert trees(tmp_path / "again") == trees(source)


@pytest.mark.thorough
@pytest.mark.parametrize("size", [64, 100, 1 << 10])
def test_chunks_of_any_size(make, layout, trees, wanted, load, monkeypatch, size):
    """Tensors that do not end where chunks end would be cut wrongly."""
    monkeypatch.setattr(chunks, "CHUNK_BYTES", size)
    source = make(layout, shards=2)
    convert(source, source.parent / "ckpt", verify=True)
    expected = wanted(make.tensors(make.config), make.config)
    found = load(source.parent / "ckpt")
    for name, param in expected.items():
        assert found[name].tobytes() == param.tobytes(), name
    export(source.parent / "ckpt", source.parent / "again")
    assert trees(source.parent / "again") == trees(source)


def test_attention_biases(make, trees, load, tmp_path):
    """Biases would be lost."""
    source = make(attention_bias=True)
    convert(source, tmp_path / "ckpt")
    assert load(tmp_path / "ckpt")["layers.0.mixer.q.bias"].shape == (4, 6)
    export(tmp_path / "ckpt", tmp_path / "again")
    assert trees(tmp_path / "again") == trees(source)


def test_each_parameter_keeps_its_type(make, trees, load, tmp_path):
    """A float32 router among bfloat16 weights would be rounded."""

    def widen(tensors):
        for name in tensors:
            if name.endswith("mlp.gate.weight"):
                tensors[name] = tensors[name].astype(np.float32) + 1e-5
            if name.endswith("norm.weight"):
                tensors[name] = tensors[name].astype(np.float16)

    source = make(widen)
    convert(source, tmp_path / "ckpt")
    found = load(tmp_path / "ckpt")
    assert found["layers.0.feed_forward.router.weight"].dtype == np.float32
    assert found["final_norm.scale"].dtype == np.float16
    export(tmp_path / "ckpt", tmp_path / "again")
    assert trees(tmp_path / "again") == trees(source)


@pytest.mark.thorough
@pytest.mark.parametrize("to", ["bfloat16", "float32"])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float16])
def test_cast(make, wanted, load, tmp_path, dtype, to):
    """--dtype would store another type, or other values than rounding gives."""
    source = make(dtype=dtype, shards=2, torch_dtype=jnp.dtype(dtype).name)
    convert(source, tmp_path / "ckpt", dtype=to, verify=True)
    found = load(tmp_path / "ckpt")
    expected = wanted(make.tensors(make.config, dtype), make.config)
    for name, param in expected.items():
        assert found[name].tobytes() == param.astype(jnp.dtype(to)).tobytes(), name
    export(tmp_path / "ckpt", tmp_path / "again")
    assert json.loads((tmp_path / "again/config.json").read_text())["torch_dtype"] == to
    convert(tmp_path / "again", tmp_path / "ckpt2")
    for name, param in load(tmp_path / "ckpt2").items():
        assert param.tobytes() == found[name].tobytes(), name


def test_tied(make, load, trees, tmp_path):
    """A tied model's superfluous head would be refused, or lost on the way back."""

    def copy(tensors):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]

    source = make(copy, tie_word_embeddings=True)
    convert(source, tmp_path / "ckpt")
    assert "head.weight" not in load(tmp_path / "ckpt")
    export(tmp_path / "ckpt", tmp_path / "again")
    assert trees(tmp_path / "again") == trees(source)


def test_tied_to_something_else(make, tmp_path):
    """A head that differs from the embedding would be dropped silently."""

    def differ(tensors):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 1

    source = make(differ, tie_word_embeddings=True)
    with pytest.raises(
        ConversionError, match=r"lm_head.weight: .* ties it to model.em"
    ):
        convert(source, tmp_path / "ckpt")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_derived_tensors_are_left_out(make, tmp_path, load):
    """Old files with rotary tables would be refused; the export would name them."""

    def add(tensors):
        name = "model.layers.0.self_attn.rotary_emb.inv_freq"
        return {name: np.ones(3, np.float32)} | tensors

    convert(make(add, shards=2), tmp_path / "ckpt")
    ignored = store.read_manifest(tmp_path / "ckpt").source["ignored"]
    assert ignored == ["model.layers.0.self_attn.rotary_emb.inv_freq"]
    export(tmp_path / "ckpt", tmp_path / "again")
    convert(tmp_path / "again", tmp_path / "ckpt2")
    first, second = load(tmp_path / "ckpt"), load(tmp_path / "ckpt2")
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)


def test_export_of_a_model_that_came_from_no_files(make, wanted, load, tmp_path):
    """A model made here could not leave."""
    params = wanted(make.tensors(make.config), make.config)
    files = {"config.json": json.dumps(make.config)}
    store.save(tmp_path / "ckpt", params, family="qwen3_moe", files=files)
    export(tmp_path / "ckpt", tmp_path / "hf")
    convert(tmp_path / "hf", tmp_path / "again")
    found = load(tmp_path / "again")
    assert all(found[name].tobytes() == params[name].tobytes() for name in params)


def test_files_are_carried(make, tmp_path):
    """Tokenizer and templates would change on the way."""
    convert(make(), tmp_path / "ckpt")
    for name, content in make.others.items():
        assert (tmp_path / "ckpt" / name).read_bytes() == content


def test_named_chat_templates_are_carried(make, trees, tmp_path):
    """A tokenizer would lose a chat template that lies in a folder."""
    source = make()
    (source / "additional_chat_templates").mkdir()
    (source / "additional_chat_templates" / "tool use.jinja").write_text("{{ 1 }}")
    (source / "additional_chat_templates" / "notes.txt").write_text("no template")
    convert(source, tmp_path / "ckpt")
    export(tmp_path / "ckpt", tmp_path / "again")
    (source / "additional_chat_templates" / "notes.txt").unlink()
    assert trees(tmp_path / "again") == trees(source)


def test_all_files_of_a_tokenizer_are_carried():
    """A file that the tokenizer reads would be left behind."""
    assert set(TOKENIZER_FILES) < set(SMALL_FILES)
    assert len(SMALL_FILES) == len(set(SMALL_FILES))


@pytest.mark.parametrize("dtype", [None, "float32"])
def test_shards_in_folders(make, trees, load, tmp_path, dtype):
    """An index with folders would be accepted, and fail when all is written."""
    source = make(shards=3)
    index = json.loads((source / weight_files.INDEX).read_text())
    for i, file in enumerate(sorted(set(index["weight_map"].values()))):
        folder = source / ("a", "a/b", ".")[i]
        folder.mkdir(exist_ok=True)
        (source / file).rename(folder / file)
        for name, home in index["weight_map"].items():
            if home == file:
                new = str((folder / file).relative_to(source))
                index["weight_map"][name] = new
    (source / weight_files.INDEX).write_text(json.dumps(index))
    convert(source, tmp_path / "ckpt", dtype=dtype, verify=True)
    export(tmp_path / "ckpt", tmp_path / "again")
    export(tmp_path / "ckpt", tmp_path / "again", force=True)
    if dtype is None:
        assert trees(tmp_path / "again") == trees(source)
    convert(tmp_path / "again", tmp_path / "ckpt2")
    first, second = load(tmp_path / "ckpt"), load(tmp_path / "ckpt2")
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)


def test_orbax_reads_it(make, wanted, tmp_path):
    """The parameters would not be an ordinary Orbax checkpoint."""
    import orbax.checkpoint as ocp

    convert(make(), tmp_path / "ckpt")
    params = ocp.PyTreeCheckpointer().restore(tmp_path / "ckpt" / "params")
    expected = wanted(make.tensors(make.config), make.config)
    assert params.keys() == expected.keys()
    for name, param in expected.items():
        assert np.asarray(params[name]).tobytes() == param.tobytes(), name


def test_verify_finds_what_the_disk_changed(make, tmp_path, monkeypatch):
    """--verify would not read what is on the disk."""
    finish = store.finish

    def damage(path, manifest):
        finish(path, manifest)
        file = path / "params" / "final_norm.scale" / "0"
        file.write_bytes(bytes(32))

    monkeypatch.setattr(store, "finish", damage)
    with pytest.raises(ConversionError, match=r"final_norm.scale: read back other"):
        convert(make(), tmp_path / "ckpt", verify=True)
    assert not (tmp_path / "ckpt").exists()
    monkeypatch.undo()
    convert(tmp_path / "source", tmp_path / "ckpt", verify=True)


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="no such call here")
def test_verify_reads_the_disk(make, tmp_path, monkeypatch):
    """--verify would compare with what memory holds of the output."""
    forgotten = set()
    read = store.read_values

    def forget(fd, offset, length, advice):
        assert (offset, length, advice) == (0, 0, os.POSIX_FADV_DONTNEED)
        forgotten.add(os.fstat(fd).st_ino)

    def check(array, name):
        files = (tmp_path / "ckpt.partial" / "params" / name).iterdir()
        assert {file.stat().st_ino for file in files} <= forgotten
        return read(array, name)

    monkeypatch.setattr(os, "posix_fadvise", forget)
    monkeypatch.setattr(store, "read_values", check)
    source = make()
    convert(source, tmp_path / "ckpt", verify=True)
    assert (source / weight_files.SINGLE).stat().st_ino in forgotten


MEMORY = """
import re, sys
from pathlib import Path
from convert import convert, export
def peak():
    return int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
root = Path(sys.argv[1])
convert(root / "small", root / "small-ckpt", jobs=2, verify=True)
before = peak()
convert(root / "source", root / "ckpt", jobs=2)
print((peak() - before) / 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_memory_does_not_grow_with_the_model(make, tmp_path):
    """A parameter, or the model, would have to fit in memory."""
    make(name="small")
    config = make.config | {"vocab_size": 50_000, "hidden_size": 1024}
    params = abstract_params(from_hf(config), jnp.bfloat16)
    tensors = default_tensors(FAMILIES["qwen3_moe"], params)
    rows = [(name, safetensors.TAGS[kind.name], shape) for name, kind, shape in tensors]
    header = safetensors.make_header(weight_files.SINGLE, rows, {})
    assert header.nbytes > 200e6
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "config.json").write_text(json.dumps(config))
    with (tmp_path / "source" / weight_files.SINGLE).open("wb") as file:
        text = header.text.encode()
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(header.nbytes)
    root = Path(__file__).resolve().parents[2]
    env = os.environ | {"PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", MEMORY, str(tmp_path)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 50, "MiB more than for a small model"


def test_export_finds_damage(make, tmp_path):
    """Damaged parameters would be exported as if they were right."""
    convert(make(), tmp_path / "ckpt")
    (tmp_path / "ckpt/params/final_norm.scale/0").write_bytes(bytes(32))
    with pytest.raises(ConversionError, match=r"final_norm.scale in .* is damaged"):
        export(tmp_path / "ckpt", tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_command_line(make, tmp_path, capsys):
    """The documented commands would fail, or end without their totals."""
    source, ckpt, again = (str(tmp_path / n) for n in ("source", "ckpt", "again"))
    make()
    assert main([source, ckpt, "--verify", "--jobs", "2"]) == 0
    assert "peak memory" in capsys.readouterr().out.splitlines()[-1]
    assert main(["--export", ckpt, again]) == 0
    assert main([source, ckpt]) == 1
    assert "exists" in capsys.readouterr().err.splitlines()[-1]


def test_hub_name(make, tmp_path, monkeypatch):
    """A hub name would not be downloaded, or pickles would be downloaded with it."""
    source, asked = make(), {}

    def snapshot_download(name, allow_patterns, ignore_patterns):
        asked.update(name=name, patterns=allow_patterns)
        return str(source)

    hub = types.ModuleType("huggingface_hub")
    vars(hub)["snapshot_download"] = snapshot_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    assert find_directory("Qwen/Qwen3-30B-A3B") == source
    assert asked["name"] == "Qwen/Qwen3-30B-A3B"
    assert not any("bin" in p or p == "*" for p in asked["patterns"])
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConversionError, match="pip install .jaxmoe.hub."):
        find_directory("Qwen/Qwen3-30B-A3B")
    with pytest.raises(ConversionError, match="expected a directory"):
        find_directory(str(tmp_path / "nowhere"))


def test_hub_cache_links(make, tmp_path):
    """The hub's cache, whose files are links to blobs, would be refused."""
    source, repo = make(), tmp_path / "models--a--b"
    snapshot = repo / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (repo / "blobs").mkdir()
    for path in source.iterdir():
        path.rename(repo / "blobs" / path.name)
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    convert(snapshot, tmp_path / "ckpt", verify=True)
