"""Texts to measure, from files of JSON lines."""

import json

from jaxmoe.analysis.texts import read_rows


def test_line_separators_within_texts(tmp_path):
    """A text with U+2028 would be cut in two lines, and refused."""
    path = tmp_path / "data.jsonl"
    row = json.dumps({"prompt": "a\u2028b", "text": "c"}, ensure_ascii=False)
    path.write_bytes(b"\xef\xbb\xbf" + row.encode() + b"\r\n")
    (found,) = read_rows(path)
    assert (found.prompt, found.answers) == ("a\u2028b", ("c",))


def test_rows_hold_prompts_and_answers(tmp_path):
    """An answer would be taken for a prompt, or blank lines for rows."""
    path = tmp_path / "data.jsonl"
    path.write_text(
        '{"prompt": "a", "answer": "b", "text": [1, 2]}\n\n{"prompt": [3]}\n', "utf-8"
    )
    first, second = read_rows(path)
    assert (first.prompt, first.answers) == ("a", ("b", [1, 2]))
    assert (second.prompt, second.answers, second.chat) == ([3], (), None)
    assert second.name == f"{path}, line 3"
