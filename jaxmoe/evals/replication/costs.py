"""What a recipe costs before it is begun: tokens, and hours on paper.

Hours are those of `jaxmoe.planning`: from stated bandwidths, with caches full, for
decoding alone. Nothing was measured.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from jaxmoe.config import ModelConfig
from jaxmoe.evals.draw import Draw
from jaxmoe.planning import CHIPS, Chip, Load, Plan, largest_n, plan_for, step_time
from jaxmoe.planning.scaling import plans_of

PLACES = (("v5e", 16), ("v6e", 8), ("h200", 1))
"""Chips, and how many, whose hours are said."""


@dataclass(frozen=True)
class Cost:
    """answers: of all rows. tokens: of all answers. most: the same at the limit.

    by_passes: passes of a token -> tokens that take so many.
    """

    answers: int
    tokens: int
    most: int
    by_passes: Mapping[int, int]

    @property
    def passes(self) -> int:
        """Of all tokens."""
        return sum(passes * tokens for passes, tokens in self.by_passes.items())


@dataclass(frozen=True)
class Hours:
    """Time on one slice.

    slots: answers side by side, as many as asked for or as there is room for, the
    fewest where steps differ. ms: of a step with full caches, on average. hours: of all
    steps.
    """

    place: str
    mesh: str
    slots: int
    ms: float
    hours: float


def cost_of(
    draws: Sequence[Draw], problems: int, mean_tokens: float | None = None
) -> Cost:
    """What drawing all answers takes.

    mean_tokens: of an answer; None for the limit.
    """
    answers = [problems * draw.n for draw in draws]
    limits = [draw.max_new_tokens for draw in draws]
    means = [
        limit if mean_tokens is None else min(mean_tokens, limit) for limit in limits
    ]
    by_passes: dict[int, float] = defaultdict(float)
    for draw, length in zip(draws, means, strict=True):
        each = problems * draw.n // len(draw.policies) * length
        for policy in draw.policies:
            by_passes[policy.passes] += each
    rounded = {passes: round(tokens) for passes, tokens in sorted(by_passes.items())}
    most = sum(count * limit for count, limit in zip(answers, limits, strict=True))
    return Cost(sum(answers), sum(rounded.values()), most, rounded)


def hours_on(
    config: ModelConfig,
    tokens: Mapping[int, int],
    *,
    slots: int,
    prompt: int,
    answer: int,
    places: Iterable[tuple[str, int]] = PLACES,
) -> dict[str, Hours | None]:
    """Slice -> hours for so many tokens; None where the model does not fit.

    Of the meshes of a slice the one with the most tokens a second.

    Args:
      tokens: passes of a token -> tokens that take so many (`Cost.by_passes`).
      slots: answers side by side, fewer where there is no room for so many.
      prompt, answer: tokens of a prompt, and at most of an answer.
    """
    context = min(prompt + answer, config.context_length)
    found = {}
    for name, devices in places:
        chip = CHIPS[name]
        meshes: dict[tuple[int, int], list[Hours | None]] = defaultdict(list)
        for passes, count in tokens.items():
            load = Load(slots, context, min(prompt, context - 1), passes=passes)
            for mesh, plan in plans_of(config, devices, load):
                hours = _hours(plan, chip, count) if isinstance(plan, Plan) else None
                meshes[mesh].append(hours)
        rows = [row for parts in meshes.values() if (row := _together(parts))]
        place = chip.slice_of(devices)
        found[place] = min(rows, key=lambda row: row.hours, default=None)
    return found


def _together(parts: Sequence[Hours | None]) -> Hours | None:
    """All tokens on one mesh; None where some do not fit, or have no plan there."""
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    hours = sum(part.hours for part in known)
    steps = sum(part.hours / part.ms for part in known)
    slots = min(part.slots for part in known)
    ms = hours / steps if steps else known[0].ms
    return replace(known[0], slots=slots, ms=ms, hours=hours)


def _hours(plan: Plan, chip: Chip, tokens: int) -> Hours | None:
    """One mesh; None where not a single answer fits."""
    slots = plan.load.n
    if not plan.fits(chip):
        slots = min(slots, largest_n(plan, chip))
        if not slots:
            return None
        plan = _with_slots(plan, slots)
    seconds = step_time(plan, chip).total
    hours = tokens / slots * seconds / 3600
    return Hours(chip.slice_of(plan.devices), plan.shape, slots, 1e3 * seconds, hours)


def _with_slots(plan: Plan, slots: int) -> Plan:
    load = replace(plan.load, n=slots)
    return plan_for(plan.config, dict(plan.layout.mesh.shape), load)
