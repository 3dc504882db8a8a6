"""Blurred blocks integrated over TESS pixels.

A TESS pixel is a set of quadrature nodes: positions in the skycell's native pixels, and weights that add up to the
pixel's area there. The stored samples are interpolated at the nodes with quadratic B-splines (triangular-shaped
cloud, TSC, weights), whose width the blur has taken off already, so that a node reads the blurred sky itself.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numba
import numpy as np
from scipy.special import erf

from syndiff_tasks.pixels.mask import DQ

#: Quadrature may miss the integral of a star over any pixel by this fraction of the star's brightest pixel: a tenth
#: of the error the whole template is allowed.
QUADRATURE_ERROR = 1e-4

#: The sharpest stars of PS1 [native px, Gaussian sigma]: FWHM 0.9", where 1.1" is usual.
SHARPEST_STAR = 1.5

#: A pixel with less coverage has no data. Below it the rounding of float32 (1e-7 of full coverage, on flux and valid
#: weight alike) is no longer small beside what is left to divide by.
LEAST_COVERAGE = 1e-4

_NO_PS1 = np.uint8(DQ.NO_PS1.value)  # numba takes integers, not flags


class Sampled(NamedTuple):
    """Template values of n TESS pixels, each an array of shape (n,).

    Attributes
    ----------
    flux : ndarray of float32
        Flux of the pixel [counts/s]; NaN without data.
    variance : ndarray of float32
        Its variance [(counts/s)^2]; NaN without data.
    coverage : ndarray of float32
        Fraction of the pixel's blurred area that had data; 0 without data.
    count : ndarray of float32
        Effective number of valid native pixels summed.
    masked : ndarray of float32
        Effective number of valid native pixels with any mask bit.
    dq : ndarray of uint8
        OR of the `DQ` bits of the blurred blocks; NO_PS1 without data.
    """

    flux: np.ndarray
    variance: np.ndarray
    coverage: np.ndarray
    count: np.ndarray
    masked: np.ndarray
    dq: np.ndarray


@lru_cache(maxsize=64)
def quadrature_nodes(sigma: float | None, pixel_scale: float) -> int:
    """Choose how many Gauss-Legendre nodes per axis integrate the blurred sky over a TESS pixel.

    Parameters
    ----------
    sigma : float or None
        Width of the blurred sky, ``Blurred.sigma`` [native px]; None for a PRF, which has the pixel in it already.
    pixel_scale : float
        Side of the pixel [native px]: 82 for a TESS pixel, less when it is oversampled.

    Returns
    -------
    nodes : int
        The fewest whose sum over a Gaussian is within `QUADRATURE_ERROR` of its brightest pixel, wherever the star
        stands: 4 for sigma 40 and a TESS pixel, some 29 without a blur; 1 for a PRF, to be read at pixel centres.

    Raises
    ------
    ValueError
        If `sigma` or `pixel_scale` is not positive.
    """
    if sigma is None:
        return 1
    if not (sigma > 0 and pixel_scale > 0):
        raise ValueError(
            f"a sky of width {sigma} px cannot be integrated over pixels of {pixel_scale} px: "
            "give the sigma of a blurred skycell and the size of a pixel, both positive"
        )
    width = math.hypot(sigma, SHARPEST_STAR) / pixel_scale
    nodes = 1
    while _quadrature_error(nodes, width) > QUADRATURE_ERROR:
        nodes += 1
    return nodes


def _quadrature_error(nodes, width):
    """Largest error of Gauss-Legendre over a unit pixel for a Gaussian of this width, of its brightest pixel."""
    star = np.linspace(0, 0.5 + 3 * width, 401)[:, None]
    x, weight = np.polynomial.legendre.leggauss(nodes)
    summed = np.exp(-0.5 * ((x / 2 - star) / width) ** 2) @ (weight / 2) / (width * math.sqrt(2 * math.pi))
    low, high = ((edge - star[:, 0]) / (width * math.sqrt(2)) for edge in (-0.5, 0.5))
    exact = (erf(high) - erf(low)) / 2
    return np.abs(summed - exact).max() / exact.max()


def sample(blurred, nodes_px, nodes_py, nodes_weight, pixel_scale: float) -> Sampled:
    r"""Integrate a blurred skycell over TESS pixels.

    Parameters
    ----------
    blurred : syndiff_tasks.pixels.psf.Blurred
        The blurred skycell.
    nodes_px, nodes_py : ndarray of float64, shape (n, m)
        Nodes of n pixels [native px of the skycell, 0-based]; m a square number, the nodes those of Gauss-Legendre
        along each axis (either order of axes).
    nodes_weight : ndarray of float64, shape (n, m)
        Quadrature weight times the local area [native px]; its sum over a row is the pixel's area A.
    pixel_scale : float
        Side of a pixel [native px], for the variance.

    Returns
    -------
    sampled : Sampled

    Raises
    ------
    ValueError
        If the three arrays differ in shape, m is not a square number, or a PRF is not read at pixel centres.

    Notes
    -----
    Flux is A int(f) / int(v), f and v the blurred flux and valid weight; coverage int(v) / A. Nodes off the blurred
    frame hold no data.

    With G the Gaussian of the blur, the variance of int(f) is the sum of var_i [int G(r - r_i) dr]^2. A product of
    two Gaussians is one of their separation, of width sigma sqrt(2), times one of their midpoint, of width
    sigma/sqrt(2); the latter has been applied to the stored variance V. What is left is

    .. math:: 4 \pi \sigma^2 \int V(r) W(r) dr, \quad W = \prod_{x, y} \mathrm{erf}((L - 2|x|) / 2 \sigma)

    over the pixel, x and y counted from its centre: W is the share of the separations for which both points lie in
    the pixel, L = `pixel_scale`. It is taken at the nodes and scaled such that a constant variance comes out exactly.
    For a PRF it is A^2 V at the pixel's centre. Both are divided by the coverage squared.
    """
    px, py, weight = (np.ascontiguousarray(a, np.float64) for a in (nodes_px, nodes_py, nodes_weight))
    nodes = math.isqrt(px.shape[-1]) if px.ndim == 2 else 0
    if not px.shape == py.shape == weight.shape or nodes == 0 or nodes**2 != px.shape[1]:
        raise ValueError(
            f"nodes of shapes {px.shape}, {py.shape} and weights {weight.shape} are not n pixels of q x q nodes: "
            "give three arrays of one shape (n, q*q)"
        )
    if blurred.sigma is None and nodes != 1:
        raise ValueError(f"a PRF holds the TESS pixel already: read it at 1 node a pixel, not {nodes} x {nodes}")
    out = Sampled(*(np.empty(len(px), np.float32) for _ in range(5)), np.empty(len(px), np.uint8))
    planes = (blurred.flux, blurred.valid, blurred.masked, blurred.variance, blurred.dq)
    _integrate(planes, tuple(map(float, blurred.grid)), (px, py, weight), _separation(blurred, nodes, pixel_scale), out)
    return out


def _separation(blurred, nodes, pixel_scale):
    """Factor of each node (m,) that makes sum(weight * factor * variance) the variance of the integral."""
    if blurred.sigma is None:
        return np.full(1, pixel_scale**2)
    x, weight = np.polynomial.legendre.leggauss(nodes)
    reach = pixel_scale / (2 * blurred.sigma)
    share = erf(reach * (1 - np.abs(x)))
    mean = erf(reach) + math.expm1(-(reach**2)) / (reach * math.sqrt(math.pi))
    share *= mean / (share @ weight / 2)
    return 4 * math.pi * blurred.sigma**2 * np.outer(share, share).ravel()


@numba.njit(inline="always")
def spline_weights(offset):
    """Weigh the three samples around a point `offset` (-1/2 to 1/2) steps from the middle one, by TSC.

    Parameters
    ----------
    offset : float32 or float64

    Returns
    -------
    before, middle, after : same type
        (1/2 - d)^2/2, 3/4 - d^2, (1/2 + d)^2/2 (Hockney & Eastwood 1988, eq. 5-88), of sum 1.
    """
    half, top = np.float32(0.5), np.float32(0.75)
    # Products, for numba makes float64 of a float32 to the power of an integer.
    below, above = half - offset, half + offset
    return half * below * below, top - offset * offset, half * above * above


@numba.njit(inline="always")
def _interpolate(plane, row, column, wx, wy):
    # Unsigned indices spare numba its check for negative ones: three times faster.
    one = np.uint32(1)
    left, right = column - one, column + one
    value = np.float32(0)
    for j in range(3):
        line = row - one + np.uint32(j)
        value += wy[j] * (wx[0] * plane[line, left] + wx[1] * plane[line, column] + wx[2] * plane[line, right])
    return value


@numba.njit(cache=True, nogil=True)
def _integrate(planes, grid, nodes, separation, out):
    flux, valid, masked, variance, dq = planes
    x0, y0, step = grid
    px, py, weight = nodes
    ny, nx = flux.shape
    for n in range(px.shape[0]):
        area = sum_flux = sum_valid = sum_masked = sum_variance = 0.0
        bits = np.uint8(0)
        for m in range(px.shape[1]):
            w = weight[n, m]
            area += w
            x, y = (px[n, m] - x0) / step + 0.5, (py[n, m] - y0) / step + 0.5
            # Written so that NaN positions fail it too.
            if not (x >= 1 and y >= 1 and x < nx - 1 and y < ny - 1):
                continue
            column, row = np.uint32(x), np.uint32(y)
            wx, wy = spline_weights(np.float32(x - 0.5 - column)), spline_weights(np.float32(y - 0.5 - row))
            sum_flux += w * _interpolate(flux, row, column, wx, wy)
            sum_valid += w * _interpolate(valid, row, column, wx, wy)
            sum_masked += w * _interpolate(masked, row, column, wx, wy)
            sum_variance += w * separation[m] * _interpolate(variance, row, column, wx, wy)
            bits |= dq[row, column]
        coverage = sum_valid / area if area > 0 else 0.0
        if coverage > LEAST_COVERAGE:
            out.flux[n] = sum_flux / coverage
            out.variance[n] = sum_variance / coverage**2
            out.coverage[n] = min(coverage, 1.0)
            out.count[n] = sum_valid
            out.masked[n] = max(sum_masked, 0.0)
        else:
            out.flux[n] = out.variance[n] = np.nan
            out.coverage[n] = out.count[n] = out.masked[n] = 0.0
            bits |= _NO_PS1
        out.dq[n] = bits


def blank(shape) -> Sampled:
    """Return planes of a shape in which no pixel has data yet.

    Parameters
    ----------
    shape : (int, int)
        Of the template.

    Returns
    -------
    planes : Sampled
        Flux and variance NaN, coverage, count and masked 0, dq NO_PS1.
    """
    nan, zero = (np.full(shape, value, np.float32) for value in (np.nan, 0.0))
    return Sampled(nan, nan.copy(), zero, zero.copy(), zero.copy(), np.full(shape, _NO_PS1, np.uint8))


def judge(planes: Sampled, science, seam, min_coverage: float) -> Sampled:
    """Blank what has too little data, and flag what the pixels' place makes of them.

    Parameters
    ----------
    planes : Sampled
        Of a whole template; changed in place.
    science : ndarray of bool, shape (ny, nx)
        Pixels that see the sky; the others are COLLATERAL and have no data.
    seam : ndarray of bool, shape (ny, nx)
        Pixels whose blurred light crosses into another projection.
    min_coverage : float
        Least coverage [0..1] with which a pixel keeps its flux.

    Returns
    -------
    planes : Sampled
        The same.
    """
    flux, variance, coverage, _count, _masked, dq = planes
    dq[~science] = DQ.COLLATERAL.value
    low = science & (coverage < min_coverage) & ((dq & _NO_PS1) == 0)
    dq[low] |= DQ.LOW_COVERAGE.value
    dq[science & seam] |= DQ.PROJECTION_SEAM.value
    blanked = low | ~science
    flux[blanked] = np.nan
    variance[blanked] = np.nan
    return planes
