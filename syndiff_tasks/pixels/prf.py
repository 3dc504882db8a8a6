"""A TESS PRF at a place of the CCD, and as seen in the plane of a skycell."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.ndimage import map_coordinates


def interpolate_prf(prfs: np.ndarray, rows: Sequence[float], cols: Sequence[float], row: float, col: float):
    """Interpolate the PRF at a position of the CCD, bilinearly between the four around it.

    Parameters
    ----------
    prfs : ndarray, shape (n, ny, nx)
        PRF images of one CCD.
    rows, cols : sequence of float, length n
        Position of each image; together a full grid, in any order.
    row, col : float
        Position, in the same convention; beyond the outermost PRFs, the nearest position is used.

    Returns
    -------
    prf : ndarray of float64, shape (ny, nx)

    Raises
    ------
    ValueError
        If the positions are not a full grid.
    """
    prfs, rows, cols = np.asarray(prfs, np.float64), np.asarray(rows), np.asarray(cols)
    row_axis, col_axis = np.unique(rows), np.unique(cols)
    full = {(r, c) for r in row_axis for c in col_axis}
    lacking = full - set(zip(rows, cols, strict=True))
    if len(prfs) == 0 or lacking or len(rows) != len(full):
        raise ValueError(
            f"{len(prfs)} PRFs at rows {row_axis.tolist()}, columns {col_axis.tolist()} are not one for each crossing: "
            f"complete the folder of PRF files, e.g. with the one at row, column {min(lacking, default=None)}"
        )
    weights = np.outer(_hat(row_axis, row), _hat(col_axis, col))
    share = weights[np.searchsorted(row_axis, rows), np.searchsorted(col_axis, cols)]
    return np.tensordot(share, prfs, axes=1)


def _hat(axis, position):
    """Return the weight of each of the increasing points in linear interpolation."""
    return np.array([np.interp(position, axis, unit) for unit in np.eye(len(axis))])


def remove_pedestal(prf: np.ndarray, oversampling: int = 9) -> np.ndarray:
    """Subtract what a PRF has at its edge, where it should have fallen to zero.

    Parameters
    ----------
    prf : ndarray, shape (ny, nx)
    oversampling : int
        Samples along one TESS pixel.

    Returns
    -------
    prf : ndarray of float64, shape (ny, nx)
        Less the median of the outermost ring of TESS pixels, and of the same sum as before.

    Raises
    ------
    ValueError
        If nothing remains.

    Notes
    -----
    SPOC's files have a pedestal of 1.5e-4 to 2.6e-4 of the light in each outer pixel (docs/facts.md §3), which draws a
    square plateau around bright stars.
    """
    prf = np.asarray(prf, np.float64)
    ring = np.ones(prf.shape, bool)
    ring[oversampling:-oversampling, oversampling:-oversampling] = False
    less = prf - np.median(prf[ring])
    if not less.sum() > 0:
        raise ValueError(f"a PRF of sum {prf.sum():.4g} is not brighter inside than at its edge: give SPOC's PRF files")
    return less * (prf.sum() / less.sum())


def blend_places(axis: Sequence[float], low: float, high: float) -> np.ndarray:
    """Return the places between which PRFs are blended along rows or columns.

    Parameters
    ----------
    axis : sequence of float
        Rows or columns of the PRFs of a CCD.
    low, high : float
        Range to cover.

    Returns
    -------
    places : ndarray of float64
        `low`, `high`, and those of `axis` in between: the interpolated PRF is linear from place to place.
    """
    return np.array([low, *(place for place in np.unique(axis) if low < place < high), high], np.float64)


def blend_shares(places: np.ndarray, position: np.ndarray) -> list[np.ndarray]:
    """Return the weight of each place at some positions, linear between places and constant beyond the outermost.

    Parameters
    ----------
    places : ndarray, shape (n,)
        Increasing, as from `blend_places`.
    position : ndarray, any shape

    Returns
    -------
    shares : list of n ndarrays of float32, of the shape of `position`
        Of sum 1 at each position.
    """
    return [np.interp(position, places, unit).astype(np.float32) for unit in np.eye(len(places))]


def resample_prf(
    prf: np.ndarray, jacobian: np.ndarray, bin: float, oversampling: int = 9, curvature: np.ndarray | None = None
) -> np.ndarray:
    """Resample a PRF to the blocks of a skycell, for `convolution.convolve_prf`.

    Parameters
    ----------
    prf : ndarray, shape (odd, odd)
        Image of a star at the middle sample, with `oversampling` samples a TESS pixel in x and y.
    jacobian : ndarray, shape (2, 2)
        d(tess x, y) / d(ps1 x, y) at the skycell [TESS px per native px].
    bin : float
        Side of a block [native px].
    oversampling : int
        9 in the files of SPOC (keyword NSAMP).
    curvature : ndarray, shape (2, 2, 2), optional
        d^2(tess x, y) / d(ps1 x, y)^2 there: the mapping is followed to second order. Zero by default.

    Returns
    -------
    kernel : ndarray of float64, shape (2h + 1, 2h + 1)
        Of sum 1, one sample a block, as wide as the PRF.

    Raises
    ------
    ValueError
        If the PRF is not of odd size or not finite, or the Jacobian is singular.

    Notes
    -----
    The value of a SPOC PRF at (u, v) is the response of a *whole pixel* centered (u, v) from the star: its 9 x 9
    samples a pixel sum to 81. A template pixel is therefore the convolved sky at the pixel's center times the pixel's
    area, without an integral; deconvolving the pixel and integrating over it again would amplify the PRF's noise. The
    PRF is interpolated by cubic splines and is 0 beyond the file; a sample counts by the area of its block on the CCD.
    The star's offset from the middle sample (up to 0.2 px in real files) is part of the PRF and is kept.
    """
    prf, jacobian = np.asarray(prf, np.float64), np.asarray(jacobian, np.float64)
    if prf.ndim != 2 or prf.shape[0] % 2 == 0 or prf.shape[1] % 2 == 0 or not np.isfinite(prf).all():
        raise ValueError(f"a PRF of shape {prf.shape} must be finite and of odd size, so that it has a middle sample")
    if not abs(np.linalg.det(jacobian)) > 0:
        raise ValueError(f"the Jacobian {jacobian.tolist()} is singular: give d(TESS px)/d(PS1 px) at the skycell")
    middle = np.array(prf.shape[::-1]) // 2
    corners = np.linalg.inv(jacobian) @ np.array([[1, 1], [1, -1]]).T * (middle / oversampling)[:, None]
    half = math.ceil(np.abs(corners).max() / bin)
    offset = np.arange(-half, half + 1) * bin
    curvature = np.zeros((2, 2, 2)) if curvature is None else np.asarray(curvature, np.float64)
    ps1 = np.array(np.meshgrid(offset, offset))
    bend = np.tensordot(curvature, ps1, axes=1)  # of shape (2, 2, rows, columns): the change of the Jacobian
    local = jacobian[..., None, None] + bend
    x, y = oversampling * np.einsum("ikyx,kyx->iyx", local - bend / 2, ps1)
    kernel = map_coordinates(prf, [y + middle[1], x + middle[0]], order=3, mode="constant")
    kernel *= np.abs(local[0, 0] * local[1, 1] - local[0, 1] * local[1, 0])
    return kernel / kernel.sum()
