"""Rows as passages of tokens, answers drawn where there are none."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import repeat
from typing import Any

import jax
import numpy as np

from jaxmoe.analysis import router_pass
from jaxmoe.analysis.router_pass import Passage, passage
from jaxmoe.analysis.texts import Row
from jaxmoe.decode.inputs import check_prompt
from jaxmoe.decode.sampler import TokenSampler
from jaxmoe.decode.slots import default_slots
from jaxmoe.evals.draw import as_fields, in_words
from jaxmoe.model import Model
from jaxmoe.random.keys import prompt_key
from jaxmoe.router.policies import Policy, TopK
from jaxmoe.sampling import place_routes

CHUNK = 64
"""Prompts drawn together: their routes are all held at once."""


class Passages:
    """The passages of checked rows; `tokens` keeps those made, without routes."""

    def __init__(
        self,
        model: Model,
        rows: Sequence[Row],
        *,
        policy: Policy,
        sampler: TokenSampler,
        seed: int = 0,
        n: int = 1,
        max_new_tokens: int = 64,
    ):
        """Checks the rows; nothing is computed yet.

        Args:
          policy, sampler, seed, n, max_new_tokens: of answers that are drawn, to rows
            without any; 0 new tokens draw none.

        Raises:
          ValueError: a row that the model cannot read, by its name.
        """
        self._model, self._policy, self._sampler = model, policy, sampler
        self._seed, self._n, self._most = seed, n, max_new_tokens
        self._given: list[tuple[Passage, Callable[[], Any] | None]] = []
        self._prompts: list[Any] = []
        self.tokens: list[Passage] = []
        for row in rows:
            try:
                prompt = _read(model, row)
                if max_new_tokens and not row.answers:
                    self._prompts.append(check_prompt(model, prompt, max_new_tokens))
                    continue
                given = [passage(model, prompt, a) for a in row.answers or [()]]
                self._given += zip(given, row.routes or repeat(None), strict=False)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{row.name}: {error}") from error

    def __len__(self) -> int:
        return len(self._given) + self._n * len(self._prompts)

    def routing(self) -> Policy:
        """What routes tokens without routes, for `accumulate`.

        It is the policy; or if there are recorded routes, top-k with as many experts
        as these, which is how prompts were routed beside them.
        """
        routes = next((find() for _, find in self._given if find), None)
        if routes is None:
            return self._policy
        # Every token has as many; dense layers have none, and are not routed.
        chosen = (routes >= 0).sum(axis=2).max(axis=0)
        return TopK(np.maximum(chosen, 1), places=routes.shape[2])

    def described(self) -> dict[str, str | None]:
        """How experts were chosen, of answers drawn and of texts given; None: none."""
        k = getattr(self._policy, "k", None)
        given = None
        if self._given:
            given = "TopK()" if k is None else f"TopK(k={k!r})"
        if any(find for _, find in self._given):
            given = "as recorded"
        drawn = in_words(as_fields(self._policy)) if self._prompts else None
        return {"drawn": drawn, "given": given}

    def __iter__(self) -> Iterator[Passage]:
        for one in self._all():
            self.tokens.append(Passage(one.tokens, one.prompt_length))
            yield one

    def _all(self) -> Iterator[Passage]:
        yield from (_routed(one, find) for one, find in self._given)
        every, most = self._prompts, self._n * min(CHUNK, max(1, len(self._prompts)))
        key = jax.random.key(self._seed, impl="threefry2x32")
        for start in range(0, len(every), CHUNK):
            some = every[start : start + CHUNK]
            keys = [prompt_key(key, start + j) for j in range(len(some))]
            yield from router_pass.draw(
                self._model,
                some,
                key=keys,
                policy=self._policy,
                sampler=self._sampler,
                n=self._n,
                max_new_tokens=self._most,
                slots=default_slots(most),
            )


def beside(model: Model, other: Model, rows: Sequence[Row], read: Passages) -> Any:
    """The texts that another model reads, whatever its family: its passages.

    Where both read the rows' texts as the same tokens, those that were run, drawn
    answers among them; else its own reading of what was given: prompts alone where
    answers were drawn.

    Args:
      read: the passages of `model`, which have been run.
    """
    if _read_alike(model, other, rows):
        return read.tokens
    plain = [replace(row, routes=()) for row in rows]
    sampler = TokenSampler()
    return Passages(other, plain, policy=TopK(), sampler=sampler, max_new_tokens=0)


def _read_alike(model: Model, other: Model, rows: Sequence[Row]) -> bool:
    """Whether token ids mean the same to both, as far as the rows show."""
    if model.config.vocab_size != other.config.vocab_size:
        return False
    if model.tokenizer is None or other.tokenizer is None:
        return model.tokenizer is other.tokenizer
    texts = [text for row in rows for text in (row.prompt, *row.answers)]
    given = {text for text in texts if isinstance(text, str)}
    return all(model.encode(text) == other.encode(text) for text in given)


def _read(model: Model, row: Row) -> Any:
    """A row's prompt as the model reads it."""
    if row.chat is None:
        return row.prompt
    if not isinstance(row.prompt, str):
        raise ValueError(
            "a chat needs text, found token ids; give text, or leave out --chat"
        )
    return model.chat([{"role": "user", "content": row.prompt}], **row.chat)


def _routed(one: Passage, find: Callable[[], Any] | None) -> Passage:
    """An answer with its routes, but its last token: nothing was computed from it."""
    if find is None:
        return one
    length = len(one.tokens) - one.prompt_length
    placed = place_routes(one.prompt_length, length, find())
    last = int(one.tokens[-1])
    return replace(one, tokens=one.tokens[:-1], routes=placed[:-1], following=last)
