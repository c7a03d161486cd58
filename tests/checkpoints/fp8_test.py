"""FP8 weights in files: placed as they lie, made floats if asked, whole or refused."""

import json

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import jaxmoe
from convert import convert, export
from convert.errors import ConversionError
from jaxmoe.checkpoints.errors import CheckpointError
from jaxmoe.checkpoints.safetensors import Files
from jaxmoe.checkpoints.weight_files import open_weights
from jaxmoe.families.fp8 import NAME
from jaxmoe.families.gpt_oss import GPT_OSS
from jaxmoe.ops.fp8 import DTYPE, dequantise
from tests.hugging_face import CONFIG, make_tensors, write_checkpoint

BLOCK = (8, 6)
QUANTISED = {
    "activation_scheme": "dynamic",
    "fmt": "e4m3",
    "modules_to_not_convert": ["lm_head", "model.layers.0.mlp.gate"],
    "quant_method": "fp8",
    "weight_block_size": [*BLOCK],
}
FP8 = CONFIG | {"quantization_config": QUANTISED}
Q = "model.layers.0.self_attn.q_proj.weight"
DOWN = "model.layers.2.mlp.experts.3.down_proj.weight"


@pytest.fixture
def files(tmp_path):
    """Writes a checkpoint whose tensors were changed; its path and they."""

    def write(change=lambda tensors: None, **config):
        tensors = make_tensors(FP8)
        change(tensors)
        path = write_checkpoint(tmp_path / "source", FP8 | config, tensors, shards=2)
        (path / "tokenizer.json").unlink()
        return path, tensors

    return write


def test_placed_as_it_lies_and_back(files, tmp_path):
    """A byte would be cast, or held as a float; an export be another."""

    def as_qwen_has_them(tensors):
        for name in tensors:
            if name.endswith("_scale_inv"):
                tensors[name] = tensors[name].astype(ml_dtypes.bfloat16)

    path, tensors = files(as_qwen_has_them)
    model = jaxmoe.load(path, dtype="float32")
    q = model.params["layers.0.mixer.q.weight"]
    assert q.dtype == DTYPE and model.params["head.weight"].dtype == jnp.float32
    assert np.asarray(q).tobytes() == tensors[Q].tobytes()
    scales = model.params["layers.2.feed_forward.down.scales"]
    assert scales.dtype == jnp.float32 and scales.shape == (8, 2, 2)
    np.testing.assert_array_equal(scales[3], tensors[DOWN + "_scale_inv"])
    assert model.params["layers.2.feed_forward.gate_up.scales"].shape == (8, 2, 2, 3)
    convert(path, tmp_path / "ckpt", verify=True)
    again = jaxmoe.load(tmp_path / "ckpt", dtype="float32")
    assert again.config == model.config
    for name, array in model.params.items():
        np.testing.assert_array_equal(array, again.params[name])
    export(tmp_path / "ckpt", tmp_path / "out")
    for one in path.iterdir():
        assert one.read_bytes() == (tmp_path / "out" / one.name).read_bytes()


def test_made_floats_by_a_conversion(files, tmp_path):
    """Scales of another row, or a config that still says FP8."""
    path, tensors = files()
    convert(path, tmp_path / "ckpt", dtype="bfloat16", verify=True)
    config = json.loads((tmp_path / "ckpt" / "config.json").read_text())
    assert "quantization_config" not in config
    model = jaxmoe.load(tmp_path / "ckpt")
    assert model.config.weights == "float"
    export(tmp_path / "ckpt", tmp_path / "out")
    exported = open_weights(tmp_path / "out")
    names = {name for name in tensors if not name.endswith("_scale_inv")}
    assert exported.tensors.keys() == names
    with Files(tmp_path / "out", [h.file for h in exported.headers]) as out:
        for name in names:
            tensor, wanted = exported.tensors[name], tensors[name]
            if name + "_scale_inv" in tensors:
                wanted = dequantise(wanted, tensors[name + "_scale_inv"], BLOCK)
            raw = np.empty(tensor.nbytes, np.uint8)
            out.read(tensor.file, tensor.offset, raw)
            assert tensor.dtype == "BF16"
            assert raw.tobytes() == wanted.astype(ml_dtypes.bfloat16).tobytes(), name


