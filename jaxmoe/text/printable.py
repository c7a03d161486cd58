"""Text from anywhere, for a page."""

import re

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
