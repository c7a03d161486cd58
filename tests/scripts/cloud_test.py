"""The task files under scripts/cloud: well formed, and with commands that exist.

Nobody has launched them from here; what is checked is what can be without a cloud.
"""

import re
import shlex
import subprocess

import pytest
import yaml

from jaxmoe.cli import evaluate
from tests.running import SCRIPTS

CLOUD = SCRIPTS / "cloud"


def evaluation(words: list[str]):
    """What `jaxmoe evaluate` makes of its arguments; SystemExit if it refuses."""
    return evaluate.parser().parse_args(words)


@pytest.mark.parametrize("name", ["skypilot_tpu", "skypilot_gpu"])
def test_skypilot_tasks(name):
    """SkyPilot would not know a field, or jaxmoe an option."""
    task = yaml.safe_load((CLOUD / f"{name}.yaml").read_text())
    assert set(task) <= {"name", "resources", "workdir", "envs", "setup", "run"}
    fields = {"infra", "accelerators", "accelerator_args", "use_spot", "disk_size"}
    assert set(task["resources"]) <= fields
    # On another kind of device a run would be another, and not go on.
    assert isinstance(task["resources"]["accelerators"], str)
    for script in (task["setup"], task["run"]):
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    line = task["run"].replace("\\\n", " ").split("jaxmoe ")[-1]
    for variable, value in task["envs"].items():
        line = line.replace(f"${variable}", value)
    command, *words = shlex.split(line.replace("$SKYPILOT_NUM_GPUS_PER_NODE", "4"))
    assert command == "evaluate"
    assert evaluation(words).out is not None


def test_gke_job():
    """A pod would wait for neighbours that have no address, or never come again."""
    service, job = yaml.safe_load_all((CLOUD / "gke_job.yaml").read_text())
    assert (service["kind"], job["kind"]) == ("Service", "Job")
    assert service["spec"]["clusterIP"] == "None"
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"]
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    [container] = pod["containers"]
    chips = container["resources"]["limits"]["google.com/tpu"]
    topology = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
    rows, columns = map(int, topology.split("x"))
    assert chips * spec["completions"] == rows * columns
    command, *words = container["args"]
    assert command == "evaluate"
    found = evaluation(words)
    assert found.distributed and found.mesh is not None


def test_image_installs_what_the_wheel_needs():
    """A build would stop at a file that is not copied."""
    text = (CLOUD / "Dockerfile").read_text()
    copied = " ".join(re.findall(r"^COPY (.*)$", text, re.M)).split()
    assert {"pyproject.toml", "README.md", "LICENSE", "jaxmoe", "convert"} <= set(
        copied
    )


def test_compute_engine():
    """Without a name a machine would be made, or run what is no command."""
    script = CLOUD / "compute_engine.sh"
    line = re.search(r"\$image evaluate (.*?) &&", script.read_text(), re.S)
    assert line is not None
    words = line[1].replace("\\\\\n", " ").replace("$bucket", "b").split()
    assert evaluation(words).out is not None
    found = subprocess.run(["bash", script], capture_output=True, text=True)
    assert found.returncode == 2 and "NAME BUCKET IMAGE" in found.stderr
