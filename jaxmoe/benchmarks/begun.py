"""Prompts loaded and samples begun, as the engine does it, to run steps from."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmoe.benchmarks import work
from jaxmoe.benchmarks.subject import Subject
from jaxmoe.benchmarks.work import Work
from jaxmoe.decode.cache import PrefixCache, bucket
from jaxmoe.decode.prefill import prefill, prompt_bucket
from jaxmoe.decode.slots import Admission, Running, SlotRules, Slots, Turn
from jaxmoe.decode.step import decode_segment, fill_slots
from jaxmoe.decode.trace import Drawn, Record
from jaxmoe.nn.decoder import empty_states
from jaxmoe.ops.attention import CHUNK
from jaxmoe.random.keys import sample_keys
from jaxmoe.router.policies import Policy, TopK, for_model
from jaxmoe.typing import Array, Int

NO_STOP = np.full(8, -1, np.int32)
UNLIMITED = 1 << 20

_put = jax.jit(PrefixCache.put, donate_argnums=0)


@dataclass
class Begun:
    """Samples that stand before their first step, again and again.

    A run writes to the same positions of the suffix cache as the one before it, so
    that the cache it gives back serves the next, and none is copied.
    """

    subject: Subject
    prefix: PrefixCache
    slots: Slots
    suffix: tuple[Any, ...]
    policy: Policy
    stop_ids: np.ndarray

    def run(
        self,
        steps: int,
        *,
        segment: int | None = None,
        slots: Slots | None = None,
        return_routes: bool = False,
    ) -> Drawn:
        """What `steps` steps draw, from the beginning, or from `slots`.

        segment: room for drawn tokens, part of the compiled shape; None for `steps`.
        """
        begun = jax.tree.map(jnp.copy, self.slots if slots is None else slots)
        running, drawn = decode_segment(
            self.subject.config,
            self.subject.params,
            self.prefix,
            Running(begun, self.suffix),
            SlotRules(self.policy, self.subject.sampler, self.stop_ids),
            Turn(np.int32(steps)),
            record=Record(return_routes, steps=steps if segment is None else segment),
            execution=self.subject.execution,
        )
        self.suffix = running.states
        return drawn

    def at(self, filled: int) -> Slots:
        """The slots as if every sample had passed `filled` positions of its own."""
        return replace(self.slots, position=self.slots.start + filled)

    def routes(self, steps: int, slots: Slots | None = None) -> np.ndarray:
        """Experts of `steps` steps, int16 [S, M, L, K]."""
        drawn = self.run(steps, slots=slots, return_routes=True)
        return np.asarray(drawn.trace.routes)


def resolved(subject: Subject, policy: Policy) -> Policy:
    """`policy` for the subject's model."""
    return for_model(policy, subject.config)


def pass_over(subject: Subject, prompt: np.ndarray) -> PrefixCache:
    """The prefill of one prompt, padded as the engine pads it."""
    tokens = np.zeros(prompt_bucket(len(prompt)), np.int32)
    tokens[: len(prompt)] = prompt
    policy = resolved(subject, TopK())
    return prefill(
        subject.config,
        subject.params,
        tokens[None],
        np.array([len(prompt)], np.int32),
        policy,
        execution=subject.execution,
    )


def load(subject: Subject, prompts: list[np.ndarray]) -> PrefixCache:
    """A cache with every prompt in it."""
    longest = max(len(prompt) for prompt in prompts)
    prefix = PrefixCache.empty(
        subject.config,
        subject.execution,
        prompts=1 << (len(prompts) - 1).bit_length(),
        size=max(CHUNK, prompt_bucket(longest)),
        width=resolved(subject, TopK()).width,
        dtype=subject.dtype,
    )
    for index, prompt in enumerate(prompts):
        prefix = _put(prefix, np.array([index], np.int32), pass_over(subject, prompt))
    return prefix


def begin(
    subject: Subject,
    prefix: PrefixCache,
    *,
    n: int,
    room: int,
    policy: Policy,
    stop_ids: np.ndarray = NO_STOP,
    prompts: int = 1,
) -> Begun:
    """n samples, dealt to the first `prompts` of `prefix` in runs of equal length.

    room: positions of its own that each sample needs at least.
    """
    suffix = empty_states(
        subject.config,
        subject.execution,
        rows=n,
        size=bucket(room),
        dtype=subject.dtype,
    )
    stops = np.broadcast_to(stop_ids, (n, len(stop_ids)))
    admission = Admission(
        np.ones(n, bool),
        jax.random.key_data(sample_keys(jax.random.key(0), n)),
        dealt(n, prompts),
        np.full(n, UNLIMITED, np.int32),
    )
    policy = resolved(subject, policy)
    running, _ = fill_slots(
        subject.config,
        prefix,
        Running(Slots.empty(n), suffix),
        admission,
        SlotRules(policy, subject.sampler, stops),
        execution=subject.execution,
    )
    slots, suffix = running.slots, running.states
    return Begun(subject, prefix, slots, suffix, policy, stops)


def dealt(samples: int, prompts: int) -> Int[np.ndarray, "S"]:
    """The prompt of each sample, int32: runs of equal length, one for each prompt."""
    return np.arange(samples, dtype=np.int32) * prompts // samples


def scribbled(samples: Begun) -> Begun:
    """`samples` with something in every position, as after long answers."""

    def add(array: Array) -> Array:
        layers, rows, heads, size, width = array.shape
        shape = (1, 1, heads, CHUNK, width)
        chunk = jax.random.normal(jax.random.key(1), shape, array.dtype)
        tiled = jnp.tile(chunk, (layers, rows, 1, size // CHUNK, 1))
        return array + tiled

    filled = jax.jit(lambda cache: jax.tree.map(add, cache), donate_argnums=0)
    # What does not grow looks the same after any answer.
    states = (s if s.size is None else filled(s) for s in samples.suffix)
    return replace(samples, suffix=tuple(states))


def least_work(samples: Begun, routes: np.ndarray, own: float) -> Work:
    """What a step cannot avoid, of samples of one prompt that chose `routes`.

    own: positions that each has passed since its prompt.
    """
    subject = samples.subject
    return work.step(
        subject.config,
        n=samples.slots.active.shape[0],
        prompt=int(samples.prefix.length[0]),
        own=own,
        distinct=distinct_experts(routes, subject.config.moe_layers),
        weight_bytes=subject.params["embed.weight"].dtype.itemsize,
        cache_dtype=subject.dtype,
    )


def distinct_experts(routes: np.ndarray, layers: tuple[int, ...]) -> float:
    """Experts that a layer reads in a step, on average; -1 in `routes` is none.

    routes: [S, M, L, K]. layers: those with experts.
    """
    counts = [
        len(np.unique(chosen[chosen >= 0]))
        for step in range(routes.shape[1])
        for chosen in (routes[:, step, layer] for layer in layers)
    ]
    return float(np.mean(counts)) if counts else 0.0
