"""A tiny model with a tokenizer of its 97 tokens, and a server in this process."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import jaxmoe
from jaxmoe.text.tokenizer import Tokenizer
from tests.tiny import STOP, VOCAB, tiny_model

TEMPLATE = (
    "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}"
    "{% for t in tools or [] %}[{{ t.function.name }}]{% endfor %}"
    "{% if shout is defined %}!{% endif %}"
    "{% if add_generation_prompt %}a:{% endif %}"
)
END = "<end>"


def tiny_tokenizer() -> Tokenizer:
    """Bytes of ASCII, and those of two longer characters, which come in halves."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    ascii_ = "".join(map(chr, range(32, 127))).translate(
        dict.fromkeys(map(ord, "~}|{`^]\\[@"))
    )
    letters = {c for text in (ascii_, "é", "😀") for c, _ in _bytes(level, text)}
    vocab = {letter: i + (i >= STOP) for i, letter in enumerate(sorted(letters))}
    assert max(vocab.values()) < VOCAB, len(vocab)
    vocab[END] = STOP
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = level
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([END])
    return Tokenizer(
        backend,
        special_tokens={"eos_token": END},
        chat_templates={"default": TEMPLATE},
    )


def _bytes(level: Any, text: str) -> list[tuple[str, Any]]:
    """The letters that stand for a text's bytes."""
    return [(c, None) for word, _ in level.pre_tokenize_str(text) for c in word]


def tiny_chat_model() -> jaxmoe.Model:
    """`tiny_model` that reads and writes."""
    return replace(tiny_model(), tokenizer=tiny_tokenizer())


@dataclass(frozen=True)
class Served:
    """A server that runs: where, and its parts."""

    address: str
    service: Any
    server: Any


@contextmanager
def serving(
    model: jaxmoe.Model,
    *,
    guards: dict[str, Any] | None = None,
    limits: dict[str, Any] | None = None,
    grace: float = 5.0,
    policy: jaxmoe.Policy | None = None,
    **shapes: Any,
) -> Iterator[Served]:
    """Serves on a free port, from a thread; stopped at the end."""
    from jaxmoe.serve.app import Guards
    from jaxmoe.serve.build import Named, Shapes, make_service
    from jaxmoe.serve.request_reader import Limits
    from jaxmoe.serve.server import address_of, make_server

    shapes = {"slots": 8, "prompt_tokens": 1, "answer_tokens": 1, **shapes}
    named = Named("tiny", policy, limits=Limits(**{"logprobs": 5, **(limits or {})}))
    service = make_service(model, Shapes(**shapes), named)
    server = make_server(service, Guards(**(guards or {})), port=0, grace=grace)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started and thread.is_alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.started
    try:
        yield Served(address_of(server), service, server)
    finally:
        server.shut_down()
        thread.join(timeout=60)
        assert not thread.is_alive()
