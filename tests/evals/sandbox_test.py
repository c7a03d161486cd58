"""Programs that misbehave, each kept within its limits and folder."""

import errno
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jaxmoe.evals import sandbox, sandbox_child
from jaxmoe.evals.sandbox import (
    ISOLATIONS,
    UNSAFE,
    Limits,
    available_isolation,
    run_program,
    run_together,
)
from tests.evals.attacks import ATTACKS

QUICK = Limits(seconds=1, memory_bytes=1 << 28, processes=8, output_bytes=1 << 16)
ROOMY = Limits(seconds=20)
"""For programs that end by themselves, however busy the machine is."""


def works(isolation: str) -> bool:
    """Whether this machine has it."""
    try:
        return run_program("print(1)", isolation=isolation).stdout == "1\n"
    except RuntimeError:
        return False


WORKING = [isolation for isolation in ISOLATIONS if works(isolation)]


@pytest.fixture(params=ISOLATIONS)
def isolation(request):
    """Each way to keep a program in its place that works here."""
    if request.param == "best":
        return WORKING[0]
    if request.param not in WORKING:
        pytest.skip(f"this machine has no {request.param} for us")
    return request.param


@pytest.fixture(params=[name for name in ISOLATIONS if name not in UNSAFE])
def safe_isolation(request):
    """Each of them that no program gets round."""
    if request.param not in WORKING:
        pytest.skip(f"this machine has no {request.param} for us")
    return request.param


BEST_ONLY = pytest.mark.parametrize(
    "isolation",
    ["best", pytest.param(ISOLATIONS[-1], marks=pytest.mark.slow)],
    indirect=True,
)
"""For tests of a second or more: the way that always works is left to slow runs."""


