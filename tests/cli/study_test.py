"""`jaxmoe demo study`, on answers that are made up where they take hours."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

import jaxmoe
from jaxmoe.checkpoints.source import open_source
from jaxmoe.cli import demo as demo_command
from jaxmoe.cli import demo_trials
from jaxmoe.demo import game_runs, policy_study, trials
from jaxmoe.demo.chains import all_chains
from jaxmoe.demo.configuration_names import BASE
from jaxmoe.demo.encoding import ANSWER_LENGTH
from jaxmoe.demo.game_runs import room_of
from jaxmoe.demo.held_out import PILOT_PROBLEMS, problems_of, read_part
from jaxmoe.demo.pilot import pilot_draw
from jaxmoe.demo.study import MAIN, configurations
from jaxmoe.demo.token_entropy import TokenEntropy
from jaxmoe.evals.draw import Draw
from tests.outcomes import outcome_of

pytestmark = pytest.mark.xdist_group("study")

PLAYED = 4
FAMILIES = {n: f.claims for n, f in trials.ONE_TRY.families.items()}


def main(argv: list[str]) -> int:
    """`jaxmoe demo study`."""
    return demo_command.main(["study", *argv])


@dataclass(frozen=True)
class Run:
    """What the study asked for."""

    draw: Draw
    path: Path
    checkpoint: str


@pytest.fixture(scope="module")
def asked(tmp_path_factory) -> Iterator[list[Run]]:
    """The runs that were asked for; their answers are made up."""
    asked = []
    first = problems_of(read_part("study")[:PLAYED])
    chains = all_chains([problem.numbers for problem in first])
    solutions = dict(zip(map(tuple, chains.numbers), chains.texts(), strict=True))

    def play(model, problems, draw, path, *, checkpoint, progress):
        asked.append(Run(draw, path, checkpoint))
        path.mkdir(parents=True, exist_ok=True)
        right = np.arange(len(problems)) % (draw.n + 1)
        found = outcome_of(problems, draw.n, right)
        if problems != first:  # the pilot's
            return found
        texts = [solutions[problem.numbers] for problem in problems]
        texts[0] = "12"  # of another length
        return replace(found, first=tuple(texts))

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(game_runs, "play", play)
        yield asked


@pytest.fixture(scope="module")
def study(asked, matplotlib, tmp_path_factory) -> tuple[Path, list[Run]]:
    """The study's directory, and the runs that it is made of."""
    out = tmp_path_factory.mktemp("study") / "out"
    asked.clear()
    assert main([str(out), "--problems", str(PLAYED), "--slots", "16"]) == 0
    return out, list(asked)


@pytest.mark.slow
def test_all_configurations_are_played(study):
    """A row would be missing, or take the answers of another from its file."""
    out, asked = study
    assert [run.draw for run in asked] == [
        row.draw(16) for row in configurations().values()
    ]
    paths = {run.path for run in asked}
    assert len(paths) == len(asked)
    assert {path.parent for path in paths} == {out / "answers"}
    assert {run.checkpoint for run in asked} == {open_source("demo").digest()}


@pytest.mark.slow
def test_everything_is_written(study):
    """Hours of answers would end without results, or with half a file."""
    out, _ = study
    figures = {"pass_at.png", "router.png", "differences.png"}
    found = {path.name for path in out.iterdir()}
    assert found == {"answers", "results.json", "table.md"} | figures
    for name in figures:
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    text = (out / "results.json").read_text(encoding="utf-8")
    results = json.loads(text, parse_constant=pytest.fail)
    assert list(results["configurations"]) == list(configurations())
    assert results["configurations"][BASE]["right"] == [0, 1, 2, 3]
    assert results["checkpoint"] == open_source("demo").digest()
    assert text.count("\n") < 1500  # a list is a line
    table = (out / "table.md").read_text(encoding="utf-8")
    assert f"| {BASE} " in table


@pytest.mark.slow
def test_routers_are_those_of_the_answers(study):
    """The router's curve would be of prompts, padding, or answers of another form."""
    out, _ = study
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    # One of the answers is of another length, and left out.
    assert results["router_passes"] == (PLAYED - 1) * ANSWER_LENGTH
    for weights in ("trained", "untrained"):
        layers = results["router"][weights]
        assert list(layers) == [f"layer {l}" for l in range(4)]
        for curve in layers.values():
            assert len(curve["mean"]) == 64
            assert curve["cumulative"][-1] == pytest.approx(1, abs=1e-5)
            assert 0 < curve["load_entropy"] <= 1
    first = [results["router"][w]["layer 0"] for w in ("trained", "untrained")]
    assert first[0] != first[1]


