"""Which mixer a layer's config asks for, and what such a mixer remembers."""

from typing import Any, NamedTuple

from jaxmoe.config import AttentionConfig
from jaxmoe.nn.attention import Attention
from jaxmoe.nn.key_values import KeyValues


class Kind(NamedTuple):
    """A kind of mixer: its module, a `Mixer`, and its state, a `LayerState`."""

    module: Any
    state: Any


KINDS: dict[type, Kind] = {AttentionConfig: Kind(Attention, KeyValues)}
"""By the type of the config; a new mixer is a line."""


def kind_of(config: Any) -> Kind:
    """The kind that a mixer's config is of."""
    return KINDS[type(config)]
