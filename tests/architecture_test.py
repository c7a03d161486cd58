import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Each unit, a file or a folder, and its floor. A file imports its own unit and lower
# floors. Halves set apart what stands on one floor and yet builds on a neighbour.
FLOORS = {
    "jaxmoe/typing.py": 0,
    "jaxmoe/threefry.py": 0.3,
    "jaxmoe/keys.py": 0.5,
    "jaxmoe/products.py": 0.5,
    "jaxmoe/widen.py": 0.5,  # arithmetic that every floor above may use
    "jaxmoe/grouping.py": 0.5,
    "jaxmoe/config.py": 1,
    "jaxmoe/mesh.py": 1,
    "jaxmoe/host_watch.py": 0.5,
    "jaxmoe/hosts.py": 1,
    "jaxmoe/parts.py": 1.2,  # what a device does, on the mesh's rules
    "jaxmoe/hf_attributes.py": 1.2,  # the config.json reader, on config.py
    "jaxmoe/hf_rope.py": 1.3,
    "jaxmoe/hf_config.py": 1.5,
    "jaxmoe/router/": 2,
    "jaxmoe/experts/": 2,
    "jaxmoe/cache.py": 2,
    "jaxmoe/nn/": 3,
    "jaxmoe/remote.py": 3.2,  # where checkpoints are read from
    "jaxmoe/checkpoint_manifest.py": 3.5,
    "jaxmoe/checkpoint_shards.py": 3.5,
    "jaxmoe/checkpoint_orbax.py": 3.5,
    "jaxmoe/checkpoint_ranges.py": 3.7,
    "jaxmoe/checkpoint_partial.py": 3.5,
    "jaxmoe/checkpoint.py": 4,
    "jaxmoe/decode/": 4,
    "jaxmoe/text/": 4,
    "jaxmoe/bundled.py": 4.2,  # on the checkpoint reader
    "jaxmoe/model.py": 4.5,  # load, and the model with its tokenizer
    "jaxmoe/inputs.py": 4.6,
    "jaxmoe/sampling.py": 4.7,
    "jaxmoe/planning/": 4.8,  # what would fit and how fast, on paper
    "jaxmoe/__init__.py": 4.9,  # the public names
    "jaxmoe/evals/": 5,
    "jaxmoe/analysis/": 5.2,  # shows what evals has measured
    "jaxmoe/demo/": 5.5,  # measured with evals and analysis
    "jaxmoe/benchmarks/": 5.5,
    "convert/": 6,
    "scripts/": 6.5,
}
LIBRARIES_ONLY_IN = {
    # The benchmarks' peer: imported where it is asked for, and nowhere else.
    "torch": ("scripts/_transformers_peer.py",),
    "transformers": ("scripts/_transformers_peer.py",),
    "matplotlib": ("jaxmoe/analysis/",),
    "tokenizers": ("jaxmoe/text/", "scripts/"),
    "orbax": ("jaxmoe/checkpoint_orbax.py",),
    "jinja2": ("jaxmoe/text/",),
}
TOP_LEVEL = {
    "jaxmoe",
    "convert",
    "scripts",
    "tests",
    "pyproject.toml",
    "README.md",
    "LICENSE",
}
LATE = {"matplotlib", "tokenizers", "orbax", "tqdm", "jinja2", "torch", "transformers"}


def _files() -> list[str]:
    folders = ("jaxmoe", "convert", "scripts")
    found = (path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


def _unit(path: str) -> str:
    for unit in FLOORS:
        if path == unit or (unit.endswith("/") and path.startswith(unit)):
            return unit
    raise LookupError(
        f"{path} stands on no floor; give it one in FLOORS, or move it into a folder "
        "that has one"
    )


def _path_of(module: str) -> str | None:
    """The file of a module of ours; None where `module` is none.

    >>> _path_of("jaxmoe.keys"), _path_of("jaxmoe.keys.sample_key")
    ("jaxmoe/keys.py", None)
    """
    stem = module.replace(".", "/")
    for path in (f"{stem}.py", f"{stem}/__init__.py"):
        if (ROOT / path).exists():
            return path
    return None


def _imports(path: str) -> set[str]:
    """Modules that a file imports, at its top or within functions.

    `from a import b` counts as `a.b` where that is a module of ours.
    """
    modules = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text("utf-8"))):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} line {node.lineno}: a relative import"
            module = node.module or ""
            for alias in node.names:
                inner = f"{module}.{alias.name}"
                modules.add(inner if _path_of(inner) else module)
    return modules


@pytest.mark.parametrize("path", _files())
def test_imports_go_down(path):
    """A lower floor would depend on a higher one, or a circle would close."""
    unit = _unit(path)
    for module in _imports(path):
        if module.split(".")[0] not in ("jaxmoe", "convert", "scripts"):
            continue
        target = _path_of(module)
        assert target is not None, f"{path} imports {module}, which is no file"
        other = _unit(target)
        assert other == unit or FLOORS[other] < FLOORS[unit], (
            f"{path} (floor {FLOORS[unit]}) imports {target} (floor {FLOORS[other]}); "
            "only its own unit and lower floors are open to it"
        )


@pytest.mark.parametrize("path", _files())
def test_libraries_stay_where_they_belong(path):
    """The package would need torch, or plots would reach beyond analysis."""
    for library in {module.split(".")[0] for module in _imports(path)}:
        places = LIBRARIES_ONLY_IN.get(library)
        assert places is None or path.startswith(places or "-"), (
            f"{path} imports {library}, which only {places or 'tests'} may"
        )
        if path.startswith("jaxmoe/text/"):
            assert library not in ("jax", "flax", "orbax"), f"{path}: no jax in text/"


@pytest.mark.parametrize("path", _files())
def test_house_rules(path):
    """Keys would be derived, or annotations postponed, outside the one place."""
    text = (ROOT / path).read_text("utf-8")
    assert "from __future__ import annotations" not in text
    # threefry.py is what derives; keys.py says what is derived.
    derives = ("jaxmoe/keys.py", "jaxmoe/threefry.py", "jaxmoe/demo/")
    if not path.startswith(derives):
        found = re.search(r"random\.(fold_in|split)\b", text)
        assert not found, f"{path}: {found[0]} belongs in jaxmoe/keys.py"


@pytest.mark.parametrize("module", ["jaxmoe", "convert"])
def test_import_is_light(module):
    """Who samples token ids would wait for libraries that are not used."""
    if _path_of(module) is None:
        pytest.skip(f"no {module} yet")
    code = f"import sys, {module}; print(*sorted({LATE!r} & set(sys.modules)))"
    run = [sys.executable, "-c", code]
    loaded = subprocess.check_output(run, text=True, cwd=ROOT).split()
    assert not loaded, f"import {module} loads {', '.join(loaded)}"


def test_top_level_holds_only_what_it_should():
    """The root would gather files that belong in one of its folders."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        output = subprocess.check_output(listing, text=True, cwd=ROOT)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no git checkout here")
    names = {line.split("/")[0] for line in output.splitlines()}
    extra = {name for name in names if not name.startswith(".")} - TOP_LEVEL
    assert not extra, f"not for the top level: {sorted(extra)}"


def test_test_files_are_named_as_pytest_looks_for_them():
    """A test under another name would never be run."""
    wrong = []
    for path in sorted((ROOT / "tests").rglob("*.py")):
        name = path.relative_to(ROOT / "tests").as_posix()
        if re.search(r"(^|/)test_|_test/", name):
            wrong.append(name)
    assert not wrong, f"test files are named *_test.py, found {wrong}"
