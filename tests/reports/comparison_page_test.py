"""The report of compared runs: well-formed, alone, honest, and readable."""

import dataclasses
import math
import re
import xml.etree.ElementTree as ElementTree
from itertools import combinations

import numpy as np
import pytest

from jaxmoe.evals.comparison import (
    Answer,
    Comparison,
    Curve,
    Difference,
    Example,
    RunSummary,
)
from jaxmoe.evals.metrics import Interval, bootstrap, paired_difference, pass_at
from jaxmoe.reports import comparison_page, report_words
from jaxmoe.reports.colours import DARK, LIGHT
from jaxmoe.reports.comparison_page import FILTERS, render
from jaxmoe.reports.page import TEMPLATES
from jaxmoe.text.printable import clean

HOSTILE = "<script>alert('x')</script>&\"\u202eevil\x00\x1b[31m\ud800"
STYLE = (TEMPLATES / "style.css").read_text("utf-8")
ROUTER = {
    f"layer {l}": {
        "mean": np.geomspace(0.3, 1e-4, 16),
        "low": np.geomspace(0.1, 1e-7, 16),
        "high": np.geomspace(0.6, 1e-3, 16),
    }
    for l in range(3)
}


@pytest.fixture(autouse=True)
def charts(request, monkeypatch):
    """Charts take most of a page's time: only where a test asks for the library."""
    if "matplotlib" not in request.fixturenames:
        monkeypatch.setattr(comparison_page, "has_matplotlib", lambda: False)


def _run(name, right, n):
    ks = tuple(k for k in (1, 2, 4, 8) if k <= n)
    values = [bootstrap(pass_at(right, n, k), resamples=200) for k in ks]
    return RunSummary(
        name=name,
        about={"policy": name, "n": n, "versions": {"jax": "1"}, "prompt": "p" * 300},
        n=n,
        measures={"accuracy": values[0], f"pass@{ks[-1]}": values[-1]},
        numbers={"mean tokens": 1234.5, "self-certainty": math.nan},
        curves={
            "pass@k": Curve(ks, tuple(values)),
            "majority@k": Curve(ks, tuple(values[::-1])),
        },
        right=tuple(right.tolist()),
    )


def _comparison(runs=3, problems=20, n=8, prefix="run "):
    """Runs whose answers are drawn anew, each compared with the first."""
    generator = np.random.default_rng(0)
    p = generator.random(problems)
    rights = [generator.binomial(n, p) for _ in range(runs)]
    names = [f"{prefix}{index}" for index in range(runs)]
    differences, examples = [], []
    for name, right in zip(names[1:], rights[1:], strict=True):
        interval = paired_difference(right / n, rights[0] / n, resamples=200)
        differences.append(Difference(names[0], name, "accuracy", interval, 0.3, True))
        counts = dict.fromkeys(names, 0) | {name: 1}
        answers = {
            run: (
                Answer(0, f"first of {run}", "42", run == name, False, 7),
                Answer(3, f"last of {run}", None, False, True, 1),
            )
            for run in names
        }
        examples.append(Example("p0", "prompt", "42", name, counts, answers))
    return Comparison(
        task="math",
        problems=tuple(f"p{j}" for j in range(problems)),
        groups=problems,
        runs=tuple(_run(*pair, n) for pair in zip(names, rights, strict=True)),
        differences=tuple(differences),
        examples=tuple(examples),
    )


def _difference(mean, low, high, p=0.01):
    return Difference("base", "es", "accuracy", Interval(mean, low, high), p, False)


def _with_difference(difference):
    """Two runs, and one difference between them."""
    comparison = _comparison(2)
    a, b = comparison.runs
    runs = (
        dataclasses.replace(a, name="base"),
        dataclasses.replace(b, name="es"),
    )
    return dataclasses.replace(
        comparison, runs=runs, differences=(difference,), examples=()
    )


def _tree(page):
    """The page as XML: every element closed, every sign escaped."""
    doctype, rest = page.split("\n", 1)
    assert doctype == "<!DOCTYPE html>"
    return ElementTree.fromstring(rest)


def _words(node):
    """What a reader sees, with single spaces."""
    return " ".join("".join(node.itertext()).split())


SHAPES = {
    "one run": {"runs": 1},
    "two runs": {"runs": 2},
    "six runs": {"runs": 6},
    "eight runs": {"runs": 8},
    "one problem": {"runs": 2, "problems": 1},
    "one answer": {"runs": 2, "n": 1},
    "one of all": {"runs": 1, "problems": 1, "n": 1},
}


