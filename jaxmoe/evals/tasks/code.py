"""Programming problems: programs that the model writes, run against tests.

The conventions are LiveCodeBench's (Jain et al. 2024, arXiv 2403.07974), with these
differences: every test is a process of its own, so nothing is carried from one to the
next; time is counted from the start of Python; an exit code other than 0 fails; NumPy
is not there, only the standard library; and floats, printed or returned, need not be
equal to the last digit (`outputs.py`).

The tests' outputs never reach the process that runs a program, so a program can only
pass by computing them. What keeps it from doing harm is said in `sandbox.py`.

That holds for assertions, too (HumanEval, MBPP): they run in a process of their own and
call the program in another, which sees the arguments (`assertions_child.py`). Arguments
that a program changes in place are therefore not changed for the assertions, which
cannot pass functions of their own either.
"""

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from jaxmoe.evals.sandbox import (
    Limits,
    Outcome,
    available_isolation,
    run_program,
    run_together,
)
from jaxmoe.evals.tasks.base import Grade, Question
from jaxmoe.evals.tasks.code_rows import Case, lines_of, read_row
from jaxmoe.evals.tasks.outputs import same_json, same_output
from jaxmoe.evals.tasks.programs import program_of
from jaxmoe.evals.tasks.prompts import fill
from jaxmoe.evals.tasks.reasoning import answer_in

STDIN_PROMPT = """\
Solve the following programming problem in Python 3.

{question}

The program reads its input from standard input and prints its output to standard \
output, in the form that the problem describes and with nothing else. Put the whole \
program into one code block at the end of your answer, like this:

```python
# the program
```"""

FUNCTION_PROMPT = """\
Solve the following programming problem in Python 3.

{question}

Complete the code below without changing its names or arguments; it is called, not run \
as a program.

```python
{starter_code}
```

Put the whole code into one code block at the end of your answer, like this:

```python
# the code
```"""

# The modules whose names LiveCodeBench's runner puts before a program, since models
# write List[int] without an import. builtins comes last, or `pow` would be math's. exit
# and quit are usually there by the module site, which the sandbox leaves out.
_STARRED = (
    *("typing", "string", "re", "datetime", "collections", "heapq", "bisect", "copy"),
    *("math", "random", "statistics", "itertools", "functools", "operator", "io"),
    *("sys", "json", "builtins"),
)
# The sandbox has no /dev/stdin, or one that may not be opened again.
_DEVICES = """
def _serve_devices(known):
    import builtins, io, os
    really_open = io.open
    def open(file, *arguments, **options):
        if isinstance(file, (str, os.PathLike)) and os.fspath(file) in known:
            file = os.dup(known[os.fspath(file)])
        return really_open(file, *arguments, **options)
    builtins.open = io.open = open
    return open
open = _serve_devices({"/dev/stdin": 0, "/dev/stdout": 1, "/dev/fd/0": 0,
                       "/proc/self/fd/0": 0})
"""
PRELUDE = (
    "".join(f"from {name} import *\n" for name in _STARRED)
    + f"import {', '.join(_STARRED)}\nsys.setrecursionlimit(50_000)\n"
    + "sys.set_int_max_str_digits(0)\n"
    + "exit = quit = sys.exit\n"
    + _DEVICES
)

# The program's own prints go nowhere: the descriptor of the result is one of its own.
# Leaving by os._exit, so that threads or exit handlers cannot spoil a result given.
_CALL = """
def serve():
    import json, os, sys, types
    sys.set_int_max_str_digits(0)
    encode, write, leave = json.dumps, os.write, os._exit
    nonce, prelude, program, name, lines = json.load(sys.stdin)
    result, nothing = os.dup(1), os.open("/dev/null", os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    arguments = [json.loads(line) for line in lines]
    module = sys.modules["solution"] = types.ModuleType("solution")
    exec(prelude, vars(module))
    exec(compile(program, "program.py", "exec", dont_inherit=True), vars(module))
    owner = module
    if hasattr(getattr(module, "Solution", None), name):
        owner = module.Solution()
    left = (nonce + encode(getattr(owner, name)(*arguments))).encode()
    while left:
        left = left[write(result, left):]
    leave(0)
serve()
"""

_ASSERTIONS = Path(__file__).with_name("assertions_child.py")


