"""A server on a loopback port, asked by the official client: answers and refusals."""

import asyncio
import base64
import dataclasses
import io
import json
import random
import re
import threading
import time
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

import jaxmoe
from jaxmoe import ExpertSample, TokenSampler, TopK
from tests.serve.serving import END, serving, tiny_chat_model
from tests.tiny import CHOSEN, SHAPES, STOP, answers, prompt_of

for name in ("starlette", "uvicorn", "pydantic", "prometheus_client", "openai"):
    pytest.importorskip(name, reason=f'no {name}; pip install "jaxmoe[client]" adds it')
httpx = pytest.importorskip("httpx", reason='no httpx; "jaxmoe[client]" adds it')

import openai  # noqa: E402

from jaxmoe.decode.inputs import read_sampler  # noqa: E402
from jaxmoe.serve.build import Named, Shapes, _compile, make_service  # noqa: E402
from jaxmoe.serve.driver import Driver  # noqa: E402
from jaxmoe.serve.errors import RequestError  # noqa: E402
from jaxmoe.serve.replies import CompletionReply  # noqa: E402
from jaxmoe.serve.request_body import ChatBody, CompletionBody, read_body  # noqa: E402

pytestmark = pytest.mark.extras

EXPERTS = {"type": "expert-sample", "k_keep": 2, "tau": 1.5}
BANS = {"type": "biased", "policy": "topk", "bias": [None] * 3 + [0.5] + [0] * 12}
GATED = {"type": "gated", "policy": EXPERTS, "by": "margin", "threshold": 0.3}
DRAWN = {"temperature": 0.9, "top_k": 30}
"""As `SHAPES` has it."""


@pytest.fixture(scope="module")
def model():
    """One model, so that its programs are compiled once."""
    return tiny_chat_model()


@pytest.fixture(scope="module")
def served(model):
    """One server for all that leave it as it was."""
    with serving(model) as running:
        yield running


@pytest.fixture(scope="module")
def client(served):
    """The official client."""
    return openai.OpenAI(base_url=f"{served.address}/v1", api_key="-", max_retries=0)


@pytest.fixture(scope="module")
def http(served):
    """A client that sends what it is told."""
    with httpx.Client(base_url=served.address, timeout=60) as plain:
        yield plain


def post(http, address: str, **body) -> "httpx.Response":
    """A request of JSON."""
    return http.post(address, json=body)


def extra(**fields) -> dict:
    """Fields that the client does not know."""
    return {"extra_body": {"return_token_ids": True, "top_k": 30, **fields}}


# -- the promise ---------------------------

FEW = ((0, 1), (1, 3), (2, 2), (3, 2))
"""Seed and n of the requests that are asked for again and again."""


def body_of(seed: int, n: int) -> dict:
    """A request whose numbers follow from its seed."""
    policy = EXPERTS if seed % 2 else {"type": "topk"}
    return {
        "prompt": prompt_of(5 + seed, seed).tolist(),
        "seed": seed,
        "n": n,
        "max_tokens": 40,
        "temperature": 0.9,
        "extra_body": {
            "policy": policy,
            "top_k": 30,
            "sample_index": 10 * seed,
            "return_token_ids": True,
        },
    }


def expected_of(model, seed: int, n: int) -> list[list[int]]:
    """What Python gives for it."""
    samples = range(10 * seed, 10 * seed + n)
    policy = ExpertSample(k_keep=2, tau=1.5) if seed % 2 else TopK()
    options = {**SHAPES, "policy": policy, "samples": samples, "n": n}
    out = jaxmoe.sample(model, prompt_of(5 + seed, seed), key=seed, **options)
    return answers(out)


@pytest.fixture(scope="module")
def expected(model):
    """What Python gives for each of the few."""
    return {(seed, n): expected_of(model, seed, n) for seed, n in FEW}


async def ask(api, seed: int, n: int, stream: bool) -> list[list[int]]:
    """The tokens of each answer, streamed or not."""
    if not stream:
        reply = await api.completions.create(model="tiny", **body_of(seed, n))
        return [choice.token_ids for choice in reply.choices]
    found = defaultdict(list)
    events = await api.completions.create(model="tiny", stream=True, **body_of(seed, n))
    async for event in events:
        for choice in event.choices:
            found[choice.index] += choice.token_ids
    return [found[index] for index in range(n)]


