"""Kernels that bring a template to the PSF of an FFI: what they consist of, and how they act on images."""

import math
from typing import NamedTuple

import numba
import numpy as np
from scipy import ndimage


class KernelBasis(NamedTuple):
    """What a kernel may consist of.

    Attributes
    ----------
    size : int
        Free taps along each axis, odd; they lie 1 / oversampling of an FFI pixel apart.
    wings : tuple of float
        Besides, the template convolved with Gaussians of these widths [FFI px].
    order : int
        Degree, 0 to 2, of the polynomials in x and y by which each coefficient varies over the image.
    """

    size: int
    wings: tuple[float, ...] = ()
    order: int = 1


class Kernel(NamedTuple):
    """A kernel that varies over the image.

    Attributes
    ----------
    basis : KernelBasis
        Its taps, wings and order.
    coefficients : ndarray of float64, shape (terms, size * size + wings)
        FFI units per template unit: of 1, u, v (order 1), u^2, u v, v^2 (order 2) where u and v run from -1 to 1 over
        x and y. Tap k = j * size + i reads the template (j - size // 2, i - size // 2) taps further in (y, x).
    shape : tuple of int
        (ny, nx) of the image to which u and v refer.
    oversampling : int
        Template pixels along an FFI pixel.
    """

    basis: KernelBasis
    coefficients: np.ndarray
    shape: tuple[int, int]
    oversampling: int


def fixed_kernel(scale, shape, oversampling=1):
    """Return the kernel that only multiplies by `scale` [FFI units per template unit]."""
    return Kernel(KernelBasis(1, (), 0), np.array([[float(scale)]]), tuple(shape), oversampling)


