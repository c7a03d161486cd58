"""Token samplers: which token follows, given logits and a key.

The filters and their order are transformers': temperature, top-k, top-p, min-p. What
changes logits before them (penalties, biases, bans) is vLLM's, in its order, and
depends on the tokens so far: `jaxmoe.decode.adjustments` computes it.

The draw itself needs one uniform number: tokens are laid end to end in order of id,
each as long as its probability, and the one at the drawn point is taken. Order of id,
not of rank: two nearly tied tokens that swap ranks under other rounding change nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from jaxmoe.config import GenerationConfig
from jaxmoe.ops.top_k import whole_top_k
from jaxmoe.random.keys import token_key
from jaxmoe.text.grammar import schema_text
from jaxmoe.typing import Array, ArrayLike, Bool, Float, Int, Key, pytree

_BLOCK = 512

TINY, TOP = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)

ADJUSTING = (
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "logit_bias",
    "min_tokens",
    "bad_words",
)
"""Fields that change logits before the filters (`jaxmoe.decode.adjustments`)."""

GUIDING = ("json_schema", "regex")
"""Fields that say which tokens may come next at all (`jaxmoe.text.grammar`)."""


BadWords = Sequence[str | Sequence[int]]

LONGEST_WORD = 32
"""Tokens of a bad word; every slot keeps room for the longest of all."""


@pytree("min_tokens", "bad_words", "json_schema", "regex", "candidates")
@dataclass(frozen=True, repr=False)
class TokenSampler:
    """How the next token is drawn.

    temperature: logits are divided by it; 0 takes the most likely token (argmax).
    top_k: draw from the k most likely tokens (and those tied with the k-th); None, 0
      or -1 for all.
    top_p: draw from the fewest most likely tokens whose probabilities, at this
      temperature and after top_k, reach top_p; None or 1 for all.
    min_p: drop tokens less likely than min_p times the most likely; None or 0 for
      none.
    presence_penalty: taken from the logit of each token that the answer has already;
      -2 to 2; None or 0 for none.
    frequency_penalty: taken from a token's logit as often as the answer has it; -2 to
      2; None or 0 for none.
    repetition_penalty: divides positive logits, and multiplies others, of tokens that
      prompt or answer have; above 0; None or 1 for none.
    logit_bias: token id -> what is added to its logit; -inf bans it; None for none.
    min_tokens: end and stop tokens are banned, and stop strings overlooked, until the
      answer has so many tokens; None or 0 for none.
    bad_words: texts or token ids in a row that an answer must not have; None for none.
    json_schema: a JSON schema, or its text, that an answer must follow; None for none.
    regex: a regular expression that a whole answer must match; None for none.
    candidates: set by `resolve`: the best so many tokens are enough to look at.

    The first seven may be arrays, and other values compile nothing anew; turning a
    filter on or off does.
    """

    temperature: ArrayLike = 1.0
    top_k: ArrayLike | None = None
    top_p: ArrayLike | None = None
    min_p: ArrayLike | None = None
    presence_penalty: ArrayLike | None = None
    frequency_penalty: ArrayLike | None = None
    repetition_penalty: ArrayLike | None = None
    logit_bias: Mapping[int, ArrayLike] | None = None
    min_tokens: int | None = None
    bad_words: BadWords | None = None
    json_schema: str | Mapping[str, Any] | None = None
    regex: str | None = None
    candidates: int | None = field(
        default=None, kw_only=True, metadata={"derived": True}
    )

    def __repr__(self) -> str:
        """As of any dataclass, but for adjustments that are not asked for.

        A run's identity holds this text, and must not change with every new field.
        """
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        shown = [
            f"{name}={value!r}"
            for name, value in given.items()
            if name not in (*ADJUSTING, *GUIDING) or value is not None
        ]
        return f"TokenSampler({', '.join(shown)})"

    @classmethod
    def from_config(cls, config: GenerationConfig) -> "TokenSampler":
        """What a checkpoint's `generation_config.json` asks for."""
        return cls(
            config.temperature,
            config.top_k,
            config.top_p,
            config.min_p,
            repetition_penalty=config.repetition_penalty,
        )

    def resolve(self, vocab_size: int) -> "TokenSampler":
        """Numbers checked and made arrays, filters that filter nothing dropped.

        Raises:
          ValueError: a concrete value out of its range.
        """
        top_k = _number("top_k", self.top_k, -1, np.inf, np.int32, off=(0, -1))
        candidates = None
        if isinstance(top_k, np.ndarray):
            # Room for ties with the k-th, and a compiled shape that nearby k share.
            candidates = 32
            while candidates < int(top_k) + 8:
                candidates *= 2
            candidates = candidates if candidates < vocab_size else None
        return replace(
            self,
            temperature=_number("temperature", self.temperature, 0, np.inf),
            top_k=top_k,
            top_p=_number("top_p", self.top_p, 0, 1, off=(1,)),
            min_p=_number("min_p", self.min_p, 0, 1, off=(0,)),
            presence_penalty=self._penalty("presence_penalty"),
            frequency_penalty=self._penalty("frequency_penalty"),
            repetition_penalty=_number(
                "repetition_penalty", self.repetition_penalty, TINY, np.inf, off=(1,)
            ),
            logit_bias=_bias(self.logit_bias, vocab_size),
            min_tokens=_least(self.min_tokens),
            bad_words=_words(self.bad_words, vocab_size),
            **self._guides(),
            candidates=candidates,
        )

    def _penalty(self, name: str) -> Any:
        return _number(name, getattr(self, name), -2, 2, off=(0,))

    def _guides(self) -> dict[str, str | None]:
        """The grammar's text, checked against what would leave it no token."""
        schema = None if self.json_schema is None else schema_text(self.json_schema)
        if self.regex is not None and not isinstance(self.regex, str):
            raise TypeError(f"sampler: regex must be a string, found {self.regex!r}")
        asked = [n for n in GUIDING if getattr(self, n) is not None]
        banning = [n for n in ("min_tokens", "bad_words") if getattr(self, n)]
        if any(value == -np.inf for value in (self.logit_bias or {}).values()):
            banning.append("logit_bias of -inf")
        if len(asked) > 1 or (asked and banning):
            raise ValueError(
                f"sampler: {asked[0]} must stand alone, found "
                f"{', '.join([*asked[1:], *banning])} beside it, which could leave no "
                "token to draw; leave one out"
            )
        return {"json_schema": schema, "regex": self.regex}

    @property
    def guided(self) -> bool:
        """Whether answers follow a grammar."""
        return self.json_schema is not None or self.regex is not None

    @property
    def adjusts(self) -> bool:
        """Whether a resolved one changes logits before it draws."""
        return any(getattr(self, name) is not None for name in ADJUSTING)

    def without_adjustments(self) -> "TokenSampler":
        """What is left to do where logits have been adjusted."""
        return replace(self, **dict.fromkeys((*ADJUSTING, *GUIDING)))

    def draw(self, key: Key[Array, ""], logits: Float[Array, "V"]) -> Int[Array, ""]:
        """One token id, int32; `key` is the position's (`jaxmoe.random.keys`)."""
        if self.candidates is None:
            best, greedy, weights = self.weigh(logits)
            return jnp.where(greedy, best, locate(key, self.filtered(weights)))
        return self.draw_ranked(key, logits, self.candidates)

    def draw_ranked(
        self,
        key: Key[Array, ""],
        logits: Float[Array, "V"],
        count: int,
        most: Int[Array, ""] | None = None,
    ) -> Int[Array, ""]:
        """One token of the best `count`, or of the best `most` of them."""
        # To `top_k`, 0.0 and -0.0 are no equals, and a negative NaN is the least.
        logits = jnp.where(logits == 0, 0.0, logits)
        logits = jnp.where(jnp.isnan(logits), jnp.nan, logits)
        values, ids = whole_top_k(logits, count)
        _, greedy, weights = self.weigh(values, best=0)
        if most is not None:
            weights = jnp.where(jnp.arange(count) < most, weights, 0.0)
        drawn = _pick(key, self.filtered(weights, ranked=True), ids)
        return jnp.where(greedy, ids[0].astype(jnp.int32), drawn)

    def weigh(
        self, logits: Float[Array, "Q"], *, best: int | None = None
    ) -> tuple[Int[Array, ""], Bool[Array, ""], Float[Array, "Q"]]:
        """The most likely index, whether it is taken, and all weights before filters.

        best: that index, where it is known. Weights are exp((logit - highest) / T).
        """
        first = jnp.argmax(logits).astype(jnp.int32) if best is None else best
        highest = logits[first]
        # Logits that are NaN or infinite leave nothing to draw from: some id of the
        # vocabulary must come out all the same.
        greedy = (jnp.asarray(self.temperature) == 0) | ~jnp.isfinite(highest)
        scaled = (logits - highest) / jnp.where(greedy, 1.0, self.temperature)
        return jnp.asarray(first, jnp.int32), greedy, jnp.exp(scaled)

    def filtered(
        self, weights: Float[Array, "Q"], *, ranked: bool = False
    ) -> Float[Array, "Q"]:
        """`weights`, which are 1 for the most likely, with filtered tokens at 0.

        ranked: whether they are few, and come the most likely first.
        """
        reaching = _first_reaching if ranked else _largest_reaching
        if self.top_k is not None:
            everything = weights.shape[0]
            some = jnp.minimum(jnp.asarray(self.top_k), everything)
            # A 0 that was traced: `resolve` could not see that the filter is off.
            enough = jnp.where(some <= 0, everything, some).astype(jnp.float32)
            lowest = reaching(weights, jnp.ones_like(weights), enough)
            weights = jnp.where(weights >= lowest, weights, 0.0)
        if self.top_p is not None:
            # At top_p 0 the most likely token stays: its weight is 1.
            mass = jnp.maximum(self.top_p * weights.sum(), jnp.finfo(jnp.float32).tiny)
            lowest = reaching(weights, weights, mass)
            # A 1 that is one slot's of many: rounding must not drop the last token.
            lowest = jnp.where(jnp.asarray(self.top_p) >= 1, 0.0, lowest)
            weights = jnp.where(weights >= lowest, weights, 0.0)
        if self.min_p is not None:
            weights = jnp.where(weights >= self.min_p, weights, 0.0)
        return weights


