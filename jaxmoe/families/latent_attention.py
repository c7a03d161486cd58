"""Reads a `LatentConfig` from a config.json with DeepSeek's names of its widths."""

from dataclasses import replace
from functools import partial
from typing import Any

from jaxmoe.config import LatentConfig, RopeConfig, RopePairs
from jaxmoe.families.attributes import POSITIVE, WEIGHT, Attributes
from jaxmoe.families.common_config import Common, read_common
from jaxmoe.families.rope import yarn_scale


def read_latent(
    a: Attributes, g: Attributes, *, pairs: RopePairs = "neighbours", **defaults: Any
) -> tuple[Common, partial[LatentConfig]]:
    """What all files have, and the mixer of every layer, built once the file is good.

    Without `q_lora_rank` queries have a latent of 1536, as in transformers; with null
    they have none. The norms of latents have an eps of their own, whatever
    `rms_norm_eps` is.

    Args:
      a: config.json.
      g: generation_config.json.
      pairs: which values of a key the rope turns together.
      defaults: as in `read_common`.
    """
    plain = a.take("qk_nope_head_dim", POSITIVE, 128)
    turned = a.take("qk_rope_head_dim", POSITIVE, 64)
    exponent = _exponent(a)
    c = read_common(a, g, head_dim=turned, **defaults)
    width = a.take("qk_head_dim", POSITIVE, plain + turned, plain + turned)
    if c.head_dim != turned:
        a.wrong("head_dim", c.head_dim, f"{turned}, as qk_rope_head_dim")
    if c.kv_heads != c.heads:
        a.wrong("num_key_value_heads", c.kv_heads, f"{c.heads}: as many as all heads")
    if width != plain + turned:
        a.wrong("qk_head_dim", width, f"{plain + turned}, both parts of a key")
    mixer = partial(
        LatentConfig,
        num_heads=c.heads,
        latent_dim=a.take("kv_lora_rank", POSITIVE, 512),
        query_latent_dim=a.take("q_lora_rank", POSITIVE, 1536, None),
        plain_dim=plain,
        rope_dim=turned,
        value_dim=a.take("v_head_dim", POSITIVE, 128),
        scale=(plain + turned) ** -0.5 * _temperature(c.rope, exponent),
        rope=replace(c.rope, pairs=pairs),
    )
    return c, mixer


def _exponent(a: Attributes) -> float:
    """`mscale_all_dim` of the rope, left for `read_rope` to take; 0 where absent."""
    rope: Any = a.left.get("rope_scaling") or a.left.get("rope_parameters")
    found = rope.get("mscale_all_dim") if isinstance(rope, dict) else None
    return found if found is not None and WEIGHT.holds(found) else 0.0


def _temperature(rope: RopeConfig, exponent: float) -> float:
    """What scores are multiplied by: YaRN's m squared, at `mscale_all_dim`.

    YaRN multiplies queries and keys by m each, through cosine and sine. Here the part
    that is not turned has to be multiplied as well.
    """
    scaled = rope.kind != "default" and exponent
    return yarn_scale(rope.factor, exponent) ** 2 if scaled else 1.0


IGNORED = {
    "training only": "aux_loss_alpha seq_aux",
    "how the original code was run": "auto_map ep_size pretraining_tp",
}
"""Names of attributes beside these that change no answer, by the reason why."""
