"""The study's verdicts on made-up answers, and whether its parts fit together."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from jaxmoe import TokenSampler
from jaxmoe.demo import configuration_names as names
from jaxmoe.demo.chains import number_sets
from jaxmoe.demo.claims import CLAIMS, SOLVED, Claim
from jaxmoe.demo.configuration_names import BASE, ES, ES_GREEDY, GREEDY, HOT
from jaxmoe.demo.encoding import VOCAB
from jaxmoe.demo.game_runs import MAX_NEW_TOKENS, Outcome
from jaxmoe.demo.network import demo_config
from jaxmoe.demo.numbers_game import Problem
from jaxmoe.demo.study import compare, configurations, report, stability
from jaxmoe.demo.study_table import tables
from jaxmoe.evals.metrics import Interval
from jaxmoe.router.policies import for_model
from tests.outcomes import outcome_of

CONFIG = demo_config({"vocab_size": len(VOCAB), "eos_token_id": 0, "pad_token_id": 0})
ROWS = configurations()
SETS = number_sets()


def outcome(right, n: int) -> Outcome:
    """n answers to each problem, so many of them right."""
    right = np.array(right)
    problems = [Problem(SETS[j], 1 + j) for j in range(len(right))]
    return outcome_of(problems, n, right, np.minimum(right, 2))


# -- configurations ------------------------------------------------------------------


@pytest.mark.parametrize("name", ROWS)
def test_every_configuration_fits_the_demo_model(name):
    """The study would stop at this row, hours after it began."""
    row = ROWS[name]
    draw = row.draw(slots=16)
    assert (draw.policy, draw.n, draw.slots) == (row.policy, row.n, 16)
    assert draw.noisy_prefill == row.noisy_prefill
    assert draw.sampler == TokenSampler(row.temperature)
    assert draw.max_new_tokens == MAX_NEW_TOKENS
    for_model(draw.policy, CONFIG)
    draw.sampler.resolve(CONFIG.vocab_size)


def test_no_two_configurations_are_the_same():
    """A row would be drawn twice, and compared with itself."""
    described = set()
    for row in ROWS.values():
        policy = for_model(row.policy, CONFIG)
        described.add(f"{policy} {row.temperature} {row.noisy_prefill}")
    assert len(described) == len(ROWS)


def test_an_answer_that_is_always_the_same_is_drawn_once():
    """Time would go into one answer again and again, or noise be drawn but once."""
    for name, row in ROWS.items():
        noisy = for_model(row.policy, CONFIG).noisy or row.temperature > 0
        assert (row.n > 1) == noisy, name


def _needed(measure: str) -> int:
    """How many answers a measure needs."""
    if measure == "accuracy":
        return 1
    found = re.fullmatch(r"pass@(\d+)", measure)
    assert found, measure
    return int(found[1])


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.text)
def test_every_claim_can_be_judged(claim):
    """The study would draw for hours and then lack what decides a claim."""
    assert _needed(claim.measure) <= ROWS[claim.a].n
    assert _needed(claim.measure_b or claim.measure) <= ROWS[claim.b].n
    assert claim.expects in EXPECTED and claim.by in ("paper", "ours")
    assert claim.only in (None, SOLVED)


def test_names_are_of_configurations():
    """A figure or a table would have no such row, hours after the study began."""
    spoken = {value for name, value in vars(names).items() if name.isupper()}
    assert spoken - {names.NOISY} <= set(ROWS)
    assert ROWS[BASE].n >= 32 and ROWS[GREEDY].n == 1


# -- claims --------------------------------------------------------------------------

YES, NO, UNKNOWN = "holds", "does not hold", "cannot tell"
# Bounds of a difference; whether a is higher, lower, no worse, no better.
EXPECTED = ("higher", "lower", "no worse", "no better")
CASES = {
    "far above": (0.03, 0.05, YES, NO, YES, NO),
    "just above": (0.001, 0.01, YES, NO, YES, YES),
    "above": (0.01, 0.05, YES, NO, YES, UNKNOWN),
    "from 0": (0.0, 0.05, UNKNOWN, NO, YES, UNKNOWN),
    "around 0": (-0.01, 0.01, NO, NO, YES, YES),
    "wide": (-0.05, 0.05, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN),
    "mostly above": (-0.01, 0.05, UNKNOWN, NO, YES, UNKNOWN),
    "mostly below": (-0.05, 0.01, NO, UNKNOWN, UNKNOWN, YES),
    "to 0": (-0.05, 0.0, NO, UNKNOWN, UNKNOWN, YES),
    "just below": (-0.01, -0.001, NO, YES, YES, YES),
    "far below": (-0.05, -0.03, NO, YES, NO, YES),
    "nothing at all": (0.0, 0.0, NO, NO, YES, YES),
}


@pytest.mark.parametrize("place", range(4), ids=EXPECTED)
@pytest.mark.parametrize("case", CASES)
def test_verdicts(case, place):
    """A claim would be said to hold, or not to, on answers that do not say so."""
    low, high, *expected = CASES[case]
    claim = Claim("c", "ours", "one", "two", "accuracy", EXPECTED[place])
    assert claim.judge(Interval((low + high) / 2, low, high)) == expected[place]


@pytest.mark.parametrize(
    ("margin", "higher", "no_worse"),
    [(0.005, UNKNOWN, NO), (0.02, NO, UNKNOWN), (0.05, NO, YES)],
)
def test_the_margin_is_the_claims_own(margin, higher, no_worse):
    """An effect would count as ruled out, or as small, by another claim's measure."""
    worse = Interval(-0.02, -0.03, -0.01)
    claim = Claim("c", "ours", "a", "b", "accuracy", "no worse", margin=margin)
    assert claim.judge(worse) == no_worse
    small = Interval(0.0, -0.02, 0.01)
    assert replace(claim, expects="higher").judge(small) == higher


