"""Where every random number comes from.

One caller's key gives each sample i, each absolute position t of it, and each layer
l a key of its own, by `fold_in` alone:

    sample    k_i  = fold_in(key, i)
    position  k_it = fold_in(k_i, t)
    token     fold_in(k_it, TOKEN)                draws the token that stands at t
    route     fold_in(fold_in(k_it, ROUTE), l)    routes that same token in layer l

So the token at t and its way through the experts depend on the one key k_it, and any
single choice can be made again from (key, i, t, l) with nothing else known.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxmoe.random import threefry
from jaxmoe.typing import Array, Float, Integer, Key

TOKEN = 0
ROUTE = 1
ROUTES = 2


def check_key(key: object) -> None:
    """Raise unless `key` is one typed threefry key, as `jax.random.key(0)` makes.

    Raises:
      TypeError: a raw uint32 key, or no key at all.
      ValueError: another implementation (`rbg` draws other numbers under `vmap` than
        in a loop, so a sample would depend on its batch), or an array of keys.
    """
    if not isinstance(key, jax.Array) or not jnp.issubdtype(
        key.dtype, jax.dtypes.prng_key
    ):
        found = f"{key.dtype}{list(key.shape)}" if hasattr(key, "dtype") else repr(key)  # type: ignore[attr-defined]
        raise TypeError(
            "key must be a typed PRNG key such as jax.random.key(0), or a seed, found "
            f"{found}; wrap a raw key with jax.random.wrap_key_data(raw)"
        )
    implementation = str(jax.random.key_impl(key))
    if implementation != threefry.NAME:
        raise ValueError(
            f"key must be a {threefry.NAME} key, found {implementation}, whose "
            "numbers change with the batch; make it with "
            f"jax.random.key(seed, impl='{threefry.NAME}')"
        )
    if key.shape:
        raise ValueError(
            f"key must be a single key, found an array of shape {key.shape}; "
            "pass one key, or a list of keys with a list of prompts"
        )


def as_key(key: object) -> Key[Array, ""]:
    """`key` checked; an integer is a seed, and stands for `jax.random.key(seed)`.

    Raises:
      TypeError, ValueError: as of `check_key`; a seed that does not fit 32 bits, of
        which JAX would take the last 32.
    """
    if isinstance(key, int | np.integer) and not isinstance(key, bool):
        if not 0 <= key < 1 << 32:
            raise ValueError(
                f"a seed must be in 0..{(1 << 32) - 1}, found {key}; or pass a key, "
                "jax.random.fold_in(jax.random.key(high), low)"
            )
        return jax.random.key(int(key), impl=threefry.NAME)
    check_key(key)
    return key  # type: ignore[return-value]


def prompt_key(key: Key[Array, ""], prompt: Integer[Array, ""] | int) -> Key[Array, ""]:
    """The key of prompt `prompt` where one key serves a list of prompts."""
    return jax.random.fold_in(key, prompt)


def sample_key(key: Key[Array, ""], sample: Integer[Array, ""] | int) -> Key[Array, ""]:
    """k_i, the key of sample `sample` of a prompt."""
    return jax.random.fold_in(key, sample)


def sample_keys(key: Key[Array, ""], n: int) -> Key[Array, "S"]:
    """k_0 .. k_{n-1}; each is what `sample_key` gives, whatever n."""
    return jax.vmap(lambda i: sample_key(key, i))(jnp.arange(n, dtype=jnp.int32))


def position_key(
    key: Key[Array, ""], position: Integer[Array, ""] | int
) -> Key[Array, ""]:
    """k_it of the token at absolute position `position`, from k_i.

    It, and all keys made from it, are of the implementation
    `jaxmoe.random.threefry`: they draw the numbers of threefry keys, 32 bits each,
    and compile and run faster on CPU.
    """
    return jax.random.fold_in(threefry.unrolled(key), position)


def token_key(key: Key[Array, ""]) -> Key[Array, ""]:
    """The key that draws the token, from k_it."""
    return jax.random.fold_in(key, TOKEN)


def route_key(key: Key[Array, ""], layer: Integer[Array, ""] | int) -> Key[Array, ""]:
    """The key that routes the token in layer `layer`, from k_it."""
    return jax.random.fold_in(jax.random.fold_in(key, ROUTE), layer)


def ensemble_keys(key: Key[Array, ""], routes: int) -> Key[Array, "J"]:
    """k_it of each of a token's routes, from k_it: the first is k_it itself."""
    others = jnp.arange(1, routes, dtype=jnp.int32)
    base = jax.random.fold_in(key, ROUTES)
    folded = jax.vmap(lambda j: jax.random.fold_in(base, j))(others)
    return jnp.concatenate([key[None], folded])


def route_noise(
    key: Key[Array, ""], num_layers: int, num_experts: int
) -> Float[Array, "L E"]:
    """Gumbel noise of every expert in every layer, for one token, from k_it.

    Row l is `jax.random.gumbel(route_key(key, l), (E,))`; all rows are drawn in one
    call because deriving them layer by layer costs several times as much per step.
    """
    layers = jnp.arange(num_layers, dtype=jnp.int32)
    draw = lambda l: jax.random.gumbel(route_key(key, l), (num_experts,))  # noqa: E731
    return jax.vmap(draw)(layers)
