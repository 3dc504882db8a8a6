"""TAN-SIP world coordinates of an FFI.

Positions are computed for whole images at once. The distortion is inverted by iteration, because the inverse
polynomials of real headers are wrong by up to 0.26 px (docs/facts.md §3).
"""

import math
import warnings
from typing import NamedTuple

import numba
import numpy as np
from astropy.wcs import WCS, FITSFixedWarning, WcsError

from .ffi import frame_origin, header_number, science_region
from .region import SCIENCE, Region, clip
from .tangent import matrix_product, pixel_to_plane, sky_positions, tangent_frame, unit_vectors

# The corners of a CCD are 8.5 degrees from its center. SIP is fitted on the CCD and meaningless far beyond it.
MAX_SEPARATION = 12.0  # [deg]
MAX_ORDER = 9  # of SIP polynomials (Shupe et al. 2005, ASP Conf. Ser. 347, 491)
SCALE_LIMITS = (1.0, 60.0)  # [arcsec/px]: TESS has 20.5 (docs/facts.md §3), an oversampled template less, PS1 0.25
CURE = "use another FFI of the same sector, camera and CCD"
NEWTON_STEPS = 30
NEWTON_TOLERANCE = 1e-6  # [px]; convergence is quadratic, so the error after a step this small is 1e-16


class TanSip(NamedTuple):
    """TAN-SIP world coordinates: angles [deg], CD [deg/px], CRPIX 1-based, ``a[p, q]`` the FITS coefficient A_p_q."""

    crval1: float
    crval2: float
    crpix1: float
    crpix2: float
    cd: np.ndarray
    a: np.ndarray
    b: np.ndarray
    lonpole: float


def region_around(tansip, ra, dec, size, science=SCIENCE):
    """Return a square region centered on a sky position.

    Parameters
    ----------
    tansip : TanSip
    ra, dec : float
        Sky position [deg].
    size : int
        Side [px].
    science : Region, optional
        Science pixels of the image.

    Returns
    -------
    Region
        Clipped to `science`.

    Raises
    ------
    ValueError
        If `size` is not a positive whole number, or the position is not a sky position or not on the science pixels.
    """
    if not (math.isfinite(ra) and -90 <= dec <= 90):
        raise ValueError(f"RA {ra}, Dec {dec} is not a sky position; give both in degrees, Dec from -90 to 90")
    if size != int(size) or size < 1:
        raise ValueError(f"size {size} is not a positive whole number of FFI pixels")
    x, y = (float(value) for value in sky_to_pixel(tansip, ra, dec))
    # Pixel (i, j) covers i - 0.5 to i + 0.5 and j - 0.5 to j + 0.5.
    if not (science.x0 - 0.5 <= x < science.x1 - 0.5 and science.y0 - 0.5 <= y < science.y1 - 0.5):
        where = "far off this CCD" if math.isnan(x) else f"at pixel ({x:.1f}, {y:.1f})"
        raise ValueError(
            f"RA {ra}, Dec {dec} is {where}, not on its science pixels {','.join(map(str, science))}; "
            "check the position, or use the FFI of the camera and CCD that contain it"
        )
    x0, y0 = math.floor(x + 0.5) - int(size) // 2, math.floor(y + 0.5) - int(size) // 2
    return clip(Region(x0, y0, x0 + int(size), y0 + int(size)), science)


def tansip_from_header(header, science=None):
    """Read the world coordinates of an FFI.

    Parameters
    ----------
    header : astropy.io.fits.Header
        Header of the image.
    science : Region, optional
        Pixels on which the distortion must be invertible; by default the result of `ffi.science_region`.

    Returns
    -------
    TanSip

    Raises
    ------
    ValueError
        If the header has no WCS, or one that is not TAN or TAN-SIP, is malformed, has a scale that is not that of TESS,
        or cannot be inverted.
    """
    _check_keywords(header)
    try:
        with warnings.catch_warnings():
            # astropy corrects dates and units, which do not affect the coordinates.
            warnings.simplefilter("ignore", FITSFixedWarning)
            parsed = WCS(header, naxis=2)
            parsed.wcs.set()
    except (ValueError, WcsError) as error:
        raise ValueError(f"the WCS of the FFI is malformed ({error}); {CURE}") from error
    if parsed.wcs.radesys not in ("ICRS", "FK5"):
        raise ValueError(f"the WCS of the FFI has RADESYS = {parsed.wcs.radesys!r}, not ICRS or FK5; {CURE}")
    polynomials = (parsed.sip.a, parsed.sip.b) if parsed.sip else (None, None)
    tansip = _checked(
        TanSip(
            *map(float, parsed.wcs.crval),
            *map(float, parsed.wcs.crpix),
            np.array(parsed.pixel_scale_matrix, np.float64),
            *_same_order(*polynomials),
            float(parsed.wcs.lonpole),
        )
    )
    if science is None:
        shape = (header.get("NAXIS2"), header.get("NAXIS1"))
        science = science_region(frame_origin(header, shape), shape) if all(shape) else SCIENCE
    check_invertible(tansip, science)
    return tansip


