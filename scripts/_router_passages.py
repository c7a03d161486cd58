"""Rows as passages of tokens, answers drawn where there are none."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import repeat
from typing import TYPE_CHECKING, Any

from _router_data import Row
from _sampler_options import sampler_of

if TYPE_CHECKING:
    import jaxmoe
    from jaxmoe.analysis.router_pass import Passage

CHUNK = 64
"""Prompts drawn together: their routes are all held at once."""


class Passages:
    """The passages of checked rows; `tokens` keeps those made, without routes."""

    def __init__(
        self,
        model: "jaxmoe.Model",
        rows: Sequence[Row],
        args: argparse.Namespace,
        policy: "jaxmoe.Policy",
    ):
        from jaxmoe.analysis.router_pass import passage
        from jaxmoe.decode.inputs import check_prompt

        self._model, self._args, self._policy = model, args, policy
        self._given: list[tuple[Passage, Callable[[], Any] | None]] = []
        self._prompts: list[Any] = []
        self.tokens: list[Passage] = []
        room = args.max_new_tokens
        for row in rows:
            try:
                prompt = _read(model, row)
                if room and not row.answers:
                    self._prompts.append(check_prompt(model, prompt, room))
                    continue
                given = [passage(model, prompt, a) for a in row.answers or [()]]
                self._given += zip(given, row.routes or repeat(None), strict=False)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{row.name}: {error}") from error

    def __len__(self) -> int:
        return len(self._given) + self._args.n * len(self._prompts)

    def routing(self) -> "jaxmoe.Policy":
        """What routes tokens without routes, for `accumulate`.

        It is the policy; or if there are recorded routes, top-k with as many experts
        as these, which is how prompts were routed beside them.
        """
        import numpy as np

        from jaxmoe import TopK

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
        return {"drawn": repr(self._policy) if self._prompts else None, "given": given}

    def __iter__(self) -> "Iterator[Passage]":
        from jaxmoe.analysis.router_pass import Passage

        for one in self._all():
            self.tokens.append(Passage(one.tokens, one.prompt_length))
            yield one

    def _all(self) -> "Iterator[Passage]":
        import jax

        from jaxmoe.analysis.router_pass import draw
        from jaxmoe.decode.slots import default_slots
        from jaxmoe.random.keys import prompt_key

        yield from (_routed(one, find) for one, find in self._given)
        args, every = self._args, self._prompts
        key = jax.random.key(args.seed, impl="threefry2x32")
        options = {name: getattr(args, name) for name in ("n", "max_new_tokens")}
        options["slots"] = default_slots(args.n * min(CHUNK, max(1, len(every))))
        options["sampler"] = sampler_of(args, self._model)
        for start in range(0, len(every), CHUNK):
            some = every[start : start + CHUNK]
            keys = [prompt_key(key, start + j) for j in range(len(some))]
            yield from draw(self._model, some, key=keys, policy=self._policy, **options)


def _read(model: "jaxmoe.Model", row: Row) -> Any:
    """A row's prompt as the model reads it."""
    if row.chat is None:
        return row.prompt
    if not isinstance(row.prompt, str):
        raise ValueError("--chat needs text, found token ids; leave out --chat")
    return model.chat([{"role": "user", "content": row.prompt}], **row.chat)


def _routed(one: "Passage", find: Callable[[], Any] | None) -> "Passage":
    """An answer with its routes, but its last token: nothing was computed from it."""
    if find is None:
        return one
    from jaxmoe import place_routes

    length = len(one.tokens) - one.prompt_length
    placed = place_routes(one.prompt_length, length, find())
    return replace(one, tokens=one.tokens[:-1], routes=placed[:-1])