def alive(mark: str) -> list[str]:
    """The processes whose command line holds the mark."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "cmdline").read_bytes().decode(errors="replace"):
                found.append(process.name)
        except OSError:
            continue  # it ended meanwhile
    return found


def test_program_reads_and_prints(isolation):
    """Text would come through in another encoding, or without its end."""
    program = "import sys\nprint(input()[::-1])\nprint(len(sys.stdin.read()))"
    huge = "aé€\n" + "x" * 5_000_000
    outcome = run_program(program, stdin=huge, limits=ROOMY, isolation=isolation)
    assert (outcome.status, outcome.stdout) == ("ok", "€éa\n5000000\n")
    assert 0 < outcome.seconds < ROOMY.seconds


def test_program_is_main_and_alone(isolation, monkeypatch):
    """Blocks under __main__ would not run, or keys in our environment be read."""
    monkeypatch.setenv("SECRET", "key")
    program = (
        "import os, sys\nassert 'SECRET' not in os.environ\n"
        "assert not any('packages' in p for p in sys.path)\n"
        "assert os.path.samefile(os.getcwd(), os.environ['TMPDIR'])\n"
        "def f(): return len(sys.argv)\n"
        "if __name__ == '__main__': print(sys.modules['__main__'].f(), __name__)"
    )
    outcome = run_program(program, limits=ROOMY, isolation=isolation)
    assert outcome.stdout == "1 __main__\n", outcome.stderr


@pytest.mark.parametrize(
    "program, status",
    [
        ("1 / 0", "wrong exit"),
        ("this is no Python", "wrong exit"),
        ("\0\ud800", "wrong exit"),
        ("print(1)\n\0\nraise OSError", "wrong exit"),  # Python 3.11.2 would stop there
        ("import sys; sys.exit('Error')", "wrong exit"),
        ("import os; os._exit(0)", "ok"),
        ("import os; os.abort()", "killed"),
        ("input()", "wrong exit"),  # stdin that never comes
        ("import signal; signal.raise_signal(signal.SIGXCPU)", "timeout"),
    ],
)
def test_endings_have_their_status(program, status, isolation):
    """A crash would count as an answer, or as another kind of failure."""
    outcome = run_program(program, limits=ROOMY, isolation=isolation)
    assert outcome.status == status, outcome.stderr
    assert ("Error" in outcome.stderr) == (status == "wrong exit")


@pytest.mark.parametrize(
    "program",
    [
        pytest.param("while True: pass", marks=pytest.mark.slow),
        "import signal, time\n"
        "for s in set(signal.Signals) - {9, 19}: signal.signal(s, signal.SIG_IGN)\n"
        "while True: time.sleep(1)",
        pytest.param(
            "import threading\nfor i in range(3):\n"
            "  threading.Thread(target=threading.Event().wait).start()",
            marks=pytest.mark.slow,
        ),
    ],
)
@BEST_ONLY
def test_time_is_limited(program, isolation):
    """A run of thousands of answers would stop at the first endless one."""
    start = time.monotonic()
    outcome = run_program(program, limits=QUICK, isolation=isolation)
    assert outcome.status == "timeout"
    assert 0.9 < outcome.seconds < 10
    assert time.monotonic() - start < 15


def test_processor_time_is_limited():
    """Threads that compute would take several times their share."""
    program = "import resource; print(resource.getrlimit(resource.RLIMIT_CPU))"
    assert run_program(program, limits=QUICK).stdout == "(1, 2)\n"


@pytest.mark.parametrize(
    "program, status",
    [
        ("x = []\nwhile True: x.append(bytearray(10**6))", "memory"),
        ("x = ' ' * 10**10", "memory"),
        ("import mmap; x = mmap.mmap(-1, 10**10)", "wrong exit"),
    ],
)
def test_memory_is_limited(program, status, isolation):
    """The machine would swap, or the kernel end the evaluation."""
    limits = Limits(seconds=20, memory_bytes=1 << 28)
    outcome = run_program(program, limits=limits, isolation=isolation)
    assert outcome.status == status
    assert "MemoryError" in outcome.stderr or "Cannot allocate" in outcome.stderr


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_output_is_limited(stream, isolation):
    """Pipes would fill, and both sides wait; or the disk would."""
    program = f"import sys\nwhile True: sys.{stream}.write('x' * 10**6)"
    limits = Limits(seconds=20, file_bytes=1 << 20, output_bytes=1 << 16)
    outcome = run_program(program, limits=limits, isolation=isolation)
    printed, complained = len(outcome.stdout), len(outcome.stderr)
    if stream == "stdout":
        assert (outcome.status, printed) == ("output", 1 << 16)
    else:
        assert outcome.status == "wrong exit"
        assert printed == 0 and 0 < complained <= 1 << 16


def test_files_are_limited(isolation):
    """One program could fill the disk."""
    program = (
        "with open('own', 'w') as file: print('small', file=file)\n"
        "print(open('own').read())\n"
        "with open('large', 'wb') as file:\n"
        "  while True: file.write(bytes(10**5))"
    )
    limits = Limits(seconds=20, file_bytes=1 << 20, output_bytes=1 << 16)
    outcome = run_program(program, limits=limits, isolation=isolation)
    assert (outcome.status, outcome.stdout) == ("wrong exit", "small\n\n")
    assert "OSError" in outcome.stderr
    many = "files = [open(f'{i}', 'w') for i in range(100)]"
    assert "Too many open" in run_program(many, isolation=isolation).stderr


@pytest.mark.parametrize(
    "change",
    [
        "open({path!r}, 'w').write('x')",
        "import os; os.close(os.open({path!r}, os.O_CREAT | os.O_WRONLY))",
        "import pathlib; pathlib.Path({path!r}).mkdir()",
        "import os; open('x', 'w').close(); os.rename('x', {path!r})",
        "import os; os.symlink('/etc/passwd', {path!r})",
        "import shutil; shutil.rmtree({folder!r})",
        "import os; os.remove({folder!r} + '/precious')",
        "open({folder!r} + '/precious', 'r+').truncate()",
    ],
)
def test_files_outside_stay_as_they_are(change, isolation, tmp_path):
    """A program could write over our files, or delete them."""
    (tmp_path / "precious").write_text("kept")
    # Permissions are not to be what protects it.
    tmp_path.chmod(0o777)
    program = change.format(path=str(tmp_path / "new"), folder=str(tmp_path))
    outcome = run_program(program, limits=ROOMY, isolation=isolation)
    assert outcome.status == "wrong exit", outcome
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]
    assert (tmp_path / "precious").read_text() == "kept"


def _verdict(steps, machine: int, call: int, *, first: int = 1, flags: int = 0) -> int:
    """What a filter of the kernel answers to a system call.

    first: its first argument. flags: its fourth.
    """
    words, value, at = {0: call, 4: machine, 16: first, 40: flags}, 0, 0
    while True:
        operation, yes, no, operand = steps[at]
        if operation == 0x06:
            return operand
        if operation == 0x20:
            value, skip = words[operand], 0
        elif operation == 0x54:
            value, skip = value & operand, 0
        else:
            tests = {0x15: value == operand, 0x35: value >= operand}
            skip = yes if tests.get(operation, bool(value & operand)) else no
        at += 1 + skip


ALLOWED, KILLED = 0x7FFF0000, 0x80000000
NO_SUCH_CALL, NO_MEMORY = 0x00050000 | errno.ENOSYS, 0x00050000 | errno.ENOMEM


@pytest.mark.parametrize("place, machine", [*enumerate(sandbox_child._MACHINES)])
def test_calls_are_filtered_on_each_machine(place, machine):
    """Numbers of another machine would refuse nothing, or what Python needs."""
    steps = sandbox_child._filter(machine)
    name = sandbox_child._MACHINES[machine]
    checked = {n: call[place] for n, call in sandbox_child._CHECKED_CALLS.items()}
    refused = {numbers[place] for numbers in sandbox_child._REFUSED_CALLS.values()}
    for call in range(500):
        expected = NO_SUCH_CALL if call in refused else ALLOWED
        assert _verdict(steps, name, call) == expected, call
        assert _verdict(steps, name ^ 1, call) == KILLED
    assert _verdict(steps, name, 0x40000001) == NO_SUCH_CALL
    for call, argument, value, expected in (
        *(("clone", "first", flag, NO_SUCH_CALL) for flag in (0x20000, 0x10000000)),
        ("clone", "first", 0x01200011, ALLOWED),
        *(("socket", "first", family, ALLOWED) for family in (1, 2, 10, 16)),
        *(("socket", "first", family, NO_SUCH_CALL) for family in (0, 17, 38, 40)),
        *(("mmap", "flags", flags, ALLOWED) for flags in (0x01, 0x02, 0x22, 0x20022)),
        *(("mmap", "flags", flags, NO_MEMORY) for flags in (0x21, 0x23, 0x40021)),
    ):
        found = _verdict(steps, name, checked[call], **{argument: value})
        assert found == expected, (call, value)


@pytest.mark.parametrize(
    "place, header",
    [(0, "x86_64-linux-gnu/asm/unistd_64.h"), (1, "asm-generic/unistd.h")],
)
def test_calls_have_the_kernels_numbers(place, header):
    """A wrong number would refuse another call than its name says."""
    path = Path("/usr/include") / header
    if not path.exists():
        pytest.skip(f"this machine has no {path}")
    # Those with a width of 32 and of 64 bits have one number under another name.
    pattern = r"#define __NR(?:3264)?_(\w+) (\d+)"
    known = dict(re.findall(pattern, path.read_text()))
    calls = sandbox_child._REFUSED_CALLS | sandbox_child._CHECKED_CALLS
    found = {call: int(known.get(call, -1)) for call in calls}
    assert found == {call: numbers[place] for call, numbers in calls.items()}


def test_without_a_filter_nothing_counts_as_isolated(tmp_path, monkeypatch):
    """On a machine whose calls nobody has listed, the manifest would say otherwise."""
    text = Path(sandbox_child.__file__).read_text("utf-8")
    for machine in sandbox_child._MACHINES:
        text = text.replace(f'"{machine}"', f'"no {machine}"')
    child = tmp_path / "sandbox_child.py"
    child.write_text(text, "utf-8")
    monkeypatch.setattr(sandbox, "_CHILD", child)
    for isolation in WORKING:
        if isolation in UNSAFE:
            assert run_program("print(1)", isolation=isolation).stdout == "1\n"
        else:
            with pytest.raises(RuntimeError, match=rf"found {os.uname().machine}"):
                run_program("print(1)", isolation=isolation)


def test_other_files_and_processes_are_hidden(safe_isolation, tmp_path):
    """A program could look the answers up in the file of problems."""
    (tmp_path / "answers").write_text("42")
    places = [str(tmp_path / "answers"), __file__, "/etc/passwd", "/usr/src"]
    places.append(f"/proc/{os.getpid()}/cmdline")
    program = f"import os; print([os.path.exists(p) for p in {places}])"
    outcome = run_program(program, limits=ROOMY, isolation=safe_isolation)
    assert outcome.stdout == f"{[False] * len(places)}\n"
    shown = ["/", "/usr/lib", str(Path(os.__file__).parent)]
    flags = f"[os.statvfs(p).f_flag & os.ST_RDONLY for p in {shown}]"
    outcome = run_program(f"import os; print({flags})", isolation=safe_isolation)
    assert outcome.stdout == "[1, 1, 1]\n"


SECRET = f"SECRET-{uuid.uuid4().hex}"


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """What attacks aim at: files, a process that knows the secret, and servers."""
    folder = tmp_path_factory.mktemp("outside")
    folder.chmod(0o777)
    file = folder / "problems.jsonl"
    file.write_text(SECRET)
    file.chmod(0o666)
    held = f"import time; file = open({str(file)!r}); print('ready', flush=True); "
    process = subprocess.Popen(
        [sys.executable, "-c", f"{held}time.sleep(9999)", "--data", SECRET],
        env={"EXPECTED": SECRET},
        cwd=folder,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    name = f"jaxmoe-{uuid.uuid4().hex}"
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_UNIX) as local,
    ):
        local.bind(f"\0{name}")
        local.listen()
        for each in (server, local):
            each.setblocking(False)
        words = {
            **{"@FILE": file, "@FOLDER": folder, "@PID": process.pid},
            **{"@PORT": server.getsockname()[1], "@SOCKET": name},
        }
        yield words, process, (server, local)
    process.kill()
    process.wait()


ATTACKED = (
    *("read: command lines", "read: shell", "reach: tcp by libc", "write: remount"),
    *("take: memory of many", "take: report", "take: memory let go"),
    *("reach: host of a virtual machine", "reach: ciphers of the kernel"),
)
"""Attacks of every run; the others are slow ones."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ATTACKED else pytest.mark.slow)
        for name in ATTACKS
    ],
)
def test_no_attack_escapes(name, safe_isolation, outside):
    """A program could read what is expected of it, or do harm."""
    words, process, servers = outside
    mark = f"6{uuid.uuid4().int % 10**12}"
    program = ATTACKS[name]
    for word, value in {**words, "@MARK": mark}.items():
        program = program.replace(word, str(value))
    limits = Limits(
        **{"seconds": 4, "memory_bytes": 1 << 28, "processes": 8},
        **{"file_bytes": 1 << 22, "output_bytes": 1 << 16},
    )
    host, begun = socket.gethostname(), time.monotonic()
    outcome = run_program(program, limits=limits, isolation=safe_isolation)
    said = outcome.stdout + outcome.stderr
    assert SECRET not in said
    assert "ESCAPED" not in outcome.stdout, said
    assert time.monotonic() - begun < 120
    assert [path.name for path in words["@FOLDER"].iterdir()] == ["problems.jsonl"]
    assert words["@FILE"].read_text() == SECRET
    assert process.poll() is None
    assert alive(mark) == []
    assert socket.gethostname() == host
    for server in servers:
        with pytest.raises(BlockingIOError):
            server.accept()
    if name == "take: memory of many":
        assert outcome.status == "memory"
    if name == "take: report":
        assert outcome.status == "wrong exit"


