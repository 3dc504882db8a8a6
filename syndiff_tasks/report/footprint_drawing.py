"""Where a template lies on the sky, with its skycells and their projections."""

import numpy as np
from matplotlib.collections import PolyCollection

from syndiff_tasks.geometry.tangent import tangent_frame, unit_vectors
from syndiff_tasks.geometry.tansip import pixel_to_sky
from syndiff_tasks.report.figure import INK, QUIET, new_figure, style_axes

LABELED = 60  # skycells that are named at most
CORNERS = ("CORNER1", "CORNER2", "CORNER3", "CORNER4")
CORNER_COLUMNS = tuple(f"{axis}_{corner}" for axis in ("RA", "DEC") for corner in CORNERS)
# Skycells of one projection share a color of Okabe & Ito (2008), which color-blind readers can tell apart.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")


def tangent_plane(ra, dec, ra0, dec0):
    """Project sky positions onto the plane tangent at (ra0, dec0).

    Parameters
    ----------
    ra, dec : ndarray of float
        Sky positions [deg].
    ra0, dec0 : float
        Tangent point [deg].

    Returns
    -------
    xi, eta : ndarray of float64
        Offsets to the east and to the north [deg]; NaN on the opposite hemisphere.
    """
    xi, eta, depth = np.moveaxis(unit_vectors(ra, dec) @ tangent_frame(ra0, dec0).T, -1, 0)
    depth = np.where(depth > 0, depth, np.nan)
    return np.degrees(xi / depth), np.degrees(eta / depth)


def draw_footprint(template):
    """Draw where the template lies on the sky, with its skycells and their projections.

    Parameters
    ----------
    template : syndiff_tasks.report.product.Template
        The columns RA_CORNER1, DEC_CORNER1, ... of its SKYCELLS table give the corners of its skycells.

    Returns
    -------
    matplotlib.figure.Figure
        North is up, east is left.
    """
    figure = new_figure(5.6, 5.2, dpi=110)
    axes = figure.add_axes((0.13, 0.1, 0.84, 0.83))
    style_axes(axes)
    ny, nx = template.flux.shape
    ra0, dec0 = (float(value) for value in pixel_to_sky(template.tansip, (nx - 1) / 2, (ny - 1) / 2))
    if all(column in template.skycells.colnames for column in CORNER_COLUMNS):
        _draw_skycells(axes, template.skycells, ra0, dec0)
    axes.plot(*tangent_plane(*_outline(template), ra0, dec0), color=INK, linewidth=1.6)
    if template.target is not None:
        axes.plot(*tangent_plane(*template.target, ra0, dec0), "+", color=INK, ms=11, mew=1.6, label="target")
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.05)
    axes.invert_xaxis()
    axes.set_xlabel(f"offset to the east of RA {ra0:.4f} [deg]", fontsize=8.5, color=QUIET)
    axes.set_ylabel(f"offset to the north of Dec {dec0:+.4f} [deg]", fontsize=8.5, color=QUIET)
    axes.set_title("Template (black outline) and its skycells", loc="left", fontsize=10.5, color=INK)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, loc="upper right", framealpha=0.9, edgecolor="#dddddd")
    return figure


def _outline(template, points=24):
    """Return sky positions along the edge of the template's pixels, `points` a side."""
    ny, nx = template.flux.shape
    t = np.linspace(0, 1, points)
    x = np.concatenate([t, np.ones(points), 1 - t, np.zeros(points)]) * nx - 0.5
    y = np.concatenate([np.zeros(points), t, np.ones(points), 1 - t]) * ny - 0.5
    return pixel_to_sky(template.tansip, x, y)


def _draw_skycells(axes, skycells, ra0, dec0):
    """Draw each skycell in the color of its projection, and name the projections."""
    corners = [tangent_plane(skycells[f"RA_{corner}"], skycells[f"DEC_{corner}"], ra0, dec0) for corner in CORNERS]
    xi, eta = (np.array([corner[axis] for corner in corners]) for axis in (0, 1))
    _, projections, cells = zip(*(str(name).strip().split(".") for name in skycells["NAME"]), strict=True)
    color_of = {name: COLORS[index % len(COLORS)] for index, name in enumerate(sorted(set(projections)))}
    colors = [color_of[projection] for projection in projections]
    # A single collection: a thousand separate patches take 2 s to draw.
    outlines = PolyCollection(
        np.stack([xi, eta], axis=-1).swapaxes(0, 1),
        facecolors=[f"{color}22" for color in colors],
        edgecolors=[f"{color}99" for color in colors],
        linewidths=0.7,
    )
    axes.add_collection(outlines)
    for index, cell in enumerate(cells if len(cells) <= LABELED else ()):
        place = xi[:, index].mean(), eta[:, index].mean()
        axes.text(*place, cell, ha="center", va="center", fontsize=7, color=colors[index], clip_on=True)
    for name, color in color_of.items():
        axes.plot([], [], "s", color=f"{color}99", label=f"projection {name}")
