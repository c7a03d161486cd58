"""Makes the goldens beside this file: python tests/golden/make.py (extra `parity`).

Each is a small Qwen3-MoE checkpoint as transformers writes it, and `expected.npz`, what
transformers computes from it: logits, chosen experts, greedy tokens and their
log-probabilities for one prompt. Tests need neither torch nor transformers to use them.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

HERE = Path(__file__).resolve().parent
PROMPT, NEW = 20, 24

COMMON = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "moe_intermediate_size": 16,
    "num_experts": 12,
    "num_experts_per_tok": 4,
    "max_position_embeddings": 128,
    "initializer_range": 0.25,
}
GOLDENS = {
    # The released layout: a 2-D tensor for each expert, all layers with experts.
    "plain": {**COMMON, "num_hidden_layers": 2, "norm_topk_prob": True},
    # What is rarely set, and layer 0 in the fused layout with 3-D tensors.
    "unusual": {
        **COMMON,
        "num_hidden_layers": 3,
        "norm_topk_prob": False,
        "mlp_only_layers": [1],
        "attention_bias": True,
        "tie_word_embeddings": True,
        "use_sliding_window": True,
        "sliding_window": 16,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 5000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    },
}


def fuse_layer(directory: Path, layer: int, experts: int) -> None:
    """Rewrites one layer's experts as `gate_up_proj` and `down_proj` of 3 axes."""
    file = directory / "model.safetensors"
    tensors = load_file(file)
    root = f"model.layers.{layer}.mlp.experts."
    parts = {
        part: torch.stack(
            [tensors.pop(f"{root}{e}.{part}_proj.weight") for e in range(experts)]
        )
        for part in ("gate", "up", "down")
    }
    tensors[f"{root}gate_up_proj"] = torch.cat([parts["gate"], parts["up"]], dim=1)
    tensors[f"{root}down_proj"] = parts["down"].contiguous()
    save_file(tensors, file, metadata={"format": "pt"})


def expected(model: Qwen3MoeForCausalLM, prompt: torch.Tensor) -> dict[str, np.ndarray]:
    """What transformers computes for `prompt` [1, T]."""
    with torch.no_grad():
        answer = model.generate(
            prompt, max_new_tokens=NEW, do_sample=False, eos_token_id=None
        )
        run = model(answer, output_router_logits=True)
    chosen = model.config.num_experts_per_tok
    routes = [torch.topk(logits, chosen).indices for logits in run.router_logits]
    logprobs = torch.log_softmax(run.logits[0], dim=-1)
    new = answer[0, PROMPT:]
    return {
        "sequence": answer[0].numpy().astype(np.int32),
        "prompt_length": np.int32(PROMPT),
        "logits": run.logits[0].numpy(),
        "routes": torch.stack(routes, dim=1).sort(dim=-1).values.numpy(),
        "logprobs": logprobs[PROMPT - 1 : -1].gather(1, new[:, None])[:, 0].numpy(),
    }


def make(name: str, settings: dict) -> None:
    """Writes one golden."""
    directory = HERE / name
    shutil.rmtree(directory, ignore_errors=True)
    torch.manual_seed(0)
    config = Qwen3MoeConfig(**settings)
    config._attn_implementation = "eager"
    model = Qwen3MoeForCausalLM(config).eval()
    prompt = torch.randint(0, settings["vocab_size"], (1, PROMPT))
    arrays = expected(model, prompt)
    model.save_pretrained(directory)
    if name == "unusual":
        fuse_layer(directory, 0, settings["num_experts"])
    np.savez_compressed(directory / "expected.npz", **arrays)
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    (directory / "versions.json").write_text(json.dumps(versions) + "\n")


if __name__ == "__main__":
    for golden, settings in GOLDENS.items():
        make(golden, settings)
