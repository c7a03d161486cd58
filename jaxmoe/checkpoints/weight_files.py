"""The weights of a Hugging Face checkpoint: one safetensors file, or an index of many.

Everything that the files and the index state is compared before a tensor is read, and
no file may lead out of the directory. Pickles are never opened.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from jaxmoe.checkpoints.errors import CheckpointError
from jaxmoe.checkpoints.safetensors import DOWNLOAD, Header, Tensor, read_header

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
    if single.exists() and index.exists():
        raise CheckpointError(
            f"{directory} holds both {SINGLE} and {INDEX}; remove the stale one"
        )
    if index.exists():
        return _open_sharded(directory, index)
    if not single.exists():
        raise CheckpointError(_nothing(directory))
    headers, errors = _open_files(directory, [SINGLE])
    if errors:
        raise CheckpointError.listing(f"{directory} cannot be read", errors)
    return Weights(directory, tuple(headers))


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
    try:
        text = index.read_text(encoding="utf-8")
        listed = json.loads(text)["weight_map"]
        if not listed or not all(isinstance(f, str) for f in listed.values()):
            raise ValueError("weight_map must map tensor names to file names")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{index}: expected an object with weight_map, found {error!r}; {DOWNLOAD}"
        ) from None
    headers, errors = _open_files(directory, sorted(set(listed.values())))
    homes: dict[str, list[str]] = {}
    for header in headers:
        for tensor in header.tensors:
            homes.setdefault(tensor.name, []).append(tensor.file)
    readable = {header.file for header in headers}
    for name, files in homes.items():
        if len(files) > 1:
            errors.append(f"{name} is in {' and in '.join(files)}; expected in one")
        elif name not in listed:
            errors.append(f"{name} is in {files[0]}, but not in {INDEX}")
        elif listed[name] != files[0] and listed[name] in readable:
            errors.append(f"{name} is in {files[0]}, {INDEX} says {listed[name]}")
    for name, file in listed.items():
        if name not in homes and file in readable:
            errors.append(f"{name} is in no file; {INDEX} says {file}")
    if errors:
        errors.append(f"{DOWNLOAD}, or save the model again")
        raise CheckpointError.listing(f"{directory} is inconsistent", errors)
    return Weights(directory, tuple(headers), text)


def _open_files(directory: Path, files: list[str]) -> tuple[list[Header], list[str]]:
    headers, errors = [], []
    for file in files:
        try:
            headers.append(read_header(_inside(directory, file), file))
        except (ValueError, OSError) as error:
            errors.append(str(error))
    return headers, errors


def _inside(directory: Path, file: str) -> Path:
    """The path of `file`, which may not lead out of `directory`.

    The hub's cache is the one exception: it links snapshots/<revision>/<file> to
    blobs/<hash> of the same repository.
    """
    path = directory / file
    root = directory.resolve()
    roots = [root]
    if root.parent.name == "snapshots":
        roots.append(root.parent.parent / "blobs")
    pure = PurePosixPath(file)
    if pure.is_absolute() or ".." in pure.parts or "\\" in file or "\0" in file:
        raise ValueError(
            f"{file!r}: expected a file inside {directory}; the index leads out of it, "
            "which no honest checkpoint does"
        )
    target = path.resolve()
    if not any(target.is_relative_to(r) for r in roots):
        raise ValueError(
            f"{path}: a link to {target}, outside the checkpoint; put the file itself "
            "there, or convert the directory that holds it"
        )
    if not path.is_file():
        raise ValueError(f"{path}: expected this shard, found none; {DOWNLOAD}")
    return path
