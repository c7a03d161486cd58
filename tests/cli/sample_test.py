"""`jaxmoe sample` from the command line to what it prints."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import jax
import numpy as np
import pytest

import jaxmoe
from jaxmoe.cli import sample
from jaxmoe.cli.answer_text import as_json, for_terminal
from jaxmoe.cli.policy_options import policy_of
from jaxmoe.cli.prompt_options import prompt_of
from jaxmoe.cli.sampler_options import sampler_of
from tests.running import SCRIPTS

PROMPT = "bade kilo mu"
SHORT = ["--n", "4", "--max-new-tokens", "40"]


def ask(checkpoint, capsys, *options) -> str:
    """Standard output of a run that succeeds and says nothing else."""
    assert sample.main([str(checkpoint), *SHORT, *options]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    return printed.out


def rows_of(out: str) -> tuple[list[dict], dict]:
    """Answers in order and the totals, from --json."""
    *rows, last = [json.loads(line) for line in out.splitlines()]
    return sorted(rows, key=lambda row: row["sample"]), last["totals"]


@pytest.fixture(scope="module")
def expected(model) -> jaxmoe.Samples:
    """What Python gives for seed 3."""
    key = jax.random.key(3)
    return jaxmoe.sample(model, PROMPT, key=key, n=4, max_new_tokens=40)


@pytest.mark.thorough
def test_json(checkpoint, capsys, expected):
    """The command line would give other answers than Python."""
    out = ask(checkpoint, capsys, "--prompt", PROMPT, "--seed", "3", "--json")
    rows, totals = rows_of(out)
    assert [row["sample"] for row in rows] == [0, 1, 2, 3]
    for i, row in enumerate(rows):
        length = expected.lengths[i]
        assert row["tokens"] == expected.tokens[i, :length].tolist()
        assert (row["text"], row["finish"]) == (expected.text[i], expected.finish[i])
        assert row["seed"] == 3
        total = expected.logprobs[i, :length].sum()
        np.testing.assert_allclose(row["logprob_sum"], total, rtol=1e-5)
        np.testing.assert_allclose(row["logprob_mean"], total / length, rtol=1e-5)
    assert totals["tokens"] == expected.lengths.sum()
    assert (totals["answers"], totals["interrupted"]) == (4, False)
    assert totals["distinct"] == len({tuple(row["tokens"]) for row in rows}) > 1
    assert totals["seconds"] > 0 and totals["tokens_per_second"] > 0


def test_people(checkpoint, capsys, expected):
    """A reader would miss an answer, or how it ended."""
    out = ask(checkpoint, capsys, "--prompt", PROMPT, "--seed", "3")
    for i, text in enumerate(expected.text):
        length = expected.lengths[i]
        tokens = "1 token" if length == 1 else f"{length} tokens"
        assert f"[answer {i}] ({expected.finish[i]}, {tokens})\n{text}\n\n" in out
    totals = (
        rf"4 answers \(\d distinct\), {expected.lengths.sum()} tokens in [\d.]+ s"
        r"( \([\d.]+ s of it compiling\))?, "
    )
    assert re.fullmatch(totals + r"[\d.]+ tokens/s", out.splitlines()[-1])


def test_quiet(checkpoint, capsys, expected):
    """Something else would stand among the texts."""
    out = ask(checkpoint, capsys, "--prompt", PROMPT, "--seed", "3", "--quiet")
    assert sorted(out.splitlines()) == sorted(expected.text)


def test_stop(checkpoint, capsys, expected):
    """Answers would run on, or keep the stop."""
    longest = max(expected.text, key=len)
    stop = longest[len(longest) // 2 :][:6]
    options = ["--prompt", PROMPT, "--seed", "3", "--stop", "\n\n", "--stop", stop]
    rows, _ = rows_of(ask(checkpoint, capsys, *options, "--json"))
    assert [row["text"] for row in rows] == [t.split(stop)[0] for t in expected.text]
    assert any(stop in text for text in expected.text)


def test_without_tokenizer(source, tmp_path, capsys, model, expected):
    """Ids would need a tokenizer, or be printed as nothing."""
    bare = shutil.copytree(source, tmp_path / "bare")
    (bare / "tokenizer.json").unlink()
    ids = ",".join(map(str, model.encode(PROMPT)))
    out = ask(bare, capsys, "--token-ids", ids, "--seed", "3", "--quiet")
    rows = [row[:n] for row, n in zip(expected.tokens, expected.lengths, strict=True)]
    assert sorted(out.splitlines()) == sorted(" ".join(map(str, row)) for row in rows)
    assert "tokenizer" in refuse(capsys, [str(bare), "--prompt", PROMPT])


def test_greedy_topk_is_one_answer(checkpoint, capsys):
    """--policy, --greedy or --dtype would be ignored."""
    options = ["--policy", "topk", "--greedy", "--dtype", "float32", "--json"]
    _, totals = rows_of(ask(checkpoint, capsys, "--prompt", PROMPT, *options))
    assert (totals["answers"], totals["distinct"]) == (4, 1)


# -- options ------------------------------------------------------------------------


def parse(*options: str):
    """The arguments of a command line."""
    if not {"--chat", "--messages", "--token-ids"} & set(options):
        options = ("--prompt", PROMPT, *options)
    return sample.parser().parse_args(["ckpt", *options])


@pytest.mark.parametrize(
    ("options", "policy"),
    [
        ("", jaxmoe.ExpertSample()),
        ("--k-keep 2 --r 9 --tau 0.5", jaxmoe.ExpertSample(2, 9, 0.5)),
        ("--policy topk", jaxmoe.TopK()),
        ("--policy topk --k 3", jaxmoe.TopK(3)),
        ("--policy gumbel-topk --tau 2 --k 5", jaxmoe.GumbelTopK(2.0, k=5)),
        ("--policy adaptive-head --mass 0.9", jaxmoe.AdaptiveHead(0.9)),
        ("--policy top-p --mass 0.6 --k-min 2", jaxmoe.TopP(0.6, k_min=2)),
        ("--policy dropout --q 0.2", jaxmoe.Dropout(0.2)),
        (
            "--tau 2 --gate-by margin --gate-threshold 0.5",
            jaxmoe.Gated(jaxmoe.ExpertSample(tau=2.0), by="margin", threshold=0.5),
        ),
        (
            "--policy gumbel-topk --ensemble 4",
            jaxmoe.RouteEnsemble(jaxmoe.GumbelTopK(), 4),
        ),
        ("--tau 0,1,0.5", jaxmoe.ExpertSample(tau=np.float32([0, 1, 0.5]))),
        ("--k-keep 1,2,3", jaxmoe.ExpertSample(k_keep=np.int32([1, 2, 3]))),
    ],
)
def test_policy(options, policy):
    """Other experts would be chosen than were asked for."""
    found = policy_of(parse(*options.split()))
    assert type(found) is type(policy)
    sizes = {"k": 4, "num_experts": 16, "num_layers": 3}
    pair = found.resolve(**sizes), policy.resolve(**sizes)
    assert str(jax.tree.map(np.array_equal, *pair)).count("False") == 0
    assert pair[0].width == pair[1].width


def test_bias_of_a_file(tmp_path):
    """Experts would be steered that nobody named, or none."""
    bias = np.arange(16.0)
    np.save(tmp_path / "bias.npy", bias)
    file = str(tmp_path / "bias.npy")
    found = policy_of(parse("--policy", "topk", "--expert-bias", file))
    assert isinstance(found, jaxmoe.Biased)
    assert isinstance(found.policy, jaxmoe.TopK)
    np.testing.assert_array_equal(found.bias, bias)


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        ("", {}),
        ("--greedy", {"temperature": 0}),
        ("--temperature 1.5 --top-k 0", {"temperature": 1.5, "top_k": 0}),
        ("--top-p 1 --min-p 0.1", {"top_p": 1, "min_p": 0.1}),
        (
            "--presence-penalty 1 --frequency-penalty -0.5 --repetition-penalty 1.2",
            {
                "presence_penalty": 1,
                "frequency_penalty": -0.5,
                "repetition_penalty": 1.2,
            },
        ),
        (
            "--logit-bias 5:-100,7:2.5 --min-tokens 9 --bad-words a --bad-words bc",
            {
                "logit_bias": {5: -100.0, 7: 2.5},
                "min_tokens": 9,
                "bad_words": ["a", "bc"],
            },
        ),
    ],
)
def test_sampler(model, options, changes):
    """The checkpoint's own settings would be forgotten, or win over those asked for."""
    found = sampler_of(parse(*options.split()), model)
    own = {"temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": None}
    own["min_p"] = model.config.generation.min_p
    assert found == jaxmoe.TokenSampler(**own | changes)


