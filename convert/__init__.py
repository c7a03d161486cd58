"""Converts Hugging Face checkpoints to jaxmoe's and back: `python -m convert`."""

from convert.errors import ConversionError
from convert.load import load
from convert.to_hf import export
from convert.to_jaxmoe import convert

__all__ = ["ConversionError", "convert", "export", "load"]
