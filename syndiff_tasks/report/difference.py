"""Sources that stand out of a difference image, and the preview that pages and pictures show."""

import math
from typing import NamedTuple

import numpy as np
import scipy.optimize
from astropy.table import Table
from scipy import ndimage
from scipy.special import erf

from syndiff_tasks.geometry.tansip import pixel_to_sky
from syndiff_tasks.pixels.difference import Difference, Flag, ImagePair, subtract
from syndiff_tasks.pixels.kernel_fit import NoMatch
from syndiff_tasks.pixels.sky_background import MESH
from syndiff_tasks.report.product import keep_out_of, pair_of

# 53 PS1 px (core of 50 real TESS PRFs without the pixel) over 82 PS1 px a TESS px.
TESS_PSF_SIGMA = 53 / 82
THRESHOLD = 5.0

# Straps, steep skies and gaps of PS1 are flagged, but their residuals follow the noise: they are searched.
NOT_SEARCHED = int(
    Flag.NO_DATA | Flag.TEMPLATE_UNTRUSTED | Flag.NEAR_DAMAGE | Flag.SATURATED_TESS | Flag.BLEED | Flag.EDGE_OF_KERNEL
)


def is_searched(result):
    """Return the pixels of a difference image that can show a source.

    Parameters
    ----------
    result : syndiff_tasks.pixels.difference.Difference
        What `subtract` gave.

    Returns
    -------
    ndarray of bool, shape (ny, nx)
        False where the difference is missing, untrusted or damaged.
    """
    return ((result.flags & NOT_SEARCHED) == 0) & np.isfinite(result.difference)


def point_source(x, y, sigma, shape):
    """Integrate a Gaussian of unit flux over pixels.

    Parameters
    ----------
    x, y : float
        Its center [px].
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
    result : syndiff_tasks.pixels.difference.Difference
        What `subtract` gave; pixels that are not searched carry no weight.
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

    good = is_searched(result)
    weight = np.divide(1, result.noise**2, out=np.zeros_like(result.noise), where=good)
    signal = over_star(np.where(good, result.difference, 0) * weight, profile)
    independent = over_star(weight - (weight * result.mismatch_noise) ** 2, profile**2)
    common = over_star(weight * result.mismatch_noise, profile)
    variance = independent + common**2
    return np.divide(signal, np.sqrt(variance), out=np.zeros_like(signal), where=variance > 0)


def _fit_source(result, searched, x, y, psf_sigma):
    """Fit x, y, flux and width of one source on 7 x 7 px; the width is held near `psf_sigma` unless it is bright."""
    ny, nx = result.difference.shape
    x0, x1, y0, y1 = max(x - 3, 0), min(x + 4, nx), max(y - 3, 0), min(y + 4, ny)
    data, noise = result.difference[y0:y1, x0:x1], result.noise[y0:y1, x0:x1]
    good = searched[y0:y1, x0:x1]

    def shortfall(parameters):
        px, py, flux, sigma = parameters
        pixels = (data - flux * point_source(px, py, sigma, data.shape))[good] / noise[good]
        return np.append(pixels, (sigma / psf_sigma - 1) / 0.25)

    peak = float(data[y - y0, x - x0])
    start = (x - x0, y - y0, 3 * peak, psf_sigma)
    lower = (x - x0 - 1.5, y - y0 - 1.5, -np.inf, psf_sigma / 3)
    upper = (x - x0 + 1.5, y - y0 + 1.5, np.inf, psf_sigma * 3)
    scales = (1, 1, max(abs(peak), 1e-30), psf_sigma)
    fit = scipy.optimize.least_squares(shortfall, start, bounds=(lower, upper), x_scale=scales)
    # J is singular where the mask leaves too few pixels; pinv then gives the variance of what is measured.
    error = math.sqrt(max(float(np.linalg.pinv(fit.jac.T @ fit.jac)[2, 2]), 0.0))
    return fit.x[0] + x0, fit.x[1] + y0, fit.x[2], error


def find_transients(result, tansip, origin=(0, 0), psf_sigma=TESS_PSF_SIGMA, threshold=THRESHOLD):
    """Find what stands out of a difference image, brighter or fainter than the template.

    Parameters
    ----------
    result : syndiff_tasks.pixels.difference.Difference
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
    snr, searched = significance(result, psf_sigma), is_searched(result)
    # A source half under the mask has its summit there: then the highest of what is open stands for it.
    height = np.where(searched, np.abs(snr), 0)
    peaks = (height >= threshold) & (height == ndimage.maximum_filter(height, size=7))
    ys, xs = np.nonzero(peaks)
    order = np.argsort(-height[ys, xs])
    fitted = np.array([_fit_source(result, searched, xs[k], ys[k], psf_sigma) for k in order]).reshape(-1, 4)
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
    pair : syndiff_tasks.pixels.difference.ImagePair
        The FFI on the template's pixels, and the template.
    result : syndiff_tasks.pixels.difference.Difference or None
        Their difference; None where there is none.
    detections : astropy.table.Table or None
        What stands out of it, see `find_transients`.
    reason : str
        Why there is no difference, as a sentence; empty where there is one.
    """

    pair: ImagePair
    result: Difference | None
    detections: Table | None
    reason: str


def preview(template, image, uncertainty=None, kernel="auto", mesh=MESH, threshold=THRESHOLD):
    """Subtract the template and find what stands out, or give the reason why nothing can be subtracted.

    Parameters
    ----------
    template : syndiff_tasks.report.product.Template
        The template; the surroundings of its target are kept out of the fit.
    image, uncertainty : ndarray of float32, shape (2078, 2136)
        The whole FFI and its uncertainty (or None).
    kernel, mesh
        As in `syndiff_tasks.pixels.difference.subtract`.
    threshold : float, default `THRESHOLD`
        As in `find_transients`.

    Returns
    -------
    DifferencePreview
        Everything that `syndiff_tasks.report.picture` draws.
    """
    pair = pair_of(template, image, uncertainty)
    try:
        result = subtract(pair, kernel, mesh, keep_out_of(template))
    except NoMatch as error:
        return DifferencePreview(pair, None, None, str(error))
    found = find_transients(result, template.tansip, template.region[:2], threshold=threshold)
    return DifferencePreview(pair, result, found, "")
