import numpy as np
import pandas as pd
import pytest

from syndiff_tasks.chain import drift as drifts
from syndiff_tasks.report import drift_plot


def drawn(mjd, usable=None):
    usable = np.ones(len(mjd), bool) if usable is None else np.array(usable)
    offsets = np.outer(np.linspace(0.1, 0.2, len(mjd)), np.arange(1, 11))
    table = pd.DataFrame(offsets, columns=drifts.OFFSET_COLUMNS).assign(mjd=mjd)
    figure = drift_plot.draw(table, usable, "Sector 20, camera 3, CCD 3")
    figure.canvas.draw()
    return figure, table


@pytest.mark.parametrize("mjd", [[58867.58, 58867.62, 58867.66], np.arange(58842.5, 58870.0, 0.5)])
def test_the_time_axis_of_a_drift_plot_shows_full_dates(mjd):
    figure, _ = drawn(mjd)
    for panel in figure.axes:
        assert panel.xaxis.get_offset_text().get_text() == panel.yaxis.get_offset_text().get_text() == ""
    ticks = [float(label.get_text()) for label in figure.axes[1].get_xticklabels()]
    span = mjd[-1] - mjd[0]
    assert len(ticks) >= 5 and mjd[0] - span < min(ticks) < max(ticks) < mjd[-1] + span


def test_a_drift_plot_has_a_gap_between_two_orbits():
    mjd = [58842.5, 58842.52, 58842.54, 58856.3, 58856.32]
    figure, table = drawn(mjd)
    for panel, axis in zip(figure.axes, ("dx", "dy"), strict=True):
        lines = {line.get_label(): line.get_xydata() for line in panel.get_lines()}
        for label, column in (("center", axis), ("upper left corner", f"{axis}_corner4")):
            assert np.isnan(lines[label][3]).all()
            np.testing.assert_array_equal(np.delete(lines[label], 3, axis=0), table[["mjd", column]])


def test_ffis_with_a_bad_wcs_are_marked_but_not_in_the_lines():
    figure, _ = drawn([1.0, 1.1, 1.2, 1.3], [True, False, True, False])
    for panel in figure.axes:
        lines = {line.get_label(): line.get_xdata() for line in panel.get_lines()}
        assert list(lines["bad WCS"]) == [1.1, 1.3] and list(lines["center"]) == [1.0, 1.2]
        colors = [line.get_color() for line in panel.get_lines()[:-1]]
        assert len(set(colors)) == 6, "bad FFIs have their own color"


def test_the_legend_of_a_drift_plot_covers_no_panel():
    figure, _ = drawn(np.arange(58842.5, 58870.0, 0.5))
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert not any(box.overlaps(panel.get_tightbbox()) for panel in figure.axes)
