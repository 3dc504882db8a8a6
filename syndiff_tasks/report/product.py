"""A finished template, read back on the pixels of its FFI."""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from astropy.io import fits
from astropy.table import Table

from syndiff_tasks.geometry.region import Region, parse_region
from syndiff_tasks.geometry.tansip import TanSip, oversampled, sky_to_pixel, tansip_from_header
from syndiff_tasks.pixels.difference import ImagePair

IMAGES = ("FLUX_SUM", "VARIANCE", "COVERAGE", "DQ")

#: Pixels so near to a target or a variable star are kept out of the fit of a kernel [px].
KEPT_OUT = 3


class Planes(NamedTuple):
    """Flux, its variance and DQ bits on the pixels of the file."""

    flux: np.ndarray
    variance: np.ndarray
    dq: np.ndarray


class Template(NamedTuple):
    """A template file on the pixels of its FFI, whatever its oversampling.

    Attributes
    ----------
    path : Path
        The file.
    header : astropy.io.fits.Header
        Primary header: provenance and settings.
    flux, variance : ndarray of float32, shape (ny, nx)
        Template flux per TESS pixel [`unit`] and its variance; NaN = no data.
    coverage : ndarray of float32, shape (ny, nx)
        Fraction of each pixel that had data.
    dq : ndarray of int32, shape (ny, nx)
        Bits of `syndiff_tasks.pixels.mask.DQ`.
    unit : str
        BUNIT of the flux; empty where the file has none.
    zero_point : float
        Magnitude of one `unit` (ZEROPNT); NaN where the file has none.
    tansip : TanSip
        WCS of these arrays.
    region : Region
        FFI pixels of the arrays, half-open and 0-based.
    oversampling : int
        Template pixels along an FFI pixel in the file.
    fine : Planes or None
        The images with the file's own pixels where it is oversampled; None where these are the FFI's.
    target : tuple of float, or None
        RA and Dec [deg] of the target that the template was made for (RA_TARG, DEC_TARG); None where it was not made
        for one.
    skycells, stars : astropy.table.Table
        As in the file; empty where the file has none.
    """

    path: Path
    header: fits.Header
    flux: np.ndarray
    variance: np.ndarray
    coverage: np.ndarray
    dq: np.ndarray
    unit: str
    zero_point: float
    tansip: TanSip
    region: Region
    oversampling: int
    fine: Planes | None
    target: tuple[float, float] | None
    skycells: Table
    stars: Table


