"""`jaxmoe routers` on a random model; answers are given or made up."""

import dataclasses
import json
import re
import sys

import numpy as np
import pytest

import jaxmoe
import jaxmoe.demo
from jaxmoe.analysis import router_pass
from jaxmoe.analysis.passages import Passages
from jaxmoe.analysis.router_pass import Passage
from jaxmoe.analysis.router_stats import from_json
from jaxmoe.analysis.run_texts import run_rows
from jaxmoe.checkpoints.store import read_manifest
from jaxmoe.cli import routers
from jaxmoe.cli.policy_options import policy_of
from jaxmoe.cli.questions import task_named
from jaxmoe.cli.router_options import rows_of
from jaxmoe.cli.routers import main
from jaxmoe.cli.sampler_options import sampler_of
from jaxmoe.evals.records import Record
from jaxmoe.evals.run import pack_routes
from jaxmoe.evals.store import RunDirectory
from jaxmoe.reports import plots

FIGURES = {"scores", "mass", "loads", "coactivation", "heads"}


@pytest.fixture(autouse=True)
def no_cache(monkeypatch, tmp_path):
    """No home is written to."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def drawn(monkeypatch):
    """What was asked to be drawn; each answer is made up, of two tokens."""
    asked = []

    def draw(model, prompts, *, key, policy, **options):
        asked.append((prompts, policy, options))
        shape = (3, model.config.num_layers, model.config.experts_per_token)
        routes = np.full(shape, -1, np.int16)
        return [
            Passage(np.array([*prompt[-1:], 8, 9], np.int32), 1, routes)
            for prompt in prompts
            for _ in range(options["n"])
        ]

    monkeypatch.setattr(router_pass, "draw", draw)
    return asked


def _write(path, *rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


@pytest.fixture
def no_figures(monkeypatch):
    """As if matplotlib was not there."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)


def _refuse(capsys, argv) -> str:
    """The one line on standard error of a run that ends with code 2."""
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.thorough
def test_report_of_a_file(checkpoint, model, drawn, no_figures, tmp_path, capsys):
    """A class or a layer would be missing, or hours lost for want of matplotlib."""
    out = tmp_path / "new" / "report"
    prompt, answer = model.encode("one two"), model.encode(" three")
    rows = [{"prompt": "one two", "answer": " three"}, {"prompt": [5, 6]}]
    argv = [str(checkpoint), "--data", _write(tmp_path / "data.jsonl", *rows)]
    options = ["--n", "2", "--max-new-tokens", "3", "--against", str(checkpoint)]
    assert main([*argv, "--out", str(out), *options, "--policy", "topk"]) == 0
    names = {"router.json", "router.html", "heads.csv"}
    assert {path.name for path in out.iterdir()} == names
    text = (out / "router.json").read_text("utf-8")
    results = json.loads(text, parse_constant=pytest.fail)
    assert results["checkpoint"] == read_manifest(checkpoint).digest
    used = {"drawn": "TopK()", "given": "TopK()"}
    assert results["policy"] == used
    assert list(results["layers"]) == [str(l) for l in model.config.moe_layers]
    tokens = {"prompt": len(prompt) + 2, "generated": len(answer) + 4}
    for part in (results["layers"], *results["against"]["routed by top-k"]):
        for classes in part.values():
            for name, count in tokens.items():
                stats = from_json(classes[name]["statistics"])
                assert stats.tokens == classes[name]["summary"]["tokens"] == count
                assert stats.load.sum() == count * model.config.experts_per_token
    ((prompts, policy, drawing),) = drawn
    assert [ids.tolist() for ids in prompts] == [[5, 6]]
    assert policy == jaxmoe.TopK()
    assert (drawing["n"], drawing["max_new_tokens"]) == (2, 3)
    printed = capsys.readouterr()
    (said,) = [line for line in printed.err.splitlines() if "figures" in line]
    assert 'pip install "jaxmoe[plots]"' in said
    _check_table(printed.out, results, model)


@pytest.mark.thorough
def test_figures_of_a_file(checkpoint, matplotlib, monkeypatch, tmp_path):
    """A figure would be missing."""
    # Layout and compression take seconds, and are the figures' own tests'.
    monkeypatch.setattr(plots, "_save", lambda _, picture: picture.png.write_bytes(b""))
    out = tmp_path / "report"
    data = _write(tmp_path / "data.jsonl", *({"prompt": [5, i]} for i in range(3)))
    argv = [str(checkpoint), "--data", data, "--max-new-tokens", "0"]
    assert main([*argv, "--out", str(out), "--against", str(checkpoint)]) == 0
    names = {f"{name}.png" for name in FIGURES | {"comparison", "steepness"}}
    names |= {"router.json", "router.html", "heads.csv"}
    assert {path.name for path in out.iterdir()} == names
    results = json.loads((out / "router.json").read_text("utf-8"))
    assert results["policy"] == {"drawn": None, "given": "TopK()"}


