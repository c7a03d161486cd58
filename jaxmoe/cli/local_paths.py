"""Paths that have to be of this machine."""

from pathlib import Path

from jaxmoe.checkpoints.gcs import place_of


def require_local(path: Path) -> None:
    """Raises a ValueError for a gs:// address.

    Raises:
      ValueError: it is one; the message says how to have the folder here.
    """
    if place := place_of(path):
        raise ValueError(
            f"expected a local path, found {place}; choose one here, or copy it with: "
            f"gcloud storage cp --recursive {place} ."
        )
