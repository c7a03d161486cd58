"""Many samples through a fixed number of slots.

The host seats waiting samples in free slots, runs a segment of steps on the device,
takes out what was drawn, and repeats. Which slot a sample sits in, who sits beside it
and when it was seated do not enter its numbers: those hang on its key alone.
"""

import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
import numpy as np

from jaxmoe.cache import CHUNK, PrefixCache, SuffixCache, bucket
from jaxmoe.config import ModelConfig
from jaxmoe.decode.prefill import prefill, prompt_bucket
from jaxmoe.decode.step import Drawn, Slots, decode_segment, fill_slots
from jaxmoe.decode.tokens import TokenSampler
from jaxmoe.experts import Implementation
from jaxmoe.keys import sample_key
from jaxmoe.nn.decoder import compute_dtype
from jaxmoe.router.policies import Policy
from jaxmoe.typing import Params

SEGMENT = 32
"""Steps on the device between two looks of the host."""

FIRST_SUFFIX = 1024
"""Positions allocated for answers at first, where more are allowed."""


@dataclass(frozen=True)
class Request:
    """What to draw: n samples of each prompt, in order.

    prompts: token ids of each prompt. prompt_keys: uint32 [P, 2], each prompt's key.
    samples: which sample indices of every prompt. stop_ids: tokens that end an answer.
    policy, sampler: resolved. max_new_tokens: most tokens of an answer.
    stop_length: token ids -> how many of them complete a stop string, or None.
    routes: int16 [P, n, T, L, K] to take instead of choosing, or None. skip: (prompt,
    sample index) of those that are not drawn; they change no shape, and so no bit of
    the others.
    """

    prompts: Sequence[np.ndarray]
    prompt_keys: np.ndarray
    samples: Sequence[int]
    policy: Policy
    sampler: TokenSampler
    max_new_tokens: int
    stop_ids: tuple[int, ...]
    stop_length: Callable[[Sequence[int]], int | None] | None = None
    return_routes: bool = False
    return_certainty: bool = False
    noisy_prefill: bool = False
    routes: np.ndarray | None = None
    implementation: Implementation = "auto"
    skip: Set[tuple[int, int]] = frozenset()

    def waiting(self) -> deque[tuple[int, int]]:
        """(prompt, place among `samples`) of every sample to draw, in order."""
        return deque(
            (prompt, place)
            for prompt in range(len(self.prompts))
            for place, sample in enumerate(self.samples)
            if (prompt, sample) not in self.skip
        )


@dataclass
class Answer:
    """One sample, as far as it has come; finished once `finish` is set.

    prompt: index of its prompt. sample: its sample index i. place: its row of the
    result. tokens: ids, the stop included. logprobs: of each under the model's own
    distribution. routes: int16 [L, K] for each, certainties: `self_certainty` of each,
    where asked for. finish: "stop" or "length".
    """

    prompt: int
    sample: int
    place: int
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    routes: list[np.ndarray] = field(default_factory=list)
    certainties: list[float] = field(default_factory=list)
    finish: str | None = None


@dataclass(frozen=True)
class Progress:
    """How far a call has come.

    tokens: drawn so far. seconds: since the call began. steps: passes over all slots.
    """

    finished: int
    total: int
    tokens: int
    seconds: float
    steps: int = 0

    @property
    def tokens_per_second(self) -> float:
        """Mean rate since the call began, compilation included."""
        return self.tokens / self.seconds if self.seconds else 0.0


def default_slots(samples: int) -> int:
    """Slots for so many samples: a power of two, at most 64."""
    return min(64, 1 << max(0, samples - 1).bit_length())


