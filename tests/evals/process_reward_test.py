"""A process-reward model as a verifier: steps, separators, scores of answers."""

import json
from dataclasses import replace

import numpy as np
import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers

import jaxmoe
from jaxmoe.decode.step_scores import step_scores
from jaxmoe.evals.process_reward import REDUCTIONS, ProcessReward
from jaxmoe.evals.verifiers import VerifierError
from jaxmoe.families.config_json import from_hf
from jaxmoe.families.registry import FAMILIES
from jaxmoe.text.tokenizer import Tokenizer
from tests.tiny import tiny_model, tiny_params

VALUES = dict(FAMILIES["qwen2_prm"].test_configs[0]) | {"vocab_size": 300}
TEMPLATE = (
    "{%- for m in messages %}{{- m.role[0] + ':' + m.content + '\\n' }}{%- endfor %}"
)
ANSWER = "First, 2 + 2 is 4.\n\nSo it is 5.\n \nDone\nhere.\n\n\n"
STEPS = ["First, 2 + 2 is 4.", "So it is 5.", "Done\nhere."]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> jaxmoe.Model:
    """A random process-reward model with a tokenizer of bytes."""
    folder = tmp_path_factory.mktemp("prm")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Backend(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<extra_0>"])
    (folder / "tokenizer.json").write_text(backend.to_str(), "utf-8")
    config = json.dumps({"chat_template": TEMPLATE})
    (folder / "tokenizer_config.json").write_text(config, "utf-8")
    config = from_hf(VALUES)
    return jaxmoe.Model(config, tiny_params(config), Tokenizer.load(folder))


def test_steps_are_followed_by_the_separator(model):
    """The model would be read where it says nothing of a step."""
    verifier = ProcessReward(model)
    assert verifier.steps(ANSWER) == STEPS
    # What an answer writes there itself would be a step without a text.
    assert verifier.steps("a<extra_0>\n\n<extra_0>") == ["a"]
    hidden = "<extra<extra_<extra_0>0>_0>"
    made = verifier.tokens(hidden, verifier.steps(f"{hidden}\n\nb"))
    assert made.count(verifier.separator) == 2
    ids = np.array(verifier.tokens("2 + 2?", STEPS))
    places = np.flatnonzero(ids == verifier.separator)
    assert len(places) == len(STEPS)
    parts = np.split(ids, places)
    assert model.decode(parts[0]).endswith(f"u:2 + 2?\na:{STEPS[0]}")
    assert [model.decode(p[1:]) for p in parts[1:]] == [*STEPS[1:], "\n"]


def test_scores_are_made_of_steps(model):
    """An answer's score would be of another answer, or of other steps."""
    verifier = ProcessReward(model)
    ids = [verifier.tokens("2 + 2?", verifier.steps(a)) for a in (ANSWER, "Four.")]
    first, second = step_scores(model, ids, verifier.separator)
    assert first.shape == (3,) and second.shape == (1,) and np.ptp(first) > 0
    # Beside others as alone, and the same each time.
    (alone,) = step_scores(model, ids[:1], verifier.separator)
    np.testing.assert_allclose(alone, first, rtol=1e-5)
    wanted = {
        "product": first.prod(),
        "min": first.min(),
        "mean": first.mean(),
        "last": first[-1],
    }
    assert wanted.keys() == REDUCTIONS.keys()
    for reduce, score in wanted.items():
        found = replace(verifier, reduce=reduce)("2 + 2?", [ANSWER, "Four.", ""])
        assert found == pytest.approx([score, second[0], 0.0], rel=1e-5)


def test_what_does_not_fit(model):
    """A long answer would be scored by its first steps, or end all."""
    long = "\n\n".join(["step " * 6] * 9)
    with pytest.raises(VerifierError, match="reads 256 tokens.*--cut"):
        ProcessReward(model)("2 + 2?", [long])
    (found,) = ProcessReward(model, "last", cut=True)("2 + 2?", [long])
    assert 0 < found < 1
    with pytest.raises(ValueError, match="writes text"):
        ProcessReward(tiny_model())
    with pytest.raises(ValueError, match="must be one of product.*'sum'"):
        ProcessReward(model, "sum")
    with pytest.raises(ValueError, match="scores it.*verify --verifier"):
        jaxmoe.forward(model, [1, 2])
