"""Grammars that answers follow: which tokens may come next, by llguidance.

A mask depends on the answer's own tokens alone, so an answer stays a function of its
request.
"""

import json
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxmoe.text.tokenizer import Tokenizer

EVERY = np.int32(-1)
"""A word of a mask that allows all of its 32 tokens."""

_KEPT = 4
"""Vocabularies that are kept prepared; preparing one takes about a second."""

_prepared: OrderedDict[tuple[Any, ...], tuple[Tokenizer, Any]] = OrderedDict()


def mask_width(vocab: int) -> int:
    """Words of a mask, a bit a token."""
    return -(-vocab // 32)


class Grammar:
    """What an answer must be, for one tokenizer and its end tokens."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        vocab: int,
        end_ids: Sequence[int],
        *,
        json_schema: str | None = None,
        regex: str | None = None,
    ):
        """Read a JSON schema, or a regular expression for the whole answer.

        Args:
          vocab: the model's, V; it may have more rows than the tokenizer has tokens.
          end_ids: tokens that end an answer, and are allowed where it is complete.

        Raises:
          ValueError: a schema or an expression that cannot be followed; no end token.
          ImportError: no llguidance.
        """
        matcher = _library().LLMatcher
        if not end_ids:
            raise ValueError(
                "an answer that follows a grammar needs a token that ends it, found "
                "none; leave the model's own stop tokens on, or pass stop_ids"
            )
        if json_schema is None:
            name, source = "regex", regex or ""
            grammar = matcher.grammar_from_regex(source)
        else:
            name, source = "json_schema", json_schema
            grammar = matcher.grammar_from_json_schema(json_schema)
        words = _words_of(tokenizer, vocab, tuple(end_ids))
        wrong = matcher.validate_grammar(grammar, words)
        if wrong and not wrong.startswith("WARNING"):
            raise ValueError(
                f"sampler: {name} cannot be followed ({wrong.strip()}), found "
                f"{source:.200}"
            )
        self._first = matcher(words, grammar, log_level=0)

    def begin(self) -> "Guide":
        """For a new answer."""
        return Guide(self._first.deep_copy())


class Guide:
    """What one answer may go on with."""

    def __init__(self, matcher: Any):
        """Takes an `llguidance.LLMatcher` of its own; see `Grammar.begin`."""
        self._matcher = matcher

    def take(self, ids: Iterable[int]) -> None:
        """Takes the answer's next tokens.

        Raises:
          RuntimeError: one that was not allowed.
        """
        for token in ids:
            if not self._matcher.consume_token(token):
                raise RuntimeError(
                    f"a token that the grammar does not allow was drawn, {token} "
                    f"({self._matcher.get_error()}); are there NaN among the logits?"
                )

    def fill(self, mask: np.ndarray) -> None:
        """Writes which tokens may come next into int32 [W], a bit each."""
        self._matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)


def schema_text(schema: str | Mapping[str, Any]) -> str:
    """A JSON schema as text, in the order of its own properties.

    Raises:
      ValueError: it is no JSON object.
    """
    try:
        read = json.loads(schema) if isinstance(schema, str) else dict(schema)
        text = json.dumps(read)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"sampler: json_schema must be a JSON object, or its text, found "
            f"{schema!r:.200} ({error})"
        ) from None
    if not isinstance(read, dict):
        raise ValueError(
            f"sampler: json_schema must be a JSON object, found {schema!r:.200}"
        )
    return text


def _library() -> Any:
    try:
        import llguidance  # pyright: ignore[reportMissingImports]  # an extra
    except ImportError:
        raise ImportError(
            "a JSON schema or a regex needs llguidance, found none; "
            'pip install "jaxmoe[structured]"'
        ) from None
    return llguidance


def _words_of(tokenizer: Tokenizer, vocab: int, end_ids: tuple[int, ...]) -> Any:
    """The tokens as an `llguidance.LLTokenizer`; the last few are kept."""
    # By identity: what is kept keeps its tokenizer alive, so no other has its id.
    name = id(tokenizer), vocab, end_ids
    if name not in _prepared:
        words = _library().LLTokenizer(
            tokenizer.as_json(), n_vocab=vocab, eos_token=list(end_ids)
        )
        _prepared[name] = tokenizer, words
        while len(_prepared) > _KEPT:
            _prepared.popitem(last=False)
    _prepared.move_to_end(name)
    return _prepared[name][1]
