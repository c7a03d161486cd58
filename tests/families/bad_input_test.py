"""Every family's files, each part of them missing, strange, misshapen or of another
type: one error that names it, before anything is read.

What one family alone may not say is in `refusals_test.py`.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from jaxmoe.checkpoints.errors import CheckpointError
from jaxmoe.checkpoints.plan import default_tensors, make_plan
from jaxmoe.checkpoints.safetensors import TAGS, Tensor
from jaxmoe.families.config_json import from_hf
from jaxmoe.families.registry import FAMILIES, family_of, find_family
from jaxmoe.nn.decoder import abstract_params
from jaxmoe.ops.packed import SCALES

CONFIGS = [
    pytest.param(dict(values), id=f"{name}-{number}")
    for name, family in FAMILIES.items()
    for number, values in enumerate(family.test_configs)
]
configs = pytest.mark.parametrize("values", CONFIGS)


# -- tensors -----------------------------------------------------------------------


def tensors_of(values: Mapping[str, Any]) -> dict[str, Tensor]:
    """The headers of a checkpoint of such a model."""
    params = abstract_params(from_hf(dict(values)), ml_dtypes.bfloat16)
    wanted = default_tensors(family_of(from_hf(dict(values))), params)
    return {
        name: Tensor(name, TAGS[np.dtype(kind).name], shape, "model.safetensors", 0)
        for name, kind, shape in wanted
    }


def last_of_each_kind(tensors: Mapping[str, Tensor]) -> list[Tensor]:
    """One of the tensors whose names differ by their numbers only."""
    return [*{re.sub(r"\d+", "#", n): t for n, t in tensors.items()}.values()]


def faults(values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> CheckpointError:
    """The one error for these tensors."""
    params = abstract_params(from_hf(dict(values)), ml_dtypes.bfloat16)
    with pytest.raises(CheckpointError) as caught:
        make_plan(family_of(from_hf(dict(values))), tensors, params)
    return caught.value


CHANGES = {
    "longer": lambda t: {t.name: replace(t, shape=(*t.shape[:-1], t.shape[-1] + 1))},
    "flat": lambda t: {t.name: replace(t, shape=(1, *t.shape))},
    "integers": lambda t: {t.name: replace(t, dtype="I64")},
    "renamed": lambda t: {f"{t.name}_2": replace(t, name=f"{t.name}_2")},
    "missing": lambda t: {},
    "one too many": lambda t: {
        t.name: t,
        f"{t.name}_2": replace(t, name=f"{t.name}_2"),
    },
}


@pytest.mark.thorough
@pytest.mark.parametrize("how", CHANGES)
@configs
def test_every_kind_of_tensor_is_checked(values, how):
    """A latent, a convolution, a sink or a bias would be left at zero, or cut."""
    tensors = tensors_of(values)
    changed = last_of_each_kind(tensors)
    # Blocks and scales of another type or name are another quantiser's.
    if how == "integers":
        changed = [t for t in changed if t.dtype != "U8"]
    renamed = how in ("renamed", "one too many")
    if how == "integers" or renamed:
        changed = [t for t in changed if not t.name.endswith("_scale_inv")]
    if renamed:
        changed = [t for t in changed if not t.dtype.startswith("F8")]
    there = {t.name for t in changed}
    found = {n: t for n, t in tensors.items() if n not in there}
    for tensor in changed:
        found |= CHANGES[how](tensor)
    error = faults(values, found)
    said = "\n".join(error.failures)
    ends = "_2" if how == "one too many" else ""
    unsaid = [t.name for t in changed if t.name + ends not in said]
    if how == "missing":  # of parts that lie together the first few are named
        unsaid = [n for n in unsaid if not re.search(r"\d+ in all", said)]
    assert not unsaid


@pytest.mark.slow
@configs
def test_one_fault_is_enough(values):
    """A fault would show only beside others."""
    tensors = tensors_of(values)
    for tensor in last_of_each_kind(tensors):
        rest = {n: t for n, t in tensors.items() if n != tensor.name}
        assert tensor.name in str(faults(values, rest))


HALVES = [
    pytest.param(dict(values), *ends, id=f"{name}-{number} {ends[0]}")
    for name, family in FAMILIES.items()
    for number, values in enumerate(family.test_configs)
    if "quantization_config" in values
    for ends in (
        [("_blocks", ".blocks"), ("_scales", SCALES)]
        if "MXFP4" in family.formats
        else [("_scale_inv", SCALES)]
    )
]


@pytest.mark.parametrize(("values", "tensor", "param"), HALVES)
def test_quantised_weights_need_both_halves(values, tensor, param):
    """Half of a weight would be read as if the other half were ones."""
    rest = {n: t for n, t in tensors_of(values).items() if not n.endswith(tensor)}
    params = abstract_params(from_hf(dict(values)), ml_dtypes.bfloat16)
    absent = [name for name in params if name.endswith(param)]
    said = "\n".join(faults(values, rest).failures)
    assert absent and all(f"{name}: tensors are missing" in said for name in absent)


FP8 = [
    pytest.param(dict(values), id=f"{name}-{number}")
    for name, family in FAMILIES.items()
    for number, values in enumerate(family.test_configs)
    if "quantization_config" in values and "FP8" in family.formats
]


@pytest.mark.thorough
@pytest.mark.parametrize("values", FP8)
def test_config_and_weights_agree_on_fp8(values):
    """8-bit floats would be read without their scales, or floats be scaled."""
    plain = {k: v for k, v in values.items() if k != "quantization_config"}
    floats, bytes_ = tensors_of(plain), tensors_of(values)
    assert "quantization_config" in str(faults(values, floats))
    assert "F8_E4M3" in str(faults(plain, bytes_))
    scales = {n: t for n, t in bytes_.items() if n.endswith("_scale_inv")}
    assert all(n in str(faults(plain, floats | {n: scales[n]})) for n in scales)
    weights = {n for n, t in bytes_.items() if t.dtype == "F8_E4M3"}
    for tensor in last_of_each_kind({n: bytes_[n] for n in weights}):
        one = bytes_ | {tensor.name: replace(tensor, dtype="BF16")}
        assert tensor.name in str(faults(values, one))


# -- config.json -------------------------------------------------------------------


UNREAD = {"num_nextn_predict_layers"}
"""Ignored by name: layers that are left out, as their tensors say."""


@configs
def test_every_attribute_is_checked(values):
    """One that no parser looks at would let anything through."""
    for name in values.keys() - UNREAD:
        with pytest.raises(ValueError, match=name):
            from_hf(values | {name: {"no": "such"}})


ODD = (1e308, float("nan"), 10**30, 3, -1, True, None, "x", [], [None], {"a": 1})


@pytest.mark.filterwarnings("ignore:.* in config.json left out")
@pytest.mark.parametrize(
    "values",
    [pytest.param(dict(f.test_configs[-1]), id=f.name) for f in FAMILIES.values()],
)
@pytest.mark.filterwarnings("ignore:.*outside the vocabulary")
def test_values_of_any_type_are_read_or_refused(values):
    """A file of another tool would end in a traceback."""
    for place in _places(values):
        for odd in ODD:
            try:
                from_hf(_changed(values, place, odd))
            except ValueError as error:
                assert len(str(error)) < 3000, (place, odd)


def _places(values: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The attributes, and those of objects within."""
    inner = [
        (name, *place)
        for name, value in values.items()
        if isinstance(value, Mapping)
        for place in _places(value)
    ]
    return [*((name,) for name in values), ("quantization_config",), *inner]


