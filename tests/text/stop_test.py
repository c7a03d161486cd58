import numpy as np
import pytest

from jaxmoe.text import (
    StopScanner,
    Tokenizer,
    check_stops,
    find_stop,
    partial_stop,
    stop_length,
)


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
        if expected is not None:
            later = stop_length(tokenizer.decode, ids, stops, skip=expected)
            passed = stop_length(tokenizer.decode, ids, stops, skip=expected - 1)
            assert passed == expected
            assert later is None or later > expected
    assert 20 < stopped < 180


@pytest.mark.thorough
@pytest.mark.parametrize("most", [1, 3, 32])
def test_a_scanner_finds_what_a_look_at_all_ids_finds(tokenizer_dir, most):
    """A stop over the border of two pieces, or after half a character, would be missed,
    or an answer be cut elsewhere when it comes in other pieces."""
    tokenizer = Tokenizer.load(tokenizer_dir)
    assert tokenizer is not None
    rng = np.random.default_rng(most)
    stops = ("abc" * 5, "é!🙂", "\n\n\n", "🙂🙂")
    pieces, often = [*"abc!\n", "é", "🙂", "<|end|>", "abc"], [0.1] * 8 + [0.2]
    stopped = 0
    for _ in range(200):
        text = "".join(rng.choice(pieces, size=rng.integers(0, 120), p=often))
        if rng.random() < 0.5:
            text += stops[0]
        ids = tokenizer.encode(text)
        scanner, found, at = StopScanner(tokenizer.decode, stops), None, 0
        while at < len(ids) and found is None:
            size = int(rng.integers(1, most + 1))
            found = scanner.push(ids[at : at + size])
            at += size
        assert found == stop_length(tokenizer.decode, ids[:at], stops)
        assert found == stop_length(tokenizer.decode, ids, stops)
        skip = int(rng.integers(0, 30))
        scanner = StopScanner(tokenizer.decode, stops, skip)
        found_later = [scanner.push([i]) for i in ids]
        first = next((j for j in found_later if j is not None), None)
        assert first == stop_length(tokenizer.decode, ids, stops, skip)
        stopped += found is not None
    assert 20 < stopped < 190


def test_a_scanner_decodes_few_tokens():
    """The host's time would grow with the square of an answer's length."""
    decoded = 0

    def decode(ids):
        nonlocal decoded
        decoded += len(ids)
        return "x" * len(ids)

    scanner = StopScanner(decode, ("###", "stop here"))
    for _ in range(1000):
        assert scanner.push([1] * 32) is None
    assert decoded < 5 * 32_000


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