def _check_table(printed, results, model) -> None:
    """The table and the options below it, against router.json."""
    summaries = [
        (layer, name, part["summary"])
        for layer, classes in results["layers"].items()
        for name, part in classes.items()
    ]
    rows = re.findall(
        r"^ +(\d+)  (prompt|generated) +(\d+) .* (\d+) +(\d+)$", printed, re.M
    )
    assert [tuple(row) for row in rows] == [
        (
            layer,
            name,
            str(s["tokens"]),
            str(s["advice"]["k_keep"]),
            str(s["advice"]["r"]),
        )
        for layer, name, s in summaries
    ]
    kept, ranges = re.findall(r"--k-keep ([\d,]+) --r ([\d,]+)$", printed, re.M)[0]
    assert len(kept.split(",")) == len(ranges.split(",")) == model.config.num_layers
    last = [s for _, name, s in summaries if name == "generated"][-1]
    assert kept.split(",")[-1] == str(last["advice"]["k_keep"])


@pytest.mark.parametrize(
    "lines, message",
    [
        ("", "line with"),
        ('{"prompt": "a"}\n\n{"prompt": \n', "line 3 must be JSON"),
        ('{"prompt": "a"}\n[1]\n', "line 2 must be a JSON object"),
        ('{"question": "a"}\n', "line 1 must have a \"prompt\", found ['question']"),
        ('{"prompt": 5}\n', "line 1 must have text or a list of token ids, found 5"),
        ('{"prompt": [1, "a"]}\n', "line 1 must have text or a list of token ids"),
        ('{"prompt": "a", "text": {}}\n', "line 1 must have text"),
        ('{"prompt": []}\n', "line 1: a prompt must have at least one token"),
        ('{"prompt": [1]}\n{"prompt": [99999999]}\n', "line 2: token ids must lie"),
        (json.dumps({"prompt": [1] * 50_000}), "line 1: the context holds"),
    ],
)
def test_bad_data(checkpoint, tmp_path, capsys, lines, message):
    """A slip in line 7 of 1000 would be a traceback, or be skipped."""
    path = tmp_path / "data.jsonl"
    path.write_text(lines, "utf-8")
    argv = [str(checkpoint), "--data", str(path), "--out", str(tmp_path / "out")]
    assert message in _refuse(capsys, argv)


def test_bad_options(checkpoint, tmp_path, capsys):
    """Hours of computation would end where nothing can be written."""
    (tmp_path / "file").write_text("")
    data = _write(tmp_path / "data.jsonl", {"prompt": [5]})
    begin, out = [str(checkpoint), "--data", data], ["--out", str(tmp_path / "out")]
    inside = ["--out", str(tmp_path / "file" / "out")]
    assert "a folder that can be written" in _refuse(capsys, [*begin, *inside])
    assert "--n and --limit" in _refuse(capsys, [*begin, *out, "--limit", "0"])
    assert "--n and --limit" in _refuse(capsys, [*begin, *out, "--n", "0"])
    assert "--data is needed" in _refuse(capsys, [str(checkpoint), *out])
    missing = [str(checkpoint), "--data", str(tmp_path / "none.jsonl"), *out]
    assert "none.jsonl" in _refuse(capsys, missing)
    chat = [*begin, *out, "--chat"]
    assert "line 1: a chat needs text" in _refuse(capsys, chat)


def test_other_checkpoint_of_another_shape(checkpoint, model, tmp_path, capsys):
    """Layers of one model would be compared with those of another."""
    config = model.config
    fewer = dataclasses.replace(
        model, config=dataclasses.replace(config, layers=config.layers[:1])
    )
    argv = [str(checkpoint), "--data", _write(tmp_path / "d.jsonl", {"prompt": [5]})]
    argv += ["--out", str(tmp_path / "out"), "--against", "other"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jaxmoe, "load", lambda p, **_: fewer if p == "other" else model)
        assert "layers with experts in both checkpoints" in _refuse(capsys, argv)


def test_demo_asks_its_problems(tmp_path, capsys):
    """Without a file the demo would be asked nothing, or anything else without one."""
    args = routers.parser().parse_args(["demo", "--out", str(tmp_path), "--limit", "3"])
    rows = rows_of(args)
    problems = jaxmoe.demo.problems("test")[:3]
    assert [row.prompt for row in rows] == [problem.prompt for problem in problems]
    assert not any(row.answers for row in rows)


# -- runs --------------------------------------------------------------------------


def _run(folder, *, tokens=None, routes=None, **manifest):
    """Two problems of two answers each; those of sample 1 have tokens or routes."""
    prompts = {"problems": ["a", "b"], "prompts": ["first", "second"]}
    manifest = {"task": "aime", "thinking": None} | prompts | manifest
    with RunDirectory(folder, manifest | {"groups": ["a", "b"], "n": 2}) as run:
        for j, name in ((1, "b"), (0, "a")):
            for i in range(2):
                made = Record(
                    name, i, (0, j, i), f"{j}.{i}", "stop", None, False, 3, None, None,
                    tokens=tokens and tokens(j, i), routes=routes and routes(j, i),
                )  # fmt: skip
                run.add(made)
    return folder


