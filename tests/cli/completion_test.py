"""`jaxmoe completion`: what shells offer."""

import shutil
import subprocess

import pytest

from jaxmoe import cli
from jaxmoe.cli.completion import main

LINES = {
    "jaxmoe sa": {"sample"},
    "jaxmoe sample --pol": {"--policy"},
    "jaxmoe sample --policy a": {"adaptive-head"},
    "jaxmoe bench dec": {"decode"},
    "jaxmoe bench decode --st": {"--steps"},
    "jaxmoe list pol": {"policies"},
    "jaxmoe sample --prompt x --jso": {"--json", "--json-schema"},
    "jaxmoe ": set(cli.COMMANDS),
}

AS_FUNCTION = """
{script}
COMP_WORDS=({words})
COMP_CWORD={last}
_jaxmoe
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
"""Calls the function as bash does, and as zsh's bashcompinit does."""


def offered(shell: str, script: str, line: str) -> set[str]:
    """What the shell offers behind a line."""
    words = line.split(" ")
    quoted = " ".join(f"'{word}'" for word in words)
    made = AS_FUNCTION.format(script=script, words=quoted, last=len(words) - 1)
    if shell == "zsh":
        made = "autoload -U +X compinit && compinit -u -D\nemulate sh\n" + made
    if shell == "fish":
        made = f"{script}\ncomplete -C '{line}'"
    flags = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}
    command = [shell, *flags[shell], "-c", made]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not done.stderr
    found = {line.split("\t")[0] for line in done.stdout.splitlines() if line}
    # zsh's own completion leaves out what does not begin as the word does.
    return {word for word in found if shell != "zsh" or word.startswith(words[-1])}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_offer_what_commands_take(shell, capsys):
    """Tab would offer nothing, or what a command does not take."""
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    assert main([shell]) == 0
    script = capsys.readouterr().out
    for line, words in LINES.items():
        assert offered(shell, script, line) == words, line
