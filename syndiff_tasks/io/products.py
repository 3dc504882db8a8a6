"""Write FITS files: templates and maps."""

import io

import numpy as np
from astropy.io import fits
from astropy.table import Table
from isal import isal_zlib

from syndiff_tasks.io.fits_structure import set_cards, with_checksums

PLANES = {
    "FLUX_SUM": ("f4", "template flux per TESS pixel"),
    "VARIANCE": ("f4", "variance of FLUX_SUM"),
    "COVERAGE": ("f4", "fraction of the blurred pixel area with data"),
    "COUNT": ("f4", "effective number of valid native PS1 pixels"),
    "MASKED": ("f4", "native PS1 pixels with an ignored/suspect bit"),
    "DQ": ("i4", "data quality bits, 0 = good"),
}
"""Image HDUs of a template in their order: type and meaning."""

_GZIP_LEVEL = 1
"""Of igzip: a 6300 x 6300 index map takes 0.07 s and 3.0 MB, where zlib takes 0.45 s and 3.2 MB at its own level 1."""

_GZIP_WINDOW = 31
"""zlib's ``wbits`` for a gzip header and trailer; the header holds no time, so equal products are equal files."""

_RECORD = 2880
"""Bytes of a FITS record (FITS Standard 4.0, section 3.1)."""

_STRIP_ROWS = 256
"""Rows compressed at a time: a few MB, so that a map never stands in memory twice."""


def _table_hdu(name, table):
    """Make a table HDU from a DataFrame or an astropy Table; columns of objects become text."""
    if not isinstance(table, Table):
        units, meanings = table.attrs.get("units", {}), table.attrs.get("meanings", {})
        columns = {}
        for column in table.columns:
            values = table[column].to_numpy()
            if values.dtype.kind not in "biuf":
                values = np.array(["" if value is None else str(value) for value in values], dtype=np.str_)
            columns[str(column)] = values
        table = Table(columns)
        for column, unit in units.items():
            table[column].unit = unit
        for column, meaning in meanings.items():
            table[column].description = meaning
    hdu = fits.table_to_hdu(table)
    hdu.name = name
    for number, column in enumerate(table.columns.values(), start=1):
        if column.description:
            # Not in the Standard, but what TOPCAT and STILTS write and read.
            hdu.header.set(f"TCOMM{number}", column.description, after=f"TFORM{number}")
    return hdu


def write_template(path, primary, planes, wcs_cards, tables, *, unit, zero_point, dq_bits):
    """Write a template: six images, two tables and the settings and inputs of both.

    Parameters
    ----------
    path : path-like
        New ``.fits`` file, written plainly: the caller puts it under its final name.
    primary : Mapping
        Cards of the primary header: ``{keyword: value}`` or ``{keyword: (value, comment)}``.
    planes : Mapping
        Each name of `PLANES` and its array, all of one shape (ny, nx).
    wcs_cards : Mapping
        WCS of the template's own pixels, put into each image.
    tables : Mapping
        Name of each table HDU and its pandas DataFrame (units and meanings of its columns from ``frame.attrs["units"]``
        and ``frame.attrs["meanings"]``, by column) or astropy Table, in their order; a table may be empty.
    unit : str
        BUNIT of FLUX_SUM, e.g. ``"count/s"``; that of VARIANCE is its square, ``"count**2/s**2"``.
    zero_point : float
        AB magnitude of one `unit`.
    dq_bits : Mapping
        Meaning of each bit of DQ: ``{name: (value, sentence)}``.

    Raises
    ------
    ValueError
        If a plane is missing or unknown, or the shapes differ.
    """
    shapes = {name: np.shape(plane) for name, plane in planes.items()}
    if set(shapes) != set(PLANES) or len(set(shapes.values())) != 1:
        raise ValueError(f"{path}: a template needs the planes {', '.join(PLANES)} of one shape, got {shapes}")
    hdus = [fits.PrimaryHDU()]
    set_cards(hdus[0].header, primary)
    squared = "/".join(f"{part}**2" for part in unit.split("/"))
    units = {"FLUX_SUM": unit, "VARIANCE": squared, "COUNT": "pixel", "MASKED": "pixel"}
    for name, (dtype, meaning) in PLANES.items():
        hdu = fits.ImageHDU(np.asarray(planes[name], dtype=dtype), name=name)
        hdu.header["EXTNAME"] = (name, meaning)
        hdu.header["BUNIT"] = (units.get(name, ""), "unit of the pixel values")
        set_cards(hdu.header, wcs_cards)
        hdus.append(hdu)
    hdus[2].header["UTYPE"] = ("VarianceUncertainty", "how astropy's CCDData reads this plane")
    hdus[1].header["ZEROPNT"] = (zero_point, "[mag] AB magnitude of one BUNIT")
    hdus[1].header["BLANKVAL"] = ("NaN", "value where COVERAGE is below the minimum")
    for name, (value, meaning) in dq_bits.items():
        hdus[-1].header[f"DQBIT{value.bit_length() - 1:02d}"] = (name, f"bit value {value}")
        hdus[-1].header.add_comment(f"DQ {value} {name}: {meaning}")
    hdus += [_table_hdu(name, table) for name, table in tables.items()]
    with_checksums(hdus).writeto(path, output_verify="exception")


