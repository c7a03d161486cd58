"""From a request's fields to what the engine is asked, checked and resolved.

Nothing here touches the engine's state, so it may run beside it, in any thread.
"""

import dataclasses
import math
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxmoe.config import ModelConfig
from jaxmoe.decode.engine import Engine
from jaxmoe.decode.inputs import check_prompt, key_data, read_policy, split_stops
from jaxmoe.decode.request import Request
from jaxmoe.decode.sampler import TokenSampler
from jaxmoe.evals.route_codec import decode_routes
from jaxmoe.model import Model
from jaxmoe.router.policies import ExpertSample, Policy
from jaxmoe.serve.errors import RequestError
from jaxmoe.serve.policy_body import read_policy_body
from jaxmoe.serve.request_body import (
    SEEDS,
    ChatBody,
    CompletionBody,
    Drawing,
    TokenizeBody,
)
from jaxmoe.text.tokenizer import Tokenizer

COMPLETION_TOKENS = 16
"""Of a completion that names no number, as OpenAI and vLLM have it."""
STOP_IDS = 32
"""Token ids that may end an answer, the model's own included."""
_MOST_ROUTES = 1 << 26
_TEMPLATE_OWN = ("messages", "tools", "chat_template", "add_generation_prompt")
_TEMPLATE_OWN += ("continue_final_message",)


@dataclass(frozen=True)
class Limits:
    """What one request may ask for.

    prompt_tokens, answer_tokens: longest prompt and answer; None for what the context
    holds. choices: answers of a request, over all its prompts. logprobs: most likely
    tokens of a position; what the engine records. routes: whether experts are recorded,
    and may be given.
    """

    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    choices: int = 128
    logprobs: int = 20
    routes: bool = True


@dataclass(frozen=True)
class Asked:
    """A request, ready for the engine.

    prompts: token ids of each. requests: of the engine, one a prompt; none where only
    prompts are scored. n: answers to each prompt. seed: given or drawn. first: sample
    index of a prompt's first answer. stops, stop_ids, include_stop, min_tokens: what
    ends text.
    logprobs: how many of the most likely tokens are shown beside each, None for no
    log-probabilities. prompt_logprobs: likewise of the prompt's tokens. echo: whether
    the text begins with the prompt. routes, token_ids, stream, usage: what is returned.
    """

    prompts: tuple[np.ndarray, ...]
    requests: tuple[Request, ...]
    n: int
    seed: int
    first: int
    stops: tuple[str, ...]
    stop_ids: tuple[int, ...]
    include_stop: bool
    min_tokens: int
    logprobs: int | None
    prompt_logprobs: int | None
    echo: bool
    routes: bool
    token_ids: bool
    stream: bool
    usage: bool
    policy: Policy = field(repr=False)

    @property
    def choices(self) -> int:
        """Answers in all."""
        return self.n * len(self.prompts)

    @property
    def answers(self) -> int:
        """Answers that the engine draws."""
        return self.n * len(self.requests)

    @property
    def load(self) -> int:
        """What it counts where answers queue: a prompt that is only scored is one."""
        return self.answers or len(self.prompts)

    @property
    def scored(self) -> bool:
        """Whether log-probabilities of the prompts are wanted."""
        echoed = self.echo and self.logprobs is not None
        return echoed or self.prompt_logprobs is not None


