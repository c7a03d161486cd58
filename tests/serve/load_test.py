"""A server under load and ill-treated: no error, no leak, nobody held up.

JAXMOE_LOAD_SECONDS is how long the load lasts, 300 by default.
"""

import asyncio
import os
import signal
import time

import pytest

from jaxmoe import demo
from jaxmoe.benchmarks import serving
from tests.serve.server_test import bombard, httpx

pytestmark = [pytest.mark.slow, pytest.mark.extras]

SECONDS = float(os.environ.get("JAXMOE_LOAD_SECONDS", "300"))
SMALL = ("--prompt-tokens", "16")
"""As long as the demo's prompts are: fewer programs to compile."""
PROMPTS = [problem.prompt for problem in demo.problems()]


@pytest.fixture(scope="module")
def process():
    """A server of the demo model: where it listens, and its process."""
    with serving.running(*SMALL) as (address, process):
        yield address, process


def quiet(address: str) -> bool:
    """Whether nothing is in flight any more, soon."""
    deadline = time.monotonic() + 30
    while serving.in_flight(address) and time.monotonic() < deadline:
        time.sleep(0.1)
    return serving.in_flight(address) == 0


def test_64_clients_for_minutes(process):
    """A request would fail, or memory run out by tomorrow."""
    address, server = process
    load = lambda seconds, seed: serving.load(  # noqa: E731
        address, PROMPTS, clients=64, seconds=seconds, seed=seed
    )
    asyncio.run(load(max(20, SECONDS / 4), 0))
    before = serving.resident(server.pid)
    met = asyncio.run(load(SECONDS, 1))
    after = serving.resident(server.pid)
    print(f"{met.answers} answers, {met.tokens / SECONDS:.0f} tokens/s")
    for name in ("first", "between"):
        p50, p99 = met.percentiles(name)
        print(f"{name}: p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    print(f"resident: {before:.0f} MB, then {after:.0f} MB")
    assert set(met.ends) <= {"stop", "length"}, met.ends
    assert abs(after / before - 1) < 0.05
    assert quiet(address)


def test_500_clients_that_vanish(process):
    """Slots would go on drawing for nobody."""
    address, _ = process
    asyncio.run(serving.vanish(address, PROMPTS, clients=500))
    assert quiet(address)
    met = serving.Met()
    asyncio.run(serving.ask(address, {"prompt": PROMPTS[0]}, met))
    assert set(met.ends) <= {"stop", "length"}


def test_slow_readers_hold_nobody_up(process):
    """One client on a bad line would stall all others."""
    address, _ = process
    body = {"prompt": PROMPTS[0], "n": 4, "max_tokens": 400, "ignore_eos": True}
    body |= {"stream": True, "logprobs": 5, "return_token_ids": True}

    async def slow(hold: asyncio.Event) -> int:
        async with serving.Connection(address, body) as connection:
            await hold.wait()
            return len([event async for event in connection.events()])

    async def both() -> tuple[serving.Met, list[int]]:
        hold = asyncio.Event()
        readers = [asyncio.create_task(slow(hold)) for _ in range(16)]
        await asyncio.sleep(0.5)
        # All slots are those of slow readers now; others must still get theirs.
        met = await serving.load(address, PROMPTS, clients=8, seconds=10, seed=5)
        hold.set()
        return met, await asyncio.gather(*readers)

    met, events = asyncio.run(both())
    assert met.answers > 8 and set(met.ends) <= {"stop", "length"}
    assert min(events) > 1
    assert quiet(address)


def test_1000_malformed_bodies(process):
    """Somebody's slip would end the server."""
    address, _ = process
    with httpx.Client(base_url=address, timeout=60) as http:
        found = bombard(http, 1000)
        assert found[400] > 500, found
        assert http.get("/health").status_code == 200


def test_sigterm_during_load_ends_streams_cleanly():
    """An update would cut answers off, and clients take them for whole."""
    with serving.running(*SMALL, "--grace", "3") as (address, server):
        endless = {"prompt": PROMPTS[0], "max_tokens": 480, "ignore_eos": True}

        async def stopped() -> serving.Met:
            met = serving.Met()
            asks = [
                asyncio.create_task(
                    serving.ask(address, endless | {"n": 8, "seed": seed}, met)
                )
                for seed in range(64)
            ]
            await asyncio.sleep(1.5)
            server.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.3)
            late = serving.Met()
            await serving.ask(address, endless, late)
            assert set(late.ends) == {"status 503"}, late.ends
            # Raises for one that breaks off.
            await asyncio.gather(*asks)
            return met

        met = asyncio.run(stopped())
        assert server.wait(timeout=30) == 0
        assert set(met.ends) <= {"length", "server_shutting_down"}, met.ends
        assert met.ends["server_shutting_down"] > 0
