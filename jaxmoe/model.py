"""A loaded model: its config, its weights, its tokenizer."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxmoe.checkpoints.dtypes import weights_dtype
from jaxmoe.checkpoints.source import open_source
from jaxmoe.config import LayerConfig, ModelConfig, ModelWeights, MoEConfig
from jaxmoe.execution import (
    Execution,
    Layers,
    default_layers,
    enable_compilation_cache,
    execution_for,
    platform_of,
)
from jaxmoe.families.registry import family_of
from jaxmoe.nn.decoder import (
    abstract_params,
    axis_sizes,
    check_blocks,
    fixed_dtypes,
    logical_axes,
)
from jaxmoe.nn.segments import stored_names
from jaxmoe.ops.bf16_bits import held_dtype, hold_for
from jaxmoe.ops.packed import SCALES
from jaxmoe.router.scores import ExtraExperts
from jaxmoe.sharding.layout import Layout, layout_for, single_device_layout
from jaxmoe.sharding.rules import Preset, Rules
from jaxmoe.text.tokenizer import Tokenizer
from jaxmoe.typing import Array, Params


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

    def chat(self, messages: Sequence[Any], **options: Any) -> Any:
        """Token ids of a conversation under the checkpoint's chat template.

        Args:
          messages: `{"role": ..., "content": ...}` each, or a list of such lists, for
            which it gives the ids of each.
          **options: tools, enable_thinking, add_generation_prompt,
            continue_final_message, or other variables of the template.
        """
        return self.require_tokenizer("a chat").chat(messages, **options)

    def weighing(
        self, weights: Literal["model", "chosen"] = "model", *, alpha: float = 1.0
    ) -> "Model":
        """This model, where experts other than the best weigh by another reading.

        Some models do not normalise the weights of chosen experts: they are
        probabilities, whose sum shrinks where rarer experts are drawn, beside the
        residual and shared experts. Of other models, and of the k best experts in
        any, the weights are the same by both readings.

        Args:
          weights: "model" for the probabilities p as they are; "chosen" for
            p / sum(p of the chosen) * sum(p of as many best).
          alpha: what experts beside the model's own k best weigh, times what they would
            (`jaxmoe.router.scores.ExtraExperts`); of every model.

        Raises:
          ValueError: another reading, or "chosen" or another alpha than 1 for a router
            that ranks by more than it weighs (a choice bias).
        """
        if weights not in ("model", "chosen"):
            raise ValueError(f"weights must be 'model' or 'chosen', found {weights!r}")

        def changed(layer: LayerConfig) -> LayerConfig:
            ff = layer.feed_forward
            if not isinstance(ff, MoEConfig):
                return layer
            keep_sum = weights == "chosen" and not ff.scoring.normalises
            if (keep_sum or alpha != 1) and ff.scoring.choice_bias:
                asked = "weights='chosen'" if keep_sum else f"alpha={alpha}"
                raise ValueError(
                    f"{asked} needs a router that ranks by what it weighs, found one "
                    "with a choice bias; use weights='model' and alpha=1"
                )
            extra = None if alpha == 1 else ExtraExperts(ff.experts_per_token, alpha)
            scoring = replace(ff.scoring, keep_sum=keep_sum, extra=extra)
            return replace(layer, feed_forward=replace(ff, scoring=scoring))

        layers = tuple(changed(layer) for layer in self.config.layers)
        return replace(self, config=replace(self.config, layers=layers))

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text."""
        return self.require_tokenizer("a text").encode(text)

    def decode(self, ids: Sequence[int] | np.ndarray | Array) -> str | list[str]:
        """Text of token ids; of [n, T] a list of n texts.

        Special tokens are left out, but for those that divide an answer
        (`Family.marks`), such as <|channel|> and <|message|>.
        """
        decode = self.require_tokenizer("decoding").decode
        if len(ids) and np.ndim(ids[0]):
            return [decode(np.asarray(row).tolist()) for row in ids]
        return decode(np.asarray(ids).tolist())

    def require_tokenizer(self, purpose: str) -> Tokenizer:
        """The tokenizer, or a ValueError that says what it was wanted for."""
        if self.tokenizer is None:
            raise ValueError(
                f"{purpose} needs a tokenizer, and this checkpoint has none; put "
                "tokenizer.json beside the checkpoint's config.json, or pass token ids"
            )
        return self.tokenizer


