"""`jaxmoe.sample`, `jaxmoe.stream` and `jaxmoe.forward`: what users call."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from inspect import signature
from typing import Any

import numpy as np

from jaxmoe.decode.engine import Engine
from jaxmoe.decode.inputs import (
    Prompt,
    check_flag,
    check_prompt,
    check_routes,
    check_slots,
    is_many,
    key_data,
    sample_indices,
    split_stops,
)
from jaxmoe.decode.prefill import Given, prompt_bucket, score
from jaxmoe.decode.request import Answer, Progress
from jaxmoe.decode.run import run
from jaxmoe.decode.sampler import TokenSampler
from jaxmoe.decode.stop_rule import StopRule
from jaxmoe.decode.trace import TokenTrace, stack
from jaxmoe.model import Model
from jaxmoe.ops.experts import Implementation
from jaxmoe.random.keys import as_key
from jaxmoe.router.policies import ExpertSample, Policy, TopK, for_model
from jaxmoe.sharding.processes import check_equal
from jaxmoe.text.stop import stop_span, text_length
from jaxmoe.typing import Array, Float, Key


@dataclass(frozen=True)
class Sample:
    """One of the answers of `Samples`, as long as it is: arrays [T, ...]."""

    tokens: np.ndarray
    logprobs: np.ndarray
    finish: str
    text: str | None
    routes: np.ndarray | None = field(default=None, repr=False)
    certainties: np.ndarray | None = field(default=None, repr=False)
    top_ids: np.ndarray | None = field(default=None, repr=False)
    top_logprobs: np.ndarray | None = field(default=None, repr=False)
    route_logprobs: np.ndarray | None = field(default=None, repr=False)


@dataclass(frozen=True, repr=False)
class Samples:
    """n answers to one prompt; `len`, an index and iteration go over them.

    tokens: int32 [n, T], T the longest answer's length; the pad id past each length.
    lengths: int32 [n], the stop token included.
    logprobs: float32 [n, T], of each token under the model's own distribution; 0 past
      each length.
    finish: "stop", "length" or "stop_when" for each.
    routes: int16 [n, T, L, K], the experts of the pass whose logits the token was
      drawn from, -1 in dense layers and past each length (of all J passes side by side,
      K = J k, under `RouteEnsemble`); None where not asked for.
    texts: the answers' text, the stop left out; None without a tokenizer.
    certainties: float32 [n, T], each token's self-certainty, KL(uniform || model) in
      nats (Kang et al. 2025, arXiv 2502.18581); None where not asked for.
    top_ids, top_logprobs: int32 and float32 [n, T, Q], the Q most likely tokens under
      the model's own distribution, the most likely first (of equals the lower id), and
      their log-probabilities; -1 and 0 past each length; None where not asked for.
    route_logprobs: float32 [n, T, L], log-probability of the set of experts of each
      layer under the policy, exact (Plackett-Luce law of the tail); 0 in dense layers
      and where nothing was drawn; None where not asked for.
    """

    tokens: np.ndarray
    lengths: np.ndarray
    logprobs: np.ndarray
    finish: tuple[str, ...]
    routes: np.ndarray | None = None
    texts: tuple[str, ...] | None = field(default=None, repr=False)
    certainties: np.ndarray | None = field(default=None, repr=False)
    top_ids: np.ndarray | None = field(default=None, repr=False)
    top_logprobs: np.ndarray | None = field(default=None, repr=False)
    route_logprobs: np.ndarray | None = field(default=None, repr=False)

    def __len__(self) -> int:
        """How many answers, n."""
        return len(self.lengths)

    def __getitem__(self, index: int) -> Sample:
        """One answer, by its row."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"answers are 0..{len(self) - 1}, found {index}")
        length = int(self.lengths[index])
        names = [f.name for f in fields(Sample) if f.name not in ("finish", "text")]
        arrays: dict[str, Any] = {name: getattr(self, name) for name in names}
        for name, array in arrays.items():
            arrays[name] = None if array is None else array[index, :length]
        text = None if self.texts is None else self.texts[index]
        return Sample(finish=self.finish[index], text=text, **arrays)

    def __iter__(self) -> Iterator[Sample]:
        """The answers in order."""
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        """A line an answer, the first few."""
        shown = [
            f"  {one.finish}, {len(one.tokens)} tokens"
            + ("" if one.text is None else f": {_short(one.text)}")
            for one in (self[index] for index in range(min(len(self), _SHOWN)))
        ]
        more = len(self) - len(shown)
        shown += [f"  and {more} more"] if more else []
        return "\n".join([f"Samples of {len(self)} answers:", *shown])

    @property
    def text(self) -> tuple[str, ...]:
        """n strings, the stop left out; a ValueError without a tokenizer."""
        if self.texts is None:
            raise ValueError(
                "text needs a tokenizer, and this checkpoint has none; put "
                "tokenizer.json beside the checkpoint's config.json, or read .tokens"
            )
        return self.texts


