"""What the device was told to draw, and the host has not seen yet."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import jax
import numpy as np

from jaxmoe.decode.live_sample import LiveSample
from jaxmoe.decode.trace import Drawn, TokenTrace, part_of


@dataclass(frozen=True)
class Dispatched:
    """A program that draws, and whose tokens those are.

    samples: that had the slots when it was dispatched, [S]; when it is done, they may
    have ended. drawn: on the device, or in NumPy arrays. in_steps: whether it took the
    steps of a segment; else it drew first tokens.
    """

    samples: Sequence[LiveSample | None]
    drawn: Drawn
    in_steps: bool

    def result(self, most: int) -> tuple["Seen", "Dispatched | None"]:
        """At most `most` tokens of each slot, and what is left where there are more.

        Waits until the program is done.
        """
        trace, count = jax.device_get(self.drawn)
        seen = Seen(self.samples, trace, np.minimum(count, most), self.in_steps)
        if (count <= most).all():
            return seen, None
        more = part_of(trace, (slice(None), slice(most, None)))
        rest = Drawn(more, np.maximum(count - most, 0))
        return seen, replace(self, drawn=rest)


@dataclass(frozen=True)
class Seen:
    """What a program drew: the first `count` [S] columns of `trace`, NumPy arrays."""

    samples: Sequence[LiveSample | None]
    trace: TokenTrace
    count: np.ndarray
    in_steps: bool

    @property
    def steps(self) -> int:
        """Steps it took: some slot draws a token in each."""
        return int(self.count.max()) if self.in_steps else 0

    def parts(self) -> Iterator[tuple[int, LiveSample, TokenTrace]]:
        """Slot, sample and new tokens, as views, of answers that are still wanted."""
        for slot, sample in enumerate(self.samples):
            new = int(self.count[slot])
            if new and sample is not None and not sample.over:
                yield slot, sample, part_of(self.trace, (slot, slice(new)))

    def has_nan(self) -> bool:
        """Whether the model computed NaN for one of the tokens."""
        logprobs = self.trace.logprob
        drawn = np.arange(logprobs.shape[1])[None] < self.count[:, None]
        return bool(np.isnan(logprobs[drawn]).any())
