"""Letters of choices in answers, with the place that a person would read."""

import time

import pytest

from jaxmoe.evals.tasks.letters import flexible_choice, strict_choice

CHOICES = ["red fish", "blue sky", "a green leaf", "12 km"]
ANSWERS = [
    ("Answer: B/C", None),
    ("Answer: B, C", None),
    ("Answer: either B or C", None),
    ("Both A and B", None),
    ("Answer: A, B and C", None),
    ("Answer: A, B or D", None),
    ("Answer: <B>", 1),
    ("Answer:\nB", 1),
    ("**Answer:**\n\nB", 1),
    ("Answer:\nA circle has no corners", None),
    ("Answer: \\[B\\]", 1),
    ("【答案】B", 1),
    ("答案：【B】", 1),
    ("I do not think A is correct", None),
    ("I doubt that A is correct", None),
    ("If A is correct, all are", None),
    ("I don't believe the answer is A", None),
    ("It is not easy, but the answer is B", 1),
    ("Answer: B and D", None),
    ("The answer is B or C", None),
    ("B or C", None),
    ("I think A or B", None),
    ("Because A", None),
    ("Since B", None),
    ("It is not A", None),
    ("Answer: A, because", 0),
    ("Answer: A because it is", None),
    ("Answer: B (or C)", None),
    ("(A) or (B)", None),
    ("\\boxed{A} or \\boxed{B}", None),
    ("\\boxed{A}, \\boxed{B}", None),
    ("\\boxed{A} and then \\boxed{B}", 1),
    ("\\boxed{\\mathsf{B}}", 1),
    ("\\boxed{\\color{red}{B}}", 1),
    ("\\boxed{{\\bf B}}", 1),
    ("\\boxed{\\large\\textbf{B}}", 1),
    ("\\boxed{[B]}", 1),
    ("\\boxed{**B**}", 1),
    ("\\boxed{\\textbf{B. blue sky}}", 1),
    ("\\boxed{\\text{Choice B}}", 1),
    ("\\boxed{\\underline{B}}", 1),
    ("Final Answer: (B)", 1),
    ("<b>Answer: B</b>", 1),
    ("Answer: <b>B</b>", 1),
    ("**Answer**\nB", 1),
    ("Answer\n\nB", 1),
    ("## Answer\n\n**B**", 1),
    ("La respuesta es B", 1),
    ("La réponse est B.", 1),
    ("Die richtige Antwort lautet B.", 1),
    ("La risposta è B", 1),
    ("A resposta é B", 1),
    ("Ответ — B", 1),
    ("正确答案：B", 1),
    ("答案选B", 1),
    ("答案：（B）", 1),
    ("答案是：B", 1),
    ("答えはBです", 1),
    ("正解は B です。", 1),
    ("정답은 B입니다", None),
    ("정답: (B)", 1),
    ("Cevap: B", 1),
    ("Odpowiedź: B", 1),
    ("Svar: B", 1),
    ("Đáp án: B", 1),
    ("الجواب: B", 1),
    ("答案：B或C", None),
    ("Respuesta: A o B", None),
    ("Antwort: A oder B", None),
    ("blue sky", 1),
    ("The answer is blue sky.", 1),
    ("\\boxed{12\\text{ km}}", 3),
    ("\\boxed{\\text{blue sky}}", 1),
    ("Answer: blue sky", 1),
    ("Answer: B blue sky", 1),
    ('{"answer": "B", "confidence": 1}', 1),
    ('{"final_answer": "B"}', 1),
    ("<final_answer>B</final_answer>", 1),
    ("<answer>(B)</answer>", 1),
    ("<answer>A or B</answer>", None),
    ("I pick B.", 1),
    ("I would go with B", 1),
    ("Option (B) is right.", 1),
    ("Therefore, the correct choice is (B).", 1),
    ("So B", 1),
    ("My answer: B", 1),
    ("My final answer is B!", 1),
    ("Correct answer: B", 1),
    ("The best answer is B", 1),
    ("A is incorrect. B is correct.", 1),
    ("Answer: 2", None),
    ("Answer: none", None),
    ("Answer: F", None),
    ("<think>Answer: A</think>B", 1),
    ("[THINK]Answer: A[/THINK]Answer: B", 1),
    ("Answer:B", 1),
    ("Answer: 'B'", 1),
    ("Answer: “B”", 1),
    ("Answer: B!", 1),
    ("Answer: B;", 1),
    ("Answer: [B]", 1),
    ("Answer: {B}", 1),
    ("Answer: `B`", 1),
    ("Answer: \\(B\\)", 1),
    ("Answer: $\\mathbf{B}$", 1),
    ("Answer: $\\text{(B)}$", 1),
    ("Answer:\nA. 3\nB. 4\n\nI choose B", 1),
    ("Answer:\nA) wrong\nB) right", None),
    ("Answer:\n\nA) wrong\n\nB) right", None),
    ("Answer: \nA and B are wrong, so C", None),
    ("Answer:\nB, C", None),
    ("Answer:\nA or B", None),
    ("Answer:\nB) blue sky\n\nIt is blue.", 1),
    ("Answer:\n**B) blue sky**", 1),
    ("Answer:\n$\\boxed{B}$\nDone.", 1),
    ("<answer>\nB\n</answer>", 1),
    ('{"answer":\n"B",\n"why": "x"}', 1),
    ("Answer:\nB.\nB is blue.", 1),
    ("\\boxed{B}\n\nAnswer:\nA) wrong\nB) right", 1),
    ("Answer: <A> or <B>", None),
    ("Answer: 【A】或【B】", None),
    ("Answer: （A）和（B）", None),
    ("Answer: [A] or [B]", None),
    ("Answer: $\\text{A}$ or $\\text{B}$", None),
    ("I have no doubt that C is correct.", 2),
    ("Without doubt option C is correct.", 2),
    ("I don't doubt that C is correct.", 2),
    ("It is not hard to see that C is correct.", 2),
    ("That is why C is correct.", 2),
    ("Not surprisingly B is correct", 1),
    ("Option A does not hold so option B is correct", 1),
    ("It does not matter and option B is correct", 1),
    ("I really doubt that C is correct.", None),
    ("I do not really think that C is correct.", None),
    ("It is not the case that C is correct.", None),
    ("I am not sure whether C is correct.", None),
    ("I don't see why C is correct.", None),
    ("It is unlikely that C is correct.", None),
    ("I would not choose C, I think", None),
    ("I can't say that the correct answer is C, I think", None),
    ("Answer: \\textbf{B}", 1),
]


@pytest.mark.parametrize(("text", "place"), ANSWERS)
def test_letters(text, place):
    """A letter would be read that nobody chose, or none where one is named."""
    assert flexible_choice(text, CHOICES) == place
    assert strict_choice(text, len(CHOICES)) in (None, place)


STRICT = [
    "Answer: B",
    "答案：B",
    "Antwort: B",
    "Réponse : B",
    "Respuesta: B",
    "Ответ: B",
]


@pytest.mark.parametrize("text", STRICT)
def test_strict_reads_many_languages(text):
    """Only English answers would be votes."""
    assert strict_choice(text, 4) == 1


@pytest.mark.parametrize(
    "piece", ["Answer: ", "A or ", "\\boxed{A}, ", "答案", "(A", "*", "answer "]
)
def test_takes_linear_time(piece):
    """An answer of a megabyte would hold up a run."""
    start = time.perf_counter()
    flexible_choice(piece * (200_000 // len(piece)), CHOICES)
    assert time.perf_counter() - start < 10
