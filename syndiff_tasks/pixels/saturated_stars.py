"""Stars that saturated in PS1: their lost cores filled in, or the whole stars subtracted.

PS1 saturates near magnitude 12 to 14; saturated pixels are NaN or carry the mask bit SAT. `repair_saturated_stars`
takes these steps:

1. Find the *damaged* stars: those of the catalog brighter than `FAINTEST_DAMAGED` with a lost pixel within
   `CORE_RADIUS`.
2. Measure the PSF on the good stars of the same skycell, and calibrate the catalog with them (`star_psf.build_psf`):
   TESS magnitudes are Vega magnitudes, PS1's zero point is AB.
3. Fit the flux and position of each damaged star to the pixels that are left, together with its bright neighbors
   (`star_fit.fit_star`). Where too few pixels are left, take both from the calibrated catalog.
4. Fill in, or subtract, the fitted stars.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from . import mask as masks
from .photometry import expected_counts
from .star_fit import StarField, fit_star
from .star_psf import build_psf, unit_image
from .stars import RADIUS, lost_pixels, on_frame, window_about

#: What `repair_saturated_stars` can do with damaged stars.
ACTIONS = ("repair", "remove", "keep")

#: Only stars brighter than this TESS magnitude count as damaged: PS1 saturates near 12 to 14. A fainter star with lost
#: pixels lies in a gap or beside a bright star.
FAINTEST_DAMAGED = 15.0

#: Lost pixels within this distance damage a star [native px]: 1", the width of PS1's PSF.
CORE_RADIUS = 4.0


class RepairedStar(NamedTuple):
    """One repaired or removed star.

    Attributes
    ----------
    source_id : int
    x, y : float
        Position [0-based native px]: fitted, or the catalog's where `how` is "catalog".
    magnitude : float
        TESS magnitude from the catalog.
    flux : float
        Flux added to lost pixels, or (negative) subtracted from others [counts/s].
    total : float
        Flux of the whole star: fitted, or from the calibrated catalog [counts/s].
    how : {"psf", "catalog", "removed"}
        Source of the added flux: a PSF fit or the catalog; "removed" for a subtracted star.
    """

    source_id: int
    x: float
    y: float
    magnitude: float
    flux: float
    total: float
    how: str


def repair_saturated_stars(planes, stars, how, exclude=0):
    """Repair or remove the stars that saturated in PS1.

    Parameters
    ----------
    planes : bands.Combined
        Flux, variance, mask and missing of a skycell, before the sky is subtracted. Changed **in place**: a copy of a
        skycell would cost 0.4 GB for a few thousand pixels. Every changed pixel gets `mask.REPAIRED` in `missing`.
        Filled pixels are valid afterwards: they lose SAT and the bits of `exclude`, and of the missing bands they keep
        those missing in all pixels around.
    stars : Stars
        All stars of the catalog; faint ones serve as PSF stars and neighbors.
    how : {"repair", "remove", "keep"}
        ``repair``: fill the star's lost pixels from its model. ``remove``: subtract the model from the other pixels
        and set the lost ones to the light of neighbors. ``keep``: change nothing.
    exclude : int
        PS1 mask *value* of bits that make a pixel lost, as SAT and NaN do: those that `blocks.to_blocks` excludes.

    Returns
    -------
    repaired : list of RepairedStar
        Brightest first.

    Raises
    ------
    ValueError
        If `how` is none of these.

    Notes
    -----
    Variance of repaired pixels: an error of the star's flux changes all its pixels together, but a variance plane
    treats pixels as independent. So a pixel of model flux m gets the variance e^2 F m, with e the relative error and F
    the sum of the m: the sum over the pixels is (e F)^2, which is right at every scale wider than a star, such as
    TESS's PSF.
    """
    if how not in ACTIONS:
        raise ValueError(f"saturated_stars is {how!r}: choose one of {', '.join(ACTIONS)}")
    if how == "keep":
        return []
    lost_bits = masks.PS1.SAT.value | int(exclude)
    stars = on_frame(stars, planes.flux.shape)
    damaged = _damaged(planes, stars, lost_bits)
    if damaged.size == 0:
        return []
    psf = build_psf(planes, stars, lost_bits)
    field = StarField(
        stars, expected_counts(stars.magnitude) * psf.calibration, cKDTree(np.c_[stars.x, stars.y]), damaged
    )
    fits = [fit_star(planes, field, psf, star, lost_bits) for star in damaged]
    shares = (_repair if how == "repair" else _remove)(planes, field, psf, fits, lost_bits)
    return [
        RepairedStar(
            int(stars.source_id[fit.star]),
            fit.x,
            fit.y,
            float(stars.magnitude[fit.star]),
            share,
            fit.flux,
            "removed" if how == "remove" else "psf" if fit.fitted else "catalog",
        )
        for fit, share in zip(fits, shares, strict=True)
    ]


def _damaged(planes, stars, bits):
    """Return the indices of the stars with lost pixels in their cores, brightest first."""
    bright = np.flatnonzero(stars.magnitude < FAINTEST_DAMAGED)
    bright = bright[np.argsort(stars.magnitude[bright], kind="stable")]
    found = []
    for star in bright:
        window = window_about(planes.flux.shape, stars.x[star], stars.y[star])
        if (lost_pixels(planes, window.box, bits) & (window.r <= CORE_RADIUS)).any():
            found.append(star)
    return np.array(found, np.intp)


def _targets(planes, psf, fit, lost_bits):
    """Return a star's window, its lost pixels brighter than the noise in the model, and all lost pixels."""
    window = window_about(planes.flux.shape, fit.x, fit.y)
    lost = lost_pixels(planes, window.box, lost_bits)
    left = planes.variance[window.box][~lost]
    noise = math.sqrt(float(np.median(left))) if left.size else 0.0
    axis = np.arange(RADIUS + 1)
    profile = ndimage.map_coordinates(psf.image, [np.full(RADIUS + 1, RADIUS), RADIUS + axis], order=1)
    bright = np.flatnonzero(fit.flux * profile > noise)
    reach = max(CORE_RADIUS, float(bright.max(initial=0)))
    return window, lost & (window.r <= reach), lost


