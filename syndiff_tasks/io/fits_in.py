"""Read FITS files: FFIs and PS1 stack files.

Files are opened and checked by `fits_structure` before a pixel is used.
"""

import io
import math
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from astropy.io import fits
from isal import igzip, isal_zlib

from syndiff_tasks.io import rice, tesscut
from syndiff_tasks.io.fits_structure import (
    UNREADABLE,
    card_integer,
    card_text,
    damaged,
    demand_header,
    fill,
    naming_errors,
    one_line,
    opener,
    whole_hdus,
)

STACK_KEYWORDS = (
    *("NAXIS1", "NAXIS2", "EXPTIME", "MJD-OBS", "BSOFTEN", "BOFFSET", "FPA.ZP", "FPA.FILTER", "NINPUTS"),
    *("SKYCELL", "STK_TYPE", "STK_ID", "TESS_ID", "RADESYS", "EQUINOX", "LONPOLE", "LATPOLE"),
    *("CTYPE1", "CTYPE2", "CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2", "CDELT1", "CDELT2"),
    *("PC1_1", "PC1_2", "PC2_1", "PC2_2", "CD1_1", "CD1_2", "CD2_1", "CD2_2"),
)
"""Cards of a stack file that travel with its pixels, besides BZERO, BSCALE and BLANK."""

_NUMBERS = ("EXPTIME", "MJD-OBS", "BSOFTEN", "BOFFSET", "FPA.ZP")


@dataclass(frozen=True)
class Rows:
    """An image of a file: ``rows[first:last]`` reads and decodes these rows and no others.

    Attributes
    ----------
    shape : (int, int)
        Rows and columns.
    dtype : numpy.dtype
        Type of the pixels, in native byte order.
    read : callable
        Takes the first row and the one after the last, and returns these rows; ValueError where they do not decode.
    """

    shape: tuple
    dtype: np.dtype
    read: Callable

    def __getitem__(self, strip):
        """Read the rows of a slice with step 1."""
        first, last, _ = strip.indices(self.shape[0])
        return self.read(first, last)

    def converted(self, dtype, convert):
        """Return the rows of another type that a function of an array makes of these."""
        return Rows(self.shape, np.dtype(dtype), lambda first, last: convert(self.read(first, last)))


class StackFile(NamedTuple):
    """`Rows` of a PS1 stack file as stored, and the cards to read them by."""

    stored: Rows
    keywords: dict


class FFIImage(NamedTuple):
    """A Full Frame Image: `image` and `uncertainty` (or None) float32 of shape (ny, nx), `header` with its WCS."""

    image: np.ndarray
    header: fits.Header
    uncertainty: np.ndarray | None


# --- reading: images --------------------------------------------------------------------------------------------------


_TILE_CARDS = re.compile(
    "XTENSION|BITPIX|NAXIS[0-9]*|PCOUNT|GCOUNT|TFIELDS|THEAP|CHECKSUM|DATASUM|(TTYPE|TFORM|TUNIT|TDIM|TNULL)[0-9]+"
    "|Z(IMAGE|SIMPLE|TENSION|EXTEND|BLOCKED|BITPIX|NAXIS[0-9]*|PCOUNT|GCOUNT|TILE[0-9]+|CMPTYPE|NAME[0-9]+|VAL[0-9]+"
    "|MASKCMP|QUANTIZ|DITHER0|SCALE|ZERO|BLANK|HECKSUM|DATASUM)"
)


def _image_header(header):
    """Turn the header of a table of compressed tiles into that of its image (FITS Standard 4.0, section 10.1)."""
    if not header.get("ZIMAGE", False):
        return header
    image = fits.Header([("XTENSION", "IMAGE")])
    for key in ("BITPIX", "NAXIS", "NAXIS1", "NAXIS2"):
        image[key] = (header.get("Z" + key), "of the image that the tiles hold")
    # Not stripped: astropy counts BZERO and BSCALE among the cards of a table's structure.
    image.extend((card for card in header.cards if not _TILE_CARDS.fullmatch(card.keyword)), strip=False)
    if "BLANK" not in image and "ZBLANK" in header:
        image["BLANK"] = header["ZBLANK"]
    return image


