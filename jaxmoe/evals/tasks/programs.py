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

_STARTS = 10
"""Lines at which a program without a fence may begin, that are tried."""

_OPENS = re.compile(
    r"(?P<before>.*?)(?P<fence>`{3,}|~{3,})[ \t]*(?P<label>[^`~]*)", re.DOTALL
)
_CLOSES = re.compile(r"(?P<code>.*?)(?P<fence>`{3,}|~{3,})[ \t]*", re.DOTALL)
# python, py, Python3, python3.11, pypy3, ipython, {python}, {.python}, lang=python
_PYTHON = re.compile(
    r"(?:lang(?:uage)?=)?[\"'{.]{0,3}"
    r"[ic]?py(?:thon|py|py3)?[ -]?[0-9.]{0,5}[\"'}]{0,2}",
    re.IGNORECASE,
)
_MARKER = re.compile(r"(?:[\s>*+-]|(?<![0-9])[0-9]{1,3}[.)])*")
_LIKE_CODE = re.compile(
    r"(?:import|from|def|class|if|for|while|try:|with|print\(|@|#|[A-Za-z_][\w, ]*=)"
)
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
        return "\n".join(self.lines) + "\n"

    @property
    def is_python(self) -> bool:
        first = self.label.split()[0] if self.label.split() else ""
        return bool(_PYTHON.fullmatch(first.split(",")[0].split(":")[0]))


def program_of(text: str) -> str | None:
    """The program of an answer; None for none.

    The last closed block labelled Python, else the last such block that never closes,
    else the last block without a label, closed or not: beside a program, blocks without
    one show what it prints. A labelled fence always opens a block: one of the same
    length that is open then was never closed. Without any block, it is the text, or
    what follows a few lines of prose, as far as it is Python that does something.
    Blanks before the opening fence are taken off each line.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    blocks = [block for block in _blocks(text) if any(map(str.strip, block.lines))]
    if len(blocks) == 1 and not blocks[0].closed and not blocks[0].label:
        # A fence alone may as well close what stands before it.
        before = _bare_program(text[: text.index(blocks[0].fence)])
        if before is not None:
            return before
    python = [block for block in blocks if block.is_python]
    plain = [block for block in blocks if not block.label]
    for kind in (python, plain):
        for closed in (True, False):
            found = [block for block in kind if block.closed == closed]
            if found:
                return found[-1].program
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
    text = "\n".join(line for line in text.split("\n") if not _is_fence(line))
    if not text.strip() or len(text) > _LONGEST_BARE:
        return None
    lines = text.strip("\n").split("\n")
    starts = [i for i, line in enumerate(lines) if _LIKE_CODE.match(line)]
    for start in [0, *starts][: 1 + _STARTS]:
        program = "\n".join(lines[start:]) + "\n"
        if _does_something(program):
            return program
    return None


def _is_fence(line: str) -> bool:
    return bool(re.fullmatch(r"\s*(?:`{3,}|~{3,})\s*", line))


def _does_something(program: str) -> bool:
    """Whether this is Python, and more than a word or a number."""
    try:
        tree = ast.parse(program)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return any(isinstance(node, _DOES) for node in ast.walk(tree))
