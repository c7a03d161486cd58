"""Attributes of config.json that no parser reads: harmless ones, and the others."""

from collections.abc import Mapping
from typing import Any

from jaxmoe.families.attributes import Attributes
from jaxmoe.families.generation import GENERATION_ATTRIBUTES

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
}
"""Names of the attributes that change no answer, by the reason why."""

NEUTRAL: dict[str, Any] = {
    "add_cross_attention": False,
    "is_decoder": False,
    "is_encoder_decoder": False,
    "partial_rotary_factor": 1.0,
    "pruned_heads": {},
    "tie_encoder_decoder": False,
}
"""Attributes accepted at this value, which is what every model here does anyway."""


QUANTISED = ("quantization_config", "compression_config")
"""Attributes of quantised models; a family that reads one has taken it."""


def refuse_unread(
    a: Attributes,
    ignored: Mapping[str, str] | None = None,
    neutral: Mapping[str, Any] | None = None,
):
    """Notes every attribute that was not taken and may change the answers.

    Old files have generation settings in config.json, which `from_hf` reads.

    Args:
      a: what is left of config.json.
      ignored: the family's own additions to `IGNORED`.
      neutral: the family's own additions to `NEUTRAL`.
    """
    for name in QUANTISED:
        if (method := a.left.pop(name, None)) is not None:
            if isinstance(method, dict):
                method = method.get("quant_method", method.get("format"))
            said = str(method or "of an unknown method")[:80]
            a.report.quantised.append(
                f"config.json has {name} ({said}): this is "
                "a quantised model of a kind that is not read here (FP8 is with a "
                "weight_block_size); take the release of this model in bfloat16 or "
                "float32, or, if the weights are not quantised, leave"
                f" the stale entry out (--ignore {name}, ignore=[{name!r}])"
            )
    neutral = {**NEUTRAL, **(neutral or {})}
    a.report.unsupported += a.rest(harmless(ignored or {}), neutral)


def harmless(more: Mapping[str, str]) -> set[str]:
    """Names that change no answer, or are read elsewhere; `more`: a family's own."""
    names = " ".join([*IGNORED.values(), *more.values()]).split()
    return {*names, *GENERATION_ATTRIBUTES}