class RequestReader:
    """Reads bodies for one model."""

    def __init__(
        self,
        model: Model,
        engine: Engine,
        *,
        name: str,
        limits: Limits,
        policy: Policy | None = None,
    ):
        """Reads for `engine`.

        Args:
          name: what the model is called.
          policy: of requests that name none; None for `ExpertSample()`.
        """
        self.model, self.name, self.limits = model, name, limits
        self._policy = ExpertSample() if policy is None else policy
        self._engine = engine
        self._sampler = TokenSampler.from_config(model.config.generation)

    @property
    def config(self) -> ModelConfig:
        """The model's."""
        return self.model.config

    def completion(self, body: CompletionBody) -> Asked:
        """What `/v1/completions` asks for."""
        if body.suffix:
            raise _refused("suffix", "text before a given ending is not drawn here")
        if body.best_of not in (None, body.n or 1):
            raise _refused("best_of", "every answer is returned: set n alone")
        texts, many = read_prompts(body.prompt)
        special = body.add_special_tokens is not False
        prompts = [self._encode(p, special) if isinstance(p, str) else p for p in texts]
        most = COMPLETION_TOKENS if body.max_tokens is None else body.max_tokens
        return self._asked(
            body,
            prompts,
            many,
            most=most,
            logprobs=body.logprobs,
            echo=bool(body.echo),
        )

    def chat(self, body: ChatBody) -> Asked:
        """What `/v1/chat/completions` asks for."""
        most = body.max_completion_tokens
        if most is not None and body.max_tokens not in (None, most):
            raise _refused("max_tokens", "it contradicts max_completion_tokens")
        if body.top_logprobs and not body.logprobs:
            raise _refused("top_logprobs", "it needs logprobs: true")
        return self._asked(
            body,
            [self.render(body)],
            False,
            most=body.max_tokens if most is None else most,
            logprobs=(body.top_logprobs or 0) if body.logprobs else None,
            echo=False,
        )

    def tokenize(self, body: TokenizeBody) -> list[int]:
        """Token ids of a text or a conversation."""
        if (body.prompt is None) == (body.messages is None):
            raise _refused("prompt", "give prompt or messages, one of them")
        if body.prompt is not None:
            return self._encode(body.prompt, body.add_special_tokens is not False)
        return self.render(body)

    def detokenize(self, ids: list[int]) -> str:
        """The text of token ids, special ones included."""
        decode = self.tokenizer("tokens").decode
        return _checked("tokens", decode, ids, skip_special_tokens=False)

    def tokenizer(self, param: str) -> Tokenizer:
        """The model's.

        Raises:
          RequestError: it has none; param: the field that needs it.
        """
        return _checked(param, self.model.require_tokenizer, param)

    def render(self, body: ChatBody | TokenizeBody) -> list[int]:
        """A conversation's token ids under the chat template."""
        options = dict(body.chat_template_kwargs or {})
        taken = [name for name in _TEMPLATE_OWN if name in options]
        if taken:
            raise _refused("chat_template_kwargs", f"{taken[0]} cannot be set there")
        if isinstance(body, ChatBody) and body.reasoning_effort is not None:
            options.setdefault("reasoning_effort", body.reasoning_effort)
        tokenizer = self.model.require_tokenizer("a chat")
        text = _checked(
            "messages",
            tokenizer.render_chat,
            body.messages,
            tools=body.tools or None,
            add_generation_prompt=body.add_generation_prompt,
            continue_final_message=bool(body.continue_final_message),
            **options,
        )
        return _checked("messages", tokenizer.encode, text, add_special_tokens=False)

    def check_model(self, name: str | None) -> None:
        """Refuses the name of another model."""
        if name not in (None, self.name):
            raise RequestError(
                f"the model {name[:80]!r} does not exist; this server has "  # type: ignore[index]
                f"{self.name!r}",
                status=404,
                param="model",
                code="model_not_found",
            )

    # -- parts -----------------------------------------------------------------------

    def _asked(
        self,
        body: Drawing,
        prompts: list[list[int]],
        many: bool,
        *,
        most: int | None,
        logprobs: int | None,
        echo: bool,
    ) -> Asked:
        n, first = body.n or 1, body.sample_index or 0
        self._check_fields(body, n * len(prompts), logprobs)
        if first + n > SEEDS:
            raise _refused("sample_index", f"sample_index + n must be <= {SEEDS}")
        nothing = not echo and body.prompt_logprobs is None
        if most == 0 and (nothing or body.return_routes):
            raise _refused("max_tokens", "0 goes with echo or prompt_logprobs only")
        policy = self._policy if body.policy is None else read_policy_body(body.policy)
        stops, stop_ids = self._ends(body)
        lengths = [self._length(len(prompt), most) for prompt in prompts]
        options = body.stream_options
        asked = Asked(
            prompts=tuple(self._ids(prompt) for prompt in prompts),
            requests=(),
            n=n,
            seed=secrets.randbelow(SEEDS) if body.seed is None else body.seed,
            first=first,
            stops=stops,
            stop_ids=stop_ids,
            include_stop=bool(body.include_stop_str_in_output),
            min_tokens=body.min_tokens or 0,
            logprobs=logprobs,
            prompt_logprobs=body.prompt_logprobs,
            echo=echo,
            routes=bool(body.return_routes),
            token_ids=bool(body.return_token_ids),
            stream=bool(body.stream),
            usage=options is not None and bool(options.include_usage),
            policy=policy,
        )
        if most == 0:
            return asked
        keys = key_data(asked.seed, len(prompts), many)
        return dataclasses.replace(
            asked, requests=tuple(self._requests(body, asked, keys, lengths))
        )

    def _ends(self, body: Drawing) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """Strings and token ids that end an answer."""
        own = () if body.ignore_eos else self.config.stop_ids
        stops, special = _checked("stop", split_stops, self.model, body.stop)
        ids = tuple(dict.fromkeys([*own, *(body.stop_token_ids or ()), *special]))
        if len(ids) > STOP_IDS:
            raise _refused("stop_token_ids", f"{len(ids)} are too many ({STOP_IDS})")
        return stops, ids

    def _requests(
        self, body: Drawing, asked: Asked, keys: np.ndarray, lengths: list[int]
    ) -> Iterator[Request]:
        """Of each prompt, what the engine is asked; keys: key data of each."""
        sampler = self._sampler_of(body)
        _checked("policy", read_policy, self.model, asked.policy)
        routes = self._routes(body, asked)
        for j, prompt in enumerate(asked.prompts):
            yield _read(
                body,
                self._engine.read,
                prompt,
                key_data=keys[j],
                samples=range(asked.first, asked.first + asked.n),
                policy=asked.policy,
                sampler=sampler,
                max_new_tokens=lengths[j],
                stop=asked.stops,
                stop_ids=asked.stop_ids,
                ignore_eos=False,  # `stop_ids` are all there are
                stop_when=None,
                noisy_prefill=bool(body.noisy_prefill),
                routes=routes[j],
                tops=asked.logprobs is not None,
            )

    def _check_fields(self, body: Drawing, choices: int, logprobs: int | None) -> None:
        limits = self.limits
        if choices > limits.choices:
            raise _refused("n", f"{choices} answers are too many ({limits.choices})")
        counts = {"logprobs": logprobs, "prompt_logprobs": body.prompt_logprobs}
        for name, count in counts.items():
            if count is not None and count > limits.logprobs:
                raise _refused(
                    name,
                    f"this server gives the {limits.logprobs} most likely tokens at "
                    f"most, found {count}; start it with a larger --max-logprobs",
                )
        if (body.return_routes or body.routes is not None) and not limits.routes:
            raise _refused("return_routes", "this server was started with --no-routes")
        if body.stream_options is not None and not body.stream:
            raise _refused("stream_options", "it needs stream: true")

    def _encode(self, text: str, special: bool) -> list[int]:
        encode = self.tokenizer("prompt").encode
        return _checked("prompt", encode, text, add_special_tokens=special)

    def _ids(self, prompt: Sequence[int]) -> np.ndarray:
        return _checked("prompt", check_prompt, self.model, prompt, 0)

    def _length(self, prompt: int, most: int | None) -> int:
        """Tokens that an answer to a prompt of so many may have.

        Raises:
          RequestError: it does not fit, alone or with so many new ones.
        """
        context, limits = self.config.context_length, self.limits
        longest = min(context - 1, limits.prompt_tokens or context)
        if prompt > longest:
            raise _too_long(f"a prompt may have {longest} tokens here, found {prompt}")
        room = context - prompt
        if limits.answer_tokens is not None and (most or 0) > limits.answer_tokens:
            raise _refused(
                "max_tokens",
                f"an answer may have {limits.answer_tokens} tokens here, found {most}",
            )
        if most is not None and most > room:
            raise _too_long(
                f"the context holds {context} tokens, found a prompt of {prompt} "
                f"and max_tokens of {most}; shorten the prompt or lower max_tokens"
            )
        return min(room, limits.answer_tokens or room) if most is None else most

    def _sampler_of(self, body: Drawing) -> TokenSampler:
        """The checkpoint's, with what was asked for changed."""
        names = [f.name for f in dataclasses.fields(TokenSampler)]
        given = {name: getattr(body, name, None) for name in names}
        changes = {name: value for name, value in given.items() if value is not None}
        if body.logit_bias:
            changes["logit_bias"] = _checked("logit_bias", _biases, body.logit_bias)
        return dataclasses.replace(self._sampler, **changes, **_guides(body))

    def _routes(self, body: Drawing, asked: Asked) -> list[np.ndarray | None]:
        """Of each prompt, routes [n, T, L, K] to replay."""
        prompts, n = asked.prompts, asked.n
        if body.routes is None:
            return [None] * len(prompts)
        given = [body.routes] if isinstance(body.routes, str) else body.routes
        if len(given) != n * len(prompts):
            raise _refused(
                "routes",
                f"expected one for each of {n * len(prompts)} answers, found "
                f"{len(given)}",
            )
        found = []
        for j, prompt in enumerate(prompts):
            some = [
                _checked("routes", decode_routes, len(prompt), text)
                for text in given[j * n : (j + 1) * n]
            ]
            found.append(_checked("routes", _stack, some))
        return found


