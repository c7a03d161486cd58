"""Damages stored checkpoints and Hugging Face files at random, and loads them.

    python -m tests.checkpoints.fuzz FIRST LAST

runs the cases with the seeds from FIRST to LAST and prints a line of JSON for each.
A case is a pure function of its seed, so that one can be run again alone.
"""

import json
import os
import random
import shutil
import socket
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

import convert.to_jaxmoe
import jaxmoe
from jaxmoe.checkpoints.bundled import bundled_directory
from jaxmoe.checkpoints.safetensors import DTYPES
from tests.hugging_face import CONFIG, make_tensors, write_file

ROOT = Path(jaxmoe.__file__).resolve().parents[1]
KINDS = ("single", "sharded", "converted")
STRANGE: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 7, 0.5, 1e308, float("nan"), float("inf")),
    *(2**31, 2**63, 2**64, 10**30, "", "x", "../../etc/passwd", "\0", "\ud800"),
    *("BF16", "F16", "F64", "F8_E4M3", "I8", "BOOL", "X9", "bfloat16", "float16"),
    *("<f2", "|V2", ">u2", [], {}, [[]], [None], {"a": []}, [1, -1], [10**9] * 4),
    *("x" * 10**6, "[" * 10**5),
)


MOST_BYTES = 2 << 30
MOST_SECONDS = 20.0
MOST_LETTERS = 9000
MOST_READ = 1 << 26

# -- what is damaged ---------------------------------------------------------------


def make_bases(folder: Path) -> dict[str, Path]:
    """A small model as one file, as shards with an index, and converted."""
    config = CONFIG | {"vocab_size": 64}
    tensors = make_tensors(config)
    bases = {kind: folder / kind for kind in KINDS}
    for kind in KINDS[:2]:
        bases[kind].mkdir()
        (bases[kind] / "config.json").write_text(json.dumps(config))
        (bases[kind] / "generation_config.json").write_text(
            json.dumps({"do_sample": True, "temperature": 0.7, "top_k": 20})
        )
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(bundled_directory("demo") / name, bases[kind] / name)
        (bases[kind] / "chat_template.jinja").write_text("{{ messages }}")
    write_file(bases["single"] / "model.safetensors", tensors)
    names, homes = list(tensors), {}
    for i in range(3):
        file = f"model-{i + 1:05}-of-00003.safetensors"
        part = {name: tensors[name] for name in names[i::3]}
        write_file(bases["sharded"] / file, part)
        homes |= dict.fromkeys(part, file)
    (bases["sharded"] / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": 1}, "weight_map": homes})
    )
    convert.to_jaxmoe.convert(bases["single"], bases["converted"])
    return bases


# -- damage ------------------------------------------------------------------------


def damage(folder: Path, rng: random.Random) -> str:
    """Damages one or two places; says what was done."""
    return ", ".join(_damage_once(folder, rng) for _ in range(rng.choice((1, 1, 1, 2))))


def _damage_once(folder: Path, rng: random.Random) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    # Each kind of file as often as the others, however many chunks there are.
    kind = rng.choice(sorted({_kind_of(path) for path in files}))
    path = rng.choice([path for path in files if _kind_of(path) == kind])
    ways = [_flip, _cut, _grow, _zero, _remove, _swap, _replace, _link, _make_odd]
    ways += [_huge, _folder]
    if path.suffix == ".json" or path.name.startswith(".z"):
        ways += [_edit_json] * 12
    if path.suffix == ".safetensors":
        ways += [_edit_header] * 12
    way = rng.choice(ways)
    with suppress(OSError, ValueError, struct.error):  # damaged already
        found = way(path, files, rng)
        return f"{way.__name__} {path.relative_to(folder)} {found or ''}".strip()
    return f"{way.__name__} found nothing"


def _kind_of(path: Path) -> str:
    known = path.suffix in (".json", ".safetensors", ".jinja")
    return path.name if known or path.name.startswith(".") else "chunk"


def _read(path: Path) -> bytes:
    """What a file holds; a huge or endless one, of an earlier damage, is not read."""
    if not path.is_file() or path.stat().st_size > MOST_READ:
        raise FileNotFoundError(path)
    return path.read_bytes()


