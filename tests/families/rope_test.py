"""Reading the rope of a config.json: old and new spelling, each kind, each mistake."""

import math
import warnings

import pytest

from jaxmoe.config import RopeConfig
from jaxmoe.families.attributes import Attributes, Report
from jaxmoe.families.config_json import from_hf
from jaxmoe.families.rope import read_rope

CONFIG = {
    "model_type": "qwen3_moe",
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "moe_intermediate_size": 24,
    "num_experts": 8,
    "num_experts_per_tok": 2,
}


@pytest.fixture(autouse=True)
def _warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def _rope(**attributes):
    return from_hf(CONFIG | attributes).layers[0].mixer.rope


@pytest.mark.parametrize(
    ("attributes", "rope"),
    [
        ({"rope_theta": 1e6}, RopeConfig(1e6)),
        ({"rope_theta": 1000000, "rope_scaling": None}, RopeConfig(1e6)),
        ({"rope_parameters": {"rope_theta": 5e5}}, RopeConfig(5e5)),
        (
            {"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}},
            RopeConfig(5e5),
        ),
        ({"rope_theta": 7.0, "rope_parameters": {"rope_theta": 5e5}}, RopeConfig(5e5)),
        (
            {"rope_theta": 1e6, "rope_scaling": {"type": "linear", "factor": 4}},
            RopeConfig(1e6, "linear", 4.0),
        ),
        (
            {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
            RopeConfig(1e4, "dynamic", 2.0, 32768),
        ),
        (
            {"rope_parameters": {"type": "yarn", "rope_type": "yarn", "factor": 4.0}},
            RopeConfig(1e4, "yarn", 4.0, 32768, 0.1 * math.log(4) + 1),
        ),
    ],
)
def test_rope_in_old_and_new_spelling(attributes, rope):
    """The place and the names moved between transformers 4 and 5."""
    assert _rope(**attributes) == rope


@pytest.mark.parametrize(
    ("yarn", "found"),
    [
        ({}, {"attention_factor": 0.1 * math.log(4) + 1}),
        ({"factor": 1.0}, {"factor": 1.0, "attention_factor": 1.0}),
        ({"factor": None}, {"factor": 8.0, "attention_factor": 0.1 * math.log(8) + 1}),
        ({"attention_factor": 1.5, "mscale": 2.0}, {"attention_factor": 1.5}),
        (
            {"mscale": 1.0, "mscale_all_dim": 0.5},
            {"attention_factor": (0.1 * math.log(4) + 1) / (0.05 * math.log(4) + 1)},
        ),
        (
            {"mscale": 2.0, "mscale_all_dim": 0},
            {"attention_factor": 0.1 * math.log(4) + 1},
        ),
        ({"beta_fast": 16, "beta_slow": 2}, {"beta_fast": 16.0, "beta_slow": 2.0}),
        ({"beta_fast": None, "beta_slow": 0}, {"beta_fast": 32.0, "beta_slow": 1.0}),
        ({"truncate": False}, {"truncate": False}),
    ],
)
def test_yarn(yarn, found):
    """Each option of YaRN, resolved as transformers resolves it."""
    scaling = {"rope_type": "yarn", "factor": 4.0}
    scaling |= {"original_max_position_embeddings": 4096} | yarn
    rope = _rope(rope_scaling=scaling)
    assert rope.original_length == 4096
    for name, value in found.items():
        assert getattr(rope, name) == pytest.approx(value)


def test_yarn_original_length_beside_the_rope_goes_first():
    """transformers lets the outer attribute win."""
    scaling = {"rope_type": "yarn", "factor": 4.0}
    scaling |= {"original_max_position_embeddings": 4096}
    rope = _rope(rope_scaling=scaling, original_max_position_embeddings=1024)
    assert rope.original_length == 1024


@pytest.mark.parametrize(
    ("scaling", "length"),
    [
        (None, 40960),
        ({"type": "linear", "factor": 2.5}, 102400),
        ({"type": "dynamic", "factor": 2.0}, 81920),
        (
            {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
            131072,
        ),
        (
            {"type": "yarn", "factor": 2.0, "original_max_position_embeddings": 8192},
            40960,
        ),
    ],
)
def test_context_length(scaling, length):
    """The longest sequence the rope is meant for."""
    attributes = {"max_position_embeddings": 40960, "rope_scaling": scaling}
    assert from_hf(CONFIG | attributes).context_length == length


def test_rope_attributes_of_another_type_warn():
    """transformers ignores them too, but the user probably forgot rope_type."""
    with pytest.warns(UserWarning, match="'default' does not read factor"):
        rope = _rope(rope_scaling={"factor": 4.0})
    assert rope == RopeConfig()
    with pytest.warns(UserWarning, match="original_max_position_embeddings"):
        _rope(original_max_position_embeddings=4096)


@pytest.mark.parametrize(
    ("scaling", "message"),
    [
        ({"rope_type": "llama3", "factor": 8.0}, "rope_type = .*default, linear"),
        ({"type": "longrope", "factor": 8.0}, "type = .*default, linear"),
        ({"rope_type": ["yarn"]}, "rope_type = "),
        ({"rope_type": "linear"}, r"missing.*rope_scaling\.factor"),
        ({"rope_type": "dynamic", "factor": None}, "factor = null"),
        ({"rope_type": "linear", "factor": 0.5}, "factor = 0.5"),
        ({"rope_type": "yarn"}, r"missing.*rope_scaling\.factor"),
        ({"rope_type": "yarn", "factor": 2.0, "attention_factor": -1}, "attention_fac"),
        ({"rope_type": "yarn", "factor": 2.0, "truncate": 1}, "truncate = 1"),
        ({"rope_type": "default", "mrope_section": [1]}, "not supp.*mrope_section"),
        ({"rope_type": "default", "partial_rotary_factor": 0.5}, "not supp.*partial"),
        ({"full_attention": {"rope_type": "default"}}, "not supp.*full_attention"),
    ],
)
def test_bad_rope(scaling, message):
    """Each mistake in a rope, named with its place."""
    with pytest.raises(ValueError, match=message):
        _rope(rope_scaling=scaling)


def test_two_ropes_that_disagree():
    """`rope_scaling` wins with all it has, as in transformers 5, and says so."""
    scaling = {"rope_type": "linear", "factor": 2.0}
    new = {"rope_type": "default", "rope_theta": 1e6}
    with pytest.warns(UserWarning, match="rope_scaling = .* which counts"):
        assert _rope(rope_scaling=scaling, rope_parameters=new).theta == 10_000.0
    with pytest.warns(UserWarning, match="rope_scaling = .* which counts"):
        rope = _rope(rope_scaling=scaling, rope_parameters=new, rope_theta=5e5)
    assert (rope.kind, rope.factor, rope.theta) == ("linear", 2.0, 5e5)
    assert _rope(rope_scaling={}, rope_parameters=new).theta == 1e6


@pytest.mark.parametrize(
    ("attributes", "width"),
    [
        ({}, 8),
        ({"partial_rotary_factor": 0.25}, 4),
        ({"rope_parameters": {"partial_rotary_factor": 0.75}}, 12),
        ({"rope_scaling": {"partial_rotary_factor": 1.0}}, None),
        (
            {
                "partial_rotary_factor": 0.25,
                "rope_parameters": {"partial_rotary_factor": 0.75},
            },
            12,
        ),
        ({"partial_rotary_factor": None}, 8),
    ],
)
def test_a_part_of_the_head(attributes, width):
    """transformers takes the part in the rope, then beside it, then the family's."""
    a = Attributes(attributes, Report())
    rope = read_rope(a, 64, theta=2e4, head_dim=16, partial=0.5)
    assert rope == RopeConfig(2e4, width=width)
    a.report.raise_if_any("mine")
    assert not a.left


@pytest.mark.parametrize("part", [0.0, 1.5, "half"])
def test_a_bad_part(part):
    """A head would be turned as none was trained."""
    a = Attributes({"partial_rotary_factor": part}, Report())
    read_rope(a, 64, head_dim=16)
    with pytest.raises(ValueError, match="partial_rotary_factor = .*expected"):
        a.report.raise_if_any("mine")
