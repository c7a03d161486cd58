"""Options of counterfactual routes, and the report that they ask for."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxmoe.analysis.counterfactual import (
    Counterfactuals,
    Importance,
    Layers,
    ablate,
    counterfactual,
)
from jaxmoe.analysis.lucky_routes import lucky_routes, lucky_rows, policy_of_run
from jaxmoe.analysis.passages import Passages
from jaxmoe.analysis.router_pass import Passage
from jaxmoe.analysis.texts import Row
from jaxmoe.cli.bars import ProgressBar
from jaxmoe.cli.endings import figures_if_possible
from jaxmoe.cli.fields import is_changed
from jaxmoe.cli.loading_options import digest_of
from jaxmoe.cli.policy_options import policy_given
from jaxmoe.cli.questions import task_named
from jaxmoe.cli.router_options import rows_of
from jaxmoe.evals.draw import as_fields, in_words
from jaxmoe.evals.run import read_run
from jaxmoe.model import Model
from jaxmoe.reports.counterfactual_files import write_counterfactual
from jaxmoe.reports.counterfactual_table import importance_table, table
from jaxmoe.reports.lucky_files import lucky_table, write_lucky
from jaxmoe.router.policies import Policy


def add_counterfactual_options(parser: argparse.ArgumentParser) -> None:
    """Adds those that change routes instead of looking at them."""
    group = parser.add_argument_group(
        "counterfactual routes",
        "How much likelier other experts would have made each token of an answer "
        "(arXiv 2605.07260); writes counterfactual.json, .csv and .html instead. "
        "Answers that are not given are drawn by top-k.",
    )
    add = group.add_argument
    drawn = "alternatives to each route, drawn by --policy: equally many experts"
    add("--counterfactual", type=int, metavar="M", help=drawn)
    gone = "leave out each expert of each route: importance.csv"
    add("--ablate", action="store_true", help=gone)
    sets = "sets of layers to change, such as 3,3+4,all (default: each alone, then all)"
    add("--change", type=layer_sets, metavar="LAYERS", help=sets)
    few = "at most so many of each answer, evenly spread (default: all)"
    add("--positions", type=int, metavar="W", help=few)
    reach = "tokens that count, from the next one on, or `rest` (default: 1)"
    add("--reach", type=_reach, metavar="T", default=1, help=reach)
    lucky = (
        "a run: of problems that only the run of --data solved, lucky.csv lists the "
    )
    lucky += "routes that made the answer, against what the policy of RUN chooses there"
    add("--lucky", metavar="RUN", type=Path, help=lucky)
    kept = "keep all other experts of the answer, instead of letting routers choose"
    add("--hold", action="store_true", help=kept)


def layer_sets(text: str) -> list[Layers]:
    """Sets of layers from text.

    >>> layer_sets("3,3+4,all")
    [3, [3, 4], "all"]
    """
    found: list[Layers] = []
    for part in text.split(","):
        if part == "all":
            found.append("all")
            continue
        try:
            layers = [int(layer) for layer in part.split("+")]
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"expected layers such as 3,3+4,all, found {text!r}"
            ) from None
        found.append(layers[0] if len(layers) == 1 else layers)
    return found


def _reach(text: str) -> int | None:
    """A number of tokens; None for all that are left."""
    if text == "rest":
        return None
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected a number of tokens, or rest, found {text!r}"
        ) from None


CHANGING = ("--counterfactual", "--ablate", "--lucky")
"""Options that ask for changed routes; several go together."""

_REPORT, _WRITING = "the report", "--write-routes"

USED_BY = {
    "--against": (_REPORT,),
    "--beside": (_REPORT,),
    "--cut": (_REPORT,),
    "--write-weights": (_WRITING,),
    "--change": ("--counterfactual",),
    "--hold": ("--counterfactual", "--ablate"),
    "--positions": CHANGING,
    "--reach": CHANGING,
}
"""What each option belongs to: nothing else reads it."""


def asks_for_routes(parser: argparse.ArgumentParser, args: argparse.Namespace) -> bool:
    """Whether routes are to be changed; a ValueError for options that do not fit."""

    def is_given(option: str) -> bool:
        return is_changed(parser, args, option.removeprefix("--").replace("-", "_"))

    changing = [option for option in CHANGING if is_given(option)]
    writing = [_WRITING] if is_given(_WRITING) else []
    if changing and writing:
        raise ValueError(
            f"{_WRITING} writes answers and {changing[0]} changes their routes, found "
            "both; run the command once for each"
        )
    asked = changing or writing or [_REPORT]
    used = [(option, users) for option, users in USED_BY.items() if is_given(option)]
    drawing = (_REPORT, _WRITING, "--counterfactual")
    for option, users in [*used, *((name, drawing) for name in policy_given(args))]:
        if not {*users} & {*asked}:
            raise ValueError(
                f"{option} belongs to {' and '.join(users)}, found it with "
                f"{' and '.join(asked)}; leave it out, or run the command once for each"
            )
    if args.lucky is not None and (args.data is None or not args.data.is_dir()):
        raise ValueError(
            f"--lucky compares two runs, found --data {args.data}; name one"
        )
    return bool(changing)


def rows_to_change(args: argparse.Namespace) -> list[Row]:
    """The rows asked for: of two runs, the answers that one alone has found."""
    if args.lucky is None:
        return rows_of(args)
    digest = digest_of(args, args.checkpoint)
    return lucky_rows(args.data, args.lucky, digest, task_named)[: args.limit]


def change_routes(
    args: argparse.Namespace,
    model: Model,
    passages: Passages,
    rows: Sequence[Row],
    policy: Policy,
) -> None:
    """Measures what was asked for, writes the files and prints the tables."""
    every, digest = list(passages), digest_of(args, args.checkpoint)
    if args.lucky is not None:
        _lucky(args, model, every, rows)
    if args.counterfactual is None and not args.ablate:
        return
    found = _counterfactual(args, model, every, policy)
    importance = _importance(args, model, every)
    settings: dict[str, Any] = {
        "answers": len(every),
        "reach": "the rest" if args.reach is None else args.reach,
        "other experts": "held" if args.hold else "as routers choose",
    }
    if found is not None:
        alternatives = {"alternatives": found.draws, "drawn by": _said(policy)}
        settings = alternatives | settings
    out: Path = args.out
    with figures_if_possible("no figures"):
        write_counterfactual(out, found, importance, digest=digest, settings=settings)
    if found is not None:
        print(table(found))
    if importance is not None:
        print(importance_table(importance))


def _counterfactual(
    args: argparse.Namespace, model: Model, every: list[Passage], policy: Policy
) -> Counterfactuals | None:
    if args.counterfactual is None:
        return None
    with ProgressBar(len(every), quiet=False) as bar:
        return counterfactual(
            model,
            every,
            policy=policy,
            key=args.seed,
            draws=args.counterfactual,
            layers=args.change,
            positions=args.positions,
            reach=args.reach,
            hold=args.hold,
            progress=bar.show,
        )


def _importance(
    args: argparse.Namespace, model: Model, every: list[Passage]
) -> Importance | None:
    if not args.ablate:
        return None
    with ProgressBar(len(every), quiet=False) as bar:
        return ablate(
            model,
            every,
            positions=args.positions,
            reach=args.reach,
            hold=args.hold,
            progress=bar.show,
        )


def _lucky(
    args: argparse.Namespace, model: Model, every: list[Passage], rows: Sequence[Row]
) -> None:
    """Each answer's routes against what the other run's policy chooses there."""
    own, other = (
        policy_of_run(read_run(path, partial=True)) for path in (args.data, args.lucky)
    )
    names = [row.name for row in rows for _ in row.answers]
    found = []
    with ProgressBar(len(every), quiet=False) as bar:
        for name, one in zip(names, every, strict=True):
            routes = lucky_routes(
                model,
                one,
                own=own,
                other=other,
                key=args.seed,
                positions=args.positions,
                reach=args.reach,
            )
            found.append((name, routes))
            bar.show(len(found))
    write_lucky(args.out, found)
    print(lucky_table(found))


def _said(policy: Policy) -> str:
    return in_words(as_fields(policy))
