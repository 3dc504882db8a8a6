"""Bright and saturated stars: their lost cores put back, or the whole stars taken off.

PS1 saturates near magnitude 12 to 14, and what saturates is NaN or carries the mask bit SAT. The steps of `treat`:

1. *Damaged* stars are those of the catalogue brighter than `FAINTEST_DAMAGED` with a lost pixel within `CORE_RADIUS`.
2. `build_psf`: the PSF is the median of sub-pixel aligned images of good stars of the same skycell, and the same stars
   calibrate the catalogue: real TESS magnitudes are of the Vega system, PS1's zero point of the AB system.
3. `_fit`: each damaged star's flux and position by robust weighted least squares over the pixels that are left, its
   bright neighbours fitted along, the faint ones subtracted as the catalogue has them. Where too little is left, the
   calibrated catalogue says it all.
4. `_repair` or `_remove` changes the planes.
"""

import math
from typing import NamedTuple

import numpy as np
import sep
from scipy import ndimage
from scipy.spatial import cKDTree

from . import mask as masks
from .bands import ZERO_POINT

#: What can be done with damaged stars, see `treat`.
WAYS = ("repair", "remove", "keep")

#: Only stars brighter than this TESS magnitude are taken for damaged: PS1 saturates near 12 to 14 (issue E.3). A
#: fainter star that lost pixels lies in a gap or beside a bright one; `coverage` tells of the gap.
FAINTEST_DAMAGED = 15.0

#: A lost pixel this near to the star [native px] damages its core: 1", the width of PS1's PSF.
CORE_RADIUS = 4.0

#: The PSF and the fits reach this far [native px]. 8": 3e-4 of a Moffat profile with beta = 3 and PS1's FWHM of 4.4 px
#: lie beyond, (1 + R^2/a^2)^(1 - beta).
RADIUS = 32

#: Flux of PSF stars is measured within this radius [native px], 3".
APERTURE = 12.0

#: PSF stars: no fainter than this TESS magnitude (at 18 the sky's noise is 0.5 % of the flux in `APERTURE`), at least
#: so many or there is no PSF, and at most so many, for the median of 60 is good to 1 % of one star's noise per pixel.
FAINTEST_GOOD = 18.0
FEWEST_GOOD, MOST_GOOD = 5, 60

#: Beyond the radius where the PSF's pixels sink below so many standard deviations, the PSF is round, known to this
#: fraction: within a ring of 1 px a Gaussian of PS1's width falls that steeply.
WING_SIGMA, WING_ERROR = 5.0, 0.3

#: Light of catalogued neighbours that a PSF star may have within `RADIUS`, as a fraction of its own.
ISOLATED = 0.05

#: FWHM of the Gaussian that stands in where a skycell has no PSF stars [native px]: facts.md §4, PS1 stacks.
STANDARD_FWHM = 4.4

#: Relative error of the PSF, and so of a fitted flux, that does not average out: PS1's PSF varies over a skycell. (In
#: the demo sky it does not, and fluxes come out to 0.5 %.)
PSF_ERROR = 0.02

#: The PSF's errors are alike within a star's width, sqrt(pi/4) 4.4 px = 4 px: by so much a fit's formal error is too
#: small. (Of stars with half an image the fits are off by 1 to 6 times the formal error.)
CORRELATED = 4.0

#: Least error of a flux from the catalogue: scatter of T (0.006 mag), of the band weights and of variable stars. It is
#: measured (`Psf.scatter`) where there are good stars, and taken as `UNCALIBRATED_ERROR` where there are none.
CATALOGUE_ERROR = 0.03
UNCALIBRATED_ERROR = 0.3

#: A fit counts if its flux has less than this relative error or less than the catalogue's, is within this factor of the
#: catalogue's flux (0.6 mag is the scatter of T from G alone) and within this distance of its place [native px].
LARGEST_FIT_ERROR = 0.05
LARGEST_FACTOR = 3.0
LARGEST_SHIFT = 2.5

#: Prior scatter of what is fitted: a star moves by this much [native px] from PS1's epoch to Gaia's; fluxes of
#: undamaged neighbours relative to the catalogue's. A damaged star's own is all but free.
PRIOR_SHIFT, PRIOR_NEIGHBOUR, PRIOR_DAMAGED = 1.0, 0.1, 3.0

