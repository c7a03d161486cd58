"""An evaluation draws, grades and keeps every answer once, however often it stops."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

import jaxmoe
from jaxmoe import ExpertSample, TokenSampler
from jaxmoe.evals import evaluate as evaluation
from jaxmoe.evals.deep_conf import DeepConf, deep_conf
from jaxmoe.evals.draw import Draw
from jaxmoe.evals.evaluate import Keep, Status, evaluate
from jaxmoe.evals.regrade import grade_again
from jaxmoe.evals.run import merge, read_run, routes_of
from jaxmoe.evals.shards import Shard
from jaxmoe.evals.store import RunDirectory, RunWriteError
from jaxmoe.evals.summary import summarise
from jaxmoe.evals.tasks.base import Grade, Question
from jaxmoe.text.tokenizer import Tokenizer
from tests.tiny import VOCAB, tiny_model

PROMPTS = ("w20 w31 w12", "w9", "w50 w50 w50 w51", "w96 w8", "w20 w31", "w7 w7")
ASKED = [
    Question(f"q{j}", prompt, None, f"g{j % 2}") for j, prompt in enumerate(PROMPTS)
]
DRAW = Draw(ExpertSample(), TokenSampler(0.9, top_k=30), 4, 10, seed=5, slots=4)
KEEP = Keep(tokens=True, routes=True)
DATA = {"file": "made up", "sha256": "0"}


@dataclass(frozen=True)
class EvenWords:
    """An answer is right if its first word has an even number."""

    name: str = "even"
    chat: bool = False

    @property
    def fields(self) -> Mapping[str, str]:
        """See `Task`."""
        return {}

    def question(self, row, *, id, seed, template) -> Question:
        """See `Task`."""
        raise NotImplementedError

    def grade(self, question: Question, text: str) -> Grade:
        """See `Task`."""
        word = text.split(" ")[0]
        even = word[1:].isdigit() and int(word[1:]) % 2 == 0
        return Grade(word or None, even, {"empty": not word})


@pytest.fixture(scope="module")
def model() -> jaxmoe.Model:
    """A tiny model whose words are "w0", "w1", ..."""
    backend = Backend(models.WordLevel({f"w{i}": i for i in range(VOCAB)}))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return replace(tiny_model(), tokenizer=Tokenizer(backend))


def run(model, path: Path, **options: Any) -> None:
    """One evaluation of the first questions."""
    given = {"checkpoint": "abc", "data": DATA, "keep": KEEP, **options}
    evaluate(model, EvenWords(), ASKED, given.pop("draw", DRAW), path, **given)


def lines(path: Path) -> list[str]:
    """All records, sorted."""
    files = sorted(path.glob("records-*.jsonl"))
    return sorted(l for f in files for l in f.read_text("utf-8").split("\n") if l)


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory) -> Path:
    """An unbroken run."""
    path = tmp_path_factory.mktemp("whole") / "run"
    run(model, path)
    return path


def test_records_are_the_answers_of_sample(model, whole):
    """The evaluated answers would not be those that a user draws from the key."""
    outs = jaxmoe.sample(
        model,
        [question.prompt for question in ASKED],
        key=jax.random.key(5),
        n=4,
        policy=ExpertSample(),
        sampler=TokenSampler(0.9, top_k=30),
        max_new_tokens=10,
        slots=4,
        return_routes=True,
        return_certainty=True,
    )
    found = read_run(whole)
    assert found.ids == tuple(question.id for question in ASKED)
    (go,) = found.goes
    assert (go.answers, go.tokens) == (4 * len(ASKED), found.lengths.sum())
    for j, (question, out) in enumerate(zip(ASKED, outs, strict=True)):
        for i, record in enumerate(found.records[j]):
            length = int(out.lengths[i])
            assert record.key == (5, j, i)
            assert record.text == out.text[i]
            assert record.tokens == tuple(out.tokens[i, :length].tolist())
            assert record.finish == out.finish[i]
            assert record.correct == EvenWords().grade(question, out.text[i]).correct
            total = out.logprobs[i, :length].sum(dtype=np.float64)
            assert record.logprob_sum == pytest.approx(total)
            assert record.logprob_mean == pytest.approx(total / length)
            sure = out.certainties[i, :length].mean(dtype=np.float64)
            assert record.self_certainty == pytest.approx(sure)
            np.testing.assert_array_equal(routes_of(record), out.routes[i, :length])
    assert found.correct.any() and not found.correct.all()


RULE = DeepConf(warm_up=2, keep=0.5, group=2, top=3)


@pytest.mark.slow
def test_answers_end_early_as_deep_conf_ends_them(model, whole, tmp_path):
    """`evaluate --deep-conf online` would be another method; or, stopped and gone on
    with, have other thresholds."""

    def stop(now: Status) -> None:
        if now.done >= 9 and now.drawn:
            raise KeyboardInterrupt

    draw, path = replace(DRAW, deep_conf=RULE), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run(model, path, draw=draw, progress=stop)
    run(model, path, draw=draw)
    found, plain = read_run(path), read_run(whole)
    options = {"max_new_tokens": 10, "policy": draw.policy, "sampler": draw.sampler}
    for j, question in enumerate(ASKED):
        one = deep_conf(
            model,
            question.prompt,
            key=jaxmoe.keys.prompt_key(draw.key, j),
            n=4,
            rule=RULE,
            slots=4,
            **options,
        )
        for record, before, answer, sure in zip(
            found.records[j],
            plain.records[j],
            one.answers,
            one.confidences,
            strict=True,
        ):
            assert record.tokens == tuple(answer.tokens.tolist())
            assert record.tokens == (before.tokens or ())[: record.length]
            assert (record.finish, record.confidence) == (answer.finish, sure)
            if record.finish == "stop_when":
                assert record.answer is None and not record.correct
            else:
                assert record.answer == before.answer
    ended = np.array(found.finish) == "stop_when"
    assert ended.any() and not ended[:, :2].any()
    assert summarise(found).numbers["share ended early"] == ended.mean()
    grade_again(path, EvenWords(), ASKED)
    assert read_run(path).records == found.records


def test_a_run_that_is_stopped_goes_on_with_the_same_bits(model, whole, tmp_path):
    """A killed run would be drawn anew, or end with other records."""
    path, stops = tmp_path / "run", []
    for after in (1, 5, 6, 13, 20):

        def stop(now: Status, after: int = after) -> None:
            if now.done >= after and now.drawn:
                stops.append(now.done)
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(model, path, progress=stop)
    assert stops == sorted(stops) and len(lines(path)) >= 20
    run(model, path)
    assert lines(path) == lines(whole)


def test_a_run_that_is_whole_draws_nothing(model, whole, monkeypatch):
    """The reader would wait for a model that has nothing to do."""

    def never(*_, **__):
        raise AssertionError("drawn again")

    monkeypatch.setattr(evaluation, "stream", never)
    before = lines(whole)
    run(model, whole)
    assert lines(whole) == before


def test_shards_make_the_whole_run(model, whole, tmp_path):
    """Hosts that share a run would draw other answers than one alone."""
    parts = [tmp_path / f"part{i}" for i in range(3)]
    for i, path in enumerate(parts):
        seen: list[Status] = []
        run(model, path, shard=Shard(i, 3), progress=seen.append)
        assert seen[-1].done == seen[-1].total == 8
    merge(parts, tmp_path / "merged")
    merge([whole], tmp_path / "unbroken")
    one, other = tmp_path / "merged", tmp_path / "unbroken"
    assert lines(one) == lines(other) == lines(whole)


def test_another_configuration_is_refused(model, whole):
    """Answers of two policies would be counted as of one."""
    before = lines(whole)
    with pytest.raises(ValueError, match="seed"):
        run(model, whole, draw=replace(DRAW, seed=6))
    with pytest.raises(ValueError, match="checkpoint"):
        run(model, whole, checkpoint="other")
    assert lines(whole) == before


def test_status_counts_what_was_there_before(model, whole, tmp_path):
    """Time left and accuracy would be those of another run."""
    path = tmp_path / "run"
    path.mkdir()
    (path / "manifest.json").write_bytes((whole / "manifest.json").read_bytes())
    kept = sorted(lines(whole))[:10]
    text = "".join(line + "\n" for line in kept)
    (path / "records-0-of-1.jsonl").write_text(text, encoding="utf-8")
    seen: list[Status] = []
    run(model, path, progress=seen.append)
    right = sum(json.loads(line)["correct"] for line in lines(path))
    last = seen[-1]
    assert (last.done, last.drawn, last.total, last.correct) == (24, 14, 24, right)
    assert last.seconds_left == 0 and last.tokens_per_second > 0
    assert last.accuracy == right / 24


def test_a_disk_that_is_full_ends_the_run_at_once(model, tmp_path, monkeypatch):
    """Later answers would be tried too, and the error not say what is kept."""
    kept, add = [], RunDirectory.add

    def fill(directory, record):
        kept.append(record)
        if len(kept) == 3:
            raise RunWriteError("full")
        add(directory, record)

    monkeypatch.setattr(RunDirectory, "add", fill)
    with pytest.raises(RunWriteError):
        run(model, tmp_path / "run")
    assert len(kept) == 3 and len(lines(tmp_path / "run")) == 2


def test_no_questions(model, tmp_path):
    """An empty file would make an empty run, of which nothing can be said."""
    options = {"checkpoint": "abc", "data": DATA}
    with pytest.raises(ValueError, match="at least one question"):
        evaluate(model, EvenWords(), [], DRAW, tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()
