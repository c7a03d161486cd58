"""Many samples through a fixed number of slots.

The host seats waiting samples in free slots, runs a segment of steps on the device,
takes out what was drawn, and repeats. Which slot a sample sits in, who sits beside it
and when it was seated do not enter its numbers: those hang on its key alone.
"""

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmoe.config import ModelConfig
from jaxmoe.decode.cache import PrefixCache, bucket, room
from jaxmoe.decode.prefill import prefill, prompt_bucket
from jaxmoe.decode.request import Answer, Progress, Request
from jaxmoe.decode.slots import Slots
from jaxmoe.decode.step import decode_segment, fill_slots
from jaxmoe.decode.trace import Drawn
from jaxmoe.execution import Execution
from jaxmoe.nn.decoder import compute_dtype, empty_states, state_specs
from jaxmoe.ops.attention.chunked import CHUNK
from jaxmoe.random.keys import sample_key
from jaxmoe.sharding.layout import Layout
from jaxmoe.sharding.processes import check_equal
from jaxmoe.typing import Array, Bool, Params

SEGMENT = 32
"""Steps on the device between two looks of the host."""

FIRST_SUFFIX = 1024
"""Positions allocated for answers at first, where more are allowed."""


def default_slots(samples: int, layout: Layout | None = None) -> int:
    """Slots for so many samples: a power of two, at most 64; on a mesh as many more
    as it takes for its devices to share them equally."""
    slots = min(64, 1 << max(0, samples - 1).bit_length())
    return slots if layout is None else layout.slots(slots)


def run(
    config: ModelConfig,
    params: Params,
    request: Request,
    *,
    slots: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    execution: Execution,
) -> Iterator[Answer]:
    """Yields every answer as it finishes, in an order that depends on their lengths.

    Args:
      slots: on a mesh, a multiple of the devices that divide them.
      execution: mesh and kernels. Each process of several runs the same call, and
        gets every answer.
    """
    layout = execution.layout
    seats = slots or default_slots(len(request.prompts) * len(request.samples), layout)
    if layout.spans_processes():
        check_equal({"prompts, keys and options": request.describe(), "slots": seats})
    engine = _Engine(config, params, request, seats, execution)
    total = len(engine.waiting)
    began, finished = time.perf_counter(), 0
    while engine.busy():
        for answer in engine.advance():
            finished += 1
            yield answer
        if on_progress is not None:
            seconds = time.perf_counter() - began
            drawn = engine.drawn_tokens
            on_progress(Progress(finished, total, drawn, seconds, engine.steps))


@jax.jit
def _seat_keys(prompt_keys, samples):
    """Keys k_i of the samples to seat, from uint32 [S, 2] and [S]."""
    return jax.vmap(sample_key)(jax.random.wrap_key_data(prompt_keys), samples)


def _stop(slots: Slots, stopped: Bool[Array, "S"]) -> Slots:
    """`slots` with those at rest whose answers the host has ended."""
    return replace(slots, active=slots.active & ~stopped)


class _Programs:
    """The small programs between segments, with what they give back in its place."""

    def __init__(self, config: ModelConfig, execution: Execution):
        layout = execution.layout
        specs = (
            PrefixCache.specs(config, execution),
            state_specs(config, execution, "slots"),
            Slots.specs(layout),
        )
        prefix, states, slots = places = tuple(map(layout.placed, specs))
        self.put = jax.jit(PrefixCache.put, donate_argnums=0, out_shardings=prefix)
        # One state at a time: no second cache beside the first.
        grow = lambda state, size: state.grow(size)  # noqa: E731
        own = None if states is None else states[0]
        self.grow = jax.jit(grow, static_argnums=1, out_shardings=own)
        self.stop = jax.jit(_stop, out_shardings=slots)
        # Made in their shards: no device could hold them whole.
        self.empty = jax.jit(
            partial(_empty, config, execution),
            static_argnames=_SIZES,
            out_shardings=None if prefix is None else places,
        )


_SIZES = ("prompts", "prompt_size", "slots", "suffix_size", "width", "dtype")


def _empty(
    config: ModelConfig,
    execution: Execution,
    *,
    prompts: int,
    prompt_size: int,
    slots: int,
    suffix_size: int,
    width: int,
    dtype: Any,
) -> tuple[PrefixCache, tuple[Any, ...], Slots]:
    """Prompts' and slots' states with nothing in them."""
    prefix = PrefixCache.empty(
        config, execution, prompts=prompts, size=prompt_size, width=width, dtype=dtype
    )
    states = empty_states(config, execution, rows=slots, size=suffix_size, dtype=dtype)
    return prefix, states, Slots.empty(slots)


