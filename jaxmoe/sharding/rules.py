"""Over which mesh axes each dimension of weights, caches and rows is divided.

The only file that names mesh axes.

Every dimension of every weight, cache and state is a *logical axis*. `Rules` say over
which mesh axes each of the few that can be divided is divided; presets make rules for a
mesh of the axes `data` and `model`:

    preset       slots        heads, vocab, mlp   experts             inside experts
    data         data, model
    tensor       data         model                                   model
    expert                    data, model         data, model
    data-expert  data         model               data, model
    auto         data         model               data, model as    the other
                                                  far as they       axes
                                                  divide

A mesh axis of size 1 divides nothing. What does not divide a model is refused
(`check_rules`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal, get_args

DATA, MODEL = "data", "model"
"""The mesh axes that presets know."""

LOGICAL_AXES = (
    "vocab",
    "label",
    "embed",
    "heads",
    "kv_heads",
    "head_dim",
    "latent",
    "query_gate",
    "key_heads",
    "value_heads",
    "conv",
    "mlp",
    "router",
    "experts",
    "expert_mlp",
    "gate_up",
    "block",
)
"""Every dimension of every weight is one of these (`nn.decoder.logical_axes`)."""

Preset = Literal["auto", "data", "tensor", "expert", "data-expert"]

_Axes = tuple[str, ...]


@dataclass(frozen=True)
class Rules:
    """Mesh axes over which each logical axis is divided; () leaves it whole.

    slots: samples under way, and with them rows of activations and suffix caches.
    heads: query heads, and with them key-value heads of caches. kv_heads: key-value
    heads of weights: as heads, or () where a head is needed on several devices.
    key_heads: heads of recurrent mixers, and with them their states: as heads, or ()
    where they do not divide, and every device computes them all.
    vocab: rows of embedding and head. mlp: hidden units of dense layers.
    experts: whole experts. expert_mlp: hidden units inside experts.
    """

    slots: _Axes = ()
    heads: _Axes = ()
    kv_heads: _Axes = ()
    key_heads: _Axes = ()
    vocab: _Axes = ()
    mlp: _Axes = ()
    experts: _Axes = ()
    expert_mlp: _Axes = ()

    def __post_init__(self):
        for name in ("heads", "vocab", "mlp"):
            _refuse_overlap(self, "slots", name)
        _refuse_overlap(self, "experts", "expert_mlp")
        for name in ("kv_heads", "key_heads"):
            if self.of(name) not in ((), self.heads):
                raise ValueError(
                    f"rules: {name} must be () or as heads, {self.heads}, found "
                    f"{self.of(name)}"
                )

    def of(self, logical: str | None) -> _Axes:
        """Mesh axes of one logical axis; () for those that are never divided."""
        return getattr(self, logical, ()) if logical else ()

    @property
    def mesh_axes(self) -> _Axes:
        """All mesh axes that are used."""
        used = [axis for field in fields(self) for axis in getattr(self, field.name)]
        return tuple(dict.fromkeys(used))


def _refuse_overlap(rules: Rules, one: str, other: str):
    both = set(rules.of(one)) & set(rules.of(other))
    if both:
        raise ValueError(
            f"rules: {one} and {other} must lie on different mesh axes, found "
            f"{', '.join(sorted(both))} in both; give each axis to one of them"
        )


def rules_for(
    preset: Preset, shape: Mapping[str, int], sizes: Mapping[str, Sequence[int]]
) -> Rules:
    """The rules that a preset means on a mesh of this shape (axis -> size).

    Key-value heads that are fewer than the devices, and key heads or a vocabulary that
    do not divide, are repeated; the rest is checked by `check_rules`.

    Raises:
      ValueError: no such preset; mesh axes other than `data` and `model`.
    """
    if preset not in get_args(Preset):
        raise ValueError(
            f"rules must be one of {', '.join(get_args(Preset))}, or a "
            f"jaxmoe.mesh.Rules, found {preset!r}"
        )
    strange = [axis for axis in shape if axis not in (DATA, MODEL)]
    if strange:
        raise ValueError(
            f"rules={preset!r} needs mesh axes named {DATA} and {MODEL}, found "
            f"{', '.join(strange)}; name them so, or pass a jaxmoe.mesh.Rules"
        )
    data, model = (tuple(a for a in (n,) if shape.get(a, 1) > 1) for n in (DATA, MODEL))
    every = data + model
    if preset == "data":
        return Rules(slots=every)
    inner = every if preset == "expert" else model
    count = math.prod(shape[axis] for axis in inner)
    common = {
        "slots": () if preset == "expert" else data,
        "heads": inner,
        "kv_heads": inner if _divides(sizes, "kv_heads", count) else (),
        "key_heads": inner
        if "key_heads" in sizes and _divides(sizes, "key_heads", count)
        else (),
        "vocab": inner if _divides(sizes, "vocab", count) else (),
        "mlp": inner if "mlp" in sizes else (),
    }
    if "experts" not in sizes:
        return Rules(**common)
    if preset == "tensor":
        return Rules(**common, expert_mlp=model)
    if preset == "auto":
        whole, inside = _share(every, shape, sizes)
        return Rules(**common, experts=whole, expert_mlp=inside)
    return Rules(**common, experts=every)


def _divides(sizes: Mapping[str, Sequence[int]], logical: str, count: int) -> bool:
    return all(size % count == 0 for size in sizes.get(logical, ()))


def _share(
    axes: _Axes, shape: Mapping[str, int], sizes: Mapping[str, Sequence[int]]
) -> tuple[_Axes, _Axes]:
    """Mesh axes for whole experts as far as they divide; the rest for their insides."""
    whole: list[str] = []
    for axis in axes:
        count = math.prod(shape[a] for a in whole) * shape[axis]
        if _divides(sizes, "experts", count):
            whole.append(axis)
    return tuple(whole), tuple(axis for axis in axes if axis not in whole)


def check_rules(
    rules: Rules, shape: Mapping[str, int], sizes: Mapping[str, Sequence[int]]
) -> None:
    """Raises a ValueError that names all that does not divide, and what would."""
    wrong = []
    for logical in _NAMES:
        count = math.prod(shape[axis] for axis in rules.of(logical))
        wrong += [
            f"{size} {_NAMES[logical]} over {count} devices "
            f"({' x '.join(rules.of(logical))}); nearest: {_nearest(size, count)}"
            for size in sizes.get(logical, ())
            if size % count
        ]
    heads = math.prod(shape[axis] for axis in rules.heads)
    if not rules.kv_heads:
        wrong += [
            f"{size} key-value heads over {heads} devices, each with a head or more of "
            f"its own, or several with one; nearest: {_nearest_either(size, heads)}"
            for size in sizes.get("kv_heads", ())
            if heads % size and size % heads
        ]
        wrong += [
            f"{size} key-value heads over {heads} devices are whole on each; pass "
            "kv_heads=heads"
            for size in sizes.get("kv_heads", ())
            if 1 < heads < size and size % heads == 0
        ]
    if wrong:
        raise ValueError(
            "the model does not divide over the mesh "
            + " x ".join(f"{axis}={size}" for axis, size in shape.items())
            + ":\n  "
            + "\n  ".join(wrong)
            + "\nmake a mesh of another shape, or choose other rules"
        )


_NAMES = {
    "heads": "query heads",
    "kv_heads": "key-value heads",
    "key_heads": "key heads of recurrent mixers",
    "vocab": "tokens of the vocabulary",
    "mlp": "hidden units of dense layers",
    "experts": "experts",
    "expert_mlp": "hidden units of an expert (in MXFP4 blocks of 32)",
}


def _nearest(size: int, count: int) -> str:
    """Divisors of `size` on both sides of `count`."""
    divisors = [n for n in range(1, size + 1) if size % n == 0]
    below = [n for n in divisors if n < count][-1:]
    above = [n for n in divisors if n > count][:1]
    return " or ".join(map(str, below + above))


def _nearest_either(size: int, count: int) -> str:
    """Divisors or multiples of `size` on both sides of `count`."""
    fits = lambda n: size % n == 0 or n % size == 0  # noqa: E731
    below = next(n for n in range(count - 1, 0, -1) if fits(n))
    above = next(n for n in range(count + 1, 2 * count + size) if fits(n))
    return f"{below} or {above}"
