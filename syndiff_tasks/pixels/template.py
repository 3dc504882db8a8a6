"""Blurred blocks integrated over TESS pixels.

A blurred skycell is read on a lattice, `Rule.density` points along a template pixel, by cubic B-splines between its
stored samples, whose width the blur has taken off already: a point reads the blurred sky itself. A pixel at any offset
is a weighted sum of the points in it and about it, the same weights for all pixels: rows first, then columns. So a
further offset of the same skycell costs next to nothing.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numba
import numpy as np
from scipy.linalg import cholesky, solve, solve_triangular
from scipy.optimize import nnls
from scipy.special import erf

from syndiff_tasks.pixels.mask import DQ

#: The sum over the lattice may miss the integral of a star over any pixel by this fraction of the star's brightest
#: pixel: a tenth of the error the whole template is allowed.
QUADRATURE_ERROR = 1e-4

#: Points on each side of a pixel, beyond those in it, whose light tells what happens between the points: with 2 of
#: them the error is six times as large, more than allowed.
BEYOND = 4

#: Largest distance between two points of the lattice [native px]. A flag spreads by sigma from *every* point of a
#: pixel, though it is read on the lattice only, so the blur widens it by half of this besides.
LARGEST_SPACING = 28.0

#: Fewest points along a pixel. The share of separations (see `weights`) is 0.2 px wide: with fewer points, and none of
#: negative weight, the variance would be spread more widely than that, 18 % off beside holes, where it is 1 % now.
LEAST_POINTS = 3

#: Digits of a pixel's size for which a rule is made, so that the thousand skycells of an FFI, 5 % different, share some
#: 50. Flux does not depend on it; variance is off by 0.1 % with a blur of 20 px, by 0.4 % with none and oversampling 4.
SCALE_DIGITS = 3

#: The sharpest stars of PS1 [native px, Gaussian sigma]: FWHM 0.9", where 1.1" is usual.
SHARPEST_STAR = 1.5

#: A pixel with less coverage has no data. Below it the rounding of float32 (1e-7 of full coverage, on flux and valid
#: weight alike) is no longer small beside what is left to divide by.
LEAST_COVERAGE = 1e-4

#: Added to the diagonal of the least squares for the weights, which rounding would make indefinite.
_NUGGET = 1e-12

_NO_PS1 = np.uint8(DQ.NO_PS1.value)  # numba takes integers, not flags


class Sampled(NamedTuple):
    """Template values of TESS pixels, arrays of one shape.

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
        OR of the `DQ` bits at the points in the pixel; NO_PS1 without data.
    """

    flux: np.ndarray
    variance: np.ndarray
    coverage: np.ndarray
    count: np.ndarray
    masked: np.ndarray
    dq: np.ndarray


class Rule(NamedTuple):
    """How pixels are summed up from points.

    Attributes
    ----------
    density : int
        Points along a template pixel.
    taps : int
        Points along each axis that are summed for a pixel.
    blur : float or None
        Width of the blur [template px]; None for a PRF, which has the pixel in it already.
    sky : float or None
        Width of the sharpest star in the blurred sky [template px].
    """

    density: int
    taps: int
    blur: float | None
    sky: float | None


class Weights(NamedTuple):
    """Weights of the points along one axis of a pixel at one offset.

    Attributes
    ----------
    first : int
        Index of the first point for pixel 0; for pixel X it is X * density more.
    flux : ndarray of float32, shape (taps,)
        Of sum 1.
    variance : ndarray of float32, shape (taps,)
        Never negative. Their products over both axes, times the area of a pixel squared, make of the variance per
        point that of the pixel.
    inside : ndarray of bool, shape (taps,)
        Which points are in the pixel, or at most half their distance beyond it.
    """

    first: int
    flux: np.ndarray
    variance: np.ndarray
    inside: np.ndarray


class Lattice(NamedTuple):
    """Points that the pixels of one skycell need, at some offsets.

    Attributes
    ----------
    x, y : ndarray of float64, shapes (nx,), (ny,)
        Where the columns and rows of points are [0-based template px], those of a PRF before they are moved.
    start, stop : ndarray of int64, shape (ny,)
        The columns that are needed in each row, half-open.
    first_x, first_y : int
        Index of the first column and row, counted as `Weights.first` is, from the corner.
    owned : ndarray of bool, shape (rows, columns)
        Which pixels from the corner on are the skycell's.
    rule : Rule
    offsets : sequence of (float, float)
        (dx, dy) [template px].
    """

    x: np.ndarray
    y: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    first_x: int
    first_y: int
    owned: np.ndarray
    rule: Rule
    offsets: list


class Points(NamedTuple):
    """A blurred skycell at points, each array of their shape.

    Attributes
    ----------
    flux, valid, masked : ndarray of float32
        Those of `psf.Blurred` times the area of a pixel; 0 off the frame.
    variance : ndarray of float32
        That of `psf.Blurred` times the area squared; 0 off the frame.
    area : ndarray of float32
        Of a pixel at each point [native px].
    dq : ndarray of uint8
        `DQ` bits of the nearest sample.
    """

    flux: np.ndarray
    valid: np.ndarray
    masked: np.ndarray
    variance: np.ndarray
    area: np.ndarray
    dq: np.ndarray


def rule(sigma: float | None, pixel_scale: float) -> Rule:
    """Choose how many points integrate the blurred sky over a pixel.

    Parameters
    ----------
    sigma : float or None
        Width of the blurred sky, ``Blurred.sigma`` [native px]; None for a PRF.
    pixel_scale : float
        Side of a template pixel [native px]: 82 for a TESS pixel, less when it is oversampled.

    Returns
    -------
    rule : Rule
        Of the fewest points whose sum over a Gaussian is within `QUADRATURE_ERROR` of its brightest pixel, wherever
        the star stands: 3 along a TESS pixel for sigma 40, some 30 without a blur; 1 for a PRF, to be read at the
        pixel's centre.

    Raises
    ------
    ValueError
        If `sigma` or `pixel_scale` is not positive.

    """
    if sigma is None:
        return Rule(1, 1, None, None)
    if not (sigma > 0 and pixel_scale > 0):
        raise ValueError(
            f"a sky of width {sigma} px cannot be integrated over pixels of {pixel_scale} px: "
            "give the sigma of a blurred skycell and the size of a pixel, both positive"
        )
    return _rule(sigma, float(f"{pixel_scale:.{SCALE_DIGITS}g}"))


@lru_cache(maxsize=1024)
def _rule(sigma, pixel_scale):
    sky = math.hypot(sigma, SHARPEST_STAR) / pixel_scale
    density = max(LEAST_POINTS, math.ceil(pixel_scale / LARGEST_SPACING))
    while _quadrature_error(density, sky) > QUADRATURE_ERROR:
        density += 1
    return Rule(density, density + 2 * BEYOND, sigma / pixel_scale, sky)


def _quadrature_error(density, width):
    """Largest error of the sum over a Gaussian of this width [px], of its brightest pixel, for one axis."""
    star = np.linspace(-0.5 - 3 * width, 0.5 + 3 * width, 401)
    low, high = ((edge - star) / (width * math.sqrt(2)) for edge in (-0.5, 0.5))
    exact = (erf(high) - erf(low)) / 2
    worst = 0.0
    for offset in np.linspace(0, 0.5 / density, 6):
        at, flux = _flux_weights(density, density + 2 * BEYOND, width, offset)[1:]
        summed = flux @ np.exp(-0.5 * ((at[:, None] - star) / width) ** 2) / (width * math.sqrt(2 * math.pi))
        worst = max(worst, np.abs(summed - exact).max() / exact.max())
    return worst


@lru_cache(maxsize=4096)
def weights(rule: Rule, offset: float) -> Weights:
    r"""Weigh the points along one axis of a pixel.

    Parameters
    ----------
    rule : Rule
    offset : float
        The pixel X shows the sky about X - offset [template px]. With a PRF it is the points that are moved, and the
        one weight is 1.

    Returns
    -------
    weights : Weights

    Notes
    -----
    For flux, those with the least mean square error over point sources anywhere, as the blur shows them: Gaussians
    of width s. They solve :math:`\sum_l \rho(x_k - x_l) w_l = \int \rho(x_k - u) du` over the pixel, with
    :math:`\rho(d) = \exp(-d^2 / 4 s^2)`, the autocorrelation of the blur.

    With G the Gaussian of the blur, the variance of int(f) over the pixel is the sum of var_i [int G(r - r_i) dr]^2.
    A product of two Gaussians is one of their separation, of width s sqrt(2), times one of their midpoint, of width
    s/sqrt(2); the latter has been applied to the stored variance V. What is left is

    .. math:: 4 \pi s^2 \int V(r) W(r) dr, \quad W = \prod_{x, y} \mathrm{erf}((1 - 2|x|) / 2 s)

    over the pixel, x and y counted from its centre in pixels: W is the share of the separations for which both points
    lie in it. The weights solve the same equation for W and the width s/sqrt(2), but never negative ones, lest a
    variance be, and are scaled such that a constant variance comes out exactly.
    """
    if rule.blur is None:
        one = np.ones(1, np.float32)
        return Weights(0, one, one, np.ones(1, bool))
    first, at, flux = _flux_weights(rule.density, rule.taps, rule.sky, offset)
    inside = np.abs(at) <= 0.5 + 0.5 / rule.density + 1e-9
    return Weights(first, flux.astype(np.float32), _variance_weights(at, rule.blur).astype(np.float32), inside)


def _flux_weights(density, taps, width, offset):
    """Index of the first point, the points about the pixel's centre [px] and their weights, (taps,) both."""
    centre = (density - 1) / 2 - offset * density
    first = math.floor(centre - (taps - 1) / 2 + 0.5)
    at = (first + np.arange(taps) - centre) / density
    between = np.exp(-(((at[:, None] - at) / (2 * width)) ** 2)) + _NUGGET * np.eye(taps)
    with_pixel = erf((at + 0.5) / (2 * width)) - erf((at - 0.5) / (2 * width))
    flux = solve(between, with_pixel, assume_a="pos")
    return first, at, flux / flux.sum()


