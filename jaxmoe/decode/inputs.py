"""What users pass to `jaxmoe.sample` and `jaxmoe.forward`, checked and made arrays.

Each function raises one TypeError or ValueError that says what was expected, what was
found and what to do, before any work is done.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from jaxmoe.decode.request import Request
from jaxmoe.decode.sampler import TokenSampler
from jaxmoe.decode.slots import default_slots
from jaxmoe.decode.stop_rule import StopRule
from jaxmoe.decode.trace import Record
from jaxmoe.model import Model
from jaxmoe.random.keys import as_key, check_key, prompt_key
from jaxmoe.router.ensemble import RouteEnsemble
from jaxmoe.router.plackett_luce import MOST_DRAWN
from jaxmoe.router.policies import ExpertSample, Policy, for_model, require_one_pass
from jaxmoe.text.grammar import Grammar
from jaxmoe.text.stop import check_stops
from jaxmoe.typing import Array

Prompt = str | Sequence[int] | Sequence[Mapping[str, Any]] | np.ndarray | Array
"""Text, token ids, or the messages of a chat."""


INDICES = 1 << 32
"""Sample indices are folded into a key as uint32."""

_WHOLE = (int, np.integer)

MOST_SLOTS = 1 << 16
"""More than any device has room for, however small the model."""
MOST_SAMPLES = 1 << 20
"""Of one prompt in one call."""


def is_many(prompt: Any) -> bool:
    """Whether `prompt` is a list of prompts rather than one."""
    if isinstance(prompt, str) or getattr(prompt, "ndim", None) == 1:
        return False
    indexed = hasattr(prompt, "__len__") and hasattr(prompt, "__getitem__")
    if not indexed or isinstance(prompt, Mapping | bytes):
        raise TypeError(
            "prompt must be text, token ids, messages of a chat, or a list of such, "
            f"found {prompt!r}"
        )
    if not len(prompt) or isinstance(prompt[0], Mapping):
        return False
    one = prompt[0]
    return isinstance(one, str) or is_chat(one) or np.ndim(one) == 1


def is_chat(prompt: Any) -> bool:
    """Whether it is a list of messages."""
    return (
        isinstance(prompt, list | tuple)
        and len(prompt) > 0
        and isinstance(prompt[0], Mapping)
    )


def check_prompt(model: Model, prompt: Prompt, max_new_tokens: int) -> np.ndarray:
    """Checked token ids, int32 [T], of text, of messages, or of ids."""
    if model.config.scorer is not None:
        raise ValueError(
            "a model that writes text is needed, found one that scores it "
            f"({model.config.family}); use it as `jaxmoe verify --verifier`"
        )
    try:
        ids = np.asarray(_tokens(model, prompt))
    except ValueError as error:
        if "inhomogeneous" not in str(error):
            raise
        raise ValueError(
            f"a prompt must be one list of token ids, found lists in it: {prompt!r:.70}"
        ) from None
    if ids.dtype.kind == "U":
        raise TypeError(f"expected one prompt, found a list of {len(ids)} texts")
    if ids.ndim != 1 or not len(ids):
        raise ValueError(
            "a prompt must have at least one token, found "
            f"{'none' if not ids.size else f'an array of shape {ids.shape}'}; "
            "add a token or a beginning-of-sequence id"
        )
    if not np.issubdtype(ids.dtype, np.integer):
        raise TypeError(f"token ids must be integers, found {ids.dtype}")
    vocab, context = model.config.vocab_size, model.config.context_length
    wrong = ids[(ids < 0) | (ids >= vocab)]
    if len(wrong):
        raise ValueError(
            f"token ids must lie in 0..{vocab - 1}, found {wrong[0]}; was the prompt "
            "encoded with this model's tokenizer?"
        )
    if len(ids) + max_new_tokens > context:
        asked = f" and {max_new_tokens} new ones" if max_new_tokens else ""
        raise ValueError(
            f"the context holds {context} tokens, found a prompt of {len(ids)}{asked}; "
            "shorten the prompt" + (" or lower max_new_tokens" if asked else "")
        )
    return ids.astype(np.int32)


def _tokens(model: Model, prompt: Prompt) -> Any:
    if is_chat(prompt):
        return model.chat(prompt)  # type: ignore[arg-type]
    if not isinstance(prompt, str):
        return prompt
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            "a prompt must be Unicode text, found half a character (a lone surrogate, "
            f"{prompt[error.start]!a}) at place {error.start}; decode the text again, "
            "with errors='replace'"
        ) from None
    return model.encode(prompt)


def key_data(key: Any, prompts: int, many: bool) -> np.ndarray:
    """Key data of each prompt, uint32 [P, 2]."""
    if isinstance(key, list | tuple):
        if not many or len(key) != prompts:
            raise ValueError(
                f"expected one key or a list of {prompts} keys for as many prompts, "
                f"found {len(key)} keys for "
                f"{'a list of ' + str(prompts) if many else 'one prompt'}"
            )
        keys = [as_key(one) for one in key]
    elif many and getattr(key, "shape", None) == (prompts,):
        check_key(key[0])
        return np.asarray(jax.random.key_data(key))
    else:
        one = as_key(key)
        keys = [prompt_key(one, j) for j in range(prompts)] if many else [one]
    return np.stack([np.asarray(jax.random.key_data(k)) for k in keys])


def read_request(
    model: Model,
    prompt: Prompt,
    *,
    key_data: np.ndarray,
    samples: Sequence[int],
    policy: Policy | Sequence[Policy] | None,
    sampler: TokenSampler | None,
    max_new_tokens: int,
    stop: str | Sequence[str] | None,
    stop_ids: Sequence[int] | None,
    ignore_eos: bool,
    stop_when: StopRule | None,
    noisy_prefill: bool,
    routes: np.ndarray | None,
    width: int,
    number: int = 0,
    tops: bool = True,
) -> Request:
    """Samples of one prompt, checked and resolved; see `jaxmoe.stream`.

    Args:
      key_data: uint32 [2], of the prompt's key.
      policy: for all samples, or a list with one for each.
      width: K of `routes`.
      number: the prompt's among several.
      tops: as of `Request`.
    """
    most, config = check_whole("max_new_tokens", max_new_tokens), model.config
    ids = check_prompt(model, prompt, most)
    policies = read_policies(model, policy, len(samples))
    noisy_prefill = check_flag("noisy_prefill", noisy_prefill)
    if noisy_prefill:
        for one in policies:
            require_one_pass(one, "noisy_prefill")
    stops, special = split_stops(model, stop)
    decode = model.require_tokenizer("a stop string").decode if stops else None
    ends = () if check_flag("ignore_eos", ignore_eos) else config.stop_ids
    own = ends if stop_ids is None else stop_ids
    own = check_stop_ids(own, config.vocab_size)
    if routes is not None:
        shape = (len(samples), None, config.num_layers, width)
        several = isinstance(policies[0], RouteEnsemble)
        one = policies[0].of_pass.width if several else width
        routes = check_routes(routes, shape, config.num_experts, one)
    if stop_when is not None and not callable(stop_when):
        raise TypeError(
            f"stop_when must be a function of an answer so far, found {stop_when!r}"
        )
    stop_ids = tuple(dict.fromkeys([*own, *special]))
    drawing = read_sampler(model, sampler)
    _check_least(drawing, most)
    return Request(
        prompt=ids,
        key_data=key_data,
        samples=tuple(samples),
        policies=policies,
        sampler=drawing,
        max_new_tokens=most,
        stop_ids=stop_ids,
        end_ids=tuple(dict.fromkeys([*config.stop_ids, *stop_ids])),
        stops=stops,
        decode=decode,
        stop_when=stop_when,
        number=number,
        grammar=_grammar(model, drawing, stop_ids),
        noisy_prefill=noisy_prefill,
        routes=routes,
        tops=tops,
    )


def read_policies(
    model: Model, policy: Policy | Sequence[Policy] | None, samples: int
) -> tuple[Policy, ...]:
    """A resolved policy for each of so many samples."""
    if policy is None or isinstance(policy, Policy):
        return (read_policy(model, policy),) * samples
    if not isinstance(policy, list | tuple):
        raise TypeError(
            f"policy must be a jaxmoe policy, or a list with one for each sample, "
            f"found {policy!r}"
        )
    if len(policy) != samples:
        raise ValueError(
            f"expected one policy or a list of {samples}, one for each sample, found "
            f"a list of {len(policy)}"
        )
    # One object for equal ones: they share their prompt's state.
    read = {id(one): read_policy(model, one) for one in policy}
    return tuple(read[id(one)] for one in policy)


def read_policy(model: Model, policy: Policy | None) -> Policy:
    """A policy resolved for the model; `ExpertSample()` for None."""
    policy = ExpertSample() if policy is None else policy
    return for_model(policy, model.config, several=True)


def read_sampler(model: Model, sampler: TokenSampler | None) -> TokenSampler:
    """A sampler resolved for the model; what its checkpoint asks for, for None."""
    if sampler is None:
        sampler = TokenSampler.from_config(model.config.generation)
    methods = (getattr(sampler, name, None) for name in ("resolve", "draw"))
    if not all(map(callable, methods)) or jax.tree_util.all_leaves([sampler]):
        raise TypeError(
            "sampler must be a TokenSampler such as TokenSampler(0.7), or a pytree of "
            f"one's own with resolve and draw, found {sampler!r}"
        )
    if isinstance(sampler, TokenSampler) and sampler.bad_words is not None:
        sampler = replace(sampler, bad_words=_word_tokens(model, sampler.bad_words))
    return sampler.resolve(model.config.vocab_size)


def _word_tokens(model: Model, words: Any) -> Any:
    """Bad words as token ids, those that are texts as vLLM encodes them.

    At the beginning of a text, and after a space where that is another first token.
    """
    if isinstance(words, str) or not isinstance(words, Sequence):
        return words  # `resolve` complains
    found: list[Any] = []
    for word in words:
        if not isinstance(word, str):
            found.append(word)
            continue
        encode = model.require_tokenizer("a bad word").encode
        bare = encode(word.lstrip(), add_special_tokens=False)
        spaced = encode(f" {word.lstrip()}", add_special_tokens=False)
        found.append(bare)
        if bare and len(spaced) == len(bare) and spaced[0] != bare[0]:
            found.append(spaced)
    return found


def _grammar(model: Model, sampler: Any, stop_ids: tuple[int, ...]) -> Grammar | None:
    """What answers of a resolved sampler follow."""
    if not isinstance(sampler, TokenSampler) or not sampler.guided:
        return None
    return Grammar(
        model.require_tokenizer("a grammar"),
        model.config.vocab_size,
        stop_ids,
        json_schema=sampler.json_schema,  # type: ignore[arg-type]  # text by now
        regex=sampler.regex,
    )


def _check_least(sampler: Any, most: int) -> None:
    least = getattr(sampler, "min_tokens", None) or 0
    if least > most:
        raise ValueError(
            f"min_tokens must be at most max_new_tokens = {most}, found {least}; "
            "lower it, or raise max_new_tokens"
        )


def read_record(
    model: Model, routes: bool, certainty: bool, top_logprobs: int, route_logprobs: bool
) -> Record:
    """What is to be recorded of each token."""
    return Record(
        routes=check_flag("return_routes", routes),
        certainty=check_flag("return_certainty", certainty),
        top_logprobs=check_top_logprobs(model, top_logprobs),
        route_logprobs=check_flag("return_route_logprobs", route_logprobs),
    )


def check_flag(name: str, value: Any) -> bool:
    """`value` as a bool, which it must be."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, found {value!r}")
    return bool(value)