def test_nothing_goes_from_one_program_to_the_next(safe_isolation):
    """One answer could leave the outputs that it was shown to the next."""
    leave = (
        "import os\nfor d, _, _ in os.walk('/'):\n"
        "  try: open(d + '/left-by-another', 'w').write('x')\n  except OSError: pass"
    )
    find = "import os\nprint([d for d, _, f in os.walk('/') if 'left-by-another' in f])"
    run_program(leave, limits=ROOMY, isolation=safe_isolation)
    outcome = run_program(find, limits=ROOMY, isolation=safe_isolation)
    assert outcome.stdout == "[]\n", outcome


def test_two_programs_talk_and_both_end(isolation):
    """Each would wait for the other until its time is up."""
    ask = "print(3, flush=True)\nassert int(input()) == 4"
    answer = "print(int(input()) + 1, flush=True)"
    outcomes = run_together((ask, answer), limits=ROOMY, isolation=isolation)
    assert [outcome.status for outcome in outcomes] == ["ok", "ok"], outcomes
    gone = run_together((ask, "1 / 0"), limits=ROOMY, isolation=isolation)
    assert [outcome.status for outcome in gone] == ["wrong exit"] * 2
    assert gone[0].seconds < ROOMY.seconds


def test_network_is_out_of_reach(isolation):
    """A program could call out, or answer whoever calls."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        server.setblocking(False)
        program = (
            f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 2)\n"
            "print('connected')"
        )
        outcome = run_program(program, limits=ROOMY, isolation=isolation)
        assert (outcome.status, outcome.stdout) == ("wrong exit", "")
        with pytest.raises(BlockingIOError):
            server.accept()


@BEST_ONLY
def test_fork_bomb_is_contained(isolation):
    """Processes would fill the machine's table; here each forks until it cannot."""
    mark = f"6{uuid.uuid4().int % 10**12}"
    program = (
        "import os\nchildren = 0\nwhile True:\n"
        "  try: pid = os.fork()\n"
        "  except OSError: break\n"
        f"  if pid == 0: os.execv('/bin/sleep', ['sleep', '{mark}'])\n"
        "  children += 1\n"
        "print(children)"
    )
    few = Limits(seconds=5, processes=8)
    outcome = run_program(program, limits=few, isolation=isolation)
    expected = 0 if isolation == "audit hook" else few.processes - 1
    assert (outcome.status, outcome.stdout) == ("ok", f"{expected}\n")
    bomb = "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass"
    assert run_program(bomb, limits=QUICK, isolation=isolation).status == "timeout"
    assert alive(mark) == []


