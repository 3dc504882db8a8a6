"""Outlines on the sky of the pixels of an FFI, as closed polygons."""

import math
from itertools import groupby

import numpy as np

from .region import Region
from .tansip import pixel_to_sky

#: Pixels between two points of an outline: over such a length, the edge of a CCD bows by some 0.02 px.
STEP = 64


def outlines(tansip, chosen, x0, y0):
    """Return the outlines of the chosen pixels of an image.

    Parameters
    ----------
    tansip : TanSip
        World coordinates of the FFI.
    chosen : ndarray of bool, shape (ny, nx)
        True for the pixels to outline.
    x0, y0 : int
        FFI column and row of its first pixel.

    Returns
    -------
    list of (ra, dec)
        One polygon a rectangle of pixels; each an ndarray of float64, shape (n,) [deg]. Together they cover the outer
        edges of all chosen pixels, and nothing else.
    """
    return [outline(tansip, Region(x0 + r.x0, y0 + r.y0, x0 + r.x1, y0 + r.y1)) for r in rectangles(chosen)]


def outline(tansip, region):
    """Return the outer edge of a rectangle of pixels.

    Parameters
    ----------
    tansip : TanSip
    region : Region

    Returns
    -------
    ra, dec : ndarray of float64, shape (n,)
        [deg], from the first pixel's corner once around; the first point is not repeated.
    """
    ny, nx = region.shape
    sides = ((region.x0, nx), (region.y0, ny))
    x, y = (np.linspace(first, first + n, math.ceil(n / STEP) + 1) - 0.5 for first, n in sides)
    edge_x = np.concatenate([x[:-1], np.full(len(y) - 1, x[-1]), x[:0:-1], np.full(len(y) - 1, x[0])])
    edge_y = np.concatenate([np.full(len(x) - 1, y[0]), y[:-1], np.full(len(x) - 1, y[-1]), y[:0:-1]])
    return pixel_to_sky(tansip, edge_x, edge_y)


def rectangles(chosen):
    """Divide the chosen pixels of an image into rectangles: equal runs of adjacent rows.

    Parameters
    ----------
    chosen : ndarray of bool, shape (ny, nx)

    Returns
    -------
    list of Region
        No two overlap.
    """
    row, column = np.nonzero(np.diff(np.pad(chosen, ((0, 0), (1, 1))).astype(np.int8), axis=1))
    runs = sorted(zip(column[::2].tolist(), column[1::2].tolist(), row[::2].tolist(), strict=True))
    result = []
    # Rows of equal runs are adjacent where row minus position stays the same.
    for (first, end, _), group in groupby(enumerate(runs), key=lambda item: (*item[1][:2], item[1][2] - item[0])):
        rows = [run[2] for _, run in group]
        result.append(Region(first, rows[0], end, rows[-1] + 1))
    return result


def healpix_order(scale):
    """Return the HEALPix order of cells no wider than a pixel.

    Parameters
    ----------
    scale : float
        Side of a pixel [deg].

    Returns
    -------
    int
        The lowest such order: 14 (12.9") for TESS's pixels of 20.5". A cell of order k has the area of the sphere over
        12 * 4^k (Gorski et al. 2005, ApJ 622, 759).
    """
    return max(0, math.ceil(math.log2(math.sqrt(math.pi / 3) / math.radians(scale))))
