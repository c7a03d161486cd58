"""Every family against transformers, on each of its test configurations.

A family's peer is the class of its own `model_type`; `PEERS` has those of families that
transformers lacks, each a class that computes the same. The plainest family also stands
for what no family changes: kinds of rope, routers sure and unsure of themselves.
`figures.py` collects what is recorded here.
"""

import json
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

import jaxmoe
from jaxmoe import TokenSampler, TopK
from jaxmoe.families.config_json import from_hf
from jaxmoe.families.registry import FAMILIES

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

IN_EVERY_RUN = {("deepseek_v2", 1), ("qwen3_next", 1), ("olmoe", 1), ("gpt_oss", 1)}
"""Beside the first configuration of each family; the others are slow tests."""

Values = dict[str, Any]

PLAIN: Values = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "moe_intermediate_size": 32,
    "num_experts": 32,
    "num_experts_per_tok": 8,
    "norm_topk_prob": True,
    "max_position_embeddings": 512,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
}
LINEAR, DYNAMIC, YARN = (
    {"rope_parameters": {"rope_type": kind, "rope_theta": 1e6} | more}
    for kind, more in (
        ("linear", {"factor": 2.0}),
        ("dynamic", {"factor": 2.0}),
        ("yarn", {"factor": 4.0, "original_max_position_embeddings": 64}),
    )
)
VARIANTS: dict[str, Values] = {
    "as released": {},
    "weights not normalised": {"norm_topk_prob": False},
    "every second layer dense": {"decoder_sparse_step": 2, "num_hidden_layers": 4},
    "first layer dense": {"mlp_only_layers": [0]},
    "biases": {"attention_bias": True},
    "tied embeddings": {"tie_word_embeddings": True},
    "one expert": {"num_experts_per_tok": 1},
    "all experts": {"num_experts_per_tok": 32},
    "no shared heads": {"num_key_value_heads": 4, "head_dim": 8},
    "sliding window": {"use_sliding_window": True, "sliding_window": 20},
    "linear rope": LINEAR,
    "dynamic rope": DYNAMIC,
    "yarn": YARN,
    "large eps, small theta": {
        "rms_norm_eps": 1e-3,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
    },
}
SEVERAL: dict[str, tuple[str, ...]] = {
    "weights, biases, ties, eps": (
        "weights not normalised",
        "biases",
        "tied embeddings",
        "every second layer dense",
        "large eps, small theta",
    ),
    "one of few, windows": ("one expert", "first layer dense", "sliding window"),
    "all, linear rope": ("all experts", "no shared heads", "linear rope"),
}
"""Variants that do not exclude each other, in one model; alone they are slow tests."""
ALONE = {"as released", "dynamic rope", "yarn"}
assert ALONE.union(*SEVERAL.values()) == VARIANTS.keys()


def merged(names: tuple[str, ...]) -> Values:
    """The changes of some variants, no two of one attribute."""
    changes: Values = {}
    for name in names:
        assert not changes.keys() & VARIANTS[name].keys()
        changes |= VARIANTS[name]
    return changes


def equal_experts(name: str, tensor: Any) -> None:
    """All experts of a layer compute the same: routing may not matter."""
    if ".experts." in name:
        tensor[:] = tensor[:1].clone()


def sharp_router(name: str, tensor: Any) -> None:
    """Routers sure of themselves.

    Not surer: logits 20 times as large make float32 itself too coarse, transformers'
    own logits are then 1.4e-4 off from those it computes in float64.
    """
    if name.endswith("mlp.gate.weight"):
        tensor *= 5


def flat_router(name: str, tensor: Any) -> None:
    """Routers nearly undecided between all experts."""
    if name.endswith("mlp.gate.weight"):
        tensor *= 1e-2


def skewed_router(name: str, tensor: Any) -> None:
    """Every token wants the same experts."""
    if name.endswith("mlp.gate.weight"):
        tensor[:] = tensor[:, :1] + 0.05 * tensor


Structure = Callable[[str, Any], None]
STRUCTURES: list[Structure] = [equal_experts, sharp_router, flat_router, skewed_router]

FAMILY_CASES = [
    pytest.param(
        (name, dict(values), None),
        id=f"{name}-{number}",
        marks=pytest.mark.slow if number and (name, number) not in IN_EVERY_RUN else (),
    )
    for name, family in FAMILIES.items()
    for number, values in enumerate(family.test_configs)
    if "quantization_config" not in values  # fp8_test.py, mxfp4_test.py
    if not family.scores  # process_reward_test.py
]
PLAIN_CASES = (
    [
        pytest.param(
            ("qwen3_moe", PLAIN | change, None),
            id=f"plain, {name}",
            marks=() if name in ALONE else pytest.mark.slow,
        )
        for name, change in VARIANTS.items()
    ]
    + [
        pytest.param(("qwen3_moe", PLAIN | merged(names), None), id=f"plain, {title}")
        for title, names in SEVERAL.items()
    ]
    + [
        pytest.param(("qwen3_moe", PLAIN, structure), id=f"plain, {structure.__name__}")
        for structure in STRUCTURES
    ]
)


