"""The Jinja dialect of Hugging Face chat templates. Imported only when one is used.

A template comes with a downloaded model, so it runs in jinja2's sandbox, on plain data,
with nothing of Python in reach but what is listed here. What transformers offers to
templates (huggingface.co/docs/transformers, "Writing a chat template") is:
`raise_exception`, `strftime_now`, `tojson` without HTML escapes, `break` and
`continue`, and `{% generation %}` blocks, which only mark text.
"""

import datetime
import functools
import json
from typing import Any, NoReturn

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from jaxmoe.text import jinja_limits as limits

TemplateError = jinja2.TemplateError


class _Generation(Extension):
    """`{% generation %}...{% endgeneration %}` renders what it encloses."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.CallBlock:
        """Wrap the enclosed nodes in a call, so that names set inside stay inside."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("_enclosed")
        return nodes.CallBlock(call, [], [], body, lineno=line)

    def _enclosed(self, caller) -> str:
        return caller()


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _strftime_now(format: str) -> str:
    return datetime.datetime.now().strftime(format)


def _to_json(
    value, ensure_ascii=False, indent=None, separators=None, sort_keys=False
) -> str:
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, in which nothing grows without bound (`jinja_limits`)."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})
    limit_step = staticmethod(limits.step)
    limit_join = staticmethod(limits.joined)
    limit_measure = staticmethod(limits.measured)
    concat = staticmethod(limits.concatenated)

    def _parse(self, source, name, filename):
        tree = limits.count_steps(super()._parse(source, name, filename))
        return tree.set_environment(self)

    def call_binop(self, context, operator, left, right):
        """An operation whose result is measured."""
        if operator == "*":
            limits.check_product(left, right)
        elif operator == "**":
            limits.check_power(left, right)
        elif operator == "%":
            limits.check_format(left)
        result = super().call_binop(context, operator, left, right)
        if operator == "+" and isinstance(result, list | tuple):
            return limits.added(left, right, result)
        return limits.measured(result)

    def call(self, context, obj, *args, **kwargs):
        """A call whose arguments and result are measured."""
        # The sandbox wraps `str.format`.
        owner = getattr(getattr(obj, "__wrapped__", obj), "__self__", None)
        if isinstance(owner, str | bytes | list | dict):
            limits.check_arguments(obj.__name__, (owner, *args), kwargs)
        return limits.measured(super().call(context, obj, *args, **kwargs))


@functools.cache
def _environment() -> ImmutableSandboxedEnvironment:
    environment = _Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols", _Generation],
    )
    environment.filters["tojson"] = _to_json
    environment.filters = {
        name: limits.limited(name, function)
        for name, function in environment.filters.items()
    }
    del environment.globals["lipsum"]  # writes as much as it is asked for
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def render(template: jinja2.Template, variables: dict[str, Any]) -> str:
    """The output, of a bounded length and in a bounded number of steps.

    Raises:
      LimitError: it would be longer, or take more steps.
    """
    limits.start()
    parts, length = [], 0
    for part in template.generate(variables):
        length += len(part)
        if length > limits.MAX_CHARS:
            raise limits.LimitError(
                f"an output of more than {limits.MAX_CHARS} characters"
            )
        parts.append(part)
    return "".join(parts)


@functools.lru_cache(maxsize=32)
def compile_template(source: str) -> jinja2.Template:
    """The compiled template; compiled once for each source text."""
    return _environment().from_string(source)


@functools.lru_cache(maxsize=32)
def variables_read(source: str) -> frozenset[str]:
    """Names that the template takes from its caller."""
    environment = _environment()
    names = meta.find_undeclared_variables(environment.parse(source))
    return frozenset(names - set(environment.globals))
