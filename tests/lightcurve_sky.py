"""A sky for tests of difference images and light curves: its own renderer, which shares no code with the product.

Stars of T 4.5 to 20.5, the PSF blended along x from two real PRFs (or from two analytic ones where the files are
absent), jitter, focus that changes from frame to frame, pointing, roll, scattered light, straps, bleeding, Poisson and
read noise. The template knows the stars with the errors that PS1 has: colors, repaired bright stars, noise; and the
PSF without jitter and focus.
"""

import math
from typing import NamedTuple

import numba
import numpy as np
from astropy.io import fits
from real_data import FOLDER
from scipy import ndimage
from scipy.special import erf

OVERSAMPLING = 9
STAMP = 13
PHASES = 36  # tabulated places of a star within its pixel, along each axis
EXPOSURE = 1425.6  # s, a 30-minute FFI without the cosmic-ray frames
READ_NOISE = 0.19  # e/s a pixel: 10 e a read, 720 reads
SATURATION = 9e4  # e/s a pixel
ZERO_POINT = 20.44
SCALE = 0.0150  # e/s of TESS for a count/s of the template
PS1_NOISE = 0.22  # e/s: noise of PS1 (5 sigma at 23.2, 23.1, 22.3, 21.3 in r, i, z, y) in a TESS pixel
JITTER = 0.12  # px
GAUSSIAN = 40 / 82  # px, the other kind of template
CELLS = 7.3  # the template's PSF is constant on so many fields along x: skycells of 0.4 degrees on 512 px

STAR, NOISE, SUPERNOVA, HOSTED, NEAR_BRIGHT, STEADY, VARIABLE, EMPTY, HOST = range(9)


class Sources(NamedTuple):
    """Point sources: position on the undisturbed frame [px], rate [e/s], rate in the template, magnitude, kind."""

    x: np.ndarray
    y: np.ndarray
    rate: np.ndarray
    in_template: np.ndarray
    magnitude: np.ndarray
    kind: np.ndarray


class Sky(NamedTuple):
    """Sources, side [px], tables of the two PSFs (true, template), straps (columns, strength), the seed, and
    the width [px] over which one PSF turns into the other."""

    sources: Sources
    size: int
    true_psf: np.ndarray
    template_psf: np.ndarray
    straps: tuple
    seed: int
    frames: int
    field: float


class Frame(NamedTuple):
    """One FFI and what the template of that frame says; `x`, `y` are where the WCS has each source of `targets`."""

    ffi: np.ndarray
    uncertainty: np.ndarray
    photon_noise: np.ndarray
    flux: np.ndarray
    variance: np.ndarray
    dq: np.ndarray
    x: np.ndarray
    y: np.ndarray
    rate: np.ndarray
    psf: np.ndarray


