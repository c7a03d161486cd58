"""Reads a `ModelConfig` from a Hugging Face `config.json`.

Each attribute of the file is honoured as transformers honours it, stands in
`IGNORED` (it changes no answer), or has the one value in `NEUTRAL` that this code
implements. Anything else refuses, all of it in one error. Absent attributes take
transformers' defaults, save for the shapes, which must be stated. Another family
adds a parser to `FAMILIES`.
"""

import json
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from jaxmoe.config import (
    AttentionConfig,
    DenseConfig,
    GenerationConfig,
    LayerConfig,
    ModelConfig,
    MoEConfig,
    RopeConfig,
)
from jaxmoe.families.attributes import (
    COUNT,
    FLAG,
    INDICES,
    MASS,
    NAMES,
    POSITIVE,
    REAL,
    SHARE,
    TEXT,
    TOKEN,
    TOKENS,
    WEIGHT,
    Attributes,
    Report,
    quote,
)
from jaxmoe.families.rope import context_length, read_rope

IGNORED = {
    "training only": "attention_dropout initializer_range router_aux_loss_coef "
    "output_router_logits gradient_checkpointing",
    "what a call returns and how torch runs it": "output_attentions "
    "output_hidden_states return_dict use_return_dict use_cache torchscript "
    "tf_legacy_loss use_bfloat16 attn_implementation experts_implementation "
    "_attn_implementation_autoset chunk_size_feed_forward",
    "classification heads": "id2label label2id num_labels problem_type "
    "finetuning_task task_specific_params",
    "the weights' files state their own types": "dtype torch_dtype",
    "names": "model_type transformers_version _name_or_path name_or_path "
    "_commit_hash tokenizer_class unsloth_fixed unsloth_version",
    "the tokenizer's business": "bos_token_id sep_token_id",
    "not read by transformers' Qwen3-MoE": "max_window_layers",
}
"""Names of the attributes that change no answer, by the reason why."""

NEUTRAL: dict[str, Any] = {
    "add_cross_attention": False,
    "is_decoder": False,
    "is_encoder_decoder": False,
    "partial_rotary_factor": 1.0,
    "pruned_heads": {},
    "qkv_bias": False,
    "shared_expert_intermediate_size": 0,
    "tie_encoder_decoder": False,
    "use_qk_norm": True,
}
"""Attributes accepted at this value, which is what the model does anyway."""

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
"""As `IGNORED`, for `generation_config.json`."""

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
    "repetition_penalty": 1.0,
    "suppress_tokens": [],
    "token_healing": False,
    "typical_p": 1.0,
}
"""As `NEUTRAL`, for `generation_config.json`; other values warn."""

ARCHITECTURE = "Qwen3MoeForCausalLM"
SAMPLING = ("do_sample", "temperature", "top_k", "top_p", "min_p")


def _names(table: dict[str, str]) -> set[str]:
    return set(" ".join(table.values()).split())


def _warn(text: str):
    warnings.warn(text, UserWarning, stacklevel=2)


# -- generation ----------------------------------------------------------------


def _generation(g: Attributes) -> GenerationConfig:
    """Sampling defaults, with the meaning that transformers' `generate` gives them.

    `do_sample` absent or false is greedy; a sampling file without `top_k` means 50;
    0 switches `top_k` off. A file that speaks of none of them asks for nothing.
    """
    silent = all(g.left.get(name) is None for name in SAMPLING)
    sample = g.take("do_sample", FLAG, False, False)
    temperature = g.take("temperature", WEIGHT, 1.0, 1.0)
    top_k = g.take("top_k", COUNT, 50, 50)
    top_p = g.take("top_p", MASS, 1.0, 1.0)
    min_p = g.take("min_p", SHARE, 0.0, 0.0)
    if unread := g.rest(_names(GENERATION_IGNORED), GENERATION_NEUTRAL):
        _warn(
            f"generation settings without effect here: {'; '.join(unread)}; "
            "answers may differ from those of transformers' generate"
        )
    if silent:
        return GenerationConfig()
    if not sample:
        return GenerationConfig(temperature=0.0)
    return GenerationConfig(
        temperature,
        top_k or None,
        top_p if top_p < 1 else None,
        min_p or None,
    )


