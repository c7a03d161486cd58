import json
import re

import pytest

from jaxmoe.text import Tokenizer

HELLO = [{"role": "user", "content": "hello"}]
TOOL = {"type": "function", "function": {"name": "add", "parameters": {}}}


@pytest.fixture
def render(tokenizer_dir):
    """Render `messages` through a template given as text."""

    def render(template, messages=HELLO, **options):
        (tokenizer_dir / "chat_template.jinja").write_text(template)
        return Tokenizer.load(tokenizer_dir).render_chat(messages, **options)

    return render


def test_renders_and_encodes(tokenizer_dir):
    """The prompt would differ from its rendered text."""
    tokenizer = Tokenizer.load(tokenizer_dir)
    text = "<|user|>user: hello\nassistant: "
    assert tokenizer.render_chat(HELLO) == text
    assert tokenizer.chat(HELLO) == tokenizer.encode(text)
    closed = tokenizer.render_chat(HELLO, add_generation_prompt=False)
    assert closed == "<|user|>user: hello\n"


# -- which template ----------------------------------------------------------------


def test_the_file_comes_before_the_config(tokenizer_dir):
    """A checkpoint with both would use the older of the two."""
    (tokenizer_dir / "chat_template.jinja").write_text("from the file")
    assert Tokenizer.load(tokenizer_dir).render_chat(HELLO) == "from the file"


def test_named_templates(tokenizer_dir):
    """Chats with tools would go through the template without them."""
    path = tokenizer_dir / "tokenizer_config.json"
    templates = [
        {"name": "default", "template": "plain"},
        {"name": "tool_use", "template": "{{ tools | length }} tools"},
        {"name": "rag", "template": "rag"},
    ]
    path.write_text(json.dumps({"chat_template": templates}))
    tokenizer = Tokenizer.load(tokenizer_dir)
    assert tokenizer.render_chat(HELLO) == "plain"
    assert tokenizer.render_chat(HELLO, tools=[TOOL]) == "1 tools"
    assert tokenizer.render_chat(HELLO, chat_template="rag") == "rag"
    own = "{{ messages[0].content }}!"
    assert tokenizer.render_chat(HELLO, chat_template=own) == "hello!"
    with pytest.raises(ValueError, match="no chat template is named 'other'"):
        tokenizer.render_chat(HELLO, chat_template="other")


def test_additional_files_replace_the_config(tokenizer_dir):
    """Templates that newer checkpoints keep in files would not be found."""
    folder = tokenizer_dir / "additional_chat_templates"
    folder.mkdir()
    (folder / "rag.jinja").write_text("rag")
    tokenizer = Tokenizer.load(tokenizer_dir)
    assert tokenizer.render_chat(HELLO, chat_template="rag") == "rag"
    with pytest.raises(ValueError, match=r"\['rag'\] and none named 'default'"):
        tokenizer.render_chat(HELLO)


def test_no_template_says_so(tokenizer_dir):
    """A base model has no chat; the user has to learn what to do."""
    (tokenizer_dir / "tokenizer_config.json").unlink()
    with pytest.raises(ValueError, match="no chat template: expected .* plain prompt"):
        Tokenizer.load(tokenizer_dir).chat(HELLO)


@pytest.mark.parametrize("entry", [3, [{"name": "a"}], {"default": 1}, [1]])
def test_malformed_entries_are_refused(tokenizer_dir, entry):
    """Something else than a template would be rendered."""
    path = tokenizer_dir / "tokenizer_config.json"
    path.write_text(json.dumps({"chat_template": entry}))
    with pytest.raises(ValueError, match="chat_template in .* must be a string"):
        Tokenizer.load(tokenizer_dir)


# -- the dialect -------------------------------------------------------------------