def test_parts_of_a_study(asked, tmp_path):
    """Two machines could not share the work, or the first would end with an error."""
    asked.clear()
    argv = [str(tmp_path), "--problems", str(PLAYED), "--only", "k_keep 2", BASE]
    assert main(argv) == 0
    rows = configurations()
    assert [run.draw for run in asked] == [
        rows[n].draw(256) for n in (BASE, "k_keep 2")
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["answers"]


@pytest.mark.slow
def test_main_rows_are_enough(asked, matplotlib, tmp_path):
    """Secondary rows that time does not allow would cost the results."""
    argv = [str(tmp_path), "--problems", str(PLAYED), "--only", *MAIN]
    assert main(argv) == 0
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert list(results["configurations"]) == [*MAIN]
    assert len(results["left_out"]["configurations"]) == len(configurations()) - 5


@pytest.mark.parametrize("held", ['{"configurations": {"another": {}}}', "[]", "{}"])
def test_results_of_another_run_are_kept(asked, matplotlib, tmp_path, capsys, held):
    """The main rows alone would be written over all of them."""
    asked.clear()
    (tmp_path / "results.json").write_text(held)
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path), "--problems", str(PLAYED), "--only", *MAIN])
    said = capsys.readouterr().err
    assert "results.json" in said and "Traceback" not in said and not asked
    assert (tmp_path / "results.json").read_text() == held


def test_the_pilot(asked, tmp_path, capsys):
    """The study's problems would be drawn before it is known which."""
    asked.clear()
    assert main([str(tmp_path), "--pilot"]) == 0
    assert [run.draw for run in asked] == [pilot_draw(256)]
    *rows, last = capsys.readouterr().out.splitlines()[1:]
    assert len(rows) * PILOT_PROBLEMS == len(read_part("pilot"))
    assert last.startswith("chosen: ")


def test_without_matplotlib_nothing_is_drawn(asked, tmp_path, capsys, monkeypatch):
    """Hours of answers would end without figures."""
    asked.clear()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path), "--problems", str(PLAYED)])
    assert ended.value.code == 2 and not asked
    assert 'pip install "jaxmoe[plots]"' in capsys.readouterr().err
    assert main([str(tmp_path), "--problems", str(PLAYED), "--only", BASE]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--only", BASE, "k_keep 8"], "found ['k_keep 8']"),
        (["--pilot", "--only", BASE], "found it with --pilot"),
        (["--problems", "0"], "--problems must be 1 to 2048, found 0"),
        (["--problems", "-1"], "--problems must be 1 to 2048, found -1"),
    ],
)
def test_what_the_study_refuses(asked, tmp_path, capsys, options, message):
    """A slip would draw for hours, and then end in a traceback."""
    asked.clear()
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path), *options])
    assert ended.value.code == 2 and not asked
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error


@pytest.mark.parametrize("options", [["--n", "0"], ["--slots", "-1"]])
def test_what_the_table_of_policies_refuses(tmp_path, capsys, monkeypatch, options):
    """A slip would end after the model was loaded."""

    def never(*_, **__):
        raise AssertionError("loaded")

    monkeypatch.setattr(jaxmoe, "load", never)
    with pytest.raises(SystemExit) as ended:
        demo_command.main(["policies", str(tmp_path), *options])
    assert ended.value.code == 2
    assert "must be a whole number of at least 1" in capsys.readouterr().err


def test_the_trials(asked, tmp_path, monkeypatch):
    """Rows of a model would be drawn by another, or a model's claims be left out."""
    asked.clear()
    texts = []

    def entropy(config, params, some, *, tries):
        assert tries == 1
        texts.append(some)
        return TokenEntropy(0.5, 3)

    monkeypatch.setattr(demo_trials, "token_entropy", entropy)
    argv = [str(tmp_path), "--problems", str(PLAYED), "--slots", "16"]
    assert demo_command.main(["trials", *argv, "--noisy", "demo"]) == 0
    rows = map(trials.ONE_TRY.rows, ("shipped", "noisy"))
    wanted = [row.policy for own in rows for row in own.values()]
    assert [str(run.draw.policy) for run in asked] == [str(p) for p in wanted]
    assert {run.draw.slots for run in asked} == {16}
    assert len({run.path for run in asked}) == len(wanted)
    assert len(texts) == 2 and len(texts[0]) == PLAYED
    assert texts[0][1].startswith(read_part("study")[1].problem.prompt)
    results = json.loads((tmp_path / "results.json").read_text("utf-8"))
    found = {"nats": 0.5, "answers": 3}
    assert results["token entropy"] == {"shipped": found, "noisy": found}
    assert len(results["heads"]) == len(FAMILIES["heads"])
    found = [row["claim"] for row in results["models"]]
    assert found == [
        c.text for c in FAMILIES["models"] if c.a == "noisy, expert-sample"
    ]
    assert (tmp_path / "table.md").read_text("utf-8").startswith("4 problems of ")