@dataclass(frozen=True)
class Finished:
    """One answer of a stream: its prompt's and its own index, then as in `Samples`."""

    prompt: int
    sample: int
    tokens: np.ndarray
    logprobs: np.ndarray
    finish: str
    routes: np.ndarray | None
    text: str | None
    certainties: np.ndarray | None = None
    top_ids: np.ndarray | None = None
    top_logprobs: np.ndarray | None = None
    route_logprobs: np.ndarray | None = None


def sample(
    model: Model,
    prompt: Prompt | Sequence[Prompt],
    *,
    key: Key[Array, ""] | int | Key[Array, "P"] | Sequence[Key[Array, ""] | int],
    n: int = 1,
    policy: Policy | Sequence[Policy] | None = None,
    sampler: TokenSampler | None = None,
    max_new_tokens: int = 256,
    stop: str | Sequence[str] | None = (),
    return_routes: bool = False,
    return_certainty: bool = False,
    top_logprobs: int = 0,
    return_route_logprobs: bool = False,
    progress: bool | Callable[[Progress], None] = False,
    **options: Any,
) -> Samples | list[Samples]:
    """Draw n answers, each a pure function of (weights, prompt, key, sample index).

    Answer i of a prompt is drawn with `fold_in(key, i)` whatever n is, whatever else
    is drawn beside it, and in whatever order.

    Args:
      prompt: text, token ids, or the messages of a chat, which go through
        `model.chat`; or a list of prompts.
      key: a typed key, `jax.random.key(0)`, or its seed. With a list of prompts
        prompt j uses `fold_in(key, j)`, or give one key a prompt, as a list or an
        array.
      n: answers to each prompt.
      policy: how experts are chosen; None for `ExpertSample()`. A list gives each of
        the n answers one of its own.
      sampler: how tokens are drawn; None for what the checkpoint's
        generation_config.json asks for.
      max_new_tokens: the most tokens of an answer.
      stop: strings that end an answer, besides the model's own stop tokens.
      return_routes: also return which experts computed each token.
      return_certainty: also return each token's self-certainty.
      top_logprobs: also return so many of the most likely tokens at each position.
      return_route_logprobs: also return the log-probability of each token's experts.
      progress: True for a bar, or a function that gets a `Progress` now and then.
      options: see `stream`.

    Returns:
      `Samples`, or a list of them for a list of prompts.

    Raises:
      TypeError, ValueError: input that does not fit, before any work is done.
    """
    _refuse_unknown(options)
    if "skip" in options:
        raise ValueError(
            "skip leaves answers out, and sample returns them all; use jaxmoe.stream"
        )
    many = is_many(prompt)
    report, close = _progress_bar(progress)
    answers: dict[tuple[int, int], Finished] = {}
    try:
        for answer in stream(
            model,
            prompt,
            key=key,
            n=n,
            policy=policy,
            sampler=sampler,
            max_new_tokens=max_new_tokens,
            stop=stop,
            return_routes=return_routes,
            return_certainty=return_certainty,
            top_logprobs=top_logprobs,
            return_route_logprobs=return_route_logprobs,
            progress=report,
            **options,
        ):
            answers[answer.prompt, answer.sample] = answer
    finally:
        close()
    order = sample_indices(n, options.get("samples"))
    prompts = len(prompt) if many else 1
    results = [_collect(model, [answers[j, i] for i in order]) for j in range(prompts)]
    return results if many else results[0]


