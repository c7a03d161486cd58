"""The command `jaxmoe`: what it lists, what its subcommands take, how it ends."""

import argparse
import ast
import importlib
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import jaxmoe
from jaxmoe import cli
from tests.running import SCRIPTS

FLAGS = json.loads(Path(__file__).with_name("flags.json").read_text("utf-8"))
"""Command -> option -> what it took when each command was a script of its own."""


def nested(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The subcommands of a command."""
    return next(
        (
            action.choices
            for action in parser._actions
            if isinstance(action, argparse._SubParsersAction)
        ),
        {},
    )


def parser_of(command: str) -> argparse.ArgumentParser:
    """The parser of a command such as "bench decode"."""
    name, *rest = command.split()
    parser = cli.module_of(name).parser()
    for name in rest:
        parser = nested(parser)[name]
    return parser


def test_help_is_light():
    """A newcomer would wait for JAX to read what commands there are."""
    late = "jax", "flax", "numpy", "tqdm"
    code = (
        "import atexit, sys\n"
        f"say = lambda: print('loaded', *sorted(set({late!r}) & set(sys.modules)))\n"
        "atexit.register(say)\n"
        "from jaxmoe.cli import main; main(['--help'])"
    )
    printed = subprocess.check_output([sys.executable, "-c", code], text=True)
    *lines, loaded = printed.splitlines()
    assert loaded == "loaded"
    for name in cli.COMMANDS:
        assert any(line.split()[:1] == [name] for line in lines), name


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_is_there(command):
    """A command would be listed that does not start, or goes by another name."""
    module = cli.module_of(command)
    assert callable(module.main)
    parser = module.parser()
    assert parser.prog == f"jaxmoe {command}"
    assert parser.format_help()  # a lone percent sign would break it


def _described(action: argparse.Action) -> dict:
    """An option as flags.json has it."""
    default = action.default
    return {
        "nargs": action.nargs,
        "required": action.required,
        "default": str(default) if isinstance(default, Path) else default,
    }


@pytest.mark.parametrize("command", FLAGS)
def test_no_flag_is_lost(command):
    """A command line from somebody's shell history would no longer work."""
    actions = parser_of(command)._actions
    found = {" ".join(a.option_strings) or a.dest: a for a in actions}
    for option, told in FLAGS[command].items():
        assert option in found, f"{command} has lost {option}"
        known = {"nargs": None, "required": not option.startswith("-")}
        known = known | {"default": None} | told
        known["required"] = known["required"] and known["nargs"] not in ("?",)
        choices = known.pop("choices", [])
        action = found[option]
        described = _described(action)
        if isinstance(described["default"], tuple):
            described["default"] = list(described["default"])
        if action.nargs == 0:  # a switch
            described["default"] = described["default"] or None
        assert described == known, f"{command} {option}"
        assert set(choices) <= set(action.choices or ()), f"{command} {option}"


@pytest.mark.parametrize(
    ("argv", "found"),
    [
        (["smaple"], "did you mean sample"),
        (["--colour"], "--colour"),
        ([], "a command is needed"),
    ],
)
def test_wrong_commands(argv, found, capsys):
    """A slip would end in a traceback, or without saying what there is."""
    with pytest.raises(SystemExit) as ended:
        cli.main(argv)
    assert ended.value.code == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("jaxmoe: error: ") and found in line


def test_main_hands_arguments_on(monkeypatch):
    """A command would get the options of another, or lose the first of its own."""
    heard = []
    monkeypatch.setattr(
        cli.module_of("sample"), "main", lambda argv: heard.append(argv) or 0
    )
    assert cli.main(["sample", "--help", "x"]) == 0
    assert heard == [["--help", "x"]]


LAUNCHERS = {
    "bench": ["bench"],
    "compare": ["compare"],
    "evaluate": ["evaluate"],
    "generate": ["sample"],
    "plan": ["plan"],
    "random_checkpoint": ["random-checkpoint"],
    "replicate": ["replicate"],
    "router_report": ["routers"],
    "scaling": ["scaling"],
    "serve": ["serve"],
    "study_demo": ["demo", "study"],
    "sweep": ["sweep"],
    "train_demo": ["demo", "train"],
    "verify": ["verify"],
}


def test_scripts_start_commands(monkeypatch):
    """`python scripts/NAME.py` would do something else than the command, or be gone."""
    assert {path.stem for path in SCRIPTS.glob("*.py")} == set(LAUNCHERS)
    heard = []
    monkeypatch.setattr(cli, "main", heard.append)
    for name, words in LAUNCHERS.items():
        monkeypatch.setattr(sys, "argv", [name, "--flag", "value"])
        with pytest.raises(SystemExit):
            runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")
        assert heard.pop() == [*words, "--flag", "value"]


def test_public_names_are_those_of_the_type_checker():
    """`jaxmoe.NAME` would be missing, or not what the type checker believes."""
    tree = ast.parse(Path(jaxmoe.__file__).read_text("utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    told = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(told) == set(jaxmoe.__all__) <= set(dir(jaxmoe))
    for name, (module, attribute) in told.items():
        found = importlib.import_module(str(module))
        wanted = getattr(found, attribute)
        assert getattr(jaxmoe, name) is wanted, name


def test_submodules_are_found():
    """A notebook would have to import each part that it looks at."""
    assert jaxmoe.demo.problems is importlib.import_module("jaxmoe.demo").problems
    with pytest.raises(AttributeError, match="nonsense"):
        jaxmoe.nonsense  # noqa: B018
