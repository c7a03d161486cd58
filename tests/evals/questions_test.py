"""Files of problems: what is read, and what every error says."""

import csv
import hashlib
import importlib.util
import json
import re

import pytest

from jaxmoe.evals.questions import (
    BadRowsWarning,
    digest,
    read_questions,
    template_of,
)
from jaxmoe.evals.tasks import task

AIME = task("aime")


@pytest.fixture
def file(tmp_path):
    """A function that writes a file of text, or bytes, and gives its path."""

    def write(content, name="p.jsonl"):
        path = tmp_path / name
        data = content if isinstance(content, bytes) else content.encode()
        path.write_bytes(data)
        return path

    return write


def _lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def _row(**row):
    return {"problem": "p", "answer": 1, **row}


def test_rows_become_questions(file):
    """Rows would be lost, or stand in another order."""
    path = file(_lines(_row(id="x", problem="one"), _row(id=7), _row(answer="073")))
    questions = read_questions(path, AIME)
    assert [q.id for q in questions] == ["x", "7", "line-3"]
    assert [q.answer for q in questions] == [1, 1, 73]
    assert questions[0].prompt.startswith("one")


def test_blank_lines_and_other_line_ends(file):
    """A file of another system, or one with a gap, would be refused."""
    row = _lines(_row()).encode()
    text = b"\xef\xbb\xbf" + row + b"\r\n  \n" + row.strip() + b"\r\n" + row.strip()
    ids = [q.id for q in read_questions(file(text), AIME)]
    assert ids == ["line-1", "line-4", "line-5"]


def test_a_line_separator_in_a_text_ends_no_line(file):
    """str.splitlines would cut the row in two."""
    text = json.dumps(_row(problem="a\u2028b\x85c"), ensure_ascii=False)
    (question,) = read_questions(file(text), AIME)
    assert question.prompt.startswith("a\u2028b\x85c\n")


def test_options_reach_the_task(file):
    """A run would be of other prompts than its manifest says."""
    row = {"question": "q", "choices": list("wxyz"), "answer": 0}
    path = file(_lines(*[row] * 20))
    options = {"template": "{question}: {choices}"}
    a, b = (read_questions(path, task("gpqa"), seed=s, **options) for s in (0, 1))
    assert a == read_questions(path, task("gpqa"), seed=0, **options)
    assert a != b
    assert a[0].prompt.startswith("q: A) ")


def test_limit_reads_no_further(file):
    """A quick look would have to read, and refuse, all of a large file."""
    path = file(_lines(_row(), _row(), _row()) + "broken")
    assert len(read_questions(path, AIME, limit=2)) == 2
    with pytest.raises(ValueError, match="limit must be at least 1, found 0"):
        read_questions(path, AIME, limit=0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"p\.jsonl: .*found an empty file.*problem"),
        ("\n \n", "found an empty file"),
        (_lines(_row()) + '{"a": 1,,}\n', r"p\.jsonl, line 2, column 9: "),
        ('\n{"a"', "line 2, column 5: expected a JSON object"),
        ("[1]", r"line 1: expected a JSON object, found \[1\]"),
        ('{"a": ' + "9" * 5000 + "}", "line 1: .*does not read"),
        ("[" * 200_000, "line 1: .*does not read"),
        (_lines(_row(problem="\ud800")), "line 1: expected Unicode"),
        (b'{"a": "\xff"}', "line 1: expected UTF-8, found .* at byte 8"),
        (_lines(_row(id="x"), _row(), _row(id="x")), 'line 3: .*"x" as on line 1'),
        (_lines(_row(id=7), _row(id="7")), "line 2: .* as on line 1"),
        (_lines(_row(id=True)), 'line 1: .*the field "id", found True'),
        (_lines(_row(id=" ")), 'line 1: .*the field "id"'),
        (_lines({"answer": 1}), r'line 1: .*field "problem".* found "answer"'),
        (_lines({"answer": 1}), r'aime reads the fields "problem" \(.*"answer" \('),
        (_lines(_row(answer=1000)), "line 1: .*from 0 to 999 .*found 1000"),
    ],
)
def test_what_is_wrong_and_where(file, content, message):
    """One bad row of thousands would have to be looked for by hand."""
    with pytest.raises(ValueError, match=message):
        read_questions(file(content), AIME)


def test_digest_is_of_the_bytes(file):
    """A changed file would pass for the one of the run."""
    path = file(b"a\r\n")
    assert digest(path) == hashlib.sha256(b"a\r\n").hexdigest()


