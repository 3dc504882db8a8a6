"""Inverse SIP polynomials AP and BP of one image, fitted on its own pixels.

Programs that convert sky to pixels by these polynomials alone, as WCSTools does, are wrong by pixels without them.
"""

import math

import numpy as np
from numpy.polynomial import chebyshev
from numpy.polynomial.polynomial import polyval2d

from .tansip import MAX_ORDER

#: Largest error of the polynomials [px]; the order is the lowest that attains it.
TOLERANCE = 3e-4

#: Longer over shorter side of the rectangle fitted.
NARROWEST = 8

_SAMPLES = 40  # points along each side of the image: over twice as many as coefficients of the highest order


def inverse_keywords(tansip, shape):
    """Fit the inverse of a distortion on the pixels of an image.

    Parameters
    ----------
    tansip : TanSip
        World coordinates of the image.
    shape : (int, int)
        Rows and columns of the image (ny, nx).

    Returns
    -------
    dict
        The FITS keywords AP_ORDER, AP_p_q, BP_ORDER and BP_p_q; empty where there is no distortion.

    Notes
    -----
    The SIP convention (Shupe et al. 2005, ASP Conf. Ser. 347, 491) has u = U + AP(U, V) and v = V + BP(U, V), with the
    distortion-free offsets U = u + A(u, v) and V = v + B(u, v): these follow from the pixels directly, so the fit is
    linear. Terms of order 0 and 1 are part of it. Chebyshev polynomials about the center of the image keep it well
    conditioned for a small image far from CRPIX.
    """
    if not (np.any(tansip.a) or np.any(tansip.b)):
        return {}
    u, v = _grid(tansip, shape, _SAMPLES)
    plane = _undistorted(tansip, u, v)
    check = _grid(tansip, shape, _SAMPLES + 17)
    check_plane = _undistorted(tansip, *check)
    center, scale = _box(plane)
    best = None
    for order in range(1, MAX_ORDER + 1):
        fitted = [_fit(plane, shift, order, center, scale) for shift in (u - plane[0], v - plane[1])]
        errors = [check[axis] - check_plane[axis] - polyval2d(*check_plane, fitted[axis]) for axis in (0, 1)]
        error = float(np.max(np.hypot(*errors)))
        if best is None or error < best[0]:
            best = error, order, fitted
        if error < TOLERANCE:
            break
    _, order, fitted = best
    result = {}
    for name, coefficients in zip(("AP", "BP"), fitted, strict=True):
        result[f"{name}_ORDER"] = order
        for p in range(order + 1):
            for q in range(order + 1 - p):
                result[f"{name}_{p}_{q}"] = float(coefficients[p, q])
    return result


def _grid(tansip, shape, samples):
    """Return offsets from CRPIX of points spread over an image, its outer edges included.

    A narrow image is widened: along a single row, terms in V are not determined.
    """
    centers, half = [(length - 1) / 2 for length in shape[::-1]], [length / 2 for length in shape[::-1]]
    half = np.maximum(half, max(half) / NARROWEST)
    x, y = (np.linspace(center - one, center + one, samples) for center, one in zip(centers, half, strict=True))
    u, v = np.meshgrid(x - (tansip.crpix1 - 1), y - (tansip.crpix2 - 1))
    return u.ravel(), v.ravel()


def _undistorted(tansip, u, v):
    powers = np.arange(len(tansip.a))
    used = np.add.outer(powers, powers) < len(powers)
    return np.array([u + polyval2d(u, v, tansip.a * used), v + polyval2d(u, v, tansip.b * used)])


def _box(plane):
    """Return the center of some points and half the longer side of the rectangle around them."""
    low, high = plane.min(axis=1), plane.max(axis=1)
    return (low + high) / 2, float(np.max(high - low)) / 2


def _fit(plane, values, order, center, scale):
    """Return the coefficients c[p, q] of U^p V^q, p + q <= order, that fit values best."""
    t = (plane - center[:, None]) / scale
    powers = [(p, q) for p in range(order + 1) for q in range(order + 1 - p)]
    columns = chebyshev.chebvander(t[0], order), chebyshev.chebvander(t[1], order)
    matrix = np.stack([columns[0][:, p] * columns[1][:, q] for p, q in powers], axis=1)
    solution = np.linalg.lstsq(matrix, values, rcond=None)[0]
    along = [_monomials(order, center[axis], scale) for axis in (0, 1)]
    result = np.zeros((order + 1, order + 1))
    for (p, q), coefficient in zip(powers, solution, strict=True):
        result += coefficient * np.outer(along[0][p], along[1][q])
    return result


def _monomials(order, center, scale):
    """Return the coefficients of U^0 .. U^order in each Chebyshev polynomial of (U - center) / scale."""
    rows = np.zeros((order + 1, order + 1))
    for degree in range(order + 1):
        in_t = chebyshev.cheb2poly([0.0] * degree + [1.0])
        for power, coefficient in enumerate(in_t):
            for k in range(power + 1):
                rows[degree, k] += coefficient * math.comb(power, k) * (-center) ** (power - k) / scale**power
    return rows
