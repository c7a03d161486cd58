"""A model's tokenizer: text to token ids and back, and chats to prompts."""

import functools
import itertools
import json
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxmoe.files import parse_object, printable, read_object, read_small_text
from jaxmoe.text.chat_template import choose_template, read_templates, render_template

if TYPE_CHECKING:
    import tokenizers

SPECIAL_TOKENS = tuple(
    f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
)
"""Named special tokens, under the names by which chat templates read them."""

_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
_SWITCHES = (
    "add_bos_token",
    "add_eos_token",
    "add_prefix_space",
    "split_special_tokens",
)
_BEGIN_BY_CONFIG = ("LlamaTokenizer", "LlamaTokenizerFast")
"""Classes that, in transformers 4, put a first token before text by config alone."""


class Tokenizer:
    """The `tokenizers` library behind the names that jaxmoe uses.

    Build one with `Tokenizer.load`. Ids are Python ints.
    """

    def __init__(
        self,
        backend: "tokenizers.Tokenizer",
        *,
        special_tokens: Mapping[str, str] | None = None,
        chat_templates: Mapping[str, str] | None = None,
        marks: Iterable[str] = (),
    ):
        """Wrap a `tokenizers.Tokenizer`.

        Args:
          backend: does the work. Truncation and padding are switched off in it.
          special_tokens: token text by name, such as `eos_token`.
          chat_templates: Jinja source by name; "default" is the usual one.
          marks: special tokens that `decode` writes out, as they divide an answer.
        """
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self.special_tokens = dict(special_tokens or {})
        self.chat_templates = dict(chat_templates or {})
        ids = map(backend.token_to_id, marks)
        self._marks = frozenset(id for id in ids if id is not None)

    @classmethod
    def load(
        cls, directory: str | Path, *, marks: Iterable[str] = ()
    ) -> "Tokenizer | None":
        """The tokenizer of a model's directory, or None where it has none.

        Reads `tokenizer.json`, or `vocab.json` and `merges.txt` where
        `tokenizer_config.json` names a class that says the rest (None without either),
        `special_tokens_map.json` and the chat templates. Where `add_bos_token` asks for
        it, text begins with `bos_token`, once.

        Args:
          directory: with the model's files.
          marks: special tokens that `decode` writes out (`Family.marks`).

        Raises:
          FileNotFoundError: no such directory.
          ValueError: a file that is damaged, or two files that disagree.
        """
        directory = Path(directory)
        if not directory.is_dir():
            raise FileNotFoundError(
                f"expected a directory with tokenizer.json, found none at {directory}"
            )
        path = directory / "tokenizer.json"
        parts = [directory / name for name in ("vocab.json", "merges.txt")]
        if not path.exists() and not all(part.exists() for part in parts):
            return None
        import tokenizers

        config = _read_json(directory / "tokenizer_config.json")
        _check_flags(config, _SWITCHES, "", directory)
        whole = path.exists()
        if whole:
            raw = read_small_text(path)
        else:
            path = directory
            vocab, merges = parts
            raw = _from_parts(vocab, merges, config.get("tokenizer_class"))
        if config.get("add_prefix_space"):
            raw = _with_prefix_space(raw, path)
        try:
            backend = tokenizers.Tokenizer.from_str(raw)
        except BaseException as error:  # its panics are no Exception
            raise ValueError(
                f"{path} is no tokenizer that tokenizers {tokenizers.__version__} "
                f"reads: {_reason(error)}; copy the file again"
            ) from None
        special = _special_tokens(directory, config)
        _add_tokens(backend, config, special, directory)
        backend.encode_special_tokens = bool(config.get("split_special_tokens"))
        _add_ends(backend, config, special, whole=whole)
        named = {name: special[name] for name in SPECIAL_TOKENS if name in special}
        templates = read_templates(directory, config)
        return cls(backend, special_tokens=named, chat_templates=templates, marks=marks)

    # -- text and ids --------------------------------------------------------------

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids of `text`.

        `add_special_tokens` lets the tokenizer put its own around the text, such as a
        beginning-of-sequence token (Qwen3 has none). Special tokens written out in the
        text are recognised either way.
        """
        if not isinstance(text, str):
            raise TypeError(
                f"text must be a string, found {type(text).__name__}; token ids need "
                "no encoding"
            )
        try:
            encoded = self._backend.encode(text, add_special_tokens=add_special_tokens)
        except BaseException as error:  # its panics are no Exception
            raise ValueError(
                f"this model's tokenizer has no tokens for {text[:80]!r} "
                f"({_reason(error)}); write it in the words of its vocabulary"
            ) from None
        return encoded.ids

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """Text of token ids; bytes that are no whole character become U+FFFD.

        An id past the vocabulary has no text: models often have more rows than their
        tokenizer has tokens. Special tokens that are marks within an answer, such as
        those of its channels, are written out either way.
        """
        ids = [operator.index(i) for i in ids]
        if ids and not 0 <= min(ids) <= max(ids) < 2**32:
            wrong = next(i for i in ids if not 0 <= i < 2**32)
            raise ValueError(f"token ids must be 0 or more, found {wrong}")
        if not (skip_special_tokens and self._marks.intersection(ids)):
            return self._decode(ids, skip_special_tokens)
        groups = itertools.groupby(ids, self._marks.__contains__)
        return "".join(self._decode([*run], not marks) for marks, run in groups)

    def _decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        try:
            return self._backend.decode(ids, skip_special_tokens=skip_special_tokens)
        except BaseException as error:  # its panics are no Exception
            raise ValueError(
                f"this model's tokenizer cannot write {len(ids)} ids out "
                f"({_reason(error)}); copy tokenizer.json again"
            ) from None

    def as_json(self) -> str:
        """What a `tokenizer.json` of it says, with added tokens."""
        return self._backend.to_str()

    # -- chats ---------------------------------------------------------------------

    def render_chat(
        self,
        messages: Sequence[Any],
        *,
        tools: Sequence[Mapping[str, Any] | Callable] | None = None,
        add_generation_prompt: bool | None = None,
        continue_final_message: bool = False,
        enable_thinking: bool | None = None,
        chat_template: str | None = None,
        **template_kwargs: Any,
    ) -> str:
        """A chat as the text that the model was trained on.

        Args:
          messages: `{"role": ..., "content": ...}` each, oldest first.
          tools: functions that the model may call: JSON schemas, or Python functions
            with type hints and a docstring in Google style.
          add_generation_prompt: end with the opening of the model's answer; None for
            that, but where the last message is continued.
          continue_final_message: end within the last message, which the model goes on
            with: the beginning of an answer that one wrote oneself.
          enable_thinking: for templates that know it (Qwen3: False closes the
            reasoning before it begins). None leaves it to the template.
          chat_template: the name of another template of the model, or its source.
          **template_kwargs: further variables; the template must read each.

        Raises:
          TypeError, ValueError: no template, malformed messages, or something given
            that the template would ignore.
        """
        if add_generation_prompt and continue_final_message:
            raise ValueError(
                "continue_final_message goes on with the last message, and "
                "add_generation_prompt opens another; give one of the two"
            )
        if add_generation_prompt is None:
            add_generation_prompt = not continue_final_message
        if enable_thinking is not None:
            template_kwargs["enable_thinking"] = enable_thinking
        source = choose_template(
            self.chat_templates, chat_template, tools=tools is not None
        )
        return render_template(
            source,
            messages,
            tools=tools,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            options=template_kwargs,
            special_tokens=self.special_tokens,
        )

    def chat(
        self,
        messages: Sequence[Any],
        *,
        tools: Sequence[Mapping[str, Any] | Callable] | None = None,
        add_generation_prompt: bool | None = None,
        continue_final_message: bool = False,
        enable_thinking: bool | None = None,
        chat_template: str | None = None,
        **template_kwargs: Any,
    ) -> Any:
        """Token ids of a chat: `render_chat`, encoded as it stands.

        Of a list of chats, a list with the ids of each.
        """
        if _is_batch(messages):
            options = {
                "tools": tools,
                "add_generation_prompt": add_generation_prompt,
                "continue_final_message": continue_final_message,
                "enable_thinking": enable_thinking,
                "chat_template": chat_template,
                **template_kwargs,
            }
            return [self.chat(each, **options) for each in messages]
        text = self.render_chat(
            messages,
            tools=tools,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            enable_thinking=enable_thinking,
            chat_template=chat_template,
            **template_kwargs,
        )
        return self.encode(text, add_special_tokens=False)

    # -- vocabulary ----------------------------------------------------------------

    @property
    def vocab_size(self) -> int:
        """Number of tokens, added ones included; the model may have more rows."""
        return self._backend.get_vocab_size(with_added_tokens=True)

    def token_to_id(self, token: str) -> int | None:
        """Id of a token given as text, or None."""
        return self._backend.token_to_id(token)

    def id_to_token(self, id: int) -> str | None:
        """A token as its vocabulary writes it, or None."""
        return self._backend.id_to_token(id)

    @property
    def bos_id(self) -> int | None:
        """Id that begins a sequence, or None."""
        return self._named_id("bos_token")

    @property
    def eos_id(self) -> int | None:
        """Id that ends an answer, or None; generation_config.json may name more."""
        return self._named_id("eos_token")

    @property
    def pad_id(self) -> int | None:
        """Id that fills up, or None."""
        return self._named_id("pad_token")

    @functools.cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids that `decode` leaves out, but for those that are marks."""
        added = self._backend.get_added_tokens_decoder()
        listed = {id for id, token in added.items() if token.special}
        named = map(self._named_id, self.special_tokens)
        return frozenset(listed.union(id for id in named if id is not None))

    def check_stops(self, stops: Iterable[str]):
        """Refuses stop strings that no decoded text can hold.

        Raises:
          ValueError: a special token, which `decode` leaves out, in a longer stop.
        """
        added = self._backend.get_added_tokens_decoder()
        hidden = self.special_ids - self._marks
        special = [added[i].content for i in hidden if i in added]
        for stop in stops:
            if inside := [text for text in special if text in stop]:
                raise ValueError(
                    f"the stop {stop!r} holds the special token {inside[0]!r}, which "
                    "is left out of text, so it would never be found; give the token "
                    "and the text as two stops"
                )

    def _named_id(self, name: str) -> int | None:
        token = self.special_tokens.get(name)
        return None if token is None else self._backend.token_to_id(token)


