"""Grammars that answers follow: which tokens may come next, by llguidance.

A mask depends on the answer's own tokens alone, so an answer stays a function of its
request.
"""

import json
import threading
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
_preparing = threading.Lock()
"""Of `_prepared`; requests are read in several threads."""


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
          ValueError: a schema or an expression that cannot be followed, or not with
            this tokenizer; no end token.
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
        ends = sorted({*end_ids})
        own = tokenizer.eos_id
        # Which token ends a text for the library; the answer's own take its place.
        end = ends[0] if own is None or own >= vocab else own
        words = _words_of(tokenizer, vocab, end)
        wrong = matcher.validate_grammar(grammar, words)
        if wrong and not wrong.startswith("WARNING"):
            why = " ".join(wrong.split())
            raise ValueError(
                f"sampler: {name} cannot be followed ({why}), found {source:.200}"
            )
        self._first, self._end = matcher(words, grammar, log_level=0), end
        self._ends = np.array(ends, np.int64)
        if not self.begin().fill(np.zeros(mask_width(vocab), np.int32)):
            raise ValueError(
                f"sampler: {name} cannot be followed (no token of this tokenizer can "
                f"begin such an answer), found {source:.200}"
            )

    def begin(self) -> "Guide":
        """For a new answer."""
        return Guide(self._first.deep_copy(), self._end, self._ends)


class Guide:
    """What one answer may go on with."""

    def __init__(self, matcher: Any, end: int, ends: np.ndarray):
        """Takes an `llguidance.LLMatcher` of its own; see `Grammar.begin`.

        Args:
          end: the token that the matcher ends with. ends: those of the answer, [E].
        """
        self._matcher, self._end, self._ends = matcher, end, ends
        self._other_ends = ends.tolist() != [end]

    def take(self, ids: Iterable[int]) -> bool:
        """Takes the answer's next tokens; whether all of them were allowed.

        Where logits are NaN, one may be drawn that is not.
        """
        return all(map(self._matcher.consume_token, ids))

    def fill(self, mask: np.ndarray) -> bool:
        """Writes which tokens may come next into int32 [W], a bit each.

        Returns:
          Whether there is any. There may be none though the answer is incomplete: the
          tokenizer has no token for what must follow.
        """
        self._matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
        if self._matcher.is_error():
            return False
        if self._other_ends:
            self._replace_end(mask)
        return bool(np.count_nonzero(mask))  # in half the time of `any`

    def _replace_end(self, mask: np.ndarray) -> None:
        """Allows the answer's own end tokens where the matcher allows its own."""
        complete = mask[self._end >> 5] >> (self._end & 31) & 1
        bits = mask.view(np.uint32)
        for token in (self._end, *self._ends):
            bits[token >> 5] &= ~np.uint32(1 << (token & 31))
        if complete:
            for token in self._ends:
                bits[token >> 5] |= np.uint32(1 << (token & 31))


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


def _words_of(tokenizer: Tokenizer, vocab: int, end: int) -> Any:
    """The tokens as an `llguidance.LLTokenizer`; the last few are kept.

    Raises:
      ValueError: a tokenizer whose tokens' bytes the library cannot tell.
    """
    # By identity: what is kept keeps its tokenizer alive, so no other has its id.
    name = id(tokenizer), vocab, end
    with _preparing:
        if name not in _prepared:
            _prepared[name] = tokenizer, _prepare(tokenizer, vocab, end)
            while len(_prepared) > _KEPT:
                _prepared.popitem(last=False)
        _prepared.move_to_end(name)
        return _prepared[name][1]


class _Joined:
    """A vocabulary whose texts are put together as they stand (the decoder Fuse).

    So the bytes of a token are those of its text. With what an `LLTokenizer` asks for.
    """

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, vocab: int, end: int):
        """vocab: the model's, V. end: the token that ends a text."""
        texts = (tokenizer.id_to_token(id) or "" for id in range(vocab))
        self.tokens = [text.encode() for text in texts]
        self.special_token_ids = sorted({end, *tokenizer.special_ids})
        self.eos_token_id = end
        self._tokenizer = tokenizer

    def __call__(self, text: str) -> list[int]:
        """Its token ids."""
        return self._tokenizer.encode(text, add_special_tokens=False)


def _prepare(tokenizer: Tokenizer, vocab: int, end: int) -> Any:
    source, library = tokenizer.as_json(), _library()
    decoder = (json.loads(source).get("decoder") or {}).get("type", "none")
    given = _Joined(tokenizer, vocab, end) if decoder == "Fuse" else source
    try:
        return library.LLTokenizer(given, n_vocab=vocab, eos_token=end)
    except Exception as error:
        raise ValueError(
            "sampler: json_schema and regex need a tokenizer whose decoder is "
            "ByteLevel, ByteFallback (those of released language models) or Fuse, "
            f"found the decoder {decoder} ({' '.join(str(error).split()):.200}); draw "
            "without a grammar"
        ) from None