async def crowd(address: str, clients: int, requests: int, wanted) -> int:
    """Clients that come and go at random; how many answers they compared."""
    api = openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="-", max_retries=0)
    compared = 0

    async def one(number: int) -> None:
        nonlocal compared
        chance = random.Random(number)
        for _ in range(requests):
            await asyncio.sleep(chance.random() * 0.2)
            key = chance.choice([*wanted])
            if chance.random() < 0.2:  # asks, and leaves before it is answered
                gone = asyncio.create_task(ask(api, *key, stream=True))
                await asyncio.sleep(chance.random() * 0.05)
                gone.cancel()
                await asyncio.gather(gone, return_exceptions=True)
                continue
            found = await ask(api, *key, stream=chance.random() < 0.5)
            assert found == wanted[key], key
            compared += len(found)

    async with api, asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(one(number))
    return compared


@pytest.mark.thorough
def test_64_clients_get_what_python_gives(served, expected):
    """An answer would depend on who else asks, or on when it was asked for."""
    compared = asyncio.run(crowd(served.address, 64, 1, expected))
    assert compared > 60
    assert settled(served) == 0


def settled(served) -> int:
    """Answers in flight once those of clients that left have been noticed."""
    deadline = time.monotonic() + 20
    while served.service.in_flight and time.monotonic() < deadline:
        time.sleep(0.02)
    return served.service.in_flight


def test_prompts_in_a_list_are_those_of_a_list_in_python(model, client):
    """A list of one would be drawn with another key than in Python."""
    prompts = [prompt_of(5, 0), prompt_of(9, 1)]
    keys = [jaxmoe.keys.prompt_key(jax.random.key(5), j) for j in range(2)]
    options = {**SHAPES, "policy": TopK(), "n": 2}
    alone = [
        jaxmoe.sample(model, prompt, key=key, **options)
        for prompt, key in zip(prompts, keys, strict=True)
    ]
    reply = client.completions.create(
        model="tiny",
        prompt=[prompt.tolist() for prompt in prompts],
        seed=5,
        n=2,
        max_tokens=40,
        temperature=0.9,
        **extra(policy="topk"),
    )
    found = [choice.token_ids for choice in reply.choices]
    assert found == [tokens for one in alone for tokens in answers(one)]
    assert [choice.index for choice in reply.choices] == [0, 1, 2, 3]
    assert reply.usage.prompt_tokens == 14
    assert reply.usage.completion_tokens == sum(map(len, found))


def test_a_seed_that_the_server_drew_draws_again(client):
    """A good answer could not be had again."""
    ask = {"model": "tiny", "prompt": "ab", "max_tokens": 12}
    first = client.completions.create(**ask)
    again = client.completions.create(**ask, seed=first.seed)
    other = client.completions.create(**ask)
    assert again.choices[0].text == first.choices[0].text
    assert first.system_fingerprint == other.system_fingerprint
    assert other.seed != first.seed


# -- text, streams, usage ---------------------------


@pytest.mark.parametrize("include", [False, True])
def test_streams_join_to_the_whole(model, client, include):
    """A stream would break characters, show stops, or end otherwise."""
    ask = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "a-é"}],
        "seed": 3,
        "n": 4,
        "max_completion_tokens": 40,
        "temperature": 0.9,
        "stop": ["e", "q2", "()"],
        "logprobs": True,
        "top_logprobs": 2,
        **extra(include_stop_str_in_output=include),
    }
    whole = client.chat.completions.create(**ask)
    texts, finish, order, logprobs = defaultdict(str), {}, [], defaultdict(list)
    *events, last = client.chat.completions.create(
        **ask, stream=True, stream_options={"include_usage": True}
    )
    for event in events:
        assert event.usage is None
        for choice in event.choices:
            texts[choice.index] += choice.delta.content or ""
            finish[choice.index] = choice.finish_reason
            order.append(choice.index)
            if choice.logprobs:
                logprobs[choice.index] += choice.logprobs.content
    assert last.usage == whole.usage and not last.choices
    python = jaxmoe.sample(
        model,
        ask["messages"],
        key=3,
        n=4,
        stop=ask["stop"],
        include_stop=include,
        **SHAPES,
    )
    assert [texts[i] for i in range(4)] == list(python.text)
    assert {f for f in finish.values()} <= {"stop", "length"}
    assert order != sorted(order)  # the answers come side by side
    for choice in whole.choices:
        assert choice.message.content == texts[choice.index]
        assert choice.finish_reason == finish[choice.index]
        assert choice.logprobs.content == logprobs[choice.index]
        found = [one.logprob for one in choice.logprobs.content]
        row = python.logprobs[choice.index, : len(found)]
        np.testing.assert_allclose(found, row, atol=1e-4)
        for one in choice.logprobs.content:
            assert len(one.top_logprobs) == 2
            assert one.logprob <= one.top_logprobs[0].logprob + 1e-6
            assert bytes(one.bytes).decode() == one.token
    assert whole.usage.completion_tokens == python.lengths.sum()


