"""Reading config.json against transformers, and the presets against releases."""

import json

import pytest

from jaxmoe.config import MoEConfig, RopeConfig
from jaxmoe.families.config_json import from_hf, load_hf_config
from jaxmoe.families.qwen3_moe import QWEN3_30B_A3B, QWEN3_235B_A22B, RELEASED

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

GENERATION = {
    "bos_token_id": 151643,
    "do_sample": True,
    "eos_token_id": [151645, 151643],
    "pad_token_id": 151643,
    "temperature": 0.6,
    "top_k": 20,
    "top_p": 0.95,
    "transformers_version": "4.51.0",
}
TINY = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "moe_intermediate_size": 16,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 128,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
VARIANTS = {
    "defaults": {},
    "head_dim": {"head_dim": 16, "attention_bias": True},
    "normalised, tied": {"norm_topk_prob": True, "tie_word_embeddings": True},
    "sparse steps": {"decoder_sparse_step": 2, "mlp_only_layers": [3]},
    "window": {"use_sliding_window": True, "sliding_window": 8},
    "unused window": {"use_sliding_window": False, "sliding_window": 8},
    "ids": {"eos_token_id": [5, 6], "pad_token_id": 7, "bos_token_id": 8},
    "theta": {"rope_theta": 5e5},
    "linear": {"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_theta": 1e6},
    "dynamic": {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
    "yarn": {"rope_scaling": YARN, "rope_theta": 1e6},
    "yarn, new form": {"rope_parameters": YARN | {"rope_theta": 1e6}},
    "labels": {"num_labels": 5, "output_attentions": False, "dtype": "bfloat16"},
    "legacy sampling": {"temperature": 1.0, "top_k": 50, "max_length": 20},
}


def test_what_no_size_shows_is_as_published():
    """Counts of parameters, and reading a value twice, would not notice it wrong."""
    published = {
        "head_dim": 128,
        "max_position_embeddings": 40960,
        "norm_topk_prob": True,
        "num_attention_heads": 32,
        "num_experts_per_tok": 8,
        "num_key_value_heads": 4,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": False,
        "vocab_size": 151936,
    }
    assert published.items() <= RELEASED["30b"].items()
    assert RELEASED["235b"]["num_attention_heads"] == 64


@pytest.mark.parametrize(
    ("released", "preset"),
    [(RELEASED["30b"], QWEN3_30B_A3B), (RELEASED["235b"], QWEN3_235B_A22B)],
    ids=["30B-A3B", "235B-A22B"],
)
def test_presets_are_the_released_configs(released, preset):
    """From the file as released, and as transformers 5 rewrites it."""
    assert from_hf(released, GENERATION) == preset
    rewritten = transformers.Qwen3MoeConfig(**released).to_dict()
    assert "num_experts" not in rewritten
    assert "rope_theta" not in rewritten
    assert from_hf(rewritten, GENERATION) == preset


@pytest.mark.filterwarnings("ignore:.*no usable do_sample")
@pytest.mark.parametrize("use_diff", [True, False], ids=["short", "full"])
@pytest.mark.parametrize("name", VARIANTS)
def test_what_transformers_saves_reads_as_what_it_was_given(name, use_diff, tmp_path):
    """The old form, and the new form in both of its lengths, are one config."""
    given = TINY | VARIANTS[name] | {"model_type": "qwen3_moe"}
    given = json.loads(json.dumps(given))
    config = transformers.Qwen3MoeConfig(**json.loads(json.dumps(given)))
    config.to_json_file(tmp_path / "config.json", use_diff=use_diff)
    ours, saved = from_hf(given), load_hf_config(tmp_path)
    if name == "legacy sampling":  # transformers drops these from config.json
        ours, saved = (_without_generation(c) for c in (ours, saved))
    assert saved == ours


def _without_generation(config):
    return {k: v for k, v in vars(config).items() if k != "generation"}


@pytest.mark.filterwarnings("ignore:.*no usable do_sample")
@pytest.mark.parametrize("name", VARIANTS)
def test_every_number_is_the_one_transformers_uses(name):
    """Our fields beside the attributes and modules of transformers' own model."""
    given = TINY | VARIANTS[name] | {"model_type": "qwen3_moe"}
    ours = from_hf(json.loads(json.dumps(given)))
    theirs = transformers.Qwen3MoeConfig(**given)
    model = transformers.Qwen3MoeForCausalLM(theirs).model
    assert ours.vocab_size == theirs.vocab_size
    assert ours.norm.eps == theirs.rms_norm_eps
    assert ours.tie_embeddings == theirs.tie_word_embeddings
    assert len(ours.layers) == len(model.layers)
    for layer, module in zip(ours.layers, model.layers, strict=True):
        mixer, attention, mlp = layer.mixer, module.self_attn, module.mlp
        assert mixer.head_dim == attention.head_dim
        assert mixer.window == attention.sliding_window
        assert mixer.qkv_bias == (attention.q_proj.bias is not None)
        assert mixer.output_bias == (attention.o_proj.bias is not None)
        rows, _ = attention.k_proj.weight.shape
        assert mixer.num_kv_heads * mixer.head_dim == rows
        assert mixer.rope.attention_factor == model.rotary_emb.attention_scaling
        assert mixer.rope.theta == theirs.rope_parameters["rope_theta"]
        ff = layer.feed_forward
        if isinstance(ff, MoEConfig):
            assert ff.scoring.normalise == mlp.gate.norm_topk_prob
            assert ff.experts_per_token == mlp.gate.top_k
            assert (ff.num_experts, ff.hidden) == (8, mlp.experts.intermediate_dim)
        else:
            assert ff.hidden == mlp.intermediate_size


def test_a_saved_model_directory(tmp_path):
    """config.json and generation_config.json as save_pretrained writes them."""
    config = transformers.Qwen3MoeConfig(**TINY, eos_token_id=5, pad_token_id=3)
    model = transformers.Qwen3MoeForCausalLM(config)
    model.generation_config.update(do_sample=True, temperature=0.5, eos_token_id=[6, 5])
    model.save_pretrained(tmp_path)
    ours = load_hf_config(tmp_path)
    assert (ours.stop_ids, ours.pad_id) == ((6, 5), 3)
    assert (ours.generation.temperature, ours.generation.top_k) == (0.5, 50)


def test_default_sampling_is_that_of_generate():
    """top_k 50 where a sampling file names none: generate fills it in."""
    defaults = transformers.GenerationConfig._get_default_generation_params()
    generation = from_hf(
        TINY | {"model_type": "qwen3_moe"}, {"do_sample": True}
    ).generation
    assert generation.top_k == defaults["top_k"]
    assert generation.temperature == defaults["temperature"]
    assert defaults["top_p"] == 1.0
    assert generation.top_p is None


def test_every_attribute_transformers_knows_has_a_place():
    """A full dump of the default config: nothing in it is unknown to us."""
    full = transformers.Qwen3MoeConfig().to_dict()
    assert from_hf(full).layers[0].mixer.rope == RopeConfig()


def test_every_generation_attribute_has_a_place(recwarn):
    """A full dump of the defaults of generate warns of nothing."""
    full = transformers.GenerationConfig().to_dict()
    full |= transformers.GenerationConfig._get_default_generation_params()
    from_hf(TINY | {"model_type": "qwen3_moe"}, full)
    assert not [w for w in recwarn if "generation settings" in str(w.message)]