def log_probability(
    logits: Float[Array, "V"], token: Int[Array, ""]
) -> Float[Array, ""]:
    """Of `token` under the model's own distribution: no temperature, no filter."""
    return logits[token] - jax.nn.logsumexp(logits)


def self_certainty(logits: Float[Array, "V"]) -> Float[Array, ""]:
    """KL(uniform || model) of the next token, nats: how far from undecided it is.

    - log V - mean over v of log p_v, p the model's own distribution: no temperature,
    no filter. Of an answer one takes the mean over its tokens.

    Source: Kang et al. 2025 (arXiv 2502.18581), section 3.
    """
    logits = logits.astype(jnp.float32)
    return jax.nn.logsumexp(logits) - logits.mean() - jnp.log(logits.shape[0])


def is_stop(tokens: Int[Array, "S"], stop_ids: Int[Array, "S X"]) -> Bool[Array, "S"]:
    """Which tokens end their answers; each slot's `stop_ids` are padded with -1."""
    return (tokens[:, None] == stop_ids).any(axis=1)


def _number(name, value, low, high, dtype: Any = np.float32, off=()) -> Any:
    """`value` as an array, checked where concrete; None where it is one of `off`."""
    if value is None or isinstance(value, Tracer):
        return value
    number = np.asarray(value)
    if number.shape or not np.issubdtype(number.dtype, np.number):
        raise ValueError(f"sampler: {name} must be one number, found {value!r}")
    whole = dtype is not np.int32 or number == np.floor(number)
    limit = np.iinfo(np.int32) if dtype is np.int32 else np.finfo(np.float32)
    if not (low <= number <= high and number <= limit.max and whole):
        bounds = f"in {low}..{high}" if np.isfinite(high) else f"finite and >= {low}"
        bounds = "finite and above 0" if low == TINY else bounds
        kind = " and whole" if dtype is np.int32 else ""
        raise ValueError(f"sampler: {name} must be {bounds}{kind}, found {value}")
    return None if number in off else number.astype(dtype)