def test_scores_of_a_prompt(model, client, http):
    """Who scores with the server would read another token's log-probability."""
    prompt = prompt_of(7, 2)
    logits = np.asarray(jaxmoe.forward(model, prompt))
    table = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    own = [table[i - 1, token] for i, token in enumerate(prompt) if i]
    reply = post(
        http, "/v1/completions", prompt=prompt.tolist(), max_tokens=0, echo=True,
        logprobs=2, prompt_logprobs=1,
    ).json()  # fmt: skip
    (choice,) = reply["choices"]
    shown = choice["logprobs"]
    assert shown["token_logprobs"][0] is None and shown["top_logprobs"][0] is None
    np.testing.assert_allclose(shown["token_logprobs"][1:], own, atol=1e-4)
    assert choice["text"] == model.tokenizer.decode(prompt.tolist(), False)
    assert reply["usage"]["completion_tokens"] == 0
    for i, entry in enumerate(choice["prompt_logprobs"]):
        if i == 0:
            assert entry is None
            continue
        named = entry[str(prompt[i])]
        rank = 1 + int((table[i - 1] > table[i - 1, prompt[i]]).sum())
        assert named["rank"] == rank
        best = str(table[i - 1].argmax())
        assert entry[best]["rank"] == 1 and len(entry) == len({best, str(prompt[i])})
    # With an answer behind it, both stand one after the other.
    ask = {"model": "tiny", "prompt": prompt.tolist(), "max_tokens": 3, "seed": 1}
    longer = client.completions.create(**ask, echo=True, logprobs=1, **extra())
    echoed = longer.choices[0].logprobs
    assert len(echoed.tokens) == 7 + len(longer.choices[0].token_ids)
    np.testing.assert_allclose(echoed.token_logprobs[1:7], own, atol=1e-4)
    assert "".join(echoed.tokens)[: echoed.text_offset[7]] == choice["text"]


@pytest.fixture(scope="module")
def routed(client):
    """An answer with its experts: the question, and the choice."""
    ask = {"model": "tiny", "prompt": prompt_of(6, 4).tolist(), "max_tokens": 9}
    ask |= {"temperature": 0.9, "seed": 7}
    reply = client.completions.create(
        **ask, **extra(policy=EXPERTS, return_routes=True)
    )
    return ask, reply.choices[0]


def reads(served, **fields):
    """What the engine would be asked."""
    body = read_body(CompletionBody, json.dumps(fields).encode())
    (request,) = served.service.reader.completion(body).requests
    return request


def test_routes(model, served, routed):
    """An answer's experts could not be used again, or by a trainer."""
    ask, choice = routed
    routes = np.load(io.BytesIO(base64.b64decode(choice.routed_experts)))
    assert routes.shape == (6 + len(choice.token_ids) - 1, 2, CHOSEN)
    policy = ExpertSample(k_keep=2, tau=1.5)
    out = jaxmoe.sample(
        model, prompt_of(6, 4), key=7, policy=policy, **SHAPES | {"max_new_tokens": 9}
    )
    assert (routes[5:] == out.routes[0]).all() and (routes[:5] == -1).all()
    read = reads(served, **ask, routes=choice.routed_experts)
    assert (read.routes == out.routes).all()


@pytest.mark.slow
def test_routes_replay_an_answer(client, routed):
    """Recorded experts would be taken for other tokens, or not at all."""
    ask, choice = routed
    # The same tokens, drawn by the same key, with experts that TopK would not take.
    routes = choice.routed_experts
    again = client.completions.create(**ask, **extra(policy="topk", routes=routes))
    assert again.choices[0].token_ids == choice.token_ids
    plain = client.completions.create(**ask, **extra(policy="topk"))
    assert plain.choices[0].token_ids != choice.token_ids


FIELDS = {
    "temperature": 0.9,
    "top_k": 30,
    "top_p": 0.95,
    "min_p": 0.01,
    "presence_penalty": 1.5,
    "frequency_penalty": 0.5,
    "repetition_penalty": 1.3,
    "min_tokens": 20,
    "bad_words": ["c", "d e"],
}
ENDS = {"stop_token_ids": [20, 21], "ignore_eos": True, "max_tokens": 30}


