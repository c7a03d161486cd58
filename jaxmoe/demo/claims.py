"""What is claimed of the method, as differences that the demo's answers can decide."""

from jaxmoe.demo.configuration_names import (
    BASE,
    ES,
    ES_GREEDY,
    GREEDY,
    GUMBEL,
    HOT,
    NOISY,
)
from jaxmoe.evals.claims import OURS, PAPER, Claim

SOLVED = "problems that greedy solves"

CLAIMS = (
    Claim("8 answers solve more problems", PAPER, ES, BASE, "pass@8", "higher"),
    Claim("32 answers solve more problems", PAPER, ES, BASE, "pass@32", "higher"),
    Claim("64 answers solve more problems", PAPER, ES, BASE, "pass@64", "higher"),
    Claim("a single answer is no worse", PAPER, ES, BASE, "accuracy", "no worse"),
    Claim(
        "a single greedy answer is no worse",
        PAPER,
        ES_GREEDY,
        GREEDY,
        "accuracy",
        "no worse",
    ),
    Claim(
        "what greedy solves is solved as often with sampled experts",
        PAPER,
        ES,
        BASE,
        "accuracy",
        "no worse",
        only=SOLVED,
    ),
    Claim(
        "a head of 2, below k / 2, costs accuracy",
        PAPER,
        ES,
        "k_keep 2",
        "accuracy",
        "higher",
    ),
    Claim(
        "a range of 10, below 2 k, solves fewer problems",
        PAPER,
        ES,
        "r 10",
        "pass@8",
        "higher",
    ),
    Claim(
        "a range beyond 4 k solves no more", PAPER, "r 64", ES, "pass@8", "no better"
    ),
    Claim(
        "a tau of 0.3, below 0.7, solves fewer problems",
        PAPER,
        ES,
        "tau 0.3",
        "pass@8",
        "higher",
    ),
    Claim(
        "half the experts are no worse for a greedy answer",
        PAPER,
        "k 4, greedy",
        GREEDY,
        "accuracy",
        "no worse",
    ),
    Claim(
        "half the experts solve fewer problems in 32 answers",
        PAPER,
        "k 4, 0.7",
        BASE,
        "pass@32",
        "lower",
    ),
    Claim(
        "routes alone find what one greedy answer does not",
        OURS,
        ES_GREEDY,
        GREEDY,
        "pass@32",
        "higher",
        measure_b="pass@1",
    ),
    Claim(
        "noise on the prompt too finds more",
        OURS,
        f"{ES_GREEDY}, {NOISY}",
        ES_GREEDY,
        "pass@32",
        "higher",
    ),
    Claim(
        "noise on the prompt too costs no accuracy",
        OURS,
        f"{ES}, {NOISY}",
        ES,
        "accuracy",
        "no worse",
    ),
    Claim(
        "keeping a head is better than noise on all experts",
        OURS,
        "r 64",
        GUMBEL,
        "accuracy",
        "higher",
    ),
    Claim(
        "a higher temperature costs accuracy (a control)",
        OURS,
        BASE,
        HOT,
        "accuracy",
        "higher",
    ),
)
