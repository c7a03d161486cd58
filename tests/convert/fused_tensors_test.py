"""Tensors that are rows of several parameters; weights that keep their type."""

import json
import warnings
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from convert import convert, export
from jaxmoe.checkpoints.source import open_source
from jaxmoe.config import LayerConfig, MoEConfig
from jaxmoe.families.base import TensorRule
from jaxmoe.families.common_tensors import PROJECTIONS
from jaxmoe.families.registry import FAMILIES
from jaxmoe.nn.decoder import abstract_params, always_wide
from jaxmoe.router.scores import SigmoidScores
from tests.hugging_face import CONFIG, make_tensors, write_checkpoint

LAYER = "model.layers.{i}."
MIXER = "layers.{i}.mixer."
QKV = LAYER + "self_attn.qkv.weight"
BIAS = LAYER + "mlp.gate.e_score_correction_bias"
FIRST = FAMILIES["qwen3_moe"]


@pytest.fixture
def family(monkeypatch):
    """A family with fused projections, a bias of choice, and layers after the last."""

    def read_config(a, g):
        config = FIRST.read_config(a, g)

        def changed(layer: LayerConfig) -> LayerConfig:
            ff = layer.feed_forward
            if not isinstance(ff, MoEConfig):
                return layer
            scoring = SigmoidScores(choice_bias=True)
            return replace(layer, feed_forward=replace(ff, scoring=scoring))

        layers = tuple(changed(layer) for layer in config.layers)
        return replace(config, layers=layers, family="fused")

    parts = tuple(MIXER + f"{letter}.weight" for letter in "qkv")
    rules = (
        TensorRule(QKV, parts, merge=(0, 1)),
        TensorRule(BIAS, "layers.{i}.feed_forward.router.choice_bias"),
        *(rule for rule in FIRST.tensors if rule not in PROJECTIONS[:3]),
    )
    found = replace(
        FIRST,
        name="fused",
        model_type="fused",
        read_config=read_config,
        tensors=rules,
        beyond=(LAYER,),
    )
    monkeypatch.setitem(FAMILIES, "fused", found)
    return CONFIG | {"model_type": "fused", "torch_dtype": "bfloat16"}


def test_rows_of_one_tensor_are_several_parameters(family, tmp_path, trees):
    """Keys would be queries; or the way back be another file."""
    tensors = make_tensors(family)
    name = QKV.format(i=2)
    fused = tensors[name]
    assert fused.shape == ((4 + 2 + 2) * 6, 16)
    source = write_checkpoint(tmp_path / "hf", family, tensors, shards=2)
    convert(source, tmp_path / "ckpt", verify=True)
    wanted = np.split(fused, [24, 36])
    for path in (source, tmp_path / "ckpt"):
        opened = open_source(path)
        params = opened.read(abstract_params(opened.config, jnp.bfloat16))
        for letter, part in zip("qkv", wanted, strict=True):
            param = np.asarray(params[f"layers.2.mixer.{letter}.weight"])
            assert param.tobytes() == part.tobytes()
    export(tmp_path / "ckpt", tmp_path / "again")
    assert trees(tmp_path / "again") == trees(source)


@pytest.mark.parametrize("change", ["missing", "short", "extra"])
def test_a_fused_tensor_that_does_not_fit(family, tmp_path, change):
    """A part of a projection would be another's, or stay empty."""
    tensors, name = make_tensors(family), QKV.format(i=0)
    if change == "missing":
        del tensors[name]
    elif change == "short":
        tensors[name] = tensors[name][:-6]
    else:
        tensors[QKV.format(i=3)] = tensors[name]
    source = write_checkpoint(tmp_path / "hf", family, tensors)
    if change == "extra":
        assert open_source(source).plan.beyond == (QKV.format(i=3),)
        return
    with pytest.raises(ValueError, match=name):
        open_source(source)


def test_layers_after_the_last_are_left_out_and_said(family, tmp_path, trees):
    """They would be refused, or vanish on the way without a word."""
    tensors = make_tensors(family)
    plain = write_checkpoint(tmp_path / "plain", family, tensors)
    more = {f"model.layers.3.{n}": np.ones(3, np.float32) for n in ("eh_proj", "norm")}
    source = write_checkpoint(tmp_path / "hf", family, tensors | more)
    with pytest.warns(UserWarning, match=r"2 tensors, model\.layers\.3\.eh_proj"):
        convert(source, tmp_path / "ckpt")
    with pytest.warns(UserWarning, match=r"2 tensors, model\.layers\.3\.eh_proj"):
        export(tmp_path / "ckpt", tmp_path / "again")
    assert trees(tmp_path / "again") == trees(plain)
    assert open_source(source).digest() == open_source(tmp_path / "ckpt").digest()


def test_a_bias_of_choice_is_never_cast(family, tmp_path):
    """bfloat16 has three digits; near-ties would be decided otherwise."""
    tensors, name = make_tensors(family), BIAS.format(i=2)
    assert tensors[name].dtype == np.float32
    assert tensors[QKV.format(i=2)].dtype == jnp.bfloat16
    source = write_checkpoint(tmp_path / "hf", family, tensors)
    config = open_source(source).config
    param = "layers.2.feed_forward.router.choice_bias"
    assert param in always_wide(config) and len(always_wide(config)) == 2
    convert(source, tmp_path / "ckpt", dtype="bfloat16")
    stored = open_source(tmp_path / "ckpt")
    assert stored.params[param].dtype == "float32"
    read = stored.read(abstract_params(config, jnp.bfloat16))
    assert np.asarray(read[param]).tobytes() == tensors[name].tobytes()
    export(tmp_path / "ckpt", tmp_path / "again")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = open_source(tmp_path / "again")
    assert again.digest() == stored.digest()
    assert json.loads((tmp_path / "again" / "config.json").read_text()) == family
