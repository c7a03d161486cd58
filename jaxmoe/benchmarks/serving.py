"""Load on `jaxmoe serve`: many clients, what they wait for, and what is left behind.

    python -m jaxmoe.benchmarks.serving --seconds 60

starts a server of the demo model, and prints the table of jaxmoe/docs/serving.md. The
clients speak HTTP over plain sockets, so that they take little of the machine.
"""

import argparse
import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np

import jaxmoe
from jaxmoe import demo
from jaxmoe.benchmarks.hardware import hardware
from jaxmoe.reports.text_table import markdown_table

CLIENTS = 64
FULL = {"prompts": 256, "n": 8, "max_tokens": 32}
"""What throughput is measured on: so many prompts, answers to each, and tokens."""


@dataclass
class Met:
    """What clients met. Times in seconds.

    first: to the first token. between: an answer's mean time a token after it.
    """

    first: list[float] = field(default_factory=list)
    between: list[float] = field(default_factory=list)
    tokens: int = 0
    answers: int = 0
    ends: Counter[str] = field(default_factory=Counter)

    def percentiles(self, name: str) -> tuple[float, float]:
        """The median and the 99th of a hundred, in milliseconds."""
        p50, p99 = np.percentile(getattr(self, name) or [0.0], (50, 99))
        return 1e3 * float(p50), 1e3 * float(p99)


class Connection:
    """One request over a connection of its own."""

    def __init__(self, address: str, body: dict[str, Any]):
        """The request is sent when the context is entered."""
        _, _, place = address.partition("//")
        self._host, _, port = place.partition(":")
        self._port, self._body = int(port), json.dumps(body).encode()
        self.status = 0

    async def __aenter__(self) -> "Connection":
        self._reader, self._writer = await asyncio.open_connection(
            self._host, self._port
        )
        head = (
            f"POST /v1/completions HTTP/1.1\r\nHost: {self._host}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(self._body)}\r\n"
            "Connection: close\r\n\r\n"
        )
        self._writer.write(head.encode() + self._body)
        await self._writer.drain()
        first = await self._reader.readline()
        self.status = int(first.split()[1]) if first else 0
        while (await self._reader.readline()).strip():
            pass
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """The objects of the stream; ends with the stream's own last word.

        Raises:
          ValueError: a stream that breaks off.
        """
        # Lines of chunks' sizes stand between those of events.
        while line := await self._reader.readline():
            if line.startswith(b"data: [DONE]"):
                return
            if line.startswith(b"data: "):
                yield json.loads(line[6:])
        raise ValueError("the stream broke off")


async def ask(address: str, body: dict[str, Any], met: Met) -> None:
    """One streamed request, timed."""
    began, firsts, lasts = time.perf_counter(), {}, {}
    counts: Counter[int] = Counter()
    body = body | {"stream": True, "return_token_ids": True}
    async with Connection(address, body) as connection:
        if connection.status != 200:
            met.ends[f"status {connection.status}"] += 1
            return
        async for event in connection.events():
            if "error" in event:
                met.ends[event["error"]["code"]] += 1
                return
            now = time.perf_counter()
            for choice in event["choices"]:
                index = choice["index"]
                firsts.setdefault(index, now)
                lasts[index] = now
                counts[index] += len(choice["token_ids"])
                if choice["finish_reason"] is not None:
                    met.ends[choice["finish_reason"]] += 1
    for index, count in counts.items():
        met.first.append(firsts[index] - began)
        if count > 1:
            met.between.append((lasts[index] - firsts[index]) / (count - 1))
        met.tokens += count
        met.answers += 1


def mixed(chance: random.Random, prompts: Sequence[str]) -> dict[str, Any]:
    """A request of random length, policy and sampler."""
    kinds = {"type": "topk"}, {"type": "expert-sample", "tau": chance.choice([0.5, 2])}
    return {
        "prompt": chance.choice(prompts),
        "n": chance.choice([1, 1, 1, 2, 4]),
        "seed": chance.randrange(1 << 32),
        "max_tokens": chance.choice([4, 16, 64, 256]),
        "temperature": chance.choice([0, 0.7, 1.0]),
        "ignore_eos": chance.random() < 0.5,
        "policy": chance.choice(kinds),
        "return_token_ids": True,
    }


async def load(
    address: str, prompts: Sequence[str], *, clients: int, seconds: float, seed: int = 0
) -> Met:
    """Clients that ask one mixed request after the other."""
    met, end = Met(), time.monotonic() + seconds

    async def client(number: int) -> None:
        chance = random.Random(f"{seed} {number}")
        while time.monotonic() < end:
            await ask(address, mixed(chance, prompts), met)

    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(client(number))
    return met


