"""Prints answers as they finish, below a progress bar."""

import io
import sys
import time
from typing import Any

from tqdm import tqdm

from jaxmoe.cli.answer_text import as_json, bare, for_terminal, headed, totals_text
from jaxmoe.cli.bars import CompileClock, rate
from jaxmoe.decode.request import Progress
from jaxmoe.demo.judge import Judge
from jaxmoe.sampling import Finished

BAR = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} answers [{elapsed}{postfix}]"


class Answers:
    """Where a command's answers go; leaving the context prints the totals.

    interrupted: whether Ctrl-C ended the context.
    """

    def __init__(
        self,
        n: int,
        *,
        seed: int,
        as_json: bool = False,
        quiet: bool = False,
        judge: Judge | None = None,
    ):
        """Prepares for n answers.

        Args:
          as_json: a JSON object a line.
          quiet: without bar, headers and totals.
          judge: marks each answer.
        """
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # few encodings hold everything
        self.interrupted = False
        self._seed, self._json, self._quiet = seed, as_json, quiet
        self._judge = judge
        self._began, self._tokens, self._count = time.perf_counter(), 0, 0
        self._distinct: set[tuple[int, ...]] = set()
        # disable=None: shown on a terminal only.
        disable = True if quiet else None
        self._bar = tqdm(total=n, disable=disable, leave=False, bar_format=BAR)
        self._clock = CompileClock(lambda: self._bar.set_postfix_str("compiling"))

    def progress(self, now: Progress) -> None:
        """Moves the bar."""
        self._bar.n = now.finished
        speed = rate(now.tokens, now.seconds, self._clock.seconds)
        self._bar.set_postfix_str(f"{speed:.1f} tokens/s")

    def add(self, answer: Finished) -> None:
        """Prints one answer."""
        self._count += 1
        self._tokens += len(answer.tokens)
        self._distinct.add(tuple(answer.tokens.tolist()))
        marks = {} if self._judge is None else self._judge.marks(answer.text or "")
        if self._json:
            self._write(as_json(answer, self._seed, **marks))
        else:
            self._write(bare(answer) if self._quiet else headed(answer, **marks))

    def __enter__(self) -> "Answers":
        self._clock.__enter__()
        if self._judge is not None and not (self._json or self._quiet):
            self._write(self._judge.heading())
        return self

    def __exit__(self, kind, *rest) -> bool:
        """Removes the bar and prints the totals; takes a KeyboardInterrupt."""
        self._clock.__exit__(kind, *rest)
        self._bar.close()
        self.interrupted = kind is KeyboardInterrupt
        if (kind is None or self.interrupted) and (self._json or not self._quiet):
            self._write(totals_text(self._totals(), self._json))
        return self.interrupted

    def _totals(self) -> dict[str, Any]:
        seconds, compiling = time.perf_counter() - self._began, self._clock.seconds
        return {
            "answers": self._count,
            "distinct": len(self._distinct),
            "tokens": self._tokens,
            "seconds": round(seconds, 3),
            "compiling": round(compiling, 3),
            "tokens_per_second": round(rate(self._tokens, seconds, compiling), 1),
            "interrupted": self.interrupted,
        } | ({} if self._judge is None else self._judge.totals())

    def _write(self, text: str) -> None:
        tqdm.write(for_terminal(text) if sys.stdout.isatty() else text)
        sys.stdout.flush()
