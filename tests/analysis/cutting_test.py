"""What fewer experts lose, against `forward` with fewer."""

import jax
import numpy as np
import pytest

import jaxmoe
from jaxmoe import TopK
from jaxmoe.analysis.cutting import Cutting, cut
from jaxmoe.analysis.router_pass import Passage
from tests.tiny import CHOSEN, prompt_of, tiny_model


def test_losses_are_differences_by_token():
    """What is won would be called lost, or prompts be weighed by nothing."""
    sums = np.array([[[4, -8.0, 2], [4, -4.0, 3]], [[6, -9.0, 0], [6, -8.0, 4]]])
    found = Cutting((1, 4), ("a", "b"), sums)
    assert found.logprob_lost(1).mean == 0.5 and found.accuracy_lost(1).mean == 0.5
    assert found.logprob_lost(4).mean == 0 and found.tokens == 10


def test_sizes_that_do_not_fit():
    """All experts would be compared with all experts."""
    model = tiny_model()
    for sizes in ([], [0], [CHOSEN]):
        with pytest.raises(ValueError, match=rf"1..{CHOSEN - 1}"):
            cut(model, [], sizes)


@pytest.mark.slow
def test_fewer_experts_read_as_forward_does():
    """Tokens of the prompt would count, or another size's experts be taken."""
    model = tiny_model()
    texts = [prompt_of(length, length).astype(np.int32) for length in (9, 14)]
    found = cut(model, [Passage(text, 4) for text in texts], [1, 3])
    for row, text in enumerate(texts):
        for place, size in enumerate((1, 3, CHOSEN)):
            logits = jaxmoe.forward(model, text, policy=TopK(size))
            log_p = np.asarray(jax.nn.log_softmax(logits, axis=-1))[3:-1]
            taken = log_p[np.arange(len(log_p)), text[4:]]
            hits = (log_p.argmax(axis=1) == text[4:]).sum()
            expected = [len(taken), taken.sum(), hits]
            np.testing.assert_allclose(found.sums[row, place], expected, rtol=1e-4)
