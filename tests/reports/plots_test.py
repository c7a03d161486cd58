"""Figures: small PNG files, written whole, that show the numbers they are given."""

import sys

import numpy as np
import pytest

from jaxmoe.analysis.router_scores import rank_curve
from jaxmoe.evals.metrics import Interval
from jaxmoe.reports import plots
from jaxmoe.reports.plots import BLUE, plot_bars, plot_pass_at, plot_rank_curves

MAX_BYTES = 60_000
COUNTS = [1, 2, 4, 8, 16]
ROWS = [
    ("better", Interval(0.04, 0.01, 0.07)),
    ("perhaps", Interval(0.02, -0.01, 0.05)),
    ("worse", Interval(-0.04, -0.09, -0.005)),
]


def _pass_curves(count):
    """Rising curves with their intervals."""
    curves = {}
    for index in range(count):
        means = 1 - 0.9 ** (np.array(COUNTS) * (index + 1) / count)
        intervals = [Interval(m, 0.95 * m, min(1, 1.05 * m)) for m in means.tolist()]
        curves[f"way of sampling number {index}"] = (COUNTS, intervals)
    return curves


def _rank_curves(layers, experts):
    generator = np.random.default_rng(0)
    return {
        f"layer {l}": rank_curve((1 + l / 20) * generator.gumbel(size=(200, experts)))
        for l in range(layers)
    }


DRAW = {
    "pass@n": lambda path: plot_pass_at(_pass_curves(3), path, title="Title"),
    "pass@n of many": lambda path: plot_pass_at(_pass_curves(16), path, title="Title"),
    "one layer": lambda path: plot_rank_curves(
        _rank_curves(1, 32), path, k_keep=5, k=8, r=32, title="Title"
    ),
    "a short last row": lambda path: plot_rank_curves(
        _rank_curves(6, 60), path, k_keep=5, k=8, r=32, title="Title"
    ),
    "48 layers": lambda path: plot_rank_curves(
        _rank_curves(48, 128), path, k_keep=5, k=8, r=32, title="Title"
    ),
    "differences": lambda path: plot_bars(ROWS, path, title="Title"),
    "many differences": lambda path: plot_bars(ROWS * 10, path, title="Title"),
    "one mean": lambda path: plot_bars(ROWS[:1], path, title="Title", zero=False),
}


@pytest.fixture
def figures(matplotlib, monkeypatch):
    """Figures as they were when they would have been saved."""
    kept = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: kept.append(figure))
    return kept


@pytest.mark.thorough
@pytest.mark.parametrize("draw", DRAW.values(), ids=DRAW)
def test_writes_one_small_png(matplotlib, tmp_path, draw):
    """A repository would fill up with large pictures, or with temporary files."""
    path = tmp_path / "figure.png"
    draw(path)
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert data.endswith(b"IEND\xaeB`\x82")
    assert 1000 < len(data) < MAX_BYTES
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["pass@n", "one layer", "differences"])
def test_equal_numbers_give_equal_bytes(matplotlib, tmp_path, name):
    """A figure would follow the user's style, or change when no number did."""
    first, second = tmp_path / "first.png", tmp_path / "second.png"
    DRAW[name](first)
    with matplotlib.rc_context({"axes.facecolor": "black", "lines.linewidth": 9}):
        DRAW[name](second)
    assert first.read_bytes() == second.read_bytes()


def test_colours_stay_as_drawn(matplotlib, monkeypatch, tmp_path):
    """With fewer colours, a band would take that of another line, and be read so."""
    image = pytest.importorskip("PIL.Image")
    agg = pytest.importorskip("matplotlib.backends.backend_agg")
    figures, save = [], plots._save

    def keep_and_save(figure, path):
        figures.append(figure)
        save(figure, path)

    monkeypatch.setattr(plots, "_save", keep_and_save)
    path = tmp_path / "figure.png"
    DRAW["pass@n"](path)
    canvas = agg.FigureCanvasAgg(figures[0])
    canvas.draw()
    drawn = np.asarray(canvas.buffer_rgba())[..., :3].astype(int)
    with image.open(path) as file:
        error = np.abs(np.asarray(file.convert("RGB")) - drawn).max(axis=-1)
    assert error.max() < 16
    colours, where, counts = np.unique(
        drawn.reshape(-1, 3), axis=0, return_inverse=True, return_counts=True
    )
    common = counts[where.ravel()] > 200
    assert len(colours[counts > 200]) > 6  # paper, text, lines and bands
    assert error.ravel()[common].max() <= 3


def test_needs_no_display_and_leaves_no_style(matplotlib, monkeypatch, tmp_path):
    """Pyplot would look for a display; a style would change the caller's figures."""
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    # Another size, so that one left behind would show. Copied key by key, the settings
    # would be asked for their backend, and import pyplot to find one.
    with matplotlib.rc_context({"font.size": 17}):
        before = matplotlib.rcParams.copy()
        plot_bars(ROWS, tmp_path / "figure.png", title="Title")
        assert matplotlib.rcParams.copy() == before


def test_a_write_that_fails_leaves_the_old_file(matplotlib, monkeypatch, tmp_path):
    """Half a picture would stand where a whole one was."""
    image = pytest.importorskip("PIL.Image")
    path = tmp_path / "figure.png"
    path.write_bytes(b"old")

    def fill_the_disk(self, file, **options):
        file.write(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(image.Image, "save", fill_the_disk)
    with pytest.raises(OSError, match="no space left"):
        plot_bars(ROWS, path, title="Title")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["differences", "pass@n"])
