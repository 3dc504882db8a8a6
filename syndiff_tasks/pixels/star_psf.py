"""The PSF of a skycell, measured on its good stars, which also calibrate the catalog's magnitudes."""

import math
from typing import NamedTuple

import numpy as np
import sep
from scipy import ndimage
from scipy.spatial import cKDTree

from . import mask as masks
from .photometry import expected_counts
from .spread import robust_sigma
from .stars import RADIUS, lost_pixels, on_frame

#: Flux of PSF stars is measured within this radius [native px], 3".
APERTURE = 12.0

#: Limits of the PSF stars: the faintest TESS magnitude (at 18 the sky's noise is 0.5 % of the flux in `APERTURE`), the
#: fewest stars that give a PSF, and the most that are used: the median of 60 has 16 % of one star's noise per pixel.
FAINTEST_GOOD = 18.0
FEWEST_GOOD, MOST_GOOD = 5, 60

#: Beyond the radius where the PSF's pixels sink below so many standard deviations, the PSF is round, known to this
#: fraction: within a ring of 1 px a Gaussian of PS1's width falls that steeply.
WING_SIGMA, WING_ERROR = 5.0, 0.3

#: Largest flux of the catalog stars within `RADIUS` of a PSF star, as a fraction of its own.
ISOLATED = 0.05

#: FWHM of the Gaussian that replaces the PSF in a skycell without PSF stars [native px]: 1.1", usual in PS1 stacks.
STANDARD_FWHM = 4.4

#: Least relative error of a flux from the catalog: scatter of T (0.006 mag), of the band weights and of variable stars.
#: Good stars measure it (`StarPsf.scatter`); without them it is `UNCALIBRATED_ERROR`.
CATALOG_ERROR = 0.03
UNCALIBRATED_ERROR = 0.3

#: Pixels with these bits are not lost, but the PSF is not measured or fitted on them.
UNTRUSTED = (
    masks.PS1.DETECTOR
    | masks.PS1.BLANK
    | masks.PS1.LOW
    | masks.PS1.CR
    | masks.PS1.SPIKE
    | masks.PS1.GHOST
    | masks.PS1.STREAK
).value


class StarPsf(NamedTuple):
    """Image of a star on a skycell, and the calibration of the catalog there.

    Attributes
    ----------
    image : ndarray of float64, shape (2 RADIUS + 1, 2 RADIUS + 1)
        Image of a star centered on the middle pixel; sum 1, 0 beyond `RADIUS`.
    error : ndarray of float64, same shape
        Standard deviation of `image`, from the scatter of the stars.
    spline : ndarray of float64, same shape
        Quintic spline coefficients of `image`.
    calibration : float
        Flux of good stars over that expected from their TESS magnitudes; 1 without good stars.
    scatter : float
        Relative scatter of `calibration` from star to star.
    stars : int
        Number of good stars; 0 for the Gaussian of `STANDARD_FWHM`.
    """

    image: np.ndarray
    error: np.ndarray
    spline: np.ndarray
    calibration: float
    scatter: float
    stars: int


def build_psf(planes, stars, lost_bits=masks.PS1.SAT.value):
    """Measure the PSF of a skycell on its good stars: bright, whole, isolated, and as wide as most.

    Parameters
    ----------
    planes : bands.Combined
    stars : Stars
    lost_bits : int
        PS1 mask *value* of bits that make a pixel lost.

    Returns
    -------
    psf : StarPsf
        With fewer than `FEWEST_GOOD` good stars: a Gaussian of `STANDARD_FWHM`, uncalibrated.
    """
    stars = on_frame(stars, planes.flux.shape)
    flux = expected_counts(stars.magnitude)
    alone = _alone(stars, flux)
    images, ratios = [], []
    for star in alone[np.argsort(stars.magnitude[alone], kind="stable")]:
        image = _aligned(planes, stars.x[star], stars.y[star], lost_bits)
        if image is not None:
            images.append(image / image[_disk(APERTURE)].sum())
            ratios.append(image[_disk(APERTURE)].sum() / flux[star])
        if len(images) == MOST_GOOD:
            break
    images, ratios = np.array(images), np.array(ratios)
    if len(images) >= FEWEST_GOOD:
        alike = _alike(images)
        images, ratios = images[alike], ratios[alike]
    if len(images) < FEWEST_GOOD:
        return _standard_psf()
    return _stacked(images, ratios)


def _alone(stars, flux):
    """Return the indices of stars that are bright enough for the PSF and far brighter than all stars around them."""
    bright = np.flatnonzero(stars.magnitude < FAINTEST_GOOD)
    if bright.size == 0:
        return bright
    places = np.c_[stars.x, stars.y]
    near = cKDTree(places).query_ball_point(places[bright], RADIUS)
    others = np.array([flux[indices].sum() for indices in near]) - flux[bright]
    return bright[others < ISOLATED * flux[bright]]