@dataclass(frozen=True)
class CodeTask:
    """A program is right if it passes all tests of its problem.

    `programs.program_of` says which part of an answer is the program. Tests run in turn
    until one fails. A grade's answer is the digest of the program, less blank lines and
    blanks at the ends of lines, so that votes count equal programs. Details: status
    ("passed", "no program", "wrong answer", "no result" where a called function never
    returned to its caller, or the sandbox's status of the run that failed), passed
    (tests before the first that failed), tests, failed (the index of that one; None
    where none failed or none ran).

    Question.answer holds the tests, its details their `kind` and `fn_name`, the name of
    the function, or None.
    Grades may be given by several threads at the same time.

    allow: whether programs may be run at all. limits: of one test. seconds: of all
    tests of one answer together. isolation: as `run_program` has it. unsafe: where
    neither bubblewrap nor namespaces work, Python's audit hook will do.
    """

    allow: bool = False
    limits: Limits = Limits()
    seconds: float = 60.0
    isolation: str | None = None
    unsafe: bool = False
    name: str = "code"
    chat: bool = True

    @property
    def isolation_used(self) -> str:
        """The isolation of programs: `isolation`, or the best available.

        Raises:
          RuntimeError: this machine has nothing that would.
        """
        return self.isolation or available_isolation(unsafe=self.unsafe)

    @property
    def fields(self) -> Mapping[str, str]:
        """See `Task`."""
        return {
            "question": "the problem's text (\"question_content\" too); or HumanEval's "
            '"prompt", "test" and "entry_point"; or MBPP\'s "prompt" ("text" too) and '
            '"test_list"',
            "tests": 'a list, or its JSON text, of {"input": text, "output": text, '
            '"testtype": "stdin" or "functional"}; functional ones have one JSON value '
            'per line of input, and one as output ("public_test_cases" and '
            '"private_test_cases" too, as LiveCodeBench packs them)',
            "fn_name": "optional: the function that functional tests call, of the "
            'class Solution where there is one ("func_name" in "metadata" too)',
            "starter_code": "optional: code that the model is to complete",
            "id": "optional: a name of its own, unique in the file",
        }

    def question(
        self, row: Mapping[str, Any], *, id: str, seed: int, template: str | None
    ) -> Question:
        """See `Task`; a template holds {question} and, if need be, {starter_code}.

        Raises:
          ValueError: also where programs may not be run.
          RuntimeError: the machine has no way to isolate programs.
        """
        self._check_allowed()
        problem = read_row(row)
        own = STDIN_PROMPT if problem.kind == "stdin" else FUNCTION_PROMPT
        values = {"question": problem.text, "starter_code": problem.starter}
        prompt = fill(template or own, values, optional=frozenset({"starter_code"}))
        details = {"fn_name": problem.name, "kind": problem.kind}
        return Question(id, prompt, problem.tests, id, details)

    def grade(self, question: Question, text: str) -> Grade:
        """See `Task`; runs the program, for up to `seconds`.

        Raises:
          ValueError: programs may not be run.
          RuntimeError: the machine cannot run programs under limits.
        """
        self._check_allowed()
        program, tests = program_of(answer_in(text)), question.answer
        if program is None:
            return Grade(None, False, _details("no program", 0, tests, None))
        deadline = time.monotonic() + self.seconds
        answer = digest_of(program)
        for index, test in enumerate(tests):
            status = self._run(program, test, question.details, deadline)
            if status != "passed":
                return Grade(answer, False, _details(status, index, tests, index))
        return Grade(answer, True, _details("passed", len(tests), tests, None))

    def _run(
        self, program: str, test: Case, details: Mapping[str, Any], deadline: float
    ) -> str:
        """The status of one test."""
        left = deadline - time.monotonic()
        if left <= 0:
            return "timeout"
        limits = replace(self.limits, seconds=min(self.limits.seconds, left))
        kind = details["kind"]
        if kind == "script":
            return self._run_assertions(program, test, details["fn_name"], limits)
        if kind == "stdin":
            # Run as if it stood alone: `exec` in the true __main__.
            code = (
                f"exec(compile({program!r}, 'program.py', 'exec', dont_inherit=True))"
            )
            outcome = self._outcome(PRELUDE + code, test.input, limits)
            right = outcome.status == "ok" and same_output(outcome.stdout, test.output)
            missing = False
        else:
            nonce = secrets.token_hex(16)
            name, lines = details["fn_name"], lines_of(test.input)
            given = [nonce, PRELUDE, program, name, lines]
            outcome = self._outcome(_CALL, json.dumps(given), limits)
            missing = not outcome.stdout.startswith(nonce)
            right = not missing and same_json(outcome.stdout[len(nonce) :], test.output)
        if outcome.status != "ok":
            return outcome.status
        return "no result" if missing else "passed" if right else "wrong answer"

    def _run_assertions(
        self, program: str, test: Case, name: str | None, limits: Limits
    ) -> str:
        """The status of assertions, which nothing but their own end can pass."""
        source = _ASSERTIONS.read_text(encoding="utf-8")
        asking = f"{source}\nask({test.input!r}, {name!r})\n"
        answering = f"{source}\nanswer({PRELUDE!r}, {program!r})\n"
        asked, answered = run_together(
            (asking, answering), limits=limits, isolation=self.isolation_used
        )
        if asked.status == "ok":
            return "passed"
        if answered.status != "ok":
            return answered.status
        last = asked.stderr.rstrip().rpartition("\n")[2]
        return "no result" if last.startswith("EOFError") else asked.status

    def _outcome(self, program: str, stdin: str, limits: Limits) -> Outcome:
        return run_program(
            program, stdin=stdin, limits=limits, isolation=self.isolation_used
        )

    def _check_allowed(self) -> None:
        if not self.allow:
            raise ValueError(
                "expected permission to run code for the task code, found none; pass "
                "--allow-code; it runs programs that the model wrote"
            )
        self.isolation_used  # noqa: B018  raises before any answer is drawn


def digest_of(program: str) -> str:
    """SHA-256 of a program, less blank lines and blanks at the ends of lines; hex."""
    lines = [line.rstrip() for line in program.split("\n")]
    kept = "\n".join(filter(None, lines))
    return sha256(kept.encode(errors="replace")).hexdigest()


def _details(
    status: str, passed: int, tests: Sequence[Case], failed: int | None
) -> dict[str, Any]:
    return {"status": status, "passed": passed, "tests": len(tests), "failed": failed}
