"""`jaxmoe serve`: its options, and the same answers as `jaxmoe sample`."""

import asyncio
import json
import re
import subprocess
import sys

import pytest

from jaxmoe.cli import serve


def refused(argv: list[str], capsys) -> str:
    """The one line of a command that ends with 2."""
    with pytest.raises(SystemExit) as ended:
        serve.main(argv)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_without_its_libraries_it_says_which(monkeypatch, capsys):
    """A newcomer would see a traceback."""
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    for name in [name for name in sys.modules if name.startswith("jaxmoe.serve")]:
        monkeypatch.delitem(sys.modules, name)
    line = refused(["demo"], capsys)
    assert 'pip install "jaxmoe[serve]"' in line


@pytest.mark.extras
@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--slots", "0"], "--slots"),
        (["--policy", "topk", "--tau", "1"], "--tau"),
        (["--api-key-file", "FILE"], "keys"),
    ],
)
def test_wrong_options(argv, said, capsys, tmp_path):
    """A model would be loaded before the mistake is found."""
    pytest.importorskip("uvicorn", reason='no uvicorn; pip install "jaxmoe[serve]"')
    (tmp_path / "empty").touch()
    argv = [str(tmp_path / "empty") if one == "FILE" else one for one in argv]
    assert said in refused(["demo", *argv], capsys)


def test_keys_come_from_the_environment_and_a_file(monkeypatch, tmp_path):
    """A key on the command line would show in the list of processes."""
    path = tmp_path / "keys"
    path.write_text("one\n\n two \n")
    monkeypatch.setenv(serve.KEY_VARIABLE, "three")
    args = serve.parser().parse_args(["--api-key-file", str(path)])
    assert serve.keys_of(args) == (b"three", b"one", b"two")
    path.write_text("no key\n")
    with pytest.raises(ValueError, match="without spaces"):
        serve.keys_of(args)


@pytest.mark.extras
@pytest.mark.slow
def test_the_command_line_draws_what_the_server_does():
    """An answer seen in one could not be had from the other."""
    pytest.importorskip("uvicorn", reason='no uvicorn; pip install "jaxmoe[serve]"')
    from jaxmoe.benchmarks import serving

    command = [sys.executable, "-m", "jaxmoe", "sample", "demo", "--json"]
    command += ["--prompt", "2,5,8,12=27:", "--n", "4", "--seed", "3"]
    command += ["--max-new-tokens", "32", "--tau", "0.5"]
    *rows, _ = subprocess.check_output(command, text=True).splitlines()
    printed = {row["sample"]: row for row in map(json.loads, rows)}
    body = {"prompt": "2,5,8,12=27:", "n": 4, "seed": 3, "max_tokens": 32}
    body |= {"policy": {"type": "expert-sample", "tau": 0.5}, "return_token_ids": True}

    async def ask(address: str) -> dict:
        async with serving.Connection(address, body) as connection:
            raw = await connection._reader.read()
        return json.loads(re.search(rb"\{.*\}", raw, re.DOTALL)[0])  # type: ignore[index]

    with serving.running("--slots", "8", "--prompt-tokens", "16") as (address, _):
        reply = asyncio.run(ask(address))
    for choice in reply["choices"]:
        row = printed[choice["sample_index"]]
        assert choice["token_ids"] == row["tokens"]
        assert choice["text"] == row["text"]
        assert choice["finish_reason"] == row["finish"]
