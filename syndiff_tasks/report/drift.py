"""A plot of how a CCD's pointing drifts."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Column of the offset, what it is called, and its colour: none of them the red of bad frames.
CORNERS = (
    ("_corner1", "lower left", "tab:blue"),
    ("_corner2", "lower right", "tab:orange"),
    ("_corner3", "upper right", "tab:green"),
    ("_corner4", "upper left", "tab:purple"),
)

# Frames that follow each other are at most 30 minutes apart; a line over the hours between two orbits would say
# something of a pointing that nobody knows [d].
LONGEST_GAP = 0.25


def draw(table, usable, title):
    """Draw the offsets of FFIs against time.

    Parameters
    ----------
    table : pandas.DataFrame
        ffi, mjd, dx, dy, dx_corner1 .. dy_corner4 [TESS px], flags; in the order of time.
    usable : ndarray of bool
        Rows whose offsets mean something; the times of the others are marked.
    title : str

    Returns
    -------
    figure : matplotlib.figure.Figure
    """
    figure = Figure(figsize=(9, 6), dpi=110, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 1, sharex=True)
    good, bad = table[usable], table[~np.asarray(usable)]
    lines = _broken_off(good)
    for panel, axis in zip(panels, ("dx", "dy"), strict=True):
        for corner, name, colour in CORNERS:
            how = {"color": colour, "linewidth": 0.7, "markersize": 1.5, "label": f"{name} corner"}
            panel.plot(lines["mjd"], lines[f"{axis}{corner}"], ".-", **how)
        panel.plot(lines["mjd"], lines[axis], "k.-", linewidth=0.8, markersize=3, label="centre")
        at_the_foot = {"transform": panel.get_xaxis_transform(), "markersize": 9}
        panel.plot(bad["mjd"], np.full(len(bad), 0.02), "|", color="tab:red", label="bad WCS", **at_the_foot)
        panel.axhline(0, color="0.5", linewidth=0.6, zorder=0)
        panel.set_ylabel(f"{axis} [TESS px]")
        panel.ticklabel_format(style="plain", useOffset=False)
        panel.grid(alpha=0.3)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=6, fontsize=8)
    panels[0].set_title(f"{title}: {len(good)} FFIs and {len(bad)} with a bad WCS", fontsize=10)
    panels[1].set_xlabel("MJD (UTC) at the start of the FFI")
    return figure


def _broken_off(good):
    """Return the rows with one of NaN in each long gap, where no line is drawn."""
    gaps = np.flatnonzero(np.diff(good["mjd"].to_numpy(float)) > LONGEST_GAP) + 1
    # A row that there is not becomes one of NaN.
    return good.reset_index(drop=True).reindex(np.insert(np.arange(len(good)), gaps, -1))
