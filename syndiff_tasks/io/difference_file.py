"""The file of a difference image: its planes, and the kernel and sky from which any part of it can be made again."""

from typing import NamedTuple

import numpy as np
from astropy.io import fits
from astropy.table import Table

from .fits_structure import set_cards, with_checksums

IMAGES = {
    "DIFFERENCE": ("f4", "FFI minus sky, straps and convolved template"),
    "NOISE": ("f4", "one sigma of DIFFERENCE"),
    "FLAGS": ("i2", "bits, 0 = good"),
}
"""Image HDUs of a difference: type and meaning."""


class KernelTable(NamedTuple):
    """A kernel as numbers.

    Attributes
    ----------
    size, order, oversampling : int
        Free taps along each axis, degree of the polynomials in x and y, and taps along an FFI pixel.
    wings : tuple of float
        Widths of the Gaussians that the template is convolved with besides [FFI px].
    shape : tuple of int
        (ny, nx) of the image.
    coefficients : ndarray of float64, shape (terms, size * size + wings)
        FFI units per template unit.
    """

    size: int
    order: int
    oversampling: int
    wings: tuple[float, ...]
    shape: tuple[int, int]
    coefficients: np.ndarray


class SkyTable(NamedTuple):
    """A sky as numbers.

    Attributes
    ----------
    plane : tuple of float
        b0, b1, b2 of b0 + b1 x + b2 y.
    levels : ndarray of float64, shape (my, mx)
        Levels of the meshes beside the plane.
    strap_columns : ndarray of int64, shape (n,)
        Columns with a strap.
    strap_curves : ndarray of float64, shape (n, steps)
        Their extra sky along the rows.
    """

    plane: tuple[float, float, float]
    levels: np.ndarray
    strap_columns: np.ndarray
    strap_curves: np.ndarray


class DifferenceFile(NamedTuple):
    """The content of a file: primary header, images by name (none of a whole CCD as a rule), kernel and sky."""

    header: fits.Header
    images: dict
    kernel: KernelTable
    sky: SkyTable


def write_difference(path, primary, images, kernel, sky, wcs_cards, *, unit, flag_bits):
    """Write a difference image, or only what it can be made again from.

    Parameters
    ----------
    path : path-like
        New ``.fits`` file, written plainly: the caller puts it under its final name.
    primary : Mapping
        Cards of the primary header: ``{keyword: value}`` or ``{keyword: (value, comment)}``.
    images : Mapping
        Each name of `IMAGES` and its array of shape (ny, nx); empty for none.
    kernel : KernelTable
        What the template was convolved with.
    sky : SkyTable
        What was subtracted besides.
    wcs_cards : Mapping
        WCS of the pixels, put into each image.
    unit : str
        BUNIT of the FFI.
    flag_bits : Mapping
        Meaning of each bit of FLAGS: ``{name: (value, sentence)}``.

    Raises
    ------
    ValueError
        If an image is missing or unknown.
    """
    if images and set(images) != set(IMAGES):
        raise ValueError(f"{path}: a difference needs the images {', '.join(IMAGES)}, got {', '.join(images)}")
    hdus = [fits.PrimaryHDU()]
    set_cards(hdus[0].header, primary)
    for name in images:
        dtype, meaning = IMAGES[name]
        hdu = fits.ImageHDU(np.asarray(images[name], dtype), name=name)
        hdu.header["EXTNAME"] = (name, meaning)
        if name != "FLAGS":
            hdu.header["BUNIT"] = (unit, "unit of the pixel values")
        set_cards(hdu.header, wcs_cards)
        hdus.append(hdu)
    if images:
        for name, (value, meaning) in flag_bits.items():
            hdus[-1].header[f"FLGBIT{value.bit_length() - 1:02d}"] = (name, f"bit value {value}")
            hdus[-1].header.add_comment(f"FLAGS {value} {name}: {meaning}")
    hdus += [_kernel_hdu(kernel, unit), _sky_hdu(sky, kernel.shape, unit), _straps_hdu(sky, unit)]
    with_checksums(hdus).writeto(path, output_verify="exception")


