"""Convolved blocks integrated over TESS pixels.

A convolved skycell is sampled at the nodes of a `quadrature.QuadratureGrid` by cubic B-splines between its stored
samples. The convolution has taken the splines' width off already, so that a node samples the convolved sky itself. The
nodes are summed along rows first, then along columns: a further offset of the same skycell costs next to nothing.
"""

from typing import NamedTuple

import numba
import numpy as np

from syndiff_tasks.pixels.mask import DQ
from syndiff_tasks.pixels.quadrature import QuadratureGrid, node_weights, owned_span

#: A pixel with less coverage has no data. Below it the rounding of float32 (1e-7 of full coverage, on flux and valid
#: weight alike) is no longer small beside what is left to divide by.
LEAST_COVERAGE = 1e-4

_NO_PS1 = np.uint16(DQ.NO_PS1.value)  # numba takes integers, not flags


class Sampled(NamedTuple):
    """Template values of TESS pixels; arrays of one shape.

    Attributes
    ----------
    flux : ndarray of float32
        Flux of the pixel [counts/s]; NaN without data.
    variance : ndarray of float32
        Its variance [(counts/s)^2]; NaN without data.
    coverage : ndarray of float32
        Fraction of the pixel's convolved area with data; 0 without data.
    count : ndarray of float32
        Effective number of valid native pixels summed.
    masked : ndarray of float32
        Effective number of valid native pixels with a counted mask bit (`blocks.to_blocks`).
    dq : ndarray of uint16
        OR of the `DQ` bits at the nodes in the pixel; NO_PS1 without data.
    """

    flux: np.ndarray
    variance: np.ndarray
    coverage: np.ndarray
    count: np.ndarray
    masked: np.ndarray
    dq: np.ndarray


class NodeValues(NamedTuple):
    """A convolved skycell at points; all arrays have their shape.

    Attributes
    ----------
    flux, valid, masked : ndarray of float32
        The planes of `convolution.Convolved` times the area of a pixel; 0 off the frame.
    variance : ndarray of float32
        The plane of `convolution.Convolved` times the area squared; 0 off the frame.
    area : ndarray of float32
        Area of a pixel at each point [native px].
    dq : ndarray of uint16
        `DQ` bits of the nearest sample.
    """

    flux: np.ndarray
    valid: np.ndarray
    masked: np.ndarray
    variance: np.ndarray
    area: np.ndarray
    dq: np.ndarray


def sample(convolved, px, py, area=1.0) -> NodeValues:
    """Sample a convolved skycell at values.

    Parameters
    ----------
    convolved : convolution.Convolved
    px, py : ndarray of float64, shape (ny, nx)
        Position in the skycell [0-based native px]; NaN for points to skip.
    area : float or ndarray, shape (ny, nx)
        Area of a template pixel at each point [native px]: weights of sum 1 then integrate over a pixel. 1 gives values
        per native pixel.

    Returns
    -------
    values : NodeValues
        Without data off the frame and at NaN.
    """
    sums = (np.zeros(px.shape, np.float32) for _ in range(4))
    out = NodeValues(*sums, np.full(px.shape, area, np.float32), np.zeros(px.shape, np.uint16))
    planes = (convolved.flux, convolved.valid, convolved.masked, convolved.variance)
    _sample(planes, convolved.dq, tuple(map(float, convolved.grid)), px, py, out)
    return out