def _is_batch(messages: Any) -> bool:
    """Whether these are several chats: a list of lists."""
    listed = isinstance(messages, list | tuple) and messages
    return bool(listed) and all(isinstance(each, list | tuple) for each in messages)


def _reason(error: BaseException) -> str:
    """What the library says; what is not its own (an interrupt) is raised again."""
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error
    return printable(str(error)[:500])


def _read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; {} without the file."""
    return read_object(path) if path.exists() else {}


def _special_tokens(directory: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Token text by name; entries may be strings or objects with `content`.

    `special_tokens_map.json` is older and counts only where `tokenizer_config.json`
    lists no tokens by id, as in transformers.
    """
    entries = dict(config)
    if "added_tokens_decoder" not in config:
        entries |= _read_json(directory / "special_tokens_map.json")
    tokens = {
        name: _content(entries[name], name, directory)
        for name in SPECIAL_TOKENS
        if entries.get(name) is not None
    }
    extra = entries.get("extra_special_tokens") or []
    extra = extra or entries.get("additional_special_tokens") or []
    pairs = extra.items() if isinstance(extra, Mapping) else enumerate(extra)
    for name, entry in pairs:
        tokens[f"extra_special_tokens[{name}]"] = _content(entry, str(name), directory)
    return tokens


def _from_parts(vocab: Path, merges: Path, tokenizer_class: Any) -> str:
    """The tokenizer.json of a byte-level tokenizer that is stored in two files.

    Raises:
      ValueError: a class that does not say how text is cut before pairs are merged.
    """
    from jaxmoe.families.registry import byte_level_pattern  # imports JAX

    pattern = byte_level_pattern(tokenizer_class)
    if pattern is None:
        raise ValueError(
            f"vocab.json and merges.txt say nothing of how text is cut, and "
            f"tokenizer_class {tokenizer_class!r} is not known here; save it with "
            "transformers (AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)), "
            "which writes tokenizer.json"
        )
    lines = [line for line in read_small_text(merges).split("\n") if line.strip()]
    pairs = lines[1:] if lines and lines[0].startswith("#version") else lines
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False}
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated"}
    model = {"type": "BPE", "vocab": read_object(vocab), "merges": pairs}
    model |= {"continuing_subword_prefix": "", "end_of_word_suffix": ""}
    steps = [split | {"invert": False}, level | {"use_regex": False}]
    return json.dumps(
        {
            "version": "1.0",
            "added_tokens": [],
            "normalizer": {"type": "NFC"},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
            "post_processor": None,
            "decoder": level | {"use_regex": False},
            "model": model,
        }
    )


