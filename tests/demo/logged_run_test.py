"""What a training run prints and logs."""

import json

from jaxmoe.demo import logged_run
from jaxmoe.demo.training_run import Record


def test_a_log_goes_on_where_the_run_does(tmp_path, capsys):
    """Updates done again after a kill would stand in the log twice."""
    note, log = logged_run._note, tmp_path / "log.jsonl"
    for step in (50, 100, 150):
        note(Record(step, 2.0, 1.0, 0.1, 1.0), log)
    note(Record(100, 1.123456789, 1.0, 0.1, 1.0, 0.25), log)
    rows = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    assert [row["step"] for row in rows] == [50, 100]
    assert rows[-1]["entropy"] == 1.12346
    assert "greedy answers right 25.0%" in capsys.readouterr().out.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == [log.name]
