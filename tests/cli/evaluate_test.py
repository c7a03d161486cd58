"""`jaxmoe evaluate`, `compare` and `sweep` on the demo, from questions to a report."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoe
from jaxmoe import ExpertSample, TokenSampler, demo
from jaxmoe.analysis.router_stats import empty, to_host, to_json, update
from jaxmoe.checkpoints.source import open_source
from jaxmoe.cli import compare, evaluate, sample, sweep
from jaxmoe.demo.game_runs import MAX_NEW_TOKENS, room_of
from jaxmoe.evals import evaluate as evaluation
from jaxmoe.evals.draw import as_fields
from jaxmoe.evals.metrics import bootstrap, pass_at
from jaxmoe.evals.run import read_run
from tests.running import SCRIPTS

pytestmark = pytest.mark.xdist_group("evaluate")

PLAYED = 12
SMALL = ["demo", "--problems", str(PLAYED), "--n", "4", "--slots", "8"]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """A cache directory of these tests' own, so that nobody's home is written to."""
    path = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(path))
        yield path


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A folder with a run of Expert-Sample, and one of top-k."""
    folder = tmp_path_factory.mktemp("runs")
    assert evaluate.main([*SMALL, "--out", str(folder / "es")]) == 0
    options = ["--policy", "topk", "--keep-tokens"]
    assert evaluate.main([*SMALL, *options, "--out", str(folder / "base")]) == 0
    return folder


def refuse(main, capsys, argv: list[str]) -> str:
    """The one line on standard error of a run that ends with code 2."""
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2
    # Without matplotlib a line before it says that there are no figures.
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


# -- evaluate.py ---------------------------------------------------------------------