def _passages(checkpoint, model, folder, *options):
    """The passages that main makes of a run, with what main knows of them."""
    arguments = [str(checkpoint), "--data", str(folder), "--out", "out", *options]
    args = routers.parser().parse_args(arguments)
    rows = rows_of(args)
    return Passages(
        model, rows, policy=policy_of(args), sampler=sampler_of(args, model)
    )


def test_answers_of_a_run(checkpoint, tmp_path):
    """An evaluation's answers would be read beside the wrong prompts."""
    folder = _run(tmp_path, tokens=lambda j, i: (j, i, 7) if i else None)
    rows = run_rows(folder, read_manifest(checkpoint).digest, task_named)
    assert [row.prompt for row in rows] == ["first", "second"]
    assert [row.answers for row in rows] == [
        ("0.0", [0, 1, 7]),
        ("1.0", [1, 1, 7]),
    ]


@pytest.mark.parametrize("task", ["aime", "gpqa", "math", "exact", "code", "countdown"])
@pytest.mark.parametrize("thinking", [None, False])
def test_prompts_of_a_run(checkpoint, model, tmp_path, monkeypatch, task, thinking):
    """Routers would be measured on prompts that the run has never read."""
    given = []
    monkeypatch.setattr(
        jaxmoe.Model, "chat", lambda self, *a, **k: given.append((a, k)) or [5, 6]
    )
    folder = _run(tmp_path, task=task, thinking=thinking)
    passages = _passages(checkpoint, model, folder)
    asked = [([{"role": "user", "content": text}],) for text in ("first", "second")]
    chat = (
        []
        if task == "countdown"
        else [(a, {"enable_thinking": thinking}) for a in asked]
    )
    assert given == chat
    first = [5, 6] if chat else model.encode("first")
    one = next(iter(passages))
    assert one.tokens.tolist() == [*first, *model.encode("0.0")]
    assert one.prompt_length == len(first)
    assert passages.described() == {"drawn": None, "given": "TopK()"}


@pytest.mark.thorough
def test_routes_of_a_run(checkpoint, model, no_figures, tmp_path):
    """Loads would be those of top-k, not of what computed the answers."""
    config = model.config
    k, moe = config.experts_per_token, list(config.moe_layers)
    most = config.num_experts

    def routes(j, i):
        made = np.full((3, config.num_layers, k), -1, np.int16)
        made[:, moe, :2] = [most - 1, most - 2]
        made[0, moe, :2] = [0, 1]  # of the prompt's last token
        return pack_routes(made)

    digest = read_manifest(checkpoint).digest
    folder, out = tmp_path / "run", tmp_path / "out"
    about = {"task": "countdown", "checkpoint": digest}
    _run(folder, tokens=lambda j, i: (8, 9, 7), routes=routes, **about)
    passages = _passages(checkpoint, model, folder)
    prompt = model.encode("first")
    one = next(iter(passages))
    assert one.tokens.tolist() == [*prompt, 8, 9]
    assert one.prompt_length == len(prompt)
    assert main([str(checkpoint), "--data", str(folder), "--out", str(out)]) == 0
    results = json.loads((out / "router.json").read_text("utf-8"))
    assert results["policy"] == {"drawn": None, "given": "as recorded"}
    for classes in results["layers"].values():
        load = from_json(classes["generated"]["statistics"]).load
        assert load[-2:].tolist() == [8, 8] and load.sum() == 16
        # As many experts a token as the run took, which is fewer than the model's own.
        stats = from_json(classes["prompt"]["statistics"])
        assert stats.load.sum() == 2 * stats.tokens


@pytest.mark.parametrize(
    ("tokens", "digest", "why"),
    [(None, None, "need the tokens"), ((8, 9, 7), "other", "another checkpoint's")],
)
def test_routes_that_cannot_be_taken(checkpoint, model, tmp_path, tokens, digest, why):
    """Experts would be read beside the wrong tokens, or be another model's."""
    config = model.config
    shape = (3, config.num_layers, config.experts_per_token)
    _run(
        tmp_path,
        tokens=lambda j, i: tokens,
        routes=lambda j, i: pack_routes(np.zeros(shape, np.int16)),
        checkpoint=digest or read_manifest(checkpoint).digest,
    )
    with pytest.warns(UserWarning, match=why):
        passages = _passages(checkpoint, model, tmp_path)
    assert all(one.routes is None for one in passages)
    assert passages.described()["given"] == "TopK()"


def test_runs_that_cannot_be_read(checkpoint, tmp_path, capsys):
    """Prompts would be put into the template twice, or not as they were."""
    argv = ["--data", str(_run(tmp_path / "run")), "--out", str(tmp_path / "out")]
    assert "--chat is for a file" in _refuse(capsys, [str(checkpoint), *argv, "--chat"])
    argv[1] = str(_run(tmp_path / "own", task="own"))
    assert "found 'own'" in _refuse(capsys, [str(checkpoint), *argv])