@numba.njit(inline="always")
def spline_weights(offset):
    """Return the cubic B-spline weights of the four samples around a point `offset` (0 to 1) steps past the second.

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
    # Products, because numba turns a float32 to the power of an integer into float64.
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
    # With unsigned indices numba omits the check for negative ones: three times faster.
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
def _sample(planes, dq, grid, px, py, out):
    flux, valid, masked, variance = planes
    x0, y0, step = grid
    per_step, half = 1 / step, 0.5
    ny, nx = flux.shape
    for j in range(px.shape[0]):
        for i in range(px.shape[1]):
            x, y = (px[j, i] - x0) * per_step, (py[j, i] - y0) * per_step
            # NaN positions fail this comparison too.
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


def integrate(convolved, grid: QuadratureGrid, positions, templates):
    """Integrate a convolved skycell over the pixels that it owns.

    Parameters
    ----------
    convolved : convolution.Convolved
    grid : QuadratureGrid
        Of its pixels.
    positions : callable
        Takes x, y (moved by the offset for a PRF), start and stop of the grid; returns the native px and py of its
        nodes, and the area of a pixel there, as `sample` takes them.
    templates : list of Sampled
        One for each offset of the grid, of the shape of ``grid.owned``; the pixels that the skycell owns are filled in.

    Notes
    -----
    Flux is A int(f) / int(v), with f and v the convolved flux and valid weight and A the pixel's area; coverage is
    int(v) / A. The variance (`quadrature.node_weights`) is divided by the coverage squared.
    """
    pairs = list(zip(grid.offsets, templates, strict=True))
    # A PRF includes the pixel: it is sampled at the very centers of the moved pixels.
    is_prf = grid.rule.sigma is None
    readings = [(pair[0], [pair]) for pair in pairs] if is_prf else [((0.0, 0.0), pairs)]
    for (dx, dy), some in readings:
        values = sample(convolved, *positions(grid.x - dx, grid.y - dy, grid.start, grid.stop))
        for offset, planes in some:
            x, y = (node_weights(grid.rule, along) for along in offset)
            start = x.first - grid.first_x, y.first - grid.first_y, grid.rule.density
            _integrate(values, start, (x[1:], y[1:]), grid.owned, planes)


@numba.njit(cache=True, nogil=True)
def _integrate(values, start, tapers, owned, out):
    x_start, y_start, density = start
    (flux_x, variance_x, inside_x), (flux_y, variance_y, inside_y) = tapers
    nodes = len(flux_x)
    lines = np.empty((5, values.dq.shape[1]), np.float32)
    bits = np.empty(values.dq.shape[1], np.uint16)
    for y in range(owned.shape[0]):
        begin, end = owned_span(owned[y])
        if begin >= end:
            continue
        columns = slice(begin * density + x_start, (end - 1) * density + x_start + nodes)
        lines[:, columns] = 0
        bits[columns] = 0
        for node in range(nodes):
            row = y * density + y_start + node
            _add(flux_y[node], values.flux[row, columns], lines[0, columns])
            _add(flux_y[node], values.valid[row, columns], lines[1, columns])
            _add(flux_y[node], values.masked[row, columns], lines[2, columns])
            _add(variance_y[node], values.variance[row, columns], lines[3, columns])
            _add(flux_y[node], values.area[row, columns], lines[4, columns])
            if inside_y[node]:
                _flag(values.dq[row, columns], bits[columns])
        for x in range(begin, end):
            if owned[y, x]:
                first = x * density + x_start
                flags = np.uint16(0)
                for node in range(nodes):
                    if inside_x[node]:
                        flags |= bits[first + node]
                _fill(out, y, x, _dot(lines, first, flux_x, variance_x), flags)


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
    for node in range(len(flux_x)):
        weight = flux_x[node]
        flux += weight * lines[0, first + node]
        valid += weight * lines[1, first + node]
        masked += weight * lines[2, first + node]
        variance += variance_x[node] * lines[3, first + node]
        area += weight * lines[4, first + node]
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
    """Return template planes without data.

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
    return Sampled(nan, nan.copy(), zero, zero.copy(), zero.copy(), np.full(shape, _NO_PS1, np.uint16))


def apply_quality_flags(planes: Sampled, science, seam, min_coverage: float) -> Sampled:
    """Set pixels with too little data to NaN, and flag pixels by their place on the template.

    Parameters
    ----------
    planes : Sampled
        Of a whole template; changed in place.
    science : ndarray of bool, shape (ny, nx)
        Pixels that see the sky; the others become COLLATERAL, without data.
    seam : ndarray of bool, shape (ny, nx)
        Pixels with convolved light from another projection.
    min_coverage : float
        Smallest coverage [0..1] at which a pixel keeps its flux.

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
