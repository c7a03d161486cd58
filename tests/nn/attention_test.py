"""The attention mixer with each of its parts, by the formula and step by step."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.config import AttentionConfig, NormConfig, RopeConfig
from jaxmoe.nn.attention import Attention
from jaxmoe.nn.base import Context, Sequences, Step
from jaxmoe.nn.decoder import Decoder, abstract_params, logical_axes
from jaxmoe.nn.key_values import KeyValues
from tests.tiny import CONTEXT, every_part, tiny_config, tiny_params

PLAIN = AttentionConfig(4, 2, 8)
EVERY = every_part(tiny_config()).layers[0].mixer
KINDS = {
    "plain": PLAIN,
    "no norm": replace(PLAIN, qk_norm=None),
    "projection": replace(PLAIN, qk_norm="projection", clip=0.5),
    "qkv bias": replace(PLAIN, qkv_bias=True),
    "output bias": replace(PLAIN, output_bias=True),
    "scale": replace(PLAIN, scale=0.7, window=5),
    "partial": replace(PLAIN, rope=RopeConfig(width=4)),
    "neighbours": replace(PLAIN, rope=RopeConfig(pairs="neighbours")),
    "sinks": replace(PLAIN, sinks=True),
    "gate": replace(PLAIN, gate=True),
    "all": EVERY,
}
kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
NORM = NormConfig(cast="last", offset=1.0)
MIXER = "layers.0.mixer."
T, D = 12, 32


def _config(kind: AttentionConfig):
    dense, mixture = tiny_config(norm=NORM).layers
    layers = (replace(dense, mixer=kind), mixture)
    return tiny_config(norm=NORM, layers=layers)


def _mixer(kind: AttentionConfig, params) -> Attention:
    mixer = Decoder(_config(kind), params, CONTEXT.execution).layers()[0].mixer
    assert isinstance(mixer, Attention)
    return mixer


def _rows() -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=(T, D)), jnp.float32)


def _prefill(kind, params, x, form="chunked", keep=False):
    """The output of one sequence, and what is kept of it."""
    context = Context(replace(CONTEXT.execution, attention=form), CONTEXT.device)
    place = jnp.arange(len(x), dtype=jnp.int32)
    sequences = Sequences(place, place + 1, jnp.ones(len(x), bool), 1, keep)
    run = lambda params, x: _mixer(kind, params).prefill(x, sequences, context)  # noqa: E731
    return jax.jit(run)(params, x)


# -- the formula, in float64 -----------------------------------------------------------


def _turned(rope: RopeConfig, head: np.ndarray, position: int) -> np.ndarray:
    """One head [A], pair by pair."""
    head, width = head.copy(), rope.turned(len(head))
    for i in range(width // 2):
        halves = rope.pairs == "halves"
        at = [i, i + width // 2] if halves else [2 * i, 2 * i + 1]
        angle = position * rope.theta ** (-2 * i / width)
        x, y = head[at]
        head[at] = (
            x * np.cos(angle) - y * np.sin(angle),
            y * np.cos(angle) + x * np.sin(angle),
        )
    return head


def _normed(kind: AttentionConfig, heads: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Heads [H, A] of one row."""
    axis = -1 if kind.qk_norm == "head" else None
    square = (heads**2).mean(axis=axis, keepdims=True)
    return heads / np.sqrt(square + NORM.eps) * (NORM.offset + scale)


def _heads(kind: AttentionConfig, p: dict, row: np.ndarray, position: int):
    """Queries, keys, values and gates of one row."""
    q, k, v = (
        p[f"{n}.weight"] @ row + (p[f"{n}.bias"] if kind.qkv_bias else 0) for n in "qkv"
    )
    q, gate = (q[:, 0], q[:, 1]) if kind.gate else (q, None)
    if kind.qk_norm is not None:
        q, k = (_normed(kind, a, p[f"{n}_norm.scale"]) for n, a in (("q", q), ("k", k)))
    if kind.clip is not None:
        q, k, v = (np.clip(a, -kind.clip, kind.clip) for a in (q, k, v))
    q, k = ([_turned(kind.rope, head, position) for head in a] for a in (q, k))
    return np.array(q), np.array(k), v, gate