def _bias(given: Any, vocab: int) -> dict[int, Any] | None:
    """Biases by token id, in the order of ids; None where there are none."""
    if not given:
        return None
    if not isinstance(given, Mapping):
        raise TypeError(
            f"sampler: logit_bias must be a mapping of token ids to numbers such as "
            f"{{198: -100}}, found {given!r}"
        )
    _check_ids("logit_bias", given, vocab)
    # Its own name for each: an error must say which of them.
    read = lambda i: _number(f"logit_bias of {i}", given[i], -np.inf, TOP)  # noqa: E731
    return {int(i): read(i) for i in sorted(given)}


def _least(given: Any) -> int | None:
    """A number of tokens; None for 0."""
    whole = isinstance(given, int | np.integer) and not isinstance(given, bool)
    if given is not None and not (whole and 0 <= given < 2**31):
        raise ValueError(
            f"sampler: min_tokens must be a whole number in 0..{2**31 - 1}, found "
            f"{given!r}"
        )
    return int(given) if given else None


def _words(given: Any, vocab: int) -> tuple[tuple[int, ...], ...] | None:
    """Words as token ids, each once; None where there are none."""
    if isinstance(given, str) or not isinstance(given, Sequence | None):
        raise TypeError(
            "sampler: bad_words must be a list of texts or of lists of token ids, "
            f"found {given!r}"
        )
    found = []
    for word in given or ():
        if isinstance(word, str):
            raise ValueError(
                f"sampler: bad_words that are texts need the model's tokenizer, found "
                f"{word!r}; pass token ids, [[198, 198]]"
            )
        if not isinstance(word, Sequence) or not word:
            raise ValueError(
                "sampler: each of bad_words must have at least one token, found "
                f"{word!r}; leave it out"
            )
        if len(word) > LONGEST_WORD:
            raise ValueError(
                f"sampler: each of bad_words must have at most {LONGEST_WORD} tokens, "
                f"found one of {len(word)}; shorten it"
            )
        _check_ids("bad_words", word, vocab)
        found.append(tuple(map(int, word)))
    return tuple(dict.fromkeys(found)) or None