def _is_image(header):
    """Return whether an HDU holds a two-dimensional image, plain or compressed."""
    if header.get("ZIMAGE", False):
        return header.get("ZNAXIS") == 2
    return header.get("NAXIS") == 2 and card_text(header, "XTENSION", "IMAGE") == "IMAGE"


def _contents(headers):
    """Describe the HDUs of a file for a message."""
    return ", ".join(
        f"HDU {n} {card_text(header, 'XTENSION', 'PRIMARY')} "
        + ("x".join(str(header.get(f"NAXIS{i + 1}")) for i in range(header["NAXIS"])) or "without data")
        for n, header in enumerate(headers)
    )


def _is_plain_rice(header):
    """Return whether an image is compressed as in the archive, so that `rice` decodes it."""
    parameters = {card_text(header, f"ZNAME{n}"): header.get(f"ZVAL{n}") for n in range(1, 5)}
    return (
        card_text(header, "ZCMPTYPE") == "RICE_1"
        and header.get("ZBITPIX") == 16
        and header.get("TFIELDS") == 1
        and card_text(header, "TTYPE1") == "COMPRESSED_DATA"
        and card_text(header, "TFORM1")[:2] in ("1P", "1Q")
        and header.get("ZTILE1", header.get("ZNAXIS1")) == header.get("ZNAXIS1")
        and header.get("ZTILE2", 1) == 1
        and parameters.get("BLOCKSIZE", rice.BLOCK) == rice.BLOCK
        and parameters.get("BYTEPIX") == 2
        and card_text(header, "ZQUANTIZ", "NONE") == "NONE"
        and header.get("NAXIS2") == header.get("ZNAXIS2") > 0
        and header.get("NAXIS1") == {"1P": 8, "1Q": 16}[card_text(header, "TFORM1")[:2]]
    )


def _rice_rows(path, opened, file, header, data, unsigned):
    """Return the rows of an image in the archive's form; each strip is read when it is decoded."""
    ny, width = header["NAXIS2"], header["NAXIS1"]
    descriptors = np.empty(ny * width, dtype=np.uint8)
    fill(path, file, data, descriptors)
    lengths, offsets = descriptors.view(f">i{width // 2}").reshape(ny, 2).astype(np.int64).T
    heap = header.get("THEAP", ny * width)
    end = ny * width + header["PCOUNT"]
    if (offsets < 0).any() or (lengths < 0).any() or (offsets > end - heap - lengths).any():
        raise ValueError("a row's descriptor points outside the table")
    starts, nx, dtype = data + heap + offsets, header["ZNAXIS1"], np.dtype(np.uint16 if unsigned else np.int16)
    stops = starts + lengths

    def read(first, last):
        strip = slice(first, last)
        begin, stop = int(starts[strip].min()), int(stops[strip].max())
        stream = np.empty(stop - begin + rice.SLACK, dtype=np.uint8)
        stream[stop - begin :] = 0
        with opened() as again:
            fill(path, again, begin, stream[: stop - begin])
        try:
            rows = rice.decode_rows(stream, starts[strip] - begin, lengths[strip], nx, 0x8000 if unsigned else 0)
        except ValueError as error:
            raise damaged(path, f"does not decompress (counted from row {first}, {error})") from error
        return rows.view(dtype)

    return Rows((ny, nx), dtype, read)


def _decode_with_astropy(opened, number):
    """Return the stored values of any other image, in native byte order."""
    # astropy keeps the class of cfitsio's errors to itself, and derives it from Exception alone.
    from astropy.io.fits.hdu.compressed._compression import CfitsioException

    with opened() as file, fits.open(file, do_not_scale_image_data=True, memmap=False) as hdus:
        try:
            pixels = hdus[number].data
        except (CfitsioException, RuntimeError, EOFError, zlib.error) as error:
            raise ValueError(str(error)) from error
    return np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("="))


