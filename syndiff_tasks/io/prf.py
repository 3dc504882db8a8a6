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
    images : ndarray of float64, shape (n, ny, nx)
        Each PRF; `oversampling` samples a TESS pixel.
    rows, columns : tuple of float, length n
        Where each was measured, in 1-based detector coordinates.
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
        If there are none of this CCD.
    """
    files = (
        sorted(file for file in Path(folder or ".").rglob("tess*.fits") if _is_of(file, camera, ccd)) if folder else []
    )
    if not files:
        raise ValueError(
            f"prf_folder = {str(folder)!r} holds no tess*-prf-{camera}-{ccd}-row*-col*.fits; download the PRF files of "
            "that camera and CCD from MAST, or use psf = gauss"
        )
    images, places, oversampling = [], [], 0
    for file in files:
        with fits.open(file) as hdus:
            header = hdus[0].header
            images.append(np.array(hdus[0].data, np.float64))
        places.append((float(header["CCD_RREF"]), float(header["CCD_CREF"])))
        oversampling = int(header["NSAMP"])
    rows, columns = zip(*places, strict=True)
    digest = hashlib.sha256(np.array(images).tobytes()).hexdigest()[:16]
    return Grid(np.array(images), rows, columns, oversampling, digest)


def _is_of(file, camera, ccd):
    match = NAME.fullmatch(file.name)
    return match is not None and (int(match["camera"]), int(match["ccd"])) == (camera, ccd)
