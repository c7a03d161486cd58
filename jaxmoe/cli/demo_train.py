"""Trains the demo model, anew or on; a killed run goes on where it was saved."""

import argparse
import dataclasses
import os
from pathlib import Path

import jax

from jaxmoe.cli.fields import add_field, fields_of, given, help_of, option_of
from jaxmoe.decode.inputs import check_whole
from jaxmoe.demo.encoding import PROMPT_LENGTH
from jaxmoe.demo.game_runs import room_for
from jaxmoe.demo.network import HF_CONFIG
from jaxmoe.demo.recipe import Recipe, Shapes
from jaxmoe.demo.training_start import Start, right_answers, weights_from
from jaxmoe.execution import cores
from jaxmoe.router.policies import POLICIES

EPILOG = """\
Writes OUT/log.jsonl as it goes, and at the end OUT/hf, a Hugging Face directory, and
OUT/problems.json. The model demo is made by `jaxmoe demo train OUT` and copied from
there; demo-tries by `--from demo --tries 6 --batch 64 --learning-rate 0.0015 --steps
6000 --seed 1`. `--from demo --policy expert-sample` trains it on with the policy's
noise; with --answers on right answers that a model has drawn itself."""
SMOKE = {"steps": 60, "batch": 32, "warm_up": 10}
OPTIONS = ("steps", "batch", "learning_rate", "warm_up", "balance", "seed", "tries")
"""Fields of `Recipe` that can be changed."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """All options."""
    out = "the directory to train in (default: demo-training, or demo-smoke)"
    parser.add_argument("out", metavar="OUT", type=Path, nargs="?", help=out)
    for name in OPTIONS:
        said = f"{help_of(Recipe)[name]} (default: {fields_of(Recipe)[name].default})"
        add_field(parser, Recipe, name, help=said)
    policy = "how an answer's tokens are routed in training (default: topk)"
    parser.add_argument("--policy", choices=POLICIES, help=policy)
    begin = "weights to begin from: demo, demo-tries, or OUT/hf of another run"
    parser.add_argument("--from", dest="start", metavar="CKPT", help=begin)
    answers = "train on the first right answer to each problem of this run alone "
    answers += "(`jaxmoe evaluate --task countdown`; see `jaxmoe demo problems`)"
    parser.add_argument("--answers", metavar="RUN", type=Path, help=answers)
    for name, field in fields_of(Shapes).items():
        said = f"{help_of(Shapes)[name]} (default: {field.default})"
        add_field(parser, Shapes, name, help=said)
    smoke = "a run of a minute or two that fails unless the loss falls by half"
    parser.add_argument("--smoke", action="store_true", help=smoke)


def run(args: argparse.Namespace) -> int:
    """Trains: 0 if done, 1 if a smoke run learnt nothing."""
    use_cores()
    # Imported late: it needs the extra `train`.
    from jaxmoe.demo import logged_run

    smoke = SMOKE if args.smoke else {}
    changed = given(args, [*OPTIONS, "policy"])
    recipe = dataclasses.replace(Recipe(), **smoke | changed)
    _check_tries(recipe, args)
    default = Path("demo-smoke" if args.smoke else "demo-training")
    shapes, start = _start(args)
    records = logged_run.run(args.out or default, recipe, shapes, start)
    if args.smoke and not records[-1].entropy < records[0].entropy / 2:
        print("the loss should have halved")
        return 1
    return 0


def _check_tries(recipe: Recipe, args: argparse.Namespace) -> None:
    """Raises ValueError for tries that cannot be trained."""
    check_whole("--tries", recipe.tries)
    longest = PROMPT_LENGTH + room_for(recipe.tries)
    context = HF_CONFIG["max_position_embeddings"]
    if longest > context:
        raise ValueError(
            f"--tries {recipe.tries}: a problem and its answer have up to {longest} "
            f"tokens, the model {context}; give fewer"
        )
    if recipe.tries > 1 and args.answers is not None:
        raise ValueError(
            "--tries goes with all answers of the training sets, found --answers, "
            "which has none that fail; leave one of them out"
        )


def _start(args: argparse.Namespace) -> tuple[Shapes, Start]:
    """Shapes, weights and answers of the run."""
    chains = None if args.answers is None else right_answers(args.answers)
    asked = given(args, [*fields_of(Shapes)])
    if args.start is None:
        return Shapes(**asked), Start(chains=chains)
    if asked:
        first = option_of(next(iter(asked)))
        raise ValueError(f"--from has its own experts, found {first} beside it")
    params, digest, shapes = weights_from(args.start)
    return shapes, Start(params, digest, chains)


def use_cores() -> None:
    """A device for each core: XLA's threads make little of products this small."""
    flag = "--xla_cpu_multi_thread_eigen=false"
    os.environ["XLA_FLAGS"] = f"{flag} {os.environ.get('XLA_FLAGS', '')}"
    jax.config.update("jax_num_cpu_devices", cores())