def _stored(path, opened, file, hdus, number):
    """Return the stored values of an image HDU as `Rows`; those that FITS keeps with BZERO 32768 as uint16."""
    hdu = hdus[number]
    header = hdu.header
    try:
        bits = header.get("ZBITPIX", header["BITPIX"])
        unsigned = (bits, header.get("BZERO"), header.get("BSCALE", 1)) == (16, 32768, 1)
        if unsigned and card_text(header, "ZCMPTYPE") == "PLIO_1":
            # astropy 8.0.2 gives numbers that are 32768 too high; another version may not.
            raise ValueError("unsigned 16-bit integers packed by PLIO_1 are not read reliably: unpack it with funpack")
        if _is_plain_rice(header):
            return _rice_rows(path, opened, file, header, hdu.fileinfo()["datLoc"], unsigned)
        pixels = _decode_with_astropy(opened, number)
    except UNREADABLE as error:
        raise damaged(path, f"HDU {number} does not decompress ({error})") from error
    if unsigned:
        pixels = pixels.view(np.uint16) ^ np.uint16(0x8000)
    return Rows(pixels.shape, pixels.dtype, lambda first, last: pixels[first:last])


def _number(path, header, key, default):
    """Read a card as a float; the archive writes the string 'NaN' where it has no value."""
    try:
        return float(header.get(key, default))
    except (TypeError, ValueError) as error:
        raise damaged(path, f"{key} is not a number ({error})") from error


def _keywords(path, header):
    """Collect the cards of `STACK_KEYWORDS` that are there, PC001001 as PC1_1, with BZERO, BSCALE and BLANK."""
    old_style = {f"PC{i}_{j}": f"PC00{i}00{j}" for i in (1, 2) for j in (1, 2)}
    keywords = {"BZERO": _number(path, header, "BZERO", 0.0), "BSCALE": _number(path, header, "BSCALE", 1.0)}
    if not (math.isfinite(keywords["BZERO"]) and math.isfinite(keywords["BSCALE"]) and keywords["BSCALE"]):
        raise damaged(path, f"BZERO and BSCALE of {keywords} are not a valid scaling")
    if "BLANK" in header:
        keywords["BLANK"] = card_integer(path, header, "BLANK", None, -(2**63), 2**63)
    for key in STACK_KEYWORDS:
        found = key if key in header else old_style.get(key, key)
        if found in header:
            keywords[key] = _number(path, header, found, None) if key in _NUMBERS else header[found]
    return keywords


def read_stack(path):
    """Open a PS1 stack image, mask or variance file.

    Parameters
    ----------
    path : path-like
        File as the archive has it (tile-compressed image in HDU 1), or funpacked (image in HDU 0), or zipped.

    Returns
    -------
    stack : StackFile
        `stored`, `Rows` of shape (ny, nx): the integers or floats on disk in native byte order (int16 for stacks).
        Unsigned 16-bit integers, which FITS keeps as int16 with BZERO 32768 and BSCALE 1, come as uint16.
        `keywords`, dict of plain values: BZERO and BSCALE (always; of `stored` as returned, so 0 and 1 for uint16),
        BLANK (only if the header has it) and those of `STACK_KEYWORDS` that the header has; ``PC001001`` is called
        ``PC1_1``, and numbers that the archive writes as 'NaN' are NaN.

    Raises
    ------
    ValueError
        If the file is not a FITS file, truncated, damaged (a checksum does not hold), or has no two-dimensional image;
        and by `stored` where a tile does not decode. The message names the file.

    Notes
    -----
    RICE_1 tiles of one row of 16-bit integers are decoded by `syndiff_tasks.io.rice`, strip by strip, since 80 MB
    that are allocated, filled and freed again cost as much as a third of their decoding. Any other form is decoded by
    astropy, at once.
    """
    opened = opener(path)
    with naming_errors(path), opened() as file:
        hdus = whole_hdus(path, file)
        images = [n for n, hdu in enumerate(hdus) if _is_image(hdu.header)]
        if len(images) > 1:
            contents = _contents([hdu.header for hdu in hdus])
            raise ValueError(f"{path} has {len(images)} images ({contents}), a PS1 stack file has one: fetch it again")
        if not images:
            raise ValueError(
                f"{path} has no two-dimensional image ({_contents([hdu.header for hdu in hdus])}); "
                "it is truncated or not a PS1 stack file: fetch it again"
            )
        number = images[0]
        keywords = _keywords(path, _image_header(hdus[number].header))
        stored = _stored(path, opened, file, hdus, number)
    if stored.dtype == np.uint16:
        keywords.update(BZERO=0.0, BSCALE=1.0)
    return StackFile(stored, keywords)