def _clear(planes, psf, fits, lost_bits):
    """Zero and mark the lost pixels of damaged stars; return the `_targets` of each star."""
    targets = [_targets(planes, psf, fit, lost_bits) for fit in fits]
    for window, own, lost in targets:
        around = planes.missing[window.box][~lost]
        shared = int(np.bitwise_and.reduce(around)) & ~masks.REPAIRED if around.size else 0
        planes.flux[window.box][own] = 0
        planes.variance[window.box][own] = 0
        planes.mask[window.box][own] &= np.uint16(~lost_bits & 0xFFFF)
        planes.missing[window.box][own] = masks.REPAIRED | shared
    return targets


def _add_undamaged(planes, field, psf, fits):
    """Add the light of undamaged stars to the cleared pixels around them."""
    damaged = set(field.damaged.tolist())
    places = [(fit.x, fit.y) for fit in fits]
    near = {other for indices in field.tree.query_ball_point(places, 2 * RADIUS) for other in indices} - damaged
    for other in sorted(near):
        window = window_about(planes.flux.shape, field.stars.x[other], field.stars.y[other])
        cleared = (planes.missing[window.box] & masks.REPAIRED) != 0
        if cleared.any():
            _add(planes, window, cleared, field.flux[other] * unit_image(psf, window), psf.scatter)


def _add(planes, window, where, light, error):
    """Add light to pixels, with the variance of `repair_saturated_stars`' notes; return the flux added."""
    some = light[where]
    total = float(some.sum())
    planes.flux[window.box][where] += some.astype(np.float32)
    planes.variance[window.box][where] += (error**2 * abs(total) * abs(some)).astype(np.float32)
    return total


def _repair(planes, field, psf, fits, lost_bits):
    """Fill the lost pixels from the damaged stars' models; return the flux added for each star."""
    targets = _clear(planes, psf, fits, lost_bits)
    _add_undamaged(planes, field, psf, fits)
    shares = []
    for fit, (window, _, _) in zip(fits, targets, strict=True):
        cleared = (planes.missing[window.box] & masks.REPAIRED) != 0
        shares.append(_add(planes, window, cleared, fit.flux * unit_image(psf, window), fit.error))
    return shares


def _remove(planes, field, psf, fits, lost_bits):
    """Subtract the damaged stars' models from the pixels that are left; return the flux added (negative) for each."""
    targets = _clear(planes, psf, fits, lost_bits)
    _add_undamaged(planes, field, psf, fits)
    shares = []
    for fit, (window, _, lost) in zip(fits, targets, strict=True):
        left = ~lost & (window.r <= RADIUS)
        shares.append(_add(planes, window, left, -fit.flux * unit_image(psf, window), fit.error))
        planes.missing[window.box][left] |= masks.REPAIRED
    return shares
