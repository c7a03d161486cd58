"""The convolution against NumPy's."""

import jax.numpy as jnp
import numpy as np

from jaxmoe.ops.causal_conv import causal_conv


def test_every_channel_has_its_own():
    """Channels would be mixed, or positions be taken in reverse or from the future."""
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(12, 2, 3)), rng.normal(size=(2, 3, 4))
    found = causal_conv(jnp.asarray(x), jnp.asarray(weight))
    assert found.shape == (9, 2, 3) and found.dtype == jnp.float32
    for g in range(2):
        for c in range(3):
            expected = np.convolve(x[:, g, c], weight[g, c, ::-1], mode="valid")
            np.testing.assert_allclose(found[:, g, c], expected, atol=1e-5)
