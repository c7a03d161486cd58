"""Inspect AI as a client: its provider of OpenAI-shaped servers, against ours."""

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.extras]

inspect_ai = pytest.importorskip("inspect_ai", reason="needs pip install inspect-ai")
pytest.importorskip("openai", reason="needs jaxmoe[client]")

import jaxmoe  # noqa: E402
from tests.serve.serving import serving, tiny_chat_model  # noqa: E402

QUESTIONS = ["2+2=", "3+4=", "9-1="]
TOKENS, SEED = 8, 5
POLICY = {"type": "expert-sample", "k_keep": 1}


@pytest.fixture(scope="module")
def served():
    """A model, and where it is served."""
    model = tiny_chat_model()
    with serving(model, prompt_tokens=16) as running:
        yield model, running.address


def logged_samples(address: str, folder):
    """What an evaluation of the questions logged, a sample each."""
    from inspect_ai.dataset import Sample
    from inspect_ai.model import GenerateConfig, get_model
    from inspect_ai.scorer import includes
    from inspect_ai.solver import generate

    task = inspect_ai.Task(
        dataset=[Sample(input=question, target="e") for question in QUESTIONS],
        solver=generate(),
        scorer=includes(),
        config=GenerateConfig(
            max_tokens=TOKENS,
            temperature=0.8,
            seed=SEED,
            logprobs=True,
            extra_body={"policy": POLICY},
        ),
    )
    model = get_model("openai-api/own/tiny", base_url=f"{address}/v1", api_key="-")
    (log,) = inspect_ai.eval(task, model=model, display="none", log_dir=str(folder))
    assert log.status == "success", log.error
    return log.samples


def test_an_evaluation_gets_the_answers_of_sample(served, tmp_path):
    """An evaluation through the server would measure another model."""
    model, address = served
    for logged in logged_samples(address, tmp_path):
        (said,) = logged.output.choices
        out = jaxmoe.sample(
            model,
            model.chat([{"role": "user", "content": logged.input}]),
            key=SEED,
            n=1,
            policy=jaxmoe.ExpertSample(k_keep=1),
            sampler=jaxmoe.TokenSampler(0.8),
            max_new_tokens=TOKENS,
        )
        assert said.message.text == out.texts[0]
        assert logged.output.usage.output_tokens == out.lengths[0]
        assert len(said.logprobs.content) == out.lengths[0]