@pytest.mark.slow
def test_the_numbers_are_those_of_the_models_answers(runs, capsys):
    """The accuracy printed would be that of other answers."""
    problems = demo.problems()[:PLAYED]
    outs = jaxmoe.sample(
        jaxmoe.load("demo"),
        [problem.prompt for problem in problems],
        key=jax.random.key(0),
        n=4,
        policy=ExpertSample(),
        sampler=TokenSampler(0.7),
        max_new_tokens=MAX_NEW_TOKENS,
        slots=8,
        return_certainty=True,
    )
    marks = np.array(
        [
            [demo.is_right(problem, text) for text in out.text]
            for problem, out in zip(problems, outs, strict=True)
        ]
    )
    assert 0 < marks.sum() < marks.size  # else the test says nothing
    assert evaluate.main([*SMALL, "--out", str(runs / "es"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    groups = [problem.numbers for problem in problems]
    right = marks.sum(axis=1)
    for name, values in {
        "accuracy": right / 4,
        "pass@2": pass_at(right, 4, 2),
        "pass@4": pass_at(right, 4, 4),
    }.items():
        expected = bootstrap(values, groups=groups)
        bounds = [expected.mean, expected.low, expected.high]
        assert found["measures"][name] == pytest.approx(bounds), name
    assert found["right"] == right.tolist()
    about = found["about"]
    assert about["checkpoint"] == open_source("demo").digest()
    assert (about["seed"], about["slots"], about["n"]) == (0, 8, 4)
    assert about["policy"] == as_fields(ExpertSample())
    assert about["weights"] == "bfloat16"  # also where they are held as bits


@pytest.mark.slow
def test_a_run_that_is_there_is_printed_again(runs, capsys, monkeypatch):
    """A reader would wait for the same answers twice."""

    def never(*_, **__):
        raise AssertionError("drawn again")

    monkeypatch.setattr(evaluation, "stream", never)
    assert evaluate.main([*SMALL, "--out", str(runs / "es")]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"{PLAYED} problems of countdown, 4 answers each\n")
    for name in ("accuracy", "pass@4", "majority vote of 4", "distinct right answers"):
        assert re.search(rf"^  {name} +\d", text, re.MULTILINE), name
    before = (runs / "es" / "records-0-of-1.jsonl").read_bytes()
    argv = [*SMALL, "--out", str(runs / "es"), "--seed", "5"]
    assert "seed" in refuse(evaluate.main, capsys, argv)
    assert (runs / "es" / "records-0-of-1.jsonl").read_bytes() == before


def test_options_reach_the_draw(monkeypatch, tmp_path):
    """An option would be ignored, and its number be that of another run."""
    heard = []

    def hear(model, task, questions, draw, path, **options):
        heard.append((task, questions, draw, path, options))
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluation, "evaluate", hear)
    options = "--n 3 --problems 5 --split validation --seed 6 --slots 2 --shard 1/3"
    options += " --noisy-prefill --policy topk --k 4 --greedy --top-p 1 --top-k 0"
    options += " --keep-tokens --keep-routes --graders 2 --max-new-tokens 9 --out"
    with pytest.raises(SystemExit):
        evaluate.main([*options.split(), str(tmp_path / "a")])
    ((task, questions, draw, path, others),) = heard
    asked = [problem.prompt for problem in demo.problems("validation")[:5]]
    assert task.name == "countdown" and [q.prompt for q in questions] == asked
    assert path == tmp_path / "a"
    assert draw.policy == jaxmoe.TopK(4)
    assert draw.sampler == TokenSampler(0.0, top_p=1.0, top_k=0)
    numbers = (draw.n, draw.max_new_tokens, draw.seed, draw.slots, draw.noisy_prefill)
    assert numbers == (3, 9, 6, 2, True)
    assert (others["shard"].index, others["shard"].count) == (1, 3)
    assert others["keep"] == evaluation.Keep(tokens=True, routes=True)
    assert others["graders"] == 2


@pytest.mark.parametrize("checkpoint", ["demo", "demo-tries"])
def test_answers_have_the_room_that_the_model_needs(tmp_path, monkeypatch, checkpoint):
    """Answers of several tries would be cut off after the first, and count as wrong."""
    heard = []

    def hear(model, task, questions, draw, path, **options):
        heard.append(draw)
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluation, "evaluate", hear)
    with pytest.raises(SystemExit):
        evaluate.main([checkpoint, "--problems", "1", "--out", str(tmp_path / "a")])
    assert [draw.max_new_tokens for draw in heard] == [room_of(checkpoint)]


@pytest.mark.thorough
def test_questions_of_ones_own(capsys, tmp_path):
    """A user's file would be asked in the wrong words, or not at all."""
    data = tmp_path / "own.jsonl"
    rows = [{"id": f"mine-{p.target}", "prompt": p.prompt} for p in demo.problems()[:2]]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    argv = ["demo", "--data", str(data), "--n", "2", "--slots", "8"]
    assert evaluate.main([*argv, "--out", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out.startswith("2 problems of countdown, 2 answers")
    assert list(read_run(tmp_path / "run").ids) == [row["id"] for row in rows]
    data.write_text(json.dumps(rows[0]) + "\n{\n", encoding="utf-8")
    assert "line 2" in refuse(evaluate.main, capsys, argv)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--n 0", "n must be"),
        ("--slots 0", "slots must be"),
        ("--problems 0", "--problems must be at least 1, found 0"),
        ("--problems 513", "--problems must be 1 to 512, found 513"),
        ("--temperature -1", "temperature"),
        ("--policy topk --k-keep 2", "--policy topk has --k"),
        ("--k-keep 9", "k_keep must be 0..8, found 9"),
        ("--task aime", "--task aime needs --data"),
        ("--task code --data code.jsonl", "--allow-code"),
        ("--data /nowhere.jsonl", "/nowhere.jsonl"),
        ("--shard 0/2", "--shard needs --out"),
        ("--shard 2/2 --out x", "2/2"),
        ("/nowhere", "/nowhere"),
    ],
)
def test_what_evaluate_refuses(capsys, options, message, tmp_path, monkeypatch):
    """A slip would end in a traceback, or in a number of something else."""
    monkeypatch.chdir(tmp_path)
    test = {"input": "1", "output": "1", "testtype": "stdin"}
    row = json.dumps({"question": "Print what you read.", "tests": [test]})
    Path("code.jsonl").write_text(row + "\n", encoding="utf-8")
    assert message in refuse(evaluate.main, capsys, options.split())


@pytest.mark.parametrize("seed", ["-1", "4294967296", "one"])
def test_evaluate_takes_the_seeds_that_generate_takes(capsys, seed):
    """A seed would end in a traceback, or give the answers of another."""
    for main in (sample.main, evaluate.main):
        with pytest.raises(SystemExit) as ended:
            main(["--seed", seed])
        assert ended.value.code == 2
        assert "argument --seed: invalid" in capsys.readouterr().err


@pytest.mark.thorough
def test_killed_ten_times(cache, tmp_path):
    """A killed evaluation would lose answers, draw some twice, or end with others."""
    out, waits = tmp_path / "run", np.random.default_rng(0).uniform(0, 1.5, 10)
    command = [sys.executable, str(SCRIPTS / "evaluate.py"), *SMALL, "--out", str(out)]
    records, kills = out / "records-0-of-1.jsonl", 0
    for wait in waits:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        size = records.stat().st_size if records.exists() else 0
        while process.poll() is None:
            if records.exists() and records.stat().st_size > size:
                break
            time.sleep(0.01)
        time.sleep(wait / 10)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    # In a process of its own as well: programs of tests are compiled otherwise.
    whole = tmp_path / "whole"
    subprocess.run([*command[:-1], str(whole)], check=True, stdout=subprocess.DEVNULL)
    expected = (whole / "records-0-of-1.jsonl").read_text("utf-8").split("\n")
    assert sorted(records.read_text("utf-8").split("\n")) == sorted(expected)
    assert kills


# -- compare.py ----------------------------------------------------------------------


@pytest.mark.slow
def test_compare_for_people(runs, capsys):
    """The table would leave a run out, or not say what differs."""
    assert compare.main([str(runs / "base"), str(runs / "es")]) == 0
    text = capsys.readouterr().out
    assert re.search(r"^ +base +es$", text, re.MULTILINE)
    assert re.search(r"^accuracy +\d+\.\d % \[.*% \[", text, re.MULTILINE)
    difference = r"^es less base +accuracy +-?\d+\.\d % \[.*\] +[\d.e-]+ +[\d.e-]+$"
    assert re.search(difference, text, re.MULTILINE)


@pytest.mark.slow
def test_compare_writes_a_report(runs, capsys, tmp_path):
    """The one thing that a paper is written from would be missing or empty."""
    html = tmp_path / "report.html"
    argv = [str(runs / "base"), str(runs / "es"), "--html", str(html), "--json"]
    assert compare.main([*argv, "--title", "A < B"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [run["name"] for run in found["runs"]] == ["base", "es"]
    assert {d["measure"] for d in found["differences"]} >= {"accuracy", "pass@4"}
    page = html.read_text("utf-8")
    assert "A &lt; B" in page and "<script" not in page and "<svg" in page
    assert not re.findall(r'(?:src|href)="(?!data:,|#)[^"]+"', page)
    differences = (tmp_path / "report.differences.csv").read_text("utf-8")
    assert '"base","es","accuracy",' in differences
    measures = (tmp_path / "report.measures.csv").read_text("utf-8")
    assert "pass@4" in measures
    problems = (tmp_path / "report.problems.csv").read_text("utf-8")
    assert problems.count("\n") == 1 + 2 * PLAYED


@pytest.mark.slow
def test_router_curves_are_taken_in(runs, capsys, tmp_path):
    """The report would show the runs without the routers behind them."""
    stats = update(
        empty(8),
        jnp.log(jnp.arange(1.0, 9))[None],
        jnp.array([[7, 6]]),
        jnp.ones(1, bool),
    )
    classes = {"generated": {"statistics": to_json(to_host(stats))}}
    router = tmp_path / "router.json"
    router.write_text(json.dumps({"layers": {"0": classes}}), encoding="utf-8")
    html = tmp_path / "report.html"
    argv = [str(runs / "base"), "--html", str(html), "--router", str(router)]
    assert compare.main(argv) == 0
    assert "Routers" in html.read_text("utf-8")
    router.write_text("{}", encoding="utf-8")
    assert "jaxmoe routers" in refuse(compare.main, capsys, argv)


@pytest.mark.slow
def test_compare_takes_a_verifiers_scores(runs, capsys, tmp_path):
    """Best-of-N under one's own verifier could not be reported."""
    scores = tmp_path / "mine.jsonl"
    run = read_run(runs / "base")
    rows = [
        {"problem": id, "scores": [float(r.correct) for r in records]}
        for id, records in zip(run.ids, run.records, strict=True)
    ]
    scores.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    argv = [str(runs / "base"), "--scores", f"base={scores}", "--json"]
    assert compare.main(argv) == 0
    (found,) = json.loads(capsys.readouterr().out)["runs"]
    best = found["measures"]["best of 4, mine"]
    assert best == pytest.approx(found["measures"]["pass@4"])
    argv[2] = f"other={scores}"
    assert "RUN=FILE" in refuse(compare.main, capsys, argv)


@pytest.mark.slow
def test_what_compare_refuses(runs, capsys, tmp_path):
    """A slip would end in a traceback."""
    assert "nowhere" in refuse(compare.main, capsys, [str(tmp_path / "nowhere")])
    twice = [str(runs / "base"), str(runs / "base")]
    assert "base twice" in refuse(compare.main, capsys, twice)


# -- sweep.py ------------------------------------------------------------------------


@pytest.mark.slow
def test_a_sweep(runs, capsys, tmp_path, monkeypatch):
    """Points would be missing from the table, or be drawn again by a second call."""
    out = tmp_path / "sweep"
    argv = [*SMALL, "--out", str(out), "--k-keep", "4,6", "--tau", "1,2", "--k", "4"]
    assert sweep.main(argv) == 0
    first = capsys.readouterr().out
    names = ["topk", "topk-k4"]
    names += [f"es-keep{k}-r32-tau{t}" for k in (4, 6) for t in (1, 2)]
    for name in names:
        assert name in first and (out / name / "manifest.json").exists()
    found = json.loads((out / "sweep.json").read_text("utf-8"))
    assert [run["name"] for run in found["runs"]] == names
    assert found["points"]["es-keep6-r32-tau2"] == {"k_keep": 6, "r": 32, "tau": 2.0}
    base = json.loads((out / "topk" / "manifest.json").read_text("utf-8"))
    assert base["policy"] == as_fields(jaxmoe.TopK())

    def never(*_, **__):
        raise AssertionError("drawn again")

    monkeypatch.setattr(evaluation, "stream", never)
    assert sweep.main(argv) == 0
    assert capsys.readouterr().out == first


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--k-keep 9", "es-keep9-r32-tau1: policy: k_keep must be"),
        ("--tau 1,1", "every tau once"),
        ("--k 65", "topk-k65"),
    ],
)
def test_what_sweep_refuses(capsys, options, message, tmp_path):
    """A sweep would stop at its last point, hours later."""
    argv = ["demo", "--out", str(tmp_path / "sweep"), *options.split()]
    assert message in refuse(sweep.main, capsys, argv)
    assert not (tmp_path / "sweep").exists()
