"""Gaussians integrated over pixels: the one brush with which the made-up sky is painted.

Stars and galaxies are sums of two-dimensional Gaussians here, so that blurring with a further
Gaussian only adds covariances and the truth of every product is known in closed form.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numba
import numpy as np

REACH = 6.5  # standard deviations rendered; 7e-10 of the flux lies beyond

# Five Gauss-Legendre nodes on a panel of at most one standard deviation are right to 1e-11.
_NODES, _NODE_WEIGHTS = np.polynomial.legendre.leggauss(5)

ARCSEC = math.radians(1 / 3600)


class Gaussians(NamedTuple):
    """Two-dimensional Gaussians on an image; each field is a float64 array of shape (n,).

    Attributes
    ----------
    x, y : ndarray
        Centres, 0-based pixels.
    flux : ndarray
        Integrals.
    cxx, cxy, cyy : ndarray
        Covariances, pixels squared.
    """

    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray
    cxx: np.ndarray
    cxy: np.ndarray
    cyy: np.ndarray


class Mixture(NamedTuple):
    """A round profile as a sum of Gaussians.

    Attributes
    ----------
    fractions : ndarray of float64, shape (k,)
        Share of the flux in each, sum 1.
    variances : ndarray of float64, shape (k,)
        Variance of each along one axis.
    """

    fractions: np.ndarray
    variances: np.ndarray


POINT = Mixture(np.ones(1), np.zeros(1))

_DISC_AMPLITUDES = np.array([2.34853813e-03, 3.07995260e-02, 2.23364214e-01, 1.17949102, 4.33873750, 5.99820770])
_DISC_VARIANCES = np.array([1.20078965e-03, 8.84526493e-03, 3.91463084e-02, 1.39976817e-01, 4.60962500e-01, 1.50159566])
# An exponential disc of half-light radius 1 (Hogg & Lang 2013, PASP 125, 719); enclosed flux right to 1.3 %.
DISC = Mixture(_DISC_AMPLITUDES / _DISC_AMPLITUDES.sum(), _DISC_VARIANCES)


def gaussian_star(fwhm: float) -> Mixture:
    """Star image that is one Gaussian of full width `fwhm` at half maximum; the variance is in its unit squared."""
    return Mixture(np.ones(1), np.array([fwhm**2 / (8 * math.log(2))]))


@numba.njit(cache=True, nogil=True)
def _deposit(image, sources, nodes, weights, reach):
    ny, nx = image.shape
    for k in range(sources.x.size):
        x, y = sources.x[k], sources.y[k]
        sigma_x, sigma_y = math.sqrt(sources.cxx[k]), math.sqrt(sources.cyy[k])
        first_column = max(0, math.floor(x - reach * sigma_x + 0.5))
        last_column = min(nx - 1, math.floor(x + reach * sigma_x + 0.5))
        first_row = max(0, math.floor(y - reach * sigma_y + 0.5))
        last_row = min(ny - 1, math.floor(y + reach * sigma_y + 0.5))
        if first_column > last_column or first_row > last_row:
            continue
        # On a line of constant y a tilted Gaussian is again one, about a centre that moves along with y.
        slope = sources.cxy[k] / sources.cyy[k]
        inverse = 1.0 / math.sqrt(2.0 * (sources.cxx[k] - slope * sources.cxy[k]))
        amplitude = 0.5 * sources.flux[k] / (sigma_y * math.sqrt(2.0 * math.pi))
        for row in range(first_row, last_row + 1):
            low = max(row - 0.5, y - reach * sigma_y)
            high = min(row + 0.5, y + reach * sigma_y)
            panels = math.ceil((high - low) / sigma_y)
            if panels < 1:
                continue
            half = 0.5 * (high - low) / panels
            for panel in range(panels):
                for n in range(nodes.size):
                    dy = low + (2 * panel + 1 + nodes[n]) * half - y
                    share = amplitude * weights[n] * half * math.exp(-0.5 * (dy / sigma_y) ** 2)
                    centre = x + slope * dy
                    left = math.erf((first_column - 0.5 - centre) * inverse)
                    for column in range(first_column, last_column + 1):
                        right = math.erf((column + 0.5 - centre) * inverse)
                        image[row, column] += share * (right - left)
                        left = right


def deposit(image: np.ndarray, sources: Gaussians) -> None:
    """Add Gaussians, integrated over the pixels, to an image.

    Exact in x (error functions), Gauss-Legendre in y on panels no wider than the Gaussian: right to 1e-9 of its flux
    for any width, also for one much narrower than a pixel.

    Parameters
    ----------
    image : ndarray of float32 or float64, shape (ny, nx)
        Changed in place.
    sources : Gaussians
        Covariances must be positive definite.

    Raises
    ------
    ValueError
        If a covariance is not positive definite.
    """
    determinant = sources.cxx * sources.cyy - sources.cxy**2
    if sources.x.size and not (determinant.min() > 0 and sources.cxx.min() > 0):
        worst = int(np.argmin(determinant))
        raise ValueError(
            f"Gaussian {worst} has no width (cxx {sources.cxx[worst]}, cxy {sources.cxy[worst]}, "
            f"cyy {sources.cyy[worst]}); give it a positive definite covariance"
        )
    _deposit(image, sources, _NODES, _NODE_WEIGHTS, REACH)


def displaced(ra, dec, east: float, north: float) -> tuple[np.ndarray, np.ndarray]:
    """Move sky positions by small steps in the tangent plane, also at a pole.

    Parameters
    ----------
    ra, dec : ndarray of float64, shape (n,)
        Degrees.
    east, north : float
        Steps, arcsec.

    Returns
    -------
    ra, dec : ndarray of float64, shape (n,)
        Degrees.
    """
    a, d = np.radians(ra), np.radians(dec)
    e, n = east * ARCSEC, north * ARCSEC
    x = np.cos(d) * np.cos(a) - e * np.sin(a) - n * np.sin(d) * np.cos(a)
    y = np.cos(d) * np.sin(a) + e * np.cos(a) - n * np.sin(d) * np.sin(a)
    z = np.sin(d) + n * np.cos(d)
    return np.degrees(np.arctan2(y, x)) % 360, np.degrees(np.arctan2(z, np.hypot(x, y)))


def sky_jacobian(to_pixel: Callable, ra, dec, step: float = 5.0) -> np.ndarray:
    """Differentiate pixel position by sky position, numerically.

    Parameters
    ----------
    to_pixel : callable
        (ra, dec) in degrees to (x, y) in pixels.
    ra, dec : ndarray of float64, shape (n,)
        Where, degrees.
    step : float
        Half the span of the central difference, arcsec: wide against rounding, narrow against distortion.

    Returns
    -------
    ndarray of float64, shape (n, 2, 2)
        d(x, y) / d(east, north), pixels per arcsec.
    """
    columns = []
    for east, north in ((step, 0.0), (0.0, step)):
        ahead = np.stack(to_pixel(*displaced(ra, dec, east, north)), axis=-1)
        behind = np.stack(to_pixel(*displaced(ra, dec, -east, -north)), axis=-1)
        columns.append((ahead - behind) / (2 * step))
    return np.stack(columns, axis=-1)