def _kernel_hdu(kernel, unit):
    """Make the table KERNEL: a row a coefficient, with the place of its tap or the width of its wing."""
    taps, half = kernel.size**2, kernel.size // 2
    j, i = np.divmod(np.arange(taps), kernel.size)
    none = np.zeros(len(kernel.wings))
    table = Table(
        {
            "DX": np.append((i - half) / kernel.oversampling, none),
            "DY": np.append((j - half) / kernel.oversampling, none),
            "SIGMA": np.append(np.zeros(taps), kernel.wings),
            "COEFFICIENTS": np.ascontiguousarray(kernel.coefficients.T),
        },
        units={"DX": "pixel", "DY": "pixel", "SIGMA": "pixel"},
    )
    hdu = fits.table_to_hdu(table)
    hdu.name = "KERNEL"
    set_cards(
        hdu.header,
        {
            "SIZE": (kernel.size, "free taps along each axis"),
            "NWINGS": (len(kernel.wings), "Gaussian wings, the last rows"),
            "ORDER": (kernel.order, "degree of the polynomials in u and v"),
            "OVERSAMP": (kernel.oversampling, "template pixels along one FFI pixel"),
            "NX": (kernel.shape[1], "[px] width; u = (x-(NX-1)/2)/(NX/2)"),
            "NY": (kernel.shape[0], "[px] height; v = (y-(NY-1)/2)/(NY/2)"),
        },
    )
    for line in (
        f"COEFFICIENTS: [{unit} per template unit] of 1, u, v, u^2, u v, v^2.",
        "A tap multiplies the template DX, DY FFI pixels further in x and y;",
        "a wing the template convolved with a Gaussian of SIGMA FFI pixels.",
    ):
        hdu.header.add_comment(line)
    return hdu


def _sky_hdu(sky, shape, unit):
    """Make the image SKY: the levels of the meshes, and the plane in the header."""
    hdu = fits.ImageHDU(np.asarray(sky.levels, "f8"), name="SKY")
    cards = {"BUNIT": (unit, "unit of the levels"), "NX": (shape[1], "[px] width of the image")}
    cards |= {"NY": (shape[0], "[px] height of the image")}
    meanings = ("at the first pixel", "per px along x", "per px along y")
    cards |= {
        f"PLANE{k}": (float(value), f"[{unit}] plane, {meaning}")
        for k, (value, meaning) in enumerate(zip(sky.plane, meanings, strict=True))
    }
    set_cards(hdu.header, cards)
    hdu.header.add_comment("Sky = plane + cubic spline through the levels, which lie in the middles of")
    hdu.header.add_comment("meshes of equal size, straight beyond the outermost ones.")
    return hdu


def _straps_hdu(sky, unit):
    """Make the table STRAPS: a row a column of the image with extra sky."""
    table = Table({"COLUMN": np.asarray(sky.strap_columns, "i4"), "CURVE": np.asarray(sky.strap_curves, "f8")})
    hdu = fits.table_to_hdu(table)
    hdu.name = "STRAPS"
    # Not TUNIT: FITS has no unit "electrons".
    hdu.header["CURVUNIT"] = (unit, "unit of the CURVEs")
    hdu.header["NSTEPS"] = (sky.strap_curves.shape[1], "steps along the rows: values of a CURVE")
    return hdu


def _native(array):
    """Return an array in the byte order of the processor."""
    return np.ascontiguousarray(array, array.dtype.newbyteorder("="))


def read_difference(path):
    """Read a difference file.

    Parameters
    ----------
    path : path-like
        A file that `write_difference` wrote.

    Returns
    -------
    DifferenceFile

    Raises
    ------
    ValueError
        If the file holds no kernel and sky.
    """
    with fits.open(path) as hdus:
        missing = [name for name in ("KERNEL", "SKY", "STRAPS") if name not in hdus]
        if missing:
            raise ValueError(
                f"{path} is not a SynDiff difference: it has no extension {', '.join(missing)}; give a file that "
                "Difference or `syndiff_tasks difference --out` wrote"
            )
        card, table, straps = hdus["KERNEL"].header, hdus["KERNEL"].data, hdus["STRAPS"].data
        taps, rows = card["SIZE"] ** 2, len(table)
        kernel = KernelTable(
            size=card["SIZE"],
            order=card["ORDER"],
            oversampling=card["OVERSAMP"],
            wings=tuple(float(sigma) for sigma in table["SIGMA"][taps:]),
            shape=(card["NY"], card["NX"]),
            coefficients=_native(table["COEFFICIENTS"].reshape(rows, -1).T),
        )
        sky = SkyTable(
            plane=tuple(float(hdus["SKY"].header[f"PLANE{k}"]) for k in range(3)),
            levels=_native(hdus["SKY"].data),
            strap_columns=straps["COLUMN"].astype(np.int64),
            strap_curves=_native(straps["CURVE"].reshape(len(straps), hdus["STRAPS"].header["NSTEPS"])),
        )
        images = {name: _native(hdus[name].data) for name in IMAGES if name in hdus}
        return DifferenceFile(hdus[0].header.copy(), images, kernel, sky)
