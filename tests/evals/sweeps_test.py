"""A sweep's points, and the heat map made of their differences."""

import numpy as np
import pytest

from jaxmoe import ExpertSample, TokenSampler, TopK
from jaxmoe.evals.compare import compare
from jaxmoe.evals.sweeps import check_points, compare_points, grid, panels_of
from tests.evals.compare_test import RIGHT, run_of
from tests.tiny import EXPERTS, tiny_config


def test_a_grid_is_every_combination_after_its_baseline():
    """A cell of the heat map would be missing, or have nothing to be held against."""
    points = grid(k_keep=(1, 2), r=(6, 9), tau=(0.5, 1.0), k=(3, 2))
    names = [point.name for point in points]
    assert names[:3] == ["topk", "topk-k3", "topk-k2"]
    assert len(set(names)) == len(names) == 3 + 8
    assert [p.policy for p in points[:3]] == [TopK(), TopK(3), TopK(2)]
    policies = [p.policy for p in points[3:]]
    assert policies[0] == ExpertSample(1, 6, 0.5)
    assert points[3].values == {"k_keep": 1, "r": 6, "tau": 0.5}


def test_every_temperature_has_a_baseline():
    """Hot tokens would be held against cold ones."""
    points = grid(k_keep=(1,), r=(6,), tau=(1.0,), temperature=(0.5, 1.0))
    assert [p.name for p in points] == [
        *("topk-t0.5", "es-keep1-r6-tau1-t0.5", "topk-t1", "es-keep1-r6-tau1-t1")
    ]
    sampler = TokenSampler(0.7, top_k=20)
    assert points[0].sampler(sampler) == TokenSampler(0.5, top_k=20)
    assert grid(k_keep=(), r=(), tau=())[0].sampler(sampler) is sampler


def test_points_are_held_against_the_baseline_of_their_temperature():
    """What heat does to tokens would be taken for what the policy does."""
    points = grid(k_keep=(1,), r=(6,), tau=(1.0,), temperature=(0.5, 1.0))
    rights = (3, 2, 1, 1)
    runs = [
        run_of([[RIGHT] * right + ["a"] * (4 - right)] * 2, point.name)
        for point, right in zip(points, rights, strict=True)
    ]
    found = compare_points(points, runs)
    assert [run.name for run in found.runs] == [point.name for point in points]
    accuracy = {
        (d.a, d.b): d.interval.mean
        for d in found.differences
        if d.measure == "accuracy"
    }
    assert accuracy == {
        ("topk-t0.5", "es-keep1-r6-tau1-t0.5"): pytest.approx(-0.25),
        ("topk-t1", "es-keep1-r6-tau1-t1"): pytest.approx(0.0),
    }


def test_what_a_grid_refuses():
    """Two runs would be written to one folder."""
    with pytest.raises(ValueError, match="every tau once"):
        grid(k_keep=(1,), r=(6,), tau=(1.0, 1.0))


def test_points_are_checked_before_anything_is_drawn():
    """A sweep would stop at its last point, hours later."""
    check_points(grid(k_keep=(1,), r=(6,), tau=(1.0,)), tiny_config())
    with pytest.raises(ValueError, match=r"es-keep9-r6-tau1: .*k_keep"):
        check_points(grid(k_keep=(1, 9), r=(6,), tau=(1.0,)), tiny_config())
    with pytest.raises(ValueError, match=f"topk-k{EXPERTS + 1}: "):
        check_points(grid(k_keep=(), r=(), tau=(), k=(EXPERTS + 1,)), tiny_config())


def test_panels_hold_each_difference_in_its_cell():
    """A heat map would show one setting's gain under another's name."""
    points = grid(k_keep=(2, 1), r=(6,), tau=(1.0, 0.5))
    rights = {"topk": 1, "es-keep2-r6-tau1": 2, "es-keep1-r6-tau0.5": 0}
    runs = []
    for point in points:
        right = rights.get(point.name, 1)
        runs.append(run_of([[RIGHT] * right + ["a"] * (4 - right)] * 2, point.name))
    made = panels_of(points, compare(runs), "accuracy")
    assert made is not None
    assert (made.keeps, made.taus, list(made.panels)) == ((1, 2), (0.5, 1.0), ["r = 6"])
    np.testing.assert_allclose(made.panels["r = 6"], [[-0.25, 0.0], [0.0, 0.25]])


def test_no_heat_map_of_one_point():
    """A picture of one cell says less than the table."""
    points = grid(k_keep=(1,), r=(6,), tau=(1.0,))
    runs = [run_of([[RIGHT, "a"]] * 2, point.name) for point in points]
    assert panels_of(points, compare(runs), "accuracy") is None
