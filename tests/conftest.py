"""What every test runs under: strict ranks, no key drawn twice; typed shapes in CI.

`JAXMOE_REQUIRE_PARITY=1` makes a parity test that is skipped, or a run without any,
a failure; `.ci/run` sets it. The one skip it allows is for missing test data.
"""

import gc
import importlib.util
import os
import sys
import types
from pathlib import Path

import beartype
import jax
import jaxtyping
import pytest
from beartype.roar import BeartypeDecorHintPep673Exception

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED_DATA = REPOSITORY.parent / "shared" / "data"
PARITY_TESTS = REPOSITORY / "tests" / "parity"
DATA_MISSING = "test data missing: ../shared/data/"
LONGEST_FIRST = (
    "mesh/",
    "families/promises_test.py",
    "parity/families_test.py",
    "decode/",
    "sampling_test.py",
    "ops/",
    "benchmarks/",
    "nn/",
    "serve/",
    "router/",
)
"""Files that take long, whatever their number of tests: a worker that began one last
would be alone with it at the end."""
TYPED = (
    "analysis/",
    "families/promises_test.py",
    "nn/",
    "random/",
    "router/",
    "sampling_test.py",
    "sharding/",
)
"""What meets most annotations with shapes of arrays."""
REQUIRE_PARITY = os.environ.get("JAXMOE_REQUIRE_PARITY") == "1"


# An int where a float is asked for is fine, as PEP 484 has it.
_check_calls = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))


def _check(function):
    """beartype, but for methods that speak of `typing.Self`.

    It knows Self only where it decorates the whole class; the import hook decorates
    one method at a time.
    """
    try:
        return _check_calls(function)
    except BeartypeDecorHintPep673Exception:
        return function


# Annotations are checked at every call where JAXMOE_TYPE_CHECKS=1, as in one step of
# `.ci/run`, that of `TYPED`: it makes tracing a quarter slower, and refuses stand-ins.
# The hook has to precede the first import of what it checks, and wants the checker by a
# dotted name.
if os.environ.get("JAXMOE_TYPE_CHECKS") == "1":
    assert not {"jaxmoe", "convert"} & set(sys.modules), "jaxmoe came before its checks"
    _checks = types.ModuleType("_jaxmoe_checks")
    vars(_checks)["check"] = _check
    sys.modules[_checks.__name__] = _checks
    jaxtyping.install_import_hook(["jaxmoe", "convert"], f"{_checks.__name__}.check")

jax.config.update("jax_numpy_rank_promotion", "raise")


ALL_OPTIMISED = os.environ.get("JAXMOE_TEST_OPTIMISED") == "1"

# XLA's older emitter compiles small programs in four fifths of the time, and is what
# models run by on CPU (`jaxmoe.execution.compiler_options`); parts of a program that
# are compiled at once have no core of their own beside workers. A flag that XLA does
# not know ends the process.
FLAGS = [
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_parallel_codegen_split_count=1",
]
if not ALL_OPTIMISED:
    # Axes of small models are so short that LLVM unrolls loops over them whole: two
    # fifths of the time in which it optimises. A loop that is left does the same
    # operations in the same order, and is still vectorised.
    FLAGS += ["--xla_backend_extra_options=xla_cpu_disable_loop_unrolling"]
if jax.__version__.startswith("0.10."):
    given = os.environ.get("XLA_FLAGS", "").split()
    os.environ["XLA_FLAGS"] = " ".join(dict.fromkeys([*given, *FLAGS]))

# JAX makes objects by the thousand, few of them in cycles: with Python's thresholds
# collections take a tenth of the tests' time.
gc.set_threshold(100_000, 20, 100)

CACHE, KEPT_FROM = "jax_compilation_cache_dir", 0.1


