r"""Mathematics whose answers are LaTeX, compared by the library math-verify.

The library reads expressions with SymPy, and some take hours or all memory: 9^{9^{9^9}}
is enough. Its own time limits are alarm signals, which only a main thread can set and
which no long multiplication heeds. So a process of its own does the reading: it is
asked from any thread, limits itself in time and memory, and is ended and started anew
where that does not help.
"""

import atexit
import functools
import importlib.util
import json
import math
import re
import select
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxmoe.evals.tasks.base import Grade, Question
from jaxmoe.evals.tasks.extract import all_boxes, final_boxes
from jaxmoe.evals.tasks.formulas import bases_differ, readable
from jaxmoe.evals.tasks.prompts import (
    MATH,
    after_hashes,
    fill,
    shown,
    text_of,
    value_of,
)
from jaxmoe.evals.tasks.reasoning import answer_in

_CHILD = Path(__file__).with_name("math_verify_child.py")
_SECONDS_TO_START = 120
_END = 2000
"""Characters that the library gets to see of the end of a text without a box."""
_MONEY = re.compile(r"(?:\b[A-Z]{1,2})?\\\$")
_DELIMITED = re.compile(r"\$+([^$]*)\$+")


@dataclass(frozen=True)
class Math:
    r"""The last \boxed{...}, compared with the row's answer by `math_verify.verify`.

    The library sees what the last box holds, less its dressing (`peel.undressed`),
    with what boxes hold that a comma or "and" joins to it, as a list; or the last 2000
    characters of a text without a box. A grade's answer is SymPy's form of what was
    read, evaluated, numbers exact: "0.5" and "\frac{2}{4}" are "1/2". It does not
    follow from the right answer; `classes` says which answers are equal. Details:
    boxed, whether there is a box; timed_out, whether the comparison was given up, which
    counts as wrong.

    seconds: after which the library gives up reading or comparing. After three times
    as many the comparison is ended by force, after as many the evaluating of what was
    read, whose text then stands for it.
    """

    seconds: int = 5
    name: str = "math"
    chat: bool = True

    @property
    def fields(self) -> Mapping[str, str]:
        """See `Task`."""
        return {
            "problem": 'the problem\'s text ("question" too)',
            "answer": "LaTeX, with or without $, or a number",
            "id": "optional: a name of its own, unique in the file",
        }

    def question(
        self, row: Mapping[str, Any], *, id: str, seed: int, template: str | None
    ) -> Question:
        """See `Task`; a template holds {problem}.

        Raises:
          ImportError: the library is not installed.
        """
        problem = text_of(row, "problem", "Problem", "question", "Question")
        prompt = fill(template or MATH, {"problem": problem})
        value = after_hashes(value_of(row, "answer", "Answer"))
        answer = _latex(value)
        read = _reader().ask({"form": answer}, self.seconds, self.seconds)
        if not read or read["form"] is None:
            raise ValueError(
                'expected mathematics in the field "answer", found '
                f"{shown(value)}, which math-verify cannot read; write it as "
                "LaTeX, or use the task exact for words"
            )
        return Question(id, prompt, answer, group=id)

    def grade(self, question: Question, text: str) -> Grade:
        """See `Task`."""
        text = answer_in(text)
        boxes = final_boxes(text)
        seen = _seen(text, boxes)
        if not seen.strip():
            return Grade(None, False, {"boxed": bool(boxes), "timed_out": False})
        reader = _reader()
        request = {"text": seen, "right": question.answer}
        verdict = reader.ask(request, self.seconds, 3 * self.seconds)
        details = {"boxed": bool(boxes), "timed_out": verdict is None}
        if verdict is None:
            return Grade(None, False, details)
        # Apart, because evaluating may take far longer than comparing, and must not
        # cost the verdict.
        answer = verdict["read"]
        right = verdict["right"] and not bases_differ(question.answer, *_formulas(seen))
        if answer is not None:
            read = reader.ask({"form": seen}, self.seconds, self.seconds)
            answer = (read["form"] if read else None) or answer
        return Grade(answer, right, details)

    def classes(self, texts: Sequence[str]) -> list[int]:
        """A number for each text, the same where the library calls answers equal.

        Numbers are those of the first texts of their kind, in order.
        """
        seen = [_seen(text, final_boxes(text)) for text in map(answer_in, texts)]
        kinds: list[int] = []
        found: list[int] = []
        for place, one in enumerate(seen):
            same = next((k for k in kinds if self._same(seen[k], one)), None)
            if same is None:
                kinds.append(place)
            found.append(place if same is None else same)
        return [kinds.index(kind) for kind in found]

    def _same(self, a: str, b: str) -> bool:
        """Whether each would be right where the other is."""
        if bases_differ(*_formulas(a), *_formulas(b)):
            return False
        reader = _reader()
        for right, text in ((a, b), (b, a)):
            request = {"text": text, "right": right}
            verdict = reader.ask(request, self.seconds, 3 * self.seconds)
            if not verdict or not verdict["right"]:
                return False
        return True


