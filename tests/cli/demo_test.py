"""The commands on the demo: asking it, measuring it, and making it anew."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest

import jaxmoe
from convert import convert
from jaxmoe import demo
from jaxmoe.checkpoints.bundled import BUNDLED
from jaxmoe.checkpoints.source import open_source
from jaxmoe.cli import demo as demo_command
from jaxmoe.cli import demo_train, sample
from jaxmoe.demo import logged_run, training_run
from jaxmoe.demo.chains import split_of
from jaxmoe.demo.model_files import ATTRIBUTES
from jaxmoe.demo.network import demo_config
from jaxmoe.demo.recipe import Recipe, Shapes
from jaxmoe.demo.training import first_state
from jaxmoe.demo.training_run import Record
from jaxmoe.demo.training_state import FILE, load_state
from jaxmoe.nn.segments import stored_names
from tests.running import SCRIPTS

SHORT = ["--n", "6", "--max-new-tokens", "24"]
PROBLEM = demo.Problem.parse("2,5,8,12=27:")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """A cache directory of these tests' own, so that nobody's home is written to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def model(cache) -> jaxmoe.Model:
    """The demo model."""
    return jaxmoe.load("demo")


def ask(capsys, *options: str) -> str:
    """Standard output of a generate.py that succeeds and says nothing else."""
    assert sample.main([*SHORT, *options]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    return printed.out


def refuse(main, capsys, argv: list[str]) -> str:
    """The one line on standard error of a run that ends with code 2."""
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith("error: ")
    return line


# -- generate.py ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def texts(model) -> tuple[str, ...]:
    """What Python gives for the first problem."""
    prompt, key = demo.problems()[0].prompt, jax.random.key(0)
    return jaxmoe.sample(model, prompt, key=key, n=6, max_new_tokens=24).text


def test_without_arguments(capsys, texts):
    """The first command of a newcomer would ask something else, or judge wrongly."""
    out = ask(capsys)
    problem = demo.problems()[0]
    numbers = ", ".join(map(str, problem.numbers))
    head = f"make {problem.target} of {numbers}   {problem.prompt}\n\n"
    assert out.startswith(head)
    pattern = r"\[answer (\d)\] \(\w+, \d+ tokens?\) (right|wrong: .+)\n(.*)\n\n"
    found = re.findall(pattern, out)
    assert {int(i): text for i, _, text in found} == dict(enumerate(texts))
    for _, mark, text in found:
        error = demo.error_in(problem, text)
        assert mark == ("right" if error is None else f"wrong: {error}")
    right = [text for text in texts if demo.is_right(problem, text)]
    distinct = len({demo.expression(text) for text in right})
    totals = f"{len(right)} right, {distinct} distinct right answers"
    assert out.splitlines()[-1] == totals
    assert out.splitlines()[-2].startswith("6 answers (")


def test_json_has_the_marks(capsys, texts):
    """A program would have to judge the answers itself."""
    problem = demo.problems()[0]
    *rows, last = map(json.loads, ask(capsys, "--json").splitlines())
    assert sorted(row["sample"] for row in rows) == list(range(6))
    for row in rows:
        assert row["text"] == texts[row["sample"]]
        assert row["error"] == demo.error_in(problem, row["text"])
        assert row["right"] == demo.is_right(problem, row["text"])
    right = [row["text"] for row in rows if row["right"]]
    assert last["totals"]["right"] == len(right)
    distinct = len(set(map(demo.expression, right)))
    assert last["totals"]["distinct_right"] == distinct


def test_quiet_prints_no_marks(capsys, texts):
    """Something else would stand among the texts."""
    assert sorted(ask(capsys, "--quiet").splitlines()) == sorted(texts)


def test_another_problem(capsys):
    """--problem would be ignored, or count from 1."""
    problem = demo.problems()[511]
    out = ask(capsys, "--problem", "511")
    assert out.splitlines()[0].endswith(f"   {problem.prompt}")


def test_answers_of_several_tries(capsys):
    """Answers of the model that tries again would not be marked, or by their first."""
    options = ["--max-new-tokens", "114", "--json"]
    *rows, last = map(json.loads, ask(capsys, "demo-tries", *options).splitlines())
    problem = demo.problems()[0]
    marks = [demo.is_right(problem, row["text"]) for row in rows]
    assert [row["right"] for row in rows] == marks
    assert last["totals"]["right"] == sum(marks)
    assert any(":" in row["text"] and row["right"] for row in rows)


@pytest.mark.thorough
@pytest.mark.parametrize("prompt", [PROBLEM.prompt, "12,8,5,2=27:"])
def test_a_problem_of_ones_own(capsys, model, prompt):
    """A user's own problem would not be judged, or depend on its numbers' order."""
    *rows, last = map(
        json.loads, ask(capsys, "--prompt", prompt, "--json").splitlines()
    )
    key = jax.random.key(0)
    drawn = jaxmoe.sample(model, PROBLEM.prompt, key=key, n=6, max_new_tokens=24)
    for row in rows:
        assert row["text"] == drawn.text[row["sample"]]
        assert row["right"] == demo.is_right(PROBLEM, row["text"])
    assert last["totals"]["right"] == sum(row["right"] for row in rows)


def test_token_ids_are_not_judged(capsys, model, texts):
    """Marks would stand by answers to a question that nobody knows."""
    ids = ",".join(map(str, model.encode(demo.problems()[0].prompt)))
    *rows, last = map(
        json.loads, ask(capsys, "--token-ids", ids, "--json").splitlines()
    )
    assert sorted(row["text"] for row in rows) == sorted(texts)
    assert all("right" not in part for part in (*rows, last["totals"]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--problem 512", "--problem must be from 0 to 511, found 512"),
        ("--problem -1", "from 0 to 511, found -1"),
        ("elsewhere --problem 1", "--problem goes with the demo model"),
        ("./demo --problem 0", "--problem goes with the demo model"),
        ("elsewhere", "a prompt is needed"),
        ("--problem 1 --prompt 2,5,8,12=27:", "--problem stands for a prompt"),
        ("--problem 1 --token-ids 10,6", "--problem stands for a prompt"),
        ("--prompt hello", "expected a problem as \"2,5,8,12=27:\", found 'hello'"),
        ("--prompt 2,5,8,17=27:", "four numbers from 1 to 16"),
        ("--prompt 2,5,8,12=27", "expected a problem as"),
        ("--chat hello", "chat"),
        ("--system hello", "--system goes with --chat"),
        ("--thinking", "--thinking and --no-thinking go with --chat"),
        ("--max-new-tokens 9999", "the context holds 512 tokens"),
    ],
)
def test_what_the_demo_refuses(capsys, options, message):
    """A slip would end in a traceback, or in answers to another question."""
    error = refuse(sample.main, capsys, options.split())
    assert message.replace("four", "4") in error


# -- train_demo.py -------------------------------------------------------------------

TINY = ["--steps", "2", "--batch", "4"]


def train(argv: list[str]) -> int:
    """`jaxmoe demo train`."""
    return demo_command.main(["train", *argv])


def run_train(out: Path) -> str:
    """A tiny run in a process of its own (it takes a device a core); what it says."""
    paths = [str(SCRIPTS.parent), os.environ.get("PYTHONPATH", "")]
    compiled = jax.config.jax_compilation_cache_dir or str(out.parents[1])
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "JAX_COMPILATION_CACHE_DIR": compiled,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
    }
    command = [sys.executable, str(SCRIPTS / "train_demo.py"), str(out), *TINY]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run of two updates."""
    out = tmp_path_factory.mktemp("train") / "made" / "run"
    first, last = run_train(out).splitlines()
    assert first.split()[:2] == ["1", "updates"]
    assert last.split()[:2] == ["2", "updates"] and "greedy answers right" in last
    return out


def log_of(out: Path) -> list[dict]:
    """The lines of a run's log."""
    text = (out / "log.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def files_of(out: Path) -> dict[str, bytes]:
    """What a run has made."""
    files = (path for path in out.rglob("*") if path.is_file())
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def about_of(out: Path) -> dict:
    """What a run's state says of it."""
    with np.load(out / FILE) as stored:
        return json.loads(str(stored["about"]))


@pytest.mark.slow
def test_a_run_leaves_what_it_says(trained):
    """A run of an hour would end without the model, or litter its directory."""
    files = files_of(trained)
    hf = {f"hf/{path.name}" for path in BUNDLED["demo"].iterdir()}
    assert set(files) == {"log.jsonl", "problems.json", FILE} | hf
    assert files["problems.json"] == demo.PROBLEMS.read_bytes()
    for name in ("tokenizer.json", "config.json"):
        assert files[f"hf/{name}"] == (BUNDLED["demo"] / name).read_bytes()


@pytest.mark.slow
def test_the_log(trained):
    """One could not see how training went."""
    first, last = log_of(trained)
    assert set(first) == set(Record.__dataclass_fields__)
    assert (first["step"], last["step"]) == (1, 2)
    assert first["pass_rate"] is None and last["pass_rate"] is not None
    # Untrained, all of the 208 tokens are nearly as likely.
    assert 4 < last["entropy"] < 8 and 1 <= last["balance"] < 8
    assert first["seconds"] <= last["seconds"]


@pytest.mark.slow
def test_the_trained_model_is_that_of_the_files(trained, tmp_path):
    """A model would ship that is not the one that was trained."""
    ckpt = tmp_path / "ckpt"
    convert(trained / "hf", ckpt)
    loaded = jaxmoe.load(ckpt)
    config = demo_config(ATTRIBUTES)
    assert loaded.config.layers == config.layers
    found = load_state(trained, first_state(config, Recipe()), about_of(trained))
    assert found is not None and found[1] == 2
    params = found[0].params
    # Training has every layer by itself; loaded layers of one kind are stacked.
    trained_names = [n for name in loaded.params for n in stored_names(name)]
    assert sorted(trained_names) == sorted(params)
    for name, value in loaded.params.items():
        own = [np.asarray(params[n]) for n in stored_names(name)]
        whole = np.stack(own) if name not in params else own[0]
        bits = np.asarray(value).view(np.uint16)
        rounded = whole.astype(ml_dtypes.bfloat16)
        assert np.array_equal(bits, rounded.view(np.uint16)), name


@pytest.mark.slow
def test_a_finished_run_trains_no_more(trained):
    """The same command would begin anew, or end without the files."""
    before = files_of(trained)
    weights = trained / "hf" / "model.safetensors"
    weights.write_bytes(b"half of a file")
    assert run_train(trained) == ""
    assert files_of(trained) == before


@pytest.fixture
def here(monkeypatch):
    """train_demo.py in this process, whose devices are there already."""
    monkeypatch.setattr(demo_train, "use_cores", lambda: None)


@pytest.fixture
def as_many_devices(trained, monkeypatch):
    """As many devices as the run has had; there is no time to use them."""
    devices = [None] * about_of(trained)["devices"]
    monkeypatch.setattr(training_run, "_devices_for", lambda _: devices)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "names"),
    [
        ("--steps 3", "steps"),
        ("--batch 8", "batch"),
        ("--learning-rate 0.1", "learning_rate"),
        ("--balance 0.5 --seed 1", "balance, seed"),
        ("--smoke --steps 2 --batch 4", "warm_up"),
    ],
)
@pytest.mark.usefixtures("here", "as_many_devices")
def test_a_run_with_other_options_is_refused(trained, capsys, options, names):
    """Half of a model would be trained in one way and half in another."""
    before = files_of(trained)
    argv = [str(trained), *TINY, *options.split()]
    error = refuse(train, capsys, argv)
    assert f"{trained / FILE} belongs to a run with other {names};" in error
    assert files_of(trained) == before


