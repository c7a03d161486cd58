"""What `quantization_config` of FP8 says: which weights are so, or a refusal."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from jaxmoe.families.config_json import from_hf
from jaxmoe.families.deepseek_v3 import DEEPSEEK_V3
from jaxmoe.families.qwen3_5_moe import QWEN3_5_MOE
from jaxmoe.families.registry import family_of
from jaxmoe.nn.decoder import Decoder, abstract_params, axis_sizes, check_blocks
from jaxmoe.ops.fp8 import DTYPE, Fp8
from jaxmoe.planning.plan import mesh_of
from jaxmoe.sharding.layout import layout_for
from tests.tiny import EXECUTION

PLAIN = dict(DEEPSEEK_V3.test_configs[0])
QUANTISED = {"quant_method": "fp8", "weight_block_size": [8, 4]}


def read(plain=PLAIN, **fields):
    """A config with FP8 weights."""
    return from_hf(plain | {"quantization_config": QUANTISED | fields})


def test_all_projections_are_but_those_that_are_named():
    """DeepSeek-V3 names none, and has all but head and routers in FP8."""
    weights = read(fmt="e4m3", activation_scheme="dynamic").weights
    assert weights.block == (8, 4)
    assert set(weights.names) == {
        *(f"mixer.{name}" for name in ("q_down", "q_up", "kv_down", "kv_up")),
        *("mixer.o.weight", "feed_forward.gate_up", "feed_forward.down"),
        *("feed_forward.shared.gate_up", "feed_forward.shared.down"),
    }
    named = ["lm_head", "mlp.gate", "kv_b_proj", r"model\.layers\..*\.o_proj"]
    named += ["model.layers.0.mlp.gate", "model.layers.1.self_attn.q"]  # parts of names
    for name in ("modules_to_not_convert", "ignored_layers"):
        left = read(**{name: named}).weights
        gone = {"mixer.kv_up", "mixer.o.weight"}
        assert set(left.names) == set(weights.names) - gone


@pytest.mark.parametrize("products", ["plain", "weight_left", "lanes"])
def test_whose_bits_are_taken_first(products):
    """A CPU would be four times slower, or a GPU hold the bits of all experts."""
    config = read(fmt="e4m3")
    params = {
        n: jnp.zeros(w.shape, w.dtype) for n, w in abstract_params(config).items()
    }
    layers = Decoder(config, params, replace(EXECUTION, products=products)).layers()
    is_packed = lambda leaf: isinstance(leaf, Fp8)  # noqa: E731
    leaves = jax.tree.leaves(nnx.state(layers[-1]), is_leaf=is_packed)
    held = {leaf.values.dtype for leaf in leaves if is_packed(leaf)}
    assert held == {DTYPE if products == "plain" else jnp.dtype(jnp.uint8)}


def test_a_name_counts_by_either_prefix():
    """A model that sees has its text model's tensors under another name."""
    plain = dict(QWEN3_5_MOE.test_configs[0])
    named = [f"layers.{i}.linear_attn.in_proj_z" for i in range(4)]
    named = ["model.language_model." + name for name in named[:3]] + [
        "model." + named[3]
    ]
    names = read(plain, modules_to_not_convert=named).weights.names
    assert "mixer.z" not in names and {"mixer.q", "mixer.v"}.issubset(names)


def test_scales_have_a_place_for_every_block():
    """Rows of all heads are one axis; experts, and gate and up, begin blocks anew."""
    shapes = {name: leaf.shape for name, leaf in abstract_params(read()).items()}
    assert shapes["layers.1.mixer.q_up.scales"] == (8 * 24 // 8, 20 // 4)
    assert shapes["layers.1.mixer.kv_down.scales"] == ((32 + 8) // 8, 64 // 4)
    assert shapes["layers.1.mixer.o.weight.scales"] == (64 // 8, 8 * 12 // 4)
    assert shapes["layers.1.feed_forward.gate_up.scales"] == (16, 2, 5, 16)
    assert shapes["layers.0.feed_forward.gate_up.scales"] == (2, 10, 16)
    rules = {rule.tensor: rule for rule in family_of(read()).tensors}
    assert rules["model.layers.{i}.self_attn.q_b_proj.weight_scale_inv"]
    assert rules["model.layers.{i}.self_attn.q_b_proj.weight"].dtypes == ("F8_E4M3",)
    assert "lm_head.weight_scale_inv" not in rules


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"activation_scheme": "static"}, "activation_scheme.*dynamic"),
        ({"fmt": "e5m2"}, "fmt.*e4m3"),
        ({"scale_fmt": "e3"}, "scale_fmt"),
        ({"weight_block_size": [128]}, "weight_block_size.*two positive"),
        ({"weight_block_size": None}, r"\(fp8\).*take the release .* in bfloat16"),
        ({"modules_to_convert": ["model.embed_tokens"]}, "modules_to_convert"),
        ({"modules_to_not_convert": ["("]}, "modules_to_not_convert"),
        ({"strange": 3}, "quantization_config.strange"),
        ({"modules_to_not_convert": ["layers.1.self_attn.o_proj"]}, "all layers or in"),
    ],
)
def test_what_is_not_done_is_refused(fields, told):
    """Weights, or activations, would be others than the file means."""
    with pytest.raises(ValueError, match=told):
        read(**fields)


@pytest.mark.parametrize(
    "pattern", [".?" * 40 + "Z", "(?:.|.)" * 40, "(.*)*Z", ".*" * 4, "(?:a|aa)+Z"]
)
def test_patterns_that_may_match_for_ever_are_refused(pattern):
    """Some take hours for one name of a module."""
    with pytest.raises(ValueError, match="modules_to_not_convert"):
        read(modules_to_not_convert=[pattern])


@pytest.mark.parametrize("pattern", ["lm_head|.*norm.*|.*embed.*", r"(x|y)\.\d+$"])
def test_patterns_as_people_write_them_are_read(pattern):
    """A release would be refused for its list of names."""
    assert read(modules_to_not_convert=[pattern]).weights == read().weights


@pytest.mark.parametrize("rows", [3, 8, 16, 32])
def test_weights_that_share_a_tensor_begin_where_blocks_do(rows):
    """Scales of a block of both would be taken as of one: all later rows, wrong.

    Queries and keys have 2 x 8 rows each, values 4 x 12.
    """
    plain = dict(QWEN3_5_MOE.test_configs[0])
    if 16 % rows == 0:
        assert "mixer.q" in read(plain, weight_block_size=[rows, 8]).weights.names
        return
    with pytest.raises(ValueError, match=r"in_proj_qkv of 16 \+ 16 \+ 48 rows"):
        read(plain, weight_block_size=[rows, 8])
    kept = {"modules_to_not_convert": ["in_proj_qkv"]}
    read(plain, weight_block_size=[rows, 8], **kept)


def test_blocks_are_not_cut_by_a_mesh():
    """A device would need scales that lie on another."""

    def check(config, rules="auto"):
        mesh = mesh_of({"data": 1, "model": 8})
        check_blocks(config, layout_for(mesh, rules, axis_sizes(config)))

    check(from_hf(dict(DEEPSEEK_V3.test_configs[2])))
    with pytest.raises(ValueError, match=r"FP8.*--dtype bfloat16"):
        check(read(weight_block_size=[8, 8]))
    check(read(weight_block_size=[8, 8]), "data")
