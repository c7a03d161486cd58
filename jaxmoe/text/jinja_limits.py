"""Bounds of what a chat template may compute: it comes with a downloaded model.

Each turn of a loop and each call of a macro counts, and every text or list that an
operation makes is measured, before it is made where its size can be told. Measuring and
copying a list count as turns as well, so that all of it ends within seconds.
"""

import re
import threading
from collections.abc import Callable, Iterable, Sized
from typing import Any

from jinja2 import TemplateRuntimeError, nodes
from jinja2.utils import Namespace

MAX_CHARS = 20_000_000
"""Characters of one text, and of the whole output; elements of a list."""
MAX_STEPS = 300_000
"""Turns of loops and calls of macros in one rendering."""
MAX_NUMBER = 1_000_000
"""The largest number that a filter, a method or a format may be given."""
MAX_DEPTH = 100
"""Lists within lists."""
_MAX_MARGIN = 100
_VISITED = 2
"""Elements looked at that count as a turn of a loop."""
_COPIED = 100
"""Elements copied that do."""
_SUMS = 8
"""Sums of lists whose sizes are remembered."""
MAX_POWER = 256
"""Bits in the exponent or the base of a power."""

_STAR = re.compile(r"%[-+ #0]*[0-9]*\.?\*")
_SLOW = 5e9
"""Letters that wrapping lines may copy: about a second."""


class _Steps(threading.local):
    """What a rendering in this thread has spent, and sizes of the last sums of lists.

    sums: id of a list -> the list, which keeps the id its own, and its size.
    """

    def __init__(self):
        self.count = 0.0
        self.sums: dict[int, tuple[Any, int]] = {}


_steps = _Steps()


class LimitError(TemplateRuntimeError):
    """A template that computes too much."""


def start():
    """A new rendering begins in this thread."""
    _steps.count = 0.0
    _steps.sums = {}


def step() -> str:
    """Counts a turn of a loop."""
    _spend(1)
    return ""


def _spend(turns: float):
    _steps.count += turns
    if _steps.count > MAX_STEPS:
        raise LimitError(
            f"more than {MAX_STEPS} turns of loops, or as much work on lists; it may "
            "never end"
        )


def measured(value: Any) -> Any:
    """`value`, or an error where it is too long.

    Of lists that hold one another all elements count, each as often as it would be
    written: [x, x] is twice as long as x, though it takes no more memory.
    """
    if isinstance(value, str | bytes):
        _check_size(len(value))
    elif isinstance(value, list | tuple | dict | Namespace):
        _check_size(_Walk().size(value))
    return value


def added(left: Any, right: Any, total: Any) -> Any:
    """`total` of two lists, or an error where it is too long.

    It is measured by its parts, as templates collect messages one by one: looking
    through all of them each time would take the square of their number.
    """
    walk = _Walk()
    _spend(len(total) / _COPIED)
    size = sum(
        _steps.sums[id(part)][1] if id(part) in _steps.sums else walk.size(part)
        for part in (left, right)
    )
    _check_size(size)
    if not walk.may_change:
        _steps.sums[id(total)] = total, size
        if len(_steps.sums) > _SUMS:
            del _steps.sums[next(iter(_steps.sums))]
    return total


class _Walk:
    """Measures values, each list once.

    may_change: a namespace was among them; the sandbox lets nothing else change.
    """

    def __init__(self):
        self.may_change = False
        self._known: dict[int, int] = {}

    def size(self, value: Any, depth: int = 0) -> int:
        """How many letters and elements there are to write."""
        if isinstance(value, str | bytes):
            return len(value)
        if isinstance(value, Namespace):
            self.may_change = True
            value = value._Namespace__attrs  # all else that it has are its values
        if not isinstance(value, list | tuple | dict):
            return 1
        if id(value) not in self._known:
            if depth > MAX_DEPTH:
                raise LimitError(
                    f"lists more than {MAX_DEPTH} deep; one may hold itself"
                )
            _spend(len(value) / _VISITED)
            inner = value.values() if isinstance(value, dict) else value
            sizes = (self.size(one, depth + 1) for one in inner)
            self._known[id(value)] = 1 + sum(sizes)
        return self._known[id(value)]


def check_product(left: Any, right: Any):
    """Before `left * right`, where one is a text or a list."""
    for one, other in ((left, right), (right, left)):
        repeats = isinstance(one, str | list | tuple) and isinstance(other, int)
        if repeats and len(one) * other > MAX_CHARS:
            raise LimitError(f"a text of {len(one)} times {other} characters")
    if isinstance(left, int) and isinstance(right, int):
        _check_bits(left, 40 * MAX_POWER)
        _check_bits(right, 40 * MAX_POWER)


def check_power(left: Any, right: Any):
    """Before `left ** right`."""
    if isinstance(left, int) and isinstance(right, int):
        _check_bits(left, MAX_POWER)
        if abs(right) > MAX_POWER:
            raise LimitError(f"a power with exponent {right}")


def _check_bits(value: int, most: int):
    if value.bit_length() > most:
        raise LimitError(f"a number of {value.bit_length()} bits")


