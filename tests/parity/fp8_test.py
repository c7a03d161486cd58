"""FP8 as it is released, beside transformers' floats of the same bytes."""

import numpy as np
import pytest

import jaxmoe
from jaxmoe.families.registry import FAMILIES
from jaxmoe.ops.fp8 import DTYPE, dequantise
from tests.hugging_face import make_tensors, write_checkpoint

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
fp8 = pytest.importorskip("transformers.integrations.finegrained_fp8")
pytestmark = pytest.mark.parity

BLOCK = (4, 2)
CONFIGS = {
    "qwen3_moe": 0,
    "deepseek_v3": 0,
    "minimax_m2": 0,
    "qwen3_5_moe": 0,
}
"""Released in FP8; which test configuration has widths that blocks divide, as
transformers needs them to."""


def _tensors(config):
    """Random weights, those in FP8 with scales that give them their usual size."""
    random = np.random.default_rng(0)
    tensors = make_tensors(config, np.float32)
    for name, tensor in tensors.items():
        if name.endswith("_scale_inv"):
            width = tensors[name.removesuffix("_scale_inv")].shape[-1]
            size = random.uniform(0.5, 1.5, tensor.shape)
            tensors[name] = (size / width**0.5).astype(np.float32)
        elif name.endswith("A_log"):
            tensors[name] = np.log(random.uniform(0.02, 0.5, tensor.shape)).astype("f4")
        elif tensor.dtype == np.float32 and tensor.ndim > 1 and "embed" not in name:
            tensors[name] = tensor / np.float32(tensor.shape[-1] ** 0.5)
        elif tensor.dtype == np.float32 and tensor.ndim == 1:
            tensors[name] = (0.2 * tensor + ("norm" in name)).astype(np.float32)
    return tensors


def _transformers_floats(tensors):
    """Every weight as transformers dequantises it, checked against our reference."""
    unpack = fp8.Fp8Dequantize(None)._dequantize_one
    found = {}
    for name, tensor in tensors.items():
        if name.endswith("_scale_inv"):
            continue
        scales = tensors.get(name + "_scale_inv")
        if scales is None:
            found[name] = tensor
            continue
        values = torch.from_numpy(tensor.view(np.uint8)).view(torch.float8_e4m3fn)
        wide = unpack(values, torch.from_numpy(scales), torch.float32).numpy()
        np.testing.assert_array_equal(wide, dequantise(tensor, scales, BLOCK))
        found[name] = wide
    return found


@pytest.mark.parametrize("family", CONFIGS)
def test_computes_what_transformers_computes(tmp_path, family):
    """Promise 1 on FP8's own bytes: a scale of another block moves every logit."""
    plain = dict(FAMILIES[family].test_configs[CONFIGS[family]])
    quantised = {"quant_method": "fp8", "weight_block_size": [*BLOCK]}
    config = plain | {"quantization_config": quantised}
    tensors = _tensors(config)
    files = write_checkpoint(tmp_path / "fp8", config, tensors)
    floats = write_checkpoint(tmp_path / "floats", plain, _transformers_floats(tensors))
    for path in (files, floats):
        (path / "tokenizer.json").unlink()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        floats, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    ours = jaxmoe.load(files)
    assert sum(a.dtype == DTYPE for a in ours.params.values()) > 3
    ids = np.random.default_rng(1).integers(8, config["vocab_size"], 70)
    with torch.no_grad():
        reference = theirs(torch.tensor(ids)[None]).logits[0].numpy()
    logits = np.asarray(jaxmoe.forward(ours, ids))
    assert np.abs(logits - reference).max() <= 1e-4 * np.abs(reference).max()
