"""A cloud in a directory: stands in for gcloud, ssh and scp, and records each call.

Called as `fake_gcloud.py gcloud|ssh|scp ARGUMENT...`, and told by the environment:
FAKE_CLOUD: the directory. `calls.jsonl` has the words of each call, `machines.json`
what was created, `home/NAME/I` the home of worker I, where commands really run.
FAKE_WORKERS: workers of a TPU VM (2). FAKE_READY: looks at a new machine until it is
READY (0). FAKE_FAIL, FAKE_FAIL_AT: calls that hold this text fail; only the so many-th.
FAKE_PREEMPT, FAKE_PREEMPT_AT: the first call, or the so many-th, that holds this text
finds the machine preempted, its disks gone; once.

A test calls it dozens of times, so it imports little, and that late.
"""

import json
import os
import sys
from pathlib import Path

CLOUD = Path(os.environ["FAKE_CLOUD"])
MACHINES = CLOUD / "machines.json"
CALLS = CLOUD / "calls.jsonl"
DEAD = ("PREEMPTED", "TERMINATED", "STOPPED")


def flag(words: list[str], name: str, default: str = "") -> str:
    """The value of `--NAME=value`."""
    found = [word for word in words if word.startswith(f"--{name}=")]
    return found[-1].partition("=")[2] if found else default


def read_machines() -> dict[str, dict]:
    """What was created, by name."""
    return json.loads(MACHINES.read_text()) if MACHINES.exists() else {}


def write_machines(machines: dict[str, dict]) -> None:
    """Keeps them for the next call."""
    MACHINES.write_text(json.dumps(machines))


def stop(message: str, code: int = 1) -> None:
    """Ends as gcloud does."""
    print(f"ERROR: (gcloud) {message}", file=sys.stderr)
    sys.exit(code)


def record(words: list[str]) -> list[str]:
    """Writes the call down; all calls as text, this one last."""
    with CALLS.open("a+") as file:
        file.write(json.dumps(words) + "\n")
        file.seek(0)
        return [" ".join(json.loads(line)) for line in file]


def due(calls: list[str], name: str) -> bool:
    """Whether this call is the one that FAKE_NAME and FAKE_NAME_AT mean."""
    text, at = os.environ.get(f"FAKE_{name}"), os.environ.get(f"FAKE_{name}_AT")
    if not text or text not in calls[-1]:
        return False
    return at is None or sum(text in call for call in calls) == int(at)


def preempt() -> None:
    """Takes all machines away: processes and disks are gone."""
    import shutil
    import signal

    if (CLOUD / "preempted").exists():
        return
    (CLOUD / "preempted").touch()
    for pid in (CLOUD / "home").glob("*/*/jaxmoe_vm/job/pid"):
        if not pid.with_name("exit").exists():
            os.killpg(int(pid.read_text()), signal.SIGKILL)
    shutil.rmtree(CLOUD / "home")
    machines = read_machines()
    for machine in machines.values():
        machine["state"] = "PREEMPTED"
    write_machines(machines)


def homes(name: str, workers: str) -> list[Path]:
    """Homes of the workers asked for, made if need be."""
    count = read_machines().get(name, {}).get("workers", 1)
    chosen = range(count) if workers == "all" else [int(workers)]
    found = [CLOUD / "home" / name / str(worker) for worker in chosen]
    for home in found:
        home.mkdir(parents=True, exist_ok=True)
    return found


def shell(name: str, workers: str, command: str) -> int:
    """Runs the command on the workers at once; the first exit code that is not 0."""
    running = []
    for home in homes(name, workers):
        own = {"HOME": str(home), "FAKE_HOST": f"w-{home.name}"}
        words = ["bash", "-c", f"cd && {command}"]
        running.append(os.posix_spawnp("bash", words, {**os.environ, **own}))
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in running]
    return next((code for code in codes if code), 0)


def copy(paths: list[str], workers: str) -> None:
    """Copies as scp does, to or from `NAME:path`."""
    import shutil

    *sources, target = paths
    host, _, path = target.rpartition(":")
    if host:
        for home in homes(host, workers):
            for source in sources:
                shutil.copy(source, home / path)
        return
    for source in sources:
        host, _, path = source.rpartition(":")
        shutil.copy(homes(host, workers)[0] / path, target)


def usable(name: str, ready: str) -> None:
    """Refuses to connect to a machine that is not there or not running."""
    state = read_machines().get(name, {}).get("state", "NOT_FOUND")
    if state != ready:
        stop(f"{name} is {state}")


