"""The process in which the library math-verify reads and compares: see `math_verify`.

    python -P math_verify_child.py

answers a line of JSON with a line of JSON: {"text", "right", "seconds"} with whether
they are equal and what was read, {"form", "seconds"} with a form that equal answers
share. It imports nothing of jaxmoe.
"""

import importlib
import json
import resource
import sys
from typing import Any

_MEMORY = 8 << 30


def main() -> None:
    """Answers until its input ends."""
    reader = _Reader()
    replies, sys.stdout = sys.stdout, sys.stderr
    _limit(resource.RLIMIT_CORE, 0)
    if sys.platform == "linux":  # others refuse it
        _limit(resource.RLIMIT_AS, _MEMORY)
    print("ready", file=replies, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        _limit_seconds(4 * request["seconds"] + 1)
        try:
            reply = reader.answer(request)
        except Exception:  # SymPy raises anything
            reply = {"form": None, "right": False, "read": None}
        print(json.dumps(reply), file=replies, flush=True)


class _Reader:
    """The library, with boxes before all else that a text holds."""

    def __init__(self):
        # By name: a type checker would take "math_verify" for the file beside this.
        self._library = importlib.import_module("math_verify")
        self._sympy = importlib.import_module("sympy")
        self._configs = (
            self._library.LatexExtractionConfig(boxed_match_priority=0),
            self._library.ExprExtractionConfig(),
        )

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The reply to one request."""
        seconds = request["seconds"]
        if "form" in request:
            return {"form": self._form(self._read(request["form"], seconds))}
        found = self._read(request["text"], seconds)
        right = self._read(request["right"], seconds)
        verdict = bool(found) and self._library.verify(
            right, found, allow_set_relation_comp=True, timeout_seconds=seconds
        )
        read = str(found[-1])[:1000] if found else None
        return {"right": bool(verdict), "read": read}

    def _read(self, text: str, seconds: int) -> list:
        return self._library.parse(text, self._configs, parsing_timeout=seconds)

    def _form(self, parsed: list) -> str | None:
        if not parsed:
            return None
        value = parsed[0]
        try:
            if isinstance(value, self._sympy.Basic):
                value = self._sympy.nsimplify(value.doit(), rational=True)
        except Exception:  # of relations of relations, and whatever it cannot do
            pass
        return str(value)[:1000]


def _limit_seconds(most: int) -> None:
    """Ends this process in time, also where its parent was killed and cannot end it."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + most)


def _limit(kind: int, value: int) -> None:
    _, most = resource.getrlimit(kind)
    value = value if most == resource.RLIM_INFINITY else min(value, most)
    resource.setrlimit(kind, (value, most))


if __name__ == "__main__":
    main()
