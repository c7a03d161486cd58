"""An answer's text in pieces is the text that `sample` gives of the same tokens."""

import numpy as np
import pytest

from jaxmoe.sampling import _TextReader
from jaxmoe.serve.answer import AnswerText
from jaxmoe.text.stop import StopScanner
from tests.serve.serving import tiny_chat_model, tiny_tokenizer
from tests.tiny import STOP, VOCAB

FEW = tiny_tokenizer().encode("abc125é😀")
ENDS = (STOP, *tiny_tokenizer().encode("5"))
"""A special token, which has no text, and another."""


def drawn(decode, seed: int, stops, skip: int) -> tuple[list[int], str]:
    """Random tokens up to where the engine would end them, and how it says so."""
    random = np.random.default_rng(seed)
    # Few kinds of tokens, so that stops, and halves of them, are met often.
    ids = random.choice([*FEW, *random.integers(0, VOCAB, 3)], 60).tolist()
    ends = [i + 1 for i, token in enumerate(ids) if token in ENDS and i >= skip]
    length = min([*ends, len(ids)])
    found = StopScanner(decode, stops, skip).push(ids[:length])
    if found is not None:
        return ids[:found], "stop"
    return ids[:length], "stop" if ends else "length"


@pytest.fixture(scope="module")
def model():
    """What reads and writes; its weights are not used."""
    return tiny_chat_model()


@pytest.mark.parametrize("skip", [0, 9])
@pytest.mark.parametrize("include", [False, True])
@pytest.mark.parametrize(
    "stops", [(), ("a", "é", "bc", "c1"), ("1", "12", "2"), ("😀", "25", "a5")]
)
def test_pieces_joined_are_the_text(model, stops, include, skip):
    """A stream would show half a character, the start of a stop, or lose its end."""
    decode = model.tokenizer.decode
    for seed in range(40):
        ids, finish = drawn(decode, seed, stops, skip)
        reader = _TextReader(model, ENDS, stops, skip, include)
        text = AnswerText(
            decode,
            stops=stops,
            stop_ids=ENDS,
            include_stop=include,
            skip=skip,
        )
        random, pieces, left = np.random.default_rng(seed), [], list(ids)
        while left:
            count = min(int(random.integers(1, 9)), len(left))
            part, left = left[:count], left[count:]
            pieces.append(text.push(part, None if left else finish))
        whole = reader.read(np.array(ids))
        assert "".join(pieces) == whole, (seed, ids)
