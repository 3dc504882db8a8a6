"""A TESS Full Frame Image (FFI): its file name, its detector and its science pixels."""

import math
import re
from pathlib import PurePath
from typing import NamedTuple

from .region import SCIENCE, Region, clip

FRAME_SHAPE = (2078, 2136)
SPOC_NAME = re.compile(r"tess(\d{13})-s(\d{4})-([1-4])-([1-4])-\d{4}-[a-z]_ffic", re.ASCII)
TICA_NAME = re.compile(r"hlsp_tica_tess_ffi_s(\d{4})-(o\d+[a-z]?-\d{8})-cam([1-4])-ccd([1-4])_tess_v\d+_img", re.ASCII)
FFI_EXTENSIONS = (".fits", ".fits.gz", ".fits.fz")
CRPIX = (1045.0, 1001.0)  # of every SPOC full frame (facts.md section 3), 1-based


class FFIName(NamedTuple):
    """What the file name of an FFI says; `stem` is the name without its extension."""

    stem: str
    sector: int
    camera: int
    ccd: int
    time: str
    source: str


def parse_ffi_name(path):
    """Read sector, camera and CCD off the file name of an FFI.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    FFIName
        `time` is the start as SPOC writes it (yyyydddhhmmss), or TICA's orbit and cadence; `source` is ``"spoc"`` or
        ``"tica"``.

    Raises
    ------
    ValueError
        If the name is neither SPOC's nor TICA's.
    """
    name = PurePath(path).name
    extension = next((e for e in sorted(FFI_EXTENSIONS, key=len, reverse=True) if name.endswith(e)), None)
    stem = name.removesuffix(extension) if extension else ""
    if spoc := SPOC_NAME.fullmatch(stem):
        time, sector, camera, ccd = spoc.groups()
        return FFIName(stem, int(sector), int(camera), int(ccd), time, "spoc")
    if tica := TICA_NAME.fullmatch(stem):
        sector, time, camera, ccd = tica.groups()
        return FFIName(stem, int(sector), int(camera), int(ccd), time, "tica")
    raise ValueError(
        f"{name!r} is not the name of a calibrated FFI; expected one like tess2020019135923-s0020-3-3-0165-s_ffic.fits "
        "(SPOC) or hlsp_tica_tess_ffi_s0027-o1-00116635-cam1-ccd1_tess_v01_img.fits (TICA), also .fits.gz or .fits.fz; "
        "sector, camera and CCD are read off it, so keep the name the archive gave it"
    )


def check_detector(name, header):
    """Refuse an FFI whose name and header disagree.

    Parameters
    ----------
    name : FFIName
    header : Mapping
        Of the image: CAMERA and CCD (SPOC) or CAMNUM and CCDNUM (TICA).

    Raises
    ------
    ValueError
        If the header is not of TESS, names no camera and CCD, or others than the file name.
    """
    telescope = str(header.get("TELESCOP", "TESS")).strip()
    if telescope.upper() != "TESS":
        raise ValueError(f"{name.stem}: TELESCOP is {telescope!r}, so this is not a TESS image; check the file")
    for word, keywords in (("camera", ("CAMERA", "CAMNUM")), ("ccd", ("CCD", "CCDNUM"))):
        keyword = next((k for k in keywords if k in header), None)
        if keyword is None:
            raise ValueError(
                f"{name.stem}: the image header has neither {' nor '.join(keywords)}, so this is not a calibrated FFI; "
                "fetch the file again"
            )
        if str(header[keyword]).strip() != str(getattr(name, word)):
            raise ValueError(
                f"{name.stem}: the file name says {word} {getattr(name, word)}, the header {keyword} = "
                f"{header[keyword]}; one of them is wrong: restore the archive's name, or fetch the file again"
            )


def science_region(header, shape):
    """Science pixels of a full frame or of a cut-out.

    Parameters
    ----------
    header : Mapping
        Of the image.
    shape : tuple of int
        (ny, nx) of the image.

    Returns
    -------
    Region
        In the image's own 0-based pixels.

    Raises
    ------
    ValueError
        If the image holds no science pixel.

    Notes
    -----
    Where a cut-out begins is told by its physical coordinates (CRPIX1P, CRVAL1P), or, where these were left as they
    were in the full frame, by how far CRPIX is from SPOC's (1045, 1001). With neither the image is taken to be all
    science, as TICA's trimmed images are.
    """
    if tuple(shape) == FRAME_SHAPE:
        return SCIENCE
    origin = _physical_origin(header)
    if not _inside_frame(origin, shape) or origin == (0, 0):
        shifted = _shifted_origin(header)
        origin = shifted if _inside_frame(shifted, shape) else origin
    if not _inside_frame(origin, shape):
        return Region(0, 0, shape[1], shape[0])
    x, y = origin
    region = clip(Region(SCIENCE.x0 - x, SCIENCE.y0 - y, SCIENCE.x1 - x, SCIENCE.y1 - y), Region(0, 0, *shape[::-1]))
    if min(region.shape) <= 0:
        raise ValueError(
            f"an image of {shape[1]} x {shape[0]} px that begins at FFI pixel ({x}, {y}) holds only collateral pixels, "
            f"which see no sky; cut it out within x {SCIENCE.x0}..{SCIENCE.x1 - 1}, y {SCIENCE.y0}..{SCIENCE.y1 - 1}"
        )
    return region


def _physical_origin(header):
    if not all(f"{word}{axis}P" in header for word in ("CRPIX", "CRVAL") for axis in (1, 2)):
        return None
    return tuple(round(float(header[f"CRVAL{axis}P"]) - float(header[f"CRPIX{axis}P"])) for axis in (1, 2))


def _shifted_origin(header):
    shifts = [reference - header_number(header, f"CRPIX{axis}") for axis, reference in enumerate(CRPIX, 1)]
    # A reference pixel fitted anew, as in a TICA header, is no whole number of pixels away.
    return tuple(round(s) for s in shifts) if all(math.isclose(s, round(s), abs_tol=1e-6) for s in shifts) else None


def _inside_frame(origin, shape):
    return origin is not None and all(
        0 <= o and o + n <= full for o, n, full in zip(origin, shape[::-1], FRAME_SHAPE[::-1], strict=True)
    )


def header_number(header, keyword):
    """Return a numeric header value as a float.

    Parameters
    ----------
    header : Mapping
    keyword : str

    Returns
    -------
    float
        NaN where the keyword is missing or its value is not a number.
    """
    value = header.get(keyword)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
