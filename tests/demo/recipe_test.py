"""What a training run says of itself, so that another is not taken for it."""

from dataclasses import asdict, fields, replace

from jaxmoe.demo.recipe import Recipe


def test_default_policy_and_tries_are_not_named():
    """Runs from before there was a choice could not go on, though nothing differs."""
    assert Recipe().describe() == {
        "steps": 4_000,
        "batch": 128,
        "learning_rate": 3e-3,
        "warm_up": 100,
        "weight_decay": 0.01,
        "clip": 1.0,
        "balance": 0.01,
        "seed": 0,
    }


def test_every_change_is_said():
    """A run would go on in another way, and not say so."""
    said = Recipe().describe()
    for field in fields(Recipe):
        other = (
            "expert-sample"
            if field.name == "policy"
            else getattr(Recipe(), field.name) + 1
        )
        changed = replace(Recipe(), **{field.name: other})
        assert changed.describe() == said | {field.name: other}
    changed = replace(Recipe(), policy="expert-sample", tries=2)
    assert changed.describe().keys() == asdict(Recipe()).keys()
