"""Heat maps: a file for what fits, an error for what does not."""

from contextlib import contextmanager

import numpy as np
import pytest

from jaxmoe.reports import heat_maps
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


@pytest.mark.parametrize("panels", [{}, {"r = 8": np.zeros((3, 2))}])
def test_panels_that_do_not_fit(tmp_path, panels):
    """Cells would be labelled with other settings."""
    with pytest.raises(ValueError, match=r"shape \(2, 3\)"):
        plot_heat_maps(panels, tmp_path / "map.png", **AXES)
    assert not list(tmp_path.iterdir())
