"""Tests of programs out of rows, as LiveCodeBench, HumanEval and MBPP have them."""

import base64
import binascii
import io
import keyword
import pickle
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxmoe.evals.tasks.outputs import read_json
from jaxmoe.evals.tasks.prompts import from_cell, shown, text_of, value_of

_MOST_TEST_BYTES = 1 << 29
"""Of one problem's tests once they are unpacked."""


@dataclass(frozen=True)
class Case:
    """Input and expected output of one run; JSON values where a function is called.

    Where the kind of tests is "script", the input is Python that raises unless the
    program before it is right, and there is no output.
    """

    input: str
    output: str


@dataclass(frozen=True)
class CodeRow:
    """A row's problem. kind: "stdin", "functional" (of `name`) or "script"."""

    text: str
    tests: tuple[Case, ...]
    kind: str
    name: str | None
    starter: str


def read_row(row: Mapping[str, Any]) -> CodeRow:
    """The problem of a row in any of the forms that `CodeTask.fields` lists.

    Raises:
      ValueError: a field that is missing or cannot be used.
    """
    if "entry_point" in row and "test" in row:
        return _human_eval(row)
    if "test_list" in row:
        return _mbpp(row)
    name = _function_name(row)
    tests, functional = _tests(_given_tests(row), name)
    starter = _starter_code(row)
    if functional and not starter:
        starter = f"def {name}(...):\n    ..."
    return CodeRow(
        text_of(row, "question", "question_content").strip(),
        tests,
        "functional" if functional else "stdin",
        name if functional else None,
        starter,
    )


def _human_eval(row: Mapping[str, Any]) -> CodeRow:
    """A function to complete, and `check(function)`, which asserts."""
    name, starter = text_of(row, "entry_point").strip(), text_of(row, "prompt")
    if not _is_name(name):
        raise ValueError(
            f'expected the name of a function in "entry_point", found {shown(name)}; '
            "correct it"
        )
    script = f"{text_of(row, 'test')}\n\ncheck({name})\n"
    text = "Complete this function."
    return CodeRow(text, (Case(script, ""),), "script", name, starter.rstrip())


def _mbpp(row: Mapping[str, Any]) -> CodeRow:
    """A task in words, and a list of assertions, the first of which shows the name."""
    checks = from_cell(value_of(row, "test_list"))
    more = from_cell(row.get("challenge_test_list")) or []
    if not _are_texts(checks) or not checks or not _are_texts(more):
        raise ValueError(
            f'expected a list of assertions in "test_list", found {shown(checks)}; '
            "write them there"
        )
    imports = from_cell(row.get("test_imports")) or []
    setup = [
        *(imports if _are_texts(imports) else []),
        row.get("test_setup_code") or "",
    ]
    tests = tuple(Case("\n".join([*map(str, setup), c]), "") for c in [*checks, *more])
    text = text_of(row, "prompt", "text").strip()
    return CodeRow(text, tests, "script", None, f"# must pass:\n{checks[0]}")


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _given_tests(row: Mapping[str, Any]) -> Any:
    """`tests`, or the public and private ones of LiveCodeBench."""
    if "tests" in row or "public_test_cases" not in row:
        return value_of(row, "tests")
    public = parsed(row["public_test_cases"], "public_test_cases")
    private = _private_tests(row.get("private_test_cases") or "[]")
    if not isinstance(public, list) or not isinstance(private, list):
        raise ValueError(
            'expected lists in "public_test_cases" and "private_test_cases", found '
            f"{shown(public)} and {shown(private)}; correct them"
        )
    return [*public, *private]