def test_prompts(model, tmp_path):
    """The model would read another text than was given."""
    file = tmp_path / "chat.json"
    file.write_text(json.dumps([{"role": "user", "content": "a"}]))
    user, system = (
        "<|im_start|>user\na<|im_end|>\n",
        "<|im_start|>system\nb<|im_end|>\n",
    )
    begin, closed = "<|im_start|>assistant\n", "<think>\n\n</think>\n\n"
    chats = {
        ("--chat", "a"): user + begin,
        ("--chat", "a", "--system", "b"): system + user + begin,
        ("--chat", "a", "--no-thinking"): user + begin + closed,
        ("--messages", str(file), "--thinking"): user + begin,
    }
    for options, text in chats.items():
        ids = prompt_of(parse(*options), model)
        assert model.tokenizer.decode(ids, skip_special_tokens=False) == text
    assert prompt_of(parse(), model) == PROMPT
    assert prompt_of(parse("--token-ids", "1,2"), model) == [1, 2]


# -- input that does not fit --------------------------------------------------------


def refuse(capsys, argv: list[str]) -> str:
    """The last line on standard error of a run that ends with code 2."""
    with pytest.raises(SystemExit) as ended:
        sample.main(argv)
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--k-keep 5", "k_keep must be 0..4, found 5"),
        ("--r 17", "r must be 4..16"),
        ("--tau -1", "tau"),
        ("--tau 1,2", "one per layer"),
        ("--policy topk --k-keep 2", "--policy topk has --k, found --k-keep"),
        ("--gate-by margin", "--gate-threshold go together"),
        ("--policy topk --gate-by entropy --gate-threshold 1", "found TopK"),
        ("--ensemble 65", "routes must be a whole number in 1..64, found 65"),
        ("--ensemble 2 --noisy-prefill", "noisy_prefill takes policies of one pass"),
        ("--expert-bias nowhere.npy", "--expert-bias must be a .npy file"),
        ("--temperature -1", "temperature"),
        ("--n 0", "n must be"),
        ("--slots 0", "slots must be"),
        ("--max-new-tokens 99999", "context"),
        ("--stop=", "empty"),
        ("--system b", "--chat"),
        ("--no-thinking", "--chat"),
        ("--messages /nowhere.json", "/nowhere.json"),
        ("--token-ids 1,9999", "9999"),
    ],
)
def test_bad_input(checkpoint, capsys, options, message):
    """A user would get a traceback, or answers to something else."""
    options = options.split()
    if not {"--messages", "--token-ids"} & set(options):
        options += ["--prompt", PROMPT]
    error = refuse(capsys, [str(checkpoint), *options])
    assert error.startswith("error: ") and message in error


