r"""Finding the program in an answer: fenced blocks, and code without a fence.

Fences are lines of three or more backticks or tildes. An opening one may follow words
("Code: ```python"); a closing one is of the same sign, at least as long and without a
label, and may stand at the end of the last line of code. So a block of four backticks
holds lines of three.
"""

import ast
import re
from dataclasses import dataclass

_LONGEST_BARE = 20_000
"""Characters of a text without a fence that is looked at as a program."""

_TRIED = 10
"""Lines at which a program without a fence may begin, and blocks, that are tried."""

_ENDS = 3
"""Blank lines at which such a program may end, that are tried."""

_OPENS = re.compile(
    r"(?P<before>.*?)(?P<fence>`{3,}|~{3,})[ \t]*(?P<label>[^`~]*)", re.DOTALL
)
_CLOSES = re.compile(r"(?P<code>.*?)(?P<fence>`{3,}|~{3,})[ \t]*", re.DOTALL)
# python, py, Python3, python3.11.2, pypy3, ipython, {python}, {.python}, lang=python,
# python_code, main.py
_PYTHON = re.compile(
    r"(?:lang(?:uage)?=)?[\"'{.]{0,3}"
    r"(?:[ic]?py(?:thon|py|py3)?[ -]?[0-9.]{0,8}(?:_code)?|[\w/-]{1,60}\.py)"
    r"[\"'}]{0,2}",
    re.IGNORECASE,
)
# Labels that say no language.
_CODE = re.compile(r"code|program|solution", re.IGNORECASE)
_MARKDOWN = re.compile(r"markdown|md", re.IGNORECASE)
# Lines around a program without a fence, or within one that has no label.
_WRAPPER = re.compile(
    r"\s*(?:(?:</?(?:code|pre|python|answer|solution|program)>\s*)+|\[/?(?:PYTHON|CODE)\]"
    r"|(?:\"{3}|'{3})python|'{3}|\"{3})\s*",
    re.IGNORECASE,
)
_LABEL_LINE = re.compile(r"\s*(?:python|py)[0-9.]{0,5}:?\s*", re.IGNORECASE)
_MARKER = re.compile(r"(?:[\s>*+-]|(?<![0-9])[0-9]{1,3}[.)])*")
_LIKE_CODE = re.compile(
    r"(?:import|from|def|class|if|for|while|try:|with|print\(|@|#|[A-Za-z_][\w, ]*=)"
)
# What prose behind a program does not begin with: then the program was cut off.
_CODE_LINE = re.compile(
    rf"{_LIKE_CODE.pattern}|[ \t]+(?![ \t]|[-*+•][ \t]|[0-9]{{1,3}}[.)])|[)\]}}\"'@]"
    r"|(?:return|elif|else|except|finally|async|raise|assert|yield|pass|break|continue"
    r"|del|global|nonlocal|match|case)\b|[A-Za-z_][\w.\[\]]*(?:\(|\s?[-+*/|&%^]?=)"
)
# What it does begin with: a capital, or a letter of another script.
_PROSE_LINE = re.compile(
    r"(?:[ >*_`-]|[0-9]{1,3}[.)]|#{2,6}\s){0,8}(?:[A-Z]|[^\W_a-z0-9])"
)
_HEADING = re.compile(r"#{2,6}\s")
_DOES = (
    ast.Call,
    ast.Import,
    ast.ImportFrom,
    ast.FunctionDef,
    ast.ClassDef,
    ast.Assign,
)


@dataclass
class _Block:
    """A fenced block: what opened it, and its lines so far."""

    fence: str
    indent: str
    label: str
    lines: list[str]
    closed: bool = False

    def without_indent(self, line: str) -> str:
        """A line without what stands before each; blank ones of a quote have less."""
        if line.startswith(self.indent):
            return line.removeprefix(self.indent)
        return line.removeprefix(self.indent.rstrip())

    @property
    def program(self) -> str:
        lines = self.lines
        if self.is_plain and _LABEL_LINE.fullmatch(lines[0]):
            lines = lines[1:]  # a label that came below its fence
        return "\n".join(lines) + "\n"

    @property
    def is_plain(self) -> bool:
        return not self.label or bool(_CODE.fullmatch(self.label))

    @property
    def is_python(self) -> bool:
        first = re.split(r"[\s,:]", self.label.strip("{} "))[0]
        return bool(_PYTHON.fullmatch(first))