def _check_keywords(header):
    wanted = ["CTYPE1", "CTYPE2", "CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2"]
    missing = [keyword for keyword in wanted if keyword not in header]
    if missing or not any(keyword in header for keyword in ("CD1_1", "CD1_2", "PC1_1", "PC1_2", "CDELT1")):
        raise ValueError(
            f"the FFI has no WCS (no {', '.join(missing or ['CD1_1, PC1_1 or CDELT1'])} in its header), as happens "
            f"with some FFIs; {CURE}"
        )
    types = tuple(str(header[f"CTYPE{axis}"]).strip() for axis in (1, 2))
    if types not in (("RA---TAN", "DEC--TAN"), ("RA---TAN-SIP", "DEC--TAN-SIP")):
        raise ValueError(f"the WCS of the FFI is {types[0]!r}, {types[1]!r}; expected RA---TAN-SIP, DEC--TAN-SIP")
    lookup = [k for k in ("CPDIS1", "CPDIS2", "CQDIS1", "CQDIS2", "D2IMDIS1", "D2IMDIS2") if k in header]
    if lookup:
        raise ValueError(
            f"the WCS of the FFI has a look-up table of distortion ({', '.join(lookup)}); only SIP is supported"
        )
    for keyword in wanted[2:]:
        if not math.isfinite(header_number(header, keyword)):
            raise ValueError(
                f"the WCS of the FFI has {keyword} = {header[keyword]!r}, which is not a finite number; {CURE}"
            )
    for keyword in ("A_ORDER", "B_ORDER", "AP_ORDER", "BP_ORDER"):
        # astropy would allocate arrays of this order before it reads a coefficient.
        if keyword in header and not 0 <= header_number(header, keyword) <= MAX_ORDER:
            raise ValueError(
                f"the WCS of the FFI has {keyword} = {header[keyword]!r}; SIP has orders from 0 to {MAX_ORDER}; {CURE}"
            )


def _same_order(a, b):
    order = max([0] + [len(p) - 1 for p in (a, b) if p is not None])
    padded = np.zeros((2, order + 1, order + 1))
    for target, source in zip(padded, (a, b), strict=True):
        if source is not None:
            target[: len(source), : len(source)] = source
    return padded[0], padded[1]


def _checked(tansip):
    limits = TanSip(360, 90, 1e5, 1e5, 360, 1, 1, 360)
    for name, value, limit in zip(TanSip._fields, tansip, limits, strict=True):
        # False for NaN too. Real values are far below these limits; beyond them the kernels may overflow.
        if not np.all(np.abs(value) <= limit):
            raise ValueError(
                f"the WCS of the FFI has {name.upper()} = {np.array(value).tolist()}, beyond the range of real FFIs; "
                f"{CURE}"
            )
    scale = 3600 * math.sqrt(abs(np.linalg.det(tansip.cd)))
    if scale == 0:
        raise ValueError(f"the WCS of the FFI has a singular CD matrix {tansip.cd.tolist()}; {CURE}")
    if not SCALE_LIMITS[0] <= scale <= SCALE_LIMITS[1]:
        raise ValueError(
            f"the WCS of the FFI has {scale:.3g} arcsec per pixel, but TESS has 20.5; give a TESS FFI with a valid WCS"
        )
    return tansip


