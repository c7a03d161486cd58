"""scripts/gpu_vm.sh here, over a fake ssh, and on instances of a fake gcloud."""

from collections.abc import Iterator

import pytest

from tests.scripts.cloud import Cloud, printed

SCRIPT = "gpu_vm.sh"
HOST = ("--host", "me@box")
INSTANCE = ("--gcloud-instance", "box")
UP = ("up", *INSTANCE, "--machine-type", "g2-standard-48")
SHOW = ("sh", "-c", 'echo "[$CUDA_VISIBLE_DEVICES]" "$1"; exit 3', "-", "it's $1")


@pytest.fixture
def cloud(tmp_path) -> Iterator[Cloud]:
    """A cloud without instances."""
    cloud = Cloud(tmp_path)
    yield cloud
    cloud.close()


def verbs(calls: list[list[str]]) -> list[str]:
    """What each call of gcloud is for, with the action on the machine."""
    found = []
    for words in calls:
        text = " ".join(words)
        verb = words[3] if words[2] == "instances" else words[2]
        after = text.partition("_vm_worker.sh ")[2] if verb == "ssh" else ""
        found.append(f"{verb} {after.partition(' ')[0]}".strip())
    return found


def test_run_here(cloud):
    """A run on this machine would see other GPUs, go to a cloud, or hide its code."""
    done = cloud.run(SCRIPT, "run", "--gpus", "0,3", "--", *SHOW)
    assert (done.returncode, done.stdout) == (3, "[0,3] it's $1\n"), done.stderr
    assert printed(done.stderr) == [["env", "CUDA_VISIBLE_DEVICES=0,3", *SHOW]]
    every = cloud.run(SCRIPT, "run", "--", *SHOW, CUDA_VISIBLE_DEVICES="7")
    assert every.stdout == "[7] it's $1\n"
    dry = cloud.run(SCRIPT, "run", "--dry-run", "--", "touch", "made")
    assert dry.returncode == 0 and not (cloud.path / "here" / "made").exists()
    assert cloud.calls() == []


@pytest.mark.slow
def test_host(cloud):
    """A machine behind ssh would be installed twice, or run something else."""
    assert cloud.run(SCRIPT, "up", *HOST).returncode == 0
    assert cloud.pip() == ["-m pip install --quiet -e .[cuda12]"]
    assert cloud.run(SCRIPT, "up", *HOST).returncode == 0
    assert len(cloud.pip()) == 1 and cloud.count("scp") == 1
    done = cloud.run(SCRIPT, "run", *HOST, "--gpus", "0,1", "--", *SHOW)
    assert (done.returncode, done.stdout) == (3, "[0,1] it's $1\n"), done.stderr
    assert printed(done.stderr) == cloud.calls()[-len(printed(done.stderr)) :]
    assert {words[0] for words in cloud.calls()} == {"ssh", "scp"}
    assert "exit 3: env CUDA_VISIBLE_DEVICES=0" in cloud.run(
        SCRIPT, "status", *HOST
    ).stdout.replace("\\", "")
    assert cloud.run(SCRIPT, "logs", *HOST).stdout == "[0,1] it's $1\n"


@pytest.mark.slow
def test_collect(cloud):
    """Results would not come back, or a retry on the same machine lose them."""
    write = ("sh", "-c", "mkdir -p out; echo x >>out/a")
    words = ("run", *HOST, "--collect", "out", "got", "--", *write)
    got = cloud.path / "here" / "got" / "a"
    for lines in (1, 2):
        assert cloud.run(SCRIPT, *words).returncode == 0
        assert got.read_text() == "x\n" * lines
    got.unlink()
    assert cloud.run(SCRIPT, "collect", *HOST, "out", "got").returncode == 0
    assert got.exists()