def stream(
    model: Model,
    prompt: Prompt | Sequence[Prompt],
    *,
    key: Key[Array, ""] | int | Key[Array, "P"] | Sequence[Key[Array, ""] | int],
    n: int = 1,
    policy: Policy | Sequence[Policy] | None = None,
    sampler: TokenSampler | None = None,
    max_new_tokens: int = 256,
    stop: str | Sequence[str] | None = (),
    return_routes: bool = False,
    return_certainty: bool = False,
    top_logprobs: int = 0,
    return_route_logprobs: bool = False,
    progress: Callable[[Progress], None] | None = None,
    samples: Sequence[int] | None = None,
    skip: Collection[tuple[int, int]] = (),
    stop_ids: Sequence[int] | None = None,
    ignore_eos: bool = False,
    include_stop: bool = False,
    stop_when: StopRule | None = None,
    noisy_prefill: bool = False,
    routes: np.ndarray | Sequence[np.ndarray] | None = None,
    slots: int | None = None,
    implementation: Implementation = "auto",
    **unknown: Any,
) -> Iterator[Finished]:
    """As `sample`, but yields each answer as it finishes.

    Args:
      samples: draw just these sample indices of each prompt, instead of 0..n-1;
        results and `routes` hold them in this order.
      skip: (index of the prompt, sample index) of answers not to draw. The others
        come out bit for bit as if nothing was skipped, as long as `slots` is equal.
      stop_ids: tokens that end an answer; None for the model's own, () for none.
      ignore_eos: the model's own stop tokens end no answer, as if `stop_ids` were ().
      include_stop: an answer's text holds the stop string, or the text of the stop
        token where it has any, as its tokens always do.
      stop_when: asked after each token of an answer with what there is of it so far
        (`jaxmoe.SoFar`); once it returns True the answer ends there, and its finish is
        "stop_when". Tokens never change, only where an answer ends: a rule that looks
        at nothing else makes the end a function of the answer too.
      noisy_prefill: route prompt tokens with each sample's own key too. Every sample
        then computes its own prefix.
      routes: experts to take instead of choosing, as `Samples.routes` recorded them
        (one array a prompt); -1 leaves the choice to the policy. Of each answer's
        first row nothing is used: it belongs to the prompt's pass.
      slots: samples decoded side by side; None for the smallest power of two that
        holds them all, at most 64. Equal slots give equal bits. On a mesh a multiple
        of the devices that divide the samples.
      implementation: of the experts (`jaxmoe.ops.experts`).
    """
    _refuse_unknown(unknown)
    many, chosen = is_many(prompt), sample_indices(n, samples)
    prompts: list[Any] = list(prompt) if many else [prompt]
    keys = key_data(key, len(prompts), many)
    given = _routes_of(routes, len(prompts), many)
    own = ExpertSample() if policy is None else policy
    one_policy = own if isinstance(own, Policy) else None
    total = len(prompts) * len(chosen)
    slots = check_slots(model, total, slots)
    engine = Engine(
        model,
        slots=slots,
        # Of all answers alike: a program of its own has less to compute.
        policy=one_policy,
        sampler=_sampler(model, sampler),
        # Not a matter of n, so that n changes no shape.
        prompts=slots if noisy_prefill else min(_power_of_two(len(prompts)), slots),
        return_routes=return_routes,
        return_certainty=return_certainty,
        top_logprobs=top_logprobs,
        return_route_logprobs=return_route_logprobs,
        implementation=implementation,
    )
    requests, left_out = [], defaultdict(set)
    for j_of, i_of in skip:
        left_out[j_of].add(i_of)
    for j, (one, data, recorded) in enumerate(zip(prompts, keys, given, strict=True)):
        try:
            request = engine.read(
                one,
                key_data=data,
                samples=chosen,
                policy=policy if one_policy is None else None,
                sampler=None,
                max_new_tokens=max_new_tokens,
                stop=stop,
                stop_ids=stop_ids,
                ignore_eos=ignore_eos,
                stop_when=stop_when,
                number=j,
                noisy_prefill=noisy_prefill,
                routes=recorded,
            )
        except (TypeError, ValueError) as error:
            if not many:
                raise
            raise type(error)(f"prompt {j} of the list: {error}") from None
        requests.append(request.without(left_out[j]))
    if model.execution.layout.spans_processes():
        asked = [request.describe() for request in requests]
        check_equal({"prompts, keys and options": asked, "slots": slots})
    answers = run(engine, requests, on_progress=progress)
    stops, _ = split_stops(model, stop)
    ends = requests[0].stop_ids if requests else ()
    least = requests[0].min_tokens if requests else 0
    shown = check_flag("include_stop", include_stop)
    reader = _TextReader(model, ends, stops, least, shown)
    return (_finished(answer, reader.read(answer.tokens)) for answer in answers)


