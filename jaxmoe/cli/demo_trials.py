"""Measures heads that adapt, and models trained on, on the demo's problems."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import jaxmoe
from jaxmoe.checkpoints.source import open_source
from jaxmoe.cli.demo_rows import check_kept, first_asked, play_row
from jaxmoe.decode.inputs import check_whole
from jaxmoe.demo import trials
from jaxmoe.demo.held_out import read_part
from jaxmoe.demo.study_files import as_compact
from jaxmoe.demo.token_entropy import token_entropy
from jaxmoe.files import write_text
from jaxmoe.router.policies import Policy

EPILOG = """\
Draws the answers that jaxmoe/demo/trials/design.md says: of the shipped model with each
kind of head, and of the models given, which `jaxmoe demo train` makes, by top-k and by
Expert-Sample. Writes results.json and table.md into OUT; claims about models that are
not given, or rows that --only leaves out, are left out. A killed run goes on where it
was."""

SHIPPED = "shipped"
_EVERY = (SHIPPED, *trials.MODELS)


def add_options(parser: argparse.ArgumentParser) -> None:
    """All options."""
    add, where = parser.add_argument, Path("demo-trials")
    out = "the directory to write into (default: demo-trials)"
    add("out", metavar="OUT", type=Path, nargs="?", default=where, help=out)
    for name in trials.MODELS:
        add(f"--{name}", metavar="CKPT", help=f"the model called {name} in the design")
    only = "just these rows, as 'fixed' or 'coarse, top-k' (default: all)"
    add("--only", metavar="NAME", nargs="+", default=[], help=only)
    problems = "only the first P (default: the design's)"
    default = trials.PROBLEMS
    add("--problems", type=int, metavar="P", default=default, help=problems)
    slots = "answers computed side by side (default: 256)"
    add("--slots", type=int, metavar="S", default=256, help=slots)


def run(args: argparse.Namespace) -> int:
    """Draws what is missing, and writes the results; 0."""
    check_whole("--slots", args.slots)
    asked = first_asked(read_part("study"), args.problems)
    given = {n: path for n in trials.MODELS if (path := getattr(args, n)) is not None}
    checkpoints = {SHIPPED: "demo", **given}
    rows = _rows_asked([*checkpoints], args.only)
    check_kept(args.out, [name for own in rows.values() for name in own])
    checkpoints = {name: checkpoints[name] for name in rows}
    digests = {name: open_source(path).digest() for name, path in checkpoints.items()}
    outcomes, draws, entropies = {}, {}, {}
    for name, path in checkpoints.items():
        model = jaxmoe.load(path)
        for row, policy in rows[name].items():
            draws[row] = trials.draw_of(policy, args.slots)
            outcomes[row] = play_row(
                args.out, row, model, asked, draws[row], digests[name]
            )
        if (topk := next(_rows(name))[0]) in outcomes:
            texts = outcomes[topk].first_texts()
            entropies[name] = token_entropy(model.config, model.params, texts)
    found = {"checkpoints": digests} | trials.report(outcomes, draws, entropies)
    write_text(args.out / "results.json", as_compact(found))
    text = trials.table(found)
    write_text(args.out / "table.md", text)
    print(text)
    return 0


def _rows_asked(models: list[str], only: list[str]) -> dict[str, dict[str, Policy]]:
    """model -> those of its rows that are to be drawn; none is without any."""
    every = {name: model for model in _EVERY for name, _ in _rows(model)}
    if unknown := [name for name in only if name not in every]:
        raise ValueError(
            f"--only: expected names of {[*every]}, found {unknown} (OUT comes before)"
        )
    if away := sorted({every[name] for name in only} - {*models}):
        options = ", ".join(f"--{model} CKPT" for model in away)
        raise ValueError(f"--only has rows of {away}: give {options}")
    rows = {
        model: {n: policy for n, policy in _rows(model) if not only or n in only}
        for model in models
    }
    if idle := [model for model in models if not rows[model] and model != SHIPPED]:
        raise ValueError(f"--only has no row of {idle}, which were given")
    return {model: own for model, own in rows.items() if own}


def _rows(model: str) -> Iterator[tuple[str, Policy]]:
    """Name and policy of a model's rows, that of top-k first."""
    if model == SHIPPED:
        yield from trials.HEADS.items()
        return
    for name, policy in trials.ROUTING.items():
        yield trials.row_of(model, name), policy
