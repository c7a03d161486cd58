"""Bad input: one clear error before anything is written."""

import json
import os
import struct
import time
import warnings

import ml_dtypes
import numpy as np
import pytest

from convert import ConversionError, convert
from jaxmoe.checkpoints import weight_files

NORM = "model.norm.weight"
GATE = "model.layers.0.mlp.experts.3.gate_proj.weight"
FIELDS = ("hidden_size", "num_experts")
FIRST, SECOND = (f"model-0000{i}-of-00002.safetensors" for i in (1, 2))


def refused(source, *words) -> ConversionError:
    """Expects one error with all `words`, and nothing written."""
    with pytest.raises((ValueError, OSError)) as caught:
        convert(source, source.parent / "ckpt")
    for word in words:
        assert word in str(caught.value)
    assert [path.name for path in source.parent.iterdir()] == [source.name]
    return caught.value


def edit_header(path, change):
    """Rewrites a file's header in place; the tensors' bytes stay."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    text = change(json.loads(raw[8 : 8 + length]))
    text = text if isinstance(text, str) else json.dumps(text)
    data = text.encode()
    path.write_bytes(struct.pack("<Q", len(data)) + data + raw[8 + length :])


def edit_config(source, change):
    """Rewrites config.json."""
    config = json.loads((source / "config.json").read_text())
    change(config)
    (source / "config.json").write_text(json.dumps(config))


# -- files -------------------------------------------------------------------------


def test_truncated(make):
    """A file cut short by a broken download would give zeros."""
    source = make()
    path = source / weight_files.SINGLE
    path.write_bytes(path.read_bytes()[:-10])
    refused(source, "truncated", "expected", "download the file again")


def test_longer(make):
    """A file with bytes that no tensor owns would be taken."""
    source = make()
    path = source / weight_files.SINGLE
    path.write_bytes(path.read_bytes() + b"more")
    refused(source, "longer than its header says")


@pytest.mark.parametrize("size", [0, 7])
def test_empty(make, size):
    """An empty file would end in a traceback."""
    source = make()
    (source / weight_files.SINGLE).write_bytes(bytes(size))
    refused(source, f"found {size} bytes")


@pytest.mark.parametrize("length", [1 << 20, 1 << 63, (1 << 64) - 1])
def test_header_longer_than_the_file(make, length):
    """A wrong length would be allocated."""
    source = make()
    (source / weight_files.SINGLE).write_bytes(
        struct.pack("<Q", length) + b"{}" + bytes(100)
    )
    refused(source, f"header should take {length} bytes")


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '"a"', "\u00ff{}", "[" * 100_000, '{"a": 1}', '{"a": {}}', "{}x"],
)
def test_header_is_nonsense(make, text):
    """A corrupted header would end in a traceback."""
    source = make()
    edit_header(source / weight_files.SINGLE, lambda _: text)
    refused(source, weight_files.SINGLE, "download the file again")


def test_header_is_no_text(make):
    """Bytes that are no UTF-8 would end in a traceback."""
    source = make()
    path = source / weight_files.SINGLE
    path.write_bytes(struct.pack("<Q", 4) + b"\xff\xfe\x00\x01" + bytes(20))
    refused(source, "header is no text")


def _set(key, value):
    def change(header):
        header[NORM][key] = value
        return header

    return change


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (_set("data_offsets", [0, 32]), "overlaps"),
        (_set("data_offsets", [1 << 40, (1 << 40) + 32]), "gap"),
        (_set("data_offsets", [-32, 0]), "expected dtype, shape and data_offsets"),
        (_set("data_offsets", [32, 0]), "data_offsets [32, 0] hold -32"),
        (_set("data_offsets", [0, "1"]), "expected dtype, shape"),
        (_set("data_offsets", [0, 1, 2]), "expected dtype, shape"),
        (_set("shape", [17]), "takes 34 bytes"),
        (_set("shape", [-4, -4]), "expected dtype, shape"),
        (_set("shape", 16), "expected dtype, shape"),
        (_set("shape", [True] * 16), "expected dtype, shape"),
        (_set("dtype", "BF15"), "dtype BF15 is none of"),
        (_set("dtype", None), "expected dtype, shape"),
    ],
)
def test_header_contradicts_the_file(make, change, word):
    """Offsets that overlap or lead out of the file would be read."""
    source = make()
    edit_header(source / weight_files.SINGLE, change)
    refused(source, word, "download the file again")


def test_header_names_a_tensor_twice(make):
    """One of two entries of a name would be dropped."""
    source = make()
    edit_header(
        source / weight_files.SINGLE,
        lambda h: json.dumps(h)[:-1] + f', "{NORM}": {json.dumps(h[NORM])}}}',
    )
    refused(source, f"names twice: {NORM}")


# -- shards ------------------------------------------------------------------------


def edit_index(source, change):
    """Rewrites the weight map of the index."""
    index = json.loads((source / weight_files.INDEX).read_text())
    change(index["weight_map"])
    (source / weight_files.INDEX).write_text(json.dumps(index))


def test_missing_shard(make):
    """Its parameters would be missing without a word about the file."""
    source = make(shards=2)
    (source / SECOND).unlink()
    refused(source, SECOND, "expected this shard, found none")


def test_index_names_a_tensor_that_no_shard_has(make):
    """A stale index would pass."""
    source = make(shards=2)
    edit_index(source, lambda listed: listed.update({"other.weight": FIRST}))
    refused(source, "other.weight is in no file")


def test_index_leaves_a_tensor_out(make):
    """A tensor that only one file has would be refused, which transformers reads."""
    source = make(shards=2)
    edit_index(source, lambda listed: listed.pop(NORM))
    convert(source, source.parent / "ckpt")


def test_index_leaves_out_what_no_model_has(make):
    """A tensor nobody listed would be dropped."""

    def add(tensors):
        tensors["other.weight"] = np.zeros(3, np.float32)

    source = make(add, shards=2)
    edit_index(source, lambda listed: listed.pop("other.weight"))
    refused(source, "other.weight: expected one rule")


def test_tensor_in_the_wrong_shard(make):
    """An index of other files would pass."""
    source = make(shards=2)
    edit_index(
        source,
        lambda listed: listed.update(
            {NORM: FIRST if listed[NORM] == SECOND else SECOND}
        ),
    )
    refused(source, NORM, "model.safetensors.index.json says")


def test_two_shards_with_the_same_tensor(make):
    """Which of the two is converted would be chance."""
    source = make(shards=2)
    tensors = make.tensors(make.config)
    names = list(tensors)
    make.write_file(source / FIRST, {n: tensors[n] for n in names[::2]})
    make.write_file(source / SECOND, {n: tensors[n] for n in [*names[1::2], names[0]]})
    refused(source, f"{names[0]} is in {FIRST} and in {SECOND}")


@pytest.mark.parametrize("text", ["{", "{}", '{"weight_map": []}', "[]", "[" * 100_000])
def test_index_is_nonsense(make, text):
    """A corrupted index would end in a traceback."""
    source = make(shards=2)
    (source / weight_files.INDEX).write_text(text)
    refused(source, weight_files.INDEX, "expected an object with weight_map")


@pytest.mark.parametrize("how", ["../outside/x", "/{root}/outside/x", "a/../../x"])
def test_index_leads_out(make, how):
    """A checkpoint could make the converter read any file."""
    source = make(shards=2)
    file = how.format(root=source.parent)
    edit_index(source, lambda listed: listed.update({NORM: file}))
    refused(source, "the index leads out of it")


def test_link_to_nothing(make, tmp_path_factory):
    """A cache whose blobs were cleared would be reported as a file that is missing."""
    source = make(shards=2)
    outside = tmp_path_factory.mktemp("outside") / "x"
    (source / FIRST).unlink()
    (source / FIRST).symlink_to(outside)
    refused(source, f"a link to {outside}, where nothing is")


@pytest.mark.parametrize("name", [FIRST, weight_files.INDEX, "config.json"])
def test_a_pipe_is_no_file(make, name):
    """One would wait for ever for somebody to write into it."""
    source = make(shards=2)
    (source / name).unlink()
    os.mkfifo(source / name)
    refused(source, name, "expected")


def test_pickle(make):
    """A pickle would be opened, which executes what its author wrote."""
    source = make()
    (source / weight_files.SINGLE).rename(source / "pytorch_model.bin")
    refused(source, "found only pytorch_model.bin", "executes code")


def test_nothing_there(make):
    """A directory without weights would end in a traceback."""
    source = make()
    (source / weight_files.SINGLE).unlink()
    refused(source, "expected model.safetensors, or shards")
    make.write_file(source / "model-00001-of-00002.safetensors", {})
    refused(source, "download model.safetensors.index.json too")
    make.write_file(source / "model-00002-of-00002.safetensors", {})
    refused(source, "download model.safetensors.index.json too")


def test_an_adapter_is_no_model(make):
    """The weights of an adapter would be looked for those of a model."""
    source = make()
    (source / weight_files.SINGLE).rename(source / "adapter_model.safetensors")
    refused(source, "expected model.safetensors, or shards")


QUANTISED = [
    ("model.layers.0.mlp.experts.3.down_proj.qweight", np.int32),
    ("model.layers.0.mlp.experts.3.down_proj.qzeros", np.int32),
    ("model.layers.0.mlp.experts.3.down_proj.scales", np.float16),
    ("model.layers.0.mlp.experts.3.down_proj.weight_packed", np.int32),
    ("model.layers.0.mlp.experts.3.down_proj.weight_scale", np.float32),
    ("model.layers.0.self_attn.q_proj.weight_scale_inv", np.float32),
    ("model.layers.0.self_attn.k_scale", np.float32),
    ("model.layers.0.mlp.experts.down_proj_blocks", np.uint8),
    ("model.layers.0.self_attn.q_proj.weight.absmax", np.float32),
    ("model.layers.0.self_attn.q_proj.W_q", np.uint8),
    ("model.layers.0.self_attn.q_proj.codes", np.int16),
    ("model.layers.0.self_attn.q_proj.centroids", np.float16),
    ("model.layers.0.self_attn.q_proj.weight._data", np.int8),
    ("model.layers.0.self_attn.q_proj.weight:_scale", np.float32),
    (GATE, ml_dtypes.float8_e4m3fn),
    (GATE, ml_dtypes.float8_e8m0fnu),
]


@pytest.mark.parametrize(("name", "dtype"), QUANTISED)
@pytest.mark.parametrize("shards", [1, 2])
def test_quantised_weights_say_so(make, name, dtype, shards):
    """One would download the same files again, or read hundreds of lines."""

    def quantise(tensors):
        shape = tensors[name].shape if name in tensors else (2, 2)
        tensors[name] = np.zeros(shape, dtype)

    error = refused(make(quantise, shards=shards), "quantised", "bfloat16")
    assert "download the file again" not in str(error)
    assert len(str(error).splitlines()) == 1


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32])
def test_integers_without_scales_say_so(make, dtype):
    """One would look for the type of a tensor in a tool that quantised it."""

    def quantise(tensors):
        tensors[GATE] = np.zeros(tensors[GATE].shape, dtype)

    refused(make(quantise), GATE, "quantised weights", "bfloat16")


def test_floats_among_fp8_say_so(make):
    """Which attribute names the modules that are floats would have to be known."""

    def quantise(tensors):
        tensors[GATE] = tensors[GATE].astype(ml_dtypes.float8_e4m3fn)
        tensors[GATE + "_scale_inv"] = np.ones((1, 1), np.float32)

    source = make(quantise)
    added = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    edit_config(source, lambda config: config.update(quantization_config=added))
    refused(source, "expected F8_E4M3, found BF16", "modules_to_not_convert")


@pytest.mark.parametrize("dtype", ["F4", "F6_E2M3", "F8_E5M2FNUZ"])
def test_types_of_quantisers_say_so(make, dtype):
    """The same for a type of which not even the size is known here."""
    source = make()
    edit_header(source / weight_files.SINGLE, _set("dtype", dtype))
    error = refused(source, "quantised", dtype)
    assert "download the file again" not in str(error)


@pytest.mark.parametrize("method", ["fp8", "gptq", "awq", "mxfp4", "bitsandbytes"])
def test_a_quantised_config_says_so(make, method):
    """Its one unknown attribute would be reported as any other."""
    source = make()
    added = {"quantization_config": {"quant_method": method}}
    edit_config(source, lambda config: config.update(added))
    refused(source, "quantised", method, "bfloat16", "--ignore quantization_config")


@pytest.mark.parametrize(
    ("name", "value"), [("num_hidden_layers", 9_000), ("num_experts", 65_000)]
)
def test_a_much_larger_config_is_refused_at_once(make, name, value):
    """Millions of missing tensors would be listed before three are shown."""
    source = make()
    edit_config(source, lambda config: config.update({name: value}))
    begin = time.perf_counter()
    refused(source, "different models")
    assert time.perf_counter() - begin < 5


def test_single_and_sharded(make):
    """Which of two models is converted would be chance."""
    source = make(shards=2)
    make.write_file(source / weight_files.SINGLE, {})
    refused(source, "remove the stale one")


# -- tensors -----------------------------------------------------------------------


def test_all_failures_at_once(make):
    """One would have to convert again and again to learn of them all."""

    def spoil(tensors):
        tensors[NORM] = np.zeros(17, ml_dtypes.bfloat16)
        tensors["lm_head.weight"] = np.zeros((40, 16), np.int32)
        del tensors[GATE]
        tensors["visual.weight"] = np.zeros(3, np.float32)
        tensors["model.layers.3.input_layernorm.weight"] = np.zeros(16, np.float32)
        old = "model.layers.0.mlp.experts.3."
        tensors[old.replace("3", "8") + "up_proj.weight"] = tensors[
            old + "up_proj.weight"
        ]
        name = "model.layers.2.mlp.experts.1.up_proj.weight"
        tensors[name] = tensors[name].astype(np.float32)
        name = "model.layers.0.self_attn.q_proj.weight"
        tensors[name] = np.ascontiguousarray(tensors[name].T)

    error = refused(
        make(spoil, shards=2),
        f"{NORM}: expected shape (16,), found (17,)",
        "lm_head.weight: expected BF16 or F16 or F32, found I32",
        f"layers.0.feed_forward.gate_up: tensors are missing: {GATE}",
        "visual.weight: expected one rule",
        "model.layers.3.input_layernorm.weight: the config has no place",
        "model.layers.0.mlp.experts.8.up_proj.weight: the config has no place",
        "layers.2.feed_forward.gate_up: expected tensors of one type",
        "q_proj.weight: expected shape (24, 16), found (16, 24)",
    )
    assert isinstance(error, ConversionError)
    assert len(error.failures) == 8


def test_both_layouts_of_one_layer(make):
    """Half the experts would be written twice."""

    def both(tensors):
        return tensors | make.fuse(tensors, 0)

    refused(make(both), "layers.0.feed_forward.gate_up already has this part")


def test_a_whole_layer_is_missing(make):
    """The message would not say which tensors would do."""

    def drop(tensors):
        return {n: t for n, t in tensors.items() if ".layers.2.mlp.ex" not in n}

    refused(make(drop), "layers.2.feed_forward.down: tensors are missing: model.layers")


def test_many_failures_are_abridged(make):
    """A config of another model would print thousands of lines."""
    source = make()
    edit_config(source, lambda config: config.update(hidden_size=32))
    error = refused(source, "more")
    assert isinstance(error, ConversionError)
    assert len(error.failures) > 60
    assert len(str(error).splitlines()) < 70


@pytest.mark.thorough
@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, np.float32])
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
def test_nan_warns(make, tmp_path, dtype, value):
    """Broken weights would pass without a word, or be refused."""

    def spoil(tensors):
        for name, tensor in tensors.items():
            tensors[name] = tensor.astype(dtype)
        tensors[GATE][2, 3] = value

    source = make(spoil)
    with pytest.warns(UserWarning) as caught:
        convert(source, tmp_path / "ckpt")
    (warning,) = caught
    what = "infinite" if np.isinf(value) else "NaN"
    assert str(warning.message).startswith(f"{GATE} holds 1 {what} values")


def test_large_weights_do_not_warn(make, tmp_path):
    """The largest finite values would be taken for infinity."""

    def enlarge(tensors):
        tensors[GATE][:] = ml_dtypes.finfo(ml_dtypes.bfloat16).max
        tensors[GATE][1:] *= -1

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        convert(make(enlarge), tmp_path / "ckpt")


# -- config ------------------------------------------------------------------------


def test_unknown_architecture(make):
    """Another architecture would be converted by the wrong rules."""
    source = make()
    edit_config(source, lambda config: config.update(model_type="llama"))
    refused(source, "model_type", "llama")


def test_config_lacks_fields(make):
    """A default would stand in for a shape."""
    source = make()
    edit_config(source, lambda config: [config.pop(k) for k in FIELDS])
    refused(source, "hidden_size", "num_experts")


def test_config_unreadable(make):
    """It would end in a traceback."""
    source = make()
    (source / "config.json").write_text("{")
    refused(source, "config.json")


def test_config_missing(make):
    """It would end in a traceback."""
    source = make()
    (source / "config.json").unlink()
    refused(source, "config.json")