def check_invertible(tansip, science):
    """Raise an error if the distortion folds or cannot be inverted.

    Parameters
    ----------
    tansip : TanSip
    science : Region
        Pixels to test, on a grid of 33 x 33 points.

    Raises
    ------
    ValueError
        If two pixels may see the same sky, or pixel to sky to pixel does not lead back to the same pixel.
    """
    # A polynomial of order 4 varies little between points a thirty-second of the CCD apart.
    x, y = (
        grid.ravel()
        for grid in np.meshgrid(
            np.linspace(science.x0 - 0.5, science.x1 - 0.5, 33), np.linspace(science.y0 - 0.5, science.y1 - 0.5, 33)
        )
    )
    stretch = _distortion_determinants(*_offsets(tansip, x, y), tansip.a, tansip.b)
    back_x, back_y = sky_to_pixel(tansip, *pixel_to_sky(tansip, x, y))
    bad = ~(stretch > 0) | ~(np.hypot(back_x - x, back_y - y) < 1e-6)
    if bad.any():
        worst = int(np.argmax(bad))
        raise ValueError(
            f"the WCS of the FFI does not invert at pixel ({x[worst]:.0f}, {y[worst]:.0f}) and {bad.sum()} of "
            f"{bad.size} points tested, so several pixels may see the same sky; {CURE}"
        )


def tansip_keywords(tansip):
    """Return the FITS keywords of world coordinates.

    Parameters
    ----------
    tansip : TanSip

    Returns
    -------
    dict
        Without the inverse polynomials AP and BP, which are optional in the SIP convention.
    """
    order = len(tansip.a) - 1
    distorted = bool(np.any(tansip.a) or np.any(tansip.b))
    suffix = "-SIP" if distorted else ""
    result = {
        "WCSAXES": 2,
        "CTYPE1": "RA---TAN" + suffix,
        "CTYPE2": "DEC--TAN" + suffix,
        "CUNIT1": "deg",
        "CUNIT2": "deg",
        "CRVAL1": tansip.crval1,
        "CRVAL2": tansip.crval2,
        "CRPIX1": tansip.crpix1,
        "CRPIX2": tansip.crpix2,
        "CD1_1": float(tansip.cd[0, 0]),
        "CD1_2": float(tansip.cd[0, 1]),
        "CD2_1": float(tansip.cd[1, 0]),
        "CD2_2": float(tansip.cd[1, 1]),
        "LONPOLE": tansip.lonpole,
        "LATPOLE": tansip.crval2,
        "RADESYS": "ICRS",
        "EQUINOX": 2000.0,
    }
    if not distorted:
        return result
    for letter, polynomial in (("A", tansip.a), ("B", tansip.b)):
        result[f"{letter}_ORDER"] = order
        for p, q in np.argwhere(polynomial):
            if p + q <= order:
                result[f"{letter}_{p}_{q}"] = float(polynomial[p, q])
    return result


def shifted(tansip, dx, dy):
    """Shift world coordinates, and with them the stars of a template.

    Parameters
    ----------
    tansip : TanSip
    dx, dy : float
        Offset [TESS px]; a positive one moves stars to larger x, y.

    Returns
    -------
    TanSip
    """
    return tansip._replace(crpix1=tansip.crpix1 + dx, crpix2=tansip.crpix2 + dy)


def cropped(tansip, x0, y0):
    """Return the world coordinates of a cut-out.

    Parameters
    ----------
    tansip : TanSip
    x0, y0 : int
        First pixel of the cut-out, 0-based.

    Returns
    -------
    TanSip
    """
    return shifted(tansip, -x0, -y0)


def oversampled(tansip, n):
    """Return the world coordinates of an image in which each pixel is divided into n x n.

    Parameters
    ----------
    tansip : TanSip
    n : int

    Returns
    -------
    TanSip

    Notes
    -----
    CRPIX' = (CRPIX - 0.5) n + 0.5, CD' = CD / n and A'_pq = A_pq / n^(p + q - 1), B like A: distances in pixels grow by
    n, and the outer edge of the first pixel remains at 0.5 in FITS pixel coordinates.
    """
    powers = np.add.outer(np.arange(len(tansip.a)), np.arange(len(tansip.a))) - 1
    shrink = float(n) ** -powers
    return tansip._replace(
        crpix1=(tansip.crpix1 - 0.5) * n + 0.5,
        crpix2=(tansip.crpix2 - 0.5) * n + 0.5,
        cd=tansip.cd / n,
        a=tansip.a * shrink,
        b=tansip.b * shrink,
    )


def undistorted_to_vector(tansip):
    """Return the matrix from distortion-free pixel offsets to the sky.

    Parameters
    ----------
    tansip : TanSip

    Returns
    -------
    ndarray of float64, shape (3, 3)
        Takes (U, V, 1), the SIP-corrected offset from CRPIX [px], to a vector towards the sky position.
    """
    frame = tangent_frame(tansip.crval1, tansip.crval2, tansip.lonpole)
    return matrix_product(frame.T, pixel_to_plane(tansip.cd, 1.0, 1.0))