def test_a_claim_says_what_is_compared():
    """Two measures, or problems chosen by one of them, would look like a plain pair."""
    claim = Claim("c", "ours", "one", "two", "pass@4", "higher")
    assert str(claim) == "pass@4: one minus two"
    assert str(replace(claim, measure_b="pass@1")) == "pass@4: one minus two (pass@1)"
    assert str(replace(claim, only=SOLVED)).endswith(f"one minus two, {SOLVED}")


def test_differences_are_paired():
    """Problems that differ in how hard they are would hide every difference."""
    hard, easy = outcome([10, 90] * 40, 100), outcome([12, 92] * 40, 100)
    difference = compare(easy, hard, "accuracy")
    assert difference.mean == pytest.approx(0.02)
    own = easy.interval("accuracy")
    assert difference.high - difference.low < 0.6 * (own.high - own.low)
    assert easy.interval("accuracy").low < hard.interval("accuracy").high
    assert compare(hard, easy, "pass@2").mean < 0


# -- the report ----------------------------------------------------------------------

SHARES = {BASE: [0, 0.25, 0.5, 0.5], ES: [0.25, 0.25, 0.5, 1], HOT: [0, 0, 0, 0.25]}
GREEDILY = np.array([0, 0, 1, 1])


def play(greedily=GREEDILY) -> dict[str, Outcome]:
    """The whole study on four problems, the last two of which greedy solves."""
    made = {}
    for name, row in ROWS.items():
        share = np.array(SHARES.get(name, [0, 0.5, 0.5, 0.5]))
        right = (share * row.n).astype(int) if row.n > 1 else greedily
        made[name] = outcome(right, row.n)
    return made


BANDS = dict(zip(play()[BASE].problems, ["easy", "hard", "hard", "easy"], strict=True))


@pytest.fixture(scope="module")
def reported() -> dict:
    """Its report, as it is read again."""
    return json.loads(json.dumps(report(play(), BANDS), allow_nan=False))


def test_the_report_has_everything(reported):
    """A row, a claim or a problem would be lost on the way to the file."""
    assert (reported["problems"], reported["number_sets"]) == (4, 4)
    assert list(reported["configurations"]) == list(ROWS)
    assert [row["claim"] for row in reported["claims"]] == [c.text for c in CLAIMS]
    for name, row in reported["configurations"].items():
        assert row.items() >= ROWS[name].draw().describe().items()
        budgets = [1 << i for i in range(1, row["n"].bit_length())]
        assert {f"pass@{k}" for k in budgets} | {"accuracy"} <= set(row)
        assert len(row["right"]) == 4


def test_reported_numbers(reported):
    """A number would be that of another configuration, problem or measure."""
    rows = reported["configurations"]
    assert rows[BASE]["accuracy"][0] == 0.3125
    assert rows[ES]["accuracy"][0] == 0.5
    assert rows[ES]["accuracy, easy"][0] == 0.625
    assert rows[ES]["accuracy, hard"][0] == 0.375
    assert rows[BASE]["pass@64, easy"][0] == 0.5
    assert rows[ES]["right"] == [16, 16, 32, 64]
    assert rows[ES]["distinct_right"] == [2, 2, 2]
    assert rows[ES]["pass@64"][::2] == [1, 1]
    mean, low, high = rows[ES]["accuracy minus base"]
    assert mean == 0.1875 and low < mean < high
    assert rows[BASE]["pass@32 minus base"][0] == 0
    assert rows[ES]["pass@32 minus base"][0] == pytest.approx(0.25, abs=1e-3)
    assert rows[GREEDY]["pass@32 minus base"] is None
    assert rows[GREEDY]["accuracy minus base"][0] == 0.1875


