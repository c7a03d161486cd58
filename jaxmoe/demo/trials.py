"""Trials of what the paper leaves open: adapting heads, other training, few experts.

Rows, claims and what is made of the answers. Of each trial jaxmoe/demo/trials/design.md
was written before its answers.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxmoe.demo.game_runs import MAX_NEW_TOKENS, Outcome
from jaxmoe.demo.study import NORMAL, as_json, found_as_json, row_as_json
from jaxmoe.demo.study_table import claims_table, configurations_table
from jaxmoe.demo.token_entropy import TokenEntropy
from jaxmoe.evals.claims import Claim, Evidence, findings
from jaxmoe.evals.draw import Draw
from jaxmoe.router.modifiers import Gated
from jaxmoe.router.policies import AdaptiveHead, ExpertSample, Policy, TopK
from jaxmoe.typing import Float

SEED, N, PROBLEMS = 3, 32, 512
MEASURES = ("accuracy", "pass@8", "pass@32")
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

CONTROL, NOISY, SHARPENED = TRAINED_ON = ("control", "noisy", "sharpened")
"""Models that were trained on."""
COARSE = "coarse"
"""A model of few large experts, trained from nothing."""
MODELS = (*TRAINED_ON, COARSE)
ROUTING: Mapping[str, Policy] = {"top-k": TopK(), "expert-sample": ExpertSample()}
"""Rows of each of them."""


def row_of(model: str, policy: str) -> str:
    """The name of a row of a model that was trained on."""
    return f"{model}, {policy}"


def gain_of(model: str) -> str:
    """The name of what Expert-Sample adds to a model."""
    return f"gain of {model}"


def draw_of(policy: Policy, slots: int | None = None) -> Draw:
    """As `jaxmoe.demo.game_runs.play` wants it."""
    return Draw(policy, NORMAL, N, MAX_NEW_TOKENS, seed=SEED, slots=slots)


def _head_claims(row: str) -> tuple[Claim, ...]:
    return (
        Claim(f"{row}: 32 answers solve more", row, FIXED, "pass@32", "higher"),
        Claim(f"{row}: one answer is no worse", row, FIXED, "accuracy", "no worse"),
    )


def _gain_claims(model: str) -> tuple[Claim, ...]:
    topk, es = (row_of(model, policy) for policy in ROUTING)
    return (
        Claim(f"{model}: 32 answers solve more", es, topk, "pass@32", "higher"),
        Claim(f"{model}: one answer is no worse", es, topk, "accuracy", "no worse"),
    )


def _growth_claim(model: str) -> Claim:
    pair = gain_of(model), gain_of(CONTROL)
    return Claim(f"{model}: gains more than the control", *pair, "pass@32", "higher")


HEAD_CLAIMS = tuple(claim for row in ADAPTING for claim in _head_claims(row))
MODEL_CLAIMS = (
    *(claim for model in TRAINED_ON for claim in _gain_claims(model)),
    *map(_growth_claim, (NOISY, SHARPENED)),
)
COARSE_CLAIMS = _gain_claims(COARSE)
CLAIM_FAMILIES: Mapping[str, Sequence[Claim]] = {
    "heads": HEAD_CLAIMS,
    "models": MODEL_CLAIMS,
    "coarse experts": COARSE_CLAIMS,
}
"""Claims that are corrected together."""


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
            for gain in evidence(_gains(), outcomes)
        },
    }
    for name, family in CLAIM_FAMILIES.items():
        known = [*evidence(family, outcomes)]
        judged = findings(known, size=len(family), resamples=RESAMPLES)
        found[name] = [found_as_json(finding) for finding in judged]
        found[f"{name} left out"] = _missing(family, [one.claim for one in known])
    return found


def _gains() -> list[Claim]:
    """Measures of which each model's gain is shown without a verdict."""
    return [
        Claim(f"{model}, {measure}", es, topk, measure, "higher")
        for model in MODELS
        for topk, es in [[row_of(model, policy) for policy in ROUTING]]
        for measure in MEASURES
    ]


def _missing(family: Sequence[Claim], known: Collection[Claim]) -> list[str]:
    return [claim.text for claim in family if claim not in known]


def table(found: Mapping[str, Any]) -> str:
    """What `report` gave, as Markdown."""
    parts = [
        f"{found['problems']} problems of {found['number_sets']} sets of numbers, "
        f"{N} answers each; percent, with 95 % intervals over sets of numbers.",
        configurations_table(found["configurations"], MEASURES),
    ]
    if entropies := found["token entropy"]:
        said = ", ".join(
            f"{name} {one['nats']:.3f} ({one['answers']})"
            for name, one in entropies.items()
        )
        parts.append(f"Token entropy in nats (and of how many first answers): {said}.")
    for name, family in CLAIM_FAMILIES.items():
        if found[name]:
            corrected = f"Claims about {name}, corrected for {len(family)}:"
            parts += [corrected, claims_table(found[name])]
        if missing := found[f"{name} left out"]:
            parts.append(f"Left out: {'; '.join(missing)}.")
    return "\n\n".join(parts) + "\n"
