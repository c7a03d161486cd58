"""Models of the Hugging Face hub: downloaded once, kept in the hub's own cache."""

import re
from pathlib import Path

from jaxmoe.checkpoints.errors import CheckpointError
from jaxmoe.checkpoints.small_files import SMALL_FILES
from jaxmoe.checkpoints.weight_files import INDEX

_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_UNREACHABLE = {
    "ConnectError",
    "ConnectTimeout",
    "ConnectionError",
    "LocalEntryNotFoundError",
    "OfflineModeIsEnabled",
    "ProxyError",
    "ReadTimeout",
}
"""Names of errors that say nothing of the model: those of two HTTP clients."""


def is_hub_name(text: str) -> bool:
    """Whether `text` looks like owner/name."""
    return _NAME.fullmatch(text) is not None


def find_directory(source: str) -> Path:
    """The directory `source`, or the hub's model of that name, downloaded.

    Raises:
      CheckpointError: neither; or what `download` raises.
    """
    path = Path(source)
    if path.is_dir():
        return path
    if path.exists() or not is_hub_name(source):
        raise CheckpointError(
            f"{source}: expected a directory with config.json and safetensors, or a "
            "hub name like Qwen/Qwen3-30B-A3B, found neither"
        )
    return download(source)


def download(name: str) -> Path:
    """The directory of a model of the hub: its small files and its safetensors.

    Raises:
      CheckpointError: huggingface_hub is not installed; the hub does not have the
        model, does not give it, or cannot be reached.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise CheckpointError(
            f"{name} is no directory here; to download the hub's model of that name: "
            'pip install "jaxmoe[hub]"'
        ) from None
    patterns = ["*.safetensors", INDEX, *SMALL_FILES]
    try:
        # Some repositories hold the weights once more, in a folder and another format.
        beside = ["*/*.safetensors"]
        found = snapshot_download(name, allow_patterns=patterns, ignore_patterns=beside)
        return Path(found)
    except Exception as error:
        if _UNREACHABLE & {kind.__name__ for kind in type(error).__mro__}:
            raise CheckpointError(
                f"{name} is no directory here, and the hub cannot be reached "
                f"({error}); look at the network, or download the model elsewhere and "
                "give its directory"
            ) from error
        raise CheckpointError(
            f"{name} is no directory here, and the hub does not give it: {error}"
        ) from error
