"""Whether the trials' parts fit together, on made-up answers."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from jaxmoe.demo import trials
from jaxmoe.demo.chains import number_sets
from jaxmoe.demo.encoding import ANSWER_LENGTH, VOCAB
from jaxmoe.demo.held_out import read_part
from jaxmoe.demo.network import demo_config
from jaxmoe.demo.numbers_game import Problem
from jaxmoe.demo.study import HIGH, NORMAL
from jaxmoe.demo.token_entropy import TokenEntropy
from jaxmoe.demo.trials import ONE_TRY, ROUTING, SEVERAL_TRIES, SHIPPED
from jaxmoe.router.policies import ExpertSample, TopK, for_model
from tests.outcomes import outcome_of

CONFIG = demo_config({"vocab_size": len(VOCAB), "eos_token_id": 0, "pad_token_id": 0})
HEADS = ONE_TRY.own
HEAD_CLAIMS, MODEL_CLAIMS = (ONE_TRY.families[n].claims for n in ("heads", "models"))
PROBLEMS = [Problem(numbers, 9) for numbers in number_sets()[:4]]
MODEL_ROWS = [trials.row_of(m, p) for m in ONE_TRY.models for p in ROUTING]
NOISY_TOPK, NOISY_ES = (trials.row_of(trials.NOISY, policy) for policy in ROUTING)


@pytest.mark.parametrize("setting", [ONE_TRY, SEVERAL_TRIES])
@pytest.mark.parametrize("model", [SHIPPED, trials.NOISY])
def test_every_policy_fits_the_demo_model(setting, model):
    """The trials would stop at this row."""
    for row in setting.rows(model).values():
        draw = setting.draw(row, 16)
        assert (draw.n, draw.slots, draw.seed) == (setting.n, 16, trials.SEED)
        assert draw.max_new_tokens > setting.tries * ANSWER_LENGTH
        assert draw.sampler in (NORMAL, HIGH)
        for_model(draw.policy, CONFIG)


@pytest.mark.parametrize(
    ("setting", "stated"),
    [
        (ONE_TRY, {"heads": 10, "models": 8, "coarse experts": 2}),
        (SEVERAL_TRIES, {"the method": 4, "heads": 10, "models": 5}),
    ],
)
def test_the_families_are_as_large_as_the_design_says(setting, stated):
    """Holm's correction would be for another number of claims than was stated."""
    families = setting.families
    assert {name: len(family.claims) for name, family in families.items()} == stated
    claims = [claim for family in families.values() for claim in family.claims]
    assert len({claim.text for claim in claims}) == len(claims)
    assert {claim.measure for claim in claims} == {"accuracy", f"pass@{setting.n}"}
    assert {claim.a for claim in HEAD_CLAIMS} | {claim.b for claim in HEAD_CLAIMS} == (
        {*HEADS} - {"top-k"}
    )


def test_the_method_is_judged_by_both_samplers():
    """A gain would be of another sampler, or less than nothing."""
    method = SEVERAL_TRIES.families["the method"].claims
    pairs = [("fixed", "top-k")] * 2 + [("fixed, high", "top-k, high")] * 2
    assert [(claim.a, claim.b) for claim in method] == pairs
    rows = SEVERAL_TRIES.rows(SHIPPED)
    hot = {name for name, row in rows.items() if row.sampler == HIGH}
    assert hot == {"fixed, high", "top-k, high"}
    assert [rows[name].policy for pair in pairs[1:3] for name in pair] == [
        *(ExpertSample(), TopK()) * 2
    ]


def outcomes(rows) -> dict:
    """Four problems of 32 answers, of which a sixteenth is right."""
    made = {name: outcome_of(PROBLEMS, ONE_TRY.n, [2, 2, 2, 2]) for name in rows}
    if NOISY_ES in made:
        made[NOISY_ES] = outcome_of(PROBLEMS, ONE_TRY.n, [32, 32, 2, 0])
    return made


def reported(rows) -> dict:
    """The report, as it is read again."""
    found = outcomes(rows)
    draws = dict.fromkeys(found, ONE_TRY.draw(HEADS["top-k"]))
    said = trials.report(ONE_TRY, found, draws, {"shipped": TokenEntropy(0.5, 3)})
    return json.loads(json.dumps(said, allow_nan=False))


def test_a_gain_is_less_top_k_and_growth_less_the_controls():
    """A model's growth would be its accuracy, or be against the wrong model."""
    found = reported([*HEADS, *MODEL_ROWS])
    assert [row["claim"] for row in found["heads"]] == [c.text for c in HEAD_CLAIMS]
    by_claim = {row["claim"]: row for row in found["models"]}
    assert [*by_claim] == [claim.text for claim in MODEL_CLAIMS]
    solved = by_claim["noisy: 32 answers solve more"]["value"][0]
    # pass@32 of 2 of 32 right is 1, of 0 it is 0.
    assert solved == -0.25
    assert by_claim["noisy: gains more than the control"]["value"][0] == solved
    single = by_claim["noisy: one answer is no worse"]["value"][0]
    assert single == pytest.approx((1 + 1 + 1 / 16) / 4 - 1 / 16, abs=1e-5)
    assert by_claim["sharpened: gains more than the control"]["value"][0] == 0
    assert found["gains"]["noisy, accuracy"][0] == single
    assert not found["heads left out"] and not found["models left out"]


