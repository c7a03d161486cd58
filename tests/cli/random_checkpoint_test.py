"""`jaxmoe random-checkpoint`; that transformers loads it is tested in parity."""

import json

import pytest

from jaxmoe.cli.random_checkpoint import main


def files(path) -> dict[str, bytes]:
    """The content of every file."""
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_is_reproducible(source, tmp_path):
    """Two people would talk about different checkpoints."""
    assert main([str(tmp_path / "same"), "--seed", "0"]) == 0
    assert main([str(tmp_path / "other"), "--seed", "1"]) == 0
    assert files(tmp_path / "same") == files(source)
    weights = "model.safetensors"
    assert files(tmp_path / "other")[weights] != files(source)[weights]


def test_text_survives(model):
    """A prompt would reach the model as another text."""
    text = "How many primes\nare below 100? \u00fc\u4e16 bade kilo"
    assert model.decode(model.encode(text)) == text
    assert model.tokenizer.vocab_size == model.config.vocab_size
    assert model.tokenizer.decode(model.chat([{"role": "user", "content": "a"}]), False)


def test_options(tmp_path):
    """An option would be taken without effect."""
    out = tmp_path / "deep" / "out"
    changes = ["--layers", "2", "--set", "mlp_only_layers=[1]"]
    assert main([str(out), *changes, "--set", "vocab_size=300"]) == 0
    config = json.loads((out / "config.json").read_text())
    assert config["num_hidden_layers"] == 2
    assert config["mlp_only_layers"] == [1]
    assert config["vocab_size"] == 300
    assert b"layers.1.mlp.gate_proj" in (out / "model.safetensors").read_bytes()


def test_real_tokenizer(tmp_path, qwen3_tokenizer_dir):
    """A copied tokenizer would not fit the model."""
    out = tmp_path / "out"
    few = ["--layers", "1", "--set", "hidden_size=8"]
    assert main([str(out), "--tokenizer", str(qwen3_tokenizer_dir), *few]) == 0
    config = json.loads((out / "config.json").read_text())
    assert config["vocab_size"] == 151669
    assert config["eos_token_id"] == 151645
    generation = json.loads((out / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [151645, 151643]
    for name in ("tokenizer.json", "tokenizer_config.json"):
        copied = (out / name).read_bytes()
        assert copied == (qwen3_tokenizer_dir / name).read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "nonsense=1"], "nonsense"),
        (["--layers", "0"], "num_hidden_layers"),
        (["--set", "vocab_size=100"], "at least 259"),
        (["--tokenizer", "/nowhere"], "tokenizer.json"),
        (["--seed", "-1"], "non-negative"),
    ],
)
def test_bad_input_leaves_nothing(tmp_path, capsys, options, message):
    """Half a checkpoint would be taken for a whole one, or a traceback shown."""
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path / "out"), *options])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert message in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["directory", "file", "link"])
def test_refuses_to_replace(tmp_path, capsys, kind):
    """Someone's checkpoint would be gone."""
    out = tmp_path / "out"
    {
        "directory": out.mkdir,
        "file": out.touch,
        "link": lambda: out.symlink_to("nowhere"),
    }[kind]()
    with pytest.raises(SystemExit) as ended:
        main([str(out)])
    assert ended.value.code == 2
    assert "exists" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
