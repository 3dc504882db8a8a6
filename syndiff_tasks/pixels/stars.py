"""Catalog stars on a skycell, and the window of pixels around each."""

import math
from typing import NamedTuple

import numpy as np

#: Half the side of a star's window, and reach of the PSF [native px]. 8": 3e-4 of a Moffat profile with beta = 3 and
#: PS1's FWHM of 4.4 px lie beyond, (1 + R^2/a^2)^(1 - beta).
RADIUS = 32


class Stars(NamedTuple):
    """Catalog stars on a skycell; stars off its frame are ignored.

    Attributes
    ----------
    source_id : ndarray of int64, shape (n,)
    x, y : ndarray of float64, shape (n,)
        Position [0-based native px].
    magnitude : ndarray of float64, shape (n,)
        TESS magnitude, see `photometry.tess_magnitude`; stars without one (NaN) are ignored.
    """

    source_id: np.ndarray
    x: np.ndarray
    y: np.ndarray
    magnitude: np.ndarray


class Window(NamedTuple):
    """The part of a skycell's planes within `RADIUS` of a position.

    Attributes
    ----------
    box : (slice, slice)
        Its rows and columns.
    dx, dy : ndarray of float64, shapes (1, nx), (ny, 1)
        Distance of its columns and rows from the position [native px].
    """

    box: tuple
    dx: np.ndarray
    dy: np.ndarray

    @property
    def r(self):
        """Distance of each pixel from the position [native px], shape (ny, nx)."""
        return np.hypot(self.dx, self.dy)


def window_about(shape, x, y):
    """Return the `Window` around a position of a frame; beyond the frame's border it is empty.

    Parameters
    ----------
    shape : (int, int)
        Of the frame.
    x, y : float
        Position [0-based native px].
    """
    rows, columns = (
        slice(max(0, math.floor(c) - RADIUS), max(0, min(n, math.floor(c) + RADIUS + 2)))
        for c, n in ((y, shape[0]), (x, shape[1]))
    )
    return Window(
        (rows, columns),
        np.arange(columns.start, columns.stop)[None, :] - x,
        np.arange(rows.start, rows.stop)[:, None] - y,
    )


def on_frame(stars, shape):
    """Return the stars that have a magnitude and shine on a frame of this shape."""
    ny, nx = shape
    on = (stars.x > -RADIUS) & (stars.x < nx - 1 + RADIUS) & (stars.y > -RADIUS) & (stars.y < ny - 1 + RADIUS)
    on &= np.isfinite(stars.magnitude)
    return Stars(*(np.asarray(column)[on] for column in stars))


def lost_pixels(planes, box, bits):
    """Return which pixels of a box are blank or have one of the PS1 mask bits.

    Parameters
    ----------
    planes : bands.Combined
    box : (slice, slice)
        Rows and columns.
    bits : int
        PS1 mask *value*.

    Returns
    -------
    lost : ndarray of bool, shape (ny, nx)
    """
    return ~np.isfinite(planes.flux[box] + planes.variance[box]) | ((planes.mask[box] & bits) != 0)
