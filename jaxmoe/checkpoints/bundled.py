"""Models that come with the package: converted once, kept in the user's cache."""

import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TypeGuard

BUNDLED = {"demo": Path(__file__).resolve().parents[1] / "demo" / "hf"}
"""Name -> Hugging Face directory within the package."""


def cache_directory() -> Path:
    """Where jaxmoe keeps what it can make again: $XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxmoe"


def is_bundled(path: str | Path) -> TypeGuard[str]:
    """Whether `load` takes it for the name of a bundled model."""
    return isinstance(path, str) and path in BUNDLED


def converted(name: str) -> Path:
    """The converted checkpoint of a bundled model, made where it is not there yet.

    It is named by the digest of its source, made under another name, and renamed when
    complete, so that any number of processes may ask at once.

    Raises:
      FileNotFoundError: the model's files are missing from the installation.
      OSError: the conversion failed, in a temporary directory too.
    """
    source = BUNDLED[name]
    if not (source / "model.safetensors").is_file():
        raise FileNotFoundError(
            f"{source} should hold the model {name!r}, but has no model.safetensors; "
            "install jaxmoe again"
        )
    with contextlib.suppress(OSError):
        return _converted_in(cache_directory(), name, source)
    # A home that cannot be written: convert for this process alone.
    return _converted_in(_own_directory(), name, source)


def _converted_in(cache: Path, name: str, source: Path) -> Path:
    from jaxmoe.checkpoints.store import FORMAT  # imports orbax, which takes long

    target = cache / f"{name}-{FORMAT}-{_digest(source)}"
    if _is_whole(target):
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=f".{name}-") as scratch:
        made = Path(scratch) / "made"
        _convert(source, made)
        try:
            made.rename(target)
        except OSError:
            if _is_whole(target):  # another process was faster: its work is equal
                return target
            target.rename(Path(scratch) / "damaged")
            made.rename(target)
    return target


def _is_whole(target: Path) -> bool:
    """Whether a converted checkpoint has all that its manifest lists."""
    from jaxmoe.checkpoints.store import read_manifest

    try:
        manifest = read_manifest(target)
    except (OSError, ValueError):
        return False
    return all((target / "params" / name).exists() for name in manifest.params)


def _digest(source: Path) -> str:
    """Of the names and contents of the files; part of the converted one's name."""
    digest = hashlib.sha256()
    for path in sorted(source.iterdir()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.name} {content}\n".encode())
    return digest.hexdigest()[:16]


def _convert(source: Path, out: Path) -> None:
    """Runs `python -m convert`, which builds on this package and so is no import."""
    root = str(Path(__file__).resolve().parents[2])
    search = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-P", "-m", "convert", str(source), str(out)]
    # Reading and writing files needs no accelerator, and one may be taken already.
    environment = os.environ | {"PYTHONPATH": search, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise OSError(
            f"converting the bundled {source} failed ({done.stderr.strip()[-500:]}); "
            f"try `python -m convert {source} ckpt` and load ckpt"
        )


_OWN: list[tempfile.TemporaryDirectory] = []


def _own_directory() -> Path:
    """A directory that goes away with this process."""
    if not _OWN:
        _OWN.append(tempfile.TemporaryDirectory(prefix="jaxmoe-"))
    return Path(_OWN[0].name)