def _analytic_prf(sigma, elongation):
    """Two Gaussians integrated over pixels: a core, elongated along x, and wings with 10 % of the light."""
    at = (np.arange(STAMP * OVERSAMPLING) - STAMP * OVERSAMPLING // 2) / OVERSAMPLING

    def along(width):
        return (erf((at + 0.5) / (width * math.sqrt(2))) - erf((at - 0.5) / (width * math.sqrt(2)))) / 2

    return 0.9 * np.outer(along(sigma), along(sigma * elongation)) + 0.1 * np.outer(along(1.7), along(1.7))


def prfs():
    """Return two PRFs, 9 samples a pixel, without their pedestal; sums over pixels are 1."""
    files = sorted((FOLDER / "tess_prf").glob("*.fits"))
    if len(files) >= 2:
        images = [fits.getdata(path).astype(float) for path in files[:2]]
        for image in images:
            ring = np.concatenate([image[:9].ravel(), image[-9:].ravel(), image[:, :9].ravel(), image[:, -9:].ravel()])
            image -= np.median(ring)
    else:
        images = [_analytic_prf(0.55, 1.15), _analytic_prf(0.68, 1.0)]
    return [image / image.sum() * OVERSAMPLING**2 for image in images]


def _table(image):
    """Tabulate the pixel values of a star by its place in its pixel: (phase y, phase x, 13, 13)."""
    spline = ndimage.spline_filter(np.pad(image, 9), order=3)
    phases = np.arange(PHASES + 1) / PHASES - 0.5
    pixels = np.arange(STAMP) - STAMP // 2
    middle = (image.shape[0] - 1) / 2 + 9
    place = middle + (pixels[None, :] - phases[:, None]) * OVERSAMPLING
    rows, columns = np.broadcast_arrays(place[:, None, :, None], place[None, :, None, :])
    return ndimage.map_coordinates(spline, [rows, columns], order=3, prefilter=False)


def _gaussian_table(oversampling):
    """The same for the Gaussian template: pixels are 1 / oversampling px; the stamp grows accordingly."""
    n = STAMP * oversampling
    phases = np.arange(PHASES + 1) / PHASES - 0.5
    edges = np.arange(n + 1) / oversampling - STAMP / 2
    cumulative = erf((edges[None, :] - phases[:, None]) / (GAUSSIAN * math.sqrt(2))) / 2
    profile = np.diff(cumulative, axis=1)
    return profile[:, None, :, None] * profile[None, :, None, :]


@numba.njit(cache=True)
def _deposit(image, x, y, rate, blend, first, second, oversampling):
    """Add sources to an image; `blend` is the share of the second PSF."""
    ny, nx = image.shape
    stamp = first.shape[2]
    phases = first.shape[0] - 1
    for k in range(x.size):
        if rate[k] == 0.0:
            continue
        ix, iy = math.floor(x[k] + 0.5), math.floor(y[k] + 0.5)
        px, py = (x[k] - ix + 0.5) * phases, (y[k] - iy + 0.5) * phases
        jx, jy = min(int(px), phases - 1), min(int(py), phases - 1)
        fx, fy = px - jx, py - jy
        x0, y0 = (ix - 6) * oversampling, (iy - 6) * oversampling
        a, b = rate[k] * (1 - blend[k]), rate[k] * blend[k]
        for j in range(max(0, -y0), min(stamp, ny - y0)):
            for i in range(max(0, -x0), min(stamp, nx - x0)):
                p = (1 - fy) * (
                    (1 - fx) * (a * first[jy, jx, j, i] + b * second[jy, jx, j, i])
                    + fx * (a * first[jy, jx + 1, j, i] + b * second[jy, jx + 1, j, i])
                ) + fy * (
                    (1 - fx) * (a * first[jy + 1, jx, j, i] + b * second[jy + 1, jx, j, i])
                    + fx * (a * first[jy + 1, jx + 1, j, i] + b * second[jy + 1, jx + 1, j, i])
                )
                image[y0 + j, x0 + i] += p


@numba.njit(cache=True)
def _bleed(image, limit):
    """Move what exceeds the full well up and down its column."""
    ny, nx = image.shape
    for x in range(nx):
        for y in range(ny):
            excess = image[y, x] - limit
            if excess <= 0:
                continue
            image[y, x] = limit
            for step in (-1, 1):
                left = excess / 2
                to = y + step
                while left > 0 and 0 <= to < ny:
                    taken = min(left, max(limit - image[to, x], 0.0))
                    image[to, x] += taken
                    left -= taken
                    to += step


def make_sky(size=256, frames=6, seed=1, density=0.70, targets=(24, 12, 12, 24, 5, 24), straps=5, field=None):
    """Draw a sky.

    `density` is stars a pixel (0.70: 20,000 a square degree); `targets` how many isolated supernovae, supernovae on
    hosts, supernovae 3 px from stars of T 10 to 12, steady sources of T = 19, variables and empty places there are;
    `field` over how many px the PSF changes from one to the other, by default the side.
    """
    rng = np.random.default_rng(seed)
    margin = 8
    stars = rng.poisson(density * (size + 2 * margin) ** 2)
    low, high = 10 ** (0.3 * 4.5), 10 ** (0.3 * 20.5)
    magnitude = np.log10(rng.uniform(low, high, stars)) / 0.3
    x, y = rng.uniform(-margin, size + margin, (2, stars))
    rate = 10 ** (0.4 * (ZERO_POINT - magnitude))
    error = 0.003 * rng.standard_normal(stars)
    colored = rng.random(stars) < 0.35
    error[colored] = (rng.choice([-1, 1], stars) * rng.uniform(0.015, 0.042, stars))[colored]
    repaired = magnitude < 13
    error[repaired] = 0.03 * rng.standard_normal(np.count_nonzero(repaired))
    parts = [(x, y, rate, rate * (1 + error), magnitude, np.full(stars, STAR))]
    n = size * size
    nx, ny = rng.uniform(0, size, (2, n))
    noise = PS1_NOISE * rng.standard_normal(n)
    parts.append((nx, ny, np.zeros(n), noise, np.full(n, np.nan), np.full(n, NOISE)))
    bright = magnitude < 14.5
    taken = [np.stack([x[bright], y[bright]], axis=1)]
    reach_of = np.select([magnitude[bright] < 8, magnitude[bright] < 11], [4.0, 2.0], 1.0)

    def place(count, clear, apart=9.0):
        """Draw places that are `clear` px from bright stars and `apart` from other targets."""
        found = []
        while len(found) < count:
            spot = rng.uniform(10, size - 10, 2)
            away = np.hypot(*(taken[0] - spot).T)
            if (away > reach_of * clear).all() and all(math.dist(spot, other) > apart for other in taken[1:]):
                found.append(spot)
                taken.append(spot)
        return np.array(found).reshape(-1, 2).T

    def add(kind, places, rates=0.0, in_template=0.0, magnitudes=np.nan):
        px, py = places
        parts.append((px, py, *(np.broadcast_to(v, px.shape) for v in (rates, in_template, magnitudes, kind))))

    supernovae, hosted, near, steady, variables, empty = targets
    add(SUPERNOVA, place(supernovae, 3.5))
    hosts = place(hosted, 5.0)
    rate_13 = 10 ** (0.4 * (ZERO_POINT - 13))
    for hx, hy in hosts.T:
        wrong = 1 + 0.013 * rng.standard_normal()
        r, angle = rng.gamma(2, 0.4, 60), rng.uniform(0, 2 * np.pi, 60)
        light = (hx + r * np.cos(angle), hy + r * np.sin(angle))
        add(HOST, light, rate_13 / 60, rate_13 / 60 * wrong)
    add(HOSTED, hosts)
    inside = (x > 12) & (x < size - 12) & (y > 12) & (y < size - 12)
    chosen = np.flatnonzero((magnitude > 10) & (magnitude < 12) & inside)
    beside = []
    for k in rng.permutation(chosen):
        angle = rng.uniform(0, 2 * np.pi)
        spot = np.array([x[k] + 3 * np.cos(angle), y[k] + 3 * np.sin(angle)])
        others = np.hypot(*(taken[0] - spot).T) < 2.9
        if len(beside) < near and not others.any() and all(math.dist(spot, other) > 9 for other in taken[1:]):
            beside.append(spot)
            taken.append(spot)
    add(NEAR_BRIGHT, np.array(beside).reshape(-1, 2).T)
    add(STEADY, place(steady, 3.5), 10 ** (0.4 * (ZERO_POINT - 19)))
    add(VARIABLE, place(variables, 3.0), 600.0, 600.0, 13.5)
    add(EMPTY, place(empty, 3.5))
    sources = Sources(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    sharp = prfs()
    blurred = [ndimage.gaussian_filter(np.pad(p, 9), JITTER * OVERSAMPLING)[9:-9, 9:-9] for p in sharp]
    columns = rng.choice(np.arange(4, size - 4), straps, replace=False)
    return Sky(
        sources,
        size,
        np.stack([_table(p) for p in blurred]),
        np.stack([_table(p) for p in sharp]),
        (columns, rng.uniform(0.015, 0.03, straps)),
        seed,
        frames,
        float(field or size),
    )


def is_target(sky):
    """Return which sources are targets: their photometry is what is judged."""
    return np.isin(sky.sources.kind, [SUPERNOVA, HOSTED, NEAR_BRIGHT, STEADY, EMPTY])


def surroundings(sky):
    """Return the pixels within 3 px of targets and variable stars."""
    s = sky.sources
    keep_out = np.zeros((sky.size, sky.size), bool)
    chosen = is_target(sky) | (s.kind == VARIABLE)
    for x, y in zip(s.x[chosen], s.y[chosen], strict=True):
        keep_out[max(0, round(y) - 3) : round(y) + 4, max(0, round(x) - 3) : round(x) + 4] = True
    return keep_out


def brightness(sky, t):
    """Return the rate of each source at frame t: supernovae rise to 40 e/s, variables vary by 30 %."""
    s = sky.sources
    phase = (t + 0.5) / sky.frames
    rising = 40.0 * max(0.0, (phase - 0.3) / 0.7)
    rate = s.rate.copy()
    rate[np.isin(s.kind, [SUPERNOVA, HOSTED, NEAR_BRIGHT])] = rising
    variable = s.kind == VARIABLE
    rate[variable] *= 1 + 0.3 * math.sin(2 * np.pi * 2.3 * phase)
    return rate


def scattered_light(sky, t, strength):
    """Zodiacal light of 100 e/s, and scattered light that changes shape and strength."""
    rng = np.random.default_rng((sky.seed, t, 7))
    y, x = np.mgrid[: sky.size, : sky.size] / sky.size
    angle, cx, cy = rng.uniform(0, 2 * np.pi), *rng.uniform(0, 1, 2)
    slope = (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle) + 0.5
    bump = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 0.15)
    return 100 + strength * (0.6 * np.clip(slope, -0.2, 1.2) ** 2 + 0.4 * bump)


def _motion(sky, t):
    """Return shift, roll, focus and error of the WCS of frame t."""
    draw = np.random.default_rng((sky.seed, t, 3))
    shift = 0.05 * draw.standard_normal(2)
    roll = math.radians(5 / 3600) * draw.standard_normal()
    return shift, roll, draw.uniform(-0.05, 0.05), 0.007 * draw.standard_normal(2)


def positions(sky, t):
    """Return where sources are in frame t; the roll is that of a CCD of 2048 px, wherever the sky is smaller."""
    (dx, dy), roll, _, _ = _motion(sky, t)
    s, middle = sky.sources, sky.size / 2
    lever = roll * 2048 / sky.size
    return s.x + dx - lever * (s.y - middle), s.y + dy + lever * (s.x - middle)


def _blend(sky, t, x):
    """Return the share of the second PSF at x in frame t."""
    return np.clip(0.5 + (x - sky.size / 2) / sky.field + _motion(sky, t)[2], -0.05, 1.05)


def wrong_light(sky, t):
    """Return the light that the template lacks or has too much, as frame t sees it, without noise."""
    x, y = positions(sky, t)
    image = np.zeros((sky.size, sky.size))
    _deposit(image, x, y, brightness(sky, t) - sky.sources.in_template, _blend(sky, t, x), *sky.true_psf, 1)
    return image


def render(sky, t, gaussian=0, scattered=None, one_template=False):
    """Render frame t and its template.

    `gaussian` is the oversampling of a Gaussian template, 0 for one of the PRF; `scattered` the strength of scattered
    light [e/s] (drawn from 0 to 300 where None); with `one_template` the template is that of frame 0.
    """
    rng = np.random.default_rng((sky.seed, t))
    size, s = sky.size, sky.sources

    x, y = positions(sky, t)
    rate = brightness(sky, t)
    expected = np.zeros((size, size))
    _deposit(expected, x, y, rate, _blend(sky, t, x), *sky.true_psf, 1)
    if scattered is None:
        scattered = np.random.default_rng((sky.seed, t, 5)).uniform(0, 300)
    light = scattered_light(sky, t, scattered)
    light[:, sky.straps[0]] *= 1 + sky.straps[1]
    expected += light
    _bleed(expected, SATURATION)
    sigma = np.sqrt(np.maximum(expected, 1) / EXPOSURE + READ_NOISE**2)
    ffi = rng.poisson(np.maximum(expected, 0) * EXPOSURE) / EXPOSURE + READ_NOISE * rng.standard_normal(expected.shape)
    of = 0 if one_template else t
    wx, wy = (p + error for p, error in zip(positions(sky, of), _motion(sky, of)[3], strict=True))
    n = max(1, gaussian)
    flux = np.zeros((n * size, n * size))
    cell = 0.5 + ((np.floor(wx / size * CELLS) + 0.5) / CELLS - 0.5) * size / sky.field
    if gaussian:
        table = _gaussian_table(n)
        pair = table, table
    else:
        pair = sky.template_psf
    _deposit(flux, wx, wy, s.in_template / SCALE, cell, *pair, n)
    dq = np.zeros((n * size, n * size), np.int32)
    rows, columns = (np.mgrid[: n * size, : n * size] + 0.5) / n - 0.5
    for k in np.flatnonzero((s.kind == STAR) & (s.magnitude < 13)):
        y0, x0 = (max(0, int(n * (v - 3))) for v in (wy[k], wx[k]))
        box = np.s_[y0 : max(0, int(n * (wy[k] + 4))), x0 : max(0, int(n * (wx[k] + 4)))]
        dq[box] |= np.where(np.hypot(rows[box] - wy[k], columns[box] - wx[k]) < 2.0, 32, 0).astype(np.int32)
    targets = is_target(sky)
    variance = np.full(flux.shape, (PS1_NOISE / SCALE) ** 2 * (pair[0][18, 18] ** 2).sum(), np.float32)
    # The WCS of the frame is that of its own template.
    ox, oy = (p + error for p, error in zip((x, y), _motion(sky, t)[3], strict=True))
    psf = unit_sources(pair, ox[targets], oy[targets], cell[targets], n)
    return Frame(
        ffi.astype(np.float32),
        sigma.astype(np.float32),
        sigma,
        flux.astype(np.float32),
        variance,
        dq,
        ox[targets],
        oy[targets],
        rate[targets],
        psf,
    )


def unit_sources(pair, x, y, blend, oversampling):
    """Return the template's image of a source of 1 count/s at each position, 13 px wide about its pixel."""
    n = STAMP * oversampling
    stamps = np.zeros((len(x), n, n))
    for k in range(len(x)):
        at = np.array([v - math.floor(v + 0.5) + STAMP // 2 for v in (x[k], y[k])])
        _deposit(stamps[k], at[:1], at[1:], np.ones(1), blend[k : k + 1], *pair, oversampling)
    return stamps
