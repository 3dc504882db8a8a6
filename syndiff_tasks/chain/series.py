"""A series of frames of one CCD, from a list of FFIs or from a target pixel file of TESScut alike."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from astropy.io import fits

from syndiff_tasks.geometry.ffi import check_detector, frame_origin, header_number, parse_ffi_name
from syndiff_tasks.geometry.region import Region
from syndiff_tasks.geometry.tansip import TanSip, cropped, tansip_from_header
from syndiff_tasks.io import ffi_part, fits_in

from . import cutout
from .frame_header import pointing_quality


class SeriesFrame(NamedTuple):
    """One frame of a series, cut to the region of the series.

    Attributes
    ----------
    ffi : str
        Name of the FFI without extension; as far as TESScut keeps it.
    time : float
        Middle of the exposure, BTJD (TDB) at the barycenter for the CCD's reference pixel [d]; NaN if unknown.
    correction : float
        Barycentric correction in `time` [d].
    quality : int
        DQUALITY of the frame.
    image, uncertainty : ndarray of float32, shape (ny, nx)
        [electrons/s]; all NaN where the frame could not be read.
    tansip : TanSip or None
        Of the region's own pixels; of TESScut, the one for all frames.
    why : str
        Why the frame has no pixels or no WCS; empty where it has both.
    """

    ffi: str
    time: float
    correction: float
    quality: int
    image: np.ndarray
    uncertainty: np.ndarray
    tansip: TanSip | None
    why: str


class Series(NamedTuple):
    """Frames that are read when they are asked for: ``series.read(index)``, index from 0 to `count` - 1.

    `origin` is the FFI pixel (x0, y0), 0-based, of the first pixel of each image, `shape` the images' (ny, nx).
    """

    count: int
    shape: tuple
    origin: tuple
    read: Callable


def from_ffis(paths, region):
    """Return the series of whole SPOC FFIs.

    Parameters
    ----------
    paths : sequence of Path
        In the order of time.
    region : Region
        Pixels of the FFIs.

    Returns
    -------
    Series
        A frame that cannot be read has NaN pixels and says why.
    """
    return Series(len(paths), region.shape, (region.x0, region.y0), lambda index: _ffi_frame(paths[index], region))


def from_tesscut(path, region=None, origin=""):
    """Return the series of a target pixel file of TESScut.

    Parameters
    ----------
    path : str
        The file; it is read at once.
    region : Region, optional
        Pixels of the cut-out; all of them by default.
    origin : str
        ``x0,y0`` on the FFI of a cut-out that does not show it, or empty.

    Returns
    -------
    Series

    Raises
    ------
    ValueError
        As `fits_in.read_tesscut` and `cutout.read_header`.
    """
    name = parse_ffi_name(path)
    cut, header = fits_in.read_tesscut(path), cutout.read_header(path, name, origin)
    check_detector(name, header)
    whole = Region(0, 0, *cut.flux.shape[:0:-1])
    x0, y0, x1, y1 = part = region or whole
    tansip = cropped(tansip_from_header(header), x0, y0)
    place = frame_origin(header, whole.shape, name)

    def read(index):
        planes = (plane[index, y0:y1, x0:x1] for plane in (cut.flux, cut.flux_err))
        told = cut.ffi[index], float(cut.time[index]), float(cut.time_correction[index]), int(cut.quality[index])
        return SeriesFrame(*told, *planes, tansip, "")

    return Series(len(cut.time), part.shape, (place[0] + x0, place[1] + y0), read)


def _ffi_frame(path, region):
    stem, blank = parse_ffi_name(path).stem, np.full(region.shape, np.nan, np.float32)
    try:
        ffi = ffi_part.read_ffi_part(path, *region)
        check_detector(parse_ffi_name(path), ffi.header)
    except (ValueError, fits.VerifyError) as error:
        return SeriesFrame(stem, np.nan, np.nan, 0, blank, blank, None, str(error))
    start, stop, correction = (header_number(ffi.header, keyword) for keyword in ("TSTART", "TSTOP", "BARYCORR"))
    uncertainty = blank if ffi.uncertainty is None else ffi.uncertainty
    told = stem, (start + stop) / 2, correction, pointing_quality(ffi.header), ffi.image, uncertainty
    try:
        return SeriesFrame(*told, cropped(tansip_from_header(ffi.header), region.x0, region.y0), "")
    except ValueError as error:
        return SeriesFrame(*told, None, str(error))
