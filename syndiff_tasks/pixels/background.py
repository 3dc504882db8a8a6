"""What is sky and what is source."""

import numba
import numpy as np
import sep

from .mask import PS1

#: Ways to deal with the sky, see `remove_background`.
WAYS = ("segment", "mesh", "none")

#: A source is where the image, smoothed by 3 x 3 pixels, exceeds this many times its noise [standard deviations of one
#: native pixel]: SExtractor's default. For white noise it is 4 times the noise of the smoothed image.
DETECTION_SIGMA = 1.5

#: A source has at least this many pixels that touch each other, corners included: SExtractor's default. A PS1 star
#: (FWHM 4.4 px, docs/facts.md §2) has 15 above half its peak.
DETECTION_PIXELS = 5

#: Side of the meshes in which sky level and noise are found before sources are sought [native px]: sep's default.
DETECTION_MESH = 64

#: Sources are sought above a sky measured from every 4th row: 0.9 s less for a skycell, which is two thirds of all. It
#: moves the sky by 0.03 of the noise, so that at the rims of sources 0.9 % of their pixels (5e-5 of all) change sides;
#: meshes of 48 instead of 64 px do as much.
SKY_EVERY = 4

#: Side of the meshes of the sky to be subtracted [native px]. 64", twice TESS's PSF: a smaller one would subtract the
#: halos of stars and whole galaxies.
SKY_MESH = 256

#: Pixels with these bits tell nothing about the sky.
NOT_SKY = (PS1.SAT | PS1.SPIKE | PS1.GHOST | PS1.STREAK | PS1.STARCORE).value


def remove_background(flux, variance, mask, how):
    """Leave the sources, take the sky away.

    Parameters
    ----------
    flux, variance : ndarray of float32, shape (ny, nx)
        Combined flux [counts/s] and its variance; NaN where there is no data.
    mask : ndarray of uint16, shape (ny, nx)
        PS1 mask bits; those of `NOT_SKY` keep a pixel out of the estimate of the sky.
    how : {"segment", "mesh", "none"}
        ``segment``: pixels outside sources (`sources`) become exactly 0, and so does their variance: they are a
        constant then and have no noise. Pixels of sources stay as they are. The faint outskirts of a star count as sky
        then: one that peaks at p standard deviations loses about `DETECTION_SIGMA` / p of its flux.
        ``mesh``: a smooth sky (`sep.Background`, meshes of `SKY_MESH` px) is subtracted; the variance stays.
        ``none``: nothing changes, for the sky of PS1 stacks is subtracted already.

    Returns
    -------
    flux, variance : ndarray of float32, shape (ny, nx)
        New arrays, or the given ones where nothing changes. NaN stays NaN.

    Raises
    ------
    ValueError
        If `how` is another word.
    """
    if how not in WAYS:
        raise ValueError(f"background is {how!r}: choose one of {', '.join(WAYS)}")
    if how == "none" or not np.isfinite(flux).any():
        return flux, variance
    if how == "mesh":
        return flux - _sky(flux, mask, SKY_MESH, 1).back(dtype=np.float32), variance
    return _kept(flux, variance, sources(flux, mask))


def sources(flux, mask, every=SKY_EVERY):
    """Pixels that belong to a source.

    The pixels of ``sep.extract(flux - sky, DETECTION_SIGMA, err=noise, minarea=DETECTION_PIXELS, clean=False,
    mask=isnan(flux))`` with its default 3 x 3 filter, sky and noise from `sep.Background`: tested to be the same.
    Found here without the stacks, the object limits and the list of objects of sep, of which nothing is wanted but
    the pixels: that is some 10 times faster, does not hold the GIL and cannot overflow in a crowded field.

    Parameters
    ----------
    flux : ndarray of float32, shape (ny, nx)
        Flux [counts/s]; NaN where there is no data.
    mask : ndarray of uint16, shape (ny, nx)
        PS1 mask bits.
    every : int
        The sky is measured from every so many rows; 1 for all.

    Returns
    -------
    source : ndarray of bool, shape (ny, nx)
        True for the pixels of sources. A blank pixel counts as sky without noise.

    Notes
    -----
    sep's cleaning, left out, takes some faint sources near bright ones for bumps in their wings and drops them: 0.1 %
    of the pixels of sources. They are flux above the sky, so here they stay.
    """
    flux = np.ascontiguousarray(flux, np.float32)
    sky = _sky(flux, mask, DETECTION_MESH, every)
    above = _above(flux, sky.back(dtype=np.float32), every, DETECTION_SIGMA * sky.globalrms)
    _drop_small(above, _run_count(above), DETECTION_PIXELS)
    return above


def _sky(flux, mask, mesh, every):
    """Sky and noise of every so many rows; where every pixel has a bit of `NOT_SKY`, from those."""
    flux, mask = np.ascontiguousarray(flux[::every], np.float32), mask[::every]
    useless = _no_sky(flux, mask, NOT_SKY)
    if useless.all():
        useless = _no_sky(flux, mask, 0)
    return sep.Background(flux, mask=useless, bw=mesh, bh=mesh // every)


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
