"""The table of a router report, and the options that it suggests."""

from collections.abc import Iterator
from typing import Any

from jaxmoe.analysis.router_advice import policy_of, suggest
from jaxmoe.analysis.router_pass import LayerStats
from jaxmoe.analysis.router_scores import normalised_entropy
from jaxmoe.analysis.router_stats import RouterStats
from jaxmoe.config import ModelConfig

HEAD = (
    "layer  tokens              entropy (sd)  head  gap head  gap tail   load  "
    "k_keep    r"
)
NOTE = """\
head: experts that reach half of the probability (median). gap: of log p between
neighbouring ranks, nats, up to k_keep and behind it. load: normalised entropy, 1 is
even. k_keep and r: a heuristic's, read off the scores and not validated on accuracy."""


def summary(stats: RouterStats, k: int) -> dict[str, Any]:
    """The numbers of one row of the table, and the rest of the suggestion's."""
    mean, deviation = stats.entropy
    return {
        "tokens": int(stats.tokens),
        "entropy": mean,
        "entropy_sd": deviation,
        "head_50": stats.head_size(0.5),
        "load_entropy": normalised_entropy(stats.load / stats.load.sum()),
        "advice": suggest(stats.gaps, stats.probability, k=k).json(),
    }


def table(layers: LayerStats, k: int) -> str:
    """A line for each layer and class, and what the numbers are of."""
    return "\n".join([HEAD, *_lines(layers, k), "", NOTE, *_confined(layers)])


def _confined(layers: LayerStats) -> Iterator[str]:
    """A line where tokens may not have every expert."""
    stats = next(iter(next(iter(layers.values())).values()))
    if stats.ranks < stats.num_experts:
        yield (
            f"Each token has groups of experts, {stats.ranks} of {stats.num_experts}: "
            "probabilities and r are of these,\nload of all."
        )


def _lines(layers: LayerStats, k: int) -> Iterator[str]:
    for layer, classes in layers.items():
        for name, stats in classes.items():
            row = summary(stats, k)
            advice = row["advice"]
            yield (
                f"{layer:5}  {name:9} {row['tokens']:8}  {row['entropy']:5.2f} "
                f"({row['entropy_sd']:4.2f})  {row['head_50']:4}  "
                f"{advice['gap_head']:8.3f}  {advice['gap_tail']:8.3f}  "
                f"{row['load_entropy']:5.3f}  {advice['k_keep']:6}  {advice['r']:3}"
            )


def suggestion(layers: LayerStats, config: ModelConfig) -> str:
    """Suggested options of `jaxmoe sample`, of generated tokens if there are any."""
    k = config.experts_per_token
    last = {layer: list(classes.items())[-1] for layer, classes in layers.items()}
    advice = {l: suggest(s.gaps, s.probability, k=k) for l, (_, s) in last.items()}
    policy = policy_of(advice, config)
    name = next(name for name, _ in last.values())
    shown = {n: ",".join(map(str, getattr(policy, n))) for n in ("k_keep", "r")}
    return f"of {name} tokens: --k-keep {shown['k_keep']} --r {shown['r']}"
