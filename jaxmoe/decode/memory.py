"""What an engine keeps on the device: prompts, slots, and their layers' states."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmoe.config import ModelConfig
from jaxmoe.decode.adjustments import PROMPT_CHUNK, History, forget, note_prompts
from jaxmoe.decode.cache import PrefixCache, bucket, room
from jaxmoe.decode.prefill import prompt_bucket
from jaxmoe.decode.slots import Running, Slots
from jaxmoe.execution import Execution
from jaxmoe.nn.decoder import compute_dtype, empty_states, state_specs
from jaxmoe.ops.attention import CHUNK
from jaxmoe.typing import Array, Bool, Params

FIRST_ANSWER = 1024
"""Positions allocated for answers at first, where more are allowed."""


@dataclass(frozen=True)
class Size:
    """How much is allocated.

    prompts: entries of the prefix cache. slots: samples side by side. width: K, places
    for experts. dtype: of states.
    """

    prompts: int
    slots: int
    width: int
    dtype: Any


class Memory:
    """Arrays that are carried from program to program, and grow where they must.

    Attributes:
      prefix: the prompts.
      running: the slots and their states.
    """

    def __init__(
        self,
        config: ModelConfig,
        params: Params,
        execution: Execution,
        size: Size,
        *,
        longest_prompt: int,
        longest_answer: int,
    ):
        """Allocates; both lengths in tokens, and no limits: more is made room for."""
        self._programs = _programs(config, execution)
        make = partial(
            self._programs.empty,
            size=size,
            prompt_size=max(CHUNK, prompt_bucket(longest_prompt)),
            answer_size=bucket(min(longest_answer, FIRST_ANSWER)),
        )
        self._sharding = getattr(params["embed.weight"], "sharding", None)
        self.prefix, self.running = self._made(make)

    def _made(self, make: Callable[[], Any]) -> Any:
        """What `make` makes, where the weights are."""
        sharding = self._sharding
        if not isinstance(sharding, jax.sharding.SingleDeviceSharding):
            return make()
        (device,) = sharding.device_set
        with jax.default_device(device):  # made where it is to be
            made = make()
        # Bound to it, as all that is computed from the weights will be: else the
        # second call of each program would be compiled anew.
        return jax.device_put(made, sharding)

    @staticmethod
    def state_dtype(params: Params) -> Any:
        """The type of states that go with these weights."""
        return jnp.dtype(compute_dtype(params["embed.weight"]))

    def stop(self, stopped: np.ndarray) -> None:
        """Puts slots to rest whose answers the host has ended, bool [S]."""
        slots = self._programs.stop(self.running.slots, stopped)
        self.running = self.running._replace(slots=slots)

    def remember(
        self, recent: int | None, new: np.ndarray, prompts: Sequence[np.ndarray | None]
    ) -> None:
        """Begins the history of new answers.

        recent: the last tokens to keep of each slot; None for no history. new: slots
          that get an answer, bool [S]. prompts: of each slot, where it matters.
        """
        if recent is None:
            return
        history, programs = self.running.history, self._programs
        if history is None:
            history = self._made(partial(programs.history, len(new), recent))
        elif recent > history.recent.shape[1]:
            history = programs.widen(history, recent)
        history = programs.forget(history, new)
        longest = max((len(p) for p in prompts if p is not None), default=0)
        for begin in range(0, longest, PROMPT_CHUNK):
            tokens = np.full((len(new), PROMPT_CHUNK), -1, np.int32)
            for row, prompt in zip(tokens, prompts, strict=True):
                part = () if prompt is None else prompt[begin : begin + PROMPT_CHUNK]
                row[: len(part)] = part
            history = programs.note_prompts(history, tokens)
        self.running = self.running._replace(history=history)

    def forget(self) -> None:
        """Drops the history, which no slot asks for any more."""
        self.running = self.running._replace(history=None)

    def make_room_for_prompt(self, length: int) -> None:
        """Room for a prompt of so many tokens in every entry."""
        size = max(CHUNK, prompt_bucket(length))
        present = room(self.prefix.states)
        if present is not None and size > present:
            states, self.prefix = (
                list(self.prefix.states),
                replace(self.prefix, states=()),
            )
            grown = _grown(states, size, self._programs.extend)
            self.prefix = replace(self.prefix, states=grown)

    def make_room_for_answer(self, length: int) -> None:
        """Room for so many positions in every slot."""
        present = room(self.running.states)
        if present is not None and length > present:
            states = list(self.running.states)
            self.running = self.running._replace(states=())
            grown = _grown(states, bucket(length), self._programs.grow)
            self.running = self.running._replace(states=grown)


def _grown(states: list[Any], size: int, grow: tuple[Any, ...]) -> tuple[Any, ...]:
    """Larger states; made one after the other, so that there is no second cache."""
    for index, state in enumerate(states):
        if state.size is not None:
            # Waited for: else all would be made at once, when the device gets to it.
            states[index] = jax.block_until_ready(grow[index](state, size))
    return tuple(states)


def _stop(slots: Slots, stopped: Bool[Array, "S"]) -> Slots:
    return replace(slots, active=slots.active & ~stopped)


def empty_memory(
    config: ModelConfig,
    execution: Execution,
    *,
    size: Size,
    prompt_size: int,
    answer_size: int,
) -> tuple[PrefixCache, Running]:
    """Prompts' and slots' states with nothing in them."""
    prefix = PrefixCache.empty(
        config,
        execution,
        prompts=size.prompts,
        size=prompt_size,
        width=size.width,
        dtype=size.dtype,
    )
    states = empty_states(
        config, execution, rows=size.slots, size=answer_size, dtype=size.dtype
    )
    return prefix, Running(Slots.empty(size.slots), states)


class _Programs:
    """The small programs between segments, with what they give back in its place."""

    def __init__(self, config: ModelConfig, execution: Execution):
        specs = (
            PrefixCache.specs(config, execution),
            Running(
                Slots.specs(execution.layout),
                state_specs(config, execution, "slots"),
                execution.layout.spec("slots"),
            ),
        )
        prefix, running = tuple(map(execution.layout.placed, specs))
        count = len(specs[0].states)
        self.grow = _growing(count, running)
        self.extend = _growing(count, prefix)
        slots = None if running is None else running.slots
        self.stop = jax.jit(_stop, out_shardings=slots)
        kept = None if running is None else running.history
        own = {"donate_argnums": 0, "out_shardings": kept}
        self.history = jax.jit(
            lambda slots, recent: History.empty(slots, config.vocab_size, recent),
            static_argnums=(0, 1),
            out_shardings=kept,
        )
        self.widen = jax.jit(History.widened, static_argnums=1, out_shardings=kept)
        self.forget = jax.jit(forget, **own)
        self.note_prompts = jax.jit(note_prompts, **own)
        fresh = None if running is None else running._replace(history=None)
        # Made in their shards: no device could hold them whole.
        self.empty = jax.jit(
            partial(empty_memory, config, execution),
            static_argnames=("size", "prompt_size", "answer_size"),
            out_shardings=None if prefix is None else (prefix, fresh),
        )


def _growing(count: int, places: PrefixCache | Running | None) -> tuple[Any, ...]:
    """For each of `count` states, the program that makes it larger; few in all."""
    grow = lambda state, size: state.grow(size)  # noqa: E731
    states = (None,) * count if places is None else places.states
    programs = {
        place: jax.jit(grow, static_argnums=1, out_shardings=place) for place in states
    }
    return tuple(programs[place] for place in states)


_programs = lru_cache(maxsize=16)(_Programs)
