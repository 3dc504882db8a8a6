"""Forced photometry on a difference image: the flux of a source at a known position."""

import math
from enum import IntFlag
from typing import NamedTuple

import numba
import numpy as np
from scipy import ndimage

from .difference import Flag
from .kernel import convolve_psfs, kernel_sum, reach
from .kernel_fit import SIGMA_PER_MAD

#: A source is fitted on the (2 HALF + 1)^2 pixels around it: 98 % of a TESS PSF.
HALF = 3

#: How well the sky of the difference is known around a source, in units of the noise of one pixel. A free constant
#: costs 10 % of the precision and turns errors of the PSF's wings into errors of flux; none at all trusts the meshes.
SKY_PRIOR = 0.3

#: A source is fitted where at least this part of its weight is on good pixels; FEW_PIXELS is set below.
LEAST_WEIGHT = 0.5

#: Pixels that are not fitted. Those near damaged or untrusted template stars are: their errors are in `flux_sys`.
_NOT_FITTED = np.int16(Flag.NO_DATA | Flag.SATURATED_TESS | Flag.BLEED | Flag.EDGE_OF_KERNEL)


class SourceFlag(IntFlag):
    """Bits of a measured flux; 0 is good."""

    NO_FLUX = 1
    MASKED_PIXELS = 2
    FEW_PIXELS = 4
    TEMPLATE_UNTRUSTED = 8
    STRAP = 16
    SCATTERED = 32
    EDGE = 64


SOURCE_FLAG_MEANING = {
    SourceFlag.NO_FLUX: "no flux: no good pixel, or no PSF",
    SourceFlag.MASKED_PIXELS: "some pixels of the source are without data or saturated",
    SourceFlag.FEW_PIXELS: "less than half of the source's weight is on good pixels",
    SourceFlag.TEMPLATE_UNTRUSTED: "template is saturated, repaired or badly covered in the source",
    SourceFlag.STRAP: "a strap crosses the source",
    SourceFlag.SCATTERED: "sky is steeper than the limit at the source",
    SourceFlag.EDGE: "the source reaches off the image",
}


class Photometry(NamedTuple):
    """Fluxes of n sources in one image, each an array of shape (n,).

    Attributes
    ----------
    flux : ndarray of float64
        Flux [template units]; NaN with NO_FLUX.
    flux_error : ndarray of float64
        What changes from frame to frame: noise of the FFI times the measured excess.
    flux_systematic : ndarray of float64
        What all frames have in common: noise of the template, and its wrong fluxes under the source.
    sky : ndarray of float64
        Constant fitted with the source [FFI units a pixel].
    chi_square : ndarray of float64
        Of the fit, divided by the degrees of freedom.
    aperture : ndarray of float64
        Sum of 3 x 3 pixels over the PSF's part in them [template units].
    aperture_error : ndarray of float64
        Its error from frame to frame.
    scale : ndarray of float64
        FFI units per template unit: flux times scale is the rate of the whole source.
    flags : ndarray of int16
        Bits of `SourceFlag`.
    """

    flux: np.ndarray
    flux_error: np.ndarray
    flux_systematic: np.ndarray
    sky: np.ndarray
    chi_square: np.ndarray
    aperture: np.ndarray
    aperture_error: np.ndarray
    scale: np.ndarray
    flags: np.ndarray


class Stamps(NamedTuple):
    """The pixels around n sources, each of shape (n, 2 HALF + 1, 2 HALF + 1).

    Attributes
    ----------
    values : ndarray of float64
        The difference; 0 where it has none.
    variance : ndarray of float64
        Variance by which pixels are weighted; infinite where they are not fitted.
    frame_variance : ndarray of float64
        The part of it that changes from frame to frame.
    model : ndarray of float64
        What was subtracted: the convolved template.
    flags : ndarray of int16
        Bits of `syndiff_tasks.pixels.difference.Flag`; NO_DATA beyond the image.
    """

    values: np.ndarray
    variance: np.ndarray
    frame_variance: np.ndarray
    model: np.ndarray
    flags: np.ndarray


def nearest_pixel(x):
    """Return the pixel in which a coordinate lies: floor(x + 0.5), as integers."""
    return np.floor(np.asarray(x, float) + 0.5).astype(np.int64)


