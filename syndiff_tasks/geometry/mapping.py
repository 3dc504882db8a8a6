"""Mapping between the pixels of a skycell and the pixels of an FFI.

Two gnomonic projections differ by a homography: one 3 x 3 matrix takes the distortion-free pixels of an FFI to the
pixels of a skycell, exactly. The SIP distortion of the FFI comes on top: a polynomial from TESS to PS1, an iteration
from PS1 to TESS, which is run for the nodes of a coarse grid only.
"""

import math
from typing import NamedTuple

import numba
import numpy as np

from .region import SCIENCE
from .skycell import skycell_to_vector, vector_to_skycell
from .tangent import matrix_product
from .tansip import polynomial, row_polynomial, undistorted_to_pixel, undistorted_to_vector

# Native px between nodes. The second derivatives of the mapping are up to 4e-5 per TESS px, so that positions between
# nodes 0.4 TESS px apart are good to 2e-6 px. In an index map 3e-6 of the pixels get an adjacent one; with a step
# of 64 px it would be 1.02e-5, above the 1e-5 that the tests allow.
NODE_STEP = 32


# Native px, 3 TESS px, over which third derivatives are negligible and rounding is too.
CURVATURE_STEP = 240.0


class NodeGrid(NamedTuple):
    """TESS positions `x`, `y` [0-based px] at native pixels (i, j) * `NODE_STEP`; arrays of shape (rows, columns)."""

    x: np.ndarray
    y: np.ndarray


class NativePositions(NamedTuple):
    """0-based native positions and the area of a TESS pixel there [native px^2]; arrays of shape (ny, nx)."""

    px: np.ndarray
    py: np.ndarray
    area: np.ndarray


def homography(tansip, skycell):
    """Return the matrix from distortion-free TESS pixels to the pixels of a skycell.

    Parameters
    ----------
    tansip : TanSip
    skycell : Skycell

    Returns
    -------
    ndarray of float64, shape (3, 3)
        Takes (U, V, 1), the SIP-corrected offset from CRPIX [TESS px], to (x w, y w, w), with x and y 0-based native
        pixels and w positive where the projection of the skycell is defined. Exact.
    """
    return matrix_product(vector_to_skycell(skycell), undistorted_to_vector(tansip))


def ps1_to_tess(tansip, skycell, x, y):
    """Convert native pixel positions to TESS pixel positions.

    Parameters
    ----------
    tansip : TanSip
    skycell : Skycell
    x, y : array_like of float, shape (...)
        0-based native pixels.

    Returns
    -------
    tx, ty : ndarray of float64, shape (...)
        0-based TESS pixels, iterated to rounding error; NaN as in `tansip.sky_to_pixel`.
    """
    x, y = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float))
    plane = np.stack([x.ravel(), y.ravel(), np.ones(x.size)], axis=-1) @ _to_plane(tansip, skycell).T
    tx, ty = undistorted_to_pixel(tansip, plane)
    return tx.reshape(x.shape), ty.reshape(x.shape)


def _to_plane(tansip, skycell):
    return np.linalg.inv(undistorted_to_vector(tansip)) @ skycell_to_vector(skycell)


