"""The nodes and weights that integrate a convolved skycell over template pixels.

The nodes form a grid of `QuadratureRule.density` points along a template pixel. A pixel at any offset is a weighted sum
over the nodes in and around it, the same weights for all pixels.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numba
import numpy as np
from scipy.linalg import cholesky, solve, solve_triangular
from scipy.optimize import nnls
from scipy.special import erf

#: Allowed error of a star's integral over any pixel, as a fraction of the star's brightest pixel: a tenth of the whole
#: template's.
QUADRATURE_ERROR = 1e-4

#: Nodes beyond each side of a pixel, which determine the sky between the nodes: with 2 of them the error is six times
#: as large, more than allowed.
BEYOND = 4

#: Largest distance between two nodes [native px]. A flag spreads by sigma from *every* point of a pixel, but is read at
#: the nodes only, so the convolution spreads it by half of this in addition.
LARGEST_SPACING = 28.0

#: Fewest nodes along a pixel. The share of separations (`node_weights`) is 0.2 px wide: fewer nodes, none of negative
#: weight, spread the variance more widely and are 18 % off beside holes; these are 1 % off.
LEAST_POINTS = 3

#: Significant digits of the pixel scale of a rule, so that the thousand skycells of an FFI, which differ by 5 %, share
#: some 50 rules. Flux does not depend on it; variance is off by 0.1 % for a sigma of 20 px, by 0.4 % without
#: convolution at oversampling 4.
SCALE_DIGITS = 3

#: The sharpest stars of PS1 [native px, Gaussian sigma]: FWHM 0.9", where 1.1" is usual.
SHARPEST_STAR = 1.5

#: Added to the diagonal of the normal matrix, which rounding would otherwise make indefinite.
_NUGGET = 1e-12


class QuadratureRule(NamedTuple):
    """How pixels are integrated.

    Attributes
    ----------
    density : int
        Nodes along a template pixel.
    nodes : int
        Nodes along each axis that are summed for a pixel.
    sigma : float or None
        Width of the convolution [template px]; None for a PRF, which includes the pixel.
    sky : float or None
        Width of the sharpest star in the convolved sky [template px].
    """

    density: int
    nodes: int
    sigma: float | None
    sky: float | None


class NodeWeights(NamedTuple):
    """Weights of the nodes along one axis of a pixel at one offset.

    Attributes
    ----------
    first : int
        Index of the first node of pixel 0; for pixel X it is X * density more.
    flux : ndarray of float32, shape (nodes,)
        Of sum 1.
    variance : ndarray of float32, shape (nodes,)
        Never negative. The products over both axes, times the squared area of a pixel, turn the variances at the nodes
        into that of the pixel.
    inside : ndarray of bool, shape (nodes,)
        Which nodes are in the pixel, or at most half their distance beyond it.
    """

    first: int
    flux: np.ndarray
    variance: np.ndarray
    inside: np.ndarray


class QuadratureGrid(NamedTuple):
    """The nodes that the pixels of one skycell need, for all offsets.

    Attributes
    ----------
    x, y : ndarray of float64, shapes (nx,), (ny,)
        Positions of the columns and rows of nodes [0-based template px]; for a PRF, before the offset.
    start, stop : ndarray of int64, shape (ny,)
        Columns needed in each row, half-open.
    first_x, first_y : int
        Index of the first column and row, counted from the corner as `NodeWeights.first` is.
    owned : ndarray of bool, shape (rows, columns)
        Which pixels, counted from the corner, belong to the skycell.
    rule : QuadratureRule
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
    rule: QuadratureRule
    offsets: list


def quadrature_rule(sigma: float | None, pixel_scale: float) -> QuadratureRule:
    """Choose the number of nodes that integrates the convolved sky over a pixel.

    Parameters
    ----------
    sigma : float or None
        Width of the convolution, ``Convolved.sigma`` [native px]; None for a PRF.
    pixel_scale : float
        Side of a template pixel [native px]: 82 for a TESS pixel, less when it is oversampled.

    Returns
    -------
    rule : QuadratureRule
        With the fewest nodes whose sum over a Gaussian is right to `QUADRATURE_ERROR` of its brightest pixel for any
        position of the star: 3 along a TESS pixel for sigma 40, some 30 without convolution; 1 for a PRF, at the
        pixel's center.

    Raises
    ------
    ValueError
        If `sigma` or `pixel_scale` is not positive.
    """
    if sigma is None:
        return QuadratureRule(1, 1, None, None)
    if not (sigma > 0 and pixel_scale > 0):
        raise ValueError(
            f"a sky of width {sigma} px cannot be integrated over pixels of {pixel_scale} px: "
            "give the sigma of a convolved skycell and the size of a pixel, both positive"
        )
    return _rule(sigma, float(f"{pixel_scale:.{SCALE_DIGITS}g}"))


@lru_cache(maxsize=1024)
def _rule(sigma, pixel_scale):
    sky = math.hypot(sigma, SHARPEST_STAR) / pixel_scale
    density = max(LEAST_POINTS, math.ceil(pixel_scale / LARGEST_SPACING))
    while _quadrature_error(density, sky) > QUADRATURE_ERROR:
        density += 1
    return QuadratureRule(density, density + 2 * BEYOND, sigma / pixel_scale, sky)