def test_sampler_fields_are_those_of_python(model, served):
    """A field would be taken and do nothing."""
    assert set(FIELDS) | {"logit_bias", "candidates", "json_schema", "regex"} == {
        field.name for field in dataclasses.fields(TokenSampler)
    }
    biases = {"12": 3.0, "13": -100}
    read = reads(served, prompt="ab", logit_bias=biases, **FIELDS, **ENDS)
    sampler = TokenSampler(**FIELDS, logit_bias={12: 3.0, 13: -100.0})
    assert repr(read.sampler) == repr(read_sampler(model, sampler))
    assert (read.stop_ids, read.max_new_tokens) == ((20, 21), 30)
    unasked = reads(served, prompt="ab")
    assert repr(unasked.sampler) == repr(read_sampler(model, None))
    assert unasked.stop_ids == model.config.stop_ids


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("fields", "name", "value"),
    [
        ({"response_format": {"type": "text"}}, "json_schema", None),
        (
            {"response_format": {"type": "json_object"}},
            "json_schema",
            {"type": "object"},
        ),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "strict": True, "schema": SCHEMA},
                }
            },
            "json_schema",
            SCHEMA,
        ),
        ({"structured_outputs": {"json": SCHEMA}}, "json_schema", SCHEMA),
        ({"structured_outputs": {"regex": "a+"}}, "regex", "a+"),
    ],
)
def test_structured_output_reaches_the_sampler(served, fields, name, value):
    """An answer would be any text, where JSON was asked for."""
    pytest.importorskip("llguidance", reason='"jaxmoe[structured]" adds it')
    found = getattr(reads(served, prompt="ab", **fields).sampler, name)
    assert (json.loads(found) if isinstance(value, dict) else found) == value


@pytest.mark.slow
def test_sampler_fields_draw_as_in_python(model, client):
    """The same fields would draw other tokens."""
    more = {name: FIELDS[name] for name in (*list(FIELDS)[1:4], *list(FIELDS)[6:])}
    plain = {k: v for k, v in FIELDS.items() if k not in more}
    ask = {"model": "tiny", "prompt": "ab", "seed": 2, **plain, "max_tokens": 30}
    ends = {k: v for k, v in ENDS.items() if k != "max_tokens"}
    reply = client.completions.create(**ask, **extra(**more, **ends))
    out = jaxmoe.sample(
        model,
        "ab",
        key=2,
        sampler=TokenSampler(**FIELDS),
        max_new_tokens=30,
        stop_ids=[20, 21],
        slots=8,
    )
    assert reply.choices[0].token_ids == answers(out)[0]


