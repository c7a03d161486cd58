"""`jaxmoe plan` and `scaling`: what a person reads off it, and what it refuses."""

import json
import re

import pytest

from jaxmoe.benchmarks.presets import PRESETS
from jaxmoe.cli import plan, scaling


def test_the_smallest_slice_is_marked(capsys):
    """Who sizes a slice would be told one that is too small, or too large."""
    argv = ["30b", "--context", "8192", "--chips", "v5e,h200"]
    assert plan.main(argv) == 0
    out = capsys.readouterr().out
    assert "the smallest that fits: v5litepod-8 (mesh" in out
    assert "the smallest that fits: 1 H200 (mesh 1x1" in out
    assert out.count("<- smallest") == 2
    assert re.search(r"\| 1x1 .* needs [\d.]+ GB of 15.2", out)


def test_json_has_what_the_table_has(capsys):
    """A program that reads the plan would miss why a mesh is out."""
    argv = ["30b", "--chips", "v5e", "--devices", "6,8", "--json", "--n", "8"]
    assert plan.main([*argv, "--context", "4096"]) == 0
    rows = json.loads(capsys.readouterr().out)["v5e"]
    by_mesh = {row["mesh"]: row for row in rows}
    assert list(by_mesh) == ["1x6", "2x3", "3x2", "6x1", "1x8", "2x4", "4x2", "8x1"]
    assert "32 query heads over 6 devices" in by_mesh["1x6"]["reason"]
    row = by_mesh["2x4"]
    assert row["fits"] and row["largest_n"] >= 8
    parts = ("weights", "prefix", "suffix", "buffers")
    assert row["total"] == sum(row[part] for part in parts)
    ms = row["ms"]
    step = max(ms["memory"], ms["arithmetic"]) + ms["exchange"]
    assert ms["total"] == pytest.approx(step)
    assert sum("smallest" in row for row in rows) == 1


def test_nothing_is_enough(capsys):
    """The 235b model would seem to fit a chip that cannot hold it."""
    assert plan.main(["235b", "--chips", "v5e", "--devices", "8"]) == 0
    out = capsys.readouterr().out
    assert "none of these is enough" in out and "<- smallest" not in out


def test_a_checkpoint_is_planned_by_its_config(tmp_path, capsys):
    """Only models that the package knows by name could be planned."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps(PRESETS["tiny"].attributes), "utf-8")
    argv = ["--chips", "v5e", "--devices", "2", "--n", "4", "--context", "2048"]
    assert plan.main([str(path), *argv, "--json"]) == 0
    first = capsys.readouterr().out
    assert plan.main([str(tmp_path), *argv, "--json"]) == 0
    assert capsys.readouterr().out == first
    assert all(row["fits"] for row in json.loads(first)["v5e"])


@pytest.mark.parametrize(
    ("model", "dtype"), [("30b", "bfloat16"), ("deepseek-v3-fp8", "fp8 and bfloat16")]
)
def test_types_are_told(capsys, model, dtype):
    """A model of FP8 would seem to be planned in bfloat16."""
    assert plan.main([model, "--chips", "h200", "--devices", "8"]) == 0
    assert capsys.readouterr().out.startswith(f"{model}, {dtype}: ")


def test_scaling_tables(capsys):
    """The tables would lack a number of chips, or speak of meshes without room."""
    argv = ["30b", "--scaling", "--chips", "v5e", "--context", "4096"]
    assert plan.main(argv) == 0
    strong, weak = capsys.readouterr().out.split("v5e, weak scaling")
    for text in (strong, weak):
        rows = re.findall(r"^\| (\d+) +\| (\d+)x(\d+) +\| (\d+) ", text, re.MULTILINE)
        assert [int(chips) for chips, *_ in rows] == [1 << p for p in range(9)]
        assert all(int(c) == int(d) * int(m) for c, d, m, _ in rows)
        assert "does not fit" in text and "100%" in text
    assert [int(n) for *_, n in rows] == [1 << p for p in range(9)]


@pytest.mark.parametrize(
    ("argv", "found"),
    [
        (["30b", "--chips", "v9"], "--chips must be among v5e"),
        (["no/such/model"], "the model must be 30b, 235b"),
        (["30b", "--context", "99999"], "the model has 40960 positions"),
        (["30b", "--context", "100"], "context counts prompt and answer"),
        (["30b", "--n", "0"], "expected a sample"),
    ],
)
def test_what_plan_refuses(argv, found, capsys):
    """A slip would end in a traceback, or in a table of nonsense."""
    with pytest.raises(SystemExit) as ended:
        plan.main(argv)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and found in line


@pytest.mark.slow
def test_scaling_counts_compiled_steps(tmp_path, capsys):
    """The tables would not be of compiled programs, or be compiled again each time."""
    path, out = tmp_path / "config.json", tmp_path / "rows.json"
    path.write_text(json.dumps(PRESETS["tiny"].attributes), "utf-8")
    argv = [str(path), "--counts", "2", "--n", "8", "--context", "2048"]
    argv += ["--per-chip", "4", "--out", str(out)]
    assert scaling.main(argv) == 0
    first, written = capsys.readouterr().out, out.read_text("utf-8")
    assert "strong scaling" in first and "weak scaling" in first
    rows = json.loads(written)
    assert [(row["kind"], row["chips"]) for row in rows] == [("strong", 2), ("weak", 2)]
    for row in rows:
        assert row["counted"] and row["as_planned"] and row["count"] > 0
        assert row["moved"] >= row["least"] > 0
    assert scaling.main(argv) == 0
    assert capsys.readouterr().out == first
    assert out.read_text("utf-8") == written