def cut_stamps(image, x, y, fill, half=HALF):
    """Cut the pixels around positions out of an image.

    Parameters
    ----------
    image : ndarray, shape (ny, nx)
        The image.
    x, y : ndarray of float64, shape (n,)
        Positions [px].
    fill : number
        Value beyond the image.
    half : int, default `HALF`
        Stamps are 2 half + 1 wide.

    Returns
    -------
    ndarray, shape (n, 2 half + 1, 2 half + 1)
        Its middle pixel is the nearest one.
    """
    ny, nx = image.shape
    offsets = np.arange(-half, half + 1)
    rows = np.broadcast_to(nearest_pixel(y)[:, None, None] + offsets[:, None], (len(x), offsets.size, offsets.size))
    columns = np.broadcast_to(nearest_pixel(x)[:, None, None] + offsets, rows.shape)
    inside = (rows >= 0) & (rows < ny) & (columns >= 0) & (columns < nx)
    stamps = image[np.clip(rows, 0, ny - 1), np.clip(columns, 0, nx - 1)]
    return np.where(inside, stamps, np.asarray(fill, image.dtype))


def _difference_stamps(result, uncertainty, x, y):
    """Collect what photometry needs of a difference image, and the variance of the template there."""
    flags = cut_stamps(result.flags, x, y, Flag.NO_DATA.value)
    values = cut_stamps(result.difference, x, y, np.nan).astype(float)
    noise = cut_stamps(result.noise, x, y, np.nan).astype(float)
    mismatch = cut_stamps(result.mismatch_noise, x, y, 0).astype(float)
    model = np.nan_to_num(cut_stamps(result.model, x, y, 0).astype(float))
    good = np.isfinite(values) & np.isfinite(noise) & ((flags & _NOT_FITTED) == 0)
    known = noise**2 - mismatch**2
    changing = known
    if uncertainty is not None:
        changing = (result.excess * cut_stamps(uncertainty, x, y, np.nan).astype(float)) ** 2
    stamps = Stamps(
        np.where(good, values, 0.0),
        np.where(good, noise**2, np.inf),
        np.where(good, changing, 0.0),
        np.where(good, model, 0.0),
        flags,
    )
    number = np.maximum(good.sum(axis=(1, 2)), 1)
    of_template = np.where(good, known - changing, 0.0).sum(axis=(1, 2)) / number
    return stamps, np.maximum(of_template, 0.0)


@numba.njit(cache=True, nogil=True)
def _weights_of_fit(psf, variance, prior):
    """Return weights h of a fit of flux times PSF plus constant, and those of the constant, both for the pixels.

    The constant is 0 with an error of `prior` times the noise of the stamp's median pixel.
    """
    n = psf.size
    w = 1 / variance
    typical = np.median(variance)
    known = 1 / (prior**2 * typical) if prior > 0 and typical < np.inf else 0.0
    sw, sp, spp = w.sum() + known, (w * psf).sum(), (w * psf * psf).sum()
    determinant = spp * sw - sp * sp
    h, g = np.zeros(n), np.zeros(n)
    if sw > 0 and determinant > 1e-12 * spp * sw:
        h[:] = (sw * w * psf - sp * w) / determinant
        g[:] = (spp * w - sp * w * psf) / determinant
    return h, g


@numba.njit(cache=True, nogil=True)
def _spread(h, psf, half):
    """Sum of squares of h correlated with the PSF: how noise of points, blurred by the PSF, acts on a flux."""
    side = 2 * half + 1
    total = 0.0
    for j in range(-2 * half, 2 * half + 1):
        for i in range(-2 * half, 2 * half + 1):
            c = 0.0
            for y in range(max(0, -j), min(side, side - j)):
                for x in range(max(0, -i), min(side, side - i)):
                    c += h[y * side + x] * psf[(y + j) * side + x + i]
            total += c * c
    return total