def _disk(radius):
    axis = np.arange(-RADIUS, RADIUS + 1)
    return np.hypot(axis[None, :], axis[:, None]) <= radius


def _aligned(planes, x, y, lost_bits):
    """Return a star's image, centered on a pixel and sky-subtracted; None if the star is not whole."""
    column, row, half = round(x), round(y), RADIUS + 2
    ny, nx = planes.flux.shape
    if not (half <= column < nx - half and half <= row < ny - half):
        return None
    box = slice(row - half, row + half + 1), slice(column - half, column + half + 1)
    if lost_pixels(planes, box, lost_bits | UNTRUSTED).any():
        return None
    image = planes.flux[box].astype(np.float64)
    # The position at the PS1 epoch; the catalog's is at Gaia's.
    x, y, flag = sep.winpos(image, x - box[1].start, y - box[0].start, STANDARD_FWHM / math.sqrt(8 * math.log(2)))
    if flag or math.hypot(x - half, y - half) > 2:
        return None
    axis = np.arange(-RADIUS, RADIUS + 1)
    moved = ndimage.map_coordinates(image, np.broadcast_arrays(axis[:, None] + y, axis[None, :] + x), order=5)
    moved -= np.median(moved[~_disk(0.8 * RADIUS)])
    return moved if moved[_disk(APERTURE)].sum() > 0 else None


def _alike(images):
    """Return which normalized images are as concentrated as most, which galaxies and close pairs are not."""
    inside = images[:, _disk(3.0)].sum(axis=1)
    middle = np.median(inside)
    return abs(inside - middle) <= max(3 * robust_sigma(inside - middle), 0.01)


def _stacked(images, ratios):
    """Return the PSF: median of the normalized images, and the catalog's calibration from the flux ratios."""
    middle = np.median(images, axis=0)
    # The median of n normal deviates has a standard deviation of 1.2533 / sqrt(n).
    error = 1.2533 * robust_sigma(images - middle, axis=0) / math.sqrt(len(images))
    middle, error = _quiet_wings(middle, error)
    whole = middle[_disk(RADIUS)].sum()
    calibration = float(np.median(ratios)) * whole
    scatter = max(float(robust_sigma(ratios / np.median(ratios) - 1)), CATALOG_ERROR)
    image = np.where(_disk(RADIUS), middle / whole, 0)
    return StarPsf(image, error / whole, ndimage.spline_filter(image, order=5), calibration, scatter, len(images))


def _quiet_wings(image, error):
    """Replace the PSF and its error by the means of rings where single pixels are dominated by noise.

    Noise in the PSF is noise in the regressor: it biases fitted fluxes toward 0.
    """
    axis = np.arange(-RADIUS, RADIUS + 1)
    r = np.hypot(axis[None, :], axis[:, None])
    ring = np.rint(r).astype(np.intp)
    count = np.bincount(ring.ravel())
    mean = np.bincount(ring.ravel(), image.ravel()) / count
    noise = np.sqrt(np.bincount(ring.ravel(), error.ravel() ** 2) / count)
    noisy = ring >= int(np.argmax(np.append(mean < WING_SIGMA * noise, True)))
    profile = np.maximum(np.interp(r, np.arange(mean.size), mean), 0)
    of_ring = np.interp(r, np.arange(mean.size), noise / np.sqrt(count))
    return np.where(noisy, profile, image), np.where(noisy, np.hypot(of_ring, WING_ERROR * profile), error)


def _standard_psf():
    axis = np.arange(-RADIUS, RADIUS + 1)
    image = np.exp(-4 * math.log(2) * (axis[None, :] ** 2 + axis[:, None] ** 2) / STANDARD_FWHM**2)
    image /= image.sum()
    return StarPsf(image, 0 * image, ndimage.spline_filter(image, order=5), 1.0, UNCALIBRATED_ERROR, 0)


def unit_image(psf, window):
    """Return the image of a star of flux 1.

    Parameters
    ----------
    psf : StarPsf
    window : stars.Window
        Around the star.

    Returns
    -------
    image : ndarray of float64, shape (ny, nx) of the window
    """
    places = np.broadcast_arrays(window.dy + RADIUS, window.dx + RADIUS)
    # Splines overshoot below 0.
    return np.maximum(ndimage.map_coordinates(psf.spline, places, order=5, prefilter=False, mode="constant"), 0)


def error_image(psf, window):
    """Return the standard deviation of `unit_image`, of the same shape."""
    places = np.broadcast_arrays(window.dy + RADIUS, window.dx + RADIUS)
    return ndimage.map_coordinates(psf.error, places, order=1, mode="nearest")