def _quadrature_error(density, width):
    """Return the largest error of the sum over a Gaussian along one axis, relative to its brightest pixel."""
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
def node_weights(rule: QuadratureRule, offset: float) -> NodeWeights:
    r"""Return the weights of the nodes along one axis of a pixel.

    Parameters
    ----------
    rule : QuadratureRule
    offset : float
        The pixel X shows the sky around X - offset [template px]. For a PRF the nodes are moved instead, and the single
        weight is 1.

    Returns
    -------
    weights : NodeWeights

    Notes
    -----
    The flux weights have the least mean square error over point sources anywhere, which the convolution turns into
    Gaussians of width s. They solve :math:`\sum_l \rho(x_k - x_l) w_l = \int \rho(x_k - u) du` over the pixel, with
    :math:`\rho(d) = \exp(-d^2 / 4 s^2)`, the autocorrelation of the Gaussian.

    With G that Gaussian, the variance of int(f) over the pixel is the sum of var_i [int G(r - r_i) dr]^2. A product of
    two Gaussians is a Gaussian of their separation, of width s sqrt(2), times one of their midpoint, of width
    s/sqrt(2); the latter is part of the stored variance V. The rest is

    .. math:: 4 \pi s^2 \int V(r) W(r) dr, \quad W = \prod_{x, y} \mathrm{erf}((1 - 2|x|) / 2 s)

    over the pixel, with x and y counted from its center in pixels: W is the share of the separations for which both
    points lie in the pixel. The variance weights solve the same equation for W and the width s/sqrt(2), constrained to
    be non-negative so that no variance is negative, and are scaled so that a constant variance is exact.
    """
    if rule.sigma is None:
        one = np.ones(1, np.float32)
        return NodeWeights(0, one, one, np.ones(1, bool))
    first, at, flux = _flux_weights(rule.density, rule.nodes, rule.sky, offset)
    inside = np.abs(at) <= 0.5 + 0.5 / rule.density + 1e-9
    return NodeWeights(first, flux.astype(np.float32), _variance_weights(at, rule.sigma).astype(np.float32), inside)


def _flux_weights(density, nodes, width, offset):
    """Return the first node's index, the nodes' distances from the pixel's center [px] and their weights."""
    center = (density - 1) / 2 - offset * density
    first = math.floor(center - (nodes - 1) / 2 + 0.5)
    at = (first + np.arange(nodes) - center) / density
    between = np.exp(-(((at[:, None] - at) / (2 * width)) ** 2)) + _NUGGET * np.eye(nodes)
    with_pixel = erf((at + 0.5) / (2 * width)) - erf((at - 0.5) / (2 * width))
    flux = solve(between, with_pixel, assume_a="pos")
    return first, at, flux / flux.sum()


def _variance_weights(at, width):
    """Return the weights of the nodes `at` for the variance, including the 4 pi width^2 of both axes."""
    reach = 1 / (2 * width)
    # Two halves, because the share of separations has a cusp at the pixel's center.
    half, share = np.polynomial.legendre.leggauss(24)
    u = np.concatenate([(half - 1) / 4, (half + 1) / 4])
    share = np.tile(share / 4, 2) * erf(reach * (1 - 2 * np.abs(u)))
    correlation = [np.exp(-0.5 * ((at[:, None] - other) / width) ** 2) for other in (at, u)]
    factor = cholesky(correlation[0] + _NUGGET * np.eye(len(at)), lower=True)
    found, _ = nnls(factor.T, solve_triangular(factor, correlation[1] @ share, lower=True))
    mean = erf(reach) + math.expm1(-(reach**2)) / (reach * math.sqrt(math.pi))
    return math.sqrt(4 * math.pi) * width * mean * found / found.sum()


def quadrature_grid(owned, corner, rule: QuadratureRule, offsets) -> QuadratureGrid:
    """Lay out the nodes that all pixels of a skycell need, for all offsets.

    Parameters
    ----------
    owned : ndarray of bool, shape (ny, nx)
        Which pixels of a part of the template the skycell owns.
    corner : (int, int)
        x and y in the template of that part's first pixel.
    rule : QuadratureRule
    offsets : sequence of (float, float)
        (dx, dy) [template px].

    Returns
    -------
    grid : QuadratureGrid
        Its nodes lie at the same positions for any offsets; more offsets only need more of them.
    """
    reach = [_reach(rule, along) for along in zip(*offsets, strict=True)]
    x, y = (
        first + (np.arange(low, (pixels - 1) * rule.density + high) + 0.5) / rule.density - 0.5
        for first, pixels, (low, high) in zip(corner, owned.shape[::-1], reach, strict=True)
    )
    start, stop = _spans(owned, rule.density, reach)
    return QuadratureGrid(x, y, start, stop, reach[0][0], reach[1][0], owned, rule, offsets)


def _reach(rule, offsets):
    """Return the first node, and one past the last, that pixel 0 needs for any of these offsets along an axis."""
    first = [node_weights(rule, offset).first for offset in (min(offsets), max(offsets))]
    return min(first), max(first) + rule.nodes


def _spans(owned, density, reach):
    """Return the first column, and one past the last, that the owned pixels need in each row of nodes."""
    (low_x, high_x), (low_y, high_y) = reach
    rows = (len(owned) - 1) * density + high_y - low_y
    begin, end = np.transpose([owned_span(line) for line in owned])
    start, stop = np.full(rows, owned.shape[1]), np.zeros(rows, int)
    for node in range(high_y - low_y):
        of_row = slice(node, node + (len(owned) - 1) * density + 1, density)
        start[of_row] = np.minimum(start[of_row], begin)
        stop[of_row] = np.maximum(stop[of_row], end)
    some = stop > start
    return np.where(some, start * density, 0), np.where(some, (stop - 1) * density + high_x - low_x, 0)


@numba.njit(cache=True, nogil=True)
def owned_span(line):
    """Find the owned pixels of a line.

    Parameters
    ----------
    line : ndarray of bool, shape (n,)

    Returns
    -------
    begin, end : int
        First owned pixel and one past the last; n and 0 if no pixel is owned.
    """
    begin, end = 0, len(line)
    while begin < len(line) and not line[begin]:
        begin += 1
    while end > 0 and not line[end - 1]:
        end -= 1
    return begin, end
