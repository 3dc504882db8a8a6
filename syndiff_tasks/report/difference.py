"""FFI minus template: scale, background and PSF matched by one robust linear least-squares fit.

Enough for a look and for finding what stands out; for photometry give the template to hotpants or SFFT.
"""

import math
from typing import NamedTuple

import numpy as np
import sep
from astropy.table import Table
from scipy import ndimage
from scipy.optimize import least_squares
from scipy.special import erf

from syndiff_tasks.geometry.tansip import pixel_to_sky
from syndiff_tasks.pixels.mask import DQ
from syndiff_tasks.pixels.spread import robust_sigma

# A repaired star is right to some 5 %: far outside the noise of a bright one, so no truth to fit or to search.
UNTRUSTED = int(DQ.NO_PS1 | DQ.LOW_COVERAGE | DQ.SAT_PS1 | DQ.STAR_REPAIRED | DQ.COLLATERAL)
DAMAGED_STAR = int(DQ.SAT_PS1 | DQ.STAR_REPAIRED)

NO_DIFFERENCE, NOT_TRUSTED, NEAR_DAMAGE = 1, 2, 4
MASK_MEANING = {
    NO_DIFFERENCE: "no difference: no data, or kernel reaches off the data",
    NOT_TRUSTED: "template is saturated, repaired or badly covered here",
    NEAR_DAMAGE: "residual that touches a damaged star",
}

# 53 PS1 px (core of 50 real TESS PRFs without the pixel) over 82 PS1 px a TESS px.
TESS_PSF_SIGMA = 53 / 82
THRESHOLD = 5.0
KERNELS = (5, 3, 1)
PIXELS_PER_COEFFICIENT = 20
FITTED_PIXELS = 200_000
ITERATIONS = 10
CLIP = 4.0
STANDING = 3.0  # what of a damaged star's wings is seen [sigma]
# Until the fit has measured it: how badly a PSF may be matched, as a part of the star's brightness.
FIRST_MISMATCH = 0.2
BRIGHT = 20.0


class NoMatch(ValueError):
    """FFI and template cannot be matched on these pixels: a fact about the field, not about the program."""


class Frames(NamedTuple):
    """What is subtracted from what, all of shape (ny, nx).

    Attributes
    ----------
    ffi : ndarray of float32
        Flux of the FFI; NaN = no data.
    uncertainty : ndarray of float32 or None
        One sigma of `ffi`; None where the FFI brings none, and the scatter of the empty sky is taken instead.
    flux, variance : ndarray of float32
        The template, in any unit of flux, and its variance.
    dq : ndarray of int32
        The template's DQ bits.
    """

    ffi: np.ndarray
    uncertainty: np.ndarray | None
    flux: np.ndarray
    variance: np.ndarray
    dq: np.ndarray


class Match(NamedTuple):
    """The fit: ffi = sum_k kernel_k * template(shifted by k) + b0 + b1 x + b2 y.

    Attributes
    ----------
    scale : float
        Sum of the kernel: FFI units per template unit.
    kernel : ndarray of float64, shape (size, size)
        model(y, x) = sum over j, i of kernel[j, i] * template(y + j - size // 2, x + i - size // 2).
    background : tuple of float
        b0, b1, b2, with x and y counted from the first pixel of the array.
    mismatch : float
        How badly the PSFs match: scatter of the residuals at stars over their brightness.
    excess : float
        Scatter of the residuals of empty sky over what the uncertainties say, at least 1.
    pixels : int
        Number of pixels fitted, after clipping.
    """

    scale: float
    kernel: np.ndarray
    background: tuple[float, float, float]
    mismatch: float
    excess: float
    pixels: int