_programs = lru_cache(maxsize=16)(_Programs)


class _Engine:
    """The host's side: who sits where, which prompts are loaded, what has come."""

    def __init__(
        self,
        config: ModelConfig,
        params: Params,
        request: Request,
        seats: int,
        execution: Execution,
    ):
        self.config, self.params, self.request = config, params, request
        self.execution, self.programs = execution, _programs(config, execution)
        self.seats: list[Answer | None] = [None] * seats
        # Round the devices, so that few samples are spread over many.
        parts = execution.layout.slots(1)
        self.order = np.arange(seats).reshape(parts, -1).T.reshape(-1).tolist()
        self.waiting = request.waiting()
        self.drawn_tokens = self.steps = 0
        self.warned = False
        self.plain = request.policy.deterministic(config.num_layers)
        entries = _prefix_entries(request, seats)
        self.entries: list[tuple[int, int] | None] = [None] * entries
        self.entry_of_seat = np.zeros(seats, np.int32)
        self.prefix, self.suffix, self.slots = self._empty()
        stops = request.stop_ids
        self.stop_ids = np.full(-(-max(len(stops), 1) // 8) * 8, -1, np.int32)
        self.stop_ids[: len(stops)] = stops

    def _empty(self) -> tuple[PrefixCache, tuple[Any, ...], Slots]:
        """Caches and slots with nothing in them."""
        weight, request = self.params["embed.weight"], self.request
        longest = max(len(prompt) for prompt in request.prompts)
        state = self.programs.empty(
            prompts=len(self.entries),
            prompt_size=max(CHUNK, prompt_bucket(longest)),
            slots=len(self.seats),
            suffix_size=bucket(min(request.max_new_tokens, FIRST_SUFFIX)),
            width=request.policy.width,
            dtype=jnp.dtype(compute_dtype(weight)),
        )
        # Bound to the weights' device, as all that is computed from them will be:
        # else the second call of each program would be compiled anew.
        sharding = getattr(weight, "sharding", None)
        single = isinstance(sharding, jax.sharding.SingleDeviceSharding)
        return jax.device_put(state, sharding) if single else state

    def busy(self) -> bool:
        """Whether any sample waits or is under way."""
        return bool(self.waiting) or any(seat is not None for seat in self.seats)

    def advance(self) -> list[Answer]:
        """Seat whom there is room for, run one segment; the answers that finished."""
        finished = self._seat_waiting()
        if any(seat is not None for seat in self.seats):
            finished += self._run_segment()
        return finished

    def _seat_waiting(self) -> list[Answer]:
        seated = np.zeros(len(self.seats), bool)
        for seat in self.order:
            if self.seats[seat] is not None or not self.waiting:
                continue
            entry = self._load_prompt(*self.waiting[0])
            if entry is None:
                break
            prompt, place = self.waiting.popleft()
            sample = self.request.samples[place]
            self.seats[seat] = Answer(prompt, sample, place)
            self.entry_of_seat[seat], seated[seat] = entry, True
        return self._first_tokens(seated) if seated.any() else []

    def _first_tokens(self, seated: np.ndarray) -> list[Answer]:
        answers = [a or Answer(0, 0, 0) for a in self.seats]
        prompt_keys = self.request.prompt_keys[[a.prompt for a in answers]]
        samples = np.array([a.sample for a in answers], np.uint32)
        self.slots, self.suffix, drawn = fill_slots(
            self.config,
            self.prefix,
            self.slots,
            self.suffix,
            seated,
            _seat_keys(prompt_keys, samples),
            self.entry_of_seat.copy(),
            np.full(len(self.seats), self.request.max_new_tokens, np.int32),
            self.request.sampler,
            self.stop_ids,
            record=self.request.record,
            execution=self.execution,
        )
        return self._take(drawn)

    def _load_prompt(self, prompt: int, place: int) -> int | None:
        """The prefix entry that holds the prompt, computed if need be; None if full."""
        noisy = self.request.noisy_prefill
        wanted = (prompt, place if noisy else -1)
        if wanted in self.entries:
            return self.entries.index(wanted)
        used = {
            int(entry)
            for entry, seat in zip(self.entry_of_seat, self.seats, strict=True)
            if seat is not None
        }
        free = [i for i in range(len(self.entries)) if i not in used]
        if not free:
            return None
        ids = self.request.prompts[prompt]
        tokens = np.zeros(prompt_bucket(len(ids)), np.int32)
        tokens[: len(ids)] = ids
        key = None
        if noisy:
            sample = np.array([self.request.samples[place]], np.uint32)
            key = _seat_keys(self.request.prompt_keys[prompt][None], sample)[0]
        computed = prefill(
            self.config,
            self.params,
            tokens,
            np.int32(len(ids)),
            self.request.policy if noisy else self.plain,
            key,
            execution=self.execution,
        )
        self.prefix = self.programs.put(self.prefix, np.int32(free[0]), computed)
        self.entries[free[0]] = wanted
        return free[0]

    def _run_segment(self) -> list[Answer]:
        live = [seat for seat in self.seats if seat is not None]
        limit = self.request.max_new_tokens
        steps = min(SEGMENT, limit - min(len(a.tokens) for a in live))
        longest = max(len(a.tokens) for a in live)
        need = min(longest + steps, limit)
        size = room(self.suffix)
        if size is not None and need > size:
            self._grow(bucket(need))
        # With samples waiting, come back once an eighth of the slots is free.
        spare = max(1, len(self.seats) // 8)
        enough = len(live) - spare + 1 if self.waiting else 1
        self.slots, self.suffix, drawn = decode_segment(
            self.config,
            self.params,
            self.prefix,
            self.slots,
            self.suffix,
            self.request.policy,
            self.request.sampler,
            self.stop_ids,
            np.int32(steps),
            np.int32(enough),
            self._replayed(),
            segment=SEGMENT,
            record=self.request.record,
            execution=self.execution,
        )
        finished = self._take(drawn)
        # Some slot is active throughout, and draws a token in every step.
        self.steps += int(np.asarray(drawn.count).max())
        return finished

    def _grow(self, size: int) -> None:
        """Room for `size` positions, one state at a time: no second cache beside it."""
        states = list(self.suffix)
        del self.suffix
        for index in range(len(states)):
            states[index] = self.programs.grow(states[index], size)
        self.suffix = tuple(states)

    def _replayed(self) -> np.ndarray | None:
        """Recorded routes of the coming steps, [S, M, L, K]; -1 past their end."""
        recorded = self.request.routes
        if recorded is None:
            return None
        shape = (len(self.seats), SEGMENT, *recorded.shape[3:])
        coming = np.full(shape, -1, np.int16)
        for seat, answer in enumerate(self.seats):
            if answer is not None:
                rows = recorded[answer.prompt, answer.place, len(answer.tokens) :]
                coming[seat, : len(rows)] = rows[:SEGMENT]
        return coming

    def _take(self, drawn: Drawn) -> list[Answer]:
        """Add what was drawn to the answers; free the seats of those that finished."""
        trace, count = jax.device_get(drawn)
        self._warn_of_nan(trace.logprob, count)
        finished, stopped = [], np.zeros(len(self.seats), bool)
        for seat, answer in enumerate(self.seats):
            if answer is None or not count[seat]:
                continue
            new = int(count[seat])
            # Copied: a view would keep the whole segment of all slots.
            part = jax.tree.map(lambda a, s=seat, n=new: a[s, :n].copy(), trace)
            answer.tokens += part.token.tolist()
            answer.parts.append(part)
            self.drawn_tokens += int(count[seat])
            if self._finish(answer):
                finished.append(answer)
                self.seats[seat], stopped[seat] = None, True
        if stopped.any():
            self.slots = self.programs.stop(self.slots, stopped)
        return finished

    def _warn_of_nan(self, logprobs: np.ndarray, count: np.ndarray) -> None:
        drawn = np.arange(logprobs.shape[1])[None] < count[:, None]
        if not self.warned and np.isnan(logprobs[drawn]).any():
            self.warned = True
            warnings.warn(
                "the model computed NaN; the answers concerned have NaN "
                "log-probabilities and mean nothing; look for NaN among its weights",
                RuntimeWarning,
                stacklevel=2,
            )

    def _finish(self, answer: Answer) -> bool:
        """Set `finish` if the answer has ended, and cut it where a stop string did."""
        request = self.request
        if request.stop_length is not None:
            length = request.stop_length(answer.tokens)
            if length is not None:
                del answer.tokens[length:]
                answer.finish = "stop"
                return True
        if answer.tokens[-1] in request.stop_ids:
            answer.finish = "stop"
        elif len(answer.tokens) >= request.max_new_tokens:
            answer.finish = "length"
        return answer.finish is not None


def _prefix_entries(request: Request, seats: int) -> int:
    """Prompts held at once; not a matter of n, so that n changes no shape."""
    if request.noisy_prefill:
        return seats
    return min(1 << (len(request.prompts) - 1).bit_length(), seats)
