"""The committed recipes fit the models that they name, and slips are refused."""

from dataclasses import replace

import pytest

from jaxmoe import ExpertSample, TokenSampler, TopK
from jaxmoe.evals.replication.recipe import (
    model_of,
    read_recipe,
    recipe_names,
    require_model,
    twins,
)
from jaxmoe.evals.tasks import TASKS
from jaxmoe.planning.models import config_of

SMALL = """
about = "small"
n = 2
models = ["gpt-oss-20b"]
benchmarks = ["aime24"]
measures = ["accuracy"]

[[rows]]
name = "one"
policy = "topk"
sampler = "normal"
"""


@pytest.mark.parametrize("name", recipe_names())
def test_recipes_fit_their_models(name):
    """A row would be refused by a model that the recipe is of, hours after others."""
    recipe = read_recipe(name)
    assert {b.task for b in recipe.benchmarks.values()} <= {"countdown", *TASKS}
    for model, size in recipe.models.items():
        config = config_of(size)
        assert model_of(recipe, config) == model
        for row in recipe.rows:
            options = {"max_new_tokens": 4, "seed": 0, "slots": 8}
            draw = recipe.draw_of(row, config, **options)
            assert draw.n == (row.n or recipe.n)


def test_rows_are_those_of_the_paper():
    """The table would be drawn with other samplers or numbers than the paper's."""
    recipe, config = read_recipe("pass-at-n"), config_of("30b")
    rows = {row.name: row for row in recipe.rows}
    normal, high = TokenSampler(0.7, 20, 0.8), TokenSampler(1.3, None, 0.98)
    drawn = {n: (r.policy_of(config), recipe.sampler_of(r)) for n, r in rows.items()}
    assert drawn["normal"] == (TopK(), normal)
    assert drawn["normal-es"] == (ExpertSample(), normal)
    assert drawn["high"] == (TopK(), high)
    assert drawn["high-es"] == (ExpertSample(), high)
    rows = {row.name: row for row in read_recipe("ablations").rows}
    assert rows["keep-0.25k"].policy_of(config) == ExpertSample(k_keep=2)
    assert rows["r-1.5k"].policy_of(config) == ExpertSample(r=12)
    # No more than there are experts.
    assert rows["r-8k"].policy_of(config_of("gpt-oss-20b")) == ExpertSample(r=32)


def test_claims_of_the_paper_are_those_it_is_known_for():
    """A claim of ours would be refuted, or confirmed, in the paper's name."""
    recipes = ("pass-at-n", "demo-smoke")
    claims = [claim for name in recipes for claim in read_recipe(name).claims]
    found = {claim.text for claim in claims if claim.by == "paper"}
    assert found == {
        "32 answers solve more problems",
        "64 answers solve more problems",
        "a head of k / 4, below k / 2, costs accuracy",
    }


def test_rows_of_equal_policies_are_drawn_once():
    """Hours would be spent on answers that are there already, under another name."""
    recipe = read_recipe("ablations")
    assert twins(recipe, config_of("gpt-oss-20b")) == {"keep-0.75k": "default"}
    assert twins(recipe, config_of("ling-lite-1.5")) == {"keep-0.75k": "default"}
    assert twins(recipe, config_of("30b")) == {}
    # Other tokens, and noise on the prompt, are other answers.
    assert twins(read_recipe("next-checks"), config_of("30b")) == {}


def test_another_model_is_refused():
    """A paper's figures would stand beside another model's."""
    recipe = read_recipe("pass-at-n")
    with pytest.raises(ValueError, match=r"qwen3-30b.*\n?.*found ckpt.*--any-model"):
        require_model(recipe, config_of("demo"), "ckpt")
    config = config_of("30b")
    shorter = replace(config, layers=config.layers[:-1])
    assert model_of(recipe, shorter) is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("", "", None),
        ('policy = "topk"', 'policy = "best"', "a policy among .*'best'"),
        ('sampler = "normal"', 'sampler = "hot"', "a sampler among .*'hot'"),
        ("about", "sound", "found sound, no about"),
        ("n = 2", "n = 2\nx = 1", "found x"),
        ("aime24", "aime99", "aime99"),
        ("[[rows]]", '[[claims]]\ntext = "t"\n[[rows]]', "claim must have"),
        ("n = 2", "n =", r"own\.toml"),
    ],
)
def test_a_recipe_of_ones_own(tmp_path, old, new, message):
    """A slip would end in a traceback, or draw something else."""
    path = tmp_path / "own.toml"
    path.write_text(SMALL.replace(old, new, 1), "utf-8")
    if message is None:
        assert [row.name for row in read_recipe(str(path)).rows] == ["one"]
        return
    with pytest.raises(ValueError, match=message):
        read_recipe(str(path))


def test_unknown_recipes_are_refused():
    """A slip would end in a traceback."""
    with pytest.raises(ValueError, match=r"pass-at-n.*'nonsense'"):
        read_recipe("nonsense")
    with pytest.raises(ValueError, match="'paper'"):
        read_recipe("paper")