def test_gains_may_differ_by_two():
    """A gain of all problems beside a loss of all would be refused as no share."""
    rows = [*HEADS, *MODEL_ROWS]
    made = outcomes(rows)
    control_topk, control_es = (trials.row_of(trials.CONTROL, p) for p in ROUTING)
    for name, right in ((NOISY_TOPK, 0), (NOISY_ES, 32), (control_topk, 32)):
        made[name] = outcome_of(PROBLEMS, ONE_TRY.n, [right] * 4)
    made[control_es] = outcome_of(PROBLEMS, ONE_TRY.n, [0] * 4)
    growth = [c for c in MODEL_CLAIMS if c.a == trials.gain_of(trials.NOISY)]
    (one,) = trials.evidence(trials.Family(tuple(growth)), made)
    np.testing.assert_array_equal(one.a - one.b, [2, 2, 2, 2])
    assert one.difference().mean == 2


def test_models_that_are_not_given_are_left_out():
    """Time that ran out would leave no results, or some without a word."""
    rows = [*HEADS, *(row for row in MODEL_ROWS if trials.SHARPENED not in row)]
    found = reported(rows)
    left = [claim.text for claim in MODEL_CLAIMS if trials.SHARPENED in claim.text]
    assert found["models left out"] == left and len(left) == 3
    adjusted = {row["claim"]: row for row in found["models"]}
    assert len(adjusted) == len(MODEL_CLAIMS) - 3
    text = trials.table(ONE_TRY, found)
    assert f"Left out: {'; '.join(left)}." in text
    assert "shipped 0.500 (3)." in text
    assert re.search(r"\| by mass +\| 4 ", text)


@pytest.mark.parametrize(
    ("rows", "judged"),
    [
        (["top-k", "fixed", "top-k, high", "fixed, high"], {"the method": 4}),
        (["top-k", "fixed", "top-k, high"], {}),
        ([*SEVERAL_TRIES.own], {"the method": 4, "heads": 10}),
        ([*SEVERAL_TRIES.own][:-1], {"the method": 4}),
        (["control, top-k", "control, expert-sample"], {}),
        (
            [*(trials.row_of(m, p) for m in ("control", "noisy") for p in ROUTING)],
            {"models": 5},
        ),
    ],
)
def test_a_family_is_judged_when_its_rows_are_there(rows, judged):
    """A difference would be known while others of its family are still drawn."""
    made = {row: outcome_of(PROBLEMS, 8, [2, 1, 0, 8]) for row in rows}
    draws = dict.fromkeys(made, SEVERAL_TRIES.draw(trials.Row(TopK())))
    found = trials.report(SEVERAL_TRIES, made, draws, {})
    for name, family in SEVERAL_TRIES.families.items():
        assert len(found[name]) == judged.get(name, 0), name
        left_out = len(family.claims) - judged.get(name, 0)
        assert len(found[f"{name} left out"]) == left_out
    assert bool(found["gains"]) == ("models" in judged)
    assert "First answers" not in trials.table(SEVERAL_TRIES, found)


def test_tries_are_counted():
    """Answers of one try and of many would look the same."""
    # The problems are of 1, 1, 1 and 1 to 4, and 9 is to be made.
    assert [problem.numbers[-1] for problem in PROBLEMS] == [1, 2, 3, 4]
    true, false = "1+1=2,2+1=3,3+4=7", "1+1=2,2+1=3,3+4=9"
    first = (
        "12+8=20",
        "a:b:c",
        f"1+1=2,2+1=3,3*3=9:{true}",
        f"{true}:{false}:c:d:e:f:g",
    )
    made = {"top-k": replace(outcome_of(PROBLEMS, 8, [2, 1, 0, 8]), first=first)}
    draws = {"top-k": SEVERAL_TRIES.draw(SEVERAL_TRIES.own["top-k"])}
    found = trials.report(SEVERAL_TRIES, made, draws, {})
    row = found["configurations"]["top-k"]
    # The last was cut off in a seventh try; the third is wrong.
    assert row["tries"] == (1 + 3 + 2 + 6) / 4
    assert row["right within"] == [0.25, 0.25, 0.5, 0.5, 0.5, 0.75]
    # Of nine that are called failed one has failed: another is right, one says false.
    assert row["failed as said"] == pytest.approx(1 / 9, abs=1e-5)
    said = trials.table(SEVERAL_TRIES, found)
    assert re.search(r"\| top-k +\| 3.00 +\| 11.1 +\| 25.0 +\| 25.0 +\| 50.0", said)
    found = trials.report(ONE_TRY, made, draws, {})["configurations"]
    assert "tries" not in found["top-k"]


def test_the_pilots_problems_are_as_hard_and_others():
    """The study's problems would be known before they are asked, or be harder."""
    pilot, asked = trials.pilot_problems(), read_part("study")
    assert len(pilot) == 96 and not {p.problem for p in pilot} & {
        p.problem for p in asked
    }
    assert {p.answers for p in pilot} == {1, 2}
    assert {p.kind for p in pilot} == {"familiar"}
