"""When the light of a target, rather than that of a CCD's reference pixel, arrives at the barycenter.

SPOC refers the times of an FFI to the barycenter for one pixel of the CCD, TICA's are those of the spacecraft
(docs/facts.md §5). Across a CCD the difference is up to 75 s.
"""

import numpy as np
from astropy import constants
from astropy.coordinates import get_body_barycentric
from astropy.time import Time

from .tangent import unit_vectors

BTJD0 = 2457000
"""Julian date of BTJD and TJD 0 (BJDREFI of TESS headers)."""

REFERENCE_PIXEL = (1067.0, 1023.0)
"""0-based pixel of an FFI to which SPOC's barycentric correction belongs (BTC_PIX1 - 1, BTC_PIX2 - 1)."""

BEYOND_EARTH = 1.3
"""TESS is up to 1.3 light seconds from the Earth (apogee of 60 Earth radii) [s]."""

# Camera optics: radius on the detector = f (c1 tan a + c3 tan^3 a + ...) at angle a off the boresight, coefficients of
# the TESS flight software as the public package tess-point has them. One model for the four cameras fits measured WCS
# of all 16 CCDs to 3 arcsec, with a boresight off the corner of the CCD (0-based pixel; CCDs 1 and 3, CCDs 2 and 4).
_FOCAL_LENGTH_PX = 146.0 / 0.015  # [px]
_RADIAL = np.array([1.00000140, 0.28174612, -0.59667259, 9.17151267, -4.36928235])
_BORESIGHT = {1: (2145.0, 2097.0), 2: (-11.5, 2097.0), 3: (2145.0, 2097.0), 4: (-11.5, 2097.0)}
_TANGENTS = np.linspace(0.0, 0.4, 8001)
_RADII = _FOCAL_LENGTH_PX * (_TANGENTS[:, None] ** (1 + 2 * np.arange(5)) @ _RADIAL)


def earth_light_seconds(btjd):
    """Return where the Earth is.

    Parameters
    ----------
    btjd : array_like of float, shape (n,)
        TDB, days since `BTJD0`.

    Returns
    -------
    position : ndarray of float64, shape (n, 3)
        From the barycenter, ICRS [light seconds], by astropy's built-in ephemeris (right to 0.1 ms; no network); NaN
        where `btjd` is.
    """
    btjd = np.atleast_1d(np.asarray(btjd, float))
    known = np.isfinite(btjd)
    position = np.full((btjd.size, 3), np.nan)
    if known.any():
        earth = get_body_barycentric("earth", Time(BTJD0, btjd[known], format="jd", scale="tdb"), ephemeris="builtin")
        position[known] = earth.xyz.to_value("m").T / constants.c.value
    return position


def light_travel_days(direction, btjd):
    """Return how much later light from a direction arrives at the barycenter than at the Earth.

    Parameters
    ----------
    direction : array_like of float, shape (3,) or (n, 3)
        Unit vector, ICRS.
    btjd : array_like of float, shape (n,)
        Time at the Earth, TDB [d].

    Returns
    -------
    correction : ndarray of float64, shape (n,)
        To be added to times at the Earth [d].
    """
    return np.sum(earth_light_seconds(btjd) * direction, axis=-1) / 86400


def move_to_target(btjd, correction, reference, target):
    """Return barycentric times for a target from those for another direction.

    Parameters
    ----------
    btjd : array_like of float, shape (n,)
        BTJD for `reference` (TDB) [d].
    correction : array_like of float, shape (n,)
        Barycentric correction that `btjd` includes [d].
    reference, target : array_like of float, shape (3,)
        Unit vectors, ICRS.

    Returns
    -------
    btjd : ndarray of float64, shape (n,)
        BTJD for `target`. That TESS is not at the Earth's center cancels but for the angle between the two, so the
        error is below 0.2 s on one CCD.
    """
    difference = np.asarray(target, float) - np.asarray(reference, float)
    return np.asarray(btjd, float) + light_travel_days(difference, np.asarray(btjd, float) - correction)


def spacecraft_mjd_utc(btjd, correction):
    """Return the spacecraft's own time of barycentric times.

    Parameters
    ----------
    btjd : array_like of float
        Barycentric time (TDB) [d].
    correction : array_like of float
        Barycentric correction that `btjd` includes (BARYCORR of SPOC, TIMECORR of TESScut) [d].

    Returns
    -------
    mjd : ndarray of float64
        Modified Julian date, UTC; NaN where unknown.
    """
    tdb = np.atleast_1d(np.asarray(btjd, float) - correction)
    mjd = np.full(tdb.shape, np.nan)
    known = np.isfinite(tdb)
    if known.any():
        mjd[known] = Time(BTJD0, tdb[known], format="jd", scale="tdb").utc.mjd
    return mjd


def camera_direction(ccd, x, y):
    """Return the directions of pixels in the frame of a camera.

    Parameters
    ----------
    ccd : int
        1 to 4.
    x, y : array_like of float
        0-based pixels of a whole FFI.

    Returns
    -------
    direction : ndarray of float64, shape (..., 3)
        Unit vectors: along the columns of the CCD, along its rows, and along the boresight.
    """
    u, v = np.asarray(x, float) - _BORESIGHT[ccd][0], np.asarray(y, float) - _BORESIGHT[ccd][1]
    radius = np.hypot(u, v)
    tangent = np.interp(radius, _RADII, _TANGENTS)
    scale = np.where(radius > 0, tangent / np.maximum(radius, 1e-9), 1 / _FOCAL_LENGTH_PX)
    vector = np.stack([u * scale, v * scale, np.ones_like(scale)], axis=-1)
    return vector / np.linalg.norm(vector, axis=-1, keepdims=True)


def reference_direction(ccd, places, sky):
    """Return the direction of a CCD's `REFERENCE_PIXEL` from the WCS of a small part of it.

    Parameters
    ----------
    ccd : int
        1 to 4.
    places : array_like of float, shape (n, 2)
        At least two pixels (x, y) of the whole FFI, 0-based, not all the same.
    sky : array_like of float, shape (n, 2)
        RA, Dec of these [deg].

    Returns
    -------
    direction : ndarray of float64, shape (3,)
        Unit vector, ICRS. A linear WCS of 10 x 10 px at the CCD's corner gives it to some 0.05 degrees, which is 0.4 s;
        continuing that WCS linearly would err by up to 0.5 degrees.
    """
    camera = camera_direction(ccd, *np.transpose(places))
    vectors = unit_vectors(*np.transpose(sky))
    # The rotation that takes one set of vectors to the other (Wahba's problem), by singular values.
    left, _, right = np.linalg.svd(camera.T @ vectors)
    handed = np.diag([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    return camera_direction(ccd, *REFERENCE_PIXEL) @ left @ handed @ right
