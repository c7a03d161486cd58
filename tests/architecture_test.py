"""The house: floors, and what may stand where (jaxmoe/docs/design.md)."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# From the ground up: a file imports its own floor and those before it.
FLOORS = (
    "jaxmoe/typing.py",
    "jaxmoe/files.py",
    # Values with a method that a config names, such as how scores become weights: each
    # lies in the folder of its subject, and imports nothing but types (and top-k).
    "jaxmoe/ops/top_k.py",
    "jaxmoe/ops/activations.py",
    "jaxmoe/router/scores.py",
    "jaxmoe/config.py",
    "jaxmoe/random/",
    "jaxmoe/ops/",
    "jaxmoe/sharding/",
    "jaxmoe/execution.py",
    "jaxmoe/router/",
    "jaxmoe/nn/",
    "jaxmoe/families/",
    "jaxmoe/checkpoints/",
    "jaxmoe/text/",
    "jaxmoe/model.py",
    "jaxmoe/decode/",
    "jaxmoe/sampling.py",
    "jaxmoe/planning/",
    "jaxmoe/__init__.py",
    "jaxmoe/evals/",
    "jaxmoe/analysis/",
    "jaxmoe/reports/",
    "jaxmoe/demo/",
    "jaxmoe/benchmarks/",
    "jaxmoe/serve/",
    "convert/",
    "jaxmoe/cli/",
    "jaxmoe/__main__.py",
    "scripts/",
)
LIBRARIES_ONLY_IN = {
    # The benchmarks' peers: imported where it is asked for, and nowhere else.
    "torch": ("jaxmoe/benchmarks/transformers_peer.py",),
    "transformers": ("jaxmoe/benchmarks/transformers_peer.py",),
    "llama_cpp": ("jaxmoe/benchmarks/llama_cpp_peer.py",),
    "matplotlib": ("jaxmoe/reports/",),
    "tokenizers": ("jaxmoe/text/", "jaxmoe/demo/model_files.py"),
    "orbax": ("jaxmoe/checkpoints/orbax.py",),
    "jinja2": ("jaxmoe/text/", "jaxmoe/reports/page.py"),
    "llguidance": ("jaxmoe/text/grammar.py",),
    "huggingface_hub": ("jaxmoe/checkpoints/hub.py",),
    "lm_eval": ("jaxmoe/evals/lm_eval.py",),
    "starlette": ("jaxmoe/serve/",),
    "uvicorn": ("jaxmoe/serve/",),
    "pydantic": ("jaxmoe/serve/",),
    "prometheus_client": ("jaxmoe/serve/",),
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
LATE = {*LIBRARIES_ONLY_IN, "tqdm"}


def _files() -> list[str]:
    folders = ("jaxmoe", "convert", "scripts")
    found = (path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


def _floor(path: str) -> int | None:
    for number, unit in enumerate(FLOORS):
        if path == unit or (unit.endswith("/") and path.startswith(unit)):
            return number
    return None


def _path_of(module: str) -> str | None:
    """The file of a module of ours; None where `module` is none.

    >>> _path_of("jaxmoe.random.keys"), _path_of("jaxmoe.random.keys.sample_key")
    ("jaxmoe/random/keys.py", None)
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


def _report(violations: list[str]) -> None:
    assert not violations, "\n  ".join([f"{len(violations)} violations:", *violations])


def test_imports_go_down():
    """A lower floor would depend on a higher one, or a circle would close."""
    wrong = []
    for path in _files():
        floor = _floor(path)
        if floor is None:
            wrong.append(f"{path} stands on no floor; move it into a folder of FLOORS")
            continue
        for module in sorted(_imports(path)):
            if module.split(".")[0] not in ("jaxmoe", "convert", "scripts"):
                continue
            target = _path_of(module)
            other = None if target is None else _floor(target)
            if other is None:
                wrong.append(f"{path} imports {module}, which is no file of a floor")
            elif other > floor:
                wrong.append(f"{path} ({floor}) imports {target} ({other})")
    _report(wrong)


def test_libraries_stay_where_they_belong():
    """The package would need torch, or plots would reach beyond reports."""
    wrong = []
    for path in _files():
        for library in sorted({module.split(".")[0] for module in _imports(path)}):
            places = LIBRARIES_ONLY_IN.get(library)
            if places is not None and not path.startswith(places):
                wrong.append(f"{path} imports {library}, which only {places} may")
            if path.startswith("jaxmoe/text/") and library in ("jax", "flax", "orbax"):
                wrong.append(f"{path} imports {library}: text needs no arrays")
    _report(wrong)


def test_house_rules():
    """Keys derived, annotations postponed, a platform asked for outside one place, a
    dataclass whose structure equals another's, or what a kind of mixer consists of
    named above `jaxmoe.nn`."""
    wrong = []
    above = _floor("jaxmoe/nn/")
    assert above is not None
    parts = r"\.(num_heads|num_kv_heads|head_dim|window|qkv)\b|\b(KeyValues|Latents)\b"
    # threefry.py is what derives; keys.py says what is derived.
    derives = ("jaxmoe/random/", "jaxmoe/demo/")
    for path in _files():
        text = (ROOT / path).read_text("utf-8")
        if "from __future__ import annotations" in text:
            wrong.append(f"{path}: annotations are checked, and so not postponed")
        found = re.search(r"random\.(fold_in|split)\b", text)
        if found and not path.startswith(derives):
            wrong.append(f"{path}: {found[0]} belongs in jaxmoe/random/keys.py")
        if re.search(r"\bregister_dataclass\(|@.*\bregister_dataclass\b", text):
            wrong.append(f"{path}: classes are registered by jaxmoe.typing.pytree")
        if "default_backend()" in text and path != "jaxmoe/execution.py":
            wrong.append(f"{path}: kernels follow the weights; see jaxmoe/execution.py")
        named = re.search(parts, text)
        reads_configs = path.startswith("jaxmoe/families/")
        if named and (_floor(path) or 0) > above and not reads_configs:
            wrong.append(
                f"{path}: {named[0]} belongs to a mixer; see jaxmoe/nn/base.py"
            )
    _report(wrong)


@pytest.mark.parametrize("module", ["jaxmoe", "convert"])
def test_import_is_light(module):
    """Who samples token ids would wait for libraries that are not used."""
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