#: Neighbours fitted along: at most so many of those with this fraction of the star's flux.
MOST_NEIGHBOURS, NEIGHBOUR_FRACTION = 12, 0.01

#: Cauchy's weight function, 1 / (1 + (r / 2.385)^2), has 95 % efficiency for normal errors: Holland & Welsch 1977.
_CAUCHY = 2.385
_ITERATIONS = 10
_CONVERGED = 1e-3  # of the flux, and in px; the fit's errors are larger

#: Pixels with these bits are not lost, but are no witnesses of the PSF.
_UNTRUSTED = (
    masks.PS1.DETECTOR
    | masks.PS1.BLANK
    | masks.PS1.LOW
    | masks.PS1.CR
    | masks.PS1.SPIKE
    | masks.PS1.GHOST
    | masks.PS1.STREAK
).value


class Stars(NamedTuple):
    """Catalogue stars on a skycell; those outside its frame do no harm.

    Attributes
    ----------
    source_id : ndarray of int64, shape (n,)
    x, y : ndarray of float64, shape (n,)
        Position [0-based native px].
    magnitude : ndarray of float64, shape (n,)
        TESS magnitude, see `tess_magnitude`; stars without one (NaN) are left out.
    """

    source_id: np.ndarray
    x: np.ndarray
    y: np.ndarray
    magnitude: np.ndarray


class Treated(NamedTuple):
    """What was done to one star.

    Attributes
    ----------
    source_id : int
    x, y : float
        Position [0-based native px], as fitted; the catalogue's where `how` is "catalogue".
    magnitude : float
        TESS magnitude of the catalogue.
    flux : float
        The star's light put into lost pixels, or (negative) taken out of others [counts/s].
    total : float
        Flux of the whole star, fitted or from the calibrated catalogue [counts/s].
    how : {"psf", "catalogue", "removed"}
        Whence the flux that was put in, or that the star was removed.
    """

    source_id: int
    x: float
    y: float
    magnitude: float
    flux: float
    total: float
    how: str


class Psf(NamedTuple):
    """What the good stars of a skycell say.

    Attributes
    ----------
    image : ndarray of float64, shape (2 RADIUS + 1, 2 RADIUS + 1)
        Image of a star centred on the middle pixel; sum 1, 0 beyond `RADIUS`.
    error : ndarray of float64, same shape
        Its standard deviation from the scatter of the stars.
    spline : ndarray of float64, same shape
        Its quintic spline coefficients.
    calibration : float
        Flux of good stars over that expected from their TESS magnitudes; 1 where there are none.
    scatter : float
        Relative scatter of that.
    stars : int
        How many good stars there were; 0 where a Gaussian stands in.
    """

    image: np.ndarray
    error: np.ndarray
    spline: np.ndarray
    calibration: float
    scatter: float
    stars: int


def tess_magnitude(g, bp, rp):
    """TESS magnitude from Gaia's.

    Parameters
    ----------
    g, bp, rp : array_like of float, shape (n,)
        ``phot_g_mean_mag``, ``phot_bp_mean_mag``, ``phot_rp_mean_mag``; NaN where unknown.

    Returns
    -------
    magnitude : ndarray of float64, shape (n,)
        NaN where G is unknown.

    Notes
    -----
    Stassun et al. 2019 (AJ 158, 138, TIC v8), equation 1, scatter 0.006 mag; T = G - 0.430 (same place, scatter
    0.6 mag) where a colour is unknown.
    """
    g, bp, rp = (np.asarray(one, np.float64) for one in (g, bp, rp))
    colour = bp - rp
    with_colour = g - 0.00522555 * colour**3 + 0.0891337 * colour**2 - 0.633923 * colour + 0.0324473
    return np.where(np.isfinite(colour), with_colour, g - 0.430)


def expected_counts(magnitude):
    """PS1-weighted TESS-band flux [counts/s at zero point 25] of a TESS magnitude, before calibration (`Psf`)."""
    return 10.0 ** (-0.4 * (np.asarray(magnitude, np.float64) - ZERO_POINT))


