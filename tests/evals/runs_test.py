"""Runs that are kept in a file: what they draw, and how they go on after a kill."""

import fcntl
import json
from dataclasses import fields, replace

import jax
import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

import jaxmoe
from jaxmoe import ExpertSample, TokenSampler, TopK
from jaxmoe.evals import runs
from jaxmoe.evals.runs import Draw, draw_answers
from jaxmoe.random.keys import prompt_key
from jaxmoe.text.tokenizer import Tokenizer
from tests.tiny import VOCAB, tiny_model

# Most of a minute in all, for the study of the demo alone; other evaluations are in run
# directories (evaluation_test.py).
pytestmark = pytest.mark.slow

PROMPTS = ["w20 w31 w12", "w9", "w50 w50 w50 w51", "w96 w8", "w20 w31"]
# Slots are given, so that all runs share one compiled program and equal bits.
DRAW = Draw(ExpertSample(), TokenSampler(0.9, top_k=30), 3, 10, slots=4)


@pytest.fixture(scope="module")
def model() -> jaxmoe.Model:
    """A tiny model whose words are "w0", "w1", ..."""
    backend = Backend(models.WordLevel({f"w{i}": i for i in range(VOCAB)}))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return replace(tiny_model(), tokenizer=Tokenizer(backend))


@pytest.fixture(scope="module")
def expected(model) -> list[list[str]]:
    """The answers of a run that nothing disturbs, and that is kept nowhere."""
    return draw_answers(model, PROMPTS, DRAW)


@pytest.fixture
def path(tmp_path):
    """Where a run is kept."""
    return tmp_path / "answers" / "run.jsonl"


@pytest.fixture
def drawn(monkeypatch) -> list[str]:
    """The prompts that have been drawn, filled as they are."""
    prompts, stream = [], runs.stream

    def noting(model, chosen, **options):
        prompts.extend(chosen)
        return stream(model, chosen, **options)

    monkeypatch.setattr(runs, "stream", noting)
    return prompts


@pytest.fixture
def by_twos(monkeypatch):
    """Two prompts are drawn together, so that these few make three chunks."""
    monkeypatch.setattr(runs, "CHUNK", 2)


def kept(path) -> list:
    """What the lines of a whole file say."""
    text = path.read_text(encoding="utf-8")
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


# -- the answers ---------------------------------------------------------------------


def test_answers_are_those_of_sample(model, expected):
    """A run would have other keys than users of `sample`, or mix up its prompts."""
    options = {"policy": DRAW.policy, "sampler": DRAW.sampler}
    options |= {"max_new_tokens": 10, "n": 3, "slots": 4}
    together = jaxmoe.sample(model, PROMPTS, key=jax.random.key(0), **options)
    assert expected == [list(out.text) for out in together]
    alone = prompt_key(jax.random.key(0), 3)
    assert expected[3] == list(
        jaxmoe.sample(model, PROMPTS[3], key=alone, **options).text
    )
    assert len({text for texts in expected for text in texts}) > 10


@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_chunks_change_no_answer(model, expected, drawn, monkeypatch, chunk):
    """How many prompts are drawn together would decide what is drawn."""
    monkeypatch.setattr(runs, "CHUNK", chunk)
    assert draw_answers(model, PROMPTS, DRAW) == expected
    assert drawn == PROMPTS


def test_other_seeds_give_other_answers(model, expected):
    """The seed would not reach the keys."""
    other = draw_answers(model, PROMPTS, replace(DRAW, seed=1))
    assert all(a != b for a, b in zip(other, expected, strict=True))


def test_progress_counts_prompts(model, by_twos, path):
    """A bar would stand still, or begin at 0 where a run goes on."""
    heard = []
    draw_answers(model, PROMPTS, DRAW, path, progress=heard.append)
    assert heard == [0, 2, 4, 5]
    heard.clear()
    draw_answers(model, PROMPTS, DRAW, path, progress=heard.append)
    assert heard == [5]


# -- going on ------------------------------------------------------------------------


def test_a_finished_run_is_read(model, expected, drawn, path):
    """Every look at the answers would draw them anew."""
    assert draw_answers(model, PROMPTS, DRAW, path) == expected
    drawn.clear()
    before = path.read_bytes()
    assert draw_answers(model, PROMPTS, DRAW, path) == expected
    assert not drawn
    assert path.read_bytes() == before


@pytest.mark.parametrize("chunks", [0, 1, 2])
def test_goes_on_after_a_kill(model, expected, drawn, by_twos, path, chunks):
    """A killed run would lose its answers, or end with other ones."""

    def kill(done):
        if done >= 2 * chunks:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw_answers(model, PROMPTS, DRAW, path, progress=kill)
    assert drawn == PROMPTS[: 2 * chunks]
    drawn.clear()
    assert draw_answers(model, PROMPTS, DRAW, path) == expected
    assert drawn == PROMPTS[2 * chunks :]