def test_options_reach_the_recipe(here, monkeypatch, tmp_path):
    """An option would be ignored, or --smoke train for an hour."""
    outs, recipes = [], []

    def run(out, recipe, shapes, start):
        outs.append(out)
        recipes.append(recipe)
        assert (shapes, start.describe()) == (Shapes(), {})
        return [Record(1, 4.0, 1.0, 0.1, 1.0), Record(2, 1.5, 1.0, 0.5, 2.0)]

    monkeypatch.setattr(logged_run, "run", run)
    out = str(tmp_path)
    options = "--steps 7 --batch 6 --learning-rate 0.5 --balance 0 --seed 3 --tries 4"
    for argv in ("", options, "--smoke", "--smoke --steps 8"):
        assert train([out, *argv.split()]) == 0
    # Without a directory of its own a smoke run would stand in a whole one's way.
    assert train([]) == train(["--smoke"]) == 0
    assert len(set(outs)) == 3 and {path.parent for path in outs[-2:]} == {Path()}
    assert recipes[:4] == [
        Recipe(),
        Recipe(steps=7, batch=6, learning_rate=0.5, balance=0.0, seed=3, tries=4),
        Recipe(steps=60, batch=32, warm_up=10),
        Recipe(steps=8, batch=32, warm_up=10),
    ]


