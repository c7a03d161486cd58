"""Process-reward models on a dense Qwen2, such as Qwen2.5-Math-PRM-7B.

Each step of an answer is followed by a token of its own; there the head says how likely
the step is right (arXiv 2501.07301; the model card says how an answer is laid out).
"""

from dataclasses import replace
from typing import Any

from jaxmoe.config import ModelConfig, ScorerConfig
from jaxmoe.families.attributes import Attributes
from jaxmoe.families.base import Family, TensorRule
from jaxmoe.families.common_config import check_rest
from jaxmoe.families.common_tensors import BOOKKEEPING, DENSE, FRAME, PROJECTIONS
from jaxmoe.families.qwen_dense import read_qwen2_layers

ARCHITECTURE = "Qwen2ForProcessRewardModel"
LABELS = 2
"""Wrong and right. The class of the model fixes it, whatever `num_labels` says."""


def read_qwen2_prm(a: Attributes, g: Attributes) -> ModelConfig:
    """The model that config.json `a` and generation_config.json `g` describe."""
    make = read_qwen2_layers(a, g)
    check_rest(
        a,
        "qwen2_prm",
        ARCHITECTURE,
        ignored={"where its own code lies": "auto_map"},
        neutral={"use_mrope": False},
    )
    scorer = ScorerConfig(
        LABELS,
        "<extra_0>",
        "Please reason step by step, and put your final answer within \\boxed{}.",
    )
    return replace(make("qwen2_prm"), scorer=scorer)


SCORE = (
    TensorRule("score.0.weight", "score.up"),
    TensorRule("score.0.bias", "score.up_bias"),
    TensorRule("score.2.weight", "score.down"),
    TensorRule("score.2.bias", "score.down_bias"),
)
"""The head's two layers; between them is the ReLU."""

_PRM_7B: dict[str, Any] = {
    "architectures": [ARCHITECTURE],
    "model_type": "qwen2",
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "hidden_act": "silu",
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "max_position_embeddings": 4096,
    "max_window_layers": 28,
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "sliding_window": 131072,
    "tie_word_embeddings": False,
    "use_sliding_window": False,
    "vocab_size": 152064,
}
_TEST = {
    "architectures": [ARCHITECTURE],
    "model_type": "qwen2",
    "vocab_size": 97,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "intermediate_size": 40,
    "max_position_embeddings": 256,
}

QWEN2_PRM = Family(
    name="qwen2_prm",
    model_type="qwen2",
    architectures=(ARCHITECTURE,),
    read_config=read_qwen2_prm,
    tensors=(*FRAME, *PROJECTIONS, *DENSE, *SCORE),
    ignored=BOOKKEEPING,
    # Some were saved with the head over the vocabulary that they were made from.
    beyond=("lm_head.",),
    scores=True,
    released={"qwen2.5-math-prm-7b": _PRM_7B},
    test_configs=(_TEST,),
)