def read_mask(path):
    """Open a PS1 mask file.

    Parameters
    ----------
    path : path-like
        File as for `read_stack`.

    Returns
    -------
    mask : StackFile
        `stored` is uint16, shape (ny, nx), whether the file keeps its bits unsigned (BZERO 32768) or as plain int16
        (bit 15 is then the sign).

    Raises
    ------
    ValueError
        As `read_stack`, and if the pixels are scaled or are not integers of 16 bits.
    """
    stored, keywords = read_stack(path)
    if stored.dtype not in (np.uint16, np.int16) or (keywords["BZERO"], keywords["BSCALE"]) != (0.0, 1.0):
        raise ValueError(
            f"{path} holds {stored.dtype} with BZERO {keywords['BZERO']} and BSCALE {keywords['BSCALE']}, "
            "which are not the 16 mask bits of PS1; is it a mask file, and were its upper bits kept?"
        )
    # Wrapping turns a sign into bit 15.
    return StackFile(stored.converted(np.uint16, lambda rows: rows.astype(np.uint16, copy=False)), keywords)


# --- reading: FFIs ----------------------------------------------------------------------------------------------------


def camera_and_ccd(header, path="the FFI"):
    """Camera and CCD of an FFI by its header.

    Parameters
    ----------
    header : Mapping
        Header of the image: SPOC has CAMERA and CCD, TICA has CAMNUM and CCDNUM.
    path : path-like
        What a message calls the file.

    Returns
    -------
    camera, ccd : int
        Each 1..4.

    Raises
    ------
    ValueError
        If they are absent or not 1..4.
    """
    for keys in (("CAMERA", "CCD"), ("CAMNUM", "CCDNUM")):
        if keys[0] in header and keys[1] in header:
            return tuple(card_integer(path, header, key, None, 1, 4) for key in keys)
    raise ValueError(
        f"{path} has neither CAMERA and CCD (SPOC) nor CAMNUM and CCDNUM (TICA) in its header; is it a TESS FFI?"
    )


def _ffi_header(path, headers, number):
    """Join the header of the image with the primary's cards below its own, checked to be an FFI's."""
    header = _image_header(headers[number]).copy()
    if number:
        header.extend(headers[0].copy(strip=True), unique=True, strip=True)
    camera_and_ccd(header, path)
    if card_integer(path, header, "BITPIX", None, -64, 64) > 0:
        raise ValueError(
            f"{path} holds integers (BITPIX {header['BITPIX']}): give the calibrated FFI, which holds floats"
        )
    if "BUNIT" not in header and "UNITS" in header:
        header["BUNIT"] = (header["UNITS"], "from UNITS, as TICA calls it")
    return header


def _no_ffi(path, contents):
    return ValueError(f"{path} has no two-dimensional image in its first HDUs ({contents}); is it a TESS FFI?")


def read_ffi_header(path):
    """Read the header of an FFI without its pixels.

    Parameters
    ----------
    path : path-like
        SPOC or TICA FFI or a cut-out of one: ``.fits``, ``.fits.gz`` or ``.fits.fz``; or a target pixel file of
        TESScut.

    Returns
    -------
    header : astropy.io.fits.Header
        As `read_ffi` returns it; for a target pixel file as `tesscut.image_header` does.

    Raises
    ------
    ValueError
        As `read_ffi`, except for errors that only the pixels show.
    """
    with naming_errors(path), open(path, "rb") as plain:
        zipped = plain.read(2) == b"\x1f\x8b"
        plain.seek(0)
        stream = igzip.open(plain) if zipped else plain
        headers, start = [], 0
        try:
            while len(headers) < 2 or (tesscut.is_tesscut(headers) and len(headers) < 3):
                demand_header(path, stream, start)
                header = fits.Header.fromfile(stream)
                headers.append(header)
                start = stream.tell() + header.data_size_padded
                if not zipped and start > plain.seek(0, io.SEEK_END):
                    raise damaged(path, f"HDU {len(headers) - 1} ends at byte {start}, the file before it")
                if _is_image(header) and not tesscut.is_tesscut(headers):
                    return _ffi_header(path, headers, len(headers) - 1)
                if not zipped and start == plain.seek(0, io.SEEK_END):
                    break
        except (EOFError, igzip.BadGzipFile, isal_zlib.error, zlib.error) as error:
            raise damaged(path, f"does not unzip ({error})") from error
        except UNREADABLE as error:
            if isinstance(error, OSError) and error.errno:
                raise
            raise damaged(path, f"the header at byte {start} is unreadable ({one_line(error)})") from error
    if tesscut.is_tesscut(headers):
        camera_and_ccd(headers[0], path)
        return tesscut.image_header(headers, path)
    raise _no_ffi(path, _contents(headers))


