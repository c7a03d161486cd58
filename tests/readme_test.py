"""The README's commands are those that CI runs."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def commands(text: str) -> list[str]:
    """Lines that run Python or pip, paths and spacing made alike."""
    text = re.sub(r"\s*\\\n\s*", " ", text)
    text = re.sub(r'"\$work/([^"]+)"', r"\1", text)
    text = re.sub(r'"\$(hf|ckpt)"', r"\1", text)
    lines = (line.strip().removesuffix("&&").strip() for line in text.splitlines())
    return [line.removeprefix("check ") for line in lines]


def test_ci_runs_what_the_readme_says():
    """A newcomer would run something that nobody has tried."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    ci = commands((ROOT / ".ci" / "run").read_text(encoding="utf-8"))
    blocks = re.findall(r"```bash\n(.*?)```", readme, re.DOTALL)
    said = [
        part.strip()
        for block in blocks
        for line in commands(block)
        for part in line.split("&&")
        if part.strip().startswith("python ") and "-m venv" not in part
    ]
    assert len(said) == 11
    for command in said:
        assert command in ci, command