@pytest.mark.slow
def test_instance(cloud):
    """An instance would be created twice, without its GPUs, or outlive `down`."""
    flags = ("--accelerator", "type=nvidia-l4,count=4", "--spot")
    done = cloud.run(SCRIPT, *UP, *flags, FAKE_READY="2")
    assert done.returncode == 0, done.stderr
    create = next(words for words in cloud.calls() if "create" in words)
    assert create[4:] == [
        "box",
        "--machine-type=g2-standard-48",
        "--maintenance-policy=TERMINATE",
        "--scopes=storage-rw,logging-write",
        "--image-family=common-cu128-ubuntu-2204-nvidia-570",
        "--image-project=deeplearning-platform-release",
        "--boot-disk-size=200GB",
        "--accelerator=type=nvidia-l4,count=4",
        "--provisioning-model=SPOT",
        "--instance-termination-action=STOP",
        "--project=p",
        "--zone=z",
        "--quiet",
    ]
    assert cloud.run(SCRIPT, *UP).returncode == 0
    assert cloud.count("instances create") == 1 and len(cloud.pip()) == 1
    ran = cloud.run(SCRIPT, "run", *INSTANCE, "--gpus", "0", "--", *SHOW)
    assert (ran.returncode, ran.stdout) == (3, "[0] it's $1\n"), ran.stderr
    assert cloud.run(SCRIPT, "status", *INSTANCE).stdout.startswith("box: RUNNING")
    for _ in range(2):
        assert cloud.run(SCRIPT, "down", *INSTANCE).returncode == 0
    assert cloud.machines() == {} and cloud.count("instances delete") == 1


@pytest.mark.slow
def test_preempted_instance(cloud):
    """A stopped instance would be run on, or created anew with its disk lost."""
    assert cloud.run(SCRIPT, *UP).returncode == 0
    cloud.set_state("box", "TERMINATED")
    lost = cloud.run(SCRIPT, "run", *INSTANCE, "--", "true")
    assert lost.returncode == 1 and "`gpu_vm.sh up` starts it" in lost.stderr
    assert cloud.run(SCRIPT, "up", *INSTANCE).returncode == 0
    assert cloud.count("instances start") == 1
    assert cloud.count("instances create") == 1
    assert cloud.run(SCRIPT, "run", *INSTANCE, "--", "true").returncode == 0


STEPS = {
    "describe": "could not look at instance box",
    "create": "could not create instance box",
    "install": "could not install",
}


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_up_goes_on_after_a_failure(cloud, step):
    """A failed step would pass for done, or `up` could not be run again after it."""
    failed = cloud.run(SCRIPT, *UP, FAKE_FAIL=step)
    assert failed.returncode == 1
    assert STEPS[step] in failed.stderr.splitlines()[-1]
    assert cloud.run(SCRIPT, *UP).returncode == 0
    assert len(cloud.pip()) == 1


def test_dry_run(cloud):
    """A dry run would touch something, or hide a command."""
    dry = cloud.run(SCRIPT, *UP, "--dry-run")
    assert dry.returncode == 0 and cloud.calls() == []
    assert cloud.run(SCRIPT, *UP).returncode == 0
    shown = [words for words in printed(dry.stderr) if words[0] == "gcloud"]
    assert verbs(shown) == verbs(cloud.calls())
    before = len(cloud.calls())
    for words in (
        ["run", *HOST, "--", "true"],
        ["run", *INSTANCE, "--", "true"],
        ["down", *INSTANCE],
        ["status", *INSTANCE],
        ["collect", *HOST, "out", "got"],
    ):
        dry = cloud.run(SCRIPT, "--dry-run", *words)
        assert dry.returncode == 0 and printed(dry.stderr), dry.stderr
    assert len(cloud.calls()) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fly"], "found fly"),
        (["up"], "expected --host or --gcloud-instance for `up`, found neither"),
        (["up", *HOST, *INSTANCE], "found both; give one"),
        (["down", *HOST], "not ours to delete"),
        (["run", "--gpus", "0,x", "--", "true"], "expected numbers of GPUs"),
        (["run", "--gpus", "0"], "expected a command after --"),
        (["run", "--collect", "a", "b", "--", "true"], "found neither"),
        (["run", *HOST, "--spot", "--", "true"], "expected a flag of `run`"),
        (["up", "--gcloud-instance"], "expected a value after --gcloud-instance"),
    ],
)
def test_flags_that_do_not_fit(cloud, words, message):
    """A slip would do something, or be answered by more than one sentence."""
    done = cloud.run(SCRIPT, *words)
    assert done.returncode == 2 and message in done.stderr
    assert len(done.stderr.splitlines()) == 1 and cloud.calls() == []


def test_missing_zone(cloud):
    """An instance would be looked for in a zone that nobody named."""
    done = cloud.run(SCRIPT, "down", *INSTANCE, CLOUDSDK_COMPUTE_ZONE="")
    assert done.returncode == 2 and "expected a zone, found none" in done.stderr
    assert verbs(cloud.calls()) == ["get-value"]


def test_help(cloud):
    """A newcomer would not find a flag."""
    done = cloud.run(SCRIPT, "--help")
    assert done.returncode == 0
    for word in ("--host", "--gpus", "--gcloud-instance", "--machine-type", "--spot"):
        assert word in done.stdout
