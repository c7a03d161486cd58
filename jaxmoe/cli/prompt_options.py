"""Options: what the model is asked."""

import argparse
import json
from pathlib import Path
from typing import Any

from jaxmoe.files import parse_json
from jaxmoe.model import Model


def _token_ids(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def add_prompt_options(parser: argparse.ArgumentParser) -> None:
    """Adds the four forms of a prompt."""
    group = parser.add_argument_group("prompt", "Give one of the first four.")
    either = group.add_mutually_exclusive_group()
    plain = "text to go on with, taken as it is even where there is a chat template"
    chat = "a question, put into the checkpoint's chat template"
    messages = 'a whole chat: a JSON list of {"role": ..., "content": ...}'
    ids = "token ids parted by commas; needs no tokenizer"
    either.add_argument("--prompt", metavar="TEXT", help=plain)
    either.add_argument("--chat", metavar="TEXT", help=chat)
    either.add_argument("--messages", metavar="FILE", type=Path, help=messages)
    either.add_argument("--token-ids", metavar="IDS", type=_token_ids, help=ids)
    system = "what stands before the question of --chat"
    thinking = "whether a chat's answer may begin with reasoning, where the template "
    group.add_argument("--system", metavar="TEXT", help=system)
    group.add_argument(
        "--thinking",
        action=argparse.BooleanOptionalAction,
        help=thinking + "can tell (default: as the template has it)",
    )


def has_prompt(args: argparse.Namespace) -> bool:
    """Whether any of the four was given."""
    forms = (args.prompt, args.chat, args.messages, args.token_ids)
    return any(form is not None for form in forms)


def check_prompt_options(args: argparse.Namespace, *, needed: bool) -> None:
    """Raises a ValueError for options that contradict one another, or for no prompt.

    needed: whether there must be one.
    """
    is_chat = args.chat is not None or args.messages is not None
    if args.system is not None and args.chat is None:
        raise ValueError("--system goes with --chat only; put it into the prompt")
    if args.thinking is not None and not is_chat:
        raise ValueError("--thinking and --no-thinking go with --chat or --messages")
    if needed and not has_prompt(args):
        raise ValueError(
            "a prompt is needed; give one of --prompt, --chat, --messages, --token-ids"
        )


def prompt_of(args: argparse.Namespace, model: Model) -> str | list[int]:
    """Text or token ids, from options that have been checked."""
    if args.prompt is not None:
        return args.prompt
    if args.chat is None and args.messages is None:
        return args.token_ids
    messages: Any = [{"role": "user", "content": args.chat}]
    if args.system is not None:
        messages.insert(0, {"role": "system", "content": args.system})
    if args.messages is not None:
        messages = _read_messages(args.messages)
    return model.chat(messages, enable_thinking=args.thinking)


def _read_messages(path: Path) -> list[dict[str, Any]]:
    try:
        messages = parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} must be JSON, but: {error}") from None
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise ValueError(
            f'{path} must hold a list of {{"role": ..., "content": ...}}, found '
            f"{json.dumps(messages)[:80]}"
        )
    return messages
