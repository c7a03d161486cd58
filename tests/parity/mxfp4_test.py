"""GPT-OSS as it is released: experts in MXFP4, beside transformers' floats of them."""

import jax
import numpy as np
import pytest

import jaxmoe
from convert import convert, export
from jaxmoe import TokenSampler, TopK
from jaxmoe.checkpoints.plan import default_tensors
from jaxmoe.families.config_json import from_hf
from jaxmoe.families.gpt_oss import GPT_OSS, RELEASED
from jaxmoe.nn.decoder import abstract_params
from tests.hugging_face import write_checkpoint

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

RELEASE = RELEASED["gpt-oss-20b"]
CONFIG = dict(GPT_OSS.test_configs[0]) | {
    "intermediate_size": 96,
    "quantization_config": RELEASE["quantization_config"],
}
TOKENS = 80


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A random checkpoint, every byte of blocks among it."""
    random = np.random.default_rng(0)

    def values(name, kind, shape):
        if kind == np.uint8:
            low, high = (122, 126) if name.endswith("scales") else (0, 256)
            return random.integers(low, high, shape, np.uint8)
        found = random.normal(size=shape)
        if len(shape) > 1 and "embed" not in name:
            found /= shape[-1] ** 0.5
        return (found + ("norm" in name)).astype(np.float32)

    wanted = default_tensors(GPT_OSS, abstract_params(from_hf(CONFIG), "float32"))
    tensors = {name: values(name, kind, shape) for name, kind, shape in wanted}
    path = tmp_path_factory.mktemp("mxfp4") / "hf"
    write_checkpoint(path, CONFIG, tensors)
    (path / "tokenizer.json").unlink()
    return path


def test_computes_what_transformers_computes(files):
    """Promise 1 on the release's own bytes: logits, and greedy tokens."""
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        files,
        quantization_config=transformers.Mxfp4Config(dequantize=True),
        dtype=torch.float32,
        attn_implementation="eager",
    ).eval()
    ours = jaxmoe.load(files)
    blocks = [a for n, a in ours.params.items() if n.endswith("gate_up.blocks")]
    assert blocks and all(array.dtype == np.uint8 for array in blocks)
    prompt = np.random.default_rng(1).integers(8, CONFIG["vocab_size"], TOKENS)
    with torch.no_grad():
        answer = theirs.generate(
            torch.tensor(prompt)[None],
            max_new_tokens=32,
            do_sample=False,
            eos_token_id=None,
        )[0].numpy()
        reference = theirs(torch.tensor(answer)[None]).logits[0].numpy()
    logits = np.asarray(jaxmoe.forward(ours, answer))
    assert np.abs(logits - reference).max() <= 1e-4 * np.abs(reference).max()
    drawn = jaxmoe.sample(
        ours,
        prompt,
        key=jax.random.key(0),
        policy=TopK(),
        sampler=TokenSampler(temperature=0),
        max_new_tokens=32,
        stop_ids=(),
    )
    assert drawn.tokens[0].tolist() == answer[TOKENS:].tolist()


def test_converted_and_exported_byte_for_byte(files, tmp_path):
    """Blocks or scales would be unpacked, cast or moved on the way."""
    convert(files, tmp_path / "ckpt", verify=True)
    export(tmp_path / "ckpt", tmp_path / "again")
    for one in files.glob("*.safetensors"):
        assert one.read_bytes() == (tmp_path / "again" / one.name).read_bytes()