def _tokens(a: Attributes, g: Attributes, vocab_size: int) -> tuple[tuple, int]:
    """Stop ids and pad id; `generation_config.json` goes before `config.json`."""
    outer = a.take("eos_token_id", TOKENS, None, None)
    eos = g.take("eos_token_id", TOKENS, outer, outer)
    outer = a.take("pad_token_id", TOKEN, None, None)
    pad = g.take("pad_token_id", TOKEN, outer, outer)
    ids = [] if eos is None else eos if isinstance(eos, list) else [eos]
    named = dict.fromkeys(ids if pad is None else [*ids, pad])
    outside = [i for i in named if not 0 <= i < vocab_size]
    if outside and not a.report.missing:
        _warn(
            f"eos_token_id or pad_token_id {outside} left out: outside the "
            f"vocabulary of {vocab_size}"
        )
    stop = tuple(i for i in dict.fromkeys(ids) if i not in outside)
    if pad is None or pad in outside:
        pad = stop[0] if stop else 0
    return stop, pad


# -- families ------------------------------------------------------------------


def _qwen3_moe(a: Attributes, g: Attributes) -> ModelConfig:
    vocab_size = a.take("vocab_size", POSITIVE)
    d_model = a.take("hidden_size", POSITIVE)
    max_length = a.take("max_position_embeddings", POSITIVE, 32768)
    rope = read_rope(a, max_length)
    mixer = _qwen3_attention(a, d_model, rope)
    feed_forwards = _qwen3_feed_forwards(a)
    norm_eps = a.take("rms_norm_eps", REAL, 1e-6)
    tied = a.take("tie_word_embeddings", FLAG, False)
    stop_ids, pad_id = _tokens(a, g, vocab_size)
    generation = _generation(g)
    _qwen3_checks(a, windowed=mixer.keywords["window"] is not None)
    a.report.raise_if_any("qwen3_moe")
    return ModelConfig(
        family="qwen3_moe",
        vocab_size=vocab_size,
        d_model=d_model,
        layers=tuple(LayerConfig(mixer(), make()) for make in feed_forwards),
        norm_eps=norm_eps,
        tie_embeddings=tied,
        context_length=context_length(rope, max_length),
        stop_ids=stop_ids,
        pad_id=pad_id,
        generation=generation,
    )