def test_training_goes_on_as_it_is_told(here, monkeypatch, tmp_path, capsys):
    """A noisy or coarse model would be trained as the shipped one, or from nothing."""
    asked = []

    def run(out, recipe, shapes, start):
        asked.append((recipe, shapes, start))
        return [Record(1, 4.0, 1.0, 0.1, 1.0)]

    monkeypatch.setattr(logged_run, "run", run)
    out = str(tmp_path)
    noisy = ["--policy", "expert-sample", "--warm-up", "3"]
    coarse = ["--experts", "8", "--experts-per-token", "4", "--expert-hidden", "384"]
    assert train([out, "--from", "demo", *noisy]) == train([out, *coarse]) == 0
    (first, fine, start), (other, shapes, nothing) = asked
    assert first == Recipe(policy="expert-sample", warm_up=3) and other == Recipe()
    assert fine == Shapes() and shapes == Shapes(8, 4, 384)
    assert start.checkpoint == open_source("demo").digest() and start.params
    assert nothing.describe() == {}
    assert "found --experts beside it" in refuse(
        train, capsys, [out, "--from", "demo", "--experts", "8"]
    )


@pytest.mark.thorough
def test_problems_are_those_of_a_split(tmp_path):
    """Answers would be drawn, and trained on, to problems that the tests ask."""
    out = tmp_path / "problems.jsonl"
    argv = ["problems", str(out), "--count", "9", "--seed", "1"]
    assert demo_command.main(argv) == 0
    rows = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    problems = [demo.Problem.parse(row["prompt"]) for row in rows]
    assert len(set(problems)) == 9
    assert {split_of(problem.numbers) for problem in problems} == {"train"}
    assert demo_command.main([*argv[:2], "--count", "9"]) == 0
    assert [json.loads(x) for x in out.read_text("utf-8").splitlines()] != rows


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--tries 0", "--tries must be a whole number of at least 1, found 0"),
        ("--tries 28", "up to 520 tokens, the model 512"),
        ("--tries 2 --answers drawn", "found --answers"),
    ],
)
def test_tries_that_cannot_be_trained(here, tmp_path, capsys, options, message):
    """A run would end in a traceback after hours, or be of other numbers' answers."""
    argv = [str(tmp_path / "out"), *options.split()]
    assert message in refuse(train, capsys, argv)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("last", [2.5, 4.0])
def test_a_smoke_run_that_learns_nothing_fails(here, monkeypatch, tmp_path, last):
    """A change that breaks training would pass its check."""
    records = [Record(1, 4.0, 1.0, 0.1, 1.0), Record(2, last, 1.0, 0.1, 2.0)]
    monkeypatch.setattr(logged_run, "run", lambda *_: records)
    assert train([str(tmp_path), "--smoke"]) == 1
    assert train([str(tmp_path)]) == 0
