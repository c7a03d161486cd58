"""Which mixer a layer's config asks for, and what such a mixer remembers."""

from typing import Any, NamedTuple

from jaxmoe.config import AttentionConfig, DeltaConfig, MixerConfig
from jaxmoe.nn.attention import Attention
from jaxmoe.nn.delta import GatedDeltaNet
from jaxmoe.nn.key_values import KeyValues
from jaxmoe.nn.recurrent import Recurrent


class Kind(NamedTuple):
    """A kind of mixer.

    module: a `Mixer`. state: what it remembers, a `LayerState`. axis: the logical axis
    over which heads are divided, and with them what is added at the end.
    """

    module: Any
    state: Any
    axis: str


KINDS: dict[type, Kind] = {
    AttentionConfig: Kind(Attention, KeyValues, "heads"),
    DeltaConfig: Kind(GatedDeltaNet, Recurrent, "key_heads"),
}
"""By the type of the config; a new mixer is a line."""


def kind_of(config: MixerConfig) -> Kind:
    """The kind that a mixer's config is of."""
    return KINDS[type(config)]
