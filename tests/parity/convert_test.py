"""Checkpoints that transformers wrote, and exports that it loads."""

import pytest

from convert import convert, export

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity


def make_model(**changes):
    """A random transformers model with a dense layer between mixtures."""
    config = transformers.Qwen3MoeConfig(
        **{
            "vocab_size": 97,
            "hidden_size": 32,
            "intermediate_size": 48,
            "moe_intermediate_size": 16,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "num_experts": 8,
            "num_experts_per_tok": 2,
            "mlp_only_layers": [1],
            "tie_word_embeddings": False,
        }
        | changes
    )
    torch.manual_seed(0)
    return transformers.Qwen3MoeForCausalLM(config)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("size", ["40KB", "1GB"])
@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": True}])
def test_through_and_back(tmp_path, dtype, size, changes):
    """transformers would load other weights than it saved."""
    model = make_model(**changes).to(dtype)
    model.save_pretrained(tmp_path / "hf", max_shard_size=size)
    convert(tmp_path / "hf", tmp_path / "ckpt", verify=True)
    export(tmp_path / "ckpt", tmp_path / "again")
    for path in (tmp_path / "hf").iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "again")
    state = again.state_dict()
    assert state.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(state[name], tensor), name


def test_cast_loads(tmp_path):
    """transformers would load a cast export in the type it had before."""
    model = make_model()
    model.save_pretrained(tmp_path / "hf")
    convert(tmp_path / "hf", tmp_path / "ckpt", dtype="bfloat16")
    export(tmp_path / "ckpt", tmp_path / "again")
    again = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "again", dtype="auto"
    )
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor.bfloat16()), name