def _qwen3_attention(
    a: Attributes, d_model: int, rope: RopeConfig
) -> partial[AttentionConfig]:
    """The mixer of every layer, built once the whole file is known to be good."""
    heads = a.take("num_attention_heads", POSITIVE)
    kv_heads = a.take("num_key_value_heads", POSITIVE)
    head_dim = a.take("head_dim", POSITIVE, d_model // heads, d_model // heads)
    window = a.take("sliding_window", COUNT, 4096, None)
    windowed = a.take("use_sliding_window", FLAG, False)
    if windowed and window == 0:
        a.wrong("sliding_window", 0, "a positive integer or null")
    return partial(
        AttentionConfig,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        rope=rope,
        bias=a.take("attention_bias", FLAG, False),
        window=window if windowed else None,
    )


def _qwen3_feed_forwards(
    a: Attributes,
) -> list[partial[MoEConfig] | partial[DenseConfig]]:
    """One per layer; dense where `mlp_only_layers` or `decoder_sparse_step` say so."""
    num_layers = a.take("num_hidden_layers", POSITIVE)
    num_experts = _num_experts(a)
    step = a.take("decoder_sparse_step", POSITIVE, 1)
    dense = set(a.take("mlp_only_layers", INDICES, [], []))
    dense |= {i for i in range(num_layers) if not num_experts or (i + 1) % step}
    needs_dense = any(i in dense for i in range(num_layers)) and num_experts is not None
    # Released configs state it even where no layer uses it.
    missing = {} if needs_dense else {"default": 0, "null": 0}
    mlp = partial(DenseConfig, a.take("intermediate_size", POSITIVE, **missing))
    moe = partial(
        MoEConfig,
        num_experts=num_experts or 0,
        experts_per_token=a.take("num_experts_per_tok", POSITIVE),
        hidden=a.take("moe_intermediate_size", POSITIVE),
        normalise=a.take("norm_topk_prob", FLAG, False),
    )
    return [mlp if i in dense else moe for i in range(num_layers)]


def _num_experts(a: Attributes) -> int | None:
    """`num_experts`, or `num_local_experts` as transformers 5 writes it."""
    old = a.take("num_experts", COUNT, None)
    new = a.take("num_local_experts", COUNT, None)
    if old is None and new is None:
        a.report.missing.append("num_experts")
    if None not in (old, new) and old != new:
        a.wrong("num_experts", old, f"the same as num_local_experts = {new}")
    return old if new is None else new


def _qwen3_checks(a: Attributes, windowed: bool):
    """Attributes that say what the code does anyway, or refuse."""
    if (act := a.take("hidden_act", TEXT, "silu")) != "silu":
        a.wrong("hidden_act", act, '"silu"')
    names = a.take("architectures", NAMES, [ARCHITECTURE], [ARCHITECTURE])
    if ARCHITECTURE not in names:
        a.wrong("architectures", names, quote([ARCHITECTURE]))
    kind = "sliding_attention" if windowed else "full_attention"
    kinds = a.take("layer_types", NAMES, [], [])
    if any(k != kind for k in kinds):
        a.wrong(
            "layer_types", kinds, f'"{kind}" throughout, as use_sliding_window says'
        )
    legacy = {*SAMPLING, *GENERATION_NEUTRAL, *_names(GENERATION_IGNORED)}
    a.report.unsupported += a.rest(_names(IGNORED) | legacy, NEUTRAL)


FAMILIES: dict[str, Callable[[Attributes, Attributes], ModelConfig]] = {
    "qwen3_moe": _qwen3_moe,
}
"""model_type -> parser of config.json and generation_config.json."""


def from_hf(
    config: dict[str, Any], generation: dict[str, Any] | None = None
) -> ModelConfig:
    """The `ModelConfig` that a Hugging Face configuration describes.

    Args:
      config: the object in `config.json`.
      generation: the object in `generation_config.json`. Where there is none,
        generation settings in `config.json` count, as they do in transformers.

    Raises:
      ValueError: an unknown `model_type`, or everything in `config` that is missing,
        of the wrong type, or not implemented, in one message.

    Warns:
      UserWarning: generation settings that change answers and have no effect here;
        token ids outside the vocabulary; rope settings that the rope type ignores.
    """
    family = config.get("model_type")
    if not isinstance(family, str) or family not in FAMILIES:
        raise ValueError(
            f"model_type in config.json must be one of {', '.join(FAMILIES)}, found "
            f"{family!r}; this package runs no other architecture"
        )
    if generation is None:
        names = (*SAMPLING, *GENERATION_NEUTRAL)
        generation = {name: config[name] for name in names if name in config}
    report = Report()
    return FAMILIES[family](
        Attributes(config, report),
        Attributes(generation, report, "generation_config "),
    )


def load_hf_config(directory: Path) -> ModelConfig:
    """Reads `config.json`, and `generation_config.json` if it is there.

    Raises:
      FileNotFoundError: no such directory, or no `config.json` in it.
      ValueError: a file that is not a JSON object, or as `from_hf`; names the path.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise FileNotFoundError(
            f"expected a directory with config.json, found none at {directory}"
        )
    config = _read_object(directory / "config.json")
    path = directory / "generation_config.json"
    generation = _read_object(path) if path.exists() else None
    try:
        return from_hf(config, generation)
    except ValueError as error:
        raise ValueError(f"{directory}: {error}") from None


def _read_object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(
            f"expected {path.name} in {path.parent}, found none; point at the "
            "directory that holds the Hugging Face checkpoint"
        )
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is not readable as JSON ({error}); download it again"
        ) from None
    if not isinstance(value, dict):
        raise ValueError(
            f"{path} must hold a JSON object, found {type(value).__name__}; download "
            "it again"
        )
    return value