@numba.njit(cache=True, nogil=True)
def _measure(values, variance, frame_variance, model, psfs, prior, half):
    """Fit each source; columns of the result are those of `Photometry` from `flux` to `aperture_error`, then more."""
    out = np.full((psfs.shape[0], 10), np.nan)
    side = 2 * half + 1
    for k in range(psfs.shape[0]):
        d, v, p = values[k].ravel(), variance[k].ravel(), psfs[k].ravel()
        h, g = _weights_of_fit(p, v, prior)
        flux, sky, change, under, on_psf = 0.0, 0.0, 0.0, 0.0, 0.0
        for i in range(d.size):
            flux += h[i] * d[i]
            sky += g[i] * d[i]
            change += h[i] ** 2 * frame_variance[k].ravel()[i]
            under += h[i] * model[k].ravel()[i]
            on_psf += h[i] * p[i]
        good, everything, chi, fitted = 0.0, 0.0, 0.0, 0
        for i in range(d.size):
            everything += p[i] ** 2
            if v[i] < np.inf:
                good += p[i] ** 2
                chi += (d[i] - flux * p[i] - sky) ** 2 / v[i]
                fitted += 1
        total, part, error, complete = 0.0, 0.0, 0.0, True
        for y in range(half - 1, half + 2):
            for x in range(half - 1, half + 2):
                i = y * side + x
                complete &= v[i] < np.inf
                total += d[i]
                part += p[i]
                error += frame_variance[k].ravel()[i]
        if on_psf > 0:
            out[k, 0] = flux
            out[k, 1] = math.sqrt(change)
            out[k, 2] = abs(under)
            out[k, 3] = sky
            out[k, 4] = chi / max(fitted - 2, 1)
            out[k, 7] = _spread(h, p, half) / max(everything, 1e-300)
        if complete and part > 0:
            out[k, 5] = total / part
            out[k, 6] = math.sqrt(error) / part
        out[k, 8] = good / everything if everything > 0 else 0.0
        out[k, 9] = fitted
    return out


def forced_photometry(result, uncertainty, psfs, x, y, sky_prior=SKY_PRIOR):
    """Measure the flux of sources at known positions in a difference image.

    Parameters
    ----------
    result : syndiff_tasks.pixels.difference.Difference
        The difference.
    uncertainty : ndarray of float32, shape (ny, nx), or None
        One sigma of the FFI, as given to `subtract`.
    psfs : ndarray of float64, shape (n, m s, m s)
        The *template's* image of a source of unit flux at each position, on its own pixels, m along an FFI pixel; s is
        odd. The middle FFI pixel, s // 2 along both axes, is the one in which the source lies.
    x, y : ndarray of float64, shape (n,)
        Positions [px of the difference image; whole numbers are centers of pixels].
    sky_prior : float, default `SKY_PRIOR`
        How well the sky of the difference is known around a source, in units of the noise of one pixel: 0 leaves it
        free, small values hold it at 0.

    Returns
    -------
    Photometry
        In template units: the calibration of the template is that of the flux, without any aperture correction. A
        source that cannot be measured has NaN and flags.

    Notes
    -----
    The PSF is kernel times template PSF. The flux is sum h d with the weights h of a least-squares fit of flux * PSF +
    sky, weighted by the noise of the difference. Its error from frame to frame is sum h^2 (excess uncertainty)^2.
    Common to all frames are the errors of the template: `flux_mismatch` times the flux that the same weights give of
    the model, and its noise, which its PSF has spread over pixels: variance / sum(PSF^2) times the sum of squares of h
    correlated with the PSF.
    """
    x, y = np.atleast_1d(np.asarray(x, float)), np.atleast_1d(np.asarray(y, float))
    placed = np.isfinite(x) & np.isfinite(y) & np.isfinite(psfs).all(axis=(1, 2))
    x, y = np.where(placed, x, -1e6), np.where(placed, y, -1e6)
    images = convolve_psfs(result.kernel, np.where(placed[:, None, None], psfs, 0.0), x, y)
    middle = images.shape[1] // 2
    if middle < HALF:
        raise ValueError(
            f"a template PSF of {images.shape[1]} FFI pixels is too small for photometry on {2 * HALF + 1}: give at "
            f"least {2 * HALF + 1}, better {2 * HALF + 1 + 2 * reach(result.kernel.basis, result.kernel.oversampling)}"
        )
    cut = slice(middle - HALF, middle + HALF + 1)
    stamps, template_variance = _difference_stamps(result, uncertainty, x, y)
    fit = _measure(*stamps[:4], np.ascontiguousarray(images[:, cut, cut]), sky_prior, HALF)
    systematic = np.sqrt((result.flux_mismatch * fit[:, 2]) ** 2 + template_variance * fit[:, 7])
    return Photometry(
        flux=fit[:, 0],
        flux_error=fit[:, 1],
        flux_systematic=systematic,
        sky=fit[:, 3],
        chi_square=fit[:, 4],
        aperture=fit[:, 5],
        aperture_error=fit[:, 6],
        scale=np.where(placed, kernel_sum(result.kernel, x, y), np.nan),
        flags=_source_flags(stamps, fit),
    )


