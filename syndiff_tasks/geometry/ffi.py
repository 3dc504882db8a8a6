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

#: Reference pixels of whole FFIs, 1-based (docs/facts.md §3). That of SPOC moved during sector 91.
TICA_CRPIX = (1069.0, 1024.0)
SPOC_CRPIX = (1045.0, 1001.0)
SPOC_CRPIX_MOVED = (1069.0, 1025.0)
SECTOR_OF_MOVE = 91


class FFIName(NamedTuple):
    """Parts of the file name of an FFI or of a cut-out; `stem` is the name without its extension."""

    stem: str
    sector: int
    camera: int
    ccd: int
    time: str
    source: str

    @property
    def is_cutout(self):
        """Whether the file is a cut-out, by the form that astrocut gives its name."""
        return self.stem.endswith("_astrocut")


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


def frame_origin(header, shape, name=None):
    """Find the place of an image on its FFI.

    Parameters
    ----------
    header : Mapping
        Header of the image.
    shape : tuple of int
        (ny, nx) of the image.
    name : FFIName, optional
        Of the file; without it the reference pixel may be that of any sector.

    Returns
    -------
    tuple of int or None
        FFI column and row, 0-based, of the first pixel of the image; None where the header does not determine them.

    Notes
    -----
    The place follows from the physical coordinates (CRPIX1P, CRVAL1P), unless they are those of a whole FFI, which
    cut-outs by astrocut keep. It then follows from CRPIX, which a cut-out shifts by a whole number of pixels from the
    reference pixel of the whole FFI (docs/facts.md §3). In sector 91, during which SPOC moved its reference pixel, and
    where the shift is not whole, the place is known only if it is the only one that is on the FFI.
    """
    if tuple(shape) == FRAME_SHAPE:
        return 0, 0
    origin = _physical_origin(header)
    if origin != (0, 0) and _on_frame(origin, shape):
        return origin
    shifted = {_shifted_origin(header, reference) for reference in _reference_pixels(header, name)}
    possible = [origin for origin in shifted if _inside_frame(origin, shape)]
    return possible[0] if len(possible) == 1 else None


def science_region(origin, shape):
    """Find the science pixels of a whole FFI or of a cut-out.

    Parameters
    ----------
    origin : tuple of int or None
        Result of `frame_origin`.
    shape : tuple of int
        (ny, nx) of the image.

    Returns
    -------
    Region
        In the 0-based pixels of the image itself; all of them where the origin is unknown, because then no pixel can
        be recognized as collateral.

    Raises
    ------
    ValueError
        If the image contains no science pixel.
    """
    whole = Region(0, 0, shape[1], shape[0])
    if origin is None:
        return whole
    x, y = origin
    region = clip(Region(SCIENCE.x0 - x, SCIENCE.y0 - y, SCIENCE.x1 - x, SCIENCE.y1 - y), whole)
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


def _reference_pixels(header, name):
    if name and name.source == "tesscut":
        return []  # its CRPIX is a pixel of the cut-out
    if name.source == "tica" if name else "CAMNUM" in header:
        return [TICA_CRPIX]
    if name is None or name.sector == SECTOR_OF_MOVE:
        return [SPOC_CRPIX, SPOC_CRPIX_MOVED]
    return [SPOC_CRPIX if name.sector < SECTOR_OF_MOVE else SPOC_CRPIX_MOVED]


def _shifted_origin(header, reference):
    shifts = [pixel - header_number(header, f"CRPIX{axis}") for axis, pixel in enumerate(reference, 1)]
    # The reference pixel of another fit differs by a fraction of a pixel.
    return tuple(round(s) for s in shifts) if all(math.isclose(s, round(s), abs_tol=1e-6) for s in shifts) else None


def _on_frame(origin, shape):
    """Return whether an image has a pixel of its FFI; TESScut fills with NaN what lies beyond."""
    return origin is not None and all(
        -n < o < full for o, n, full in zip(origin, shape[::-1], FRAME_SHAPE[::-1], strict=True)
    )


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