def reach(basis, oversampling):
    """Return how far the taps reach [FFI px]; the wings, which carry a few per cent, are not counted."""
    return math.ceil((basis.size // 2) / oversampling)


def spatial_terms(order, u, v):
    """Return 1, u, v, u^2, u v, v^2 up to the given order, stacked along a new first axis."""
    terms = [np.ones(np.broadcast(u, v).shape), u, v, u * u, u * v, v * v]
    return np.stack(np.broadcast_arrays(*terms[: (order + 1) * (order + 2) // 2]))


def scaled_position(x, y, shape):
    """Return u and v, -1 to 1 over the image, of pixel coordinates."""
    ny, nx = shape
    return (np.asarray(x, float) - (nx - 1) / 2) / (nx / 2), (np.asarray(y, float) - (ny - 1) / 2) / (ny / 2)


def kernel_at(kernel, x, y):
    """Return the coefficients at one or more positions.

    Parameters
    ----------
    kernel : Kernel
        The kernel.
    x, y : float or ndarray, shape (n,)
        Positions [px of the image that `kernel.shape` describes].

    Returns
    -------
    ndarray of float64, shape (n, size * size + wings) or (size * size + wings,)
        Taps, then wings.
    """
    terms = spatial_terms(kernel.basis.order, *scaled_position(x, y, kernel.shape))
    return np.tensordot(terms, kernel.coefficients, axes=([0], [0]))


def kernel_sum(kernel, x, y):
    """Return the scale at one or more positions: the sum of taps and wings [FFI units per template unit]."""
    return kernel_at(kernel, x, y).sum(axis=-1)


def middle_scale(kernel):
    """Return the scale in the middle of the image [FFI units per template unit]."""
    ny, nx = kernel.shape
    return float(kernel_sum(kernel, (nx - 1) / 2, (ny - 1) / 2))


@numba.njit(cache=True, nogil=True)
def _sum_boxes(flux, n):
    """Sum n x n pixels from each pixel on; what lies beyond the image counts as 0."""
    ny, nx = flux.shape
    boxes = np.zeros((ny, nx), np.float32)
    for y in range(ny):
        for j in range(min(n, ny - y)):
            for i in range(n):
                for x in range(nx - i):
                    boxes[y, x] += flux[y + j, x + i]
    return boxes


def template_planes(flux, basis, oversampling):
    """Return what the coefficients of a kernel multiply.

    Parameters
    ----------
    flux : ndarray of float32, shape (oversampling * ny, oversampling * nx)
        The template, without NaN.
    basis : KernelBasis
        What the kernel consists of.
    oversampling : int
        Template pixels along an FFI pixel.

    Returns
    -------
    boxes : ndarray of float32, same shape
        Flux in a whole FFI pixel whose first corner is that of each template pixel: `flux` itself without oversampling.
    wings : ndarray of float32, shape (number of wings, ny, nx)
        The flux in FFI pixels, convolved with the wings.
    """
    boxes = np.asarray(flux, np.float32) if oversampling == 1 else _sum_boxes(flux, oversampling)
    whole = boxes[::oversampling, ::oversampling]
    wings = np.empty((len(basis.wings), *whole.shape), np.float32)
    for sigma, plane in zip(basis.wings, wings, strict=True):
        ndimage.gaussian_filter(whole, sigma, output=plane, mode="constant", truncate=3.0)
    return boxes, wings


@numba.njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def _add_plane(model, plane, dy, dx, step, coefficients, shape, origin):
    """Add plane, read from (dy, dx) on in steps of `step`, times a polynomial of u and v, to the model."""
    ny, nx = model.shape
    rows, columns = plane.shape
    first = max(0, -(dx // step)) if dx < 0 else 0
    last = min(nx, (columns - 1 - dx) // step + 1)
    for y in range(ny):
        row = step * y + dy
        if row < 0 or row >= rows:
            continue
        v = (y + origin[1] - (shape[0] - 1) / 2) / (shape[0] / 2)
        c0, c1, c2 = coefficients[0], 0.0, 0.0
        if coefficients.size > 1:
            c0 += coefficients[2] * v
            c1 += coefficients[1]
        if coefficients.size > 3:
            c0 += coefficients[5] * v * v
            c1 += coefficients[4] * v
            c2 += coefficients[3]
        # u = (x + x0 - middle) / half, put into the coefficients.
        half = shape[1] / 2
        shift = (origin[0] - (shape[1] - 1) / 2) / half
        a0 = np.float32(c0 + shift * (c1 + shift * c2))
        a1 = np.float32((c1 + 2 * shift * c2) / half)
        a2 = np.float32(c2 / half**2)
        if step == 1:
            for x in range(first, last):
                t = np.float32(x)
                model[y, x] += (a0 + t * (a1 + t * a2)) * plane[row, x + dx]
        else:
            for x in range(first, last):
                t = np.float32(x)
                model[y, x] += (a0 + t * (a1 + t * a2)) * plane[row, step * x + dx]


def convolve(kernel, flux, origin=(0, 0)):
    """Apply a kernel to a template.

    Parameters
    ----------
    kernel : Kernel
        The kernel.
    flux : ndarray of float32, shape (oversampling * ny, oversampling * nx)
        The template, without NaN.
    origin : tuple of int, default (0, 0)
        (x0, y0) of its first pixel on the image that `kernel.shape` describes [FFI px].

    Returns
    -------
    ndarray of float32, shape (ny, nx)
        The model of the FFI without its sky. What lies beyond the template counts as 0.
    """
    n = kernel.oversampling
    boxes, wings = template_planes(flux, kernel.basis, n)
    model = np.zeros((flux.shape[0] // n, flux.shape[1] // n), np.float32)
    size, half = kernel.basis.size, kernel.basis.size // 2
    for k in range(size * size):
        j, i = divmod(k, size)
        _add_plane(model, boxes, j - half, i - half, n, kernel.coefficients[:, k].copy(), kernel.shape, origin)
    for k, plane in enumerate(wings, start=size * size):
        _add_plane(model, plane, 0, 0, 1, kernel.coefficients[:, k].copy(), kernel.shape, origin)
    return model


def convolve_variance(kernel, variance):
    """Propagate the template's variance through a kernel, as it is in the middle of the image.

    Parameters
    ----------
    kernel : Kernel
        The kernel.
    variance : ndarray of float32, shape (ny, nx)
        Variance of the template's flux in FFI pixels, without NaN.

    Returns
    -------
    ndarray of float32, shape (ny, nx)
        Sum of kernel^2 times variance. Taps closer than an FFI pixel see the same noise: they are added first. The
        correlation between the template's pixels is left out.
    """
    ny, nx = kernel.shape
    taps = kernel_at(kernel, (nx - 1) / 2, (ny - 1) / 2)
    size, n = kernel.basis.size, kernel.oversampling
    far = reach(kernel.basis, n)
    whole = np.zeros((2 * far + 1, 2 * far + 1))
    at = np.rint((np.arange(size) - size // 2) / n).astype(int) + far
    np.add.at(whole, (at[:, None], at[None, :]), taps[: size * size].reshape(size, size))
    propagated = np.zeros(variance.shape, np.float32)
    for j in range(2 * far + 1):
        for i in range(2 * far + 1):
            square = np.array([whole[j, i] ** 2])
            _add_plane(propagated, variance, j - far, i - far, 1, square, variance.shape, (0, 0))
    return propagated


@numba.njit(cache=True, nogil=True)
def _convolve_stamps(psfs, coefficients, size, n, images):
    """Sum, for each source, the taps times the template's image of it."""
    half = size // 2
    s = images.shape[1]
    width = psfs.shape[1]
    for p in range(psfs.shape[0]):
        for k in range(size * size):
            a = coefficients[p, k]
            j, i = k // size - half, k % size - half
            for y in range(s):
                for row in range(max(n * y + j, 0), min(n * y + j + n, width)):
                    for x in range(s):
                        for column in range(max(n * x + i, 0), min(n * x + i + n, width)):
                            images[p, y, x] += a * psfs[p, row, column]


def convolve_psfs(kernel, psfs, x, y):
    """Return the FFI's images of sources that are 1 template unit bright: kernel times the template's PSF.

    Parameters
    ----------
    kernel : Kernel
        The kernel.
    psfs : ndarray of float64, shape (n, oversampling * s, oversampling * s)
        The template's image of a source of unit flux at each position, on template pixels. Its middle FFI pixel,
        s // 2 along both axes, is the one at (floor(y + 0.5), floor(x + 0.5)).
    x, y : ndarray of float64, shape (n,)
        Positions of the sources [px of the image that `kernel.shape` describes].

    Returns
    -------
    ndarray of float64, shape (n, s, s)
        Images on FFI pixels. Each sums up to the scale (`kernel_sum`) but for what leaves the stamp: take s at least
        7 px plus twice the reach of the kernel.
    """
    n, size = kernel.oversampling, kernel.basis.size
    psfs = np.asarray(psfs, float)
    coefficients = kernel_at(kernel, x, y)
    s = psfs.shape[1] // n
    images = np.zeros((len(psfs), s, s))
    _convolve_stamps(psfs, coefficients, size, n, images)
    if kernel.basis.wings:
        whole = psfs.reshape(len(psfs), s, n, s, n).sum(axis=(2, 4))
        for k, sigma in enumerate(kernel.basis.wings, start=size * size):
            wing = ndimage.gaussian_filter(whole, (0, sigma, sigma), mode="constant", truncate=3.0)
            images += coefficients[:, k, None, None] * wing
    return images
