"""The sky of an FFI: levels of small meshes, a smooth surface through them, and straps."""

from functools import lru_cache
from typing import NamedTuple

import numba
import numpy as np
from scipy.interpolate import make_interp_spline

from .spread import SIGMA_PER_MAD

#: Side of the meshes [px]. With 64 px the shape of scattered light leaves 3.8 to 6.3 sigma at bright stars, with 32 px
#: 2.2 to 3.0 (measured on made-up skies, docs/difference.md).
MESH = 32

#: A mesh needs this many good pixels; others take their level from their neighbors.
FEWEST = 12

#: Pixels of a mesh farther from its level are left out [sigma].
CLIP = 3.0

#: A column that stands out of its neighbors by so much is a strap [sigma].
STRAP = 6.0

#: Error of a median over that of a mean, for a normal distribution: sqrt(pi / 2).
ERROR_OF_MEDIAN = 1.2533

#: How many columns (itself included) a column is compared with.
STRAP_NEIGHBORS = 9

#: A strap follows the sky along its column in steps of so many rows.
STRAP_ROWS = 64


class MeshSky(NamedTuple):
    """Levels on meshes: the plane of all, and what is left of each.

    Attributes
    ----------
    plane : tuple of float
        b0, b1, b2 of b0 + b1 x + b2 y, counted from the first pixel.
    levels : ndarray of float64, shape (my, mx)
        Level at the middle of each mesh, the plane taken off.
    shape : tuple of int
        (ny, nx) of the image.
    """

    plane: tuple[float, float, float]
    levels: np.ndarray
    shape: tuple[int, int]


def add_skies(one, other):
    """Add two skies that were measured on the same meshes."""
    plane = tuple(a + b for a, b in zip(one.plane, other.plane, strict=True))
    return MeshSky(plane, one.levels + other.levels, one.shape)


class Straps(NamedTuple):
    """Columns brighter than their neighbors.

    Attributes
    ----------
    columns : ndarray of int64, shape (n,)
        Which columns.
    curves : ndarray of float64, shape (n, steps)
        By how much, at the middle of each of the steps into which the rows are parted.
    """

    columns: np.ndarray
    curves: np.ndarray


