"""Loading: one function for every format, checked before any work."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import convert
import jaxmoe
from convert import ConversionError
from jaxmoe.router.scores import ExtraExperts, SigmoidScores, SoftmaxScores
from tests.hugging_face import make
from tests.tiny import tiny_config

__all__ = ["make"]


@pytest.mark.parametrize("dtype", [None, "float32", "fp16", jnp.bfloat16])
def test_every_format_gives_the_same_model(make, tmp_path, dtype):
    """Weights, types or config would depend on the format."""
    source = make(shards=2)
    for name in ("tokenizer.json", "chat_template.jinja"):
        (source / name).unlink()
    convert.convert(source, tmp_path / "ckpt")
    expected = jaxmoe.load(tmp_path / "ckpt", dtype=dtype)
    for load in (jaxmoe.load, convert.load):
        found = load(source, dtype=dtype)
        assert found.config == expected.config
        assert found.params.keys() == expected.params.keys()
        for name, value in expected.params.items():
            mine = found.params[name]
            assert (mine.dtype, mine.sharding) == (value.dtype, value.sharding)
            assert np.asarray(mine).tobytes() == np.asarray(value).tobytes(), name


def test_the_type_asked_for():
    """Weights would stay in the type of the files without a word."""
    single = jaxmoe.load("demo", dtype="fp32").params
    half = jaxmoe.load("demo", dtype="half").params
    assert {value.dtype.name for value in single.values()} == {"float32"}
    # A CPU holds float16 as float32 (`jaxmoe.ops.bf16_bits.hold_for`).
    for name, value in single.items():
        assert np.array_equal(half[name], value.astype(jnp.float16)), name


def test_load_checks_as_a_conversion_does(make):
    """A model of missing tensors would be loaded."""

    def drop(tensors):
        del tensors["model.norm.weight"]

    with pytest.raises(ConversionError, match="final_norm.scale: tensors are missing"):
        jaxmoe.load(make(drop))


@pytest.mark.parametrize("load", [jaxmoe.load, convert.load])
@pytest.mark.parametrize("dtype", ["int8", np.float64, "torch.float16"])
def test_other_types_are_refused_before_any_work(load, dtype):
    """dtype="int8" would sample from weights cut to whole numbers."""
    with pytest.raises(ValueError, match="dtype must be one of bfloat16"):
        load("/no/such/checkpoint", dtype=dtype)


def test_the_tokenizer_comes_along():
    """A model of Hugging Face files could not be asked in text."""
    model = jaxmoe.load("demo")
    assert model.tokenizer is not None
    assert model.decode(model.encode("2,5=7:")) == "2,5=7:"
    assert jax.tree.leaves(model.params)


def test_rarer_experts_weigh_by_either_reading():
    """A model that normalises would change, or one that does not would stay."""

    def reading(scoring, weights, **options):
        layers = tiny_config().layers
        moe = replace(layers[1].feed_forward, scoring=scoring)
        config = tiny_config(layers=(layers[0], replace(layers[1], feed_forward=moe)))
        found = jaxmoe.Model(config, {}).weighing(weights, **options).config
        return found.layers[1].feed_forward.scoring

    plain, normal = SoftmaxScores(False), SoftmaxScores(True)
    assert reading(plain, "chosen") == replace(plain, keep_sum=True)
    assert reading(replace(plain, keep_sum=True), "model") == plain
    assert reading(normal, "chosen") == normal
    softly = replace(plain, extra=ExtraExperts(4, 0.5))
    assert reading(plain, "model", alpha=0.5) == softly
    assert reading(normal, "chosen", alpha=0.5) == replace(normal, extra=softly.extra)
    assert reading(softly, "model") == plain
    with pytest.raises(ValueError, match="alpha=0.5 .*choice bias"):
        reading(SigmoidScores(choice_bias=True), "model", alpha=0.5)
    with pytest.raises(ValueError, match="choice bias.*weights='model'"):
        reading(SigmoidScores(False, choice_bias=True), "chosen")
