"""tpu_vm.sh against a gcloud that notes its calls and runs what ssh is asked for here.

No real gcloud has been called by these tests, and no VM made.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.running import SCRIPTS

GCLOUD = """#!/bin/bash
printf '%s\\n' "$*" >>"$CLOUD/calls"
case "$4" in
  describe)
    if [[ -e $CLOUD/state ]]; then cat "$CLOUD/state"
    else echo "NOT_FOUND: was not found" >&2; exit 1; fi ;;
  create) echo READY >"$CLOUD/state" ;;
  delete) rm "$CLOUD/state" ;;
  scp) cp "$5" "$CLOUD/home" ;;
  ssh)
    for word; do
      if [[ $word == --command=* ]]; then
        cd "$CLOUD/home" && HOME=$CLOUD/home bash -c "${word#--command=}"
        exit
      fi
    done ;;
esac
"""


class Cloud:
    """A small repository with the script, and a gcloud beside it."""

    def __init__(self, path: Path):
        self.path, self.repository = path, path / "repository"
        (path / "home" / "venv" / "bin").mkdir(parents=True)
        pip = path / "home" / "venv" / "bin" / "pip"
        pip.write_text('#!/bin/sh\necho "pip $* in $PWD" >>"$CLOUD/calls"\n')
        (path / "bin").mkdir()
        (path / "bin" / "gcloud").write_text(GCLOUD)
        for program in (pip, path / "bin" / "gcloud"):
            program.chmod(0o755)
        (self.repository / "scripts").mkdir(parents=True)
        shutil.copy(SCRIPTS / "tpu_vm.sh", self.repository / "scripts")
        (self.repository / "own file.txt").write_text("first")
        for words in (["init", "-q"], ["add", "."]):
            subprocess.run(["git", *words], cwd=self.repository, check=True)

    def run(self, *words: str) -> subprocess.CompletedProcess:
        """The script with these words."""
        path = f"{self.path / 'bin'}:{os.environ['PATH']}"
        return subprocess.run(
            ["bash", self.repository / "scripts" / "tpu_vm.sh", *words],
            env={"PATH": path, "CLOUD": str(self.path), "HOME": str(self.path)},
            text=True,
            capture_output=True,
        )


@pytest.fixture
def cloud(tmp_path) -> Cloud:
    """A cloud without a VM."""
    return Cloud(tmp_path)


UP = ("up", "--name", "moe", "--type", "v5litepod-16", "--zone", "z", "--spot")


def test_up_run_down(cloud):
    """The documented way would not work, or run other files than those here."""
    assert cloud.run(*UP).returncode == 0
    made = (cloud.path / "calls").read_text()
    assert "create moe --accelerator-type=v5litepod-16" in made
    assert "--version=v2-alpha-tpuv5-lite --spot" in made and "--zone=z" in made
    assert f"in {cloud.path}/home/jaxmoe" in made
    (cloud.repository / "own file.txt").write_text("changed ")
    (cloud.repository / "untracked").touch()
    show = 'cat "own file.txt"; ls; echo $JAX_COORDINATOR_PORT; exit 5'
    found = cloud.run("run", "--name", "moe", "--", "bash", "-c", show)
    assert found.returncode == 5
    assert found.stdout.split() == ["changed", "own", "file.txt", "scripts", "8476"]
    assert cloud.run("down", "--name", "moe").returncode == 0
    assert not (cloud.path / "state").exists()


def test_up_goes_on(cloud):
    """A VM that is there would be made again, or a preempted one be taken for it."""
    assert cloud.run(*UP).returncode == 0
    assert cloud.run(*UP).returncode == 0
    assert (cloud.path / "calls").read_text().count("create moe") == 1
    (cloud.path / "state").write_text("PREEMPTED\n")
    assert cloud.run(*UP).returncode == 0
    calls = (cloud.path / "calls").read_text()
    assert calls.count("create moe") == 2 and calls.count("delete moe") == 1


def test_a_dry_run_runs_nothing(cloud):
    """Who only looks would be charged."""
    found = cloud.run(*UP, "--dry-run")
    assert found.returncode == 0 and "'create' 'moe'" in found.stderr
    assert not (cloud.path / "calls").exists()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ((), "nothing"),
        (("start", "--name", "moe"), "start"),
        (("up", "--type", "v6e-8"), "--name"),
        (("up", "--name", "moe"), "--type"),
        (("up", "--name", "moe", "--type", "tpu7x-8"), "tpu7x-8"),
        (("run", "--name", "moe"), "--"),
        (("up", "--name", "--type"), "--name"),
        (("up", "--colour", "red"), "--colour"),
    ],
)
def test_refused(cloud, words, named):
    """A typing error would cost a VM."""
    found = cloud.run(*words)
    assert found.returncode == 2 and named in found.stderr
    assert len(found.stderr.splitlines()) == 1
    assert not (cloud.path / "calls").exists()
