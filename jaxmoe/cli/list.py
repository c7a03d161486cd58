"""Lists what there is: policies, tasks, aggregations, families, recipes, presets."""

import argparse
import json
from collections.abc import Callable
from typing import get_args

from jaxmoe.benchmarks.presets import PRESETS
from jaxmoe.cli.endings import command
from jaxmoe.cli.fields import fields_of, option_of
from jaxmoe.cli.policy_options import MODIFIED_BY
from jaxmoe.cli.questions import task_named
from jaxmoe.cli.task_options import DEMO_TASK
from jaxmoe.evals import rad
from jaxmoe.evals.rad import route_agreement
from jaxmoe.evals.replication.recipe import read_recipe, recipe_names
from jaxmoe.evals.summary import AGREEMENT
from jaxmoe.evals.tasks import TASKS
from jaxmoe.evals.votes import AGGREGATIONS
from jaxmoe.families.compared import facts
from jaxmoe.families.registry import FAMILIES
from jaxmoe.reports.text_table import markdown_table
from jaxmoe.router.modifiers import MODIFIERS
from jaxmoe.router.policies import POLICIES
from jaxmoe.sharding.rules import Preset

Rows = list[dict[str, str]]


def _first_line(thing: object) -> str:
    return (thing.__doc__ or "").strip().splitlines()[0]


def policies() -> Rows:
    """What --policy takes, and what changes a policy."""
    options = {
        name: " ".join(map(option_of, fields_of(cls))) for name, cls in POLICIES.items()
    } | MODIFIED_BY
    return [
        {
            "policy": name,
            "class": cls.__name__,
            "options": options[name],
            "what it does": _first_line(cls),
        }
        for name, cls in (POLICIES | MODIFIERS).items()
    ]


def tasks() -> Rows:
    """What --task takes; fields in brackets may be missing."""
    found = {name: task_named(name) for name in (DEMO_TASK, *TASKS)}
    optional = "optional"
    return [
        {
            "task": name,
            "fields of a row": " ".join(
                f"[{field}]" if said.startswith(optional) else field
                for field, said in task.fields.items()
            ),
            "what it is": _first_line(type(task)),
        }
        for name, task in found.items()
    ]


def families() -> Rows:
    """Models that can be converted and run, and how far they were compared."""
    return [facts(family) for family in FAMILIES.values()]


def aggregations() -> Rows:
    """What one answer out of n is got by; measures of `evaluate` and `compare`."""
    return [
        {
            "measure": one.measure.format(n="n", score="SCORE"),
            "scores": one.scores,
            "function": one.rule.__name__,
            "what it measures": one.about or _first_line(one.rule),
        }
        for one in AGGREGATIONS
    ] + [
        {
            "measure": f"best of n, {AGREEMENT}",
            "scores": AGREEMENT,
            "function": route_agreement.__name__,
            "what it measures": _first_line(rad),
        }
    ]


def recipes() -> Rows:
    """What `jaxmoe replicate` takes."""
    found = [read_recipe(name) for name in recipe_names()]
    return [
        {
            "recipe": recipe.name,
            "rows": str(len(recipe.rows)),
            "benchmarks": " ".join(recipe.benchmarks),
            "what it draws": recipe.about,
        }
        for recipe in found
    ]


def presets() -> Rows:
    """What --preset (of `bench` and `random-checkpoint`) and --rules take."""
    shapes = [
        {
            "option": "--preset",
            "preset": name,
            "what it is": f"{preset.config.num_layers} layers, "
            f"{preset.config.num_experts} experts, "
            f"{preset.config.experts_per_token} a token",
        }
        for name, preset in PRESETS.items()
    ]
    about = "how a model is divided over devices (jaxmoe/sharding/rules.py)"
    rules = [
        {"option": "--rules", "preset": name, "what it is": about}
        for name in get_args(Preset)
    ]
    return shapes + rules


KINDS: dict[str, Callable[[], Rows]] = {
    "policies": policies,
    "tasks": tasks,
    "aggregations": aggregations,
    "families": families,
    "recipes": recipes,
    "presets": presets,
}


def parser() -> argparse.ArgumentParser:
    """All options."""
    made = argparse.ArgumentParser("jaxmoe list", description=__doc__)
    kinds = ", ".join(KINDS)
    made.add_argument("kind", choices=KINDS, metavar="KIND", help=f"one of {kinds}")
    made.add_argument("--json", action="store_true", help="print JSON")
    return made


@command
def main(argv: list[str] | None = None) -> int:
    """Runs the command: 0 if done, 2 on input that does not fit."""
    args = parser().parse_args(argv)
    rows = KINDS[args.kind]()
    if args.json:
        print(json.dumps(rows, indent=1))
    else:
        print(markdown_table([*rows[0]], [[*row.values()] for row in rows]))
    return 0
