"""What is measured: a model of random weights, and the machine under it."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import jax
import numpy as np

from jaxmoe.benchmarks import machine
from jaxmoe.benchmarks.presets import PRESETS, Preset
from jaxmoe.benchmarks.targets import Place
from jaxmoe.benchmarks.weights import Packing, packed_as, random_params
from jaxmoe.config import ModelConfig
from jaxmoe.decode.sampler import TokenSampler
from jaxmoe.execution import Execution, default_platform, execution_for
from jaxmoe.nn.decoder import compute_dtype, quantise_params
from jaxmoe.ops.experts import Implementation
from jaxmoe.typing import Params

Weights = Literal["int8"] | Packing
"""How weights that are no bfloat16 are held."""

SAMPLER = TokenSampler(temperature=0.7, top_k=20, top_p=0.8)
"""What all benchmarks draw tokens with."""


@dataclass(frozen=True)
class Subject:
    """A model in memory, and where its rows belong.

    experts: the kernel that runs them; "auto" for the machine's.
    """

    place: Place
    preset: Preset
    config: ModelConfig
    params: Params = field(repr=False)
    experts: Implementation = "auto"

    @classmethod
    def random(cls, name: str) -> "Subject":
        """A preset with random weights, on the devices that JAX finds."""
        if name not in PRESETS:
            known = ", ".join(PRESETS)
            raise ValueError(f"preset must be one of {known}, found {name!r}")
        backend = default_platform()
        preset = PRESETS[name]
        params = jax.block_until_ready(random_params(preset.config, backend))
        return cls(Place(name, backend), preset, preset.config, params)

    @property
    def execution(self) -> Execution:
        """Mesh and kernels."""
        return execution_for(self.params, implementation=self.experts)

    def quantised(self) -> "Subject":
        """The same model with weights of int8."""
        config, params = quantise_params(self.config, self.params)
        return replace(self, config=config, params=params)

    def packed(self, weights: Weights) -> "Subject":
        """A model of the same shapes with such weights: this one's, or random."""
        if weights == "int8":
            return self.quantised()
        config = packed_as(self.config, weights)
        params = jax.block_until_ready(random_params(config, self.place.backend))
        return replace(self, config=config, params=params)

    @cached_property
    def machine(self) -> machine.Machine:
        """Measured once, when it is first asked for."""
        return machine.measure(self.place.backend)

    @property
    def dtype(self):
        """The type of activations and caches."""
        return compute_dtype(self.params["embed.weight"])

    @property
    def sampler(self) -> TokenSampler:
        """`SAMPLER` for this model."""
        return SAMPLER.resolve(self.config.vocab_size)

    def prompt(self, length: int, seed: int = 1) -> np.ndarray:
        """Random token ids."""
        vocab = self.config.vocab_size
        return np.random.default_rng(seed).integers(0, vocab, length, np.int32)
