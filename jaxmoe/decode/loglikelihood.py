"""How likely given texts are: many (context, continuation) pairs at once.

A continuation that is short beside its context is computed a token a step after its
context, which all pairs that have it share; others go through one pass with theirs.
Which of the two it is depends on the pair alone.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxmoe.decode.cache import PrefixCache, bucket
from jaxmoe.decode.inputs import (
    MOST_SLOTS,
    Prompt,
    check_flag,
    check_top_logprobs,
    check_whole,
)
from jaxmoe.decode.prefill import Prompts, prefill, prompt_bucket, put_prompts
from jaxmoe.decode.prompt_loader import PREFILL_TOKENS
from jaxmoe.decode.score_inputs import (
    Continuation,
    beginning_id,
    check_pair,
    encode_pair,
    encode_plain,
)
from jaxmoe.decode.scoring import (
    Continuations,
    Scores,
    Whole,
    score_continuations,
    score_whole,
)
from jaxmoe.decode.side_by_side import side_by_side
from jaxmoe.decode.slots import default_slots
from jaxmoe.model import Model
from jaxmoe.nn.decoder import compute_dtype
from jaxmoe.random.keys import as_key
from jaxmoe.router.policies import Policy, TopK, for_model
from jaxmoe.typing import Array, Key

STEPS = 32
"""Tokens of a continuation that are always worth a step each."""

MOST_CACHED = 16384
"""Positions of contexts that are kept at once, in caches of 128 positions or more."""


@dataclass(frozen=True, eq=False)
class Likelihood:
    """What the model says of one continuation, T tokens after a context of C.

    tokens: int32 [T]. logprobs: float32 [T], natural logarithms, under the model's own
    distribution. is_greedy: whether each token is the most likely one where it stands.
    ranks: int32 [T], one more than the tokens that are more likely there.
    top_ids, top_logprobs: int32 and float32 [T, Q], the most likely tokens, where asked
    for. prompt: of the context, where asked for: `tokens` [C], and all else of its
    tokens from the second on, [C - 1].
    """

    tokens: np.ndarray
    logprobs: np.ndarray
    is_greedy: bool
    ranks: np.ndarray
    top_ids: np.ndarray | None = None
    top_logprobs: np.ndarray | None = None
    prompt: "Likelihood | None" = None

    @property
    def sum(self) -> float:
        """Log-probability of the whole continuation."""
        return float(self.logprobs.sum(dtype=np.float64))


@dataclass(frozen=True)
class _Pair:
    """What a result depends on; equal ones are computed once."""

    context: bytes
    continuation: bytes
    key_data: tuple[int, ...]

    @property
    def before(self) -> np.ndarray:
        return np.frombuffer(self.context, np.int32)

    @property
    def after(self) -> np.ndarray:
        return np.frombuffer(self.continuation, np.int32)

    @property
    def by_steps(self) -> bool:
        """Whether its continuation is short beside its context."""
        after, before = len(self.after), len(self.before)
        return after <= STEPS or after <= before // 8


@dataclass(frozen=True)
class _Call:
    """What all pairs of a call have in common; policy: resolved."""

    model: Model
    policy: Policy
    batch: int
    top_logprobs: int
    noisy_prefill: bool
    prompt_logprobs: bool


def loglikelihood(
    model: Model,
    pairs: Iterable[tuple[Prompt | None, Continuation]],
    *,
    policy: Policy | None = None,
    key: Key[Array, ""] | int | Sequence[Any] | None = None,
    batch: int | None = None,
    top_logprobs: int = 0,
    prompt_logprobs: bool = False,
    noisy_prefill: bool = False,
) -> list[Likelihood]:
    """Log-probabilities of continuations, one result a pair, in order.

    A result depends on its own pair, policy and key alone: neither on the other pairs
    nor on their order. Where the compiled shapes are equal (same `batch`, same lengths
    up to a power of two) it is the same to the bit, else to rounding.

    Args:
      pairs: (context, continuation). A context is text, token ids, the messages of a
        chat, or empty; a continuation is text or token ids
        (`jaxmoe.decode.score_inputs.encode_pair`).
      policy: None for `TopK()`.
      key: a sample's key, `jaxmoe.keys.sample_key(key, i)`, as `jaxmoe.forward` takes
        it, where the policy is noisy: one that serves all pairs, or a list with one for
        each.
      batch: the most continuations side by side, at most 64, rounded up to a power of
        two; None for as many as there are.
      top_logprobs: also return so many of the most likely tokens of each position.
      prompt_logprobs: also return those of the contexts' tokens; contexts are then not
        shared.
      noisy_prefill: route contexts with the key too; they are then not shared. The
        last token of a context is among them: without it a continuation of one token
        sees no noise.

    Raises:
      TypeError, ValueError: a pair that is none, has no continuation or does not fit
        the context; a noisy policy without a key.
    """
    encoded = [encode_pair(model, *_two(pair)) for pair in pairs]
    for pair in encoded:
        check_pair(model, *pair)
    resolved = for_model(TopK() if policy is None else policy, model.config)
    keys = _key_data(resolved, key, len(encoded))
    asked = [
        _Pair(_bytes(before), _bytes(after), of_key)
        for (before, after), of_key in zip(encoded, keys, strict=True)
    ]
    most = len(set(asked)) if batch is None else check_whole("batch", batch, MOST_SLOTS)
    call = _Call(
        model,
        resolved,
        default_slots(most, model.layout),
        check_top_logprobs(model, top_logprobs),
        check_flag("noisy_prefill", noisy_prefill) and resolved.noisy,
        check_flag("prompt_logprobs", prompt_logprobs),
    )
    whole = call.prompt_logprobs or call.noisy_prefill
    distinct = list(dict.fromkeys(asked))
    found: dict[_Pair, Likelihood] = {}
    found.update(_by_passes(call, [p for p in distinct if whole or not p.by_steps]))
    found.update(_by_steps(call, [p for p in distinct if not whole and p.by_steps]))
    return [found[pair] for pair in asked]


def loglikelihood_rolling(
    model: Model,
    texts: Iterable[Continuation],
    *,
    max_length: int | None = None,
    **options: Any,
) -> list[Likelihood]:
    """Log-probabilities of whole texts, each token of which is scored once.

    A text longer than `max_length` is cut into windows: each scores the next
    `max_length` tokens after the one before them; the last is filled up with more of
    what is before it, as in lm-evaluation-harness. The first follows the token that
    begins a text.

    Args:
      texts: text or token ids each.
      max_length: tokens that are looked at at once; None for the model's context.
      options: of `loglikelihood`, but for `prompt_logprobs`.
    """
    context = model.config.context_length
    size = context if max_length is None else check_whole("max_length", max_length)
    if size > context:
        raise ValueError(
            f"max_length must be at most the model's context of {context} tokens, "
            f"found {size}"
        )
    if options.get("prompt_logprobs"):
        raise ValueError("a whole text has no prompt; leave prompt_logprobs out")
    ids = [encode_plain(model, text) for text in texts]
    if empty := [j for j, one in enumerate(ids) if not len(one)]:
        raise ValueError(f"a text must have at least one token, found none in {empty}")
    begin = beginning_id(model)
    windows = [list(rolling_windows(one, begin, size)) for one in ids]
    keys = options.get("key")
    if isinstance(keys, list | tuple) and len(keys) == len(ids):
        pairs_of = zip(keys, windows, strict=True)
        options["key"] = [key for key, mine in pairs_of for _ in mine]
    parts = iter(loglikelihood(model, [w for mine in windows for w in mine], **options))
    return [_joined([next(parts) for _ in mine]) for mine in windows]


def rolling_windows(
    ids: np.ndarray, begin: int, size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(context, continuation) of each window; see `loglikelihood_rolling`.

    >>> list(rolling_windows([5, 6, 7, 8, 9], begin=0, size=2))
    [([0], [5, 6]), ([6], [7, 8]), ([7, 8], [9])]
    """
    whole = np.concatenate([[begin], ids])
    for start in range(1, len(whole), size):
        end = min(start + size, len(whole))
        since = max(0, end - size - 1)
        yield whole[since:start], whole[start:end]


