"""A small byte-level tokenizer, so that most tests need no files."""

import json

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

SPECIAL = ("<|end|>", "<|user|>", "<|pad|>")
TEMPLATE = (
    "{%- for message in messages %}\n"
    "{{- '<|user|>' + message.role + ': ' + message.content + '\\n' }}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}{{- 'assistant: ' }}{%- endif %}"
)


@pytest.fixture(scope="session")
def tokenizer_json() -> str:
    """256 bytes, a merge of "ab", and three special tokens after them."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: i for i, letter in enumerate([*letters, "ab"])}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[("a", "b")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(list(SPECIAL))
    return backend.to_str()


@pytest.fixture
def tokenizer_dir(tmp_path, tokenizer_json):
    """A directory with the small tokenizer and a chat template."""
    config = {
        "eos_token": "<|end|>",
        "pad_token": {"content": "<|pad|>", "lstrip": False},
        "bos_token": None,
        "chat_template": TEMPLATE,
    }
    (tmp_path / "tokenizer.json").write_text(tokenizer_json)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    return tmp_path
