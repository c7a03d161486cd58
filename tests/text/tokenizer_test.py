import json
import os
import subprocess
import sys
from typing import Any, cast

import pytest

from jaxmoe.text import StopScanner, TextStream, Tokenizer


def _edit_config(directory, **changes):
    path = directory / "tokenizer_config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(config))
    return config


def test_there_and_back(tokenizer_dir):
    """Text would not survive its own tokens."""
    tokenizer = Tokenizer.load(tokenizer_dir)
    text = " ab ünï 日本 🙂\n"
    ids = tokenizer.encode(text)
    assert all(type(id) is int for id in ids)
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode("") == []
    assert tokenizer.decode([]) == ""


def test_names_its_special_tokens(tokenizer_dir):
    """Answers would not end, or the end would be printed."""
    tokenizer = Tokenizer.load(tokenizer_dir)
    assert tokenizer.vocab_size == 260
    assert (tokenizer.eos_id, tokenizer.pad_id, tokenizer.bos_id) == (257, 259, None)
    assert tokenizer.special_ids == {257, 258, 259}
    assert tokenizer.special_tokens == {"eos_token": "<|end|>", "pad_token": "<|pad|>"}
    ids = tokenizer.encode("a<|end|>")
    assert ids[-1] == 257
    assert tokenizer.decode(ids) == "a"
    assert tokenizer.decode(ids, skip_special_tokens=False) == "a<|end|>"