def _variance_weights(at, width):
    """Weights of the points `at` for the variance, 4 pi width^2 of both axes included."""
    reach = 1 / (2 * width)
    # Two halves, since the share of separations has an edge at the pixel's centre.
    half, share = np.polynomial.legendre.leggauss(24)
    u = np.concatenate([(half - 1) / 4, (half + 1) / 4])
    share = np.tile(share / 4, 2) * erf(reach * (1 - 2 * np.abs(u)))
    correlation = [np.exp(-0.5 * ((at[:, None] - other) / width) ** 2) for other in (at, u)]
    factor = cholesky(correlation[0] + _NUGGET * np.eye(len(at)), lower=True)
    found, _ = nnls(factor.T, solve_triangular(factor, correlation[1] @ share, lower=True))
    mean = erf(reach) + math.expm1(-(reach**2)) / (reach * math.sqrt(math.pi))
    return math.sqrt(4 * math.pi) * width * mean * found / found.sum()


def lattice(owned, corner, rule: Rule, offsets) -> Lattice:
    """Lay the points that all pixels of a skycell need, at all offsets.

    Parameters
    ----------
    owned : ndarray of bool, shape (ny, nx)
        Which pixels of a part of the template the skycell owns.
    corner : (int, int)
        x and y of that part's first pixel in the template.
    rule : Rule
    offsets : sequence of (float, float)
        (dx, dy) [template px].

    Returns
    -------
    lattice : Lattice
        The same points for any offsets, only more or less of them.
    """
    reach = [_reach(rule, along) for along in zip(*offsets, strict=True)]
    x, y = (
        first + (np.arange(low, (pixels - 1) * rule.density + high) + 0.5) / rule.density - 0.5
        for first, pixels, (low, high) in zip(corner, owned.shape[::-1], reach, strict=True)
    )
    start, stop = _spans(owned, rule.density, reach)
    return Lattice(x, y, start, stop, reach[0][0], reach[1][0], owned, rule, offsets)


