"""Progress bars on a terminal, and the time that compiling takes."""

import time
from collections.abc import Callable

import jax
from tqdm import tqdm

from jaxmoe.evals.evaluate import Status

_COMPILING = "/jax/core/compile/"
"""How JAX's events of tracing, lowering and compiling begin."""


class CompileClock:
    """Seconds that JAX has spent on compiling since the context was entered.

    Tracing and lowering count too: all that comes before a program first runs.

    Args:
      on_start: called whenever compiling begins.
    """

    def __init__(self, on_start: Callable[[], None]):
        self._on_start = on_start
        self._depth, self._began, self._seconds = 0, 0.0, 0.0

    @property
    def seconds(self) -> float:
        """So far, what is under way included."""
        running = time.perf_counter() - self._began if self._depth else 0.0
        return self._seconds + running

    def _start(self, event: str, *_, **__) -> None:
        # A stage is announced with its time of day; one may begin within another.
        if not event.startswith(_COMPILING):
            return
        if not self._depth:
            self._began = time.perf_counter()
            self._on_start()
        self._depth += 1

    def _end(self, event: str, *_, **__) -> None:
        if event.startswith(_COMPILING) and self._depth:
            self._depth -= 1
            if not self._depth:
                self._seconds += time.perf_counter() - self._began

    def __enter__(self) -> "CompileClock":
        jax.monitoring.register_scalar_listener(self._start)
        jax.monitoring.register_event_duration_secs_listener(self._end)
        return self

    def __exit__(self, *_):
        jax.monitoring.unregister_scalar_listener(self._start)
        jax.monitoring.unregister_event_duration_listener(self._end)


def rate(tokens: int, seconds: float, compiling: float) -> float:
    """Tokens a second of the time that was not spent on compiling; 0 where none was."""
    drawing = seconds - compiling
    return tokens / drawing if drawing > 0 else 0.0


class ProgressBar:
    """A bar over problems; on a terminal only."""

    def __init__(self, problems: int, *, quiet: bool):
        disable = True if quiet else None
        self._bar = tqdm(total=problems, unit="problem", disable=disable, leave=False)
        self._clock = CompileClock(lambda: self._bar.set_postfix_str("compiling"))

    def show(self, done: int) -> None:
        """Moves the bar to the number of problems done."""
        self._bar.n = done
        self._bar.set_postfix_str("")

    def __enter__(self) -> "ProgressBar":
        self._clock.__enter__()
        return self

    def __exit__(self, *ended):
        self._clock.__exit__(*ended)
        self._bar.close()


class EvaluationBar:
    """A bar over answers: time left, accuracy, speed; on a terminal only."""

    def __init__(self, *, quiet: bool):
        disable = True if quiet else None
        self._bar = tqdm(unit="answer", disable=disable, leave=False, smoothing=0)
        self._clock = CompileClock(lambda: self._bar.set_postfix_str("compiling"))

    def show(self, now: Status) -> None:
        """Moves the bar; what was there before counts as done, not as drawn."""
        self._bar.total, self._bar.initial = now.total, now.done - now.drawn
        self._bar.n = now.done
        speed = rate(now.tokens, now.seconds, self._clock.seconds)
        self._bar.set_postfix_str(
            f"{100 * now.accuracy:.1f} % right, {speed:.0f} tokens/s"
        )

    def __enter__(self) -> "EvaluationBar":
        self._clock.__enter__()
        return self

    def __exit__(self, *ended):
        self._clock.__exit__(*ended)
        self._bar.close()
