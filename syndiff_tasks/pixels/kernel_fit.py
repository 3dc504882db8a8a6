"""The kernel that best turns a template into an FFI: weighted, clipped linear least squares on a sample of pixels."""

import math
from typing import NamedTuple

import numba
import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.special import ndtri

from .kernel import Kernel, reach, scaled_position, spatial_terms
from .spread import SIGMA_PER_MAD

#: Pixels further from the model are left out of the next round [sigma].
CLIP = 4.0

#: Rounds of fitting, each with the weights that the last one found, at most; fewer when the weights are steady.
ROUNDS = 5

#: Weights are steady when the mismatch changes by less than this [of a star's brightest pixel].
STEADY = 2e-4

#: At most so many pixels are fitted, two thirds of them bright: more change no coefficient by as much as its error.
MOST_PIXELS = 120_000

#: A fit needs so many pixels a coefficient.
PIXELS_PER_COEFFICIENT = 10

#: Where the brightest model pixel within 2 px exceeds so many sigma, a pixel belongs to a star.
BRIGHT = 20.0

#: Until it is measured: residuals of a badly matched PSF, as a part of the star's brightest pixel.
FIRST_MISMATCH = 0.05

#: Added to the diagonal of the scaled normal equations.
RIDGE = 1e-7

#: Multiply-adds a round may cost: kernels with many coefficients are fitted to fewer pixels.
MOST_OPERATIONS = 1.2e10

#: The mismatch is measured on so many pixels of stars: right to 1 %.
MOST_STAR_PIXELS = 10_000

_CHUNK = 8192


class NoMatch(ValueError):
    """FFI and template cannot be matched on these pixels: a fact about the field, not about the program."""


class Sample(NamedTuple):
    """The pixels of a fit.

    Attributes
    ----------
    y, x : ndarray of int64, shape (n,)
        Where they lie.
    taps : ndarray of float32, shape (n, taps + wings)
        What each coefficient multiplies there.
    terms : ndarray of float32, shape (terms, n)
        The polynomials by which the coefficients vary.
    peak : ndarray of float32, shape (n,)
        Brightest template pixel within 2 px.
    """

    y: np.ndarray
    x: np.ndarray
    taps: np.ndarray
    terms: np.ndarray
    peak: np.ndarray


class KernelFit(NamedTuple):
    """A fitted kernel and how well it fits.

    Attributes
    ----------
    kernel : Kernel
        The kernel.
    plane : tuple of float
        b0, b1, b2 of the sky left in the data, b0 + b1 x + b2 y.
    mismatch : float
        Residuals at stars beyond the noise, as a part of the star's brightest pixel.
    excess : float
        Scatter of the residuals at faint pixels over their noise.
    pixels : int
        Number of pixels fitted, after clipping.
    """

    kernel: Kernel
    plane: tuple[float, float, float]
    mismatch: float
    excess: float
    pixels: int


@numba.njit(cache=True, nogil=True)
def _thin(usable, peak, noise, bright, most_bright, most_faint):
    """Return an evenly thinned choice of bright and of faint usable pixels, in the order of rows."""
    ny, nx = usable.shape
    n_bright, n_faint = 0, 0
    for y in range(ny):
        for x in range(nx):
            if usable[y, x]:
                if peak[y, x] > bright * noise[y, x]:
                    n_bright += 1
                else:
                    n_faint += 1
    share_bright = min(1.0, most_bright / max(n_bright, 1))
    share_faint = min(1.0, most_faint / max(n_faint, 1))
    ys = np.empty(min(n_bright, most_bright) + min(n_faint, most_faint) + 2, np.int64)
    xs = np.empty(ys.size, np.int64)
    sum_bright, sum_faint, n = 0.0, 0.0, 0
    for y in range(ny):
        for x in range(nx):
            if not usable[y, x]:
                continue
            if peak[y, x] > bright * noise[y, x]:
                sum_bright += share_bright
                taken = sum_bright >= 1.0
                sum_bright -= taken
            else:
                sum_faint += share_faint
                taken = sum_faint >= 1.0
                sum_faint -= taken
            if taken and n < ys.size:
                ys[n], xs[n] = y, x
                n += 1
    return ys[:n], xs[:n]


