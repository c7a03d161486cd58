"""The model families: another one adds its file and a name here."""

from collections.abc import Mapping
from typing import Any

from jaxmoe.config import Fp8Weights, ModelConfig
from jaxmoe.families.bailing_moe import BAILING_MOE, BAILING_MOE_V2
from jaxmoe.families.base import Family
from jaxmoe.families.deepseek_v2 import DEEPSEEK_V2
from jaxmoe.families.deepseek_v3 import DEEPSEEK_V3, KIMI_K2
from jaxmoe.families.dots1 import DOTS1
from jaxmoe.families.ernie4_5_moe import ERNIE4_5_MOE
from jaxmoe.families.fp8 import with_scales
from jaxmoe.families.glm4_moe import GLM4_MOE
from jaxmoe.families.glm4_moe_lite import GLM4_MOE_LITE
from jaxmoe.families.gpt_oss import GPT_OSS
from jaxmoe.families.granitemoe import GRANITEMOE, GRANITEMOESHARED
from jaxmoe.families.minimax_m2 import MINIMAX_M2
from jaxmoe.families.mixtral import MIXTRAL
from jaxmoe.families.olmoe import OLMOE
from jaxmoe.families.qwen2_moe import QWEN2_MOE
from jaxmoe.families.qwen2_prm import QWEN2_PRM
from jaxmoe.families.qwen3_5_moe import QWEN3_5_MOE
from jaxmoe.families.qwen3_moe import QWEN3_MOE
from jaxmoe.families.qwen3_next import QWEN3_NEXT
from jaxmoe.families.qwen_dense import QWEN2, QWEN3

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        QWEN3_MOE,
        OLMOE,
        GPT_OSS,
        QWEN3_NEXT,
        QWEN3_5_MOE,
        DEEPSEEK_V2,
        DEEPSEEK_V3,
        KIMI_K2,
        BAILING_MOE,
        BAILING_MOE_V2,
        GLM4_MOE,
        GLM4_MOE_LITE,
        QWEN2_MOE,
        QWEN3,
        QWEN2,
        QWEN2_PRM,
        DOTS1,
        ERNIE4_5_MOE,
        MINIMAX_M2,
        GRANITEMOE,
        GRANITEMOESHARED,
        MIXTRAL,
    )
}
"""`Family.name`, which is `ModelConfig.family` -> the family."""


def family_of(config: ModelConfig) -> Family:
    """The family of a config that was read here, its tensors as its weights are held.

    Raises:
      ValueError: a name that is none of `FAMILIES`.
    """
    if config.family not in FAMILIES:
        raise ValueError(
            f"the family must be one of {', '.join(FAMILIES)}, found "
            f"{config.family!r}; this package runs no other architecture"
        )
    family = FAMILIES[config.family]
    if isinstance(config.weights, Fp8Weights):
        return with_scales(family, config.weights)
    return family


def find_family(config: Mapping[str, Any]) -> Family:
    """The family that a config.json is of.

    By `model_type`, for which some write the family's name. Where several families
    share it, `architectures` decides; where one has it alone, its parser checks
    `architectures` with all else.

    Raises:
      ValueError: a model_type or an architecture of no family; the known ones.
    """
    model_type = config.get("model_type")
    found = [f for f in FAMILIES.values() if model_type in (f.model_type, f.name)]
    if not found:
        known = dict.fromkeys(family.model_type for family in FAMILIES.values())
        raise ValueError(
            f"model_type in config.json must be one of {', '.join(known)}, found "
            f"{model_type!r:.80}; this package runs no other architecture"
        )
    if len(found) == 1:
        return found[0]
    names = config.get("architectures")
    stated = names if isinstance(names, list) else []
    meant = [f for f in found if any(name in f.architectures for name in stated)]
    if len(meant) == 1:
        return meant[0]
    known = [name for family in found for name in family.architectures]
    raise ValueError(
        f"architectures in config.json of model_type {model_type!r} must name one of "
        f"{', '.join(known)}, found {names!r:.80}; take the file released with the "
        "weights"
    )


def byte_level_pattern(tokenizer_class: Any) -> str | None:
    """How tokenizers of a class cut text (`Family.byte_level`); None where unknown."""
    patterns: dict[Any, str] = {}
    for family in FAMILIES.values():
        patterns |= family.byte_level
    return patterns.get(tokenizer_class) if isinstance(tokenizer_class, str) else None


def released_config(size: str) -> dict[str, Any] | None:
    """config.json values of the released model called `size`, such as "30b"."""
    for family in FAMILIES.values():
        if size in family.released:
            return dict(family.released[size])
    return None