def test_models_tokens_and_templates(model, client, http):
    """A client would not find the model, or count tokens wrongly."""
    assert [one.id for one in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").id == "tiny"
    text = "ab é😀" + END
    ids = post(http, "/tokenize", prompt=text, return_token_strs=True).json()
    assert ids["tokens"] == model.encode(text) and ids["tokens"][-1] == STOP
    assert ids["count"] == len(ids["tokens"]) == len(ids["token_strs"])
    assert post(http, "/detokenize", tokens=ids["tokens"]).json() == {"prompt": text}
    messages = [{"role": "user", "content": "hi"}]
    tools = [{"type": "function", "function": {"name": "f1"}}]
    more = {"tools": tools, "chat_template_kwargs": {"shout": True}}
    chat = post(http, "/tokenize", messages=messages, **more).json()["tokens"]
    assert chat == model.chat(messages, tools=tools, shout=True)
    reply = client.chat.completions.create(
        model="tiny", messages=messages, tools=tools, max_tokens=1,
        **extra(chat_template_kwargs={"shout": True}),
    )  # fmt: skip
    assert reply.choices[0].prompt_token_ids == chat


# -- the page ---------------------------

PAGE = (Path(jaxmoe.__file__).parent / "docs" / "serving.md").read_text("utf-8")


def test_the_page_names_every_field_and_address(served):
    """A reader would miss a field, or send one that is refused."""
    rows = re.findall(r"^\| (`.*?) \|", PAGE, re.M)
    named = {name for row in rows for name in re.findall(r"`([\w/]+)`", row)}
    fields = set(CompletionBody.model_fields) | set(ChatBody.model_fields)
    addresses = {route.path for route in served.server.config.app.routes}
    addresses.remove("/v1/models/{name:path}")
    assert named == fields | addresses | {"/v1/models/NAME"}


def test_what_the_page_shows_runs(served, http):
    """A user would copy it."""
    here = PAGE.replace("http://127.0.0.1:8000", served.address)
    here = here.replace('"demo"', '"tiny"').replace('"k_keep": 5', '"k_keep": 2')
    bodies = re.findall(r"curl -s\S* (http\S+) .*?-d '(.*?)'", here, re.DOTALL)
    assert len(bodies) == 2
    for address, body in bodies:
        kind = {"content-type": "application/json"}
        assert http.post(address, content=body, headers=kind).status_code == 200
    blocks = re.findall(r"```python\n(.*?)```", here, re.DOTALL)
    # Inspect AI has a test of its own (tests/serve/inspect_client_test.py).
    first, second = (block for block in blocks if "inspect_ai" not in block)
    names: dict = {}
    exec(first, names)  # noqa: S102
    assert len(names["reply"].choices) == 4
    fields = {"return_routes": True}
    reply = post(http, "/v1/completions", prompt=[9], max_tokens=2, **fields).json()
    names["choice"] = SimpleNamespace(**reply["choices"][0])
    exec(second, names)  # noqa: S102


@pytest.mark.thorough
def test_policies_that_change_another(client, model):
    """Answers would be those of another policy, or change with those beside them."""
    inner = ExpertSample(k_keep=2, tau=1.5)
    bias = np.where(np.arange(16) < 3, -np.inf, 0.5 * (np.arange(16) == 3))
    asked = {
        "biased": (BANS, jaxmoe.Biased(TopK(), bias)),
        "gated": (GATED, jaxmoe.Gated(inner, by="margin", threshold=0.3)),
        "dropout": ({"type": "dropout", "q": 0.4}, jaxmoe.Dropout(0.4)),
    }
    for body, policy in asked.values():
        ask = {"model": "tiny", "prompt": prompt_of(20).tolist(), "n": 2, "seed": 3}
        found = client.completions.create(
            **ask, temperature=0.9, max_tokens=40, **extra(policy=body)
        )
        alone = jaxmoe.sample(model, prompt_of(20), key=3, n=2, policy=policy, **SHAPES)
        assert [c.token_ids for c in found.choices] == answers(alone)


# -- refusals ---------------------------


def nested(depth: int) -> dict:
    """Gates within each other."""
    return {**GATED, "policy": nested(depth - 1)} if depth else GATED


@pytest.mark.parametrize(
    ("fields", "status", "param", "said"),
    [
        ({"tempreature": 1}, 400, "tempreature", "temperature"),
        ({"temperature": "1"}, 400, "temperature", "'1'"),
        ({"temperature": -1}, 400, "temperature", "-1"),
        ({"n": 0}, 400, "n", "0"),
        ({"n": True}, 400, "n", "True"),
        ({"n": 1000}, 400, "n", "1000"),
        ({"seed": -1}, 400, "seed", "-1"),
        ({"seed": 2**32}, 400, "seed", "4294967296"),
        ({"max_tokens": 10**30}, 400, "max_tokens", "000"),
        ({"max_tokens": 0}, 400, "max_tokens", "echo"),
        ({"max_tokens": 5000}, 400, "prompt", "4096"),
        ({"prompt": [9] * 4097}, 400, "prompt", "4097"),
        ({"prompt": []}, 400, "prompt", "empty"),
        ({"prompt": [1, "a"]}, 400, "prompt", "prompt"),
        ({"prompt": [97]}, 400, "prompt", "97"),
        ({"prompt": [2**70]}, 400, None, "integers"),
        ({"logprobs": 6}, 400, "logprobs", "6"),
        ({"policy": {"type": "best"}}, 400, "policy", "expert-sample"),
        ({"policy": {"type": "topk", "tau": 1}}, 400, "policy", "tau"),
        ({"policy": {"type": "topk", "k": 9}}, 400, "policy", "9"),
        ({"policy": {"type": "gated", "policy": "topk"}}, 400, "policy", "threshold"),
        ({"policy": {"type": "biased", "policy": "x", "bias": [0]}}, 400, None, "'x'"),
        ({"policy": {**BANS, "bias": [1, "x"]}}, 400, "policy", "x"),
        ({"policy": {**BANS, "bias": [[1], [1, 2]]}}, 400, "policy", "bias"),
        ({"policy": {**BANS, "policy": BANS}}, 400, None, "Biased has no numbers"),
        ({"policy": nested(9)}, 400, "policy", "found more"),
        ({"policy": {"type": "top-p", "k_min": 9}}, 400, None, "k_min must be 1..4"),
        ({"policy": {"type": "expert-sample", "tau": "x"}}, 400, "policy", "x"),
        ({"routes": "x"}, 400, "routes", "base64"),
        ({"response_format": {"type": "xml"}}, 400, "response_format", "json_schema"),
        (
            {"response_format": {"type": "json_schema"}},
            400,
            "response_format",
            "missing",
        ),
        ({"structured_outputs": {"regex": "("}}, 400, "structured_outputs", ""),
        ({"stop": ["<end>x"]}, 400, "stop", "special"),
        ({"stop_token_ids": [5] * 40 + [*range(40)]}, 400, "stop_token_ids", "32"),
        ({"stream_options": {"include_usage": True}}, 400, "stream_options", "stream"),
        ({"best_of": 3}, 400, "best_of", "n"),
        ({"model": "gpt"}, 404, "model", "tiny"),
        ({"logit_bias": {"a": 1}}, 400, "logit_bias", "a"),
        ({"logit_bias": {"5": -100, "05": 3}}, 400, "logit_bias", "5 twice"),
        ({"logit_bias": {"\u0665": 1}}, 400, "logit_bias", "token ids"),
        ({"logit_bias": {str(i): "x" for i in range(301)}}, 400, "logit_bias", "300"),
        ({"logit_bias": {"97": 1}}, 400, "logit_bias", "0..96"),
        ({"bad_words": ["a" * 33]}, 400, "bad_words", "32 tokens"),
        ({"bad_words": ["a" * 1025]}, 400, "bad_words", "1024"),
        ({"stop_token_ids": [97]}, 400, "stop_token_ids", "97"),
        ({"min_tokens": 30}, 400, "min_tokens", "30"),
        ({"stream_options": {"includeusage": True}}, 400, None, "include_usage"),
        ({"policy": {str(i): 1 for i in range(99)}}, 400, "policy", "64"),
    ],
)
def test_what_is_refused(http, fields, status, param, said):
    """A client would get another answer than it asked for, or not learn why none."""
    found = post(http, "/v1/completions", **{"prompt": [9], **fields})
    error = found.json()["error"]
    assert found.status_code == status, error
    assert param is None or error["param"] == param, error
    assert said in error["message"], error
    assert error["type"] == "invalid_request_error"
    assert "Traceback" not in found.text and len(found.text) < 2000


@pytest.mark.parametrize("bias", [[-1e40] * 16, [1e5] * 16])
def test_biases_past_all_bounds_are_no_bans(http, bias):
    """A number that float32 cannot hold would ban an expert."""
    found = post(http, "/v1/completions", prompt=[9], policy={**BANS, "bias": bias})
    assert found.status_code == 400
    assert "-10000..10000" in found.json()["error"]["message"]


def test_unknown_names_cost_little():
    """A body of a million wrong names would hold everybody up."""
    names = {f"{'x' * 1000}{i}": 1 for i in range(10_000)}
    raw = json.dumps({"prompt": "a", **names}).encode()
    began = time.perf_counter()
    with pytest.raises(RequestError, match="unknown field"):
        read_body(CompletionBody, raw)
    assert time.perf_counter() - began < 1


def test_a_default_that_no_slot_can_hold_is_refused_at_the_start(model):
    """Every request would be refused instead."""
    biased = jaxmoe.Biased(jaxmoe.Biased(TopK(), np.arange(16)), np.arange(16))
    named = Named("tiny", biased)
    with pytest.raises(ValueError, match="Biased has no numbers"):
        make_service(model, Shapes(), named)


def test_codes_that_programs_compare(client, http):
    """A client that shortens its prompt would not know that it should."""
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model="tiny", prompt=[9] * 5000)
    assert refused.value.code == "context_length_exceeded"
    chat = {"messages": [{"role": "user", "content": "a" * 5000}]}
    error = post(http, "/v1/chat/completions", **chat).json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert http.get("/v1/nothing").json()["error"]["code"] == "not_found"
    assert http.get("/v1/completions").status_code == 405
    form = http.post("/v1/completions", data={"prompt": "a"})
    assert (form.status_code, "error" in form.json()) == (415, True)


