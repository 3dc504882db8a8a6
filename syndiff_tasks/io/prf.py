"""SPOC PRF files: images of a star at some twenty places of each CCD."""

import hashlib
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from astropy.io import fits

NAME = re.compile(r"tess(?P<year>\d{4})\d+-prf-(?P<camera>[1-4])-(?P<ccd>[1-4])-(?P<place>row\d+-col\d+)\.fits")

#: Sets of PRF files at MAST by the first sector that they hold for, and the first year in their names
#: (docs/facts.md §3).
SETS = {1: 2018, 4: 2019}


class PrfGrid(NamedTuple):
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


def prf_set(sector):
    """Return the name of MAST's set of PRF files for a sector, such as ``start_s0004``.

    Parameters
    ----------
    sector : int

    Returns
    -------
    str
    """
    return f"start_s{max(first for first in SETS if first <= sector):04d}"


def _set_of(file):
    year = int(NAME.fullmatch(file.name)["year"])
    return prf_set(max(first for first, begun in SETS.items() if begun <= max(year, SETS[1])))


def read(folder, camera, ccd, sector):
    """Read the PRF files of a CCD from a folder (searched through its subfolders).

    Parameters
    ----------
    folder : path-like
        Holds ``tess<date>-prf-<camera>-<ccd>-row<R>-col<C>.fits`` files as MAST gives them.
    camera, ccd, sector : int
        Of the FFI.

    Returns
    -------
    grid : PrfGrid

    Raises
    ------
    ValueError
        If there are none of this CCD, or they are not one file a place of the set of this sector.
    """
    files = (
        sorted(file for file in Path(folder or ".").rglob("tess*.fits") if _is_of(file, camera, ccd)) if folder else []
    )
    if not files:
        raise ValueError(
            f"prf_folder = {str(folder)!r} holds no tess*-prf-{camera}-{ccd}-row*-col*.fits; download the PRF files of "
            "that camera and CCD from MAST, or use psf = gauss"
        )
    _require_set(files, folder, camera, ccd, sector)
    images, places, oversampling = [], [], 0
    for file in files:
        with fits.open(file) as hdus:
            header = hdus[0].header
            images.append(np.array(hdus[0].data, np.float64))
        places.append((float(header["CCD_RREF"]), float(header["CCD_CREF"])))
        oversampling = int(header["NSAMP"])
    rows, columns = zip(*places, strict=True)
    digest = hashlib.sha256(np.array(images).tobytes()).hexdigest()[:16]
    return PrfGrid(np.array(images), rows, columns, oversampling, digest)


def _require_set(files, folder, camera, ccd, sector):
    needed, found = prf_set(sector), {}
    for file in files:
        found.setdefault(_set_of(file), file.parent)
    if list(found) != [needed]:
        held = " and ".join(f"{name} (in {where})" for name, where in sorted(found.items()))
        raise ValueError(
            f"prf_folder = {str(folder)!r} holds the PRF files of camera {camera}, CCD {ccd} of MAST's set {held}, and "
            f"sector {sector} needs {needed} alone (start_s0001 is for sectors 1 to 3, start_s0004 for later ones); "
            f"give the folder of {needed}"
        )
    (place, count), *_ = Counter(NAME.fullmatch(file.name)["place"] for file in files).most_common(1)
    if count > 1:
        twice = ", ".join(str(file.parent) for file in files if place in file.name)
        raise ValueError(
            f"prf_folder = {str(folder)!r} holds {count} PRF files of camera {camera}, CCD {ccd} at {place}, "
            f"in {twice}; give the folder of one set"
        )


def _is_of(file, camera, ccd):
    match = NAME.fullmatch(file.name)
    return match is not None and (int(match["camera"]), int(match["ccd"])) == (camera, ccd)
