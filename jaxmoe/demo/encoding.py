"""The numbers game's vocabulary: one token for each number and each symbol.

tokenizer.json says the same for everyone else; a test holds the two together.
"""

import itertools
import re
from collections.abc import Sequence

import numpy as np

from jaxmoe.demo.chains import OPERATIONS, Chains
from jaxmoe.demo.numbers_game import COUNT, MAX_RESULT

END = "<end>"
SYMBOLS = (END, "+", "-", "*", "/", "=", ",", ":", "0")
VOCAB = SYMBOLS + tuple(str(number) for number in range(1, MAX_RESULT + 1))
"""Text of each token; the id of number x is that of "0" plus x."""

ID = {text: index for index, text in enumerate(VOCAB)}
PATTERN = r"[0-9]+|[-+*/=,:]"
"""What the tokens of a text are."""

PROMPT_LENGTH = 2 * COUNT + 2
ANSWER_LENGTH = 6 * (COUNT - 1)
"""Tokens of every problem and of every well-formed answer, `END` included."""


def encode(text: str) -> list[int]:
    """Token ids of a problem or an answer; a ValueError for other text."""
    parts = re.findall(PATTERN, text)
    if "".join(parts) != text or not set(parts) <= ID.keys():
        raise ValueError(
            f'expected numbers up to {MAX_RESULT} and symbols as in "2,5,8,12=27:", '
            f"found {text!r}"
        )
    return [ID[part] for part in parts]


def decode(ids: Sequence[int]) -> str:
    """The text of token ids up to the first `END`."""
    texts = (VOCAB[index] for index in ids)
    return "".join(itertools.takewhile(lambda text: text != END, texts))


def encode_whole(texts: Sequence[str]) -> np.ndarray:
    """int32 [N, 27]: problems with their answers, less `END`.

    texts: those of another length than a right answer's are left out, as are those
      that run two numbers together into no number.

    Raises:
      ValueError: none is left.
    """
    length = PROMPT_LENGTH + ANSWER_LENGTH - 1
    rows = [ids for text in texts if len(ids := _encoded(text)) == length]
    if not rows:
        raise ValueError(
            f"expected problems with answers of {ANSWER_LENGTH - 1} tokens, found "
            "none; a model that writes no such answers cannot be compared"
        )
    return np.array(rows, np.int32)


def _encoded(text: str) -> list[int]:
    """Token ids; none of text that is no answer."""
    try:
        return encode(text)
    except ValueError:
        return []


def encode_chains(chains: Chains, rows: np.ndarray) -> np.ndarray:
    """int32 [B, 28]: problem, answer and `END` of some rows of `chains`."""
    zero = ID["0"]
    operations = np.array([ID[symbol] for symbol in OPERATIONS])
    tokens = np.full((len(rows), PROMPT_LENGTH + ANSWER_LENGTH), ID[","], np.int32)
    tokens[:, 0 : 2 * COUNT : 2] = chains.numbers[rows] + zero
    tokens[:, 2 * COUNT - 1] = ID["="]
    tokens[:, 2 * COUNT] = chains.target[rows] + zero
    tokens[:, 2 * COUNT + 1] = ID[":"]
    steps = chains.steps[rows].astype(np.int32)
    for index in range(COUNT - 1):
        at = PROMPT_LENGTH + 6 * index
        tokens[:, at] = steps[:, index, 0] + zero
        tokens[:, at + 1] = operations[steps[:, index, 1]]
        tokens[:, at + 2] = steps[:, index, 2] + zero
        tokens[:, at + 3] = ID["="]
        tokens[:, at + 4] = steps[:, index, 3] + zero
    tokens[:, -1] = ID[END]
    return tokens
