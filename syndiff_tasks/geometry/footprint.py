"""Footprint of an FFI on the tessellation: its skycells, and the owner of each pixel."""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
import shapely
from scipy import ndimage

from .region import SCIENCE, Region, clip
from .skycell import GRID, skycell_center, skycell_to_vector, vector_to_skycell
from .skycell_table import SKYCELL_COLUMNS
from .tangent import sky_positions
from .tansip import pixel_to_vector, region_to_vector

SLIVER = 200.0  # [native px^2], 3 % of a TESS pixel: not worth another skycell
NATIVE_DEGREES = 0.25 / 3600
ROWS = 128  # FFI rows processed together: their 6 MB of vectors stay in the cache between the two kernels


class Footprint(NamedTuple):
    """Skycells of a region, and for each pixel (ny, nx) the index of its owner in `skycells`, or -1."""

    region: Region
    owner: np.ndarray
    skycells: tuple


def footprint_of(tansip, region, tessellation, science=SCIENCE):
    """Find the owner of each science pixel, the skycell that owns the center of the pixel.

    Parameters
    ----------
    tansip : TanSip
        World coordinates of the FFI.
    region : Region
        Pixels of the FFI to process.
    tessellation : Tessellation
    science : Region, optional
        Science pixels of the FFI.

    Returns
    -------
    Footprint
        `owner` is int32 with the shape of the region, -1 off `science` and where the tessellation has no skycell.
        `skycells` are sorted by name; the tuple is empty where no pixel has an owner.
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
    # The extra element at the end maps -1, no owner, to -1.
    index = np.full(tessellation.size + 1, -1, np.int32)
    for position, (_, number) in enumerate(names):
        index[number] = position
    return tuple(tessellation.skycell(name) for name, _ in names), index


def projection_seam(footprint, reach_px):
    """Mark the pixels near a border between two projections.

    Parameters
    ----------
    footprint : Footprint
    reach_px : float
        Largest distance of the border along x or y [TESS px].

    Returns
    -------
    ndarray of bool, shape (ny, nx)
        True where a pixel owned by a skycell of another projection is within this distance.
    """
    if not footprint.skycells:
        return np.zeros(footprint.owner.shape, bool)
    size = 2 * int(np.ceil(reach_px)) + 1
    # The element at the end is for pixels without owner.
    numbers = [int(skycell.projection) for skycell in footprint.skycells] + [-1]
    projections = np.array(numbers, np.int16)[footprint.owner]
    owned = projections >= 0
    highest = ndimage.maximum_filter(projections, size)
    lowest = ndimage.minimum_filter(np.where(owned, projections, np.int16(np.iinfo(np.int16).max)), size)
    return owned & (highest != lowest)


def corners(skycell):
    """Return the sky positions of the center and the corners of a skycell.

    Parameters
    ----------
    skycell : Skycell

    Returns
    -------
    ra, dec : ndarray of float64, shape (5,)
        Degrees: the center, then the outer corners of the image, counterclockwise in pixels from the first pixel.
    """
    return sky_positions(_frame(skycell) @ skycell_to_vector(skycell).T)


def _frame(skycell):
    left, bottom, right, top = -0.5, -0.5, skycell.nx - 0.5, skycell.ny - 0.5
    center = ((left + right) / 2, (bottom + top) / 2)
    points = [center, (left, bottom), (right, bottom), (right, top), (left, top)]
    return np.array([(*point, 1.0) for point in points])


def frame_neighbors(tansip, footprint, tessellation, reach):
    """Find the skycells that add to each skycell of a footprint what lies beyond its own image.

    Parameters
    ----------
    tansip : TanSip
        World coordinates of the FFI.
    footprint : Footprint
    tessellation : Tessellation
    reach : float
        How far around the centers of the pixels that a skycell owns its sky must be known [native px].

    Returns
    -------
    dict of str to tuple of Skycell
        For each skycell of the footprint, by name: of all skycells those with images that cover that sky, the fewest
        that a greedy choice finds: those of the footprint first, then those of the same projection. None where its own
        image holds it. Pieces smaller than `SLIVER` are ignored.
    """
    boxes = ndimage.find_objects(footprint.owner + 1)
    nearby = _near(footprint, tessellation, reach)
    centers = np.array([skycell_center(other) for other in nearby])
    survey = nearby, centers, frozenset(footprint.skycells), tessellation
    return {
        skycell.name: _covering(skycell, _owned_outline(tansip, footprint, index, box, skycell), reach, survey)
        for index, (skycell, box) in enumerate(zip(footprint.skycells, boxes, strict=True))
    }


def _near(footprint, tessellation, reach):
    """Return all skycells with images within reach of those of a footprint."""
    centers = np.array([skycell_center(skycell) for skycell in footprint.skycells])
    middle = centers.sum(axis=0)
    middle /= np.linalg.norm(middle)
    farthest = math.degrees(math.acos(min(1.0, float((centers @ middle).min()))))
    largest = 2 * tessellation.largest_radius + reach * NATIVE_DEGREES
    return tessellation.near(middle, farthest + largest)


def _owned_outline(tansip, footprint, index, box, skycell):
    """Return the convex hull of the centers of the pixels that a skycell owns, in its native px."""
    rows, columns = np.nonzero(footprint.owner[box] == index)
    ends = np.flatnonzero(np.diff(rows, prepend=-1, append=-1))
    ends = np.unique(np.concatenate([ends[:-1], ends[1:] - 1]))  # first and last pixel of each row
    x = columns[ends] + box[1].start + footprint.region.x0
    y = rows[ends] + box[0].start + footprint.region.y0
    seen = pixel_to_vector(tansip, x.astype(float), y.astype(float)) @ vector_to_skycell(skycell).T
    return shapely.MultiPoint(seen[:, :2] / seen[:, 2:]).convex_hull


def _covering(skycell, outline, reach, survey):
    nearby, centers, owners, tessellation = survey
    missing = outline.buffer(reach).difference(shapely.box(-0.5, -0.5, skycell.nx - 0.5, skycell.ny - 0.5))
    if missing.area < SLIVER:
        return ()
    largest = 2 * tessellation.largest_radius + reach * NATIVE_DEGREES
    close = np.flatnonzero(centers @ skycell_center(skycell) >= math.cos(math.radians(largest)))
    to_pixel = vector_to_skycell(skycell)
    # Straight lines remain straight from one gnomonic plane to another, so the corners suffice.
    images = {
        nearby[n]: shapely.Polygon(_corners_seen_from(to_pixel, nearby[n]))
        for n in close
        if nearby[n].name != skycell.name
    }
    chosen = []
    while images and missing.area >= SLIVER:
        gains = {
            other: (other in owners, other.projection == skycell.projection, image.intersection(missing).area)
            for other, image in images.items()
        }
        images = {other: image for other, image in images.items() if gains[other][2] >= SLIVER}
        if not images:
            break
        best = max(images, key=lambda other: gains[other])
        missing = missing.difference(images.pop(best))
        chosen.append(best)
    return tuple(sorted(chosen, key=lambda other: (other.projection != skycell.projection, other.name)))


def _corners_seen_from(to_pixel, other):
    seen = _frame(other)[1:] @ (to_pixel @ skycell_to_vector(other)).T
    return seen[:, :2] / seen[:, 2:]


def skycell_rows(footprint):
    """Return a table of the skycells of a footprint.

    Parameters
    ----------
    footprint : Footprint

    Returns
    -------
    pandas.DataFrame
        One row a skycell: the columns `SKYCELL_COLUMNS` of a skycell catalog, ``projection`` (with its leading zeros),
        ``x`` and ``y`` (column and row in the projection), ``RA`` and ``DEC`` of the center and ``RA_Corner1`` to
        ``DEC_Corner4`` [deg], ``pixels`` (the number of FFI pixels that it owns) and ``x0``, ``y0``, ``x1``, ``y1``:
        the box of FFI pixels that contains them (x1 and y1 are the first beyond it).
    """
    pixels = np.bincount(footprint.owner[footprint.owner >= 0], minlength=len(footprint.skycells))
    boxes = ndimage.find_objects(footprint.owner + 1)
    return pd.DataFrame(
        [
            _row(skycell, footprint.region, count, box)
            for skycell, count, box in zip(footprint.skycells, pixels.tolist(), boxes, strict=True)
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
