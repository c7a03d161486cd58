"""The weights of a Hugging Face checkpoint: one safetensors file, or an index of many.

Everything that the files and the index state is compared before a tensor is read, and
the index names no file outside the directory. Pickles are never opened.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from jaxmoe.checkpoints.errors import CheckpointError
from jaxmoe.checkpoints.safetensors import DOWNLOAD, Header, Tensor, read_header
from jaxmoe.files import parse_object, read_small_text

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Weights:
    """The checked safetensors files of a directory; `index` is the index's text."""

    directory: Path
    headers: tuple[Header, ...]
    index: str | None = None
    tensors: dict[str, Tensor] = field(init=False)

    def __post_init__(self):
        found = {t.name: t for header in self.headers for t in header.tensors}
        object.__setattr__(self, "tensors", found)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


def open_weights(directory: Path) -> Weights:
    """Finds and checks the safetensors files of a Hugging Face checkpoint.

    Raises:
      CheckpointError: everything wrong with the files and the index, in one message.
    """
    single, index = directory / SINGLE, directory / INDEX
    if index.exists() and not index.is_file():
        raise CheckpointError(f"{index}: expected a file, found something else")
    if single.exists() and index.exists() and _listed(index)[1] != {SINGLE}:
        raise CheckpointError(
            f"{directory} holds both {SINGLE} and {INDEX}; remove the stale one"
        )
    if index.exists():
        return _open_sharded(directory, index)
    name = SINGLE if single.exists() else _lone_part(directory)
    if name is None:
        raise CheckpointError(_nothing(directory))
    headers, errors = _open_files(directory, [name])
    if errors:
        raise CheckpointError.listing(f"{directory} cannot be read", errors)
    return Weights(directory, tuple(headers))


_PART = re.compile(r".*?-(\d+)-of-(\d+)\.safetensors")


def _lone_part(directory: Path) -> str | None:
    """The one safetensors file there is, where its name does not speak of others."""
    found = [p.name for p in directory.glob("*.safetensors") if not p.is_dir()]
    # Hidden ones are other systems' notes on a file, such as "._model.safetensors".
    found = [name for name in found if not name.startswith(("adapter_", "."))]
    if len(found) != 1:
        return None
    part = _PART.fullmatch(found[0])
    return None if part and int(part[2]) != 1 else found[0]


def _nothing(directory: Path) -> str:
    names = sorted(path.name for path in directory.iterdir())
    pickles = [n for n in names if n.endswith((".bin", ".pt", ".pth", ".ckpt"))]
    loose = [n for n in names if n.endswith(".safetensors")]
    expected = f"expected {SINGLE}, or shards with {INDEX}, in {directory}"
    if loose:
        return f"{expected}, found {', '.join(loose)}; download {INDEX} too"
    if pickles:
        return (
            f"{expected}, found only {', '.join(pickles[:3])}. Such files are pickles: "
            "loading one executes code of whoever wrote it. Use the model's "
            "safetensors, or save it again with transformers' save_pretrained"
        )
    return f"{expected}, found none; point at the directory of a checkpoint"


def _open_sharded(directory: Path, index: Path) -> Weights:
    text, files, listed = _listed(index)
    headers, errors = _open_files(directory, sorted(files))
    homes: dict[str, list[str]] = {}
    for header in headers:
        for tensor in header.tensors:
            homes.setdefault(tensor.name, []).append(tensor.file)
    readable = {header.file for header in headers}
    for name, files in homes.items():
        if len(files) > 1:
            errors.append(f"{name} is in {' and in '.join(files)}; expected in one")
        # One that the index leaves out is in one file: transformers reads it too.
        elif name in listed and listed[name] != files[0] and listed[name] in readable:
            errors.append(f"{name} is in {files[0]}, {INDEX} says {listed[name]}")
    for name, file in listed.items():
        if name not in homes and file in readable:
            errors.append(f"{name} is in no file; {INDEX} says {file}")
    if errors:
        errors.append(f"{DOWNLOAD}, or save the model again")
        raise CheckpointError.listing(f"{directory} is inconsistent", errors)
    return Weights(directory, tuple(headers), text)


def _listed(index: Path) -> tuple[str, set[str], dict[str, str]]:
    """The index's text, the files that it names, and which tensor it says is where."""
    try:
        text = read_small_text(index)
        listed = parse_object(text.encode(), INDEX)["weight_map"]
        if not listed or not all(isinstance(f, str) for f in listed.values()):
            raise ValueError("weight_map must map tensor names to file names")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{index}: expected an object with weight_map, found "
            f"{type(error).__name__}: {str(error)[:200]}; {DOWNLOAD}"
        ) from None
    return text, set(listed.values()), listed


def _open_files(directory: Path, files: list[str]) -> tuple[list[Header], list[str]]:
    headers, errors = [], []
    for file in files:
        try:
            headers.append(read_header(_inside(directory, file), file))
        except CheckpointError:
            raise  # quantised: the whole model is
        except (ValueError, OSError) as error:
            errors.append(str(error))
    return headers, errors


def _inside(directory: Path, file: str) -> Path:
    """The path of `file`, which may not name one outside `directory`.

    It may be a link to anywhere: caches and people keep large files on other disks.
    What it leads to has to be a safetensors file that fits the config.
    """
    path = directory / file
    pure = PurePosixPath(file)
    if pure.is_absolute() or ".." in pure.parts or "\\" in file or "\0" in file:
        raise ValueError(
            f"{file!r:.200}: expected a file inside {directory}; the index leads out "
            "of it, which no honest checkpoint does"
        )
    if path.is_symlink() and not path.exists():
        raise ValueError(
            f"{path}: a link to {path.readlink()}, where nothing is; put the file there"
        )
    if path.exists() and not path.is_file():
        raise ValueError(f"{path}: expected a file, found a folder, pipe or device")
    if not path.is_file():
        raise ValueError(f"{path}: expected this shard, found none; {DOWNLOAD}")
    return path
