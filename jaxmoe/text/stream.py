"""Text of an answer while it grows, in whole characters."""

from collections.abc import Callable, Iterable, Sequence

from jaxmoe.text.stop import REPLACEMENT


class TextStream:
    """Turns token ids into text piece by piece.

    The pieces, joined, are what decoding all ids at once gives; a character whose bytes
    are spread over several tokens comes out with the last of them. Only a short window
    of ids is decoded for each piece.

        stream = TextStream(tokenizer.decode)
        text = stream.push(ids) + stream.push(more_ids) + stream.close()
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]):
        """Take `decode`, from token ids to text (as `Tokenizer.decode`)."""
        self._decode = decode
        self._window: list[int] = []
        self._given = 0  # characters of the window's text that were given out

    def push(self, ids: Iterable[int]) -> str:
        """Take the next ids, return the text they complete (maybe nothing)."""
        self._window.extend(ids)
        text = self._decode(self._window)
        # Half a character decodes to one U+FFFD, always the last of the text. Those
        # before it stand for bytes that no later byte can mend.
        whole = text.removesuffix(REPLACEMENT)
        piece = whole[self._given :]
        self._given = max(self._given, len(whole))
        if whole == text:
            self._shorten()
        return piece

    def close(self) -> str:
        """Return the rest: U+FFFD where the ids end within a character, or nothing."""
        rest = self._decode(self._window)[self._given :]
        self._window.clear()
        self._given = 0
        return rest

    def copy(self) -> "TextStream":
        """Another that goes on from here."""
        other = TextStream(self._decode)
        other._window, other._given = [*self._window], self._given
        return other

    def _shorten(self) -> None:
        """Keep only the last tokens that have text.

        They are context: some decoders drop a space where a text begins, so the next
        token must not be the first of its window.
        """
        for keep in range(1, len(self._window)):
            tail = self._window[-keep:]
            text = self._decode(tail)
            if text:
                self._window, self._given = tail, len(text)
                return
