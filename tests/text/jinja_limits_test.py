"""A template that is wrong or malicious is one clear error, soon, in little memory."""

import resource
import time

import pytest

from jaxmoe.text import Tokenizer
from jaxmoe.text.printable import clean

HELLO = [{"role": "user", "content": "hello"}]

_NESTED = (
    "{% set ns = namespace(x='a') %}{% for i in range(60) %}"
    "{% set ns.x = @ %}{% endfor %}{{ ns.x }}"
)
"""Lists of twice the same list take little memory until they are written."""

FAULTS = {
    "division": "{{ 1 / 0 }}",
    "overflow": "{{ 1e308 * 10 ** 200 }}{{ (10.0 ** 308) ** 2 }}",
    "range": "{% for i in range(10 ** 9) %}x{% endfor %}",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "attribute": "{{ none.x.y }}",
    "syntax": "{% for %}",
    "python syntax": "{% for a in b %}" * 30 + "{% endfor %}" * 30,
    "nesting": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "unclosed": "{{ 'a' ",
    "loops": "{% for i in range(9999) %}{% for j in range(9999) %}"
    "{% for k in range(9999) %}{% endfor %}{% endfor %}{% endfor %}",
    "exponential": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}"
    "{% endmacro %}{{ f(60) }}",
    "product": "{{ 'a' * 10 ** 10 }}",
    "list": "{{ ([1] * 10 ** 10) | length }}",
    "power": "{{ 10 ** 10000000000 }}",
    "powers": "{% set ns = namespace(x=10) %}{% for i in range(99) %}"
    "{% set ns.x = ns.x * ns.x %}{% endfor %}{{ ns.x }}",
    "doubling": "{% set ns = namespace(x='aa') %}{% for i in range(99) %}"
    "{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
    "plus": "{% set ns = namespace(x='aa') %}{% for i in range(99) %}"
    "{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}",
    "block": "{% set ns = namespace(x='aa') %}{% for i in range(99) %}"
    "{% set t %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = t %}{% endfor %}",
    "replace": "{% set ns = namespace(x='aa') %}{% for i in range(99) %}"
    "{% set ns.x = ns.x.replace('a', 'aa') %}{% endfor %}{{ ns.x }}",
    "replace filter": "{{ ('a' * 10 ** 6) | replace('a', 'b' * 10 ** 6) }}",
    "join": "{{ (range(99999) | list) | join('a' * 10 ** 6) }}",
    "format": "{{ '%1000000000d' % 1 }}",
    "format method": "{{ '{:1000000000}'.format(1) }}",
    "format filter": "{{ '%1000000000d' | format(1) }}",
    "center": "{{ 'a' | center(10 ** 10) }}",
    "indent": "{{ 'a\n\nb' | indent(10 ** 10) }}",
    "ljust": "{{ 'a'.ljust(10 ** 10) }}",
    "json": "{{ messages | tojson(indent=10 ** 10) }}",
    "lipsum": "{{ lipsum(n=10 ** 6) }}",
    "output": "{% for i in range(9999) %}{{ 'a' * 10 ** 6 }}{% endfor %}",
    "slice": "{{ 'abc' | slice(10 ** 9) | list }}",
    "nested lists": _NESTED.replace("@", "[ns.x, ns.x]"),
    "nested dicts": _NESTED.replace("@", "{'a': ns.x, 'b': ns.x}"),
    "nested tuples": _NESTED.replace("@", "(ns.x, ns.x)"),
    "nested calls": _NESTED.replace("@", "dict(a=ns.x, b=ns.x)"),
    "nested spaces": _NESTED.replace("@", "namespace(a=ns.x, b=ns.x)"),
    "cycle": "{% set ns = namespace() %}{% set ns.x = ns %}{{ [ns] }}",
    "cycle of lists": "{% set ns = namespace() %}{% set ns.x = [ns, ns] %}{{ [ns] }}",
    "depth": _NESTED.replace("@", "[ns.x]").replace("60", "9999"),
    "sums": "{% set ns = namespace(x=[]) %}{% for i in range(8000) %}"
    "{% set ns.x = ns.x + [i] %}{% endfor %}",
    "sums the other way": "{% set ns = namespace(x=[]) %}{% for i in range(8000) %}"
    "{% set ns.x = [i] + ns.x %}{% endfor %}",
    "lists of lists": "{% set x = range(9999) | list %}{% for i in range(9999) %}"
    "{% set y = [x, i] %}{% endfor %}",
    "sums that double": _NESTED.replace("@", "[ns.x] + [ns.x]"),
    "sums of what changes": "{% set ns = namespace(x='a') %}{% for i in range(60) %}"
    "{% set n = namespace(a=ns.x) %}{% set l = [n] + [n] %}{% set n.a = [ns.x, ns.x] %}"
    "{% set ns.x = l + [0] %}{% endfor %}{{ ns.x }}",
    "star": "{{ '%-*d' % (10 ** 9, 1) }}",
    "widths": "{{ ('%999999d' * 60) % ((1,) * 60) }}",
    "json lines": "{{ (range(99999) | list) | tojson(indent=10 ** 6) }}",
    "json text": "{{ (range(99999) | list) | tojson(indent=' ' * 10 ** 6) }}",
    "sum of lists": "{{ ([[1] * 10 ** 5] * 900) | sum(start=[]) }}",
    "wordwrap": "{{ ('a' * 10 ** 6) | wordwrap(1) }}",
    "escape": "{{ raise_exception('\x1b[2J\x1b]0;owned\x07') }}",
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_one_clear_error(tokenizer_dir, name):
    """A template would end in a traceback, or never, or take all memory."""
    (tokenizer_dir / "chat_template.jinja").write_text(FAULTS[name])
    tokenizer = Tokenizer.load(tokenizer_dir)
    begin, before = time.process_time(), _peak()
    with pytest.raises(ValueError, match="the chat template") as caught:
        tokenizer.render_chat(HELLO)
    assert time.process_time() - begin < 20
    assert _peak() - before < 500_000_000
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", ["cycle", "cycle of lists", "depth"])
def test_what_holds_itself_is_named(tokenizer_dir, name):
    """An error would speak of Python's stack."""
    (tokenizer_dir / "chat_template.jinja").write_text(FAULTS[name])
    with pytest.raises(ValueError, match="lists more than 100 deep"):
        Tokenizer.load(tokenizer_dir).render_chat(HELLO)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_what_templates_do_is_within_bounds(tokenizer_dir):
    """A long chat would be refused."""
    tokenizer = Tokenizer.load(tokenizer_dir)
    chat = [{"role": "user", "content": "x" * 1000}] * 2000
    assert len(tokenizer.render_chat(chat)) > 2_000_000


