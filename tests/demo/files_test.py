"""The demo models and their problems as they ship."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

import jaxmoe
from jaxmoe import demo
from jaxmoe.checkpoints.bundled import BUNDLED
from jaxmoe.config import AttentionConfig, MoEConfig
from jaxmoe.demo import model_files
from jaxmoe.demo.chains import all_chains, number_sets, split_of
from jaxmoe.demo.encoding import END, ID, VOCAB, decode, encode
from jaxmoe.demo.training import Recipe
from jaxmoe.demo.training_run import Record
from jaxmoe.families.config_json import load_hf_config
from jaxmoe.text.tokenizer import Tokenizer

SPLITS = ["validation", "test"]
MAX_BYTES = 12_000_000
UPDATES = {"demo": Recipe().steps, "demo-tries": 6_000}


@pytest.fixture(scope="module", params=BUNDLED)
def name(request) -> str:
    """A model that ships."""
    return request.param


@pytest.fixture(scope="module")
def hf(name) -> Path:
    """Its directory."""
    return BUNDLED[name]


@pytest.fixture(scope="module")
def model(hf) -> jaxmoe.Model:
    """The model as it ships, without its weights."""
    return jaxmoe.Model(load_hf_config(hf), {}, Tokenizer.load(hf))


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """All problems, and problems of all splits with answers."""
    rng = random.Random(0)
    chains = all_chains(rng.sample(number_sets(), 30))
    rows = rng.sample(range(len(chains.target)), 1000)
    answers = chains.texts()
    solved = [
        f"{','.join(map(str, chains.numbers[row]))}={chains.target[row]}:{answers[row]}"
        for row in rows
    ]
    problems = [p.prompt for split in SPLITS for p in demo.problems(split)]
    return problems + solved + [answers[row] for row in rows]


# -- the tokenizer -------------------------------------------------------------------


def test_the_tokenizer_is_the_encoding(model, texts):
    """The model would be asked with other tokens than it was trained on."""
    assert len(texts) > 3000
    for text in texts:
        ids = model.encode(text)
        assert ids == encode(text), text
        assert model.decode(ids) == decode(ids) == text
        assert model.decode([*ids, ID[END]]) == text
        assert set(ids) <= set(range(model.config.vocab_size))


def test_every_word_has_its_id(model):
    """A number would be read as another, or have no row in the embedding."""
    tokenizer = model.tokenizer
    assert tokenizer.vocab_size == model.config.vocab_size == len(VOCAB)
    assert [tokenizer.token_to_id(text) for text in VOCAB] == list(range(len(VOCAB)))
    assert model.config.stop_ids == (tokenizer.eos_id,) == (ID[END],)
    assert model.config.pad_id == tokenizer.pad_id == ID[END]
    assert tokenizer.special_ids == {ID[END]}


@pytest.mark.parametrize(
    "text",
    ["hello", "200", "2,5,8,12=27: ", "2;5", "012", "2,5\n", "\u0662", "2.5", "(2+5)"],
)
def test_other_text_is_refused(model, text):
    """Words that the model cannot read would be left out without a word."""
    with pytest.raises(ValueError, match="has no tokens for"):
        model.encode(text)
    with pytest.raises(ValueError):
        encode(text)


# -- the model -----------------------------------------------------------------------


def test_the_model_is_small_and_whole(hf):
    """The package would grow, or lack a file that a reader of such models wants."""
    files = {path.name: path.stat().st_size for path in hf.iterdir()}
    assert sum(files.values()) <= MAX_BYTES
    assert set(files) == {
        *("config.json", "generation_config.json", "model.safetensors"),
        *("tokenizer.json", "tokenizer_config.json"),
    }


def test_the_model_is_a_fine_grained_mixture(hf, model):
    """The demo would not show what the library is for."""
    stored = json.loads((hf / "config.json").read_text(encoding="utf-8"))
    assert stored["model_type"] == "qwen3_moe"
    assert stored["num_experts"] >= 64 and stored["num_experts_per_tok"] == 8
    assert stored["num_hidden_layers"] >= 3
    assert stored["num_key_value_heads"] < stored["num_attention_heads"]
    assert model.config.num_layers == stored["num_hidden_layers"]
    for layer in model.config.layers:
        assert isinstance(layer.mixer, AttentionConfig)
        assert layer.mixer.num_kv_heads < layer.mixer.num_heads
        assert isinstance(layer.feed_forward, MoEConfig)
        assert layer.feed_forward.num_experts >= 64


def test_the_small_files_are_those_of_the_training_script(hf, tmp_path, monkeypatch):
    """What ships could not be made again."""
    monkeypatch.setattr(model_files, "write_params", lambda *_: 0)
    model_files.write_model(tmp_path, {}, model_files.ATTRIBUTES)
    made = {path.name: path.read_text("utf-8") for path in tmp_path.iterdir()}
    assert len(made) == 4
    for file, text in made.items():
        assert (hf / file).read_text("utf-8") == text, file


def test_the_log_is_of_the_whole_recipe(name, hf):
    """The model that ships would be that of a run cut short, or of another one."""
    lines = (hf.parent / "training.jsonl").read_text("utf-8").splitlines()
    records = [Record(**json.loads(line)) for line in lines]
    steps = [record.step for record in records]
    assert steps == sorted(set(steps)) and steps[-1] == UPDATES[name]
    assert records[-1].entropy < records[0].entropy / 2
    assert records[-1].pass_rate is not None and records[-1].pass_rate > 0


# -- the problems --------------------------------------------------------------------


def test_the_problems_are_those_of_the_training_script(tmp_path):
    """The problems that ship could be among those trained on, or be chosen by hand."""
    made = tmp_path / "problems.json"
    model_files.write_problems(made)
    assert demo.PROBLEMS.read_bytes() == made.read_bytes()


@pytest.mark.parametrize("split", SPLITS)
def test_problems_are_of_their_split(split):
    """The model would be tested on what it was trained on."""
    bands = demo.bands(split)
    assert demo.problems(split) == list(bands)
    assert len(bands) == 512
    assert {split_of(problem.numbers) for problem in bands} == {split}
    assert np.unique(list(bands.values()), return_counts=True)[1].tolist() == [256, 256]
    assert set(bands.values()) == {"easy", "hard"}


def test_another_split_is_refused():
    """The problems that the model was trained on would be asked for, and not found."""
    with pytest.raises(ValueError, match="one of validation, test, found 'train'"):
        demo.problems("train")