@BEST_ONLY
def test_no_process_outlives_its_program(isolation):
    """Daemons of thousands of answers would take the machine over."""
    mark = f"6{uuid.uuid4().int % 10**12}"
    # Forks without the audit hook's knowledge, as multiprocessing does.
    program = (
        "import multiprocessing.util as util, time\n"
        f"script = b'(setsid sleep {mark} &) ; setsid sh -c \"sleep {mark}; true\" &'\n"
        "util.spawnv_passfds(b'/bin/sh', [b'sh', b'-c', script], ())\n"
        "time.sleep(0.5)\nprint('done')"
    )
    seen = []
    watcher = threading.Thread(target=lambda: seen.extend(_seen(mark, 10)))
    watcher.start()
    limits = Limits(seconds=20)
    outcome = run_program(program, limits=limits, isolation=isolation)
    left = alive(mark)
    watcher.join()
    assert (outcome.status, outcome.stdout) == ("ok", "done\n"), outcome.stderr
    assert seen, "the daemons never ran, so nothing was tested"
    assert left == []


def _seen(mark: str, seconds: float) -> list[str]:
    """The first processes with the mark to come up."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = alive(mark)
        if found:
            return found
        time.sleep(0.02)
    return []


@BEST_ONLY
def test_program_ends_with_whoever_waits(isolation, tmp_path):
    """Programs would go on after an evaluation was killed."""
    caller = (
        "from sandbox import Limits, run_program\n"
        "program = 'import time; time.sleep(600)'\n"
        f"run_program(program, limits=Limits(600), isolation={isolation!r})"
    )
    # Imported by itself: the package would first import jax, for seconds.
    folder = Path(__file__).resolve().parents[2] / "jaxmoe" / "evals"
    environment = {**os.environ, "PYTHONPATH": str(folder), "TMPDIR": str(tmp_path)}
    waiting = subprocess.Popen([sys.executable, "-c", caller], env=environment)
    try:
        found = _children_seen(waiting.pid, 20)
    finally:
        waiting.kill()
        waiting.wait()
    assert found
    end = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in found):
        assert time.monotonic() < end, "still running"
        time.sleep(0.05)


def _children_seen(parent: int, seconds: float) -> list[int]:
    """The descendants of a process, once there are at least two in a line."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        parents = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(stat.parent.name)] = int(fields[1])
        line = [parent]
        for pid in line:
            line.extend(child for child, of in parents.items() if of == pid)
        if len(line) > 2:
            return line[1:]
        time.sleep(0.02)
    return []