def pixel_to_vector(tansip, x, y):
    """Convert pixel positions to unit vectors.

    Parameters
    ----------
    tansip : TanSip
    x, y : array_like of float, shape (n,)
        0-based pixels.

    Returns
    -------
    ndarray of float64, shape (n, 3)
    """
    return _sky_vectors(*_offsets(tansip, x, y), tansip.a, tansip.b, undistorted_to_vector(tansip))


def region_to_vector(tansip, region):
    """Return the unit vectors of the pixel centers of a region.

    Parameters
    ----------
    tansip : TanSip
    region : Region

    Returns
    -------
    ndarray of float64, shape (ny, nx, 3)
    """
    u, v = _offsets(tansip, np.arange(region.x0, region.x1), np.arange(region.y0, region.y1))
    return _grid_vectors(u, v, tansip.a, tansip.b, undistorted_to_vector(tansip))


def pixel_to_sky(tansip, x, y):
    """Convert pixel positions to sky positions.

    Parameters
    ----------
    tansip : TanSip
    x, y : array_like of float, shape (...)
        0-based pixels.

    Returns
    -------
    ra, dec : ndarray of float64, shape (...)
        Degrees.
    """
    x, y = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float))
    return sky_positions(pixel_to_vector(tansip, x.ravel(), y.ravel()).reshape(*x.shape, 3))


def sky_to_pixel(tansip, ra, dec):
    """Convert sky positions to pixel positions by Newton's iteration.

    Parameters
    ----------
    tansip : TanSip
    ra, dec : array_like of float, shape (...)
        Degrees.

    Returns
    -------
    x, y : ndarray of float64, shape (...)
        0-based pixels, on the CCD or off it; NaN farther than `MAX_SEPARATION` from the reference position, and where
        the iteration does not converge.
    """
    vectors = unit_vectors(ra, dec)
    plane = vectors.reshape(-1, 3) @ np.linalg.inv(undistorted_to_vector(tansip)).T
    x, y = undistorted_to_pixel(tansip, plane)
    return x.reshape(vectors.shape[:-1]), y.reshape(vectors.shape[:-1])


def undistorted_to_pixel(tansip, plane):
    """Convert distortion-free pixel offsets to pixel positions by Newton's iteration.

    Parameters
    ----------
    tansip : TanSip
    plane : ndarray of float64, shape (n, 3)
        (U w, V w, w) with the offsets U, V of `undistorted_to_vector`; w is positive in front of the camera.

    Returns
    -------
    x, y : ndarray of float64, shape (n,)
        0-based pixels; NaN as for `sky_to_pixel`.
    """
    limit = math.tan(math.radians(MAX_SEPARATION))
    u, v = _undistorted(np.ascontiguousarray(plane), tansip.a, tansip.b, np.radians(tansip.cd), limit)
    return u + (tansip.crpix1 - 1), v + (tansip.crpix2 - 1)


def _offsets(tansip, x, y):
    return np.asarray(x, np.float64) - (tansip.crpix1 - 1), np.asarray(y, np.float64) - (tansip.crpix2 - 1)


@numba.njit(cache=True, nogil=True)
def polynomial(coefficients, u, v):
    """Evaluate a SIP polynomial and its derivatives at one point (kernel).

    Parameters
    ----------
    coefficients : ndarray of float64, shape (n, n)
    u, v : float
        Offset from CRPIX [px].

    Returns
    -------
    value, along_u, along_v : float
        The polynomial and its derivatives.

    Notes
    -----
    Horner's rule over the terms u^p v^q with p + q < n of the SIP convention (Shupe et al. 2005, ASP Conf. Ser. 347,
    491).
    """
    n = len(coefficients)
    value = along_u = along_v = 0.0
    for p in range(n - 1, -1, -1):
        inner = inner_v = 0.0
        for q in range(n - 1 - p, -1, -1):
            inner_v = inner_v * v + inner
            inner = inner * v + coefficients[p, q]
        along_u = along_u * u + value
        along_v = along_v * u + inner_v
        value = value * u + inner
    return value, along_u, along_v


