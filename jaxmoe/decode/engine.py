"""Requests that come and go, through a fixed number of slots.

The host gives waiting samples free slots, dispatches a segment of steps, and hands out
what the segment before drew while the device runs. Only what decides how answers go on
(which have ended, what a grammar allows next) is looked at before. Which slot a sample
has, what runs beside it and when it began do not enter its numbers: they depend on its
own key alone.
"""

import warnings
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self
from weakref import WeakKeyDictionary

import jax
import numpy as np

from jaxmoe.decode.dispatched import Dispatched, Seen
from jaxmoe.decode.inputs import (
    MOST_SLOTS,
    Prompt,
    check_route_law,
    check_slots,
    check_whole,
    key_data,
    read_policy,
    read_record,
    read_request,
    read_sampler,
    sample_indices,
)
from jaxmoe.decode.live_sample import LiveSample
from jaxmoe.decode.memory import Memory, Size
from jaxmoe.decode.prompt_loader import Kinds, PromptLoader, sample_key_data
from jaxmoe.decode.request import Delta, Request, Ticket
from jaxmoe.decode.rule_table import RuleTable
from jaxmoe.decode.sampler import TokenSampler
from jaxmoe.decode.slots import Admission, Turn
from jaxmoe.decode.step import decode_segment, fill_slots
from jaxmoe.decode.stop_rule import StopRule
from jaxmoe.decode.trace import SEGMENT, Record, TokenTrace, part_of
from jaxmoe.execution import Execution
from jaxmoe.model import Model
from jaxmoe.ops.experts import Implementation
from jaxmoe.router.policies import Policy
from jaxmoe.sharding.processes import check_equal
from jaxmoe.typing import Array, Key


@dataclass
class _Queued:
    """A request of which samples wait: those from `place` on."""

    ticket: Ticket
    request: Request
    kinds: Kinds
    place: int = 0

    def pop(self, entry: int) -> LiveSample:
        """The first of them."""
        self.place += 1
        return LiveSample(self.ticket, self.request, self.place - 1, entry)

    @property
    def empty(self) -> bool:
        """Whether none is left."""
        return self.place == len(self.request.samples)