@numba.njit(cache=True, nogil=True)
def _gather(boxes, wings, size, n, ys, xs):
    """Read the template's taps and wings around each chosen pixel; beyond the template they are 0."""
    taps = np.zeros((ys.size, size * size + wings.shape[0]), np.float32)
    half = size // 2
    for p in range(ys.size):
        for j in range(size):
            row = n * ys[p] + j - half
            if row < 0 or row >= boxes.shape[0]:
                continue
            for i in range(size):
                column = n * xs[p] + i - half
                if 0 <= column < boxes.shape[1]:
                    taps[p, j * size + i] = boxes[row, column]
        for k in range(wings.shape[0]):
            taps[p, size * size + k] = wings[k, ys[p], xs[p]]
    return taps


def _number_of_coefficients(basis):
    """Return how many numbers a fit determines: those of the kernel and a plane of sky."""
    return (basis.order + 1) * (basis.order + 2) // 2 * (basis.size**2 + len(basis.wings)) + 3


def thin_sample(sample, basis, every):
    """Return every n-th pixel of a sample, or the sample itself where that would be too few for its basis."""
    if sample.y.size < 4 * every * PIXELS_PER_COEFFICIENT * _number_of_coefficients(basis):
        return sample
    part = slice(None, None, every)
    return Sample(sample.y[part], sample.x[part], sample.taps[part], sample.terms[:, part], sample.peak[part])


