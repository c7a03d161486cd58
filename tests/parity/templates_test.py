"""Chats through each family's idioms, as transformers renders them.

The templates beside this file are small ones of our own: each has the marks of its
family and what makes its template unlike others, be it macros and namespaces that
outlive loops, dates, JSON, slices, tests of what a message has, text that is split at
its thinking, or blocks of what the model wrote.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from jaxmoe.families.registry import FAMILIES
from jaxmoe.text import Tokenizer
from jaxmoe.text.content import joined_parts, reads_parts
from tests.parity.chats import CHATS, MORE, TYPES, WEATHER

tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")

TEMPLATES = {
    path.stem: path.read_text("utf-8")
    for path in sorted((Path(__file__).parent / "templates").glob("*.jinja"))
}
ENDS = {"bos_token": "<|begin|>", "eos_token": "<|end_of_text|>"}
ALL_CHATS = CHATS | MORE
COMMON: list[dict[str, Any]] = [
    {},
    {"add_generation_prompt": False},
    {"tools": [WEATHER, TYPES]},
    {"add_generation_prompt": False, "tools": [TYPES]},
]
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "gpt_oss": [
        {"reasoning_effort": "high", "model_identity": "I."},
        {"builtin_tools": ["python", "browser"]},
    ],
    "deepseek_v3": [{"thinking": True}],
    "glm4_moe": [{"enable_thinking": False}, {"enable_thinking": True}],
    "granitemoe": [
        {"documents": [{"title": "a", "text": "b & <c>"}, {"text": "é"}]},
        {"controls": {"length": "long"}},
    ],
    "minimax_m2": [{"model_identity": "I."}],
    "qwen3": [{"enable_thinking": False}],
}
"""What a family's template reads besides messages and tools."""

STRICTER = ("drops", "does not read", "must be text")
"""What is refused here and ignored there."""


@pytest.fixture(scope="module")
def both():
    """Our tokenizer and transformers', of nothing but their special tokens."""
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **ENDS)
    return Tokenizer(backend, special_tokens=ENDS), theirs


def check(both, source: str, messages, options) -> str:
    """How the two agree: "equal", "refused" by both, or "stricter" here."""
    ours, theirs = both
    given = {"add_generation_prompt": True} | options
    plain = messages
    if not reads_parts(source):  # transformers would raise
        plain = [joined_parts(message) for message in messages]
    try:
        expected = theirs.apply_chat_template(
            plain, chat_template=source, tokenize=False, **given
        )
    except Exception:  # whatever the template raises
        with pytest.raises(ValueError, match="|".join(("refuses", *STRICTER))):
            ours.render_chat(messages, chat_template=source, **given)
        return "refused"
    try:
        found = ours.render_chat(messages, chat_template=source, **given)
    except ValueError as error:
        assert any(words in str(error) for words in STRICTER), error
        return "stricter"
    assert found == expected
    return "equal"


def check_all(both, name: str, source: str) -> None:
    """Every chat with every option; most of them are rendered."""
    found = Counter(
        check(both, source, messages, options)
        for messages in ALL_CHATS.values()
        for options in (*COMMON, *OPTIONS.get(name, ()))
    )
    assert found["equal"] >= 20, found


@pytest.mark.parametrize("family", TEMPLATES)
def test_families_idioms_are_rendered_as_transformers_does(both, family):
    """A model would be asked in other words than it was trained on."""
    assert family in FAMILIES
    check_all(both, family, TEMPLATES[family])


def test_released_templates(both, shared_data):
    """What we wrote down of a template would not be what it does."""
    for path in sorted(shared_data("chat-templates").glob("*.jinja")):
        check_all(both, path.stem, path.read_text("utf-8"))