def treat(planes, stars, how, exclude=0):
    """Repair or remove the stars whose cores PS1 lost.

    Parameters
    ----------
    planes : bands.Combined
        Flux, variance, mask and missing of a skycell, before its sky is taken off. Changed **in place**: copies of a
        whole skycell would cost 0.4 GB for a few thousand pixels. Every changed pixel gets `mask.REPAIRED` in
        `missing`; lost pixels that were filled lose SAT and the bits of `exclude`, for they are valid now, and keep of
        the missing bands those that all pixels around miss.
    stars : Stars
        All catalogued stars, the faint ones too: as PSF stars and neighbours.
    how : {"repair", "remove", "keep"}
        ``repair``: the star's model is put into its lost pixels. ``remove``: the model is subtracted from the others,
        the lost ones become 0 (plus the light of neighbours). ``keep``: nothing is changed.
    exclude : int
        PS1 mask *value*: its bits make a pixel lost, as SAT and NaN do. Give what `blocks.to_blocks` excludes.

    Returns
    -------
    treated : list of Treated
        A row a star, brightest first.

    Raises
    ------
    ValueError
        If `how` is another word.

    Notes
    -----
    Variance of repaired pixels: an error of the star's flux moves all its pixels alike, but planes of variance count
    pixels as independent. So e^2 F m is given to a pixel of model flux m, with e the relative error and F the sum of
    the m: the sum over the pixels is (e F)^2, which is right for everything wider than a star, such as TESS's PSF.
    """
    if how not in WAYS:
        raise ValueError(f"saturated_stars is {how!r}: choose one of {', '.join(WAYS)}")
    if how == "keep":
        return []
    lost_bits = masks.PS1.SAT.value | int(exclude)
    stars = _near(stars, planes.flux.shape)
    damaged = _damaged(planes, stars, lost_bits)
    if damaged.size == 0:
        return []
    psf = build_psf(planes, stars, lost_bits)
    field = _Field(stars, expected_counts(stars.magnitude) * psf.calibration, cKDTree(np.c_[stars.x, stars.y]), damaged)
    fits = [_fit(planes, field, psf, star, lost_bits) for star in damaged]
    shares = (_repair if how == "repair" else _remove)(planes, field, psf, fits, lost_bits)
    return [
        Treated(
            int(stars.source_id[fit.star]),
            fit.x,
            fit.y,
            float(stars.magnitude[fit.star]),
            share,
            fit.flux,
            "removed" if how == "remove" else "psf" if fit.fitted else "catalogue",
        )
        for fit, share in zip(fits, shares, strict=True)
    ]


class _Field(NamedTuple):
    """The stars of a skycell."""

    stars: Stars
    flux: np.ndarray  # expected, calibrated [counts/s]
    tree: cKDTree
    damaged: np.ndarray  # indices, brightest first


class _Fit(NamedTuple):
    """A damaged star as it must have been."""

    star: int  # index
    x: float
    y: float
    flux: float  # [counts/s]
    error: float  # relative
    fitted: bool


class _Window(NamedTuple):
    """The part of the planes within `RADIUS` of a position."""

    box: tuple  # of two slices: rows, columns
    dx: np.ndarray  # (1, nx), from the position
    dy: np.ndarray  # (ny, 1)

    @property
    def r(self):
        return np.hypot(self.dx, self.dy)


def _window(shape, x, y):
    """Return the window about a position; it may be empty beyond the frame's border."""
    rows, columns = (
        slice(max(0, math.floor(c) - RADIUS), max(0, min(n, math.floor(c) + RADIUS + 2)))
        for c, n in ((y, shape[0]), (x, shape[1]))
    )
    return _Window(
        (rows, columns),
        np.arange(columns.start, columns.stop)[None, :] - x,
        np.arange(rows.start, rows.stop)[:, None] - y,
    )


def _near(stars, shape):
    """Return the stars with a magnitude whose light falls on the frame."""
    ny, nx = shape
    on = (stars.x > -RADIUS) & (stars.x < nx - 1 + RADIUS) & (stars.y > -RADIUS) & (stars.y < ny - 1 + RADIUS)
    on &= np.isfinite(stars.magnitude)
    return Stars(*(np.asarray(column)[on] for column in stars))


def _lost(planes, box, bits):
    return ~np.isfinite(planes.flux[box] + planes.variance[box]) | ((planes.mask[box] & bits) != 0)


