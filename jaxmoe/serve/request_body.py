"""What a request's JSON may hold: OpenAI's fields, vLLM's, and ours.

Every field may be null, which is as good as absent. Types are strict: "1" is no number.
"""

import difflib
import reprlib
from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from jaxmoe.serve.errors import RequestError

SEEDS = 1 << 32
"""Seeds are those of `jax.random.key`, 0..2**32 - 1; sample indices too."""
MOST_STOPS = 64
"""Stop strings of a request."""
MOST_BIASES = 300
"""Tokens with a bias, as OpenAI has it."""
LONGEST_WORD = 1024
"""Characters of a bad word; its tokens are few (`jaxmoe.decode.sampler`)."""
MOST_NAMES = 64
"""Names in a policy's object."""

_INT32 = (1 << 31) - 1
Whole = Annotated[int, Field(ge=-_INT32, le=_INT32)]
Number = Whole | float
Numbers = Annotated[list[Number], Field(fail_fast=True)]
Biases = Annotated[list[Number | None], Field(fail_fast=True)]
TokenIds = Annotated[list[Whole], Field(fail_fast=True)]
Texts = Annotated[list[str], Field(fail_fast=True, max_length=MOST_STOPS)]
Words = Annotated[
    list[Annotated[str, Field(max_length=LONGEST_WORD)]],
    Field(fail_fast=True, max_length=MOST_STOPS),
]
Objects = Annotated[list[dict[str, Any]], Field(fail_fast=True)]


class _Body(BaseModel):
    # Nothing of jaxmoe's begins with model_ or is shadowed by pydantic's names.
    model_config = ConfigDict(
        extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=()
    )


class StreamOptions(_Body):
    """How a stream ends; include_obfuscation: OpenAI's padding, which is never sent."""

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class PolicyBody(_Body):
    """A policy by its name in the registry, and its numbers.

    by, policy, bias: of those that change another; in a bias null bans an expert.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Number | Numbers | None] = Field(init=False)

    type: str
    by: str | None = None
    policy: "str | PolicyBody | None" = None
    bias: Biases | Annotated[list[Biases], Field(fail_fast=True)] | None = None


class JsonSchema(_Body):
    """OpenAI's wrapping of a schema."""

    name: str | None = None
    description: str | None = None
    strict: bool | None = None
    json_schema: dict[str, Any] = Field(alias="schema")


class ResponseFormat(_Body):
    """What an answer must be: any text, a JSON object, or what a schema says."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StructuredOutputs(_Body):
    """vLLM's field; one of them: a JSON schema, or a regular expression."""

    json_schema: str | dict[str, Any] | None = Field(None, alias="json")
    regex: str | None = None


class _Ignored(_Body):
    """Fields that say nothing of an answer: taken, and passed over."""

    user: Any = None
    metadata: Any = None
    store: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None
    prompt_cache_retention: Any = None
    prediction: Any = None
    parallel_tool_calls: Any = None


