"""Options: which questions, and how answers to them are drawn."""

import argparse
from pathlib import Path
from typing import Any

from jaxmoe.cli.sampling_options import seed
from jaxmoe.decode.sampler import TokenSampler
from jaxmoe.demo.game_runs import room_of
from jaxmoe.evals.draw import Draw
from jaxmoe.evals.tasks import GYM, TASKS
from jaxmoe.router.policies import Policy

DEMO_TASK = "countdown"
"""The demo's own task, which evals does not know."""
MAX_NEW_TOKENS = 4096
"""Of an answer, where the task is not the demo's."""


class _Names(tuple[str, ...]):
    """Names of tasks; that of any data set of reasoning-gym is among them."""

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or str(name).startswith(GYM)


def add_task_options(parser: argparse.ArgumentParser) -> None:
    """Adds --task and what goes with it."""
    group = parser.add_argument_group("questions")
    add = group.add_argument
    add(
        "--task",
        choices=_Names((DEMO_TASK, *TASKS)),
        default=DEMO_TASK,
        help="`jaxmoe list tasks` says what each asks (default: countdown)",
    )
    add_data_options(group)


def add_data_options(group: Any) -> None:
    """Adds --data and what goes with it, whatever the task is."""
    add = group.add_argument
    data = "JSON lines, one question each, here or at gs:// (default: the task's own, "
    data += "for countdown and reasoning-gym)"
    add("--data", metavar="FILE", type=Path, help=data)
    problems = "only the first P (default: all); of reasoning-gym, how many are made "
    problems += "(default: 500)"
    add("--problems", type=int, metavar="P", help=problems)
    made = "seed of the questions that reasoning-gym makes (default: 0)"
    add("--data-seed", type=seed, default=0, help=made)
    skip = "go on without rows that the task cannot read, and say how many"
    add("--skip-bad-rows", action="store_true", help=skip)
    split = "of the demo's own questions (default: test)"
    add("--split", choices=("test", "validation"), default="test", help=split)
    template = "a prompt in place of the task's, with the row's fields as {field}"
    add("--template", metavar="FILE", type=Path, help=template)
    thinking = "whether answers begin with reasoning, where the chat template can tell"
    add("--thinking", action=argparse.BooleanOptionalAction, help=thinking)
    code = "run the programs that the model writes (task code), kept apart by "
    code += "bubblewrap or Linux namespaces"
    add("--allow-code", action="store_true", help=code)
    unsafe = "run them even where only Python's audit hook, which they can get round, "
    unsafe += "keeps them in their place"
    add("--unsafe-code", action="store_true", help=unsafe)


def add_draw_options(parser: argparse.ArgumentParser) -> None:
    """Adds how many answers are drawn, from which seed, how long."""
    add = parser.add_argument
    add("--n", type=int, default=32, help="answers to each question (default: 32)")
    add("--seed", type=seed, default=0, help="0..2**32 - 1 (default: 0)")
    most = f"of an answer (default: {MAX_NEW_TOKENS}; for countdown one try's, "
    most += f"{room_of('demo')}, and with demo-tries {room_of('demo-tries')})"
    add("--max-new-tokens", type=int, metavar="N", help=most)
    add("--slots", type=int, metavar="S", help="side by side (default: 64 or fewer)")
    add("--noisy-prefill", action="store_true", help="route prompts with noise too")


def draw_of(args: argparse.Namespace, policy: Policy, sampler: TokenSampler) -> Draw:
    """How answers are drawn."""
    game = args.task == DEMO_TASK
    default = room_of(args.checkpoint) if game else MAX_NEW_TOKENS
    most = default if args.max_new_tokens is None else args.max_new_tokens
    numbers = (args.n, most, args.seed, args.slots, args.noisy_prefill)
    return Draw(policy, sampler, *numbers)