_SAMPLER = "sampler=jaxmoe.TokenSampler({name}=...)"
_POLICY = "policy=jaxmoe.ExpertSample({name}=...)"
_MEANT = {
    **dict.fromkeys((f.name for f in fields(TokenSampler)), _SAMPLER),
    **dict.fromkeys(("k_keep", "r", "tau"), _POLICY),
    **dict.fromkeys(("max_tokens", "max_length"), "max_new_tokens="),
    **dict.fromkeys(("num_return_sequences", "num_samples"), "n="),
    "seed": "key=",
    "min_new_tokens": "sampler=jaxmoe.TokenSampler(min_tokens=...)",
    "bad_words_ids": "sampler=jaxmoe.TokenSampler(bad_words=...)",
    "include_stop_str_in_output": "include_stop=",
    "logprobs": "top_logprobs= (log-probabilities of the answer are always there)",
}
"""Names by which others know what has another name, or another place, here."""


def _refuse_unknown(options: Mapping[str, Any]) -> None:
    known = [p.name for p in signature(stream).parameters.values()][2:-1]
    for name in options:
        if name in known:
            continue
        meant = _MEANT.get(name)
        near = get_close_matches(name, known, 1)
        hint = f"{near[0]}=" if near else f"one of {', '.join(known)}"
        raise TypeError(
            f"sample() and stream() have no option {name!r}; pass "
            f"{hint if meant is None else meant.format(name=name)}"
        )


_SHOWN = 4
"""Answers of which a repr shows the text."""


def _short(text: str, most: int = 60) -> str:
    return repr(text if len(text) <= most else f"{text[:most]}...")


def _power_of_two(count: int) -> int:
    return 1 << max(0, count - 1).bit_length()


def _sampler(model: Model, sampler: TokenSampler | None) -> TokenSampler:
    if sampler is None:
        return TokenSampler.from_config(model.config.generation)
    return sampler


def _routes_of(routes: Any, prompts: int, many: bool) -> Sequence[Any]:
    """Recorded routes of each prompt, None where there are none."""
    if routes is None:
        return [None] * prompts
    given = routes if many else [routes]
    if len(given) != prompts:
        raise ValueError(
            f"routes must hold one array for each of {prompts} prompts, "
            f"found {len(given)}"
        )
    return given


def forward(
    model: Model,
    prompt: Prompt,
    *,
    policy: Policy | None = None,
    key: Key[Array, ""] | int | None = None,
    noise_from: int = 0,
    routes: np.ndarray | None = None,
    return_routes: bool = False,
    implementation: Implementation = "auto",
) -> Float[Array, "T V"] | tuple[Float[Array, "T V"], np.ndarray]:
    """float32 logits [T, V] of one pass over a whole sequence.

    Args:
      policy: None for `TopK()`.
      key: a sample's key, `jaxmoe.keys.sample_key(key, i)`, where the policy is noisy.
      noise_from: positions before it are routed without noise, as the tokens of a
        prompt are when it is sampled from.
      routes: int [T, L, K], experts to take instead; -1 leaves it to the policy. See
        `place_routes`.
      return_routes: also return the experts, int16 [T, L, K].
    """
    config = model.config
    resolved = for_model(TopK() if policy is None else policy, config)
    ids = check_prompt(model, prompt, 0)
    if resolved.noisy and key is None:
        raise ValueError(
            f"{type(resolved).__name__} draws experts and needs a key; pass "
            "key=jaxmoe.keys.sample_key(key, i), or policy=TopK()"
        )
    key = None if key is None else as_key(key)
    size = prompt_bucket(len(ids))
    tokens = np.zeros(size, np.int32)
    tokens[: len(ids)] = ids
    if routes is not None:
        shape = (len(ids), config.num_layers, resolved.width)
        recorded = check_routes(routes, shape, config.num_experts)
        routes = np.full((size, *shape[1:]), -1, np.int16)
        routes[: len(ids)] = recorded
    logits, taken = score(
        config,
        model.params,
        Given(tokens, np.int32(len(ids)), key, np.int32(noise_from), routes),
        resolved,
        execution=model.execution.using(implementation),
    )
    logits = logits[: len(ids)]
    return (logits, np.asarray(taken)[: len(ids)]) if return_routes else logits