BAD = (
    b"\xff",
    b"[" * 100_000,
    b'{"a":' * 5000,
    b"",
    b"null",
    b"[]",
    b"NaN",
    b'"a"',
)
VALUES = [
    None, True, -1, 0, 1.5, 10**40, -(10**40), 1e308, "", "a\u0000", "\ud800", [], {},
    [[]], [[[]]], [None], ["a", 1], {"a": {}}, [[1], "a"], "Infinity", "[" * 50,
]  # fmt: skip


def mutation(chance: random.Random) -> bytes:
    """A body that is wrong in a way of its own, or at least odd."""
    kind = chance.random()
    body = {"prompt": "ab", "max_tokens": 1, "n": 1}
    body |= {"messages": [{"role": "user", "content": "a"}]} if kind < 0.3 else {}
    names = ["prompt", "n", "seed", "stop", "policy", "routes", "logit_bias", "tools"]
    names += ["messages", "stream_options", "temperature", "max_tokens", "echo"]
    names += ["chat_template_kwargs", "bad_words", "stop_token_ids", "logprobs"]
    for _ in range(chance.randrange(1, 4)):
        body[chance.choice(names)] = chance.choice(VALUES)
    raw = json.dumps(body).encode()
    if chance.random() < 0.3:
        return chance.choice(BAD)
    if chance.random() < 0.5:
        place = chance.randrange(len(raw))
        raw = raw[:place] + bytes([chance.randrange(256)]) + raw[place + 1 :]
    if chance.random() < 0.2:
        raw = raw[: chance.randrange(len(raw))]
    if chance.random() < 0.2:
        raw = raw.replace(b"1", chance.choice([b"NaN", b"-Infinity", b"1e999", b"01"]))
    return raw