def _changed(values: Mapping[str, Any], place: tuple[str, ...], value: Any) -> dict:
    name, *rest = place
    inner = _changed(values.get(name, {}), tuple(rest), value) if rest else value
    return {**values, name: inner}


@configs
def test_sizes_are_positive(values):
    """A model of nothing would be made, or one of negative size."""
    sizes = [
        name for name, value in values.items()
        if isinstance(value, int) and not isinstance(value, bool)
        and not name.endswith("token_id") and name not in UNREAD
    ]  # fmt: skip
    for name in sizes:
        with pytest.raises(ValueError, match=name):
            from_hf(values | {name: -3})


UNKNOWN = [
    {"layer_types": ["full_attention", "no_such"]},
    {"layer_types": ["no_such"] * 3},
    {"layer_types": ["no_such"] * 4},
    {"layer_types": "full_attention"},
    {"layer_types": []},
]


@configs
def test_kinds_of_layers_are_known(values):
    """A layer would be of another kind than its weights."""
    for change in UNKNOWN:
        with pytest.raises(ValueError, match="layer_types"):
            from_hf(values | change)


@configs
def test_what_does_not_divide_is_refused(values):
    """Heads would share keys unevenly, or experts be cut off."""
    config = from_hf(values)
    mixer = config.layers[-1].mixer
    changes: list[dict[str, Any]] = []
    if hasattr(mixer, "num_kv_heads"):
        changes.append({"num_key_value_heads": 3})
    if "linear_num_key_heads" in values:
        changes.append({"linear_num_value_heads": 3})
    if "n_group" in values:
        changes += [{"n_group": 3, "topk_group": 2}, {"n_group": 2, "topk_group": 4}]
    if "num_experts_per_tok" in values:
        changes.append({"num_experts_per_tok": 1000})
    if "sliding_window" in values:
        changes.append({"sliding_window": -1})
    assert changes
    for change in changes:
        with pytest.raises(ValueError, match="|".join([*change, "heads", "experts"])):
            from_hf(values | change)


# -- generations that share a model_type -------------------------------------------


@pytest.mark.parametrize("order", [1, -1])
def test_a_config_of_two_generations(order):
    """Ling's two generations share a model_type; a file that names both is neither."""
    first, second = (dict(FAMILIES[f].test_configs[0]) for f in LINGS)
    both = [*first["architectures"], *second["architectures"]][::order]
    with pytest.raises(ValueError, match="architectures.*one of"):
        find_family(first | {"architectures": both})


LINGS = ("bailing_moe", "bailing_moe_v2")


@pytest.mark.parametrize("one", LINGS)
def test_a_generation_with_the_other_ones_weights(one):
    """Weights of one would be run by the rules of the other."""
    (other,) = set(LINGS) - {one}
    tensors = tensors_of(FAMILIES[other].test_configs[0])
    assert faults(FAMILIES[one].test_configs[0], tensors)


def test_a_first_generation_with_the_second_ones_attributes():
    """Groups or a norm of queries would be left out."""
    first, second = (dict(FAMILIES[f].test_configs[0]) for f in LINGS)
    with pytest.raises(ValueError, match="use_qk_norm"):
        from_hf(second | {"architectures": first["architectures"]})
