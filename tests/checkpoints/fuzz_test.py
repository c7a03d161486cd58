"""Damaged checkpoints: no other weights in silence, no traceback, no hang, no flood."""

import json
import os
import shutil
import subprocess
import sys
import threading

import pytest

import jaxmoe
from tests.checkpoints import fuzz

CASES = 3000
HANG = 120.0
"""Seconds without an answer after which a process counts as stuck."""


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """What is damaged, and what the whole of it holds."""
    made = fuzz.make_bases(tmp_path_factory.mktemp("bases"))
    whole = jaxmoe.load(made["converted"])
    return made, {"config": repr(whole.config), "weights": fuzz.contents(whole)}


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore")
def test_some_damage(bases):
    """A disk's fault or a half download would be another model, or a traceback."""
    # The errors of the last ones had 9 000 to 100 000 letters.
    seeds = [*range(10_000, 10_030), 1743, 50_291, 50_754, 51_086, 51_900, 52_961]
    found = [fuzz.run_case(seed, *bases) for seed in seeds]
    assert [case for case in found if case["wrong"]] == []
    assert len({case["damage"].split()[0] for case in found}) > 5


@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_weights_are_compared_to_the_bit(kind, bases):
    """The fuzzing would find nothing where it compared nothing."""
    made, known = bases
    changed = known | {"weights": dict.fromkeys(known["weights"], b"")}
    load = fuzz._outcome(lambda: jaxmoe.load(made[kind]), made[kind], kind, known)
    assert load is None
    if kind == "converted":
        said = fuzz._outcome(lambda: jaxmoe.load(made[kind]), made[kind], kind, changed)
        assert said == "other weights"


@pytest.mark.slow
def test_much_damage():
    """As above, 3000 times; a failing seed runs alone by `python -m`."""
    print(f"seeds 0 to {CASES - 1}: python -m tests.checkpoints.fuzz SEED SEED+1")
    bad, seed = [], 0
    while seed < CASES:
        seed, found = _run_from(seed)
        bad += [
            case
            for case in found
            if case["wrong"] or case["seconds"] > fuzz.MOST_SECONDS
        ]
    assert bad == []


def _run_from(seed: int) -> tuple[int, list[dict]]:
    """Runs cases until all are done or one hangs; the next seed and what was found."""
    command = [sys.executable, "-m", "tests.checkpoints.fuzz", str(seed), str(CASES)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ}
    )
    assert process.stdout is not None
    found: list[dict] = []
    while True:
        watch = threading.Timer(HANG, process.kill)
        watch.start()
        line = process.stdout.readline()
        watch.cancel()
        if not line:
            break
        found.append(json.loads(line))
        print(line, end="")
    process.wait()
    seed += len(found)
    if seed < CASES:
        wrong = f"hangs, or ended with {process.returncode}"
        found.append({"seed": seed, "wrong": wrong, "seconds": 0.0})
        seed += 1
    return seed, found


@pytest.mark.parametrize("name", [".zarray", "0.0.0"])
def test_a_pipe_for_a_chunk_is_not_waited_for(name, bases, tmp_path):
    """Loading would hang for ever, with or without checksums."""
    copy = tmp_path / "model"
    shutil.copytree(bases[0]["converted"], copy)
    path = copy / "params" / "layers.2.mixer.v.weight" / name
    path.unlink()
    os.mkfifo(path)
    for verify in (True, False):
        with pytest.raises(ValueError, match="found a folder, pipe or device"):
            jaxmoe.load(copy, verify=verify)
