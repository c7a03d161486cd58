"""Whether the study's parts fit together, on made-up answers."""

import json
import re

import numpy as np
import pytest

from jaxmoe import TokenSampler
from jaxmoe.demo import configuration_names as names
from jaxmoe.demo.chains import number_sets
from jaxmoe.demo.claims import PRIMARY, SECONDARY
from jaxmoe.demo.configuration_names import BASE, ES, ES_HOT, GREEDY, HOT
from jaxmoe.demo.encoding import VOCAB
from jaxmoe.demo.game_runs import MAX_NEW_TOKENS, Outcome
from jaxmoe.demo.held_out import STUDY_SEED
from jaxmoe.demo.network import demo_config
from jaxmoe.demo.numbers_game import Problem
from jaxmoe.demo.study import MAIN, configurations, report
from jaxmoe.demo.study_table import tables
from jaxmoe.router.policies import for_model
from tests.outcomes import outcome_of

CONFIG = demo_config({"vocab_size": len(VOCAB), "eos_token_id": 0, "pad_token_id": 0})
ROWS = configurations()
CLAIMS = (*PRIMARY, *SECONDARY)
PROBLEMS = [Problem(numbers, 9) for numbers in number_sets()[:4]]


# -- configurations ------------------------------------------------------------------


@pytest.mark.parametrize("name", ROWS)
def test_every_configuration_fits_the_demo_model(name):
    """The study would stop at this row, hours after it began."""
    row = ROWS[name]
    draw = row.draw(slots=16)
    assert (draw.policy, draw.sampler, draw.n) == (row.policy, row.sampler, row.n)
    assert (draw.seed, draw.slots) == (STUDY_SEED, 16)
    assert draw.max_new_tokens == MAX_NEW_TOKENS
    for_model(draw.policy, CONFIG)
    draw.sampler.resolve(CONFIG.vocab_size)


def test_no_two_configurations_are_the_same():
    """A row would be drawn twice, and compared with itself."""
    described = {f"{for_model(r.policy, CONFIG)} {r.sampler}" for r in ROWS.values()}
    assert len(described) == len(ROWS)


def test_the_main_rows_are_those_of_the_paper():
    """The study would be of another setting than the claims."""
    assert MAIN == (GREEDY, BASE, ES, HOT, ES_HOT)
    assert ROWS[BASE].sampler == ROWS[ES].sampler
    assert ROWS[ES].sampler == TokenSampler(0.7, top_p=0.8, top_k=20)
    assert ROWS[HOT].sampler == ROWS[ES_HOT].sampler == TokenSampler(1.3, top_p=0.98)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.text)
def test_every_claim_can_be_judged(claim):
    """The study would draw for hours and then lack what decides a claim."""
    found = re.fullmatch(r"accuracy|pass@(\d+)", claim.measure)
    assert found
    assert int(found[1] or 1) <= min(ROWS[claim.a].n, ROWS[claim.b].n)


def test_names_are_of_configurations():
    """A figure or a table would have no such row, hours after the study began."""
    assert {v for name, v in vars(names).items() if name.isupper()} == set(ROWS)


# -- the report ----------------------------------------------------------------------

SHARES = {BASE: [0, 0.25, 0.5, 0.5], ES: [0.25, 0.25, 0.5, 1], HOT: [0, 0, 0, 0.25]}


def play() -> dict[str, Outcome]:
    """The whole study on four problems, the last two of which greedy solves."""
    made = {}
    for name, row in ROWS.items():
        share = np.array(SHARES.get(name, [0, 0.5, 0.5, 0.5]))
        right = (share * row.n).astype(int) if row.n > 1 else [0, 0, 1, 1]
        made[name] = outcome_of(PROBLEMS, row.n, right)
    return made


@pytest.fixture(scope="module")
def reported() -> dict:
    """Its report, as it is read again."""
    return json.loads(json.dumps(report(play()), allow_nan=False))