def test_a_kill_within_a_chunk_loses_that_chunk_alone(
    model, expected, by_twos, path, monkeypatch
):
    """A prompt would be kept with some of its answers missing."""
    stream, chunks = runs.stream, []

    def broken(model, chosen, **options):
        chunks.append(chosen)
        for count, answer in enumerate(stream(model, chosen, **options)):
            if len(chunks) == 2 and count == 4:
                raise KeyboardInterrupt
            yield answer

    with monkeypatch.context() as patch:
        patch.setattr(runs, "stream", broken)
        with pytest.raises(KeyboardInterrupt):
            draw_answers(model, PROMPTS, DRAW, path)
    assert [row["answers"] for row in kept(path)[1:]] == expected[:2]
    assert draw_answers(model, PROMPTS, DRAW, path) == expected


@pytest.mark.parametrize("part", [0.0, 0.02, 0.3, 0.55, 0.8, 0.999])
def test_goes_on_from_a_line_cut_short(model, expected, drawn, path, part):
    """A kill while writing would leave a file that cannot be read, or a wrong answer.

    part: of the file's bytes, how many had reached the disk.
    """
    draw_answers(model, PROMPTS, DRAW, path)
    whole = path.read_bytes()
    left = whole[: int(part * len(whole))]
    path.write_bytes(left)
    done = max(0, left.count(b"\n") - 1)
    for missing in (PROMPTS[done:], []):
        drawn.clear()
        assert draw_answers(model, PROMPTS, DRAW, path) == expected
        assert drawn == missing
    assert path.read_bytes() == whole
    assert [child.name for child in path.parent.iterdir()] == [path.name]


def test_lines_may_be_missing_or_in_another_order(model, expected, drawn, path):
    """Answers would go to the prompt that stands at their line's place."""
    draw_answers(model, PROMPTS, DRAW, path)
    header, *lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join([header, lines[4], lines[1], lines[2]]), encoding="utf-8")
    drawn.clear()
    assert draw_answers(model, PROMPTS, DRAW, path) == expected
    assert drawn == [PROMPTS[0], PROMPTS[3]]
    assert [row["prompt"] for row in kept(path)[1:]] == [4, 1, 2, 0, 3]


# -- files of other runs -------------------------------------------------------------

CHANGES = {
    "n": {"n": 4},
    "policy": {"policy": TopK()},
    "sampler": {"sampler": TokenSampler(0.8, top_k=30)},
    "max_new_tokens": {"max_new_tokens": 11},
    "seed": {"seed": 1},
    "slots": {"slots": 8},
    "noisy_prefill": {"noisy_prefill": True},
    "prompts": {"prompts": PROMPTS[:-1]},
    "weights": {"about": {"weights": "another digest"}},
    "policy, seed": {"policy": ExpertSample(tau=0.5), "seed": 2},
}


@pytest.mark.parametrize("cut", [0, 9], ids=["whole", "cut short"])
@pytest.mark.parametrize("name", CHANGES)
def test_the_file_of_another_run_is_refused(model, drawn, path, name, cut):
    """Answers of two runs would be mixed, or those there already be lost."""
    about = {"weights": "a digest"}
    draw_answers(model, PROMPTS, DRAW, path, about=about)
    before = path.read_bytes()[: -cut or None]
    path.write_bytes(before)
    drawn.clear()
    change = dict(CHANGES[name])
    prompts, about = change.pop("prompts", PROMPTS), change.pop("about", about)
    with pytest.raises(ValueError, match=f"other {name};.*remove this one"):
        draw_answers(model, prompts, replace(DRAW, **change), path, about=about)
    assert not drawn
    assert path.read_bytes() == before
    assert [child.name for child in path.parent.iterdir()] == [path.name]


def test_all_of_a_draw_tells_runs_apart():
    """A run would go on with answers that were drawn in another way."""
    assert set(DRAW.describe()) >= {field.name for field in fields(Draw)}
    assert json.loads(json.dumps(DRAW.describe())) == DRAW.describe()


@pytest.mark.parametrize(
    "content",
    [
        "years of work",
        "years\nof\nwork",
        "years of work\n",
        '{"n": 3}',
        '{"prompts": ["w1"]}',
        '{"prompts": ["w1"]}\n',
        '[1, 2]\n{"n": 3}\n',
        "17\n",
        "\n",
    ],
)
def test_a_file_that_is_no_run_is_spared(model, drawn, path, content):
    """A slip in the path would cost a user's own file."""
    path.parent.mkdir()
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"run\.jsonl (should|belongs).*another file"):
        draw_answers(model, PROMPTS, DRAW, path)
    assert not drawn
    assert path.read_text(encoding="utf-8") == content
    assert [child.name for child in path.parent.iterdir()] == [path.name]


def test_two_processes_do_not_share_a_file(model, expected, drawn, path):
    """Two would draw the same answers, and mix their lines."""
    path.parent.mkdir()
    with path.open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match=f"another process draws into {path}"):
            draw_answers(model, PROMPTS, DRAW, path)
        assert not drawn
    assert draw_answers(model, PROMPTS, DRAW, path) == expected


@pytest.mark.parametrize(
    "draw", [replace(DRAW, n=0), replace(DRAW, policy=ExpertSample(k_keep=99))]
)
def test_what_could_not_be_drawn_leaves_no_file(model, expected, path, draw):
    """A slip in an option would stand in the way of the command without it."""
    with pytest.raises(ValueError):
        draw_answers(model, PROMPTS, draw, path)
    assert draw_answers(model, PROMPTS, DRAW, path) == expected
