"""A model straight from Hugging Face files, without a converted copy on the disk."""

import os
from typing import Any

import jax
import numpy as np

from convert.shards import read_params
from convert.to_jaxmoe import check, find_source
from jaxmoe.model import Model, abstract_weights, model_layout
from jaxmoe.ops.bf16_bits import hold_for
from jaxmoe.sharding.rules import Preset, Rules
from jaxmoe.text.tokenizer import Tokenizer


def load(
    directory: str | os.PathLike,
    *,
    mesh: jax.sharding.Mesh | None = None,
    rules: Rules | Preset = "auto",
    dtype: Any | None = None,
) -> Model:
    """The model of a directory of safetensors, or of a name on the hub.

    What `jaxmoe.load` gives of the converted checkpoint, bit for bit. Each process
    reads its own shards out of the files. Files are checked as a conversion checks
    them; only tied copies and non-finite values are looked for in own shards alone.

    Args:
      directory: a directory with config.json and safetensors, or a hub name.
      mesh, rules, dtype: as in `jaxmoe.load`.

    Raises:
      ConversionError: files, index or tensors that do not fit.
      ValueError, FileNotFoundError: config.json, as `load_hf_config`; a model that
        does not divide over the mesh.

    Warns:
      UserWarning: NaN or infinite weights.
    """
    path = find_source(os.fspath(directory))
    job = check(path)
    layout = model_layout(job.config, mesh, rules)
    fills = job.plan.fills
    dtypes = {name: np.dtype(dtype or fill.dtype) for name, fill in fills.items()}
    device = jax.devices()[0] if mesh is None else mesh.devices.flat[0]
    abstract = abstract_weights(job.config, dtypes, layout or device)
    params = read_params(job.source, job.plan, abstract)
    for name in params:  # one at a time: a weight and its copy never both for long
        params[name] = hold_for(device.platform, params[name])
    return Model(job.config, params, Tokenizer.load(path), layout)
