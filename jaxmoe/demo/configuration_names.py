"""Names of the study's configurations that are spoken of by name."""

GREEDY, BASE, HOT = (f"top-k, {temperature}" for temperature in ("greedy", 0.7, 1.3))
ES_GREEDY, ES, ES_HOT = (
    f"expert-sample, {temperature}" for temperature in ("greedy", 0.7, 1.3)
)
GUMBEL = "gumbel-topk, 0.7"
NOISY = "noisy prompt"
"""The prompt's tokens are routed with noise too, and so is the first token's pass."""
