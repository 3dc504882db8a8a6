"""What is sky and what is source."""

import numba
import numpy as np
import sep

from .mask import PS1
from .spread import robust_sigma

#: Methods of `remove_background`.
METHODS = ("segment", "mesh", "none")

#: A source is where the image, smoothed by 3 x 3 pixels, exceeds this many times its noise [standard deviations of one
#: native pixel]: SExtractor's default. For white noise it is 4 times the noise of the smoothed image.
DETECTION_SIGMA = 1.5

#: A source has at least this many pixels that touch each other, corners included: SExtractor's default. A PS1 star
#: (FWHM 4.4 px, docs/facts.md §2) has 15 above half its peak.
DETECTION_PIXELS = 5

#: Side of the meshes in which sky level and noise are measured before detection [native px]: 256", so that the sky does
#: not follow a galaxy. In meshes of 64 px, sep's default, it rises to half of a galaxy of half-light radius 30".
DETECTION_MESH = 1024

#: The sky is measured on every 4th row: 0.9 s less for a skycell. It moves the sky by 0.03 of the noise, so that at the
#: rims of sources 0.9 % of their pixels (5e-5 of all) change sides.
SKY_EVERY = 4

#: Extended sources are detected on means of this many native px squared, 4": 16 times deeper for white noise.
COARSE_BIN = 16

#: An extended source exceeds this many standard deviations of those means, in at least so many that touch.
COARSE_SIGMA = 3.0
COARSE_PIXELS = 9

#: Side of the meshes of the sky to be subtracted [native px], 64".
SKY_MESH = 256

#: Pixels with these bits are not used to measure the sky.
NOT_SKY = (PS1.SAT | PS1.SPIKE | PS1.GHOST | PS1.STREAK | PS1.STARCORE).value


def remove_background(flux, variance, mask, method):
    """Subtract the sky.

    Parameters
    ----------
    flux, variance : ndarray of float32, shape (ny, nx)
        Combined flux [counts/s] and its variance; NaN where there is no data.
    mask : ndarray of uint16, shape (ny, nx)
        PS1 mask bits; those of `NOT_SKY` exclude a pixel from the estimate of the sky.
    method : {"segment", "mesh", "none"}
        ``none``: change nothing, because the sky of PS1 stacks is already subtracted.
        ``segment``: set flux and variance of pixels outside sources (`sources`) to exactly 0; pixels of sources keep
        theirs. The faint outskirts of sources are lost: a star that peaks at p standard deviations loses about
        `DETECTION_SIGMA` / p of its flux.
        ``mesh``: subtract a smooth sky (`sep.Background`, meshes of `SKY_MESH` px) measured outside sources; the
        variance stays.

    Returns
    -------
    flux, variance : ndarray of float32, shape (ny, nx)
        New arrays, or the given ones where nothing changes. NaN stays NaN.

    Raises
    ------
    ValueError
        If `method` is none of these.
    """
    if method not in METHODS:
        raise ValueError(f"background is {method!r}: choose one of {', '.join(METHODS)}")
    if method == "none" or not np.isfinite(flux).any():
        return flux, variance
    source = sources(flux, mask)
    if method == "mesh":
        return flux - _sky(flux, mask, SKY_MESH, 1, source).back(dtype=np.float32), variance
    return _kept(flux, variance, source)


def sources(flux, mask, every=SKY_EVERY):
    """Detect the pixels of sources, compact and extended ones.

    Parameters
    ----------
    flux : ndarray of float32, shape (ny, nx)
        Flux [counts/s]; NaN where there is no data.
    mask : ndarray of uint16, shape (ny, nx)
        PS1 mask bits.
    every : int
        The sky is measured on every so many rows; 1 for all.

    Returns
    -------
    source : ndarray of bool, shape (ny, nx)
        True for pixels of sources. Blank pixels are not sources, except within extended ones.
    """
    flux = np.ascontiguousarray(flux, np.float32)
    sky = _sky(flux, mask, DETECTION_MESH, every)
    level = sky.back(dtype=np.float32)
    source = compact_sources(flux, level, sky.globalrms, every)
    return _with_extended(source, extended_sources(flux, level, every))