def _joined(parts: list[Likelihood]) -> Likelihood:
    if len(parts) == 1:
        return parts[0]
    join = lambda name: np.concatenate([getattr(part, name) for part in parts])  # noqa: E731
    asked = parts[0].top_ids is not None
    return Likelihood(
        tokens=join("tokens"),
        logprobs=join("logprobs"),
        is_greedy=all(part.is_greedy for part in parts),
        ranks=join("ranks"),
        top_ids=join("top_ids") if asked else None,
        top_logprobs=join("top_logprobs") if asked else None,
    )


def _bytes(ids: np.ndarray) -> bytes:
    return ids.astype(np.int32).tobytes()


def _two(pair: Any) -> tuple[Any, Any]:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise TypeError(f"expected (context, continuation), found {pair!r:.70}")
    return pair[0], pair[1]


def _key_data(policy: Policy, key: Any, pairs: int) -> list[tuple[int, ...]]:
    """Key data of each pair; zeros where no noise is drawn."""
    if not policy.noisy:
        return [(0, 0)] * pairs
    if key is None:
        raise ValueError(
            f"{type(policy).__name__} draws experts and needs a key; pass "
            "key=jaxmoe.keys.sample_key(key, i), or policy=TopK()"
        )
    many = isinstance(key, list | tuple)
    if many and len(key) != pairs:
        raise ValueError(
            f"expected one key or a list of {pairs}, one for each pair, found a list "
            f"of {len(key)}"
        )
    read = lambda one: tuple(np.asarray(jax.random.key_data(as_key(one))).tolist())  # noqa: E731
    return [read(one) for one in key] if many else [read(key)] * pairs


