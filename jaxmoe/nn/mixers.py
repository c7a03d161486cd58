"""Which mixer a layer's config asks for, and what such a mixer remembers."""

from typing import Any, NamedTuple

from jaxmoe.config import (
    AttentionConfig,
    DeltaConfig,
    LatentConfig,
    MixerConfig,
    ModelConfig,
)
from jaxmoe.nn.attention import Attention
from jaxmoe.nn.base import Held, MixerWork
from jaxmoe.nn.delta import GatedDeltaNet
from jaxmoe.nn.key_values import KeyValues
from jaxmoe.nn.latent import LatentAttention, Latents
from jaxmoe.nn.recurrent import Recurrent
from jaxmoe.sharding.layout import Layout


class Kind(NamedTuple):
    """A kind of mixer: its module, a `Mixer`, and its state, a `LayerState`."""

    module: Any
    state: Any


KINDS: dict[type, Kind] = {
    AttentionConfig: Kind(Attention, KeyValues),
    DeltaConfig: Kind(GatedDeltaNet, Recurrent),
    LatentConfig: Kind(LatentAttention, Latents),
}
"""By the type of the config; a new mixer is a line."""


def kind_of(config: MixerConfig) -> Kind:
    """The kind that a mixer's config is of."""
    return KINDS[type(config)]


def held(config: ModelConfig, layout: Layout, dtype: Any) -> Held:
    """Bytes of all layers' states on a device, of one row."""
    each = [
        kind_of(layer.mixer).state.held(layer.mixer, dtype=dtype, layout=layout)
        for layer in config.layers
    ]
    return Held(sum(h.position for h in each), sum(h.fixed for h in each))


def work(config: ModelConfig, layout: Layout) -> MixerWork:
    """Of all layers' mixers on a device; `scores` of the layer that has the most."""
    each = [kind_of(c.mixer).module.work(c.mixer, layout) for c in config.layers]
    return MixerWork(
        position=sum(w.position for w in each),
        fixed=sum(w.fixed for w in each),
        scores=max(w.scores for w in each),
        whole=sum(w.pair for w in each),
    )