@pytest.mark.thorough
def test_a_model_of_it_is_that_of_its_floats(files, tmp_path):
    """Prefill would multiply by other weights than the file describes."""
    path, _ = files()
    convert(path, tmp_path / "ckpt", dtype="float32")
    prompt = np.arange(8, 19)
    packed, floats = (
        np.asarray(jaxmoe.forward(jaxmoe.load(p, dtype="float32"), prompt))
        for p in (path, tmp_path / "ckpt")
    )
    assert np.abs(packed - floats).max() <= 1e-5 * np.abs(floats).max()


def _pop(name):
    return lambda tensors: tensors.pop(name)


def _put(name, change):
    return lambda tensors: tensors.update({name: change(tensors[name])})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_pop(Q + "_scale_inv"), f"missing: {Q}_scale_inv"),
        (_pop(DOWN + "_scale_inv"), f"missing: {DOWN}_scale_inv"),
        (_pop(DOWN), f"missing: {DOWN}$"),
        (_put(Q + "_scale_inv", lambda s: s[:1]), r"expected shape \(3, 3\)"),
        (_put(Q, lambda w: w.astype(np.float32)), "expected F8_E4M3, found F32"),
        (_put("lm_head.weight", lambda w: w.astype(DTYPE)), "F8_E4M3"),
        (
            _put(Q + "_scale_inv", lambda s: s.astype(ml_dtypes.float8_e8m0fnu)),
            "F8_E8M0",
        ),
    ],
)
def test_half_of_it_is_refused(files, change, told):
    """Weights would be off by their scales, without a word."""
    path, _ = files(change)
    with pytest.raises(CheckpointError, match=f"(?m){told}"):
        jaxmoe.load(path)


def test_a_config_that_says_nothing_of_it_is_refused(files):
    """Bytes of FP8 would be taken for the weights."""
    path, _ = files(quantization_config=None)
    with pytest.raises(CheckpointError, match="F8_E4M3.*quantization_config"):
        jaxmoe.load(path)


@pytest.mark.parametrize("family", ["fp8", "mxfp4"])
def test_floats_with_a_stale_entry_are_told_so(files, tmp_path, family):
    """Somebody made them floats and left config.json as it was."""
    if family == "fp8":
        path = write_checkpoint(tmp_path / "s", FP8, make_tensors(CONFIG))
    else:
        quantised = next(c for c in GPT_OSS.test_configs if NAME in c)
        plain = {k: v for k, v in quantised.items() if k != NAME}
        path = write_checkpoint(tmp_path / "s", quantised, make_tensors(plain))
    (path / "tokenizer.json").unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match="stale.*--ignore quantization") as told:
        jaxmoe.load(path)
    assert len(str(told.value).splitlines()) == 1
    assert jaxmoe.load(path, ignore=[NAME]).config.layers


def test_it_is_not_quantised_again(files, tmp_path):
    """Experts would be rounded twice."""
    path, _ = files()
    with pytest.raises(ValueError, match="int8.*fp8"):
        jaxmoe.load(path, weights="int8")
    with pytest.raises(ConversionError, match="int8.*FP8.*--dtype bfloat16"):
        convert(path, tmp_path / "out", weights="int8")


@pytest.mark.parametrize("scale", [0, -0.5])
def test_scales_that_are_none_are_told(files, tmp_path, scale):
    """A block would be zeros, or have all its signs turned."""

    def spoil(tensors):
        tensors[Q + "_scale_inv"][1, 2] = scale

    path, _ = files(spoil)
    with pytest.warns(UserWarning, match=r"mixer\.q\.weight\.scales .*above 0"):
        jaxmoe.load(path)
    with pytest.warns(UserWarning, match=f"{Q}_scale_inv holds 1 zero or negative"):
        convert(path, tmp_path / "out")
    with pytest.warns(UserWarning, match=f"{Q}_scale_inv holds 1 zero or negative"):
        convert(path, tmp_path / "floats", dtype="float32")


def test_what_is_no_number_is_told(files, tmp_path):
    """The vectorised loop would take NaN for 480."""

    def spoil(tensors):
        tensors[Q][1, 2] = np.nan

    path, _ = files(spoil)
    with pytest.warns(UserWarning, match=r"layers\.0\.mixer\.q\.weight.*NaN"):
        jaxmoe.load(path)
    with pytest.warns(UserWarning, match=f"{Q} holds 1 NaN"):
        convert(path, tmp_path / "out")