def choose_sample(planes, basis, oversampling, usable, peak, noise, most=MOST_PIXELS):
    """Choose the pixels of a fit: two thirds at stars, one third of empty sky, evenly over the image.

    Parameters
    ----------
    planes : tuple of ndarray
        As `syndiff_tasks.pixels.kernel.template_planes` gives them.
    basis : KernelBasis
        What the kernel consists of.
    oversampling : int
        Template pixels along an FFI pixel.
    usable : ndarray of bool, shape (ny, nx)
        Pixels that the fit may use.
    peak : ndarray of float32, shape (ny, nx)
        Brightest template pixel within 2 px, times the scale [FFI units].
    noise : ndarray of float32, shape (ny, nx)
        One sigma of the FFI.
    most : int, default `MOST_PIXELS`
        At most so many.

    Returns
    -------
    Sample

    Raises
    ------
    NoMatch
        If there are fewer than `PIXELS_PER_COEFFICIENT` pixels for each coefficient.
    """
    coefficients = _number_of_coefficients(basis)
    most = int(min(most, max(MOST_OPERATIONS / coefficients**2, 60 * coefficients)))
    ys, xs = _thin(usable, peak, noise, 3.0, 2 * most // 3, most // 3)
    if ys.size < PIXELS_PER_COEFFICIENT * coefficients:
        raise NoMatch(
            f"only {ys.size} pixels have good template and FFI data, too few for the {coefficients} coefficients of a "
            f"kernel of {basis.size} x {basis.size}; choose a smaller kernel or a larger region"
        )
    u, v = scaled_position(xs, ys, usable.shape)
    return Sample(
        ys,
        xs,
        _gather(*planes, basis.size, oversampling, ys, xs),
        spatial_terms(basis.order, u, v).astype(np.float32),
        peak[ys, xs],
    )


def _columns(sample, part, u, v):
    """Return the columns of the fit for some of the pixels: terms x taps, then the plane of the sky."""
    taps = sample.taps[part].astype(float)
    products = [term[:, None] * taps for term in sample.terms[:, part].astype(float)]
    return np.concatenate([*products, np.ones((len(taps), 1)), u[part, None], v[part, None]], axis=1)


def _solve(sample, data, weight, u, v):
    """Weighted least squares by the normal equations, their columns scaled to unit length."""
    matrix, vector = 0.0, 0.0
    root = np.sqrt(weight)
    for start in range(0, len(data), _CHUNK):
        part = slice(start, start + _CHUNK)
        columns = _columns(sample, part, u, v) * root[part, None]
        matrix = matrix + columns.T @ columns
        vector = vector + columns.T @ (root[part] * data[part])
    length = np.sqrt(np.diag(matrix))
    length[length == 0] = 1.0
    scaled = matrix / np.outer(length, length)
    scaled[np.diag_indices_from(scaled)] += RIDGE
    try:
        factor = cho_factor(scaled)
    except LinAlgError as error:
        raise NoMatch(
            "the kernel is not determined by the pixels that can be used (their template is empty or constant); choose "
            "a larger region or a smaller kernel"
        ) from error
    # A second pass takes the bias of the ridge off.
    first = cho_solve(factor, vector / length)
    rest = vector / length - (matrix / np.outer(length, length)) @ first
    return (first + cho_solve(factor, rest)) / length


def _residual(sample, data, solution, u, v):
    """Return data minus model."""
    taps = sample.taps.shape[1]
    terms = len(sample.terms)
    model = solution[-3] + solution[-2] * u + solution[-1] * v
    by_term = sample.taps @ solution[:-3].reshape(terms, taps).T.astype(np.float32)
    model += np.einsum("nt,tn->n", by_term, sample.terms, dtype=float)
    return data - model


def measure_mismatch(residual, brightness, variance, share=0.5):
    """Measure how badly PSF and fluxes are matched, as a part of the stars' brightness.

    Parameters
    ----------
    residual, brightness, variance : ndarray of float, shape (n,)
        Data minus model, brightness of the star (its brightest pixel, or the model itself), and variance of the noise.
    share : float, default 0.5
        Which share of the residuals is to lie within the limits that hold it for a normal distribution. With one half
        the few stars of another color do not count; with five sixths they do.

    Returns
    -------
    float
        The mu for which sigma^2 = variance + (mu brightness)^2; 0 if the noise alone explains the residuals, or with
        fewer than 20 pixels brighter than `BRIGHT` sigma.
    """
    bright = np.flatnonzero(brightness > BRIGHT * np.sqrt(variance))
    if bright.size < 20:
        return 0.0
    bright = bright[:: 1 + bright.size // MOST_STAR_PIXELS]
    square, top = np.asarray(residual[bright], float) ** 2, np.asarray(brightness[bright], float) ** 2
    noise = np.broadcast_to(variance, np.shape(residual))[bright]
    rank = int(share * square.size)
    limit = ndtri((1 + share) / 2) ** 2

    def beyond(mu):
        return np.partition(square / (noise + mu * mu * top), rank)[rank] > limit

    low, high = 0.0, 1.0
    if not beyond(low):
        return 0.0
    for _ in range(14):
        middle = (low + high) / 2
        low, high = (middle, high) if beyond(middle) else (low, middle)
    return (low + high) / 2


def fit_kernel(sample, basis, oversampling, shape, data, noise, template_variance, scale, mismatch=FIRST_MISMATCH):
    """Fit a kernel and a plane of sky to a sample of pixels.

    Parameters
    ----------
    sample : Sample
        The pixels.
    basis : KernelBasis
        What the kernel consists of.
    oversampling : int
        Template pixels along an FFI pixel.
    shape : tuple of int
        (ny, nx) of the image.
    data : ndarray of float64, shape (n,)
        FFI minus the sky known so far.
    noise : ndarray of float64, shape (n,)
        One sigma of the FFI.
    template_variance : ndarray of float64, shape (n,)
        Variance of the template [template units^2].
    scale : float
        FFI units per template unit, roughly.
    mismatch : float, default `FIRST_MISMATCH`
        Of a fit before, for the first round.

    Returns
    -------
    KernelFit

    Raises
    ------
    NoMatch
        If the FFI does not follow the template, or the pixels do not determine the kernel.

    Notes
    -----
    Weights are 1 / (excess^2 (noise^2 + sum of kernel^2 template variance) + (mismatch peak)^2): pixels of stars count
    for little, since a PSF is never quite matched and colors are not known. A kernel of free pixels is that of Bramich
    (2008, MNRAS 386, L77); one that varies over the image, of Bramich et al. (2013, MNRAS 428, 2275).
    """
    u, v = scaled_position(sample.x, sample.y, shape)
    taps = sample.taps.shape[1]
    squares, excess = scale**2, 1.0
    keep = np.ones(len(data), bool)
    peak = np.maximum(sample.peak.astype(float), 0)
    faint = peak <= np.median(peak)
    for _ in range(ROUNDS):
        propagated = noise**2 + squares * template_variance
        variance = excess**2 * propagated + (mismatch * peak) ** 2
        solution = _solve(sample, data, np.where(keep, 1 / variance, 0.0), u, v)
        coefficients = solution[:-3].reshape(-1, taps)
        residual = _residual(sample, data, solution, u, v)
        squares = _whole_pixel_square(coefficients[0, : basis.size**2], basis, oversampling)
        propagated = noise**2 + squares * template_variance
        within = np.abs(residual[faint]) / np.sqrt(propagated[faint])
        excess = max(SIGMA_PER_MAD * float(np.median(within)), 1e-3)
        last, mismatch = mismatch, measure_mismatch(residual, peak, excess**2 * propagated)
        keep = np.abs(residual) < CLIP * np.sqrt(excess**2 * propagated + (mismatch * peak) ** 2)
        if abs(mismatch - last) < STEADY:
            break
    total = float(coefficients[0].sum())
    if not total > 0:
        raise NoMatch(
            f"the FFI does not follow the template (fitted scale {total:g}): there are no stars on these pixels, or "
            "FFI and template are not of the same field; choose a larger region or check the two files"
        )
    ny, nx = shape
    slope_x, slope_y = float(solution[-2]) / (nx / 2), float(solution[-1]) / (ny / 2)
    plane = float(solution[-3]) - slope_x * (nx - 1) / 2 - slope_y * (ny - 1) / 2, slope_x, slope_y
    kernel = Kernel(basis, coefficients, tuple(shape), oversampling)
    return KernelFit(kernel, plane, mismatch, excess, int(np.count_nonzero(keep)))


def _whole_pixel_square(taps, basis, oversampling):
    """Sum of the squares of the taps, those that fall on the same FFI pixel added first."""
    far = reach(basis, oversampling)
    whole = np.zeros((2 * far + 1, 2 * far + 1))
    at = np.rint((np.arange(basis.size) - basis.size // 2) / oversampling).astype(int) + far
    np.add.at(whole, (at[:, None], at[None, :]), taps.reshape(basis.size, basis.size))
    return float((whole**2).sum())


def choose_basis(candidates, planes_of, oversampling, usable, peak, noise, data, template_variance, scale):
    """Choose a kernel by cross-validation on stars.

    Parameters
    ----------
    candidates : sequence of KernelBasis
        From the plainest on.
    planes_of : callable
        Gives the template's planes for a basis, see `syndiff_tasks.pixels.kernel.template_planes`.
    oversampling : int
        Template pixels along an FFI pixel.
    usable, peak, noise, data, template_variance : ndarray, shape (ny, nx)
        As in `choose_sample` and `fit_kernel`, for the whole image.
    scale : float
        FFI units per template unit, roughly.

    Returns
    -------
    KernelBasis
        The plainest one for which the residuals of stars that were not fitted are at most 1 % larger than for the best,
        or by what chance may give with the number of their pixels.
        Fields of 16 x 16 px are fitted and judged by turns, like the fields of a chessboard.

    Raises
    ------
    NoMatch
        If no candidate can be fitted.
    """
    scores = []
    reason = None
    for basis in candidates:
        try:
            scores.append(
                _cross_validate(
                    basis, planes_of(basis), oversampling, usable, peak, noise, data, template_variance, scale
                )
            )
        except NoMatch as error:
            reason = error
            scores.append(math.inf)
    best = min(scores)
    luck = 1 / math.sqrt(max(np.count_nonzero(usable & (peak > BRIGHT * noise)), 1))
    if math.isinf(best):
        raise reason
    return next(basis for basis, score in zip(candidates, scores, strict=True) if score <= (1.01 + luck) * best)


def _cross_validate(basis, planes, oversampling, usable, peak, noise, data, template_variance, scale):
    """Return the 5/6 quantile of |residual| / sigma at stars that were not fitted, which looks at bright ones most."""
    sample = choose_sample(planes, basis, oversampling, usable, peak, noise, MOST_PIXELS // 3)
    half = ((sample.y // 16 + sample.x // 16) % 2).astype(bool)
    heights = []
    for fitted in (half, ~half):
        parts = [
            Sample(sample.y[m], sample.x[m], sample.taps[m], sample.terms[:, m], sample.peak[m])
            for m in (fitted, ~fitted)
        ]
        values = [tuple(a[p.y, p.x].astype(float) for a in (data, noise, template_variance)) for p in parts]
        fit = fit_kernel(parts[0], basis, oversampling, usable.shape, *values[0], scale)
        u, v = scaled_position(parts[1].x, parts[1].y, usable.shape)
        ny, nx = usable.shape
        b0, b1, b2 = fit.plane
        plane = [b0 + b1 * (nx - 1) / 2 + b2 * (ny - 1) / 2, b1 * nx / 2, b2 * ny / 2]
        solution = np.concatenate([fit.kernel.coefficients.ravel(), plane])
        residual = _residual(parts[1], values[1][0], solution, u, v)
        stars = parts[1].peak > BRIGHT * values[1][1]
        heights.append(np.abs(residual[stars]) / values[1][1][stars])
    together = np.concatenate(heights)
    return float(np.quantile(together, 5 / 6)) if together.size else math.inf
