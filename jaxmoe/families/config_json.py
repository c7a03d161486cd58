"""Reads a `ModelConfig` from a Hugging Face `config.json`.

Each attribute of the file is honoured as transformers honours it, is ignored by name
(it changes no answer), or has the one value that this code implements. Anything else
refuses, all of it in one error. Absent attributes take transformers' defaults, save
for the shapes, which must be stated.
"""

import copy
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxmoe.config import ModelConfig
from jaxmoe.families.attributes import Attributes, Report, quote
from jaxmoe.families.fp8 import quantised, take_quantisation
from jaxmoe.families.generation import FILE, GENERATION_SETTINGS
from jaxmoe.families.registry import find_family
from jaxmoe.files import read_object


def from_hf(
    config: dict[str, Any], generation: dict[str, Any] | None = None
) -> ModelConfig:
    """The `ModelConfig` that a Hugging Face configuration describes.

    Args:
      config: the object in `config.json`.
      generation: the object in `generation_config.json`. Where there is none,
        generation settings in `config.json` count, as they do in transformers.

    Raises:
      ValueError: an unknown `model_type`, or everything in `config` that is missing,
        of the wrong type, or not implemented, in one message.

    Warns:
      UserWarning: generation settings that change answers and have no effect here;
        token ids outside the vocabulary; rope settings that the rope type ignores.
    """
    family = find_family(config)
    report, file = Report(), FILE
    if generation is None:
        generation = {n: config[n] for n in GENERATION_SETTINGS if n in config}
        file = "config.json"
    a = Attributes(config, report)
    quantisation = take_quantisation(a)
    found = family.read_config(
        a, Attributes(generation, report, "generation_config ", file)
    )
    return found if quantisation is None else quantised(found, family, quantisation)


def load_hf_config(
    directory: Path,
    overrides: Mapping[str, Any] | None = None,
    ignore: Sequence[str] = (),
) -> ModelConfig:
    """Reads `config.json`, and `generation_config.json` if it is there.

    overrides, ignore: as in `changed`.

    Raises:
      FileNotFoundError: no such directory, or no `config.json` in it.
      ValueError: a file that is not a JSON object, or as `from_hf`; names the path.

    Warns:
      UserWarning: a `generation_config.json` that cannot be read: then there is none.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise FileNotFoundError(
            f"expected a directory with config.json, found none at {directory}"
        )
    config = changed(_read_object(directory / "config.json"), overrides, ignore)
    path = directory / "generation_config.json"
    generation = _read_defaults(path) if path.exists() else None
    try:
        return from_hf(config, generation)
    except ValueError as error:
        raise ValueError(f"{directory}: {error}") from None


def changed(
    config: dict[str, Any],
    overrides: Mapping[str, Any] | None = None,
    ignore: Sequence[str] = (),
) -> dict[str, Any]:
    """`config` with other values, and without some.

    Args:
      config: the object in `config.json`.
      overrides: name -> value; "rope_scaling.factor" is the factor in rope_scaling.
      ignore: names to leave out.

    Raises:
      ValueError: a name to leave out that is not there, or a dot that leads into
        something else than an object.
    """
    config = copy.deepcopy(config)
    for name, value in as_overrides(overrides).items():
        inner, last = _owner(config, name, make=True)
        inner[last] = value
    for name in as_names(ignore):
        inner, last = _owner(config, name)
        if last not in inner:
            raise ValueError(
                f"config.json has no {name!r} to ignore; it has {', '.join(inner)}"
            )
        del inner[last]
    return config


def as_overrides(overrides: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Values of config.json to replace, none for None; a TypeError for what is none."""
    if overrides is None:
        return {}
    if not isinstance(overrides, Mapping) or not _are_texts(overrides):
        raise TypeError(
            "overrides must map names in config.json to values, such as "
            f'{{"num_experts_per_tok": 4}}, found {overrides!r:.80}'
        )
    return overrides


def as_names(ignore: Iterable[str] | None) -> tuple[str, ...]:
    """Names in config.json to leave out; a TypeError for what are none."""
    if ignore is None:
        return ()
    names = tuple(ignore) if isinstance(ignore, Iterable) else (ignore,)
    if isinstance(ignore, str) or not _are_texts(names):
        raise TypeError(
            "ignore must list names in config.json, such as "
            f'["quantization_config"], found {ignore!r:.80}'
        )
    return names


def _are_texts(names: Iterable[Any]) -> bool:
    return all(isinstance(name, str) for name in names)


def _owner(
    config: dict[str, Any], name: str, *, make: bool = False
) -> tuple[dict[str, Any], str]:
    """The object that holds the dotted `name`, and the name in it."""
    *path, last = name.split(".")
    for part in path:
        inner = config.get(part)
        if inner is None and make:
            inner = config[part] = {}
        if not isinstance(inner, dict):
            raise ValueError(
                f"{name!r} in config.json: expected an object at {part!r}, found "
                f"{quote(inner)}"
            )
        config = inner
    return config, last


def _read_defaults(path: Path) -> dict[str, Any] | None:
    """What generation_config.json says; it only sets defaults, and refuses no model."""
    try:
        return read_object(path)
    except (ValueError, OSError) as error:
        warnings.warn(
            f"{path} is left out, as if it were not there ({error}); answers may "
            "differ from those of transformers' generate",
            UserWarning,
            stacklevel=3,
        )
        return None


def _read_object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(
            f"expected {path.name} in {path.parent}, found none; point at the "
            "directory that holds the Hugging Face checkpoint"
        )
    return read_object(path)
