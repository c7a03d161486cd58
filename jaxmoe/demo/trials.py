"""Trials of what the paper leaves open: adapting heads, other training, few experts.

Rows, claims and what is made of the answers. Of each trial design.md in
jaxmoe/demo/trials, or in jaxmoe/demo/tries, was written before its answers.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from jaxmoe.decode.sampler import TokenSampler
from jaxmoe.demo.game_runs import TRIES, Outcome, room_for
from jaxmoe.demo.held_out import HeldOut, read_part
from jaxmoe.demo.numbers_game import AGAIN, error_in
from jaxmoe.demo.study import HIGH, NORMAL, as_json, found_as_json, row_as_json
from jaxmoe.demo.study_table import claims_table, configurations_table
from jaxmoe.demo.token_entropy import TokenEntropy
from jaxmoe.evals.claims import Claim, Evidence, findings
from jaxmoe.evals.draw import Draw
from jaxmoe.reports.text_table import markdown_table
from jaxmoe.router.modifiers import Gated
from jaxmoe.router.policies import AdaptiveHead, ExpertSample, Policy, TopK
from jaxmoe.typing import Float

SEED = 3
RESAMPLES = 100_000

FIXED = "fixed"
ADAPTING: Mapping[str, Policy] = {
    "shorter in later layers": ExpertSample(k_keep=np.array([7, 6, 4, 3])),
    "longer in later layers": ExpertSample(k_keep=np.array([3, 4, 6, 7])),
    "by mass": AdaptiveHead(0.5),
    "gated by entropy": Gated(ExpertSample(k_keep=2), threshold=3.5),
    "gated by margin": Gated(ExpertSample(k_keep=2), by="margin", threshold=0.05),
}

SHIPPED = "shipped"
"""The bundled model that a setting is about."""
CONTROL, NOISY, SHARPENED = TRAINED_ON = ("control", "noisy", "sharpened")
"""Models that were trained on."""
COARSE = "coarse"
"""A model of few large experts, trained from nothing."""
ROUTING: Mapping[str, Policy] = {"top-k": TopK(), "expert-sample": ExpertSample()}
"""Rows of each model beside the shipped one."""


def row_of(model: str, policy: str) -> str:
    """The name of a row of a model beside the shipped one."""
    return f"{model}, {policy}"


def gain_of(model: str) -> str:
    """The name of what Expert-Sample adds to a model."""
    return f"gain of {model}"


class Row(NamedTuple):
    """How answers of a row are drawn."""

    policy: Policy
    sampler: TokenSampler = NORMAL


class Family(NamedTuple):
    """Claims that are corrected together; rows without which none is judged."""

    claims: tuple[Claim, ...]
    rows: tuple[str, ...] = ()


@dataclass(frozen=True)
class Setting:
    """What is asked of which model.

    shipped: what `jaxmoe.load` takes. problems: the first of the study's. n: answers to
    each. own: rows of the shipped model, that of top-k first. models: those compared
    beside it. families: claims by what they are about.
    """

    shipped: str
    problems: int
    n: int
    own: Mapping[str, Row]
    models: tuple[str, ...]
    families: Mapping[str, Family]

    @property
    def tries(self) -> int:
        """The most that an answer has."""
        return TRIES[self.shipped]

    @property
    def measures(self) -> tuple[str, ...]:
        """What tables show."""
        return ("accuracy", f"pass@{self.n // 4}", f"pass@{self.n}")

    def rows(self, model: str) -> dict[str, Row]:
        """A model's rows by name, that of top-k first."""
        if model == SHIPPED:
            return dict(self.own)
        return {row_of(model, name): Row(policy) for name, policy in ROUTING.items()}

    def draw(self, row: Row, slots: int | None = None) -> Draw:
        """As `jaxmoe.demo.game_runs.play` wants it."""
        most = room_for(self.tries)
        return Draw(row.policy, row.sampler, self.n, most, seed=SEED, slots=slots)


def _beats(n: int, text: str, row: str, other: str) -> tuple[Claim, Claim]:
    return (
        Claim(f"{text}: {n} answers solve more", row, other, f"pass@{n}", "higher"),
        Claim(f"{text}: one answer is no worse", row, other, "accuracy", "no worse"),
    )


