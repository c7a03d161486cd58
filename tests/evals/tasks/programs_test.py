"""Programs in answers, with fences of every kind and without."""

import ast
import time

import pytest

from jaxmoe.evals.tasks.programs import program_of

ANSWERS = [
    ("```Python3\nx=1\n```", "x=1\n"),
    ("```python3.11\nx=1\n```", "x=1\n"),
    ("```PyPy3\nx=1\n```", "x=1\n"),
    ("```{python}\nx=1\n```", "x=1\n"),
    ("```python title=a.py\nx=1\n```", "x=1\n"),
    ("```py\nx=1\n", "x=1\n\n"),
    ("Here: ```py\nx=1\n```", "x=1\n"),
    ("- ```python\n  x=1\n  ```", "x=1\n"),
    ("> ```python\n> if x:\n>\n>     y=1\n> ```", "if x:\n\n    y=1\n"),
    (">```python\n>x=1\n>```", "x=1\n"),
    ("- > ```python\n  > if x:\n  >\n  >     y=1\n  > ```", "if x:\n\n    y=1\n"),
    ("12. > ```python\n    > x=1\n    > ```", "x=1\n"),
    ("> - ```python\n>   x=1\n>   ```", "x=1\n"),
    ("~~~~python\n~~~\nx=1\n~~~~", "~~~\nx=1\n"),
    ("```python\nx=1```", "x=1\n"),
    ("import sys\nprint(1)", "import sys\nprint(1)\n"),
    ("Here is the code:\n\nprint(1)\n", "print(1)\n"),
    ("```\nprint(1)\n```", "print(1)\n"),
    ("```cpp\nint x;\n```", None),
    ("```python\nx=1\n```\n```text\n5\n```", "x=1\n"),
    ("```python\nx=1\n```\n```python\nx=2\n", "x=1\n"),
    ("```python\r\nx=1\r\n```", "x=1\n"),
    ("I cannot do it.", None),
    ("**Code** ```python\nx=1\n```", "x=1\n"),
    ("```pycon\n>>> 1\n```", None),
    ("x=1\nprint(x)\n```\nThis prints one.", "x=1\nprint(x)\n"),
    ("```python3.10.2\nx=1\n```", "x=1\n"),
    ("```{ .python }\nx=1\n```", "x=1\n"),
    ("```main.py\nx=1\n```", "x=1\n"),
    ("```code\nx=1\n```", "x=1\n"),
    ("```\nx=1\n```\nInput:\n```\n2 3\n```\nOutput:\n```\n5\n```", "x=1\n"),
    ("```\nx=1\n```\n```\nx=2\n```", "x=2\n"),
    ("```\nx = (\n```\n```\n5\n```", "5\n"),
    ("```\npython\nx=1\n```", "x=1\n"),
    ("````markdown\n```python\nx=1\n```\n````", "x=1\n"),
    ("```python\n\ufeffx=1\n```", "x=1\n"),
    ("Sure.\n\nx=1\n\ny=2\n\nIt sets two.", "x=1\n\ny=2\n"),
    ("x=1\n\n### Explanation\n\nIt sets:\n\n- x\n  - y\n1. z", "x=1\n"),
    ("x=1\n\nExplanation\n\n**It** sets one.", "x=1\n"),
    ("x=1\n\n说明：设为一。", "x=1\n"),
    ("import os\nx=1\n\nfor i in (1, 2):\n    print(i)\n\nwhile x:\n    y = (", None),
    ("import os\nx=1\n\ndef f():\n    return x\n\n    y = (", None),
    ("x=1\n\nprint(x", None),
    ("x=1\n\n[i for i in (", None),
    ('x=1\n\n"""Solve the', None),
    ("<answer>\nx=1\n</answer>", "x=1\n"),
    ("[PYTHON]\nx=1\n[/PYTHON]", "x=1\n"),
    ("<pre><code>\nx=1\n</code></pre>", "x=1\n"),
    ("python\nx=1", "x=1\n"),
    ('"""\nSets one.\n"""\nx=1', '"""\nSets one.\n"""\nx=1\n'),
    ("'''python\nx=1\n'''", "x=1\n"),
]


@pytest.mark.parametrize(("text", "program"), ANSWERS)
def test_program_of(text, program):
    """Another block, or prose, would be run."""
    assert program_of(text) == program


@pytest.mark.parametrize(
    "behind", ["It sets two.\n\n", "x = (\n\n", "    y\n\n", "Note\n\n"]
)
@pytest.mark.parametrize("line", ["x = 1\n\n", "x = [1, 2, 3]\n", "from a import b\n"])
def test_parses_few_times(line, behind, monkeypatch):
    """An answer without a fence would be parsed two hundred times."""
    calls, parse = [], ast.parse
    monkeypatch.setattr(ast, "parse", lambda *of: calls.append(of) or parse(*of))
    program_of("<answer>\n" + line * 30 + "y = (\n\n" + behind * 30)
    assert 0 < len(calls) <= 60


@pytest.mark.parametrize(
    "piece", ["```\n", "```python\n", "x = (", "-", "~~~ a\n", "``` "]
)
def test_takes_linear_time(piece):
    """An answer of a megabyte would hold up a run."""
    start = time.perf_counter()
    program_of(piece * (300_000 // len(piece)))
    assert time.perf_counter() - start < 10
