"""A verifier in this process: a process-reward model, which scores each step.

An answer is cut into steps at blank lines, as the card of Qwen2.5-Math-PRM recommends,
and each step is followed by the model's separator; there it says how likely the step is
right. An answer's score is made of its steps' by one of `REDUCTIONS`.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from jaxmoe.decode.step_scores import step_scores
from jaxmoe.evals.verifiers import VerifierError
from jaxmoe.model import Model
from jaxmoe.typing import Float

REDUCTIONS: dict[str, Callable[[np.ndarray], float]] = {
    "product": lambda steps: float(np.prod(steps)),
    "min": lambda steps: float(np.min(steps)),
    "mean": lambda steps: float(np.mean(steps)),
    "last": lambda steps: float(steps[-1]),
}
"""How steps' probabilities become an answer's score.

The product is the probability that every step is right (Lightman et al. 2023, arXiv
2305.20050). Which of them the paper of Expert-Sample takes is not known to us.
"""


@dataclass(frozen=True)
class ProcessReward:
    """Scores answers by a process-reward model; see `jaxmoe.evals.verifiers`.

    model: one with a scorer, a tokenizer and a chat template. reduce: of `REDUCTIONS`.
    cut: take of an answer that is too long the last steps that fit; else it is an
    error. An answer of no steps scores 0.

    Not for several threads: the device has one queue.

    Raises:
      ValueError: a model that writes text, or whose tokenizer lacks the separator; an
        unknown reduction.
    """

    model: Model
    reduce: str = "product"
    cut: bool = False

    def __post_init__(self):
        if self.reduce not in REDUCTIONS:
            raise ValueError(
                f"reduce must be one of {', '.join(REDUCTIONS)}, found {self.reduce!r}"
            )
        if self.model.config.scorer is None:
            raise ValueError(
                "expected a model that scores steps, found one that writes text "
                f"({self.model.config.family}); name a process-reward model"
            )
        _ = self.separator  # fails early

    @property
    def separator(self) -> int:
        """The id of the token after each step."""
        text = self._text
        tokenizer = self.model.require_tokenizer("a verifier")
        if (found := tokenizer.token_to_id(text)) is None:
            raise ValueError(
                f"expected a tokenizer with the token {text}, found one without; take "
                "the files released with the weights"
            )
        return found

    @property
    def _text(self) -> str:
        scorer = self.model.config.scorer
        assert scorer is not None
        return scorer.separator

    def __call__(self, problem: str, answers: Sequence[str]) -> list[float]:
        """One score for each answer, from 0 to 1.

        Raises:
          VerifierError: an answer that does not fit the model's context.
        """
        split = [self.steps(answer) for answer in answers]
        ids = [self._fitted(problem, steps) for steps in split]
        scores = step_scores(self.model, ids, self.separator)
        return [self._score(found) for found in scores]

    def steps(self, answer: str) -> list[str]:
        """An answer's parts between blank lines, separators of its own taken out."""
        parts = re.split(r"\n[^\S\n]*\n", self._without(answer))
        return [step for part in parts if (step := part.strip())]

    def tokens(self, problem: str, steps: Sequence[str]) -> list[int]:
        """The chat in which the model reads an answer."""
        scorer = self.model.config.scorer
        assert scorer is not None
        text = "".join(step + self._text for step in steps)
        messages = [
            {"role": "system", "content": scorer.instruction},
            {"role": "user", "content": self._without(problem)},
            {"role": "assistant", "content": text},
        ]
        return self.model.chat(messages, add_generation_prompt=False)

    def _without(self, text: str) -> str:
        """A text with a space for each separator: nothing would join a new one."""
        return text.replace(self._text, " ")

    def _fitted(self, problem: str, steps: Sequence[str]) -> list[int]:
        most = self.model.config.context_length
        ids = self.tokens(problem, steps)
        while len(ids) > most and self.cut and len(steps) > 1:
            steps = steps[1:]
            ids = self.tokens(problem, steps)
        if len(ids) > most:
            raise VerifierError(
                f"the verifier reads {most} tokens, found an answer that makes "
                f"{len(ids)} with its question; score shorter answers, or let the "
                "last steps that fit stand for it (--cut)"
            )
        return ids

    def _score(self, steps: Float[np.ndarray, "steps"]) -> float:
        return REDUCTIONS[self.reduce](steps) if len(steps) else 0.0
