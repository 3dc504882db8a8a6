"""Gnomonic (tangent-plane) projections as 3 x 3 matrices, and sky positions as unit vectors."""

import math

import numpy as np

LONPOLE = 180.0  # [deg]; the FITS default at CRVAL2 = 90, the polar projection cell, is 0, half a turn away


def unit_vectors(ra, dec):
    """Convert sky positions to unit vectors.

    Parameters
    ----------
    ra, dec : array_like of float, shape (...)
        Degrees.

    Returns
    -------
    ndarray of float64, shape (..., 3)
    """
    ra, dec = np.broadcast_arrays(np.radians(np.asarray(ra, float)), np.radians(np.asarray(dec, float)))
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)


def sky_positions(vectors):
    """Convert vectors of any length to sky positions.

    Parameters
    ----------
    vectors : array_like of float, shape (..., 3)

    Returns
    -------
    ra, dec : ndarray of float64, shape (...)
        Degrees, `ra` in [0, 360).
    """
    x, y, z = np.moveaxis(np.asarray(vectors, float), -1, 0)
    ra = np.degrees(np.arctan2(y, x)) % 360
    # The remainder of a tiny negative angle rounds to 360 itself.
    return np.where(ra >= 360, 0.0, ra), np.degrees(np.arctan2(z, np.hypot(x, y)))


def tangent_frame(ra, dec, lonpole=LONPOLE):
    """Return the axes of the gnomonic projection about a sky position.

    Parameters
    ----------
    ra, dec : float
        Reference position CRVAL [deg].
    lonpole : float, optional
        LONPOLE [deg]; with 180 the second axis points north.

    Returns
    -------
    ndarray of float64, shape (3, 3)
        Rows: unit vectors of the first axis, the second axis and the reference position. ``frame @ vector`` is
        proportional to (xi, eta, 1) with xi, eta the projection plane coordinates in radians.

    Notes
    -----
    Calabretta & Greisen 2002, A&A 395, 1077, equations 2, 12, 13 and 54, for the TAN projection.
    """
    sin_ra, cos_ra = math.sin(math.radians(ra)), math.cos(math.radians(ra))
    sin_dec, cos_dec = math.sin(math.radians(dec)), math.cos(math.radians(dec))
    east = np.array([-sin_ra, cos_ra, 0.0])
    north = np.array([-sin_dec * cos_ra, -sin_dec * sin_ra, cos_dec])
    turn = math.radians(lonpole - 180)
    first = math.cos(turn) * east - math.sin(turn) * north
    second = math.sin(turn) * east + math.cos(turn) * north
    return np.array([first, second, [cos_dec * cos_ra, cos_dec * sin_ra, sin_dec]])


def pixel_to_plane(cd, crpix1, crpix2):
    """Return the matrix from pixels to the projection plane.

    Parameters
    ----------
    cd : array_like of float, shape (2, 2)
        Degrees per pixel.
    crpix1, crpix2 : float
        Reference pixel, 1-based.

    Returns
    -------
    ndarray of float64, shape (3, 3)
        Takes (x, y, 1), 0-based, to (xi, eta, 1) in radians.
    """
    matrix = np.identity(3)
    matrix[:2, :2] = np.radians(cd)
    matrix[:2, 2] = -matrix[:2, 0] * (crpix1 - 1) - matrix[:2, 1] * (crpix2 - 1)
    return matrix


def plane_to_pixel(cd, crpix1, crpix2):
    """Return the matrix from the projection plane to pixels, the inverse of `pixel_to_plane`.

    Parameters
    ----------
    cd, crpix1, crpix2
        As for `pixel_to_plane`.

    Returns
    -------
    ndarray of float64, shape (3, 3)
        Takes (xi, eta, 1) in radians to (x, y, 1), 0-based.
    """
    (a, b), (c, d) = np.radians(cd)
    return np.array([[d, -b, 0], [-c, a, 0], [0, 0, 0]]) / (a * d - b * c) + np.array(
        [[0, 0, crpix1 - 1], [0, 0, crpix2 - 1], [0, 0, 1]]
    )


def matrix_product(left, right):
    """Multiply two matrices with a result that does not depend on the processor.

    Templates are identical to the last bit on every host. BLAS, which ``@`` calls, sums in an order that depends on the
    processor, and all coordinates pass through these products.

    Parameters
    ----------
    left, right : ndarray of float64, shapes (i, j), (j, k)

    Returns
    -------
    ndarray of float64, shape (i, k)
    """
    return (left[:, :, None] * right).sum(axis=1)


def chord(angle):
    """Return the distance between two unit vectors.

    Parameters
    ----------
    angle : float
        Angle between them [deg]; more than 180 is taken as 180.

    Returns
    -------
    float
    """
    return 2 * math.sin(math.radians(min(angle, 180)) / 2)
