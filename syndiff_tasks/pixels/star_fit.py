"""Flux and position of a saturated star, from the pixels that saturation has left."""

import math
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from .spread import robust_sigma
from .star_psf import UNTRUSTED, error_image, unit_image
from .stars import RADIUS, Stars, Window, lost_pixels, window_about

#: Relative error of the PSF, and so of a fitted flux, that does not average out: PS1's PSF varies over a skycell. (It
#: does not in the demo sky, where fluxes are right to 0.5 %.)
PSF_ERROR = 0.02

#: Errors of the PSF are correlated over a star's width, sqrt(pi/4) 4.4 px = 4 px: a fit's formal error is too small by
#: this factor. (Fits of stars with half an image are off by 1 to 6 times the formal error.)
CORRELATED = 4.0

#: A fit is accepted if the relative error of its flux is below this or below the catalog's, its flux is within this
#: factor of the catalog's (0.6 mag is the scatter of T from G alone) and its position within this distance [native px].
LARGEST_FIT_ERROR = 0.05
LARGEST_FACTOR = 3.0
LARGEST_SHIFT = 2.5

#: Prior scatter of the fitted values: motion of a star from PS1's epoch to Gaia's [native px], flux of undamaged
#: neighbors relative to the catalog's, and flux of damaged stars, which is all but free.
PRIOR_SHIFT, PRIOR_NEIGHBOR, PRIOR_DAMAGED = 1.0, 0.1, 3.0

#: Neighbors fitted with the star: at most so many of those with at least this fraction of its flux.
MOST_NEIGHBORS, NEIGHBOR_FRACTION = 12, 0.01

#: Cauchy's weight function, 1 / (1 + (r / 2.385)^2), has 95 % efficiency for normal errors: Holland & Welsch 1977.
_CAUCHY = 2.385
_ITERATIONS = 10
_CONVERGED = 1e-3  # of the flux, and in px; the fit's errors are larger


class StarField(NamedTuple):
    """The stars of a skycell, calibrated.

    Attributes
    ----------
    stars : Stars
    flux : ndarray of float64, shape (n,)
        Expected from the calibrated catalog [counts/s].
    tree : cKDTree
        Of their positions.
    damaged : ndarray of int, shape (m,)
        Indices of the damaged stars, brightest first.
    """

    stars: Stars
    flux: np.ndarray
    tree: cKDTree
    damaged: np.ndarray


class StarFit(NamedTuple):
    """Position and flux of a damaged star.

    Attributes
    ----------
    star : int
        Index in `StarField.stars`.
    x, y : float
        [0-based native px]
    flux : float
        [counts/s]
    error : float
        Relative error of `flux`.
    fitted : bool
        False if all of it comes from the catalog.
    """

    star: int
    x: float
    y: float
    flux: float
    error: float
    fitted: bool


def fit_star(planes, field, psf, star, lost_bits):
    """Fit a damaged star to the pixels that are left of it; take the catalog's values where they are too few.

    Parameters
    ----------
    planes : bands.Combined
    field : StarField
    psf : star_psf.StarPsf
    star : int
        Index in `field.stars`.
    lost_bits : int
        PS1 mask *value* of bits that make a pixel lost.

    Returns
    -------
    fit : StarFit
    """
    stars = field.stars
    x, y, flux = float(stars.x[star]), float(stars.y[star]), float(field.flux[star])
    catalog = StarFit(int(star), x, y, flux, psf.scatter, False)
    window = window_about(planes.flux.shape, x, y)
    lost = lost_pixels(planes, window.box, lost_bits)
    # Pixels beside a lost one may have been lost in some of the stacked exposures.
    usable = ~ndimage.binary_dilation(lost, np.ones((3, 3))) & ((planes.mask[window.box] & UNTRUSTED) == 0)
    usable &= window.r <= RADIUS
    if psf.stars == 0 or usable.sum() < 2 * (MOST_NEIGHBORS + 4):
        return catalog
    data = planes.flux[window.box][usable].astype(np.float64)
    variance = planes.variance[window.box][usable].astype(np.float64)
    if not variance.max() > 0:
        return catalog
    fixed, neighbors, priors = _neighbors(field, psf, star, window, math.sqrt(np.median(variance)))
    problem = _Problem(data - fixed[usable], variance, [one[usable] for one in neighbors], priors, window, usable)
    fitted = _least_squares(problem, psf, catalog)
    right = (
        fitted.error < max(LARGEST_FIT_ERROR, psf.scatter)
        and 1 / LARGEST_FACTOR < fitted.flux / flux < LARGEST_FACTOR
        and math.hypot(fitted.x - x, fitted.y - y) < LARGEST_SHIFT
    )
    return fitted if right else catalog


