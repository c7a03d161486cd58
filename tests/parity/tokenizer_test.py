"""What stands around a text, as transformers' AutoTokenizer has it."""

import json

import pytest

from jaxmoe.text import Tokenizer
from tests.parity.templates_test import TEMPLATES

tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")

BOS, EOS = "<s>", "</s>"
TEXTS = ["", "ab ba", "  ab", f"ab{BOS}ba", f"{BOS}ab", "é\n", f"a {EOS} b"]


def byte_level(post: str | None) -> tokenizers.Tokenizer:
    """Letters as bytes, as in most files of today."""
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: i for i, letter in enumerate([*letters, "ab"])}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, [("a", "b")]))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    return with_ends(backend, post)


def sentence_pieces(post: str | None, legacy: bool = True) -> tokenizers.Tokenizer:
    """Pieces with a mark for spaces, as in files of the first Llamas."""
    pieces = ["<unk>", BOS, EOS, *(f"<0x{i:02X}>" for i in range(256))]
    pieces += ["▁", "a", "b", "ab", "▁ab", "▁a"]
    merges = [("a", "b"), ("▁", "ab"), ("▁", "a")]
    backend = tokenizers.Tokenizer(
        tokenizers.models.BPE(
            {piece: i for i, piece in enumerate(pieces)},
            merges,
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    if legacy:
        backend.normalizer = tokenizers.normalizers.Sequence(
            [
                tokenizers.normalizers.Prepend("▁"),
                tokenizers.normalizers.Replace(" ", "▁"),
            ]
        )
    else:
        backend.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(
            "▁", prepend_scheme="first", split=False
        )
    backend.decoder = tokenizers.decoders.Sequence(
        [
            tokenizers.decoders.Replace("▁", " "),
            tokenizers.decoders.ByteFallback(),
            tokenizers.decoders.Fuse(),
            tokenizers.decoders.Strip(" ", 1, 0),
        ]
    )
    return with_ends(backend, post)


def with_ends(backend: tokenizers.Tokenizer, post: str | None) -> tokenizers.Tokenizer:
    """With special tokens and a post-processor: none, "bytes", or the pieces of one."""
    backend.add_special_tokens(
        [tokenizers.AddedToken(t, special=True, normalized=False) for t in (BOS, EOS)]
    )
    if post == "bytes":
        backend.post_processor = tokenizers.processors.ByteLevel(trim_offsets=False)
    elif post is not None:
        backend.post_processor = tokenizers.processors.TemplateProcessing(
            single=post,
            special_tokens=[(t, backend.token_to_id(t)) for t in (BOS, EOS)],
        )
    return backend


def write(directory, family: str, backend, **config) -> None:
    """A model's files, whose config names the two tokens."""
    (directory / "config.json").write_text(json.dumps({"model_type": family}))
    backend.save(str(directory / "tokenizer.json"))
    given = {"bos_token": BOS, "eos_token": EOS, **config}
    (directory / "tokenizer_config.json").write_text(json.dumps(given))


def both(directory):
    """Our tokenizer and transformers' of the same files."""
    ours = Tokenizer.load(directory)
    assert ours is not None
    return ours, transformers.AutoTokenizer.from_pretrained(str(directory))


FAST = {"tokenizer_class": "PreTrainedTokenizerFast"}
LLAMA = {"tokenizer_class": "LlamaTokenizer"}
NEOX = {"tokenizer_class": "GPTNeoXTokenizer"}
FILES = {
    "nothing": ("minimax_m2", byte_level(None), FAST),
    "nothing under an old name": ("deepseek_v3", byte_level(None), LLAMA),
    "bytes": ("gpt_oss", byte_level("bytes"), FAST),
    "begins": ("glm4_moe", byte_level(f"{BOS} $A"), FAST),
    "ends": ("glm4_moe", byte_level(f"{BOS} $A {EOS}"), FAST),
    "bytes under an old name": ("deepseek_v3", byte_level("bytes"), LLAMA),
    "begins under an old name": ("deepseek_v2", byte_level(f"{BOS} $A"), LLAMA),
    "bytes of another name": ("olmoe", byte_level("bytes"), NEOX),
    "pieces": ("mixtral", sentence_pieces(f"{BOS} $A"), LLAMA),
    "pieces, legacy": (
        "mixtral",
        sentence_pieces(f"{BOS} $A"),
        LLAMA | {"legacy": True, "add_prefix_space": True},
    ),
    "pieces, not legacy": (
        "mixtral",
        sentence_pieces(f"{BOS} $A", legacy=False),
        LLAMA | {"legacy": False},
    ),
    "pieces without ends": ("ernie4_5_moe", sentence_pieces(None), LLAMA),
}
"""Of which family, what tokenizer.json holds, and the rest of tokenizer_config.json."""

WANTED = {
    "silent": {},
    "wanted": {"add_bos_token": True},
    "unwanted": {"add_bos_token": False, "add_eos_token": False},
}


@pytest.mark.parametrize("wanted", WANTED)
@pytest.mark.parametrize("name", FILES)
def test_text_begins_as_transformers_has_it(tmp_path, name, wanted):
    """A model would see a text that begins as none that it was trained on.

    Where tokenizer.json has nothing to begin with, names Llama's class, and
    `add_bos_token` asks for it, as in DeepSeek's files, transformers 4 has the token
    and 5 leaves it out.
    """
    family, backend, config = FILES[name]
    write(tmp_path, family, backend, **config, **WANTED[wanted])
    ours, theirs = both(tmp_path)
    silent = not backend.num_special_tokens_to_add(False) and config == LLAMA
    begins = [ours.bos_id] if silent and wanted == "wanted" else []
    for text in TEXTS:
        assert ours.encode(text) == begins + theirs.encode(text), text
        plain = theirs.encode(text, add_special_tokens=False)
        assert ours.encode(text, add_special_tokens=False) == plain, text


@pytest.mark.parametrize("wanted", [*WANTED.values(), {"add_eos_token": True}])
@pytest.mark.parametrize("bos", [BOS, None])
def test_tokenizers_in_two_files(tmp_path, wanted, bos):
    """Nothing but the config says what stands around their texts."""
    state = json.loads(byte_level(None).to_str())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(state["vocab"]))
    merges = "\n".join(" ".join(pair) for pair in state["merges"])
    (tmp_path / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    config = {"tokenizer_class": "Qwen2Tokenizer", "bos_token": bos, "eos_token": EOS}
    config |= {"pad_token": EOS, "unk_token": None} | wanted
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    ours, theirs = both(tmp_path)
    assert bool(ours.encode("")) == bool(
        (bos and wanted.get("add_bos_token")) or wanted.get("add_eos_token")
    )
    for text in ["", "ab ba", f"ab{EOS}ba"]:
        assert ours.encode(text) == theirs.encode(text), text


@pytest.mark.parametrize("template", ["deepseek_v3", "olmoe"])
@pytest.mark.parametrize("name", ["nothing under an old name", "begins", "pieces"])
def test_chats_begin_once(tmp_path, name, template):
    """Templates write the first token themselves; another would come before it."""
    family, backend, config = FILES[name]
    config |= {"chat_template": TEMPLATES[template], "add_bos_token": True}
    write(tmp_path, family, backend, **config)
    ours, theirs = both(tmp_path)
    chat = [{"role": "user", "content": "ab"}]
    expected = theirs.apply_chat_template(
        chat, add_generation_prompt=True, return_dict=False
    )
    assert ours.chat(chat) == expected
    assert expected.count(ours.bos_id) == 1
    assert ours.encode("ab").count(ours.bos_id) == 1
