"""Starts one program under limits, waits, and leaves nothing of it alive.

`sandbox.py` runs this file in an interpreter of its own, with one thread, where
forking and changing namespaces are safe. It imports little, as it starts once per run:

    python sandbox_child.py ISOLATION FOLDER BWRAP REPORT SECONDS MEMORY PROCESSES \
        FILE SCRATCH OPEN

FOLDER holds program.py; BWRAP is bubblewrap's path, or empty. Stdin, stdout and stderr
are the program's. One line goes to the descriptor REPORT: "exit CODE SECONDS", "signal
NUMBER SECONDS", "timeout 0 SECONDS", "memory 0 SECONDS" or "broken REASON", where the
program could not be started.

With namespaces there are three processes: this one, the first process of the new
process namespace, and the program; the kernel ends all of a namespace with its first
process. With bubblewrap it makes the second and third, and within it this file first
lowers the limits ("become") that its own processes are not to be under. With the audit
hook there are two. Orphans that leave a namespace become children of this process.
"""

# pathlib would double the time that this file takes to start.
# ruff: noqa: PTH102,PTH103,PTH112,PTH114,PTH115,PTH116,PTH120,PTH123,PTH208,PTH211

import ctypes
import errno
import math
import os
import resource
import signal
import struct
import sys
import time

_LIBC = ctypes.CDLL(None, use_errno=True)
# From linux/sched.h, linux/mount.h and linux/prctl.h; Python has no names for them.
_NEW_NAMESPACES = 0x00020000 | 0x04000000 | 0x08000000 | 0x20000000 | 0x40000000
_NEW_USER = 0x10000000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MS_BIND, _MS_REC, _MS_PRIVATE = 4096, 16384, 1 << 18
_MNT_DETACH = 2
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_SYS_MOUNT_SETATTR = 442
_READ_ONLY_NOSUID = 1 | 2
_SET_DEATH_SIGNAL, _SET_DUMPABLE, _SET_SECCOMP = 1, 4, 22
_SET_SUBREAPER, _SET_NO_NEW_PRIVILEGES = 36, 38

_STACK_BYTES = 64 << 20
_TICK = 0.1
"""Seconds between two looks at the memory of all processes together."""
_VISIBLE = (
    *(f"/usr/{name}" for name in ("lib", "lib32", "lib64", "libx32", "bin")),
    *("/usr/local/lib", "/usr/local/lib64", "/usr/share/zoneinfo"),
    *("/lib", "/lib32", "/lib64", "/bin", "/nix/store", "/gnu/store"),
    *("/etc/ld.so.cache", "/dev/null", "/dev/urandom"),
)
"""What a program sees of the machine, besides Python itself; read-only.

Not all of /usr: data often lies in /usr/src or /usr/local. Not /dev/zero, which can be
mapped as shared memory is.
"""