def ps1_to_tess_nodes(tansip, skycell):
    """Compute TESS positions on a coarse grid over a skycell.

    Parameters
    ----------
    tansip : TanSip
    skycell : Skycell

    Returns
    -------
    NodeGrid
        It covers the skycell from the first pixel to the last, and up to `NODE_STEP` - 1 px beyond.
    """
    rows = -(-(skycell.ny - 1) // NODE_STEP) + 1
    columns = -(-(skycell.nx - 1) // NODE_STEP) + 1
    py, px = NODE_STEP * np.indices((rows, columns), np.float64)
    return NodeGrid(*ps1_to_tess(tansip, skycell, px, py))


def interpolate(grid, px, py):
    """Interpolate TESS positions between the nodes of a grid.

    Parameters
    ----------
    grid : NodeGrid
    px, py : array_like of float, shape (...)
        0-based native pixels within the grid.

    Returns
    -------
    x, y : ndarray of float64, shape (...)
        0-based TESS pixels, interpolated bilinearly.
    """
    column, row = np.asarray(px) / NODE_STEP, np.asarray(py) / NODE_STEP
    i = np.clip(np.floor(column).astype(int), 0, grid.x.shape[1] - 2)
    j = np.clip(np.floor(row).astype(int), 0, grid.x.shape[0] - 2)
    s, t = column - i, row - j
    return tuple(
        (1 - t) * ((1 - s) * nodes[j, i] + s * nodes[j, i + 1])
        + t * ((1 - s) * nodes[j + 1, i] + s * nodes[j + 1, i + 1])
        for nodes in grid
    )


def pixel_index_map(tansip, skycell, shape, science=SCIENCE):
    """Return the FFI pixel that contains the center of each native pixel.

    Parameters
    ----------
    tansip : TanSip
    skycell : Skycell
    shape : tuple of int
        (ny, nx) of the FFI.
    science : Region, optional
        Science pixels of the FFI.

    Returns
    -------
    ndarray of int32, shape (skycell.ny, skycell.nx)
        y * nx + x of the FFI pixel, or -1 where that is not in `science`.
    """
    grid = ps1_to_tess_nodes(tansip, skycell)
    index = np.empty((skycell.ny, skycell.nx), np.int32)
    _fill_index(index, grid.x, grid.y, np.int32(shape[1]), tuple(map(float, science)))
    return index


def jacobian(tansip, skycell, x, y):
    """Return the derivatives of TESS positions with respect to native positions.

    Parameters
    ----------
    tansip : TanSip
    skycell : Skycell
    x, y : float
        0-based native pixel.

    Returns
    -------
    ndarray of float64, shape (2, 2)
        d(TESS x, y) / d(native x, y).
    """
    tx, ty = ps1_to_tess(tansip, skycell, [x], [y])
    u, v = tx - (tansip.crpix1 - 1), ty - (tansip.crpix2 - 1)
    matrix = homography(tansip, skycell)
    return np.linalg.inv(np.array(_native_position(u[0], v[0], tansip.a, tansip.b, matrix)[2:]).reshape(2, 2))


def curvature(tansip, skycell, x, y):
    """Return the second derivatives of TESS positions with respect to native positions.

    Parameters
    ----------
    tansip : TanSip
    skycell : Skycell
    x, y : float
        0-based native pixel.

    Returns
    -------
    ndarray of float64, shape (2, 2, 2)
        d^2(TESS x, y) / d(native x, y)^2, from the Jacobians `CURVATURE_STEP` px to both sides.
    """
    along = [
        jacobian(tansip, skycell, x + step_x, y + step_y) - jacobian(tansip, skycell, x - step_x, y - step_y)
        for step_x, step_y in ((CURVATURE_STEP, 0.0), (0.0, CURVATURE_STEP))
    ]
    return np.stack(along, axis=-1) / (2 * CURVATURE_STEP)


def pixel_scale(tansip, skycell):
    """Return the size of a TESS pixel at the center of a skycell.

    Parameters
    ----------
    tansip : TanSip
    skycell : Skycell

    Returns
    -------
    float
        Side of the square of the same area [native px].
    """
    center = jacobian(tansip, skycell, (skycell.nx - 1) / 2, (skycell.ny - 1) / 2)
    return 1 / math.sqrt(abs(np.linalg.det(center)))


def plane_homography(skycell_from, skycell_to):
    """Return the matrix from the native pixels of one skycell to those of another.

    Parameters
    ----------
    skycell_from, skycell_to : Skycell

    Returns
    -------
    ndarray of float64, shape (3, 3)
        Takes (x, y, 1), 0-based, to (x w, y w, w) in the second, with w positive where its projection is defined.
        Exact, since both projections are gnomonic.
    """
    return matrix_product(vector_to_skycell(skycell_to), skycell_to_vector(skycell_from))


def native_positions(tansip, skycell, x, y, start, stop):
    """Convert a rectangular grid of TESS positions to native positions.

    Parameters
    ----------
    tansip : TanSip
    skycell : Skycell
    x, y : ndarray of float64, shapes (nx,), (ny,)
        0-based TESS px of the columns and rows of the grid.
    start, stop : ndarray of int, shape (ny,)
        Range of columns to convert in each row; `stop` is the first one left out.

    Returns
    -------
    NativePositions
        Exact; NaN, with area 0, for the columns outside `start` to `stop`.
    """
    u, v = np.asarray(x, float) - (tansip.crpix1 - 1), np.asarray(y, float) - (tansip.crpix2 - 1)
    result = NativePositions(*(np.full((len(v), len(u)), blank) for blank in (np.nan, np.nan, 0.0)))
    _fill_positions(result, (u, v, start, stop), tansip.a, tansip.b, homography(tansip, skycell))
    return result


def native_position(tansip, skycell, x, y):
    """Convert one TESS position to the native position.

    Parameters
    ----------
    tansip : TanSip
    skycell : Skycell
    x, y : float
        0-based TESS px.

    Returns
    -------
    px, py : float
        0-based native px, exact.
    """
    u, v = x - (tansip.crpix1 - 1), y - (tansip.crpix2 - 1)
    return _native_position(u, v, tansip.a, tansip.b, homography(tansip, skycell))[:2]


@numba.njit(cache=True, nogil=True)
def _native_position(u, v, a, b, matrix):
    shift_u, a_u, a_v = polynomial(a, u, v)
    shift_v, b_u, b_v = polynomial(b, u, v)
    big_u, big_v = u + shift_u, v + shift_v
    inverse = 1 / (matrix[2, 0] * big_u + matrix[2, 1] * big_v + matrix[2, 2])
    px = (matrix[0, 0] * big_u + matrix[0, 1] * big_v + matrix[0, 2]) * inverse
    py = (matrix[1, 0] * big_u + matrix[1, 1] * big_v + matrix[1, 2]) * inverse
    x_u, x_v = (matrix[0, 0] - px * matrix[2, 0]) * inverse, (matrix[0, 1] - px * matrix[2, 1]) * inverse
    y_u, y_v = (matrix[1, 0] - py * matrix[2, 0]) * inverse, (matrix[1, 1] - py * matrix[2, 1]) * inverse
    return (
        px,
        py,
        x_u * (1 + a_u) + x_v * b_u,
        x_u * a_v + x_v * (1 + b_v),
        y_u * (1 + a_u) + y_v * b_u,
        y_u * a_v + y_v * (1 + b_v),
    )


@numba.njit(cache=True, nogil=True)
def _fill_positions(out, grid, a, b, matrix):
    us, vs, start, stop = grid
    terms = len(a)
    h00, h01, h02 = matrix[0]
    h10, h11, h12 = matrix[1]
    h20, h21, h22 = matrix[2]
    along = np.empty((4, terms))
    for row in range(len(vs)):
        v = vs[row]
        row_polynomial(a, v, along[0], along[1])
        row_polynomial(b, v, along[2], along[3])
        for i in range(start[row], stop[row]):
            u = us[i]
            a_sum = a_u = a_v = b_sum = b_u = b_v = 0.0
            for p in range(terms - 1, -1, -1):
                a_u = a_u * u + a_sum
                a_sum = a_sum * u + along[0, p]
                a_v = a_v * u + along[1, p]
                b_u = b_u * u + b_sum
                b_sum = b_sum * u + along[2, p]
                b_v = b_v * u + along[3, p]
            big_u, big_v = u + a_sum, v + b_sum
            inverse = 1 / (h20 * big_u + h21 * big_v + h22)
            x = (h00 * big_u + h01 * big_v + h02) * inverse
            y = (h10 * big_u + h11 * big_v + h12) * inverse
            plane = (h00 - x * h20) * (h11 - y * h21) - (h01 - x * h21) * (h10 - y * h20)
            distortion = (1 + a_u) * (1 + b_v) - a_v * b_u
            out.px[row, i] = x
            out.py[row, i] = y
            out.area[row, i] = abs(plane * distortion) * inverse * inverse


@numba.njit(cache=True, nogil=True)
def _fill_index(index, nodes_x, nodes_y, width, science):
    ny, nx = index.shape
    for py in range(ny):
        row = min(py // NODE_STEP, len(nodes_x) - 2)
        t = (py - row * NODE_STEP) / NODE_STEP
        for column in range(nodes_x.shape[1] - 1):
            start = column * NODE_STEP
            # The last pixel can coincide with the last nodes.
            stop = start + NODE_STEP if column < nodes_x.shape[1] - 2 else nx
            # With 0.5 added, the whole part of a position is the index of its pixel.
            x0 = (1 - t) * nodes_x[row, column] + t * nodes_x[row + 1, column] + 0.5
            y0 = (1 - t) * nodes_y[row, column] + t * nodes_y[row + 1, column] + 0.5
            x1 = (1 - t) * nodes_x[row, column + 1] + t * nodes_x[row + 1, column + 1] + 0.5
            y1 = (1 - t) * nodes_y[row, column + 1] + t * nodes_y[row + 1, column + 1] + 0.5
            slope_x, slope_y = (x1 - x0) / NODE_STEP, (y1 - y0) / NODE_STEP
            line = index[py, start:stop]
            if (
                min(x0, x1) >= science[0]
                and max(x0, x1) < science[2]
                and min(y0, y1) >= science[1]
                and max(y0, y1) < science[3]
            ):
                # Coordinates are positive here, so that truncation is the floor. The compiler vectorizes this loop,
                # nearly all of the work, because its integers have 32 bits and it has no branch.
                for i in range(stop - start):
                    line[i] = np.int32(y0 + i * slope_y) * width + np.int32(x0 + i * slope_x)
            else:
                _fill_border(line, x0, y0, slope_x, slope_y, width, science)


@numba.njit(cache=True, nogil=True)
def _fill_border(line, x0, y0, slope_x, slope_y, width, science):
    for i in range(len(line)):
        x, y = x0 + i * slope_x, y0 + i * slope_y
        # False for NaN too, which marks positions beyond `tansip.MAX_SEPARATION`.
        seen = science[0] <= x < science[2] and science[1] <= y < science[3]
        line[i] = np.int32(y) * width + np.int32(x) if seen else np.int32(-1)
