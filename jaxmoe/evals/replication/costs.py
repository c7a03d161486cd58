"""What a recipe costs before it is begun: tokens, and hours on paper.

Hours are those of `jaxmoe.planning`: from stated bandwidths, with caches full, for
decoding alone. Nothing was measured.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from jaxmoe.config import ModelConfig
from jaxmoe.evals.draw import Draw
from jaxmoe.planning import CHIPS, Chip, Load, Plan, largest_n, plan_for, step_time
from jaxmoe.planning.scaling import plans_of

PLACES = (("v5e", 16), ("v6e", 8), ("h200", 1))
"""Chips, and how many, whose hours are said."""


@dataclass(frozen=True)
class Cost:
    """answers: of all rows. tokens: of all answers. most: the same at the limit."""

    answers: int
    tokens: int
    most: int


@dataclass(frozen=True)
class Hours:
    """Time on one slice.

    slots: answers side by side, as many as asked for or as there is room for. ms: of a
    step with full caches. hours: of all steps.
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
    most = sum(
        count * draw.max_new_tokens for count, draw in zip(answers, draws, strict=True)
    )
    if mean_tokens is None:
        return Cost(sum(answers), most, most)
    lengths = [min(mean_tokens, draw.max_new_tokens) for draw in draws]
    tokens = sum(count * length for count, length in zip(answers, lengths, strict=True))
    return Cost(sum(answers), round(tokens), most)


def hours_on(
    config: ModelConfig,
    tokens: int,
    *,
    slots: int,
    prompt: int,
    answer: int,
    places: Iterable[tuple[str, int]] = PLACES,
) -> dict[str, Hours | None]:
    """Slice -> hours for so many tokens; None where the model does not fit.

    Of the meshes of a slice the one with the most tokens a second.

    Args:
      slots: answers side by side, fewer where there is no room for so many.
      prompt, answer: tokens of a prompt, and at most of an answer.
    """
    context = min(prompt + answer, config.context_length)
    load = Load(slots, context, min(prompt, context - 1))
    found = {}
    for name, devices in places:
        chip = CHIPS[name]
        rows = [
            row
            for _, plan in plans_of(config, devices, load)
            if isinstance(plan, Plan) and (row := _hours(plan, chip, tokens))
        ]
        place = chip.slice_of(devices)
        found[place] = min(rows, key=lambda row: row.hours, default=None)
    return found


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
    load = Load(slots, plan.load.context, plan.load.prompt, plan.load.dtype)
    return plan_for(plan.config, dict(plan.layout.mesh.shape), load)