# Calls that keep memory which no limit counts, look into other processes, or reach far
# into the kernel. clone3 hides its flags behind a pointer; C libraries then take clone.
_REFUSED_CALLS = {
    **{"memfd_create": (319, 279), "shmget": (29, 194), "semget": (64, 190)},
    **{
        "msgget": (68, 186),
        "mq_open": (240, 180),
        "add_key": (248, 217),
        "request_key": (249, 218),
    },
    **{"keyctl": (250, 219), "memfd_secret": (447, 447)},
    **{"ptrace": (101, 117), "perf_event_open": (298, 241)},
    **{"process_vm_readv": (310, 270), "process_vm_writev": (311, 271)},
    **{"pidfd_getfd": (438, 438)},
    **{"userfaultfd": (323, 282), "bpf": (321, 280), "io_uring_setup": (425, 425)},
    **{"io_uring_enter": (426, 426), "io_uring_register": (427, 427)},
    **{"unshare": (272, 97), "setns": (308, 268), "clone3": (435, 435)},
    **{"mount": (165, 40), "pivot_root": (155, 41), "mount_setattr": (442, 442)},
    **{"open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430)},
    **{"fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433)},
}
"""Calls that programs do without, with their numbers on `_MACHINES` (asm/unistd.h)."""
_MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""What the kernel calls a machine (linux/audit.h)."""
_CHECKED_CALLS = {"clone": (56, 220), "socket": (41, 198), "mmap": (9, 222)}
"""Calls of which some are refused, for what their arguments are; numbers as above.

clone that makes namespaces. socket of a family that no namespace of networks holds, as
vsock, which reaches the host of a virtual machine. mmap of shared memory: it is held
when a process no longer maps all of it, and then no look at the processes shows it.
"""
_NAMESPACE_FLAGS = 0x7E020000
_FAMILIES = (1, 2, 10, 16)  # unix, inet, inet6, netlink
_SHARED_ANONYMOUS = 0x01 | 0x20


class Job:
    """What to run, and its limits; see the head of this file."""

    def __init__(self, arguments: list[str]):
        self.isolation, self.folder, self.bwrap, report, seconds, *numbers = arguments
        self.report, self.seconds = int(report), float(seconds)
        self.memory, self.processes, self.file, self.scratch, self.open = map(
            int, numbers
        )
        self.root = os.geteuid() == 0
        self.spare_user = _spare_user()

    def tell(self, line: str) -> None:
        """Reports to the process that waits."""
        os.write(self.report, (" ".join(line.split()) + "\n").encode())


def main(job: Job) -> None:
    """Runs the job, ends whatever is left of it, and reports."""
    os.set_inheritable(job.report, False)
    _prefer_as_victim()
    # Waited for, not handled: no code runs between two lines of this file.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGTERM})
    # Whoever waits for this process may itself be killed.
    _LIBC.prctl(_SET_DEATH_SIGNAL, signal.SIGTERM, 0, 0, 0)
    if job.isolation == "bubblewrap":
        _run_in_bubblewrap(job)
    elif job.isolation == "namespaces":
        _run_in_namespaces(job)
    else:
        _run_guarded(job)


# -- namespaces --------------------------------------------------------------------


def _run_in_namespaces(job: Job) -> None:
    _unshare(job.root)
    first = os.fork()
    if first == 0:
        try:
            _LIBC.prctl(_SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
            _build_root(job)
            # No process of the same user may look into this one, or trace it.
            _LIBC.prctl(_SET_DUMPABLE, 0, 0, 0, 0)
            job.folder = "/tmp"
            # Within a user namespace this process and its parent count, too.
            counted = job.processes if job.root else job.processes + 2
            user = job.spare_user if job.root else None
            _supervise(job, lambda: _become(job, ["program.py"], user, counted))
        except BaseException as error:
            job.tell(f"broken {error!r}")
        finally:
            os._exit(0)
    if _wait(first, math.inf) == "timeout":
        os.kill(first, signal.SIGKILL)
        os.waitpid(first, 0)


def _unshare(root: bool) -> None:
    """Leaves the namespaces of mounts, UTS, IPC, processes and network."""
    user, group = os.getuid(), os.getgid()
    _check(_LIBC.unshare(_NEW_NAMESPACES | (0 if root else _NEW_USER)), "unshare")
    if root:
        return
    # Mapped to itself: as a user other than 0 the program has no capabilities.
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{user} {user} 1"),
        ("gid_map", f"{group} {group} 1"),
    ):
        _write(f"/proc/self/{name}", text.encode())


def _build_root(job: Job) -> None:
    """Makes a root of read-only parts and a writable /tmp with program.py."""
    with open(f"{job.folder}/program.py", "rb") as file:
        program = file.read()
    root = job.folder
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE)
    _mount("tmpfs", root, "tmpfs", _MS_NOSUID, "size=1m,mode=755")
    for path in _visible():
        _bind(path, root + path)
    for path in _packages():
        _mount("tmpfs", root + path, "tmpfs", _MS_RDONLY, "size=4k")
    os.makedirs(root + "/tmp", exist_ok=True)
    os.mkdir(root + "/proc")
    _mount_processes(root + "/proc")
    attributes = (ctypes.c_uint64 * 4)(_READ_ONLY_NOSUID, 0, 0, 0)
    arguments = (_AT_FDCWD, root.encode(), _AT_RECURSIVE, attributes, 32)
    _check(_LIBC.syscall(_SYS_MOUNT_SETATTR, *arguments), "mount_setattr")
    size = f"size={job.scratch + len(program)},nr_inodes=1000,mode=777"
    _mount("tmpfs", root + "/tmp", "tmpfs", _MS_NOSUID | _MS_NODEV, size)
    _write(root + "/tmp/program.py", program)
    os.chdir(root)
    # Stacks the new root over the old one, which is then unmounted from under it.
    _check(_LIBC.pivot_root(b".", b"."), "pivot_root")
    _check(_LIBC.umount2(b".", _MNT_DETACH), "umount2")
    os.chdir("/tmp")


def _mount_processes(path: str) -> None:
    """Shows the new namespace's processes in /proc, or nothing there.

    A container that hides parts of its own /proc may not show another whole.
    """
    flags = _MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    try:  # noqa: SIM105
        _mount("proc", path, "proc", flags)
    except PermissionError:
        pass


def _visible() -> list[str]:
    """Paths to show, none within another."""
    prefixes = {sys.base_prefix, sys.base_exec_prefix}
    libraries = [f"{p}/{name}" for p in prefixes for name in ("lib", sys.platlibdir)]
    python = (os.path.realpath(sys.executable), os.path.dirname(os.__file__))
    paths: list[str] = []
    for path in sorted({*_VISIBLE, *libraries, *python}, key=len):
        within = any(path.startswith(shown + "/") for shown in paths)
        if os.path.lexists(path) and not within:
            paths.append(path)
    return paths


def _packages() -> list[str]:
    """Folders of installed packages, which may hold data sets; they are shown empty."""
    found = []
    for library in {f"{p}/lib" for p in (sys.base_prefix, "/usr", "/usr/local")}:
        for python in os.listdir(library) if os.path.isdir(library) else ():
            for name in ("site-packages", "dist-packages"):
                path = f"{library}/{python}/{name}"
                if python.startswith("python") and os.path.isdir(path):
                    found.append(os.path.realpath(path))
    return [path for path in found if any(_is_in(path, top) for top in _visible())]


def _is_in(path: str, top: str) -> bool:
    return path.startswith(top + "/")


def _bind(source: str, target: str) -> None:
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.islink(source):
        os.symlink(os.readlink(source), target)
        return
    if os.path.isdir(source):
        os.mkdir(target)
    else:
        _write(target, b"")
    _mount(source, target, None, _MS_BIND | _MS_REC)


def _mount(source, target: str, kind, flags: int, data: str = "") -> None:
    texts = [None if text is None else text.encode() for text in (source, target, kind)]
    result = _LIBC.mount(*texts, ctypes.c_ulong(flags), data.encode())
    _check(result, f"mount {target}")


# -- bubblewrap --------------------------------------------------------------------


def _run_in_bubblewrap(job: Job) -> None:
    _LIBC.prctl(_SET_SUBREAPER, 1, 0, 0, 0)
    with open(f"{job.folder}/program.py", "rb") as file:
        program = _unnamed_file(file.read())
    with open(__file__, "rb") as file:
        launcher = _unnamed_file(file.read())
    reading, status = os.pipe()
    os.set_inheritable(status, True)
    apart = [f"--unshare-{kind}" for kind in ("ipc", "pid", "net", "uts")]
    if job.root:
        # A user namespace would map its user to root, whose processes no limit counts;
        # so the launcher changes users, and loses all capabilities by that.
        apart += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        user, processes = job.spare_user, job.processes
    else:
        # Processes of a user namespace are counted in it; bubblewrap's own is one.
        apart.append("--unshare-user")
        user, processes = -1, job.processes + 1
    limits = (user, job.seconds, job.memory, processes, job.file, job.open)
    command = [
        *(job.bwrap, "--die-with-parent", "--cap-drop", "ALL", *apart),
        *("--json-status-fd", str(status)),
        *_bubblewrap_root(job, program, launcher),
        *(os.path.realpath(sys.executable), "-I", "-S", "-B", "/launcher.py"),
        *("become", *map(str, limits)),
    ]

    def start() -> None:
        _LIBC.prctl(_SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execve(job.bwrap, command, {})

    def ended(code: int) -> str:
        os.close(status)
        os.set_blocking(reading, False)
        if b"exit-code" not in os.read(reading, 1 << 16):
            return f"broken bubblewrap ended with exit code {code}"
        # As a shell has it: 128 and the number of the signal.
        return f"signal {code - 128}" if code > 128 else f"exit {code}"

    try:
        _supervise(job, start, ended)
    finally:
        _kill_children()


def _bubblewrap_root(job: Job, program: int, launcher: int) -> list[str]:
    """Options for a root as that of `_build_root`."""
    options = []
    for path in _visible():
        for parent in _parents(path):
            options += ["--perms", "0755", "--dir", parent]
        if os.path.islink(path):
            options += ["--symlink", os.readlink(path), path]
        else:
            devices = path.startswith("/dev/")
            options += ["--dev-bind" if devices else "--ro-bind", path, path]
    for path in _packages():
        options += ["--tmpfs", path, "--remount-ro", path]
    size = str(job.scratch + os.fstat(program).st_size)
    options += ["--perms", "0777", "--size", size, "--tmpfs", "/tmp"]
    options += ["--proc", "/proc"]
    options += ["--file", str(launcher), "/launcher.py"]
    options += ["--file", str(program), "/tmp/program.py", "--chdir", "/tmp"]
    return [*options, "--remount-ro", "/"]


def _parents(path: str) -> list[str]:
    """The folders that a path lies in, but for /, outermost first."""
    ends = [i for i, letter in enumerate(path) if letter == "/" and i]
    return [path[:end] for end in ends]


def _unnamed_file(content: bytes) -> int:
    """A descriptor that a started process inherits, and reads `content` from."""
    descriptor = os.memfd_create("given", 0)
    os.write(descriptor, content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def become(arguments: list[str]) -> None:
    """Within bubblewrap: turns into /tmp/program.py under the limits."""
    user, seconds, memory, processes, size, open_files = arguments
    given = ["", "/tmp", "", "2", seconds, memory, processes, size, "1", open_files]
    job = Job(given)
    _become(job, ["program.py"], int(user) if int(user) >= 0 else None, job.processes)


# -- audit hook --------------------------------------------------------------------


def _run_guarded(job: Job) -> None:
    _LIBC.prctl(_SET_SUBREAPER, 1, 0, 0, 0)
    with open(__file__, "rb") as file:
        _write(f"{job.folder}/guard.py", file.read())
    user = job.spare_user if job.root and _readable_by_all(job) else None
    if user is not None:
        for name in ("", "/guard.py", "/program.py"):
            os.chown(job.folder + name, user, user)
    # All of a user's processes count, so for one who has others no number is right;
    # the hook refuses new processes in any case.
    counted = None if user is None else job.processes
    command = ["guard.py", "guard", job.folder]
    try:
        _supervise(job, lambda: _become(job, command, user, counted))
    finally:
        _kill_children()


def _readable_by_all(job: Job) -> bool:
    """Whether a user without rights could start Python in the folder."""
    for path in (os.path.realpath(sys.executable), os.__file__, job.folder):
        place = os.path.dirname(path)
        while True:
            if not os.stat(place).st_mode & 0o001:
                return False
            if place == "/":
                break
            place = os.path.dirname(place)
    return True


def _kill_children() -> None:
    """Kills children until there are none: those of the dead become ours."""
    while True:
        for child in _children():
            os.kill(child, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> list[int]:
    children = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                # The name before the last bracket may itself hold brackets and spaces.
                parent = int(file.read().rpartition(b")")[2].split()[1])
        except OSError:
            continue  # it ended meanwhile
        if parent == os.getpid():
            children.append(int(name))
    return children


def guard(folder: str) -> None:
    """Runs the folder's program.py after refusing what reaches out of the folder.

    The hook sees what goes through Python's own functions, and nothing else.
    """
    with open(f"{folder}/program.py", "rb") as file:
        source = file.read()
    sys.argv = ["program.py"]
    main_module = type(sys)("__main__")
    main_module.__dict__["__builtins__"] = __builtins__
    sys.modules["__main__"] = main_module
    sys.addaudithook(_audit_hook(os.path.realpath(folder)))
    exec(compile(source, "program.py", "exec", dont_inherit=True), vars(main_module))


_REFUSED = (
    *("socket.", "ctypes.", "subprocess.", "pty.", "os.system", "os.exec", "os.fork"),
    *("os.spawn", "os.posix_spawn", "os.kill"),
)
# Where in an event's arguments each path is that it changes, and, where there is one,
# the descriptor of the folder that the path starts from.
_CHANGES = {
    **dict.fromkeys(("os.remove", "os.rmdir"), ((0, 1),)),
    **dict.fromkeys(("os.mkdir", "os.chmod"), ((0, 2),)),
    **dict.fromkeys(("os.chown", "os.utime"), ((0, 3),)),
    **dict.fromkeys(("os.rename", "os.link"), ((0, 2), (1, 3))),
    **dict.fromkeys(("os.truncate", "os.setxattr", "os.removexattr"), ((0, None),)),
    "os.symlink": ((1, 2),),
}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def _audit_hook(folder: str):
    # Bound here, so that a program that assigns to `os.path` changes nothing.
    realpath, join, fsdecode = os.path.realpath, os.path.join, os.fsdecode
    text = (str, bytes, os.PathLike)

    def outside(path, start: int = -1) -> bool:
        if not isinstance(path, text):
            return False  # a descriptor that is open already
        path = fsdecode(path)
        place = realpath(path if start < 0 else join(f"/proc/self/fd/{start}", path))
        return not f"{place}/".startswith(f"{folder}/") and place != "/dev/null"

    def hook(event: str, arguments: tuple) -> None:
        if event == "open":
            path, mode, flags = arguments
            writes = (flags or 0) & _WRITING or set("wax+") & set(mode or "")
            refused = writes and outside(path)
        elif event in _CHANGES:
            refused = any(
                outside(arguments[i], -1 if start is None else arguments[start])
                for i, start in _CHANGES[event]
            )
        else:
            refused = event.startswith(_REFUSED)
        if refused:
            raise PermissionError(f"the sandbox refuses {event}")

    return hook


# -- all ---------------------------------------------------------------------------


def _supervise(job: Job, start, ended=None) -> None:
    """Starts the program, waits until it ends or a limit is passed, and reports.

    start: called in a new process, which it turns into the program. ended: what to
    report of an exit code; None for the code itself.
    """
    began = time.monotonic()
    program = os.fork()
    if program == 0:
        try:
            start()
        except BaseException as error:
            job.tell(f"broken {error!r}")
        finally:
            os._exit(127)
    found = _wait(program, began + job.seconds, job.memory)
    if isinstance(found, str):
        said = f"{found} 0"
    elif os.WIFSIGNALED(found):
        said = f"signal {os.WTERMSIG(found)}"
    else:
        code = os.WEXITSTATUS(found)
        said = f"exit {code}" if ended is None else ended(code)
    job.tell(f"{said} {time.monotonic() - began}")


def _wait(child: int, deadline: float, memory: float = math.inf) -> int | str:
    """The status of a child; "timeout" where time is up or SIGTERM came, or "memory".

    memory: bytes that all processes below this one may hold together.
    """
    while True:
        ended, status = os.waitpid(-1, os.WNOHANG)
        if ended == child:
            return status
        if ended:
            continue  # an orphan
        left = deadline - time.monotonic()
        if left <= 0:
            return "timeout"
        if memory < math.inf and _held_below(os.getpid(), memory) > memory:
            return "memory"
        tick = 3600 if memory == math.inf else _TICK
        came = signal.sigtimedwait({signal.SIGCHLD, signal.SIGTERM}, min(left, tick))
        if came is not None and came.si_signo == signal.SIGTERM:
            return "timeout"


def _held_below(parent: int, enough: float) -> int:
    """Bytes of memory that all descendants hold; those they share count once.

    Only looked at closely where a quick sum, which counts shared ones several times,
    is above `enough`.
    """
    below = _descendants(parent)
    page = resource.getpagesize()
    quick = sum(
        _field(f"{pid}/statm", lambda text: page * int(text.split()[1])) or 0
        for pid in below
    )
    if quick <= enough:
        return quick
    return sum(
        _field(f"{pid}/smaps_rollup", lambda text: 1024 * _proportional(text)) or 0
        for pid in below
    )


def _descendants(parent: int) -> list[int]:
    found = [parent]
    for pid in found:
        try:
            threads = os.listdir(f"/proc/{pid}/task")
        except OSError:
            continue  # it ended meanwhile
        for thread in threads:
            children = _field(f"{pid}/task/{thread}/children", str.split)
            found += map(int, children or ())
    return found[1:]


def _proportional(text: str) -> int:
    return int(text.partition("\nPss:")[2].split()[0])


def _field(name: str, read):
    """What `read` makes of a file in /proc; None where the process has ended."""
    try:
        with open(f"/proc/{name}") as file:
            return read(file.read())
    except (OSError, ValueError, IndexError):
        return None


def _become(job: Job, command: list[str], user, processes) -> None:
    """Turns this process into the program; never returns."""
    try:
        os.setsid()
        os.chdir(job.folder)
        _limit(resource.RLIMIT_AS, job.memory)
        _limit(resource.RLIMIT_CPU, math.ceil(job.seconds), later=1)
        _limit(resource.RLIMIT_FSIZE, job.file)
        _limit(resource.RLIMIT_NOFILE, job.open)
        _limit(resource.RLIMIT_CORE, 0)
        _limit(resource.RLIMIT_STACK, _STACK_BYTES)
        _change_user(user)
        if processes is not None:
            _limit(resource.RLIMIT_NPROC, processes)
        # After the change of user, which clears it.
        _LIBC.prctl(_SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        _LIBC.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        _refuse_calls(required=job.isolation != "audit hook")
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        arguments = [sys.executable, "-I", "-S", "-B", "-X", "utf8", *command]
        environment = {
            **{"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
            **{"HOME": job.folder, "TMPDIR": job.folder},
        }
        os.execve(sys.executable, arguments, environment)
    except BaseException as error:
        job.tell(f"broken {error!r}")
    finally:
        os._exit(127)


def _change_user(user: int | None) -> None:
    if user is not None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)


def _refuse_calls(*, required: bool) -> None:
    """Lets the kernel say of `_REFUSED_CALLS` that it has no such call.

    required: an OSError where the calls of this machine are not known.
    """
    machine = os.uname().machine
    if machine not in _MACHINES:
        if required:
            raise OSError(
                f"expected a machine of {' or '.join(_MACHINES)}, whose system calls "
                f"can be filtered, found {machine}"
            )
        return
    program = _filter(machine)
    packed = b"".join(struct.pack("HBBI", *step) for step in program)
    text = ctypes.create_string_buffer(packed)
    described = struct.pack("HP", len(program), ctypes.addressof(text))
    _check(_LIBC.prctl(_SET_SECCOMP, 2, described, 0, 0), "seccomp")


def _filter(machine: str) -> list[tuple[int, ...]]:
    """The kernel's filter: (operation, where true, where false, operand) each.

    Jumps are counted from the next one (linux/filter.h, linux/seccomp.h).
    """
    place = list(_MACHINES).index(machine)
    refused = [numbers[place] for numbers in _REFUSED_CALLS.values()]
    clone, socket, mmap = (numbers[place] for numbers in _CHECKED_CALLS.values())
    load, equal, above, holds, keep, give = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
    # Where to go on is the name of a step, "" for the next one.
    steps = [
        ("", load, "", "", 4),  # the machine whose calls these are
        ("", equal, "calls", "", _MACHINES[machine]),
        ("", give, "", "", 0x80000000),  # kill
        ("calls", load, "", "", 0),  # the call's number
        ("", above, "refuse", "", 0x40000000),  # x86's 32-bit pointers
        *(("", equal, "refuse", "", number) for number in refused),
        ("", equal, "clone", "", clone),
        ("", equal, "socket", "", socket),
        ("", equal, "mmap", "allow", mmap),
        ("clone", load, "", "", 16),  # its flags
        ("", holds, "refuse", "allow", _NAMESPACE_FLAGS),
        ("mmap", load, "", "", 40),  # its flags
        ("", keep, "", "", _SHARED_ANONYMOUS),
        ("", equal, "", "allow", _SHARED_ANONYMOUS),
        ("", give, "", "", 0x00050000 | errno.ENOMEM),
        ("socket", load, "", "", 16),  # its family
        *(("", equal, "allow", "", family) for family in _FAMILIES),
        ("refuse", give, "", "", 0x00050000 | errno.ENOSYS),
        ("allow", give, "", "", 0x7FFF0000),
    ]
    places = {name: at for at, (name, *_) in enumerate(steps) if name}
    return [
        (operation, *(places[to] - at - 1 if to else 0 for to in (yes, no)), operand)
        for at, (_, operation, yes, no, operand) in enumerate(steps)
    ]


def _limit(kind: int, value: int, later: int = 0) -> None:
    """Lowers a limit; `later` is how far its hard one lies above."""
    _, most = resource.getrlimit(kind)
    if most != resource.RLIM_INFINITY:
        value = min(value, most)
        later = min(later, most - value)
    resource.setrlimit(kind, (value, value + later))


def _spare_user() -> int:
    """A user id that no account has, and that no other run has at this time.

    61184 to 65519 are systemd's for users that exist only while a service runs.
    """
    return 61184 + os.getpid() % (65520 - 61184)


def _prefer_as_victim() -> None:
    """Where memory runs out, the kernel is to end this and not the evaluation."""
    try:  # noqa: SIM105
        _write("/proc/self/oom_score_adj", b"1000")
    except OSError:
        pass  # nothing depends on it


def _write(path: str, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)


def _check(result: int, name: str) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


if __name__ == "__main__":
    if sys.argv[1] == "guard":
        guard(sys.argv[2])
    elif sys.argv[1] == "become":
        become(sys.argv[2:])
    else:
        job = Job(sys.argv[1:])
        try:
            main(job)
        except BaseException as error:
            job.tell(f"broken {error!r}")
