"""What Prometheus reads at `/metrics`."""

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """Counters of one server, in a registry of its own."""

    def __init__(self, *, slots: int, running: Callable[[], int]):
        """running: how many answers are in flight."""
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "jaxmoe_requests",
            "Requests by endpoint and status of HTTP",
            ["endpoint", "status"],
            registry=registry,
        )
        self.gone = Counter(
            "jaxmoe_clients_gone", "Clients that left early", registry=registry
        )
        self.prompt_tokens = Counter(
            "jaxmoe_prompt_tokens", "Tokens of prompts", registry=registry
        )
        self.tokens = Counter(
            "jaxmoe_generated_tokens", "Tokens drawn", registry=registry
        )
        self.answers = Counter(
            "jaxmoe_answers", "Answers by how they ended", ["finish"], registry=registry
        )
        self.first_token = self._seconds(
            "jaxmoe_time_to_first_token_seconds", "From the body to the first token"
        )
        self.per_token = self._seconds(
            "jaxmoe_time_per_token_seconds", "Of an answer, after its first token"
        )
        self.whole = self._seconds(
            "jaxmoe_request_seconds", "From the body to the last token"
        )
        Gauge("jaxmoe_slots", "Answers decoded at once", registry=registry).set(slots)
        in_flight = Gauge(
            "jaxmoe_answers_in_flight", "Under way or waiting", registry=registry
        )
        in_flight.set_function(running)
        waiting = Gauge("jaxmoe_answers_waiting", "For a slot", registry=registry)
        waiting.set_function(lambda: max(0, running() - slots))

    def _seconds(self, name: str, about: str) -> Histogram:
        return Histogram(name, about, registry=self._registry, buckets=_SECONDS)

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self._registry)
