"""Python programs that nobody has read, run under limits.

What keeps a program in its place depends on the machine; `available_isolation` says:

"bubblewrap": the program `bwrap`, where it is installed and works. "namespaces": the
same by our own calls; needs Linux 5.14, and either root with CAP_SYS_ADMIN or the right
to make user namespaces, which containers often withhold. In both no network, nor other
processes, are there to be seen; of the files only Python's and the system's libraries
are, read-only and without installed packages, and an empty /tmp, which is gone with the
program. However many processes it has started, and however detached they are, all end
with it. System calls that get round the limits are refused, and so is memory that
processes share, which no look at one of them shows.

"audit hook": only where it is asked for. The interpreter refuses, in the program's own
process, to connect, to start processes, to load C libraries by ctypes, and to write
outside of a temporary folder. A program can read all files that the user can read, the
tests' outputs among them, and one that means to gets round the hook. Run as root, the
program runs as a user without rights, where such a user can read Python.

A kernel has faults: for programs that may be hostile, run the whole evaluation in a
virtual machine that holds nothing of value.
"""

import functools
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

ISOLATIONS = ("bubblewrap", "namespaces", "audit hook")
"""Ways to keep a program in its place, best first."""
UNSAFE = ("audit hook",)
"""Those that a program can get round; taken only where they are asked for."""

_CHILD = Path(__file__).with_name("sandbox_child.py")
_GRACE = 20.0
"""Seconds beyond the limit after which the supervising process counts as stuck."""
_ERROR_BYTES = 1 << 16


@dataclass(frozen=True)
class Limits:
    """What one run of a program may take.

    seconds: of the clock, start of Python included, and of processor time, rounded up.
    memory_bytes: address space of each process, of which Python itself takes some 30
    MB, and memory that all hold together, looked at ten times a second.
    processes: processes and threads at one time, the first included; with the audit
    hook, threads of a user other than root are not counted. file_bytes: of all files
    written together; with the audit hook of each of them, and there not below
    output_bytes. open_files: descriptors of each process. output_bytes: of stdout.
    """

    seconds: float = 10.0
    memory_bytes: int = 1 << 30
    processes: int = 16
    file_bytes: int = 1 << 26
    open_files: int = 64
    output_bytes: int = 1 << 24

    def __post_init__(self):
        wrong = {name: value for name, value in vars(self).items() if not value > 0}
        if wrong or self.seconds == float("inf"):
            raise ValueError(
                f"expected limits above 0, and finite seconds, found "
                f"{wrong or self.seconds}; leave out those you do not want to set"
            )


@dataclass(frozen=True)
class Outcome:
    """How a program ended.

    status: "ok" (exit code 0), "wrong exit" (another code, as after an exception),
    "timeout", "memory" (a MemoryError, or too much together), "output" (stdout beyond
    its limit) or "killed" (by a signal). stdout: up to the limit. stderr: the last 64
    KiB. seconds: of the clock, from start to end.
    """

    status: str
    stdout: str
    stderr: str
    seconds: float


@functools.cache
def available_isolation(*, unsafe: bool = False) -> str:
    """The best of `ISOLATIONS` that works here; tried once by a short program.

    Args:
      unsafe: one of `UNSAFE` will do where no other works.

    Raises:
      RuntimeError: none works.
    """
    reasons = []
    patient = Limits(seconds=60)  # or a busy machine would seem to lack namespaces
    for isolation in ISOLATIONS:
        if isolation in UNSAFE and not unsafe:
            continue
        try:
            outcome = run_program("print('ready')", limits=patient, isolation=isolation)
        except RuntimeError as error:
            reasons.append(f"{isolation}: {error}")
            continue
        if outcome.stdout == "ready\n":
            return isolation
        reasons.append(f"{isolation}: {outcome.status} {outcome.stderr}".strip())
    insist = "" if unsafe else _INSIST
    raise RuntimeError(
        "expected bubblewrap or Linux namespaces, to run programs that a model wrote "
        f"apart from all else, found neither ({' '.join('; '.join(reasons).split())}); "
        "install bubblewrap (apt install bubblewrap, or dnf), or run as root with "
        f"CAP_SYS_ADMIN{insist}"
    )


