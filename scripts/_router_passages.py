"""Rows as passages of tokens, answers drawn where there are none."""

import argparse
from collections.abc import Iterator, Sequence
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
        from jaxmoe.inputs import check_prompt

        self._model, self._args, self._policy = model, args, policy
        self._given: list[Passage] = []
        self._prompts: list[Any] = []
        self.tokens: list[Passage] = []
        room = args.max_new_tokens
        for row in rows:
            try:
                prompt = _chat(model, row.prompt) if args.chat else row.prompt
                if room and not row.answers:
                    self._prompts.append(check_prompt(model, prompt, room))
                    continue
                self._given += [passage(model, prompt, a) for a in row.answers or [()]]
            except (TypeError, ValueError) as error:
                raise ValueError(f"{row.name}: {error}") from error

    def __len__(self) -> int:
        return len(self._given) + self._args.n * len(self._prompts)

    def __iter__(self) -> "Iterator[Passage]":
        from jaxmoe.analysis.router_pass import Passage

        for one in self._all():
            self.tokens.append(Passage(one.tokens, one.prompt_length))
            yield one

    def _all(self) -> "Iterator[Passage]":
        import jax

        from jaxmoe.analysis.router_pass import draw
        from jaxmoe.decode.engine import default_slots
        from jaxmoe.keys import prompt_key

        yield from self._given
        args, every = self._args, self._prompts
        key = jax.random.key(args.seed, impl="threefry2x32")
        options = {name: getattr(args, name) for name in ("n", "max_new_tokens")}
        options["slots"] = default_slots(args.n * min(CHUNK, max(1, len(every))))
        options["sampler"] = sampler_of(args, self._model)
        for start in range(0, len(every), CHUNK):
            some = every[start : start + CHUNK]
            keys = [prompt_key(key, start + j) for j in range(len(some))]
            yield from draw(self._model, some, key=keys, policy=self._policy, **options)


def _chat(model: "jaxmoe.Model", prompt: Any) -> list[int]:
    if not isinstance(prompt, str):
        raise ValueError("--chat needs text, found token ids; leave out --chat")
    return model.chat([{"role": "user", "content": prompt}])
