"""Pins what the models compute, to the bit, before code is moved.

    python tests/golden/pin.py record DIR      before
    python tests/golden/pin.py compare DIR     after, on the same machine

Answers (tokens, log-probabilities, routes) and logits of the demo and of six tiny
models, on one device and on meshes of 2x1 and 1x2 virtual ones, and the size of every
lowered program. Bits depend on the processor and on the versions, so a record is made
where it is compared, and is not kept here. Only public names are used, so that the same
file runs before and after.
"""

import argparse
import collections
import json
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np
from safetensors.numpy import save_file

import jaxmoe
from convert import convert

COMMON = {
    "model_type": "qwen3_moe",
    "architectures": ["Qwen3MoeForCausalLM"],
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "moe_intermediate_size": 16,
    "num_experts": 16,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 4,
    "norm_topk_prob": True,
    "max_position_embeddings": 2048,
    "rope_theta": 10000.0,
    "eos_token_id": 7,
}
TINY = {
    "homogeneous": COMMON,
    "dense-first": COMMON | {"mlp_only_layers": [0]},
    "alternating": COMMON | {"decoder_sparse_step": 2, "num_hidden_layers": 6},
    "unnormalised": COMMON
    | {"norm_topk_prob": False, "tie_word_embeddings": True, "attention_bias": True},
    "windowed": COMMON | {"use_sliding_window": True, "sliding_window": 24},
    "yarn": COMMON
    | {
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 32,
        }
    },
}
MESHES = {"one": None, "2x1": (2, 1), "1x2": (1, 2)}


def tensors(config: dict) -> dict[str, np.ndarray]:
    """Random weights that make sharp routers and varied tokens."""
    random = np.random.default_rng(0)
    d, v = config["hidden_size"], config["vocab_size"]
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    a, f, m = (
        config[k] for k in ("head_dim", "moe_intermediate_size", "intermediate_size")
    )
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (v, d)}
    shapes["model.norm.weight"] = (d,)
    if not config.get("tie_word_embeddings"):
        shapes["lm_head.weight"] = (v, d)
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        shapes[layer + "input_layernorm.weight"] = (d,)
        shapes[layer + "post_attention_layernorm.weight"] = (d,)
        attention = layer + "self_attn."
        for name, rows in (("q", heads * a), ("k", groups * a), ("v", groups * a)):
            shapes[f"{attention}{name}_proj.weight"] = (rows, d)
            if config.get("attention_bias"):
                shapes[f"{attention}{name}_proj.bias"] = (rows,)
        shapes[attention + "o_proj.weight"] = (d, heads * a)
        if config.get("attention_bias"):
            shapes[attention + "o_proj.bias"] = (d,)
        shapes[attention + "q_norm.weight"] = shapes[attention + "k_norm.weight"] = (a,)
        sparse = (i + 1) % config.get("decoder_sparse_step", 1) == 0
        if sparse and i not in config.get("mlp_only_layers", []):
            shapes[layer + "mlp.gate.weight"] = (config["num_experts"], d)
            for e in range(config["num_experts"]):
                expert = f"{layer}mlp.experts.{e}."
                shapes[expert + "gate_proj.weight"] = (f, d)
                shapes[expert + "up_proj.weight"] = (f, d)
                shapes[expert + "down_proj.weight"] = (d, f)
        else:
            shapes[layer + "mlp.gate_proj.weight"] = (m, d)
            shapes[layer + "mlp.up_proj.weight"] = (m, d)
            shapes[layer + "mlp.down_proj.weight"] = (d, m)
    import ml_dtypes

    found = {}
    for name, shape in shapes.items():
        values = 0.25 * random.normal(size=shape)
        values = 1 + values if len(shape) == 1 and "norm" in name else values
        values = values * 4 if name == "lm_head.weight" else values
        found[name] = values.astype(ml_dtypes.bfloat16)
    return found


def checkpoint(name: str, scratch: Path) -> str:
    """A converted tiny model."""
    source, out = scratch / f"{name}-hf", scratch / name
    source.mkdir()
    (source / "config.json").write_text(json.dumps(TINY[name]))
    save_file(tensors(TINY[name]), source / "model.safetensors")
    convert(source, out)
    return str(out)


