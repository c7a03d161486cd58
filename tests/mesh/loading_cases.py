"""Loading onto 8 devices; run by eight_devices_test.py in a process of its own."""

import jax
import numpy as np
import pytest

import jaxmoe
from jaxmoe.checkpoints import store
from jaxmoe.cli import random_checkpoint
from tests.mesh.cases import KEY, MESHES, held_bytes, on_mesh, same_bits


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A converted random checkpoint: 32 experts, mostly weights of experts."""
    folder = tmp_path_factory.mktemp("loading")
    options = {"hidden_size": 64, "num_local_experts": 32, "num_experts_per_tok": 4}
    options |= {"num_attention_heads": 8, "num_key_value_heads": 4}
    options |= {"moe_intermediate_size": 256, "num_hidden_layers": 2}
    changes = [f"--set={name}={value}" for name, value in options.items()]
    assert (
        random_checkpoint.main([str(folder / "hf"), "--preset", "tiny", *changes]) == 0
    )
    from convert.__main__ import main as convert

    assert convert([str(folder / "hf"), str(folder / "ckpt")]) == 0
    return folder / "ckpt"


@pytest.mark.parametrize("shape", MESHES, ids=str)
def test_every_device_holds_its_share(path, shape):
    """A device would hold the whole model, or much more than its part of it."""
    mesh = jax.make_mesh(shape, ("data", "model"))
    model = jaxmoe.load(path, mesh=mesh, rules="expert")
    total = store.read_manifest(path).nbytes
    held = held_bytes(model.params)
    assert max(held.values()) <= 1.1 * total / 8


def test_loading_is_placing(path):
    """What is read shard by shard would differ from what is loaded whole."""
    shape = (2, 4)
    mesh = jax.make_mesh(shape, ("data", "model"))
    whole, parts = jaxmoe.load(path), jaxmoe.load(path, mesh=mesh)
    assert parts.layout is not None and parts.layout.mesh.size == 8
    placed = on_mesh(whole, shape)
    for name, weight in parts.params.items():
        assert weight.dtype == placed.params[name].dtype
        assert weight.sharding.is_equivalent_to(
            placed.params[name].sharding, weight.ndim
        )
        np.testing.assert_array_equal(weight, whole.params[name])
    options = {"key": KEY, "n": 4, "max_new_tokens": 8, "return_routes": True}
    one, other = (jaxmoe.sample(m, [[1, 2, 3]], **options) for m in (parts, placed))
    assert isinstance(one, list) and isinstance(other, list)
    assert same_bits(one[0], other[0])


@pytest.mark.parametrize("rules", ["auto", "tensor"])
def test_quantising_shards_is_quantising_the_whole(path, rules):
    """A device that holds some inputs of an output would scale by these alone."""
    mesh = jax.make_mesh((2, 4), ("data", "model"))
    whole = jaxmoe.load(path, weights="int8")
    parts = jaxmoe.load(path, weights="int8", mesh=mesh, rules=rules)
    for name, weight in parts.params.items():
        np.testing.assert_array_equal(weight, whole.params[name], err_msg=name)


def test_a_mesh_of_one_device(path):
    """It would be refused, or the model would land on the first device instead."""
    device = jax.devices()[3]
    mesh = jax.make_mesh((1, 1), ("data", "model"), devices=[device])
    placed = jaxmoe.load(path, mesh=mesh)
    assert placed.layout is None
    assert all(weight.devices() == {device} for weight in placed.params.values())


def test_a_model_that_does_not_divide_is_refused(path, untyped):
    """The error would come from a sharding deep inside, after reading for minutes."""
    mesh = jax.make_mesh((1, 8), ("data", "model"))
    with pytest.raises(ValueError, match="rules must be one of"):
        jaxmoe.load(path, mesh=mesh, rules="experts")  # type: ignore[arg-type]
    mesh = jax.make_mesh((1, 6), ("data", "model"), devices=jax.devices()[:6])
    with pytest.raises(ValueError, match=r"32 experts over 6 devices.*nearest: 4 or 8"):
        jaxmoe.load(path, mesh=mesh, rules="expert")
