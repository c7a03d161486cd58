"""Options of the benchmarks."""

import argparse
import math
from pathlib import Path
from typing import get_args

from jaxmoe.benchmarks.peers import PEERS
from jaxmoe.benchmarks.presets import PRESETS
from jaxmoe.ops.experts import Implementation

HELP = {
    "kernels": "whether each kernel computes what the reference does",
    "machine": "bandwidth, large and small products, threads, instructions",
    "prefill": "tokens a second, and the time to prepare n samples of one prompt",
    "decode": "a step of n samples, beside the memory floor and a peer",
    "profile": "what the parts of a step take, beside their own floors",
    "overhead": "Expert-Sample beside TopK, with the same experts and with drawn ones",
    "length": "step time against filled and against allocated length",
    "slots": "many prompts with answers of skewed lengths, against the ideal",
    "compile": "first answer of the demo model; seconds and number of compilations",
    "evaluate": "the demo model's own questions, from start to end",
    "loglikelihood": "scores of continuations by the demo model, beside transformers",
    "convert": "conversion against copying the same files",
    "quantise": "what weights of int8 change: KL, most likely tokens, experts",
}
N = {"prefill": (1, 32), "decode": (1, 8, 32, 64), "profile": (1, 8, 32, 64)}
N["overhead"] = (1, 32)
ONE_N = {"length": 8, "slots": 32, "compile": 8}
ROUNDS = {"prefill": 5, "decode": 5, "profile": 5, "overhead": 30, "length": 7}
ROUNDS["evaluate"] = 1
STEPS = {"decode": 16, "profile": 16, "overhead": 8, "length": 16}
LOADS = {
    "slots": {"prompts": 16, "samples": 8, "max-new-tokens": 256},
    "evaluate": {"problems": 512, "n": 32},
}
PEER = ("prefill", "decode", "loglikelihood")
DEVICE_N = (1, 8, 32, 128)
DEVICE = """What a first run on a GPU or TPU should tell, most wanted first, in
--minutes. Every row is written to --out as it comes; when time is up the command ends
with what it has. It needs no network. Beside its own jax such a machine needs flax,
orbax-checkpoint, tensorstore, jaxtyping, tokenizers, tqdm, jinja2, ml-dtypes and what
they need: collect them elsewhere with the same Python and system by
`pip download -d wheels jaxmoe-*.whl`, carry the folder, and there
`pip install --no-index --find-links wheels jaxmoe`."""
COLD = "Makes a random checkpoint of --gb, then copies and converts it in turn, each "
COLD += "time from a cold page cache. Needs twice that space."


def _numbers(text: str) -> tuple[int, ...]:
    numbers = tuple(int(part) for part in text.split(","))
    if min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"expected numbers above 0, found {text}")
    return numbers


def _minutes(text: str) -> float:
    minutes = float(text)
    if not 0 < minutes < math.inf:
        raise argparse.ArgumentTypeError(f"expected minutes above 0, found {text}")
    return minutes


def all_parts(backend: str) -> list[list[str]]:
    """Command lines of what `all` runs; accelerators may have no room for int8 too."""
    decode = ["--n", "1,2,4,8,16,32,64,128"]
    decode += ["--weights", "int8"] if backend == "cpu" else []
    return [[name, *(decode if name == "decode" else ())] for name in HELP]


def device_parts() -> list[list[str]]:
    """Command lines of what `device` runs, by worth."""
    ns = ",".join(map(str, DEVICE_N))
    few = ["--rounds", "3"]
    parts = [
        ["kernels"],
        ["machine"],
        ["decode", "--n", ns, "--steps", "8", *few],
        ["prefill", "--n", "32", *few],
        ["overhead", "--n", "1,32", "--rounds", "15"],
        ["profile", "--n", ns, "--steps", "8", *few],
    ]
    beside = ["--peer", "transformers"]
    return [*parts, ["decode", "--n", "32", "--steps", "8", *few, *beside]]


def _kernels(text: str) -> tuple[str, ...]:
    return _known("kernels", text, get_args(Implementation))


def _known(what: str, text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if wrong := [name for name in names if name not in known]:
        raise argparse.ArgumentTypeError(
            f"expected {what} of {', '.join(known)}, found {', '.join(wrong)}"
        )
    return names


def _peers(text: str) -> tuple[str, ...]:
    return _known("peers", text, tuple(PEERS))


def _add_convert(add, gb: float, name: str = "--gb") -> None:
    add(name, dest="gb", type=float, default=gb, help=f"to convert (default: {gb})")
    add("--jobs", type=int, default=8, help="of the conversion (default: 8)")
    add("--dir", type=Path, help="where to convert (default: the temporary directory)")


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """A sub-command for each benchmark, and `all`."""
    whole = argparse.ArgumentParser("jaxmoe bench", description=description)
    commands = whole.add_subparsers(dest="benchmark", required=True)
    several = {
        "all": "all of these, one after the other",
        "device": "a first run on a GPU or TPU, within minutes",
    }
    for name, text in {**HELP, **several}.items():
        about = {"convert": COLD, "device": DEVICE}.get(name)
        add = commands.add_parser(name, help=text, description=about).add_argument
        preset = "bench for CPU, 30b for accelerators (default: the machine's)"
        add("--preset", choices=PRESETS, help=preset)
        out = Path("device.json") if name == "device" else None
        shown = "write all as JSON" + (f" (default: {out})" if out else "")
        add("--out", metavar="FILE", type=Path, default=out, help=shown)
        if name == "device":
            add("--minutes", type=_minutes, default=8.0, help="at most (default: 8)")
            continue
        rounds = ROUNDS.get(name, 3)
        shown = "each benchmark's" if name == "all" else rounds
        default = None if name == "all" else rounds
        add("--rounds", type=int, default=default, help=f"default: {shown}")
        if name in N:
            shown = ",".join(map(str, N[name]))
            add("--n", type=_numbers, default=N[name], help=f"default: {shown}")
        if name in ONE_N:
            n = ONE_N[name]
            add("--n", type=int, default=n, help=f"samples side by side (default: {n})")
        if name in (*N, *ONE_N):
            add("--prompt", type=int, help="tokens of a prompt (default: the preset's)")
        if name in STEPS:
            add("--steps", type=int, default=STEPS[name], help="of a timed run")
        if name == "decode":
            shown = "kernels to compare, as blocks,lanes (default: the machine's)"
            add("--experts", type=_kernels, default=("auto",), help=shown)
            shown = "the same model with such weights takes turns"
            add("--weights", choices=("int8", "fp8", "mxfp4"), help=shown)
        if name in (*PEER, "all"):
            shown = f"the same model there: {', '.join(PEERS)}, or several"
            add("--peer", type=_peers, help=shown)
        if name in ("compile", "evaluate", "all"):
            shown = "a checkout of another commit, which takes turns"
            add("--baseline", metavar="DIR", type=Path, help=shown)
        if name in LOADS:
            for option, value in LOADS[name].items():
                add(f"--{option}", type=int, default=value, help=f"default: {value}")
        if name == "convert":
            _add_convert(add, 6.5)
        if name == "all":
            _add_convert(add, 1.3, "--convert-gb")
    return whole
