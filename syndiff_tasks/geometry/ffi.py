"""A TESS Full Frame Image (FFI) or a cut-out of FFIs: its file name, its detector and its science pixels."""

import math
import re
from pathlib import PurePath
from typing import NamedTuple

from .region import SCIENCE, Region, clip

FRAME_SHAPE = (2078, 2136)  # (ny, nx) of a whole FFI, collateral pixels included (docs/facts.md §3)
SPOC_NAME = re.compile(r"tess(\d{13})-s(\d{4})-([1-4])-([1-4])-\d{4}-[a-z]_ffic", re.ASCII)
TICA_NAME = re.compile(r"hlsp_tica_tess_ffi_s(\d{4})-(o\d+[a-z]?-\d{8})-cam([1-4])-ccd([1-4])_tess_v\d+_img", re.ASCII)
# Image cut-outs of astrocut carry the FFI's name in front, and so the place; target pixel files of TESScut do not.
CUTOUT_SUFFIX = re.compile(r"_-?\d+\.?\d*_-?\d+\.?\d*_\d+-x-\d+_astrocut\Z", re.ASCII)
TESSCUT_NAME = re.compile(r"tess-s(\d{4})-([1-4])-([1-4])_-?\d+\.?\d*_-?\d+\.?\d*_\d+x\d+_astrocut", re.ASCII)
FFI_EXTENSIONS = (".fits", ".fits.gz", ".fits.fz")
CRPIX = (1045.0, 1001.0)  # of a whole SPOC FFI up to sector 90 (docs/facts.md §3), 1-based


class FFIName(NamedTuple):
    """Parts of the file name of an FFI or of a cut-out; `stem` is the name without its extension."""

    stem: str
    sector: int
    camera: int
    ccd: int
    time: str
    source: str


def parse_ffi_name(path):
    """Parse the file name of an FFI or of a cut-out of FFIs.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    FFIName
        `time` is the start time (yyyydddhhmmss) for SPOC, orbit and cadence for TICA, empty for a target pixel file of
        TESScut, which holds a whole sector; `source` is ``"spoc"``, ``"tica"`` or ``"tesscut"``. The `stem` of a
        cut-out holds its position and size as well, so products of cut-outs and of whole FFIs never mix.

    Raises
    ------
    ValueError
        If the name has none of these forms (docs/facts.md §3).
    """
    name = PurePath(path).name
    extension = next((e for e in sorted(FFI_EXTENSIONS, key=len, reverse=True) if name.endswith(e)), None)
    stem = name.removesuffix(extension) if extension else ""
    if tesscut := TESSCUT_NAME.fullmatch(stem):
        return FFIName(stem, *map(int, tesscut.groups()), "", "tesscut")
    of_ffi = CUTOUT_SUFFIX.sub("", stem)
    if spoc := SPOC_NAME.fullmatch(of_ffi):
        time, sector, camera, ccd = spoc.groups()
        return FFIName(stem, int(sector), int(camera), int(ccd), time, "spoc")
    if tica := TICA_NAME.fullmatch(of_ffi):
        sector, time, camera, ccd = tica.groups()
        return FFIName(stem, int(sector), int(camera), int(ccd), time, "tica")
    raise ValueError(
        f"{name!r} is not the name of a calibrated FFI; expected one like tess2020019135923-s0020-3-3-0165-s_ffic.fits "
        "(SPOC) or hlsp_tica_tess_ffi_s0027-o1-00116635-cam1-ccd1_tess_v01_img.fits (TICA), also .fits.gz or .fits.fz, "
        "or of a cut-out, tess-s0019-1-3_65.489205_28.443210_10x10_astrocut.fits or <FFI>_RA_Dec_48-x-48_astrocut.fits"
        "; the name gives sector, camera and CCD: restore the one that the file has in the archive"
    )


def check_detector(name, header):
    """Raise an error if the name and the header of an FFI disagree.

    Parameters
    ----------
    name : FFIName
    header : Mapping
        Header of the image, with CAMERA and CCD (SPOC) or CAMNUM and CCDNUM (TICA).

    Raises
    ------
    ValueError
        If TELESCOP is not TESS, or camera or CCD are missing from the header or differ from those in the name.
    """
    telescope = str(header.get("TELESCOP", "TESS")).strip()
    if telescope.upper() != "TESS":
        raise ValueError(f"{name.stem}: TELESCOP is {telescope!r}, so this is not a TESS image; give a TESS FFI")
    for word, keywords in (("camera", ("CAMERA", "CAMNUM")), ("ccd", ("CCD", "CCDNUM"))):
        keyword = next((k for k in keywords if k in header), None)
        if keyword is None:
            raise ValueError(
                f"{name.stem}: the image header has neither {' nor '.join(keywords)}, so this is not a calibrated FFI; "
                "download the file again"
            )
        if str(header[keyword]).strip() != str(getattr(name, word)):
            raise ValueError(
                f"{name.stem}: the file name says {word} {getattr(name, word)}, the header {keyword} = "
                f"{header[keyword]}; restore the name that the file has in the archive, or download it again"
            )


def science_region(header, shape):
    """Find the science pixels of a whole FFI or of a cut-out.

    Parameters
    ----------
    header : Mapping
        Header of the image.
    shape : tuple of int
        (ny, nx) of the image.

    Returns
    -------
    Region
        In the 0-based pixels of the image itself.

    Raises
    ------
    ValueError
        If the image contains no science pixel.

    Notes
    -----
    The first pixel of a cut-out follows from its physical coordinates (CRPIX1P, CRVAL1P) or, where the cut-out keeps
    those of the whole FFI, from the difference between its CRPIX and `CRPIX` (docs/facts.md §3). Where neither gives a
    place on the FFI, all pixels are taken as science pixels, as in trimmed TICA images.
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
            f"an image of {shape[1]} x {shape[0]} px that begins at FFI pixel ({x}, {y}) has only collateral pixels, "
            f"which see no sky; cut out pixels of x {SCIENCE.x0}..{SCIENCE.x1 - 1}, y {SCIENCE.y0}..{SCIENCE.y1 - 1}"
        )
    return region


def _physical_origin(header):
    if not all(f"{word}{axis}P" in header for word in ("CRPIX", "CRVAL") for axis in (1, 2)):
        return None
    return tuple(round(float(header[f"CRVAL{axis}P"]) - float(header[f"CRPIX{axis}P"])) for axis in (1, 2))


def _shifted_origin(header):
    shifts = [reference - header_number(header, f"CRPIX{axis}") for axis, reference in enumerate(CRPIX, 1)]
    # The reference pixel of another fit, as in TICA headers, differs by a fraction of a pixel.
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