def _check_ids(name: str, ids: Iterable[Any], vocab: int) -> None:
    for one in ids:
        whole = isinstance(one, int | np.integer) and not isinstance(one, bool)
        if not whole or not 0 <= one < vocab:
            raise ValueError(
                f"sampler: {name} must name token ids in 0..{vocab - 1}, found {one!r}"
            )


def _largest_reaching(
    weights: Float[Array, "Q"], measure: Float[Array, "Q"], target: ArrayLike
) -> Float[Array, ""]:
    """The largest w such that the measure of {weights >= w} is at least `target`.

    Bisection over the bits of a float32 in [0, 1], which order as the floats do: 31
    passes over the weights, where sorting a vocabulary would cost far more.
    """
    as_float = lambda bits: lax.bitcast_convert_type(bits, jnp.float32)  # noqa: E731

    def halve(_, bounds):
        low, high = bounds
        middle = low + (high - low) // 2
        reached = jnp.where(weights >= as_float(middle), measure, 0.0).sum() >= target
        return jnp.where(reached, middle, low), jnp.where(reached, high, middle)

    past_one = np.float32(1).view(np.int32) + 1
    low, _ = lax.fori_loop(0, 31, halve, (jnp.int32(0), jnp.int32(past_one)))
    return as_float(low)


def _first_reaching(
    weights: Float[Array, "Q"], measure: Float[Array, "Q"], target: ArrayLike
) -> Float[Array, ""]:
    """`_largest_reaching` of weights that come the largest first."""
    return jnp.where(_running_sum(measure) >= target, weights, 0.0).max()


def _pick(
    key: Key[Array, ""], weights: Float[Array, "Q"], ids: Int[Array, "Q"]
) -> Int[Array, ""]:
    """The id at the key's point of the weights laid end to end in order of id."""
    point = jax.random.uniform(token_key(key))
    ids, weights = lax.sort((ids, weights), num_keys=1)
    end = _running_sum(weights)
    return ids[_first((end > point * end[-1]) & (weights > 0), weights > 0)]


def _running_sum(values: Float[Array, "Q"]) -> Float[Array, "Q"]:
    """Sums up to and with each of few values: one product, where a scan is many."""
    upto = np.triu(np.ones((values.shape[0], values.shape[0]), np.float32))
    return jnp.matmul(values, upto, precision=lax.Precision.HIGHEST)


def locate(key: Key[Array, ""], weights: Float[Array, "V"]) -> Int[Array, ""]:
    """The index at the key's point in [0, 1) of the weights laid end to end.

    In two levels, so that no running sum spans a whole vocabulary.
    """
    point = jax.random.uniform(token_key(key))
    # Summed alike whatever filters were before it.
    weights = lax.optimization_barrier(weights)
    size = weights.shape[0]
    rows = jnp.pad(weights, (0, -size % _BLOCK)).reshape(-1, _BLOCK)
    sums = rows.sum(axis=1)
    ends = jnp.cumsum(sums)
    goal = point * ends[-1]
    row = _first((ends > goal) & (sums > 0), sums > 0)
    inner = ends[row] - sums[row] + jnp.cumsum(rows[row])
    column = _first((inner > goal) & (rows[row] > 0), rows[row] > 0)
    return (row * _BLOCK + column).astype(jnp.int32)


def _first(reached: Bool[Array, "X"], possible: Bool[Array, "X"]) -> Int[Array, ""]:
    """First index reached; where rounding left none, the last one possible."""
    last = reached.shape[0] - 1 - jnp.argmax(possible[::-1])
    return jnp.where(reached.any(), jnp.argmax(reached), last)
