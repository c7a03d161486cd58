"""Text from anywhere, for a terminal and for a page."""

import re

_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    """`text` with controls written out, which would move the cursor or hide text.

    Tabs and line feeds stay.

    >>> printable("\x1b[2Jhello")
    '\\x1b[2Jhello'
    """
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Control characters but for tab and line feed; marks and overrides of the writing
# direction, which would reorder what stands beside them; what UTF-8 cannot carry, and
# what is no character.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
    "\ud800-\udfff\ufdd0-\ufdef"
    + "".join(
        f"{chr(plane << 16 | 0xFFFE)}{chr(plane << 16 | 0xFFFF)}" for plane in range(17)
    )
    + "]"
)


def clean(text: str) -> str:
    """`text` with what would disturb a page or a file replaced.

    A carriage return and a line feed become a line feed. Other control characters, a
    carriage return alone among them, controls of the writing direction, surrogates and
    what is no character become U+FFFD.
    """
    return _UNSAFE.sub(REPLACEMENT, text.replace("\r\n", "\n"))