def _heads(n: int) -> tuple[Claim, ...]:
    return tuple(claim for row in ADAPTING for claim in _beats(n, row, row, FIXED))


def _gains(n: int, *models: str) -> tuple[Claim, ...]:
    topk, es = ROUTING
    pairs = ((model, row_of(model, es), row_of(model, topk)) for model in models)
    return tuple(claim for pair in pairs for claim in _beats(n, *pair))


def _growth(n: int, *models: str) -> tuple[Claim, ...]:
    return tuple(
        Claim(
            f"{model}: gains more than the control",
            gain_of(model),
            gain_of(CONTROL),
            f"pass@{n}",
            "higher",
        )
        for model in models
    )


def _one_try() -> Setting:
    n = 32
    own = {"top-k": TopK(), FIXED: ExpertSample(), **ADAPTING}
    models = (*_gains(n, *TRAINED_ON), *_growth(n, NOISY, SHARPENED))
    return Setting(
        shipped="demo",
        problems=512,
        n=n,
        own={name: Row(policy) for name, policy in own.items()},
        models=(*TRAINED_ON, COARSE),
        families={
            "heads": Family(_heads(n), tuple(own)),
            "models": Family(models),
            "coarse experts": Family(_gains(n, COARSE)),
        },
    )


def _several_tries() -> Setting:
    n, models = 8, (CONTROL, NOISY)
    by = {
        "normal": {"top-k": Row(TopK()), FIXED: Row(ExpertSample())},
        "high": {
            "top-k, high": Row(TopK(), HIGH),
            f"{FIXED}, high": Row(ExpertSample(), HIGH),
        },
    }
    method = {name: row for rows in by.values() for name, row in rows.items()}
    gains = [
        claim
        for sampler, (topk, es) in by.items()
        for claim in _beats(n, sampler, es, topk)
    ]
    trained_on = (*_gains(n, *models), *_growth(n, NOISY))
    return Setting(
        shipped="demo-tries",
        problems=2048,
        n=n,
        own=method | {name: Row(policy) for name, policy in ADAPTING.items()},
        models=models,
        families={
            "the method": Family(tuple(gains), tuple(method)),
            "heads": Family(_heads(n), (FIXED, *ADAPTING)),
            "models": Family(
                trained_on, tuple(row_of(m, p) for m in models for p in ROUTING)
            ),
        },
    )


ONE_TRY, SEVERAL_TRIES = _one_try(), _several_tries()
SETTINGS: Mapping[str, Setting] = {s.shipped: s for s in (ONE_TRY, SEVERAL_TRIES)}


def pilot_problems() -> list[HeldOut]:
    """Problems as hard as those asked, none of which is asked."""
    kinds = {(held_out.kind, held_out.answers) for held_out in read_part("study")}
    return [p for p in read_part("pilot") if (p.kind, p.answers) in kinds]


def evidence(family: Family, outcomes: Mapping[str, Outcome]) -> Iterator[Evidence]:
    """What the answers hold for each claim, but for claims whose rows are missing."""
    if any(row not in outcomes for row in family.rows):
        return
    pair_of = {
        gain_of(model): [row_of(model, policy) for policy in ROUTING]
        for model in (*TRAINED_ON, COARSE)
    }

    def known(name: str) -> bool:
        return all(row in outcomes for row in pair_of.get(name, [name]))

    def values(name: str, measure: str) -> Float[np.ndarray, "P"]:
        if name not in pair_of:
            return outcomes[name].values(measure)
        topk, es = pair_of[name]
        return values(es, measure) - values(topk, measure)

    for claim in family.claims:
        if known(claim.a) and known(claim.b):
            a, b = (values(name, claim.measure) for name in (claim.a, claim.b))
            groups = next(iter(outcomes.values())).groups
            ends = (-1.0, 1.0) if claim.a in pair_of else (0.0, 1.0)
            yield Evidence(claim, a, b, groups, ends)


