"""A loaded model: its config, its weights, its tokenizer."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxmoe.bundled import converted, is_bundled
from jaxmoe.config import ModelConfig
from jaxmoe.hf_config import load_hf_config
from jaxmoe.nn.decoder import abstract_params
from jaxmoe.text.tokenizer import Tokenizer
from jaxmoe.typing import Params
from jaxmoe.widen import hold_for


@dataclass(frozen=True)
class Model:
    """What `jaxmoe.sample` needs.

    config: the shapes and rules. params: the weights by dotted name
    (`jaxmoe.nn.decoder.abstract_params`); on CPU bfloat16 is held as uint16 bits.
    tokenizer: None for a checkpoint without tokenizer files, which still samples ids.
    """

    config: ModelConfig
    params: Params = field(repr=False)
    tokenizer: Tokenizer | None = None

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
    dtype: Any | None = None,
) -> Model:
    """The model of a directory written by `python -m convert`, or "demo".

    Weights are read straight onto the device; none is initialised first.

    Args:
      path: the checkpoint directory. "demo" is the small trained model that comes with
        the package (`jaxmoe.demo`), converted on first use into the user's cache
        directory; a directory of that name is "./demo".
      mesh: devices to spread over; one device is all that is supported as yet.
      dtype: type of the weights on the device; None for each one's own.

    Raises:
      ValueError: a checkpoint that does not hold what its config declares.
    """
    from jaxmoe import checkpoint  # imports orbax, which takes long

    if mesh is not None and mesh.size != 1:
        raise ValueError(
            f"mesh must have one device, found {mesh.size}; "
            "several devices are not supported yet"
        )
    directory = directory_of(path)
    manifest = checkpoint.read_manifest(directory)
    config = load_hf_config(directory)
    device = jax.devices()[0] if mesh is None else mesh.devices.flat[0]
    sharding = jax.sharding.SingleDeviceSharding(device)
    abstract = {
        name: jax.ShapeDtypeStruct(
            leaf.shape,
            np.dtype(dtype or manifest.params[name].dtype),
            sharding=sharding,
        )
        if name in manifest.params
        else leaf
        for name, leaf in abstract_params(config).items()
    }
    params = checkpoint.restore(directory, abstract)
    for name in params:  # one at a time: a weight and its copy never both for long
        params[name] = hold_for(device.platform, params[name])
    return Model(config, params, Tokenizer.load(directory))


def directory_of(path: str | Path) -> Path:
    """The directory that `load` reads; a bundled model is converted if need be."""
    return converted(path) if is_bundled(path) else Path(path)
