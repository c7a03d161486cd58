"""Findings of a family of which some claims are left out."""

import numpy as np
import pytest

from jaxmoe.evals.claims import Claim, Evidence, findings

CLAIM = Claim("c", "one", "two", "accuracy", "higher")


def test_claims_left_out_count():
    """A claim without answers would leave the others less to prove."""
    rng = np.random.default_rng(0)
    b = rng.random(60)
    family = [
        Evidence(CLAIM, b + gain + 0.1 * rng.standard_normal(60), b, range(60))
        for gain in (0.06, 0.03)
    ]
    few, many = findings(family), findings(family, size=5)
    first, second = (finding.p_value for finding in many)
    assert 0 < first < second < 0.1
    assert [f.adjusted for f in few] == pytest.approx([2 * first, second])
    assert [f.adjusted for f in many] == pytest.approx([5 * first, 4 * second])