def bombard(http, count: int) -> dict[int, int]:
    """How often each status came of so many mutations."""
    chance, found = random.Random(0), defaultdict(int)
    kinds = "/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"
    for _ in range(count):
        raw, kind = mutation(chance), chance.choice(kinds)
        reply = http.post(
            kind, content=raw, headers={"content-type": "application/json"}
        )
        found[reply.status_code] += 1
        assert reply.status_code < 500, (kind, raw[:200], reply.text)
        if reply.status_code != 200:
            assert {"message", "type", "param", "code"} == set(reply.json()["error"])
    return found


def test_malformed_bodies(http):
    """Somebody's slip would show a traceback, or end the server."""
    found = bombard(http, 150)
    assert found[400] > 75, found
    assert http.get("/health").status_code == 200


# -- who may ask, and how much ---------------------------


def test_keys_sizes_and_queue(model):
    """Anybody could use it, fill its memory, or wait for ever."""
    guards = {"keys": (b"secret", b"other"), "body_bytes": 2000, "body_seconds": 0.3}
    options = {"guards": guards, "queue": 4}
    with serving(model, **options) as one, httpx.Client(base_url=one.address) as http:
        assert http.get("/health").status_code == 200
        for header in ({}, {"authorization": "Bearer wrong"}, {"authorization": "é"}):
            for address in ("/v1/models", "/metrics"):
                raw = {k: v.encode() for k, v in header.items()}
                refused = http.get(address, headers=raw)
                assert refused.status_code == 401
                assert refused.json()["error"]["code"] == "invalid_api_key"
        http.headers["authorization"] = "Bearer other"
        assert http.get("/v1/models").status_code == 200
        large = post(http, "/v1/completions", prompt="a" * 3000)
        assert large.status_code == 413
        json_ = {"content-type": "application/json"}
        chunks = (b"a" * 100 for _ in range(100))
        unsized = http.post("/v1/completions", content=chunks, headers=json_)
        assert unsized.status_code == 413

        def slow():
            yield b"{"
            time.sleep(1)
            yield b"}"

        late = http.post("/v1/completions", content=slow(), headers=json_)
        assert late.status_code == 408
        # 12 answers have room: 8 slots and 4 that wait.
        ask = {"prompt": [9], "n": 6, "max_tokens": 400, "ignore_eos": True}
        held = []
        while len(held) < 2:
            stream = http.stream(
                "POST", "/v1/completions", json={**ask, "stream": True}
            )
            held.append(stream)
            assert stream.__enter__().status_code == 200
        full = post(http, "/v1/completions", **ask)
        assert full.status_code == 429 and int(full.headers["retry-after"]) >= 1
        assert full.json()["error"]["code"] == "queue_full"
        scored = {"prompt": [9], "echo": True, "max_tokens": 0, "logprobs": 1}
        assert post(http, "/v1/completions", **scored).status_code == 429
        for stream in held:  # the clients leave: their answers end, too
            stream.__exit__(None, None, None)
        assert settled(one) == 0
        small = {"prompt": [9], "max_tokens": 1}
        assert post(http, "/v1/completions", **small).status_code == 200
        text = http.get("/metrics").text
        assert 'jaxmoe_requests_total{endpoint="completions",status="429"} 2.0' in text
        assert 'jaxmoe_requests_total{endpoint="completions",status="499"} 2.0' in text
        assert "jaxmoe_clients_gone_total 2.0" in text
        assert "jaxmoe_answers_in_flight 0.0" in text


class _Busy(jaxmoe.Engine):
    """An engine that always has something to do."""

    busy = True  # type: ignore[assignment]

    def __init__(self, order: list[str]):
        self.order = order

    def step(self, most: int | None = None) -> list:
        self.order.append("step")
        time.sleep(0.001)
        return []

    def close(self) -> None:
        pass


def test_scores_and_steps_take_turns():
    """Who scores many prompts would hold up everybody's answers."""
    order: list[str] = []

    async def flood() -> None:
        driver = Driver(_Busy(order))
        driver.start()
        calls = [driver.call(lambda: order.append("call")) for _ in range(9)]
        await asyncio.gather(*calls)
        await asyncio.to_thread(driver.stop)

    asyncio.run(flood())
    found = "".join(one[0] for one in order)
    assert found.count("c") == 9 and "cc" not in found


