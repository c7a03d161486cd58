"""Trials of what the paper leaves open: adapting heads, other training, few experts.

Rows, claims and what is made of the answers. Of each trial design.md in
jaxmoe/demo/trials, or in jaxmoe/demo/tries, was written before its answers.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from jaxmoe.decode.sampler import TokenSampler
from jaxmoe.demo.game_runs import MOST_TRIES, Outcome, room_for
from jaxmoe.demo.study import HIGH, NORMAL, as_json, found_as_json, row_as_json
from jaxmoe.demo.study_table import claims_table, configurations_table
from jaxmoe.demo.token_entropy import TokenEntropy
from jaxmoe.evals.claims import Claim, Evidence, findings
from jaxmoe.evals.draw import Draw
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
HEADS: Mapping[str, Policy] = {"top-k": TopK(), FIXED: ExpertSample(), **ADAPTING}
"""Rows of the shipped model."""
HOT: Mapping[str, Policy] = {"top-k, high": TopK(), f"{FIXED}, high": ExpertSample()}
"""Its rows by the paper's high sampler."""

CONTROL, NOISY, SHARPENED = TRAINED_ON = ("control", "noisy", "sharpened")
"""Models that were trained on."""
COARSE = "coarse"
"""A model of few large experts, trained from nothing."""
MODELS = (*TRAINED_ON, COARSE)
SHIPPED = "shipped"
ROUTING: Mapping[str, Policy] = {"top-k": TopK(), "expert-sample": ExpertSample()}
"""Rows of each of them."""


def row_of(model: str, policy: str) -> str:
    """The name of a row of a model that was trained on."""
    return f"{model}, {policy}"


def gain_of(model: str) -> str:
    """The name of what Expert-Sample adds to a model."""
    return f"gain of {model}"


class Row(NamedTuple):
    """How answers of a row are drawn."""

    policy: Policy
    sampler: TokenSampler = NORMAL


@dataclass(frozen=True)
class Setting:
    """What is asked of which model.

    shipped: what `jaxmoe.load` takes. problems: the first of the study's. n: answers to
    each. tries: that an answer may have. measures: what tables show. models: those that
    are compared beside the shipped one. method: whether the shipped model's own gain is
    judged, by the high sampler too; of demo the study has done that.
    """

    shipped: str
    problems: int
    n: int
    tries: int
    measures: tuple[str, ...]
    models: tuple[str, ...]
    method: bool = False

    def rows(self, model: str) -> dict[str, Row]:
        """A model's rows by name, that of top-k first."""
        if model != SHIPPED:
            return {row_of(model, n): Row(policy) for n, policy in ROUTING.items()}
        rows = {name: Row(policy) for name, policy in HEADS.items()}
        if self.method:
            rows |= {name: Row(policy, HIGH) for name, policy in HOT.items()}
        return rows

    def draw(self, row: Row, slots: int | None = None) -> Draw:
        """As `jaxmoe.demo.game_runs.play` wants it."""
        most = room_for(self.tries)
        return Draw(row.policy, row.sampler, self.n, most, seed=SEED, slots=slots)

    def families(self) -> dict[str, tuple[Claim, ...]]:
        """Claims that are corrected together."""
        heads = tuple(c for row in ADAPTING for c in self._beats(row, row, FIXED))
        trained_on = [model for model in TRAINED_ON if model in self.models]
        models = (
            *(claim for model in trained_on for claim in self._gains(model)),
            *(self._growth(model) for model in trained_on if model != CONTROL),
        )
        found = {"heads": heads, "models": models}
        if self.method:
            normal, (topk, es) = self._beats("normal", FIXED, "top-k"), HOT
            found = {"the method": (*normal, *self._beats("high", es, topk))} | found
        if COARSE in self.models:
            found["coarse experts"] = self._gains(COARSE)
        return found

    def _beats(self, text: str, row: str, other: str) -> tuple[Claim, Claim]:
        more, pair = f"{text}: {self.n} answers solve more", (row, other)
        return (
            Claim(more, *pair, f"pass@{self.n}", "higher"),
            Claim(f"{text}: one answer is no worse", *pair, "accuracy", "no worse"),
        )

    def _gains(self, model: str) -> tuple[Claim, Claim]:
        topk, es = self.rows(model)
        return self._beats(model, es, topk)

    def _growth(self, model: str) -> Claim:
        text, pair = f"{model}: gains more than the control", (model, CONTROL)
        return Claim(text, *map(gain_of, pair), f"pass@{self.n}", "higher")