def find_empty_places(model, flags, x, y, count=12, nearest=7, farthest=40):
    """Find places around a target at which a light curve should be zero.

    Parameters
    ----------
    model : ndarray of float32, shape (ny, nx)
        The convolved template.
    flags : ndarray of int16, same shape
        Bits of `syndiff_tasks.pixels.difference.Flag`.
    x, y : float
        The target [px].
    count : int, default 12
        How many; fewer are found in crowded or small fields.
    nearest, farthest : int, default 7, 40
        Their distance from the target along either axis [px].

    Returns
    -------
    x, y : ndarray of float64, shape (n,)
        Places as far from the middle of their pixel as the target is, so that its PSF holds for them: those with the
        least light of the template within 3 px among its faintest fifth, at least 6 px apart, without flags.
    """
    ny, nx = model.shape
    brightest = ndimage.maximum_filter(np.nan_to_num(model), size=2 * HALF + 1, mode="nearest")
    bad = (flags & ~np.int16(Flag.STRAP | Flag.SCATTERED)) != 0
    bad = ndimage.maximum_filter(bad, size=2 * HALF + 1, mode="constant", cval=True)
    px, py = (int(v) for v in nearest_pixel([x, y]))
    rows, columns = np.mgrid[
        max(py - farthest, 0) : min(py + farthest + 1, ny), max(px - farthest, 0) : min(px + farthest + 1, nx)
    ]
    rows, columns = rows.ravel(), columns.ravel()
    away = np.maximum(np.abs(rows - py), np.abs(columns - px)) >= nearest
    rows, columns = (v[away & ~bad[rows, columns]] for v in (rows, columns))
    light = brightest[rows, columns]
    order = np.argsort(light, kind="stable")[: max(1, light.size // 5)]
    chosen = []
    for k in order:
        if len(chosen) == count:
            break
        if all(max(abs(rows[k] - r), abs(columns[k] - c)) >= 6 for r, c in chosen):
            chosen.append((rows[k], columns[k]))
    places = np.array(chosen, float).reshape(-1, 2)
    return places[:, 1] + (x - px), places[:, 0] + (y - py)


def empirical_error(fluxes):
    """Return the scatter of fluxes measured at empty places in one frame.

    Parameters
    ----------
    fluxes : ndarray of float64, shape (n,)
        NaN where not measured.

    Returns
    -------
    float
        1.4826 times the median absolute value, so that one variable star in a place that seemed empty does not count;
        NaN for fewer than 4 places.
    """
    known = np.asarray(fluxes)[np.isfinite(fluxes)]
    return SIGMA_PER_MAD * float(np.median(np.abs(known))) if known.size >= 4 else math.nan


def _source_flags(stamps, fit):
    """Return the `SourceFlag` bits of each source."""
    inner = stamps.flags[:, HALF - 1 : HALF + 2, HALF - 1 : HALF + 2].reshape(len(fit), -1)
    inner = np.bitwise_or.reduce(inner, axis=1) if len(fit) else np.zeros(0, np.int16)
    damaged = Flag.TEMPLATE_UNTRUSTED.value | Flag.NEAR_DAMAGE.value
    return (
        ~np.isfinite(fit[:, 0]) * np.int16(SourceFlag.NO_FLUX)
        | (fit[:, 9] < (2 * HALF + 1) ** 2) * np.int16(SourceFlag.MASKED_PIXELS)
        | (fit[:, 8] < LEAST_WEIGHT) * np.int16(SourceFlag.FEW_PIXELS)
        | ((inner & damaged) != 0) * np.int16(SourceFlag.TEMPLATE_UNTRUSTED)
        | ((inner & Flag.STRAP.value) != 0) * np.int16(SourceFlag.STRAP)
        | ((inner & Flag.SCATTERED.value) != 0) * np.int16(SourceFlag.SCATTERED)
        | ((inner & Flag.EDGE_OF_KERNEL.value) != 0) * np.int16(SourceFlag.EDGE)
    ).astype(np.int16)