_INSIST = (
    "; --unsafe-code (CodeTask(unsafe=True)) runs them behind Python's audit hook, "
    "which programs can get round"
)


def run_program(
    program: str,
    *,
    stdin: str = "",
    limits: Limits = Limits(),  # noqa: B008
    isolation: str | None = None,
) -> Outcome:
    """Runs Python text as `__main__` in a process of its own, and waits for its end.

    The program gets this interpreter with the standard library alone, an environment
    without the caller's variables, UTF-8 everywhere, and an empty writable folder to
    be in. When this returns, none of its processes is alive. Several threads may call
    this at the same time.

    Args:
      program: Python; what has no UTF-8 becomes "?".
      stdin: what it can read; after that, the end of the file.
      limits: what it may take.
      isolation: one of `ISOLATIONS`; None takes the best available one that is not
        among `UNSAFE`.

    Raises:
      RuntimeError: the program could not be started, whatever it is.
      ValueError: another isolation.
    """
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as printed:
        given.write(stdin.encode(errors="replace"))
        given.seek(0)  # which also writes what Python still holds
        outcome = _run(program, limits, isolation, given.fileno(), printed.fileno())
        size = printed.seek(0, os.SEEK_END)
        printed.seek(0)
        stdout = printed.read(limits.output_bytes).decode(errors="replace")
    status = "output" if size > limits.output_bytes else outcome.status
    return replace(outcome, status=status, stdout=stdout)


def run_together(
    programs: tuple[str, str],
    *,
    limits: Limits = Limits(),  # noqa: B008
    isolation: str | None = None,
) -> tuple[Outcome, Outcome]:
    """Runs two programs at once, each apart; the stdin of each is the other's stdout.

    Args:
      programs, limits, isolation: as in `run_program`; the limits are those of each.

    Raises:
      RuntimeError, ValueError: as in `run_program`.
    """
    (read_first, write_first), (read_second, write_second) = os.pipe(), os.pipe()
    ends = ((read_second, write_first), (read_first, write_second))
    with ThreadPoolExecutor(2) as pool:
        runs = [
            pool.submit(_run, program, limits, isolation, *own, close=True)
            for program, own in zip(programs, ends, strict=True)
        ]
    return runs[0].result(), runs[1].result()


def _run(
    program: str,
    limits: Limits,
    isolation: str | None,
    stdin: int,
    stdout: int,
    *,
    close: bool = False,
) -> Outcome:
    """How a program between two descriptors ended; the outcome has no stdout.

    close: the descriptors, as soon as the program has them.
    """
    with ExitStack() as stack, ExitStack() as given:
        for descriptor in (stdin, stdout) if close else ():
            given.callback(os.close, descriptor)
        if sys.platform != "linux":
            raise RuntimeError(
                f"expected Linux to run programs under limits, found {sys.platform}; "
                "use a Linux machine or container"
            )
        isolation = available_isolation() if isolation is None else isolation
        if isolation not in ISOLATIONS:
            raise ValueError(
                f"expected an isolation of {', '.join(ISOLATIONS)}, found {isolation}; "
                "leave it out for the best available"
            )
        # Files instead of pipes: nothing can block on them, whoever reads or does not.
        folder = stack.enter_context(_temporary_folder())
        complained = stack.enter_context(tempfile.TemporaryFile())
        Path(folder, "program.py").write_bytes(_source(program))
        streams = (stdin, stdout, complained.fileno())
        report = _supervise(isolation, folder, limits, streams, given)
        complained.seek(max(complained.seek(0, os.SEEK_END) - _ERROR_BYTES, 0))
        stderr = complained.read(_ERROR_BYTES).decode(errors="replace")
    status, seconds = _verdict(report, isolation, stderr)
    return Outcome(status, "", stderr, seconds)


def _source(program: str) -> bytes:
    """What the file of a program holds.

    Python before 3.11.4 reads a file up to its first NUL alone, and would call that a
    program that ended well. Later ones say what this says. (Tasks hand an answer on as
    a literal, in which no NUL stands.)
    """
    if "\0" in program:
        return b"raise SyntaxError('source code cannot contain null bytes')"
    return program.encode(errors="replace")


