"""A model run over texts, and what its routers did, layer by layer.

Whole sequences are run at once, as `jaxmoe.forward` runs them, several side by side;
the scores of every token are summed up where they are computed.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmoe.analysis.router_heads import Heads, Ranks, gathered, head_sums, ranks_of
from jaxmoe.analysis.router_stats import RouterStats, empty, merge, to_host, update
from jaxmoe.config import ModelConfig, MoEConfig
from jaxmoe.decode.inputs import Prompt, check_prompt, check_routes
from jaxmoe.decode.prefill import prompt_bucket
from jaxmoe.decode.program import program
from jaxmoe.execution import Execution
from jaxmoe.model import Model
from jaxmoe.nn.base import Context, Sequences
from jaxmoe.nn.decoder import bind, whole_sequences
from jaxmoe.ops.experts import Implementation
from jaxmoe.router.policies import Policy, TopK, for_model
from jaxmoe.router.routing import choose_experts, of_layer
from jaxmoe.sampling import place_routes, sample
from jaxmoe.sharding.collectives import DeviceContext
from jaxmoe.typing import Array, Float, Int, Params

CLASSES = ("prompt", "generated")
"""Tokens that were given, and tokens that answer; a token's statistics are those of
the pass over it."""

ROWS = 4096
"""Positions run at once: few calls, and scores of moderate size."""

LayerStats = dict[int, dict[str, RouterStats]]
"""Layer -> class -> statistics, on the host; only classes that have tokens."""


@dataclass(frozen=True, eq=False)
class Passage:
    """A sequence to run.

    tokens: ids, prompt and answer, int32 [T]. prompt_length: how many are the prompt's,
    1..T. routes: int16 [T, L, K], experts to take where not -1, as
    `jaxmoe.sampling.place_routes` makes them; None leaves all to the policy.
    following: the token after the last, where it is known: nothing is computed from it.
    """

    tokens: Int[np.ndarray, "T"]
    prompt_length: int
    routes: Int[np.ndarray, "T L K"] | None = None
    following: int | None = None


def passage(model: Model, prompt: Prompt, answer: Prompt | None = None) -> Passage:
    """A prompt and an answer to it, each text or token ids; checked.

    Text is encoded part by part, an answer without the tokenizer's own tokens at its
    beginning, as it would follow the prompt.

    Raises:
      TypeError, ValueError: no tokens, ids past the vocabulary, or more than the
        context holds.
    """
    given = check_prompt(model, prompt, 0)
    if answer is None:
        return Passage(given, len(given))
    if isinstance(answer, str):
        tokenizer = model.require_tokenizer("an answer's text")
        answer = tokenizer.encode(answer, add_special_tokens=False)
    whole = np.concatenate([given, np.asarray(answer, np.int32)])
    return Passage(check_prompt(model, whole, 0), len(given))


def draw(
    model: Model,
    prompts: Sequence[Prompt],
    *,
    key: Any,
    policy: Policy | None = None,
    **options: Any,
) -> list[Passage]:
    """Answers to each prompt, with the experts that computed them.

    The last token of an answer is what follows its passage: nothing was computed from
    it.

    Args:
      key, policy, options: as in `jaxmoe.sample` with a list of prompts.

    Returns:
      n passages of the first prompt, n of the second, and so on. To `accumulate`, pass
      them with the same policy.
    """
    given = [check_prompt(model, prompt, 0) for prompt in prompts]
    options |= {"key": key, "policy": policy, "return_routes": True}
    drawn: Any = sample(model, given, **options)
    passages = []
    for ids, answers in zip(given, drawn, strict=True):
        for tokens, length, routes in zip(
            answers.tokens, answers.lengths, answers.routes, strict=True
        ):
            placed = place_routes(len(ids), int(length), routes)[:-1]
            whole = np.concatenate([ids, tokens[: length - 1]])
            last = int(tokens[length - 1])
            passages.append(Passage(whole, len(ids), placed, last))
    return passages


class Measured(NamedTuple):
    """layers: statistics. heads: of all layers; None where too few ranks are there."""

    layers: LayerStats
    heads: Heads | None


def accumulate(model: Model, passages: Iterable[Passage], **options: Any) -> LayerStats:
    """The statistics of every layer with experts alone; see `measure`."""
    return measure(model, passages, **options).layers


def measure(
    model: Model,
    passages: Iterable[Passage],
    *,
    policy: Policy | None = None,
    rows: int = ROWS,
    implementation: Implementation = "auto",
    progress: Callable[[int], None] | None = None,
) -> Measured:
    """Runs a model over passages; what every layer with experts did.

    Passages whose lengths have one bucket (`jaxmoe.decode.prefill.prompt_bucket`) share
    a compiled program, and few are held at a time: a generator may make them.

    Args:
      policy: routes tokens that have no routes, without noise; its number of experts
        is that of the routes. None for `TopK()`.
      rows: positions run at once.
      progress: called with the number of passages done.

    Raises:
      ValueError: nothing to run, a model without experts, passages that do not fit the
        model, or router logits that are not finite.
    """
    config = model.config
    require_routers(model, "router statistics")
    resolved = for_model(TopK() if policy is None else policy, config)
    plain = resolved.deterministic(config.num_layers)
    checked = (check_passage(model, one, plain.width) for one in passages)
    sums: dict[tuple[int, str], RouterStats] = {}
    by_prompt: dict[bytes, np.ndarray] = {}
    ranks = ranks_of(config.experts_per_token, _allowed(config))
    done, execution = 0, model.execution.using(implementation)
    for batch in batches(checked, config.num_layers, plain.width, rows):
        part, heads = _run(
            config, model.params, batch, plain, ranks=ranks, execution=execution
        )
        _add(sums, to_host(part), config)
        if heads is not None:
            _add_heads(by_prompt, batch, np.asarray(heads, np.float64))
        done += int((batch.lengths > 0).sum())
        if progress is not None:
            progress(done)
    if not done:
        raise ValueError(
            "router statistics need tokens, found no passages; pass at least one"
        )
    layers = {
        layer: {name: sums[layer, name] for name in CLASSES if (layer, name) in sums}
        for layer in config.moe_layers
    }
    if ranks is None:
        return Measured(layers, None)
    known = {"ranks": ranks, "layers": config.moe_layers, "classes": CLASSES}
    return Measured(layers, gathered(by_prompt, **known))


def require_alike(first: ModelConfig, second: ModelConfig) -> None:
    """Raises a ValueError unless the routers of both can be compared, on one text."""
    for name, what in {
        "num_experts": "experts",
        "allowed_experts": "experts that a token may have",
        "moe_layers": "layers with experts",
        "vocab_size": "tokens in the vocabulary",
    }.items():
        one, other = getattr(first, name), getattr(second, name)
        if one != other:
            shown = (len(one), len(other)) if name == "moe_layers" else (one, other)
            places = f" (at {one} and {other})" if name == "moe_layers" else ""
            raise ValueError(
                f"expected equally many {what} in both checkpoints, found {shown[0]} "
                f"and {shown[1]}{places}; compare checkpoints of one model"
            )


def require_routers(model: Model, what: str) -> None:
    """Raises a ValueError unless the model has experts, and lies on one device."""
    if model.layout is not None:
        raise ValueError(
            f"{what} are taken on one device, found a model on a mesh of "
            f"{model.layout.mesh.size}; load it without a mesh"
        )
    if not model.config.num_experts:
        raise ValueError(
            f"{what} need routers, found a model without experts; pass another one"
        )


def check_passage(model: Model, one: Passage, width: int) -> Passage:
    """The passage, whose routes are `width` wide.

    Raises:
      TypeError, ValueError: one that does not fit the model.
    """
    check_prompt(model, one.tokens, 0)
    if not 1 <= one.prompt_length <= len(one.tokens):
        raise ValueError(
            f"prompt_length must be in 1..{len(one.tokens)} (the passage's tokens), "
            f"found {one.prompt_length}; pass the length of its prompt"
        )
    if one.routes is not None:
        shape = (len(one.tokens), model.config.num_layers, width)
        check_routes(one.routes, shape, model.config.num_experts)
    return one


def padded(one: Passage) -> tuple[Int[np.ndarray, "P"], Int[np.ndarray, "P L K"]]:
    """Tokens and recorded routes as long as their bucket; -1 past the end."""
    assert one.routes is not None
    length, size = len(one.tokens), prompt_bucket(len(one.tokens))
    tokens = np.zeros(size, np.int32)
    tokens[:length] = one.tokens
    routes = np.full((size, *one.routes.shape[1:]), -1, np.int16)
    routes[:length] = one.routes
    return tokens, routes


def _add(sums: dict[tuple[int, str], RouterStats], part: RouterStats, config) -> None:
    for index, layer in enumerate(config.moe_layers):
        for place, name in enumerate(CLASSES):
            # Arrays too where they are numbers: x[i, j, ...] makes no scalar.
            here = jax.tree.map(lambda a, i=index, j=place: a[i, j, ...], part)
            if here.tokens:
                old = sums.get((layer, name))
                sums[layer, name] = here if old is None else merge(old, here)


def _add_heads(
    by_prompt: dict[bytes, np.ndarray], batch: "Batch", heads: np.ndarray
) -> None:
    """Adds sums [X, B, C, Z, 4] of sequences to those of their prompts."""
    for row in np.flatnonzero(batch.lengths):
        prompt = batch.tokens[row, : batch.prompt_lengths[row]].tobytes()
        by_prompt[prompt] = by_prompt.get(prompt, 0) + heads[:, row]


class Batch(NamedTuple):
    """Passages of one bucket T, B of them; those of length 0 fill it up.

    tokens: int32 [B, T]. lengths, prompt_lengths: int32 [B]. routes: int16
    [B, T, L, K].
    """

    tokens: np.ndarray
    lengths: np.ndarray
    prompt_lengths: np.ndarray
    routes: np.ndarray


def batches(
    passages: Iterable[Passage], layers: int, width: int, rows: int
) -> Iterator[Batch]:
    """Batches of about `rows` positions, all of one bucket of the same shape."""
    waiting: dict[int, list[Passage]] = defaultdict(list)
    full = set()
    for one in passages:
        size = prompt_bucket(len(one.tokens))
        waiting[size].append(one)
        most = max(1, rows // size)
        if len(waiting[size]) == most:
            full.add(size)
            yield _batch(waiting.pop(size), (most, size, layers, width))
    for size, members in sorted(waiting.items()):
        # As large as those before it, which are compiled; else no larger than needed.
        fits = 1 << (len(members) - 1).bit_length()
        most = max(1, rows // size)
        count = most if size in full else min(most, fits)
        yield _batch(members, (count, size, layers, width))


def _batch(members: list[Passage], shape: tuple[int, ...]) -> Batch:
    tokens = np.zeros(shape[:2], np.int32)
    lengths, prompts = np.zeros((2, shape[0]), np.int32)
    routes = np.full(shape, -1, np.int16)
    for row, one in enumerate(members):
        length = len(one.tokens)
        tokens[row, :length] = one.tokens
        lengths[row], prompts[row] = length, one.prompt_length
        if one.routes is not None:
            routes[row, :length] = one.routes
    return Batch(tokens, lengths, prompts, routes)


@program(static_argnames=("config", "ranks", "execution"))
def _run(
    config: ModelConfig,
    params: Params,
    batch: Any,
    policy: TopK,
    *,
    ranks: Ranks | None,
    execution: Execution,
) -> tuple[RouterStats, Array | None]:
    """The statistics of one `Batch`: each array has layers with experts and classes
    before its own dimensions. And `head_sums` of each layer, [X, B, C, Z, 4].
    """
    context = Context(execution, DeviceContext(execution.layout))
    decoder = bind(config, params, context)
    count, size = batch.tokens.shape
    position = jnp.tile(jnp.arange(size, dtype=jnp.int32), count)
    lengths = (batch.lengths, batch.prompt_lengths)
    length, prompt = (jnp.repeat(a, size) for a in lengths)
    forced = batch.routes.reshape(count * size, *batch.routes.shape[2:])
    active = position < length
    sequences = Sequences(position, length, active, count, keep=False)

    def choose(layer: Array | int, ranking: Float[Array, "N E"]) -> Int[Array, "N K"]:
        here = policy.at_layer(layer)
        given = of_layer(forced, layer, jnp.int32)
        return choose_experts(here, ranking, None, forced=given, active=active)

    passed = decoder.run(
        batch.tokens.reshape(-1),
        whole_sequences(sequences, context),
        choose,
        context,
        width=policy.width,
        keep_rankings=True,
    )
    assert passed.rankings is not None
    classes = jnp.stack([active & (position < prompt), active & (position >= prompt)])
    start = empty(config.num_experts, _allowed(config))

    def one_layer(given: tuple[Array, Array]) -> tuple[RouterStats, Array | None]:
        ranking, experts = given
        heads = None
        if ranks is not None:
            heads = head_sums(ranking, classes, position, count, ranks)
        stats = jax.vmap(lambda mask: update(start, ranking, experts, mask))(classes)
        return stats, heads

    experts = jnp.moveaxis(passed.routes[:, np.array(config.moe_layers)], 1, 0)
    # A loop over layers, so that what is summed up is compiled once.
    return jax.lax.map(one_layer, (passed.rankings, experts.astype(jnp.int32)))


def _allowed(config: ModelConfig) -> int:
    """How many experts a token may have in each layer; statistics are of these.

    They are of softmax(ranking), by which policies draw: the softmax of the logits, or
    of a sigmoid's scores each one's share, among the experts of the groups that the
    model confines a token to.
    """
    layers = (config.layers[i].feed_forward for i in config.moe_layers)
    found = {ff.allowed_experts for ff in layers if isinstance(ff, MoEConfig)}
    if len(found) > 1:
        raise ValueError(
            "router statistics need equally many experts to choose from in each layer, "
            f"found {sorted(found)}; the groups of the layers differ"
        )
    return found.pop()
