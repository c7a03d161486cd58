"""The one thread that drives the engine.

All that touches the engine's state is done there, between two segments: taking
requests, cancelling them, and scoring prompts, one at most. What was drawn is handed
to the event loop once a segment.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any

from jaxmoe.decode.engine import Engine
from jaxmoe.decode.request import Delta, Request, Ticket

log = logging.getLogger("jaxmoe.serve")

Sink = Callable[[list[Delta] | BaseException], None]
"""Gets a request's deltas of a segment, or what went wrong; on the event loop."""


class Handle:
    """A request on its way through the engine; only the driver looks inside."""

    def __init__(self, request: Request, sink: Sink):
        """Take the request, and where its deltas go."""
        self.request, self.sink = request, sink
        self.ticket: Ticket | None = None
        self.left = len(request.samples)
        self.gone = False


class Driver:
    """Runs an engine in a thread of its own."""

    def __init__(self, engine: Engine):
        """Nothing runs before `start`."""
        self.engine = engine
        self.failure: BaseException | None = None
        self._orders: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._live: dict[Ticket, Handle] = {}
        self._stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    # -- from the event loop ---------------------------------------------------------

    def start(self) -> None:
        """Begins; what is drawn goes to the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def submit(self, request: Request, sink: Sink) -> Handle:
        """Hands a request of `engine.read` in."""
        handle = Handle(request, sink)
        self._orders.put(lambda: self._enqueue(handle))
        return handle

    def cancel(self, handle: Handle) -> None:
        """Frees a request's slots; of one that has ended, or twice, nothing."""
        handle.gone = True
        self._orders.put(lambda: self._cancel(handle))

    async def call(self, work: Callable[[], Any]) -> Any:
        """What `work` returns, computed between two segments.

        One such at most, so that who scores many prompts does not hold up answers.
        """
        future: Future[Any] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                if self.failure is not None:
                    raise self.failure
                future.set_result(work())
            except Exception as error:
                future.set_exception(error)

        self._calls.put(run)
        self._orders.put(lambda: None)  # to wake who waits for an order
        return await asyncio.wrap_future(future)

    def stop(self) -> None:
        """Ends the thread after the segment under way, and closes the engine."""
        self._stopping = True
        self._orders.put(lambda: None)
        if self._thread.is_alive():
            self._thread.join()

    # -- in the thread ---------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._run_orders()
                if self.engine.busy and not self._stopping:
                    self._hand_out(self.engine.step())
        except BaseException as error:
            log.exception("the engine failed; its requests end with an error")
            self._fail(error)
            while not self._stopping:
                self._run_orders()
        finally:
            self.engine.close()

    def _run_orders(self) -> None:
        """Carries out what was ordered; waits for an order where nothing else is due.

        An order that fails says so itself.
        """
        resting = self.failure is not None or not self.engine.busy
        waiting = resting and self._calls.empty()
        try:
            order = self._orders.get() if waiting else self._orders.get_nowait()
            while True:
                order()
                order = self._orders.get_nowait()
        except Empty:
            pass
        if not self._stopping and not self._calls.empty():
            self._calls.get()()

    def _enqueue(self, handle: Handle) -> None:
        if handle.gone:
            return
        try:
            if self.failure is not None:
                raise self.failure
            handle.ticket = self.engine.enqueue(handle.request)
        except BaseException as error:
            self._post([(handle, error)])
        else:
            self._live[handle.ticket] = handle

    def _cancel(self, handle: Handle) -> None:
        if handle.ticket is not None and self._live.pop(handle.ticket, None):
            self.engine.cancel(handle.ticket)

    def _hand_out(self, deltas: list[Delta]) -> None:
        """Gives what was drawn to whom it belongs."""
        given: dict[Handle, list[Delta]] = {}
        for delta in deltas:
            handle = self._live[delta.ticket]
            given.setdefault(handle, []).append(delta)
            if delta.finish is not None:
                handle.left -= 1
                if not handle.left:
                    del self._live[delta.ticket]
        self._post([*given.items()])

    def _fail(self, error: BaseException) -> None:
        self.failure = error
        handles, self._live = [*self._live.values()], {}
        self._post([(handle, error) for handle in handles])

    def _post(self, given: list[tuple[Handle, Any]]) -> None:
        assert self._loop is not None
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_deliver, given)


def _deliver(given: list[tuple[Handle, Any]]) -> None:
    for handle, what in given:
        handle.sink(what)
