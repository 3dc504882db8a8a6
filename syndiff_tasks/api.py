"""From Python and notebooks: make the template of an FFI, and have it as arrays.

import syndiff_tasks

made = syndiff_tasks.template("tess…_ffic.fits", target="10h00m12s +54d20m11s", size=64, data_root="/data")
made.flux, made.wcs
"""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from . import failures
from .command_line import build
from .config import settings_for_a_while
from .tasks import Downsample


class Template(NamedTuple):
    """A finished template.

    Attributes
    ----------
    flux : ndarray of float32, shape (ny, nx)
        Template flux per pixel [`unit`]; NaN where there are not enough data.
    variance : ndarray of float32, shape (ny, nx)
        Variance of `flux` [`unit` squared].
    coverage : ndarray of float32, shape (ny, nx)
        Fraction 0..1 of each pixel's area that had data.
    dq : ndarray of int32, shape (ny, nx)
        Quality bits, 0 = good: those of `syndiff_tasks.pixels.mask.DQ`.
    wcs : astropy.wcs.WCS
        World coordinates of the arrays.
    skycells : astropy.table.Table
        The PS1 skycells that gave pixels.
    unit : str
        Unit of `flux`.
    zero_point : float
        Magnitude of one `unit`.
    path : pathlib.Path
        The FITS file, with everything else that is known about the template.
    """

    flux: np.ndarray
    variance: np.ndarray
    coverage: np.ndarray
    dq: np.ndarray
    wcs: WCS
    skycells: Table
    unit: str
    zero_point: float
    path: Path


class TemplateNotMade(RuntimeError):
    """A task failed, so there is no template; the message says which task and why."""


def template(ffi, target=None, size=64, *, roi=None, offset=(0.0, 0.0), workers=1, **options):
    """Make the template of an FFI, or of a region of it, and return it.

    What was made before is not made again. The tasks run with Luigi's local scheduler; nothing of this process is left
    changed.

    Parameters
    ----------
    ffi : path-like
        The FFI: ``tess…_ffic.fits`` (SPOC) or ``hlsp_tica_…fits``, also ``.gz`` or ``.fz``.
    target : str, SkyCoord, or pair of float, optional
        Center of the region: a position as text, a name, a coordinate, or RA and Dec [deg]. Without `target` and `roi`
        the template is that of the whole FFI, of some 1,000 skycells.
    size : int, optional
        Width and height of the region around `target` [TESS px].
    roi : sequence of int, optional
        Instead of `target`: region ``x0, y0, x1, y1`` in FFI pixels, half-open, the first pixel is 0, 0.
    offset : tuple of float, optional
        Pointing offset ``dx, dy`` [TESS px]; ``dx > 0`` moves stars to larger x.
    workers : int, optional
        With 1, the tasks run in this process, which is safe in a notebook; with more, in as many processes.
    **options
        Other parameters of the task ``Downsample``, such as ``skycell_catalog`` or ``reference_ffi``, and the settings
        of ``[syndiff]`` in luigi.cfg by name, such as ``data_root``, ``archive``, ``psf_sigma`` or ``pictures``.

    Returns
    -------
    template : Template

    Raises
    ------
    ValueError
        If there is no such option, or a value cannot be used.
    TemplateNotMade
        If a task failed.

    Examples
    --------
    >>> made = template("tess…_ffic.fits", target=(210.8023, 54.3489), size=64)  # doctest: +SKIP
    >>> made.wcs.pixel_to_world(32, 32)  # doctest: +SKIP
    """
    parameters = {name: options.pop(name) for name, _ in Downsample.get_params() if name in options}
    parameters |= {"target": target} if target is not None else {}
    parameters |= {"roi": ",".join(map(str, roi))} if roi is not None else {}
    with settings_for_a_while(options) as settings:
        task = Downsample(ffi=os.fspath(ffi), size=size, multi_offset_array=(offset,), **parameters)
        known = len(failures.read(settings.data_root, failures.RUN))
        if not build(task, workers):
            failed = failures.distinct(failures.read(settings.data_root, failures.RUN)[known:])
            failures.forget_spare_log(failures.RUN)
            lines = failures.shorten(failures.summarize([str(failure) for failure in failed]))
            raise TemplateNotMade("\n".join(lines) or f"{task} was not run; another process may be making it")
        ((file, *_),) = task.output().values()
        return read(file.path)


def read(path):
    """Read a finished template.

    Parameters
    ----------
    path : path-like
        A FITS file that the task ``Downsample`` wrote.

    Returns
    -------
    template : Template
    """
    with fits.open(path) as hdus:
        header = hdus["FLUX_SUM"].header
        planes = (hdus[name].data for name in ("FLUX_SUM", "VARIANCE", "COVERAGE", "DQ"))
        native = [plane.astype(plane.dtype.newbyteorder("=")) for plane in planes]
        skycells = Table.read(hdus["SKYCELLS"])
        return Template(*native, WCS(header), skycells, header["BUNIT"], header["ZEROPNT"], Path(path))
