"""Prints a script that completes commands, options and their choices in a shell.

bash:  eval "$(jaxmoe completion bash)"              in ~/.bashrc
zsh:   eval "$(jaxmoe completion zsh)"               in ~/.zshrc, behind compinit
fish:  jaxmoe completion fish > ~/.config/fish/completions/jaxmoe.fish
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

from jaxmoe import cli
from jaxmoe.cli.endings import command


@dataclass(frozen=True)
class Known:
    """What a command takes.

    path: its name, such as ("bench", "decode"); () of `jaxmoe` itself. words: its
    subcommands, or the choices of its first argument. switches: options alone.
    valued: option -> its choices, none where any value will do.
    """

    path: tuple[str, ...]
    words: tuple[str, ...]
    switches: tuple[str, ...]
    valued: dict[str, tuple[str, ...]]

    @property
    def options(self) -> list[str]:
        """All options."""
        return sorted({*self.switches, *self.valued})


def parser() -> argparse.ArgumentParser:
    """All options."""
    made = argparse.ArgumentParser(
        "jaxmoe completion",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("shell", choices=SHELLS, help="for which shell")
    return made


@command
def main(argv: list[str] | None = None) -> int:
    """Runs the command: 0 if done, 2 on input that does not fit."""
    args = parser().parse_args(argv)
    print(SHELLS[args.shell](everything()))
    return 0


def everything() -> list[Known]:
    """What `jaxmoe` takes, and each of its commands, read off their parsers."""
    own = Known((), tuple(cli.COMMANDS), ("--help", "--version"), {})
    commands = [
        known
        for name in cli.COMMANDS
        for known in _known((name,), cli.module_of(name).parser())
    ]
    return [own, *commands]


def _known(path: tuple[str, ...], parser: argparse.ArgumentParser) -> Iterator[Known]:
    """What a parser takes, then what the parsers below it take."""
    words: tuple[str, ...] = ()
    switches: list[str] = []
    valued: dict[str, tuple[str, ...]] = {}
    below: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:
        choices = tuple(map(str, action.choices or ()))
        long = [name for name in action.option_strings if name.startswith("--")]
        if isinstance(action, argparse._SubParsersAction):
            below = dict(action.choices)
        if not action.option_strings:
            words += choices
        elif action.nargs == 0:
            switches += long
        else:
            valued |= dict.fromkeys(long, choices)
    yield Known(path, words, tuple(switches), valued)
    for name, one in below.items():
        yield from _known((*path, name), one)


def bash(known: list[Known]) -> str:
    """A function for bash's `complete`; where it has no words, files are offered."""
    places = [f"/{'/'.join(one.path)}" for one in known if one.path]
    cases = "\n".join(map(_bash_case, known))
    # No variable is called path or words: to zsh these are not ordinary ones.
    return f"""\
_jaxmoe() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}}
    local place= offers= word
    for word in "${{COMP_WORDS[@]:1:$((COMP_CWORD-1))}}"; do
        case $place/$word in
            {"|".join(places)}) place=$place/$word ;;
        esac
    done
    case $place in
{cases}
    esac
    COMPREPLY=($(compgen -W "$offers" -- "$cur"))
}}
complete -o default -F _jaxmoe jaxmoe"""


def _bash_case(one: Known) -> str:
    place = f"/{'/'.join(one.path)}" if one.path else "''"
    lines = [f"        {place})", "            case $previous@$cur in"]
    free = [option for option, choices in one.valued.items() if not choices]
    for option, choices in one.valued.items():
        if choices:
            lines.append(f"                {option}@*) offers='{' '.join(choices)}' ;;")
    if free:
        lines.append(f"                {'|'.join(f'{o}@*' for o in free)}) ;;")
    lines.append(f"                *@-*) offers='{' '.join(one.options)}' ;;")
    lines.append(f"                *) offers='{' '.join(one.words)}' ;;")
    return "\n".join([*lines, "            esac ;;"])


def zsh(known: list[Known]) -> str:
    """bash's function, which zsh runs as bash does."""
    return f"autoload -U +X bashcompinit && bashcompinit\n{bash(known)}"


def fish(known: list[Known]) -> str:
    """A line for each word and option."""
    lines = ["complete -c jaxmoe -f"]
    for one in known:
        below = [k.path[-1] for k in known if k.path and k.path[:-1] == one.path]
        when = [f"__fish_seen_subcommand_from {name}" for name in one.path]
        if below:
            when.append(f"not __fish_seen_subcommand_from {' '.join(below)}")
        line = f"complete -c jaxmoe -n '{'; and '.join(when)}'"
        lines += [f"{line} -a '{' '.join(one.words)}'"] if one.words else []
        lines += [f"{line} -l {name.removeprefix('--')}" for name in one.switches]
        for name, choices in one.valued.items():
            values = f"-x -a '{' '.join(choices)}'" if choices else "-r -F"
            lines.append(f"{line} -l {name.removeprefix('--')} {values}")
        if one.path and not one.words:
            lines.append(f"{line} -F")
    return "\n".join(lines)


SHELLS = {"bash": bash, "zsh": zsh, "fish": fish}