def load(
    path: str | os.PathLike,
    *,
    mesh: jax.sharding.Mesh | None = None,
    rules: Rules | Preset = "auto",
    dtype: Any | None = None,
    weights: ModelWeights | None = None,
    verify: bool = True,
    overrides: Mapping[str, Any] | None = None,
    ignore: Sequence[str] = (),
) -> Model:
    """The model of a checkpoint, whatever its format.

    Weights are read straight onto the device; none is initialised first, and Hugging
    Face files need no converted copy. Every format gives the same arrays, bit for bit.
    From here on JAX keeps compiled programs on disk (`enable_compilation_cache`);
    JAXMOE_COMPILATION_CACHE=off prevents it.

    Args:
      path: "demo" and "demo-tries" are the small trained models that come with the
        package (`jaxmoe.demo`; a directory of that name is "./demo"). Else a directory
        written by `python -m convert`, here or on gs://; a Hugging Face directory with
        config.json and safetensors; or the name of a model on the hub, such as
        "Qwen/Qwen3-30B-A3B", which is downloaded into the hub's cache.
      mesh: devices to spread over, with axes named "data" and "model"; None for the
        default device. Of many processes each reads its own shards.
      rules: how (`jaxmoe.sharding`): "data" gives every device whole weights and some
        of the samples; "expert" and "tensor" divide the weights; "data-expert" divides
        experts over all devices, attention and vocabulary over "model", samples over
        "data"; "auto" is that, where need be with experts cut inside.
      dtype: type of the weights on the device: bfloat16, float16 or float32, or a name
        of one such as "bf16"; None for each one's own. A router's bias of choice is
        float32 whatever is asked for.
      weights: "int8" quantises experts, projections, dense layers and head while they
        are read (`jaxmoe.ops.int8`): half the bytes of bfloat16, and other numbers.
        None keeps what is stored, which is int8 in a checkpoint that was converted so,
        and 8-bit floats in one released in FP8.
      verify: compare what is read of a converted checkpoint with the checksums in its
        manifest: config, tokenizer, templates, and the blocks of the weights that these
        devices need. False takes them as they are. (Hugging Face files have no
        checksums.)
      overrides: values of config.json to replace, such as
        `{"rope_scaling.factor": 2.0}`; a dot leads into an object.
      ignore: names in config.json to do without, though they may change the answers.

    Raises:
      ValueError: a checkpoint that does not hold what its config declares; a hub that
        does not give the model; a model that does not divide over the mesh; another
        dtype; weights that are another format's.
      FileNotFoundError: no such checkpoint.

    Warns:
      UserWarning: NaN or infinite weights in Hugging Face files.
    """
    if not isinstance(mesh, jax.sharding.Mesh | None):
        raise TypeError(
            "mesh must be a mesh of devices such as "
            f'jax.make_mesh((1, 2), ("data", "model")), found {mesh!r}'
        )
    enable_compilation_cache()
    cast_to = None if dtype is None else weights_dtype(dtype)
    source = open_source(path, verify=verify, overrides=overrides, ignore=ignore)
    config = source.config
    if weights is not None and weights != config.weights:
        config = _requantised(config, weights)
    layout = model_layout(config, mesh, rules)
    device = jax.devices()[0] if mesh is None else mesh.devices.flat[0]
    stored = {name: jnp.dtype(spec.dtype) for name, spec in source.params.items()}
    dtypes = {
        name: kind if cast_to is None or not _is_float(kind) else cast_to
        for name, kind in stored.items()
    }
    dtypes |= {
        name: kind
        for name, kind in fixed_dtypes(config).items()
        if stored.keys() & {name, name.removesuffix(SCALES)}
    }
    abstract = abstract_weights(config, dtypes, layout or single_device_layout(device))
    params = source.read(abstract)
    for name in params:  # one at a time: a weight and its copy never both for long
        params[name] = hold_for(device.platform, params[name])
    marks = family_of(config).marks
    return Model(config, params, Tokenizer.load(source.directory, marks=marks), layout)


def _requantised(config: ModelConfig, weights: ModelWeights) -> ModelConfig:
    if config.weights != "float":
        raise ValueError(
            f"weights={weights!r} needs a checkpoint of floats, found one of "
            f"{config.weights}; load the model that it was made of"
        )
    return replace(config, weights=weights)


def _is_float(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.floating)


def model_layout(
    config: ModelConfig, mesh: jax.sharding.Mesh | None, rules: Rules | Preset = "auto"
) -> Layout | None:
    """How a model lies on a mesh; None on one device.

    Raises:
      ValueError: a model that does not divide over the mesh by these rules.
    """
    if mesh is None or mesh.size == 1:
        return None
    layout = layout_for(mesh, rules, axis_sizes(config))
    check_blocks(config, layout)
    return layout


def abstract_weights(
    config: ModelConfig,
    dtypes: Mapping[str, Any],
    layout: Layout,
    *,
    layers: Layers | None = None,
) -> dict[str, jax.ShapeDtypeStruct]:
    """Name, shape, type and sharding of every weight as the devices are to hold it.

    Layers of one kind are stacked where they will be scanned (`execution.Layers`), but
    in a model whose layers are stored in several types.

    dtypes: of each stored weight. One that is missing has no sharding, and the type of
      `abstract_params`, for `restore` to complain of.
    layers: how they are run; None for the platform's default.
    """
    platform = platform_of(layout)
    layers = layers or default_layers(platform)
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
