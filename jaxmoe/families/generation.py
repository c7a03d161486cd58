"""Reads generation_config.json: sampling defaults, stop ids and pad id."""

import warnings
from typing import Any

from jaxmoe.config import GenerationConfig
from jaxmoe.families.attributes import (
    FLAG,
    MASS,
    REAL,
    SHARE,
    TOKEN,
    TOKENS,
    WEIGHT,
    Attributes,
    Kind,
    quote,
)

SAMPLING = ("do_sample", "temperature", "top_k", "top_p", "min_p")
"""The settings of sampling that are read."""

PENALTY = "repetition_penalty"
"""Read too; it counts for greedy answers as well."""

GENERATION_IGNORED = {
    "lengths and number of answers: the caller's": "max_length max_new_tokens "
    "max_time num_return_sequences",
    "what a call returns": "output_attentions output_hidden_states output_scores "
    "output_logits return_dict_in_generate",
    "how it is computed, not what": "use_cache cache_implementation cache_config "
    "max_cache_len compile_config disable_compile continuous_batching_config "
    "prefill_chunk_size low_memory use_mtp is_assistant num_assistant_tokens "
    "num_assistant_tokens_schedule assistant_confidence_threshold "
    "prompt_lookup_num_tokens max_matching_ngram_size assistant_early_exit "
    "assistant_lookbehind target_lookbehind assistant_ensemble_weight "
    "speculation_type",
    "names": "transformers_version _from_model_config _commit_hash",
    "the tokenizer's business": "bos_token_id decoder_start_token_id",
}
"""Names of the settings that change no answer, by the reason why."""

GENERATION_NEUTRAL: dict[str, Any] = {
    "begin_suppress_tokens": [],
    "diversity_penalty": 0.0,
    "early_stopping": False,
    "encoder_no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "guidance_scale": 1.0,
    "length_penalty": 1.0,
    "min_length": 0,
    "min_new_tokens": 0,
    "no_repeat_ngram_size": 0,
    "num_beam_groups": 1,
    "num_beams": 1,
    "penalty_alpha": 0.0,
    "remove_invalid_values": False,
    "renormalize_logits": False,
    "suppress_tokens": [],
    "token_healing": False,
    "typical_p": 1.0,
}
"""Settings accepted at this value; other values warn."""

_IGNORED_NAMES = set(" ".join(GENERATION_IGNORED.values()).split())

GENERATION_SETTINGS = (*SAMPLING, PENALTY, *GENERATION_NEUTRAL)
"""The settings that count where an old file has them in config.json."""

GENERATION_ATTRIBUTES = {*GENERATION_SETTINGS, *_IGNORED_NAMES}
"""Every setting known here."""


FILE = "generation_config.json"
"""Its name; an older model has its settings in config.json (`Attributes.file`)."""


def _warn(text: str):
    warnings.warn(text, UserWarning, stacklevel=3)


def take_default(g: Attributes, name: str, kind: Kind, default: Any) -> Any:
    """The value of `name`, or `default` where it is absent, null or not understood.

    The file only sets defaults, which a caller may override: so what is wrong in it is
    said and dropped, where the same in config.json would refuse the model.
    """
    value = g.left.pop(name, None)
    if value is None:
        return default
    if not kind.holds(value):
        _warn(
            f"{name} = {quote(value)} in {g.file} is dropped: expected {kind.wanted}; "
            "correct the file, or pass a sampler of your own"
        )
        return default
    return float(value) if isinstance(kind.filler, float) else value


def _is_top_k(value: Any) -> bool:
    whole = isinstance(value, float) and value.is_integer()
    return not isinstance(value, bool) and (isinstance(value, int) or whole)


TOP_K = Kind(
    "an integer: a number of tokens, or 0 or -1 for all",
    lambda x: _is_top_k(x) and -1 <= x < 2**31,
    0,
)


def read_generation(g: Attributes) -> GenerationConfig:
    """Sampling defaults, with the meaning that transformers' `generate` gives them.

    `do_sample` absent or false is greedy; a sampling file without `top_k` means 50;
    0 and -1 switch `top_k` off. A file that speaks of none of them asks for nothing.
    A `repetition_penalty` counts whatever else the file says.

    Warns:
      UserWarning: a value that is not understood, and dropped; settings without effect
        here; a sampler that is greedy because `do_sample` is not there.
    """
    stated = [name for name in SAMPLING if g.left.get(name) is not None]
    sample = take_default(g, "do_sample", FLAG, None)
    temperature = take_default(g, "temperature", WEIGHT, 1.0)
    top_k = int(take_default(g, "top_k", TOP_K, 50))
    top_p = take_default(g, "top_p", MASS, 1.0)
    min_p = take_default(g, "min_p", SHARE, 0.0)
    penalty = take_default(g, PENALTY, REAL, 1.0)
    if unread := g.rest(_IGNORED_NAMES, GENERATION_NEUTRAL):
        _warn(
            f"generation settings without effect here: {'; '.join(unread)}; "
            "answers may differ from those of transformers' generate"
        )
    asked = None if penalty == 1 else penalty
    if not stated:
        return GenerationConfig(repetition_penalty=asked)
    if sample is None:
        _warn(
            f"{g.file} states {', '.join(stated)} but no usable do_sample: answers are "
            "greedy by default, as with transformers' generate; pass a sampler to "
            "sample, or set do_sample in the file"
        )
    if not sample:
        return GenerationConfig(temperature=0.0, repetition_penalty=asked)
    return GenerationConfig(
        temperature,
        top_k if top_k > 0 else None,
        top_p if top_p < 1 else None,
        min_p or None,
        repetition_penalty=asked,
    )


def read_token_ids(
    a: Attributes,
    g: Attributes,
    vocab_size: int,
    *,
    eos: int | None = None,
    pad: int | None = None,
) -> tuple[tuple, int]:
    """Stop ids and pad id; `generation_config.json` goes before `config.json`.

    eos, pad: what the family's configs mean where they are silent.
    """
    eos_file, found = _token_default(a, g, "eos_token_id", TOKENS, eos)
    pad_file, pad_id = _token_default(a, g, "pad_token_id", TOKEN, pad)
    ids = [] if found is None else found if isinstance(found, list) else [found]
    named = [(i, eos_file) for i in ids]
    named += [] if pad_id is None else [(pad_id, pad_file)]
    far = dict((i, file) for i, file in named if not 0 <= i < vocab_size)
    if far and not (a.report.missing or a.report.wrong):
        _warn(
            f"eos_token_id or pad_token_id {quote(list(far))} in "
            f"{' and '.join(dict.fromkeys(far.values()))} left out: outside the "
            f"vocabulary of {vocab_size}"
        )
    stop = tuple(i for i in dict.fromkeys(ids) if i not in far)
    if pad_id is None or pad_id in far:
        pad_id = stop[0] if stop else 0
    return stop, pad_id


def _token_default(
    a: Attributes, g: Attributes, name: str, kind: Kind, default: Any
) -> tuple[str, Any]:
    """The file that states a token id, and the id."""
    outer = a.take(name, kind, default, None)
    found = take_default(g, name, kind, None)
    return (a.file, outer) if found is None else (g.file, found)
