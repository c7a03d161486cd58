"""A loaded model: its config, its weights, its tokenizer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxmoe.checkpoints.bundled import converted, is_bundled
from jaxmoe.checkpoints.gcs import fetch_small_files
from jaxmoe.config import ModelConfig
from jaxmoe.execution import Execution, default_layers, execution_for, platform_of
from jaxmoe.families.config_json import load_hf_config
from jaxmoe.nn.decoder import abstract_params, axis_sizes, logical_axes
from jaxmoe.nn.segments import stored_names
from jaxmoe.ops.bf16_bits import held_dtype
from jaxmoe.sharding.layout import Layout, layout_for, single_device_layout
from jaxmoe.sharding.rules import Preset, Rules
from jaxmoe.text.tokenizer import Tokenizer
from jaxmoe.typing import Params


@dataclass(frozen=True)
class Model:
    """What `jaxmoe.sample` needs.

    config: the shapes and rules. params: the weights by dotted name
    (`jaxmoe.nn.decoder.abstract_params`); on CPU bfloat16 is held as uint16 bits.
    tokenizer: None for a checkpoint without tokenizer files, which still samples ids.
    layout: how the weights lie on several devices (`jaxmoe.sharding`); None for one.
    """

    config: ModelConfig
    params: Params = field(repr=False)
    tokenizer: Tokenizer | None = None
    layout: Layout | None = None

    @property
    def execution(self) -> Execution:
        """Mesh and kernels, as the devices that hold the weights want them."""
        return execution_for(self.params, self.layout)

    def chat(self, messages: Sequence[dict[str, Any]], **options: Any) -> list[int]:
        """Token ids of a conversation under the checkpoint's chat template.

        options: tools, enable_thinking, add_generation_prompt, or other variables of
        the template.
        """
        return self.require_tokenizer("a chat").chat(messages, **options)

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text."""
        return self.require_tokenizer("a text").encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, special tokens left out."""
        return self.require_tokenizer("decoding").decode(ids)

    def require_tokenizer(self, purpose: str) -> Tokenizer:
        """The tokenizer, or a ValueError that says what it was wanted for."""
        if self.tokenizer is None:
            raise ValueError(
                f"{purpose} needs a tokenizer, and this checkpoint has none; put "
                "tokenizer.json beside the checkpoint's config.json, or pass token ids"
            )
        return self.tokenizer


def load(
    path: str | Path,
    *,
    mesh: jax.sharding.Mesh | None = None,
    rules: Rules | Preset = "auto",
    dtype: Any | None = None,
) -> Model:
    """The model of a directory written by `python -m convert`, or "demo".

    Weights are read straight onto the device; none is initialised first.

    Args:
      path: the checkpoint directory, here or on gs://. "demo" is the small trained
        model that comes with the package (`jaxmoe.demo`), converted on first use into
        the user's cache directory; a directory of that name is "./demo".
      mesh: devices to spread over, with axes named "data" and "model"; None for the
        default device. Of many processes each reads its own shards.
      rules: how (`jaxmoe.sharding`): "data" gives every device whole weights and some
        of the samples; "expert" and "tensor" divide the weights; "data-expert" divides
        experts over all devices, attention and vocabulary over "model", samples over
        "data"; "auto" is that, where need be with experts cut inside.
      dtype: type of the weights on the device; None for each one's own.

    Raises:
      ValueError: a checkpoint that does not hold what its config declares; a model
        that does not divide over the mesh.
    """
    from jaxmoe.checkpoints import store  # imports orbax, which takes long

    directory = directory_of(path)
    manifest = store.read_manifest(directory)
    small_files = fetch_small_files(directory)
    config = load_hf_config(small_files)
    layout = model_layout(config, mesh, rules)
    dtypes = {
        name: np.dtype(dtype or spec.dtype) for name, spec in manifest.params.items()
    }
    device = jax.devices()[0] if mesh is None else mesh.devices.flat[0]
    abstract = abstract_weights(config, dtypes, layout or single_device_layout(device))
    params = store.restore(directory, abstract)
    return Model(config, params, Tokenizer.load(small_files), layout)


def model_layout(
    config: ModelConfig, mesh: jax.sharding.Mesh | None, rules: Rules | Preset = "auto"
) -> Layout | None:
    """How a model lies on a mesh; None on one device.

    Raises:
      ValueError: a model that does not divide over the mesh by these rules.
    """
    if mesh is None or mesh.size == 1:
        return None
    return layout_for(mesh, rules, axis_sizes(config))


def abstract_weights(
    config: ModelConfig, dtypes: Mapping[str, Any], layout: Layout
) -> dict[str, jax.ShapeDtypeStruct]:
    """Name, shape, type and sharding of every weight as the devices are to hold it.

    Layers of one kind are stacked where they will be scanned (`execution.Layers`), but
    in a model whose layers are stored in several types.

    dtypes: of each stored weight. One that is missing has no sharding, and the type of
      `abstract_params`, for `restore` to complain of.
    """
    platform = platform_of(layout)
    layers = default_layers(platform)
    abstract = abstract_params(config, layers=layers)
    kinds = {n: {dtypes.get(s) for s in stored_names(n)} for n in abstract}
    if any(len(found) > 1 for found in kinds.values()):
        layers = "unroll"
        abstract = abstract_params(config, layers=layers)
    axes = logical_axes(config, layers=layers)

    def describe(name: str, leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        dtype = dtypes.get(stored_names(name)[0])
        if dtype is None:
            return leaf
        place = layout.single or layout.sharding(*axes[name])
        held = held_dtype(platform, dtype)
        return jax.ShapeDtypeStruct(leaf.shape, held, sharding=place)

    return {name: describe(name, leaf) for name, leaf in abstract.items()}


def directory_of(path: str | Path) -> Path:
    """The directory that `load` reads; a bundled model is converted if need be."""
    return converted(path) if is_bundled(path) else Path(path)
