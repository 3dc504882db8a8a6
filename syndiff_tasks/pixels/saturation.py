"""TESS pixels that saturate or bleed, found in the image itself."""

import numba
import numpy as np

#: A TESS pixel holds some 2e5 electrons in an exposure of 1.98 s, 1e5 e/s; above nine tenths of it light is lost or
#: found elsewhere in the column (TESS Instrument Handbook, section 6.7).
FULL_WELL = 9.0e4

#: Charge leaves a bleeding column along its rows; the trail ends where the column falls below this part of the full
#: well and below its neighbors.
TRAIL = 0.2

#: Light near saturated pixels is moved too: they count with this many pixels around them.
REACH = 3


@numba.njit(cache=True, nogil=True)
def _mark_columns(image, limit, trail, saturated, bleeding):
    """Mark saturated pixels and, from each, the trail up and down its column."""
    ny, nx = image.shape
    for x in range(nx):
        for y in range(ny):
            if not image[y, x] >= limit:
                continue
            saturated[y, x] = True
            for step in (-1, 1):
                row = y + step
                while 0 <= row < ny and not image[row, x] >= limit:
                    left = image[row, x - 1] if x > 0 else 0.0
                    right = image[row, x + 1] if x + 1 < nx else 0.0
                    if not (image[row, x] > trail and image[row, x] > 2 * max(left, right)):
                        break
                    bleeding[row, x] = True
                    row += step


def find_saturated(image, limit=FULL_WELL):
    """Find saturated pixels and the trails of charge that bleeds from them along the columns.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        Flux of the FFI [e/s]; NaN = no data.
    limit : float, default `FULL_WELL`
        Flux [e/s] from which a pixel counts as saturated.

    Returns
    -------
    saturated, bleeding : ndarray of bool, shape (ny, nx)
        Pixels at or above `limit`; pixels of the same column, joined to one of them, that stand out from their
        neighbors in the row by more than stars do.
    """
    saturated, bleeding = np.zeros((2, *image.shape), dtype=bool)
    _mark_columns(image, np.float32(limit), np.float32(TRAIL * limit), saturated, bleeding)
    return saturated, bleeding


@numba.njit(cache=True, nogil=True)
def grow(mask, reach):
    """Widen a mask by `reach` pixels along rows and columns, corners included.

    Parameters
    ----------
    mask : ndarray of bool, shape (ny, nx)
        What is widened.
    reach : int
        By how many pixels.

    Returns
    -------
    ndarray of bool, shape (ny, nx)
        True where any pixel of the (2 reach + 1)^2 around is.
    """
    ny, nx = mask.shape
    along = np.zeros((ny, nx), np.bool_)
    for y in range(ny):
        last = -reach - 1
        for x in range(nx):
            if mask[y, x]:
                for i in range(max(last + 1, x - reach, 0), min(x + reach + 1, nx)):
                    along[y, i] = True
                last = x + reach
    grown = np.zeros((ny, nx), np.bool_)
    for y in range(ny):
        for j in range(max(y - reach, 0), min(y + reach + 1, ny)):
            for x in range(nx):
                grown[y, x] |= along[j, x]
    return grown