def _with_prefix_space(raw: str, path: Path) -> str:
    """tokenizer.json with a space before the text, where a byte-level step can add it.

    Raises:
      ValueError: a tokenizer that has no such step.
    """
    value = parse_object(raw.encode(), str(path))
    before = value.get("normalizer")
    if any(n.get("type") == "Prepend" for n in _steps(before, "normalizers")):
        return raw  # it puts one there itself
    steps = _steps(value.get("pre_tokenizer"), "pretokenizers")
    levels = [step for step in steps if step.get("type") in ("ByteLevel", "Metaspace")]
    if not levels:
        raise ValueError(
            f"add_prefix_space beside {path} asks for a space before the text, which "
            "this tokenizer has no step for; set it to false in tokenizer_config.json"
        )
    for step in levels:
        if step["type"] == "ByteLevel":
            step["add_prefix_space"] = True
    return json.dumps(value)


def _steps(step: Any, name: str) -> list[dict[str, Any]]:
    """The steps of a sequence; a step that is none is one of itself."""
    steps = step.get(name, [step]) if isinstance(step, dict) else []
    return [each for each in steps if isinstance(each, dict)] if steps else []


def _content(entry: Any, name: str, directory: Path) -> str:
    content = entry.get("content") if isinstance(entry, Mapping) else entry
    if not isinstance(content, str):
        raise ValueError(
            f"{name} in {directory} must be a string or an object with 'content', "
            f"found {entry!r}; correct tokenizer_config.json"
        )
    return content


