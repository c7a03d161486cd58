"""Text from anywhere, for a terminal."""

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
