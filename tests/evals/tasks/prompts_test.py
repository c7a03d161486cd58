"""How texts get into a template."""

import pytest

from jaxmoe.evals.tasks.prompts import fill, shown, value_of


def test_only_names_are_replaced():
    r"""str.format would fail at \boxed{}, and twice at what a problem brings in."""
    template = r"{problem} {x} {{problem}} \boxed{} {"
    assert fill(template, {"problem": "{problem}{x}"}) == (
        r"{problem}{x} {x} {{problem}{x}} \boxed{} {"
    )


def test_backslashes_of_a_problem_survive():
    r"""re.sub reads "\1" and "\n" in a replacement text."""
    assert fill("{problem}", {"problem": r"\1 \n \g<0>"}) == r"\1 \n \g<0>"


def test_a_template_must_hold_what_is_asked():
    """Choices would never be shown, and the score be that of guessing."""
    with pytest.raises(ValueError, match="none of {choices}"):
        fill("{question}", {"question": "q", "choices": "c"})
    values = {"question": "q", "letters": "AB"}
    assert fill("{question}", values, optional=frozenset({"letters"})) == "q"


def test_value_of_takes_the_first_name():
    """An alias would win over the field itself, or null pass for missing."""
    assert value_of({"b": 2, "a": 1}, "a", "b") == 1
    assert value_of({"a": None}, "a", "b") is None
    with pytest.raises(ValueError, match='a field "a" or "b", found "c"'):
        value_of({"c": 1}, "a", "b")


def test_shown_is_short():
    """A row of a megabyte would be printed in an error."""
    assert shown("ab") == "'ab'"
    assert len(shown("x" * 1000)) == 80
