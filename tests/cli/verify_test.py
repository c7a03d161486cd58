"""verify.py: a run's answers, scored by an endpoint on this machine."""

import shlex

import pytest

from jaxmoe.cli import compare, verify
from jaxmoe.evals.run import read_run
from jaxmoe.evals.score_files import read_scores, verifier_of
from jaxmoe.evals.store import RunDirectory
from tests.evals.chat_verifier_test import completion, endpoint
from tests.evals.compare_test import RIGHT, run_of


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    """Requests to this machine must not go through a proxy that a user has set."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def run(tmp_path):
    """The folder of a run: two problems, two answers to each."""
    made = run_of([["a", RIGHT], [RIGHT, "b"]])
    with RunDirectory(tmp_path / "base", made.manifest) as folder:
        for row in made.records:
            for record in row:
                folder.add(record)
    return tmp_path / "base"


def arguments(run, url, *more):
    """A command that scores one problem after the other into scores.jsonl."""
    given = [str(run), "--url", url, "--model", "judge", "--workers", "1", *more]
    return [*given, "--out", str(run.with_name("scores.jsonl"))]


def refuse(capsys, argv):
    """The one line on standard error of a command that ends with code 2."""
    with pytest.raises(SystemExit) as ended:
        verify.main(argv)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


def test_from_a_run_to_a_comparison(run, capsys, monkeypatch):
    """A verifier's scores would not reach the table, or need a hand in between."""
    monkeypatch.setenv("JUDGE_KEY", "sk-1")
    replies = [completion(f"Score: {score}") for score in (1, 9, 8, 2)]
    with endpoint(*replies) as (url, requests):
        argv = arguments(run, url, "--key-env", "JUDGE_KEY")
        assert verify.main(argv) == 0
        first = capsys.readouterr().out
        # The same command has nothing left to ask.
        assert verify.main(argv) == 0
        assert capsys.readouterr().out == first
    assert len(requests) == 4
    _, headers, body = requests[1]
    assert headers["Authorization"] == "Bearer sk-1" and body["model"] == "judge"
    asked = body["messages"][0]["content"]
    assert "prompt p0" in asked and f"text {RIGHT}" in asked
    ids = read_run(run).ids
    file = run.with_name("scores.jsonl")
    assert verifier_of(file) == {"url": url, "model": "judge"}
    argv[argv.index("judge")] = "other"
    assert "expected scores of url" in refuse(capsys, argv)
    found = read_scores(file, ids, 2)
    assert found.tolist() == [[1, 9], [8, 2]]
    python, path, *rest = shlex.split(first.splitlines()[-1])
    assert (python, path) == ("jaxmoe", "compare")
    assert compare.main(rest) == 0
    assert "best of 2, scores" in capsys.readouterr().out


def test_what_was_scored_is_kept(run, capsys):
    """An endpoint that breaks off would cost all scores, or end in a traceback."""
    over = (402, "no credit left", {})
    replies = *[completion("Score: 1")] * 2, over, *[completion("Score: 5")] * 2
    with endpoint(*replies) as (url, requests):
        assert verify.main(arguments(run, url)) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(
            "error: expected scores for 2 problems, found them for 1"
        )
        assert "no credit left" in line and "keeps the scores of 1 problems" in line
        assert len(requests) == 3
        assert verify.main(arguments(run, url)) == 0
        assert len(requests) == 5


def test_what_verify_refuses(run, capsys, monkeypatch):
    """A slip would end in a traceback, or show a key."""
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    url = "http://127.0.0.1:1/v1"
    found = refuse(capsys, arguments(run, url, "--key-env", "JUDGE_KEY"))
    assert "--key-env must name an environment variable" in found
    assert "sk-2" not in refuse(capsys, arguments(run, url, "--key-env", "sk-2"))
    assert "url must begin" in refuse(capsys, arguments(run, "localhost"))
    assert "manifest.json" in refuse(capsys, arguments(run / "no", url))
    assert "workers" in refuse(capsys, arguments(run, url, "--workers", "0"))
    out = ["--out", str(run.with_name("scores.jsonl"))]
    assert "--model is needed" in refuse(capsys, [str(run), "--url", url, *out])
    asked = [str(run), "--verifier", "demo", *out]
    assert "writes text" in refuse(capsys, asked)
    assert "is for --verifier" in refuse(capsys, arguments(run, url, "--cut"))
    assert "is for --verifier" in refuse(capsys, arguments(run, url, "--ignore", "a"))
    for option in ("--workers", "2"), ("--model", "x"), ("--key-env", "K"):
        assert f"{option[0]} is for --url" in refuse(capsys, [*asked, *option])
    run.with_name("scores.jsonl").write_text("a list\n", "utf-8")
    assert "line 1: expected JSON" in refuse(capsys, arguments(run, url))
