"""`jaxmoe replicate`: costs, refusals, and the whole path on the demo."""

import json

import pytest

from jaxmoe.cli import replicate
from jaxmoe.evals import evaluate as evaluation

SMALL = ["demo-smoke", "--problems", "4", "--n", "2", "--slots", "8"]


def refuse(capsys, argv: list[str]) -> str:
    """The one line on standard error of a command that ends with code 2."""
    with pytest.raises(SystemExit) as ended:
        replicate.main(argv)
    assert ended.value.code == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


def test_costs_need_no_weights(capsys, tmp_path):
    """A bill would come after the weights were read, or of another number of tokens."""
    sizes = [
        "--checkpoint",
        "30b",
        "--benchmark",
        "gpqa-diamond",
        "--max-new-tokens",
        "1000",
    ]
    argv = ["pass-at-n", *sizes, "--dry-run", "--out", str(tmp_path / "out")]
    assert replicate.main(argv) == 0
    said = capsys.readouterr().out
    # Four rows of 198 problems with 64 answers each.
    assert "50,688 answers, 50,688,000 tokens" in said
    assert all(place in said for place in ("v5litepod-16", "v6e-8", "1 H200"))
    assert not (tmp_path / "out").exists()
    assert replicate.main([*argv, "--problems", "2", "--mean-tokens", "10"]) == 0
    assert "512 answers, 5,120 tokens (at most 512,000)" in capsys.readouterr().out


def test_costs_say_what_is_drawn(capsys):
    """Three quarters of 6 experts are not to be had; times would be 5.76e-06 hours."""
    argv = "--benchmark aime24 --problems 1 --mean-tokens 10 --dry-run --checkpoint"
    assert replicate.main(["reduction", *argv.split(), "ling-lite-1.5"]) == 0
    said = capsys.readouterr().out
    assert "- greedy-0.75k: TopK(k=4)" in said
    assert "e-0" not in said and "| under 1 s |" in said
    assert replicate.main(["ablations", *argv.split(), "gpt-oss-20b"]) == 0
    said = capsys.readouterr().out
    assert ": 12 rows," in said and "- keep-0.75k: not drawn, as default" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("nonsense", "must be one of ablations"),
        ("pass-at-n", "--benchmark must be one of aime-120"),
        ("pass-at-n --benchmark aime24", "--checkpoint is needed"),
        ("pass-at-n --benchmark aime24 --checkpoint demo", "--out is needed"),
        ("pass-at-n --benchmark aime24 --checkpoint demo --out x", "--data is needed"),
        ("pass-at-n --benchmark aime24 --checkpoint demo --dry-run", "found demo"),
        (
            "pass-at-n --benchmark livecodebench-v6-lite --checkpoint 30b --dry-run",
            "give --data, or --problems",
        ),
        (
            "pass-at-n --benchmark aime24 --checkpoint demo --out x --data a.jsonl",
            "64 experts, 8 a token",
        ),
        ("demo-smoke --out x --shard 2/2", "2/2"),
        ("demo-smoke --dry-run --n 0", "n must be"),
        ("demo-smoke --dry-run --weights int8", "--weights does nothing with --dry"),
        ("demo-smoke --dry-run --mesh 1x1", "--mesh does nothing with --dry-run"),
        ("demo-smoke --dry-run --shard 0/2", "--shard does nothing with --dry-run"),
        ("demo-smoke --dry-run --problems -3", "--problems must be"),
        (
            "pass-at-n --benchmark aime24 --checkpoint 30b --dry-run --problems 0",
            "--problems must be",
        ),
        (
            "pass-at-n --benchmark aime24 --checkpoint 30b --dry-run --problems -3",
            "--problems must be",
        ),
        ("demo-smoke --dry-run --slots 0", "slots must be"),
        ("demo-smoke --dry-run --mean-tokens 0", "--mean-tokens must be above 0"),
    ],
)
def test_what_replicate_refuses(capsys, options, message, tmp_path, monkeypatch):
    """A slip would end in a traceback, or after hours of drawing."""
    monkeypatch.chdir(tmp_path)
    row = {"problem": "How many primes are below 10?", "answer": 4}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    assert message in refuse(capsys, options.split())
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_parts_make_the_whole(capsys, tmp_path, monkeypatch):
    """Parts would be lost, drawn twice, or reported before all are there."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert replicate.main([*SMALL, "--out", str(whole)]) == 0
    assert "| normal-es " in capsys.readouterr().out
    assert replicate.main([*SMALL, "--out", str(parts), "--shard", "0/2"]) == 0
    assert "answers of normal, normal-es" in capsys.readouterr().out
    assert not (parts / "replication.json").exists()
    assert replicate.main([*SMALL, "--out", str(parts), "--shard", "1/2"]) == 0
    found, split = (
        json.loads((out / "replication.json").read_text("utf-8"))
        for out in (whole, parts)
    )
    assert [run["right"] for run in found["runs"]] == [
        run["right"] for run in split["runs"]
    ]
    assert found["claims"] == split["claims"]
    assert (whole / "routers" / "router.json").exists()

    def never(*_, **__):
        raise AssertionError("drawn again")

    monkeypatch.setattr(evaluation, "stream", never)
    assert replicate.main([*SMALL, "--out", str(parts)]) == 0
    assert "| normal-es " in capsys.readouterr().out
