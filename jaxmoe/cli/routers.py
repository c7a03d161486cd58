"""Measures how a model's routers score and choose experts, layer by layer.

Writes router.json into OUT, and figures where there is matplotlib; prints a table with
suggested k_keep and r. With --counterfactual, --ablate or --lucky it changes routes
instead.
"""

import argparse

from jaxmoe.analysis.cutting import cut
from jaxmoe.analysis.passages import Passages
from jaxmoe.analysis.router_pass import accumulate, measure, require_alike
from jaxmoe.checkpoints.gcs import require_local
from jaxmoe.cli.bars import ProgressBar
from jaxmoe.cli.counterfactual_options import (
    add_counterfactual_options,
    asks_for_routes,
    change_routes,
    rows_to_change,
)
from jaxmoe.cli.endings import command, figures_if_possible
from jaxmoe.cli.loading_options import add_loading_options, digest_of, load
from jaxmoe.cli.policy_options import add_policy_options, policy_of
from jaxmoe.cli.router_options import (
    add_router_options,
    heads_beside,
    rows_of,
    write_routes,
)
from jaxmoe.cli.sampler_options import add_sampler_options, sampler_of
from jaxmoe.reports.router_files import Against, check_folder, write_routers
from jaxmoe.reports.router_table import suggestion, table
from jaxmoe.reports.steepness import cutting_table, heads_table
from jaxmoe.router.policies import TopK


def parser() -> argparse.ArgumentParser:
    """All options."""
    made = argparse.ArgumentParser("jaxmoe routers", description=__doc__)
    add_router_options(made)
    add_counterfactual_options(made)
    add_policy_options(made)
    add_sampler_options(made)
    add_loading_options(made)
    return made


@command
def main(argv: list[str] | None = None) -> int:
    """Runs the command: 0 if done, 2 on input that does not fit."""
    made = parser()
    args = made.parse_args(argv)
    require_local(args.out)
    changing = asks_for_routes(made, args)
    rows = rows_to_change(args) if changing else rows_of(args)
    check_folder(args.out)
    policy = policy_of(args)
    model = load(args, args.checkpoint)
    other = None if args.against is None else load(args, args.against)
    if other is not None:
        require_alike(model.config, other.config)
    passages = Passages(
        model,
        rows,
        policy=TopK() if changing else policy,
        sampler=sampler_of(args, model),
        seed=args.seed,
        n=args.n,
        max_new_tokens=args.max_new_tokens,
    )
    if changing:
        change_routes(args, model, passages, rows, policy)
        return 0
    if args.write_routes is not None:
        return write_routes(args, model, passages)
    with ProgressBar(len(passages), quiet=False) as bar:
        routing = passages.routing()
        found = measure(model, passages, policy=routing, progress=bar.show)
    layers = found.layers
    heads = heads_beside(args, model, rows, passages, found.heads)
    cutting = None if args.cut is None else cut(model, passages.tokens, args.cut)
    against = None
    if args.against is not None and other is not None:
        against = Against(
            digest=digest_of(args, args.against),
            names=(args.checkpoint, f"against {args.against}"),
            layers=accumulate(model, passages.tokens),
            other=accumulate(other, passages.tokens),
        )
    k = model.config.experts_per_token
    with figures_if_possible("no figures"):
        write_routers(
            args.out,
            layers,
            k=k,
            digest=digest_of(args, args.checkpoint),
            policy=passages.described(),
            against=against,
            heads=heads,
            cutting=cutting,
        )
    print(table(layers, k))
    if heads:
        print(heads_table(heads))
    if cutting is not None:
        print(cutting_table(cutting, layers))
    print(suggestion(layers, model.config))
    return 0