def _edges(length, step):
    """Part `length` pixels into whole meshes of about `step`, two at least if each is half as large."""
    return np.linspace(0, length, max(min(2, 2 * length // step), round(length / step), 1) + 1).round().astype(np.int64)


@numba.njit(cache=True, nogil=True)
def _median(values, n):
    """Median of the first n values, which are put into another order; of an even number, the upper one."""
    low, high, k = 0, n - 1, n // 2
    while low < high:
        pivot = values[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if k <= j:
            high = j
        elif k >= i:
            low = i
        else:
            break
    return values[k]


@numba.njit(cache=True, nogil=True)
def _mesh_levels(image, use, y_edges, x_edges, fewest, clip):
    """Return the clipped mean of each mesh, NaN where too few pixels are good, and the mean place of its pixels."""
    my, mx = y_edges.size - 1, x_edges.size - 1
    levels, at_x, at_y = np.full((my, mx), np.nan), np.zeros((my, mx)), np.zeros((my, mx))
    largest = np.max(np.diff(y_edges)) * np.max(np.diff(x_edges))
    values = np.empty(largest, np.float32)
    for j in range(my):
        for i in range(mx):
            n = 0
            for y in range(y_edges[j], y_edges[j + 1]):
                for x in range(x_edges[i], x_edges[i + 1]):
                    if use[y, x]:
                        values[n] = image[y, x]
                        n += 1
            if n < fewest:
                continue
            middle = _median(values, n)
            for k in range(n):
                values[k] = abs(values[k] - middle)
            limit = clip * SIGMA_PER_MAD * _median(values, n)
            total, sum_x, sum_y, count = 0.0, 0.0, 0.0, 0
            for y in range(y_edges[j], y_edges[j + 1]):
                for x in range(x_edges[i], x_edges[i + 1]):
                    if use[y, x] and abs(image[y, x] - middle) <= limit:
                        total += image[y, x]
                        sum_x += x
                        sum_y += y
                        count += 1
            levels[j, i] = total / count
            at_x[j, i], at_y[j, i] = sum_x / count, sum_y / count
    return levels, at_x, at_y


def _fill(levels):
    """Give empty meshes the mean of their neighbors, from the rim of each hole inwards."""
    levels = levels.copy()
    while np.isnan(levels).any():
        padded = np.pad(levels, 1, constant_values=np.nan)
        around = np.stack(
            [padded[j : j + levels.shape[0], i : i + levels.shape[1]] for j in range(3) for i in range(3)]
        )
        known = np.isfinite(around)
        mean = np.where(known, around, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        empty = np.isnan(levels) & known.any(axis=0)
        levels[empty] = mean[empty]
    return levels


def _bend(levels, axis):
    """Second differences along an axis; the outermost meshes bend as their neighbors do."""
    if levels.shape[axis] < 3:
        return np.zeros(levels.shape)
    return np.pad(np.diff(levels, 2, axis=axis), [(int(a == axis),) * 2 for a in (0, 1)], mode="edge")


def measure_sky(image, use, mesh=MESH):
    """Measure the sky on meshes.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        The FFI, stars taken off as well as they are known.
    use : ndarray of bool, shape (ny, nx)
        Pixels that show sky; the image is finite there.
    mesh : int, default `MESH`
        Side of a mesh [px].

    Returns
    -------
    MeshSky
        Zero everywhere if no mesh has `FEWEST` good pixels.

    Notes
    -----
    The level of a mesh is a clipped mean, which for a tilted sky is the level at the mean place of its pixels, whatever
    their pattern: the plane of all meshes is fitted at these places, and the slope between neighbors moves each level
    to the middle of its mesh. The mean over a mesh differs from the level in its middle by 1/24 of the second
    difference along either axis, which is taken off.
    """
    ny, nx = image.shape
    y_edges, x_edges = _edges(ny, mesh), _edges(nx, mesh)
    levels, at_x, at_y = _mesh_levels(image, use, y_edges, x_edges, FEWEST, CLIP)
    known = np.isfinite(levels)
    if not known.any():
        return MeshSky((0.0, 0.0, 0.0), np.zeros(levels.shape), (ny, nx))
    middle = at_x[known].mean(), at_y[known].mean()
    terms = np.stack([np.ones(known.sum()), (at_x[known] - middle[0]) / nx, (at_y[known] - middle[1]) / ny], axis=1)
    b0, b1, b2 = np.linalg.lstsq(terms, levels[known], rcond=1e-9)[0] / (1, nx, ny)
    plane = float(b0 - b1 * middle[0] - b2 * middle[1]), float(b1), float(b2)
    levels = _fill(levels - (plane[0] + plane[1] * at_x + plane[2] * at_y))
    middle_y, middle_x = (y_edges[1:] + y_edges[:-1] - 1) / 2, (x_edges[1:] + x_edges[:-1] - 1) / 2
    if len(middle_y) > 1:
        levels += np.where(known, np.gradient(levels, middle_y, axis=0) * (middle_y[:, None] - at_y), 0)
    if len(middle_x) > 1:
        levels += np.where(known, np.gradient(levels, middle_x, axis=1) * (middle_x[None, :] - at_x), 0)
    for axis in (0, 1):
        levels -= _bend(levels, axis) / 24
    return MeshSky(plane, levels, (ny, nx))


@lru_cache(maxsize=16)
def _interpolation(length, steps):
    """Weights (length, steps) of a cubic spline through the middles of the steps, straight beyond the last ones."""
    edges = np.linspace(0, length, steps + 1).round()
    middle = (edges[1:] + edges[:-1] - 1) / 2
    if steps == 1:
        return np.ones((length, 1))
    spline = make_interp_spline(middle, np.eye(steps), k=min(3, steps - 1))
    at = np.arange(length)
    inside = np.clip(at, middle[0], middle[-1])
    return spline(inside) + (at - inside)[:, None] * spline.derivative()(inside)


def sky_image(sky, rows=slice(None)):
    """Evaluate the sky at every pixel.

    Parameters
    ----------
    sky : MeshSky
        The levels.
    rows : slice, default all
        Which rows.

    Returns
    -------
    ndarray of float32, shape (rows, nx)
        Cubic spline through the middles of the meshes, straight beyond the last ones, and the plane.
    """
    ny, nx = sky.shape
    along_y = _interpolation(ny, sky.levels.shape[0])[rows]
    along_x = _interpolation(nx, sky.levels.shape[1])
    surface = (along_y @ sky.levels).astype(np.float32) @ along_x.T.astype(np.float32)
    b0, b1, b2 = sky.plane
    surface += (b0 + b2 * np.arange(ny)[rows]).astype(np.float32)[:, None]
    surface += (b1 * np.arange(nx)).astype(np.float32)
    return surface


def sky_gradient(sky, x, y):
    """Return the slope of the sky at a pixel.

    Parameters
    ----------
    sky : MeshSky
        The levels.
    x, y : int
        The pixel.

    Returns
    -------
    float
        [flux unit per pixel], by the differences to its neighbors.
    """
    ny, nx = sky.shape
    x, y = min(max(int(x), 1), nx - 2), min(max(int(y), 1), ny - 2)
    around = sky_image(sky, slice(y - 1, y + 2))[:, x - 1 : x + 2].astype(float)
    return float(np.hypot(around[1, 2] - around[1, 0], around[2, 1] - around[0, 1]) / 2)


@numba.njit(cache=True, nogil=True)
def _column_levels(image, use, y_edges):
    """Median of the good pixels of each column in each step of rows, NaN where too few are good, and their number."""
    nx = image.shape[1]
    steps = y_edges.size - 1
    levels = np.full((nx, steps), np.nan)
    number = np.zeros((nx, steps), np.int64)
    tallest = np.max(np.diff(y_edges))
    values = np.empty((nx, tallest), np.float32)
    for k in range(steps):
        count = number[:, k]
        for y in range(y_edges[k], y_edges[k + 1]):
            for x in range(nx):
                if use[y, x]:
                    values[x, count[x]] = image[y, x]
                    count[x] += 1
        for x in range(nx):
            if count[x] >= 5:
                levels[x, k] = _median(values[x], count[x])
    return levels, number


def find_straps(residual, use):
    """Find columns that are brighter or fainter than their neighbors, and measure them along the rows.

    Parameters
    ----------
    residual : ndarray of float32, shape (ny, nx)
        The FFI, stars and smooth sky taken off.
    use : ndarray of bool, shape (ny, nx)
        Pixels that show sky; the image is finite there.

    Returns
    -------
    Straps
        Maybe none. TESS has conductive straps behind some columns, which reflect red light (TESS Instrument Handbook,
        section 6.6.1).
    """
    ny, nx = residual.shape
    y_edges = _edges(ny, STRAP_ROWS)
    levels, number = _column_levels(residual, use, y_edges)
    if nx < STRAP_NEIGHBORS:
        return Straps(np.zeros(0, np.int64), np.zeros((0, y_edges.size - 1)))
    known = np.isfinite(levels)
    weight = np.where(known, number, 0).sum(axis=1)
    column = np.where(known, levels * number, 0).sum(axis=1) / np.maximum(weight, 1)
    half = STRAP_NEIGHBORS // 2
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(column, half, mode="reflect"), STRAP_NEIGHBORS)
    height = column - np.median(windows, axis=1)
    scatter = SIGMA_PER_MAD * np.median(np.abs(height))
    # Of few columns the scatter may be small by chance: no column is known better than its pixels allow.
    some = np.abs(residual[use])
    pixel = SIGMA_PER_MAD * float(np.median(some[:: 1 + some.size // 100_000])) if some.size else 0.0
    error = ERROR_OF_MEDIAN * pixel / np.sqrt(np.maximum(weight, 1))
    found = (np.abs(height) > STRAP * np.maximum(scatter, error)) & (weight > 0)
    columns = np.flatnonzero(found)
    # Neighbors that are straps themselves are no measure of a strap.
    plain = np.pad(np.where(found[:, None], np.nan, levels), ((half, half), (0, 0)), constant_values=np.nan)
    near = np.sort(np.stack([plain[columns + k] for k in range(STRAP_NEIGHBORS)]), axis=0)
    number = np.isfinite(near).sum(axis=0)
    base = np.take_along_axis(near, number[None] // 2, axis=0)[0]
    above = levels[columns] - np.where(number > 0, base, 0)
    curves = np.where(np.isfinite(above), above, height[columns, None])
    return Straps(columns, curves)


def strap_image(straps, length, rows=slice(None)):
    """Evaluate straps along their columns.

    Parameters
    ----------
    straps : Straps
        The columns.
    length : int
        Number of rows of the image.
    rows : slice, default all
        Which rows.

    Returns
    -------
    ndarray of float32, shape (rows, n)
        What each of the columns has more than its neighbors.
    """
    along = _interpolation(length, straps.curves.shape[1])[rows]
    return (along @ straps.curves.T).astype(np.float32)
