"""What a JSON schema costs a token: masks on the host, and segments of one step.

    python -m jaxmoe.benchmarks.masks DIR

DIR has the tokenizer.json of a released model. The model has random weights, the shapes
of the preset "small", and that tokenizer's vocabulary.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np

from jaxmoe.benchmarks.hardware import hardware
from jaxmoe.benchmarks.presets import PRESETS
from jaxmoe.benchmarks.weights import random_params
from jaxmoe.decode.engine import Engine
from jaxmoe.decode.sampler import TokenSampler
from jaxmoe.execution import default_platform
from jaxmoe.model import Model
from jaxmoe.reports.text_table import markdown_table
from jaxmoe.router.policies import TopK
from jaxmoe.text.grammar import Grammar, mask_width, schema_text
from jaxmoe.text.tokenizer import Tokenizer

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer"},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
VOCAB = 151_936
"""Qwen3's, whose tokenizer has fewer tokens than its models have rows."""
ANSWERS, TOKENS, ROUNDS = 8, 64, 3


def prepare_seconds(tokenizer: Tokenizer) -> tuple[float, Grammar]:
    """Seconds until a schema can be followed, the first time; and its grammar."""
    began, end = time.perf_counter(), tokenizer.eos_id or 0
    grammar = Grammar(tokenizer, VOCAB, [end], json_schema=schema_text(SCHEMA))
    return time.perf_counter() - began, grammar


def mask_seconds(grammar: Grammar, answers: int = 32) -> np.ndarray:
    """Seconds of each mask of random answers that follow a grammar."""
    chance, found = np.random.default_rng(0), []
    mask = np.zeros(mask_width(VOCAB), np.int32)
    for _ in range(answers):
        guide = grammar.begin()
        for _ in range(TOKENS):
            began = time.perf_counter()
            going = guide.fill(mask)
            found.append(time.perf_counter() - began)
            bits = np.unpackbits(mask.view(np.uint8), bitorder="little")
            if not going or not guide.take([int(chance.choice(np.flatnonzero(bits)))]):
                break
    return np.array(found)


def token_seconds(model: Model, sampler: TokenSampler, segment: int) -> float:
    """Seconds from one token to the next of `ANSWERS` answers side by side.

    The best of a few runs; the first, which compiles, is none of them.
    """
    assert model.tokenizer is not None
    found = []
    with Engine(model, slots=ANSWERS, policy=TopK(), segment=segment) as engine:
        for _ in range(1 + ROUNDS):
            began = time.perf_counter()
            engine.submit(
                [1, 2, 3],
                key=0,
                n=ANSWERS,
                sampler=sampler,
                max_new_tokens=TOKENS,
                stop_ids=[model.tokenizer.eos_id or 0],
            )
            before = engine.steps
            while engine.busy:
                engine.step()
            found.append((time.perf_counter() - began) / (engine.steps - before))
    return min(found[1:])


def _rows(tokenizer: Tokenizer) -> Sequence[tuple[str, str]]:
    prepared, grammar = prepare_seconds(tokenizer)
    masks = 1e6 * mask_seconds(grammar)
    config = replace(PRESETS["small"].config, vocab_size=VOCAB)
    params = jax.block_until_ready(random_params(config, default_platform()))
    model = Model(config, params, tokenizer)
    guided = TokenSampler(1.0, json_schema=SCHEMA)
    ms = lambda sampler, segment: 1e3 * token_seconds(model, sampler, segment)  # noqa: E731
    plain, alone = ms(TokenSampler(), 32), ms(TokenSampler(), 1)
    followed = ms(guided, 32)
    p50, p99 = np.percentile(masks, (50, 99))
    each = f"{p50:.0f}; {p99:.0f}; {masks.mean():.0f} us"
    side = f"{ANSWERS} answers side by side, a token of each"
    return (
        ("preparing a vocabulary and a schema, once", f"{prepared:.1f} s"),
        ("a mask on the host, p50; p99; mean", each),
        (f"{side}, unguided", f"{plain:.2f} ms"),
        (f"{side}, unguided, segments of one step", f"{alone:.2f} ms"),
        (f"{side}, JSON schema", f"{followed:.2f} ms ({followed / plain:.2f} x)"),
    )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tokenizer", metavar="DIR", type=Path)
    tokenizer = Tokenizer.load(parser.parse_args().tokenizer)
    if tokenizer is None:
        raise SystemExit("expected a tokenizer.json in DIR, found none")
    print(hardware())
    print(markdown_table(["what", "measured"], [[*row] for row in _rows(tokenizer)]))


if __name__ == "__main__":
    main()
