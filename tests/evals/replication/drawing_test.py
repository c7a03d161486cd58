"""A recipe's rows: drawn by another's call, read when whole, scored by files."""

import pytest

from jaxmoe.evals.replication import drawing
from jaxmoe.evals.replication.drawing import (
    draw_rows,
    draws_of,
    read_row_scores,
    read_rows,
    score_file,
)
from jaxmoe.evals.replication.recipe import read_recipe
from jaxmoe.evals.replication.results import VERIFIER
from jaxmoe.evals.score_files import score_run
from jaxmoe.evals.store import RunDirectory
from jaxmoe.planning.models import config_of
from tests.evals.compare_test import RIGHT, run_of


def write(out, run, records):
    """A run directory with these records."""
    with RunDirectory(out, run.manifest) as folder:
        for record in records:
            folder.add(record)


def test_broken_answers_are_not_missing_ones(tmp_path):
    """A broken file would be waited for, as if another part had yet to draw it."""
    made = run_of([["a", RIGHT], [RIGHT, "b"]])
    write(tmp_path / "one", made, [*made.records[0], *made.records[1]])
    write(tmp_path / "two", made, made.records[0])
    runs, missing = read_rows(tmp_path, ["one", "two"])
    assert [*runs] == ["one"] and missing == ["two"]
    (broken,) = (tmp_path / "two").glob("*.jsonl")
    broken.write_text("no record\n" + broken.read_text("utf-8"), "utf-8")
    with pytest.raises(ValueError, match="no record"):
        read_rows(tmp_path, ["one", "two"])


def test_every_row_is_drawn_into_its_folder(tmp_path, monkeypatch):
    """A row would be left out, lose its tokens, or be drawn with another's options."""
    recipe, config = read_recipe("demo-smoke"), config_of("demo")
    draws = draws_of(recipe, config, max_new_tokens=24, seed=3, slots=8)
    assert [*draws] == [row.name for row in recipe.rows]
    assert {(d.max_new_tokens, d.seed, d.slots) for d in draws.values()} == {(24, 3, 8)}
    called = []

    def evaluate(model, task, questions, draw, path, *, keep, progress, **options):
        called.append((path, draw, keep.tokens, options))
        progress(None)

    monkeypatch.setattr(drawing, "evaluate", evaluate)
    options = {"checkpoint": "c", "data": {}}
    asked = (None, None, [])
    draw_rows(*asked, draws, tmp_path, routers=recipe.routers, **options)
    assert [(path, draw) for path, draw, *_ in called] == [
        (tmp_path / row, draw) for row, draw in draws.items()
    ]
    kept = [path.name for path, _, tokens, _ in called if tokens]
    assert kept == ([recipe.routers] if recipe.routers else [])
    assert all(given == options for *_, given in called)


def test_scores_are_of_their_row(tmp_path):
    """Scores of another row would rank its answers."""
    one, two = run_of([["a", "bb"]], "one"), run_of([["c", "dd"]], "two", seed=1)
    lengths = lambda problem, answers: [float(len(a)) for a in answers]  # noqa: E731
    score_run(one, lengths, score_file(tmp_path, "one"), identity={"url": "u"})
    found = read_row_scores(tmp_path, {"one": one, "two": two})
    assert [*found] == ["one"] and found["one"][VERIFIER].tolist() == [[6, 7]]
    score_file(tmp_path, "one").rename(score_file(tmp_path, "two"))
    with pytest.raises(ValueError, match="answers of two .* named 'one'"):
        read_row_scores(tmp_path, {"one": one, "two": two})
