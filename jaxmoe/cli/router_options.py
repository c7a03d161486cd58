"""Options of a router report: which texts, and how many."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from jaxmoe.analysis.passages import Passages, beside
from jaxmoe.analysis.route_exchange import as_line, expert_weights
from jaxmoe.analysis.router_heads import Heads
from jaxmoe.analysis.router_pass import measure
from jaxmoe.analysis.run_texts import run_rows
from jaxmoe.analysis.texts import Row, read_rows
from jaxmoe.checkpoints.bundled import is_bundled
from jaxmoe.cli.loading_options import digest_of, load
from jaxmoe.cli.problem_options import first_problems
from jaxmoe.cli.questions import task_named
from jaxmoe.cli.sampling_options import seed
from jaxmoe.evals.route_codec import Form
from jaxmoe.files import write_text
from jaxmoe.model import Model


def add_router_options(parser: argparse.ArgumentParser) -> None:
    """Adds all but the policy's and the sampler's."""
    data = (
        'lines of {"prompt": ...}, with an "answer" or "text" or to be answered, or a '
        "directory by `jaxmoe evaluate --out`, whose answers are routed as they were "
        "drawn where it has tokens and routes (default, with demo: its problems)"
    )
    again = "compare with this checkpoint on the same tokens, both routed by top-k"
    most = "of an answer that is drawn; 0 draws none (default: 64)"
    checkpoint = "demo, demo-tries, or a directory that `jaxmoe convert` has written"
    add = parser.add_argument
    add("checkpoint", metavar="CKPT", help=checkpoint)
    add("--data", metavar="FILE", type=Path, help=data)
    add("--out", metavar="OUT", type=Path, required=True, help="a folder")
    add("--against", metavar="CKPT2", help=again)
    more = "the heads of this checkpoint too, of any family, on the same texts; again "
    more += "for more. Read by its own tokenizer where that differs, drawn answers not"
    add("--beside", metavar="CKPT", action="append", default=[], help=more)
    fewer = "what next tokens lose with so many experts, such as 1,2,4"
    add("--cut", type=_sizes, metavar="M,M", help=fewer)
    add("--limit", type=int, metavar="P", help="only the first P prompts")
    add("--n", type=int, default=1, help="answers drawn to a prompt (default: 1)")
    add("--max-new-tokens", type=int, metavar="N", default=64, help=most)
    add("--chat", action="store_true", help="put prompts into the chat template")
    form = "write the answers with their routes into OUT/routes.jsonl, as vLLM or "
    form += "SGLang send them, and no statistics; --data reads such a file"
    add("--write-routes", choices=get_args(Form), help=form)
    weights = "write what the model's router weighs these experts by, too"
    add("--write-weights", action="store_true", help=weights)
    add("--seed", type=seed, default=0, help="0..2**32 - 1 (default: 0)")


def rows_of(args: argparse.Namespace) -> list[Row]:
    """The rows asked for; a ValueError for options that do not fit."""
    limit = 1 if args.limit is None else args.limit
    if min(args.n, args.max_new_tokens + 1, limit) < 1:
        raise ValueError(
            "--n and --limit must be 1 or more, --max-new-tokens 0 or more"
        )
    if args.data is not None and args.data.is_dir():
        if args.chat:
            raise ValueError(
                "--chat is for a file: a run's prompts are read as they were; leave "
                "out --chat"
            )
        digest = digest_of(args, args.checkpoint)
        return run_rows(args.data, digest, task_named)[: args.limit]
    rows = _demo_rows(args) if args.data is None else read_rows(args.data)[: args.limit]
    return [replace(row, chat={}) for row in rows] if args.chat else rows


def _sizes(text: str) -> list[int]:
    """Numbers parted by commas."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected numbers such as 1,2,4, found {text!r}"
        ) from None


def heads_beside(
    args: argparse.Namespace,
    model: Model,
    rows: Sequence[Row],
    passages: Passages,
    own: Heads | None,
) -> dict[str, Heads]:
    """Heads by name: the checkpoint's own, and those of --beside, one at a time.

    Beside others it is routed as they are, by top-k. A model without a tail to compare
    with has none.
    """
    if args.beside:
        own = measure(model, passages.tokens).heads
    found = {} if own is None else {str(args.checkpoint): own}
    for path in args.beside:
        other = load(args, path)
        heads = measure(other, beside(model, other, rows, passages)).heads
        if heads is not None:
            found[path if path not in found else f"{path} ({len(found)})"] = heads
    return found


def write_routes(args: argparse.Namespace, model: Model, passages: Passages) -> int:
    """Writes a line for each answer; 0."""
    wanted = args.write_weights
    lines = [
        as_line(
            one,
            form=args.write_routes,
            weights=expert_weights(model, one) if wanted else None,
        )
        for one in passages
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    write_text(args.out / "routes.jsonl", text)
    print(f"{len(lines)} answers with their routes: {args.out / 'routes.jsonl'}")
    return 0


def _demo_rows(args: argparse.Namespace) -> list[Row]:
    if not is_bundled(args.checkpoint):
        raise ValueError("--data is needed with models of one's own; name a file")
    problems = first_problems("test", args.limit)
    return [Row(problem.prompt, problem.prompt) for problem in problems]
