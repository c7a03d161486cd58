"""Options from dataclasses."""

import argparse
from dataclasses import dataclass, field

import numpy as np
import pytest

from jaxmoe.cli.fields import add_field, fields_of, given, help_of
from jaxmoe.decode.sampler import TokenSampler
from jaxmoe.demo.recipe import Recipe
from jaxmoe.planning import Load
from jaxmoe.router.policies import POLICIES, TopK
from jaxmoe.typing import ArrayLike


@dataclass(frozen=True)
class Made:
    """Numbers of all kinds.

    width_of: how wide, 50 % say; None for
      the model's. tau, mass: two at once; None or 0 for none. name: of it.
    own: not a user's.
    """

    width_of: int | None = None
    tau: ArrayLike = 1.0
    mass: ArrayLike | None = None
    name: str = ""
    own: int = field(default=0, metadata={"derived": True})


def parsed(*argv: str) -> argparse.Namespace:
    """The arguments of a command with an option for each field of `Made`."""
    parser = argparse.ArgumentParser()
    for name in fields_of(Made):
        add_field(parser, Made, name)
    parser.format_help()
    return parser.parse_args(argv)


def test_fields_become_options():
    """A policy's new number would have no option, or be read as another type."""
    args = parsed("--width-of", "3", "--tau", "0.5,2", "--name", "a b")
    found = given(args, [*fields_of(Made)])
    assert set(found) == {"width_of", "tau", "name"}
    assert found["width_of"] == 3 and type(found["width_of"]) is int
    assert found["name"] == "a b"
    np.testing.assert_array_equal(found["tau"], np.float32([0.5, 2]))
    assert given(parsed("--mass", "0.25"), ["mass"]) == {"mass": 0.25}
    assert not hasattr(args, "own")


def test_numbers_that_are_none():
    """A slip would reach the model as something else."""
    for argv in (["--width-of", "1.5"], ["--tau", "much"], ["--own", "1"]):
        with pytest.raises(SystemExit) as ended:
            parsed(*argv)
        assert ended.value.code == 2


def test_help_is_the_docstring():
    """Help would say something else than the documentation, or break on a %."""
    assert help_of(Made) == {
        "width_of": "how wide, 50 %% say; default: the model's",
        "tau": "two at once; 0 for none",
        "mass": "two at once; 0 for none",
        "name": "of it",
        "own": "not a user's",
    }


@pytest.mark.parametrize("cls", [*POLICIES.values(), TokenSampler, Recipe, Load])
def test_every_option_is_explained(cls):
    """An option would stand in --help without a word."""
    said = help_of(cls)
    assert not [name for name in fields_of(cls) if not said.get(name)]


def test_derived_fields_are_no_options():
    """A user could set what `resolve` computes."""
    assert [*fields_of(TopK)] == ["k"]
    assert "candidates" not in fields_of(TokenSampler)