class Difference(NamedTuple):
    """A difference image and what it was made with.

    Attributes
    ----------
    difference, noise : ndarray of float32, shape (ny, nx)
        FFI minus model, and one sigma of it (FFI, template and PSF mismatch together) [FFI units]; NaN = none.
    mismatch : ndarray of float32, shape (ny, nx)
        The part of `noise` that is PSF mismatch: it may have one sign all over a star.
    mask : ndarray of int16, shape (ny, nx)
        Bits of `MASK_MEANING`, 0 = good.
    match : Match
        The fit.
    """

    difference: np.ndarray
    noise: np.ndarray
    mismatch: np.ndarray
    mask: np.ndarray
    match: Match


class _Sample(NamedTuple):
    """The pixels that are fitted: FFI, variance (or None), template columns, template variance, brightest near."""

    ffi: np.ndarray
    variance: np.ndarray | None
    columns: np.ndarray
    template_variance: np.ndarray
    peak: np.ndarray


def _incomplete(frames, size):
    """Return where the FFI or any template pixel under the kernel is without data."""
    blank = ~(np.isfinite(frames.flux) & np.isfinite(frames.variance))
    incomplete = ndimage.maximum_filter(blank, size=size, mode="constant", cval=True)
    incomplete |= ~np.isfinite(frames.ffi)
    if frames.uncertainty is not None:
        incomplete |= ~(np.isfinite(frames.uncertainty) & (frames.uncertainty > 0))
    return incomplete


def _fittable(frames, size):
    """Return which pixels the fit may use."""
    untrusted = (frames.dq & UNTRUSTED) != 0
    return ~(ndimage.maximum_filter(untrusted, size=size) | _incomplete(frames, size))


def kernel_size(frames):
    """Choose the largest kernel that the good pixels can hold.

    Parameters
    ----------
    frames : Frames
        What is to be subtracted.

    Returns
    -------
    int
        5, 3 or 1 [px]; 1 also where there are too few good pixels for any fit.
    """
    for size in KERNELS[:-1]:
        if np.count_nonzero(_fittable(frames, size)) >= PIXELS_PER_COEFFICIENT * (size * size + 3):
            return size
    return KERNELS[-1]


def _design(frames, size, pick):
    """Columns of the fit at the flat pixels `pick`: the shifted template, 1, x, y."""
    ny, nx = frames.flux.shape
    y, x = np.divmod(pick, nx)
    half = size // 2
    columns = np.empty((len(pick), size * size + 3))
    for k in range(size * size):
        j, i = divmod(k, size)
        columns[:, k] = frames.flux[y + j - half, x + i - half]
    columns[:, -3], columns[:, -2], columns[:, -1] = 1.0, x / nx, y / ny
    return columns


