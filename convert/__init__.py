"""Converts Hugging Face checkpoints to jaxmoe's and back: `python -m convert`."""

from convert.errors import ConversionError
from convert.to_hf import export
from convert.to_jaxmoe import convert
from jaxmoe.model import load

__all__ = ["ConversionError", "convert", "export", "load"]