def check_route_law(policy: Policy) -> None:
    """Refuses a resolved policy whose routes have no log-probability here."""
    policy = policy.of_pass
    name = type(policy).__name__
    if policy.width > MOST_DRAWN:
        raise ValueError(
            f"return_route_logprobs takes policies of at most {MOST_DRAWN} experts per "
            f"token (the exact sum has 2^k terms), found {policy.width} of {name}"
        )
    if not policy.has_log_probability:
        raise ValueError(
            f"return_route_logprobs needs {name}.log_probability, found none; write "
            "it, or leave return_route_logprobs out"
        )


def check_slots(model: Model, samples: int, slots: int | None) -> int:
    """Slots for so many samples: `slots`, or as many as is usual.

    Raises:
      ValueError: less than one, more than `MOST_SLOTS`, or not a multiple of the
        devices that divide them.
    """
    if slots is None:
        return default_slots(samples, model.layout)
    slots = check_whole("slots", slots, MOST_SLOTS)
    if model.layout is not None and model.layout.slots(slots) != slots:
        parts = model.layout.slots(1)
        raise ValueError(
            f"slots must be a multiple of the {parts} devices that divide them, found "
            f"{slots}; pass {model.layout.slots(slots)}"
        )
    return slots


def check_stop_ids(stop_ids: Sequence[int], vocab: int) -> list[int]:
    """Stop ids, each a token of the vocabulary."""
    ids = np.asarray(stop_ids)
    if ids.size and (ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer)):
        raise TypeError(f"stop_ids must be token ids, found {stop_ids!r}")
    wrong = ids[(ids < 0) | (ids >= vocab)]
    if len(wrong):
        raise ValueError(f"stop_ids must lie in 0..{vocab - 1}, found {wrong[0]}")
    return ids.tolist()


