"""What was compared of each family with transformers: figures that tests measured.

`compared.json` is written by `tests/parity/figures.py` from the tests' own output.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jaxmoe.families.base import FLOATS, Family
from jaxmoe.files import read_object

PATH = Path(__file__).with_name("compared.json")


@dataclass(frozen=True)
class Compared:
    """Small random models of a family, in float32 on CPU.

    Attributes:
      models: How many were compared: logits, experts and 64 greedy tokens.
      logits_error: Largest difference of a logit, over the largest logit.
    """

    models: int
    logits_error: float


@functools.cache
def read_compared(path: Path = PATH) -> Mapping[str, Compared]:
    """Family -> what was compared of it; nothing of families that nobody compared."""
    return {name: Compared(**found) for name, found in read_object(path).items()}


def short(error: float) -> str:
    """A small number as 4e-7."""
    return f"{error:.0e}".replace("e-0", "e-")


def facts(family: Family) -> dict[str, str]:
    """What the tables of families say of one: sizes, weights that are read, figures."""
    names = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
    found = read_compared().get(family.name)
    if found is None:
        said = "not yet"
    else:
        said = f"{found.models} models, logits within {short(found.logits_error)}"
    return {
        "family": family.name,
        "model_type": family.model_type,
        "architectures": " ".join(family.architectures),
        "sizes for `jaxmoe plan`": " ".join(family.released) or "-",
        "weights": ", ".join([*(names[kind] for kind in FLOATS), *family.formats]),
        "compared with transformers": said,
    }
