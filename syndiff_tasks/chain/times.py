"""Times of exposures: for a target at the barycenter, and the spacecraft's own."""

from typing import NamedTuple

import numpy as np

from syndiff_tasks.geometry import light_travel
from syndiff_tasks.geometry.tangent import unit_vectors
from syndiff_tasks.geometry.tansip import pixel_to_sky


class Times(NamedTuple):
    """Times of the middles of exposures; NaN where a frame has none.

    Attributes
    ----------
    target : ndarray of float64, shape (n,)
        BTJD (TDB) at the barycenter for the target's direction [d].
    frame : ndarray of float64, shape (n,)
        BTJD (TDB) as the frames have it: for the CCD's reference pixel [d].
    mjd_utc : ndarray of float64, shape (n,)
        Modified Julian date at the spacecraft, UTC [d].
    """

    target: np.ndarray
    frame: np.ndarray
    mjd_utc: np.ndarray


def times_of(frame, correction, reference, target):
    """Return the times of exposures.

    Parameters
    ----------
    frame : array_like of float, shape (n,)
        BTJD of the middles of exposures for the CCD's reference pixel: (TSTART + TSTOP) / 2 of a SPOC FFI, TIME of
        TESScut [d].
    correction : array_like of float, shape (n,)
        Barycentric correction in them: BARYCORR of a SPOC FFI, TIMECORR of TESScut [d].
    reference : ndarray of float64, shape (3,)
        Direction of the reference pixel, `ffi_reference` or `cutout_reference`.
    target : (float, float)
        RA, Dec of the target [deg].

    Returns
    -------
    Times
    """
    frame, correction = np.asarray(frame, float), np.asarray(correction, float)
    moved = light_travel.move_to_target(frame, correction, reference, unit_vectors(*target))
    return Times(moved, frame, light_travel.spacecraft_mjd_utc(frame, correction))


def ffi_reference(tansip, header):
    """Return the direction (unit vector) of the pixel to which a SPOC FFI's times belong, BTC_PIX1 and BTC_PIX2."""
    place = (header.get(f"BTC_PIX{axis}", pixel + 1) - 1 for axis, pixel in enumerate(light_travel.REFERENCE_PIXEL, 1))
    return unit_vectors(*(float(value) for value in pixel_to_sky(tansip, *place)))


def cutout_reference(tansip, shape, origin, ccd):
    """Return the direction (unit vector) of the pixel to which the times of a cut-out belong.

    Parameters
    ----------
    tansip : TanSip
        WCS of the cut-out.
    shape : tuple of int
        (ny, nx) of the cut-out.
    origin : tuple of int
        FFI pixel (x0, y0), 0-based, of its first pixel.
    ccd : int
        1 to 4.
    """
    ny, nx = shape
    corners = np.array([(0, 0), (nx - 1, 0), (0, ny - 1), (nx - 1, ny - 1)], float)
    sky = np.transpose(pixel_to_sky(tansip, *corners.T))
    return light_travel.reference_direction(ccd, corners + origin, sky)
