"""How far an evaluation has come: answers, time left, accuracy, speed."""

from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:
    from jaxmoe.evals.evaluate import Status


class EvaluationBar:
    """A bar over answers; on a terminal only."""

    def __init__(self, *, quiet: bool):
        disable = True if quiet else None
        self._bar = tqdm(unit="answer", disable=disable, leave=False, smoothing=0)

    def show(self, now: "Status") -> None:
        """Moves the bar; what was there before counts as done, not as drawn."""
        self._bar.total, self._bar.initial = now.total, now.done - now.drawn
        self._bar.n = now.done
        self._bar.set_postfix_str(
            f"{100 * now.accuracy:.1f} % right, {now.tokens_per_second:.0f} tokens/s"
        )

    def __enter__(self) -> "EvaluationBar":
        return self

    def __exit__(self, *_):
        self._bar.close()