def test_says_how_to_get_matplotlib(monkeypatch, tmp_path, name):
    """Who did not ask for plots would see an error about some module."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'pip install "jaxmoe\[plots\]"'):
        DRAW[name](tmp_path / "figure.png")
    assert not list(tmp_path.iterdir())


# -- what is drawn -----------------------------------------------------------------


def test_pass_at_is_in_percent_over_n(figures, tmp_path):
    """Fractions on an axis of percent, or intervals of another line."""
    curves = _pass_curves(2)
    plot_pass_at(curves, tmp_path / "figure.png", title="Some title")
    (axes,) = figures[0].axes
    assert axes.get_title(loc="left") == "Some title"
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        str(count) for count in COUNTS
    ]
    for (_, intervals), line, band in zip(
        curves.values(), axes.get_lines(), axes.collections, strict=True
    ):
        np.testing.assert_array_equal(line.get_xdata(), COUNTS)
        np.testing.assert_allclose(line.get_ydata(), [100 * i.mean for i in intervals])
        edge = band.get_paths()[0].vertices[:, 1]
        assert edge.min() == pytest.approx(100 * min(i.low for i in intervals))
        assert edge.max() == pytest.approx(100 * max(i.high for i in intervals))
    (legend,) = figures[0].legends
    assert [text.get_text() for text in legend.get_texts()] == list(curves)


def test_many_lines_all_look_different(figures, tmp_path):
    """Two of them would have one colour, marker and style."""
    plot_pass_at(_pass_curves(14), tmp_path / "figure.png", title="Title")
    looks = {
        (line.get_color(), line.get_marker(), line.get_linestyle())
        for line in figures[0].axes[0].get_lines()
    }
    assert len(looks) == 14


def test_rank_curves_show_median_band_and_marks(figures, tmp_path):
    """A panel would show another layer, or a mark would be at another rank."""
    curves = _rank_curves(6, 40)
    path = tmp_path / "figure.png"
    plot_rank_curves(curves, path, k_keep=3, k=4, r=16, title="Some title")
    shown = [axes for axes in figures[0].axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in shown] == list(curves)
    for axes, curve in zip(shown, curves.values(), strict=True):
        *marks, median = axes.get_lines()
        assert [mark.get_xdata()[0] for mark in marks] == [3, 4, 16]
        np.testing.assert_array_equal(median.get_xdata(), np.arange(1, 41))
        np.testing.assert_array_equal(median.get_ydata(), curve.middle)
        edge = axes.collections[0].get_paths()[0].vertices[:, 1]
        assert edge.min() == pytest.approx(curve.low.min())
        assert edge.max() == pytest.approx(curve.high.max())
        assert axes.get_yscale() == "log"
    (legend,) = figures[0].legends
    assert legend.get_title().get_text() == "Some title"
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["k_keep = 3", "k = 4", "r = 16"]


def test_bars_stand_in_order_with_their_intervals(figures, tmp_path):
    """A name would stand beside the interval of another."""
    plot_bars(ROWS, tmp_path / "figure.png", title="Title")
    (axes,) = figures[0].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        name for name, _ in ROWS
    ]
    bottom, top = axes.get_ylim()
    assert top < bottom  # the first row is on top
    for place, ((_, interval), line) in enumerate(
        zip(ROWS, axes.collections, strict=True)
    ):
        (start, stop), *_ = (path.vertices for path in line.get_paths())
        np.testing.assert_allclose(start, [100 * interval.low, place])
        np.testing.assert_allclose(stop, [100 * interval.high, place])


@pytest.mark.parametrize("zero, coloured", [(True, [0, 2]), (False, [0, 1, 2])])
def test_only_what_can_be_told_is_coloured(figures, tmp_path, zero, coloured):
    """A difference that may be 0 would look like one that is not."""
    plot_bars(ROWS, tmp_path / "figure.png", title="Title", zero=zero)
    (axes,) = figures[0].axes
    lines = axes.get_lines()
    zeros = [line for line in lines if list(line.get_xdata()) == [0, 0]]
    assert len(zeros) == zero
    points = [line for line in lines if line.get_marker() == "o"]
    found = [place for place, point in enumerate(points) if point.get_color() == BLUE]
    assert found == coloured


@pytest.mark.parametrize(
    "draw",
    [
        lambda path: plot_pass_at({}, path, title="Title"),
        lambda path: plot_rank_curves({}, path, k_keep=1, k=2, r=3, title="Title"),
        lambda path: plot_bars([], path, title="Title"),
    ],
    ids=["pass@n", "ranks", "bars"],
)
def test_refuses_to_draw_nothing(tmp_path, draw):
    """An empty figure would be taken for a result."""
    with pytest.raises(ValueError, match="at least one to plot, found none"):
        draw(tmp_path / "figure.png")


@pytest.mark.parametrize("counts", [[1, 2], []])
def test_refuses_curves_without_an_estimate_each(tmp_path, counts):
    """The library would fail with a message about shapes."""
    curves = {"top-k": (counts, [Interval(0.5, 0.4, 0.6)] * (len(counts) // 2))}
    with pytest.raises(ValueError, match="top-k must have one estimate for each n"):
        plot_pass_at(curves, tmp_path / "figure.png", title="Title")