@numba.njit(cache=True, nogil=True)
def row_polynomial(coefficients, v, along_u, along_v):
    """Evaluate the terms of a SIP polynomial that are constant along an image row (kernel).

    Parameters
    ----------
    coefficients : ndarray of float64, shape (n, n)
    v : float
        Offset of the row from CRPIX [px].
    along_u, along_v : ndarray of float64, shape (n,)
        Outputs: the coefficients of u^p in the polynomial and in its derivative with respect to v.
    """
    n = len(coefficients)
    for p in range(n):
        inner = inner_v = 0.0
        for q in range(n - 1 - p, -1, -1):
            inner_v = inner_v * v + inner
            inner = inner * v + coefficients[p, q]
        along_u[p] = inner
        along_v[p] = inner_v


@numba.njit(cache=True, nogil=True)
def _sky_vectors(u, v, a, b, matrix):
    vectors = np.empty((len(u), 3))
    for n in range(len(u)):
        shift_u = polynomial(a, u[n], v[n])[0]
        shift_v = polynomial(b, u[n], v[n])[0]
        _unit_vector(vectors[n], u[n] + shift_u, v[n] + shift_v, matrix)
    return vectors


@numba.njit(cache=True, nogil=True)
def _unit_vector(vector, u, v, matrix):
    x = matrix[0, 0] * u + matrix[0, 1] * v + matrix[0, 2]
    y = matrix[1, 0] * u + matrix[1, 1] * v + matrix[1, 2]
    z = matrix[2, 0] * u + matrix[2, 1] * v + matrix[2, 2]
    inverse = 1 / math.sqrt(x * x + y * y + z * z)
    vector[0] = x * inverse
    vector[1] = y * inverse
    vector[2] = z * inverse


@numba.njit(cache=True, nogil=True)
def _grid_vectors(u, v, a, b, matrix):
    vectors = np.empty((len(v), len(u), 3))
    in_row = np.empty((2, len(a)))
    unused = np.empty(len(a))
    big_u, big_v = np.empty(len(u)), np.empty(len(u))
    for row in range(len(v)):
        row_polynomial(a, v[row], in_row[0], unused)
        row_polynomial(b, v[row], in_row[1], unused)
        # The compiler vectorizes a loop over the row for each power of u.
        big_u[:] = in_row[0, -1]
        big_v[:] = in_row[1, -1]
        for p in range(len(a) - 2, -1, -1):
            for n in range(len(u)):
                big_u[n] = big_u[n] * u[n] + in_row[0, p]
                big_v[n] = big_v[n] * u[n] + in_row[1, p]
        for n in range(len(u)):
            _unit_vector(vectors[row, n], u[n] + big_u[n], v[row] + big_v[n], matrix)
    return vectors


@numba.njit(cache=True, nogil=True)
def _distortion_determinants(u, v, a, b):
    result = np.empty(len(u))
    for n in range(len(u)):
        _, a_u, a_v = polynomial(a, u[n], v[n])
        _, b_u, b_v = polynomial(b, u[n], v[n])
        result[n] = (1 + a_u) * (1 + b_v) - a_v * b_u
    return result


@numba.njit(cache=True, nogil=True)
def _undistorted(plane, a, b, cd, limit):
    u_out = np.full(len(plane), np.nan)
    v_out = np.full(len(plane), np.nan)
    for n in range(len(plane)):
        w = plane[n, 2]
        if not w > 0:
            continue
        big_u, big_v = plane[n, 0] / w, plane[n, 1] / w
        xi, eta = cd[0, 0] * big_u + cd[0, 1] * big_v, cd[1, 0] * big_u + cd[1, 1] * big_v
        if not xi * xi + eta * eta < limit * limit:
            continue
        u, v = big_u, big_v
        for _ in range(NEWTON_STEPS):
            shift_u, a_u, a_v = polynomial(a, u, v)
            shift_v, b_u, b_v = polynomial(b, u, v)
            determinant = (1 + a_u) * (1 + b_v) - a_v * b_u
            # Beyond a fold the polynomial leads to another position than the one on the CCD.
            if not determinant > 0:
                break
            off_u, off_v = u + shift_u - big_u, v + shift_v - big_v
            step_u = ((1 + b_v) * off_u - a_v * off_v) / determinant
            step_v = ((1 + a_u) * off_v - b_u * off_u) / determinant
            u -= step_u
            v -= step_v
            if abs(step_u) + abs(step_v) < NEWTON_TOLERANCE:
                u_out[n] = u
                v_out[n] = v
                break
    return u_out, v_out
