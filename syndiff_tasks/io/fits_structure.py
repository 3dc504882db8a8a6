"""The structure of FITS files: opened, read to their end, checked by their checksums, and given cards and checksums.

Every HDU is read to its end, and every checksum verified, before a pixel is used. astropy only warns of a truncated or
damaged file: its warnings are errors here.
"""

import contextlib
import functools
import io
import math
import warnings
import zlib

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning
from isal import igzip, isal_zlib

_PIECE = 1 << 18
"""Bytes summed at a time, few enough for the cache; a multiple of 4."""

# Raised by astropy for a damaged file. KeyError and the like come from headers that lack a card of their structure.
UNREADABLE = (OSError, EOFError, ValueError, TypeError, LookupError, ArithmeticError, fits.VerifyError, AstropyWarning)


def damaged(path, what):
    """Return the error for a file that is not what it should be."""
    return ValueError(f"{path}: {what}; the file is damaged, incomplete or another one: fetch it again")


def opener(path):
    """Return a function that opens a file, decompressed if it is gzipped."""
    with open(path, "rb") as file:
        if file.read(2) != b"\x1f\x8b":
            return functools.partial(open, path, "rb")
        file.seek(0)
        try:
            return functools.partial(io.BytesIO, igzip.decompress(file.read()))
        except (EOFError, OSError, isal_zlib.error, zlib.error) as error:
            raise damaged(path, f"does not unzip ({error})") from error


def fill(path, file, start, buffer):
    """Fill a buffer with the bytes from `start` on."""
    file.seek(start)
    read = file.readinto(buffer.data)
    if read != buffer.size:
        raise damaged(path, f"gave {read} of the {buffer.size} bytes from {start} on")


@contextlib.contextmanager
def naming_errors(path):
    """Turn astropy's warnings, and cards that do not parse when they are used, into errors that name the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", AstropyWarning)
        # Zeros after the last HDU are the fill of a tape or a copying program.
        warnings.filterwarnings("ignore", "Unexpected extra padding at the end of the file", AstropyWarning)
        try:
            yield
        except (fits.VerifyError, AstropyWarning) as error:
            raise damaged(path, f"a card of its header is unreadable ({one_line(error)})") from error


def whole_hdus(path, file):
    """Read the HDUs of a file, each whole and with checksums that hold; those of compressed images as tables."""
    demand_header(path, file, 0)
    try:
        hdus = fits.open(
            file,
            memmap=not isinstance(file, io.BytesIO),
            lazy_load_hdus=False,
            do_not_scale_image_data=True,
            disable_image_compression=True,
        )
    except UNREADABLE as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise damaged(path, f"it is not a whole FITS file ({one_line(error)})") from error
    _verify(path, file, hdus)
    return hdus


def demand_header(path, file, start):
    """Raise if no header begins at byte `start`, else go there (FITS Standard 4.0, sections 4.4.1 and 4.4.2)."""
    file.seek(start)
    expected, found = b"XTENSION=" if start else b"SIMPLE  =", file.read(9)
    if found != expected and not start and (other := _other_format(found + file.read(91))):
        raise ValueError(f"{path}: it is {other} instead of a FITS file; fetch it again")
    if found != expected:
        raise damaged(path, f"it is not FITS at byte {start}, which holds {found!r} instead of {expected!r}")
    file.seek(start)


def _other_format(head):
    """Return what a file that is not FITS is, by its first bytes; empty where they do not show it."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return "empty"
    if text.startswith((b"<!doctype html", b"<html")):
        return "a web page (HTML), such as a login or error page,"
    if text.startswith(b"<?xml"):
        return "XML, such as an error message of S3,"
    return ""


def _verify(path, file, hdus):
    """Raise where a DATASUM or CHECKSUM does not hold."""
    for number, hdu in enumerate(hdus):
        start, data, size = (hdu.fileinfo()[key] for key in ("hdrLoc", "datLoc", "datSpan"))
        stated = card_text(hdu.header, "DATASUM")
        if not stated and "CHECKSUM" not in hdu.header:
            continue
        found = _sum32(file, data, data + size)
        if stated and stated != str(found):
            raise _mismatch(path, f"DATASUM of HDU {number} is {stated}, but the sum of its data is {found}")
        if "CHECKSUM" in hdu.header and _sum32(file, start, data, found) not in (0, 0xFFFFFFFF):
            raise _mismatch(path, f"CHECKSUM of HDU {number} does not hold")


def _mismatch(path, what):
    """Return the error for a checksum that does not hold; `fitscheck` comes with astropy."""
    return ValueError(
        f"{path}: {what}; the file is damaged, incomplete or another one: fetch it again. If you edited it yourself "
        f"(an injected star), write its checksums anew: fitscheck --write --force {path}"
    )


def _sum32(file, start, end, total=0):
    """Add the 32-bit words of a range to a sum in ones' complement (FITS Standard 4.0, appendix J).

    astropy's `verify_checksum` takes the sum of the data for 0 where DATASUM is absent, as in the FFIs of SPOC.
    """
    file.seek(start)
    for at in range(start, end, _PIECE):
        piece = file.read(min(_PIECE, end - at))
        total += int(np.frombuffer(piece, dtype=">u4").sum(dtype=np.uint64))
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    return total


def one_line(error):
    """Return the text of an error on one line."""
    return " ".join(str(error).split())


def card_text(header, key, default=""):
    """Read a card as text, even if it is damaged."""
    return str(header.get(key, default)).strip()


def card_integer(path, header, key, default, lowest, highest):
    """Read a card as an integer within limits, ValueError where it is not."""
    value = header.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        raise damaged(path, f"{key} = {value!r} is not an integer from {lowest} to {highest}")
    return value


def set_cards(header, cards):
    """Add cards given as ``{keyword: value}`` or ``{keyword: (value, comment)}``."""
    for key, value in cards.items():
        # Headers have no NaN: an undefined value is FITS's own way of saying so (Standard 4.0, section 4.1.2.3).
        known, *comment = value if isinstance(value, tuple) else (value,)
        known = None if isinstance(known, float) and math.isnan(known) else known
        header[key if len(key) <= 8 else f"HIERARCH {key}"] = (known, *comment)


def with_checksums(hdus):
    """Add checksums, without the date that astropy would put beside them: equal products are to be equal files."""
    hdus = fits.HDUList(hdus)
    hdus.update_extend()
    for hdu in hdus:
        hdu.add_checksum(when="checksum of this HDU, FITS appendix J")
    return hdus