def test_a_template_keeps_its_braces(file):
    r"""\boxed{} would have to be escaped, or be lost."""
    path = file("Solve {problem} in \\boxed{}.\n\n")
    template = template_of(path, AIME)
    assert template == r"Solve {problem} in \boxed{}."
    row = file(_lines(_row()), "rows.jsonl")
    (question,) = read_questions(row, AIME, template=template)
    assert question.prompt == r"Solve p in \boxed{}."


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Solve this.", r"template with {problem}, found 'no name in braces'"),
        ("{Problem} {answer}", "found '{Problem}, {answer}'"),
        (b"\xff{problem}", "expected UTF-8"),
    ],
)
def test_a_template_without_the_problem_is_refused(file, content, message):
    """The model would be asked one thing a thousand times."""
    with pytest.raises(ValueError, match=message):
        template_of(file(content), AIME)


def test_a_template_that_lacks_choices_is_refused(file):
    """One of two fields would pass for both."""
    row = {"question": "q", "choices": ["x", "y"], "answer": 0}
    with pytest.raises(ValueError, match="line 1: .*none of {choices}"):
        read_questions(file(_lines(row)), task("mcq"), template="{question}")


# -- published files -----------------------------------------------------------------

ROWS = [
    ("aime", {"ID": "2024-I-1", "Problem": "p", "Solution": "s", "Answer": 204}, 204),
    ("aime", {"question": "p", "answer": "070"}, 70),
    ("aime", {"id": 60, "problem": "p", "answer": 27.0}, 27),
    ("math", {"problem": "p", "answer": "5", "unique_id": "test/1.json"}, "$5$"),
    ("math", {"question": "q", "answer": "so it is\n#### 72"}, "$72$"),
    ("exact", {"question": "q", "answer": "so it is\n#### 72"}, ("72",)),
    (
        "mcq",
        {"question": "q", "options": ["a", "b"], "answer": "B", "answer_index": 1},
        1,
    ),
    (
        "mcq",
        {
            "question": "q",
            "choices": {"text": ["a", "b"], "label": ["1", "2"]},
            "answerKey": "2",
        },
        1,
    ),
    ("mcq", {"question": "q", "choices": ["a", "b"], "answer": 1}, 1),
    ("mcq", {"Question": "q", "A": "x", "B": "y", "C": "z", "Answer": "C"}, 2),
    ("aime", {"ID": "1983-1", "Year": 1983, "Question": "p", "Answer": "60"}, 60),
    (
        "gpqa",
        {
            "Question": "q",
            "Correct Answer": "a",
            "Incorrect Answer 1": "b",
            "Incorrect Answer 2": "c",
            "Incorrect Answer 3": "d",
            "Record ID": "rec1",
        },
        0,
    ),
]


@pytest.mark.parametrize(("name", "row", "answer"), ROWS)
@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_published_columns(name, row, answer, kind, tmp_path):
    """Every data set would have to be rewritten first."""
    if name == "math":
        pytest.importorskip("math_verify")
    path = tmp_path / f"rows.{kind}"
    if kind == "csv":
        if isinstance(row.get("choices"), dict) or type(row.get("answer")) is int:
            pytest.skip("this data set is not published as CSV")
        with path.open("w", newline="", encoding="utf-8-sig") as file:
            writer = csv.DictWriter(file, row)
            writer.writeheader()
            texts = {
                k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()
            }
            writer.writerow(texts)
    else:
        path.write_text(json.dumps(row) + "\n")
    (question,) = read_questions(path, task(name))
    assert question.answer == answer


ABC = ["a", "it's", "c"]
LABELLED = {"text": ABC, "label": [1, 2, 3]}
CELLS = [
    ("mcq", {"question": "q", "choices": repr(ABC), "answer": 1}, 1),
    ("mcq", {"question": "q", "choices": json.dumps(ABC), "answer": 1.0}, 1),
    ("mcq", {"question": "q", "choices": json.dumps(ABC), "answer_index": "1.0"}, 1),
    ("mcq", {"question": "q", "options": repr(ABC), "answer_index": "1"}, 1),
    ("mcq", {"question": "q", "options": ABC, "answer_index": 1.0}, 1),
    ("mcq", {"question": "q", "choices": repr(LABELLED), "answerKey": "2.0"}, 1),
    ("mcq", {"question": "q", "choices": LABELLED, "answerKey": 2}, 1),
    ("mcq", {"question": "q", "choices": ["1", "2", "3"], "answer": "2"}, 1),
    (
        "mcq",
        {"question": "q", "options": "['a' \"it's\"\n 'c']", "answer_index": "1"},
        1,
    ),
    (
        "mcq",
        {
            "question": "q",
            "choices": "{'text': array(['a', '(b])'], dtype=object), "
            "'label': array(['A', 'B'], dtype=object)}",
            "answerKey": "B",
        },
        1,
    ),
    (
        "mcq",
        {
            "question": {
                "stem": "q",
                "choices": [{"text": "a", "label": "A"}, {"text": "b", "label": "B"}],
            },
            "answerKey": "B",
        },
        1,
    ),
    ("aime", {"problem": None, "Problem": "p", "answer": None, "Answer": 1.0}, 1),
]