@pytest.mark.parametrize("content", ["{", '{"role": "user"}', "[1]", '[{"role": 1}]'])
def test_bad_messages(checkpoint, tmp_path, capsys, content):
    """A damaged file would end in a traceback."""
    (tmp_path / "chat.json").write_text(content)
    options = ["--messages", str(tmp_path / "chat.json")]
    assert refuse(capsys, [str(checkpoint), *options]).startswith("error: ")


@pytest.mark.parametrize("missing", ["absent", "empty", "file"])
def test_no_checkpoint(tmp_path, capsys, missing):
    """A wrong path would end in a traceback."""
    path = tmp_path / missing
    if missing == "empty":
        path.mkdir()
    if missing == "file":
        path.touch()
    error = refuse(capsys, [str(path), "--prompt", PROMPT])
    assert error.startswith("error: ") and str(path) in error


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["ckpt"], "give one of --prompt, --chat, --messages, --token-ids"),
        (["ckpt", "--prompt", "a", "--chat", "b"], "not allowed with"),
        (["ckpt", "--prompt", "a", "--policy", "best"], "expert-sample"),
        (["ckpt", "--prompt", "a", "--greedy", "--temperature", "1"], "not allowed"),
        (["ckpt", "--prompt", "a", "--seed", "-1"], "--seed"),
        (["ckpt", "--prompt", "a", "--tau", "much"], "--tau"),
        (["ckpt", "--token-ids", "1,a"], "--token-ids"),
    ],
)
def test_usage(capsys, argv, message):
    """A slip in the command would start the work."""
    assert message in refuse(capsys, argv)