@pytest.mark.slow
def test_threads_run_programs_side_by_side(isolation):
    """One thread's time-out or output would become another's."""

    def run(i: int):
        program = f"print({i})" if i % 3 else "while True: pass"
        limits = ROOMY if i % 3 else QUICK
        return run_program(program, limits=limits, isolation=isolation)

    with ThreadPoolExecutor(6) as pool:
        outcomes = list(pool.map(run, range(12)))
    for i, outcome in enumerate(outcomes):
        expected = ("ok", f"{i}\n") if i % 3 else ("timeout", "")
        assert (outcome.status, outcome.stdout) == expected, outcome.stderr


def test_nothing_is_left(isolation, tmp_path, monkeypatch):
    """A long run would end with too many open files, or a full /tmp."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for program in ("open('own', 'w')", "1 / 0", "import os; os.abort()"):
        run_program(program, isolation=isolation)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong", [{"seconds": 0}, {"seconds": float("inf")}, {"processes": -1}]
)
def test_limits_are_checked(wrong):
    """A limit of 0 would fail every program, and no limit none."""
    with pytest.raises(ValueError, match="expected limits above 0"):
        Limits(**wrong)


def test_unknown_isolation_is_refused():
    """A misspelt one would run programs without any."""
    with pytest.raises(ValueError, match="expected an isolation of bubblewrap"):
        run_program("pass", isolation="none")


def test_a_machine_without_means_is_an_error(monkeypatch):
    """Every answer would be graded wrong where none can be run."""
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="expected to start a program"):
        run_program("pass", isolation="namespaces")


def test_only_those_who_insist_get_less(monkeypatch):
    """Programs would be run where they can read what is expected of them."""
    run = run_program

    def without(program, *, isolation, **options):
        if isolation not in UNSAFE:
            raise RuntimeError("not permitted")
        return run(program, isolation=isolation, **options)

    monkeypatch.setattr(sandbox, "run_program", without)
    available_isolation.cache_clear()
    try:
        with pytest.raises(RuntimeError, match="install bubblewrap.*--unsafe-code"):
            available_isolation()
        assert available_isolation(unsafe=True) == "audit hook"
    finally:
        available_isolation.cache_clear()


def test_deeply_nested_folders_are_removed(tmp_path):
    """Removing them by recursion would raise, and end a whole evaluation."""
    place, kept = Path.cwd(), tmp_path / "kept"
    kept.write_text("x")
    with sandbox._temporary_folder() as root:
        (Path(root) / "link").symlink_to(tmp_path)
        os.chdir(root)
        try:
            for _ in range(2000):
                Path("d").mkdir()
                Path("f").write_text("x")
                os.chdir("d")
        finally:
            os.chdir(place)
    assert not Path(root).exists()
    assert kept.exists()
