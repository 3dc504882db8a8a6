"""Zero points, and a star's TESS magnitude and flux."""

from typing import NamedTuple

import numpy as np

#: AB magnitude of 1 count/s in the flux this package works in; PS1 stacks have it already (``FPA.ZP``).
PS1_ZERO_POINT = 25.0

#: Magnitude of 1 electron/s: TESS Instrument Handbook, section 6 (Vega system).
TESS_ZERO_POINT = 20.44

#: AB magnitude of Vega in the TESS band (docs/facts.md §4).
VEGA_IN_TESS = 0.372

#: AB magnitude of 1 electron/s: with it a template in electrons/s counts what TESS counts.
TESS_ZERO_POINT_AB = TESS_ZERO_POINT + VEGA_IN_TESS


class Unit(NamedTuple):
    """A unit of template flux.

    Attributes
    ----------
    name : str
        As FITS headers spell it.
    zero_point : float
        AB magnitude of one.
    """

    name: str
    zero_point: float


#: By the values of the setting ``units``.
UNITS = {"counts": Unit("count/s", PS1_ZERO_POINT), "electrons": Unit("electron/s", TESS_ZERO_POINT_AB)}


def tess_magnitude(g, bp, rp):
    """Compute TESS magnitudes from Gaia's.

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
    0.6 mag) where a color is unknown.
    """
    g, bp, rp = (np.asarray(one, np.float64) for one in (g, bp, rp))
    color = bp - rp
    with_color = g - 0.00522555 * color**3 + 0.0891337 * color**2 - 0.633923 * color + 0.0324473
    return np.where(np.isfinite(color), with_color, g - 0.430)


def expected_counts(magnitude):
    """Return the flux of stars in the weighted sum of the PS1 bands, before calibration (`star_psf.StarPsf`).

    Parameters
    ----------
    magnitude : array_like of float
        TESS magnitude.

    Returns
    -------
    flux : ndarray of float64, same shape
        [counts/s at zero point 25]
    """
    return 10.0 ** (-0.4 * (np.asarray(magnitude, np.float64) - PS1_ZERO_POINT))