def test_help(capsys):
    """A percent sign in a help text would break --help."""
    with pytest.raises(SystemExit) as ended:
        sample.main(["--help"])
    assert ended.value.code == 0
    assert "generation_config.json" in capsys.readouterr().out


# -- the terminal -------------------------------------------------------------------


def test_terminal_obeys_nothing():
    """An answer could clear the screen or rename the window."""
    clean = for_terminal
    assert clean("a\tb\n\x1b]0;x\x07\r\x9b2J\u00fc") == (
        "a\tb\n\ufffd]0;x\ufffd\ufffd\ufffd2J\u00fc"
    )


def test_not_finite_is_json():
    """NaN is no JSON: a reader would stop there."""
    tokens, logprobs = np.int32([1, 2]), np.float32([-1, np.nan])
    answer = jaxmoe.Finished(0, 0, tokens, logprobs, "stop", None, None)
    row = json.loads(as_json(answer, 0), parse_constant=pytest.fail)
    assert row["logprob_sum"] is None and row["logprob_mean"] is None


def start(checkpoint, cwd, *options, stderr) -> subprocess.Popen[str]:
    """The script as a process, in the midst of more answers than it can finish."""
    # A shell's background jobs ignore Ctrl-C, and pytest may be one.
    code = (
        "import runpy, signal, sys; sys.argv = sys.argv[1:];"
        "signal.signal(signal.SIGINT, signal.default_int_handler);"
        f"sys.path.insert(0, {str(SCRIPTS)!r});"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    path = SCRIPTS / "generate.py"
    many = ["--n", "100000", "--slots", "4", "--max-new-tokens", "40"]
    options = [str(checkpoint), "--prompt", PROMPT, *many, *options]
    cache = jax.config.jax_compilation_cache_dir or str(cwd)
    paths = [str(SCRIPTS.parent), os.environ.get("PYTHONPATH", "")]
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "JAX_COMPILATION_CACHE_DIR": cache,
    }
    return subprocess.Popen(
        [sys.executable, "-c", code, str(path), *options],
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )


@contextmanager
def ended(process: subprocess.Popen) -> Iterator[None]:
    """Leaves no process behind where a test fails."""
    try:
        yield
    finally:
        process.kill()
        process.wait()


def read_terminal(terminal: int) -> Iterator[bytes]:
    """What a process writes to a terminal until it ends; Linux ends with an error."""
    while True:
        try:
            data = os.read(terminal, 1 << 16)
        except OSError:
            return
        if not data:
            return
        yield data


@pytest.mark.slow
def test_interrupted(checkpoint, tmp_path):
    """Ctrl-C would lose answers, leave a traceback or a piece of the bar."""
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    process = start(checkpoint, tmp_path, "--json", stderr=theirs)
    os.close(theirs)
    assert process.stdout is not None
    with ThreadPoolExecutor() as pool, ended(process):
        terminal = pool.submit(lambda: b"".join(read_terminal(ours)).decode())
        first = [process.stdout.readline() for _ in range(5)]
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=120)
        shown = terminal.result()
    os.close(ours)
    assert process.returncode == 130, shown
    rows, totals = rows_of("".join(first) + rest)
    assert totals["interrupted"] and totals["answers"] == len(rows) >= 5
    assert "tokens/s]" in shown and "Traceback" not in shown
    assert "compiling]" in shown
    # At the end the line is blank and the cursor at its beginning.
    *_, last, after = shown.split("\r")
    assert last.isspace() and not after


@pytest.mark.slow
def test_reader_went_away(checkpoint, tmp_path):
    """`| head` would end in a traceback, or keep the machine busy for nobody."""
    process = start(checkpoint, tmp_path, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    with ended(process):
        assert process.stdout.readline().startswith("[answer")
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=120) == 128 + signal.SIGPIPE
