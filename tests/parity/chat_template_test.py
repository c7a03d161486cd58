import json
import shutil

import numpy as np
import pytest

from jaxmoe.text import Tokenizer
from tests.parity.chats import (
    CALL_NONE,
    CHATS,
    UNICODE,
    USER,
    WEATHER,
)

OPTIONS = {
    "bare": {"add_generation_prompt": False},
    "prompt": {"add_generation_prompt": True},
    "thinking": {"add_generation_prompt": True, "enable_thinking": True},
    "no thinking": {"add_generation_prompt": True, "enable_thinking": False},
    "tools": {"add_generation_prompt": True, "tools": [WEATHER, WEATHER]},
    "no tools": {"add_generation_prompt": True, "tools": []},
}


def _both(directory):
    transformers = pytest.importorskip("transformers")
    return (
        Tokenizer.load(directory),
        transformers.AutoTokenizer.from_pretrained(str(directory)),
    )


@pytest.fixture(scope="module")
def qwen3(qwen3_tokenizer_dir):
    """Our tokenizer and transformers' of the published files."""
    return _both(qwen3_tokenizer_dir)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("chat", CHATS)
def test_chats_are_rendered_as_transformers_does(qwen3, chat, options):
    """The model would see another prompt than the one it was trained on."""
    ours, theirs = qwen3
    messages, given = CHATS[chat], OPTIONS[options]
    expected = theirs.apply_chat_template(messages, tokenize=False, **given)
    assert ours.render_chat(messages, **given) == expected
    ids = theirs.apply_chat_template(messages, return_dict=False, **given)
    assert ours.chat(messages, **given) == ids


def test_no_content_is_an_empty_text(qwen3):
    """Where transformers' rendering of the template fails, as other servers do."""
    ours, theirs = qwen3
    messages = [USER, CALL_NONE]
    with pytest.raises(Exception):  # noqa: B017 (whatever it raises)
        theirs.apply_chat_template(messages, tokenize=False)
    empty = [USER, {**CALL_NONE, "content": ""}]
    assert ours.render_chat(messages) == ours.render_chat(empty)


TEXTS = [
    "",
    " ",
    "Hello, world!  \n\n\n x\t1234567",
    UNICODE["content"],
    "<|im_start|>user\n<think></think><tool_call><|fim_prefix|><|nothing|>",
    "def f(x):\n\treturn {x: 'it’s'}\r\n",
    "Ångström ﬁ ½ \u0000 \ufffd Ａ",
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("add", [True, False])
def test_text_is_encoded_as_transformers_does(qwen3, text, add):
    """Token ids would differ from those of the reference."""
    ours, theirs = qwen3
    ids = theirs.encode(text, add_special_tokens=add)
    assert ours.encode(text, add) == ids
    for skip in (True, False):
        expected = theirs.decode(ids, skip_special_tokens=skip)
        assert ours.decode(ids, skip) == expected


@pytest.mark.parametrize("skip", [True, False])
def test_random_ids_are_decoded_as_transformers_does(qwen3, skip):
    """Answers would print differently, special tokens and broken bytes included."""
    ours, theirs = qwen3
    rng = np.random.default_rng(0)
    for low in (0, 151_600):
        for row in rng.integers(low, 151_936, size=(20, 30)).tolist():
            expected = theirs.decode(row, skip_special_tokens=skip)
            assert ours.decode(row, skip) == expected


def test_special_tokens_agree(qwen3):
    """Answers would end elsewhere."""
    ours, theirs = qwen3
    assert ours.vocab_size == len(theirs)
    assert ours.special_ids == set(theirs.all_special_ids)
    assert ours.special_tokens["eos_token"] == theirs.eos_token
    assert (ours.eos_id, ours.pad_id) == (theirs.eos_token_id, theirs.pad_token_id)


def test_saved_by_transformers(qwen3, tmp_path):
    """Files as transformers writes them today: the template in a file of its own."""
    _, theirs = qwen3
    theirs.save_pretrained(tmp_path)
    assert (tmp_path / "chat_template.jinja").exists()
    ours, again = _both(tmp_path)
    messages, given = CHATS["turns"], OPTIONS["tools"]
    expected = again.apply_chat_template(messages, tokenize=False, **given)
    assert ours.render_chat(messages, **given) == expected
    assert ours.special_ids == set(again.all_special_ids)
    assert ours.encode(expected) == again.encode(expected)


TEMPLATES = {
    "file": ("from the file", None),
    "named": (None, {"default": "plain", "tool_use": "{{ tools | tojson }}"}),
    "generation": (
        "{% for m in messages %}\n  {% generation %}\n {{ m.content }}\n"
        "  {% endgeneration %}\n{% endfor %}\n",
        None,
    ),
    "loops": (
        "{%- for m in messages %}{%- if loop.index > 9 %}{%- break %}{%- endif %}"
        "{{ m | tojson(indent=2, sort_keys=true) }}{%- endfor %}",
        None,
    ),
    "names": ("{{ bos_token }}|{{ eos_token }}|{{ pad_token }}|{{ unk_token }}", None),
}


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("tools", [None, [WEATHER]])
def test_templates_are_found_as_transformers_does(
    qwen3_tokenizer_dir, tmp_path, name, tools
):
    """The file, the config or a named template: another would be rendered."""
    file, named = TEMPLATES[name]
    for source in qwen3_tokenizer_dir.iterdir():
        shutil.copyfile(source, tmp_path / source.name)
    config_path = tmp_path / "tokenizer_config.json"
    config = json.loads(config_path.read_text())
    if file is not None:
        (tmp_path / "chat_template.jinja").write_text(file)
    if named is not None:
        config["chat_template"] = [
            {"name": key, "template": text} for key, text in named.items()
        ]
        config_path.write_text(json.dumps(config))
    ours, theirs = _both(tmp_path)
    given = {"add_generation_prompt": True}
    messages = CHATS["turns"]
    expected = theirs.apply_chat_template(
        messages, tokenize=False, tools=tools, **given
    )
    if tools and named is None:
        with pytest.raises(ValueError, match="does not read tools"):
            ours.render_chat(messages, tools=tools, **given)
    else:
        assert ours.render_chat(messages, tools=tools, **given) == expected
