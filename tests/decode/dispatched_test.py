"""What a program drew reaches its own answers, however it is cut."""

from types import SimpleNamespace

import numpy as np
import pytest

from jaxmoe.decode.dispatched import Dispatched
from jaxmoe.decode.trace import Drawn, TokenTrace

SLOTS, STEPS = 4, 6


def _dispatched(count: list[int], *, over: int | None = None) -> Dispatched:
    """Distinct tokens; the sample of slot `over` has ended meanwhile, slot 3 none."""
    tokens = np.arange(SLOTS * STEPS, dtype=np.int32).reshape(SLOTS, STEPS)
    trace = TokenTrace(tokens, -tokens.astype(np.float32))
    samples = [SimpleNamespace(over=slot == over) for slot in range(3)]
    return Dispatched([*samples, None], Drawn(trace, np.array(count)), in_steps=True)


def _pieces(dispatched: Dispatched, most: int) -> list[dict[int, list[int]]]:
    """Tokens by slot, of each piece."""
    pieces, rest = [], dispatched
    while rest is not None:
        seen, rest = rest.result(most)
        pieces.append({slot: part.token.tolist() for slot, _, part in seen.parts()})
    return pieces


@pytest.mark.parametrize("most", range(1, STEPS + 2))
@pytest.mark.usefixtures("untyped")
def test_pieces_are_the_whole(most):
    """A token would be lost or come twice, or a delta be longer than was asked for."""
    count = [5, 0, 2, 0]
    pieces = _pieces(_dispatched(count), most)
    assert len(pieces) == -(-5 // most)
    assert all(len(tokens) <= most for piece in pieces for tokens in piece.values())
    for slot, length in enumerate(count):
        found = [token for piece in pieces for token in piece.get(slot, [])]
        assert found == list(range(slot * STEPS, slot * STEPS + length))


@pytest.mark.parametrize("most", [1, STEPS])
@pytest.mark.usefixtures("untyped")
def test_what_nobody_wants_any_more_is_left_out(most):
    """Tokens past a cancelled answer's end would be told of."""
    for piece in _pieces(_dispatched([5, 3, 2, 4], over=1), most):
        assert not {1, 3} & set(piece)


@pytest.mark.usefixtures("untyped")
def test_steps_are_those_of_the_longest():
    """Occupancy would be reckoned with steps that nobody took."""
    seen, _ = _dispatched([5, 3, 0, 0]).result(STEPS)
    assert seen.steps == 5


@pytest.mark.parametrize(("length", "found"), [(2, False), (3, True)])
@pytest.mark.usefixtures("untyped")
def test_nan_counts_where_a_token_was_drawn(length, found):
    """A model would be warned of for what slots at rest write."""
    dispatched = _dispatched([length, 0, 0, 0])
    dispatched.drawn.trace.logprob[0, 2] = np.nan
    seen, _ = dispatched.result(STEPS)
    assert seen.has_nan() == found