def _damaged(planes, stars, bits):
    """Return the indices of the stars with lost pixels in their cores, brightest first."""
    bright = np.flatnonzero(stars.magnitude < FAINTEST_DAMAGED)
    bright = bright[np.argsort(stars.magnitude[bright], kind="stable")]
    found = []
    for star in bright:
        window = _window(planes.flux.shape, stars.x[star], stars.y[star])
        if (_lost(planes, window.box, bits) & (window.r <= CORE_RADIUS)).any():
            found.append(star)
    return np.array(found, np.intp)


# --- the PSF ---------------------------------------------------------------------------------------------------------


def build_psf(planes, stars, lost_bits=masks.PS1.SAT.value):
    """Build the PSF of a skycell from its good stars: bright enough, whole, alone, and as wide as most.

    Parameters
    ----------
    planes : bands.Combined
    stars : Stars
    lost_bits : int
        PS1 mask *value* of bits that make a pixel lost.

    Returns
    -------
    psf : Psf
        Where there are fewer than `FEWEST_GOOD` good stars: a Gaussian of `STANDARD_FWHM` without calibration.
    """
    stars = _near(stars, planes.flux.shape)
    flux = expected_counts(stars.magnitude)
    alone = _alone(stars, flux)
    images, ratios = [], []
    for star in alone[np.argsort(stars.magnitude[alone], kind="stable")]:
        image = _aligned(planes, stars.x[star], stars.y[star], lost_bits)
        if image is not None:
            images.append(image / image[_disc(APERTURE)].sum())
            ratios.append(image[_disc(APERTURE)].sum() / flux[star])
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
    """Return the indices of stars bright enough for the PSF that outshine their neighbours."""
    bright = np.flatnonzero(stars.magnitude < FAINTEST_GOOD)
    if bright.size == 0:
        return bright
    places = np.c_[stars.x, stars.y]
    near = cKDTree(places).query_ball_point(places[bright], RADIUS)
    others = np.array([flux[indices].sum() for indices in near]) - flux[bright]
    return bright[others < ISOLATED * flux[bright]]


def _disc(radius):
    axis = np.arange(-RADIUS, RADIUS + 1)
    return np.hypot(axis[None, :], axis[:, None]) <= radius


def _aligned(planes, x, y, lost_bits):
    """Return the image of a whole star, moved to the middle of a pixel, its sky taken off; None if it is not whole."""
    column, row, half = round(x), round(y), RADIUS + 2
    ny, nx = planes.flux.shape
    if not (half <= column < nx - half and half <= row < ny - half):
        return None
    box = slice(row - half, row + half + 1), slice(column - half, column + half + 1)
    if _lost(planes, box, lost_bits | _UNTRUSTED).any():
        return None
    image = planes.flux[box].astype(np.float64)
    # Where the star is, not where it was in Gaia's year.
    x, y, flag = sep.winpos(image, x - box[1].start, y - box[0].start, STANDARD_FWHM / math.sqrt(8 * math.log(2)))
    if flag or math.hypot(x - half, y - half) > 2:
        return None
    axis = np.arange(-RADIUS, RADIUS + 1)
    moved = ndimage.map_coordinates(image, np.broadcast_arrays(axis[:, None] + y, axis[None, :] + x), order=5)
    moved -= np.median(moved[~_disc(0.8 * RADIUS)])
    return moved if moved[_disc(APERTURE)].sum() > 0 else None


def _alike(images):
    """Return which normalised images have as much of their light inside as most: no galaxies, no close pairs."""
    inside = images[:, _disc(3.0)].sum(axis=1)
    middle = np.median(inside)
    return abs(inside - middle) <= max(3 * 1.4826 * np.median(abs(inside - middle)), 0.01)


def _stacked(images, ratios):
    """Return the median of the normalised images, and what the flux ratios say of the catalogue."""
    middle = np.median(images, axis=0)
    # The median of n normal deviates has a standard deviation of 1.2533 / sqrt(n).
    error = 1.2533 * 1.4826 * np.median(abs(images - middle), axis=0) / math.sqrt(len(images))
    middle, error = _quiet_wings(middle, error)
    whole = middle[_disc(RADIUS)].sum()
    calibration = float(np.median(ratios)) * whole
    scatter = max(1.4826 * float(np.median(abs(ratios / np.median(ratios) - 1))), CATALOGUE_ERROR)
    image = np.where(_disc(RADIUS), middle / whole, 0)
    return Psf(image, error / whole, ndimage.spline_filter(image, order=5), calibration, scatter, len(images))


