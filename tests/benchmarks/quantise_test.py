"""What the benchmark of quantised weights says, of models where it is known."""

import numpy as np
import pytest

from jaxmoe.benchmarks import quantise
from jaxmoe.benchmarks.targets import Place


def test_divergence_is_that_of_the_definition():
    """It would be of the wrong one from the other, or in bits."""
    p, q = np.array([[0.5, 0.25, 0.25], [0.1, 0.9, 0.0]]), np.full((2, 3), 1 / 3)
    with np.errstate(divide="ignore"):
        found = quantise._divergence(np.log(np.maximum(p, 1e-300)) + 7, np.log(q))
    expected = [
        sum(a * np.log(a / b) for a, b in zip(*rows, strict=True) if a)
        for rows in zip(p, q, strict=True)
    ]
    np.testing.assert_allclose(found, expected)
    assert (found > 0).all()


@pytest.mark.slow
def test_rows_of_both_models(monkeypatch):
    """Rows would be of a model compared with itself."""
    small = {"hidden_size": 64, "head_dim": 16, "num_local_experts": 16}
    small |= {"moe_intermediate_size": 32, "num_hidden_layers": 1, "vocab_size": 256}
    monkeypatch.setattr(quantise, "LAYER", small)
    monkeypatch.setattr(quantise, "PROBLEMS", 2)
    monkeypatch.setattr(quantise, "TOKENS", 40)
    rows = list(quantise.measure(Place("tiny", "cpu")))
    assert [row.unit for row in rows] == ["nats", "%", "%", "nats", "%"]
    demo, layer = (row.value for row in rows if row.unit == "nats")
    assert demo is not None and layer is not None
    assert 0 < demo < 1e-3 and 0 < layer < 1e-2
    assert all(row.value and row.value > 50 for row in rows if row.unit == "%")
