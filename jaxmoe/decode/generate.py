"""Prefill and decode of one prompt as a single function, for a user's own `jit`."""

import jax
import jax.numpy as jnp

from jaxmoe.config import ModelConfig
from jaxmoe.decode.adjustment_table import alike
from jaxmoe.decode.adjustments import History
from jaxmoe.decode.cache import PrefixCache, bucket
from jaxmoe.decode.memory import Size, empty_memory
from jaxmoe.decode.prefill import prefill
from jaxmoe.decode.sampler import TokenSampler
from jaxmoe.decode.slots import Admission, Running, SlotRules, Turn
from jaxmoe.decode.step import decode_segment, fill_slots
from jaxmoe.decode.trace import Drawn, Record
from jaxmoe.execution import Execution, execution_for
from jaxmoe.nn.decoder import compute_dtype
from jaxmoe.router.policies import Policy, for_model
from jaxmoe.typing import Array, Int, Key, Params


def generate(
    config: ModelConfig,
    params: Params,
    tokens: Int[Array, "T"],
    length: Int[Array, ""] | int,
    keys: Key[Array, "S"],
    *,
    policy: Policy,
    sampler: TokenSampler,
    max_new_tokens: int,
    stop_ids: tuple[int, ...] | None = None,
    return_routes: bool = False,
    return_certainty: bool = False,
    top_logprobs: int = 0,
    return_route_logprobs: bool = False,
    execution: Execution | None = None,
) -> Drawn:
    """Answers of one prompt, one a key: prefill and decode as one pure function.

    Everything but `config` and the keyword arguments that set shapes may be traced.

    Args:
      tokens: the prompt, padded to any length; `length` of them count.
      keys: the samples' keys k_i, e.g. `jaxmoe.keys.sample_keys(key, n)`.
      policy, sampler: as given to `jaxmoe.sample`; resolved here.
      stop_ids: None for the model's own.
      return_routes, return_certainty, top_logprobs, return_route_logprobs: what else is
        recorded of each token, as in `jaxmoe.sample`.
      execution: mesh and kernels (`Model.execution`), over whose devices the slots
        must divide; None for one device, the default one where `params` are traced.

    Returns:
      Tokens [S, max_new_tokens] and what was recorded of them, with their number in
      `count`.
    """
    execution = execution or execution_for(params)
    record = Record(
        return_routes,
        return_certainty,
        top_logprobs,
        return_route_logprobs,
        steps=max(max_new_tokens - 1, 1),
    )
    policy = for_model(policy, config, several=True)
    sampler = sampler.resolve(config.vocab_size)
    if isinstance(sampler, TokenSampler) and sampler.guided:
        raise ValueError(
            "a JSON schema or a regex is followed on the host, between steps, and "
            "generate has none; use jaxmoe.sample or jaxmoe.Engine"
        )
    count, given = keys.shape[0], (tokens, length)
    prefix, begun = _memory(
        config, params, given, policy, execution, slots=count, answer=max_new_tokens
    )
    rules, history = _rules(config, policy, sampler, stop_ids, given, slots=count)
    if history is not None:
        begun = begun._replace(history=history)
    everyone = Admission(
        jnp.ones(count, bool),
        jax.random.key_data(keys),
        jnp.zeros(count, jnp.int32),
        jnp.full(count, max_new_tokens, jnp.int32),
    )
    running, first = fill_slots(
        config,
        prefix,
        begun,
        everyone,
        rules,
        record=record,
        execution=execution,
    )
    _, rest = decode_segment(
        config,
        params,
        prefix,
        running,
        rules,
        Turn(jnp.int32(max_new_tokens - 1)),
        record=record,
        execution=execution,
    )
    both = lambda a, b: jnp.concatenate([a, b], axis=1)[:, :max_new_tokens]  # noqa: E731
    trace = jax.tree.map(both, first.trace, rest.trace)
    return Drawn(trace, first.count + rest.count)


def _memory(
    config: ModelConfig,
    params: Params,
    prompt: tuple[Int[Array, "T"], Int[Array, ""] | int],
    policy: Policy,
    execution: Execution,
    *,
    slots: int,
    answer: int,
) -> tuple[PrefixCache, Running]:
    """The prompt's cache, computed, and slots with room for answers of this length.

    prompt: its tokens, padded, and its length.
    """
    tokens, length = prompt
    computed = prefill(
        config,
        params,
        tokens[None],
        jnp.asarray(length, jnp.int32)[None],
        policy.deterministic(config.num_layers),
        execution=execution,
    )
    prefix, begun = empty_memory(
        config,
        execution,
        size=Size(1, slots, policy.width, compute_dtype(params["embed.weight"])),
        prompt_size=bucket(tokens.shape[0]),
        answer_size=bucket(answer),
    )
    return prefix.put(jnp.zeros(1, jnp.int32), computed), begun


def _rules(
    config: ModelConfig,
    policy: Policy,
    sampler: TokenSampler,
    stop_ids: tuple[int, ...] | None,
    prompt: tuple[Int[Array, "T"], Int[Array, ""] | int],
    *,
    slots: int,
) -> tuple[SlotRules, History | None]:
    """How every slot draws, and what is remembered of answers where a sampler asks.

    prompt: its tokens, padded, and its length.
    """
    own = config.stop_ids if stop_ids is None else stop_ids
    stops = jnp.asarray(own, jnp.int32)
    rules = SlotRules(policy, sampler, jnp.broadcast_to(stops, (slots, len(stops))))
    if not (isinstance(sampler, TokenSampler) and sampler.adjusts):
        return rules, None
    tokens, length = prompt
    prompt_ids = jnp.where(jnp.arange(tokens.shape[0]) < length, tokens, -1)
    ends = config.stop_ids if stop_ids is None else (*config.stop_ids, *stop_ids)
    adjustments, history = alike(
        sampler, ends, prompt_ids, slots=slots, vocab=config.vocab_size
    )
    drawing = sampler.without_adjustments()
    return rules._replace(sampler=drawing, adjustments=adjustments), history
