"""Text in and out: tokenizer, chat templates, stop strings, streaming. No jax here."""

from jaxmoe.text.stop import (
    StopScanner,
    check_stops,
    find_stop,
    partial_stop,
    stop_length,
)
from jaxmoe.text.stream import TextStream
from jaxmoe.text.tokenizer import TOKENIZER_FILES, Tokenizer

__all__ = [
    "StopScanner",
    "TOKENIZER_FILES",
    "TextStream",
    "Tokenizer",
    "check_stops",
    "find_stop",
    "partial_stop",
    "stop_length",
]