def _quiet_wings(image, error):
    """Return a PSF and its error with the rings' means where single pixels are lost in noise.

    Noise in the PSF is noise in the regressor: it draws fitted fluxes towards 0.
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
    return Psf(image, 0 * image, ndimage.spline_filter(image, order=5), 1.0, UNCALIBRATED_ERROR, 0)


def _unit(psf, window):
    """Image of a star of flux 1 at the position of a window."""
    places = np.broadcast_arrays(window.dy + RADIUS, window.dx + RADIUS)
    # What a spline overshoots below 0 is no light.
    return np.maximum(ndimage.map_coordinates(psf.spline, places, order=5, prefilter=False, mode="constant"), 0)


def _error(psf, window):
    places = np.broadcast_arrays(window.dy + RADIUS, window.dx + RADIUS)
    return ndimage.map_coordinates(psf.error, places, order=1, mode="nearest")


# --- the fit ---------------------------------------------------------------------------------------------------------


def _fit(planes, field, psf, star, lost_bits):
    """Return the damaged star of an index, by its own pixels if they tell enough, else by the catalogue."""
    stars = field.stars
    x, y, flux = float(stars.x[star]), float(stars.y[star]), float(field.flux[star])
    catalogue = _Fit(int(star), x, y, flux, psf.scatter, False)
    window = _window(planes.flux.shape, x, y)
    lost = _lost(planes, window.box, lost_bits)
    # What touches a lost pixel may have been lost in some of the stacked exposures.
    usable = ~ndimage.binary_dilation(lost, np.ones((3, 3))) & ((planes.mask[window.box] & _UNTRUSTED) == 0)
    usable &= window.r <= RADIUS
    if psf.stars == 0 or usable.sum() < 2 * (MOST_NEIGHBOURS + 4):
        return catalogue
    data = planes.flux[window.box][usable].astype(np.float64)
    variance = planes.variance[window.box][usable].astype(np.float64)
    if not variance.max() > 0:
        return catalogue
    fixed, neighbours, priors = _neighbours(field, psf, star, window, math.sqrt(np.median(variance)))
    problem = _Problem(data - fixed[usable], variance, [one[usable] for one in neighbours], priors, window, usable)
    fitted = _least_squares(problem, psf, catalogue)
    right = (
        fitted.error < max(LARGEST_FIT_ERROR, psf.scatter)
        and 1 / LARGEST_FACTOR < fitted.flux / flux < LARGEST_FACTOR
        and math.hypot(fitted.x - x, fitted.y - y) < LARGEST_SHIFT
    )
    return fitted if right else catalogue


def _neighbours(field, psf, star, window, noise):
    """Return the light of faint neighbours, and each bright one's with the prior scatter of its flux."""
    place = field.stars.x[star], field.stars.y[star]
    near = np.array(field.tree.query_ball_point(place, 2 * RADIUS), np.intp)
    near = near[(near != star) & (field.flux[near] * psf.image.max() > noise)]
    near = near[np.argsort(-field.flux[near], kind="stable")]
    fixed, bright, priors = np.zeros(np.broadcast_shapes(window.dx.shape, window.dy.shape)), [], []
    for other in near:
        moved = _Window(
            window.box, window.dx + place[0] - field.stars.x[other], window.dy + place[1] - field.stars.y[other]
        )
        light = field.flux[other] * _unit(psf, moved)
        if len(bright) < MOST_NEIGHBOURS and field.flux[other] > NEIGHBOUR_FRACTION * field.flux[star]:
            bright.append(light)
            priors.append(PRIOR_DAMAGED if other in field.damaged else PRIOR_NEIGHBOUR)
        else:
            fixed += light
    return fixed, bright, priors


class _Problem(NamedTuple):
    """Usable pixels about a damaged star, and what may shine there besides it."""

    data: np.ndarray  # (n,)
    variance: np.ndarray  # (n,)
    neighbours: list  # of arrays (n,)
    priors: list  # relative scatter of the neighbours' flux
    window: _Window
    usable: np.ndarray


