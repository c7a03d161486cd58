"""Dataclasses as pytrees."""

from dataclasses import dataclass, field
from typing import Any

import jax

from jaxmoe.router.policies import Dropout, GumbelTopK
from jaxmoe.typing import pytree


@pytree("shape")
@dataclass(frozen=True)
class _One:
    a: Any
    shape: int = 2
    block: int = field(default=3, metadata={"static": True})
    b: Any = None


@pytree("shape")
@dataclass(frozen=True)
class _Other(_One):
    pass


def test_leaves_and_what_is_static():
    """A static number would be traced, or a leaf compiled for each value."""
    tree = _One(1.0, shape=5, b={"x": 2.0})
    leaves, structure = jax.tree.flatten(tree)
    assert leaves == [1.0, 2.0]
    assert jax.tree.unflatten(structure, [3, 4]) == _One(3, shape=5, b={"x": 4})
    assert structure != jax.tree.structure(_One(1.0, shape=6, b={"x": 2.0}))
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(tree)]
    assert paths == [".a", ".b['x']"]


def test_classes_alike_have_structures_of_their_own():
    """jit would now and then run the program of the other class."""
    assert jax.tree.structure(_One(1.0)) != jax.tree.structure(_Other(1.0))
    fit = {"k": 4, "num_experts": 16, "num_layers": 2}
    found = [
        jax.tree.structure(policy.resolve(**fit))
        for policy in (Dropout(0.4), GumbelTopK(0.4))
    ]
    assert found[0] != found[1]
