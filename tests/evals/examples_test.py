"""What of a run is to be read: of every kind, and never too much for a page."""

from dataclasses import replace

import pytest

from jaxmoe.evals import examples
from jaxmoe.evals.examples import examples_of, excerpt
from tests.evals.compare_test import BASE, OTHER, RIGHT, run_of


def test_what_one_run_solved_alone_comes_first():
    """The most telling problems would be lost among the others."""
    found = examples_of([BASE, OTHER])
    assert [e.problem for e in found] == ["p1", "p2", "p0"]
    assert [e.solved_by for e in found] == ["base", "es", None]
    assert found[0].right == {"base": 1, "es": 0}
    assert (found[0].prompt, found[0].reference) == ("prompt p1", RIGHT)
    assert [e.solved_by for e in examples_of([BASE])] == [None] * 3


def test_every_kind_of_answer_is_taken():
    """A right answer, one cut off or one that was not read would never be seen."""
    run = run_of([["a"] * 6 + [None, RIGHT, "a"]])
    row = [replace(r, finish="length") if r.sample == 8 else r for r in run.records[0]]
    (example,) = examples_of([replace(run, records=(tuple(row),))])
    found = example.answers["base"]
    assert [a.sample for a in found] == [0, 6, 7, 8]
    assert [a.right for a in found] == [False, False, True, False]
    assert [a.read for a in found] == ["a", None, RIGHT, "a"]
    assert [a.cut for a in found] == [False, False, False, True]
    assert {a.tokens for a in found} == {4}


def test_large_runs_stay_within_bounds(monkeypatch):
    """A page of a large run would not open."""
    run = run_of([["a", RIGHT]] * 300)
    found = examples_of([run])
    assert len(found) == examples.PROBLEMS
    assert (found[0].problem, found[-1].problem) == ("p0", "p299")
    monkeypatch.setattr(examples, "CHARACTERS", 100)
    assert 1 < len(examples_of([run])) < 10


@pytest.mark.parametrize("length", [0, 100, examples.LONGEST, 50_000])
def test_long_texts_keep_both_ends(length):
    """The answer, which stands at the end, would be cut away."""
    text = "".join(str(i % 10) for i in range(length))
    shown = excerpt(text)
    if length <= examples.LONGEST:
        assert shown == text
    else:
        start, note, end = shown.split("\n")
        assert text.startswith(start) and text.endswith(end)
        assert len(start) + len(end) == examples.LONGEST
        assert f"{length - examples.LONGEST:,}" in note
