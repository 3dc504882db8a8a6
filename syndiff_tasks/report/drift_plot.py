"""The plot of how the pointing of a CCD drifts with time."""

import numpy as np

from syndiff_tasks.report.figure import new_figure

# Suffix of the column, name of the corner, and color: none of them the red of bad FFIs.
CORNERS = (
    ("_corner1", "lower left", "tab:blue"),
    ("_corner2", "lower right", "tab:orange"),
    ("_corner3", "upper right", "tab:green"),
    ("_corner4", "upper left", "tab:purple"),
)

# Consecutive FFIs are at most 30 minutes apart; a line across the hours between two orbits would suggest a pointing
# that was not measured [d].
LONGEST_GAP = 0.25


def draw(table, usable, title):
    """Draw the offsets of FFIs against time.

    Parameters
    ----------
    table : pandas.DataFrame
        A row for each FFI in order of time: mjd [d], dx, dy, dx_corner1 .. dy_corner4 [TESS px].
    usable : ndarray of bool
        Rows with a usable offset; the times of the others are marked.
    title : str
        Which CCD it is.

    Returns
    -------
    matplotlib.figure.Figure
        dx above dy, each at the center and the four corners of the region.
    """
    figure = new_figure(9, 6, dpi=110)
    figure.set_layout_engine("constrained")
    panels = figure.subplots(2, 1, sharex=True)
    good, bad = table[usable], table[~np.asarray(usable)]
    lines = _with_gaps(good)
    for panel, axis in zip(panels, ("dx", "dy"), strict=True):
        for corner, name, color in CORNERS:
            style = {"color": color, "linewidth": 0.7, "markersize": 1.5, "label": f"{name} corner"}
            panel.plot(lines["mjd"], lines[f"{axis}{corner}"], ".-", **style)
        panel.plot(lines["mjd"], lines[axis], "k.-", linewidth=0.8, markersize=3, label="center")
        at_bottom = {"transform": panel.get_xaxis_transform(), "markersize": 9}
        panel.plot(bad["mjd"], np.full(len(bad), 0.02), "|", color="tab:red", label="bad WCS", **at_bottom)
        panel.axhline(0, color="0.5", linewidth=0.6, zorder=0)
        panel.set_ylabel(f"offset {axis} [TESS px]")
        panel.ticklabel_format(style="plain", useOffset=False)
        panel.grid(alpha=0.3)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=6, fontsize=8)
    panels[0].set_title(f"{title}: {len(good)} FFIs and {len(bad)} with a bad WCS", fontsize=10)
    panels[1].set_xlabel("MJD (UTC) at the start of the FFI")
    return figure


def _with_gaps(good):
    """Insert a row of NaN into each long gap, so that no line is drawn across it."""
    gaps = np.flatnonzero(np.diff(good["mjd"].to_numpy(float)) > LONGEST_GAP) + 1
    # Index -1 does not exist, so reindex fills its row with NaN.
    return good.reset_index(drop=True).reindex(np.insert(np.arange(len(good)), gaps, -1))
