"""The random checkpoint of a newcomer, in transformers and on our command line."""

import json

import pytest

import jaxmoe
from convert import convert
from jaxmoe.cli import random_checkpoint, sample

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

CHATS = (
    [{"role": "user", "content": "How many primes are below 100?"}],
    [
        {"role": "system", "content": "bade \u00fc"},
        {"role": "user", "content": "kilo\n"},
        {"role": "assistant", "content": "mu"},
        {"role": "user", "content": "<|im_end|> "},
    ],
)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A Hugging Face directory; `ckpt` beside it is converted."""
    path = tmp_path_factory.mktemp("random") / "hf"
    assert random_checkpoint.main([str(path)]) == 0
    convert(path, path.with_name("ckpt"))
    return path


def test_same_ids(source):
    """transformers would read another prompt from the same text or chat."""
    theirs = transformers.AutoTokenizer.from_pretrained(source)
    model = jaxmoe.load(source.with_name("ckpt"))
    for text in ("", "a", "How many primes\n are below 100? \u4e16 bade kilomu"):
        ids = theirs(text)["input_ids"]
        assert model.encode(text) == ids
        assert model.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
    for chat in CHATS:
        for thinking in (True, False):
            options = {"add_generation_prompt": True, "enable_thinking": thinking}
            ids = theirs.apply_chat_template(chat, **options)["input_ids"]
            assert model.chat(chat, enable_thinking=thinking) == ids
    assert theirs.eos_token_id in model.config.stop_ids


def test_same_greedy_answer(source, capsys):
    """Command line and transformers would answer differently."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        source, dtype=torch.float32
    )
    for text in ("How many primes are below 100?", "bade kilo"):
        prompt = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            out = theirs.generate(**prompt, do_sample=False, max_new_tokens=64)
        expected = out[0, prompt["input_ids"].shape[1] :].tolist()
        options = "--policy topk --greedy --dtype float32 --n 1 --json"
        options += " --max-new-tokens 64"
        checkpoint = str(source.with_name("ckpt"))
        argv = [checkpoint, "--prompt", text, *options.split()]
        assert sample.main(argv) == 0
        row, _ = map(json.loads, capsys.readouterr().out.splitlines())
        assert row["tokens"] == expected
        assert row["text"] == tokenizer.decode(expected, skip_special_tokens=True)
