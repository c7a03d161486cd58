"""Which layers are run by one loop, and how their weights are named."""

from dataclasses import replace

import jax
import numpy as np
import pytest

import jaxmoe
from jaxmoe import execution
from jaxmoe.nn.decoder import abstract_params, logical_axes, stack_params
from jaxmoe.nn.segments import segments, stored_names
from tests.tiny import prompt_of, tiny_config, tiny_params

DENSE, MOE = tiny_config().layers
MODELS = {
    "homogeneous": ((MOE,) * 3, [(0, 1, 3)]),
    "dense first": ((DENSE, MOE, MOE, MOE), [(0, 1, 1), (1, 1, 3)]),
    "alternating": ((DENSE, MOE) * 3, [(0, 2, 3)]),
    "no period": ((MOE, DENSE, DENSE, MOE), [(0, 1, 1), (1, 1, 2), (3, 1, 1)]),
}
models = pytest.mark.parametrize("name", MODELS)


@models
def test_segments_cover_all_layers(name):
    """A layer would be run twice, or by no loop."""
    layers, expected = MODELS[name]
    config = tiny_config(layers=layers)
    found = segments(config, "scan")
    assert [(s.first, len(s.period), s.count) for s in found] == expected
    at = [
        (i, s.period[p])
        for s in found
        for p in range(len(s.period))
        for i in s.layers(p)
    ]
    assert [layer for _, layer in sorted(at, key=lambda pair: pair[0])] == list(layers)
    assert len(segments(config, "unroll")) == len(layers)


@models
def test_names_of_stacks_say_what_they_hold(name):
    """A checkpoint would be read into the wrong layer."""
    config = tiny_config(layers=MODELS[name][0])
    stacked, single = abstract_params(config, layers="scan"), abstract_params(config)
    assert sorted(n for s in stacked for n in stored_names(s)) == sorted(single)
    axes = logical_axes(config, layers="scan")
    for title, leaf in stacked.items():
        names = stored_names(title)
        count = () if names == [title] else (len(names),)
        assert leaf.shape == (*count, *single[names[0]].shape), title
        assert len(axes[title]) == len(leaf.shape)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "name", ["dense first", pytest.param("alternating", marks=pytest.mark.slow)]
)
@pytest.mark.optimised
def test_scanned_layers_compute_the_same_bits(name, monkeypatch):
    """Answers would depend on how the program is written.

    With the kernels that both have: the vectorised loop is for scanned layers.
    """
    monkeypatch.setattr(execution, "lanes_found", lambda: execution.LanesFound(1, "-"))
    config = tiny_config(layers=MODELS[name][0])
    model = jaxmoe.Model(config, tiny_params(config))
    scanned = replace(model, params=stack_params(config, model.params))
    assert (model.execution.layers, scanned.execution.layers) == ("unroll", "scan")
    one, other = (
        jaxmoe.sample(
            m,
            [prompt_of(5), prompt_of(9)],
            key=jax.random.key(1),
            n=2,
            max_new_tokens=6,
            return_routes=True,
        )
        for m in (model, scanned)
    )
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a.tokens, b.tokens)
        np.testing.assert_array_equal(a.logprobs, b.logprobs)
        np.testing.assert_array_equal(a.routes, b.routes)
