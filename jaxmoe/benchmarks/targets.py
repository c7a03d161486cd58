"""What the numbers should be, where they were set: preset and kind of machine."""

from dataclasses import dataclass
from typing import Any

from jaxmoe.benchmarks.report import AT_LEAST, AT_MOST, Row

DEMO = "demo model, first answer"
POLICIES = ("TopK", "ExpertSample")


def floor_share(n: int, prompt: int, policy: str) -> str:
    """The row that holds a step of decoding against the memory floor."""
    return f"n = {n}, prompt {prompt}: {policy}, share of the memory floor"


def against_peer(n: int, prompt: int) -> str:
    """The row that holds a step of decoding against the peer's."""
    return f"n = {n}, prompt {prompt}: times as fast as transformers"


def beside(n: int, prompt: int, one: str, other: str) -> str:
    """The row that compares steps of two kernels, or of two kinds of weights."""
    return f"n = {n}, prompt {prompt}: {one}, times as fast as {other}"


def prepare_against_peer(n: int, prompt: int) -> str:
    """The row that holds preparing n samples against the peer."""
    return f"prompt {prompt}, n = {n} prepared: times as fast as transformers"


def matmul_share(prompt: int) -> str:
    """The row that holds a prefill against the rate of a product."""
    return f"prompt {prompt}: share of the matmul rate"


def same_experts(n: int) -> str:
    """The row that compares policies that choose the same experts."""
    return f"n = {n}: ExpertSample(tau=0) slower than TopK"


def allocation(filled: int, large: int, small: int) -> str:
    """The row that compares step times with more and less room."""
    return f"filled {filled}: room for {large} against {small}"


def skewed(prompts: int, samples: int, slots: int) -> str:
    """The row that compares a skewed load with the ideal."""
    return f"{prompts} prompts x {samples}, {slots} slots: time against the ideal"


def first_answer(cache: str) -> str:
    """The row of the demo model's first answer."""
    return f"{DEMO}, compilation cache {cache}"


def recompiled(calls: int) -> str:
    """The row that counts what other values compile again."""
    return f"programs compiled by {calls} varied calls after it"


def compiled(program: str, cache: str) -> str:
    """The row of one program's compilation."""
    return f"{program}, {cache}"


def temporary_memory(program: str) -> str:
    """The row of what one program needs beside its arguments and results."""
    return f"{program}, temporary memory"


_CPU_BENCH = {
    ("decode", against_peer(1, 128)): (AT_LEAST, 3.0),
    ("decode", against_peer(8, 128)): (AT_LEAST, 3.0),
    ("decode", against_peer(32, 128)): (AT_LEAST, 2.5),
    **{
        ("decode", floor_share(n, 128, policy)): (AT_LEAST, 60.0)
        for n in (8, 32)
        for policy in POLICIES
    },
    ("decode", beside(1, 128, "int8", "bfloat16")): (AT_LEAST, 1.5),
    ("decode", beside(8, 128, "int8", "bfloat16")): (AT_LEAST, 1.45),
    ("decode", beside(32, 128, "int8", "bfloat16")): (AT_LEAST, 1.3),
    ("prefill", prepare_against_peer(32, 128)): (AT_LEAST, 15.0),
    ("overhead", same_experts(1)): (AT_MOST, 3.0),
    ("overhead", same_experts(32)): (AT_MOST, 1.0),
    ("length", allocation(64, 8192, 128)): (AT_MOST, 1.1),
    ("slots", skewed(16, 8, 32)): (AT_MOST, 1.25),
    ("compile", recompiled(9)): (AT_MOST, 0.0),
    ("compile", first_answer("empty")): (AT_MOST, 8.0),
    ("compile", first_answer("filled")): (AT_MOST, 8.0),
}
_CPU_30B = {
    ("compile", compiled("prefill", "cold")): (AT_MOST, 2.5),
    ("compile", compiled("decode step", "cold")): (AT_MOST, 4.0),
}
_GPU_30B = {
    **{("decode", floor_share(32, 1024, p)): (AT_LEAST, 65.0) for p in POLICIES},
    **{("decode", floor_share(1, 1024, p)): (AT_LEAST, 50.0) for p in POLICIES},
    ("decode", against_peer(32, 1024)): (AT_LEAST, 8.0),
    ("prefill", matmul_share(4096)): (AT_LEAST, 35.0),
    ("overhead", same_experts(1)): (AT_MOST, 1.0),
    ("overhead", same_experts(32)): (AT_MOST, 1.0),
    ("compile", recompiled(9)): (AT_MOST, 0.0),
    ("compile", compiled("decode step", "cold")): (AT_MOST, 60.0),
    ("compile", compiled("decode step", "from the cache")): (AT_MOST, 5.0),
}
TARGETS = {
    ("bench", "cpu"): _CPU_BENCH,
    ("30b", "cpu"): _CPU_30B,
    ("30b", "gpu"): _GPU_30B,
}
"""(preset, backend) -> (benchmark, what) -> (comparison, number in the row's unit)."""


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
        target = TARGETS.get((self.preset, self.backend), {}).get((benchmark, what))
        named = {name.replace("_", " "): value for name, value in detail.items()}
        return Row(benchmark, what, value, unit, target, named)