def _reach(rule, offsets):
    """First point, and one past the last, that pixel 0 needs at any of these offsets along an axis."""
    first = [weights(rule, offset).first for offset in (min(offsets), max(offsets))]
    return min(first), max(first) + rule.taps


def _spans(owned, density, reach):
    """First column and one past the last that each row of points needs for the pixels that are owned."""
    (low_x, high_x), (low_y, high_y) = reach
    rows = (len(owned) - 1) * density + high_y - low_y
    begin, end = np.transpose([_owned(line) for line in owned])
    start, stop = np.full(rows, owned.shape[1]), np.zeros(rows, int)
    for point in range(high_y - low_y):
        of_row = slice(point, point + (len(owned) - 1) * density + 1, density)
        start[of_row] = np.minimum(start[of_row], begin)
        stop[of_row] = np.maximum(stop[of_row], end)
    some = stop > start
    return np.where(some, start * density, 0), np.where(some, (stop - 1) * density + high_x - low_x, 0)


def read(blurred, px, py, area=1.0) -> Points:
    """Read a blurred skycell at points.

    Parameters
    ----------
    blurred : syndiff_tasks.pixels.psf.Blurred
        The blurred skycell.
    px, py : ndarray of float64, shape (ny, nx)
        Native pixels of the skycell, 0-based; NaN where nothing is to be read.
    area : float or ndarray, shape (ny, nx)
        Of a template pixel at each point [native px], so that weights of sum 1 make integrals over a pixel; with 1 the
        values are those per native pixel.

    Returns
    -------
    points : Points
        Off the blurred frame, and for NaN, they hold no data.
    """
    sums = (np.zeros(px.shape, np.float32) for _ in range(4))
    out = Points(*sums, np.full(px.shape, area, np.float32), np.zeros(px.shape, np.uint8))
    planes = (blurred.flux, blurred.valid, blurred.masked, blurred.variance)
    _read(planes, blurred.dq, tuple(map(float, blurred.grid)), px, py, out)
    return out


