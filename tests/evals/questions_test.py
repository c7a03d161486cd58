"""Files of problems: what is read, and what every error says."""

import hashlib
import json

import pytest

from jaxmoe.evals.questions import digest, read_questions, template_of
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
