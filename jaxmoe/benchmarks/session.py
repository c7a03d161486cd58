"""What the benchmarks of one run share: the model, and peers while they are needed."""

import gc
import sys
from collections.abc import Mapping
from functools import cached_property

from jaxmoe.benchmarks.peer import Peer
from jaxmoe.benchmarks.peers import PEERS
from jaxmoe.benchmarks.presets import PRESETS, Preset, default, makes_weights
from jaxmoe.benchmarks.subject import Subject
from jaxmoe.benchmarks.targets import Place
from jaxmoe.execution import default_platform


class Session:
    """Makes the model when a benchmark first asks for it, and the peers likewise."""

    def __init__(self, preset: str | None, peers: tuple[str, ...] = ()):
        """preset: None for the machine's. peers: names of `PEERS`."""
        backend = default_platform()
        self.place = Place(preset or default(backend), backend)
        self.peer_names = tuple(name for name in peers if _runs(name, backend))

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

    @cached_property
    def peers(self) -> Mapping[str, Peer]:
        """The peers that were asked for and run here."""
        return {name: PEERS[name].make(self.subject) for name in self.peer_names}

    def drop_peers(self) -> None:
        """Gives their memory back; others will be made if need be."""
        self.__dict__.pop("peers", None)
        gc.collect()


def _runs(name: str, backend: str) -> bool:
    """Whether a peer runs here.

    Raises:
      ImportError: it does not, and is not optional.
    """
    try:
        PEERS[name].require(backend)
    except ImportError as error:
        if not PEERS[name].optional:
            raise
        print(f"Left out: {error}", file=sys.stderr)
        return False
    return True