def draw(model: jaxmoe.Model, *, whole: bool) -> dict[str, np.ndarray]:
    """What the pin keeps of one model on one mesh; `whole`: of every kind of call."""
    key, vocab = jax.random.key(3), model.config.vocab_size
    random = np.random.default_rng(1)
    prompts = [random.integers(8, vocab, size) for size in (5, 150)]
    shared = {"key": key, "slots": 8, "stop_ids": ()}
    hot = shared | {"sampler": jaxmoe.TokenSampler(0.9, top_k=20, top_p=0.95)}
    runs: dict[str, list[jaxmoe.Samples]] = {
        "sample": jaxmoe.sample(
            model, prompts, n=5, max_new_tokens=24, return_routes=True, **hot
        )
    }
    runs |= (
        {}
        if not whole
        else {
            "certain": jaxmoe.sample(
                model,
                prompts[:1],
                n=3,
                max_new_tokens=9,
                return_certainty=True,
                **shared,
            ),
            "greedy": jaxmoe.sample(
                model,
                prompts[1:2],
                policy=jaxmoe.TopK(),
                sampler=jaxmoe.TokenSampler(0),
                max_new_tokens=16,
                **shared,
            ),
            "noisy": jaxmoe.sample(
                model, prompts[:2], n=2, max_new_tokens=8, noisy_prefill=True, **hot
            ),
            "gumbel": jaxmoe.sample(
                model, prompts[:1], n=2, policy=jaxmoe.GumbelTopK(0.5), **hot
            ),
            "adaptive": jaxmoe.sample(
                model, prompts[:1], n=2, policy=jaxmoe.AdaptiveHead(0.4), **hot
            ),
        }
    )
    kept: dict[str, np.ndarray] = {}
    for name, results in runs.items():
        for j, result in enumerate(results):
            for field in ("tokens", "logprobs", "routes", "certainties"):
                value = getattr(result, field)
                if value is not None:
                    kept[f"{name}.{j}.{field}"] = value
    for j, prompt in enumerate(prompts[-1:]):
        logits, routes = jaxmoe.forward(model, prompt, return_routes=True)
        kept[f"forward.{j}.logits"], kept[f"forward.{j}.routes"] = logits, routes
    return {name: np.asarray(value) for name, value in kept.items()}


def pin() -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """(arrays, lowered bytes of each program) of every model on every mesh."""
    arrays: dict[str, np.ndarray] = {}
    sizes: dict[str, int] = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        jax.config.update("jax_dump_ir_to", str(scratch / "ir"))
        jax.config.update("jax_dump_ir_modes", "stablehlo")
        for name in ["demo", *TINY]:
            path = name if name == "demo" else checkpoint(name, scratch)
            for title, shape in MESHES.items():
                mesh = (
                    None if shape is None else jax.make_mesh(shape, ("data", "model"))
                )
                model = jaxmoe.load(path, mesh=mesh)
                whole = mesh is None and name in ("demo", "dense-first")
                seen = set((scratch / "ir").glob("*.mlir"))
                for key, value in draw(model, whole=whole).items():
                    arrays[f"{name}.{title}.{key}"] = value
                for file in set((scratch / "ir").glob("*.mlir")) - seen:
                    program = file.name.split("_jit_")[-1].split("_compile")[0]
                    sizes[f"{name}.{title}.{program}"] += file.stat().st_size
                print(name, title, flush=True)
    return arrays, dict(sizes)


def differences(old: dict[str, np.ndarray], new: dict[str, np.ndarray]) -> list[str]:
    """A line for every array that is not equal to the bit."""
    lines = [f"{name}: only in one" for name in sorted(old.keys() ^ new.keys())]
    for name in sorted(old.keys() & new.keys()):
        one, other = old[name], new[name]
        if one.shape != other.shape or one.dtype != other.dtype:
            lines.append(
                f"{name}: {one.dtype}{one.shape} was, {other.dtype}{other.shape}"
            )
        elif one.tobytes() != other.tobytes():
            wide = np.abs(one.astype(np.float64) - other.astype(np.float64))
            lines.append(
                f"{name}: {(one != other).sum()} differ, by {np.nanmax(wide):.3g}"
            )
    return lines


def main() -> int:
    """Records or compares; 1 where anything differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mode", choices=("record", "compare"))
    parser.add_argument("directory", type=Path)
    args = parser.parse_args()
    arrays, sizes = pin()
    if args.mode == "record":
        args.directory.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(args.directory / "arrays.npz", **arrays)
        (args.directory / "sizes.json").write_text(json.dumps(sizes, indent=1))
        print(f"{len(arrays)} arrays recorded")
        return 0
    with np.load(args.directory / "arrays.npz") as file:
        lines = differences(dict(file), arrays)
    old = json.loads((args.directory / "sizes.json").read_text())
    for name in sorted(old.keys() & sizes.keys()):
        if name.startswith("demo.one") and old[name] != sizes[name]:
            print(f"size {name}: {old[name]} -> {sizes[name]}")
    print("\n".join(lines) or f"{len(arrays)} arrays equal to the bit")
    return bool(lines)


if __name__ == "__main__":
    sys.exit(main())
