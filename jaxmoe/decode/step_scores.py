"""What a scorer says of chosen positions of whole sequences."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmoe.config import ModelConfig
from jaxmoe.decode.prefill import pass_context, prompt_bucket, run_sequences
from jaxmoe.decode.program import program
from jaxmoe.decode.prompt_loader import PREFILL_TOKENS
from jaxmoe.execution import Execution
from jaxmoe.model import Model
from jaxmoe.nn.decoder import bind, param_specs
from jaxmoe.router.policies import Policy, TopK, for_model
from jaxmoe.sharding.collectives import spread
from jaxmoe.typing import Array, Float, Int, Params


class Marked(NamedTuple):
    """Sequences with positions to look at.

    tokens: int32 [B, T], padded at the end. lengths: int32 [B]. places: int32 [B, M],
    positions, padded with any.
    """

    tokens: Int[Array, "B T"]
    lengths: Int[Array, "B"]
    places: Int[Array, "B M"]


@program(static_argnames=("config", "execution"))
def score_marked(
    config: ModelConfig,
    params: Params,
    given: Marked,
    policy: Policy,
    *,
    execution: Execution,
) -> Float[Array, "B M labels"]:
    """Probabilities of a scorer's labels at each place, float32."""
    count, size = given.tokens.shape
    context = pass_context(execution, count * size)

    def one_device(params: Params, given: Marked, policy: Policy) -> Array:
        decoder = bind(config, params, context)
        passed = run_sequences(
            decoder,
            given.tokens,
            given.lengths,
            context,
            policy=policy,
            keys=None,
        )
        first = jnp.arange(count)[:, None] * size
        hidden = passed.hidden[(first + given.places).reshape(-1)]
        found = jax.nn.softmax(decoder.labels(hidden, context), axis=-1)
        return found.reshape(*given.places.shape, -1)

    layout = execution.layout
    whole, weights = layout.spec(), param_specs(config, layout, layers=execution.layers)
    run = spread(layout, one_device, specs=(weights, whole, whole), out=whole)
    return run(params, given, policy)


def step_scores(
    model: Model, sequences: Sequence[Sequence[int]], separator: int
) -> list[Float[np.ndarray, "steps"]]:
    """Of each sequence, how likely each step is right, at the token that follows it.

    Args:
      model: one with a scorer.
      sequences: token ids, each no longer than the model's context.
      separator: the id of that token.

    Returns:
      Probabilities of the last label in order, float32; of a sequence without
      separators none.
    """
    policy = for_model(TopK(), model.config).deterministic(model.config.num_layers)
    places = [np.flatnonzero(np.asarray(one) == separator) for one in sequences]
    groups: dict[int, list[int]] = {}
    for j, one in enumerate(sequences):
        groups.setdefault(prompt_bucket(len(one)), []).append(j)
    found: dict[int, np.ndarray] = {}
    for size, group in groups.items():
        rows = max(1, PREFILL_TOKENS // size)
        for start in range(0, len(group), rows):
            some = group[start : start + rows]
            marked = _marked([(sequences[j], places[j]) for j in some], size, rows)
            scores = score_marked(
                model.config,
                model.params,
                marked,
                policy,
                execution=model.execution,
            )
            right = np.asarray(scores)[..., -1]
            found |= {j: right[i, : len(places[j])] for i, j in enumerate(some)}
    return [found[j] for j in range(len(sequences))]


def _marked(
    sequences: Sequence[tuple[Sequence[int], np.ndarray]], size: int, rows: int
) -> Marked:
    """Padded to few shapes: `size` tokens, a power of two of places."""
    most = max(len(places) for _, places in sequences)
    tokens, lengths = np.zeros((rows, size), np.int32), np.zeros(rows, np.int32)
    places = np.zeros((rows, prompt_bucket(most)), np.int32)
    for row, (its_tokens, its_places) in enumerate(sequences):
        tokens[row, : len(its_tokens)] = its_tokens
        lengths[row] = len(its_tokens)
        places[row, : len(its_places)] = its_places
    return Marked(*map(jnp.asarray, (tokens, lengths, places)))
