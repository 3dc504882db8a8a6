"""The calibrated FFIs of a sector in a folder."""

import datetime
import functools
import os
from pathlib import Path

from syndiff_tasks.geometry.ffi import FFI_EXTENSIONS, parse_ffi_name
from syndiff_tasks.manifest import Fingerprint
from syndiff_tasks.paths import CCD


def files_there(paths):
    """Return the `Fingerprint` of FFIs by name, size and date: reading the 40 GB of a CCD would take minutes."""
    return Fingerprint(tuple((path.name, (now := path.stat()).st_size, now.st_mtime_ns) for path in paths))


@functools.lru_cache(maxsize=8)
def find(folder, sector, before):
    """Find the calibrated FFIs of a sector in a folder and all folders below it.

    All processes and hosts of a run give the same answer, whatever comes into the folder meanwhile.

    Parameters
    ----------
    folder : str
    sector : int
    before : str
        Leave out what came or changed after this time (UTC, ISO 8601): the beginning of the run.

    Returns
    -------
    found : dict of CCD to tuple of Path
        Sorted by name; of an FFI that is there twice, as .fits and .fits.gz, the first.

    Raises
    ------
    ValueError
        If the folder does not exist or has no FFI of the sector, or FFIs of both SPOC and TICA for one CCD.
    """
    if not Path(folder).is_dir():
        raise ValueError(f"--ffi-dir {folder}: no such folder; give the one that holds the sector's FFIs")
    found, others, limit = {}, set(), datetime.datetime.fromisoformat(before).timestamp()
    for where, _, files in os.walk(folder, followlinks=True):
        for file in sorted(files):
            if not file.endswith(FFI_EXTENSIONS):
                continue
            try:
                name = parse_ffi_name(file)
            except ValueError:
                continue  # a folder of FFIs holds other FITS files as well
            if name.is_cutout:
                continue  # its pixels are counted from its own corner, not the FFI's
            if _changed(os.path.join(where, file)) > limit:
                continue
            if name.sector == sector:
                found.setdefault(CCD(*name[1:4]), {}).setdefault(name.stem, Path(where, file).absolute())
            else:
                others.add(name.sector)
    if not found:
        held = f"FFIs of sector {', '.join(map(str, sorted(others)))}" if others else "no FFI"
        raise ValueError(
            f"--ffi-dir {folder}: no calibrated FFI of sector {sector} in it or below it ({held} found); FFIs keep the "
            "names that the archive gave them, tess…_ffic.fits or hlsp_tica_…fits"
        )
    for ccd, paths in found.items():
        _refuse_two_sources(folder, ccd, paths)
    return {ccd: tuple(found[ccd][stem] for stem in sorted(found[ccd])) for ccd in sorted(found)}


def _changed(path):
    """Return when a file, or a link to it, came or was changed, seconds since 1970: a copy may keep its other dates."""
    return max(os.lstat(path).st_ctime, os.stat(path).st_ctime)


def _refuse_two_sources(folder, ccd, paths):
    """Refuse to take SPOC and TICA FFIs for one series: their WCS of one exposure differ by some 0.15 px."""
    by_source = {parse_ffi_name(path).source: path for path in paths.values()}
    tica = by_source.pop("tica", None)
    if tica and by_source:
        raise ValueError(
            f"--ffi-dir {folder}: FFIs of both SPOC and TICA for CCD {ccd}, such as "
            f"{next(iter(by_source.values()))} and {tica}; their WCS differ by some 0.15 px, so they are not one "
            "series: use two folders"
        )


def stem_of(path):
    """Return the name of an FFI without folder and extension, empty for an empty path."""
    return parse_ffi_name(path).stem if path else ""


def path_of(stem, files):
    """Return the path of an FFI by its stem.

    Raises
    ------
    ValueError
        If it is not among the files.
    """
    for path in files:
        if parse_ffi_name(path).stem == stem:
            return path
    raise ValueError(
        f"{stem}, the reference FFI of its CCD, is not in --ffi-dir any more; put it back, or choose another one with "
        "the task ReferenceFFI --overwrite (products of the old one then need --overwrite too)"
    )
