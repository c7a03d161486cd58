"""The harness itself, on a task made here; no network."""

import json
import math
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import jaxmoe
from jaxmoe.decode.loglikelihood import rolling_windows
from jaxmoe.decode.score_inputs import encode_pair

pytest.importorskip("lm_eval", reason="needs jaxmoe[lm-eval]")

from jaxmoe.evals.lm_eval import JaxMoE  # noqa: E402

pytestmark = [pytest.mark.extras, pytest.mark.thorough]

TASKS = {
    "choices": """
task: choices
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
target_delimiter: ""
output_type: multiple_choice
doc_to_text: "{{{{game}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list: [{{metric: acc}}]
""",
    "answers": """
task: answers
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
target_delimiter: ""
output_type: generate_until
doc_to_text: "{{{{game}}}}"
doc_to_target: "{{{{choices[answer]}}}}"
generation_kwargs:
  {{until: ["="], max_gen_toks: 4, do_sample: true, temperature: 0.8}}
repeats: 2
filter_list: [{{name: first, filter: [{{function: take_first}}]}}]
metric_list: [{{metric: exact_match}}]
""",
    "texts": """
task: texts
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
target_delimiter: ""
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{game}}}}"
metric_list: [{{metric: word_perplexity}}]
""",
}
ROWS = [
    {"game": "1,1,11,12=2:", "choices": ["12-11", "11+12", "1"], "answer": 0},
    {"game": "8,8,8,10=18:", "choices": ["8*8=64", "10+8", "8"], "answer": 1},
    {"game": "1,4,6,8=72:", "choices": ["1", "8-6=2", "6*4=24"], "answer": 2},
]


def requests(*arguments: tuple) -> list[SimpleNamespace]:
    """As the harness passes them."""
    return [SimpleNamespace(args=each) for each in arguments]


@pytest.fixture(scope="module")
def lm():
    """The demo under Expert-Sample."""
    return JaxMoE("demo", policy="expert-sample", k_keep=2, tau=1.0, batch_size=8)


def test_pairs_are_cut_as_the_harness_cuts_them(lm):
    """Scores would differ from those of other models on the same task."""
    from lm_eval.api.model import TemplateLM
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    class Theirs(TemplateLM):
        eot_token_id = lm.model.tokenizer.eos_id
        _loglikelihood_tokens = loglikelihood_rolling = generate_until = None  # type: ignore[assignment]

        def tok_encode(self, string, add_special_tokens=None, **_):
            return lm.model.encode(string)

    Theirs.__abstractmethods__ = frozenset()
    theirs = Theirs()
    for pair in [("1,1,11,12=2:", "12"), ("8", "8*8=64"), ("8=", "10")]:
        ours = encode_pair(lm.model, *pair)
        assert tuple(ids.tolist() for ids in ours) == theirs._encode_pair(*pair)
    for length in (1, 4, 5, 11, 12):
        ids = list(range(1, length + 1))
        windows = get_rolling_token_windows(ids, 0, 4, 1)
        wanted = [tuple(map(list, make_disjoint_window(each))) for each in windows]
        found = [
            (a.tolist(), b.tolist()) for a, b in rolling_windows(np.array(ids), 0, 4)
        ]
        assert found == wanted


def test_what_it_says_is_what_the_functions_say(lm):
    """The harness would measure another policy than it was given."""
    pairs = [("8,8,8,10=18:", "8"), ("", "3"), ("8,8,8,10=18:", "8*8")]
    found = lm.loglikelihood(requests(*pairs))
    wanted = jaxmoe.loglikelihood(
        lm.model,
        pairs,
        policy=jaxmoe.ExpertSample(k_keep=2),
        key=jaxmoe.keys.sample_key(jaxmoe.keys.as_key(0), 0),
        batch=8,
    )
    assert found == [(one.sum, one.is_greedy) for one in wanted]
    (rolled,) = lm.loglikelihood_rolling(requests(("1,1,11,12=2:",)))
    assert math.isfinite(rolled) and rolled < 0


def test_answers_end_where_asked_and_repeats_differ(lm):
    """`until` would be passed over, or all repeats be one sample."""
    options = {
        "until": ["="],
        "max_gen_toks": 12,
        "do_sample": True,
        "temperature": 1.0,
    }
    context = ("8,8,8,10=18:", options)
    texts = lm.generate_until(
        requests(*[context] * 4, ("1,4,6,8=72:", options), context)
    )
    assert len(texts) == 6
    assert not any("=" in text for text in texts)
    assert len({*texts[:4], texts[5]}) > 1
    again = lm.generate_until(requests(("1,4,6,8=72:", options), *[context] * 4))
    assert again == [texts[4], *texts[:4]]


def test_too_long_a_context_loses_its_beginning(lm, monkeypatch):
    """A few-shot prompt would end a run of hours."""
    monkeypatch.setattr(lm, "max_length", 10)
    game = "8,8,8,10=18:"
    long, short = lm.loglikelihood(requests((f"1,1,1,{game}", "8"), (game, "8")))
    assert long == short


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"policy": "best"}, "expert-sample"),
        ({"policy": "topk", "tau": 1.0}, "tau"),
    ],
)
def test_unknown_arguments_are_refused(options, named):
    """A misspelt number would leave the default in place."""
    with pytest.raises(ValueError, match=named):
        JaxMoE("demo", **options)


def test_unknown_generation_options_are_refused(lm):
    """A task's option would be passed over."""
    asked = requests(("8", {"until": ["="], "num_beams": 4}))
    with pytest.raises(ValueError, match="num_beams"):
        lm.generate_until(asked)


def test_chats_are_rendered_by_the_model_s_own_template(lm):
    """The model would see a chat in another's words."""
    source = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    lm.model.tokenizer.chat_templates["default"] = source
    try:
        chat = [{"role": "user", "content": "8"}]
        assert lm.chat_template(True) == source
        assert lm.apply_chat_template(chat) == "user: 8\nassistant:"
        assert lm.tokenizer_name == "demo"
    finally:
        del lm.model.tokenizer.chat_templates["default"]


@pytest.fixture
def tasks(tmp_path):
    """A folder with the tasks and their data."""
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(map(json.dumps, ROWS)))
    for name, text in TASKS.items():
        (tmp_path / f"{name}.yaml").write_text(text.format(data=data))
    return tmp_path


@pytest.mark.slow
def test_the_command_line_of_the_harness_runs(tasks):
    """`--model jaxmoe` would not be found, or a task's request not be answered."""
    command = [sys.executable, "-m", "jaxmoe.evals.lm_eval", "run"]
    command += ["--model", "jaxmoe", "--tasks", ",".join(TASKS)]
    command += ["--model_args", "checkpoint=demo,policy=expert-sample,tau=0.7"]
    command += ["--include_path", str(tasks), "--output_path", str(tasks / "out")]
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HOME": str(tasks / "hf"),
    }
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (path,) = (tasks / "out").rglob("results_*.json")
    results = json.loads(path.read_text())["results"]
    assert 0 <= results["choices"]["acc,none"] <= 1
    assert 0 <= results["answers"]["exact_match,first"] <= 1
    assert results["texts"]["word_perplexity,none"] > 1
