"""What is recorded of every token: one tree, from the step to the result.

To record something more: a field of `Record` and of `TokenTrace`, its filler in
`FILLER`, its room in `empty`, the line that computes it (`of_logits`, or
`jaxmoe.decode.step`), and the field of the public results.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxmoe.decode.sampler import log_probability, self_certainty
from jaxmoe.ops.top_k import best_first
from jaxmoe.typing import Array, Bool, Float, Int

SEGMENT = 32
"""Steps on the device between two looks of the host."""


@dataclass(frozen=True)
class Record:
    """What is asked for, beside tokens and their log-probabilities; static.

    routes: the experts. certainty: `self_certainty`. top_logprobs: how many of the most
    likely tokens. route_logprobs: of the experts under the policy. steps: M, room for
    the tokens of so many steps, between two looks of the host.
    """

    routes: bool = False
    certainty: bool = False
    top_logprobs: int = 0
    route_logprobs: bool = False
    steps: int = SEGMENT


class TokenTrace(NamedTuple):
    """What is recorded of a token; None where it was not asked for.

    Leading dimensions: [S] in a step, [S, M] over a segment, [T] in an answer.

    token: int32. logprob: float32, under the model's own distribution.
    routes: int16 [..., L, K], experts of the pass whose logits it was drawn from; of
      all passes, side by side, where several were averaged (`RouteEnsemble`).
    certainty: float32 (`self_certainty`).
    top_ids, top_logprobs: int32 and float32 [..., Q], the most likely tokens.
    route_logprobs: float32 [..., L], log-probability of each layer's set of experts
      under the policy (`jaxmoe.router.routing.route_logprobs`); 0 in dense layers.
    """

    token: Any
    logprob: Any
    routes: Any = None
    certainty: Any = None
    top_ids: Any = None
    top_logprobs: Any = None
    route_logprobs: Any = None


FILLER = TokenTrace(0, 0.0, -1, 0.0, -1, 0.0, 0.0)
"""What stands past an answer's end; the model's pad id for tokens."""


class Drawn(NamedTuple):
    """Tokens drawn in M steps, the first `count` [S] columns of each row."""

    trace: TokenTrace
    count: Array

    @property
    def tokens(self) -> Array:
        """int32 [S, M]."""
        return self.trace.token

    @property
    def logprobs(self) -> Array:
        """float32 [S, M], under the model's own distribution."""
        return self.trace.logprob

    @property
    def routes(self) -> Array | None:
        """int16 [S, M, L, K]; None where not asked for."""
        return self.trace.routes


def of_logits(
    record: Record,
    logits: Float[Array, "S V"],
    tokens: Int[Array, "S"],
    tops: Bool[Array, ""] | None = None,
) -> TokenTrace:
    """What the logits tell of the tokens drawn from them.

    tops: whether anybody looks at the most likely tokens; None for yes.
    """
    top: tuple[Any, Any] = (None, None)
    if record.top_logprobs:
        top = _tops(record.top_logprobs, logits, tops)
    return TokenTrace(
        tokens,
        jax.vmap(log_probability)(logits, tokens),
        certainty=jax.vmap(self_certainty)(logits) if record.certainty else None,
        top_ids=top[0],
        top_logprobs=top[1],
    )


def _tops(
    count: int, logits: Float[Array, "S V"], asked: Bool[Array, ""] | None
) -> tuple[Array, Array]:
    """The most likely tokens of each slot; fillers where nobody asks for them."""

    def found() -> tuple[Array, Array]:
        return jax.vmap(lambda row: _most_likely(row, count))(logits)

    def none() -> tuple[Array, Array]:
        fill = partial(jnp.full, (logits.shape[0], count))
        return fill(FILLER.top_ids, jnp.int32), fill(FILLER.top_logprobs, logits.dtype)

    return found() if asked is None else lax.cond(asked, found, none)


def _most_likely(logits: Float[Array, "V"], count: int) -> tuple[Array, Array]:
    """Ids and log-probabilities of the most likely tokens; of equals the lower id."""
    best, ids = best_first(logits, count)
    return ids.astype(jnp.int32), best - jax.nn.logsumexp(logits)


def empty(record: Record, *, rows: int, layers: int, width: int) -> TokenTrace:
    """Room for the tokens of a segment, [rows, M, ...]."""

    def room(asked: Any, shape: tuple[int, ...], dtype: Any, filler: Any) -> Any:
        return jnp.full((rows, record.steps, *shape), filler, dtype) if asked else None

    tops, fill = record.top_logprobs, FILLER
    return TokenTrace(
        room(True, (), jnp.int32, fill.token),
        room(True, (), jnp.float32, fill.logprob),
        room(record.routes, (layers, width), jnp.int16, fill.routes),
        room(record.certainty, (), jnp.float32, fill.certainty),
        room(tops, (tops,), jnp.int32, fill.top_ids),
        room(tops, (tops,), jnp.float32, fill.top_logprobs),
        room(record.route_logprobs, (layers,), jnp.float32, fill.route_logprobs),
    )


def put(into: TokenTrace, index: Array, new: TokenTrace) -> TokenTrace:
    """`into` [S, M, ...] with column `index` as `new` [S, ...]."""
    place = lambda a, b: lax.dynamic_update_index_in_dim(a, b, index, axis=1)  # noqa: E731
    return jax.tree.map(place, into, new)


def part_of(trace: TokenTrace, index: Any, *, copy: bool = False) -> TokenTrace:
    """`array[index]` of each NumPy array; `jax.tree.map` takes ten times as long."""
    parts = [None if array is None else array[index] for array in trace]
    if copy:
        parts = [None if part is None else part.copy() for part in parts]
    return TokenTrace(*parts)


def join(parts: list[TokenTrace], length: int) -> TokenTrace:
    """The first `length` tokens of an answer that came in parts, as NumPy arrays."""
    return jax.tree.map(lambda *of: np.concatenate(of)[:length], *parts)


def stack(traces: list[TokenTrace], pad_id: int) -> TokenTrace:
    """Answers of different lengths side by side, [n, T, ...], filled up at the end."""
    longest = max(len(trace.token) for trace in traces)

    def pad(filler: Any, *rows: np.ndarray) -> np.ndarray:
        shape = (len(rows), longest, *rows[0].shape[1:])
        whole = np.full(shape, filler, rows[0].dtype)
        for row, into in zip(rows, whole, strict=True):
            into[: len(row)] = row
        return whole

    fields = zip(FILLER._replace(token=pad_id), *traces, strict=True)
    return TokenTrace(*(None if f[1] is None else pad(*f) for f in fields))
