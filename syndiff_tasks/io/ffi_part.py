"""Read a part of an FFI: of 35 MB, only the rows that a small region has."""

import numpy as np
from astropy.io import fits

from . import fits_in


def read_ffi_part(path, x0, y0, x1, y1):
    """Read a rectangle of an FFI.

    Parameters
    ----------
    path : path-like
        SPOC or TICA FFI, or an image cut-out. Of uncompressed files and compressed tiles (``.fits``, ``.fits.fz``) only
        the rows y0 to y1 are read, and checksums, which are of whole files, are not verified; ``.fits.gz`` is read
        whole.
    x0, y0, x1, y1 : int
        0-based pixels of the image; x1 and y1 are the first beyond the rectangle, which lies inside the image.

    Returns
    -------
    ffi : fits_in.FFIImage
        `image` and `uncertainty` (or None) float32 of shape (y1 - y0, x1 - x0); `header` that of the whole image.

    Raises
    ------
    ValueError
        If the file is not an FFI, or ends before the rectangle does; the message names the file.
    """
    with open(path, "rb") as file:
        if file.read(2) == b"\x1f\x8b":
            ffi = fits_in.read_ffi(path)
            planes = [None if plane is None else plane[y0:y1, x0:x1] for plane in (ffi.image, ffi.uncertainty)]
            return fits_in.FFIImage(planes[0], ffi.header, planes[1])
    header = fits_in.read_ffi_header(path)
    try:
        with fits.open(path, memmap=True) as hdus:
            images = [hdu for hdu in hdus if hdu.header.get("NAXIS") == 2]
            planes = [np.array(hdu.section[y0:y1, x0:x1], np.float32) for hdu in images if _is_wanted(hdu, images)]
    except (OSError, ValueError, TypeError, EOFError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise ValueError(f"{path}: rows {y0} to {y1} cannot be read ({error}); fetch the file again") from error
    return fits_in.FFIImage(planes[0], header, planes[1] if len(planes) > 1 else None)


def _is_wanted(hdu, images):
    """Return whether an image is the first one, the FFI's own, or its uncertainty."""
    words = f"{hdu.header.get('IMAGTYPE', '')} {hdu.header.get('EXTNAME', '')}".lower()
    return hdu is images[0] or "uncert" in words
