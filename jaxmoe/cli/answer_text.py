"""One answer, or the totals, as text for people or as a line of JSON."""

import json
import math
import re
from typing import Any

from jaxmoe.sampling import Finished

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_TOTALS = (
    "{answers} answers ({distinct} distinct), {tokens} tokens in {seconds:.1f} s"
    "{of_it}, {tokens_per_second:.1f} tokens/s"
)
_COMPILING = " ({compiling:.1f} s of it compiling)"
_SHOWN = 0.05
"""Seconds of compiling from which on they are mentioned."""
_RIGHT = "\n{right} right, {distinct_right} distinct right answers"


def for_terminal(text: str) -> str:
    """`text` without what a terminal would obey: controls but for tab and newline."""
    return _CONTROL.sub("\ufffd", text)


def bare(answer: Finished) -> str:
    """The answer's text; its token ids where there is no tokenizer."""
    return " ".join(map(str, answer.tokens)) if answer.text is None else answer.text


def headed(
    answer: Finished, right: bool | None = None, error: str | None = None
) -> str:
    """The answer's text under a line that says which it is and how it ended.

    right, error: what a judge says of it, where there is one.
    """
    verdict = "" if right is None else "right" if right else f"wrong: {error}"
    length = len(answer.tokens)
    tokens = f"{length} token{'' if length == 1 else 's'}"
    head = f"[answer {answer.sample}] ({answer.finish}, {tokens}) {verdict}".rstrip()
    return f"{head}\n{bare(answer)}\n"


def as_json(answer: Finished, seed: int, **more: Any) -> str:
    """The answer as one line, with `more`; numbers that are not finite become null."""
    total = float(answer.logprobs.sum())
    fields: dict[str, Any] = {
        "sample": answer.sample,
        "seed": seed,
        "tokens": answer.tokens.tolist(),
        "text": answer.text,
        "finish": answer.finish,
        "logprob_sum": total if math.isfinite(total) else None,
        "logprob_mean": total / len(answer.tokens) if math.isfinite(total) else None,
    }
    return json.dumps(fields | more)


def totals_text(totals: dict[str, Any], as_json: bool) -> str:
    """The last line."""
    if as_json:
        return json.dumps({"totals": totals})
    long = totals["compiling"] >= _SHOWN
    of_it = _COMPILING.format(**totals) if long else ""
    text = "interrupted: " if totals["interrupted"] else ""
    text += _TOTALS.format(**totals, of_it=of_it)
    return text + (_RIGHT.format(**totals) if "right" in totals else "")
