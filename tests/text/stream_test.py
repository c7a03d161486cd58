import numpy as np
import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models

from jaxmoe.text import TextStream, Tokenizer


def _stream(decode, ids, size=1):
    stream = TextStream(decode)
    pieces = [stream.push(ids[i : i + size]) for i in range(0, len(ids), size)]
    return [*pieces, stream.close()]


@pytest.fixture(scope="module", params=["small", "qwen3"])
def tokenizer(request, tokenizer_json):
    """The small byte tokenizer, and the published one."""
    if request.param == "small":
        return Tokenizer(Backend.from_str(tokenizer_json))
    return Tokenizer.load(request.getfixturevalue("qwen3_tokenizer_dir"))


@pytest.mark.parametrize("size", [1, 2, 5])
def test_pieces_join_to_the_whole_text(tokenizer, size):
    """Streamed text would differ from the answer's text."""
    text = "Ünïcödé — 🙂👩‍👩‍👧 日本語\n\tdef f(x): return x  # ok"
    ids = tokenizer.encode(text)
    assert "".join(_stream(tokenizer.decode, ids, size)) == text


@pytest.mark.parametrize("seed", range(20))
def test_random_tokens_join_too(tokenizer, seed):
    """Bytes that are no text, or special tokens, would shift what follows."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, tokenizer.vocab_size, size=60).tolist()
    pieces = _stream(tokenizer.decode, ids, int(rng.integers(1, 4)))
    assert "".join(pieces) == tokenizer.decode(ids)


def test_never_half_a_character(tokenizer_dir):
    """A terminal would show replacement characters that later vanish."""
    tokenizer = Tokenizer.load(tokenizer_dir)
    assert tokenizer is not None
    ids = tokenizer.encode("a🙂é")
    assert len(ids) == 7
    assert _stream(tokenizer.decode, ids) == ["a", "", "", "", "🙂", "", "é", ""]


def test_an_end_within_a_character_is_told_at_the_close(tokenizer_dir):
    """The last bytes of an answer cut by its length would vanish."""
    tokenizer = Tokenizer.load(tokenizer_dir)
    assert tokenizer is not None
    ids = tokenizer.encode("🙂")[:2]
    assert _stream(tokenizer.decode, ids) == ["", "", "\ufffd"]


def test_spaces_survive_decoders_that_strip_the_first_one():
    """SentencePiece-like decoders drop a leading space of whatever they are given."""
    vocab = {"▁a": 0, "▁b": 1, "<s>": 2, "▁": 3}
    backend = Backend(models.WordLevel(vocab, unk_token="<s>"))
    backend.decoder = decoders.Metaspace()
    backend.add_special_tokens(["<s>"])
    ids = [0, 1, 2, 0, 2, 2, 1, 0, 1]
    decode = Tokenizer(backend).decode
    assert "".join(_stream(decode, ids)) == decode(ids) == "a b a b a b"


def test_decodes_a_short_window_only(tokenizer_dir):
    """Time would grow with the square of the length."""
    tokenizer = Tokenizer.load(tokenizer_dir)
    assert tokenizer is not None
    longest = 0

    def decode(ids):
        nonlocal longest
        longest = max(longest, len(ids))
        return tokenizer.decode(ids)

    _stream(decode, tokenizer.encode("some text, 日本語 " * 50))
    assert longest <= 8
