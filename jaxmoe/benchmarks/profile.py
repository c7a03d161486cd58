"""Profile: what the parts of a step take, each in a loop of its own, beside the step.

A part reads the weights that it reads in a step, and its output is its next input. So
it costs here what it costs there, but for what XLA would fuse across its borders.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from jaxmoe.benchmarks import begun, readers, work
from jaxmoe.benchmarks.report import Row
from jaxmoe.benchmarks.subject import Subject
from jaxmoe.benchmarks.timing import Side, Spread, take_turns
from jaxmoe.decode.sampler import TokenSampler, log_probability
from jaxmoe.execution import compiler_options
from jaxmoe.nn.base import Context
from jaxmoe.nn.decoder import Decoder, bind
from jaxmoe.nn.moe import MoEFeedForward
from jaxmoe.random.keys import position_key, route_noise, sample_keys
from jaxmoe.router.policies import ExpertSample, Policy, TopK
from jaxmoe.router.routing import choose_experts
from jaxmoe.sharding.collectives import DeviceContext
from jaxmoe.typing import Array, Float, Int

POLICIES: dict[str, Policy] = {"TopK": TopK(), "ExpertSample": ExpertSample()}


@dataclass(frozen=True)
class Part:
    """run: (decoder, rows, step) -> the next rows. nbytes: of weights, in a step."""

    run: Callable[[Decoder, Array, Array], Array]
    nbytes: float


def measure(
    subject: Subject, *, ns: tuple[int, ...], prompt: int, steps: int, rounds: int
) -> Iterator[Row]:
    """Rows for each n: every part, and what of the step is in none of them."""
    prefix = begun.load(subject, [subject.prompt(prompt)])
    for n in ns:
        samples = begun.begin(subject, prefix, n=n, room=steps, policy=TopK())
        routes = samples.routes(steps)
        parts = _parts(subject, jnp.asarray(routes, jnp.int32))
        sides = {"step": Side(partial(samples.run, steps))}
        sides |= {k: _looped(subject, p, n, steps) for k, p in parts.items()}
        reader = readers.fastest(subject.place.backend)
        sides["read"] = reader.side
        found = take_turns(sides, rounds, warmup=2)
        yield from _rows(subject, n, steps, parts, found, reader.nbytes)


def _rows(
    subject: Subject,
    n: int,
    steps: int,
    parts: dict[str, Part],
    found: dict[str, Spread],
    nbytes: int,
) -> Iterator[Row]:
    step = found["step"].times(1e3 / steps)
    bandwidth = found["read"].into(nbytes)
    rest = step
    for name, part in parts.items():
        ms = found[name].times(1e3 / steps)
        detail = {"of_the_step_%": ms.over(step).median * 100, "spread": ms}
        if part.nbytes:
            detail["memory_floor_ms"] = bandwidth.into(part.nbytes).median * 1e3
        yield subject.place.row(
            "profile", f"n = {n}: {name}", ms.median, "ms", **detail
        )
        if name != f"choosing experts, {ExpertSample.__name__}":
            rest = Spread(
                tuple(a - b for a, b in zip(rest.values, ms.values, strict=True))
            )
    yield subject.place.row(
        "profile", f"n = {n}: all else (attention, norms, caches)", rest.median, "ms"
    )
    yield subject.place.row("profile", f"n = {n}: a step, TopK", step.median, "ms")


def _looped(subject: Subject, part: Part, n: int, steps: int) -> Side:
    """`steps` turns of one part, in one program."""
    context = _context(subject)

    @partial(jax.jit, compiler_options=dict(compiler_options(subject.execution)))
    def turns(params, rows, steps):
        decoder = bind(subject.config, params, context)
        turn = lambda step, rows: part.run(decoder, rows, step)  # noqa: E731
        return lax.fori_loop(0, steps, turn, rows)

    rows = jax.random.normal(jax.random.key(0), (n, subject.config.d_model))
    args = subject.params, rows.astype(subject.dtype), jnp.int32(steps)
    return Side(lambda: turns(*args))


def _parts(subject: Subject, routes: Int[Array, "S M L K"]) -> dict[str, Part]:
    config, context = subject.config, _context(subject)
    size, value = work.sizes(config), subject.params["embed.weight"].dtype.itemsize
    distinct = begun.distinct_experts(jax.device_get(routes), config.moe_layers)
    routers = len(config.moe_layers) * config.num_experts * config.d_model
    # Where head and embedding are one, `always` counts the table once, as head.
    mixers = size.matrices - size.head - routers
    choosing = {
        f"choosing experts, {name}": Part(
            partial(_choose, context, policy=begun.resolved(subject, policy)),
            routers * value,
        )
        for name, policy in POLICIES.items()
    }
    return {
        "experts": Part(
            partial(_experts, routes, context), distinct * size.expert * value
        ),
        "projections around attention": Part(
            partial(_project, context), mixers * value
        ),
        "output head": Part(partial(_head, config.d_model, context), size.head * value),
        **choosing,
        "drawing tokens": Part(partial(_draw, subject.sampler, config.vocab_size), 0.0),
    }


def _context(subject: Subject) -> Context:
    execution = subject.execution
    return Context(execution, DeviceContext(execution.layout))


def _moe(decoder: Decoder) -> Iterator[tuple[int, MoEFeedForward]]:
    for index, layer in enumerate(decoder.layers()):
        if isinstance(layer.feed_forward, MoEFeedForward):
            yield index, layer.feed_forward


def _experts(
    routes: Int[Array, "S M L K"],
    context: Context,
    decoder: Decoder,
    rows: Float[Array, "S D"],
    step: Int[Array, ""],
) -> Float[Array, "S D"]:
    """All layers' experts, as a run of TopK chose them."""
    chosen = routes[:, step]
    for index, moe in _moe(decoder):
        experts = chosen[:, index]
        weights = jnp.full(experts.shape, 1 / experts.shape[1], rows.dtype)
        rows = rows + moe.apply(rows, experts, weights, context)
    return rows


