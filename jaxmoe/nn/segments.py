"""Which layers are of one kind, so that one loop runs them all.

A *segment* is a period of layers that repeats: a homogeneous model is one segment of
period 1, a model of alternating layers one of period 2, a dense first layer a segment
of its own. Weights of the layers that stand at one place of the period are stacked
where layers are scanned, under a name that says which: `layers.0:48.mixer.q.weight`,
`layers.1:6:2.feed_forward.down`.
"""

from dataclasses import dataclass
from functools import lru_cache

from jaxmoe.config import LayerConfig, ModelConfig
from jaxmoe.execution import STACKED, Layers

LONGEST_PERIOD = 8


@dataclass(frozen=True)
class Segment:
    """`count` times the layers of `period`, beginning with layer `first`."""

    first: int
    period: tuple[LayerConfig, ...]
    count: int

    def index(self, turn, place: int):
        """The layer at one place of one turn of the period."""
        return self.first + turn * len(self.period) + place

    def layers(self, place: int) -> range:
        """All layers at one place of the period."""
        start, step = self.first + place, len(self.period)
        return range(start, start + step * self.count, step)

    def prefix(self, place: int) -> str:
        """What names of weights begin with."""
        layers = self.layers(place)
        if self.count == 1:
            return f"layers.{layers.start}."
        step = f":{layers.step}" if layers.step > 1 else ""
        return f"layers.{layers.start}:{layers[-1] + 1}{step}."


@lru_cache(maxsize=64)
def segments(config: ModelConfig, layers: Layers) -> tuple[Segment, ...]:
    """The segments of a model; where layers are unrolled, each is one."""
    if layers == "unroll":
        return tuple(Segment(i, (c,), 1) for i, c in enumerate(config.layers))
    at, found = 0, []
    while at < config.num_layers:
        segment = _longest(config.layers, at)
        found.append(segment)
        at += len(segment.period) * segment.count
    return tuple(found)


def _longest(layers: tuple[LayerConfig, ...], at: int) -> Segment:
    """The segment at `at` that covers the most layers, of the shortest period."""
    best = Segment(at, layers[at : at + 1], 1)
    for size in range(1, LONGEST_PERIOD + 1):
        period, count = layers[at : at + size], 1
        while layers[at + count * size : at + (count + 1) * size] == period:
            count += 1
        covers = count * size > len(best.period) * best.count
        if covers and (count > 1 or size == 1):
            best = Segment(at, period, count)
    return best


def stored_names(name: str) -> list[str]:
    """The weights, one a layer, of which a weight is the stack; itself if of none."""
    head, _, rest = name.partition(".")
    which, _, rest = rest.partition(".")
    if head != "layers" or STACKED not in which:
        return [name]
    return [f"layers.{i}.{rest}" for i in range(*map(int, which.split(STACKED)))]
