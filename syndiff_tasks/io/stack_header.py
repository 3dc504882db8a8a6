"""Checks of a PS1 stack header: the requested skycell, and values that allow a flux (docs/facts.md, 2)."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

# Header reference and ring table agree to 1e-10 deg; a wrong skycell is off by degrees or thousands of pixels.
WCS_TOLERANCE = {"NAXIS": 0, "CRVAL": 1e-6, "CRPIX": 1e-3, "CDELT": 1e-11, "PC": 1e-6}


class NoFlux(ValueError):
    """A file is whole and the requested one, but its header values allow no flux."""


def check_keywords(keywords: Mapping[str, Any], expected: Mapping[str, float], kind: str, dtype: Any) -> None:
    """Check that a stack product is that of the requested skycell and can be converted to flux.

    Parameters
    ----------
    keywords : mapping
        Header of the product.
    expected : mapping of str to float
        ``NAXIS1``, ``NAXIS2``, ``CRVAL1`` [deg], ``CRPIX1`` [px, 1-based], ``CDELT1`` [deg], ``PC1_1``, … from the
        ring table. Old-style ``PC001001`` is the same as ``PC1_1``. Keywords that real stacks leave out (LONPOLE,
        EQUINOX, …) may be among them and are not checked.
    kind : str
        Out of `KINDS`. Images must have all of `expected`; in the others, those present must agree.
    dtype : dtype
        Of the stored pixels.

    Raises
    ------
    ValueError
        Naming the first keyword that is wrong.
    NoFlux
        If the position is right, but the header values of an image or variance allow no flux.
    """
    for name, value in expected.items():
        if _stem(name) not in WCS_TOLERANCE:
            continue
        _check_position(keywords, name, value, required=kind == "image" or name.startswith("NAXIS"))
    if kind == "mask":
        _check_mask(keywords, np.dtype(dtype))
    elif kind in ("image", "wt"):
        _check_scaling(keywords)


def check_band(keywords: Mapping[str, Any], band: str) -> None:
    """Check that a stack product is of a band, where its header names one (``FPA.FILTER = 'r.00000'``).

    Raises
    ------
    ValueError
        If it is of another band.
    """
    found = str(keywords.get("FPA.FILTER", band)).strip()
    if found.partition(".")[0] != band:
        raise ValueError(f"header has FPA.FILTER = {found}, the name of the file says {band}: a file of another band")


def _stem(name):
    return name.rstrip("0123456789_")


def _check_position(keywords, name, value, required):
    old_style = f"PC00{name[2]}00{name[4]}" if name.startswith("PC") else name
    found = keywords.get(name, keywords.get(old_style))
    if found is None:
        if required:
            raise ValueError(f"header has no {name}, the ring table says {value}: not a whole skycell of PS1")
        return
    off = float(found) - value
    if name == "CRVAL1":
        off = math.remainder(off, 360.0)
    if not abs(off) <= WCS_TOLERANCE[_stem(name)]:
        raise ValueError(f"header has {name} = {found}, the ring table says {value}: not the skycell it is named")


def _check_mask(keywords, dtype):
    if dtype.kind not in "iu" or dtype.itemsize < 2:
        raise ValueError(f"mask pixels are {dtype}, too narrow for the 16 bits of PS1; the upper bits are lost")
    if float(keywords.get("BSCALE", 1)) != 1:
        raise ValueError(f"mask has BSCALE = {keywords['BSCALE']}: its bits have been through a lossy compression")


def _check_scaling(keywords):
    exptime = float(keywords.get("EXPTIME", math.nan))  # IPP writes an undefined number as the text 'NaN'
    if not 0 < exptime < math.inf:
        raise NoFlux(f"header has EXPTIME = {keywords.get('EXPTIME')}: counts/s cannot be computed")
    zero_point = float(keywords.get("FPA.ZP", 25))
    if not math.isfinite(zero_point):
        raise NoFlux(f"header has FPA.ZP = {zero_point}: no zero point in magnitudes")
    present = [name for name in ("BSOFTEN", "BOFFSET") if name in keywords]
    if len(present) == 1:
        raise NoFlux(f"header has {present[0]} alone: BSOFTEN and BOFFSET are needed together")
    if not present:
        return
    softening, offset = float(keywords["BSOFTEN"]), float(keywords["BOFFSET"])
    if math.isnan(softening):  # legal: an image without a good pixel
        return
    if not 0 < softening < math.inf or not math.isfinite(offset):
        raise NoFlux(f"header has BSOFTEN = {softening}, BOFFSET = {offset}: flux cannot be computed")
