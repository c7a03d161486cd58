"""How commands end where nobody reads, or somebody stops them."""

import os
import signal
import subprocess
import sys
import warnings

import pytest

from jaxmoe import cli
from jaxmoe.cli.endings import command

LIGHT = (
    ["list", "policies"],
    ["completion", "bash"],
    ["plan", "demo", "--chips", "v5e", "--devices", "1", "--context", "512"]
    + ["--prompt", "32"],
    *([name, "--help"] for name in cli.COMMANDS),
)


@pytest.mark.parametrize("argv", LIGHT, ids=" ".join)
def test_nobody_reads(argv, monkeypatch):
    """`jaxmoe ... | head` would end in a traceback."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stdout)
        with pytest.raises(SystemExit) as ended:
            cli.main(argv)
        assert ended.value.code == 128 + signal.SIGPIPE
        # What Python flushes at its end goes where it cannot fail.
        stdout.write("more")


def test_head_ends_a_command():
    """The same in a process of its own, whose end flushes too."""
    run = [sys.executable, "-m", "jaxmoe", "list", "policies"]
    with subprocess.Popen(
        run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 128 + signal.SIGPIPE


@pytest.mark.parametrize("error", [ValueError, TypeError, OSError, ImportError])
def test_an_error_is_one_line(error, capsys):
    """A user would read a traceback for an option put wrong."""

    @command
    def main(argv: list[str] | None = None) -> int:
        warnings.warn("look\nout", stacklevel=1)
        raise error("expected a,\n  found b; do c")

    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = printed.err.splitlines()
    assert lines == ["warning: look out", "error: expected a, found b; do c"]


def test_faults_are_not_hidden():
    """A bug of ours would look like a slip of the user's, without its traceback."""

    @command
    def main(argv: list[str] | None = None) -> int:
        raise KeyError("ours")

    with pytest.raises(KeyError):
        main([])


def test_ctrl_c(capsys):
    """Ctrl-C would leave a traceback, or a code that says all is well."""

    @command
    def main(argv: list[str] | None = None) -> int:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 128 + signal.SIGINT
    assert capsys.readouterr().err == ""


def test_errors_and_warnings_move_no_cursor(capsys):
    """A terminal would obey what stands in a file of somebody else."""

    @command
    def main(argv: list[str] | None = None) -> int:
        warnings.warn("\x1b[2J", stacklevel=1)
        raise ValueError("found \x1b]0;me\x07")

    with pytest.raises(SystemExit):
        main([])
    said = capsys.readouterr().err
    assert said == "warning: \\x1b[2J\nerror: found \\x1b]0;me\\x07\n"


@pytest.mark.parametrize(
    "error", [MemoryError("12 GiB"), RuntimeError("RESOURCE_EXHAUSTED: 12 GiB")]
)
def test_too_little_memory_is_one_line(error, capsys):
    """How to take less would stand in no traceback."""

    @command
    def main(argv: list[str] | None = None) -> int:
        raise error

    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "12 GiB" in line and "fewer slots" in line


def test_other_faults_keep_their_traceback():
    """A fault of the program would look like one of its user."""

    @command
    def main(argv: list[str] | None = None) -> int:
        raise RuntimeError("a riddle")

    with pytest.raises(RuntimeError, match="a riddle"):
        main([])