def look(name: str, ready: str, fields: list[str]) -> None:
    """describe: the state, which comes closer to ready with each look."""
    machines = read_machines()
    if name not in machines:
        stop(f"NOT_FOUND: Resource 'projects/p/nodes/{name}' was not found.")
    machine = machines[name]
    print("\t".join(str(machine[field]) for field in ["state", *fields]))
    if machine["state"] not in (*DEAD, ready):
        machine["looks"] = machine.get("looks", 0) - 1
        if machine["looks"] < 0:
            machine["state"] = ready
    write_machines(machines)


def create(name: str, ready: str, **fields: object) -> None:
    """Makes a machine, unless there is one of that name."""
    machines = read_machines()
    if name in machines:
        stop(f"ALREADY_EXISTS: {name}")
    looks = int(os.environ.get("FAKE_READY", "0"))
    state = ("CREATING" if ready == "READY" else "PROVISIONING") if looks else ready
    machines[name] = {"state": state, "looks": looks, **fields}
    write_machines(machines)


def delete(name: str) -> None:
    """Removes a machine and its disks."""
    import shutil

    machines = read_machines()
    if machines.pop(name, None) is None:
        stop(f"NOT_FOUND: {name} was not found.")
    write_machines(machines)
    shutil.rmtree(CLOUD / "home" / name, ignore_errors=True)


def tpu(verb: str, words: list[str]) -> int:
    """gcloud compute tpus tpu-vm VERB."""
    plain = [word for word in words if not word.startswith("--")]
    workers = flag(words, "worker", "0")
    if verb == "create":
        create(
            plain[0],
            "READY",
            type=flag(words, "accelerator-type"),
            version=flag(words, "version"),
            spot="True" if "--spot" in words else "",
            workers=int(os.environ.get("FAKE_WORKERS", "2")),
        )
    elif verb == "describe":
        look(plain[0], "READY", ["type", "version", "spot"])
    elif verb == "delete":
        delete(plain[0])
    elif verb == "ssh":
        usable(plain[0], "READY")
        return shell(plain[0], workers, flag(words, "command"))
    elif verb == "scp":
        usable(next(word for word in plain if ":" in word).partition(":")[0], "READY")
        copy(plain, workers)
    else:
        stop(f"unknown verb {verb}", 2)
    return 0


def instance(verb: str, words: list[str]) -> int:
    """gcloud compute ssh, scp, or instances VERB."""
    plain = [word for word in words if not word.startswith("--")]
    if verb == "create":
        create(plain[0], "RUNNING", type=flag(words, "machine-type"))
    elif verb == "describe":
        look(plain[0], "RUNNING", ["type"])
    elif verb == "delete":
        delete(plain[0])
    elif verb == "start":
        machines = read_machines()
        machines[plain[0]]["state"] = "RUNNING"
        write_machines(machines)
    elif verb == "ssh":
        usable(plain[0], "RUNNING")
        return shell(plain[0], "0", flag(words, "command"))
    elif verb == "scp":
        usable(next(word for word in plain if ":" in word).partition(":")[0], "RUNNING")
        copy(plain, "0")
    else:
        stop(f"unknown verb {verb}", 2)
    return 0


def host(program: str, words: list[str]) -> int:
    """Plain ssh or scp, whose options all have a value but -q."""
    plain = []
    rest = iter(word for word in words if word != "-q")
    for word in rest:
        if word.startswith("-"):
            next(rest)
        else:
            plain.append(word)
    if program == "ssh":
        return shell(plain[0], "0", plain[1])
    copy(plain, "0")
    return 0


def main(program: str, words: list[str]) -> int:
    """Answers one call."""
    calls = record([program, *words])
    if due(calls, "PREEMPT"):
        preempt()
    if due(calls, "FAIL"):
        stop("the fake was told to fail", 1)
    if program != "gcloud":
        return host(program, words)
    match words:
        case ["config", "get-value", name]:
            print(os.environ.get(f"FAKE_CONFIG_{name.rpartition('/')[2]}", ""))
            return 0
        case ["storage", "ls", _]:
            return 0
        case ["compute", "tpus", "tpu-vm", verb, *more]:
            return tpu(verb, more)
        case ["compute", "instances", verb, *more]:
            return instance(verb, more)
        case ["compute", ("ssh" | "scp") as verb, *more]:
            return instance(verb, more)
    stop(f"unknown command {words}", 2)
    return 2


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1], sys.argv[2:]))
    except KeyboardInterrupt:
        stop("Aborted by user.")
