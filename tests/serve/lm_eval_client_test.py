"""lm-evaluation-harness as a client: its own `local-completions` against the server."""

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.extras]

lm_eval = pytest.importorskip("lm_eval", reason="needs jaxmoe[lm-eval]")
pytest.importorskip("tenacity", reason="needs lm-eval[api]")
pytest.importorskip("openai", reason="needs jaxmoe[client]")

import jaxmoe  # noqa: E402
from jaxmoe.evals.lm_eval import JaxMoE  # noqa: E402
from tests.evals.lm_eval_test import tasks  # noqa: E402, F401
from tests.serve.serving import serving  # noqa: E402

ASKED = ["choices", "answers", "texts"]
OPTIONS = {
    "gen_kwargs": "do_sample=False,temperature=0",
    "bootstrap_iters": 0,
    "log_samples": True,
}


def scored(model, folder, **more) -> tuple[dict, dict]:
    """Results of the harness, and what the model said to each question."""
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(folder))
    found = lm_eval.simple_evaluate(
        model, tasks=ASKED, task_manager=manager, **OPTIONS, **more
    )
    said = {
        task: [(row["doc_id"], row["filtered_resps"]) for row in rows]
        for task, rows in found["samples"].items()
    }
    return found["results"], said


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """Rows that the harness reads are kept here, not at home."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("cached")
def test_its_client_gets_the_numbers_of_its_model(tasks):  # noqa: F811
    """Two ways to one model would measure two models."""
    own, own_said = scored(JaxMoE("demo", policy="topk"), tasks)
    model, policy = jaxmoe.load("demo"), jaxmoe.TopK()
    with serving(model, policy=policy, prompt_tokens=16) as served:
        found, said = scored(
            "local-completions",
            tasks,
            model_args={
                "model": "tiny",
                "base_url": f"{served.address}/v1/completions",
                "tokenizer_backend": "remote",
                "num_concurrent": 4,
                "max_length": 512,
            },
        )
    assert 0 <= own["choices"]["acc,none"] <= 1
    for task, metric in (("choices", "acc,none"), ("answers", "exact_match,first")):
        assert found[task][metric] == own[task][metric]
    name = "word_perplexity,none"
    assert found["texts"][name] == pytest.approx(own["texts"][name], rel=1e-5)
    assert said["answers"] == own_said["answers"]
    for (_, ours), (_, theirs) in zip(
        own_said["choices"], said["choices"], strict=True
    ):
        assert [greedy for _, greedy in ours] == [greedy for _, greedy in theirs]
        assert [x for x, _ in theirs] == pytest.approx([x for x, _ in ours], rel=1e-5)
