"""Figures of router statistics: PNG files that show the numbers they are given."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.analysis.router_pass import CLASSES
from jaxmoe.analysis.router_stats import empty, to_host, update
from jaxmoe.reports import plots, router_figures

EXPERTS, K = 16, 4
_update = jax.jit(update)


def _stats(seed: int, scale: float):
    generator = np.random.default_rng(seed)
    logits = (scale * generator.gumbel(size=(200, EXPERTS))).astype(np.float32)
    logits += np.linspace(0, 1, EXPERTS, dtype=np.float32)
    experts = np.argsort(-logits, axis=1)[:, :K].astype(np.int32)
    given = map(jnp.asarray, (logits, experts, np.ones(200, bool)))
    return to_host(_update(empty(EXPERTS), *given))


def _layers(count: int, scale: float = 1.0, names=CLASSES):
    """Layers 1, 2, ... as layer 0 is dense."""
    return {
        1 + l: {n: _stats(10 * l + i, scale + i) for i, n in enumerate(names)}
        for l in range(count)
    }


LAYERS, OTHERS = _layers(3), _layers(3, 1.5)

DRAW = {
    "scores": lambda layers, path: router_figures.plot_scores(
        layers, path, k=K, title="Title"
    ),
    "mass": lambda layers, path: router_figures.plot_mass(
        layers, path, k=K, title="Title"
    ),
    "loads": lambda layers, path: router_figures.plot_loads(
        layers, path, title="Title"
    ),
    "coactivation": lambda layers, path: router_figures.plot_coactivation(
        layers, path, title="Title"
    ),
    "heads": lambda layers, path: router_figures.plot_heads(
        layers, path, k=K, title="Title"
    ),
    "comparison": lambda layers, path: router_figures.plot_comparison(
        layers, layers, path, names=("a", "b"), title="Title"
    ),
}


@pytest.fixture
def figures(monkeypatch, matplotlib):
    """Figures as they were when they would have been saved."""
    kept = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: kept.append(figure))
    return kept


def _shown(figure):
    return [axes for axes in figure.axes if axes.get_visible()]


def _texts(figure):
    """Bounding boxes of what is written above the panels, and of the panels."""
    figure.draw_without_rendering()
    boxes = {}
    for legend in figure.legends:
        boxes["legend"] = legend.get_window_extent()
    if figure.get_suptitle():
        boxes["title"] = figure.texts[0].get_window_extent()
    for index, axes in enumerate(_shown(figure)):
        boxes[f"panel {index}"] = axes.get_tightbbox()
    return boxes


@pytest.mark.parametrize("name", DRAW)
def test_writes_one_png(matplotlib, tmp_path, name):
    """A report would lack a figure, or have half of one."""
    path = tmp_path / "figure.png"
    DRAW[name](LAYERS, path)
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.thorough
@pytest.mark.parametrize(
    "name, layers",
    [*((name, 1) for name in DRAW), ("loads", 17), ("comparison", 5)],
)
def test_nothing_covers_a_panel_or_is_cut_off(figures, tmp_path, layers, name):
    """The title would stand in the legend, or a legend in a panel."""
    many = {l: LAYERS[1 + l % 3] for l in range(layers)}
    DRAW[name](many, tmp_path / "figure.png")
    boxes = _texts(figures[0])
    width, height = figures[0].bbox.size
    for one, box in boxes.items():
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1
        assert inside and box.y1 <= height + 1, one
        above = [o for n, o in boxes.items() if n != one and "panel" not in one]
        assert not any(box.overlaps(other) for other in above), one


@pytest.mark.parametrize("name", DRAW)
def test_refuses_to_draw_nothing(tmp_path, name):
    """An empty figure would be taken for a result."""
    with pytest.raises(ValueError, match="at least one to plot, found none"):
        DRAW[name]({}, tmp_path / "figure.png")


# -- what is drawn -----------------------------------------------------------------


def test_scores_have_a_line_and_a_band_for_each_class(figures, tmp_path):
    """A panel would show another layer, or one class under the other's name."""
    DRAW["scores"](LAYERS, tmp_path / "figure.png")
    for axes, (layer, classes) in zip(_shown(figures[0]), LAYERS.items(), strict=True):
        assert axes.get_title(loc="left") == f"layer {layer}"
        lines = {line.get_label(): line for line in axes.get_lines()}
        for name, band in zip(CLASSES, axes.collections, strict=True):
            middle = classes[name].quantile(0.5)
            np.testing.assert_array_equal(lines[name].get_ydata(), middle)
            edge = band.get_paths()[0].vertices[:, 1]
            assert edge.min() == pytest.approx(classes[name].quantile(0.1).min())
            assert edge.max() == pytest.approx(classes[name].quantile(0.9).max())
        assert list(lines[f"k = {K}"].get_xdata()) == [K, K]
    (legend,) = figures[0].legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == [f"k = {K}", *CLASSES]


