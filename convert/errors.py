"""The error of a conversion that cannot be done, by the converter's name for it."""

from jaxmoe.checkpoints.errors import CheckpointError as ConversionError

__all__ = ["ConversionError"]
