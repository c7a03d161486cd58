"""All answers to some requests, through an engine of their own."""

import time
from collections.abc import Callable, Iterator, Sequence

from jaxmoe.decode.engine import Engine
from jaxmoe.decode.request import Answer, Progress, Request
from jaxmoe.decode.trace import TokenTrace, join


def run(
    engine: Engine,
    requests: Sequence[Request],
    *,
    on_progress: Callable[[Progress], None] | None = None,
) -> Iterator[Answer]:
    """Yields every answer as it finishes, in an order that depends on their lengths.

    Args:
      engine: with nothing else in flight; it is closed at the end. Each process of
        several runs the same call, and gets every answer.
      requests: `Answer.prompt` says which of them.
    """
    with engine:
        prompts = {engine.enqueue(request): j for j, request in enumerate(requests)}
        total = sum(len(request.samples) for request in requests)
        parts: dict[tuple[int, int], list[TokenTrace]] = {}
        began, finished = time.perf_counter(), 0
        while engine.busy:
            for delta in engine.step():
                answer = prompts[delta.ticket], delta.sample
                parts.setdefault(answer, []).append(delta.trace)
                if delta.finish is not None:
                    finished += 1
                    trace = join(parts.pop(answer), delta.length)
                    yield Answer(*answer, trace, delta.finish)
            if on_progress is not None:
                seconds = time.perf_counter() - began
                now = Progress(finished, total, engine.tokens, seconds, engine.steps)
                on_progress(now)
