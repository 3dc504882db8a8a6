"""Which skycells lie under an FFI, and which of them owns each pixel."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import shapely
from scipy import ndimage

from .region import SCIENCE, Region, clip
from .skycell import GRID, skycell_center, skycell_radius, skycell_to_vector, vector_to_skycell
from .skycell_table import SKYCELL_COLUMNS
from .tangent import sky_positions
from .tansip import region_to_vector

ROWS = 128  # FFI rows at a time: their vectors, 6 MB, stay in the cache between the two kernels


class Footprint(NamedTuple):
    """The skycells of a region, and for each pixel (ny, nx) the index of its owner in `skycells`, -1 for none."""

    region: Region
    owner: np.ndarray
    skycells: tuple


def footprint(tansip, region, tessellation, science=SCIENCE):
    """Find the owner of each science pixel: the skycell that owns its centre.

    Parameters
    ----------
    tansip : TanSip
        World coordinates of the FFI.
    region : Region
        Pixels wanted.
    tessellation : Tessellation
    science : Region, optional
        The FFI's pixels that see the sky.

    Returns
    -------
    Footprint
        `owner` is int32 of the region's shape, -1 off `science` and where PS1 has no skycell; `skycells` are sorted by
        name, and none where PS1 has none.
    """
    numbers = np.full(region.shape, -1, np.int64)
    found = np.zeros(tessellation.size, bool)
    seeing = clip(region, science)
    inside = numbers[seeing.y0 - region.y0 :, seeing.x0 - region.x0 :]
    for start in range(seeing.y0, seeing.y1, ROWS):
        strip = seeing._replace(y0=start, y1=min(start + ROWS, seeing.y1))
        owners = tessellation.owner_of_vectors(region_to_vector(tansip, strip).reshape(-1, 3))
        found[owners[owners >= 0]] = True
        ny, nx = strip.shape
        inside[start - seeing.y0 :][:ny, :nx] = owners.reshape(ny, nx)
    skycells, index = _by_name(tessellation, np.flatnonzero(found))
    return Footprint(region, index[numbers], skycells)


def _by_name(tessellation, numbers):
    names = sorted((tessellation.name_of(number), number) for number in numbers)
    # One longer than the ids, so that -1, no owner, finds the -1 at the end.
    index = np.full(tessellation.size + 1, -1, np.int32)
    for position, (_, number) in enumerate(names):
        index[number] = position
    return tuple(tessellation.skycell(name) for name, _ in names), index


def projection_seam(found, reach_px):
    """Pixels near the border of two projections.

    Parameters
    ----------
    found : Footprint
    reach_px : float
        How far the border may be along x or y [TESS px].

    Returns
    -------
    ndarray of bool, shape (ny, nx)
        True where a pixel owned by a skycell of another projection is within reach.
    """
    if not found.skycells:
        return np.zeros(found.owner.shape, bool)
    size = 2 * int(np.ceil(reach_px)) + 1
    # The entry at the end serves the pixels without owner.
    projections = np.array([int(skycell.projection) for skycell in found.skycells] + [-1], np.int16)[found.owner]
    owned = projections >= 0
    highest = ndimage.maximum_filter(projections, size)
    lowest = ndimage.minimum_filter(np.where(owned, projections, np.int16(np.iinfo(np.int16).max)), size)
    return owned & (highest != lowest)


def corners(skycell):
    """Sky positions of a skycell's centre and corners.

    Parameters
    ----------
    skycell : Skycell

    Returns
    -------
    ra, dec : ndarray of float64, shape (5,)
        Degrees: the centre, then the outer corners of the image from the first pixel on, counter-clockwise in pixels.
    """
    return sky_positions(_frame(skycell) @ skycell_to_vector(skycell).T)


def _frame(skycell):
    left, bottom, right, top = -0.5, -0.5, skycell.nx - 0.5, skycell.ny - 0.5
    centre = ((left + right) / 2, (bottom + top) / 2)
    points = [centre, (left, bottom), (right, bottom), (right, top), (left, top)]
    return np.array([(*point, 1.0) for point in points])


def neighbours(skycell, tessellation, margin):
    """Skycells whose image reaches near another's.

    Parameters
    ----------
    skycell : Skycell
    tessellation : Tessellation
    margin : float
        How far beyond the edges of the skycell's image to look [its native px].

    Returns
    -------
    list of Skycell
        Of the same and other projections, sorted by name, without `skycell` itself.
    """
    frame = shapely.box(-0.5 - margin, -0.5 - margin, skycell.nx - 0.5 + margin, skycell.ny - 0.5 + margin)
    reach = skycell_radius(skycell) * (1 + 2 * margin / min(skycell.nx, skycell.ny)) + tessellation.largest_radius
    candidates = tessellation.near(skycell_center(skycell), reach)
    to_pixel = vector_to_skycell(skycell)
    return [
        other
        for other in candidates
        # Straight lines stay straight from one gnomonic plane to another, so the corners are enough.
        if other.name != skycell.name and frame.intersects(shapely.Polygon(_corners_seen_from(to_pixel, other)))
    ]


def _corners_seen_from(to_pixel, other):
    seen = _frame(other)[1:] @ (to_pixel @ skycell_to_vector(other)).T
    return seen[:, :2] / seen[:, 2:]


def skycell_rows(found):
    """Table of a footprint's skycells.

    Parameters
    ----------
    found : Footprint

    Returns
    -------
    pandas.DataFrame
        One row a skycell: the columns a skycell catalogue needs, ``projection`` (with its leading zeros), ``x`` and
        ``y`` (column and row in it), ``RA``, ``DEC`` of the centre and ``RA_Corner1`` .. ``DEC_Corner4`` [deg],
        ``pixels`` (how many FFI pixels it owns) and ``x0``, ``y0``, ``x1``, ``y1``, the half-open box of FFI pixels
        that holds them.
    """
    pixels = np.bincount(found.owner[found.owner >= 0], minlength=len(found.skycells))
    boxes = ndimage.find_objects(found.owner + 1)
    return pd.DataFrame(
        [
            _row(skycell, found.region, count, box)
            for skycell, count, box in zip(found.skycells, pixels.tolist(), boxes, strict=True)
        ],
        columns=[*SKYCELL_COLUMNS, *PLACE_COLUMNS],
    )


PLACE_COLUMNS = (
    "projection", "x", "y", "RA", "DEC", "RA_Corner1", "DEC_Corner1", "RA_Corner2", "DEC_Corner2", "RA_Corner3",
    "DEC_Corner3", "RA_Corner4", "DEC_Corner4", "pixels", "x0", "y0", "x1", "y1",
)  # fmt: skip


def _row(skycell, region, pixels, box):
    y, x = divmod(skycell.cell, GRID)
    rows, columns = box
    place = (region.x0 + columns.start, region.y0 + rows.start, region.x0 + columns.stop, region.y0 + rows.stop)
    sky = np.stack(corners(skycell), axis=1).ravel().tolist()
    return (*skycell, skycell.projection, x, y, *sky, pixels, *place)