def report(
    setting: Setting,
    outcomes: Mapping[str, Outcome],
    draws: Mapping[str, Draw],
    entropies: Mapping[str, TokenEntropy],
) -> dict[str, Any]:
    """All that the trials say, as JSON; every outcome is of the same problems.

    Args:
      outcomes, draws: row -> its answers, and how they were drawn.
      entropies: model -> its token entropy, of its first answers.
    """
    first = next(iter(outcomes.values()))
    found: dict[str, Any] = {
        "problems": len(first.problems),
        "number_sets": len(set(first.groups)),
        "configurations": {
            name: row_as_json(draws[name], one) | _of_tries(setting, one)
            for name, one in outcomes.items()
        },
        "token entropy": {
            name: {"nats": round(nats, 4), "answers": answers}
            for name, (nats, answers) in entropies.items()
        },
        "gains": {
            gain.claim.text: as_json(gain.difference())
            for gain in evidence(_shown_gains(setting), outcomes)
        },
    }
    for name, family in setting.families.items():
        known = [*evidence(family, outcomes)]
        judged = findings(known, size=len(family.claims), resamples=RESAMPLES)
        found[name] = [found_as_json(finding) for finding in judged]
        judged = [one.claim for one in known]
        missing = [claim.text for claim in family.claims if claim not in judged]
        found[f"{name} left out"] = missing
    return found


def _of_tries(setting: Setting, outcome: Outcome) -> dict[str, Any]:
    """Of the first answers; nothing where answers have one try.

    "tries": their mean; one that was cut off in a further try has the most. "right
    within": the shares that are right with at most 1, 2, ... tries. "failed as said":
    the share of the tries before the last that keep the rules and miss the target.
    """
    if setting.tries == 1 or not outcome.first:
        return {}
    begun = np.array([text.count(AGAIN) + 1 for text in outcome.first])
    tries = np.minimum(begun, setting.tries)
    right = outcome.marks[:, 0]
    within = [(right & (tries <= t + 1)).mean() for t in range(setting.tries)]
    failed = [
        error_in(problem, text) == f"{text.rpartition('=')[2]} is not {problem.target}"
        for problem, answer in zip(outcome.problems, outcome.first, strict=True)
        for text in answer.split(AGAIN)[:-1]
    ]
    return {
        "tries": round(float(tries.mean()), 3),
        "right within": [round(float(share), 5) for share in within],
        "failed as said": round(float(np.mean(failed)), 5) if failed else None,
    }


def _shown_gains(setting: Setting) -> Family:
    """Measures of which each model's gain is shown without a verdict."""
    return Family(
        tuple(
            Claim(f"{model}, {measure}", es, topk, measure, "higher")
            for model in setting.models
            for topk, es in [setting.rows(model)]
            for measure in setting.measures
        ),
        setting.families["models"].rows,
    )


def table(setting: Setting, found: Mapping[str, Any]) -> str:
    """What `report` gave, as Markdown."""
    rows = found["configurations"]
    parts = [
        f"{found['problems']} problems of {found['number_sets']} sets of numbers, "
        f"{setting.n} answers each; percent, with 95 % intervals over sets of numbers.",
        configurations_table(rows, setting.measures),
    ]
    if counted := {name: row for name, row in rows.items() if "tries" in row}:
        parts += [
            "First answers: mean number of tries, percent of those before the last "
            "that keep the rules and miss the target, and percent of answers that are "
            "right with at most so many tries:",
            _tries_table(counted),
        ]
    if entropies := found["token entropy"]:
        said = ", ".join(
            f"{name} {one['nats']:.3f} ({one['answers']})"
            for name, one in entropies.items()
        )
        parts.append(f"Token entropy in nats (and of how many first answers): {said}.")
    for name, family in setting.families.items():
        if found[name]:
            corrected = f"Claims about {name}, corrected for {len(family.claims)}:"
            parts += [corrected, claims_table(found[name])]
        if missing := found[f"{name} left out"]:
            parts.append(f"Left out: {'; '.join(missing)}.")
    return "\n\n".join(parts) + "\n"


def _tries_table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Name -> what `_of_tries` gave."""
    most = max(len(row["right within"]) for row in rows.values())
    return markdown_table(
        (
            "configuration",
            "tries",
            "failed as said",
            *(f"within {t + 1}" for t in range(most)),
        ),
        (
            (
                name,
                f"{row['tries']:.2f}",
                _percent(row["failed as said"]),
                *map(_percent, row["right within"]),
            )
            for name, row in rows.items()
        ),
    )


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"
