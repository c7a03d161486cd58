"""Reads a `LatentConfig` from a config.json with DeepSeek's names of its widths."""

from dataclasses import replace
from functools import partial
from typing import Any

from jaxmoe.config import LatentConfig, RopeConfig, RopePairs
from jaxmoe.families.attributes import POSITIVE, WEIGHT, Attributes
from jaxmoe.families.rope import read_rope, yarn_scale


def read_latent_attention(
    a: Attributes, max_length: int, pairs: RopePairs
) -> tuple[partial[LatentConfig], RopeConfig]:
    """The mixer of every layer, built once the whole file is known to be good.

    Without `q_lora_rank` queries have a latent of 1536, as in transformers; with null
    they have none. The norms of latents have an eps of their own, whatever
    `rms_norm_eps` is.
    """
    heads = a.take("num_attention_heads", POSITIVE)
    plain = a.take("qk_nope_head_dim", POSITIVE, 128)
    turned = a.take("qk_rope_head_dim", POSITIVE, 64)
    _repeats(a, "num_key_value_heads", heads, "every head has its own key and value")
    _repeats(a, "head_dim", turned, "qk_rope_head_dim")
    _repeats(a, "qk_head_dim", plain + turned, "qk_nope_head_dim + qk_rope_head_dim")
    exponent = _exponent(a)
    rope = replace(read_rope(a, max_length), pairs=pairs)
    mixer = partial(
        LatentConfig,
        num_heads=heads,
        latent_dim=a.take("kv_lora_rank", POSITIVE, 512),
        query_latent_dim=a.take("q_lora_rank", POSITIVE, 1536, None),
        plain_dim=plain,
        rope_dim=turned,
        value_dim=a.take("v_head_dim", POSITIVE, 128),
        scale=(plain + turned) ** -0.5 * _temperature(rope, exponent),
        rope=rope,
    )
    return mixer, rope


def _repeats(a: Attributes, name: str, value: int, why: str):
    """Notes an attribute that repeats others where it contradicts them."""
    if (found := a.take(name, POSITIVE, value, value)) != value:
        a.wrong(name, found, f"{value}: {why}")


def _exponent(a: Attributes) -> float:
    """`mscale_all_dim` of the rope, left for `read_rope` to take; 0 where absent."""
    rope: Any = a.left.get("rope_scaling") or a.left.get("rope_parameters")
    found = rope.get("mscale_all_dim") if isinstance(rope, dict) else None
    return found if found is not None and WEIGHT.holds(found) else 0.0


def _temperature(rope: RopeConfig, exponent: float) -> float:
    """What DeepSeek multiplies scores by: YaRN's m squared, at `mscale_all_dim`.

    YaRN multiplies queries and keys by m each, through cosine and sine. Here the part
    that is not turned has to be multiplied as well.
    """
    scaled = rope.kind == "yarn" and exponent
    return yarn_scale(rope.factor, exponent) ** 2 if scaled else 1.0