def blocks_of(image, n):
    """View an image as n x n blocks.

    Parameters
    ----------
    image : ndarray, shape (ny, nx)
        `ny` and `nx` multiples of `n`.
    n : int
        Side of a block [px].

    Returns
    -------
    ndarray, shape (ny / n, nx / n, n * n)
        The pixels of each block.
    """
    ny, nx = image.shape
    return image.reshape(ny // n, n, nx // n, n).swapaxes(1, 2).reshape(ny // n, nx // n, n * n)


def _oversampling(path, shape, region):
    """Return the number of template pixels along an FFI pixel, from the shape and the region."""
    height, width = region.y1 - region.y0, region.x1 - region.x0
    n = max(1, round(shape[1] / width))
    if shape != (height * n, width * n):
        raise ValueError(
            f"{path}: FLUX_SUM has shape {shape}, which is not a whole multiple of the region {tuple(region)} in its "
            "header; make the template again with Downsample --overwrite"
        )
    return n


def read_template(path):
    """Read a template file and sum it to FFI pixels.

    Parameters
    ----------
    path : str or Path
        A template that `Downsample` wrote.

    Returns
    -------
    Template
        Its images (an oversampled template is summed back to FFI pixels), tables and provenance.

    Raises
    ------
    ValueError
        If the file is not a SynDiff template, or its shape contradicts its region.
    """
    path = Path(path)
    with fits.open(path) as hdus:
        missing = [name for name in IMAGES if name not in hdus]
        if missing:
            raise ValueError(
                f"{path} is not a SynDiff template: it has no extension {', '.join(missing)}; give a file that "
                "Downsample wrote"
            )
        header, flux_header = hdus[0].header.copy(), hdus["FLUX_SUM"].header.copy()
        images = {name: hdus[name].data.astype(hdus[name].data.dtype.newbyteorder("=")) for name in IMAGES}
        skycells, stars = (
            Table(hdus[name].data) if name in hdus and hdus[name].data is not None else Table()
            for name in ("SKYCELLS", "STARS")
        )
    shape = images["FLUX_SUM"].shape
    region = parse_region(header["ROI"]) if header.get("ROI") else Region(0, 0, shape[1], shape[0])
    n = _oversampling(path, shape, region)
    tansip = tansip_from_header(flux_header)
    fine = None
    if n > 1:
        fine = Planes(images["FLUX_SUM"], images["VARIANCE"], images["DQ"])
        images = {
            "FLUX_SUM": blocks_of(images["FLUX_SUM"], n).sum(axis=-1),
            "VARIANCE": blocks_of(images["VARIANCE"], n).sum(axis=-1),
            "COVERAGE": blocks_of(images["COVERAGE"], n).mean(axis=-1),
            "DQ": np.bitwise_or.reduce(blocks_of(images["DQ"], n), axis=-1),
        }
        tansip = oversampled(tansip, 1 / n)
    return Template(
        path=path,
        header=header,
        flux=images["FLUX_SUM"],
        variance=images["VARIANCE"],
        coverage=images["COVERAGE"],
        dq=images["DQ"],
        unit=str(flux_header.get("BUNIT", "")),
        zero_point=float(flux_header.get("ZEROPNT", math.nan)),
        tansip=tansip,
        region=region,
        oversampling=n,
        fine=fine,
        target=(float(header["RA_TARG"]), float(header["DEC_TARG"])) if "RA_TARG" in header else None,
        skycells=skycells,
        stars=stars,
    )


def pair_of(template, image, uncertainty):
    """Cut the FFI to the pixels of its template.

    Parameters
    ----------
    template : Template
        The template.
    image : ndarray of float32, shape (2078, 2136)
        The whole FFI.
    uncertainty : ndarray of float32, same shape, or None
        Its uncertainty.

    Returns
    -------
    syndiff_tasks.pixels.difference.ImagePair
        Both on the same pixels; of an oversampled template with all of its pixels.

    Raises
    ------
    ValueError
        If the region lies off the FFI.
    """
    x0, y0, x1, y1 = template.region
    if x0 < 0 or y0 < 0 or y1 > image.shape[0] or x1 > image.shape[1]:
        raise ValueError(
            f"{template.path}: region {x0},{y0},{x1},{y1} lies off the FFI of shape {image.shape}; give the FFI that "
            "the template was made for"
        )
    box = slice(y0, y1), slice(x0, x1)
    planes = template.fine or Planes(template.flux, template.variance, template.dq)
    return ImagePair(
        np.ascontiguousarray(image[box]),
        None if uncertainty is None else np.ascontiguousarray(uncertainty[box]),
        *planes,
    )


def keep_out_of(template, positions=()):
    """Mark what a kernel must not be fitted to: the surroundings of the template's target and of other positions.

    Parameters
    ----------
    template : Template
        The template.
    positions : iterable of (float, float), optional
        RA and Dec [deg] of known variable stars; those off the template are ignored.

    Returns
    -------
    ndarray of bool, shape (ny, nx)
        True within `KEPT_OUT` px.
    """
    ny, nx = template.flux.shape
    out = np.zeros((ny, nx), bool)
    for ra, dec in (*positions, *([template.target] if template.target else [])):
        x, y = (float(value) for value in sky_to_pixel(template.tansip, ra, dec))
        if -KEPT_OUT - 1 < x < nx + KEPT_OUT and -KEPT_OUT - 1 < y < ny + KEPT_OUT:
            x, y = round(x), round(y)
            out[max(y - KEPT_OUT, 0) : y + KEPT_OUT + 1, max(x - KEPT_OUT, 0) : x + KEPT_OUT + 1] = True
    return out