def _flip(path: Path, files: list[Path], rng: random.Random) -> None:
    raw = bytearray(_read(path))
    for _ in range(rng.choice((1, 1, 3, 30))):
        if raw:
            raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    path.write_bytes(raw)


def _cut(path: Path, files: list[Path], rng: random.Random) -> None:
    os.truncate(path, rng.randrange(path.stat().st_size + 1))


def _grow(path: Path, files: list[Path], rng: random.Random) -> None:
    with path.open("ab") as file:
        file.write(rng.randbytes(rng.choice((1, 8, 4096))))


def _zero(path: Path, files: list[Path], rng: random.Random) -> None:
    raw = bytearray(_read(path))
    start = rng.randrange(len(raw) + 1)
    raw[start : start + 64] = bytes(len(raw[start : start + 64]))
    path.write_bytes(raw)


def _remove(path: Path, files: list[Path], rng: random.Random) -> None:
    path.unlink()


def _swap(path: Path, files: list[Path], rng: random.Random) -> str:
    other = rng.choice([file for file in files if file.suffix == path.suffix])
    mine, others = _read(path), _read(other)
    path.write_bytes(others)
    other.write_bytes(mine)
    return f"with {other.name}"


def _replace(path: Path, files: list[Path], rng: random.Random) -> str:
    other = rng.choice(files)
    path.write_bytes(_read(other))
    return f"by {other.name}"


def _link(path: Path, files: list[Path], rng: random.Random) -> str:
    targets = (path, path.parent, "/dev/zero", "/dev/null", "/nowhere", "/etc/passwd")
    target = rng.choice((*targets, rng.choice(files)))
    path.unlink()
    path.symlink_to(target)
    return f"to {target}"


def _make_odd(path: Path, files: list[Path], rng: random.Random) -> str:
    path.unlink()
    kind = rng.choice(("fifo", "folder", "socket", "empty"))
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        place = Path.cwd()
        os.chdir(path.parent)  # the path of a socket must be short
        try:
            socket.socket(socket.AF_UNIX).bind(path.name)
        finally:
            os.chdir(place)
    else:
        path.touch()
    return kind


def _huge(path: Path, files: list[Path], rng: random.Random) -> None:
    os.truncate(path, rng.choice((1 << 24, 1 << 33)))  # a hole, which takes no space


def _folder(path: Path, files: list[Path], rng: random.Random) -> str:
    """Damages the folder of a file, where it is not the checkpoint itself."""
    inner = path.parent
    if "params" not in (inner.name, inner.parent.name):
        return "left alone"
    way = rng.choice(("remove", "rename", "file", "link"))
    shutil.rmtree(inner) if way == "remove" else inner.rename(f"{inner}.old")
    if way == "file":
        inner.touch()
    elif way == "link":
        inner.symlink_to(f"{inner}.old")
    return way


def _edit_json(path: Path, files: list[Path], rng: random.Random) -> str:
    value = json.loads(_read(path))
    said = _edit(value, rng)
    path.write_text(json.dumps(value), errors="surrogatepass")
    return said


def _edit_header(path: Path, files: list[Path], rng: random.Random) -> str:
    raw = _read(path)
    (length,) = struct.unpack("<Q", raw[:8])
    if rng.random() < 0.1:
        length = rng.choice((0, 1, length - 1, length + 1, 2**40, 2**63, 2**64 - 1))
        path.write_bytes(struct.pack("<Q", length) + raw[8:])
        return f"length {length}"
    header = json.loads(raw[8 : 8 + length])
    said = _edit(header, rng)
    text = json.dumps(header).encode(errors="surrogatepass")
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])
    return said


