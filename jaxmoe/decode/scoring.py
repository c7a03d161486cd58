"""Log-probabilities of given tokens, on the device.

Logits exist for a few rows at a time: [T, V] of a prompt of 1024 tokens and 151936 of
vocabulary would be 622 MB.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxmoe.config import ModelConfig
from jaxmoe.decode.cache import PrefixCache, bucket, fork
from jaxmoe.decode.prefill import pass_context, run_sequences
from jaxmoe.decode.program import program
from jaxmoe.decode.slots import Running, Slots
from jaxmoe.decode.step import decode_context, next_pass
from jaxmoe.decode.trace import Record, of_logits
from jaxmoe.execution import Execution
from jaxmoe.nn.base import Context
from jaxmoe.nn.decoder import (
    Decoder,
    bind,
    compute_dtype,
    empty_states,
    param_specs,
    state_specs,
)
from jaxmoe.router.policies import Policy
from jaxmoe.sharding.collectives import spread
from jaxmoe.typing import Array, Bool, Float, Int, Params

ROWS = 128
"""Positions whose logits exist at once in a pass over whole sequences."""


class Scores(NamedTuple):
    """What the model says of given tokens, arrays [..., T].

    logprob: float32, under the model's own distribution. greedy: bool, whether the
    token is the most likely one. rank: int32, one more than the tokens that are more
    likely. top_ids, top_logprobs: int32 and float32 [..., T, Q],
    the most likely tokens there; None where not asked for.
    """

    logprob: Any
    greedy: Any
    rank: Any
    top_ids: Any = None
    top_logprobs: Any = None


def judge(
    logits: Float[Array, "N V"], tokens: Int[Array, "N"], top_logprobs: int
) -> Scores:
    """Scores of one token for each row of logits; of equal logits the lower id wins."""
    said = of_logits(Record(top_logprobs=top_logprobs), logits, tokens)
    greedy = jnp.argmax(logits, axis=1) == tokens
    own = jnp.take_along_axis(logits, tokens[:, None], axis=1)
    rank = 1 + (logits > own).sum(axis=1, dtype=jnp.int32)
    return Scores(said.logprob, greedy, rank, said.top_ids, said.top_logprobs)


class Whole(NamedTuple):
    """Sequences that are scored in one pass, B = 1 at least.

    tokens, targets: int32 [B, T], padded at the end, each token and the one after it.
    lengths: int32 [B], tokens that count. first: int32 [B], the first position whose
    target is scored. key_data: uint32 [B, 2] of samples' keys k_i, for a noisy policy.
    noise_from: int32 [B], positions before it are routed without noise.
    """

    tokens: Any
    targets: Any
    lengths: Any
    first: Any
    key_data: Any
    noise_from: Any


@program(static_argnames=("config", "top_logprobs", "execution"))
def score_whole(
    config: ModelConfig,
    params: Params,
    given: Whole,
    policy: Policy,
    *,
    top_logprobs: int = 0,
    execution: Execution,
) -> Scores:
    """Scores [B, T] of all targets from `first` on; 0 elsewhere."""
    count, size = given.tokens.shape
    context = pass_context(execution, count * size)

    def one_device(params, given: Whole, policy) -> Scores:
        decoder = bind(config, params, context)
        keys = jax.random.wrap_key_data(given.key_data) if policy.noisy else None
        passed = run_sequences(
            decoder,
            given.tokens,
            given.lengths,
            context,
            policy=policy,
            keys=keys,
            noise_from=given.noise_from,
        )
        place = jnp.arange(size)[None]
        wanted = (place >= given.first[:, None]) & (place < given.lengths[:, None])
        flat = given.targets.reshape(-1), wanted.reshape(-1)
        scores = _in_chunks(decoder, passed.hidden, *flat, top_logprobs, context)
        return jax.tree.map(lambda a: a.reshape(count, size, *a.shape[1:]), scores)

    layout = execution.layout
    whole, weights = layout.spec(), param_specs(config, layout, layers=execution.layers)
    run = spread(layout, one_device, specs=(weights, whole, whole), out=whole)
    return run(params, given, policy)


def _in_chunks(
    decoder: Decoder,
    hidden: Float[Array, "N D"],
    targets: Int[Array, "N"],
    wanted: Bool[Array, "N"],
    top_logprobs: int,
    context: Context,
) -> Scores:
    """Scores of the rows that are wanted; chunks without any are passed over."""
    rows = math.gcd(hidden.shape[0], ROWS)

    def chunk(part: tuple[Array, Array, Array]) -> Scores:
        hidden, targets, wanted = part

        def compute() -> Scores:
            logits = context.device.join(decoder.logits(hidden, context), "vocab")
            return judge(logits, targets, top_logprobs)

        empty = lambda: jax.tree.map(  # noqa: E731
            lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(compute)
        )
        return lax.cond(wanted.any(), compute, empty)

    cut = lambda a: a.reshape(-1, rows, *a.shape[1:])  # noqa: E731
    scores = lax.map(chunk, jax.tree.map(cut, (hidden, targets, wanted)))
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), scores)


class Continuations(NamedTuple):
    """What follows prompts of a prefix cache, one in a slot.

    tokens: int32 [S, M], padded at the end. lengths: int32 [S]; 0 in an empty slot.
    prompt: int32 [S], entries of the cache. key_data: uint32 [S, 2] of samples' keys.
    """

    tokens: Any
    lengths: Any
    prompt: Any
    key_data: Any


@program(static_argnames=("config", "top_logprobs", "execution"))
def score_continuations(
    config: ModelConfig,
    params: Params,
    prefix: PrefixCache,
    given: Continuations,
    policy: Policy,
    *,
    top_logprobs: int = 0,
    execution: Execution,
) -> Scores:
    """Scores [S, M] of continuations, a token of each slot a step; 0 past their ends.

    The first token needs no step: the prompt's logits say all of it.
    """
    layout, context = execution.layout, decode_context(execution)
    slots, most = given.tokens.shape
    states = empty_states(
        config,
        execution,
        rows=slots,
        size=bucket(most),
        dtype=compute_dtype(params["embed.weight"]),
    )

    def one_device(params, prefix, given, states, policy) -> Scores:
        decoder = bind(config, params, context)
        return _follow(decoder, prefix, given, states, policy, top_logprobs, context)

    own = layout.spec("slots")
    run = spread(
        layout,
        one_device,
        specs=(
            param_specs(config, layout, layers=execution.layers),
            PrefixCache.specs(config, execution),
            own,
            state_specs(config, execution, "slots"),
            layout.spec(),
        ),
        out=layout.spec(),
    )
    return run(params, prefix, given, states, policy)


def _follow(
    decoder: Decoder,
    prefix: PrefixCache,
    given: Continuations,
    states: Any,
    policy: Policy,
    top_logprobs: int,
    context: Context,
) -> Scores:
    device = context.device
    tokens, lengths, prompt, key_data = given
    count, most = tokens.shape
    start = prefix.length[prompt]

    def going(index: Array | int) -> Array:
        # Of all devices, so that all do the same number of steps together.
        return device.sum_rows((index < lengths).sum()) > 0

    def put(scores: Scores, new: Scores, index: Array | int) -> Scores:
        there = index < lengths
        shaped = lambda a: there.reshape(-1, *(1 for _ in a.shape[1:]))  # noqa: E731
        kept = jax.tree.map(lambda a: jnp.where(shaped(a), a, jnp.zeros_like(a)), new)
        return jax.tree.map(lambda a, b: a.at[:, index].set(b), scores, kept)

    def advance(carry):
        index, _, states, scores = carry
        slots = Slots(
            key_data,
            prompt,
            start,
            start + index - 1,
            tokens[:, index - 1],
            lengths - index,
            index < lengths,
        )
        passed = next_pass(decoder, prefix, Running(slots, states), policy, context)
        logits = decoder.logits(passed.hidden, context)
        # Devices that have the same slots look at some of them each.
        logits = device.rows_for_columns(logits, "vocab")
        new = judge(logits, device.mine(tokens[:, index], "vocab"), top_logprobs)
        scores = put(scores, device.share(new, "vocab", count), index)
        return index + 1, going(index + 1), passed.states, scores

    states = fork(states, prefix, prompt, lengths > 0)
    first = judge(prefix.logits[prompt], tokens[:, 0], top_logprobs)
    room = jax.tree.map(
        lambda a: jnp.zeros((count, most, *a.shape[1:]), a.dtype), first
    )
    carry = jnp.int32(1), going(1), states, put(room, first, 0)
    *_, scores = lax.while_loop(lambda carry: carry[1], advance, carry)
    return device.everyone(scores)
