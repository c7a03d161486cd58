"""Measures how a model's routers score and choose experts, layer by layer.

Writes router.json into OUT, and figures where there is matplotlib; prints a table with
suggested k_keep and r.
"""

import argparse
import sys

from _router_options import add_router_options, rows_of
from _router_output import check_folder, write_report
from _router_passages import Passages
from _router_table import suggestion, table

from jaxmoe.cli.bars import ProgressBar
from jaxmoe.cli.endings import ends_quietly, input_errors
from jaxmoe.cli.policy_options import add_policy_options, policy_of
from jaxmoe.cli.sampler_options import add_sampler_options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    add_router_options(parser)
    add_policy_options(parser)
    add_sampler_options(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs the command: 0 if done, 2 on input that does not fit."""
    args = _parser().parse_args(argv)
    with ends_quietly(), input_errors():
        import jaxmoe
        from jaxmoe.analysis.router_pass import accumulate, require_alike

        rows = rows_of(args)
        check_folder(args.out)
        policy = policy_of(args)
        model = jaxmoe.load(args.checkpoint)
        other = None if args.against is None else jaxmoe.load(args.against)
        if other is not None:
            require_alike(model.config, other.config)
        passages = Passages(model, rows, args, policy)
        with ProgressBar(len(passages), quiet=False) as bar:
            routing = passages.routing()
            layers = accumulate(model, passages, policy=routing, progress=bar.show)
        pair = other and tuple(accumulate(m, passages.tokens) for m in (model, other))
        used = passages.described()
        write_report(args, used, layers, pair, model.config.experts_per_token)
    print(table(layers, model.config.experts_per_token))
    print(suggestion(layers, model.config))
    return 0


if __name__ == "__main__":
    sys.exit(main())
