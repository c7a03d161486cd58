"""Answers with their routes as lines of JSON, to and from other engines and trainers.

A line is what `jaxmoe routers --data` reads, and `as_line` writes:

    {"prompt": [ids], "answer": [ids], "routed_experts": base64, "routed_shape": [...],
     "routed_weights": base64}

The routes are vLLM's or SGLang's text (`jaxmoe.evals.route_codec`), and the weights,
which a line may have, float32 in the same rows. So answers that were drawn there can be
looked at here, and a trainer can replay ours, with its own weights or these.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from jaxmoe.analysis.router_pass import (
    Passage,
    check_passage,
    padded,
    require_routers,
)
from jaxmoe.config import ModelConfig
from jaxmoe.decode.prefill import run_sequences
from jaxmoe.decode.program import program
from jaxmoe.evals.route_codec import Form, decode_routes, encode_routes, encode_weights
from jaxmoe.execution import Execution
from jaxmoe.model import Model
from jaxmoe.nn.base import Context
from jaxmoe.nn.decoder import bind
from jaxmoe.router.policies import TopK, for_model
from jaxmoe.sharding.collectives import DeviceContext
from jaxmoe.typing import Array, Float, Int, Params

ROUTES, SHAPE, WEIGHTS = "routed_experts", "routed_shape", "routed_weights"


def as_line(
    one: Passage,
    *,
    form: Form = "vllm",
    weights: Float[np.ndarray, "T L K"] | None = None,
) -> dict[str, Any]:
    """A passage with recorded routes, as a line's values.

    weights: of its experts (`expert_weights`), to be written too.

    Raises:
      ValueError: one without routes, or without an answer.
    """
    if one.routes is None or one.following is None:
        raise ValueError(
            "routes to write must have been recorded of an answer, found a passage "
            "without; draw answers, or name a run by `evaluate --keep-routes "
            "--keep-tokens`"
        )
    start, tokens = one.prompt_length, one.tokens.tolist()
    routes = one.routes[start - 1 :]
    shape = [start + len(routes) - 1, *routes.shape[1:]]
    line: dict[str, Any] = {
        "prompt": tokens[:start],
        "answer": [*tokens[start:], one.following],
        ROUTES: encode_routes(start, routes, form=form),
        SHAPE: shape,
    }
    if weights is not None:
        line[WEIGHTS] = encode_weights(weights, form=form)
    return line


def expert_weights(model: Model, one: Passage) -> Float[np.ndarray, "T L K"]:
    """What the model's rule gives each recorded expert, in one pass with these routes.

    float32, as experts are multiplied by them; 0 where no expert was recorded.

    Raises:
      ValueError: a passage without routes, or that does not fit the model.
    """
    require_routers(model, "weights of experts")
    if one.routes is None:
        raise ValueError("weights are of recorded routes, found a passage without")
    length, width = len(one.tokens), one.routes.shape[2]
    check_passage(model, one, width)
    tokens, routes = padded(one)
    found = _weights(
        model.config,
        model.params,
        tokens,
        np.int32(length),
        routes,
        execution=model.execution,
    )
    whole = np.zeros(one.routes.shape, np.float32)
    whole[:, list(model.config.moe_layers)] = np.asarray(found)[:length]
    return np.where(one.routes >= 0, whole, 0)


@program(static_argnames=("config", "execution"))
def _weights(
    config: ModelConfig,
    params: Params,
    tokens: Int[Array, "T"],
    length: Int[Array, ""],
    routes: Int[Array, "T L K"],
    *,
    execution: Execution,
) -> Float[Array, "T X K"]:
    context = Context(execution, DeviceContext(execution.layout))
    passed = run_sequences(
        bind(config, params, context),
        tokens[None],
        length[None],
        context,
        policy=for_model(TopK(places=routes.shape[2]), config),
        keys=None,
        routes=routes,
        keep_weights=True,
    )
    assert passed.weights is not None
    return passed.weights.swapaxes(0, 1)


def routes_in(value: Mapping[str, Any]) -> partial[np.ndarray] | None:
    """What reads the routes [T, L, K] of a line; None of a line without.

    SGLang's text needs "routed_shape", which it does not say itself.

    Raises:
      ValueError: routes beside texts instead of token ids, or no text or shape.
    """
    if value.get(ROUTES) is None:
        return None
    text, prompt, shape = value[ROUTES], value["prompt"], value.get(SHAPE)
    ids = isinstance(prompt, list) and isinstance(value.get("answer"), list)
    if not isinstance(text, str) or not ids:
        raise ValueError(
            f'"{ROUTES}" must be text, beside a prompt and an answer of token ids, '
            f"found {type(text).__name__} beside {prompt!r:.40}; give ids"
        )
    return partial(decode_routes, len(prompt), text, shape=_sizes(shape))


def _sizes(shape: Any) -> tuple[int, int, int] | None:
    if shape is None:
        return None
    if isinstance(shape, list) and len(shape) == 3:
        rows, layers, k = shape
        if all(type(size) is int and size > 0 for size in shape):
            return rows, layers, k
    raise ValueError(
        f'"{SHAPE}" must be [P + T - 1, L, k], each above 0, found {shape!r:.60}'
    )