def split_stops(
    model: Model, stop: str | Sequence[str] | None
) -> tuple[tuple[str, ...], list[int]]:
    """Stop strings to look for in text, and ids of those that are special tokens.

    A special token such as `<|im_end|>` never shows in text: it stops as its id.
    """
    stops = check_stops(() if stop is None else stop)
    tokenizer = model.tokenizer
    ids = {s: None if tokenizer is None else tokenizer.token_to_id(s) for s in stops}
    special = tokenizer.special_ids if tokenizer is not None else frozenset()
    as_text = tuple(s for s in stops if ids[s] not in special)
    if tokenizer is not None:
        tokenizer.check_stops(as_text)
    return as_text, [i for i in ids.values() if i is not None and i in special]


def sample_indices(n: int, samples: Sequence[int] | None) -> tuple[int, ...]:
    """The sample indices to draw: 0..n-1, or those asked for."""
    if samples is None:
        if check_whole("n", n) > MOST_SAMPLES:
            raise ValueError(
                f"n must be at most {MOST_SAMPLES}, found {n}; draw them in several "
                "calls, with samples="
            )
        return tuple(range(n))
    if isinstance(samples, str) or not hasattr(samples, "__len__"):
        raise TypeError(f"samples must be a list of sample indices, found {samples!r}")
    if len(samples) > MOST_SAMPLES:
        raise ValueError(
            f"samples must be at most {MOST_SAMPLES} indices, found {len(samples)}; "
            "draw them in several calls"
        )
    odd = [i for i in samples if isinstance(i, bool) or not isinstance(i, _WHOLE)]
    if odd:
        raise TypeError(f"samples must be whole numbers, found {odd[0]!r}")
    chosen = tuple(int(i) for i in samples)
    wrong = [i for i in chosen if not 0 <= i < INDICES]
    if not chosen or wrong or len(set(chosen)) != len(chosen):
        found = wrong[0] if wrong else f"{len(chosen)}, {len(set(chosen))} of them"
        raise ValueError(
            f"samples must be distinct sample indices in 0..{INDICES - 1}, at "
            f"least one, found {found}{'' if wrong else ' distinct'}"
        )
    return chosen