def test_some_rows_of_the_trials(asked, tmp_path, monkeypatch):
    """Who has one more model would draw, and pay for, the rows of all others again."""
    asked.clear()
    entropy = lambda *_, tries: TokenEntropy(0.5, 3)  # noqa: E731
    monkeypatch.setattr(demo_trials, "token_entropy", entropy)
    argv = [str(tmp_path), "--problems", str(PLAYED), "--coarse", "demo", "--only"]
    rows = [trials.row_of("coarse", policy) for policy in trials.ROUTING]
    assert demo_command.main(["trials", *argv, *rows, trials.FIXED]) == 0
    results = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert [*results["configurations"]] == [trials.FIXED, *rows]
    assert [*results["token entropy"]] == ["coarse"]  # that of the other is of top-k
    assert len(results["coarse experts"]) == len(FAMILIES["coarse experts"])
    assert results["heads"] == [] and len(asked) == 3
    assert [*results["checkpoints"]] == ["shipped", "coarse"]
    asked.clear()
    argv[0] = str(tmp_path / "more")
    assert demo_command.main(["trials", *argv, *rows]) == 0
    results = json.loads((tmp_path / "more" / "results.json").read_text("utf-8"))
    assert [*results["checkpoints"]] == ["coarse"] and len(asked) == 2


def test_the_trials_of_several_tries(asked, tmp_path, monkeypatch):
    """Answers would be cut off after their first try, or be those of demo."""
    asked.clear()
    most = []

    def entropy(config, params, some, *, tries):
        most.append(tries)
        return TokenEntropy(0.5, 3)

    monkeypatch.setattr(demo_trials, "token_entropy", entropy)
    argv = [str(tmp_path), "--of", "demo-tries", "--problems", str(PLAYED)]
    assert demo_command.main(["trials", *argv, "--control", "demo"]) == 0
    setting = trials.SEVERAL_TRIES
    rows = [*setting.own.values(), *setting.rows("control").values()]
    assert [run.draw for run in asked] == [setting.draw(row, 256) for row in rows]
    assert {run.draw.max_new_tokens for run in asked} == {room_of("demo-tries")}
    assert {run.draw.n for run in asked} == {8} and most == [6, 6]
    digests = [open_source(name).digest() for name in ("demo-tries", "demo")]
    assert [run.checkpoint for run in asked] == [digests[0]] * 9 + [digests[1]] * 2
    results = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert len(results["the method"]) == 4 and not results["models"]


def test_the_pilot_of_the_trials(asked, tmp_path, capsys):
    """Problems that are asked later would be seen, or other rows than top-k."""
    asked.clear()
    argv = ["trials", str(tmp_path), "--of", "demo-tries", "--pilot"]
    assert demo_command.main(argv) == 0
    setting = trials.SEVERAL_TRIES
    assert [run.draw for run in asked] == [setting.draw(setting.own["top-k"], 256)]
    said = capsys.readouterr().out
    assert "pass@8" in said and not (tmp_path / "results.json").exists()


def test_every_policy_is_asked_for_whole_answers(tmp_path, monkeypatch):
    """Answers of several tries would be cut off after the first."""
    heard = []

    def draw_row(model, row, asked, path, **options):
        heard.append(options)
        raise KeyboardInterrupt

    monkeypatch.setattr(policy_study, "draw_row", draw_row)
    for name in ("demo", "demo-tries"):
        with pytest.raises(SystemExit):
            argv = ["policies", str(tmp_path), "--of", name, "--problems", "2"]
            demo_command.main(argv)
        assert heard[-1]["most"] == room_of(name)
        assert heard[-1]["checkpoint"] == open_source(name).digest()


def test_heads_are_compared_together(asked, tmp_path):
    """A difference would be known while others of its family are still drawn."""
    argv = [str(tmp_path), "--problems", str(PLAYED), "--only", trials.FIXED, "by mass"]
    assert demo_command.main(["trials", *argv]) == 0
    results = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert results["heads"] == []
    assert len(results["heads left out"]) == len(FAMILIES["heads"])
    assert "entropy in nats" not in (tmp_path / "table.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("given", "only", "said"),
    [
        ([], ["noisy, top-k"], "give --noisy CKPT"),
        ([], ["fixd"], "found ['fixd']"),
        (["--noisy", "demo"], ["fixed"], "no row of ['noisy']"),
        (["--of", "demo-tries", "--coarse", "demo"], ["fixed"], "found --coarse"),
        (["--of", "demo-tries"], ["coarse, top-k"], "found ['coarse, top-k']"),
        (["--pilot"], ["fixed"], "--pilot is of top-k alone"),
    ],
)
def test_rows_that_cannot_be_drawn(asked, given, only, said, tmp_path, capsys):
    """The mistake would show after the other rows, or never."""
    asked.clear()
    with pytest.raises(SystemExit, match="2"):
        demo_command.main(["trials", str(tmp_path), *given, "--only", *only])
    assert said in capsys.readouterr().err and not asked


def test_results_of_more_rows_are_kept(asked, tmp_path, capsys):
    """Results of all rows would be written over by those of some."""
    argv = ["trials", str(tmp_path), "--problems", str(PLAYED), "--only", trials.FIXED]
    assert demo_command.main([*argv, "by mass"]) == 0
    before = (tmp_path / "results.json").read_bytes()
    with pytest.raises(SystemExit, match="2"):
        demo_command.main(argv)
    assert "['by mass']" in capsys.readouterr().err
    assert (tmp_path / "results.json").read_bytes() == before
