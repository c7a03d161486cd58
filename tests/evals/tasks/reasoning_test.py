"""What of an answer is graded, where a model thinks before it answers."""

import time

import pytest

from jaxmoe.evals.tasks import task
from jaxmoe.evals.tasks.code import CodeTask
from jaxmoe.evals.tasks.reasoning import answer_in, opens_reasoning

ANSWERS = [
    ("7", "7"),
    ("<think>7?</think>8", "8"),
    ("<think>\n\n</think>\n\n8", "\n\n8"),
    ("so 7\n</think>\n8", "\n8"),
    ("<think>a</think><think>7</think>8", "8"),
    ("<THINK>7</THINK>8", "8"),
    ("< think >7</ think >8", "8"),
    ("<thinking>7</thinking>8", "8"),
    ("<thought>7</thought>8", "8"),
    ("<seed:think>7</seed:think>8", "8"),
    ("[THINK]7[/THINK]8", "8"),
    ("◁think▷7◁/think▷8", "8"),
    ("<|begin_of_thought|>7<|end_of_thought|>8", "8"),
    ("<|START_THINKING|>7<|END_THINKING|>8", "8"),
    ("<|channel>thought\n7<channel|>8", "8"),
    ("<longcat_think>7</longcat_think>8", "8"),
    ('<think time="3">7</think>8', "8"),
    ("<|inner_prefix|>7<|inner_suffix|>8", "8"),
    ("<reasoning>7</reasoning><answer>8</answer>", "<answer>8</answer>"),
    ("<answer>8</answer><reasoning>7</reasoning>",
     "<answer>8</answer><reasoning>7</reasoning>"),
    ("7</reasoning>8", "8"),
    ("<reasoning>7", ""),
    ("print('</analysis>')\nAnswer: 8", "print('</analysis>')\nAnswer: 8"),
    ("```\n</analysis>\n```\nAnswer: 8", "```\n</analysis>\n```\nAnswer: 8"),
    ("```\n7\n```\n</analysis>\n8", "\n8"),
    ("7</analysis>8\n```\n</analysis>\n```", "8\n```\n</analysis>\n```"),
    ('7, "</reasoning>" is near</reasoning>8', "8"),
    ("'<reasoning>' or 7</reasoning>8", "8"),
    ("use <user_thoughts> as the tag name. Answer: 8",
     "use <user_thoughts> as the tag name. Answer: 8"),
    ("use `<think>` as the tag name. Answer: 8",
     "use `<think>` as the tag name. Answer: 8"),
    ("print('</think>')\nprint(8)", "print('</think>')\nprint(8)"),
    ("<think>print('</think>') or 7", ""),
    ('<think>"7"</think>8', "8"),
    ("<start_working_out>7<end_working_out>8", "8"),
    ("<longcat_think>7", ""),
    ("<think>7", ""),
    ("<think>7</think>", ""),
    ("<think>7</think>8<think>9", ""),
    ("[THINK]7", ""),
    ("<|channel|>analysis<|message|>7<|end|><|start|>assistant<|channel|>final"
     "<|message|>8<|return|>", "8"),
    ("<|channel|>final <|constrain|>json<|message|>8", "8"),
    ("<|channel|>analysis<|message|>7", ""),
    ("<|channel|>commentary<|message|>7<|end|>", ""),
    ("analysisWe need 7.assistantfinal8", "8"),
    ("analysiswe need 7.assistantcommentaryhm.assistantfinalAnswer: 8", "Answer: 8"),
    ("analysisWe need 7.", ""),
    ("finalAnswer: 8", "Answer: 8"),
    ("final answer: 8", "final answer: 8"),
    ("analysis: 8", "analysis: 8"),
    ("analysis of 8", "analysis of 8"),
    ("", ""),
]  # fmt: skip


@pytest.mark.parametrize(("text", "answer"), ANSWERS)
def test_answer_in(text, answer):
    """Reasoning would be graded, or an answer cut off."""
    assert answer_in(text) == answer
    assert answer_in(answer) == answer


FENCE = "```"
GOOD = f"{FENCE}python\nprint(input())\n{FENCE}\n"
POOR = f"{FENCE}python\nprint(0)\n{FENCE}\n"
TESTS = [{"input": "5\n", "output": "5\n", "testtype": "stdin"}]
ROWS = {
    "aime": ({"problem": "p", "answer": 7}, r"\boxed{7}", r"\boxed{8}"),
    "math": ({"problem": "p", "answer": "7"}, r"\boxed{7}", r"\boxed{8}"),
    "exact": ({"prompt": "p", "answer": "7"}, r"\boxed{7}", r"\boxed{8}"),
    "mcq": ({"question": "q", "choices": ["x", "y"], "answer": "A"},
            "Answer: A", "Answer: B"),
    "code": ({"question": "q", "tests": TESTS}, GOOD, POOR),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize(
    ("text", "correct"),
    [
        ("{right}", True),
        ("<think>\n{wrong}\n</think>\n{right}", True),
        ("{wrong}\n</think>\n{right}", True),
        ("[THINK]{wrong}[/THINK]\n{right}", True),
        ("analysisPerhaps {wrong}\nassistantfinal{right}", True),
        ("<think>\nperhaps {right}\nbut", False),
        ("<think>\n{right}\n</think>\n{wrong}", False),
        ("<think>\n{right}\n</think>\nI cannot say.", False),
        ("{right}\n</think>", False),
        ("<|channel|>analysis<|message|>{right}<|end|>", False),
    ],
)
def test_every_task_grades_the_answer_alone(name, text, correct):
    """A thought would count, for the model or against it."""
    row, right, wrong = ROWS[name]
    if name == "math":
        pytest.importorskip("math_verify")
    graded_by = CodeTask(allow=True) if name == "code" else task(name)
    question = graded_by.question(row, id="1", seed=0, template=None)
    text = text.replace("{right}", right).replace("{wrong}", wrong)
    grade = graded_by.grade(question, text)
    assert grade.correct == correct
    if "</think>" not in text and not correct:
        assert grade.answer is None


@pytest.mark.parametrize(
    ("prompt", "opens"),
    [
        ("<|im_start|>assistant\n<think>\n", True),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", False),
        ("<|turn>model\n<|channel>thought\n", True),
        ("<|start|>assistant<|channel|>analysis<|message|>", True),
        ("<|start|>assistant<|channel|>final<|message|>", False),
        ("what is <think>?<|im_end|>\n<|im_start|>assistant\n", False),
        ("", False),
    ],
)
def test_opens_reasoning(prompt, opens):
    """An answer cut off while thinking has no mark, where the template has it."""
    assert opens_reasoning(prompt) == opens


@pytest.mark.parametrize(
    "piece", ["<think>", "</think>", "<", "<|channel|>", "[THINK", "```</analysis>"]
)
def test_takes_linear_time(piece):
    """An answer of a megabyte would hold up a run."""
    start = time.process_time()
    answer_in(piece * (1_000_000 // len(piece)))
    assert time.process_time() - start < 5
