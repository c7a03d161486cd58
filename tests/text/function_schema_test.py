"""Python functions as tools have the schema that transformers gives them."""

from enum import Enum
from typing import Literal

import pytest

from jaxmoe.text.function_schema import function_schema


class Unit(Enum):
    """A choice."""

    metre = "m"
    foot = "ft"


def measure(
    what: str,
    unit: Unit,
    tags: list[str],
    size: int | None = None,
    mode: Literal["a", "b"] = "a",
    rest: dict[str, float] | None = None,
) -> float:
    """Measures a thing.

    Args:
        what: the thing, which may
            take two lines
        unit: of the result
        tags: any
        size: how large (choices: [1, 2])
        mode: of two
        rest: more

    Returns:
        The measure.
    """
    return 0.0


WANTED = {
    "name": "measure",
    "description": "Measures a thing.",
    "parameters": {
        "type": "object",
        "properties": {
            "what": {
                "type": "string",
                "description": "the thing, which may take two lines",
            },
            "unit": {
                "type": "string",
                "enum": ["m", "ft"],
                "description": "of the result",
            },
            "tags": {
                "type": "array",
                "items": {"type": "string"},
                "description": "any",
            },
            "size": {
                "type": "integer",
                "nullable": True,
                "enum": [1, 2],
                "description": "how large",
            },
            "mode": {"type": "string", "enum": ["a", "b"], "description": "of two"},
            "rest": {
                "type": "object",
                "additionalProperties": {"type": "number"},
                "nullable": True,
                "description": "more",
            },
        },
        "required": ["what", "unit", "tags"],
    },
    "return": {"type": "number", "description": "The measure."},
}


def test_schema():
    """A model would be told of another function."""
    assert function_schema(measure) == {"type": "function", "function": WANTED}


def undocumented(a: int):  # noqa: D103
    return a


def unhinted(a):
    """Adds.

    Args:
        a: one
    """
    return a


def undescribed(a: int):
    """Adds."""
    return a


def odd(a: complex):
    """Adds.

    Args:
        a: one
    """
    return a


@pytest.mark.parametrize("function", [undocumented, unhinted, undescribed, odd])
def test_what_has_no_schema_is_refused(function):
    """A model would be told half."""
    with pytest.raises(ValueError, match=function.__name__):
        function_schema(function)
