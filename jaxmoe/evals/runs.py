"""Answers to many prompts, kept in a file as they come, so that a killed run goes on.

The file has one JSON object a line: first what the run is about, then one line a
prompt. Answers are pure functions of the run's description, so it does not matter in
how many goes, or in what order, they were drawn.
"""

import fcntl
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import jax

from jaxmoe.decode.sampler import TokenSampler
from jaxmoe.execution import default_platform
from jaxmoe.files import parse_json
from jaxmoe.model import Model
from jaxmoe.random.keys import prompt_key
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
    noisy_prefill: bool = False

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
            "noisy_prefill": self.noisy_prefill,
            "platform": default_platform(),
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
    if path is None:
        return _draw_missing(model, prompts, draw, {}, lambda _: None, progress)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        _lock(file, path)
        done = _read(file, path, header)
        keep = partial(_append, file, header)
        return _draw_missing(model, prompts, draw, done, keep, progress)


def _draw_missing(
    model: Model,
    prompts: Sequence[str],
    draw: Draw,
    done: dict[int, list[str]],
    keep: Callable[[dict[int, list[str]]], None],
    progress: Callable[[int], None] | None,
) -> list[list[str]]:
    """All answers, those not `done` drawn and kept."""
    report = progress or (lambda _: None)
    missing = [j for j in range(len(prompts)) if j not in done]
    for start in range(0, len(missing), CHUNK):
        report(len(done))
        drawn = _draw_chunk(model, prompts, missing[start : start + CHUNK], draw)
        keep(drawn)
        done |= drawn
    report(len(done))
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
        noisy_prefill=draw.noisy_prefill,
    ):
        answers[chosen[answer.prompt]][answer.sample] = answer.text or ""
    return answers


def _lock(file: TextIO, path: Path) -> None:
    """Keeps the file for this process, as long as it is open."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(
            f"another process draws into {path}; wait for it, or choose another file"
        ) from None


def _read(file: TextIO, path: Path, header: dict[str, Any]) -> dict[int, list[str]]:
    """What the file holds so far.

    Nothing is changed in a file that is not this run's.
    """
    file.seek(0)
    text = file.read()
    first = json.dumps(header)
    if first.startswith(text):  # nothing yet, or a kill cut the header off
        file.truncate(0)
        return {}
    head, *lines = text.splitlines(keepends=True)
    if other := _differences(head, first, path):
        raise ValueError(
            f"{path} belongs to a run with other {', '.join(other)}; choose another "
            "file, or remove this one to draw anew"
        )
    if lines and not lines[-1].endswith("\n"):  # a kill cut the last line off
        file.truncate(len("".join([head, *lines[:-1]]).encode()))
        lines = lines[:-1]
    rows = map(json.loads, lines)
    return {row["prompt"]: row["answers"] for row in rows}


def _differences(head: str, first: str, path: Path) -> list[str]:
    """What differs in a file's header; a ValueError where it has none."""
    try:
        found = parse_json(head)
    except ValueError:
        found = None
    wanted = json.loads(first)
    if not isinstance(found, dict) or "prompts" not in found:
        raise ValueError(
            f"{path} should hold the answers of a run, found something else; choose "
            "another file"
        )
    return differing(wanted, found)


def differing(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Names that only one has, or that have other values, in order."""
    both = a.keys() & b.keys()
    return sorted(n for n in a | b if n not in both or a[n] != b[n])


def _append(file: TextIO, header: dict[str, Any], drawn: dict[int, list[str]]) -> None:
    """Adds answers; before the first ones the header, so that none stands alone.

    What could not be drawn then leaves nothing, and an option put right finds no file
    of another run.
    """
    rows = [{"prompt": j, "answers": answers} for j, answers in drawn.items()]
    if not os.fstat(file.fileno()).st_size:
        rows.insert(0, header)
    file.write("".join(json.dumps(row) + "\n" for row in rows))
    file.flush()
    os.fsync(file.fileno())