def _edit(value: Any, rng: random.Random) -> str:
    """Changes something within a JSON value, in place."""
    place, inner, key = "", value, None
    while isinstance(inner, dict | list) and inner:
        holder = inner
        key = rng.choice(
            list(holder) if isinstance(holder, dict) else range(len(holder))
        )
        inner, place = holder[key], f"{place}.{key}"
        if rng.random() < 0.4:
            break
    if key is None:
        return "nothing"
    way = rng.choice(("set", "set", "set", "remove", "rename", "swap", "nest"))
    if way == "set":
        holder[key] = rng.choice(STRANGE)
    elif way == "remove":
        del holder[key]
    elif way == "swap":
        other = rng.choice(_keys(holder))
        holder[key], holder[other] = holder[other], holder[key]
    elif way == "rename" and isinstance(holder, dict):
        holder[rng.choice((f"{key}x", "", "model.norm.weight"))] = holder.pop(key)
    else:
        deep: Any = []
        for _ in range(900):
            deep = [deep]
        holder[key] = deep
    return f"{way} {place}"[:80]


def _keys(holder: dict | list) -> list:
    return list(holder) if isinstance(holder, dict) else list(range(len(holder)))


# -- what becomes of it ------------------------------------------------------------


def run_case(seed: int, bases: dict[str, Path], known: dict[str, Any]) -> dict:
    """Damages a copy as `seed` says, loads it, and says what happened."""
    rng = random.Random(seed)
    kind = rng.choice((*KINDS, "converted"))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "model")
        shutil.copytree(bases[kind], folder)
        done = damage(folder, rng)
        _reset_peak()
        before, begun = _peak(), time.monotonic()
        wrong = _outcome(lambda: _load(folder), folder, kind, known)
        seconds = time.monotonic() - begun
    peak = _peak() - before
    if peak > MOST_BYTES:
        wrong = f"{peak >> 20} MB"
    said = {"seed": seed, "kind": kind, "damage": done}
    return {**said, "wrong": wrong, "seconds": round(seconds, 2), "peak": peak}


def _load(folder: Path) -> jaxmoe.Model:
    model = jaxmoe.load(folder)
    if model.tokenizer is not None:
        model.encode("2,5=7:")
    return model


def contents(model: jaxmoe.Model) -> dict[str, bytes]:
    """The bits of all weights."""
    return {name: np.asarray(value).tobytes() for name, value in model.params.items()}


def _outcome(load: Callable, folder: Path, kind: str, known: dict) -> str | None:
    """What is wrong with how the damaged checkpoint loads; None for nothing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = load()
    except (ValueError, OSError) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        if not Path(last.filename).is_relative_to(ROOT):
            return f"{type(error).__name__} of {last.filename}: {error}"[:300]
        long = len(str(error)) > MOST_LETTERS
        return f"an error of {len(str(error))} letters" if long else None
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} at {last.filename}:{last.lineno} {error}"[:300]
    if kind == "converted":
        same = repr(model.config) == known["config"]
        return None if same and contents(model) == known["weights"] else "other weights"
    if contents(model) != known["weights"] and not _says_so(folder, model):
        return "other weights than the files hold"
    return None


def _says_so(folder: Path, model: jaxmoe.Model) -> bool:
    """Whether the safetensors library finds these weights in the files, too.

    Hugging Face files have no checksums, so damage that leaves well-formed files is
    another model.
    """
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            found = safetensors.deserialize(path.read_bytes())
        except Exception:
            return False
        for name, tensor in found:
            raw = np.frombuffer(bytes(tensor["data"]), DTYPES[tensor["dtype"]])
            tensors[name] = raw.reshape(tensor["shape"])
    again = folder.with_name("again")
    again.mkdir()
    shutil.copy(folder / "config.json", again / "config.json")
    write_file(again / "model.safetensors", tensors)
    return contents(jaxmoe.load(again)) == contents(model)


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    """The most memory that this process has held since `_reset_peak`, in bytes."""
    text = Path("/proc/self/status").read_text()
    return 1024 * int(text.partition("VmHWM:")[2].split()[0])


def main() -> None:
    """Runs the cases of some seeds, and prints what happened."""
    first, last = int(sys.argv[1]), int(sys.argv[2])
    with tempfile.TemporaryDirectory() as temporary:
        bases = make_bases(Path(temporary))
        whole = jaxmoe.load(bases["converted"])
        known = {"config": repr(whole.config), "weights": contents(whole)}
        for seed in range(first, last):
            print(json.dumps(run_case(seed, bases, known)), flush=True)


if __name__ == "__main__":
    main()
