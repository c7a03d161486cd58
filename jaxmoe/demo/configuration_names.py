"""Names of the study's configurations that are spoken of by name.

normal and high are the paper's token samplers; alone is a temperature of 0.7 without
top-p and top-k. Where no sampler is named it is the normal one.
"""

GREEDY = "top-k, greedy"
BASE, HOT, ALONE = (f"top-k, {sampler}" for sampler in ("normal", "high", "alone"))
ES, ES_HOT, ES_ALONE = (
    f"expert-sample, {sampler}" for sampler in ("normal", "high", "alone")
)
KEEP_2, KEEP_7 = "k_keep 2", "k_keep 7"
COLD, WARM, UNIFORM = "tau 0.3", "tau 2", "uniform tail"
GUMBEL = "gumbel-topk"
HALF = "k 4"
