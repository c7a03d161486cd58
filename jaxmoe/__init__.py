"""jaxmoe: Expert-Sample inference for fine-grained mixture-of-experts models.

model = jaxmoe.load("ckpt")
out = jaxmoe.sample(model, prompt, key=jax.random.key(0), n=32)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxmoe import sharding as mesh
    from jaxmoe.config import ModelConfig
    from jaxmoe.decode.engine import Engine
    from jaxmoe.decode.generate import generate
    from jaxmoe.decode.loglikelihood import (
        Likelihood,
        loglikelihood,
        loglikelihood_rolling,
    )
    from jaxmoe.decode.prefill import prefill
    from jaxmoe.decode.request import Delta, Progress, Ticket
    from jaxmoe.decode.sampler import TokenSampler
    from jaxmoe.decode.step import decode_segment, fill_slots
    from jaxmoe.decode.stop_rule import SoFar
    from jaxmoe.decode.trace import Record, TokenTrace
    from jaxmoe.execution import Execution, enable_compilation_cache
    from jaxmoe.families.qwen3_moe import QWEN3_30B_A3B, QWEN3_235B_A22B
    from jaxmoe.model import Model, load
    from jaxmoe.random import keys
    from jaxmoe.router.ensemble import RouteEnsemble
    from jaxmoe.router.modifiers import Biased, Gated
    from jaxmoe.router.policies import (
        AdaptiveHead,
        Dropout,
        ExpertSample,
        GumbelTopK,
        Policy,
        TopK,
        TopP,
    )
    from jaxmoe.sampling import Finished, Samples, forward, place_routes, sample, stream
    from jaxmoe.sharding import processes as hosts

_PLACES = {
    "AdaptiveHead": "jaxmoe.router.policies:AdaptiveHead",
    "Biased": "jaxmoe.router.modifiers:Biased",
    "Delta": "jaxmoe.decode.request:Delta",
    "Dropout": "jaxmoe.router.policies:Dropout",
    "Engine": "jaxmoe.decode.engine:Engine",
    "Execution": "jaxmoe.execution:Execution",
    "ExpertSample": "jaxmoe.router.policies:ExpertSample",
    "Finished": "jaxmoe.sampling:Finished",
    "Gated": "jaxmoe.router.modifiers:Gated",
    "GumbelTopK": "jaxmoe.router.policies:GumbelTopK",
    "Likelihood": "jaxmoe.decode.loglikelihood:Likelihood",
    "Model": "jaxmoe.model:Model",
    "ModelConfig": "jaxmoe.config:ModelConfig",
    "Policy": "jaxmoe.router.policies:Policy",
    "Progress": "jaxmoe.decode.request:Progress",
    "QWEN3_235B_A22B": "jaxmoe.families.qwen3_moe:QWEN3_235B_A22B",
    "QWEN3_30B_A3B": "jaxmoe.families.qwen3_moe:QWEN3_30B_A3B",
    "Record": "jaxmoe.decode.trace:Record",
    "RouteEnsemble": "jaxmoe.router.ensemble:RouteEnsemble",
    "Samples": "jaxmoe.sampling:Samples",
    "SoFar": "jaxmoe.decode.stop_rule:SoFar",
    "Ticket": "jaxmoe.decode.request:Ticket",
    "TokenSampler": "jaxmoe.decode.sampler:TokenSampler",
    "TokenTrace": "jaxmoe.decode.trace:TokenTrace",
    "TopK": "jaxmoe.router.policies:TopK",
    "TopP": "jaxmoe.router.policies:TopP",
    "decode_segment": "jaxmoe.decode.step:decode_segment",
    "enable_compilation_cache": "jaxmoe.execution:enable_compilation_cache",
    "fill_slots": "jaxmoe.decode.step:fill_slots",
    "forward": "jaxmoe.sampling:forward",
    "generate": "jaxmoe.decode.generate:generate",
    "hosts": "jaxmoe.sharding.processes",
    "keys": "jaxmoe.random.keys",
    "load": "jaxmoe.model:load",
    "loglikelihood": "jaxmoe.decode.loglikelihood:loglikelihood",
    "loglikelihood_rolling": "jaxmoe.decode.loglikelihood:loglikelihood_rolling",
    "mesh": "jaxmoe.sharding",
    "place_routes": "jaxmoe.sampling:place_routes",
    "prefill": "jaxmoe.decode.prefill:prefill",
    "sample": "jaxmoe.sampling:sample",
    "stream": "jaxmoe.sampling:stream",
}
"""Public name -> module, or module:name; the imports above are for type checkers."""


def __getattr__(name: str) -> Any:
    """Imports a public name, or a submodule, when it is first asked for.

    `jaxmoe --help` and shell completion then need not wait for JAX.
    """
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _PLACES.get(name, f"{__name__}.{name}").partition(":")
    try:
        found = import_module(module)
    except ModuleNotFoundError as error:
        if name in _PLACES or error.name != module:
            raise
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    value = getattr(found, attribute) if attribute else found
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__all__ = [
    "QWEN3_235B_A22B",
    "QWEN3_30B_A3B",
    "AdaptiveHead",
    "Biased",
    "Delta",
    "Dropout",
    "Engine",
    "Execution",
    "ExpertSample",
    "Finished",
    "Gated",
    "GumbelTopK",
    "Likelihood",
    "Model",
    "ModelConfig",
    "Policy",
    "Progress",
    "Record",
    "RouteEnsemble",
    "Samples",
    "SoFar",
    "Ticket",
    "TokenSampler",
    "TokenTrace",
    "TopK",
    "TopP",
    "decode_segment",
    "enable_compilation_cache",
    "fill_slots",
    "forward",
    "generate",
    "hosts",
    "keys",
    "load",
    "loglikelihood",
    "loglikelihood_rolling",
    "mesh",
    "place_routes",
    "prefill",
    "sample",
    "stream",
]
