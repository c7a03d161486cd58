"""Logical axes of weights, and the only place that will name mesh axes."""

LOGICAL_AXES = (
    "vocab",
    "embed",
    "heads",
    "kv_heads",
    "head_dim",
    "mlp",
    "experts",
    "expert_mlp",
    "gate_up",
)
"""Every dimension of every weight is one of these (`nn.decoder.logical_axes`)."""
