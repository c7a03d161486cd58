"""Reading config.json: each attribute honoured, ignored by name, or refused."""

import json
import math
import time
import warnings
from hashlib import sha256

import pytest

from jaxmoe.config import DenseConfig, GenerationConfig, MoEConfig, RopeConfig
from jaxmoe.families.config_json import changed, from_hf, load_hf_config
from jaxmoe.families.registry import FAMILIES
from jaxmoe.router.scores import SoftmaxScores

SHAPES = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "moe_intermediate_size": 24,
    "num_experts": 8,
    "num_experts_per_tok": 2,
}
CONFIG = SHAPES | {"model_type": "qwen3_moe"}


@pytest.fixture(autouse=True)
def _warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def _without(*names):
    return {name: value for name, value in CONFIG.items() if name not in names}


@pytest.mark.parametrize(
    ("family", "digest"),
    [
        ("qwen3_moe", "251ac47563ed8f19"),
        ("gpt_oss", "a775cefa0df23375"),
        ("qwen3_next", "fc32e59473e81492"),
        ("deepseek_v3", "285b23768bb1ccd6"),
        ("mixtral", "dcad28216bd11a89"),
    ],
)
def test_what_tells_models_apart_is_what_it_was(family, digest):
    """Evaluations that were begun before could not be carried on.

    A new field must not be in the text of a configuration that does not use it.
    """
    text = repr(from_hf(dict(FAMILIES[family].test_configs[0])))
    assert sha256(text.encode()).hexdigest()[:16] == digest


# -- defaults and layers -------------------------------------------------------


def test_absent_attributes_take_transformers_defaults():
    """norm_topk_prob above all: false in transformers, true in released models."""
    config = from_hf(CONFIG)
    mixer, moe = config.layers[0].mixer, config.layers[0].feed_forward
    assert (config.family, config.d_model, config.num_layers) == ("qwen3_moe", 32, 4)
    assert (config.norm.eps, config.tie_embeddings) == (1e-6, False)
    assert (config.stop_ids, config.pad_id) == ((), 0)
    assert config.context_length == 32768
    assert config.generation == GenerationConfig()
    assert (mixer.head_dim, mixer.window) == (8, None)
    assert (mixer.qkv_bias, mixer.output_bias) == (False, False)
    assert mixer.rope == RopeConfig(theta=10_000.0)
    assert moe == MoEConfig(8, 2, 24, SoftmaxScores(normalise=False))


def test_plain_attributes_are_honoured():
    """One by one, at values that no default has."""
    config = from_hf(
        CONFIG
        | {"norm_topk_prob": True, "tie_word_embeddings": True, "attention_bias": True}
        | {"head_dim": 16, "rms_norm_eps": 1, "max_position_embeddings": 77}
    )
    mixer, moe = config.layers[0].mixer, config.layers[0].feed_forward
    assert isinstance(moe, MoEConfig)
    assert (config.norm.eps, config.tie_embeddings) == (1.0, True)
    assert (mixer.head_dim, moe.scoring.normalise) == (16, True)
    assert (mixer.qkv_bias, mixer.output_bias) == (True, True)
    assert config.context_length == 77


@pytest.mark.parametrize(
    ("attributes", "moe_layers"),
    [
        ({"decoder_sparse_step": 2}, (1, 3)),
        ({"decoder_sparse_step": 3}, (2,)),
        ({"decoder_sparse_step": 5}, ()),
        ({"mlp_only_layers": [0, 3]}, (1, 2)),
        ({"mlp_only_layers": [1], "decoder_sparse_step": 2}, (3,)),
        ({"mlp_only_layers": [9]}, (0, 1, 2, 3)),
        ({"mlp_only_layers": None}, (0, 1, 2, 3)),
        ({"num_experts": 0}, ()),
    ],
)
def test_dense_layers(attributes, moe_layers):
    """The two attributes that make layers dense, alone and together."""
    config = from_hf(CONFIG | {"intermediate_size": 40} | attributes)
    assert config.moe_layers == moe_layers
    others = [config.layers[i] for i in range(4) if i not in moe_layers]
    assert all(layer.feed_forward == DenseConfig(40) for layer in others)


