"""The README's commands are those that CI runs; what pages name exists."""

import importlib
import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxmoe
from jaxmoe.families import registry
from tests.tiny import tiny_model

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "jaxmoe" / "docs").glob("*.md"))]
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


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


def test_the_readme_is_short():
    """People read one page, and of that the left half."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    assert [line for line in lines if len(line) > 100] == []


def exists(dotted: str) -> bool:
    """Whether `jaxmoe.a.b` is a module, or a name in one."""
    first, *rest = dotted.split(".")
    found = importlib.import_module(first)
    for name in rest:
        try:
            found = getattr(found, name)
        except AttributeError:
            module = f"{found.__name__}.{name}"
            if importlib.util.find_spec(module) is None:
                return False
            try:
                found = importlib.import_module(module)
            except ImportError:
                return True  # it is there, and needs an extra that is not
    return True


@pages
def test_names_and_files_that_a_page_names_exist(page):
    """A reader would look for what was moved or renamed."""
    text = page.read_text(encoding="utf-8")
    names = set(re.findall(r"\bjaxmoe(?:\.[A-Za-z_]\w*)+", text))
    assert [name for name in sorted(names) if not exists(name)] == []
    files = re.findall(r"`((?:jaxmoe|tests|scripts|convert)/[\w./]+)`", text)
    links = re.findall(r"\]\(([\w./]+)\)", text)
    missing = [name for name in files if not (ROOT / name).exists()]
    missing += [name for name in links if not (page.parent / name).exists()]
    assert missing == []


def code(page: str) -> list[str]:
    """The Python that a page shows."""
    text = (ROOT / "jaxmoe" / "docs" / page).read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def run(blocks: list[str], model: jaxmoe.Model | None = None) -> dict:
    """Runs them one after the other, on a tiny model or another; the names left."""
    names = {"jax": jax, "jaxmoe": jaxmoe}
    names |= {name: getattr(jaxmoe, name) for name in jaxmoe.__all__}
    model = tiny_model() if model is None else model
    names |= {"model": model, "prompt": np.array([9, 8]), "__name__": "page"}
    exec("\n".join(blocks), names)  # noqa: S102
    return names


@pytest.mark.thorough
def test_what_the_python_page_shows_runs():
    """A user would copy it."""
    blocks = code("python.md")
    assert len(blocks) == 2
    changes = {
        # The tiny model has no tokenizer, which a stop string needs.
        ', stop="\\n"': "",
        # The shapes of tests/decode/engine_test.py, whose programs are compiled.
        "slots=64": "slots=8, segment=8, prompts=4",
        "* 16": "* 4",
        "n=32": "n=8",
    }
    for old, new in changes.items():
        assert any(old in block for block in blocks)
        blocks = [block.replace(old, new) for block in blocks]
    names = run(blocks)
    assert len(names["out"].lengths) == 8
    assert not names["engine"].busy


@pytest.mark.thorough
def test_what_the_scoring_page_shows_runs():
    """A user would copy it."""
    blocks = code("scoring.md")
    assert len(blocks) == 2
    names = run(blocks, jaxmoe.load("demo"))
    assert names["found"][0].top_ids.shape == (len(names["found"][0].tokens), 3)
    assert all(value > 1 for value in names["perplexity"])


@pytest.mark.slow
def test_the_notebook_runs(capsys):
    """A newcomer's first cell would fail. Its cells in order, in one namespace."""
    folder = ROOT / "jaxmoe" / "docs"
    notebook = json.loads((folder / "tour.ipynb").read_text(encoding="utf-8"))
    cells = [(c["cell_type"], "".join(c["source"])) for c in notebook["cells"]]
    said = "\n".join(source for kind, source in cells if kind == "markdown")
    links = re.findall(r"\]\(([\w./]+)\)", said)
    assert links and all((folder / link).exists() for link in links)
    names: dict = {"__name__": "notebook"}
    for kind, source in cells:
        if kind == "code":
            exec(source, names)  # noqa: S102
    assert "vote of the surest 10 %" in capsys.readouterr().out


@pytest.mark.slow
def test_what_the_routes_page_shows_runs():
    """A researcher would copy it."""
    blocks = code("routes.md")
    assert len(blocks) == 3
    names = run(blocks)
    assert names["logprobs"].shape == (1, names["tokens"].shape[1] - 1)
    assert names["found"].effective > 0


@pytest.mark.thorough
@pytest.mark.usefixtures("untyped")
def test_what_the_extending_page_shows_runs(monkeypatch):
    """A contributor would begin from it."""
    monkeypatch.setattr(registry, "FAMILIES", registry.FAMILIES.copy())
    blocks = code("extending.md")
    assert len(blocks) == 3
    names = run(blocks)
    assert (names["out"].lengths > 0).all()
    assert "mine" in registry.FAMILIES
    with pytest.raises(ValueError, match="found 1.5"):
        jaxmoe.sample(
            names["model"], [9], key=jax.random.key(0), policy=names["Thinned"](1.5)
        )
