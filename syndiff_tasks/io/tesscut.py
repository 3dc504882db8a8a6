"""Target pixel files of TESScut: one small cut-out of every FFI of a CCD and sector.

The layout is that of astrocut 0.4 to 1.4 (docs/facts.md §3): extension PIXELS with a row a cadence, APERTURE with one
linear WCS for all of them. Nothing here opens a file: `fits_in.read_tesscut` does, and checks it.
"""

import re
from typing import NamedTuple

import numpy as np
from astropy.io import fits

COLUMNS = ("TIME", "TIMECORR", "QUALITY", "FLUX", "FLUX_ERR", "FFI_FILE")

_PHYSICAL = re.compile(r"1CRV(\d+)P")


class TessCut(NamedTuple):
    """A target pixel file of TESScut.

    Attributes
    ----------
    header : astropy.io.fits.Header
        As that of an FFI's image: size, WCS, camera, CCD and sector; CRPIX1P, CRVAL1P, CRPIX2P and CRVAL2P give the
        place on the FFI where the file has it.
    time : ndarray of float64, shape (n,)
        Middle of each exposure, BTJD (TDB) at the barycenter for the CCD's reference pixel [d]; NaN where missing.
    time_correction : ndarray of float64, shape (n,)
        Barycentric correction that `time` includes [d].
    quality : ndarray of int32, shape (n,)
        DQUALITY of the FFI.
    flux, flux_err : ndarray of float32, shape (n, ny, nx)
        Flux and its one-sigma uncertainty [electrons/s]; the background is included.
    ffi : tuple of str
        Name of each cadence's FFI; TESScut cuts it to 38 characters.
    """

    header: fits.Header
    time: np.ndarray
    time_correction: np.ndarray
    quality: np.ndarray
    flux: np.ndarray
    flux_err: np.ndarray
    ffi: tuple


def is_tesscut(headers):
    """Return whether the headers of a file are those of a target pixel file: PIXELS, a table, follows the primary."""
    return len(headers) > 1 and str(headers[1].get("EXTNAME", "")).strip() == "PIXELS"


def image_header(headers, path):
    """Return the header that an FFI cut out in the same way would have.

    Parameters
    ----------
    headers : sequence of astropy.io.fits.Header
        Those of the primary, PIXELS and APERTURE.
    path : path-like
        What a message calls the file.

    Returns
    -------
    header : astropy.io.fits.Header
        APERTURE's, with the primary's cards that it lacks, and the place on the FFI if any column of PIXELS has it.

    Raises
    ------
    ValueError
        If APERTURE is missing.
    """
    if len(headers) < 3 or str(headers[2].get("EXTNAME", "")).strip() != "APERTURE":
        raise ValueError(
            f"{path}: PIXELS is not followed by APERTURE, which holds the WCS; the file is incomplete, or not one of "
            "TESScut: fetch it again"
        )
    header = headers[2].copy()
    header.extend(headers[0].copy(strip=True), unique=True, strip=True)
    # These are of the first FFI for all cadences; the aperture's own pixels are integers.
    for keyword in ("CHECKSUM", "DATASUM", "MJD-OBS", "CRPIX1P", "CRPIX2P", "CRVAL1P", "CRVAL2P"):
        header.remove(keyword, ignore_missing=True)
    header["BITPIX"] = -32
    origin = pixels_origin(headers[1])
    if origin is not None:
        for axis, first in enumerate(origin, 1):
            header[f"CRPIX{axis}P"], header[f"CRVAL{axis}P"] = 1, first + 1
    return header


def pixels_origin(header):
    """Return the FFI pixel (x0, y0), 0-based, at which the images of a PIXELS table begin, or None if it has none.

    Notes
    -----
    The physical WCS of any image column has it, as in files of astrocut 0.11; versions 1.0 to 1.4 write none
    (docs/facts.md §3).
    """
    for keyword in header:
        if match := _PHYSICAL.fullmatch(keyword):
            column = match.group(1)
            words = [f"{axis}{word}{column}P" for axis in (1, 2) for word in ("CRV", "CRP")]
            values = [header.get(word) for word in words]
            if all(isinstance(value, (int, float)) for value in values):
                return round(values[0] - values[1]), round(values[2] - values[3])
    return None


def from_table(headers, table, path):
    """Return the `TessCut` of the three headers and the rows of PIXELS.

    Raises
    ------
    ValueError
        If a column is missing, or the images are not those of APERTURE's size.
    """
    missing = [name for name in COLUMNS if name not in table.dtype.names]
    if missing:
        raise ValueError(
            f"{path}: PIXELS has no column {', '.join(missing)}; give a target pixel file as TESScut makes it"
        )
    header = image_header(headers, path)
    shape = len(table), header["NAXIS2"], header["NAXIS1"]
    if table["FLUX"].shape != shape or table["FLUX_ERR"].shape != shape:
        raise ValueError(
            f"{path}: FLUX has shape {table['FLUX'].shape}, but APERTURE promises {shape}; fetch the file again"
        )
    return TessCut(
        header,
        table["TIME"].astype(np.float64),
        table["TIMECORR"].astype(np.float64),
        table["QUALITY"].astype(np.int32),
        table["FLUX"].astype(np.float32),
        table["FLUX_ERR"].astype(np.float32),
        tuple(str(name).strip() for name in table["FFI_FILE"]),
    )


def middle_cadence(cut, path):
    """Return the index of the good cadence (QUALITY 0, with a flux) nearest to the middle one.

    Raises
    ------
    ValueError
        If no cadence is good.
    """
    good = np.flatnonzero((cut.quality == 0) & np.isfinite(cut.flux).any(axis=(1, 2)))
    if not good.size:
        raise ValueError(
            f"{path}: none of its {len(cut.time)} cadences has QUALITY 0 and a flux; give the cut-out of another sector"
        )
    return int(good[np.argmin(np.abs(good - len(cut.time) // 2))])
