"""Difference images: a template subtracted from its FFI, written to a file, and cut out of that file again."""

import csv
import hashlib

import numpy as np

from syndiff_tasks import __version__
from syndiff_tasks.geometry.tansip import tansip_keywords
from syndiff_tasks.io import difference_file, fits_in
from syndiff_tasks.pixels import cutout
from syndiff_tasks.pixels.difference import FLAG_MEANING, WHOLE_CCD, WINGS, Flag, subtract
from syndiff_tasks.pixels.kernel import Kernel, KernelBasis, kernel_sum, middle_scale
from syndiff_tasks.pixels.sky_background import MESH, MeshSky, Straps
from syndiff_tasks.report.product import keep_out_of, pair_of, read_template

from .frame_header import start

#: Kernels that can be requested by name: taps along each axis, and wings. `auto` chooses by cross-validation.
KERNELS = {
    "1": (1, ()),
    "3": (3, ()),
    "5": (5, ()),
    "5+wings": (5, WINGS),
    "7+wings": (7, WINGS),
    "9+wings": (9, WINGS),
}

# Cards of a template that its difference repeats.
_OF_TEMPLATE = (
    *("TELESCOP", "SURVEY", "REFFFI", "SECTOR", "CAMERA", "CCD", "RA_TARG", "DEC_TARG"),
    *("DX_SHIFT", "DY_SHIFT", "OVERSAMP", "NSKYCELL", "SKYCAT", "PSF", "PSFSIGMA", "PRFFILES"),
    *("WEIGHT_R", "WEIGHT_I", "WEIGHT_Z", "WEIGHT_Y", "BACKGRND", "BINNING", "REJBITS", "IGNBITS", "IGNPIX"),
    *("SUSBITS", "MINCOV"),
)


def read_inputs(template_path, ffi_path):
    """Read a template and its FFI.

    Parameters
    ----------
    template_path, ffi_path : path-like

    Returns
    -------
    template : syndiff_tasks.report.product.Template
    ffi : syndiff_tasks.io.fits_in.FFIImage
    """
    return read_template(template_path), fits_in.read_ffi(ffi_path)


def named_kernel(name, shape):
    """Return what `subtract` takes as its kernel.

    Parameters
    ----------
    name : str
        ``auto`` or one of `KERNELS`.
    shape : tuple of int
        (ny, nx) of the image: kernels of a whole CCD vary with the second order over it, others with the first.

    Returns
    -------
    str or KernelBasis
        ``auto``, or the basis.

    Raises
    ------
    ValueError
        If there is no kernel of this name.
    """
    if name == "auto":
        return name
    if name not in KERNELS:
        raise ValueError(f"kernel {name!r} is not one of auto, {', '.join(KERNELS)}")
    size, wings = KERNELS[name]
    order = 0 if size == 1 else 2 if min(shape) >= WHOLE_CCD else 1
    return KernelBasis(size, wings, order)


def read_positions(path):
    """Read the positions of variable stars.

    Parameters
    ----------
    path : path-like
        CSV with columns ``ra`` and ``dec`` [deg]; empty for none.

    Returns
    -------
    positions : list of (float, float)

    Raises
    ------
    ValueError
        If the file lacks a column, or a value is not a number.
    """
    if not path:
        return []
    try:
        with open(path, newline="", encoding="utf-8") as stream:
            return [(float(row["ra"]), float(row["dec"])) for row in csv.DictReader(stream)]
    except FileNotFoundError as error:
        raise ValueError(f"--variables {path}: there is no such file") from error
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"--variables {path}: needs columns ra and dec [deg] with a number in each row") from error


def digest_of_positions(path):
    """Return a digest of the positions of variable stars, empty for none."""
    positions = read_positions(path)
    return hashlib.sha256(repr(positions).encode()).hexdigest()[:16] if positions else ""


def subtract_template(template, image, uncertainty, kernel="auto", mesh=MESH, positions=()):
    """Subtract a template from its FFI.

    Parameters
    ----------
    template : syndiff_tasks.report.product.Template
        The template; the surroundings of its target are kept out of the fit.
    image, uncertainty : ndarray of float32, shape (2078, 2136)
        The whole FFI and its uncertainty (or None).
    kernel : str, KernelBasis or Kernel, default "auto"
        A name (`named_kernel`), or what `pixels.difference.subtract` takes.
    mesh : int, default `MESH`
        Side of the meshes of the sky [px].
    positions : iterable of (float, float), optional
        RA and Dec [deg] of variable stars, which are kept out of the fit too.

    Returns
    -------
    syndiff_tasks.pixels.difference.Difference

    Raises
    ------
    NoMatch
        If FFI and template cannot be matched; a ValueError.
    """
    pair = pair_of(template, image, uncertainty)
    chosen = named_kernel(kernel, pair.ffi.shape) if isinstance(kernel, str) else kernel
    return subtract(pair, chosen, mesh, keep_out_of(template, positions))


def unit_of(header):
    """Return the unit of an FFI's flux: its BUNIT, that of SPOC where it has none."""
    return str(header.get("BUNIT", "electrons/s")).strip()


