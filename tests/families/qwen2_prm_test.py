"""Process-reward models: what their files may say, and what is left out of them."""

import math

import pytest

from jaxmoe.checkpoints.source import open_source
from jaxmoe.config import ScorerConfig
from jaxmoe.families.config_json import from_hf
from jaxmoe.families.qwen2_prm import QWEN2_PRM
from jaxmoe.nn.decoder import abstract_params
from tests.hugging_face import make_tensors, write_checkpoint

VALUES = dict(QWEN2_PRM.test_configs[0])


def test_what_released_files_say_is_read():
    """A released checkpoint would be refused for where its own code lies."""
    more = {"auto_map": {"AutoModel": "modeling.Mine"}, "use_mrope": False}
    config = from_hf(VALUES | more)
    assert config == from_hf(VALUES)
    assert isinstance(config.scorer, ScorerConfig) and config.scorer.labels == 2
    with pytest.raises(ValueError, match="use_mrope"):
        from_hf(VALUES | {"use_mrope": True})
    # Runs of models that write text are told apart by this text as before.
    assert "scorer" not in repr(config)


def test_released_shapes():
    """The plan would be of another model than Qwen2.5-Math-PRM-7B."""
    params = abstract_params(from_hf(dict(QWEN2_PRM.released["qwen2.5-math-prm-7b"])))
    assert "head.weight" not in params
    assert params["score.up"].shape == (3584, 3584)
    assert params["score.down"].shape == (2, 3584)
    total = sum(math.prod(leaf.shape) for leaf in params.values())
    # Qwen2.5-7B's 7,615,616,512 less its head, and the scorer.
    assert total == 7_615_616_512 - 152064 * 3584 + 3584 * 3585 + 2 * 3585


def test_a_head_over_the_vocabulary_is_left_out(tmp_path):
    """A checkpoint saved with the head it was made from would be refused."""
    tensors = make_tensors(VALUES)
    extra = {"lm_head.weight": tensors["model.embed_tokens.weight"]}
    directory = write_checkpoint(tmp_path / "hf", VALUES, tensors | extra, shards=1)
    plain = write_checkpoint(tmp_path / "plain", VALUES, tensors, shards=1)
    found, wanted = open_source(directory), open_source(plain)
    assert found.params == wanted.params and found.digest() == wanted.digest()
    assert found.plan.beyond == ("lm_head.weight",)  # of which conversion warns