async def throughput(address: str, prompts: Sequence[str], *, clients: int) -> Met:
    """Clients that ask for all answers to some prompts, as fast as they are taken."""
    met, waiting = Met(), list(enumerate(prompts))

    async def client() -> None:
        while waiting:
            seed, prompt = waiting.pop()
            rest = {"n": FULL["n"], "max_tokens": FULL["max_tokens"], "seed": seed}
            body = {"prompt": prompt, "return_token_ids": True, "policy": "topk"}
            await ask(address, body | rest, met)

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())
    return met


async def vanish(address: str, prompts: Sequence[str], *, clients: int) -> None:
    """Clients that leave in the middle of an answer, each at another moment."""

    async def client(number: int) -> None:
        chance = random.Random(number)
        await asyncio.sleep(chance.random() * 2)
        body = mixed(chance, prompts) | {"max_tokens": 400, "ignore_eos": True}
        async with Connection(address, body | {"stream": True}) as connection:
            if connection.status == 200 and chance.random() < 0.8:
                await anext(connection.events())
            await asyncio.sleep(chance.random() * 0.2)

    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(client(number))


def in_flight(address: str) -> float:
    """Answers that the server still has in flight, by its own count."""
    with urllib.request.urlopen(f"{address}/metrics", timeout=60) as reply:
        text = reply.read().decode()
    return float(re.findall(r"^jaxmoe_answers_in_flight (\S+)", text, re.M)[0])


def resident(process: int) -> float:
    """Megabytes of a process."""
    pages = int(Path(f"/proc/{process}/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 1e6


@contextmanager
def running(*options: str) -> Iterator[tuple[str, subprocess.Popen]]:
    """A server of the demo model in a process of its own, and where it listens."""
    command = [sys.executable, "-m", "jaxmoe", "serve", "demo", "--port", "0"]
    with subprocess.Popen(
        [*command, *options], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if found := re.search(r"listening on (http://\S+)", line):
                    break
            else:
                raise RuntimeError("the server did not start")
            # What it logs must be read on, or it would wait for a reader.
            Thread(target=process.stderr.read, daemon=True).start()
            yield found[1], process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)


def _rows(args: argparse.Namespace) -> Iterator[tuple[str, str]]:
    prompts = [problem.prompt for problem in demo.problems()]
    some = prompts[: FULL["prompts"]]
    with running("--prompt-tokens", "16") as (address, process):
        warm = load(address, prompts, clients=args.clients, seconds=args.warm)
        asyncio.run(warm)
        before = resident(process.pid)
        met = asyncio.run(
            load(address, prompts, clients=args.clients, seconds=args.seconds, seed=1)
        )
        after = resident(process.pid)
        wrong = {k: v for k, v in met.ends.items() if k not in ("stop", "length")}
        yield f"{args.clients} clients, {args.seconds:g} s, errors", str(wrong or 0)
        yield "answers; tokens/s", f"{met.answers}; {met.tokens / args.seconds:.0f}"
        first, between = met.percentiles("first"), met.percentiles("between")
        yield "time to first token, p50; p99", f"{first[0]:.0f}; {first[1]:.0f} ms"
        yield "time per token, p50; p99", f"{between[0]:.1f}; {between[1]:.1f} ms"
        change = after / before - 1
        yield "resident memory", f"{before:.0f} MB, then {after:.0f} ({change:+.1%})"
        asyncio.run(vanish(address, prompts, clients=500))
        time.sleep(1)
        yield "answers in flight 1 s after 500 clients left", f"{in_flight(address):g}"
        began = time.perf_counter()
        served = asyncio.run(throughput(address, some, clients=args.clients))
        rate = served.tokens / (time.perf_counter() - began)
    drawn = _sampled(some)
    yield (
        f"{FULL['prompts']} prompts, {FULL['n']} answers each, streamed",
        (f"{rate:.0f} tokens/s, {rate / drawn:.0%} of `sample`'s {drawn:.0f}"),
    )


def _sampled(prompts: Sequence[str]) -> float:
    """Tokens a second of `jaxmoe.sample` on the same prompts, compilation left out."""
    model = jaxmoe.load("demo")
    options: Any = {
        "n": FULL["n"],
        "max_new_tokens": FULL["max_tokens"],
        "policy": jaxmoe.TopK(),
        "slots": 64,
    }
    keys = list(range(len(prompts)))
    jaxmoe.sample(model, list(prompts), key=keys, **options)
    began = time.perf_counter()
    found = jaxmoe.sample(model, list(prompts), key=keys, **options)
    tokens = sum(int(one.lengths.sum()) for one in found)  # type: ignore[union-attr]
    return tokens / (time.perf_counter() - began)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--warm", type=float, default=15)
    args = parser.parse_args()
    print(hardware())
    print(markdown_table(["what", "measured"], [[*row] for row in _rows(args)]))


if __name__ == "__main__":
    main()