@contextmanager
def _temporary_folder() -> Iterator[str]:
    """A folder that is gone afterwards, however deeply a program nested folders in it.

    `tempfile.TemporaryDirectory` removes by recursion, which a few thousand folders
    exceed.
    """
    folder = tempfile.mkdtemp()
    try:
        yield folder
    finally:
        with suppress(OSError):
            _remove(Path(folder))


def _remove(folder: Path) -> None:
    """Removes a folder; folders within folders are first moved up into it."""
    moved, prefix = 0, f".{secrets.token_hex(8)}"  # no name that is there
    while inner := [entry for entry in os.scandir(folder) if _is_folder(entry)]:
        for entry in inner:
            os.chmod(entry.path, 0o700)  # noqa: PTH101
            for below in os.scandir(entry.path):
                if _is_folder(below):
                    moved += 1
                    os.rename(below.path, folder / f"{prefix}-{moved}")  # noqa: PTH104
                else:
                    os.unlink(below.path)  # noqa: PTH108
            os.rmdir(entry.path)  # noqa: PTH106
    for entry in os.scandir(folder):
        os.unlink(entry.path)  # noqa: PTH108
    folder.rmdir()


def _is_folder(entry: os.DirEntry) -> bool:
    return entry.is_dir(follow_symlinks=False)


def _supervise(
    isolation: str,
    folder: str,
    limits: Limits,
    streams: tuple[int, int, int],
    given: ExitStack,
) -> str:
    """The line that `sandbox_child.py` reports; empty where it was itself killed.

    given: closes descriptors, once the child has them.
    """
    reading, writing = os.pipe()
    numbers = (
        *(writing, limits.seconds, limits.memory_bytes, limits.processes),
        # stdout is a file, too: its limit is that of files where it is the larger one.
        max(limits.file_bytes, limits.output_bytes + 1),
        *(limits.file_bytes, limits.open_files),
    )
    interpreter = Path(sys.executable).resolve()
    bubblewrap = _bubblewrap() if isolation == "bubblewrap" else ""
    try:
        # No preexec_fn: what it would run between fork and exec may need a lock that
        # another thread held at the fork.
        process = subprocess.Popen(
            [interpreter, "-I", "-S", "-B", _CHILD, isolation, folder, bubblewrap]
            + [str(number) for number in numbers],
            stdin=streams[0],
            stdout=streams[1],
            stderr=streams[2],
            env={},
            pass_fds=(writing,),
            start_new_session=True,
        )
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
        given.close()
    try:
        line = _read_line(reading, limits.seconds + _GRACE)
        process.wait(_GRACE)
    finally:
        os.close(reading)
        if process.poll() is None:
            _end(process)
    if not line and process.returncode > 0:
        return f"broken Python itself ended with exit code {process.returncode}"
    return line


def _bubblewrap() -> str:
    """The path of bwrap."""
    found = shutil.which("bwrap")
    if found is None:
        raise RuntimeError("bwrap is not installed")
    return found


def _read_line(reading: int, seconds: float) -> str:
    """What comes before the line or the file ends, or the time is up."""
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    deadline = time.monotonic() + seconds
    line = b""
    while not line.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(1000 * left):
            break
        read = os.read(reading, 4096)
        if not read:
            break
        line += read
    return line.decode(errors="replace").partition("\n")[0]


def _end(process: subprocess.Popen) -> None:
    """Ends a supervising process, with all that it supervises where it still can."""
    process.terminate()
    try:
        process.wait(2)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _verdict(report: str, isolation: str, stderr: str) -> tuple[str, float]:
    """The status and seconds of a report."""
    kind, _, rest = report.partition(" ")
    if kind == "broken":
        raise RuntimeError(
            f"expected to start a program with {isolation}, found {rest}; raise the "
            "memory limit, or try another isolation or machine"
        )
    if not report:
        return "killed", 0.0
    number, seconds = rest.split()
    if kind == "memory":
        return "memory", float(seconds)
    if kind == "timeout" or (kind == "signal" and int(number) == signal.SIGXCPU):
        return "timeout", float(seconds)
    if kind == "signal":
        return "killed", float(seconds)
    if number == "0":
        return "ok", float(seconds)
    last = stderr.rstrip().rpartition("\n")[2]
    return "memory" if last.startswith("MemoryError") else "wrong exit", float(seconds)
