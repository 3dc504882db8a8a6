"""A series of difference images: what all of them have in common, and the flux that changes."""

from typing import NamedTuple

import numba
import numpy as np

#: Rows that are in memory at once for all frames of a series.
ROWS = 64

#: With fewer good frames an orbit has no residual of its own: its noise would be that of the frames.
FEWEST_FRAMES = 5


class RelativeFlux(NamedTuple):
    """A light curve against its own baseline, arrays of shape (frames,).

    Attributes
    ----------
    flux : ndarray of float64
        Flux minus that of the baseline.
    error : ndarray of float64
        From frame to frame, as in the light curve.
    baseline : float
        What was taken off; NaN if no baseline frame has a flux.
    baseline_error : float
        Its error, common to all frames.
    """

    flux: np.ndarray
    error: np.ndarray
    baseline: float
    baseline_error: float


@numba.njit(cache=True, nogil=True)
def _median_of_frames(block, good, out):
    """Median over the good frames of each pixel; NaN where none has a value."""
    frames, ny, nx = block.shape
    values = np.empty(frames, np.float32)
    for y in range(ny):
        for x in range(nx):
            n = 0
            for t in range(frames):
                if good[t] and not np.isnan(block[t, y, x]):
                    values[n] = block[t, y, x]
                    n += 1
            if n == 0:
                out[y, x] = np.nan
            else:
                part = np.partition(values[:n], (n - 1) // 2)
                low = part[(n - 1) // 2]
                high = low
                if n % 2 == 0:
                    high = part[n // 2 :].min()
                out[y, x] = (low + high) / 2


def series_residual(differences, good, keep_out=None, rows=ROWS):
    """Return what the difference images of a series have in common.

    Wrong colors, repaired stars and cores of galaxies leave the same residual in each frame; the median of the frames
    takes them off, and leaves what changes.

    Parameters
    ----------
    differences : array_like of float32, shape (frames, ny, nx)
        Difference images; NaN = none. Only `rows` rows of it are read at once, so that it may be a memory map.
    good : ndarray of bool, shape (frames,)
        Which frames to use: those without quality flags, of one orbit.
    keep_out : ndarray of bool, shape (ny, nx), or None
        Surroundings of targets: a slow transient would be taken for a constant residual there.
    rows : int, default `ROWS`
        Rows in memory at once.

    Returns
    -------
    ndarray of float32, shape (ny, nx)
        NaN in `keep_out` and where no good frame has a difference.
    """
    good = np.asarray(good, bool)
    ny, nx = differences.shape[1:]
    residual = np.full((ny, nx), np.nan, np.float32)
    if good.any():
        for first in range(0, ny, rows):
            block = np.ascontiguousarray(differences[:, first : first + rows], np.float32)
            _median_of_frames(block, good, residual[first : first + rows])
    if keep_out is not None:
        residual[keep_out] = np.nan
    return residual


def orbit_residuals(differences, orbit, good, keep_out=None, rows=ROWS):
    """Return the residual of a series for each of its orbits.

    Parameters
    ----------
    differences, good, keep_out, rows
        As in `series_residual`.
    orbit : ndarray of int, shape (frames,)
        To which orbit each frame belongs.

    Returns
    -------
    orbits : ndarray of int, shape (n,)
        The orbits, in ascending order.
    residuals : ndarray of float32, shape (n, ny, nx)
        Their residuals. An orbit with fewer than `FEWEST_FRAMES` good frames shares that of the whole series.
    """
    orbit, good = np.asarray(orbit), np.asarray(good, bool)
    orbits = np.unique(orbit)
    residuals = np.empty((len(orbits), *differences.shape[1:]), np.float32)
    for k, number in enumerate(orbits):
        own = good & (orbit == number)
        residuals[k] = series_residual(
            differences, own if np.count_nonzero(own) >= FEWEST_FRAMES else good, keep_out, rows
        )
    return orbits, residuals


def flux_against_baseline(flux, error, baseline):
    """Return a light curve minus its mean over some frames.

    Parameters
    ----------
    flux, error : ndarray of float64, shape (frames,)
        Light curve and its errors from frame to frame; NaN = none.
    baseline : ndarray of bool, shape (frames,)
        Frames before the explosion, or all good frames of a variable star.

    Returns
    -------
    RelativeFlux
        The weighted mean is taken off. Errors that all frames share, those of the template, go with it.
    """
    use = np.asarray(baseline, bool) & np.isfinite(flux) & (error > 0)
    if not use.any():
        return RelativeFlux(np.full(np.shape(flux), np.nan), np.asarray(error, float), np.nan, np.nan)
    weight = 1 / np.asarray(error, float)[use] ** 2
    level = float((weight * np.asarray(flux, float)[use]).sum() / weight.sum())
    return RelativeFlux(flux - level, np.asarray(error, float), level, float(weight.sum() ** -0.5))
