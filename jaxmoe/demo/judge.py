"""Whether answers to one of the demo's problems are right, counted."""

from typing import Any

from jaxmoe.demo.numbers_game import Problem, error_in, expression


class Judge:
    """Counts right answers to one problem; two are distinct if their sums are."""

    def __init__(self, problem: Problem):
        self.problem = problem
        self._right = 0
        self._sums: set[str] = set()

    def marks(self, answer: str) -> dict[str, Any]:
        """Whether the next answer is right, and what is wrong with it."""
        error = error_in(self.problem, answer)
        if error is None:
            self._right += 1
            self._sums.add(expression(answer))
        return {"right": error is None, "error": error}

    def heading(self) -> str:
        """The problem in words."""
        numbers = ", ".join(map(str, self.problem.numbers))
        return f"make {self.problem.target} of {numbers}   {self.problem.prompt}\n"

    def totals(self) -> dict[str, int]:
        """Right answers so far, and how many distinct sums they do."""
        return {"right": self._right, "distinct_right": len(self._sums)}
