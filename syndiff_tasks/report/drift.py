"""A plot of how a CCD's pointing drifts."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

CORNERS = ("_corner1", "_corner2", "_corner3", "_corner4")
NAMES = ("lower left", "lower right", "upper right", "upper left")


def draw(table, usable, title):
    """Draw the offsets of FFIs against time.

    Parameters
    ----------
    table : pandas.DataFrame
        ffi, mjd, dx, dy, dx_corner1 .. dy_corner4 [TESS px], flags.
    usable : ndarray of bool
        Rows whose offsets mean something; the times of the others are marked.
    title : str

    Returns
    -------
    figure : matplotlib.figure.Figure
    """
    figure = Figure(figsize=(9, 5.5), dpi=110, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 1, sharex=True)
    good, bad = table[usable], table[~np.asarray(usable)]
    for panel, axis in zip(panels, ("dx", "dy"), strict=True):
        for corner, name in zip(CORNERS, NAMES, strict=True):
            panel.plot(good["mjd"], good[f"{axis}{corner}"], linewidth=0.7, label=name)
        panel.plot(good["mjd"], good[axis], "k.-", linewidth=1, markersize=3, label="centre")
        for mjd in bad["mjd"].dropna():
            panel.axvline(mjd, color="tab:red", linewidth=0.6, alpha=0.5)
        panel.set_ylabel(f"{axis} [TESS px]")
        panel.grid(alpha=0.3)
    panels[0].legend(ncols=5, fontsize=8)
    panels[0].set_title(f"{title}: {len(good)} FFIs, {len(bad)} with a bad WCS (red)", fontsize=10)
    panels[1].set_xlabel("MJD (UTC) at the start of the FFI")
    return figure
