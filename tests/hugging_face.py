"""Small Hugging Face checkpoints, made without torch or transformers."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.checkpoints import safetensors, weight_files
from jaxmoe.checkpoints.plan import default_tensors
from jaxmoe.families.config_json import from_hf
from jaxmoe.families.registry import family_of
from jaxmoe.nn.decoder import abstract_params

CONFIG = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 10,
    "intermediate_size": 14,
    "mlp_only_layers": [1],
    "norm_topk_prob": True,
    "tie_word_embeddings": False,
}
OTHERS = {
    "generation_config.json": b'{"do_sample": false}',
    "tokenizer.json": b'{"version":  "1.0"}',
    "chat_template.jinja": "{{ '\u00e9' }}\r\n".encode(),
}
Tensors = dict[str, np.ndarray]


def make_tensors(config: dict, dtype=jnp.bfloat16) -> Tensors:
    """Random tensors of a model, one per expert and matrix."""
    read = from_hf(config)
    rng = np.random.default_rng(0)
    wanted = default_tensors(family_of(read), abstract_params(read, dtype))
    return {name: _random(rng, name, kind, shape) for name, kind, shape in wanted}


def _random(
    rng: np.random.Generator, name: str, kind: np.dtype, shape: tuple[int, ...]
) -> np.ndarray:
    """Values of a tensor, or bytes, whose powers of two stay near 1."""
    if kind == np.uint8:
        low, high = (120, 128) if name.endswith("scales") else (0, 256)
        return rng.integers(low, high, shape, np.uint8)
    values = rng.normal(size=shape).astype(np.float32)
    if name.endswith("_scale_inv"):
        values = np.abs(values)
    return values.astype(kind)


def fuse(tensors: Tensors, layer: int) -> Tensors:
    """The same weights with the experts of `layer` in stacks."""
    prefix = f"model.layers.{layer}.mlp.experts."
    rest = {n: t for n, t in tensors.items() if not n.startswith(prefix)}
    parts: dict[str, list] = {"gate": [], "up": [], "down": []}
    for e in range(CONFIG["num_experts"]):
        for part, found in parts.items():
            found.append(tensors[f"{prefix}{e}.{part}_proj.weight"])
    gate_up = np.concatenate([np.stack(parts["gate"]), np.stack(parts["up"])], axis=1)
    rest[prefix + "gate_up_proj"] = gate_up
    rest[prefix + "down_proj"] = np.stack(parts["down"])
    return rest


def write_file(path: Path, tensors: Tensors, metadata: dict | None = None):
    """Writes one safetensors file."""
    rows = [(n, safetensors.TAGS[t.dtype.name], t.shape) for n, t in tensors.items()]
    text = safetensors.make_header(
        path.name, rows, metadata or {"format": "pt"}
    ).text.encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            file.write(np.ascontiguousarray(tensor).tobytes())


def write_checkpoint(
    path: Path, config: dict, tensors: Tensors, shards: int = 1
) -> Path:
    """Writes a checkpoint of one file, or of several with their index."""
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config, indent=3))
    for name, content in OTHERS.items():
        (path / name).write_bytes(content)
    if shards == 1:
        write_file(path / weight_files.SINGLE, tensors)
        return path
    weight_map = {}
    names = list(tensors)
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        own = names[i::shards]
        write_file(path / file, {name: tensors[name] for name in own})
        weight_map |= dict.fromkeys(own, file)
    total = sum(t.nbytes for t in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (path / weight_files.INDEX).write_text(json.dumps(index))
    return path


class Make:
    """Makes checkpoints in a test's directory."""

    config = CONFIG
    tensors = staticmethod(make_tensors)
    fuse = staticmethod(fuse)
    write_file = staticmethod(write_file)
    others = OTHERS

    def __init__(self, root: Path):
        self.root = root

    def __call__(
        self,
        change: Callable[[Tensors], object] | None = None,
        *,
        shards: int = 1,
        name: str = "source",
        dtype=jnp.bfloat16,
        **config,
    ) -> Path:
        """A checkpoint; `change` edits its tensors, keywords its config."""
        tensors = make_tensors(CONFIG | config, dtype)
        if change is not None:
            tensors = change(tensors) or tensors
        return write_checkpoint(self.root / name, CONFIG | config, tensors, shards)


@pytest.fixture
def make(tmp_path) -> Make:
    """`make(change, shards=, ...)` writes a checkpoint and gives its path."""
    return Make(tmp_path)


@pytest.fixture
def wanted():
    """The parameters of a source, put together here by plain NumPy."""

    def build(tensors: Tensors, config: dict) -> dict[str, np.ndarray]:
        heads, kv, dim = (
            config[k]
            for k in ("num_attention_heads", "num_key_value_heads", "head_dim")
        )
        out = {
            "embed.weight": tensors["model.embed_tokens.weight"],
            "final_norm.scale": tensors["model.norm.weight"],
            "head.weight": tensors["lm_head.weight"],
        }
        for i in range(config["num_hidden_layers"]):
            old, new = f"model.layers.{i}.", f"layers.{i}."
            out[new + "mixer_norm.scale"] = tensors[old + "input_layernorm.weight"]
            norm = tensors[old + "post_attention_layernorm.weight"]
            out[new + "ff_norm.scale"] = norm
            for letter, n in (("q", heads), ("k", kv), ("v", kv)):
                proj = tensors[old + f"self_attn.{letter}_proj.weight"]
                out[new + f"mixer.{letter}.weight"] = proj.reshape(n, dim, -1)
            proj = tensors[old + "self_attn.o_proj.weight"]
            out[new + "mixer.o.weight"] = proj.reshape(-1, heads, dim)
            for letter in "qk":
                norm = tensors[old + f"self_attn.{letter}_norm.weight"]
                out[new + f"mixer.{letter}_norm.scale"] = norm
            ff, mlp = new + "feed_forward.", old + "mlp."
            if i in config["mlp_only_layers"]:
                pair = [tensors[mlp + f"{p}_proj.weight"] for p in ("gate", "up")]
                out[ff + "gate_up"] = np.stack(pair)
                out[ff + "down"] = tensors[mlp + "down_proj.weight"]
                continue
            out[ff + "router.weight"] = tensors[mlp + "gate.weight"]
            each = [f"{mlp}experts.{e}." for e in range(config["num_experts"])]
            out[ff + "gate_up"] = np.stack(
                [
                    np.stack([tensors[e + f"{p}_proj.weight"] for p in ("gate", "up")])
                    for e in each
                ]
            )
            out[ff + "down"] = np.stack([tensors[e + "down_proj.weight"] for e in each])
        return out

    return build
