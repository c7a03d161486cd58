"""The architectures that can be converted."""

from convert.qwen3_moe import QWEN3_MOE
from convert.rules import Family

FAMILIES: dict[str, Family] = {family.name: family for family in (QWEN3_MOE,)}
"""`ModelConfig.family` -> its tables. A new family adds its file and a name here."""
