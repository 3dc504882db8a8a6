"""What the header of an FFI holds: time, quality and pointing."""

import math
from pathlib import Path
from typing import NamedTuple

from astropy.time import Time

from syndiff_tasks.geometry.ffi import (
    check_detector,
    frame_origin,
    header_number,
    parse_ffi_name,
    science_region,
)
from syndiff_tasks.geometry.region import SCIENCE, Region
from syndiff_tasks.geometry.tansip import TanSip, sky_to_pixel, tansip_from_header
from syndiff_tasks.io import fits_in


class FrameHeader(NamedTuple):
    """What the header of one FFI says of its time, quality and pointing; `why` it has no WCS, or empty."""

    path: Path
    mjd: float
    quality: int
    science: Region
    tansip: TanSip | None
    why: str


def read_frame_header(path):
    """Read the pointing of an FFI off its header.

    Parameters
    ----------
    path : Path

    Returns
    -------
    frame : FrameHeader
        `quality` as `pointing_quality` returns it.
    """
    mjd, quality, science = math.nan, 0, SCIENCE
    try:
        header = fits_in.read_ffi_header(path)
        mjd, quality, name = start(header), pointing_quality(header), parse_ffi_name(path)
        check_detector(name, header)
        shape = header["NAXIS2"], header["NAXIS1"]
        science = science_region(frame_origin(header, shape, name), shape)
        return FrameHeader(path, mjd, quality, science, tansip_from_header(header, science), "")
    except ValueError as error:
        return FrameHeader(path, mjd, quality, science, None, str(error))


def pointing_quality(header):
    """Return the quality flags of an FFI, in the bits of SPOC's DQUALITY.

    Parameters
    ----------
    header : Mapping

    Returns
    -------
    int
        DQUALITY of a SPOC FFI. A TICA FFI has COARSE and RW_DESAT instead, which become the bits of coarse pointing (4)
        and of a reaction wheel desaturation (32) (docs/facts.md §3).
    """
    quality = int(header.get("DQUALITY", 0) or 0)
    for keyword, bit in (("COARSE", 4), ("RW_DESAT", 32)):
        if str(header.get(keyword, "F")).strip().upper() in ("T", "TRUE", "1"):
            quality |= bit
    return quality


def start(header):
    """Return the start of an exposure at the spacecraft, MJD [d] in UTC, NaN where the header has none.

    SPOC's DATE-OBS and TSTART are those of the barycenter, up to 500 s from the spacecraft's: BARYCORR comes off.
    """
    return _time(header, ("MJD-OBS", "MJD-BEG"), "DATE-OBS", "STARTTJD")


def end(header):
    """Return the end of an exposure, as `start` its start."""
    return _time(header, ("MJD-END",), "DATE-END", "ENDTJD")


def _time(header, mjd_keywords, date_keyword, tjd_keyword):
    for keyword in mjd_keywords:
        if keyword in header:
            return float(header[keyword])
    if date_keyword in header:
        stated = Time(str(header[date_keyword]).removesuffix("Z"), format="isot", scale="utc").mjd
        correction = header_number(header, "BARYCORR")
        return float(stated) - (0.0 if math.isnan(correction) else correction)
    # TICA's; TESS Julian Date 0 is JD 2457000.
    return float(header[tjd_keyword]) + 56999.5 if tjd_keyword in header else math.nan


def by_time(frames):
    """Return the frames in the order of time; those that do not say when come last, by name."""
    return sorted(frames, key=lambda frame: (math.isnan(frame.mjd), frame.mjd, frame.path.name))


def sees(path, target):
    """Return whether a sky position (RA, Dec) [deg] lies on the science pixels of an FFI.

    Raises
    ------
    ValueError
        If the FFI has no usable WCS.
    """
    frame = read_frame_header(path)
    if frame.tansip is None:
        raise ValueError(frame.why)
    x, y = (float(value) for value in sky_to_pixel(frame.tansip, *target))
    science = frame.science
    return science.x0 - 0.5 <= x < science.x1 - 0.5 and science.y0 - 0.5 <= y < science.y1 - 0.5