def _latex(value: Any) -> str:
    r"""An answer as the library reads it: in $ unless it has $ or \boxed of its own."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise ValueError(
                f'expected a finite number in the field "answer", found {value}; '
                "write what a right answer says"
            )
        value = repr(value)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(
            f'expected LaTeX or a number in the field "answer", found {shown(value)}; '
            "write what a right answer says"
        )
    # "\$18.90" is money, and its dollar no delimiter.
    text = _MONEY.sub("", value).strip()
    if "\\boxed" in text:
        text = ", ".join(all_boxes(text)) or text
    inner = [part for part in _DELIMITED.findall(text) if part.strip()]
    if len(inner) > 1 or (inner and _DELIMITED.sub("", text).strip()):
        return text  # words around formulas are the library's to read
    return f"${readable(text)}$"


def _seen(text: str, boxes: list[str]) -> str:
    """The part of an answer that the library gets."""
    if not boxes:
        return _DELIMITED.sub(
            lambda formula: f"${readable(formula[1])}$", _MONEY.sub("", text[-_END:])
        )
    content = ", ".join(map(readable, boxes))
    return f"$\\boxed{{{content}}}$" if content.strip() else ""


def _formulas(seen: str) -> list[str]:
    """The formulas in what the library gets: of boxes, else of dollars, else all."""
    return final_boxes(seen) or _DELIMITED.findall(seen) or [seen]


@functools.cache
def _reader() -> "_Reader":
    """The one process that reads for this one.

    Raises:
      ImportError: the library is not installed.
    """
    if importlib.util.find_spec("math_verify") is None:
        raise ImportError(
            "the task math needs the library math-verify, which is not installed; "
            'install it with: pip install "jaxmoe[math]"'
        )
    return _Reader()


class _Reader:
    """A process that runs `math_verify_child.py`."""

    def __init__(self):
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        atexit.register(self.end)

    def ask(
        self, request: dict[str, str], seconds: int, patience: int
    ) -> dict[str, Any] | None:
        """The reply; None where it took longer than `patience`, or the process died.

        seconds: after which the library should give up by itself.
        """
        with self._lock:
            process = self._process or self._start()
            try:
                line = json.dumps({**request, "seconds": seconds})
                print(line, file=process.stdin, flush=True)
                reply = _line(process, patience)
            except OSError:
                reply = ""
            if reply:
                return json.loads(reply)
            self.end()
            return None

    def _start(self) -> subprocess.Popen[str]:
        # As a file, because a module of jaxmoe would import jax first; -P, because its
        # folder holds a math_verify of its own.
        self._process = process = subprocess.Popen(
            [sys.executable, "-P", str(_CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
        )
        if not _line(process, _SECONDS_TO_START):
            self.end()
            raise ImportError(
                "math-verify is installed but did not start; see what "
                f'{sys.executable} -c "import math_verify" says'
            )
        return process

    def end(self) -> None:
        """Ends the process, whatever it is at; the next question starts another."""
        process, self._process = self._process, None
        if process:
            process.kill()
            process.communicate()


def _line(process: subprocess.Popen[str], seconds: float) -> str:
    """The next line of its output; "" where it ends, or none comes in time."""
    assert process.stdout
    ready, _, _ = select.select([process.stdout], [], [], seconds)
    return process.stdout.readline() if ready else ""