class Drawing(_Ignored):
    """What both kinds of completion take."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    # Which answers, and how long.
    n: int | None = Field(None, ge=1)
    seed: int | None = Field(None, ge=0, lt=SEEDS)
    max_tokens: Whole | None = Field(None, ge=0)
    min_tokens: Whole | None = Field(None, ge=0)
    stop: str | Texts | None = None
    stop_token_ids: TokenIds | None = None
    ignore_eos: bool | None = None
    include_stop_str_in_output: bool | None = None
    # How tokens are drawn.
    temperature: float | None = Field(None, ge=0)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: Whole | None = Field(None, ge=-1)
    min_p: float | None = Field(None, ge=0, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, gt=0)
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    bad_words: Words | None = None
    # What is returned.
    prompt_logprobs: Whole | None = Field(None, ge=0)
    return_token_ids: bool | None = None
    skip_special_tokens: Literal[True] | None = None
    # What an answer must look like.
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    # Ours.
    policy: str | PolicyBody | None = None
    sample_index: int | None = Field(None, ge=0, lt=SEEDS)
    noisy_prefill: bool | None = None
    return_routes: bool | None = None
    routes: str | Texts | None = None


class CompletionBody(Drawing):
    """`/v1/completions`; prompt: text, token ids, or a list of these."""

    prompt: Any
    echo: bool | None = None
    logprobs: Whole | None = Field(None, ge=0)
    best_of: int | None = None
    suffix: str | None = None
    add_special_tokens: bool | None = None


class _Conversation(_Body):
    """Messages, and what the chat template is told."""

    messages: Objects
    tools: Objects | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None


class ChatBody(Drawing, _Conversation):
    """`/v1/chat/completions`."""

    max_completion_tokens: Whole | None = Field(None, ge=0)
    logprobs: bool | None = None
    top_logprobs: Whole | None = Field(None, ge=0)
    tool_choice: Literal["none", "auto"] | None = None
    reasoning_effort: str | None = None
    modalities: list[Literal["text"]] | None = None


class TokenizeBody(_Body):
    """`/tokenize`: a prompt, or a conversation."""

    model: str | None = None
    prompt: str | None = None
    add_special_tokens: bool | None = None
    messages: Objects | None = None
    tools: Objects | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    return_token_strs: bool | None = None


class DetokenizeBody(_Body):
    """`/detokenize`."""

    model: str | None = None
    tokens: TokenIds


_Kind = TypeVar("_Kind", bound=BaseModel)


def read_body(kind: type[_Kind], raw: bytes) -> _Kind:
    """The checked fields of a request's body.

    Raises:
      RequestError: no JSON, an unknown field, or a value that does not fit.
    """
    try:
        given = from_json(raw)
    except ValueError as error:
        raise RequestError(f"the body must be JSON: {error!s:.200}") from None
    if isinstance(given, dict):
        _check_names(kind, given)
    try:
        return kind.model_validate_json(raw)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
    # Of the kinds that a field may be of, the one that fits best.
    first = max(found, key=lambda one: len(one["loc"]))
    place, found = first["loc"], reprlib.repr(first["input"])
    if first["type"] == "json_invalid":
        raise RequestError(f"the body must be JSON: {first['msg']}")
    if not place:
        raise RequestError(f"the body must be a JSON object, found {found}")
    param = ".".join(map(str, place))
    if first["type"] == "missing":
        raise RequestError(f"{param} is missing", param=param, code="missing_parameter")
    raise RequestError(
        f"{place[0]}: {first['msg']}, found {found}",
        param=str(place[0]),
        code="invalid_value",
    )


def _check_names(kind: type[BaseModel], given: dict[str, Any], at: str = "") -> None:
    """Refuses the first unknown name, and too many of them, before values are read.

    A complaint about each of a million of them would be made otherwise.

    Raises:
      RequestError: which.
    """
    fields = {f.alias or name: f for name, f in kind.model_fields.items()}
    if kind.model_config.get("extra") == "forbid":
        for name in given:
            if name not in fields:
                raise _unknown(at + name, name[:64], [*fields])
    elif len(given) > MOST_NAMES:
        raise _too_many(at[:-1], len(given), MOST_NAMES)
    biases = given.get("logit_bias")
    if isinstance(biases, dict) and len(biases) > MOST_BIASES:
        raise _too_many("logit_bias", len(biases), MOST_BIASES)
    for name, about in fields.items():
        value = given.get(name)
        if isinstance(value, dict):
            for inner in _bodies(about.annotation):
                _check_names(inner, value, f"{at}{name}.")


def _bodies(annotation: Any) -> Iterator[type[BaseModel]]:
    """The objects with names of their own among what a field may be."""
    for one in (annotation, *get_args(annotation)):
        if isinstance(one, type) and issubclass(one, _Body):
            yield one


def _unknown(param: str, name: str, names: list[str]) -> RequestError:
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]}?" if near else "leave it out"
    message = f"unknown field {reprlib.repr(param)}; {hint}"
    return RequestError(message, param=param[:100], code="unknown_parameter")


def _too_many(param: str, found: int, most: int) -> RequestError:
    message = f"{param}: {found} names are too many ({most})"
    return RequestError(message, param=param, code="invalid_value")