def _neighbors(field, psf, star, window, noise):
    """Return the summed image of faint neighbors, and the image of each bright one with its prior scatter."""
    place = field.stars.x[star], field.stars.y[star]
    near = np.array(field.tree.query_ball_point(place, 2 * RADIUS), np.intp)
    near = near[(near != star) & (field.flux[near] * psf.image.max() > noise)]
    near = near[np.argsort(-field.flux[near], kind="stable")]
    fixed, bright, priors = np.zeros(np.broadcast_shapes(window.dx.shape, window.dy.shape)), [], []
    for other in near:
        moved = Window(
            window.box, window.dx + place[0] - field.stars.x[other], window.dy + place[1] - field.stars.y[other]
        )
        light = field.flux[other] * unit_image(psf, moved)
        if len(bright) < MOST_NEIGHBORS and field.flux[other] > NEIGHBOR_FRACTION * field.flux[star]:
            bright.append(light)
            priors.append(PRIOR_DAMAGED if other in field.damaged else PRIOR_NEIGHBOR)
        else:
            fixed += light
    return fixed, bright, priors


class _Problem(NamedTuple):
    """Usable pixels around a damaged star, and the bright neighbors that shine on them."""

    data: np.ndarray  # (n,)
    variance: np.ndarray  # (n,)
    neighbors: list  # of arrays (n,)
    priors: list  # relative scatter of the neighbors' flux
    window: Window
    usable: np.ndarray


def _least_squares(problem, psf, start):
    """Fit flux, position, neighbors' fluxes and a constant sky by iterated reweighting, linearized in the position."""
    flux, x, y = start.flux, start.x, start.y
    columns = np.array([*problem.neighbors, np.ones(problem.data.size)])
    level = np.append(np.ones(len(problem.neighbors)), 0.0)
    # Inverse prior variances of the star's flux, x, y and the neighbors' fluxes; the sky has no prior.
    inverse = (
        np.array([1 / PRIOR_DAMAGED, 1 / PRIOR_SHIFT, 1 / PRIOR_SHIFT, *(1 / p for p in problem.priors), 0.0]) ** 2
    )
    psf_error = error_image(psf, problem.window)[problem.usable]
    error = math.inf
    for _ in range(_ITERATIONS):
        shifted = Window(problem.window.box, problem.window.dx + start.x - x, problem.window.dy + start.y - y)
        image = unit_image(psf, shifted)
        slope_y, slope_x = np.gradient(image)
        own = flux * image[problem.usable]
        others = level[:-1] @ columns[:-1]
        rest = problem.data - own - level @ columns
        variance = problem.variance + PSF_ERROR**2 * (own**2 + others**2)
        variance += (flux * psf_error) ** 2
        pull = rest / np.sqrt(variance)
        spread = max(1.0, float(robust_sigma(pull)))
        weight_of = 1 / (1 + (pull / (_CAUCHY * spread)) ** 2) / (variance * spread**2)
        design = np.array([own, -flux * slope_x[problem.usable], -flux * slope_y[problem.usable], *columns])
        normal = (design * weight_of) @ design.T + np.diag(inverse)
        away = np.array([flux / start.flux - 1, x - start.x, y - start.y, *(level[:-1] - 1), 0.0])
        step = np.linalg.solve(normal, (design * weight_of) @ rest - inverse * away)
        error = math.sqrt(np.linalg.inv(normal)[0, 0])
        flux *= 1 + float(np.clip(step[0], -0.5, 1.0))
        x, y = x + float(np.clip(step[1], -0.5, 0.5)), y + float(np.clip(step[2], -0.5, 0.5))
        level = level + step[3:]
        if abs(step[:3]).max() < _CONVERGED:
            break
    return StarFit(start.star, x, y, flux, math.hypot(CORRELATED * error, PSF_ERROR), True)
