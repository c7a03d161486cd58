"""jaxmoe: Expert-Sample inference for fine-grained mixture-of-experts models.

model = jaxmoe.load("ckpt")
out = jaxmoe.sample(model, prompt, key=jax.random.key(0), n=32)
"""

from jaxmoe import sharding as mesh
from jaxmoe.config import ModelConfig
from jaxmoe.decode.engine import Engine
from jaxmoe.decode.generate import generate
from jaxmoe.decode.prefill import prefill
from jaxmoe.decode.request import Delta, Progress, Ticket
from jaxmoe.decode.sampler import TokenSampler
from jaxmoe.decode.step import decode_segment, fill_slots
from jaxmoe.decode.trace import Record, TokenTrace
from jaxmoe.execution import Execution, enable_compilation_cache
from jaxmoe.families.qwen3_moe import QWEN3_30B_A3B, QWEN3_235B_A22B
from jaxmoe.model import Model, load
from jaxmoe.random import keys
from jaxmoe.router.policies import (
    AdaptiveHead,
    ExpertSample,
    GumbelTopK,
    Policy,
    TopK,
)
from jaxmoe.sampling import Finished, Samples, forward, place_routes, sample, stream
from jaxmoe.sharding import processes as hosts

__all__ = [
    "QWEN3_235B_A22B",
    "QWEN3_30B_A3B",
    "AdaptiveHead",
    "Delta",
    "Engine",
    "Execution",
    "ExpertSample",
    "Finished",
    "GumbelTopK",
    "Model",
    "ModelConfig",
    "Policy",
    "Progress",
    "Record",
    "Samples",
    "Ticket",
    "TokenSampler",
    "TokenTrace",
    "TopK",
    "decode_segment",
    "enable_compilation_cache",
    "fill_slots",
    "forward",
    "generate",
    "hosts",
    "keys",
    "load",
    "mesh",
    "place_routes",
    "prefill",
    "sample",
    "stream",
]