def _expected(kind: AttentionConfig, params, x) -> np.ndarray:
    p = {
        name.removeprefix(MIXER): np.asarray(value, np.float64)
        for name, value in params.items()
        if name.startswith(MIXER)
    }
    rows = [_heads(kind, p, row, t) for t, row in enumerate(np.asarray(x, np.float64))]
    scale = kind.head_dim**-0.5 if kind.scale is None else kind.scale
    out = []
    for t, (q, _, _, gate) in enumerate(rows):
        first = 0 if kind.window is None else max(0, t + 1 - kind.window)
        found = np.zeros_like(q)
        for h in range(kind.num_heads):
            g = h // (kind.num_heads // kind.num_kv_heads)
            keys, values = (
                np.array([row[i][g] for row in rows[first : t + 1]]) for i in (1, 2)
            )
            weights = np.exp(scale * (keys @ q[h]))
            total = weights.sum() + (np.exp(p["sinks"][h]) if kind.sinks else 0)
            found[h] = weights @ values / total
        if gate is not None:
            found = found / (1 + np.exp(-gate))
        o = np.einsum("dha,ha->d", p["o.weight"], found)
        out.append(o + (p["o.bias"] if kind.output_bias else 0))
    return np.array(out)


@kinds
def test_equals_the_formula(kind):
    """A part would be left out, taken twice, or put in another place."""
    params = tiny_params(_config(kind))
    found, _ = _prefill(kind, params, _rows())
    np.testing.assert_allclose(found, _expected(kind, params, _rows()), atol=2e-5)


@pytest.mark.parametrize("form", ["whole", "dense"])
def test_forms_agree(form):
    """A part would be missing on accelerators, or in training."""
    params = tiny_params(_config(EVERY))
    one, other = (_prefill(EVERY, params, _rows(), f)[0] for f in ("chunked", form))
    np.testing.assert_allclose(one, other, atol=2e-5)


@pytest.mark.thorough
def test_each_part_is_felt():
    """The formula would be met by parts that do nothing."""
    params = tiny_params(_config(EVERY))
    out, _ = _prefill(EVERY, params, _rows())
    names = [n for n in params if n.startswith(MIXER)]
    assert len(names) == 4 + 4 + 2 + 1  # projections, biases, norms, sinks
    for name in names:
        without, _ = _prefill(EVERY, params | {name: 0 * params[name]}, _rows())
        assert abs(without - out).max() > 1e-2, name


@pytest.mark.thorough
@pytest.mark.parametrize("form", ["chunked", "whole"])
@pytest.mark.parametrize("name", ["sinks", "gate", "all"])
def test_steps_are_the_pass_over_the_whole(name, form):
    """A sink counted in prefix and suffix, or a gate of another row."""
    kind, first = KINDS[name], 9
    params, x = tiny_params(_config(kind)), _rows()
    expected, _ = _prefill(kind, params, x, form)
    _, kept = _prefill(kind, params, x[:first], form, keep=True)
    context = Context(replace(CONTEXT.execution, attention=form), CONTEXT.device)
    prefix = jax.tree.map(lambda a: a[None], kept)
    room = {"layers": 1, "rows": 2, "size": 128, "dtype": jnp.float32}
    own = KeyValues.empty(kind, **room, layout=CONTEXT.execution.layout)

    @jax.jit
    def one(params, row, own, position):
        both = jnp.ones(2, jnp.int32)
        step = Step(
            positions=both * position,
            start=both * first,
            active=jnp.ones(2, bool),
            longest=position + 1 - first,
            prompt_lengths=jnp.array([first]),
            blocks=None,
            block=2,
        )
        rows = jnp.stack([row, row])
        return _mixer(kind, params).decode(rows, 0, prefix, own, step, context)

    for t in range(first, T):
        out, own = one(params, x[t], own, jnp.int32(t))
        np.testing.assert_allclose(out[0], expected[t], atol=2e-5)


def test_what_a_kind_does_not_have_is_not_declared():
    """Converted stores of families without such parts would no longer be read."""
    names = {n.removeprefix(MIXER) for n in abstract_params(_config(PLAIN))}
    found = {n for n in names if not n.startswith(("layers", "embed", "head", "final"))}
    norms = {"q_norm.scale", "k_norm.scale"}
    assert found - norms == {f"{part}.weight" for part in "qkvo"} and norms <= found


def test_parts_are_divided_as_their_heads():
    """Sinks and gates would lie on another device than the heads that they are of."""
    axes = logical_axes(_config(EVERY))
    assert axes[MIXER + "sinks"] == ("heads",)
    assert axes[MIXER + "q.weight"] == ("heads", "query_gate", "head_dim", "embed")
    assert axes[MIXER + "q.bias"] == axes[MIXER + "q.weight"][:-1]
