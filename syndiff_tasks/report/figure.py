"""Figures in the style of the reports, drawn by matplotlib's Agg without pyplot, and their PNG files."""

import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, QUIET, FRAME = "#222222", "#6b6b6b", "#b0b0b0"


def new_figure(width, height, dpi=100):
    """Return an empty white figure.

    Parameters
    ----------
    width, height : float
        [inch]
    dpi : int, default 100
        Pixels per inch of the PNG file.

    Returns
    -------
    matplotlib.figure.Figure
        Independent of pyplot and of the user's matplotlib backend.
    """
    figure = Figure(figsize=(width, height), dpi=dpi, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def style_axes(axes):
    """Give a panel the gray frame and small tick labels of the reports.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Changed in place.
    """
    axes.tick_params(labelsize=8, colors=QUIET, length=3)
    for spine in axes.spines.values():
        spine.set_color(FRAME)


def save(figure, file):
    """Write a figure as PNG.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        The figure.
    file : str, Path or binary file
        Destination.
    """
    figure.savefig(file, format="png", metadata={"Software": "syndiff_tasks"})


def png(figure):
    """Return a figure as the content of a PNG file.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        The figure.

    Returns
    -------
    bytes
    """
    buffer = io.BytesIO()
    save(figure, buffer)
    return buffer.getvalue()
