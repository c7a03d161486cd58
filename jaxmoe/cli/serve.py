"""Serves a checkpoint over HTTP, in the shape of OpenAI's API.

Needs the extra `serve`: pip install "jaxmoe[serve]". jaxmoe/docs/serving.md has the
fields of requests, and curl's and Python's side of it.
"""

import argparse
import gc
import logging
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from jaxmoe.cli.endings import command
from jaxmoe.cli.mesh_options import add_mesh_options, load_model
from jaxmoe.cli.policy_options import add_policy_options, policy_of

if TYPE_CHECKING:
    from jaxmoe.serve.build import Named, Shapes

KEY_VARIABLE = "JAXMOE_API_KEY"
EPILOG = f"""\
On SIGTERM or Ctrl-C nothing new is taken, and answers under way have --grace seconds to
finish. An API key is asked for where {KEY_VARIABLE} or --api-key-file gives one."""


def parser() -> argparse.ArgumentParser:
    """All options."""
    made = argparse.ArgumentParser("jaxmoe serve", description=__doc__, epilog=EPILOG)
    checkpoint = "made by `jaxmoe convert`, or Hugging Face's, or demo (default: demo)"
    made.add_argument(
        "checkpoint", metavar="CKPT", nargs="?", default="demo", help=checkpoint
    )
    _add_address(made)
    _add_shapes(made)
    _add_limits(made)
    add_policy_options(made)
    add_mesh_options(made)
    dtype = "of the weights in memory (default: as the checkpoint has them)"
    made.add_argument("--dtype", choices=("bfloat16", "float32"), help=dtype)
    return made


def _add_address(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("address").add_argument
    host = "to listen on; 0.0.0.0 for other machines too (default: 127.0.0.1)"
    add("--host", default="127.0.0.1", help=host)
    add("--port", type=int, default=8000, help="0 for any (default: 8000)")
    name = "what requests call the model (default: CKPT)"
    add("--served-model-name", metavar="NAME", help=name)
    keys = "a file of keys, one a line, of which each request must have one"
    add("--api-key-file", metavar="FILE", type=Path, help=keys)
    grace = "for answers under way when the server stops (default: 30)"
    add("--grace", type=float, metavar="SECONDS", default=30.0, help=grace)


def _add_shapes(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("shapes").add_argument
    add("--slots", type=int, default=64, help="answers side by side (default: 64)")
    queue = "answers that may wait for a slot; more get 429 (default: 1024)"
    add("--queue", type=int, metavar="N", default=1024, help=queue)
    segment = "tokens of each answer between two looks of the host (default: 8)"
    add("--segment", type=int, metavar="N", default=8, help=segment)
    at_once = "to make room for at once; longer ones compile anew (default: 1024)"
    add("--prompt-tokens", type=int, metavar="N", default=1024, help=at_once)
    add("--answer-tokens", type=int, metavar="N", default=1024, help=at_once)
    batch = "prompts of like length in one pass, a power of two (default: 1)"
    add("--prefill-batch", type=int, metavar="N", default=1, help=batch)


def _add_limits(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("limits of a request").add_argument
    context = "(default: what the context holds)"
    add("--max-prompt-tokens", type=int, metavar="N", help=f"of a prompt {context}")
    add("--max-tokens", type=int, metavar="N", help=f"of an answer {context}")
    choices = "answers, over all its prompts (default: 128)"
    add("--max-choices", type=int, metavar="N", default=128, help=choices)
    logprobs = "most likely tokens at a position; 0 records none (default: 20)"
    add("--max-logprobs", type=int, metavar="N", default=20, help=logprobs)
    routes = "record no experts: return_routes and routes are refused"
    add("--no-routes", action="store_true", help=routes)
    body = "megabytes of its body (default: 16)"
    add("--max-body-mb", type=int, metavar="N", default=16, help=body)


@command
def main(argv: list[str] | None = None) -> int:
    """Runs the command: 0 after SIGTERM, 2 on wrong input, 130 on Ctrl-C."""
    args = parser().parse_args(argv)
    try:
        from jaxmoe.serve.app import Guards
        from jaxmoe.serve.build import make_service
        from jaxmoe.serve.server import make_server
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"serving needs {error.name}, which is not installed; pip install "
            '"jaxmoe[serve]"'
        ) from None
    logging.basicConfig(format="%(asctime)s %(message)s")
    logging.getLogger("jaxmoe").setLevel(logging.INFO)
    shapes, named = shapes_of(args), named_of(args)
    guards = Guards(keys=keys_of(args), body_bytes=args.max_body_mb << 20)
    service = make_service(load_model(args, dtype=args.dtype), shapes, named)
    server = make_server(
        service, guards, host=args.host, port=args.port, grace=args.grace
    )
    _prepare_process()
    server.run()
    return 130 if server.interrupted else 0


def _prepare_process() -> None:
    """Settings of a process that does nothing but serve."""
    # Python's own 0.005 s would have the engine wait so long for the event loop,
    # several times a segment.
    sys.setswitchinterval(0.0005)
    # What is there now stays: to look through it again and again takes long.
    gc.collect()
    gc.freeze()


def shapes_of(args: argparse.Namespace) -> "Shapes":
    """What decides which programs are compiled."""
    from jaxmoe.serve.build import Shapes

    names = ("slots", "queue", "segment", "prompt_tokens", "answer_tokens")
    given = {name: getattr(args, name) for name in (*names, "prefill_batch")}
    for name in names:
        if given[name] < (0 if name == "queue" else 1):
            raise ValueError(f"--{name.replace('_', '-')} is too small: {given[name]}")
    return Shapes(**given)


def named_of(args: argparse.Namespace) -> "Named":
    """Name, default policy and limits."""
    from jaxmoe.serve.build import Named
    from jaxmoe.serve.request_reader import Limits

    limits = Limits(
        prompt_tokens=args.max_prompt_tokens,
        answer_tokens=args.max_tokens,
        choices=args.max_choices,
        logprobs=args.max_logprobs,
        routes=not args.no_routes,
    )
    name = args.served_model_name or args.checkpoint
    return Named(name, policy_of(args), limits)


def keys_of(args: argparse.Namespace) -> tuple[bytes, ...]:
    """API keys from the environment and the file; none where none is needed.

    Raises:
      ValueError: a file without keys, or a key that no header can carry.
    """
    keys = [os.environ.get(KEY_VARIABLE, "")]
    if args.api_key_file is not None:
        lines = args.api_key_file.read_text(encoding="utf-8").splitlines()
        found = [line.strip() for line in lines if line.strip()]
        if not found:
            raise ValueError(
                f"{args.api_key_file} must hold keys, one a line, found none"
            )
        keys += found
    keys = [key for key in keys if key]
    if not all(re.fullmatch(r"[!-~]+", key) for key in keys):
        raise ValueError(
            "API keys must be printable ASCII without spaces, found other characters; "
            "choose another key"
        )
    return tuple(key.encode() for key in keys)
