"""A process-reward model against the same made of torch's layers.

transformers has no class of it: its own lies beside the released weights.
"""

import json

import numpy as np
import pytest

import jaxmoe
from jaxmoe.decode.step_scores import step_scores
from jaxmoe.families.registry import FAMILIES
from tests.parity.families_test import randomise

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

NAME = "qwen2_prm"
SEPARATOR = 5


def write_checkpoint(directory, values) -> torch.nn.Module:
    """A random model of torch, and its files."""
    from safetensors.torch import save_file

    config = transformers.Qwen2Config(
        **{k: v for k, v in values.items() if k not in ("architectures", "model_type")}
    )
    config._attn_implementation = "eager"
    width = config.hidden_size
    whole = torch.nn.Module()
    whole.model = transformers.Qwen2Model(config)
    whole.score = torch.nn.Sequential(
        torch.nn.Linear(width, width), torch.nn.ReLU(), torch.nn.Linear(width, 2)
    )
    randomise(whole.eval().float())
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(values), "utf-8")
    tensors = {name: value.contiguous() for name, value in whole.state_dict().items()}
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    return whole


@pytest.mark.parametrize("name", [f"{NAME}-0"])
def test_scores_are_those_of_torch(tmp_path, name, record_property):
    """Best-of-n would be by other numbers than the released model's."""
    values = dict(FAMILIES[NAME].test_configs[0])
    theirs = write_checkpoint(tmp_path / "hf", values)
    ours = jaxmoe.load(tmp_path / "hf")
    assert ours.config.family == NAME
    rng = np.random.default_rng(0)
    sequences = [rng.integers(6, 97, size) for size in (134, 40, 7)]
    for one, count in zip(sequences, (9, 1, 0), strict=True):
        one[rng.choice(len(one), count, replace=False)] = SEPARATOR
    found = step_scores(ours, [one.tolist() for one in sequences], SEPARATOR)
    worst = 0.0
    for mine, one in zip(found, sequences, strict=True):
        with torch.no_grad():
            hidden = theirs.model(torch.tensor(one)[None]).last_hidden_state
            logits = theirs.score(hidden)[0]
        wanted = torch.softmax(logits, dim=-1)[one == SEPARATOR, 1].numpy()
        assert mine.shape == wanted.shape
        np.testing.assert_allclose(mine, wanted, atol=1e-5)
        if len(mine):
            worst = max(worst, float(np.abs(mine - wanted).max()))
    assert np.ptp(found[0]) > 0.1
    record_property("family", NAME)
    record_property("logits_error", worst)
