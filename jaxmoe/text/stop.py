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


def find_stop(text: str, stops: str | Sequence[str], after: int = 0) -> int | None:
    """Index where the earliest stop begins in `text`, or None.

    after: stops that end within so many first characters are passed over.

    >>> find_stop("a\\n\\nb###", ("###", "\\n\\n"))
    1
    """
    span = stop_span(text, stops, after)
    return None if span is None else span[0]


def stop_span(
    text: str, stops: str | Sequence[str], after: int = 0
) -> tuple[int, int] | None:
    """Where the stop of `find_stop` begins and ends: the longest that begins there."""
    found = []
    for stop in check_stops(stops):
        start = text.find(stop, max(after - len(stop) + 1, 0))
        if start >= 0:
            found.append((start, start + len(stop)))
    return min(found, key=lambda span: (span[0], -span[1]), default=None)


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
    skip: int = 0,
) -> int | None:
    """The smallest j such that `decode(ids[:j])` contains a stop, or None.

    Found by bisection: with byte-level BPE a longer prefix of tokens decodes to text
    that begins with the shorter prefix's, up to a last character still in halves
    (U+FFFD, which no stop holds); so text that contains a stop keeps it.

    Args:
      decode: token ids to text, as `Tokenizer.decode`.
      ids: token ids of one answer.
      stops: the stop strings.
      skip: stops that end within the text of so many first ids are passed over.
    """
    stops = check_stops(stops)
    if not stops or len(ids) <= skip:
        return None
    after = text_length(decode, ids[:skip])

    def stopped(length: int) -> bool:
        return find_stop(decode(ids[:length]), stops, after) is not None

    if not stopped(len(ids)):
        return None
    without, within = skip, len(ids)
    while without + 1 < within:
        middle = (without + within) // 2
        if stopped(middle):
            within = middle
        else:
            without = middle
    return within


def text_length(decode: Callable[[Sequence[int]], str], ids: Sequence[int]) -> int:
    """Characters that these ids have completed, whatever follows them."""
    return len(decode(ids).removesuffix(REPLACEMENT)) if ids else 0


class StopScanner:
    """Looks for stop strings in an answer that grows, in time linear in its length.

    What it finds is what `stop_length` finds in all ids at once; only the last tokens
    that a stop could still begin in are decoded again.
    """

    MARGIN = 8
    """Characters kept beyond the longest stop: the first of a window may be wrong."""

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        stops: str | Sequence[str],
        skip: int = 0,
    ):
        """Take `decode`, from token ids to text, and the stop strings.

        skip: stops that end within the text of so many first ids are passed over.
        """
        self._decode, self._stops, self._skip = decode, check_stops(stops), skip
        self._kept = max(map(len, self._stops), default=0) + self.MARGIN
        self._window: list[int] = []
        self._before = 0  # tokens that have left the window

    def push(self, ids: Iterable[int]) -> int | None:
        """Take the next ids; of all ids so far, how many complete a stop, or None."""
        self._window += ids
        skip = max(self._skip - self._before, 0)
        length = stop_length(self._decode, self._window, self._stops, skip)
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
