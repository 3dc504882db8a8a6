"""SPOC PRF files: images of a star at some twenty places of each CCD."""

import hashlib
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from astropy.io import fits

NAME = re.compile(r"tess\d+-prf-(?P<camera>[1-4])-(?P<ccd>[1-4])-row\d+-col\d+\.fits")


class Grid(NamedTuple):
    """The PRFs of one CCD, on the rows and columns of the detector where they are given.

    Attributes
    ----------
    images : ndarray of float64, shape (rows, columns, ny, nx)
        Each PRF; `oversampling` samples a TESS pixel.
    rows, columns : tuple of float
        1-based detector coordinates, ascending.
    oversampling : int
        Samples along one TESS pixel.
    digest : str
        Of the files that were read.
    """

    images: np.ndarray
    rows: tuple
    columns: tuple
    oversampling: int
    digest: str


def read(folder, camera, ccd):
    """Read the PRF files of a CCD from a folder (searched through its subfolders).

    Parameters
    ----------
    folder : path-like
        Holds ``tess<date>-prf-<camera>-<ccd>-row<R>-col<C>.fits`` files as MAST gives them.
    camera, ccd : int
        Of the FFI.

    Returns
    -------
    grid : Grid

    Raises
    ------
    ValueError
        If there are none of this CCD, or they fill no grid of rows and columns.
    """
    files = (
        sorted(file for file in Path(folder or ".").rglob("tess*.fits") if _is_of(file, camera, ccd)) if folder else []
    )
    if not files:
        raise ValueError(
            f"prf_folder = {str(folder)!r} holds no tess*-prf-{camera}-{ccd}-row*-col*.fits; download the PRF files of "
            "that camera and CCD from MAST, or use psf = gauss"
        )
    found = {}
    for file in files:
        with fits.open(file) as hdus:
            header, image = hdus[0].header, np.array(hdus[0].data, np.float64)
        found[float(header["CCD_RREF"]), float(header["CCD_CREF"])] = (image, int(header["NSAMP"]))
    rows, columns = (tuple(sorted({place[axis] for place in found})) for axis in (0, 1))
    if len(found) != len(rows) * len(columns):
        raise ValueError(
            f"prf_folder = {str(folder)!r} holds {len(found)} PRFs of camera {camera} CCD {ccd}, which fill no grid of "
            f"{len(rows)} rows and {len(columns)} columns; download the missing ones"
        )
    images = np.array([[found[row, column][0] for column in columns] for row in rows])
    digest = hashlib.sha256(images.tobytes()).hexdigest()[:16]
    return Grid(images, rows, columns, next(iter(found.values()))[1], digest)


def _is_of(file, camera, ccd):
    match = NAME.fullmatch(file.name)
    return match is not None and (int(match["camera"]), int(match["ccd"])) == (camera, ccd)