def place_routes(prompt_length: int, length: int, routes: np.ndarray) -> np.ndarray:
    """Routes that `sample` recorded for one answer, placed for `forward`.

    Row j of `Samples.routes` is the pass over position prompt_length + j - 1.

    Args:
      prompt_length: tokens of the prompt. length: of the answer.
      routes: int16 [T, L, K] of that answer.

    Returns:
      int16 [prompt_length + length, L, K] for the sequence of prompt and answer; -1
      at positions with no record: the prompt's before its last, and the answer's last.
    """
    placed = np.full((prompt_length + length, *routes.shape[1:]), -1, np.int16)
    placed[prompt_length - 1 : prompt_length - 1 + length] = routes[:length]
    return placed


@dataclass(frozen=True)
class _TextReader:
    """Answers' tokens as text.

    ends, stops: tokens and strings that end an answer. skip: so many first tokens are
    not looked at for strings. include_stop: what ended an answer is in its text.
    """

    model: Model
    ends: tuple[int, ...]
    stops: tuple[str, ...]
    skip: int
    include_stop: bool

    def read(self, tokens: np.ndarray) -> str | None:
        """None without a tokenizer."""
        if self.model.tokenizer is None:
            return None
        ids, decode = tokens.tolist(), self.model.tokenizer.decode
        text = decode(ids)
        if self.stops:
            after = text_length(decode, ids[: self.skip])
            span = stop_span(text, self.stops, after)
            if span is not None:
                return text[: span[self.include_stop]]
        if ids[-1] in self.ends and not self.include_stop:
            return decode(ids[:-1])
        return text


def _finished(answer: Answer, text: str | None) -> Finished:
    trace = answer.trace
    return Finished(
        prompt=answer.prompt,
        sample=answer.sample,
        tokens=trace.token,
        logprobs=trace.logprob,
        finish=answer.finish,
        text=text,
        **_asked(trace),
    )


def _asked(trace: TokenTrace) -> dict[str, np.ndarray | None]:
    """What is given back where it was asked for, by its public name."""
    return {
        "routes": trace.routes,
        "certainties": trace.certainty,
        "top_ids": trace.top_ids,
        "top_logprobs": trace.top_logprobs,
        "route_logprobs": trace.route_logprobs,
    }


def _trace(answer: Finished) -> TokenTrace:
    """The answer's arrays as they were recorded."""
    return TokenTrace(
        token=answer.tokens,
        logprob=answer.logprobs,
        routes=answer.routes,
        certainty=answer.certainties,
        top_ids=answer.top_ids,
        top_logprobs=answer.top_logprobs,
        route_logprobs=answer.route_logprobs,
    )


def _collect(model: Model, answers: list[Finished]) -> Samples:
    trace = stack([_trace(answer) for answer in answers], model.config.pad_id)
    texts = tuple(a.text for a in answers if a.text is not None)
    return Samples(
        tokens=trace.token,
        lengths=np.array([len(a.tokens) for a in answers], np.int32),
        logprobs=trace.logprob,
        finish=tuple(a.finish for a in answers),
        texts=texts if model.tokenizer is not None else None,
        **_asked(trace),
    )


def _progress_bar(
    progress: bool | Callable[[Progress], None],
) -> tuple[Callable[[Progress], None] | None, Callable[[], None]]:
    """(what to report to, how to end it)."""
    if callable(progress):
        return progress, lambda: None
    if not progress:
        return None, lambda: None
    from tqdm import tqdm

    bar = tqdm(unit="answer", dynamic_ncols=True)

    def report(now: Progress) -> None:
        bar.total = now.total
        bar.n = now.finished
        bar.set_postfix_str(
            f"{now.tokens} tokens, {now.tokens_per_second:.1f} tokens/s"
        )

    return report, bar.close
