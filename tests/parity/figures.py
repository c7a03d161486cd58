"""Runs the comparison of all families, keeps its figures, and writes the tables.

    python tests/parity/figures.py              # all of them: ten minutes
    python tests/parity/figures.py gpt_oss olmoe
    python tests/parity/figures.py --kept       # the tables alone

The figures are kept in `jaxmoe/families/compared.json`; the tables are
`jaxmoe/docs/models.md` and the column "error" in the README.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from jaxmoe.families.compared import PATH, facts, read_compared, short  # noqa: E402
from jaxmoe.families.registry import FAMILIES  # noqa: E402
from jaxmoe.reports.text_table import markdown_table  # noqa: E402

PAGE, README = ROOT / "jaxmoe" / "docs" / "models.md", ROOT / "README.md"
TESTS = (
    "tests/parity/families_test.py::test_family_computes_what_transformers_computes",
    "tests/parity/process_reward_test.py::test_scores_are_those_of_torch",
)

ROWS = {
    "Qwen3-MoE; Qwen2-MoE": ("qwen3_moe", "qwen2_moe"),
    "Qwen3-Next; Qwen3.5-MoE (text)": ("qwen3_next", "qwen3_5_moe"),
    "GPT-OSS": ("gpt_oss",),
    "Ling; OLMoE": ("bailing_moe", "bailing_moe_v2", "olmoe"),
    "DeepSeek-V2, V3, Kimi-K2": ("deepseek_v2", "deepseek_v3", "kimi_k2"),
    "GLM-4.5; GLM-4.7-Flash": ("glm4_moe", "glm4_moe_lite"),
    "dots1; ERNIE 4.5; MiniMax-M2": ("dots1", "ernie4_5_moe", "minimax_m2"),
    "Mixtral; Granite 3": ("mixtral", "granitemoe", "granitemoeshared"),
    "Qwen3, Qwen2, dense": ("qwen3", "qwen2", "qwen2_prm"),
}
"""First cell of a row of the README's table -> its families."""

TITLE = """# Models

What `jaxmoe list families` prints. Compared were small random models of each family
that cover what its config can vary, in float32 on CPU, with transformers (or with a
class of it that computes the same, where it lacks the family:
`tests/parity/families_test.py`): logits at 134 positions, the experts of each token, 64
greedy tokens and their log-probabilities. The error is the largest difference of a
logit, over the largest logit; of models that score steps, of a step's probability.
`python tests/parity/figures.py` measures it again.

Each promise of `tests/families/promises_test.py` (an answer is a function of its own
key; prefill, decoding and one pass agree; routes are replayed; degenerate policies are
top-k) was run on at least one such model of every family that writes text, on one
device. Eight simulated devices (`tests/mesh/families_cases.py`) were tried with models
of olmoe, gpt_oss, bailing_moe_v2, glm4_moe and qwen3_next, accelerators with none.

No released checkpoint was run: their shapes are known to `jaxmoe plan`, and number of
parameters and attributes are tested. Weights are read as the column says; formats of
others (GPTQ, AWQ and the like) are refused by name.

"""


def measure(names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Family -> figures, of the tests of these families; a failed test ends the run."""
    select = " or ".join(f"{name}-" for name in names or FAMILIES)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", *TESTS]
        command += ["-m", "parity", "-k", select, f"--junitxml={report}"]
        command += ["-o", "junit_family=legacy"]
        subprocess.run(command, cwd=ROOT, check=True)
        return read_report(report)


def read_report(path: Path) -> dict[str, dict[str, float]]:
    """Family -> figures, of the tests that pytest reported on."""
    found: dict[str, list[float]] = {}
    for case in ElementTree.parse(path).iter("testcase"):
        if case.find("failure") is not None:
            continue
        said = {p.get("name"): p.get("value") for p in case.iter("property")}
        if "logits_error" in said:
            found.setdefault(said["family"], []).append(float(said["logits_error"]))
    return {
        name: {"models": len(errors), "logits_error": max(errors)}
        for name, errors in found.items()
    }


def keep(measured: dict[str, dict[str, float]]) -> None:
    """Puts new figures in the place of old ones; families that are gone go."""
    before = json.loads(PATH.read_text("utf-8")) | measured
    kept = {name: before[name] for name in FAMILIES if name in before}
    PATH.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    read_compared.cache_clear()


def page() -> str:
    """The text of docs/models.md."""
    rows = [facts(family) for family in FAMILIES.values()]
    for row in rows:
        del row["architectures"]
    return TITLE + markdown_table([*rows[0]], [[*row.values()] for row in rows]) + "\n"


def readme(text: str) -> str:
    """The README with the errors of today: the largest of a row.

    "-" unless all its families were measured.
    """
    for title, names in ROWS.items():
        row = re.compile(
            rf"^(\| {re.escape(title)} \| .* \| )[^|]*( \|)$", re.MULTILINE
        )
        errors = [c.logits_error for n in names if (c := read_compared().get(n))]
        said = short(max(errors)) if len(errors) == len(names) else "-"
        text, count = row.subn(rf"\g<1>{said}\g<2>", text)
        if count != 1:
            raise ValueError(f"README.md must have one row {title!r}, found {count}")
    return text


def write_tables() -> None:
    """Writes the page and the README."""
    PAGE.write_text(page(), encoding="utf-8")
    README.write_text(readme(README.read_text("utf-8")), encoding="utf-8")


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("families", nargs="*", choices=[*FAMILIES, []])
    parser.add_argument("--kept", action="store_true", help="measure nothing")
    args = parser.parse_args()
    if not args.kept:
        keep(measure(args.families))
    write_tables()


if __name__ == "__main__":
    main()
