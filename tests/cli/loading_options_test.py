"""Options of loading, on every command that loads a checkpoint."""

import pytest

from jaxmoe import cli
from jaxmoe.cli.loading_options import loading_of

COMMANDS = {
    "sample": ["demo"],
    "evaluate": ["demo"],
    "sweep": ["demo", "--out", "x"],
    "routers": ["demo", "--out", "x"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_options_become_arguments_of_load(command):
    """What Python can load the command line could not."""
    parser = cli.module_of(command).parser()
    args = parser.parse_args(COMMANDS[command])
    plain = {"overrides": {}, "ignore": (), "verify": True, "weights": None}
    assert loading_of(args) == plain
    more = ["--override", "rope_scaling.factor=2.0", "--ignore", "x", "--no-verify"]
    more += ["--weights", "int8"]
    args = parser.parse_args([*COMMANDS[command], *more])
    assert loading_of(args) == {
        "overrides": {"rope_scaling.factor": 2.0},
        "ignore": ("x",),
        "verify": False,
        "weights": "int8",
    }


def test_changes_reach_the_config(capsys):
    """They would be read, and forgotten."""
    with pytest.raises(SystemExit, match="2"):
        cli.main(["sample", "demo", "--override", "num_experts=-3"])
    assert "num_experts = -3" in capsys.readouterr().err