def read_prompts(value: Any) -> tuple[list[Any], bool]:
    """The prompts of a completion, and whether they came as a list.

    A list of prompts draws as `jaxmoe.sample` of that list does: prompt j uses
    `fold_in(key, j)`.

    Raises:
      RequestError: neither text, nor token ids, nor a list of these.
    """
    if isinstance(value, str):
        return [value], False
    if isinstance(value, list) and value:
        if _are(value, int):
            return [value], False
        if _are(value, str) or all(
            isinstance(one, list) and one and _are(one, int) for one in value
        ):
            return value, True
    raise RequestError(
        "prompt must be text, a list of token ids, or a list of either, not empty",
        param="prompt",
        code="invalid_value",
    )


def _are(values: list[Any], kind: type) -> bool:
    """Whether all are of that very type: True is no number."""
    return all(type(value) is kind for value in values)


def _guides(body: Drawing) -> dict[str, Any]:
    """Fields of the sampler for what an answer must look like.

    Raises:
      RequestError: several at once, or a schema that is missing.
    """
    found: dict[str, Any] = {}
    format, outputs = body.response_format, body.structured_outputs
    if format is not None and format.type == "json_object":
        found["json_schema"] = {"type": "object"}
    if format is not None and format.type == "json_schema":
        if format.json_schema is None:
            raise _refused("response_format", "json_schema is missing")
        found["json_schema"] = format.json_schema.json_schema
    if outputs is not None:
        if found:
            raise _refused("structured_outputs", "response_format says it already")
        given = {"json_schema": outputs.json_schema, "regex": outputs.regex}
        found = {name: value for name, value in given.items() if value is not None}
    return found


