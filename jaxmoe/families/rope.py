"""Reads a `RopeConfig` from `rope_scaling` or `rope_parameters` of a config.json."""

import math
import warnings
from dataclasses import replace

from jaxmoe.config import RopeConfig, RopeKind
from jaxmoe.families.attributes import (
    FACTOR,
    FLAG,
    MASS,
    OBJECT,
    POSITIVE,
    REAL,
    THETA,
    WEIGHT,
    Attributes,
    Kind,
    quote,
)

ROPES = ("default", "linear", "dynamic", "yarn")
ROPE = Kind(f"one of {', '.join(ROPES)}", lambda x: x in ROPES, "default")
ROPE_UNREAD = (
    "factor original_max_position_embeddings attention_factor beta_fast beta_slow "
    "mscale mscale_all_dim truncate short_factor long_factor low_freq_factor "
    "high_freq_factor"
)
"""Rope attributes that some rope type reads; the others warn and go on."""


def read_rope(
    a: Attributes,
    max_length: int,
    *,
    theta: float = 10_000.0,
    head_dim: int | None = None,
    partial: float = 1.0,
) -> RopeConfig:
    """`rope_scaling` or `rope_parameters`, in the old and the new spelling.

    Args:
      a: config.json.
      max_length: `max_position_embeddings`.
      theta: the family's own, where the file has none.
      head_dim: of a family that may turn a part of a head's coordinates only: then
        `partial_rotary_factor` says which part, beside the rope or in it.
      partial: the family's own part, where the file has none.
    """
    theta = a.take("rope_theta", THETA, theta)
    if head_dim is not None:
        partial = a.take("partial_rotary_factor", MASS, partial, partial)
    outer_length = a.take("original_max_position_embeddings", POSITIVE, None, None)
    old = a.take("rope_scaling", OBJECT, {}, {})
    new = a.take("rope_parameters", OBJECT, {}, {})
    if old and new and old != new and not a.report.wrong:
        # transformers 5 takes all of `rope_scaling`, and nothing of the other.
        warnings.warn(
            f"config.json has rope_scaling = {quote(old)}, which counts, and "
            f"rope_parameters = {quote(new)}, which does not, here as in transformers; "
            "rope_theta is that in rope_scaling, or beside it, or 10000",
            UserWarning,
            stacklevel=2,
        )
    prefix = "rope_scaling." if old else "rope_parameters."
    r = Attributes(old or new, a.report, prefix)
    kind = r.take("rope_type", ROPE, r.take("type", ROPE, "default"))
    theta = r.take("rope_theta", THETA, theta)
    if head_dim is not None:
        partial = r.take("partial_rotary_factor", MASS, partial, partial)
    if kind == "yarn":
        rope = _yarn(r, theta, max_length, outer_length)
    elif kind == "default":
        rope = RopeConfig(theta)
    else:
        length = max_length if kind == "dynamic" else 0
        rope = RopeConfig(theta, kind, r.take("factor", FACTOR), length)
    if outer_length and kind != "yarn":
        r.left["original_max_position_embeddings"] = outer_length
    _account_for_rope(r, kind)
    width = None if head_dim is None else int(head_dim * partial)
    return rope if width == head_dim else replace(rope, width=width)


def _yarn(
    r: Attributes, theta: float, max_length: int, outer_length: int | None
) -> RopeConfig:
    length = r.take("original_max_position_embeddings", POSITIVE, max_length)
    length = outer_length or length
    factor = r.take("factor", FACTOR, null=max(1.0, max_length / length))
    scale = r.take("attention_factor", REAL, None, None)
    mscale = r.take("mscale", WEIGHT, 0.0, 0.0)
    mscale_all = r.take("mscale_all_dim", WEIGHT, 0.0, 0.0)
    if scale is None and mscale and mscale_all:
        scale = yarn_scale(factor, mscale) / yarn_scale(factor, mscale_all)
    return RopeConfig(
        theta,
        "yarn",
        factor,
        length,
        yarn_scale(factor, 1.0) if scale is None else scale,
        r.take("beta_fast", WEIGHT, 32.0, 32.0) or 32.0,
        r.take("beta_slow", WEIGHT, 1.0, 1.0) or 1.0,
        r.take("truncate", FLAG, True),
    )


def yarn_scale(factor: float, weight: float) -> float:
    """0.1 w ln(factor) + 1: what YaRN multiplies attention by (its equation 22)."""
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0


def _account_for_rope(r: Attributes, kind: RopeKind):
    unread = [
        name for name in ROPE_UNREAD.split() if r.left.pop(name, None) is not None
    ]
    if unread and not r.report.wrong:
        warnings.warn(
            f"rope type {kind!r} does not read {', '.join(unread)}, here as in "
            f"transformers; check {r.prefix}rope_type in config.json",
            UserWarning,
            stacklevel=2,
        )
    r.report.unsupported += r.rest(set(), {"partial_rotary_factor": 1.0})


def context_length(rope: RopeConfig, max_length: int) -> int:
    """The longest sequence that the rope is meant for.

    `max_position_embeddings`; times the factor for linear and dynamic; for YaRN the
    larger of it and `original_max_position_embeddings` times the factor.
    """
    if rope.kind in ("linear", "dynamic"):
        return int(max_length * rope.factor)
    return max(max_length, int(rope.original_length * rope.factor))
