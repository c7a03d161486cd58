"""The numbers game's vocabulary: one token for each number and each symbol.

tokenizer.json says the same for everyone else; a test holds the two together.
"""

import itertools
import re
from collections.abc import Sequence

import numpy as np

from jaxmoe.demo.chains import OPERATIONS, Chains
from jaxmoe.demo.numbers_game import AGAIN, COUNT, MAX_RESULT

END = "<end>"
SYMBOLS = (END, "+", "-", "*", "/", "=", ",", ":", "0")
VOCAB = SYMBOLS + tuple(str(number) for number in range(1, MAX_RESULT + 1))
"""Text of each token; the id of number x is that of "0" plus x."""

ID = {text: index for index, text in enumerate(VOCAB)}
PATTERN = r"[0-9]+|[-+*/=,:]"
"""What the tokens of a text are."""

STEP_LENGTH = 6
"""Tokens of a step, with the symbol that follows it."""
PROMPT_LENGTH = 2 * COUNT + 2
ANSWER_LENGTH = STEP_LENGTH * (COUNT - 1)
"""Tokens of every problem, and of every well-formed try with what ends it: `END` after
the last try, `AGAIN` after those before."""


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
    """int32 [N, 27]: problems with their answers of one try, less `END`.

    texts: as in `encode_by_tries`.
    """
    return encode_by_tries(texts, 1)[0]


def encode_by_tries(texts: Sequence[str], most: int) -> list[np.ndarray]:
    """int32 [N, 9 + 18 T] for each number of tries T up to `most` that texts have.

    Problems with their answers, less `END`.

    texts: those of another length than so many tries' are left out, as are those that
      run two numbers together into no number.

    Raises:
      ValueError: none is left.
    """
    rows: dict[int, list[list[int]]] = {}
    for ids in map(_encoded, texts):
        tries, rest = divmod(len(ids) + 1 - PROMPT_LENGTH, ANSWER_LENGTH)
        if rest == 0 and 1 <= tries <= most:
            rows.setdefault(tries, []).append(ids)
    if not rows:
        raise ValueError(
            f"expected problems with answers of {ANSWER_LENGTH - 1} tokens a try, "
            "found none; a model that writes no such answers cannot be compared"
        )
    return [np.array(rows[tries], np.int32) for tries in sorted(rows)]


def _encoded(text: str) -> list[int]:
    """Token ids; none of text that is no answer."""
    try:
        return encode(text)
    except ValueError:
        return []


def encode_chains(chains: Chains, rows: np.ndarray) -> np.ndarray:
    """int32 [B, 10 + 18 T]: a problem, T tries at it, and `END`.

    rows: int [B, T], rows of `chains`. The last is the answer, whose problem it is;
      those before have the same numbers.
    """
    zero, last = ID["0"], rows[:, -1]
    prompt = np.full((len(rows), PROMPT_LENGTH), ID[","], np.int32)
    prompt[:, 0 : 2 * COUNT : 2] = chains.numbers[last] + zero
    prompt[:, 2 * COUNT - 1] = ID["="]
    prompt[:, 2 * COUNT] = chains.target[last] + zero
    prompt[:, 2 * COUNT + 1] = ID[":"]
    tokens = np.concatenate([prompt, *(_try(chains, r) for r in rows.T)], axis=1)
    tokens[:, -1] = ID[END]
    return tokens


def learnt(tries: int) -> np.ndarray:
    """bool [18 T]: the tokens of T tries that are to be learnt.

    Of the last try all, of those before, which failed, what their sums come to, and
    that another follows: not which steps they took.
    """
    failed = np.zeros((tries - 1, COUNT - 1, STEP_LENGTH), bool)
    failed[:, :, 4] = True
    failed[:, -1, 5] = True
    return np.append(failed.ravel(), np.ones(ANSWER_LENGTH, bool))


def _try(chains: Chains, rows: np.ndarray) -> np.ndarray:
    """int32 [B, 18]: the steps of some rows of `chains`, and `AGAIN`."""
    zero = ID["0"]
    operations = np.array([ID[symbol] for symbol in OPERATIONS])
    steps = chains.steps[rows].astype(np.int32)
    tokens = np.full((len(rows), COUNT - 1, STEP_LENGTH), ID[","], np.int32)
    tokens[:, :, 0] = steps[:, :, 0] + zero
    tokens[:, :, 1] = operations[steps[:, :, 1]]
    tokens[:, :, 2] = steps[:, :, 2] + zero
    tokens[:, :, 3] = ID["="]
    tokens[:, :, 4] = steps[:, :, 3] + zero
    tokens[:, -1, 5] = ID[AGAIN]
    return tokens.reshape(len(rows), ANSWER_LENGTH)
