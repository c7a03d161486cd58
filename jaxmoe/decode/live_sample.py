"""One answer while it has a slot: its tokens so far, and where it ends."""

from dataclasses import dataclass, field

from jaxmoe.decode.request import Delta, Request, Ticket
from jaxmoe.decode.stop_rule import Watcher
from jaxmoe.decode.trace import TokenTrace, part_of
from jaxmoe.router.policies import Policy
from jaxmoe.text.grammar import Guide
from jaxmoe.text.stop import StopScanner


@dataclass
class LiveSample:
    """An answer under way.

    place: among the samples of its request. entry: where its prompt lies. length:
    tokens that the host has seen. over: whether it has ended, or was cancelled; what
    the device draws for it beyond that is thrown away.
    """

    ticket: Ticket
    request: Request
    place: int
    entry: int = 0
    length: int = 0
    over: bool = False
    scanner: StopScanner | None = field(init=False)
    watcher: Watcher | None = field(init=False)
    guide: Guide | None = field(init=False)

    def __post_init__(self):
        rule, prompt = self.request.stop_when, self.request.number
        self.watcher = None if rule is None else Watcher(rule, prompt, self.index)
        grammar = self.request.grammar
        self.guide = None if grammar is None else grammar.begin()
        stops, decode = self.request.stops, self.request.decode
        skip = self.request.min_tokens
        self.scanner = None if decode is None else StopScanner(decode, stops, skip)

    @property
    def policy(self) -> Policy:
        """Its own."""
        return self.request.policies[self.place]

    @property
    def index(self) -> int:
        """Its sample index i."""
        return self.request.samples[self.place]

    @property
    def drawn(self) -> int:
        """Tokens that the device has drawn, as segments are seen one by one.

        The first is drawn as the sample gets its slot, and may not have been seen.
        """
        return max(self.length, 1)

    @property
    def left(self) -> int:
        """Tokens it may still draw."""
        return self.request.max_new_tokens - self.drawn

    @property
    def host_decides(self) -> bool:
        """Whether how it goes on is known only when the host has seen its tokens."""
        return not (self.scanner is self.watcher is self.guide is None)

    def take(self, part: TokenTrace) -> Delta:
        """Adds new tokens, cut where one of them ends the answer.

        The delta's arrays are views of those of `part`. What a grammar says of them is
        not asked here.
        """
        request, ids = self.request, part.token.tolist()
        before = self.length
        self.length += len(ids)
        finish = None
        found = None if self.scanner is None else self.scanner.push(ids)
        if found is not None:
            finish, self.length = "stop", found
        elif ids[-1] in request.stop_ids:
            finish = "stop"
        elif not self.left:
            finish = "length"
        if self.watcher is not None:
            ended = self.watcher.push(_first(part, self.length - before))
            # Of an answer that ends there anyway, its own end is told.
            if ended is not None and (finish is None or ended < self.length):
                finish, self.length = "stop_when", ended
        part = _first(part, self.length - before)
        return Delta(self.ticket, self.index, part, self.length, finish)


def _first(part: TokenTrace, count: int) -> TokenTrace:
    if count == len(part.token):
        return part
    return part_of(part, slice(max(count, 0)))