def read_ffi(path):
    """Read a calibrated TESS Full Frame Image.

    Parameters
    ----------
    path : path-like
        SPOC FFI (image in HDU 1, its uncertainty in HDU 2) or TICA FFI (image in HDU 0), whole (2078 x 2136) or cut
        out: ``.fits``, ``.fits.gz`` or ``.fits.fz``. Of a target pixel file of TESScut, the good cadence (QUALITY 0)
        nearest to the middle one, the one whose WCS the file has.

    Returns
    -------
    ffi : FFIImage
        `image` float32 (ny, nx) in the unit of its BUNIT: electrons/s (SPOC) or electrons (TICA, from UNITS); `header`
        of the image with the primary's cards added that it lacks; `uncertainty` float32 (ny, nx), or None.

    Raises
    ------
    ValueError
        If the file is not a FITS file, truncated, damaged, has no two-dimensional image of floats, or does not name
        its camera and CCD. The message names the file and what was found.
    """
    opened = opener(path)
    with naming_errors(path), opened() as file:
        return _read_ffi(path, opened, file)


def read_tesscut(path):
    """Read a target pixel file of TESScut: every cadence of a small cut-out.

    Parameters
    ----------
    path : path-like
        ``tess-s0019-1-3_65.489205_28.443210_10x10_astrocut.fits``, also ``.gz``.

    Returns
    -------
    cut : tesscut.TessCut

    Raises
    ------
    ValueError
        If the file is not a FITS file, truncated, damaged, or not a target pixel file of TESScut.
    """
    with naming_errors(path), opener(path)() as file:
        return _read_tesscut(path, whole_hdus(path, file))


def _read_tesscut(path, hdus):
    headers = [hdu.header for hdu in hdus]
    if not tesscut.is_tesscut(headers):
        raise ValueError(
            f"{path} has no table PIXELS ({_contents(headers)}), so it is not a target pixel file of TESScut"
        )
    camera_and_ccd(headers[0], path)
    return tesscut.from_table(headers, hdus[1].data, path)


def _read_ffi(path, opened, file):
    hdus = whole_hdus(path, file)
    if tesscut.is_tesscut([hdu.header for hdu in hdus]):
        cut = _read_tesscut(path, hdus)
        middle = tesscut.middle_cadence(cut, path)
        return FFIImage(cut.flux[middle], cut.header, cut.flux_err[middle])
    stated = hdus[0].header.get("NEXTEND", 0)
    if isinstance(stated, int) and stated > len(hdus) - 1:
        raise damaged(path, f"NEXTEND promises {stated} extensions, but the file has {len(hdus) - 1}")
    images = [n for n, hdu in enumerate(hdus) if _is_image(hdu.header)]
    if not images or images[0] > 1:
        raise _no_ffi(path, _contents([hdu.header for hdu in hdus]))
    header = _ffi_header(path, [hdu.header for hdu in hdus], images[0])
    image = _stored(path, opened, file, hdus, images[0])[:].astype(np.float32, copy=False)
    uncertainty = None
    for number in images[1:]:
        candidate = _image_header(hdus[number].header)
        if "uncert" in f"{candidate.get('IMAGTYPE', '')} {candidate.get('EXTNAME', '')}".lower():
            uncertainty = _stored(path, opened, file, hdus, number)[:].astype(np.float32, copy=False)
            if uncertainty.shape != image.shape:
                raise damaged(path, f"the uncertainty has shape {uncertainty.shape}, the image {image.shape}")
    return FFIImage(image, header, uncertainty)
