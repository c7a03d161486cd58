"""Answers to a problem of the demo, counted."""

from jaxmoe import demo
from jaxmoe.demo.judge import Judge

PROBLEM = demo.Problem.parse("2,5,8,12=27:")
RIGHT, SAME_SUM = "12+8=20,5+2=7,20+7=27", "2+5=7,8+12=20,7+20=27"


def test_the_judge():
    """A wrong answer would be marked right, or two ways to write one count as two."""
    judge = Judge(PROBLEM)
    assert judge.marks(RIGHT) == {"right": True, "error": None}
    assert judge.marks(SAME_SUM) == {"right": True, "error": None}
    wrong = judge.marks("12+8=20,5+2=7,20+7=28")
    assert wrong == {"right": False, "error": "20+7=28 is not so"}
    assert judge.marks("")["right"] is False
    assert judge.totals() == {"right": 2, "distinct_right": 1}
    assert judge.marks("12*2=24,8-5=3,24+3=27")["right"]
    assert judge.totals() == {"right": 3, "distinct_right": 2}
