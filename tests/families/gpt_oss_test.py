"""GPT-OSS: what its config.json may say, in which spelling, and what it must not."""

import json
import math

import pytest
import tokenizers

import jaxmoe
from convert import convert
from jaxmoe.config import NormConfig, RopeConfig
from jaxmoe.decode.inputs import split_stops
from jaxmoe.evals.tasks.reasoning import answer_in
from jaxmoe.families.config_json import from_hf
from jaxmoe.families.gpt_oss import FULL, GPT_OSS, MARKS, RELEASED, ROPE, SLIDING
from jaxmoe.nn.decoder import abstract_params
from tests.hugging_face import make_tensors, write_checkpoint

CONFIG = dict(GPT_OSS.test_configs[0])


@pytest.mark.parametrize(
    ("size", "layers", "total"),
    [("gpt-oss-20b", 24, 20.9e9), ("gpt-oss-120b", 36, 116.8e9)],
)
def test_released_sizes(size, layers, total):
    """A plan would be of a model with other shapes than the one released."""
    released = from_hf(dict(RELEASED[size]))
    assert released.layers[0].feed_forward.weights == "mxfp4"
    values = {k: v for k, v in RELEASED[size].items() if k != "quantization_config"}
    config = from_hf(values)
    count = sum(leaf.size for leaf in abstract_params(config).values())
    assert count == pytest.approx(total, rel=0.002)
    windows = [layer.mixer.window for layer in config.layers]
    assert windows == [128, None] * (layers // 2)
    assert config.stop_ids == (200002,) and config.pad_id == 199999
    assert config.context_length == 131072
    assert config.norm == NormConfig(1e-5, cast="last")
    mixer = config.layers[0].mixer
    assert (mixer.qk_norm, mixer.sinks, mixer.gate) == (None, True, False)
    assert (mixer.qkv_bias, mixer.output_bias) == (True, True)


@pytest.mark.parametrize("absent", [{}, {"rope_scaling": None}, {"rope_scaling": {}}])
def test_a_file_without_rope_means_the_released_one(absent):
    """Plain rope, or another base, would be taken: 0.3 of the largest logit off."""
    config = {k: v for k, v in CONFIG.items() if not k.startswith("rope")} | absent
    expected = RopeConfig(
        150_000.0, "yarn", 32.0, 4096, 0.1 * math.log(32) + 1, truncate=False
    )
    for values in (config, config | {"rope_parameters": None}, CONFIG):
        assert from_hf(values).layers[0].mixer.rope == expected
    plain = from_hf(config | {"rope_parameters": {}})
    assert plain.layers[0].mixer.rope == RopeConfig(150_000.0)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ({"num_experts_per_tok": 4}, 4),
        ({"experts_per_token": 3}, 3),
        ({"num_experts_per_tok": 2, "experts_per_token": 2}, 2),
    ],
)
def test_experts_per_token_has_two_names(names, found):
    """The released files have both, others one of them."""
    config = {k: v for k, v in CONFIG.items() if k != "num_experts_per_tok"}
    assert from_hf(config | names).experts_per_token == found