# -- one pass over both ------------------------------------------------------------


def _by_passes(call: _Call, pairs: list[_Pair]) -> Iterator[tuple[_Pair, Likelihood]]:
    turns = []
    for size, group in _grouped(pairs, _whole_size).items():
        rows = max(1, min(call.batch, PREFILL_TOKENS // size))
        turns += [
            (size, rows, group[start : start + rows])
            for start in range(0, len(group), rows)
        ]
    scored = side_by_side(call.model, partial(_pass, call), turns)
    for (_, _, some), scores in zip(turns, scored, strict=True):
        for row, pair in enumerate(some):
            yield pair, _of_pass(call, pair, scores, row)


def _pass(call: _Call, turn: tuple[int, int, list[_Pair]]) -> Scores:
    size, rows, some = turn
    return jax.device_get(
        score_whole(
            call.model.config,
            call.model.params,
            _whole(call, some, size, rows),
            call.policy,
            top_logprobs=call.top_logprobs,
            execution=call.model.execution,
        )
    )


def _whole_size(pair: _Pair) -> int:
    return prompt_bucket(len(pair.before) + len(pair.after) - 1)


def _whole(call: _Call, pairs: list[_Pair], size: int, rows: int) -> Whole:
    given = Whole(
        np.zeros((rows, size), np.int32),
        np.zeros((rows, size), np.int32),
        *(np.zeros(rows, np.int32) for _ in range(2)),
        key_data=np.zeros((rows, 2), np.uint32),
        noise_from=np.zeros(rows, np.int32),
    )
    for row, pair in enumerate(pairs):
        both, before = np.concatenate([pair.before, pair.after]), len(pair.before)
        given.tokens[row, : len(both) - 1] = both[:-1]
        given.targets[row, : len(both) - 1] = both[1:]
        given.lengths[row] = len(both) - 1
        given.first[row] = 0 if call.prompt_logprobs else before - 1
        given.key_data[row] = pair.key_data
        given.noise_from[row] = 0 if call.noisy_prefill else before
    return given


def _of_pass(call: _Call, pair: _Pair, scores: Scores, row: int) -> Likelihood:
    start = len(pair.before) - 1
    prompt = None
    if call.prompt_logprobs:
        prompt = _result(pair.before, scores, row, slice(0, start))
    end = start + len(pair.after)
    return _result(pair.after, scores, row, slice(start, end), prompt)


# -- continuations after contexts that they share ----------------------------------


def _by_steps(call: _Call, pairs: list[_Pair]) -> Iterator[tuple[_Pair, Likelihood]]:
    for size, group in _grouped(pairs, lambda p: bucket(len(p.before))).items():
        entries = 1 << (max(1, min(call.batch, MOST_CACHED // size)).bit_length() - 1)
        sharing = _grouped(group, lambda pair: pair.context)
        contexts = sorted(sharing, key=len)
        for start in range(0, len(contexts), entries):
            some = contexts[start : start + entries]
            prefix = _load(call, some, size, entries)
            following = [(j, p) for j, c in enumerate(some) for p in sharing[c]]
            yield from _follow(call, prefix, following)


def _load(call: _Call, contexts: list[bytes], size: int, entries: int) -> PrefixCache:
    """A cache of `entries` contexts of up to `size` tokens."""
    model, policy = call.model, call.policy
    config, execution = model.config, model.execution
    prefix = PrefixCache.empty(
        config,
        execution,
        prompts=entries,
        size=size,
        width=policy.width,
        dtype=compute_dtype(model.params["embed.weight"]),
    )
    prefix = jax.device_put(
        prefix, execution.layout.placed(PrefixCache.specs(config, execution))
    )
    computed = partial(_prefill, call)
    passes = _passes(contexts, entries)
    for one, found in zip(passes, side_by_side(model, computed, passes), strict=True):
        prefix = put_prompts(config, prefix, one.entries, found, execution=execution)
        if not execution.runs_ahead:
            jax.block_until_ready(prefix)
    return prefix


def _passes(contexts: list[bytes], entries: int) -> list[Prompts]:
    """Contexts as they go through passes: some of like length, each into its entry."""
    ids = [np.frombuffer(context, np.int32) for context in contexts]
    found = []
    for length, mine in _grouped(
        range(len(ids)), lambda j: prompt_bucket(len(ids[j]))
    ).items():
        rows = max(1, min(entries, PREFILL_TOKENS // length))
        for start in range(0, len(mine), rows):
            given = Prompts(
                np.zeros((rows, length), np.int32),
                *(np.zeros(rows, np.int32) for _ in range(2)),
            )
            for row, j in enumerate(mine[start : start + rows]):
                given.tokens[row, : len(ids[j])] = ids[j]
                given.lengths[row], given.entries[row] = len(ids[j]), j
            found.append(given)
    return found


def _prefill(call: _Call, prompts: Prompts) -> PrefixCache:
    """What they leave behind."""
    model = call.model
    return prefill(
        model.config,
        model.params,
        prompts.tokens,
        prompts.lengths,
        call.policy.deterministic(model.config.num_layers),
        execution=model.execution,
    )


def _follow(
    call: _Call, prefix: PrefixCache, following: list[tuple[int, _Pair]]
) -> Iterator[tuple[_Pair, Likelihood]]:
    sizes = _grouped(following, lambda one: bucket(len(one[1].after), STEPS))
    turns = [
        (most, group[start : start + call.batch])
        for most, group in sizes.items()
        for start in range(0, len(group), call.batch)
    ]
    scored = side_by_side(call.model, partial(_continue, call, prefix), turns)
    for (_, some), scores in zip(turns, scored, strict=True):
        for row, (_, pair) in enumerate(some):
            yield pair, _result(pair.after, scores, row, slice(len(pair.after)))


def _continue(
    call: _Call, prefix: PrefixCache, turn: tuple[int, list[tuple[int, _Pair]]]
) -> Scores:
    most, some = turn
    return jax.device_get(
        score_continuations(
            call.model.config,
            call.model.params,
            prefix,
            _continuations(some, most, call.batch),
            call.policy,
            top_logprobs=call.top_logprobs,
            execution=call.model.execution,
        )
    )


def _continuations(
    following: list[tuple[int, _Pair]], most: int, slots: int
) -> Continuations:
    given = Continuations(
        np.zeros((slots, most), np.int32),
        np.zeros(slots, np.int32),
        np.zeros(slots, np.int32),
        np.zeros((slots, 2), np.uint32),
    )
    for slot, (entry, pair) in enumerate(following):
        given.tokens[slot, : len(pair.after)] = pair.after
        given.lengths[slot], given.prompt[slot] = len(pair.after), entry
        given.key_data[slot] = pair.key_data
    return given


def _result(
    tokens: np.ndarray,
    scores: Scores,
    row: int,
    where: slice,
    prompt: Likelihood | None = None,
) -> Likelihood:
    # Copied: a view would keep the scores of all rows.
    own: Any = jax.tree.map(lambda a: a[row, where].copy(), scores)
    return Likelihood(
        tokens,
        own.logprob,
        bool(own.greedy.all()),
        own.rank,
        own.top_ids,
        own.top_logprobs,
        prompt,
    )


def _grouped(items: Iterable[Any], of: Any) -> dict[Any, list[Any]]:
    """Items of equal `of`, in the order in which they come."""
    groups: dict[Any, list[Any]] = {}
    for item in items:
        groups.setdefault(of(item), []).append(item)
    return groups