class _PlainUnpickler(pickle.Unpickler):
    """Builds texts, numbers, lists and dicts, and nothing that has a class."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} is no plain data")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("a reference is no plain data")


def _private_tests(value: Any) -> Any:
    """JSON, or base64 of the zlib of a pickle of JSON text, as LiveCodeBench packs."""
    if not isinstance(value, str) or value.lstrip()[:1] in ("[", "{"):
        return parsed(value, "private_test_cases")
    try:
        packed = zlib.decompressobj()
        raw = packed.decompress(
            base64.b64decode("".join(value.split()), validate=True), _MOST_TEST_BYTES
        )
        if not packed.eof:
            raise ValueError(f"more than {_MOST_TEST_BYTES >> 20} MB, or cut off")
        plain = _PlainUnpickler(io.BytesIO(raw)).load()
    except (binascii.Error, zlib.error, MemoryError, RecursionError) as error:
        raise _unreadable(error) from None
    except Exception as error:  # a broken pickle raises anything
        raise _unreadable(error) from None
    if isinstance(plain, bytes):
        plain = plain.decode(errors="replace")
    return parsed(plain, "private_test_cases")


def _unreadable(error: BaseException) -> ValueError:
    return ValueError(
        'expected JSON, or base64 of compressed tests, in "private_test_cases", found '
        f"something else ({error}); take the row from LiveCodeBench's own files"
    )


def _function_name(row: Mapping[str, Any]) -> str | None:
    name = row.get("fn_name")
    if name is None:
        metadata = row.get("metadata") or {}
        metadata = parsed(metadata, "metadata")
        name = metadata.get("func_name") if isinstance(metadata, Mapping) else None
    if name is not None and not _is_name(name):
        raise ValueError(
            f'expected the name of a function in "fn_name", found {shown(name)}; '
            "correct it, or leave it out where programs read standard input"
        )
    return name


def _is_name(name: Any) -> bool:
    """Whether a function can be called so: `class` is none."""
    text = isinstance(name, str)
    return text and name.isidentifier() and not keyword.iskeyword(name)


def _starter_code(row: Mapping[str, Any]) -> str:
    code = row.get("starter_code")
    if code is not None and not isinstance(code, str):
        raise ValueError(
            f'expected text in the field "starter_code", found {shown(code)}; write '
            "the code there, or leave the field out"
        )
    return (code or "").rstrip()


def _tests(value: Any, name: str | None) -> tuple[tuple[Case, ...], bool]:
    """The tests, and whether they call a function."""
    rows = parsed(value, "tests")
    if not isinstance(rows, list) or not rows:
        raise ValueError(
            f'expected a list of one or more tests in "tests", found {shown(value)}; '
            "write them there"
        )
    default = "stdin" if name is None else "functional"
    kinds = set()
    for index, row in enumerate(rows):
        given = row if isinstance(row, Mapping) else {}
        if not all(isinstance(given.get(end), str) for end in ("input", "output")):
            raise ValueError(
                f'expected texts "input" and "output" in test {index}, found '
                f"{shown(row)}; correct the test"
            )
        kind = given.get("testtype")
        if kind is not None and not isinstance(kind, str):
            raise ValueError(
                f'expected text as "testtype" of test {index}, found {shown(kind)}; '
                'write "stdin" or "functional" there, or leave it out'
            )
        kinds.add(kind or default)
    if kinds not in ({"stdin"}, {"functional"}):
        raise ValueError(
            'expected the "testtype" of all tests to be "stdin", or of all to be '
            f'"functional", found {shown(sorted(kinds))}; correct them, or '
            "split the problem"
        )
    functional = kinds == {"functional"}
    if functional and name is None:
        raise ValueError(
            'expected the function that functional tests call in "fn_name", found '
            "none; write its name there"
        )
    tests = tuple(Case(row["input"], row["output"]) for row in rows)
    for index, test in enumerate(tests if functional else ()):
        for text in (*lines_of(test.input), test.output):
            parsed(text, f"test {index}")
    return tests, functional


def lines_of(text: str) -> list[str]:
    """The lines of a functional test's input: an argument each."""
    return [line for line in text.split("\n") if line.strip()]


def parsed(value: Any, place: str) -> Any:
    """The value of JSON text; what is no text is taken as it is."""
    if not isinstance(value, str):
        return value
    try:
        return read_json(value)
    except (ValueError, RecursionError):
        raise ValueError(
            f'expected JSON in "{place}", found {shown(value)}; correct it'
        ) from None