def program_of(text: str) -> str | None:
    """The program of an answer; None for none.

    The last closed block labelled Python, else the last such block that never closes,
    else the last block without a label that is Python, else the last one, closed or
    not: beside a program, blocks without one show what it prints. A labelled fence
    always opens a block: one of the same length that is open then was never closed.
    Without any block, it is the text less tags and prose around it, where that is
    Python that does something: no part of a program that was cut off. Blanks before
    the opening fence are taken off each line.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\ufeff", "")
    blocks = [block for block in _blocks(text) if any(map(str.strip, block.lines))]
    if len(blocks) == 1 and not blocks[0].closed and not blocks[0].label:
        # A fence alone may as well close what stands before it.
        before = _bare_program(text[: text.index(blocks[0].fence)])
        if before is not None:
            return before
    python = [block for block in blocks if block.is_python]
    plain = [block for block in blocks if block.is_plain]
    running = [b for b in plain[-_TRIED:] if _does_something(b.program[:_LONGEST_BARE])]
    for kind in (python, running, plain):
        for closed in (True, False):
            found = [block for block in kind if block.closed == closed]
            if found:
                return found[-1].program
    pages = [block for block in blocks if _MARKDOWN.fullmatch(block.label)]
    if pages and len(pages[-1].fence) > 3:
        return program_of(pages[-1].program)
    return None if blocks else _bare_program(text)


def _blocks(text: str) -> list[_Block]:
    """The fenced blocks in their order."""
    blocks: list[_Block] = []
    block: _Block | None = None
    for line in text.split("\n"):
        if block is not None:
            ending = _CLOSES.fullmatch(line)
            if ending and _same_kind(ending["fence"], block.fence):
                code = block.without_indent(ending["code"])
                if code.strip():
                    block.lines.append(code)
                block.closed, block = True, None
                continue
        fence = _opening(line, block)
        if fence is not None:
            block = _Block(
                fence["fence"], _indent(fence["before"]), fence["label"].strip(), []
            )
            blocks.append(block)
        elif block is not None:
            block.lines.append(block.without_indent(line))
    return blocks


def _opening(line: str, block: _Block | None) -> re.Match[str] | None:
    """The fence that a line opens, whatever `block` is open."""
    found = _OPENS.fullmatch(line)
    if found is None:
        return None
    label, before = found["label"].strip(), found["before"]
    if block is not None:  # only one that was never closed makes way
        again = _same_kind(found["fence"], block.fence) and not before.strip()
        return found if again and label else None
    if _MARKER.fullmatch(before) or before.rstrip(" *_").endswith(":"):
        return found
    python = label and _PYTHON.fullmatch(label.split()[0])
    return found if python else None


def _same_kind(fence: str, opening: str) -> bool:
    return fence[0] == opening[0] and len(fence) >= len(opening)


def _indent(before: str) -> str:
    """What is taken off each line: the fence's own blanks, a list's, a quote's."""
    if ">" in before and _MARKER.fullmatch(before):
        return re.sub(r"[^>\s]", " ", before)  # an item's mark is on one line alone
    if before.strip():
        return " " * len(before) if _MARKER.fullmatch(before) else ""
    return before


def _bare_program(text: str) -> str | None:
    """A program without a fence, or with a closing one alone."""
    lines = [line for line in text.split("\n") if not _is_fence(line)]
    bare = [line for line in lines if not _WRAPPER.fullmatch(line)]
    return _first_program(lines) or (_first_program(bare) if bare != lines else None)


def _first_program(lines: list[str]) -> str | None:
    """The first lines that are a program, with none behind them but prose."""
    text = "\n".join(lines).strip("\n")
    if not text.strip() or len(text) > _LONGEST_BARE:
        return None
    lines = text.split("\n")
    if _LABEL_LINE.fullmatch(lines[0]):
        del lines[0]
    starts = [i for i, line in enumerate(lines) if _LIKE_CODE.match(line)]
    for start in [0, *starts][: 1 + _TRIED]:
        for end in _ends(lines, start):
            program = "\n".join(lines[start:end]) + "\n"
            if _does_something(program):
                return program
    return None


def _ends(lines: list[str], start: int) -> list[int]:
    """Where a program that begins here may end: at the end, or where prose begins.

    That is at a blank line before the first line that is no Python, with no line of
    code behind it: one that was cut off is not run up to its cut.
    """
    broken = _broken_line("\n".join(lines[start:]))
    if broken is None:
        return [len(lines)]
    ends, prose = [], False
    for i in range(len(lines) - 1, start, -1):
        if not lines[i].strip():
            if prose and i < start + broken:
                ends.append(i)
            continue
        if _CODE_LINE.match(lines[i]) and not _HEADING.match(lines[i]):
            break
        prose = bool(_PROSE_LINE.match(lines[i]))
    return ends[: -_ENDS - 1 : -1]


def _is_fence(line: str) -> bool:
    return bool(re.fullmatch(r"\s*(?:`{3,}|~{3,})\s*", line))


def _does_something(program: str) -> bool:
    """Whether this is Python, and more than a word or a number."""
    try:
        tree = ast.parse(program)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return any(isinstance(node, _DOES) for node in ast.walk(tree))


def _broken_line(program: str) -> int | None:
    """The line, from 1, at which this is no Python; None where it is."""
    try:
        ast.parse(program)
    except SyntaxError as error:
        return error.lineno or 1
    except (ValueError, RecursionError, MemoryError):
        return 1
    return None