def _add_tokens(
    backend: "tokenizers.Tokenizer",
    config: Mapping[str, Any],
    special: Mapping[str, str],
    directory: Path,
) -> None:
    """Tokens that the config names and tokenizer.json lacks; special ones are marked.

    Order matters, since the library gives out ids one after the other.
    """
    from tokenizers import AddedToken

    listed = config.get("added_tokens_decoder") or {}
    if not isinstance(listed, Mapping) or not all(map(str.isdecimal, listed)):
        raise ValueError(
            f"added_tokens_decoder in {directory} must be an object of ids and tokens, "
            f"found {str(listed)[:80]!r}; correct tokenizer_config.json"
        )
    for id, entry in sorted((int(id), entry) for id, entry in listed.items()):
        content = _content(entry, f"added_tokens_decoder[{id}]", directory)
        entry = entry if isinstance(entry, Mapping) else {}
        of = f" of added_tokens_decoder[{id}]"
        _check_flags(entry, _FLAGS, of, directory)
        if backend.token_to_id(content) is None:
            flags = {k: v for k, v in entry.items() if k in _FLAGS and v is not None}
            backend.add_tokens([AddedToken(content, **flags)])
        found = backend.token_to_id(content)
        if found != id:
            raise ValueError(
                f"tokenizer_config.json gives {content!r} the id {id}, tokenizer.json "
                f"gives {found}, both in {directory}; take both from one release"
            )
    added = backend.get_added_tokens_decoder().values()
    marked = {token.content for token in added if token.special}
    for content in special.values():
        if content not in marked:  # else its own flags would be lost
            token = AddedToken(content, special=True, normalized=False)
            backend.add_special_tokens([token])


def _check_flags(
    entry: Mapping[str, Any], names: Sequence[str], of: str, directory: Path
) -> None:
    """Refuses "true", which is text, and 1: what is read as false would be lost."""
    for name in names:
        if not isinstance(entry.get(name), bool | None):
            raise ValueError(
                f"{name}{of} in {directory} must be true or false, found "
                f"{entry[name]!r}; correct tokenizer_config.json"
            )


def _add_ends(
    backend: "tokenizers.Tokenizer",
    config: Mapping[str, Any],
    special: Mapping[str, str],
    *,
    whole: bool,
) -> None:
    """Tokens that `add_bos_token` and `add_eos_token` put around a text.

    Where tokenizer.json has such tokens itself (its post-processor), these are taken as
    they are, whatever the config says, as in transformers 5. Where it has none, its
    config counts for nothing either, but for one kind: files that name Llama's class
    (DeepSeek's) begin a text as `add_bos_token` says. Their models were trained so, and
    transformers 4 has it so; 5.24 leaves the token out.

    Args:
      whole: whether there is a tokenizer.json; for tokenizers in two files the config
        alone counts.
    """
    from tokenizers import processors

    if backend.num_special_tokens_to_add(False):
        return
    begins = not whole or config.get("tokenizer_class") in _BEGIN_BY_CONFIG
    wanted = {"bos_token": begins and config.get("add_bos_token") is True}
    wanted["eos_token"] = not whole and config.get("add_eos_token") is True
    texts = {
        name: special[name] for name, on in wanted.items() if on and name in special
    }
    if not texts:
        return
    # By name: a text such as "$A" or "a:1" would say something else in a template.
    pieces = [
        {"id": name, "ids": [backend.token_to_id(text)], "tokens": [text]}
        for name, text in texts.items()
    ]
    template = ("bos_token", "$A", "eos_token")
    backend.post_processor = processors.TemplateProcessing(
        single=[piece for piece in template if piece == "$A" or piece in texts],
        special_tokens=pieces,
    )