@pytest.mark.parametrize(
    ("attributes", "window"),
    [
        ({"sliding_window": 16}, None),
        ({"sliding_window": 16, "use_sliding_window": False}, None),
        ({"sliding_window": 16, "use_sliding_window": True}, 16),
        ({"sliding_window": None, "use_sliding_window": True}, None),
        ({"use_sliding_window": True}, 4096),
        (
            {"use_sliding_window": True, "layer_types": ["sliding_attention"] * 4},
            4096,
        ),
        ({"layer_types": ["full_attention"] * 4}, None),
    ],
)
def test_sliding_window(attributes, window):
    """A window counts only where use_sliding_window says so."""
    assert from_hf(CONFIG | attributes).layers[3].mixer.window == window


def test_num_local_experts_is_num_experts():
    """transformers 5 writes the new name; both may stand if they agree."""
    for names in (("num_local_experts",), ("num_experts", "num_local_experts")):
        config = _without("num_experts") | dict.fromkeys(names, 16)
        assert from_hf(config).num_experts == 16


# -- token ids and generation --------------------------------------------------


@pytest.mark.parametrize(
    ("attributes", "generation", "stop_ids", "pad_id"),
    [
        ({"eos_token_id": 7}, None, (7,), 7),
        ({"eos_token_id": [7, 8, 7]}, None, (7, 8), 7),
        ({"eos_token_id": None, "pad_token_id": None}, None, (), 0),
        ({"eos_token_id": 7, "pad_token_id": 3, "bos_token_id": 1}, None, (7,), 3),
        ({"eos_token_id": 7}, {"eos_token_id": [9, 8]}, (9, 8), 9),
        ({"eos_token_id": 7}, {"eos_token_id": None}, (7,), 7),
        ({"eos_token_id": 7}, {"pad_token_id": 5}, (7,), 5),
        ({"pad_token_id": 4}, {"pad_token_id": 5, "eos_token_id": 6}, (6,), 5),
    ],
)
def test_stop_and_pad_ids(attributes, generation, stop_ids, pad_id):
    """One, several or none; the generation file first; pad falls back to stop."""
    config = from_hf(CONFIG | attributes, generation)
    assert (config.stop_ids, config.pad_id) == (stop_ids, pad_id)


def test_token_ids_outside_the_vocabulary_warn():
    """They can never be drawn; a cut-down vocabulary often leaves them behind."""
    attributes = {"eos_token_id": [151645, 7], "pad_token_id": -1}
    with pytest.warns(UserWarning, match=r"\[151645, -1\] in config\.json .*of 100"):
        config = from_hf(CONFIG | attributes)
    assert (config.stop_ids, config.pad_id) == ((7,), 7)


def test_a_million_token_ids_are_read():
    """A list of ids would take a time that grows with its square."""
    begun = time.perf_counter()
    with pytest.warns(UserWarning, match="left out: outside") as seen:
        from_hf(CONFIG | {"eos_token_id": list(range(1_000_000))})
    assert time.perf_counter() - begun < 20
    assert len(str(seen[0].message)) < 300


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("overrides", ["a=1", [("a", 1)], {3: 1}, 3])
def test_overrides_that_are_none(overrides):
    """A string would end in a traceback."""
    with pytest.raises(TypeError, match="overrides must map names"):
        changed(CONFIG, overrides)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("ignore", ["vocab_size", [3], 3])
def test_names_to_ignore_that_are_none(ignore):
    """A string alone would be taken for a list of its letters."""
    with pytest.raises(TypeError, match="ignore must list names"):
        changed(CONFIG, ignore=ignore)


def test_names_move_no_cursor():
    """A terminal would obey a file of somebody else."""
    with pytest.raises(ValueError, match=r"\\x1b\[2J = ") as error:
        from_hf(CONFIG | {"\x1b[2J": "\x1b[2J"})
    assert "\x1b" not in str(error.value)


QWEN = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95}