TOLERANCES = {"qwen3_next": 2e-4, "qwen3_5_moe": 2e-4}
"""Of logits, over the largest; 1e-4 where no other is stated.

A recurrence adds up what rounding does at each position: in float32 transformers itself
is 3e-5 off from float64 in four layers with decays as strong as training begins with,
7e-6 with the smaller ones of `randomise`.
"""


def own(values: Values) -> Any:
    """transformers' config of the same model_type."""
    rest = {k: v for k, v in values.items() if k not in ("model_type", "architectures")}
    return transformers.AutoConfig.for_model(values["model_type"], **rest)


def sarvam(values: Values) -> Any:
    """Ling 2.0 under the name of a model with its architecture and tensor names."""
    rest = {k: v for k, v in values.items() if k not in ("model_type", "architectures")}
    names = {
        "num_experts": "n_routed_experts",
        "num_shared_experts": "n_shared_experts",
        "use_qkv_bias": "attention_bias",
    }
    rest = {names.get(k, k): v for k, v in rest.items()} | {"head_dim": 16}
    return transformers.AutoConfig.for_model("sarvam_moe", **rest)


def granite(values: Values) -> Any:
    """Ling 1.5 as a Granite whose multipliers do nothing."""
    width = values["hidden_size"] // values["num_attention_heads"]
    shared = values["num_shared_experts"] * values["moe_intermediate_size"]
    rest = {k: values[k] for k in values if k.startswith(("num_", "hidden", "max_"))}
    return transformers.AutoConfig.for_model(
        "granitemoeshared",
        **rest,
        vocab_size=values["vocab_size"],
        tie_word_embeddings=values.get("tie_word_embeddings", False),
        rope_theta=values["rope_theta"],
        rms_norm_eps=1e-5,
        intermediate_size=values["moe_intermediate_size"],
        num_local_experts=values["num_experts"],
        shared_intermediate_size=shared,
        attention_multiplier=width**-0.5,
    )


class Peer:
    """How a family's configs become those of transformers, and its files ours."""

    def __init__(
        self,
        config: Callable[[Values], Any] = own,
        rename: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    ):
        self.config, self.rename = config, rename


LING = {
    "embed_tokens": "word_embeddings",
    "self_attn.o_proj": "attention.dense",
    "self_attn.q_proj": "attention.query_key_value",
    "block_sparse_moe.router.layer": "mlp.gate",
    "block_sparse_moe.input_linear.weight": "mlp.experts.gate_up_proj",
    "block_sparse_moe.output_linear.weight": "mlp.experts.down_proj",
    "shared_mlp.output_linear": "mlp.shared_experts.down_proj",
    "shared_mlp.input_linear": "mlp.shared_experts.gate_proj",
}


def ling(tensors: dict[str, Any]) -> dict[str, Any]:
    """A Granite's tensors under Ling 1.5's names."""
    found = {}
    for name, tensor in tensors.items():
        if ".k_proj." in name or ".v_proj." in name:
            continue  # rows of the tensor that begins with those of q
        if ".q_proj." in name:
            tensor = torch.cat([tensors[name.replace("q_", f"{x}_")] for x in "qkv"])
        for old, new in LING.items():
            name = name.replace(old, new)
        if "shared_experts.gate_proj" in name:
            tensor, up = (half.contiguous() for half in tensor.chunk(2))
            found[name.replace("gate", "up")] = up
        found[name] = tensor
    return found


PEERS = {
    "bailing_moe": Peer(granite, ling),
    "bailing_moe_v2": Peer(sarvam),
    "kimi_k2": Peer(lambda values: own(values | {"model_type": "deepseek_v3"})),
}


def randomise(model: Any) -> None:
    """Every weight, so that none is at a value that hides what is done with it."""
    torch.manual_seed(0)
    for name, weight in (*model.named_parameters(), *model.named_buffers()):
        if "rotary" in name or "inv_freq" in name:
            continue
        if name.endswith("A_log"):  # decays of e^-0.02 to e^-0.7 a position
            weight.data.uniform_(0.02, 0.5).log_()
            continue
        noise = torch.randn_like(weight)
        if weight.ndim > 1 and min(weight.shape) > 1:
            weight.data = noise if "embed" in name else noise / weight.shape[-1] ** 0.5
        else:
            weight.data += (0.2 if "norm" in name else 0.3) * noise


