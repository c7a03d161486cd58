"""Answers with their routes as lines of JSON, to and from other engines and trainers.

A line is what `jaxmoe routers --data` reads, and `as_line` writes:

    {"prompt": [ids], "answer": [ids], "routed_experts": base64, "routed_shape": [...]}

The routes are vLLM's or SGLang's text (`jaxmoe.evals.route_codec`). So answers that
were drawn there can be looked at here, and a trainer can replay ours.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from jaxmoe.analysis.router_pass import Passage
from jaxmoe.evals.route_codec import Form, decode_routes, encode_routes

ROUTES, SHAPE = "routed_experts", "routed_shape"


def as_line(one: Passage, *, form: Form = "vllm") -> dict[str, Any]:
    """A passage with recorded routes, as a line's values.

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
    return {
        "prompt": tokens[:start],
        "answer": [*tokens[start:], one.following],
        ROUTES: encode_routes(start, routes, form=form),
        SHAPE: shape,
    }


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
    sizes = isinstance(shape, list) and len(shape) == 3
    if shape is not None and not (sizes and all(type(size) is int for size in shape)):
        raise ValueError(f'"{SHAPE}" must be [P + T - 1, L, k], found {shape!r:.60}')
    return partial(_decoded, len(prompt), text, shape)


def _decoded(prompt_length: int, text: str, shape: list[int] | None) -> np.ndarray:
    """vLLM's text says its own shape, whatever stands beside it."""
    try:
        return decode_routes(prompt_length, text)
    except ValueError:
        if shape is None:
            raise
        return decode_routes(prompt_length, text, shape=(shape[0], shape[1], shape[2]))
