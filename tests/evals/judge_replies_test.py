"""Scores in judges' replies, as endpoints give them."""

import time

import pytest

from jaxmoe.evals.judge_replies import content_of, score_in

REPLIES = [
    ("Score: 7", 7),
    ("score:7", 7),
    ("SCORE = 7", 7),
    ("Score: 0", 0),
    ("Score: 10", 10),
    ("Score: 7.", 7),
    ("Score: 8.5.", 8.5),
    ("Score:\n7", 7),
    ("**Score: 7**", 7),
    ("**Score**: 7", 7),
    ("### Score: 7", 7),
    ("- Score: 7", 7),
    ("Score: **7**", 7),
    ("Score: `7`", 7),
    ("Score: $7$", 7),
    (r"Score: $\boxed{7}$", 7),
    (r"Score: \text{7}", 7),
    ("Score: [7]", 7),
    ("Score: <7>", 7),
    ("Score: < 7 >", 7),
    ("Score: <7", None),
    ("Score: 7 ± 1", None),
    (r"Score: $7 \pm 1$", None),
    ("Score: 7+/-1", None),
    ("<score>7</score>", 7),
    ("| Score | 7 |", 7),
    ("Score: (7)", 7),
    ("Score: 7/10", 7),
    ("Score: 7 / 10", 7),
    ("Score: **7**/10", 7),
    ("Score: 7 out of 10", 7),
    ("Score (0-10): 7", 7),
    ("Score - 7", 7),
    ("Score — 7", 7),
    ("Score → 7", 7),
    ("I give it a score of 7.", 7),
    ("The final score is 7.", 7),
    ("Overall score: 7", 7),
    ('{"score": 7}', 7),
    ('```json\n{"score": "7"}\n```', 7),
    ("{'score': 7.5, 'why': 'x'}", 7.5),
    ("7", 7),
    ("**7**", 7),
    ("7/10", 7),
    ("Score: 3\nno, wait\nScore: 9", 9),
    ("Score: 9\n(a score of 0 is certainly wrong)", 9),
    ("Score: 9\nwhere a score of 0 is wrong", 9),
    ("<think>Score: 2</think>Score: 9", 9),
    ("<think>Score: 2", None),
    ("", None),
    ("good", None),
    ("Score: high", None),
    ("Score: 11", None),
    ("Score: 85", None),
    ("Score: 85%", None),
    ("Score: -1", None),
    ("Score: 70/100", None),
    ("Score: 4/5", None),
    ("Score: 4 out of 5", None),
    ("Score: 7-8", None),
    ("Score: 7 or 8", None),
    ("Score: 7 to 8", None),
    ("Score: 7,5", None),
    ("Score: 1e1", None),
    ("Score: nan", None),
    ("Score: ７", None),
    ("Score: " + "9" * 400, None),
    ("7 or 8", None),
    ("Score: 8 — 3 mistakes", 8),
    ("Score: 8 - 3 small errors", 8),
    ("Score: **8** – 2 steps lack a reason", 8),
    ("Score: 8\n- 3 errors were found", 8),
    ("Score: 8\n\n- 3. is wrong", 8),
    ("Score: 8\nOf 5 steps, 4 are right", 8),
    ("Score: 7 - 8", None),
    ("Score: 7 – 8 points", None),
    ("Score: 7-8 in all", None),
    ("Score: 7 — 8.", None),
    ("| Task | Score | Why |\n|---|:-:|---|\n| 1 | **8** | 2 slips |", 8),
    ("| Score |\n|-------|\n| 8/10 |\n", 8),
    ("|Score|Max|\n|---|---|\n|8|10|\n\nGood.", 8),
    ("| Part | Score |\n|---|---|\n| a | 8 |\n| b | 3 |", None),
    ("| Part | Score |\n|---|---|\n| a | 8 |\n| **Total** | 5 |", 5),
    ("| Score |\n|---|\n| 8/100 |", None),
    ("| Score |\n|---|\n| 7-8 |", None),
    ("underscore: 7", None),
    ("Score -> 7", 7),
    ("Score：7", 7),
    ("__Score__: 7", 7),
    ("Score [0-10]: 7", 7),
    ("Score: ⭐ 7", 7),
    ("Score: “7”", 7),
    (r"Score: \(7\)", 7),
    (r"\boxed{7}", 7),
    ("Score: .5", 0.5),
    ("Score: 7pts", 7),
    ("Score: 7points", 7),
    ("Score: 0x7", None),
    ("Score: 7th", None),
    ("Score: 7 ‰", None),
    ("Score: 7 percent", None),
    ("Score: 7/10/2024", None),
    ("Score: 7/ten", None),
    (r"Score: \frac{7}{10}", None),
    (r"Score: \sqrt{7}", None),
    ("score_1: 7", None),
]


@pytest.mark.parametrize(("reply", "score"), REPLIES)
def test_score_in(reply, score):
    """An answer would be ranked by a number that the judge never gave."""
    assert score_in(reply) == score


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("hi", "hi"),
        (None, ""),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab"),
        ([{"type": "image"}], ""),
        ([{"type": "reasoning", "text": "a"}, {"type": "text", "text": "b"}], "b"),
        ([{"type": "output_text", "text": "a"}, {"text": "b"}], "ab"),
        ([], ""),
        (7, None),
        ({}, None),
    ],
)
def test_content_of(content, text):
    """Parts would be no completion, or something else would be one."""
    assert content_of({"choices": [{"message": {"content": content}}]}) == text


@pytest.mark.parametrize(
    "body", [None, [], {}, {"choices": []}, {"choices": [{"text": "7"}]}]
)
def test_what_is_no_completion(body):
    """An error page would be read as an empty reply."""
    assert content_of(body) is None


@pytest.mark.parametrize(
    "piece", ["score", "score ", " ", "(a", "score: 7 (", "|-", "|\n", "|score|\n|-|\n"]
)
def test_takes_linear_time(piece):
    """A reply of a megabyte would hold up a run."""
    start = time.perf_counter()
    score_in(piece * (300_000 // len(piece)))
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(("length", "score"), [(1 << 20, 7), (1 << 24, None)])
def test_replies_have_a_length(length, score):
    """One that repeats itself for megabytes would take a minute to search."""
    assert score_in("Score: 7".rjust(length)) == score
