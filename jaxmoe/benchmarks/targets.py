"""What the numbers should be: read from `jaxmoe/docs/performance_targets.toml`.

There stands what is wanted of which row, on which kind of machine and preset; here, how
rows with a target are called, and how a row finds its own.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jaxmoe.benchmarks.report import AT_LEAST, AT_MOST, Row, Target

FILE = Path(__file__).parent.parent / "docs" / "performance_targets.toml"
DEMO = "demo model, first answer"
DECODING_ERROR = "tiny model: log-probabilities of steps against one pass"
_COMPARISONS = {"at_least": AT_LEAST, "at_most": AT_MOST}

Key = tuple[str, str, str, str]
"""Backend, preset, benchmark, and the row's name."""


def floor_share(n: int, prompt: int, policy: str) -> str:
    """The row that holds a step of decoding against the memory floor."""
    return f"n = {n}, prompt {prompt}: {policy}, share of the memory floor"


def against_peer(n: int, prompt: int, peer: str) -> str:
    """The row that holds a step of decoding against a peer's."""
    return f"n = {n}, prompt {prompt}: times as fast as {peer}"


def beside(n: int, prompt: int, one: str, other: str) -> str:
    """The row that compares steps of two kernels, or of two kinds of weights."""
    return f"n = {n}, prompt {prompt}: {one}, times as fast as {other}"


def pass_against_peer(prompt: int, peer: str) -> str:
    """The row that holds one pass over a prompt against a peer's."""
    return f"prompt {prompt}: times as fast as {peer}"


def prepare_against_peer(n: int, prompt: int, peer: str) -> str:
    """The row that holds preparing n samples against a peer."""
    return f"prompt {prompt}, n = {n} prepared: times as fast as {peer}"


def matmul_share(prompt: int) -> str:
    """The row that holds a prefill against the rate of a product."""
    return f"prompt {prompt}: share of the matmul rate"


def same_experts(n: int) -> str:
    """The row that compares policies that choose the same experts."""
    return f"n = {n}: ExpertSample(tau=0) slower than TopK"


def allocation(filled: int, large: int, small: int) -> str:
    """The row that compares step times with more and less room."""
    return f"filled {filled}: room for {large} against {small}"


def time_over_bytes(last: int, first: int) -> str:
    """The row that holds the step times of long and short answers against bytes."""
    return f"filled {last} against {first}: time over bytes read"


def refilling(prompts: int, samples: int, slots: int) -> str:
    """The row that compares a skewed load with perfect refilling."""
    load = f"{prompts} prompts x {samples}, {slots} slots"
    return f"{load}: time against perfect refilling"


def host_share(slots: int) -> str:
    """The row of what the host does while no segment runs."""
    return f"{slots} slots: host between segments, of a step"


def kernel_error(kernel: str) -> str:
    """The row of how far a kernel for experts is from the reference."""
    return f"experts, {kernel}: error against the reference"


def kernel_variance(kernel: str) -> str:
    """The row of what a row feels of others in its batch."""
    return f"experts, {kernel}: values of a row that others change"


def first_answer(cache: str) -> str:
    """The row of the demo model's first answer."""
    return f"{DEMO}, compilation cache {cache}"


def evaluation(problems: int, n: int) -> str:
    """The row of evaluating the demo model."""
    return f"demo model, {problems} problems x {n}"


def scored(contexts: int, each: int, peer: str | None = None) -> str:
    """The row of log-likelihoods; with a peer, the one that holds them against it."""
    what = f"demo model, {contexts} contexts, {each} continuations each"
    return what if peer is None else f"{what}: times as fast as {peer}"


def against_baseline(what: str) -> str:
    """The row that holds another against the same of an older checkout."""
    return f"{what}, against the baseline"


def recompiled(calls: int) -> str:
    """The row that counts what other values compile again."""
    return f"programs compiled by {calls} varied calls after it"


def compiled(program: str, cache: str) -> str:
    """The row of one program's compilation."""
    return f"{program}, {cache}"


def lowered(program: str, backend: str) -> str:
    """The row of what a program is in StableHLO for another kind of machine."""
    return f"{program}, StableHLO for {backend}"


def temporary_memory(program: str) -> str:
    """The row of what one program needs beside its arguments and results."""
    return f"{program}, temporary memory"


def read_targets(text: str) -> dict[Key, Target]:
    """The targets of a file such as `FILE`.

    Raises:
      ValueError: an entry that is no target; it says which, and what one looks like.
    """
    return {
        (backend, preset, benchmark, what): _target(what, entry)
        for backend, presets in tomllib.loads(text).items()
        for preset, benchmarks in presets.items()
        for benchmark, rows in benchmarks.items()
        for what, entry in rows.items()
    }


def _target(what: str, entry: Any) -> Target:
    given = dict(entry) if isinstance(entry, Mapping) else {}
    moonshot = given.pop("moonshot", None)
    names = [name for name in given if name in _COMPARISONS]
    numbers = [*given.values(), *(() if moonshot is None else (moonshot,))]
    if len(given) != 1 or not names or not all(map(_is_number, numbers)):
        raise ValueError(
            f"the target of {what!r} must be {{ at_least = NUMBER }} or "
            f"{{ at_most = NUMBER }}, with moonshot = NUMBER or without, found {entry}"
        )
    return Target(_COMPARISONS[names[0]], given[names[0]], moonshot)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@cache
def all_targets() -> Mapping[Key, Target]:
    """Those of `FILE`."""
    return read_targets(FILE.read_text("utf-8"))


@dataclass(frozen=True)
class Place:
    """preset: a name. backend: cpu, gpu or tpu."""

    preset: str
    backend: str

    def row(
        self, benchmark: str, what: str, value: float, unit: str, **detail: Any
    ) -> Row:
        """A result, beside its target if it has one here.

        Names of details have spaces for underscores.
        """
        target = all_targets().get((self.backend, self.preset, benchmark, what))
        named = {name.replace("_", " "): value for name, value in detail.items()}
        return Row(benchmark, what, value, unit, target, named)
