"""The tables of models say what was measured."""

from pathlib import Path

import pytest

from jaxmoe.families.base import FLOATS
from jaxmoe.families.compared import facts, read_compared
from jaxmoe.families.registry import FAMILIES
from tests.parity import figures

REPORT = """<testsuite>
<testcase name="a"><properties><property name="family" value="olmoe"/>
<property name="logits_error" value="3e-07"/></properties></testcase>
<testcase name="b"><properties><property name="family" value="olmoe"/>
<property name="logits_error" value="2e-07"/></properties></testcase>
<testcase name="c"><failure/><properties><property name="family" value="olmoe"/>
<property name="logits_error" value="1"/></properties></testcase>
<testcase name="d"/></testsuite>"""


@pytest.mark.parametrize("name", FAMILIES)
def test_families_say_how_far_they_were_compared(name):
    """Figures of some of a family's models would stand for all, or an empty cell."""
    family = FAMILIES[name]
    said = facts(family)
    assert all(said.values())
    assert len(said["weights"].split(", ")) == len(FLOATS) + len(family.formats)
    found = read_compared().get(name)
    if found is None:
        assert said["compared with transformers"] == "not yet"
    else:
        # Those of quantised weights are not random models (tests/parity/fp8_test.py).
        floats = [c for c in family.test_configs if "quantization_config" not in c]
        assert found.models == len(floats)
        assert 0 < found.logits_error < 2e-4
    assert read_compared().keys() <= FAMILIES.keys()


def test_tables_are_those_of_the_figures():
    """A page would show figures of another day (python tests/parity/figures.py)."""
    assert figures.PAGE.read_text("utf-8") == figures.page()
    text = figures.README.read_text("utf-8")
    assert figures.readme(text) == text
    named = [name for names in figures.ROWS.values() for name in names]
    assert sorted(named) == sorted(FAMILIES)


def test_figures_are_read_from_a_report(tmp_path: Path):
    """The best of several models would be shown, or one that failed."""
    path = tmp_path / "report.xml"
    path.write_text(REPORT)
    assert figures.read_report(path) == {"olmoe": {"models": 2, "logits_error": 3e-7}}