def check_format(text: Any):
    """Before a text is used as a format: a width may be of any size."""
    if not isinstance(text, str):
        return
    digits, total = "", 0
    for char in text + " ":
        if not char.isdecimal():
            total, digits = total + int(digits or 0), ""
            continue
        digits += char
        if len(digits) > 6:
            raise LimitError(f"a format with the number {digits}...")
    _check_size(total)
    if _STAR.search(text.replace("%%", "")):
        raise LimitError("a format whose width is an argument")


def check_arguments(name: str, args: tuple, kwargs: dict[str, Any]):
    """Before a filter or a method `name` of a text is called.

    args: the object that it is of comes first.
    """
    given = [*args, *kwargs.values()]
    for value in given[1:]:
        if isinstance(value, int) and abs(value) > MAX_NUMBER:
            raise LimitError(f"{name} with the number {value}")
    texts = [value for value in given if isinstance(value, str)]
    if name == "replace" and len(texts) >= 3:
        count = texts[0].count(texts[1]) if texts[1] else len(texts[0]) + 1
        _check_size(len(texts[0]) + count * len(texts[2]))
    elif name == "join" and texts and (items := _longest(given)):
        _check_size(max(map(len, texts)) * items)
    elif name in ("indent", "ljust", "rjust", "center", "zfill") and texts:
        width = max((v for v in given[1:] if isinstance(v, int)), default=4)
        extra = max(map(len, texts[1:]), default=1) if name == "indent" else 1
        lines = texts[0].count("\n") + 1
        _check_size(len(texts[0]) + lines * max(width, extra))
    elif name == "tojson":
        # Before each element there may be as much.
        for value in given[1:]:
            _check_margin(value)
    elif name == "sum" and any(isinstance(v, list | tuple) for v in given[1:]):
        raise LimitError("a sum of lists")  # which copies them again and again
    elif name == "wordwrap" and texts:
        width = min((v for v in given[1:] if isinstance(v, int)), default=79)
        if len(texts[0]) ** 2 / max(width, 1) > _SLOW:
            raise LimitError(f"lines of {width} out of {len(texts[0])} characters")
        _check_size(len(texts[0]) * (1 + max(map(len, texts[1:]), default=0)))
    elif name in ("translate", "expandtabs") and texts:
        width = max((v for v in given[1:] if isinstance(v, int)), default=8)
        _check_size(len(texts[0]) * max(1, width))
    elif name in ("format", "format_map"):
        for text in texts:
            check_format(text)
            _check_size(len(text) + text.count("{") * max(map(len, texts)))


def _check_margin(value: Any):
    sizes = [value] if isinstance(value, int) else []
    if isinstance(value, str | list | tuple):
        sizes = [_Walk().size(value)]
    if sizes and sizes[0] > _MAX_MARGIN:
        raise LimitError(f"tojson with {sizes[0]} characters between elements")


def _longest(values: list[Any]) -> int:
    return max((len(v) for v in values if isinstance(v, Sized)), default=0)


def _check_size(size: int):
    if size > MAX_CHARS:
        raise LimitError(f"a text of {size} characters, {MAX_CHARS} allowed")


def limited(name: str, filter: Callable[..., Any]) -> Callable[..., Any]:
    """A filter of Jinja's that checks what it is given, and what it makes."""
    skip = 1 if hasattr(filter, "jinja_pass_arg") else 0

    def call(*args: Any, **kwargs: Any) -> Any:
        check_arguments(name, args[skip:], kwargs)
        return measured(filter(*args, **kwargs))

    for attribute in ("jinja_pass_arg", "jinja_async_variant"):
        if hasattr(filter, attribute):
            setattr(call, attribute, getattr(filter, attribute))
    return call


def joined(*values: Any) -> str:
    """The texts of `values`, one after the other: what Jinja's `~` does."""
    return concatenated(map(str, values))


def concatenated(parts: Iterable[str]) -> str:
    """What a block or a macro writes, as one text."""
    texts = list(parts)
    _check_size(sum(map(len, texts)))
    return "".join(texts)


def count_steps(tree: nodes.Template) -> nodes.Template:
    """Adds a `step` to each loop and macro; measures lists and what `~` makes."""
    for node in [*tree.find_all(nodes.For), *tree.find_all(nodes.Macro)]:
        node.body.insert(0, nodes.ExprStmt(_call("limit_step", []), lineno=node.lineno))
    for parent in list(tree.find_all(nodes.Node)):
        for field, value in list(parent.iter_fields()):
            if isinstance(value, nodes.Node):
                setattr(parent, field, _bounded(value))
            elif isinstance(value, list):
                value[:] = map(_bounded, value)
    return tree


def _bounded(node: Any) -> Any:
    """An expression that makes a text or a list, so that what it makes is measured."""
    if isinstance(node, nodes.Concat):
        return _call("limit_join", node.nodes)
    stored = getattr(node, "ctx", "load") != "load"
    if isinstance(node, nodes.List | nodes.Dict | nodes.Tuple) and not stored:
        return _call("limit_measure", [node])
    return node


def _call(name: str, args: list[nodes.Expr]) -> nodes.Call:
    target = nodes.EnvironmentAttribute(name)
    return nodes.Call(target, args, [], None, None)