def test_mass_is_in_percent(figures, tmp_path):
    """Fractions would be drawn on an axis of percent."""
    DRAW["mass"](LAYERS, tmp_path / "figure.png")
    for axes, classes in zip(_shown(figures[0]), LAYERS.values(), strict=True):
        _, *lines = axes.get_lines()
        for line, name in zip(lines, CLASSES, strict=True):
            np.testing.assert_allclose(line.get_ydata(), 100 * classes[name].mass)
            assert line.get_ydata()[-1] == pytest.approx(100)


def test_loads_are_sorted_and_whole(figures, tmp_path):
    """The most used expert would be cut off, or a share not be one of an even one."""
    DRAW["loads"](LAYERS, tmp_path / "figure.png")
    for axes, classes in zip(_shown(figures[0]), LAYERS.values(), strict=True):
        for line, name in zip(axes.get_lines(), CLASSES, strict=False):
            values = line.get_ydata()
            load = np.sort(classes[name].load)[::-1] / (200 * K / EXPERTS)
            np.testing.assert_allclose(values, load)
            assert axes.get_ylim()[0] == 0 and axes.get_ylim()[1] > values.max()


def test_pairs_are_those_of_all_tokens(figures, tmp_path):
    """Red and blue would be swapped, or one class be left out."""
    DRAW["coactivation"](LAYERS, tmp_path / "figure.png")
    for axes, classes in zip(_shown(figures[0]), LAYERS.values(), strict=False):
        (image,) = axes.get_images()
        chosen = np.sum([classes[name].chosen for name in CLASSES], axis=0)
        load = np.diagonal(chosen)
        i, j = np.triu_indices(EXPERTS, 1)
        lift = chosen[i, j] / (load[i] * load[j])
        scale = (load[i] * load[j]).sum() / chosen[i, j].sum()
        lift, expected = scale * lift, load[i] * load[j] / scale
        far = abs(chosen[i, j] - expected) >= 3 * np.sqrt(expected)
        found = image.get_array()
        seen = far & (lift > 0.2)
        np.testing.assert_allclose(found[i, j][seen], np.log2(lift[seen]))
        assert (found[i, j][~far] == 0).all()
        assert np.isnan(np.diagonal(found.filled(np.nan))).all()
        assert image.norm(0.0) == pytest.approx(0.5)  # the middle is as expected


def test_heads_are_by_layer(figures, tmp_path):
    """A layer's head would be drawn at another layer, or of another mass."""
    DRAW["heads"](LAYERS, tmp_path / "figure.png")
    panels = _shown(figures[0])
    assert [axes.get_title(loc="left") for axes in panels] == list(CLASSES)
    for axes, name in zip(panels, CLASSES, strict=True):
        for line, mass in zip(axes.get_lines(), (0.5, 0.8, 0.9), strict=False):
            sizes = [classes[name].head_size(mass) for classes in LAYERS.values()]
            assert line.get_ydata().tolist() == sizes
            assert np.abs(line.get_xdata() - [1, 2, 3]).max() < 0.2


def test_heads_of_prompts_alone(figures, tmp_path):
    """An empty panel would stand for answers that were not drawn."""
    DRAW["heads"](_layers(2, names=("prompt",)), tmp_path / "figure.png")
    (axes,) = _shown(figures[0])
    assert axes.get_title(loc="left") == "prompt"


def test_comparison_is_second_less_first(figures, tmp_path):
    """A gain would look like a loss."""
    path = tmp_path / "figure.png"
    options = {"names": ("before", "after"), "title": "Title"}
    router_figures.plot_comparison(LAYERS, OTHERS, path, **options)
    panels = _shown(figures[0])
    for column, layer in enumerate(LAYERS):
        above, below = panels[column], panels[3 + column]
        first, second = (line.get_ydata() for line in above.get_lines())
        a, b = router_figures.difference(LAYERS, OTHERS, layer)
        np.testing.assert_array_equal(first, a)
        np.testing.assert_array_equal(second, b)
        np.testing.assert_allclose(below.get_lines()[1].get_ydata(), second - first)
        tokens = [LAYERS[layer][name].log_probability for name in CLASSES]
        np.testing.assert_allclose(a, np.mean(tokens, axis=0))
    (legend,) = figures[0].legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["before", "after", "difference"]


def test_comparison_with_itself(figures, tmp_path):
    """Rounding would fill the panels, or two lines have one entry in the legend."""
    path, title = tmp_path / "figure.png", "Title"
    router_figures.plot_comparison(LAYERS, LAYERS, path, names=("a", "b"), title=title)
    low, high = _shown(figures[0])[3].get_ylim()
    assert low <= -1e-3 and high >= 1e-3
    with pytest.raises(ValueError, match="found 'a' twice"):
        router_figures.plot_comparison(
            LAYERS, OTHERS, path, names=("a", "a"), title=title
        )


def test_comparison_of_other_layers(tmp_path):
    """Layer 2 of one model would be shown beside layer 3 of another."""
    with pytest.raises(ValueError, match=r"same layers, found \[1, 2, 3\] and \[1\]"):
        router_figures.difference(LAYERS, {1: LAYERS[1]}, 1)