@numba.njit(inline="always")
def spline_weights(offset):
    """Weigh the four samples about a point `offset` (0 to 1) steps past the second one, by cubic B-splines.

    Parameters
    ----------
    offset : float32

    Returns
    -------
    before, left, right, after : float32
        (1 - t)^3/6, 2/3 - t^2 (1 - t/2), the same of 1 - t, t^3/6 (Unser 1999, IEEE Signal Processing Magazine 16(6),
        22, eq. 2), of sum 1.
    """
    one, half, third, sixth = np.float32(1), np.float32(0.5), np.float32(2 / 3), np.float32(1 / 6)
    # Products, for numba makes float64 of a float32 to the power of an integer.
    rest = one - offset
    square, rest_square = offset * offset, rest * rest
    return (
        rest_square * rest * sixth,
        third - square * (one - half * offset),
        third - rest_square * (one - half * rest),
        square * offset * sixth,
    )


@numba.njit(inline="always")
def _interpolate(plane, row, column, wx, wy):
    # Unsigned indices spare numba its check for negative ones: three times faster.
    one = np.uint32(1)
    before, right = column - one, column + one
    after = right + one
    value = np.float32(0)
    for j in range(4):
        line = row - one + np.uint32(j)
        value += wy[j] * (
            wx[0] * plane[line, before]
            + wx[1] * plane[line, column]
            + wx[2] * plane[line, right]
            + wx[3] * plane[line, after]
        )
    return value


@numba.njit(cache=True, nogil=True)
def _read(planes, dq, grid, px, py, out):
    flux, valid, masked, variance = planes
    x0, y0, step = grid
    per_step, half = 1 / step, 0.5
    ny, nx = flux.shape
    for j in range(px.shape[0]):
        for i in range(px.shape[1]):
            x, y = (px[j, i] - x0) * per_step, (py[j, i] - y0) * per_step
            # Written so that NaN positions fail it too.
            if not (x >= 1 and y >= 1 and x < nx - 2 and y < ny - 2):
                continue
            column, row = np.uint32(x), np.uint32(y)
            wx, wy = spline_weights(np.float32(x - column)), spline_weights(np.float32(y - row))
            area = out.area[j, i]
            out.flux[j, i] = _interpolate(flux, row, column, wx, wy) * area
            out.valid[j, i] = _interpolate(valid, row, column, wx, wy) * area
            out.masked[j, i] = _interpolate(masked, row, column, wx, wy) * area
            out.variance[j, i] = _interpolate(variance, row, column, wx, wy) * area * area
            out.dq[j, i] = dq[np.uint32(y + half), np.uint32(x + half)]


def integrate(blurred, lattice: Lattice, positions, templates):
    """Integrate a blurred skycell over the pixels that it owns.

    Parameters
    ----------
    blurred : syndiff_tasks.pixels.psf.Blurred
        The blurred skycell.
    lattice : Lattice
        Of its pixels.
    positions : callable
        Takes x, y, start and stop of the lattice, x and y moved for a PRF; returns native px and py of its points, and
        the area of a pixel there, as `read` takes them.
    templates : list of Sampled
        One for each offset of the lattice, of the shape of ``lattice.owned``; what the skycell owns is filled in.

    Notes
    -----
    Flux is A int(f) / int(v), f and v the blurred flux and valid weight, A the pixel's area; coverage int(v) / A. The
    variance, see `weights`, is divided by the coverage squared. Points off the blurred frame hold no data.
    """
    pairs = list(zip(lattice.offsets, templates, strict=True))
    # A PRF is no smooth sky to be interpolated from points: it is read at the very centres of the moved pixels.
    is_prf = lattice.rule.blur is None
    readings = [(pair[0], [pair]) for pair in pairs] if is_prf else [((0.0, 0.0), pairs)]
    for (dx, dy), some in readings:
        points = read(blurred, *positions(lattice.x - dx, lattice.y - dy, lattice.start, lattice.stop))
        for offset, planes in some:
            x, y = (weights(lattice.rule, along) for along in offset)
            start = x.first - lattice.first_x, y.first - lattice.first_y, lattice.rule.density
            _integrate(points, start, (x[1:], y[1:]), lattice.owned, planes)


