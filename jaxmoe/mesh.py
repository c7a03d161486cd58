"""Logical axes of weights, and the only place that names mesh axes."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

BATCH = "batch"
"""The mesh axis over which examples are spread."""


def batch_mesh(devices: Sequence[Any]) -> jax.sharding.Mesh:
    """A mesh of the one axis `BATCH`."""
    return jax.sharding.Mesh(np.array(devices), (BATCH,))


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
