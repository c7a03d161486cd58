"""Measures what the paper leaves open, on the demo's problems."""

import argparse
from pathlib import Path

import jaxmoe
from jaxmoe.checkpoints.source import open_source
from jaxmoe.cli.demo_rows import check_kept, first_asked, play_row
from jaxmoe.decode.inputs import check_whole
from jaxmoe.demo import trials
from jaxmoe.demo.held_out import read_part
from jaxmoe.demo.study_files import as_compact
from jaxmoe.demo.token_entropy import token_entropy
from jaxmoe.demo.trials import SHIPPED, Row, Setting
from jaxmoe.files import write_text

EPILOG = """\
Draws the answers that jaxmoe/demo/trials/design.md says, or jaxmoe/demo/tries/design.md
of demo-tries: of the shipped model with each kind of head, and of the models given,
which `jaxmoe demo train` makes, by top-k and by Expert-Sample. Writes results.json and
table.md into OUT; claims about models that are not given, or rows that --only leaves
out, are left out. A killed run goes on where it was."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """All options."""
    add, where = parser.add_argument, Path("demo-trials")
    out = "the directory to write into (default: demo-trials)"
    add("out", metavar="OUT", type=Path, nargs="?", default=where, help=out)
    shipped = "the shipped model that they are about (default: demo)"
    add("--of", choices=trials.SETTINGS, default="demo", help=shipped)
    for name in trials.ONE_TRY.models:
        add(f"--{name}", metavar="CKPT", help=f"the model called {name} in the design")
    only = "just these rows, as 'fixed' or 'coarse, top-k' (default: all)"
    add("--only", metavar="NAME", nargs="+", default=[], help=only)
    problems = "only the first P (default: the design's)"
    add("--problems", type=int, metavar="P", help=problems)
    slots = "answers computed side by side (default: 256)"
    add("--slots", type=int, metavar="S", default=256, help=slots)
    pilot = "draw answers to the pilot's problems by top-k alone, and say how many are "
    pilot += "solved"
    add("--pilot", action="store_true", help=pilot)


def run(args: argparse.Namespace) -> int:
    """Draws what is missing, and writes the results; 0."""
    check_whole("--slots", args.slots)
    setting = trials.SETTINGS[args.of]
    if args.pilot:
        if args.only or any(getattr(args, name) for name in trials.ONE_TRY.models):
            raise ValueError("--pilot is of top-k alone, found other rows with it")
        return _pilot(args, setting)
    problems = setting.problems if args.problems is None else args.problems
    asked = first_asked(read_part("study"), problems)
    models = trials.ONE_TRY.models
    given = {n: path for n in models if (path := getattr(args, n)) is not None}
    if others := [name for name in given if name not in setting.models]:
        raise ValueError(
            f"--of {args.of} has models {[*setting.models]}, found --{others[0]}"
        )
    checkpoints = {SHIPPED: setting.shipped, **given}
    rows = _rows_asked(setting, [*checkpoints], args.only)
    check_kept(args.out, [name for own in rows.values() for name in own])
    checkpoints = {name: checkpoints[name] for name in rows}
    digests = {name: open_source(path).digest() for name, path in checkpoints.items()}
    outcomes, draws, entropies = {}, {}, {}
    for name, path in checkpoints.items():
        model = jaxmoe.load(path)
        for row, how in rows[name].items():
            draws[row] = setting.draw(how, args.slots)
            outcomes[row] = play_row(
                args.out, row, model, asked, draws[row], digests[name]
            )
        if (topk := next(iter(setting.rows(name)))) in outcomes:
            texts = outcomes[topk].first_texts()
            entropies[name] = token_entropy(
                model.config, model.params, texts, tries=setting.tries
            )
    results = trials.report(setting, outcomes, draws, entropies)
    found = {"checkpoints": digests} | results
    write_text(args.out / "results.json", as_compact(found))
    text = trials.table(setting, found)
    write_text(args.out / "table.md", text)
    print(text)
    return 0


def _pilot(args: argparse.Namespace, setting: Setting) -> int:
    """Draws the pilot's answers, and prints its measures."""
    name, row = next(iter(setting.own.items()))
    outcome = play_row(
        args.out / "pilot",
        name,
        jaxmoe.load(setting.shipped),
        first_asked(trials.pilot_problems(), args.problems),
        setting.draw(row, args.slots),
        open_source(setting.shipped).digest(),
    )
    for measure, interval in outcome.measures().items():
        print(f"{measure:9} {interval}")
    return 0


def _rows_asked(
    setting: Setting, models: list[str], only: list[str]
) -> dict[str, dict[str, Row]]:
    """model -> those of its rows that are to be drawn; none is without any."""
    of = {model: setting.rows(model) for model in (SHIPPED, *setting.models)}
    every = {name: model for model, own in of.items() for name in own}
    if unknown := [name for name in only if name not in every]:
        raise ValueError(
            f"--only: expected names of {[*every]}, found {unknown} (OUT comes before)"
        )
    if away := sorted({every[name] for name in only} - {*models}):
        options = ", ".join(f"--{model} CKPT" for model in away)
        raise ValueError(f"--only has rows of {away}: give {options}")
    rows = {
        model: {n: row for n, row in of[model].items() if not only or n in only}
        for model in models
    }
    if idle := [model for model in models if not rows[model] and model != SHIPPED]:
        raise ValueError(f"--only has no row of {idle}, which were given")
    return {model: own for model, own in rows.items() if own}
