"""What the benchmarks of one run share: the model, and the peer while it is needed."""

import gc
from functools import cached_property

from jaxmoe.benchmarks.peer import Peer
from jaxmoe.benchmarks.presets import PRESETS, Preset, default, makes_weights
from jaxmoe.benchmarks.subject import Subject
from jaxmoe.benchmarks.targets import Place
from jaxmoe.benchmarks.transformers_peer import TransformersPeer, require_peer
from jaxmoe.execution import default_platform


class Session:
    """Makes the model when a benchmark first asks for it, and the peer likewise."""

    def __init__(self, preset: str | None, peer: str | None):
        """preset: None for the machine's. peer: None for none."""
        backend = default_platform()
        self.place = Place(preset or default(backend), backend)
        self._wants_peer = peer is not None
        if self._wants_peer:
            require_peer(backend)

    @property
    def preset(self) -> Preset:
        """Shapes and lengths."""
        return PRESETS[self.place.preset]

    @cached_property
    def subject(self) -> Subject:
        """The model, with random weights."""
        return Subject.random(self.place.preset)

    def for_counting(self) -> Subject:
        """The model, or the tiny one where there is no room: for what has no size."""
        if makes_weights(self.place.preset, self.place.backend):
            return self.subject
        return Subject.random("tiny")

    @property
    def made(self) -> Subject | None:
        """The model, if any benchmark has asked for it."""
        return self.__dict__.get("subject")

    @property
    def peer(self) -> Peer | None:
        """The peer, if one was asked for."""
        return self._peer if self._wants_peer else None

    @cached_property
    def _peer(self) -> Peer:
        return TransformersPeer(self.subject)

    def drop_peer(self) -> None:
        """Gives its memory back; another will be made if need be."""
        self.__dict__.pop("_peer", None)
        gc.collect()
