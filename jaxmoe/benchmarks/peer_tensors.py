"""The subject's weights under the names that they have in Hugging Face checkpoints."""

from collections.abc import Iterator, Set
from typing import NamedTuple

import jax

from jaxmoe.benchmarks.subject import Subject
from jaxmoe.checkpoints.plan import expand, order_of
from jaxmoe.families.registry import family_of
from jaxmoe.nn.segments import stored_names


class Part(NamedTuple):
    """A run of a parameter's elements that is a tensor, or rows of one.

    start: where it begins in the parameter. order: its place among the runs of a tensor
    that several parameters hold.
    """

    name: str
    shape: tuple[int, ...]
    start: int
    order: int


def named_parts(
    subject: Subject, names: Set[str]
) -> Iterator[tuple[jax.Array, list[Part]]]:
    """Each parameter, and what of it are tensors called `names`: runs of elements.

    By the converter's rules. They know several names for the same weights; who asks
    says which it wants.
    """
    for param, array in _unstacked(subject):
        yield (
            array,
            [
                Part(*found, order_of(rule, param))
                for rule in family_of(subject.config).tensors
                for found in expand(rule, param, array.shape)
                if found[0] in names
            ],
        )


def _unstacked(subject: Subject) -> Iterator[tuple[str, jax.Array]]:
    """Every parameter as it is stored, cut out of stacks of layers."""
    for name, array in subject.params.items():
        names = stored_names(name)
        if names == [name]:
            yield name, array
        else:
            yield from zip(names, array, strict=True)
