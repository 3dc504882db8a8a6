"""Where a cut-out lies on its FFI, and what its products are called."""

from pathlib import Path

import numpy as np

from syndiff_tasks.geometry.ffi import FFI_EXTENSIONS
from syndiff_tasks.geometry.tansip import pixel_to_sky, sky_to_pixel, tansip_from_header
from syndiff_tasks.io import fits_in

# The linear WCS of a cut-out is off the FFI's by hundredths of a pixel; half of one would leave the place open.
LARGEST_MISFIT = 0.3


def read_header(path, name, origin=""):
    """Read the header of an FFI or a cut-out, with its place on the FFI where that can be found.

    Parameters
    ----------
    path : str
        The file.
    name : FFIName
        Its parsed name.
    origin : str
        ``x0,y0``: FFI pixel, 0-based, of the first pixel of the cut-out; empty to find it.

    Returns
    -------
    header : astropy.io.fits.Header
        With CRPIX1P, CRVAL1P, CRPIX2P and CRVAL2P if the place was given, or found in the FFI of WCS_FFI.

    Raises
    ------
    ValueError
        If `origin` is given for a whole FFI or is not two whole numbers, or a target pixel file shows no place.
    """
    header = fits_in.read_ffi_header(path)
    if origin:
        if not name.is_cutout:
            raise ValueError(f"--origin {origin}: {path} is a whole FFI, which begins at 0,0; leave it out")
        return _placed(header, _parsed(origin))
    if name.source != "tesscut" or "CRVAL1P" in header:
        return header
    ffi = _ffi_beside(path, str(header.get("WCS_FFI", "")).strip())
    if ffi is None:
        raise ValueError(
            f"{path} does not show its place on the FFI (astrocut 1.0 to 1.4 writes no physical WCS), and "
            f"{header.get('WCS_FFI') or 'the FFI of its WCS'} is not beside it: put that FFI into the same folder, or "
            "give the FFI pixel at which the cut-out begins, counted from 0: --origin x0,y0"
        )
    return _placed(header, _place_by_wcs(path, header, ffi))


def label(name, region_label):
    """Return the label of a region's products: empty for a whole FFI, with the file's own name for cut-outs.

    Cut-outs of one FFI count their pixels each from 0, so the region alone does not tell them apart.
    """
    return "_".join(part for part in (name.stem if name.is_cutout else "", region_label) if part)


def _parsed(origin):
    parts = [part.strip() for part in origin.split(",")]
    try:
        x0, y0 = (int(part) for part in parts)
    except ValueError as error:
        raise ValueError(f"--origin {origin!r} is not x0,y0 in whole FFI pixels, for example 376,157") from error
    return x0, y0


def _placed(header, origin):
    header = header.copy()
    for axis, first in enumerate(origin, 1):
        header[f"CRPIX{axis}P"], header[f"CRVAL{axis}P"] = 1, first + 1
    return header


def _ffi_beside(path, ffi):
    """Return the path of an FFI in the folder of a cut-out, None if it is not there."""
    stem = next((ffi.removesuffix(end) for end in sorted(FFI_EXTENSIONS, key=len)[::-1] if ffi.endswith(end)), ffi)
    found = (Path(path).with_name(stem + end) for end in FFI_EXTENSIONS) if stem else ()
    return next((candidate for candidate in found if candidate.exists()), None)


def _place_by_wcs(path, header, ffi):
    center = np.array([header["NAXIS1"] - 1, header["NAXIS2"] - 1]) / 2
    sky = pixel_to_sky(tansip_from_header(header), *center)
    place = np.array([float(value) for value in sky_to_pixel(tansip_from_header(fits_in.read_ffi_header(ffi)), *sky)])
    origin = place - center
    misfit = np.max(np.abs(origin - np.round(origin)))
    if not misfit < LARGEST_MISFIT:
        raise ValueError(
            f"{path} begins at pixel ({origin[0]:.2f}, {origin[1]:.2f}) of {ffi} by their WCS, not at a whole one; "
            "give the FFI pixel at which the cut-out begins, counted from 0: --origin x0,y0"
        )
    return tuple(int(value) for value in np.round(origin))