# -- the page ------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_page_is_well_formed(shape):
    """Browsers would each guess another page, or a link would lead nowhere."""
    root = _tree(render(_comparison(**shape), router=ROUTER))
    assert root.get("lang") == "en"
    ids = [node.get("id") for node in root.iter() if node.get("id")]
    assert len(ids) == len(set(ids))
    for node in root.iter():
        assert set((node.get("aria-labelledby") or "").split()) <= set(ids)
    levels = [int(node.tag[1]) for node in root.iter() if re.match(r"h\d$", node.tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    steps = np.diff(levels)
    assert steps.max() <= 1


def test_page_asks_for_nothing(matplotlib):
    """Offline the report would be broken, and online it would tell on its reader."""
    page = render(_comparison(), router=ROUTER)
    root = _tree(page)
    tags = {node.tag for node in root.iter()}
    assert not tags & {"script", "img", "iframe", "object", "embed", "form", "a"}
    for node in root.iter():
        for name, value in node.items():
            if name in ("href", "src", "srcset", "action", "data", "poster"):
                assert value == "data:," or value.startswith("#")
            assert not name.startswith("on")
    assert not re.search(r"url\([^#]|@import|@font-face|https?:", page)
    policy = [n.get("content") for n in root.iter("meta") if n.get("http-equiv")]
    assert policy[0].startswith("default-src 'none'")


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_tables_say_what_they_are(shape):
    """Who hears the page would hear numbers without names."""
    tables = list(_tree(render(_comparison(**shape))).iter("table"))
    assert tables
    for table in tables:
        assert table[0].tag == "caption"
        assert _words(table[0])
        assert {th.get("scope") for th in table.iter("th")} <= {
            "col",
            "row",
            "rowgroup",
        }
        columns = len(list(table.find("thead/tr")))
        for row in table.iter("tr"):
            assert sum(int(cell.get("colspan", 1)) for cell in row) == columns


@pytest.mark.parametrize("shape", ["eight runs", "one of all"])
def test_drawings_say_what_they_are(matplotlib, shape):
    """A drawing would hold nan and show nothing, or say nothing to who hears it."""
    root = _tree(render(_comparison(**SHAPES[shape]), router=ROUTER))
    drawings = list(root.iter("svg"))
    assert len(drawings) >= 3
    for svg in drawings:
        assert svg.get("role") == "img" and svg.get("aria-label")
        values = " ".join(v for node in svg.iter() for v in node.attrib.values())
        assert not re.search(r"\bnan\b|\binf\b", values)
    ids = [node.get("id") for node in root.iter() if node.get("id")]
    assert len(ids) == len(set(ids))


def test_without_matplotlib_the_page_says_so_once():
    """There would be no page at all, or one with holes that nobody explains."""
    root = _tree(render(_comparison(), router=ROUTER))
    assert not list(root.iter("svg")) and not list(root.iter("figure"))
    assert _words(root).count("matplotlib is not installed") == 1
    ids = {node.get("id") for node in root.iter("section")}
    assert {"measures", "curves", "differences", "answers", "problems"} <= ids


def test_equal_numbers_give_equal_pages(matplotlib):
    """A report would hold the time it was made, or the order of a set."""
    page = render(_comparison(1), date="1 March 2026")
    assert page == render(_comparison(1), date="1 March 2026")
    assert "1 March 2026" in page and "<svg" in page


def test_whatever_stands_in_the_data_is_text(matplotlib):
    """A model's answer could run a script, or a name turn the page around."""
    comparison = _comparison(2, prefix=HOSTILE)
    runs = tuple(
        dataclasses.replace(
            run,
            about={HOSTILE: HOSTILE, "nested": {HOSTILE: [HOSTILE]}},
            measures={HOSTILE: run.measures["accuracy"]},
            numbers={HOSTILE: 1.0},
            curves={HOSTILE: run.curves["pass@k"]},
        )
        for run in comparison.runs
    )
    difference = dataclasses.replace(comparison.differences[0], measure=HOSTILE)
    example = dataclasses.replace(
        comparison.examples[0],
        problem=HOSTILE,
        prompt=HOSTILE,
        reference=HOSTILE,
        answers={
            run.name: (Answer(0, HOSTILE, HOSTILE, False, True, 3),) for run in runs
        },
        right=dict.fromkeys((run.name for run in runs), 0),
        solved_by=HOSTILE,
    )
    page = render(
        Comparison(
            task=HOSTILE,
            problems=tuple(f"{HOSTILE}{j}" for j in range(20)),
            groups=3,
            runs=runs,
            differences=(difference,),
            examples=(example,),
        ),
        title=HOSTILE,
        router={HOSTILE: ROUTER["layer 0"]},
        date=HOSTILE,
    )
    page.encode("utf-8")
    assert not re.search(
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page
    )
    root = _tree(page)
    assert not list(root.iter("script"))
    shown = clean(HOSTILE)
    assert shown.startswith("<script>alert('x')</script>&\"\ufffdevil\ufffd\ufffd[31m")
    for tag in (
        "h1",
        "h3",
        "caption",
        "summary",
        "pre",
        "bdi",
        "title",
        "text",
        "code",
    ):
        assert any(shown in "".join(node.itertext()) for node in root.iter(tag)), tag
    assert len(list(root.iter("section"))) == 8
    for svg in root.iter("svg"):
        assert not {node.tag for node in svg.iter()} & {"script", "foreignObject", "a"}


@pytest.mark.parametrize("value", ["\n\n  two lines before", "a\r\nb", "tab\there"])
def test_blocks_keep_lines(value):
    """Code would lose its first lines or its indentation."""
    comparison = _comparison(1)
    answers = {"run 0": (Answer(0, value, None, False, False, 3),)}
    example = Example("p0", "prompt", "42", None, {"run 0": 0}, answers)
    root = _tree(render(dataclasses.replace(comparison, examples=(example,))))
    (found,) = next(root.iter("article")).iter("pre")
    # As HTML has it, a line feed right after <pre> does not count.
    assert found.text[0] == "\n"
    assert found.text[1:] == value.replace("\r\n", "\n")


def test_long_names_and_texts_are_all_there():
    """A name that is too long for its place would be cut, and two runs look alike."""
    comparison = _comparison(2, prefix="a-name-that-goes-on-" * 8)
    root = _tree(render(comparison))
    names = {_words(node) for node in root.iter("bdi")}
    assert {run.name for run in comparison.runs} <= names
    assert "p" * 300 in [_words(node) for node in root.iter("pre")]


# -- what it says --------------------------------------------------------------------


@pytest.mark.parametrize(
    "difference, sentence",
    [
        (
            _difference(0.012, 0.003, 0.021),
            "es against base: accuracy +1.2 points [0.3, 2.1], p = 0.010.",
        ),
        (
            _difference(-0.03, -0.05, -0.01, 0.0002),
            "es against base: accuracy \u22123.0 points [\u22125.0, \u22121.0], "
            "p < 0.001.",
        ),
        (
            _difference(0.004, -0.008, 0.016, 0.52),
            "es against base: no difference shown in accuracy "
            "(+0.4 points [\u22120.8, 1.6], p = 0.520).",
        ),
        (
            _difference(0.0, 0.0, 0.0, 1.0),
            "es against base: no difference shown in accuracy "
            "(0.0 points [0.0, 0.0], p = 1.000).",
        ),
        (
            _difference(0.02, 0.001, 0.04, 0.06),
            "es against base: unclear in accuracy "
            "(+2.0 points [0.1, 4.0], p = 0.060: interval and test disagree).",
        ),
    ],
)
def test_headline_says_what_was_shown(difference, sentence):
    """A difference that may be 0 would be called one, or one that is not be hidden."""
    root = _tree(render(_with_difference(difference)))
    summary = [_words(n) for n in root.iter("p") if n.get("class") == "summary"]
    assert summary == [sentence]


def test_correction_decides_where_it_is_given():
    """A table of many comparisons would call the luckiest of them shown."""
    comparison = _with_difference(_difference(0.012, 0.003, 0.021, 0.01))
    plain = _words(_tree(render(comparison)))
    corrected = _words(_tree(render(comparison, holm=[0.2])))
    assert "not corrected for the number of comparisons" in plain
    assert "p after Holm" not in plain
    assert "not corrected" not in corrected
    assert "unclear in accuracy (+1.2 points [0.3, 2.1], Holm p = 0.200" in corrected


def test_bounds_agree_with_the_words():
    """[0.0, 2.1] would stand beside the words that 0 is not in it."""
    assert report_words.points(Interval(0.01, 0.0003, 0.021))[1] == "[0.03, 2.10]"
    assert report_words.points(Interval(0.01, 0.0, 0.021))[1] == "[0.0, 2.1]"
    assert report_words.points(Interval(0.01, 1e-9, 0.021))[1] == "[0.0000, 2.1000]"


def test_one_run_is_summed_up_alone():
    """There would be no headline, or one about a difference that does not exist."""
    comparison = _comparison(1)
    root = _tree(render(comparison))
    (summary,) = (n for n in root.iter("p") if n.get("class") == "summary")
    shown = comparison.runs[0].measures["accuracy"]
    assert _words(summary) == f"run 0: accuracy {shown}."
    assert "permutation" not in _words(root)


def test_measures_stand_under_their_runs():
    """A run would be credited with the numbers of another."""
    comparison = _comparison(3)
    root = _tree(render(comparison))
    table = next(root.iter("table"))
    heads = [_words(th) for th in table.find("thead/tr")]
    assert heads == ["measure", "run 0", "run 1", "run 2"]
    for row, name in zip(
        table.findall("tbody/tr"), ("accuracy", "pass@8"), strict=True
    ):
        head, *cells = map(_words, row)
        assert head == name
        for cell, run in zip(cells, comparison.runs, strict=True):
            assert cell == str(run.measures[name]).replace(" %", "")


def test_what_is_no_number_is_said_so():
    """nan would be shown as a number, or a missing measure as another run's."""
    comparison = _comparison(2)
    a, b = comparison.runs
    unknown = Interval(math.nan, math.nan, math.nan)
    measures = {"only here": unknown}
    b = dataclasses.replace(
        b,
        measures=measures,
        curves={"pass@k": Curve((1, 2, 4), (unknown, a.measures["accuracy"], unknown))},
    )
    difference = dataclasses.replace(
        comparison.differences[0], interval=unknown, p_value=math.nan
    )
    page = render(
        dataclasses.replace(comparison, runs=(a, b), differences=(difference,))
    )
    root = _tree(page)
    rows = [[_words(cell) for cell in row] for row in root.iter("tr")]
    known = str(a.measures["accuracy"]).replace(" %", "")
    assert ["accuracy", known, "\u2013"] in rows
    assert ["only here", "\u2013", "n/a"] in rows
    assert ["self-certainty", "n/a", "n/a"] in rows
    assert ["accuracy", "n/a", "n/a", "n/a", "exact"] in rows
    assert "accuracy n/a, p n/a." in _words(root)
    assert not re.search(r"\bnan\b", page)


def test_what_differs_between_runs_is_marked():
    """Runs that differ in more than was meant would look comparable."""
    comparison = _comparison(3)
    first, second, third = comparison.runs
    second = dataclasses.replace(second, about={**second.about, "extra": [1, 2]})
    root = _tree(render(dataclasses.replace(comparison, runs=(first, second, third))))
    section = next(n for n in root.iter("section") if n.get("id") == "runs")
    marked = {
        _words(row[0]): [_words(cell) for cell in row[1:]]
        for row in section.iter("tr")
        if any(node.get("class") == "differs" for node in row.iter())
    }
    assert marked == {
        "\u2260 policy": ["run 0", "run 1", "run 2"],
        "\u2260 extra": ["\u2013", "[1, 2]", "\u2013"],
    }
    same = [_words(row[0]) for row in section.iter("tr") if len(row) == 2]
    assert same == ["n", "versions.jax", "prompt"]


@pytest.mark.parametrize(
    "values, shown",
    [
        ([1234.567, 12.0], ["1,234.6", "12.0"]),
        ([3.0, 12.0], ["3", "12"]),
        ([-0.3124, 0.5], ["\u22120.312", "0.500"]),
        ([3.14159, math.nan, -math.inf], ["3.14", "n/a", "n/a"]),
        ([123456.7], ["123,457"]),
        ([], []),
    ],
)
def test_plain_numbers(values, shown):
    """A row would mix decimals, or an infinity stop the report."""
    assert report_words.numbers(values) == shown


def test_examples_show_each_text_with_its_mark():
    """The text of a run that failed would be shown as the right one."""
    comparison = _comparison(3)
    article = next(_tree(render(comparison)).iter("article"))
    assert "Solved by run 1 only." in _words(article)
    for part in ("Question: prompt", "Right answer: 42", "run 1 1 of 8 right"):
        assert part in _words(article)
    folds = [(_words(d[0]), _words(d[1])) for d in article.iter("details")]
    cut = "\u2717 wrong no answer read cut off 1 token answer 3"
    assert folds == [
        ("\u2717 wrong 42 7 tokens answer 0", "first of run 0"),
        (cut, "last of run 0"),
        ("\u2713 right 42 7 tokens answer 0", "first of run 1"),
        (cut, "last of run 1"),
        ("\u2717 wrong 42 7 tokens answer 0", "first of run 2"),
        (cut, "last of run 2"),
    ]


def test_every_filter_finds_its_answers():
    """A reader who asks for what was cut off would be shown nothing, or all."""
    root = _tree(render(_comparison(3)))
    asked = [node.get("id") for node in root.iter("input")]
    assert asked == [f"show-{kind}" for kind in FILTERS]
    assert {node.get("for") for node in root.iter("label")} == set(asked)
    classes = [set((d.get("class") or "").split()) for d in root.iter("details")]
    kinds = {frozenset(found - {"answer"}) for found in classes if "answer" in found}
    assert kinds == {
        frozenset({"right"}),
        frozenset({"wrong"}),
        frozenset({"wrong", "unread", "cut"}),
    }
    (article, *_) = root.iter("article")
    assert set(article.get("class").split()) == {
        *("example", "right", "wrong", "unread", "cut", "alone")
    }
    for kind in FILTERS:
        assert kind == "all" or f"#show-{kind}:checked" in STYLE
    one = _tree(render(_comparison(1)))
    assert "show-alone" not in {node.get("id") for node in one.iter("input")}


def test_what_is_left_out_is_said():
    """A page of some of the answers would pass for the whole run."""
    page = _words(_tree(render(_comparison(2))))
    assert "4 of 320 answers, to 1 of 20 problems" in page
    assert "records-*.jsonl" in page


def test_intervals_over_groups_are_said_to_be():
    """Intervals over groups would be described as intervals over problems."""
    comparison = _comparison(2)
    assert "with the spread over problems, and" in _words(_tree(render(comparison)))
    grouped = _words(_tree(render(dataclasses.replace(comparison, groups=4))))
    assert "with the spread over groups of problems," in grouped
    assert "20 problems in 4 groups" in grouped


def test_table_of_problems_stays_away_where_there_are_too_many():
    """A page of many thousand problems would not open."""
    many = _comparison(2, problems=comparison_page.MOST_PROBLEMS + 1, n=1)
    assert "p1999" not in render(many)
    assert "p19" in render(_comparison(2))


def test_sections_without_content_are_left_out():
    """Headings would stand over nothing."""
    root = _tree(render(dataclasses.replace(_comparison(1), examples=())))
    found = [node.get("id") for node in root.iter("section")]
    assert found == ["measures", "curves", "numbers", "problems", "runs"]


# -- refusals ------------------------------------------------------------------------


def test_refuses_what_is_no_comparison():
    """A page without runs, or counts beside other problems, would be taken for one."""
    comparison = _comparison(2)
    with pytest.raises(ValueError, match="at least one run, found none"):
        render(dataclasses.replace(comparison, runs=()))
    with pytest.raises(ValueError, match="run 0 must have one count .* 20 for 1;"):
        render(dataclasses.replace(comparison, problems=("p0",)))
    with pytest.raises(ValueError, match="one p-value for each difference, found 2"):
        render(comparison, holm=[0.1, 0.2])


# -- colours -------------------------------------------------------------------------


THEMES = {"light": LIGHT, "dark": DARK}


def _luminance(colour):
    """Relative luminance, as WCAG 2 defines it."""
    parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def _contrast(a, b):
    high, low = sorted((_luminance(a), _luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_and_lines_stand_out_from_the_paper(theme):
    """Readers with weak eyes, or in the sun, would not see them."""
    colours = THEMES[theme]
    for name in ("ink", "muted"):
        assert _contrast(colours[name], colours["paper"]) >= 4.5, name
    for name in [f"run-{index}" for index in range(6)]:
        assert _contrast(colours[name], colours["paper"]) >= 3, name


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_runs_differ_in_lightness(theme):
    """In grey print, or to the colour-blind, two runs would have one colour."""
    colours = THEMES[theme]
    lightness = [
        116 * _luminance(colours[f"run-{index}"]) ** (1 / 3) - 16 for index in range(6)
    ]
    for a, b in combinations(lightness, 2):
        assert abs(a - b) >= 5
    # Neighbours in the list are those most often compared.
    assert min(abs(np.diff(lightness))) >= 12


def test_colours_have_names_of_their_own():
    """A page would show one colour in the place of another."""
    assert LIGHT.keys() == DARK.keys()
    assert len(set(LIGHT.values())) == len(LIGHT)


def test_style_can_stand_within_html():
    """The style would end early, or be read as something else."""
    assert not re.search(r"[<&]", STYLE)
