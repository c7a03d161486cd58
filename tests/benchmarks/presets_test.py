import pytest

from jaxmoe.benchmarks.presets import PRESETS, default, makes_weights
from jaxmoe.families.qwen3_moe import QWEN3_30B_A3B


def test_the_large_preset_is_the_released_model():
    """Numbers under this name would be those of another model."""
    ours, released = PRESETS["30b"].config, QWEN3_30B_A3B
    for name in ("layers", "d_model", "vocab_size", "norm", "tie_embeddings"):
        assert getattr(ours, name) == getattr(released, name), name


@pytest.mark.parametrize("name", PRESETS)
def test_presets_fit_their_prompts(name):
    """A benchmark would stop at a prompt longer than the context."""
    preset = PRESETS[name]
    longest = max(preset.prompt, *preset.prefills)
    assert longest + 8192 <= preset.config.context_length


def test_presets_of_machines():
    """A CPU would be asked to hold 61 GB."""
    assert (default("cpu"), default("gpu"), default("tpu")) == ("bench", "30b", "30b")
    assert makes_weights("tiny", "cpu") and makes_weights("30b", "gpu")
    assert not makes_weights("30b", "cpu")