def run(
    config: ModelConfig,
    params: Params,
    request: Request,
    *,
    slots: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Iterator[Answer]:
    """Yields every answer as it finishes, in an order that depends on their lengths."""
    seats = slots or default_slots(len(request.prompts) * len(request.samples))
    engine = _Engine(config, params, request, seats)
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


_put = jax.jit(PrefixCache.put, donate_argnums=0)
_grow = jax.jit(SuffixCache.grow, static_argnums=1)


class _Engine:
    """The host's side: who sits where, which prompts are loaded, what has come."""

    def __init__(
        self, config: ModelConfig, params: Params, request: Request, seats: int
    ):
        self.config, self.params, self.request = config, params, request
        self.seats: list[Answer | None] = [None] * seats
        self.waiting = request.waiting()
        self.drawn_tokens = self.steps = 0
        self.warned = False
        self.plain = request.policy.deterministic(config.num_layers)
        entries = _prefix_entries(request, seats)
        self.entries: list[tuple[int, int] | None] = [None] * entries
        self.entry_of_seat = np.zeros(seats, np.int32)
        dtype = compute_dtype(params["embed.weight"])
        longest = max(len(prompt) for prompt in request.prompts)
        prefix = PrefixCache.empty(
            config,
            prompts=entries,
            size=max(CHUNK, prompt_bucket(longest)),
            width=request.policy.width,
            dtype=dtype,
        )
        first = bucket(min(request.max_new_tokens, FIRST_SUFFIX))
        suffix = SuffixCache.empty(config, slots=seats, size=first, dtype=dtype)
        # Bound to the weights' device, as all that is computed from them will be:
        # else the second call of each program would be compiled anew.
        state = (prefix, suffix, Slots.empty(seats))
        sharding = getattr(params["embed.weight"], "sharding", None)
        if isinstance(sharding, jax.sharding.SingleDeviceSharding):
            state = jax.device_put(state, sharding)
        self.prefix, self.suffix, self.slots = state
        stops = request.stop_ids
        self.stop_ids = np.full(-(-max(len(stops), 1) // 8) * 8, -1, np.int32)
        self.stop_ids[: len(stops)] = stops

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
        for seat, sitting in enumerate(self.seats):
            if sitting is not None or not self.waiting:
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
            self.prefix,
            self.slots,
            self.suffix,
            seated,
            _seat_keys(prompt_keys, samples),
            self.entry_of_seat.copy(),
            np.full(len(self.seats), self.request.max_new_tokens, np.int32),
            self.request.sampler,
            self.stop_ids,
            return_certainty=self.request.return_certainty,
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
            implementation=self.request.implementation,
        )
        self.prefix = _put(self.prefix, np.int32(free[0]), computed)
        self.entries[free[0]] = wanted
        return free[0]

    def _run_segment(self) -> list[Answer]:
        live = [seat for seat in self.seats if seat is not None]
        limit = self.request.max_new_tokens
        steps = min(SEGMENT, limit - min(len(a.tokens) for a in live))
        longest = max(len(a.tokens) for a in live)
        need = min(longest + steps, limit)
        if need > self.suffix.size:
            self.suffix = _grow(self.suffix, bucket(need))
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
            return_routes=self.request.return_routes,
            return_certainty=self.request.return_certainty,
            implementation=self.request.implementation,
        )
        finished = self._take(drawn)
        # Some slot is active throughout, and draws a token in every step.
        self.steps += int(np.asarray(drawn.count).max())
        return finished

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
        if not self.request.return_routes:
            drawn = drawn._replace(routes=None)
        tokens, logprobs, routes, count, certainties = jax.device_get(drawn)
        self._warn_of_nan(logprobs, count)
        finished, stopped = [], np.zeros(len(self.seats), bool)
        for seat, answer in enumerate(self.seats):
            if answer is None or not count[seat]:
                continue
            new = slice(0, int(count[seat]))
            answer.tokens += tokens[seat, new].tolist()
            answer.logprobs += logprobs[seat, new].tolist()
            if routes is not None:
                answer.routes += list(routes[seat, new])
            if certainties is not None:
                answer.certainties += certainties[seat, new].tolist()
            self.drawn_tokens += int(count[seat])
            if self._finish(answer):
                finished.append(answer)
                self.seats[seat], stopped[seat] = None, True
        if stopped.any():
            active = self.slots.active & jnp.asarray(~stopped)
            self.slots = replace(self.slots, active=active)
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
                del answer.tokens[length:], answer.logprobs[length:]
                del answer.routes[length:], answer.certainties[length:]
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
