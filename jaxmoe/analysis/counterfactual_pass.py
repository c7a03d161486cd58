"""An answer under other routes, on the device: what a change of experts does to it.

The text is run once, which leaves the states that every position finds before it. Then
the routes of one position at a time are changed: that position is computed anew as one
step of many slots, which share the states, in slot 0 as it was and in the others with
other experts in some layers. Of the logits one number a slot is kept. What is computed
anew are rows of the model, as many as there are alternatives and one more, and of
mixers whose states cannot be cut at a position (recurrent ones) the text before it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxmoe.config import ModelConfig
from jaxmoe.decode.prefill import run_sequences
from jaxmoe.decode.program import program
from jaxmoe.decode.sampler import log_probability
from jaxmoe.execution import Execution
from jaxmoe.nn.base import Context, Step
from jaxmoe.nn.decoder import Decoder, bind, compute_dtype, empty_states, one_step
from jaxmoe.random.keys import position_key, route_noise
from jaxmoe.router.modifiers import entropy
from jaxmoe.router.policies import Policy, TopK, packed
from jaxmoe.router.routing import choose_experts, of_layer
from jaxmoe.sharding.collectives import DeviceContext
from jaxmoe.typing import Array, Bool, Float, Int, Params


class Text(NamedTuple):
    """A text whose routes are changed.

    tokens, targets: int32 [T], padded at the end, each token and the one after it.
    length: int32, of both. routes: int16 [T, L, K], experts that tokens have where not
    -1; the others have the model's own choice. positions: int32 [W], passes that are
    changed; -1 for none.
    """

    tokens: Any
    targets: Any
    length: Any
    routes: Any
    positions: Any


class Changes(NamedTuple):
    """What is changed in a position.

    layers: bool [C, G, L], sets of layers that are changed together; those of a chunk C
    run side by side. key_data: uint32 [M, 2], the samples' keys that draw alternatives.
    reach: int32, tokens whose log-probabilities count, from the next one on. hold:
    bool, whether all else keeps its experts; else routers choose anew where the text
    has no route of its own.
    """

    layers: Any
    key_data: Any
    reach: Any
    hold: Any


class Found(NamedTuple):
    """Of every changed position; G counts sets of layers of all chunks.

    utility: float32 [W, G, M], log-probability of what follows less that by the own
    route, nats. logprob: float32 [W], by the own route. entropy: float32 [W], of the
    next token by the own route, nats. score: float32 [W, G, M], mean over the changed
    layers of what the router gives the set: sum of log p of its experts. routes: int16
    [W, L, K], the own. others: int16 [W, G, M, L, K], the alternatives' in all layers;
    None where not asked for.
    """

    utility: Any
    logprob: Any
    entropy: Any
    score: Any
    routes: Any
    others: Any


@program(static_argnames=("config", "size", "keep", "execution"))
def compare_routes(
    config: ModelConfig,
    params: Params,
    text: Any,
    changes: Any,
    policy: Policy | None,
    *,
    size: int,
    keep: bool = False,
    execution: Execution,
) -> Found:
    """Alternatives to each position's routes.

    Args:
      text: a `Text`. changes: `Changes`.
      policy: draws alternatives; None takes one expert away instead, alternative j the
        own route without its expert at place j (M = K).
      size: positions that a slot has room for; `reach` is at most that.
      keep: whether the alternatives' experts are wanted.
    """
    context = Context(execution, DeviceContext(execution.layout))
    decoder = bind(config, params, context)
    own = TopK().resolve(
        k=config.experts_per_token,
        num_experts=config.num_experts,
        num_layers=config.num_layers,
    )

    def clean(length: Array) -> Any:
        return run_sequences(
            decoder,
            text.tokens[None],
            length[None],
            context,
            policy=own,
            keys=None,
            routes=text.routes,
            keep=True,
        )

    passed = clean(text.length)
    held = jnp.where(changes.hold, passed.routes, text.routes)
    # Keys and values are read up to a position; what has no positions is made anew.
    cut = all(state.size is not None for state in passed.kept)

    def one_position(asked: Array) -> Found:
        position = jnp.maximum(asked, 0)
        before = passed.kept if cut else clean(position).kept
        run = _Position(
            decoder, context, before, asked, position, held, text, changes, own, policy
        )
        found = lax.map(lambda layers: run.chunk(layers, size, keep), changes.layers)
        first = lambda a: a[0]  # noqa: E731
        joined = lambda a: a.reshape(-1, *a.shape[2:])  # noqa: E731
        return Found(
            joined(found.utility),
            first(found.logprob),
            first(found.entropy),
            joined(found.score),
            first(found.routes),
            None if found.others is None else joined(found.others),
        )

    # In order, so that the states of one position exist at a time.
    return lax.map(one_position, text.positions)


class _First(NamedTuple):
    """What is kept of the changed position itself: of every slot, [S]."""

    entropy: Any
    score: Any
    routes: Any


class _Position(NamedTuple):
    """One position, which is not run where -1 was asked for, and what is before it."""

    decoder: Decoder
    context: Context
    before: Any
    asked: Array
    position: Array
    held: Array
    text: Any
    changes: Any
    own: TopK
    policy: Policy | None

    def chunk(self, layers: Bool[Array, "G L"], size: int, keep: bool) -> Found:
        """Slot 0 and M slots for each of G sets of layers, over the tokens in reach."""
        groups, count = layers.shape[0], self.changes.key_data.shape[0]
        changed = jnp.repeat(layers, count, axis=0)
        changed = jnp.pad(changed, ((1, 0), (0, 0)))
        draw = jnp.pad(jnp.tile(jnp.arange(count, dtype=jnp.int32), groups), (1, 0))
        slots = changed.shape[0]
        steps = jnp.minimum(self.changes.reach, self.text.length - self.position)
        steps = jnp.where(self.asked >= 0, steps, 0)

        def advance(carry: Any) -> Any:
            index, states, total, first = carry
            here = changed & (index == 0)
            states, logprob, found = self._step(index, states, here, draw)
            first = jax.tree.map(
                lambda new, old: jnp.where(index == 0, new, old), found, first
            )
            return index + 1, states, total + logprob, first

        zeros, width = jnp.zeros(slots, jnp.float32), self.own.width
        none = jnp.zeros((slots, layers.shape[1], width), jnp.int16)
        first = _First(zeros, zeros, none)
        start = (jnp.int32(0), self._states(slots, size), zeros, first)
        *_, total, first = lax.while_loop(lambda c: c[0] < steps, advance, start)
        apart = lambda a: a[1:].reshape(groups, count, *a.shape[1:])  # noqa: E731
        return Found(
            apart(total - total[0]),
            total[0],
            first.entropy[0],
            apart(first.score),
            first.routes[0],
            apart(first.routes) if keep else None,
        )

    def _states(self, slots: int, size: int) -> Any:
        """Slots that begin at this position."""
        config, execution = self.decoder.config, self.context.execution
        dtype = compute_dtype(self.decoder.params["embed.weight"])
        empty = empty_states(config, execution, rows=slots, size=size, dtype=dtype)
        prompt, new = jnp.zeros(slots, jnp.int32), jnp.ones(slots, bool)
        pairs = zip(empty, self.before, strict=True)
        return tuple(state.fork(before, prompt, new) for state, before in pairs)

    def _step(
        self,
        index: Array,
        states: Any,
        changed: Bool[Array, "S L"],
        draw: Int[Array, "S"],
    ) -> tuple[Any, Float[Array, "S"], _First]:
        """One more token of all slots: their states, log-probabilities, what is new."""
        decoder, text, at = self.decoder, self.text, self.position + index
        config, slots = decoder.config, changed.shape[0]
        context = self.context
        every = lambda value: jnp.broadcast_to(value, (slots,))  # noqa: E731
        step = Step(
            positions=every(at),
            start=every(self.position),
            active=jnp.ones(slots, bool),
            longest=index + 1,
            prompt_lengths=self.position[None],
            blocks=None,
            block=1,
        )
        passed = decoder.run(
            every(text.tokens[at]),
            one_step(self.before, step, context),
            self._choose(at, changed, draw),
            context,
            width=self.own.width,
            states=states,
            keep_rankings=True,
        )
        logits = decoder.logits(passed.hidden, context)
        logprob = jax.vmap(log_probability)(logits, every(text.targets[at]))
        assert passed.rankings is not None
        moe = jnp.array(config.moe_layers)
        first = _First(
            jax.vmap(entropy)(logits),
            _score(passed.rankings, passed.routes[:, moe], changed[:, moe]),
            passed.routes,
        )
        return passed.states, logprob, first

    def _choose(
        self, at: Array, changed: Bool[Array, "S L"], draw: Int[Array, "S"]
    ) -> Callable[[Array | int, Array], Array]:
        """Own experts, as held or as the router chooses, and others where changed."""
        noise = self._noise(at, draw)
        held = jnp.broadcast_to(self.held[at], (len(draw), *self.held.shape[1:]))

        def choose(layer: Array | int, ranking: Float[Array, "S E"]) -> Array:
            given, here = of_layer(held, layer, jnp.int32), of_layer(changed, layer)
            assert given is not None and here is not None
            kept = choose_experts(self.own.at_layer(layer), ranking, None, forced=given)
            if self.policy is None:
                place = jnp.arange(self.own.width)[None] != draw[:, None]
                other = jax.vmap(packed)(kept, place)
            else:
                other = choose_experts(
                    self.policy.at_layer(layer), ranking, of_layer(noise, layer)
                )
            return jnp.where(here[:, None], other, kept)

        return choose

    def _noise(self, at: Array, draw: Int[Array, "S"]) -> Float[Array, "S L E"] | None:
        """Noise of each slot's sample at this position; None of a policy without."""
        if self.policy is None or not self.policy.noisy:
            return None
        config = self.decoder.config

        def of_sample(data: Array) -> Array:
            key = position_key(jax.random.wrap_key_data(data), at)
            return route_noise(key, config.num_layers, config.num_experts)

        return jax.vmap(of_sample)(self.changes.key_data)[draw]


def _score(
    rankings: Float[Array, "X S E"],
    routes: Int[Array, "S X K"],
    changed: Bool[Array, "S X"],
) -> Float[Array, "S"]:
    """Mean over the changed layers of the sum of log p of the experts; p softmax."""
    log_p = jax.nn.log_softmax(rankings, axis=-1)
    experts = jnp.moveaxis(routes, 1, 0).astype(jnp.int32)
    taken = jnp.take_along_axis(log_p, jnp.maximum(experts, 0), axis=-1)
    sums = jnp.where(experts >= 0, taken, 0.0).sum(axis=-1).T
    count = jnp.maximum(changed.sum(axis=1), 1)
    return jnp.where(changed, sums, 0.0).sum(axis=1) / count