@numba.njit(cache=True, nogil=True)
def _integrate(points, start, tapers, owned, out):
    x_start, y_start, density = start
    (flux_x, variance_x, inside_x), (flux_y, variance_y, inside_y) = tapers
    taps = len(flux_x)
    lines = np.empty((5, points.dq.shape[1]), np.float32)
    bits = np.empty(points.dq.shape[1], np.uint8)
    for y in range(owned.shape[0]):
        begin, end = _owned(owned[y])
        if begin >= end:
            continue
        columns = slice(begin * density + x_start, (end - 1) * density + x_start + taps)
        lines[:, columns] = 0
        bits[columns] = 0
        for tap in range(taps):
            row = y * density + y_start + tap
            _add(flux_y[tap], points.flux[row, columns], lines[0, columns])
            _add(flux_y[tap], points.valid[row, columns], lines[1, columns])
            _add(flux_y[tap], points.masked[row, columns], lines[2, columns])
            _add(variance_y[tap], points.variance[row, columns], lines[3, columns])
            _add(flux_y[tap], points.area[row, columns], lines[4, columns])
            if inside_y[tap]:
                _flag(points.dq[row, columns], bits[columns])
        for x in range(begin, end):
            if owned[y, x]:
                first = x * density + x_start
                flags = np.uint8(0)
                for tap in range(taps):
                    if inside_x[tap]:
                        flags |= bits[first + tap]
                _fill(out, y, x, _dot(lines, first, flux_x, variance_x), flags)


@numba.njit(cache=True, nogil=True)
def _owned(line):
    """First and one past the last pixel of a line that are owned; where there is none, its length and 0."""
    begin, end = 0, len(line)
    while begin < len(line) and not line[begin]:
        begin += 1
    while end > 0 and not line[end - 1]:
        end -= 1
    return begin, end


@numba.njit(inline="always")
def _add(weight, plane, line):
    for i in range(len(line)):
        line[i] += weight * plane[i]


@numba.njit(inline="always")
def _flag(flags, bits):
    for i in range(len(bits)):
        bits[i] |= flags[i]


@numba.njit(inline="always")
def _dot(lines, first, flux_x, variance_x):
    flux = valid = masked = variance = area = np.float32(0)
    for tap in range(len(flux_x)):
        weight = flux_x[tap]
        flux += weight * lines[0, first + tap]
        valid += weight * lines[1, first + tap]
        masked += weight * lines[2, first + tap]
        variance += variance_x[tap] * lines[3, first + tap]
        area += weight * lines[4, first + tap]
    return flux, valid, masked, variance, area


@numba.njit(inline="always")
def _fill(out, y, x, sums, flags):
    flux, valid, masked, variance, area = sums
    coverage = valid / area if area > 0 else np.float32(0)
    if coverage > LEAST_COVERAGE:
        out.flux[y, x] = flux / coverage
        out.variance[y, x] = variance / (coverage * coverage)
        out.coverage[y, x] = min(coverage, np.float32(1))
        out.count[y, x] = valid
        out.masked[y, x] = max(masked, np.float32(0))
    else:
        out.flux[y, x] = out.variance[y, x] = np.nan
        out.coverage[y, x] = out.count[y, x] = out.masked[y, x] = 0
        flags |= _NO_PS1
    out.dq[y, x] = flags


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
    dq = planes.dq
    dq[~science] = DQ.COLLATERAL.value
    low = science & (planes.coverage < min_coverage) & ((dq & _NO_PS1) == 0)
    dq[low] |= DQ.LOW_COVERAGE.value
    dq[science & seam] |= DQ.PROJECTION_SEAM.value
    blanked = low | ~science
    planes.flux[blanked] = planes.variance[blanked] = np.nan
    return planes