def _sample(frames, size):
    """Take an evenly thinned sample of the pixels that the fit may use."""
    pick = np.flatnonzero(_fittable(frames, size))
    if len(pick) < PIXELS_PER_COEFFICIENT * (size * size + 3):
        raise NoMatch(
            f"only {len(pick)} pixels have good template and FFI data, too few to fit a kernel of {size} x {size} and "
            "a background; choose a smaller kernel or a larger region"
        )
    pick = pick[:: max(1, len(pick) // FITTED_PIXELS)]
    bright = ndimage.maximum_filter(np.nan_to_num(frames.flux), size=5)
    return _Sample(
        ffi=frames.ffi.ravel()[pick].astype(float),
        variance=None if frames.uncertainty is None else frames.uncertainty.ravel()[pick].astype(float) ** 2,
        columns=_design(frames, size, pick),
        template_variance=frames.variance.ravel()[pick].astype(float),
        peak=np.maximum(bright.ravel()[pick], 0).astype(float),
    )


def _solve(sample, variance, keep):
    """Weighted least squares by its normal equations, columns scaled to unit length."""
    weight = np.where(keep, 1 / variance, 0.0)
    matrix = sample.columns.T @ (weight[:, None] * sample.columns)
    vector = sample.columns.T @ (weight * sample.ffi)
    length = np.sqrt(np.diag(matrix))
    length[length == 0] = 1.0
    return np.linalg.lstsq(matrix / np.outer(length, length), vector / length, rcond=1e-12)[0] / length


def _mismatch(residual, peak, variance):
    """Scatter of the residuals at the brightest stars over the stars' brightness, the noise taken off.

    By the 95 % quantile, not the median: a mismatch sits in few pixels of each star, and those few make false alarms.
    """
    bright = peak > BRIGHT * np.sqrt(variance)
    if np.count_nonzero(bright) < PIXELS_PER_COEFFICIENT:
        return 0.0
    clearest = bright & (peak / np.sqrt(variance) >= np.percentile((peak / np.sqrt(variance))[bright], 75))
    scatter = float(np.percentile(np.abs(residual[clearest]) / peak[clearest], 95)) / 1.96
    return math.sqrt(max(0.0, scatter**2 - float(np.median(variance[clearest] / peak[clearest] ** 2))))


def match(frames, size=1):
    """Fit scale (or kernel) and background of the template to the FFI.

    Pixels of stars count for little: the PSF is never quite matched, so their residuals grow with their brightness,
    and the fit measures by how much. What does not fit (a transient, a variable star) is clipped.

    Parameters
    ----------
    frames : Frames
        FFI and template.
    size : int, default 1
        Side of the matching kernel [px], odd; 1 is the plain scale for PSFs that are alike.

    Returns
    -------
    Match
        The fit.

    Raises
    ------
    NoMatch
        If there are too few good pixels for the kernel, or the FFI does not follow the template.

    Notes
    -----
    A kernel of free pixels, constant over the frame, is that of Bramich (2008, MNRAS 386, L77).
    """
    sample = _sample(frames, size)
    ny, nx = frames.flux.shape
    keep = np.ones(len(sample.ffi), dtype=bool)
    sky = float(np.median(sample.ffi))
    noise = sample.variance
    if noise is None:
        noise = np.full(len(sample.ffi), max(robust_sigma(sample.ffi - sky), 1e-30) ** 2)
    variance = noise + (FIRST_MISMATCH * np.maximum(sample.ffi - sky, 0)) ** 2
    for _ in range(ITERATIONS):
        coefficients = _solve(sample, variance, keep)
        residual = sample.ffi - sample.columns @ coefficients
        kernel = coefficients[:-3]
        peak = abs(kernel.sum()) * sample.peak
        faint = peak <= np.median(peak)
        if sample.variance is None:
            noise = np.full(len(residual), max(robust_sigma(residual[faint]), 1e-30) ** 2)
        propagated = noise + (kernel**2).sum() * sample.template_variance
        excess = max(1.0, robust_sigma(residual[faint] / np.sqrt(propagated[faint])))
        mismatch = _mismatch(residual, peak, excess**2 * propagated)
        variance = excess**2 * propagated + (mismatch * peak) ** 2
        keep = np.abs(residual) < CLIP * np.sqrt(variance)
    scale = float(kernel.sum())
    if not scale > 0:
        raise NoMatch(
            f"the FFI does not follow the template (fitted scale {scale:g}): there are no stars on these pixels, or "
            "FFI and template are not of the same field; choose a larger region or check the two files"
        )
    b0, b1, b2 = coefficients[-3:]
    return Match(
        scale=scale,
        kernel=kernel.reshape(size, size),
        background=(float(b0), float(b1 / nx), float(b2 / ny)),
        mismatch=mismatch,
        excess=excess,
        pixels=int(np.count_nonzero(keep)),
    )


def background_plane(shape, background):
    """Evaluate the fitted background.

    Parameters
    ----------
    shape : tuple of int
        (ny, nx).
    background : tuple of float
        b0, b1, b2 of `Match`.

    Returns
    -------
    ndarray of float32, shape (ny, nx)
        b0 + b1 x + b2 y.
    """
    b0, b1, b2 = background
    y, x = np.ogrid[: shape[0], : shape[1]]
    return (b0 + b1 * x + b2 * y).astype(np.float32)


def _residual_sky(difference, mask, mesh):
    """Measure what is left of the sky on meshes of `mesh` px, stars and mask left out (sep)."""
    filled = np.ascontiguousarray(np.nan_to_num(difference), dtype=np.float32)
    return sep.Background(filled, mask=mask, bw=mesh, bh=mesh, fw=3, fh=3).back()


def subtract(frames, size=1, mesh=0):
    """Subtract the matched template from the FFI.

    Parameters
    ----------
    frames : Frames
        FFI and template.
    size : int, default 1
        Side of the matching kernel [px], see `match`.
    mesh : int, default 0
        Side of the meshes [px] on which the sky left after the plane is measured and taken off (scattered light on a
        whole CCD); 0 leaves it.

    Returns
    -------
    Difference
        Difference, noise, mask and the fit.

    Raises
    ------
    NoMatch
        As `match`.

    Notes
    -----
    noise^2 = excess^2 (uncertainty^2 + kernel^2 * VARIANCE) + (mismatch * brightest model pixel of 5 x 5)^2.
    Correlation between the template's pixels is left out.
    """
    fit = match(frames, size)
    incomplete = _incomplete(frames, size)
    flux, variance = np.nan_to_num(frames.flux), np.nan_to_num(frames.variance)
    model = ndimage.correlate(flux, fit.kernel.astype(np.float32), mode="constant")
    difference = frames.ffi - model - background_plane(flux.shape, fit.background)
    propagated = ndimage.correlate(variance, (fit.kernel**2).astype(np.float32), mode="constant")
    if frames.uncertainty is not None:
        propagated += frames.uncertainty**2
    else:
        propagated += robust_sigma(difference[_faint(flux, incomplete)]) ** 2
    mismatch = np.float32(fit.mismatch * fit.scale) * np.maximum(ndimage.maximum_filter(flux, size=5), 0)
    noise = np.sqrt(np.float32(fit.excess**2) * propagated + mismatch**2)
    difference[incomplete] = np.nan
    noise[incomplete] = np.nan
    mask = _mask(difference, noise, frames.dq, size)
    if mesh and min(difference.shape) >= 2 * mesh:
        difference = difference - _residual_sky(difference, mask != 0, mesh)
    return Difference(difference.astype(np.float32), noise.astype(np.float32), mismatch, mask, fit)


def _faint(flux, incomplete):
    """Return which complete pixels belong to the fainter half of the template."""
    return ~incomplete & (flux <= np.median(flux[~incomplete]))


def _mask(difference, noise, dq, size):
    """Mask untrusted pixels, and what a damaged star leaves of itself."""
    none = ~np.isfinite(difference)
    untrusted = (dq & UNTRUSTED) != 0
    damaged = ndimage.maximum_filter((dq & DAMAGED_STAR) != 0, size=size)
    height = np.abs(np.divide(difference, noise, out=np.zeros_like(difference), where=~none))
    wings = _wings(height, damaged)
    # The feet of the wings, below 3 sigma each, are not below it together.
    wings |= ndimage.binary_dilation(wings, structure=np.ones((3, 3))) & (height <= STANDING)
    return (none * NO_DIFFERENCE | untrusted * NOT_TRUSTED | wings * NEAR_DAMAGE).astype(np.int16)


def _wings(height, damaged):
    """Damaged pixels, and the residuals from which the way up ends at one.

    A template without a star's core leaves the whole of its wings, so that no fixed radius is right; and a transient
    on those wings has its own summit, to which its own pixels lead.
    """
    nx = height.shape[1] + 2
    padded = np.pad(height, 1).ravel()
    standing = np.flatnonzero(padded > STANDING)
    around = np.array([-nx - 1, -nx, -nx + 1, -1, 0, 1, nx - 1, nx, nx + 1])
    uphill = standing + around[padded[standing[:, None] + around].argmax(axis=1)]
    step = np.searchsorted(standing, uphill)
    while not np.array_equal(step, step[step]):
        step = step[step]
    flags = np.pad(damaged, 1).ravel()
    flags[standing] |= flags[standing[step]]
    return flags.reshape(-1, nx)[1:-1, 1:-1]


def point_source(x, y, sigma, shape):
    """Integrate a Gaussian of unit flux over pixels.

    Parameters
    ----------
    x, y : float
        Its centre [px].
    sigma : float
        Its width [px].
    shape : tuple of int
        (ny, nx).

    Returns
    -------
    ndarray of float64, shape (ny, nx)
        Its part of each pixel.
    """
    ny, nx = shape
    along_y = erf((np.arange(ny + 1) - 0.5 - y) / (math.sqrt(2) * sigma))
    along_x = erf((np.arange(nx + 1) - 0.5 - x) / (math.sqrt(2) * sigma))
    return np.outer(np.diff(along_y), np.diff(along_x)) / 4


def significance(result, psf_sigma=TESS_PSF_SIGMA):
    """Signal-to-noise of a point source at each pixel, by the matched filter.

    Parameters
    ----------
    result : Difference
        What `subtract` gave; masked pixels carry no weight.
    psf_sigma : float, default 53/82
        Gaussian width of the FFI's stars without the pixel [px].

    Returns
    -------
    ndarray of float32, shape (ny, nx)
        In units of sigma; 0 where there is nothing to measure. The mismatch of a star counts as one error common to
        all of its pixels, the rest as independent.
    """
    profile = point_source(3, 3, psf_sigma, (7, 7)).sum(axis=0).astype(np.float32)

    def over_star(image, along):
        # The profile is the product of its x and y parts: two passes of 7 instead of one of 49.
        return ndimage.correlate1d(ndimage.correlate1d(image, along, axis=0, mode="constant"), along, mode="constant")

    good = (result.mask == 0) & np.isfinite(result.difference)
    weight = np.divide(1, result.noise**2, out=np.zeros_like(result.noise), where=good)
    signal = over_star(np.where(good, result.difference, 0) * weight, profile)
    independent = over_star(weight - (weight * result.mismatch) ** 2, profile**2)
    common = over_star(weight * result.mismatch, profile)
    variance = independent + common**2
    return np.divide(signal, np.sqrt(variance), out=np.zeros_like(signal), where=variance > 0)


def _fit_source(result, x, y, psf_sigma):
    """Fit x, y, flux and width of one source on 7 x 7 px; the width is held near `psf_sigma` unless it is bright."""
    ny, nx = result.difference.shape
    x0, x1, y0, y1 = max(x - 3, 0), min(x + 4, nx), max(y - 3, 0), min(y + 4, ny)
    data, noise = result.difference[y0:y1, x0:x1], result.noise[y0:y1, x0:x1]
    good = (result.mask[y0:y1, x0:x1] == 0) & np.isfinite(data)

    def shortfall(parameters):
        px, py, flux, sigma = parameters
        pixels = (data - flux * point_source(px, py, sigma, data.shape))[good] / noise[good]
        return np.append(pixels, (sigma / psf_sigma - 1) / 0.25)

    peak = float(data[y - y0, x - x0])
    start = (x - x0, y - y0, 3 * peak, psf_sigma)
    lower = (x - x0 - 1.5, y - y0 - 1.5, -np.inf, psf_sigma / 3)
    upper = (x - x0 + 1.5, y - y0 + 1.5, np.inf, psf_sigma * 3)
    fit = least_squares(shortfall, start, bounds=(lower, upper), x_scale=(1, 1, max(abs(peak), 1e-30), psf_sigma))
    # J is singular where the mask leaves too few pixels; pinv then gives the variance of what is measured.
    error = math.sqrt(max(float(np.linalg.pinv(fit.jac.T @ fit.jac)[2, 2]), 0.0))
    return fit.x[0] + x0, fit.x[1] + y0, fit.x[2], error


def find_transients(result, tansip, origin=(0, 0), psf_sigma=TESS_PSF_SIGMA, threshold=THRESHOLD):
    """Find what stands out of a difference image, brighter or fainter than the template.

    Parameters
    ----------
    result : Difference
        What `subtract` gave.
    tansip : TanSip
        WCS of its arrays.
    origin : tuple of int, default (0, 0)
        (x0, y0) of its first pixel on the FFI.
    psf_sigma : float, default 53/82
        Gaussian width of the FFI's stars without the pixel [px].
    threshold : float, default 5
        Least significance [sigma].

    Returns
    -------
    astropy.table.Table
        x, y [FFI px, 0-based], ra, dec [deg], flux, flux_error [FFI units] and snr (of the matched filter, negative
        where the FFI is fainter), the most significant first.
    """
    snr = significance(result, psf_sigma)
    # A source half under the mask has its summit there: then the highest of what is open stands for it.
    height = np.where(result.mask == 0, np.abs(snr), 0)
    peaks = (height >= threshold) & (height == ndimage.maximum_filter(height, size=7))
    ys, xs = np.nonzero(peaks)
    order = np.argsort(-height[ys, xs])
    fitted = np.array([_fit_source(result, xs[k], ys[k], psf_sigma) for k in order]).reshape(-1, 4)
    ra, dec = pixel_to_sky(tansip, fitted[:, 0], fitted[:, 1])
    return Table(
        {
            "x": fitted[:, 0] + origin[0],
            "y": fitted[:, 1] + origin[1],
            "ra": np.asarray(ra, dtype=float),
            "dec": np.asarray(dec, dtype=float),
            "flux": fitted[:, 2],
            "flux_error": fitted[:, 3],
            "snr": snr[ys, xs][order].astype(float),
        }
    )


class DifferencePreview(NamedTuple):
    """FFI and template side by side, for a picture.

    Attributes
    ----------
    frames : Frames
        The FFI on the template's pixels, and the template.
    result : Difference or None
        Their difference; None where there is none.
    detections : astropy.table.Table or None
        What stands out of it, see `find_transients`.
    reason : str
        Why there is no difference, as a sentence; empty where there is one.
    """

    frames: Frames
    result: Difference | None
    detections: Table | None
    reason: str


def frames_of(template, image, uncertainty):
    """Cut the FFI to the pixels of its template.

    Parameters
    ----------
    template : syndiff_tasks.report.product.Template
        The template.
    image : ndarray of float32, shape (2078, 2136)
        The whole FFI.
    uncertainty : ndarray of float32, same shape, or None
        Its uncertainty.

    Returns
    -------
    Frames
        Both on the same pixels.

    Raises
    ------
    ValueError
        If the region lies off the FFI.
    """
    x0, y0, x1, y1 = template.region
    if x0 < 0 or y0 < 0 or y1 > image.shape[0] or x1 > image.shape[1]:
        raise ValueError(
            f"{template.path}: region {x0},{y0},{x1},{y1} lies off the FFI of shape {image.shape}; give the FFI that "
            "the template was made for"
        )
    box = slice(y0, y1), slice(x0, x1)
    return Frames(
        ffi=image[box],
        uncertainty=None if uncertainty is None else uncertainty[box],
        flux=template.flux,
        variance=template.variance,
        dq=template.dq,
    )


def preview(template, image, uncertainty=None, mesh=64):
    """Subtract with the largest kernel that the data hold, or say why there is nothing to subtract.

    Parameters
    ----------
    template : syndiff_tasks.report.product.Template
        The template.
    image, uncertainty : ndarray of float32, shape (2078, 2136)
        The whole FFI and its uncertainty (or None).
    mesh : int, default 64
        As in `subtract`.

    Returns
    -------
    DifferencePreview
        Everything that `syndiff_tasks.report.picture` draws.
    """
    frames = frames_of(template, image, uncertainty)
    try:
        result = subtract(frames, kernel_size(frames), mesh)
    except NoMatch as error:
        return DifferencePreview(frames, None, None, str(error))
    return DifferencePreview(frames, result, find_transients(result, template.tansip, template.region[:2]), "")