def _least_squares(problem, psf, start):
    """Fit flux, position, neighbours' fluxes and a constant sky by iterated reweighting; linearised in the position."""
    flux, x, y = start.flux, start.x, start.y
    columns = np.array([*problem.neighbours, np.ones(problem.data.size)])
    level = np.append(np.ones(len(problem.neighbours)), 0.0)
    # In units of the prior: star's flux, x, y, neighbours' fluxes; the sky has none.
    inverse = (
        np.array([1 / PRIOR_DAMAGED, 1 / PRIOR_SHIFT, 1 / PRIOR_SHIFT, *(1 / p for p in problem.priors), 0.0]) ** 2
    )
    psf_error = _error(psf, problem.window)[problem.usable]
    error = math.inf
    for _ in range(_ITERATIONS):
        shifted = _Window(problem.window.box, problem.window.dx + start.x - x, problem.window.dy + start.y - y)
        image = _unit(psf, shifted)
        slope_y, slope_x = np.gradient(image)
        own = flux * image[problem.usable]
        others = level[:-1] @ columns[:-1]
        rest = problem.data - own - level @ columns
        variance = problem.variance + PSF_ERROR**2 * (own**2 + others**2)
        variance += (flux * psf_error) ** 2
        pull = rest / np.sqrt(variance)
        spread = max(1.0, 1.4826 * float(np.median(abs(pull))))
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
    return _Fit(start.star, x, y, flux, math.hypot(CORRELATED * error, PSF_ERROR), True)


# --- what is done to the planes --------------------------------------------------------------------------------------


def _targets(planes, psf, fit, lost_bits):
    """Return the window of a star and which of its lost pixels it would have outshone."""
    window = _window(planes.flux.shape, fit.x, fit.y)
    lost = _lost(planes, window.box, lost_bits)
    left = planes.variance[window.box][~lost]
    noise = math.sqrt(float(np.median(left))) if left.size else 0.0
    axis = np.arange(RADIUS + 1)
    profile = ndimage.map_coordinates(psf.image, [np.full(RADIUS + 1, RADIUS), RADIUS + axis], order=1)
    bright = np.flatnonzero(fit.flux * profile > noise)
    reach = max(CORE_RADIUS, float(bright.max(initial=0)))
    return window, lost & (window.r <= reach), lost


def _clear(planes, psf, fits, lost_bits):
    """Set to 0 and mark the lost pixels of damaged stars; return each star's window, own and all lost pixels."""
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
    """Give cleared pixels the light of the undamaged stars about them."""
    damaged = set(field.damaged.tolist())
    places = [(fit.x, fit.y) for fit in fits]
    near = {other for indices in field.tree.query_ball_point(places, 2 * RADIUS) for other in indices} - damaged
    for other in sorted(near):
        window = _window(planes.flux.shape, field.stars.x[other], field.stars.y[other])
        cleared = (planes.missing[window.box] & masks.REPAIRED) != 0
        if cleared.any():
            _add(planes, window, cleared, field.flux[other] * _unit(psf, window), psf.scatter)


def _add(planes, window, where, light, error):
    """Add light to pixels, with the variance that the notes of `treat` explain; return how much was added."""
    some = light[where]
    total = float(some.sum())
    planes.flux[window.box][where] += some.astype(np.float32)
    planes.variance[window.box][where] += (error**2 * abs(total) * abs(some)).astype(np.float32)
    return total


def _repair(planes, field, psf, fits, lost_bits):
    """Put the damaged stars' light into their lost pixels; return how much of each."""
    targets = _clear(planes, psf, fits, lost_bits)
    _add_undamaged(planes, field, psf, fits)
    shares = []
    for fit, (window, _, _) in zip(fits, targets, strict=True):
        cleared = (planes.missing[window.box] & masks.REPAIRED) != 0
        shares.append(_add(planes, window, cleared, fit.flux * _unit(psf, window), fit.error))
    return shares


def _remove(planes, field, psf, fits, lost_bits):
    """Take the damaged stars' light out of the pixels that are left; return how much of each."""
    targets = _clear(planes, psf, fits, lost_bits)
    _add_undamaged(planes, field, psf, fits)
    shares = []
    for fit, (window, _, lost) in zip(fits, targets, strict=True):
        left = ~lost & (window.r <= RADIUS)
        shares.append(_add(planes, window, left, -fit.flux * _unit(psf, window), fit.error))
        planes.missing[window.box][left] |= masks.REPAIRED
    return shares