def write_checkpoint(
    directory, name: str, values: Values, structure: Structure | None = None
):
    """A checkpoint of transformers under the family's own config.json."""
    peer = PEERS.get(name, Peer())
    config = peer.config(values)
    config._attn_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(config).eval().float()
    randomise(model)
    for weight in model.named_parameters() if structure is not None else ():
        structure(weight[0], weight[1].data)
    model.save_pretrained(directory)
    if name in PEERS:
        (directory / "config.json").write_text(json.dumps(values))
        (directory / "generation_config.json").unlink(missing_ok=True)
    if peer.rename is not None:
        from safetensors.torch import load_file, save_file

        path = directory / "model.safetensors"
        save_file(peer.rename(load_file(path)), path, {"format": "pt"})
    return model


def chosen(model: Any) -> list[Any]:
    """What each router chooses from now on, [layers with experts][[T, K]]."""
    found: list[Any] = []
    for module in model.modules():
        if re.search("Top[kK]Router", type(module).__name__):
            module.register_forward_hook(lambda _, __, out: found.append(out[2]))
    return found


def answered(theirs: Any, prompt: np.ndarray, length: int) -> Any:
    """The prompt and transformers' greedy answer, [1, T]."""
    with torch.no_grad():
        return theirs.generate(
            torch.tensor(prompt)[None],
            max_new_tokens=length,
            do_sample=False,
            eos_token_id=None,
        )


def drawn(ours: jaxmoe.Model, prompt: np.ndarray, length: int) -> jaxmoe.Samples:
    """Our greedy answer."""
    return jaxmoe.sample(
        ours,
        prompt,
        key=jax.random.key(0),
        policy=TopK(),
        sampler=TokenSampler(temperature=0),
        max_new_tokens=length,
        stop_ids=(),
    )


@pytest.mark.parametrize("case", [*FAMILY_CASES, *PLAIN_CASES])
def test_family_computes_what_transformers_computes(tmp_path, case, record_property):
    """Promise 1: logits, expert sets, 64 greedy tokens and their log-probabilities."""
    name, values, structure = case
    theirs = write_checkpoint(tmp_path / "hf", name, values, structure)
    ours = jaxmoe.load(tmp_path / "hf")
    assert ours.config.family == name
    prompt = np.random.default_rng(0).integers(8, ours.config.vocab_size, 70)
    answer = answered(theirs, prompt, 64)
    experts = chosen(theirs)
    with torch.no_grad():
        run = theirs(answer)
    sequence, reference = answer[0].numpy(), run.logits[0].numpy()

    logits, routes = jaxmoe.forward(ours, sequence, return_routes=True)
    scale = np.abs(reference).max()
    error = np.abs(np.asarray(logits) - reference).max() / scale
    record_property("family", name)
    record_property("logits_error", float(error))
    assert error <= TOLERANCES.get(name, 1e-4)
    for layer, best in zip(ours.config.moe_layers, experts, strict=True):
        assert np.array_equal(np.sort(routes[:, layer]), np.sort(best.numpy()))

    found = drawn(ours, prompt, 64)
    assert found.tokens[0].tolist() == sequence[70:].tolist()
    logprobs = torch.log_softmax(run.logits[0], dim=-1)[69:-1].numpy()
    taken = logprobs[np.arange(64), sequence[70:]]
    np.testing.assert_allclose(found.logprobs[0], taken, atol=1e-3)


def test_dynamic_rope_past_its_limit(tmp_path):
    """Past the limit each step stretches the rotation, as transformers' cache does."""
    values = PLAIN | DYNAMIC | {"max_position_embeddings": 64}
    theirs = write_checkpoint(tmp_path / "hf", "qwen3_moe", values)
    prompt = np.random.default_rng(0).integers(0, 300, 50)
    answer = answered(theirs, prompt, 40)
    found = drawn(jaxmoe.load(tmp_path / "hf"), prompt, 40)
    assert found.tokens[0].tolist() == answer[0, 50:].tolist()


@pytest.mark.parametrize(
    "case", [case for case in FAMILY_CASES if case.values[0][0] not in PEERS]
)
def test_configs_mean_what_transformers_saves_of_them(case):
    """A default of ours would be another, or a saved config be refused."""
    _, values, _ = case
    config = own(values)
    config.architectures = values["architectures"]
    saved = json.loads(config.to_json_string(use_diff=False))
    assert from_hf(saved) == from_hf(values)


@pytest.mark.parametrize(
    "case", [case for case in FAMILY_CASES if case.values[0][0] not in PEERS]
)
@pytest.mark.filterwarnings("ignore:.*outside the vocabulary")
def test_what_a_config_leaves_out_is_what_transformers_takes(case):
    """A default of ours would be another, and no saved config say so.

    Each attribute is left out in turn; where both read what is left they agree.
    """
    _, values, _ = case
    read = 0
    for name in values.keys() - {"architectures", "model_type"}:
        rest = {key: value for key, value in values.items() if key != name}
        try:
            ours = from_hf(rest)
            config = own(rest)
            config.architectures = values["architectures"]
            theirs = from_hf(json.loads(config.to_json_string(use_diff=False)))
        except ValueError:
            continue
        read += 1
        assert ours == theirs, name
    assert read