def test_long_replies_are_written_beside_the_event_loop(http, monkeypatch):
    """Everybody would wait for one long reply to be written."""
    whole, opening = CompletionReply.whole, CompletionReply.opening
    loops = []

    def noted(method):
        def call(*given):
            loops.append(asyncio._get_running_loop())
            return method(*given)

        return call

    monkeypatch.setattr(CompletionReply, "whole", noted(whole))
    monkeypatch.setattr(CompletionReply, "opening", noted(opening))
    for stream in (False, True):
        ask = {"prompt": [9], "max_tokens": 1, "stream": stream}
        assert post(http, "/v1/completions", **ask).status_code == 200
    assert loops == [None, None]


@pytest.mark.parametrize("penalty", [None, 1.3])
def test_what_the_checkpoint_asks_for_is_compiled_first(model, penalty, monkeypatch):
    """The first request of all would wait for a program of its own."""
    given = dataclasses.replace(
        model.config.generation, temperature=0.7, repetition_penalty=penalty
    )
    config = dataclasses.replace(model.config, generation=given)
    drawn = []
    engine = jaxmoe.Engine(model, slots=8)
    note = lambda _, **options: drawn.append(options["sampler"])  # noqa: E731
    monkeypatch.setattr(engine, "submit", note)
    _compile(engine, dataclasses.replace(model, config=config), 1)
    own = [TokenSampler.from_config(given)] if penalty else []
    assert list(map(repr, drawn)) == list(map(repr, [TokenSampler(0), *own]))


def test_the_log_shows_controls(http, caplog):
    """A client could write lines of its own, or clear the reader's screen."""
    with caplog.at_level("INFO", logger="jaxmoe.serve"):
        assert http.get("/v1/models/%1b[2Jx%0dy").status_code == 404
    assert "x1b[2Jx" in caplog.text and "\x1b" not in caplog.text
    assert "\r" not in caplog.text


# -- ends ---------------------------


def test_a_fault_within_a_stream_is_told(served, http, monkeypatch):
    """A client would take a broken stream for a bad line, and metrics for a success."""
    monkeypatch.setattr(CompletionReply, "chunk", lambda *_: 1 / 0)
    ask = {"prompt": [9], "max_tokens": 3, "stream": True}
    text = post(http, "/v1/completions", **ask).text
    *_, last, done = text.split("\n\n")[:-1]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "internal_error"
    assert done == "data: [DONE]" and settled(served) == 0
    counted = 'jaxmoe_requests_total{endpoint="completions",status="500"} 1.0'
    assert counted in http.get("/metrics").text


def test_a_server_that_stops_ends_streams_cleanly(model, monkeypatch):
    """A client would take a cut answer for a whole one, or hang."""
    ask = {"model": "tiny", "prompt": [9], "stream": True}
    endless = {**ask, "max_tokens": 120, **extra(ignore_eos=True)}
    with serving(model, grace=0.5) as one:
        step = one.service.driver.engine.step
        slow = lambda: time.sleep(0.2) or step()  # noqa: E731
        monkeypatch.setattr(one.service.driver.engine, "step", slow)
        api = openai.OpenAI(base_url=f"{one.address}/v1", api_key="-", max_retries=0)
        events = iter(api.completions.create(**endless))
        next(events)
        threading.Thread(target=one.server.shut_down).start()
        deadline = time.monotonic() + 10
        while not one.service.draining and time.monotonic() < deadline:
            time.sleep(0.005)
        with pytest.raises(openai.InternalServerError) as refused:
            api.completions.create(model="tiny", prompt=[9])
        assert refused.value.status_code == 503
        assert refused.value.code == "server_shutting_down"
        with pytest.raises(openai.APIError, match="shutting down"):
            for _ in events:
                pass


def test_an_engine_that_fails_says_so(model, monkeypatch):
    """Requests would hang, or a broken server be sent more."""
    with serving(model) as one, httpx.Client(base_url=one.address) as http:
        engine = one.service.driver.engine
        monkeypatch.setattr(engine, "_dispatch_segment", lambda *_: 1 / 0)
        failed = post(http, "/v1/completions", prompt=[9], max_tokens=9)
        assert failed.status_code == 500
        assert failed.json()["error"]["code"] == "engine_failed"
        assert "ZeroDivision" not in failed.text
        health = http.get("/health")
        assert health.status_code == 503
        later = post(http, "/v1/completions", prompt=[9])
        assert later.status_code == 503
