"""A part of a difference image, made again from what was measured on the whole."""

import math

import numpy as np

from .kernel import convolve, reach
from .sky_background import sky_image, strap_image

#: Wings are cut off at so many of their widths (`kernel.template_planes`).
WING_REACH = 3.0


def margin(basis, oversampling):
    """Return how far beyond a pixel a kernel, its wings included, reads the template [FFI px]."""
    return max([reach(basis, oversampling), *(math.floor(WING_REACH * sigma + 0.5) for sigma in basis.wings)])


def sky_with_straps(sky, straps, rows=slice(None), columns=slice(None)):
    """Evaluate sky and straps on a part of an image.

    Parameters
    ----------
    sky : MeshSky
        The smooth sky.
    straps : Straps
        What some columns have more of it.
    rows, columns : slice, default all
        Which part.

    Returns
    -------
    ndarray of float32, shape (rows, columns)
        What was subtracted beside the template [FFI units].
    """
    image = sky_image(sky, rows)
    if straps.columns.size:
        image[:, straps.columns] += strap_image(straps, sky.shape[0], rows)
    return image[:, columns]


def cut_out(ffi, flux, kernel, sky, straps, box):
    """Make a part of a difference image again.

    Parameters
    ----------
    ffi : ndarray of float32, shape (ny, nx)
        The whole image to which kernel and sky belong.
    flux : ndarray of float32, shape (n ny, n nx)
        Its template, n = `kernel.oversampling`; NaN = no data.
    kernel : Kernel
        The kernel of the whole image.
    sky : MeshSky
        Its sky.
    straps : Straps
        Its straps.
    box : tuple of int
        x0, y0, x1, y1 of the part, half-open [px of `ffi`].

    Returns
    -------
    ndarray of float32, shape (y1 - y0, x1 - x0)
        FFI minus sky, straps and convolved template; NaN where the FFI has no data, or where the taps of the kernel
        reach a pixel without template.

    Raises
    ------
    ValueError
        If the box does not lie on the image.
    """
    x0, y0, x1, y1 = box
    ny, nx = kernel.shape
    if not (0 <= x0 < x1 <= nx and 0 <= y0 < y1 <= ny):
        raise ValueError(f"box {x0},{y0},{x1},{y1} does not lie on the {nx} x {ny} px of the difference image")
    n, wide = kernel.oversampling, margin(kernel.basis, kernel.oversampling)
    left, low = max(x0 - wide, 0), max(y0 - wide, 0)
    around = flux[n * low : n * min(y1 + wide, ny), n * left : n * min(x1 + wide, nx)]
    blank = ~np.isfinite(around)
    inner = slice(y0 - low, y1 - low), slice(x0 - left, x1 - left)
    model = convolve(kernel, np.where(blank, np.float32(0), around), (left, low))[inner]
    rows, columns = slice(y0, y1), slice(x0, x1)
    difference = ffi[rows, columns] - sky_with_straps(sky, straps, rows, columns) - model
    difference[~_reached(blank, kernel, (left, low), box)] = np.nan
    return difference


def _reached(blank, kernel, origin, box):
    """Return where the taps of a kernel find a template around each pixel of a box."""
    n, far = kernel.oversampling, reach(kernel.basis, kernel.oversampling)
    x0, y0, x1, y1 = box
    ny, nx = kernel.shape
    # Beyond the image there is no template either.
    wide = np.ones((y1 - y0 + 2 * far, x1 - x0 + 2 * far), bool)
    whole = blank.reshape(blank.shape[0] // n, n, blank.shape[1] // n, n).any(axis=(1, 3))
    left, low, right, high = max(x0 - far, 0), max(y0 - far, 0), min(x1 + far, nx), min(y1 + far, ny)
    wide[low - y0 + far : high - y0 + far, left - x0 + far : right - x0 + far] = whole[
        low - origin[1] : high - origin[1], left - origin[0] : right - origin[0]
    ]
    window = (2 * far + 1, 2 * far + 1)
    return ~np.lib.stride_tricks.sliding_window_view(wide, window).any(axis=(2, 3))
