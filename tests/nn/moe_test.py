"""The mixture of experts: biases, scoring rules and shared experts, by the formula."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxmoe
from jaxmoe.config import LayerConfig, MoEConfig, SharedConfig
from jaxmoe.nn.decoder import Decoder, abstract_params, logical_axes, stack_params
from jaxmoe.nn.moe import MoEFeedForward
from jaxmoe.ops.activations import ClippedSwiGLU, SwiGLU
from jaxmoe.router.scores import SigmoidScores, SoftmaxScores
from tests.tiny import (
    CONTEXT,
    EXECUTION,
    as_bits,
    every_part,
    prompt_of,
    tiny_config,
    tiny_params,
)

E, K, F = 16, 4, 24
PLAIN = MoEConfig(E, K, F, SoftmaxScores(normalise=True))
CLIPPED = ClippedSwiGLU(limit=1.0)  # 7 would never bind here
KINDS = {
    "plain": PLAIN,
    "probabilities": replace(PLAIN, scoring=SoftmaxScores(normalise=False)),
    "clipped": replace(PLAIN, activation=CLIPPED),
    "bias": replace(PLAIN, bias=True),
    "shared": replace(PLAIN, shared=SharedConfig(20)),
    "gated": replace(PLAIN, shared=SharedConfig(20, gate=True)),
    "sigmoid": replace(PLAIN, scoring=SigmoidScores(scale=2.5, choice_bias=True)),
    "inputs first": replace(PLAIN, bias=True, weights="inputs_first"),
    "all": every_part(tiny_config()).layers[1].feed_forward,
}
FF = "layers.1.feed_forward."


def _config(kind: MoEConfig, mixtures: int = 1):
    """A dense layer, then mixtures of this kind."""
    dense, mixture = tiny_config().layers
    layer = LayerConfig(mixture.mixer, kind)
    return tiny_config(layers=(dense, *(layer,) * mixtures))


def _top_k(_, ranking):
    return lax.top_k(ranking, K)[1].astype(jnp.int32)


def _ff(config, params, execution=EXECUTION) -> MoEFeedForward:
    found = Decoder(config, params, execution).layers()[1].feed_forward
    assert isinstance(found, MoEFeedForward)
    return found


def _run(config, params, x, context=CONTEXT):
    """The output and the experts of rows."""
    run = jax.jit(
        lambda params, x: _ff(config, params, context.execution)(x, 1, _top_k, context)
    )
    out, (experts, *_) = run(params, x)
    return np.asarray(out), np.asarray(experts)


def _rows(count: int, seed: int = 0) -> jax.Array:
    values = np.random.default_rng(seed).normal(size=(count, 32))
    return jnp.asarray(values, jnp.float32)


# -- the formula, in float64 -----------------------------------------------------------


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _hidden(activation, gate, up):
    if isinstance(activation, SwiGLU):
        return gate * _sigmoid(gate) * up
    gate = np.minimum(gate, activation.limit)
    up = np.clip(up, -activation.limit, activation.limit)
    return (up + 1) * gate * _sigmoid(activation.alpha * gate)


def _expected(kind: MoEConfig, params, x):
    """The output and the experts of rows, one by one."""
    p = {
        name.removeprefix(FF): np.asarray(value, np.float64)
        for name, value in params.items()
        if name.startswith(FF)
    }
    if kind.weights == "inputs_first":
        p["gate_up"] = p["gate_up.values"].transpose(0, 3, 2, 1)
        p["down"] = p["down.values"].transpose(0, 2, 1)
        p["gate_up_bias"] = p["gate_up_bias"].transpose(0, 2, 1)
    outs, chosen = [], []
    for row in np.asarray(x, np.float64):
        logits = p["router.weight"] @ row + p.get("router.bias", 0.0)
        scores = np.exp(logits) / np.exp(logits).sum()
        if isinstance(kind.scoring, SigmoidScores):
            scores = _sigmoid(logits)
        chosen_by = scores + p.get("router.choice_bias", 0.0)
        if (groups := kind.scoring.groups) is not None:
            apart = np.sort(chosen_by.reshape(groups.count, -1), axis=1)
            best = np.argsort(-apart[:, -groups.best :].sum(axis=1))[: groups.kept]
            here = np.isin(np.arange(E) // (E // groups.count), best)
            chosen_by = np.where(here, chosen_by, -np.inf)
        experts = np.argsort(-chosen_by)[:K]
        weights = scores[experts] * kind.scoring.scale
        if kind.scoring.normalise:
            weights = weights / scores[experts].sum()
        out = np.zeros_like(row)
        for e, w in zip(experts, weights, strict=True):
            both = p["gate_up"][e] @ row
            if kind.bias:
                both = both + p["gate_up_bias"][e]
            part = p["down"][e] @ _hidden(kind.activation, *both)
            out += w * (part + p["down_bias"][e] if kind.bias else part)
        if kind.shared is not None:
            both = p["shared.gate_up"] @ row
            part = p["shared.down"] @ _hidden(kind.activation, *both)
            gate = _sigmoid(p["shared.gate"][0] @ row) if kind.shared.gate else 1.0
            out += gate * part
        outs.append(out)
        chosen.append(experts)
    return np.array(outs), np.array(chosen)


@pytest.mark.parametrize(
    ("kind", "rows"),
    [
        *(pytest.param(kind, 7, id=name) for name, kind in KINDS.items()),
        *(pytest.param(KINDS["all"], rows, id=f"all, {rows} rows") for rows in (1, 40)),
    ],
)
def test_equals_the_formula(kind, rows):
    """A bias, an activation or the shared expert would be left out, or taken twice."""
    config = _config(kind)
    params, x = tiny_params(config), _rows(rows)
    found, experts = _run(config, params, x)
    expected, chosen = _expected(kind, params, x)
    np.testing.assert_array_equal(experts, chosen)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.thorough
def test_each_part_is_felt():
    """The formula would be met by parts that do nothing."""
    config = _config(KINDS["all"])
    params, x = tiny_params(config), _rows(7)
    whole, _ = _run(config, params, x)
    names = [n for n in params if n.startswith(FF)]
    assert len(names) == 10
    for name in names:
        without, _ = _run(config, params | {name: 0 * params[name]}, x)
        assert abs(without - whole).max() > 1e-2, name


# Of others the weights are among those of "all".
@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["plain", "all"])
@pytest.mark.optimised
def test_bits_are_the_bfloat16_values(kind):
    """Weights held as bits would be multiplied as integers."""
    config = _config(KINDS[kind])
    model = jaxmoe.Model(config, tiny_params(config))
    bits, wide = as_bits(model)
    assert all(w.dtype == jnp.uint16 for w in bits.params.values())
    one, other = (_run(config, m.params, _rows(7))[0] for m in (bits, wide))
    np.testing.assert_array_equal(one, other)


@pytest.mark.thorough
@pytest.mark.parametrize("rows", [8, 100, 300])
@pytest.mark.optimised
def test_a_row_does_not_feel_its_place(rows):
    """A sample would change with its slot (promise 2)."""
    config = _config(KINDS["all"])
    params, x = tiny_params(config), _rows(rows)
    order = np.random.default_rng(1).permutation(rows)
    found, _ = _run(config, params, x)
    turned, _ = _run(config, params, x[order])
    np.testing.assert_array_equal(found[order], turned)


@pytest.mark.slow  # families do it by default
@pytest.mark.parametrize("kind", [KINDS["shared"], KINDS["all"]], ids=["shared", "all"])
def test_decoding_is_the_pass_over_the_whole(kind):
    """Prompts and steps would compute different models, scanned layers another."""
    config = replace(_config(kind, mixtures=2), stop_ids=())
    params = tiny_params(config)
    unrolled = jaxmoe.Model(config, params)
    scanned = jaxmoe.Model(config, stack_params(config, params))
    assert "layers.1:3.feed_forward.down" in scanned.params
    prompt = prompt_of(9)
    drawn, again = (
        jaxmoe.sample(
            model,
            prompt,
            key=jax.random.key(0),
            n=2,
            max_new_tokens=6,
            return_routes=True,
        )
        for model in (unrolled, scanned)
    )
    assert np.array_equal(drawn.tokens, again.tokens)
    assert np.array_equal(drawn.routes, again.routes)
    # Not to the bit with every part: see "Equal bits" of jaxmoe/docs/design.md.
    np.testing.assert_allclose(drawn.logprobs, again.logprobs, atol=1e-5)
    ids = np.concatenate([prompt, drawn.tokens[0]])
    routes = jaxmoe.place_routes(len(prompt), 6, drawn.routes[0])
    logits = jaxmoe.forward(unrolled, ids, policy=jaxmoe.TopK(), routes=routes)
    logprobs = jax.nn.log_softmax(np.asarray(logits)[len(prompt) - 1 : -1])
    found = logprobs[np.arange(6), drawn.tokens[0]]
    np.testing.assert_allclose(drawn.logprobs[0], found, atol=2e-4)


# -- the type of the weights -----------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.parametrize("weight_type", ["activations", "float32"])
def test_weights_have_the_type_that_the_rule_says(weight_type):
    """Families differ: rounded to bfloat16 first, or not, changes a sum."""
    scoring = SoftmaxScores(True, weight_type=weight_type)
    config = _config(replace(PLAIN, scoring=scoring))
    params = {n: w.astype(jnp.bfloat16) for n, w in tiny_params(config).items()}
    x = _rows(40).astype(jnp.bfloat16)
    found, experts = _run(config, params, x)
    ff = _ff(config, params)
    logits = ff.router(x, CONTEXT)
    weights = scoring.weights(logits, jnp.asarray(experts))
    rounded = weights.astype(jnp.bfloat16)
    assert (rounded.astype(jnp.float32) != weights).any()
    both = [
        np.asarray(ff.apply(x, jnp.asarray(experts), w, CONTEXT))
        for w in (rounded, weights)
    ]
    assert (both[0] != both[1]).any()
    expected = both[0] if weight_type == "activations" else both[1]
    np.testing.assert_array_equal(found, expected)


# -- names -----------------------------------------------------------------------------


def test_what_a_kind_does_not_have_is_not_declared():
    """Converted stores of families without such parts would no longer be read."""
    names = {n.removeprefix(FF) for n in abstract_params(_config(PLAIN)) if FF in n}
    assert names == {"router.weight", "gate_up", "down"}


def test_every_part_is_divided_as_what_it_belongs_to():
    """Biases and shared experts would lie whole on every device, or be cut apart."""
    axes = logical_axes(_config(KINDS["all"]))
    assert axes[FF + "gate_up_bias"] == axes[FF + "gate_up"][:-1]
    assert axes[FF + "down_bias"] == axes[FF + "down"][:-1]
    for name in ("bias", "choice_bias"):
        assert axes[f"{FF}router.{name}"] == axes[FF + "router.weight"][:-1]
    dense = "layers.0.feed_forward."
    for name in ("gate_up", "down"):
        assert axes[f"{FF}shared.{name}"] == axes[dense + name]