class Engine:
    """Draws answers to requests that come at any time, side by side in slots.

    Requests share one compiled program whatever their policies, samplers, stops,
    limits and keys are. An answer is the one that `jaxmoe.sample` draws: it depends on
    its own request alone, not on what else is in flight or when it came.

        with jaxmoe.Engine(model, slots=64) as engine:
            ticket = engine.submit(prompt, key=key, samples=range(8))
            while engine.busy:
                for delta in engine.step():
                    print(delta.sample, delta.tokens, delta.finish)

    The device draws on while the caller reads what `step` returned. On a model that
    several processes share, all make the same calls.
    """

    def __init__(
        self,
        model: Model,
        *,
        slots: int = 64,
        policy: Policy | None = None,
        sampler: TokenSampler | None = None,
        prompts: int | None = None,
        prompt_tokens: int = 1,
        answer_tokens: int = 1,
        prefill_batch: int = 1,
        segment: int = SEGMENT,
        return_routes: bool = False,
        return_certainty: bool = False,
        top_logprobs: int = 0,
        return_route_logprobs: bool = False,
        implementation: Implementation = "auto",
    ):
        """Compiles and allocates nothing yet: the first `step` does.

        Args:
          slots: answers decoded side by side; on a mesh, a multiple of the devices
            that divide them.
          policy: of all requests, which then give none. Needed for a policy that
            chooses more experts than the model does, or one of your own. None: each
            request has its own.
          sampler: likewise.
          prompts: the most prompts in memory at once; None for as many as slots.
          prompt_tokens, answer_tokens: longest prompt and answer to make room for at
            once. Longer ones are taken too: then room is made, and the step compiled
            anew.
          prefill_batch: prompts of like length computed in one pass, a power of two.
            Larger is faster where many prompts wait, and slower for one alone. Equal
            values give equal bits, whatever prompts are computed together.
          segment: most steps between two looks of the host.
          return_routes, return_certainty, top_logprobs, return_route_logprobs: what
            else is recorded of each token, as in `jaxmoe.sample`.
          implementation: of the experts (`jaxmoe.ops.experts`).

        Raises:
          TypeError, ValueError: an option that does not fit the model.
        """
        config = model.config
        self._model, self._count = model, check_slots(model, 1, slots)
        self._execution: Execution = model.execution.using(implementation)
        record = read_record(
            model, return_routes, return_certainty, top_logprobs, return_route_logprobs
        )
        self._record: Record = replace(record, steps=check_whole("segment", segment))
        self._policy, self._sampler = policy, sampler
        self._longest_prompt = check_whole("prompt_tokens", prompt_tokens)
        self._longest_answer = check_whole("answer_tokens", answer_tokens)
        entries = (
            self._count
            if prompts is None
            else check_whole("prompts", prompts, MOST_SLOTS)
        )
        self._table = RuleTable(
            config,
            self._count,
            policy=None if policy is None else read_policy(model, policy),
            sampler=None if sampler is None else read_sampler(model, sampler),
        )
        if record.route_logprobs:
            check_route_law(self._table.policy)
        if self._execution.layout.spans_processes():
            sizes = (self._count, entries, prefill_batch, prompt_tokens, answer_tokens)
            check_equal({"options of the engine": (repr(self._record), sizes)})
        self._prompts = PromptLoader(
            model,
            self._execution,
            self._table,
            entries=entries,
            batch=prefill_batch,
            chances=record.route_logprobs,
        )
        self._memory: Memory | None = None
        self._waiting: OrderedDict[Ticket, _Queued] = OrderedDict()
        self._slots: list[LiveSample | None] = [None] * self._count
        self._dispatched: deque[Dispatched] = deque()
        # Round the devices, so that few samples are spread over many.
        parts = self._execution.layout.slots(1)
        self._order = np.arange(self._count).reshape(parts, -1).T.reshape(-1).tolist()
        self._open: dict[Ticket, int] = {}
        self._ended: WeakKeyDictionary[Ticket, str] = WeakKeyDictionary()
        self._closed = self._warned = False
        self._why_closed = ""
        self.tokens = self.steps = 0

    # -- what callers do -----------------------------------------------------------

    def submit(
        self,
        prompt: Prompt,
        *,
        key: Key[Array, ""] | int,
        n: int = 1,
        samples: Sequence[int] | None = None,
        policy: Policy | Sequence[Policy] | None = None,
        sampler: TokenSampler | None = None,
        max_new_tokens: int = 256,
        stop: str | Sequence[str] | None = (),
        stop_ids: Sequence[int] | None = None,
        ignore_eos: bool = False,
        stop_when: StopRule | None = None,
        noisy_prefill: bool = False,
        routes: np.ndarray | None = None,
    ) -> Ticket:
        """Takes a request; its samples begin as slots become free, in order.

        Args:
          prompt: text, token ids, or the messages of a chat.
          key: the prompt's typed key, or its seed; sample i is drawn with
            `fold_in(key, i)`.
          n: draws samples 0..n-1. samples: these sample indices instead.
          policy: None for the engine's, or `ExpertSample()`; a list gives each sample
            one of its own.
          sampler: None for the engine's, or what the checkpoint asks for.
          max_new_tokens, stop, stop_ids, ignore_eos, stop_when, noisy_prefill, routes:
            as in `jaxmoe.stream`.

        Raises:
          TypeError, ValueError: input that does not fit; nothing is taken then.
          RuntimeError: the engine is closed.
        """
        request = self.read(
            prompt,
            key_data=key_data(key, 1, False)[0],
            samples=sample_indices(n, samples),
            policy=policy,
            sampler=sampler,
            max_new_tokens=max_new_tokens,
            stop=stop,
            stop_ids=stop_ids,
            ignore_eos=ignore_eos,
            stop_when=stop_when,
            noisy_prefill=noisy_prefill,
            routes=routes,
        )
        if self._execution.layout.spans_processes():
            check_equal({"the request": request.describe()})
        return self.enqueue(request)

    def read(
        self,
        prompt: Prompt,
        *,
        policy: Policy | Sequence[Policy] | None,
        sampler: TokenSampler | None,
        **rest: Any,
    ) -> Request:
        """A request, checked and resolved; see `jaxmoe.decode.inputs.read_request`."""
        self._check_open()
        for name, own, given in (
            ("policy", self._policy, policy),
            ("sampler", self._sampler, sampler),
        ):
            if own is not None and given is not None:
                raise ValueError(
                    f"{name} must be None, as all requests of this engine have the "
                    f"one it was made with, found {given!r}; make the engine without "
                    f"{name}="
                )
        request = read_request(
            self._model,
            prompt,
            policy=self._policy if policy is None else policy,
            sampler=self._sampler if sampler is None else sampler,
            width=self._table.width,
            **rest,
        )
        self._table.check(request)
        if self._record.route_logprobs:
            for one in {id(one): one for one in request.policies}.values():
                check_route_law(one)
        return request

    def enqueue(self, request: Request) -> Ticket:
        """As `submit`, for a request of `read`, which has checked it."""
        self._check_open()
        ticket = Ticket(request.samples)
        kinds = self._prompts.kinds_of(request)
        self._longest_prompt = max(self._longest_prompt, len(request.prompt))
        self._longest_answer = max(self._longest_answer, request.max_new_tokens)
        if request.samples:
            self._open[ticket] = len(request.samples)
            self._waiting[ticket] = _Queued(ticket, request, kinds)
        return ticket

    @property
    def busy(self) -> bool:
        """Whether any sample waits or is under way."""
        return bool(self._waiting) or any(s is not None for s in self._slots)

    def step(self, most: int | None = None) -> list[Delta]:
        """Returns what was drawn last, after having dispatched what comes next.

        Args:
          most: the most tokens of a delta; None for the engine's segment.

        Returns:
          The new tokens of each answer, of one answer in order; none if nothing is to
          be done.
        """
        self._check_open()
        steps = self._record.steps if most is None else check_whole("most", most)
        steps = min(steps, self._record.steps)
        try:
            return [_owned(delta) for delta in self._drawn(steps)]
        except BaseException as error:
            # What is on the device and what the host knows may not agree any more.
            self.close()
            self._why_closed = f" by a step that failed ({type(error).__name__})"
            raise

    def cancel(self, ticket: Ticket) -> None:
        """Ends a request: no more comes of it, and its slots are free.

        What the device is drawing for it is thrown away.

        Raises:
          ValueError: it is not in flight here.
        """
        self._check_open()
        if ticket not in self._open:
            why = "not of this engine"
            if isinstance(ticket, Ticket):
                why = self._ended.get(ticket, why)
            raise ValueError(
                f"a ticket to cancel must be of a request in flight, found one that is "
                f"{why}; cancel each request once, before its last answer has ended"
            )
        self._waiting.pop(ticket, None)
        gone = [s is not None and s.ticket is ticket for s in self._slots]
        self._stop(gone)
        self._free(gone)
        del self._open[ticket]
        self._ended[ticket] = "cancelled already"

    def close(self) -> None:
        """Gives the memory back; requests in flight end here. Twice does no harm.

        Nothing is waited for: a segment under way ends by itself, and is thrown away.
        """
        self._closed, self._memory = True, None
        self._waiting.clear()
        self._dispatched.clear()
        self._slots, self._open = [None] * self._count, {}

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes it."""
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError(
                f"the engine must be open, found it closed{self._why_closed}; make "
                "another, and close it after its last request"
            )

    # -- prompts -------------------------------------------------------------------

    def _admit_waiting(self) -> list[LiveSample]:
        """Samples that got free slots, and whose first tokens were dispatched."""
        if not self._waiting or None not in self._slots:
            return []
        memory = self._allocated()
        admitted = np.zeros(self._count, bool)
        for slot in self._order:
            if self._slots[slot] is not None or not self._waiting:
                continue
            queued = next(iter(self._waiting.values()))
            entry = self._acquire(queued)
            if entry is None:
                break
            sample = self._slots[slot] = queued.pop(entry)
            if queued.empty:
                del self._waiting[queued.ticket]
            admitted[slot] = True
            self._table.admit(slot, sample.request, sample.policy)
            if sample.guide is not None:
                self._table.allow(slot, sample.guide)
        if not admitted.any():
            return []
        memory.prefix = self._prompts.load(memory.prefix)
        if not self._execution.runs_ahead:
            jax.block_until_ready(memory.prefix)
        memory.remember(self._table.recent, admitted, self._repeatable(admitted))
        self._dispatch_first_tokens(memory, admitted)
        return [s for s, new in zip(self._slots, admitted, strict=True) if s and new]

    def _repeatable(self, admitted: np.ndarray) -> list[np.ndarray | None]:
        """Prompts of new answers whose samplers look at them; None for the others."""
        new = [s if on else None for s, on in zip(self._slots, admitted, strict=True)]
        return [None if s is None else s.request.repeatable for s in new]

    def _acquire(self, queued: _Queued) -> int | None:
        """Where the prompt of its first waiting sample is, or will be."""
        request, place = queued.request, queued.place
        state = self._prompts.state_of(request, place, queued.kinds)
        return self._prompts.acquire(state, request, request.policies[place])

    def _allocated(self) -> Memory:
        """The memory, with room for every prompt that was submitted."""
        if self._memory is not None:
            self._memory.make_room_for_prompt(self._longest_prompt)
            return self._memory
        params = self._model.params
        self._memory = Memory(
            self._model.config,
            params,
            self._execution,
            Size(
                prompts=self._prompts.entries,
                slots=self._count,
                width=self._table.width,
                dtype=Memory.state_dtype(params),
            ),
            longest_prompt=self._longest_prompt,
            longest_answer=self._longest_answer,
        )
        return self._memory

    # -- to the device -------------------------------------------------------------

    def _drawn(self, most: int) -> list[Delta]:
        """New tokens; what comes next is dispatched, where it may run ahead.

        Their arrays are views of all slots' segments.
        """
        deltas: list[Delta] = []
        ahead = self._execution.runs_ahead
        while (self.busy and not deltas) or (self._dispatched and not ahead):
            if self._dispatched:
                deltas += self._see(most)
            if not self._dispatched and (ahead or not deltas):
                deltas += self._dispatch(most)
        return deltas

    def _dispatch(self, most: int) -> list[Delta]:
        """Admits samples and dispatches a segment; what had to be seen between."""
        admitted, deltas = self._admit_waiting(), []
        if any(sample.host_decides for sample in admitted):
            deltas = self._see(most)
        live = [s for s in self._slots if s is not None and s.left]
        if live:
            self._dispatch_segment(most, live)
        return deltas

    def _dispatch_first_tokens(self, memory: Memory, admitted: np.ndarray) -> None:
        some = next(s for s in self._slots if s is not None)
        samples = [s or some for s in self._slots]
        admission = Admission(
            admitted,
            _sample_keys(samples),
            np.array([s.entry for s in samples], np.int32),
            np.array([s.request.max_new_tokens for s in samples], np.int32),
        )
        memory.running, drawn = fill_slots(
            self._model.config,
            memory.prefix,
            memory.running,
            admission,
            self._table.rules(),
            record=self._record,
            execution=self._execution,
        )
        self._dispatched.append(Dispatched([*self._slots], drawn, in_steps=False))

    def _dispatch_segment(self, most: int, live: list[LiveSample]) -> None:
        assert self._memory is not None
        memory = self._memory
        # The next token of a guided answer is known to the host alone.
        most = 1 if any(s.guide is not None for s in live) else most
        steps = min(most, max(s.left for s in live))
        memory.make_room_for_answer(max(s.drawn + min(steps, s.left) for s in live))
        # With samples waiting, come back once an eighth of the slots is free.
        spare = max(1, self._count // 8)
        enough = len(live) - spare + 1 if self._waiting else 1
        memory.running, drawn = decode_segment(
            self._model.config,
            self._model.params,
            memory.prefix,
            memory.running,
            self._table.rules(),
            Turn(np.int32(steps), np.int32(enough), self._replayed()),
            record=self._record,
            execution=self._execution,
        )
        self._dispatched.append(Dispatched([*self._slots], drawn, in_steps=True))

    def _replayed(self) -> np.ndarray | None:
        """Recorded routes of the coming steps, [S, M, L, K]; -1 past their end."""
        shape = (
            self._count,
            self._record.steps,
            self._model.config.num_layers,
            self._table.width,
        )
        coming = None
        for slot, sample in enumerate(self._slots):
            if sample is None or sample.request.routes is None:
                continue
            if coming is None:
                coming = np.full(shape, -1, np.int16)
            rows = sample.request.routes[sample.place, sample.drawn :]
            coming[slot, : len(rows)] = rows[: shape[1]]
        return coming

    # -- from the device -----------------------------------------------------------

    def _see(self, most: int) -> list[Delta]:
        """What the program dispatched first drew; frees the slots of ended answers."""
        seen, rest = self._dispatched.popleft().result(most)
        if rest is not None:
            self._dispatched.appendleft(rest)
        deltas, ended, stopped = [], [False] * self._count, [False] * self._count
        for slot, sample, part in seen.parts():
            delta = sample.take(part)
            self.tokens += len(part.token)
            if delta.finish is None and not self._guided_on(slot, sample, part):
                # Cut off, as at its last token: it can never be complete.
                delta = replace(delta, finish="length")
            ended[slot] = delta.finish is not None
            stopped[slot] = ended[slot] and sample.host_decides
            deltas.append(delta)
        for delta in deltas:
            if delta.finish is not None:
                self._count_down(delta.ticket)
        self._stop(stopped)
        self._free(ended)
        self.steps += seen.steps
        self._warn_of_nan(seen)
        return deltas

    def _guided_on(self, slot: int, sample: LiveSample, part: TokenTrace) -> bool:
        """Whether its grammar, if any, lets an answer go on; tells the slot how."""
        guide = sample.guide
        if guide is None:
            return True
        return guide.take(part.token.tolist()) and self._table.allow(slot, guide)

    def _count_down(self, ticket: Ticket) -> None:
        self._open[ticket] -= 1
        if not self._open[ticket]:
            del self._open[ticket]
            self._ended[ticket] = "finished"

    def _stop(self, stopped: list[bool]) -> None:
        """Has the device draw nothing more in these slots."""
        if self._memory is not None and any(stopped):
            self._memory.stop(np.array(stopped))

    def _free(self, ended: list[bool]) -> None:
        """Takes the slots from answers that have ended."""
        for slot, gone in enumerate(ended):
            sample = self._slots[slot]
            if gone and sample is not None:
                sample.over = True
                self._prompts.release(sample.entry)
                self._slots[slot] = None
                self._table.clear(slot)
        if self._memory is not None and self._table.recent is None:
            self._memory.forget()

    def _warn_of_nan(self, seen: Seen) -> None:
        if not self._warned and seen.has_nan():
            self._warned = True
            warnings.warn(
                "the model computed NaN; the answers concerned have NaN "
                "log-probabilities and mean nothing; look for NaN among its weights",
                RuntimeWarning,
                stacklevel=2,
            )


def _sample_keys(samples: list[LiveSample]) -> Array:
    """The key data of each sample's k_i, uint32 [S, 2]."""
    keys = np.stack([sample.request.key_data for sample in samples])
    return sample_key_data(keys, np.array([s.index for s in samples], np.uint32))


def _owned(delta: Delta) -> Delta:
    """With arrays of its own: a view would keep the whole segment of all slots."""
    return replace(delta, trace=part_of(delta.trace, slice(None), copy=True))
