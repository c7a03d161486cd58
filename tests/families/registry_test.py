"""Which family a config.json is of."""

import math
from dataclasses import replace

import pytest

from jaxmoe.config import ModelConfig
from jaxmoe.families.config_json import from_hf
from jaxmoe.families.registry import (
    FAMILIES,
    family_of,
    find_family,
    released_config,
)
from jaxmoe.nn.decoder import abstract_params, axis_sizes
from jaxmoe.planning.memory import weight_bytes
from jaxmoe.planning.plan import mesh_of
from jaxmoe.sharding.layout import layout_for

FIRST = next(iter(FAMILIES.values()))
CONFIG = dict(FIRST.test_configs[0])


def test_names_are_the_keys():
    """A family would be found under a name that no config carries."""
    assert all(family.name == name for name, family in FAMILIES.items())
    assert all(family.architectures for family in FAMILIES.values())


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_reads_its_own_configs(name):
    """A config would be read by one family and its tensors by another."""
    family = FAMILIES[name]
    assert family.test_configs
    for values in (*family.test_configs, *family.released.values()):
        assert find_family(values) is family
        assert family_of(from_hf(dict(values))).name == family.name


def test_families_can_be_added(monkeypatch):
    """Another family is one entry in the table."""
    monkeypatch.setitem(FAMILIES, "mine", replace(FIRST, name="x", model_type="mine"))
    assert from_hf(CONFIG | {"model_type": "mine"}) == from_hf(CONFIG)


def test_families_that_share_a_model_type(monkeypatch):
    """One of them would read the files of the other."""
    other = replace(FIRST, name="other", architectures=("OtherForCausalLM",))
    monkeypatch.setitem(FAMILIES, "other", other)
    assert find_family(CONFIG) is FIRST
    assert find_family(CONFIG | {"architectures": ["OtherForCausalLM"]}) is other
    for unclear in (None, [], ["Third"], "OtherForCausalLM", 3):
        with pytest.raises(ValueError, match="architectures.*OtherForCausalLM, found"):
            find_family(CONFIG | {"architectures": unclear})


@pytest.mark.parametrize("model_type", [None, "no_such", 3, ["no_such"]])
def test_unknown(model_type):
    """A model of another family would be read as one of these."""
    with pytest.raises(ValueError) as error:
        find_family({"model_type": model_type})
    known = {family.model_type for family in FAMILIES.values()}
    assert all(name in str(error.value) for name in known)
    assert repr(model_type) in str(error.value)


def test_a_config_of_no_family():
    """A config written by hand would fail with a bare key."""
    config: ModelConfig = replace(from_hf(CONFIG), family="no_such")
    with pytest.raises(ValueError, match="'no_such'"):
        family_of(config)


def test_released_sizes():
    """A plan would be of another model than its name says."""
    sizes = [size for family in FAMILIES.values() for size in family.released]
    assert len(sizes) == len(set(sizes))
    values = released_config("30b")
    assert values is not None and values["num_hidden_layers"] == 48
    assert released_config("no_such") is None


BILLIONS = {
    "30b": 30.53,
    "235b": 235.09,
    "olmoe-7b": 6.92,
    "ling-lite-1.5": 16.80,
    "ling-mini-2.0": 16.26,
    "glm-4.5-air": 106.85,
    "glm-4.5": 352.80,
    "glm-4.6": 352.80,
    "qwen1.5-moe-a2.7b": 14.32,
    "qwen2-57b-a14b": 57.41,
    "qwen3-8b": 8.19,
    "qwen2.5-7b": 7.62,
    "dots.llm1": 142.77,
    "ernie-4.5-21b-a3b": 21.83,
    "minimax-m2": 228.69,
    "granite-3.1-1b-a400m": 1.33,
    "granite-3.1-3b-a800m": 3.30,
    "mixtral-8x7b": 46.70,
    "mixtral-8x22b": 140.63,
}
"""Parameters that these models are known to have, layers after the last left out."""


@pytest.mark.parametrize("size", BILLIONS)
def test_released_models_have_the_weights_they_are_known_by(size):
    """A plan would be of another model: a width, a shared expert or a bias be wrong."""
    values = released_config(size)
    assert values is not None
    leaves = abstract_params(from_hf(values)).values()
    found = sum(math.prod(leaf.shape) for leaf in leaves)
    assert found / 1e9 == pytest.approx(BILLIONS[size], abs=6e-3)


INDIVISIBLE = {
    "glm-4.7-flash": "20 query heads",
    "qwen1.5-moe-a2.7b": "60 experts",
    "qwen2-57b-a14b": "28 query heads",
    "qwen2.5-7b": "28 query heads",
    "qwen2.5-math-prm-7b": "28 query heads",
    "ernie-4.5-21b-a3b": "20 query heads",
}
"""What eight devices cannot share by the rules `expert`."""
WHOLE_EMBEDDING = {"granite-3.1-1b-a400m": 1.27, "granite-3.1-3b-a800m": 1.17}
"""Models with 49155 tokens, which eight devices cannot share: an eighth, times this."""
SIZES = [size for family in FAMILIES.values() for size in family.released]


@pytest.mark.parametrize("shape", [(1, 8), (8, 1), (2, 4)], ids=str)
@pytest.mark.parametrize("size", SIZES)
def test_each_of_eight_devices_holds_its_share(size, shape):
    """A model that fits on eight devices would need more of them."""
    values = released_config(size)
    assert values is not None
    config = from_hf(values)

    def held(data: int, model: int) -> int:
        mesh = mesh_of({"data": data, "model": model})
        layout = layout_for(mesh, "expert", axis_sizes(config))
        return weight_bytes(config, layout, "bfloat16")

    if size in INDIVISIBLE:
        with pytest.raises(ValueError, match=INDIVISIBLE[size]):
            held(*shape)
    else:
        most = WHOLE_EMBEDDING.get(size, 1.15)
        assert held(*shape) <= most * held(1, 1) / 8