@pytest.mark.parametrize(("name", "row", "answer"), CELLS)
def test_values_as_tables_write_them(name, row, answer):
    """Saved by pandas, a list is Python's text, and an index a float."""
    question = task(name).question(row, id="1", seed=0, template=None)
    assert question.answer == answer


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ({"question": "q", "choices": ["a", "a"], "answer": 0}, "'a' twice"),
        ({"question": "q", "options": ABC, "answer_index": "²"}, "none of them"),
        ({"question": "q", "choices": "[" * 9999, "answer": "0"}, "2 to 26 texts"),
        ({"question": "q", "choices": "['a', f('b')]", "answer": "0"}, "2 to 26 texts"),
        (
            {
                "question": "q",
                "answerKey": "1",
                "choices": LABELLED | {"label": [1] * 3},
            },
            "labels",
        ),
        (
            {"question": "q", "options": ["a", "b"], "answer": "A", "answer_index": 1},
            "A",
        ),
        (
            {"question": "q", "choices": {"text": ["a", "b"]}, "answerKey": "A"},
            "labels",
        ),
    ],
)
def test_choices_that_are_refused(row, found, tmp_path):
    """The right one could not be told from the others."""
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps(row))
    with pytest.raises(ValueError, match=found):
        read_questions(path, task("mcq"))


BAD = [
    "{",
    "[]",
    '{"answer": 1}',
    '{"problem": "p", "answer": NaN}',
    '{"a": 1, "a": 2}',
]
GOOD = '{"problem": "p", "answer": 1}'


def test_all_bad_rows_are_listed(tmp_path):
    """A file would be mended line by line, a run at a time."""
    path = tmp_path / "q.jsonl"
    path.write_text("\n".join([GOOD, *BAD, GOOD]))
    with pytest.raises(ValueError) as caught:
        read_questions(path, task("aime"))
    lines = str(caught.value).splitlines()
    places = [re.match(r"  line (\d+)", line) for line in lines[1:]]
    assert [place[1] for place in places if place] == ["2", "3", "4", "5", "6"]
    assert "5 bad" in lines[0] and "2 good" in lines[0]


def test_bad_rows_can_be_left_out(tmp_path):
    """One bad row would be a bad file."""
    path = tmp_path / "q.jsonl"
    path.write_text("\n".join([GOOD, *BAD, GOOD]))
    with pytest.warns(BadRowsWarning, match="5 bad rows"):
        found = read_questions(path, task("aime"), skip_bad_rows=True)
    assert [question.id for question in found] == ["line-1", "line-7"]
    path.write_text("\n".join(BAD))
    with pytest.raises(ValueError, match="0 good"):
        read_questions(path, task("aime"), skip_bad_rows=True)


def test_nothing_is_read_beyond_the_limit(tmp_path):
    """The first problem of a file of gigabytes would take all of its memory."""
    path = tmp_path / "q.jsonl"
    path.write_text(f"{GOOD}\nnot read\n")
    assert len(read_questions(path, task("aime"), limit=1)) == 1


def test_errors_do_not_move_the_terminal(tmp_path):
    """A row could clear the screen, or worse."""
    path = tmp_path / "q.jsonl"
    for text in ("\x1b[2J", '{"\\u001b[2J": 1}', '{"id": "\\u001b", "problem": 1}'):
        path.write_text(text)
        with pytest.raises(ValueError) as caught:
            read_questions(path, task("aime"))
        assert "\x1b" not in str(caught.value)


def test_parquet_needs_a_library(tmp_path, monkeypatch):
    """A user would see that some module is missing, and not what to do."""
    path = tmp_path / "q.parquet"
    path.write_bytes(b"PAR1")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install pyarrow"):
        read_questions(path, task("aime"))


def test_parquet(tmp_path):
    """Most data sets are published so."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "q.parquet"
    rows = [{"question": "q", "options": ["a", "b"], "answer_index": 1, "answer": "B"}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    (question,) = read_questions(path, task("mcq"))
    assert (question.answer, question.id) == (1, "row-1")
    path.write_bytes(b"no parquet")
    with pytest.raises(ValueError, match="Parquet"):
        read_questions(path, task("mcq"))