def test_the_report_has_everything(reported):
    """A row, a claim or a problem would be lost on the way to the file."""
    assert (reported["problems"], reported["number_sets"]) == (4, 4)
    assert reported["greedy_solves"] == 2
    assert list(reported["configurations"]) == list(ROWS)
    for family, claims in (("primary", PRIMARY), ("secondary", SECONDARY)):
        assert [row["claim"] for row in reported[family]] == [c.text for c in claims]
    for name, row in reported["configurations"].items():
        assert row.items() >= ROWS[name].draw().describe().items()
        budgets = [1 << i for i in range(1, row["n"].bit_length())]
        assert {f"pass@{k}" for k in budgets} | {"accuracy"} <= set(row)
        assert len(row["right"]) == row["problems"] == 4


def test_rows_that_were_not_drawn_are_named():
    """Time that ran out would leave no results, or some without a word."""
    drawn = {name: outcome for name, outcome in play().items() if name != names.HALF}
    found = json.loads(json.dumps(report(drawn)))
    left_out = [claim.text for claim in SECONDARY if names.HALF in (claim.a, claim.b)]
    missing = {"configurations": [names.HALF], "claims": left_out}
    assert found["left_out"] == missing and len(left_out) == 2
    assert [row["claim"] for row in found["primary"]] == [c.text for c in PRIMARY]
    text = tables(found | {"router": {}})
    assert f"Left out (configurations): {names.HALF}." in text
    assert f"Left out (claims): {'; '.join(left_out)}." in text


def test_reported_numbers(reported):
    """A number would be that of another configuration, problem or measure."""
    rows = reported["configurations"]
    assert rows[BASE]["accuracy"][0] == 0.3125
    assert rows[ES]["accuracy"][0] == 0.5
    assert rows[ES]["right"] == [16, 16, 32, 64]
    assert rows[ES]["pass@64"][::2] == [1, 1]


def found(reported: dict, difference: str) -> dict:
    """What is reported of one claim."""
    (row,) = (
        row
        for family in ("primary", "secondary")
        for row in reported[family]
        if row["difference"] == difference
    )
    return row


def test_reported_claims(reported):
    """A verdict would stand beside the numbers of another claim."""
    pair = f"{ES} minus {BASE}"
    row = found(reported, f"pass@64: {pair}")
    assert row["value"][0] == row["together"][0] == 0.25
    assert row["together"][2] >= row["value"][2] > 0.25
    assert (row["expected"], row["verdict"]) == ("higher", "cannot be told")
    assert found(reported, f"accuracy: {pair}")["value"][0] == 0.1875
    row = found(reported, f"accuracy: {pair}, problems that greedy solves")
    assert row["value"][0] == pytest.approx(0.75 - 0.5)


# -- the table -----------------------------------------------------------------------


def test_the_table_shows_the_report(reported):
    """A column would be empty, or a row be of another configuration."""
    curve = {"mean": [0.5, 0.25], "cumulative": [i / 8 for i in range(1, 9)]}
    curve |= {"gap_head_per_rank": 1, "gap_tail_per_rank": 0.25, "load_entropy": 0.875}
    router = {"trained": {"layer 0": curve}, "untrained": {"layer 0": curve}}
    text = tables(reported | {"router": router})
    assert text.startswith("4 problems of 4 sets of numbers, of which greedy solves 2;")
    parts = [part.splitlines() for part in text.split("\n\n") if part.startswith("|")]
    rows, primary, secondary, layers = (
        [[cell.strip() for cell in line.split("|")[1:-1]] for line in part]
        for part in parts
    )
    assert [cells[0] for cells in rows[2:]] == list(ROWS)
    (base,) = (cells for cells in rows if cells[0] == BASE)
    assert base[1] == "4" and base[2].startswith("31.2 [")
    (greedy,) = (cells for cells in rows if cells[0] == GREEDY)
    assert greedy[3:] == ["", "", ""]
    assert [cells[1] for cells in primary[2:]] == [str(claim) for claim in PRIMARY]
    assert [cells[1] for cells in secondary[2:]] == [str(claim) for claim in SECONDARY]
    assert [cells[-1] for cells in primary[2:]] == [
        row["verdict"] for row in reported["primary"]
    ]
    (solved,) = (c for c in primary if c[1] == f"pass@64: {ES} minus {BASE}")
    assert solved[2].startswith("+25.0 [")
    numbers = ["0.500", "0.625", "1.000", "1.000", "0.250", "0.875"]
    assert layers[2:] == [
        ["layer 0, trained", *numbers],
        ["layer 0, untrained", *numbers],
    ]