def pytest_configure(config: pytest.Config) -> None:
    """Keep the order of files, and programs in a folder that workers and runs share.

    The one of JAX_COMPILATION_CACHE_DIR where that is set; else a folder beside
    pytest's own cache. JAX names a program by all that goes into it, versions and
    options too. Counting compilations still works: jax reports a program read from
    there as compiled, only sooner.
    """
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False  # xdist's order is by number of tests
    if getattr(jax.config, CACHE) is None and config.pluginmanager.hasplugin(
        "cacheprovider"
    ):
        folder = config.cache.mkdir("jax")  # type: ignore[union-attr]
        jax.config.update(CACHE, str(folder))
        os.environ[CACHE.upper()] = str(folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", KEPT_FROM)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = str(KEPT_FROM)


LARGE = 2.5e9
"""Bytes of a worker from which on it forgets programs that it has compiled."""


def _resident() -> int:
    """Bytes of this process; 0 where there is no /proc."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGESIZE")


@pytest.fixture(scope="session", autouse=True)
def _loop_of_large_experts():
    """The small models of tests run by the loop that large ones run by."""
    lanes = importlib.import_module("jaxmoe.ops.experts.lanes")
    lanes.LEAST_VALUES = 0  # type: ignore[attr-defined]


def pytest_collection_finish() -> None:
    """What is imported by now stays, and is not looked through again."""
    gc.freeze()


def _name(path: Path) -> str:
    """A file's path below tests/."""
    return path.as_posix().rpartition("/tests/")[2]


class _Compiler:
    optimised = True


def _is_optimised(item: pytest.Item) -> bool:
    marker = item.get_closest_marker("optimised")
    return ALL_OPTIMISED or (marker is not None and marker.args != (False,))


# Folding is no use of a key: one key may be folded any number of times, also inside
# vmap and loops (tried with jax 0.10.2). Drawing twice from a key, or indexing an
# array of keys after a draw from it, raises. So a test that repeats a draw on purpose
# rebuilds its key, or opens `jax.debug_key_reuse(False)`.
WITHOUT_KEYS = (
    "benchmarks/",
    "checkpoints/",
    "convert/",
    "nn/",
    "ops/",
    "parity/",
    "router/per_slot_test.py",
    "router/plackett_luce_test.py",
    "router/policies_test.py",
    "router/resolve_test.py",
    "router/scores_test.py",
)
"""What draws nothing, or as others do. Where keys are watched, jax takes its slow path
for every call: a fifth of such a file's time."""


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Say whether keys may be drawn from twice, and how programs are compiled.

    Those of other tests go where that changes.

    What LLVM optimises takes half of a test's time, and most tests are of what programs
    compute. Where equal bits are promised or machine code is looked at, the marker
    `optimised` has them compiled as users' programs are, but for unrolled loops
    (`FLAGS`); JAXMOE_TEST_OPTIMISED=1 has all of them compiled just as users' are.
    """
    watched = not _name(item.path).startswith(WITHOUT_KEYS)
    jax.config.update("jax_debug_key_reuse", watched)
    optimised = _is_optimised(item)
    if optimised != _Compiler.optimised:
        # A look at optimised code, whose result is kept.
        importlib.import_module("jaxmoe.execution").lanes_found()
        jax.clear_caches()
        jax.config.update("jax_disable_most_optimizations", not optimised)
        _Compiler.optimised = optimised


@pytest.fixture(scope="module", autouse=True)
def _bounded_memory():
    """Programs go where they pile up: a worker would hold 5 GB of them at the end."""
    yield
    if _resident() > LARGE:
        jax.clear_caches()
        gc.collect()


# -- figures -----------------------------------------------------------------------


@pytest.fixture(scope="session")
def matplotlib():
    """The library; without it, tests that draw are skipped."""
    return pytest.importorskip(
        "matplotlib", reason='no matplotlib; pip install "jaxmoe[plots]" adds it'
    )


# -- parity ------------------------------------------------------------------------


def _missing_parity_packages() -> list[str]:
    names = ("torch", "transformers")
    return [name for name in names if importlib.util.find_spec(name) is None]


def pytest_report_header() -> str | None:
    """Say at the top why parity tests are not there."""
    missing = _missing_parity_packages()
    if not missing:
        return None
    return (
        f"parity tests left out: no {', '.join(missing)}; "
        'pip install -e ".[parity]" adds them'
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out tests/parity where its packages are missing, or nobody asks for it.

    Importing torch and transformers takes as long as all other test files.
    """
    if PARITY_TESTS not in collection_path.parents:
        return None
    named = any("parity" in argument for argument in config.args)
    unasked = "not parity" in config.option.markexpr and not named
    return True if unasked or _missing_parity_packages() else None


def _rank(path: Path) -> int:
    """Where a file stands in `LONGEST_FIRST`."""
    starts = enumerate(LONGEST_FIRST)
    found = (i for i, start in starts if _name(path).startswith(start))
    return next(found, len(LONGEST_FIRST))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests/parity, what needs an extra, and `TYPED`, before `-m` selects.

    Of each file the tests that are compiled alike follow one another.
    """
    # Once a file: there are thousands of items.
    paths = dict.fromkeys(item.path for item in items)
    place = {path: (_rank(path), i) for i, path in enumerate(paths)}
    parity = {path for path in paths if PARITY_TESTS in path.parents}
    typed = {path for path in paths if _name(path).startswith(TYPED)}
    items.sort(key=lambda item: (place[item.path], _is_optimised(item)))
    for item in items:
        if item.path in parity:
            item.add_marker("parity")
        if item.path in typed:
            item.add_marker("typed")
        if "matplotlib" in getattr(item, "fixturenames", ()):
            item.add_marker("extras")


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    return str(getattr(report, "wasxfail", report.longrepr))


def _data_is_missing(reason: str) -> bool:
    name = reason.removeprefix(DATA_MISSING)
    return name != reason and not (SHARED_DATA / name).exists()


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    reason = _reason(report)
    if report.skipped and not _data_is_missing(reason):
        report.outcome = "failed"
        report.longrepr = f"a parity test was skipped: {reason}"
        vars(report).pop("wasxfail", None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    """Turn a skipped parity test into a failed one where parity is required."""
    report = yield
    if REQUIRE_PARITY and item.get_closest_marker("parity"):
        _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector):
    """Do the same for a whole file that skips itself."""
    report = yield
    if REQUIRE_PARITY and PARITY_TESTS in collector.path.parents:
        _refuse_skip(report)
    return report


class _ParityCount:
    passed = 0


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Count the parity tests that passed (in the main process under xdist)."""
    if report.when == "call" and report.passed and "parity" in report.keywords:
        _ParityCount.passed += 1


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail a run that was to prove parity and ran no such test."""
    is_worker = hasattr(session.config, "workerinput")
    finished = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
    listing = session.config.option.collectonly
    proving = REQUIRE_PARITY and finished and not (is_worker or listing)
    if proving and _ParityCount.passed == 0:
        print("\nJAXMOE_REQUIRE_PARITY=1, but no parity test passed")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


# -- fixtures ----------------------------------------------------------------------


@pytest.fixture(scope="session")
def shared_data():
    """A function from a name to a file or folder of ../shared/data, or a skip."""

    def find(name: str) -> Path:
        if not (SHARED_DATA / name).exists():
            pytest.skip(DATA_MISSING + name)
        return SHARED_DATA / name

    return find


@pytest.fixture(scope="session")
def qwen3_tokenizer_dir(shared_data) -> Path:
    """The published Qwen3 tokenizer: tokenizer.json and tokenizer_config.json."""
    return shared_data("qwen3-tokenizer")


@pytest.fixture
def untyped():
    """Switch annotation checks off, to see the errors that a user sees.

    A wrong type would otherwise stop at beartype with its message (a TypeError too).
    """
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
