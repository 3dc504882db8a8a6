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


def resample_prf(prf: np.ndarray, jacobian: np.ndarray, bin: float, oversampling: int = 9) -> np.ndarray:
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
    PRF is interpolated by cubic splines and is 0 beyond the file. The star's offset from the middle sample (up to
    0.2 px in real files) is part of the PRF and is kept.
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
    x, y = np.tensordot(jacobian * oversampling, np.meshgrid(offset, offset), axes=1)
    kernel = map_coordinates(prf, [y + middle[1], x + middle[0]], order=3, mode="constant")
    return kernel / kernel.sum()
