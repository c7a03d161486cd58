"""Heat maps: a file for what fits, an error for what does not."""

from contextlib import contextmanager

import numpy as np
import pytest

from jaxmoe.reports import heat_maps, plots
from jaxmoe.reports.heat_maps import plot_heat_maps
from jaxmoe.reports.plots import figure_file

AXES = {"x": ("tau", (0.5, 1.0, 2.0)), "y": ("k_keep", (3, 4)), "title": "accuracy"}


@pytest.mark.parametrize("panels", [1, 5])
def test_writes_a_png(matplotlib, tmp_path, panels):
    """A sweep would end without its picture."""
    values = np.linspace(-0.05, 0.05, 6).reshape(2, 3)
    values[0, 1] = np.nan
    path = tmp_path / "map.png"
    plot_heat_maps({f"r = {r}": values for r in range(panels)}, path, **AXES)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_equal_values_have_a_scale(matplotlib, tmp_path):
    """A sweep in which nothing changes would divide by nothing."""
    path = tmp_path / "map.png"
    plot_heat_maps({"r = 8": np.zeros((2, 3))}, path, **AXES)
    assert path.stat().st_size > 1000


@pytest.mark.parametrize("columns", [1, 2, 3, 6])
def test_the_title_lies_within_the_figure(matplotlib, tmp_path, monkeypatch, columns):
    """Few columns make a narrow figure, which would cut a long title off."""
    ends = []

    @contextmanager
    def measured(path, *size):
        with figure_file(path, *size) as figure:
            yield figure
            figure.canvas.draw()
            ends.append((figure._suptitle.get_window_extent().x1, figure.bbox.width))

    monkeypatch.setattr(heat_maps, "figure_file", measured)
    axes = {"x": ("tau", tuple(range(columns))), "y": ("k_keep", (3, 4))}
    title = "accuracy of Expert-Sample less that of topk, percentage points"
    values = {"r = 8": np.zeros((2, columns))}
    plot_heat_maps(values, tmp_path / "map.png", title=title, **axes)
    ((end, width),) = ends
    assert end <= width


def _cells(figure):
    """Text and colour of each cell, by panel; colours are None where there is none."""
    found = []
    for axes in figure.axes:
        texts = [text.get_text() for text in axes.texts]
        faces = [patch.get_facecolor() for patch in axes.patches[::2]]
        found.append((texts, [face if face[3] else None for face in faces]))
    return found


def test_noise_has_no_colour(matplotlib, tmp_path, monkeypatch):
    """A map of nothing but noise would shout, and its best cell look like a finding."""
    figures = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: figures.append(figure))
    panel = np.array([[0.01, -0.012, 0.02], [0.0, np.nan, -0.03]])
    half = np.full(panel.shape, 0.018)
    bounds = np.stack([panel - half, panel + half], axis=-1)
    maps, edges = {"r = 8": panel}, {"r = 8": bounds}
    plot_heat_maps(maps, tmp_path / "map.png", bounds=edges, **AXES)
    ((texts, faces),) = _cells(figures[0])
    coloured = [face is not None for face in faces]
    assert coloured == [False, False, True, False, False, True]
    # The full colour is for twice the half-width, 3.6 points.
    assert (faces[2][3], faces[5][3]) == pytest.approx((0.6 * 2 / 3.6, 0.6 * 3 / 3.6))
    assert texts[:4] == ["+1.0", "[\u22120.8, 2.8]", "\u22121.2", "[\u22123.0, 0.6]"]
    assert "n/a" in texts


@pytest.mark.parametrize("panels", [{}, {"r = 8": np.zeros((3, 2))}])
def test_panels_that_do_not_fit(tmp_path, panels):
    """Cells would be labelled with other settings."""
    with pytest.raises(ValueError, match=r"shape \(2, 3\)"):
        plot_heat_maps(panels, tmp_path / "map.png", **AXES)
    assert not list(tmp_path.iterdir())