@pytest.mark.parametrize(
    ("generation", "found"),
    [
        (QWEN, GenerationConfig(0.6, 20, 0.95, None)),
        (QWEN | {"do_sample": False}, GenerationConfig(0.0)),
        ({"do_sample": True}, GenerationConfig(1.0, 50, None, None)),
        ({"do_sample": True, "top_k": 0, "top_p": 1.0}, GenerationConfig()),
        ({"do_sample": True, "min_p": 0.1}, GenerationConfig(1.0, 50, None, 0.1)),
        ({"do_sample": True, "top_k": None}, GenerationConfig(1.0, 50)),
        ({"do_sample": True, "top_k": -1}, GenerationConfig()),
        ({"do_sample": True, "top_k": 20.0}, GenerationConfig(1.0, 20)),
        ({}, GenerationConfig()),
        ({"eos_token_id": 2, "transformers_version": "5"}, GenerationConfig()),
        (QWEN | {"repetition_penalty": 1.0}, GenerationConfig(0.6, 20, 0.95)),
        (
            QWEN | {"repetition_penalty": 1.05},
            GenerationConfig(0.6, 20, 0.95, repetition_penalty=1.05),
        ),
        ({"repetition_penalty": 2}, GenerationConfig(repetition_penalty=2.0)),
        (
            {"do_sample": False, "repetition_penalty": 1.1},
            GenerationConfig(0.0, repetition_penalty=1.1),
        ),
        (QWEN | {"max_new_tokens": 2048}, GenerationConfig(0.6, 20, 0.95)),
    ],
)
def test_generation_settings(generation, found):
    """What transformers' generate would do with the same file."""
    assert from_hf(CONFIG, generation).generation == found


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 1e308),
        ("temperature", "0.6"),
        ("temperature", -1),
        ("temperature", math.nan),
        ("temperature", [0.6]),
        ("top_k", 20.5),
        ("top_k", -2),
        ("top_k", "all"),
        ("top_k", True),
        ("top_k", math.inf),
        ("top_p", 0),
        ("top_p", 1.5),
        ("min_p", -0.1),
        ("repetition_penalty", 0),
        ("eos_token_id", "</s>"),
        ("eos_token_id", [1.5]),
        ("pad_token_id", {}),
    ],
)
def test_a_default_that_is_not_understood_is_dropped(name, value):
    """A file of defaults would make a model unreadable, or be obeyed half."""
    known = {"do_sample": True, "temperature": 0.5, "top_k": 7, "eos_token_id": 3}
    with pytest.warns(UserWarning, match=rf"{name} = .*generation_config\.json"):
        found = from_hf(CONFIG | {"eos_token_id": 9}, known | {name: value})
    rest = {n: v for n, v in known.items() if n != name}
    assert found == from_hf(CONFIG | {"eos_token_id": 9}, rest)


@pytest.mark.parametrize("generation", [{"temperature": 0.6}, {"top_k": 5}])
def test_greedy_for_want_of_do_sample_is_said(generation):
    """All answers would be equal, and nobody would know why."""
    with pytest.warns(UserWarning, match="do_sample: answers are greedy"):
        found = from_hf(CONFIG, generation).generation
    assert found == GenerationConfig(0.0)


@pytest.mark.parametrize(
    ("name", "value"),
    [("num_hidden_layers", 10**6), ("num_experts", 10**7), ("num_experts", 10**30)],
)
def test_absurd_sizes_are_refused_at_once(name, value):
    """Gigabytes of configs and shapes would be made before any check."""
    begin = time.perf_counter()
    with pytest.raises(ValueError, match=f"{name} = {value} .expected a number of"):
        from_hf(CONFIG | {name: value})
    assert time.perf_counter() - begin < 1


def test_generation_settings_in_config_json():
    """They count where there is no generation file, and only there."""
    assert from_hf(CONFIG | QWEN).generation == GenerationConfig(0.6, 20, 0.95)
    assert from_hf(CONFIG | QWEN, {}).generation == GenerationConfig()