def _project(
    context: Context, decoder: Decoder, rows: Float[Array, "S D"], step: Int[Array, ""]
) -> Float[Array, "S D"]:
    """All products around attention, or around what stands in its place."""
    positions = jnp.full(rows.shape[0], step, jnp.int32)
    for layer in decoder.layers():
        normed = layer.mixer_norm(rows)
        rows = rows + layer.mixer.projections(normed, positions, context)
    return rows


def _head(
    width: int,
    context: Context,
    decoder: Decoder,
    rows: Float[Array, "S D"],
    step: Int[Array, ""],
) -> Float[Array, "S D"]:
    """Logits; all of them are looked at."""
    logits = decoder.logits(rows, context)
    return rows + logits.max(axis=1, keepdims=True).astype(rows.dtype)


def _choose(
    context: Context,
    decoder: Decoder,
    rows: Float[Array, "S D"],
    step: Int[Array, ""],
    policy: Policy,
) -> Float[Array, "S D"]:
    """Router, noise and policy of all layers."""
    config, noise = decoder.config, None
    if policy.noisy:
        keys = sample_keys(jax.random.key(0), rows.shape[0])
        at = jax.vmap(position_key, (0, None))(keys, step)
        draw = partial(
            route_noise, num_layers=config.num_layers, num_experts=config.num_experts
        )
        noise = jax.vmap(draw)(at)
    for index, moe in _moe(decoder):
        logits = lax.optimization_barrier(moe.router(rows, context))
        of_layer = None if noise is None else noise[:, index]
        ranking = moe.scores.ranking(logits, moe.router.bias_of_choice)
        experts = choose_experts(policy.at_layer(index), ranking, of_layer)
        weights = moe.scores.weights(logits, experts)
        rows = rows + (weights * experts).sum(axis=1, keepdims=True).astype(rows.dtype)
    return rows


def _draw(
    sampler: TokenSampler,
    vocab: int,
    decoder: Decoder,
    rows: Float[Array, "S D"],
    step: Int[Array, ""],
) -> Float[Array, "S D"]:
    """A token of each row, and its log-probability; logits are the rows, repeated."""
    copies = -(-vocab // rows.shape[1])
    logits = jnp.tile(rows.astype(jnp.float32), (1, copies))[:, :vocab]
    keys = sample_keys(jax.random.key(0), rows.shape[0])
    at = jax.vmap(position_key, (0, None))(keys, step)
    tokens = jax.vmap(sampler.draw)(at, logits)
    drawn = jax.vmap(log_probability)(logits, tokens)
    return rows + (drawn + tokens)[:, None].astype(rows.dtype)
