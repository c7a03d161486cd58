"""Weights quantised while they are read: what quantising a model in memory gives."""

import jax
import numpy as np
import pytest

import jaxmoe
from convert import ConversionError, convert, export
from convert.__main__ import main
from jaxmoe.checkpoints import chunks, placement, quantise
from jaxmoe.checkpoints.manifest import read_manifest
from jaxmoe.checkpoints.quantise import Quantiser
from jaxmoe.nn.decoder import quantise_params
from jaxmoe.ops.int8 import quantise as quantised

STAY = ("embed", "norm", "router", "bias")


def same(found, expected):
    """Equal names, types and bits."""
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def model(make, dtype="bfloat16"):
    """A dense layer between two mixtures, and biases of projections."""
    path = make(shards=2, dtype=np.dtype(dtype), attention_bias=True)
    (path / "tokenizer.json").unlink()  # which is none
    return path


@pytest.mark.thorough
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_loaded_and_converted_as_in_memory(make, dtype, tmp_path, monkeypatch):
    """Answers would depend on where a model was quantised.

    In chunks of a few rows, so that a matrix is cut; files and float checkpoint alike.
    """
    directory = model(make, dtype)
    whole = jaxmoe.load(directory)
    config, expected = quantise_params(whole.config, whole.params)
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 400)
    found = jaxmoe.load(directory, weights="int8")
    assert found.config == config
    same(found.params, expected)
    for name, array in found.params.items():
        stays = any(part in name for part in STAY) and not name.endswith(".scales")
        assert (array.dtype == np.int8) != (stays or name.endswith(".scales")), name
    convert(directory, tmp_path / "floats")
    same(jaxmoe.load(tmp_path / "floats", weights="int8").params, expected)
    assert main([str(directory), str(tmp_path / "int8"), "--weights", "int8"]) == 0
    stored = jaxmoe.load(tmp_path / "int8")
    assert stored.config == config
    same(stored.params, expected)
    same(jaxmoe.load(tmp_path / "int8", weights="int8").params, expected)


def test_a_converted_one_is_checked_and_cannot_go_back(make, tmp_path):
    """A damaged byte of it would go unnoticed, or an export hold other weights."""
    directory = model(make)
    total = convert(directory, tmp_path / "int8", weights="int8", verify=True)
    assert str(total)
    manifest = read_manifest(tmp_path / "int8")
    assert manifest.weights == "int8"
    assert all(spec.sums and spec.crc32 for spec in manifest.params.values())
    with pytest.raises(ConversionError, match=r"int8.*no way back.*--weights"):
        export(tmp_path / "int8", tmp_path / "again")
    assert not (tmp_path / "again").exists()
    with pytest.raises(ValueError, match="float.*int8"):
        jaxmoe.load(tmp_path / "int8", weights="float")
    chunk = next((tmp_path / "int8" / "params" / "head.weight.scales").glob("[0-9]*"))
    raw = bytearray(chunk.read_bytes())
    raw[1] ^= 1
    chunk.write_bytes(raw)
    with pytest.raises(ValueError, match=r"head\.weight\.scales"):
        jaxmoe.load(tmp_path / "int8")


def test_workers_convert_as_one_process(make, tmp_path):
    """Integers and scales are parameters of their own, of perhaps two workers."""
    directory = model(make)
    convert(directory, tmp_path / "one", weights="int8")
    for part in ("1/2", "0/2"):
        command = [str(directory), str(tmp_path / "two"), "--weights", "int8"]
        assert main([*command, "--worker", part]) == 0
    one, two = (read_manifest(tmp_path / name) for name in ("one", "two"))
    assert one.digest == two.digest and one.source == two.source


@pytest.mark.parametrize("weights", ["int4", ""])
def test_other_formats_are_refused(make, tmp_path, weights):
    """They would be taken for the default, or fail after reading for an hour."""
    with pytest.raises(ValueError, match="weights must be one of float, int8"):
        jaxmoe.load(model(make), weights=weights)
    with pytest.raises(ConversionError, match="float or int8"):
        convert(tmp_path / "source", tmp_path / "out", weights=weights)
    assert not (tmp_path / "out").exists()


# -- parts of it ---------------------------------------------------------------------

SHAPE, OUTPUTS = (3, 4, 6, 5), (3, 4)


def _asked(stored=np.float16):
    wanted = {
        "w": jax.ShapeDtypeStruct(SHAPE, np.int8),
        "w.scales": jax.ShapeDtypeStruct(OUTPUTS, np.float32),
        "b": jax.ShapeDtypeStruct((4,), np.float32),
    }
    kinds = {"w": np.dtype(stored), "b": np.dtype(np.float32)}
    return wanted, Quantiser.of(wanted, kinds)


@pytest.mark.parametrize("scales_first", [False, True])
def test_a_part_has_the_numbers_of_the_whole(scales_first):
    """A scale of the columns on one device is not that of the whole row."""
    weight = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    expected = quantised(weight.reshape(*OUTPUTS, -1))
    _, quantiser = _asked()
    reads = []

    def reader(name):
        def read(index):
            reads.append(index)
            return weight[index].copy()

        assert name == "w"
        return read

    find = quantiser.reader(reader)
    rows = (slice(1, 3), slice(2, 4))
    columns = (slice(3, 6), slice(0, 5))
    scales = find("w.scales")(rows) if scales_first else None
    values = find("w")((*rows, *columns))
    if scales is None:
        before = len(reads)
        scales = find("w.scales")(rows)
        assert len(reads) == before  # kept, not read again
    np.testing.assert_array_equal(scales, expected.scales[1:3, 2:4])
    whole = expected.values.reshape(SHAPE)
    np.testing.assert_array_equal(values, whole[1:3, 2:4, 3:6])


def test_what_is_stored_as_int8_is_read_as_it_is():
    """It would be quantised once more."""
    wanted, quantiser = _asked(np.int8)
    assert not quantiser.shapes and quantiser.stored(wanted).keys() == wanted.keys()
    wanted, quantiser = _asked()
    stored = quantiser.stored(wanted)
    assert stored.keys() == {"w", "b"} and stored["w"].dtype == np.float32


def test_a_weight_is_never_whole_as_floats(make, monkeypatch):
    """Loading would need four times the memory of what it loads."""
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 400)
    largest = []
    real = quantise.quantise

    def watched(wide):
        largest.append(wide.nbytes)
        return real(wide)

    monkeypatch.setattr(quantise, "quantise", watched)
    jaxmoe.load(model(make), weights="int8")
    assert largest and max(largest) <= 400
    assert placement.STAGING_BYTES >= 400
