import numpy as np
import pytest

from jaxmoe.text import Tokenizer, check_stops, find_stop, partial_stop, stop_length


@pytest.mark.parametrize(
    "text, stops, found",
    [
        ("abc", (), None),
        ("abc", "b", 1),
        ("abc", ("c", "b"), 1),
        ("abcd", ("abcd", "bc"), 0),
        ("no such", ("\n",), None),
        ("", ("a",), None),
        ("a🙂b", ("🙂",), 1),
    ],
)
def test_finds_the_earliest_stop(text, stops, found):
    """An answer would be cut at a later stop, or at the one listed first."""
    assert find_stop(text, stops) == found


@pytest.mark.parametrize(
    "text, stops, kept",
    [
        ("so far ##", ("###",), 2),
        ("so far ###", ("###",), 2),
        ("abab", ("ababc", "bx"), 4),
        ("abc", ("x",), 0),
        ("#", (), 0),
    ],
)
def test_keeps_back_what_may_grow_into_a_stop(text, stops, kept):
    """A stream would show the beginning of a stop string."""
    assert partial_stop(text, stops) == kept


def test_stop_length_is_the_first_prefix_that_stops(tokenizer_dir):
    """Bisection would differ from trying each prefix in turn."""
    tokenizer = Tokenizer.load(tokenizer_dir)
    assert tokenizer is not None
    rng = np.random.default_rng(0)
    stops = ("ab", "é!", "\n\n", "🙂")
    pieces = [*"abc!\n", "é", "🙂", "<|end|>"]
    stopped = 0
    for _ in range(200):
        text = "".join(rng.choice(pieces, size=rng.integers(0, 12)))
        ids = tokenizer.encode(text)
        expected = next(
            (
                j
                for j in range(len(ids) + 1)
                if find_stop(tokenizer.decode(ids[:j]), stops) is not None
            ),
            None,
        )
        stopped += expected is not None
        assert stop_length(tokenizer.decode, ids, stops) == expected
    assert 20 < stopped < 180


def test_no_stops_never_stop():
    """Without stop strings nothing may be decoded."""
    assert stop_length(lambda ids: pytest.fail("decoded"), [1, 2], ()) is None


def test_a_bare_string_is_one_stop():
    """Each letter would become a stop."""
    assert check_stops("stop") == ("stop",)
    assert check_stops(["a", "b"]) == ("a", "b")


@pytest.mark.parametrize(
    "stops, error, message",
    [
        (3, TypeError, "a string or a sequence of strings, found 3"),
        (b"ab", TypeError, "found b'ab'"),
        (None, TypeError, "found None"),
        (("a", 5), TypeError, "found 5 of type int"),
        (("a", None), TypeError, "found None of type NoneType"),
        ("", ValueError, "must not be empty"),
        (("a", ""), ValueError, "must not be empty"),
        ("a\ufffd", ValueError, "U\\+FFFD"),
    ],
)
def test_refuses_what_is_no_stop(untyped, stops, error, message):
    """A wrong stop would be ignored, or would end every answer at once."""
    for check in (check_stops, lambda stops: find_stop("text", stops)):
        with pytest.raises(error, match=message):
            check(stops)