def test_a_directory_without_tokenizer_has_none(tmp_path):
    """A model of token ids alone could not be loaded."""
    assert Tokenizer.load(tmp_path) is None
    with pytest.raises(FileNotFoundError, match="found none at"):
        Tokenizer.load(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", ["", '{"a": ', "[]", '"text"'])
def test_names_the_damaged_file(tokenizer_dir, name, content):
    """A cut file would fail with a parser's message, or load as nothing."""
    (tokenizer_dir / name).write_text(content)
    with pytest.raises(ValueError, match=f"{name}.*copy (it|the file) again"):
        Tokenizer.load(tokenizer_dir)


def test_truncation_and_padding_of_the_file_are_off(tokenizer_dir):
    """A prompt would be cut or padded in silence."""
    from tokenizers import Tokenizer as Backend

    path = tokenizer_dir / "tokenizer.json"
    backend = Backend.from_file(str(path))
    backend.enable_truncation(3)
    backend.enable_padding(length=8)
    backend.save(str(path))
    assert len(Tokenizer.load(tokenizer_dir).encode("xxxxxx")) == 6
    assert len(Tokenizer.load(tokenizer_dir).encode("x")) == 1


def test_tokens_of_the_config_are_added(tokenizer_dir):
    """Tokens that only tokenizer_config.json lists would be split into letters."""
    listed = {"260": {"content": "<think>", "special": False, "normalized": False}}
    _edit_config(tokenizer_dir, added_tokens_decoder=listed)
    tokenizer = Tokenizer.load(tokenizer_dir)
    assert tokenizer.encode("<think>") == [260]
    assert tokenizer.decode([260]) == "<think>"


@pytest.mark.parametrize(
    "listed",
    [
        *(5, True, "x", ["x"], {"x": {"content": "y"}}, {"-5": {"content": "y"}}),
        *({"²": {"content": "y"}}, {"260": None}, {"260": {"content": 5}}),
        {"260": {"content": "y", "lstrip": "no"}},
    ],
)
def test_added_tokens_that_are_none_are_refused(tokenizer_dir, listed):
    """A file of another tool would end in a traceback."""
    _edit_config(tokenizer_dir, added_tokens_decoder=listed)
    with pytest.raises(ValueError, match=r"added_tokens_decoder.*correct tokenizer"):
        Tokenizer.load(tokenizer_dir)


def test_files_that_disagree_are_refused(tokenizer_dir):
    """A tokenizer of another release would give other ids."""
    listed = {"300": {"content": "<|end|>", "special": True}}
    _edit_config(tokenizer_dir, added_tokens_decoder=listed)
    with pytest.raises(ValueError, match="the id 300, tokenizer.json gives 257"):
        Tokenizer.load(tokenizer_dir)


def test_named_tokens_are_special(tokenizer_dir):
    """A named end token that the vocabulary holds as a word would be printed."""
    _edit_config(tokenizer_dir, eos_token="ab")
    tokenizer = Tokenizer.load(tokenizer_dir)
    assert tokenizer.eos_id == 256
    assert tokenizer.decode(tokenizer.encode("xab")) == "x"


def test_special_tokens_map_counts_without_a_list_of_ids(tokenizer_dir):
    """Older checkpoints keep their special tokens there."""
    path = tokenizer_dir / "special_tokens_map.json"
    path.write_text(json.dumps({"bos_token": {"content": "<|user|>"}}))
    assert Tokenizer.load(tokenizer_dir).bos_id == 258
    listed = {"257": {"content": "<|end|>", "special": True}}
    _edit_config(tokenizer_dir, added_tokens_decoder=listed)
    assert Tokenizer.load(tokenizer_dir).bos_id is None


def test_ids_past_the_vocabulary_have_no_text(tokenizer_dir):
    """Models have more rows than tokens, and an untrained one draws them."""
    tokenizer = Tokenizer.load(tokenizer_dir)
    assert tokenizer.decode([65, 5000, 66]) == tokenizer.decode([65, 66])
    for wrong in (-1, 2**32):
        with pytest.raises(ValueError, match=f"found {wrong}"):
            tokenizer.decode([65, wrong])


def test_wrong_types_are_refused(tokenizer_dir, untyped):
    """Ids given for text, or the reverse, would fail inside the library."""
    tokenizer = Tokenizer.load(tokenizer_dir)
    with pytest.raises(TypeError, match="text must be a string, found list"):
        tokenizer.encode([1, 2])
    with pytest.raises(TypeError):
        tokenizer.decode([1.5])


def test_special_token_entries_are_checked(tokenizer_dir):
    """A malformed entry would appear in prompts as Python text."""
    _edit_config(tokenizer_dir, eos_token=["<|end|>"])
    with pytest.raises(ValueError, match="eos_token .* must be a string or an object"):
        Tokenizer.load(tokenizer_dir)


def test_published_tokenizer(qwen3_tokenizer_dir):
    """The released Qwen3 files would not load, or with other ids."""
    tokenizer = Tokenizer.load(qwen3_tokenizer_dir)
    assert tokenizer.vocab_size == 151_669
    assert tokenizer.eos_id == tokenizer.token_to_id("<|im_end|>") == 151_645
    assert tokenizer.pad_id == 151_643
    assert tokenizer.bos_id is None
    assert tokenizer.encode("<think>\n") == [151_667, 198]
    assert tokenizer.decode([151_667, 151_645]) == "<think>"
    assert len(tokenizer.special_ids) == 14


def test_importing_text_loads_no_library():
    """`import jaxmoe` would pay for libraries that sampling of ids never uses."""
    code = (
        "import sys, jaxmoe.text; "
        "print({'tokenizers', 'jinja2', 'jax', 'numpy'} & set(sys.modules))"
    )
    # jaxmoe itself may import jax; a bare parent package stands in for it.
    bare = "import sys, types; m = types.ModuleType('jaxmoe'); m.__path__ = ['jaxmoe']"
    code = f"{bare}; sys.modules['jaxmoe'] = m; {code}"
    run = [sys.executable, "-c", code]
    assert subprocess.check_output(run, text=True).strip() == "set()"


# -- what tokenizer_config.json asks for -------------------------------------------


def _configured(directory, **values):
    path = directory / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return Tokenizer.load(directory)


def test_special_tokens_may_be_split(tokenizer_dir):
    """Text that looks like a special token would be one."""
    plain = Tokenizer.load(tokenizer_dir).encode("<|end|>")
    split = _configured(tokenizer_dir, split_special_tokens=True).encode("<|end|>")
    assert len(plain) == 1
    assert len(split) == len("<|end|>")


def test_a_space_before_the_text(tokenizer_dir):
    """A tokenizer that was trained with it would begin with another token."""
    plain = Tokenizer.load(tokenizer_dir)
    spaced = _configured(tokenizer_dir, add_prefix_space=True)
    assert spaced.encode("ab") == plain.encode(" ab")
    value = json.loads((tokenizer_dir / "tokenizer.json").read_text())
    value["pre_tokenizer"] = None
    (tokenizer_dir / "tokenizer.json").write_text(json.dumps(value))
    with pytest.raises(ValueError, match="has no step for"):
        Tokenizer.load(tokenizer_dir)


@pytest.mark.parametrize(("asked", "times"), [(True, 1), (False, 0), (None, 0)])
def test_text_begins_with_a_token_that_the_config_asks_for(tokenizer_dir, asked, times):
    """A plain prompt would begin as none that the model was trained on."""
    config = {"bos_token": "<|user|>", "add_bos_token": asked}
    config["tokenizer_class"] = "LlamaTokenizerFast"
    tokenizer = _configured(tokenizer_dir, **config)
    plain = Tokenizer.load(tokenizer_dir).encode("ab", add_special_tokens=False)
    assert tokenizer.encode("ab") == [tokenizer.bos_id] * times + plain
    chat = [{"role": "user", "content": "ab"}]  # its template writes the token
    assert tokenizer.chat(chat).count(tokenizer.bos_id) == 1


@pytest.mark.parametrize("name", ["PreTrainedTokenizerFast", "Qwen2Tokenizer", None])
def test_other_classes_begin_as_tokenizer_json_says(tokenizer_dir, name):
    """Neither transformers 4 nor 5 has a first token there."""
    config = {"bos_token": "<|user|>", "add_bos_token": True, "tokenizer_class": name}
    plain = Tokenizer.load(tokenizer_dir).encode("ab")
    assert _configured(tokenizer_dir, **config).encode("ab") == plain


@pytest.mark.parametrize("token", ["$A", "$", "$B:1", "a:1", "$0"])
def test_any_text_begins_what_is_encoded(tokenizer_dir, token):
    """The prompt would be encoded twice, or not at all."""
    config = {"bos_token": token, "add_bos_token": True}
    config["tokenizer_class"] = "LlamaTokenizer"
    tokenizer = _configured(tokenizer_dir, **config)
    plain = tokenizer.encode("ab", add_special_tokens=False)
    assert tokenizer.encode("ab") == [tokenizer.bos_id, *plain]


@pytest.mark.parametrize("value", ["true", 1, "false", []])
@pytest.mark.parametrize("name", ["add_bos_token", "split_special_tokens"])
def test_switches_are_true_or_false(tokenizer_dir, name, value):
    """A prompt would begin without the token that was asked for."""
    with pytest.raises(ValueError, match=f"{name} in .* true or false"):
        _configured(tokenizer_dir, bos_token="<|user|>", **{name: value})


def test_marks_stay_in_text(tokenizer_dir):
    """The parts of an answer would run together."""
    plain = Tokenizer.load(tokenizer_dir)
    marked = Tokenizer.load(tokenizer_dir, marks=["<|user|>", "<|not here|>"])
    ids = plain.encode("a<|user|>ünï<|pad|><|user|><|user|>b<|end|>")
    assert plain.decode(ids) == "aünïb"
    assert marked.decode(ids) == "a<|user|>ünï<|user|><|user|>b"
    assert marked.decode(ids, skip_special_tokens=False) == plain.decode(
        ids, skip_special_tokens=False
    )
    stream = TextStream(marked.decode)
    pieces = [stream.push([id]) for id in ids]
    assert "".join([*pieces, stream.close()]) == marked.decode(ids)
    assert StopScanner(marked.decode, ("user|>b",)).push(ids) == len(ids) - 1
    marked.check_stops(["<|user|>b"])
    with pytest.raises(ValueError, match="two stops"):
        plain.check_stops(["<|user|>b"])


def test_stops_that_no_text_can_hold(tokenizer_dir):
    """A stop would never be found, and nobody would know why."""
    tokenizer = Tokenizer.load(tokenizer_dir)
    tokenizer.check_stops(["end", "<|end", "\n"])
    with pytest.raises(ValueError, match=r"<\|end\|>.* two stops"):
        tokenizer.check_stops(["end", "<|end|>\n"])


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("what", ["nested", "pipe"])
def test_files_that_are_no_tokenizer(tokenizer_dir, name, what):
    """Nested JSON would end in a traceback, a pipe never."""
    (tokenizer_dir / name).unlink()
    if what == "pipe":
        os.mkfifo(tokenizer_dir / name)
    else:
        (tokenizer_dir / name).write_text("[" * 100_000)
    with pytest.raises(ValueError, match=name):
        Tokenizer.load(tokenizer_dir)


def test_a_panic_is_one_clear_error(tokenizer_dir):
    """The library's panics are no `Exception`, and would end the program."""

    class PanicException(BaseException):
        pass

    class Backend:
        def __getattr__(self, name):
            def panic(*_, **__):
                raise PanicException("index out of bounds \x1b[2J")

            return (lambda: None) if name.startswith("no_") else panic

    tokenizer = Tokenizer(cast(Any, Backend()))
    for call in (lambda: tokenizer.encode("a"), lambda: tokenizer.decode([1])):
        with pytest.raises(ValueError, match="out of bounds") as caught:
            call()
        assert "\x1b" not in str(caught.value)


PARTS = {"vocab.json": '{"a": 0, "b": 1, "ab": 2, "\\u0120": 3}'}
PARTS["merges.txt"] = "#version: 0.2\na b\n"


@pytest.mark.parametrize("kind", ["Qwen2Tokenizer", "LlamaTokenizer", None])
def test_a_tokenizer_in_two_files(tmp_path, kind):
    """Its text would be cut by a rule that nobody has written down."""
    for name, content in PARTS.items():
        (tmp_path / name).write_text(content)
    config = {} if kind is None else {"tokenizer_class": kind}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    if kind != "Qwen2Tokenizer":
        with pytest.raises(ValueError, match=f"{kind}.*save_pretrained"):
            Tokenizer.load(tmp_path)
        return
    loaded = Tokenizer.load(tmp_path)
    assert loaded is not None
    assert loaded.encode("ab ba") == [2, 3, 1, 0]
    assert loaded.decode([2, 3, 1, 0]) == "ab ba"
