"""What models are told: the field's common wordings, and how a row gets into one."""

import ast
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

# The sentence that the model cards of Qwen3 and DeepSeek-R1 ask for with mathematics.
# The blank line before it is ours; the cards leave it open.
BOXED = r"""{problem}

Please reason step by step, and put your final answer within \boxed{}."""

TAGGED = """\
{question}

Please reason step by step, and give your final answer within <answer> and </answer>."""
"""For questions of reasoning-gym, whose own prompts ask for these tags too."""

AIME = BOXED
"""AIME answers are integers, which the problems themselves say."""

MATH = BOXED

# The wording of OpenAI's simple-evals (MIT licence) for GPQA and MMLU. There the
# letters are always ABCD and every choice has a field of its own.
CHOICE = """\
Answer the following multiple choice question. The last line of your response should \
be of the following format: 'Answer: $LETTER' (without quotes) where LETTER is one of \
{letters}. Think step by step before answering.

{question}

{choices}"""

EXACT = "{prompt}"
"""The row's own words and nothing else: what form an answer has is said there."""


def fill(
    template: str, values: Mapping[str, str], *, optional: frozenset[str] = frozenset()
) -> str:
    r"""Puts each value where its name stands in braces; all else stays as it is.

    Braces are LaTeX's too, so "\boxed{}" and "{x}" are left alone, "{{" is no escape,
    and what comes in with a value is not looked at again.

    Args:
      values: name -> text.
      optional: names that the template may leave out.

    Raises:
      ValueError: the template lacks a name, so that part of the problem would never
        be put to the model.
    """
    missing = [n for n in values if n not in optional and f"{{{n}}}" not in template]
    if missing:
        raise ValueError(
            f"the template should hold {_in_braces(list(values))}, found none of "
            f"{_in_braces(missing)}; write each where its text belongs"
        )
    names = "|".join(map(re.escape, values))
    return re.sub(rf"\{{({names})\}}", lambda found: values[found[1]], template)


def text_of(row: Mapping[str, Any], *names: str) -> str:
    """The text of the first of these fields that the row has.

    Raises:
      ValueError: it has none of them, or one that is no text or only blanks.
    """
    value = value_of(row, *names)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(
            f'expected text in the field "{names[0]}", found {shown(value)}; write the '
            "text there"
        )
    return value


def value_of(row: Mapping[str, Any], *names: str) -> Any:
    """The value of the first of these fields that the row has, null only if all are.

    Raises:
      ValueError: it has none of them.
    """
    given = [row[name] for name in names if name in row]
    if given:
        return next((value for value in given if value is not None), None)
    wanted = " or ".join(f'"{name}"' for name in names)
    found = shown(", ".join(f'"{name}"' for name in row) or "none").strip("'")
    raise ValueError(f"expected a field {wanted}, found {found}; add it")


def from_cell(value: Any) -> Any:
    """A list or object that a cell of a table holds as text, JSON or Python's; or it.

    >>> from_cell("['a', 'b']")
    ['a', 'b']
    """
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value
    for read in (json.loads, _python_list):
        with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            return read(value)
    return value


_TEXT = r"(?P<text>'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")"
_NEXT = re.compile(rf"{_TEXT}(?P<gap>\s+(?=['\"]))?")
_ARRAY = re.compile(rf"{_TEXT}|array\((?=\[)|(?P<end>\])\s*(?:,\s*dtype=\w+\s*)?\)")


def _python_list(value: str) -> Any:
    """A list as Python writes it, or NumPy, which leaves the commas out: "['a' 'b']".

    To Python that is one text, 'ab'.
    """
    value = _NEXT.sub(lambda f: f["text"] + ("," if f["gap"] else ""), value)
    if "array(" in value:
        value = _ARRAY.sub(lambda f: f["text"] or f["end"] or "", value)
    return ast.literal_eval(value)


def shown(value: Any) -> str:
    """A value as an error shows it, cut off where it is long."""
    try:
        text = repr(value[:200]) if isinstance(value, str | list) else repr(value)
    except (RecursionError, ValueError):  # nested too deeply, an endless integer
        return f"a {type(value).__name__} that is too large to show"
    return text if len(text) <= 80 else f"{text[:77]}..."


def after_hashes(answer: Any) -> Any:
    """The part of a GSM8K answer that counts, which stands behind "####"."""
    if isinstance(answer, str) and "####" in answer:
        return answer.rpartition("####")[2].strip()
    return answer


def _in_braces(names: list[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in names)