def _biases(given: dict[str, float]) -> dict[int, float]:
    """By token id; JSON's names are texts.

    Raises:
      ValueError: what is no token id, or one that is named twice, as 5 and 05.
    """
    found: dict[int, float] = {}
    for name, bias in given.items():
        if not (name.isascii() and name.isdecimal() and len(name) <= 10):
            raise ValueError(
                f'logit_bias must name token ids such as "198", found {name[:80]!r}'
            )
        if int(name) in found:
            raise ValueError(
                f"logit_bias must name each token once, found {int(name)} twice"
            )
        found[int(name)] = bias
    return found


def _read(body: Drawing, read: Any, *args: Any, **options: Any) -> Request:
    """A request of the engine; what is wrong with it is told by the field's name."""
    try:
        return _checked(None, read, *args, **options)
    except RequestError as error:
        words = [word.strip(":,") for word in str(error)[:200].split()]
        fields = {f.name for f in dataclasses.fields(TokenSampler)}
        ours = words[0] == "sampler"
        first = next((w for w in words if w in fields), "") if ours else words[0]
        by_format = "response_format" if body.response_format else "structured_outputs"
        own = {"stop_ids": "stop_token_ids", "stops": "stop"}
        own |= {"json_schema": by_format, "regex": "structured_outputs"}
        name = own.get(first, first)
        error.param = name if name in type(body).model_fields else None
        raise


def _stack(routes: list[np.ndarray]) -> np.ndarray:
    """[n, T, L, K] of answers of different lengths, -1 past their ends."""
    if len({one.shape[1:] for one in routes}) != 1:
        raise ValueError("routes of one prompt must have one shape [., L, k]")
    shape = (len(routes), max(map(len, routes)), *routes[0].shape[1:])
    if math.prod(shape) > _MOST_ROUTES:
        raise ValueError(f"routes must have at most {_MOST_ROUTES} experts in all")
    whole = np.full(shape, -1, np.int64)
    for row, one in zip(whole, routes, strict=True):
        row[: len(one)] = one
    return whole


def _checked(param: str | None, check: Any, *args: Any, **options: Any) -> Any:
    """What `check` returns; its complaint about input as a RequestError."""
    try:
        return check(*args, **options)
    except (TypeError, ValueError, OverflowError, RecursionError, ImportError) as error:
        # The last: what was asked for needs a library that is not installed here.
        raise RequestError(
            str(error)[:1000] or type(error).__name__, param=param, code="invalid_value"
        ) from None


def _refused(param: str, why: str) -> RequestError:
    return RequestError(f"{param}: {why}", param=param, code="invalid_value")


def _too_long(message: str) -> RequestError:
    return RequestError(message, param="prompt", code="context_length_exceeded")