@pytest.mark.parametrize(
    "template, expected",
    [
        ("{% if true %}\n  x\n{% endif %}\n", "  x\n"),
        ("a\n    {% if true %}b{% endif %}", "a\nb"),
        ("{{ '<é>&' | tojson }}", '"<é>&"'),
        ("{{ {'b': 1, 'a': [none, true]} | tojson }}", '{"b": 1, "a": [null, true]}'),
        ("{{ [1] | tojson(indent=2) }}", "[\n  1\n]"),
        ("{% for i in [1, 2, 3] %}{% if i == 2 %}{% break %}{% endif %}{{ i }}"
         "{% endfor %}", "1"),
        ("{% generation %}{{ messages[0].content }}{% endgeneration %}", "hello"),
        ("{% set x = 1 %}{% generation %}{% set x = 2 %}{% endgeneration %}{{ x }}",
         "1"),
        ("{{ bos_token }}{{ eos_token }}", "<|end|>"),
        ("{{ tools is none and documents is none }}", "True"),
        ("{{ strftime_now('%Y') | length }}", "4"),
    ],
)  # fmt: skip
def test_dialect(render, template, expected):
    """Templates would come out with other white space, escapes or values."""
    assert render(template) == expected


def test_a_template_may_refuse(render):
    """The template's own words would be lost."""
    with pytest.raises(ValueError, match="refuses these messages: roles must alter"):
        render("{{ raise_exception('roles must alternate') }}")


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({}) }}",
        "{{ cycler.__init__.__globals__ }}",
    ],
)
def test_templates_are_held_in_a_sandbox(render, template):
    """A downloaded template could reach Python, or change the caller's messages."""
    with pytest.raises(ValueError, match="refuses these messages"):
        render(template)


def test_broken_template(render):
    """A template with a slip would fail without its place."""
    with pytest.raises(ValueError, match=r"no valid Jinja: .* \(line 2\)"):
        render("\n{% if %}")


# -- messages, tools, options ------------------------------------------------------


@pytest.mark.parametrize(
    "messages, error, message",
    [
        ("hello", TypeError, "found str; a single prompt is"),
        ({"role": "user"}, TypeError, "found dict"),
        ([], ValueError, "messages is empty"),
        (["hello"], TypeError, r"messages\[0\] must be a dict"),
        ([*HELLO, {"content": "x"}], ValueError, r"messages\[1\] must have a 'role'"),
        ([{"role": 3}], ValueError, "found 3"),
        ([{"role": "user", "content": b"x"}], TypeError, "'content'.* found bytes"),
        ([{"role": "user", "content": object()}], TypeError, "found object"),
    ],
)
def test_malformed_messages(tokenizer_dir, untyped, messages, error, message):
    """A prompt would be rendered from something that is no chat."""
    with pytest.raises(error, match=message):
        Tokenizer.load(tokenizer_dir).chat(messages)


@pytest.mark.parametrize(
    "tools, error, message",
    [
        ([print], TypeError, r"tools\[0\] must be a JSON schema"),
        (TOOL, TypeError, "must be a list of JSON schemas, found dict"),
        ([TOOL], ValueError, "does not read tools, which would be ignored"),
    ],
)
def test_malformed_tools(tokenizer_dir, untyped, tools, error, message):
    """The model would never hear of its tools."""
    with pytest.raises(error, match=message):
        Tokenizer.load(tokenizer_dir).chat(HELLO, tools=tools)


def test_options_must_be_read(render):
    """A misspelt option would change nothing and say nothing."""
    template = "{{ enable_thinking }} {{ effort }}"
    assert render(template, enable_thinking=False, effort="low") == "False low"
    expected = "does not read enable_thinkng.* it reads effort, enable_thinking"
    with pytest.raises(ValueError, match=expected):
        render(template, enable_thinkng=False)
    with pytest.raises(ValueError, match="it reads no options"):
        render("x", enable_thinking=True)


def test_messages_stay_as_they_were(render):
    """A caller's history would gain fields from turn to turn."""
    messages = [{"role": "assistant", "content": None, "reasoning": "why"}]
    template = (
        "{{ messages[0].content is defined }} {{ messages[0].reasoning_content }}"
    )
    assert render(template, messages) == "True why"
    assert messages == [{"role": "assistant", "content": None, "reasoning": "why"}]


def test_published_template(qwen3_tokenizer_dir):
    """The released Qwen3 template, against its documented format."""
    tokenizer = Tokenizer.load(qwen3_tokenizer_dir)
    text = "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.render_chat(HELLO) == text
    off = tokenizer.render_chat(HELLO, enable_thinking=False)
    assert off == text + "<think>\n\n</think>\n\n"
    tools = tokenizer.render_chat(HELLO, tools=[TOOL])
    assert re.search(r"<tools>\n(.*)\n</tools>", tools)[1] == json.dumps(TOOL)