def test_generation_settings_without_effect_warn():
    """A silent ban on repetitions would be a silent difference from transformers."""
    generation = {"no_repeat_ngram_size": 3, "num_beams": 4, "use_cache": True, "x": 1}
    expected = "no_repeat_ngram_size = 3; generation_config num_beams = 4; .*x = 1"
    with pytest.warns(UserWarning, match=expected) as caught:
        from_hf(CONFIG, generation)
    assert "use_cache" not in str(caught[0].message)


# -- refusals ------------------------------------------------------------------


@pytest.mark.parametrize("model_type", [None, "qwen", "no_such", 3, ["qwen3_moe"]])
def test_unknown_model_type(model_type):
    """Another family's config must not be read as this one's."""
    with pytest.raises(ValueError, match="model_type.*qwen3_moe, olmoe, .*found"):
        from_hf(CONFIG | {"model_type": model_type})


def test_missing_fields_are_named_together():
    """One error with all of them, not one at a time."""
    with pytest.raises(ValueError, match="missing") as error:
        from_hf({"model_type": "qwen3_moe", "num_key_value_heads": 3})
    missing = set(SHAPES) - {"num_key_value_heads"}
    assert all(name in str(error.value) for name in missing)
    assert "intermediate_size;" not in str(error.value).replace("moe_inter", "")


def test_intermediate_size_is_needed_by_dense_layers_only():
    """Mixture layers have moe_intermediate_size."""
    with pytest.raises(ValueError, match="missing.*: intermediate_size"):
        from_hf(CONFIG | {"mlp_only_layers": [2]})


def test_all_problems_are_in_one_error():
    """Missing, wrong and unsupported, each with its value."""
    bad = {"hidden_size": "32", "foo": 1, "quantization_config": {"bits": 4}}
    with pytest.raises(ValueError) as error:
        from_hf(_without("vocab_size") | bad)
    text = str(error.value)
    assert "vocab_size" in text
    assert 'hidden_size = "32" (expected a positive integer)' in text
    assert "foo = 1" in text
    assert "quantised" in text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("vocab_size", 0),
        ("vocab_size", True),
        ("vocab_size", None),
        ("hidden_size", 32.0),
        ("hidden_size", 2**40),
        ("num_hidden_layers", -1),
        ("num_experts", -1),
        ("num_experts", "8"),
        ("num_experts", 9),
        ("head_dim", 0),
        ("rms_norm_eps", 0.0),
        ("rms_norm_eps", math.nan),
        ("rms_norm_eps", 10**400),
        ("rope_theta", math.inf),
        ("rope_theta", 1.0),
        ("rope_theta", {"__float__": "Infinity"}),
        ("norm_topk_prob", 1),
        ("tie_word_embeddings", "true"),
        ("decoder_sparse_step", 0),
        ("mlp_only_layers", 3),
        ("mlp_only_layers", [-1]),
        ("mlp_only_layers", ["0"]),
        ("hidden_act", "gelu"),
        ("hidden_act", None),
        ("architectures", ["Qwen3MoeForSequenceClassification"]),
        ("architectures", "Qwen3MoeForCausalLM"),
        ("eos_token_id", "7"),
        ("eos_token_id", [7, None]),
        ("pad_token_id", 1.5),
        ("sliding_window", -4),
        ("layer_types", ["sliding_attention"] * 4),
        ("rope_scaling", "yarn"),
        ("max_position_embeddings", "32k"),
    ],
)
def test_wrong_values_are_named(name, value):
    """Type and range of each attribute, with what was found."""
    with pytest.raises(ValueError, match=rf"expected: .*{name} = .*\(expected "):
        from_hf(CONFIG | {"num_local_experts": 8} | {name: value})


def test_a_window_of_nothing():
    """Each query would see no key at all."""
    with pytest.raises(ValueError, match="sliding_window = 0"):
        from_hf(CONFIG | {"sliding_window": 0, "use_sliding_window": True})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("shared_expert_intermediate_size", 512),
        ("n_shared_experts", 1),
        ("partial_rotary_factor", 0.5),
        ("use_qk_norm", False),
        ("qkv_bias", True),
        ("is_encoder_decoder", True),
        ("auto_map", {"AutoModel": "modeling.X"}),
        ("per_layer_config", {"0": {"head_dim": 4}}),
        ("foo", False),
    ],
)
def test_unsupported_attributes_refuse(name, value):
    """An attribute nobody reads may change the answers."""
    with pytest.raises(ValueError, match=f"not supported.*{name} = "):
        from_hf(CONFIG | {name: value})