def test_messages_are_collected_soon(tokenizer_dir):
    """Long chats would take the square of their length, or be refused."""
    source = (
        "{% set ns = namespace(l=[]) %}{% for message in messages %}"
        "{% set ns.l = ns.l + [message] %}{% endfor %}"
        "{% for message in ns.l %}{{ message.role }}{{ message.content }}{% endfor %}"
    )
    (tokenizer_dir / "chat_template.jinja").write_text(source)
    tokenizer = Tokenizer.load(tokenizer_dir)
    begin = time.process_time()
    assert len(tokenizer.render_chat(HELLO * 2000)) == 9 * 2000
    assert time.process_time() - begin < 5


def test_lists_and_formats_are_left_alone(tokenizer_dir):
    """Bounds would change what a template writes."""
    source = (
        "{% for a, b in [(1, 'x'), (2, 'y')] %}{{ a }}{{ b }}{% endfor %}"
        "{% set c, d = ({'k': 3}, [4]) %}{{ c['k'] }}{{ d[0] }}"
        "{{ '**%s** 5%% * %2d' % ('z', 6) }}{{ [7] + [8] }}{{ 9 in (9,) }}"
        "{{ messages[0] | tojson(indent=1) }}{{ [1, 2] | sum }}"
        "{% set ns = namespace(a=[1]) %}{% set ns.a = ns.a + [2] %}{{ ns.a }}"
    )
    (tokenizer_dir / "chat_template.jinja").write_text(source)
    text = Tokenizer.load(tokenizer_dir).render_chat(HELLO)
    whole = '{\n "role": "user",\n "content": "hello"\n}'
    assert text == f"1x2y34**z** 5% *  6[7, 8]True{whole}3[1, 2]"


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [("a\r\nb", "a\nb"), ("a\rb", "a\ufffdb"), ("a\tb\u200e", "a\tb\ufffd")],
)
def test_clean(text, cleaned):
    """A page would hide or reorder what stands in it."""
    assert clean(text) == cleaned
