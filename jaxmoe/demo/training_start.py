"""Where a training run begins: weights beside the seed's, answers beside all."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jaxmoe
from jaxmoe.checkpoints.source import open_source
from jaxmoe.config import ModelConfig, MoEConfig
from jaxmoe.demo.chains import Chains, chains_of, trained_on
from jaxmoe.demo.model_files import ATTRIBUTES
from jaxmoe.demo.network import demo_config
from jaxmoe.demo.numbers_game import Problem
from jaxmoe.demo.recipe import Shapes
from jaxmoe.evals.run import read_run
from jaxmoe.nn.segments import stored_names
from jaxmoe.typing import Array, Params


# Arrays have no single truth value, so the generated == could only raise.
@dataclass(frozen=True, eq=False)
class Start:
    """Weights and answers of a run.

    params: float32, one layer at a time; None for those of the recipe's seed.
    checkpoint: their digest. chains: the answers; None for every answer to the problems
    that are trained on.
    """

    params: Params | None = field(default=None, repr=False)
    checkpoint: str | None = None
    chains: Chains | None = field(default=None, repr=False)

    def describe(self) -> dict[str, Any]:
        """What must be the same when the run goes on."""
        answers = None if self.chains is None else _digest(self.chains)
        found = {"start": self.checkpoint, "answers": answers}
        return {name: value for name, value in found.items() if value is not None}


def weights_from(path: str | os.PathLike) -> tuple[Params, str, Shapes]:
    """Weights to begin from, their digest, and the shapes of their experts.

    path: "demo", "demo-tries", or a directory of a model that was trained here.

    Raises:
      ValueError: another model.
    """
    model = jaxmoe.load(path, dtype="float32")
    shapes = _shapes_of(model.config)
    wanted = None if shapes is None else demo_config(ATTRIBUTES | shapes.attributes)
    if shapes is None or wanted is None or wanted.layers != model.config.layers:
        raise ValueError(
            "training goes on from the demo model, or one that `jaxmoe demo train` "
            f"made, found {path}, which has other layers; give OUT/hf of such a run"
        )
    params = {
        name: array
        for stack, value in model.params.items()
        for name, array in _parts(stack, value)
    }
    return params, open_source(path).digest(), shapes


def right_answers(run: Path) -> Chains:
    """The first right answer to each problem of a run of `--task countdown`.

    Raises:
      ValueError: no answer is right, or a problem is not of the sets that are trained
        on.
    """
    found = read_run(run)
    names, prompts = found.manifest["problems"], found.manifest["prompts"]
    problems = dict(zip(names, map(Problem.parse, prompts), strict=True))
    if others := [p for p in problems.values() if not trained_on(p.numbers)]:
        raise ValueError(
            f"expected problems of the training sets in {run}, found {len(others)} of "
            f"other sets, e.g. {others[0].prompt}; draw answers to the problems that "
            "`jaxmoe demo problems FILE` writes"
        )
    kept = [
        (problems[name], right[0])
        for name, records in zip(found.ids, found.records, strict=True)
        if (right := [record.text for record in records if record.correct])
    ]
    if not kept:
        raise ValueError(
            f"expected right answers to train on, found none in {run}; draw more"
        )
    return chains_of(kept)


def _shapes_of(config: ModelConfig) -> Shapes | None:
    ff = config.layers[0].feed_forward
    if not isinstance(ff, MoEConfig):
        return None
    return Shapes(ff.num_experts, ff.experts_per_token, ff.hidden)


def _parts(name: str, value: Array) -> Iterator[tuple[str, Array]]:
    """A weight; of a stack that of each layer."""
    names = stored_names(name)
    yield from zip(names, [value] if names == [name] else value, strict=True)


def _digest(chains: Chains) -> str:
    found = hashlib.sha256()
    for array in (chains.numbers, chains.target, chains.steps):
        found.update(array.tobytes())
    return found.hexdigest()
