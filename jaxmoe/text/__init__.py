"""Text in and out: tokenizer, chat templates, stop strings, streaming. No jax here."""

from jaxmoe.text.stop import (
    StopScanner,
    check_stops,
    find_stop,
    partial_stop,
    stop_length,
)
from jaxmoe.text.stream import TextStream
from jaxmoe.text.tokenizer import Tokenizer

__all__ = [
    "StopScanner",
    "TextStream",
    "Tokenizer",
    "check_stops",
    "find_stop",
    "partial_stop",
    "stop_length",
]