def compact_sources(flux, level, noise, every=1):
    """Detect sources above `DETECTION_SIGMA` of a pixel's noise.

    The pixels of ``sep.extract(flux - level, DETECTION_SIGMA, err=noise, minarea=DETECTION_PIXELS, clean=False,
    mask=isnan(flux))`` with its default 3 x 3 filter, found without sep's pixel stacks, object limits and lists of
    objects, which are not needed here: some 10 times faster, without the GIL, and safe in crowded fields.

    Parameters
    ----------
    flux : ndarray of float32, shape (ny, nx)
        Flux [counts/s]; NaN where there is no data.
    level : ndarray of float32, shape (ceil(ny / every), nx)
        Sky [counts/s] of every so many rows.
    noise : float
        Standard deviation of a sky pixel [counts/s].
    every : int

    Returns
    -------
    source : ndarray of bool, shape (ny, nx)

    Notes
    -----
    sep's cleaning, omitted here, drops some faint sources in the wings of bright ones: 0.1 % of the pixels of sources.
    """
    above = _above(flux, level, every, DETECTION_SIGMA * noise)
    _drop_small(above, _run_count(above), DETECTION_PIXELS)
    return above


def extended_sources(flux, level, every=1):
    """Detect sources of low surface brightness, such as the disks of galaxies, on means of `COARSE_BIN` squared pixels.

    Parameters
    ----------
    flux, level, every
        As `compact_sources` takes them.

    Returns
    -------
    source : ndarray of bool, shape (ny // COARSE_BIN, nx // COARSE_BIN)
        Of whole coarse pixels; pixels beyond the last whole one are not searched.
    """
    ny, nx = (n // COARSE_BIN for n in flux.shape)
    mean = np.full((ny, nx), np.nan, np.float32)
    _coarse_means(flux, level, every, mean)
    found = np.isfinite(mean)
    if not found.any():
        return np.zeros((ny, nx), np.bool_)
    rest = mean[found]
    # Faint sources skew the means: their median is the level, and the half below it gives the noise.
    middle = np.median(rest)
    noise = robust_sigma(rest[rest <= middle] - middle)
    above = np.where(found, mean, middle) > middle + COARSE_SIGMA * noise
    _drop_small(above, _run_count(above), COARSE_PIXELS)
    return above


@numba.njit(cache=True, nogil=True)
def _coarse_means(flux, level, every, mean):
    """Fill in the means of flux above the sky; NaN where fewer than half of the pixels have data."""
    for j in range(mean.shape[0]):
        for i in range(mean.shape[1]):
            total, count = 0.0, 0
            for y in range(j * COARSE_BIN, (j + 1) * COARSE_BIN):
                row = level[y // every]
                for x in range(i * COARSE_BIN, (i + 1) * COARSE_BIN):
                    difference = flux[y, x] - row[x]
                    if np.isfinite(difference):
                        total += difference
                        count += 1
            if 2 * count >= COARSE_BIN * COARSE_BIN:
                mean[j, i] = total / count


@numba.njit(cache=True, nogil=True)
def _with_extended(source, extended):
    """Add the pixels of extended sources, and of the coarse pixels around them, to `source`; return it."""
    ny, nx = extended.shape
    for j in range(ny):
        for i in range(nx):
            near = False
            for row in range(max(j - 1, 0), min(j + 2, ny)):
                for column in range(max(i - 1, 0), min(i + 2, nx)):
                    near |= extended[row, column]
            if near:
                source[j * COARSE_BIN : (j + 1) * COARSE_BIN, i * COARSE_BIN : (i + 1) * COARSE_BIN] = True
    return source


def _sky(flux, mask, mesh, every, source=None):
    """Return sky and noise of every so many rows, without pixels of `NOT_SKY` and of sources where others are left."""
    flux, mask = np.ascontiguousarray(flux[::every], np.float32), mask[::every]
    useless = _no_sky(flux, mask, NOT_SKY)
    if useless.all():
        useless = _no_sky(flux, mask, 0)
    if source is not None and not (useless | source[::every]).all():
        useless |= source[::every]
    return sep.Background(flux, mask=useless, bw=mesh, bh=max(mesh // every, 1))


@numba.njit(cache=True, nogil=True)
def _no_sky(flux, mask, bits):
    """Where a pixel is blank or has any of `bits`."""
    useless = np.empty(flux.shape, np.bool_)
    for y in range(flux.shape[0]):
        for x in range(flux.shape[1]):
            useless[y, x] = (not np.isfinite(flux[y, x])) | (mask[y, x] & bits != 0)
    return useless


@numba.njit(cache=True, nogil=True)
def _kept(flux, variance, source):
    """Flux and variance, 0 outside sources, but for blanks."""
    kept_flux, kept_variance = np.empty(flux.shape, np.float32), np.empty(flux.shape, np.float32)
    for y in range(flux.shape[0]):
        for x in range(flux.shape[1]):
            keep = source[y, x] | (not np.isfinite(flux[y, x]))
            kept_flux[y, x] = flux[y, x] if keep else 0
            kept_variance[y, x] = variance[y, x] if keep else 0
    return kept_flux, kept_variance


@numba.njit(cache=True, nogil=True)
def _above(flux, sky, every, threshold):
    """Where flux - sky, smoothed by (1 2 1) x (1 2 1) / 16, exceeds `threshold`; blanks and the outside count as 0.

    `sky` has one row for `every` rows of `flux`, and is interpolated between them.
    """
    ny, nx = flux.shape
    above = np.zeros((ny, nx), np.bool_)
    rows = np.zeros((3, nx), np.float32)  # y - 1, y, y + 1 in turn, at index modulo 3
    column = np.zeros(nx + 2, np.float32)
    limit = np.float32(16 * threshold)
    for y in range(-1, ny):
        newest = rows[(y + 1) % 3]
        newest[:] = 0
        if y + 1 < ny:
            row, next_row = (y + 1) // every, min((y + 1) // every + 1, sky.shape[0] - 1)
            _subtract(flux[y + 1], sky[row], sky[next_row], np.float32((y + 1) % every / every), newest)
        if y < 0:
            continue
        for x in range(nx):
            column[x + 1] = rows[0, x] + rows[1, x] + rows[2, x] + rows[y % 3, x]
        line = above[y]
        for x in range(nx):
            line[x] = column[x] + column[x + 1] + column[x + 1] + column[x + 2] > limit
    return above


@numba.njit(cache=True, nogil=True)
def _subtract(flux, sky, next_sky, share, out):
    for x in range(flux.size):
        difference = flux[x] - (sky[x] + share * (next_sky[x] - sky[x]))
        out[x] = difference if difference - difference == 0 else np.float32(0)


@numba.njit(cache=True, nogil=True)
def _run_count(above):
    count = 0
    for y in range(above.shape[0]):
        line = above[y]
        count += line[0]
        for x in range(1, line.size):
            count += line[x] & ~line[x - 1]
    return count


@numba.njit(cache=True, nogil=True)
def _drop_small(above, count, smallest):
    """Set to False, in place, what hangs together (corners included) in fewer than `smallest` pixels.

    Union-find over the `count` horizontal runs of True: the only memory taken is theirs.
    """
    row, start, end = np.empty(count, np.int32), np.empty(count, np.int32), np.empty(count, np.int32)
    parent, size = np.arange(count), np.zeros(count, np.int64)
    run = 0
    previous = 0  # first run of the row above that may still touch
    for y in range(above.shape[0]):
        first = run
        line = above[y]
        x = 0
        while x < line.size:
            if not line[x]:
                x += 1
                continue
            row[run], start[run] = y, x
            while x < line.size and line[x]:
                x += 1
            end[run] = x
            while previous < first and (row[previous] < y - 1 or end[previous] < start[run]):
                previous += 1
            other = previous
            while other < first and start[other] <= end[run]:
                _join(parent, other, run)
                other += 1
            run += 1
        previous = first
    for run in range(count):
        size[_root(parent, run)] += end[run] - start[run]
    for run in range(count):
        if size[_root(parent, run)] < smallest:
            above[row[run], start[run] : end[run]] = False


@numba.njit(cache=True, nogil=True)
def _root(parent, run):
    while parent[run] != run:
        parent[run] = parent[parent[run]]
        run = parent[run]
    return run


@numba.njit(cache=True, nogil=True)
def _join(parent, a, b):
    a, b = _root(parent, a), _root(parent, b)
    parent[max(a, b)] = min(a, b)
