"""A target as people write it: degrees, sexagesimal, a name, a TIC number, or numbers and `SkyCoord` in Python."""

import math
import re

EXAMPLES = "'210.8023 54.3489', '14:03:12.6 +54:20:56', '14h03m12.6s +54d20m56s', 'SN 2023ixf' or 'TIC 261136679'"

# What has no other characters than these may be a position; anything else is a name.
_POSITION = re.compile(r"[+-]?\d[\d\s.,:hmsd°º'\"′″+-]*", re.ASCII)

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?[d°º]?", re.ASCII | re.IGNORECASE)

# An arcsecond is 2.8e-4 deg: so many decimals keep 0.4 mas.
DECIMALS = 7


def position_of(target, resolve):
    """Return the position of a target.

    Parameters
    ----------
    target : str, SkyCoord, or pair of float
        RA and Dec as text; a name; ICRS coordinates in any frame astropy knows; or RA and Dec [deg].
    resolve : callable
        Takes a name and returns RA and Dec [deg].

    Returns
    -------
    ra, dec : float
        ICRS [deg].

    Raises
    ------
    ValueError
        If the target cannot be read, or is not on the sky.
    """
    if hasattr(target, "icrs"):
        ra, dec = _of_sky_coord(target)
    elif not isinstance(target, str):
        ra, dec = _pair(target)
    else:
        text = " ".join(target.replace("\N{MINUS SIGN}", "-").split())
        ra, dec = _degrees(text) or (_sexagesimal(text) if _POSITION.fullmatch(text) else resolve(text))
    if not (-180 <= ra <= 360 and -90 <= dec <= 90):
        raise ValueError(
            f"--target {target!r}: RA {ra:g}, Dec {dec:g} is not on the sky; RA is within 0 to 360 degrees and Dec "
            "within -90 to 90"
        )
    return ra % 360.0, dec


def as_text(position):
    """Return a position as ``RA Dec`` in degrees, the form in which tasks carry it.

    Parameters
    ----------
    position : tuple of float
        RA and Dec [deg].

    Returns
    -------
    text : str
    """
    return " ".join(repr(float(value)) for value in position)


def _of_sky_coord(coord):
    if not coord.isscalar:
        raise ValueError(f"--target: {len(coord)} positions; give one")
    return round(float(coord.icrs.ra.deg), DECIMALS), round(float(coord.icrs.dec.deg), DECIMALS)


def _pair(target):
    try:
        ra, dec = (float(value) for value in target)
    except (TypeError, ValueError) as error:
        raise ValueError(f"--target {target!r}: give RA and Dec, a SkyCoord, or text such as {EXAMPLES}") from error
    if not (math.isfinite(ra) and math.isfinite(dec)):
        raise ValueError(f"--target {target!r}: RA and Dec must be finite")
    return ra, dec


def _degrees(text):
    """Return two numbers, None where the text is something else."""
    words = text.replace(",", " ").split()
    if len(words) == 2 and all(_NUMBER.fullmatch(word) for word in words):
        return tuple(float(word.rstrip("d°º")) for word in words)
    return None


def _sexagesimal(text):
    from astropy.coordinates import Angle

    # "10h00m12s+54d20m11s" has its sign for a separator.
    words = re.sub(r"(?<=[\dsmd\"'″′])(?=[+-])", " ", text.replace(",", " ")).split()
    half = len(words) // 2
    # Angle reads d, ' and ", not the signs of a printed page.
    signs = str.maketrans({"°": "d", "º": "d", "′": "'", "″": '"'})
    ra, dec = (" ".join(part).translate(signs) for part in (words[:half], words[half:]))
    try:
        if len(words) not in (2, 6):
            raise ValueError(f"{len(words)} numbers")
        angles = Angle(ra, "deg" if "d" in ra else "hourangle"), Angle(dec, "deg")
    except ValueError as error:
        raise ValueError(f"--target {text!r}: this is not a position; give one such as {EXAMPLES}") from error
    return tuple(round(float(angle.deg), DECIMALS) for angle in angles)
