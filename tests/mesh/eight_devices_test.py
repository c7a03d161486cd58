"""Runs the cases beside this file, each in a process with 8 virtual CPU devices.

Devices are made when a process starts, and all other tests want one.
"""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
COUNT = 8
MESH = [pytest.mark.slow, pytest.mark.mesh]
FIRST_PARTS = (
    "qwen",
    "deepseek or kimi or glm4",
    "olmoe or minimax or bailing or gpt_oss",
)
OF_FAMILIES = (*FIRST_PARTS, f"not ({' or '.join(FIRST_PARTS)})")
"""Parts of the cases of families, which in one process would take too long."""


def environment(devices: int) -> dict[str, str]:
    """What makes a process have so many CPU devices."""
    flag = f"--xla_force_host_platform_device_count={devices}"
    own = os.environ | {"XLA_FLAGS": flag, "JAX_PLATFORMS": "cpu"}
    own.pop("JAXMOE_REQUIRE_PARITY", None)  # asked of the tests around these
    return own


@pytest.mark.parametrize(
    ("cases", "some"),
    [
        ("parts", ""),
        pytest.param("sampling", "", marks=MESH),
        pytest.param("loading", "", marks=MESH),
        pytest.param("mixture", "", marks=MESH),
        pytest.param("groups", "", marks=pytest.mark.slow),
        pytest.param("recurrent", "", marks=pytest.mark.slow),
        pytest.param("options", "", marks=pytest.mark.slow),
        *(
            pytest.param("families", k, id=f"families {i}", marks=pytest.mark.slow)
            for i, k in enumerate(OF_FAMILIES)
        ),
    ],
)
def test_on_eight_devices(cases, some):
    """See the cases; their output follows where one of them failed.

    One that hangs says where: its threads' stacks, before the time is up. A process
    that was stopped meanwhile (SIGSTOP) looks the same, but for the time it ran.
    """
    file = HERE / f"{cases}_cases.py"
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "--durations=5"]
    command += ["-o", "faulthandler_timeout=300", str(file), "-k", some]
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment(COUNT),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )
    except subprocess.TimeoutExpired as late:
        ran = resource.getrusage(resource.RUSAGE_CHILDREN)
        shown = (late.stdout or b"")[-8000:]
        said = shown.decode(errors="replace") if isinstance(shown, bytes) else shown
        pytest.fail(f"600 s, {ran.ru_utime:.0f} s of them on a processor:\n{said}")
    assert done.returncode == 0, done.stdout[-8000:]
    assert " passed" in done.stdout and "skipped" not in done.stdout
