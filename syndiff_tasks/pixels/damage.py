"""Residuals of stars that the template has damaged: without a core, or repaired."""

import numba
import numpy as np

from .saturation import grow

#: What is seen of a damaged star's wings [sigma].
STANDING = 3.0


@numba.njit(cache=True, nogil=True)
def _climb(height, damaged, standing):
    """Mark the pixels from which the way up ends at a damaged one."""
    ny, nx = height.shape
    found = np.zeros((ny, nx), np.bool_)
    for y0 in range(ny):
        for x0 in range(nx):
            if damaged[y0, x0]:
                found[y0, x0] = True
            if not height[y0, x0] > standing:
                continue
            y, x = y0, x0
            while True:
                top_y, top_x = y, x
                for j in range(max(y - 1, 0), min(y + 2, ny)):
                    for i in range(max(x - 1, 0), min(x + 2, nx)):
                        if height[j, i] > height[top_y, top_x]:
                            top_y, top_x = j, i
                if top_y == y and top_x == x:
                    break
                y, x = top_y, top_x
            if damaged[y, x]:
                found[y0, x0] = True
    return found


def near_damage(difference, noise, damaged):
    """Mark the residuals that touch a damaged star.

    A template without a star's core leaves the whole of its wings, so that no fixed radius is right; and a transient on
    those wings has its own summit, to which its own pixels lead.

    Parameters
    ----------
    difference, noise : ndarray of float32, shape (ny, nx)
        Difference and one sigma of it; NaN = none.
    damaged : ndarray of bool, shape (ny, nx)
        Where the template is damaged.

    Returns
    -------
    ndarray of bool, shape (ny, nx)
        Damaged pixels, residuals above `STANDING` from which the way up ends at one, and the feet of their wings: below
        `STANDING` each, they are not below it together.
    """
    if not damaged.any():
        return damaged.copy()
    known = np.isfinite(difference) & np.isfinite(noise)
    height = np.abs(np.divide(difference, noise, out=np.zeros_like(difference), where=known))
    wings = _climb(height, damaged, np.float32(STANDING))
    return wings | (grow(wings, 1) & (height <= STANDING))
