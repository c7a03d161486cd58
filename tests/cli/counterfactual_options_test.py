"""`jaxmoe routers --counterfactual`: what is asked for reaches the measurement."""

import argparse

import numpy as np
import pytest

from jaxmoe import ExpertSample, TopK
from jaxmoe.analysis import router_pass
from jaxmoe.analysis.router_pass import Passage
from jaxmoe.cli import counterfactual_options
from jaxmoe.cli.counterfactual_options import asks_for_routes, layer_sets
from jaxmoe.cli.routers import main, parser
from tests.reports.counterfactual_files_test import made_up


@pytest.fixture
def asked(monkeypatch):
    """What was drawn and measured; the results are made up."""
    found = {}

    def draw(model, prompts, *, policy, **_):
        found["drawn by"] = policy
        return [Passage(np.array([*p, 8], np.int32), len(p)) for p in prompts]

    def measure(name, result):
        def run(model, passages, **options):
            found[name] = (passages, options)
            return result

        monkeypatch.setattr(counterfactual_options, name, run)

    routes, importance = made_up()
    measure("counterfactual", routes)
    measure("ablate", importance)
    monkeypatch.setattr(router_pass, "draw", draw)
    return found


def test_options_reach_the_measurement(
    checkpoint, asked, tmp_path, capsys, monkeypatch
):
    """Answers would be drawn with noise, or routes be drawn by another policy."""
    monkeypatch.setattr(
        counterfactual_options, "write_counterfactual", lambda *a, **_: 0
    )
    data = tmp_path / "data.jsonl"
    data.write_text('{"prompt": [5, 6]}\n{"prompt": [5], "answer": [7, 9]}\n')
    argv = [str(checkpoint), "--data", str(data), "--out", str(tmp_path / "out")]
    argv += [
        "--counterfactual",
        "5",
        "--ablate",
        "--tau",
        "2",
        "--change",
        "1,0+1,all",
        "--seed",
        "3",
    ]
    assert main([*argv, "--positions", "4", "--reach", "rest", "--hold"]) == 0
    passages, options = asked["counterfactual"]
    assert asked["drawn by"] == TopK()
    assert [one.tokens.tolist() for one in passages] == [[5, 7, 9], [5, 6, 8]]
    assert options.pop("policy") == ExpertSample(tau=2)
    options.pop("progress")
    common = {"positions": 4, "reach": None, "hold": True}
    assert options == {"key": 3, "draws": 5, "layers": [1, [0, 1], "all"]} | common
    _, options = asked["ablate"]
    assert {name: options[name] for name in common} == common
    printed = capsys.readouterr().out
    assert "all tokens" in printed and "rank 2" in printed


@pytest.mark.parametrize(
    ("options", "wrong", "found"),
    [
        ("--hold", "--hold", "the report"),
        ("--change 0", "--change", "the report"),
        ("--positions 3", "--positions", "the report"),
        ("--reach rest", "--reach", "the report"),
        ("--write-weights", "--write-weights", "the report"),
        ("--ablate --write-weights", "--write-weights", "--ablate"),
        ("--ablate --change 0", "--change", "--ablate"),
        ("--ablate --cut 1", "--cut", "--ablate"),
        ("--counterfactual 2 --beside x", "--beside", "--counterfactual"),
        ("--counterfactual 2 --against x", "--against", "--counterfactual"),
        ("--lucky x --change 0", "--change", "--lucky"),
        ("--lucky x --hold", "--hold", "--lucky"),
        ("--ablate --policy topk", "--policy", "--ablate"),
        ("--ablate --tau 1,2", "--tau", "--ablate"),
        ("--lucky x --ensemble 2", "--ensemble", "--lucky"),
        ("--write-routes vllm --cut 1", "--cut", "--write-routes"),
        ("--write-routes vllm --reach 2", "--reach", "--write-routes"),
    ],
)
def test_options_that_would_do_nothing(options, wrong, found):
    """Hours would be spent on another report than was asked for."""
    args = parser().parse_args(["demo", "--out", "x", *options.split()])
    with pytest.raises(ValueError, match=f"{wrong} belongs to .*with {found};"):
        asks_for_routes(parser(), args)


def test_modes_that_go_together():
    """What fits would be refused, or answers written whose routes were to change."""
    every = ["--counterfactual", "2", "--ablate", "--hold", "--change", "0"]
    args = parser().parse_args(["demo", "--out", "x", *every, "--reach", "rest"])
    assert asks_for_routes(parser(), args)
    args = parser().parse_args(
        ["demo", "--out", "x", "--against", "y", "--beside", "z", "--cut", "1"]
    )
    assert not asks_for_routes(parser(), args)
    args = parser().parse_args(
        ["demo", "--out", "x", "--write-routes", "vllm", "--ablate"]
    )
    with pytest.raises(ValueError, match="--write-routes writes.*--ablate changes"):
        asks_for_routes(parser(), args)


def test_options_that_do_not_fit(checkpoint, tmp_path, capsys):
    """A slip would be a traceback, or a comparison would be left out in silence."""
    argv = [str(checkpoint), "--out", str(tmp_path / "out"), "--counterfactual", "2"]
    with pytest.raises(SystemExit):
        main([*argv, "--against", "other"])
    assert "--against" in capsys.readouterr().err
    with pytest.raises(argparse.ArgumentTypeError, match="'1,x'"):
        layer_sets("1,x")
