"""Answers to many prompts, kept in a file as they come, so that a killed run goes on.

The file has one JSON object a line: first what the run is about, then one line a
prompt. Answers are pure functions of the run's description, so it does not matter in
how many goes, or in what order, they were drawn.
"""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from jaxmoe.decode.tokens import TokenSampler
from jaxmoe.keys import prompt_key
from jaxmoe.model import Model
from jaxmoe.router.policies import Policy
from jaxmoe.sampling import stream
from jaxmoe.typing import Array, Key

CHUNK = 64
"""Prompts drawn together; they are kept once all of their answers are there."""


@dataclass(frozen=True)
class Draw:
    """How answers are drawn: n of each prompt; see `jaxmoe.sample`."""

    policy: Policy
    sampler: TokenSampler
    n: int
    max_new_tokens: int
    seed: int = 0
    slots: int | None = None

    @property
    def key(self) -> Key[Array, ""]:
        """The key of the whole run; prompt j uses `fold_in(key, j)`."""
        return jax.random.key(self.seed, impl="threefry2x32")

    def describe(self) -> dict[str, Any]:
        """All that decides the answers, for the file's first line."""
        return {
            "policy": repr(self.policy),
            "sampler": repr(self.sampler),
            "n": self.n,
            "max_new_tokens": self.max_new_tokens,
            "seed": self.seed,
            "slots": self.slots,
        }


def draw_answers(
    model: Model,
    prompts: Sequence[str],
    draw: Draw,
    path: Path | None = None,
    *,
    about: dict[str, Any] | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[list[str]]:
    """n answers to each prompt, those in the file `path` taken from there.

    Args:
      about: what else decides the answers, such as a digest of the weights.
      progress: called with the number of prompts done.

    Raises:
      ValueError: the file belongs to another run.
    """
    header = {**draw.describe(), "prompts": list(prompts), **(about or {})}
    done: dict[int, list[str]] = {}
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        done = _read(path, header)
    missing = [j for j in range(len(prompts)) if j not in done]
    for start in range(0, len(missing), CHUNK):
        if progress is not None:
            progress(len(done))
        drawn = _draw_chunk(model, prompts, missing[start : start + CHUNK], draw)
        if path is not None:
            lines = (json.dumps({"prompt": j, "answers": a}) for j, a in drawn.items())
            _append(path, lines)
        done |= drawn
    if progress is not None:
        progress(len(done))
    return [done[j] for j in range(len(prompts))]


def _draw_chunk(
    model: Model, prompts: Sequence[str], chosen: list[int], draw: Draw
) -> dict[int, list[str]]:
    answers: dict[int, list[str]] = {j: [""] * draw.n for j in chosen}
    for answer in stream(
        model,
        [prompts[j] for j in chosen],
        key=[prompt_key(draw.key, j) for j in chosen],
        n=draw.n,
        policy=draw.policy,
        sampler=draw.sampler,
        max_new_tokens=draw.max_new_tokens,
        slots=draw.slots,
    ):
        answers[chosen[answer.prompt]][answer.sample] = answer.text or ""
    return answers


def _read(path: Path, header: dict[str, Any]) -> dict[int, list[str]]:
    """What the file holds so far; makes it where there is none."""
    if not path.exists():
        _append(path, [json.dumps(header)])
        return {}
    text = path.read_text(encoding="utf-8")
    whole, _, rest = text.rpartition("\n")
    if rest:  # the line that a kill cut off
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(f"{whole}\n" if whole else "", encoding="utf-8")
        partial.replace(path)
    lines = [json.loads(line) for line in whole.splitlines()]
    if not lines:
        _append(path, [json.dumps(header)])
        return {}
    found, wanted = lines[0], json.loads(json.dumps(header))
    if found != wanted:
        differ = [n for n in wanted | found if wanted.get(n) != found.get(n)]
        raise ValueError(
            f"{path} belongs to a run with other {', '.join(differ)}; choose another "
            "directory, or remove the file to draw anew"
        )
    return {line["prompt"]: line["answers"] for line in lines[1:]}


def _append(path: Path, lines) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
        file.flush()
        os.fsync(file.fileno())
