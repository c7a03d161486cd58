"""The line of totals says what the program itself took."""

import subprocess
import sys

import numpy as np
import pytest

from convert.progress import peak_memory

CODE = "from convert.progress import peak_memory; print(peak_memory())"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux hands the peak on")
def test_a_large_parent_does_not_count():
    """A conversion would be said to take what the process that started it takes."""
    held = np.ones(1 << 27)  # 1 GiB
    assert peak_memory() > held.nbytes
    command = [sys.executable, "-c", CODE]
    found = int(subprocess.check_output(command, text=True))
    assert 1 << 20 < found < held.nbytes // 2
