"""Where a stop string ends an answer: pure functions of text and token ids."""

from collections.abc import Callable, Iterable, Sequence

REPLACEMENT = "\ufffd"
"""What a decoder writes for bytes that are no whole character."""


def check_stops(stops: object) -> tuple[str, ...]:
    """Stop strings as a tuple; one bare string counts as one stop.

    Raises:
      TypeError: `stops` is no string and no iterable of strings.
      ValueError: a stop is empty, or holds U+FFFD, which also stands for the first
        half of a character and would so be found too early.
    """
    if isinstance(stops, str):
        stops = (stops,)
    if not isinstance(stops, Iterable) or isinstance(stops, bytes):
        raise TypeError(
            f"stop must be a string or a sequence of strings, found {stops!r}"
        )
    checked = tuple(stops)
    for stop in checked:
        if not isinstance(stop, str):
            raise TypeError(
                f"each stop must be a string, found {stop!r} of type "
                f"{type(stop).__name__}; ids that stop belong to the eos ids"
            )
        if not stop:
            raise ValueError(
                "a stop string must not be empty: every text contains it; leave it out"
            )
        if REPLACEMENT in stop:
            raise ValueError(
                f"a stop string must not hold U+FFFD, found {stop!r}: halves of "
                "characters decode to it"
            )
    return checked


def find_stop(text: str, stops: str | Sequence[str]) -> int | None:
    """Index where the earliest stop begins in `text`, or None.

    >>> find_stop("a\\n\\nb###", ("###", "\\n\\n"))
    1
    """
    starts = (text.find(stop) for stop in check_stops(stops))
    return min((start for start in starts if start >= 0), default=None)


def partial_stop(text: str, stops: str | Sequence[str]) -> int:
    """Length of the longest end of `text` that may still grow into a stop.

    A stream keeps that many characters back. 0 where no stop has begun.

    >>> partial_stop("so far ##", ("###",))
    2
    """
    longest = 0
    for stop in check_stops(stops):
        for length in range(min(len(stop) - 1, len(text)), longest, -1):
            if text.endswith(stop[:length]):
                longest = length
                break
    return longest


def stop_length(
    decode: Callable[[Sequence[int]], str],
    ids: Sequence[int],
    stops: str | Sequence[str],
) -> int | None:
    """The smallest j such that `decode(ids[:j])` contains a stop, or None.

    Found by bisection: with byte-level BPE a longer prefix of tokens decodes to text
    that begins with the shorter prefix's, up to a last character still in halves
    (U+FFFD, which no stop holds); so text that contains a stop keeps it.

    Args:
      decode: token ids to text, as `Tokenizer.decode`.
      ids: token ids of one answer.
      stops: the stop strings.
    """
    stops = check_stops(stops)

    def stopped(length: int) -> bool:
        text = decode(ids[:length])
        return any(stop in text for stop in stops)

    if not stops or not stopped(len(ids)):
        return None
    without, within = 0, len(ids)
    while without + 1 < within:
        middle = (without + within) // 2
        if stopped(middle):
            within = middle
        else:
            without = middle
    return within


class StopScanner:
    """Looks for stop strings in an answer that grows, in time linear in its length.

    What it finds is what `stop_length` finds in all ids at once; only the last tokens
    that a stop could still begin in are decoded again.
    """

    MARGIN = 8
    """Characters kept beyond the longest stop: the first of a window may be wrong."""

    def __init__(
        self, decode: Callable[[Sequence[int]], str], stops: str | Sequence[str]
    ):
        """Take `decode`, from token ids to text, and the stop strings."""
        self._decode, self._stops = decode, check_stops(stops)
        self._kept = max(map(len, self._stops), default=0) + self.MARGIN
        self._window: list[int] = []
        self._before = 0  # tokens that have left the window

    def push(self, ids: Iterable[int]) -> int | None:
        """Take the next ids; of all ids so far, how many complete a stop, or None."""
        self._window += ids
        length = stop_length(self._decode, self._window, self._stops)
        if length is not None:
            return self._before + length
        self._shorten()
        return None

    def _shorten(self) -> None:
        keep = self._kept
        while keep < len(self._window):
            if len(self._decode(self._window[-keep:])) >= self._kept:
                self._before += len(self._window) - keep
                del self._window[:-keep]
                return
            keep *= 2
