"""tpu_vm.sh and gpu_vm.sh in a small repository, with a cloud that is a directory."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from tests.running import SCRIPTS

FAKE = Path(__file__).with_name("fake_gcloud.py")
SHELL_FILES = (
    "tpu_vm.sh",
    "gpu_vm.sh",
    "_vm.sh",
    "_vm_run.sh",
    "_vm_worker.sh",
)

# Programs that the scripts find instead of the real ones. PYTHON makes an environment
# whose Python writes down what pip is asked for and otherwise is ours.
PROGRAMS = {
    "gcloud": 'exec {python} -I -S {fake} gcloud "$@"\n',
    "ssh": 'exec {python} -I -S {fake} ssh "$@"\n',
    "scp": 'exec {python} -I -S {fake} scp "$@"\n',
    "hostname": 'echo "$FAKE_HOST"\n',
    "curl": "exit 97\n",
    "python3.13": (
        'if [ "$1" = -m ]; then\n'
        'mkdir -p "$3/bin" && cp {bin}/venv-python "$3/bin/python"\n'
        "fi\n"
    ),
    "venv-python": (
        'case "$1 $2" in\n'
        '"-c import pip") ;;\n'
        '"-m pip") echo "$*" >>"$FAKE_CLOUD/pip" ;;\n'
        '*) exec {python} "$@" ;;\n'
        "esac\n"
    ),
}


class Cloud:
    """One test's cloud, repository and programs, below `path`."""

    def __init__(self, path: Path):
        self.path = path
        self.repository = path / "repository"
        self.directory = path / "cloud"
        self.directory.mkdir(parents=True)
        self._write_programs(path / "bin")
        self._write_repository()
        self.environment = {
            "PATH": f"{path / 'bin'}:{os.environ['PATH']}",
            "HOME": str(path),
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "FAKE_CLOUD": str(self.directory),
            "FAKE_HOST": "here",
            "CLOUDSDK_CORE_PROJECT": "p",
            "CLOUDSDK_COMPUTE_ZONE": "z",
            "JAXMOE_VM_POLL": "0.05",
            "JAXMOE_VM_PAUSE": "0.05",
            "JAXMOE_VM_TRIES": "2",
            "JAXMOE_VM_SLICE": "1",
            "JAXMOE_VM_GRACE": "0",
        }

    def _write_programs(self, folder: Path) -> None:
        folder.mkdir()
        for name, text in PROGRAMS.items():
            filled = text.format(python=sys.executable, fake=FAKE, bin=folder)
            (folder / name).write_text("#!/bin/sh\n" + filled)
            (folder / name).chmod(0o755)

    def _write_repository(self) -> None:
        (self.repository / "scripts").mkdir(parents=True)
        for name in SHELL_FILES:
            shutil.copy(SCRIPTS / name, self.repository / "scripts" / name)
        self.write("pyproject.toml", "[project]\n")
        self.write("notes.txt", "first\n")
        self.git("init", "-q")
        self.git("add", ".")

    def write(self, name: str, text: str) -> None:
        """Writes a file of the repository."""
        (self.repository / name).write_text(text)

    def git(self, *words: str) -> str:
        """What git says in the repository."""
        return subprocess.run(
            ["git", *words],
            cwd=self.repository,
            env={**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"},
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    def start(self, script: str, *words: str, **environment: str) -> subprocess.Popen:
        """Starts a script in the directory `here`."""
        here = self.path / "here"
        here.mkdir(exist_ok=True)
        return subprocess.Popen(
            ["bash", str(self.repository / "scripts" / script), *words],
            cwd=here,
            env={**self.environment, **environment},
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(
        self, script: str, *words: str, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Runs a script to its end."""
        process = self.start(script, *words, **environment)
        try:
            out, err = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def close(self) -> None:
        """Ends commands that a test that failed has left running."""
        for pid in self.directory.glob("home/*/*/jaxmoe_vm/job/pid"):
            if not pid.with_name("exit").exists():
                with suppress(ProcessLookupError):
                    os.killpg(int(pid.read_text()), signal.SIGKILL)

    def calls(self) -> list[list[str]]:
        """The words of each call of gcloud, ssh and scp, in order."""
        path = self.directory / "calls.jsonl"
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text().splitlines()]

    def count(self, text: str) -> int:
        """How many calls hold this text."""
        return sum(text in " ".join(words) for words in self.calls())

    def pip(self) -> list[str]:
        """What pip was asked for."""
        path = self.directory / "pip"
        return path.read_text().splitlines() if path.exists() else []

    def machines(self) -> dict[str, dict]:
        """What has been created, by name."""
        path = self.directory / "machines.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def set_state(self, name: str, state: str) -> None:
        """Brings a machine into a state."""
        machines = self.machines()
        machines[name]["state"] = state
        (self.directory / "machines.json").write_text(json.dumps(machines))

    def tree(self, name: str = "moe", worker: int = 0) -> Path:
        """Where a worker has the working tree."""
        return self.directory / "home" / name / str(worker) / "jaxmoe_vm" / "tree"


def printed(err: str) -> list[list[str]]:
    """The words of each command that a script printed as `+ COMMAND`."""
    found = []
    lines = iter(err.splitlines(keepends=True))
    for line in lines:
        if not line.startswith("+ "):
            continue
        text = line[2:]
        while True:  # a quoted newline goes on in the next line
            try:
                found.append(shlex.split(text))
                break
            except ValueError:
                text += next(lines)
    return found