ONE_TRY = Setting(
    shipped="demo",
    problems=512,
    n=32,
    tries=1,
    measures=("accuracy", "pass@8", "pass@32"),
    models=MODELS,
)
TRIES = Setting(
    shipped="demo-tries",
    problems=2048,
    n=8,
    tries=MOST_TRIES,
    measures=("accuracy", "pass@2", "pass@8"),
    models=(CONTROL, NOISY),
    method=True,
)
SETTINGS: Mapping[str, Setting] = {one.shipped: one for one in (ONE_TRY, TRIES)}


def evidence(
    family: Sequence[Claim], outcomes: Mapping[str, Outcome]
) -> Iterator[Evidence]:
    """What the answers hold for each claim, but for claims whose rows are missing.

    Heads are compared when all their rows are there, and none of them before.
    """
    gains = {gain_of(model): model for model in MODELS}

    def known(name: str) -> bool:
        rows = [*HEADS] if name in HEADS else [name]
        if name in gains:
            rows = [row_of(gains[name], policy) for policy in ROUTING]
        return all(row in outcomes for row in rows)

    def values(name: str, measure: str) -> Float[np.ndarray, "P"]:
        if name not in gains:
            return outcomes[name].values(measure)
        topk, es = (row_of(gains[name], policy) for policy in ROUTING)
        return values(es, measure) - values(topk, measure)

    for claim in family:
        if known(claim.a) and known(claim.b):
            a, b = (values(name, claim.measure) for name in (claim.a, claim.b))
            groups = next(iter(outcomes.values())).groups
            ends = (-1.0, 1.0) if claim.a in gains else (0.0, 1.0)
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
            name: row_as_json(draws[name], one) for name, one in outcomes.items()
        },
        "token entropy": {
            name: {"nats": round(nats, 4), "answers": answers}
            for name, (nats, answers) in entropies.items()
        },
        "gains": {
            gain.claim.text: as_json(gain.difference())
            for gain in evidence(_gains(setting), outcomes)
        },
    }
    for name, family in setting.families().items():
        known = [*evidence(family, outcomes)]
        judged = findings(known, size=len(family), resamples=RESAMPLES)
        found[name] = [found_as_json(finding) for finding in judged]
        found[f"{name} left out"] = _missing(family, [one.claim for one in known])
    return found


def _gains(setting: Setting) -> list[Claim]:
    """Measures of which each model's gain is shown without a verdict."""
    return [
        Claim(f"{model}, {measure}", es, topk, measure, "higher")
        for model in setting.models
        for topk, es in [setting.rows(model)]
        for measure in setting.measures
    ]


def _missing(family: Sequence[Claim], known: Collection[Claim]) -> list[str]:
    return [claim.text for claim in family if claim not in known]


def table(setting: Setting, found: Mapping[str, Any]) -> str:
    """What `report` gave, as Markdown."""
    parts = [
        f"{found['problems']} problems of {found['number_sets']} sets of numbers, "
        f"{setting.n} answers each; percent, with 95 % intervals over sets of numbers.",
        configurations_table(found["configurations"], setting.measures),
    ]
    if entropies := found["token entropy"]:
        said = ", ".join(
            f"{name} {one['nats']:.3f} ({one['answers']})"
            for name, one in entropies.items()
        )
        parts.append(f"Token entropy in nats (and of how many first answers): {said}.")
    for name, family in setting.families().items():
        if found[name]:
            corrected = f"Claims about {name}, corrected for {len(family)}:"
            parts += [corrected, claims_table(found[name])]
        if missing := found[f"{name} left out"]:
            parts.append(f"Left out: {'; '.join(missing)}.")
    return "\n\n".join(parts) + "\n"
