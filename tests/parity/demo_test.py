"""transformers and jaxmoe on the demo models' own files."""

import jax
import numpy as np
import pytest

import jaxmoe
from jaxmoe import TokenSampler, TopK, demo
from jaxmoe.checkpoints.bundled import BUNDLED
from jaxmoe.demo.game_runs import room_of

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

PROBLEMS = {"demo": 100, "demo-tries": 25}
"""Of the models that ship; answers of the second are six times as long."""


@pytest.fixture(scope="module", params=PROBLEMS)
def name(request) -> str:
    """A model that ships."""
    return request.param


@pytest.fixture(scope="module")
def theirs(name):
    """The very directory that ships, read by transformers."""
    return transformers.AutoModelForCausalLM.from_pretrained(
        BUNDLED[name], dtype=torch.float32
    ).eval()


@pytest.fixture(scope="module")
def ours(name):
    """The same, through the converter."""
    return jaxmoe.load(name)


@pytest.fixture(scope="module")
def greedy(name, theirs):
    """transformers' greedy answers to the first problems, ends included."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(BUNDLED[name])
    prompts = [problem.prompt for problem in demo.problems()[: PROBLEMS[name]]]
    batch = tokenizer(prompts, return_tensors="pt")
    assert batch["attention_mask"].all()  # all prompts have the same length
    with torch.no_grad():
        most = room_of(name)
        return theirs.generate(**batch, do_sample=False, max_new_tokens=most).numpy()


def test_same_greedy_answers(name, ours, greedy):
    """The demo's pass rate would be another model's."""
    prompts = [problem.prompt for problem in demo.problems()[: PROBLEMS[name]]]
    outs = jaxmoe.sample(
        ours,
        prompts,
        key=jax.random.key(0),
        policy=TopK(),
        sampler=TokenSampler(temperature=0),
        max_new_tokens=room_of(name),
    )
    for prompt, out, row in zip(prompts, outs, greedy, strict=True):
        length = len(ours.encode(prompt))
        assert row[:length].tolist() == ours.encode(prompt)
        answer = out.tokens[0, : out.lengths[0]].tolist()
        assert row[length : length + len(answer)].tolist() == answer
        rest = row[length + len(answer) :]
        assert (rest == ours.config.pad_id).all()


def test_same_logits_and_routes(theirs, ours, greedy):
    """The study would measure another model's routers."""
    for row in greedy[::10]:
        with torch.no_grad():
            run = theirs(torch.tensor(row)[None], output_router_logits=True)
        reference = run.logits[0].numpy()
        logits, routes = jaxmoe.forward(ours, row, return_routes=True)
        scale = np.abs(reference).max()
        assert np.abs(np.asarray(logits) - reference).max() <= 1e-4 * scale
        for layer, router in enumerate(run.router_logits):
            best = torch.topk(router, 8).indices.numpy()
            assert np.array_equal(np.sort(routes[:, layer]), np.sort(best))


def test_same_ids_and_texts(name, ours):
    """A problem would be read as another one."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(BUNDLED[name])
    for problem in demo.problems()[: PROBLEMS[name]]:
        text = problem.prompt + "12-8=4,4*5=20,20+3=23"
        ids = tokenizer(text)["input_ids"]
        assert ours.encode(text) == ids
        assert ours.decode(ids) == text == tokenizer.decode(ids)