def write(path, result, template, ffi_name, ffi_header, mesh=MESH, with_images=True):
    """Write a difference file.

    Parameters
    ----------
    path : path-like
        Where to.
    result : syndiff_tasks.pixels.difference.Difference
        What `subtract_template` gave.
    template : syndiff_tasks.report.product.Template
        What was subtracted.
    ffi_name : str
        Name of the FFI.
    ffi_header : astropy.io.fits.Header
        Its header, for unit and time.
    mesh : int, default `MESH`
        Side of the meshes of the sky [px].
    with_images : bool, default True
        Whether DIFFERENCE, NOISE and FLAGS are written beside KERNEL, SKY and STRAPS.
    """
    images = {"DIFFERENCE": result.difference, "NOISE": result.noise, "FLAGS": result.flags} if with_images else {}
    kernel, unit = result.kernel, unit_of(ffi_header)
    size, wings, order = kernel.basis
    difference_file.write_difference(
        path,
        _provenance(result, template, ffi_name, ffi_header, mesh),
        images,
        difference_file.KernelTable(size, order, kernel.oversampling, wings, kernel.shape, kernel.coefficients),
        difference_file.SkyTable(result.sky.plane, result.sky.levels, result.straps.columns, result.straps.curves),
        tansip_keywords(template.tansip),
        unit=unit,
        flag_bits={bit.name: (bit.value, FLAG_MEANING[bit]) for bit in Flag},
    )


def _provenance(result, template, ffi_name, ffi_header, mesh):
    unit, header, basis = unit_of(ffi_header), template.header, result.kernel.basis
    ny, nx = result.kernel.shape
    y, x = np.meshgrid(np.arange(0, ny, 8.0), np.arange(0, nx, 8.0), indexing="ij")
    repeated = {card.keyword: (card.value, card.comment) for card in header.cards if card.keyword in _OF_TEMPLATE}
    return {
        "ORIGIN": ("syndiff_tasks", "FFI minus deep PS1 sky in the TESS band"),
        "SYNDIFF": (True, "a difference image, not an observation"),
        "VERSION": (__version__, "of syndiff_tasks"),
        # Names of TICA leave no room for a comment.
        "FFI": ffi_name,
        "MJD-OBS": (start(ffi_header), "[d] start of the FFI (UTC)"),
        "TEMPLATE": (template.path.name, "subtracted"),
        "TMPLFFI": header.get("FFI", ""),
        "ROI": (",".join(map(str, template.region)), "x0,y0,x1,y1 of the FFI, half-open, from 0"),
        **repeated,
        "SCALE": (middle_scale(result.kernel), "FFI units per template unit, in the middle"),
        "KERNSUM": (
            float(kernel_sum(result.kernel, x.ravel(), y.ravel()).mean()),
            "sum of the kernel, mean of the image",
        ),
        "KERNSIZE": (basis.size, "taps of the kernel along each axis"),
        "KERNORD": (basis.order, "degree in x and y of the kernel"),
        "KERNWING": (len(basis.wings), "Gaussian wings of the kernel"),
        "SKYMESH": (mesh, "[px] side of the meshes of the sky"),
        "NSTRAPS": (len(result.straps.columns), "columns with a strap"),
        "MU": (result.mismatch, "residual of a star over its brightest pixel"),
        "FLUXMU": (result.flux_mismatch, "residual of a star's pixel over its model"),
        "EXCESS": (result.excess, "scatter of empty sky over its formal noise"),
        "EMPTY": (result.empty, f"[{unit}] scatter of empty sky"),
        "NFITTED": (result.pixels, "pixels that the kernel was fitted to"),
    }


def read_kernel_and_sky(path):
    """Read kernel, sky and straps of a difference file.

    Parameters
    ----------
    path : path-like
        A file that `write` wrote.

    Returns
    -------
    kernel : Kernel
    sky : MeshSky
    straps : Straps
    """
    content = difference_file.read_difference(path)
    size, order, oversampling, wings, shape, coefficients = content.kernel
    kernel = Kernel(KernelBasis(size, wings, order), coefficients, shape, oversampling)
    plane, levels, columns, curves = content.sky
    return kernel, MeshSky(plane, levels, shape), Straps(columns, curves)


def cut_out(path, template, image, box):
    """Make a part of a difference image again, whether or not its file holds the image.

    Parameters
    ----------
    path : path-like
        The difference file.
    template : syndiff_tasks.report.product.Template
        The template that was subtracted.
    image : ndarray of float32, shape (2078, 2136)
        The whole FFI.
    box : tuple of int
        x0, y0, x1, y1 of the part, half-open [FFI px].

    Returns
    -------
    ndarray of float32, shape (y1 - y0, x1 - x0)
        The difference [FFI units]; NaN = none.
    """
    kernel, sky, straps = read_kernel_and_sky(path)
    pair = pair_of(template, image, None)
    if pair.ffi.shape != kernel.shape:
        raise ValueError(
            f"{path}: made of {kernel.shape[1]} x {kernel.shape[0]} px, but {template.path} has {pair.ffi.shape[1]} x "
            f"{pair.ffi.shape[0]}; give the template that was subtracted"
        )
    left, low, _, _ = template.region
    x0, y0, x1, y1 = box
    return cutout.cut_out(pair.ffi, pair.flux, kernel, sky, straps, (x0 - left, y0 - low, x1 - left, y1 - low))