def test_layers_by_name_and_without():
    """A window would be put on the other half of the layers."""
    mixers = [layer.mixer for layer in from_hf(dict(CONFIG)).layers]
    assert [m.window for m in mixers] == [8, None, 8, None]
    kinds = [FULL, FULL, SLIDING, FULL]
    named = from_hf(CONFIG | {"layer_types": kinds})
    assert [layer.mixer.window for layer in named.layers] == [None, None, 8, None]
    full = from_hf(CONFIG | {"layer_types": [FULL] * 4, "sliding_window": None})
    assert all(layer.mixer.window is None for layer in full.layers)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"experts_per_token": 3}, "num_experts_per_tok = 4.*experts_per_token = 3"),
        ({"num_experts": 8}, "num_local_experts = 16.*num_experts = 8"),
        ({"layer_types": [SLIDING] * 3}, "layer_types = .*for each of 4 layers"),
        ({"layer_types": [SLIDING, "chunked"] * 2}, "layer_types = .*chunked"),
        ({"sliding_window": None}, "sliding_window = null"),
        ({"sliding_window": 0}, "sliding_window = 0"),
        ({"hidden_act": "gelu"}, "hidden_act = .*silu"),
        ({"initial_context_length": 2048}, "initial_context_length = 2048.*4096"),
        ({"swiglu_limit": 0}, "swiglu_limit = 0"),
        ({"architectures": ["GptOssForTokens"]}, "architectures = .*GptOssForCausal"),
        ({"router_bias": False}, "not supported.*router_bias"),
        ({"rope_scaling": ROPE | {"mrope": 1}}, "not supported.*mrope"),
    ],
)
def test_refusals(change, message):
    """What the code does not do is said by name, not passed over."""
    with pytest.raises(ValueError, match=message):
        from_hf(CONFIG | change)


def test_no_k_at_all():
    """A model would be run with a k that its file does not state."""
    config = {k: v for k, v in CONFIG.items() if k != "num_experts_per_tok"}
    with pytest.raises(ValueError, match="missing.*num_experts_per_tok"):
        from_hf(config)


# -- text --------------------------------------------------------------------------

SPECIALS = (*MARKS, "<|return|>", "<|call|>")


@pytest.fixture(scope="module")
def harmony(tmp_path_factory) -> jaxmoe.Model:
    """A model of this family with a tokenizer that has harmony's special tokens."""
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: i for i, letter in enumerate(letters)}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, []))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    backend.add_special_tokens(list(SPECIALS))
    ends = [backend.token_to_id(text) for text in SPECIALS[-2:]]
    config = CONFIG | {"vocab_size": 264, "num_hidden_layers": 2}
    config |= {"eos_token_id": ends[0]}
    path = tmp_path_factory.mktemp("harmony") / "hf"
    write_checkpoint(path, config, make_tensors(config))
    backend.save(str(path / "tokenizer.json"))
    generation = {"do_sample": True, "eos_token_id": ends}
    (path / "generation_config.json").write_text(json.dumps(generation))
    convert(path, path.with_name("ckpt"))
    model = jaxmoe.load(path.with_name("ckpt"))
    assert set(model.config.stop_ids) == set(ends)
    return model


ANSWERS = {
    "thought, then answered": (
        "<|channel|>analysis<|message|>We need 7.<|end|>"
        "<|start|>assistant<|channel|>final<|message|>The answer is 8.<|return|>",
        "The answer is 8.",
    ),
    "a word of its own channel": (
        "<|channel|>final<|message|>assistantfinal is a word, analysis too.<|return|>",
        "assistantfinal is a word, analysis too.",
    ),
    "a constrained answer": (
        '<|channel|>final <|constrain|>json<|message|>{"a": 8}<|return|>',
        '{"a": 8}',
    ),
    "two answers": (
        "<|channel|>final<|message|>7<|end|>"
        "<|start|>assistant<|channel|>final<|message|>8<|return|>",
        "8",
    ),
    "cut off while thinking": ("<|channel|>analysis<|message|>7, final", ""),
    "a call": (
        "<|channel|>analysis<|message|>7?<|end|><|start|>assistant to=functions.f"
        '<|channel|>commentary json<|message|>{"x": 7}<|call|>',
        "",
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_the_final_channel_is_the_answer(harmony, name):
    """Thoughts would be graded, and be shown without where they end."""
    written, answer = ANSWERS[name]
    ids = harmony.tokenizer.encode(written)
    text = harmony.decode(ids)
    assert text == written.removesuffix("<|return|>").removesuffix("<|call|>")
    assert answer_in(text) == answer


def test_marks_may_stop_an_answer(harmony):
    """A caller could not end an answer with its first message."""
    as_text, ids = split_stops(harmony, ["<|end|>", "\n"])
    assert as_text == ("\n",)
    assert ids == [harmony.tokenizer.token_to_id("<|end|>")]