def _gzip_hdus(path, hdus):
    content = io.BytesIO()
    with_checksums(hdus).writeto(content, output_verify="exception")
    with open(path, "wb") as file:
        file.write(isal_zlib.compress(content.getbuffer(), _GZIP_LEVEL, _GZIP_WINDOW))


def write_master_map(path, index_map, wcs_cards, table):
    """Write which skycell owns each FFI pixel.

    Parameters
    ----------
    path : path-like
        New ``.fits.gz`` file, written plainly: the caller puts it under its final name.
    index_map : ndarray of int16 or int32, shape (ny, nx)
        Row of `table` that owns the pixel, -1 for none.
    wcs_cards : Mapping
        WCS of the FFI pixels.
    table : pandas.DataFrame or astropy.table.Table
        The skycells, in the order of the indices; becomes the table HDU SKYCELLS.

    Raises
    ------
    ValueError
        If `index_map` holds an index outside the table.
    """
    lowest, highest = int(index_map.min()), int(index_map.max())
    if lowest < -1 or highest >= len(table):
        raise ValueError(f"{path}: indices {lowest}..{highest} point outside a table of {len(table)} skycells")
    image = fits.PrimaryHDU(index_map)
    image.header["CONTENT"] = ("SKYCELL_INDEX", "0-based row of SKYCELLS, -1 for none")
    set_cards(image.header, wcs_cards)
    _gzip_hdus(path, [image, _table_hdu("SKYCELLS", table)])


_WCS_CARDS = ("CRVAL", "CRPIX", "CD", "CUNIT", "PC", "LONPOLE", "LATPOLE", "RADESYS", "EQUINOX")


def _alternate(cards):
    """Rename TESS cards to alternate WCS T; the SIP terms, which have no alternate form, as A_p_qT and B_p_qT."""
    alternate = {}
    for key, value in cards.items():
        text = value[0] if isinstance(value, tuple) else value
        if key.startswith("CTYPE"):
            alternate[key + "T"] = (text.removesuffix("-SIP"), "linear part of the WCS of the TESS pixels")
        elif key[:2] in ("A_", "B_") or key.startswith(_WCS_CARDS):
            alternate[key + "T"] = value
    return alternate


def write_pixel_map(path, index_map, cards_ps1, cards_tess):
    """Write which FFI pixel each pixel of a skycell falls on.

    Parameters
    ----------
    path : path-like
        New ``.fits.gz`` file, written plainly: the caller puts it under its final name.
    index_map : ndarray of int32, shape (ny, nx)
        Flat index ``y * NAXIS1 + x`` (0-based) of the FFI pixel, -1 for none.
    cards_ps1 : Mapping
        WCS of the skycell, the primary WCS of the file.
    cards_tess : Mapping
        WCS of the FFI (TAN or TAN-SIP) and other cards of use there.

    Notes
    -----
    The WCS of the FFI goes with its own pixels, not with those of this image: it is there as alternate WCS ``T`` so
    that an index can be turned into a sky position without the FFI. SIP has no alternate form (Shupe et al. 2005), and
    ``A_p_q`` would be applied by readers to the skycell's own WCS: its terms are written as ``A_p_qT`` and ``B_p_qT``.
    Take the T off all of them and add ``-SIP`` to both CTYPE to get the FFI's WCS back.
    """
    hdu = fits.PrimaryHDU(index_map)
    header = hdu.header
    header["CONTENT"] = ("TESS_INDEX", "y * width + x of the FFI pixel, or -1")
    set_cards(header, cards_ps1)
    set_cards(header, _alternate(cards_tess))
    for line in (
        "The primary WCS is that of the PS1 skycell, whose pixels these are.",
        "Alternate WCS T goes with the TESS FFI pixels that the values index. Its",
        "SIP terms are A_p_qT and B_p_qT. Without the T, and with -SIP added to",
        "CTYPE, all of them are the WCS of the FFI.",
    ):
        header.add_comment(line)
    hdu.add_datasum(when="data unit checksum")
    hdu.add_checksum(when="HDU checksum", override_datasum=True)
    # Cards may change places: a checksum is a sum.
    header.set("CHECKSUM", header["CHECKSUM"], after="DATASUM")
    squeeze = isal_zlib.compressobj(_GZIP_LEVEL, isal_zlib.DEFLATED, _GZIP_WINDOW)
    with open(path, "wb") as file:
        file.write(squeeze.compress(header.tostring().encode("ascii")))
        for row in range(0, index_map.shape[0], _STRIP_ROWS):
            file.write(squeeze.compress(index_map[row : row + _STRIP_ROWS].astype(">i4").data.cast("B")))
        file.write(squeeze.compress(bytes(-index_map.nbytes % _RECORD)) + squeeze.flush())
