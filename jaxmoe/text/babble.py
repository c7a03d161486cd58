"""A tokenizer for random models: bytes, then pronounceable words, so babble is read."""

import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
BYTES = 256

TEMPLATE = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""
"""ChatML, as Qwen3 has it without tools."""

CONFIG = {
    "add_prefix_space": False,
    "bos_token": None,
    "chat_template": TEMPLATE,
    "clean_up_tokenization_spaces": False,
    "eos_token": "<|im_end|>",
    "model_max_length": 32768,
    "pad_token": "<|endoftext|>",
    "tokenizer_class": "PreTrainedTokenizerFast",
    "unk_token": None,
}


def _merges() -> Iterator[tuple[str, str]]:
    """Pairs that become tokens: letters to syllables, those to ever longer words."""
    pairs = list(itertools.product("bdfghjklmnprstvwz", "aeiou"))
    random.Random(0).shuffle(pairs)
    yield from pairs
    syllables = ["".join(pair) for pair in pairs]
    words = ["\u0120"]  # the space in byte-level BPE
    while True:
        longer = [(word, syllable) for word in words for syllable in syllables]
        yield from longer
        words = ["".join(pair) for pair in longer]


def write_tokenizer(directory: Path, vocab_size: int):
    """Writes tokenizer.json and tokenizer_config.json of exactly `vocab_size` tokens.

    Ids 0..255 are single bytes; the last three are `SPECIAL`.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    fewest = BYTES + len(SPECIAL)
    if vocab_size < fewest:
        raise ValueError(
            f"vocab_size must be at least {fewest} (bytes and special tokens), found "
            f"{vocab_size}; raise it, or pass --tokenizer"
        )
    merges = list(itertools.islice(_merges(), vocab_size - fewest))
    tokens = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens += ["".join(pair) for pair in merges]
    vocab = {token: i for i, token in enumerate(tokens)}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(list(SPECIAL))
    backend.save(str(directory / "tokenizer.json"))
    text = json.dumps(CONFIG, indent=2, ensure_ascii=False) + "\n"
    (directory / "tokenizer_config.json").write_text(text, encoding="utf-8")
