"""A service for a model: its engine made, and its programs compiled."""

import hashlib
import logging
import time
from dataclasses import dataclass, field
from importlib import metadata

import jax

from jaxmoe.decode.engine import Engine
from jaxmoe.decode.prefill import prompt_bucket
from jaxmoe.decode.sampler import TokenSampler
from jaxmoe.model import Model
from jaxmoe.router.per_slot import PerSlot
from jaxmoe.router.policies import Policy, for_model
from jaxmoe.serve.request_reader import STOP_IDS, Limits, RequestReader
from jaxmoe.serve.service import Service

log = logging.getLogger("jaxmoe.serve")


@dataclass(frozen=True)
class Shapes:
    """What decides which programs are compiled, and what they need.

    slots: answers decoded side by side. queue: answers that may wait for a slot.
    segment: most steps between two looks of the host: tokens come in such portions, and
    a new request waits for the end of one. prompt_tokens, answer_tokens: longest prompt
    and answer to make room for at once; longer ones compile anew. prefill_batch:
    prompts of like length computed in one pass.
    """

    slots: int = 64
    queue: int = 1024
    segment: int = 8
    prompt_tokens: int = 1024
    answer_tokens: int = 1024
    prefill_batch: int = 1


@dataclass(frozen=True)
class Named:
    """How a service presents itself, and what it does unasked.

    name: of the model. policy: of requests that name none; None for `ExpertSample()`.
    limits: of a request.
    """

    name: str
    policy: Policy | None = None
    limits: Limits = field(default_factory=Limits)


def make_service(model: Model, shapes: Shapes, named: Named) -> Service:
    """Makes an engine and compiles its programs, all but those of rare wishes.

    Raises:
      ValueError: a model that several processes share, shapes that do not fit it, or
        a policy that no slot can hold.
    """
    if model.execution.layout.spans_processes():
        raise ValueError(
            "serving needs a mesh of one process, found one of several; start a "
            "server for each process's own devices"
        )
    context = model.config.context_length
    if named.policy is not None:
        # One that no slot can hold would be refused with every request.
        slot = PerSlot.for_model(1, model.config)
        policy = for_model(named.policy, model.config, several=True)
        slot.numbers_of(policy, model.config.num_experts or 1)
    engine = Engine(
        model,
        slots=shapes.slots,
        segment=shapes.segment,
        prompt_tokens=min(shapes.prompt_tokens, context),
        answer_tokens=min(shapes.answer_tokens, context),
        prefill_batch=shapes.prefill_batch,
        return_routes=named.limits.routes,
        top_logprobs=named.limits.logprobs,
    )
    _compile(engine, model, min(shapes.prompt_tokens, context - shapes.segment - 1))
    reader = RequestReader(
        model, engine, name=named.name, limits=named.limits, policy=named.policy
    )
    return Service(
        model,
        engine,
        reader,
        slots=shapes.slots,
        queue=shapes.queue,
        fingerprint=_fingerprint(model, shapes, named.name),
    )


def _compile(engine: Engine, model: Model, longest: int) -> None:
    """Draws a few tokens after prompts of every padded length up to `longest`.

    Once more as the checkpoint's own sampler does, where that penalises repetition.
    """
    began, length, lengths = time.perf_counter(), 1, []
    while prompt_bucket(length) < prompt_bucket(max(longest, 1)):
        length = prompt_bucket(length)
        lengths.append(length)
        length += 1
    lengths.append(max(longest, 1))
    # Room for as many stop ids as a request may have: a wider table compiles anew.
    ends = [i % model.config.vocab_size for i in range(STOP_IDS)]
    own = TokenSampler.from_config(model.config.generation)
    draws = [(length, TokenSampler(0)) for length in lengths]
    if own.resolve(model.config.vocab_size).adjusts:  # a step of its own
        draws.append((lengths[0], own))
    for length, sampler in draws:
        engine.submit(
            [0] * length, key=0, sampler=sampler, max_new_tokens=2, stop_ids=ends
        )
        while engine.busy:
            engine.step()
    log.info(
        "%d programs of prompts and the step are ready after %.1f s",
        len(lengths),
        time.perf_counter() - began,
    )


def _fingerprint(model: Model, shapes: Shapes, name: str) -> str:
    """Of what an answer's bits depend on, besides the request: as far as it is known.

    Weights count by the model's name.
    """
    packages = ("jaxmoe", "jax", "jaxlib")
    parts = [f"{package} {metadata.version(package)}" for package in packages]
    device = next(iter(model.params.values())).devices()
    kinds = sorted({f"{d.platform} {d.device_kind}" for d in device})
    parts += [name, repr(model.config), repr(shapes.slots), str(jax.device_count())]
    parts += kinds
    return f"fp_{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:12]}"
