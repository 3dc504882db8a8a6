"""A skycell's frame of blocks, widened by those of its neighbors."""

import math
from collections.abc import Sequence

import numba
import numpy as np

from syndiff_tasks.pixels.blocks import Blocks, Grid, tsc_weights

#: Blank border of a PS1 stack [native px], which neighbors fill when a frame is widened.
BLANK_BORDER = 4


def widen(blocks: Blocks, margin: float, neighbors: Sequence[tuple[Blocks, np.ndarray]]) -> Blocks:
    """Widen a skycell's frame with the blocks of its neighbors.

    Parameters
    ----------
    blocks : Blocks
        The skycell.
    margin : float
        Width added on every side [native px]; rounded up to whole blocks.
    neighbors : sequence of (Blocks, ndarray of shape (3, 3))
        Blocks of the same size, and the homography from their native pixels (x, y, 1) to this skycell's. Where two hold
        the same sky, the first is used.

    Returns
    -------
    widened : Blocks
        Unchanged within the skycell's own image, except for its blank border of `BLANK_BORDER` px.

    Raises
    ------
    ValueError
        If a neighbor has blocks of another size.

    Notes
    -----
    Neighbors of the same projection have the same block grid: their blocks are copied. Blocks of other projections are
    shared out once more, with TSC weights at their position here. Flux and valid weight are shared alike, so the uneven
    density of the points cancels; stars there are wider by another bin/2 in quadrature, which matters little for wings
    from beyond the frame. Bits are those of the nearest block.
    """
    step, extra = blocks.grid.step, math.ceil(margin / blocks.grid.step)
    grid = Grid(blocks.grid.x0 - extra * step, blocks.grid.y0 - extra * step, step)
    wide = Blocks(*(np.pad(plane, extra) for plane in blocks[:-1]), grid)
    edge = _edge(step)
    free = np.ones(wide.flux.shape, bool)
    free[extra + edge : -extra - edge or None, extra + edge : -extra - edge or None] = False
    for other, homography in neighbors:
        if other.grid.step != step:
            raise ValueError(f"blocks of {other.grid.step} px cannot widen blocks of {step} px: combine with one bin")
        matrix = _grid_matrix(other.grid, homography, grid)
        shift = np.rint(matrix[:2, 2]).astype(int)
        aligned = np.abs(matrix - [[1, 0, shift[0]], [0, 1, shift[1]], [0, 0, 1]]).max() < 1e-6
        (_copy if aligned else _share_again)(other, shift if aligned else matrix, wide, free)
    return wide


def _edge(step):
    """Return how many blocks at a frame's edge lack shares of pixels off the frame, or are blank in PS1."""
    return 3 + math.ceil(BLANK_BORDER / step)


def _grid_matrix(source, homography, target):
    """Return the homography from block index to block index."""
    to_native = np.array([[source.step, 0, source.x0], [0, source.step, source.y0], [0, 0, 1]])
    to_index = np.linalg.inv([[target.step, 0, target.x0], [0, target.step, target.y0], [0, 0, 1]])
    matrix = to_index @ np.asarray(homography, np.float64) @ to_native
    return matrix / matrix[2, 2]


def _copy(other, shift, wide, free):
    """Copy blocks on the same grid, `shift` blocks (x, y) away, to the `free` blocks, and mark these as taken."""
    edge = _edge(other.grid.step)
    here, there = [], []
    for size, length, move in zip(wide.flux.shape, other.flux.shape, shift[::-1], strict=True):
        low, high = max(move + edge, 0), min(move + length - edge, size)
        if low >= high:
            return
        here.append(slice(low, high))
        there.append(slice(low - move, high - move))
    here, there = tuple(here), tuple(there)
    take = free[here]
    for target, source in zip(wide[:-1], other[:-1], strict=True):
        target[here][take] = source[there][take]
    take[:] = False


def _share_again(other, matrix, wide, free):
    """Share blocks out at their position here, to the `free` blocks, and mark these as taken."""
    edge = _edge(other.grid.step)
    ny, nx = other.flux.shape
    rows, columns = np.nonzero(free)
    x, y, w = np.linalg.inv(matrix) @ np.stack([columns, rows, np.ones(len(rows))])
    x, y = x / w, y / w
    inside = (x >= edge) & (x <= nx - 1 - edge) & (y >= edge) & (y <= ny - 1 - edge) & (w > 0)
    if not inside.any():
        return
    rows, columns = rows[inside], columns[inside]
    nearest = np.rint(y[inside]).astype(int), np.rint(x[inside]).astype(int)
    shared = np.zeros((4, *wide.flux.shape), np.float32)
    _deposit(tuple(other[:4]), matrix, shared)
    for target, source in zip(wide[:4], shared, strict=True):
        target[rows, columns] = source[rows, columns]
    wide.bits[rows, columns] = other.bits[nearest]
    wide.missing[rows, columns] = other.missing[nearest]
    free[rows, columns] = False


_tsc_weights = numba.njit(inline="always")(tsc_weights)


@numba.njit(cache=True, nogil=True)
def _deposit(planes, matrix, shared):
    flux, variance, valid, masked = planes
    ny, nx = shared.shape[1:]
    for row in range(flux.shape[0]):
        for column in range(flux.shape[1]):
            if flux[row, column] == 0 and variance[row, column] == 0 and valid[row, column] == 0:
                continue
            w = matrix[2, 0] * column + matrix[2, 1] * row + matrix[2, 2]
            x = (matrix[0, 0] * column + matrix[0, 1] * row + matrix[0, 2]) / w
            y = (matrix[1, 0] * column + matrix[1, 1] * row + matrix[1, 2]) / w
            if not (w > 0 and x > 1 and y > 1 and x < nx - 2 and y < ny - 2):
                continue
            i, j = int(x + 0.5), int(y + 0.5)
            wx, wy = _tsc_weights(x - i), _tsc_weights(y - j)
            for b in range(3):
                for a in range(3):
                    share = wx[a] * wy[b]
                    shared[0, j + b - 1, i + a - 1] += share * flux[row, column]
                    shared[1, j + b - 1, i + a - 1] += share * variance[row, column]
                    shared[2, j + b - 1, i + a - 1] += share * valid[row, column]
                    shared[3, j + b - 1, i + a - 1] += share * masked[row, column]
