"""Heat maps: a file for what fits, an error for what does not."""

import numpy as np
import pytest

from jaxmoe.reports.heat_maps import plot_heat_maps

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


@pytest.mark.parametrize("panels", [{}, {"r = 8": np.zeros((3, 2))}])
def test_panels_that_do_not_fit(tmp_path, panels):
    """Cells would be labelled with other settings."""
    with pytest.raises(ValueError, match=r"shape \(2, 3\)"):
        plot_heat_maps(panels, tmp_path / "map.png", **AXES)
    assert not list(tmp_path.iterdir())