def check_whole(name: str, value: Any, most: int | None = None) -> int:
    """`value` as an int of at least 1, and at most `most`."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < 1:
        raise ValueError(
            f"{name} must be a whole number of at least 1, found {value!r}"
        )
    if most is not None and value > most:
        raise ValueError(
            f"{name} must be at most {most}, found {value}; what does not fit at once "
            "waits, so pass fewer"
        )
    return int(value)


def check_top_logprobs(model: Model, count: Any) -> int:
    """How many of the most likely tokens to return, 0 for none."""
    whole = isinstance(count, int | np.integer) and not isinstance(count, bool)
    vocab = model.config.vocab_size
    if not whole or not 0 <= count <= vocab:
        raise ValueError(
            f"top_logprobs must be a whole number in 0..{vocab} (the vocabulary), "
            f"found {count!r}"
        )
    return int(count)


def check_routes(
    routes: Any, shape: tuple[int | None, ...], experts: int, width: int | None = None
) -> np.ndarray:
    """Routes checked against a shape (None matches any size) and the experts.

    width: places of one pass, where several lie side by side.
    """
    array = np.asarray(routes)
    fits = array.ndim == len(shape) and all(
        want in (None, have) for want, have in zip(shape, array.shape, strict=True)
    )
    if not fits or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"routes must be integers of shape {shape} (None: any), found "
            f"{array.dtype} of {array.shape}; were they recorded with this policy?"
        )
    if array.size and not -1 <= array.min() <= array.max() < experts:
        raise ValueError(
            f"routes must name experts 0..{experts - 1} or -1, found "
            f"{array.min()}..{array.max()}"
        )
    each = width or array.shape[-1]
    ordered = np.sort(array.reshape(*array.shape[:-1], -1, each), axis=-1)
    if ((ordered[..., 1:] == ordered[..., :-1]) & (ordered[..., 1:] >= 0)).any():
        raise ValueError("routes must name an expert once for a token, found one twice")
    return array.astype(np.int16)