def test_stability_is_of_what_greedy_solves(reported):
    """Answers that noise spoils would be counted among problems never solved."""
    assert reported["greedy_solves"] == 2
    assert set(reported["stability"]) == set(stability(play()))
    mean, low, high = reported["stability"][BASE]
    assert 0 <= low < mean == 0.5 < high <= 1
    assert reported["stability"][ES][0] == 0.75
    assert reported["stability"][HOT][0] == 0.125


def claimed(reported: dict, a: str, b: str, measure: str) -> list[dict]:
    """The reported claims about a pair."""
    start = f"{measure}: {a} minus {b}"
    return [row for row in reported["claims"] if row["difference"].startswith(start)]


def test_reported_claims(reported):
    """A verdict would stand beside the numbers of another claim."""
    (solved,) = claimed(reported, ES, BASE, "pass@64")
    assert solved["value"][0] == 0.25
    assert solved["expected"] == "higher, margin 0.02"
    (routes,) = claimed(reported, ES_GREEDY, GREEDY, "pass@32")
    assert routes["value"][0] == pytest.approx(3 / 4 - 2 / 4, abs=1e-5)
    every, some = claimed(reported, ES, BASE, "accuracy")
    assert every["value"][0] == 0.1875
    assert some["difference"].endswith(SOLVED)
    assert some["value"][0] == pytest.approx(0.75 - 0.5)
    for row, claim in zip(reported["claims"], CLAIMS, strict=True):
        assert row["by"] == claim.by
        assert row["verdict"] == claim.judge(Interval(*row["value"]))


def test_a_study_in_which_greedy_solves_nothing():
    """Hours of answers would end in a traceback."""
    found = report(play(np.zeros(4, int)), BANDS)
    assert (found["greedy_solves"], found["stability"]) == (0, {})
    _, some = claimed(found, ES, BASE, "accuracy")
    assert (some["value"], some["verdict"]) == (None, UNKNOWN)


# -- the table -----------------------------------------------------------------------


def test_the_table_shows_the_report(reported):
    """A column would be empty, or a row be of another configuration."""
    curve = {"mean": [0.5, 0.25], "cumulative": [i / 8 for i in range(1, 9)]}
    curve |= {"gap_head_per_rank": 1, "gap_tail_per_rank": 0.25, "load_entropy": 0.875}
    router = {"trained": {"layer 0": curve}, "untrained": {"layer 0": curve}}
    text = tables(reported | {"router": router})
    assert text.startswith("4 problems of 4 sets of numbers; ")
    _, rows, stable, claims, layers = (part.splitlines() for part in text.split("\n\n"))
    for part in (rows, stable, claims, layers):  # rows are as wide as their head
        assert len({line.count("|") for line in part}) == 1
    assert [line.split("|")[1].strip() for line in rows[2:]] == list(ROWS)
    (row,) = (line for line in rows if line.startswith(f"| {ES} |"))
    cells = [cell.strip() for cell in row.split("|")[2:-1]]
    assert cells[0].startswith("50.0 [") and cells[3].startswith("100.0 [")
    (row,) = (line for line in rows if line.startswith(f"| {GREEDY} |"))
    assert row.split("|")[3:-1] == ["  "] * 4
    assert stable[0] == "| on the 2 problems greedy solves | accuracy |"
    assert any(line.startswith(f"| {ES} | 75.0 [") for line in stable)
    (row,) = (line for line in claims if f"| pass@64: {ES} minus {BASE} |" in line)
    assert "| higher, margin 0.02 | +25.0 [" in row
    numbers = "0.500 | 0.625 | 1.000 | 1.000 | 0.250 | 0.875 |"
    assert layers[2:] == [
        f"| layer 0, trained | {numbers}",
        f"| layer 0, untrained | {numbers}",
    ]


def test_the_table_of_a_claim_about_nothing(reported):
    """A study in which greedy solves nothing would end without its table."""
    claim = reported["claims"][0] | {"value": None, "verdict": UNKNOWN}
    some = {"claims": [claim], "stability": {}, "router": {}}
    text = tables(reported | some)
    assert f"| {claim['expected']} |  | {UNKNOWN} |" in text
