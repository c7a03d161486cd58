"""Shapes of models by name, without their weights."""

from pathlib import Path

from jaxmoe.checkpoints.bundled import BUNDLED
from jaxmoe.config import ModelConfig
from jaxmoe.families.config_json import from_hf, load_hf_config
from jaxmoe.families.registry import FAMILIES, released_config


def config_of(model: str) -> ModelConfig:
    """The shapes of a model: a released size, "demo", or a config.json.

    Args:
      model: a released size such as "30b", "demo", a checkpoint directory, or its
        config.json.

    Raises:
      ValueError: none of these, or a config.json of no known family.
    """
    if (released := released_config(model)) is not None:
        return from_hf(released)
    path = BUNDLED.get(model, Path(model))
    if not path.exists():
        sizes = [size for family in FAMILIES.values() for size in family.released]
        known = ", ".join([*sizes, *BUNDLED])
        raise ValueError(
            f"the model must be {known}, a checkpoint directory or its config.json, "
            f"found {model!r}; choose one of these"
        )
    return load_hf_config(path if path.is_dir() else path.parent)
