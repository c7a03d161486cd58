"""A training run on disk, so that a killed run goes on where it was."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxmoe.demo.training import State
from jaxmoe.evals.store import differing
from jaxmoe.files import replacing

FILE = "state.npz"


def save_state(directory: Path, state: State, step: int, about: dict[str, Any]) -> None:
    """Writes the state after `step` updates, under another name first.

    about: what must be the same when the run goes on: the recipe and the model.
    """
    leaves = jax.tree.leaves(state)
    arrays: dict[str, Any] = {
        f"leaf{i:04}": np.asarray(x) for i, x in enumerate(leaves)
    }
    about_text = json.dumps(about, sort_keys=True)
    with replacing(directory / FILE) as file:
        np.savez(file, step=step, about=about_text, **arrays)


def load_state(
    directory: Path, like: State, about: dict[str, Any]
) -> tuple[State, int] | None:
    """The state in `directory` and its updates so far; None where there is none.

    like: a state of the same model, whose structure is taken.

    Raises:
      ValueError: a state of another recipe or model.
    """
    path = directory / FILE
    if not path.exists():
        return None
    with np.load(path) as stored:
        found, wanted = json.loads(str(stored["about"])), json.loads(json.dumps(about))
        if found != wanted:
            differ = ", ".join(differing(wanted, found))
            raise ValueError(
                f"{path} belongs to a run with other {differ}; choose "
                "another directory, or remove it to begin anew"
            )
        names = sorted(name for name in stored.files if name.startswith("leaf"))
        leaves = [stored[name] for name in names]
        step = int(stored["step"])
    return jax.tree.unflatten(jax.tree.structure(like), leaves), step
