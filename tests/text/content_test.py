"""Nothing that a message holds is dropped, and the last one may be continued."""

import pytest

from jaxmoe.text import Tokenizer

# As in later Qwen3 releases: anything but text counts as nothing.
TEXT_ONLY = (
    "{% for m in messages %}<{{ m.role }}>"
    "{% if m.content is string %}{{ m.content }}{% endif %}</>{% endfor %}"
)
PARTS = (
    "{% for m in messages %}<{{ m.role }}>{% for p in m.content %}"
    "{% if p.type == 'text' %}{{ p.text }};{% endif %}{% endfor %}</>{% endfor %}"
)
TRIMMED = "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}</>{% endfor %}"
QUOTED = "{% for m in messages %}{{ m.role }}={{ m.content | tojson }}\n{% endfor %}"
USERS = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"


@pytest.fixture
def render(tokenizer_dir):
    """Render one message, or several, through a template given as text."""

    def render(template, *messages, **options):
        (tokenizer_dir / "chat_template.jinja").write_text(template)
        return Tokenizer.load(tokenizer_dir).render_chat(list(messages), **options)

    return render


def _text(*texts):
    return [{"type": "text", "text": text} for text in texts]


@pytest.mark.parametrize("role", ["user", "system", "assistant", "tool"])
@pytest.mark.parametrize(
    ("content", "shown"),
    [
        ("hello", "hello"),
        (_text("hello"), "hello"),
        (_text("hello", "there"), "hello\nthere"),
        (["hello"], "hello"),
        ([{"type": "input_text", "text": "hello"}], "hello"),
        ([], ""),
        ("", ""),
        (None, ""),
    ],
)
def test_text_reaches_the_prompt(render, role, content, shown):
    """A message in parts would be an empty one."""
    found = render(TEXT_ONLY, {"role": role, "content": content})
    assert found == f"<{role}>{shown}</>"


def test_a_template_may_read_parts(render):
    """Parts would be joined for a template that puts something between them."""
    message = {"role": "user", "content": _text("a", "b")}
    assert render(PARTS, message) == "<user>a;b;</>"


@pytest.mark.parametrize(
    "content",
    [
        {"answer": "hello"},
        42,
        [{"type": "image_url", "image_url": {"url": "x"}}],
        [*_text("hello"), {"type": "image"}],
        [{"type": "text"}],
        [{"type": "text", "text": 3}],
        [["hello"]],
    ],
)
@pytest.mark.parametrize("template", [TEXT_ONLY, PARTS])
def test_what_a_template_would_drop_is_refused(render, content, template):
    """An answer would be to a question without its picture or its tool's result."""
    with pytest.raises(ValueError):
        render(template, {"role": "tool", "content": content})


def test_dropped_messages_and_calls_are_refused(render):
    """A template that has no place for a role would leave its messages out."""
    user = {"role": "user", "content": "hi"}
    system = {"role": "system", "content": "be brief"}
    assert render(USERS, user) == "hi"
    with pytest.raises(ValueError, match=r"drops the content of messages\[0\]"):
        render(USERS, system, user)
    call = {"type": "function", "function": {"name": "f", "arguments": {}}}
    calling = {"role": "assistant", "content": "", "tool_calls": [call]}
    with pytest.raises(ValueError, match=r"drops the tool_calls of messages\[1\]"):
        render(TEXT_ONLY, user, calling)


@pytest.mark.parametrize("template", [TRIMMED, QUOTED])
def test_another_form_is_not_dropped(render, template):
    """Text that a template trims or quotes would be refused."""
    assert render(template, {"role": "user", "content": ' say "hi"\n'})


def test_old_reasoning_may_be_cut_off(qwen3_tokenizer_dir):
    """Qwen3's own template leaves out what was thought before."""
    tokenizer = Tokenizer.load(qwen3_tokenizer_dir)
    chat = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nb"},
        {"role": "user", "content": _text("c", "d")},
    ]
    found = tokenizer.render_chat(chat)
    assert "hm" not in found
    assert "c\nd" in found


# -- going on, batches -------------------------------------------------------------

ANSWER = ({"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo "})


@pytest.mark.parametrize(
    ("template", "end"),
    [(TEXT_ONLY, "<assistant>yo "), (TRIMMED, "<assistant>yo "), (PARTS, None)],
)
def test_the_last_message_is_continued(render, template, end):
    """The model would begin a new answer, or close the one that was begun."""
    if end is None:
        messages = (
            ANSWER[0] | {"content": _text("hi")},
            {
                "role": "assistant",
                "content": _text("y", "yo"),
            },
        )
        assert render(template, *messages, continue_final_message=True).endswith("y;yo")
    else:
        assert render(template, *ANSWER, continue_final_message=True).endswith(end)


def test_what_cannot_be_continued_is_refused(render):
    """A prompt would end somewhere else than it says."""
    with pytest.raises(ValueError, match="give one of the two"):
        both = {"continue_final_message": True, "add_generation_prompt": True}
        render(TEXT_ONLY, *ANSWER, **both)
    with pytest.raises(ValueError, match="does not write the last message"):
        render(USERS, *ANSWER, continue_final_message=True)
    with pytest.raises(ValueError, match="needs a last message with text"):
        render(TEXT_ONLY, ANSWER[0] | {"content": 3}, continue_final_message=True)


def test_several_chats(tokenizer_dir):
    """A list of chats would be taken for one that is malformed."""
    tokenizer = Tokenizer.load(tokenizer_dir)
    chats = [[ANSWER[0]], [ANSWER[0], ANSWER[1], ANSWER[0]]]
    assert tokenizer.chat(chats) == [tokenizer.chat(chat) for chat in chats]
