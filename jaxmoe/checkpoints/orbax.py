"""The one place that imports Orbax: commits arrays already written as its checkpoint.

Orbax writes a parameter from memory and forgets the ones it finished when killed. A
type handler, its public extension point, is given arrays that lie on the disk in its
own format and moves them into place; Orbax writes its metadata and commits.
"""

import logging
import shutil
from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Written:
    """A leaf of the tree to save: the directory of a finished Zarr array."""

    path: Path


@contextmanager
def _only_errors():
    # Orbax warns about what is meant here: no OCDBT, no jax.Array handler.
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def commit(path: Path, names: Iterable[str]):
    """Makes the Orbax checkpoint `path / "params"` of the arrays in `path / "arrays"`.

    Arrays are moved, not copied. After a kill, `recover` and commit again.
    """
    with _only_errors():
        import orbax.checkpoint as ocp
        from orbax.checkpoint.future import CommitFutureAwaitingContractedSignals

        class Adopt(ocp.type_handlers.NumpyHandler):
            async def serialize(self, values: Any, infos: Any, args: Any = None):
                async def move():
                    for value, info in zip(values, infos, strict=True):
                        await info.await_path_creation()
                        value.path.rename(Path(info.parent_dir) / info.name)

                return [CommitFutureAwaitingContractedSignals(move(), name="adopt")]

        registry = ocp.type_handlers.create_type_handler_registry((Written, Adopt()))
        handler = ocp.PyTreeCheckpointHandler(
            use_ocdbt=False, use_compression=False, type_handler_registry=registry
        )
        tree = {name: Written(path / "arrays" / name) for name in names}
        with ocp.Checkpointer(handler) as checkpointer:
            checkpointer.save(
                (path / "params").absolute(), args=ocp.args.PyTreeSave(tree)
            )
    shutil.rmtree(path / "arrays")


def recover(path: Path):
    """Undoes a commit that was cut short: every array is back in `path / "arrays"`."""
    arrays = path / "arrays"
    arrays.mkdir(parents=True, exist_ok=True)
    for committed in path.glob("params*"):
        for metadata in committed.glob("*/.zarray"):
            metadata.parent.rename(arrays / metadata.parent.name)
        shutil.rmtree(committed)