def test_what_is_ignored_and_what_is_neutral():
    """Released and saved configs carry these; none changes an answer."""
    extra = {
        "attention_dropout": 0.1,
        "router_aux_loss_coef": 0.01,
        "output_router_logits": True,
        "initializer_range": 0.5,
        "use_cache": False,
        "torch_dtype": "bfloat16",
        "dtype": "float32",
        "transformers_version": "4.51.0",
        "architectures": ["Qwen3MoeForCausalLM"],
        "max_window_layers": 2,
        "_name_or_path": "x",
        "id2label": {"0": "a"},
        "is_encoder_decoder": False,
        "qkv_bias": False,
        "use_qk_norm": True,
        "shared_expert_intermediate_size": 0,
        "quantization_config": None,
        "repetition_penalty": 1.0,
        "max_length": 20,
    }
    assert from_hf(CONFIG | extra) == from_hf(CONFIG)


def test_the_input_is_left_alone():
    """Callers keep their dictionaries."""
    config = CONFIG | {"rope_parameters": {"rope_type": "default"}}
    before = json.dumps(config)
    from_hf(config, {})
    assert json.dumps(config) == before


# -- files ---------------------------------------------------------------------


def test_load(tmp_path):
    """Both files, and the second one optional."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | {"eos_token_id": 1}))
    assert load_hf_config(tmp_path).stop_ids == (1,)
    (tmp_path / "generation_config.json").write_text(
        json.dumps(QWEN | {"eos_token_id": 2})
    )
    config = load_hf_config(tmp_path)
    assert config.stop_ids == (2,)
    assert config.generation == GenerationConfig(0.6, 20, 0.95)


BROKEN = pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not readable as JSON"),
        (b'{"vocab_size": ', "not readable as JSON"),
        (b"\xff\xfe", "not readable as JSON"),
        (b"[" * 100_000, "not readable as JSON"),
        (b"[1]", "must hold a JSON object, found list"),
        (b"null", "must hold a JSON object, found NoneType"),
    ],
    ids=["empty", "cut", "bytes", "deep", "list", "null"],
)


@BROKEN
def test_broken_files(tmp_path, content, message):
    """The path, what is wrong with it, and what to do."""
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        load_hf_config(tmp_path)
    assert str(path) in str(error.value)


@BROKEN
def test_broken_defaults_refuse_no_model(tmp_path, content, message):
    """A file that only sets defaults would keep a model from being loaded."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    path = tmp_path / "generation_config.json"
    path.write_bytes(content)
    with pytest.warns(UserWarning, match=message) as warned:
        config = load_hf_config(tmp_path)
    assert str(path) in str(warned[0].message)
    assert config.generation == GenerationConfig()


@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
def test_warnings_name_the_file_that_says_it(tmp_path, file):
    """Somebody would correct a file that is right, or not there."""
    odd = {"do_sample": True, "temperature": "hot"}
    inner = odd if file == "config.json" else {}
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | inner))
    if file != "config.json":
        (tmp_path / file).write_text(json.dumps(odd))
    with pytest.warns(UserWarning, match=rf"temperature = .* in {file} is dropped"):
        load_hf_config(tmp_path)


def test_missing_files(tmp_path):
    """No directory, a file in its place, or a directory without a config."""
    with pytest.raises(FileNotFoundError, match=r"config\.json in .*found none"):
        load_hf_config(tmp_path)
    with pytest.raises(FileNotFoundError, match="expected a directory"):
        load_hf_config(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError, match="expected a directory"):
        load_hf_config(tmp_path / "file")


def test_refusals_name_the_directory(tmp_path):
    """Which of several checkpoints was it?"""
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="model_type") as error:
        load_hf_config(tmp_path)
    assert str(tmp_path) in str(error.value)
