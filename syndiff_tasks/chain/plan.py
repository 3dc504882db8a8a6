"""The plan of an FFI: its geometry, its region, the skycells under it, and whose blurred skycells it may share.

All of it follows from the FFI's header and the tessellation; no pixel is read.
"""

import functools
import hashlib
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from astropy.io import fits

from syndiff_tasks.geometry import footprint as footprints
from syndiff_tasks.geometry import mapping
from syndiff_tasks.geometry.ffi import FFIName, check_detector, frame_origin, parse_ffi_name, science_region
from syndiff_tasks.geometry.region import Region, check_region, parse_region
from syndiff_tasks.geometry.rings import rings_v3
from syndiff_tasks.geometry.sip_inverse import inverse_keywords
from syndiff_tasks.geometry.skycell import skycell_keywords
from syndiff_tasks.geometry.skycell_table import tessellation_from_table
from syndiff_tasks.geometry.tansip import (
    TanSip,
    cropped,
    pixel_to_sky,
    region_around,
    sky_to_pixel,
    tansip_from_header,
    tansip_keywords,
)
from syndiff_tasks.geometry.tessellation import Tessellation
from syndiff_tasks.io import products

from . import coverage, cutout
from .frame_header import end, start

logger = logging.getLogger("luigi-interface")

COVERAGE_MAPS = ("moc.fits", "moc.json")

# Pointing drifts by some 0.1 px within a sector; frames of bad pointing, by some pixels [TESS px].
LARGEST_DRIFT = 5.0


class Plan(NamedTuple):
    """The geometry of one FFI, or of a region of it around a target (RA, Dec) [deg], and the skycells under it.

    `origin` is the FFI column and row of the image's first pixel, (0, 0) but for cut-outs, None where it is unknown.
    """

    path: str
    ccd: FFIName
    mjd: float
    mjd_end: float
    shape: tuple
    origin: tuple | None
    science: Region
    tansip: TanSip
    region: Region
    target: tuple | None
    label: str
    skycells: tuple
    footprint_of: Callable
    tessellation: Tessellation
    skycell_catalog: str

    @property
    def footprint(self):
        """The owner of each pixel; of the last few plans only, since a sector's would fill the memory."""
        return self.footprint_of()

    def neighbors(self, reach):
        """Return the skycells that each one needs beside its own image, see `footprint.frame_neighbors`."""
        return _neighbors(self.footprint_of, reach)

    def settings(self):
        """Return what shaped the geometry, for manifests."""
        return {
            "ffi": self.ccd.stem,
            "wcs": self.wcs_digest(),
            "region": list(self.region),
            "skycells": self.skycell_catalog,
        }

    def wcs_digest(self):
        """Return a digest of how the FFI lies on the sky."""
        return _digest(tansip_keywords(self.tansip))

    def skycell(self, name):
        """Return one of the FFI's skycells by name."""
        return self.tessellation.skycell(name)


class NoCoverage(ValueError):
    """No PS1 skycell lies under an FFI."""


def _digest(content):
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=float).encode()).hexdigest()[:16]


def plan_ffi(path, roi="", target="", size=64, catalog="", origin=""):
    """Return the `Plan` of an FFI; cached for as long as the file stays the same.

    Parameters
    ----------
    path : str
        The FFI.
    roi : str
        ``x0,y0,x1,y1`` in FFI pixels, or empty.
    target : str
        ``RA Dec`` [deg] of the centre of a region, or empty.
    size : int
        Width and height of that region [TESS px].
    catalog : str
        CSV of skycells, empty for the PS1 ring table.
    origin : str
        ``x0,y0`` on the FFI of a cut-out that does not show it, or empty.

    Raises
    ------
    ValueError
        If there is no such FFI, its geometry cannot be used, both `roi` and `target` are given, or no PS1 skycell
        lies under it.
    """
    if not os.path.exists(path):
        raise ValueError(f"--ffi {path}: no such file; correct the path")
    if roi and target:
        raise ValueError(f"--roi {roi} and --target {target}: give one of them")
    cells = tessellation(catalog)
    return _plan(os.path.abspath(path), _state_of(path), roi, target, size, catalog, cells, origin)


class _FootprintKey:
    """Arguments of `_footprint`, hashed by identity so that they can key an lru_cache."""

    def __init__(self, tansip, region, cells, science):
        self.args = tansip, region, cells, science


@functools.lru_cache(maxsize=4)
def _footprint(key):
    return footprints.footprint_of(*key.args)


@functools.lru_cache(maxsize=64)
def _neighbors(footprint_of, reach):
    (key,) = footprint_of.args
    tansip, _, cells, _ = key.args
    return footprints.frame_neighbors(tansip, footprint_of(), cells, reach)


@functools.lru_cache(maxsize=4096)
def _plan(path, _state, roi, target, size, catalog, cells, origin_given):
    ccd = parse_ffi_name(path)
    header = cutout.read_header(path, ccd, origin_given)
    shape = header["NAXIS2"], header["NAXIS1"]
    try:
        check_detector(ccd, header)
        origin = frame_origin(header, shape, ccd)
        science = science_region(origin, shape)
        tansip = tansip_from_header(header, science)
        mjd, mjd_end = start(header), end(header)
    except fits.VerifyError as error:
        raise ValueError(f"{path}: the header is damaged ({error}); fetch the file again") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if origin is None:
        logger.warning(
            "%s: neither CRPIX nor the physical coordinates determine which part of the FFI this image shows, so its "
            "collateral pixels, if any, cannot be recognized and are not flagged; use the whole FFI to be sure",
            path,
        )
    region = Region(0, 0, shape[1], shape[0])
    if roi:
        region = parse_region(roi)
        check_region(region, shape, science)
    around = position(target) if target else None
    if around:
        region = region_around(tansip, *around, size, science)
    footprint_of = functools.partial(_footprint, _FootprintKey(tansip, region, cells, science))
    skycells = footprint_of().skycells
    if not skycells:
        ra, dec = pixel_to_sky(tansip, (region.x0 + region.x1) / 2, (region.y0 + region.y1) / 2)
        raise NoCoverage(
            f"{path}: no PS1 coverage at declination {float(dec):.1f} (RA {float(ra):.1f}); the survey ends near "
            "declination -30, and collateral pixels see no sky"
        )
    label = cutout.label(ccd, roi_label(",".join(map(str, region))) if roi or target else "")
    catalog_name = _catalog_name(catalog)
    place = (shape, origin, science, tansip, region, around, label)
    return Plan(path, ccd, mjd, mjd_end, *place, skycells, footprint_of, cells, catalog_name)


def reference_of(plan_, reference_ffi, catalog=""):
    """Return the plan of the FFI whose blurred skycells are shared, `plan_` itself where none is named.

    Raises
    ------
    ValueError
        If the reference is of another CCD or sector, or looks elsewhere.
    """
    if not reference_ffi:
        return plan_
    if plan_.ccd.is_cutout or parse_ffi_name(reference_ffi).is_cutout:
        raise ValueError(
            f"--reference-ffi {reference_ffi}: cut-outs share no skycells, since each counts its pixels from its own "
            "corner; leave --reference-ffi out, or use whole FFIs with --target or --roi"
        )
    reference = plan_ffi(reference_ffi, ",".join(map(str, plan_.region)), catalog=catalog)
    same = ("sector", "camera", "ccd")
    if any(getattr(reference.ccd, name) != getattr(plan_.ccd, name) for name in same):
        raise ValueError(f"--reference-ffi {reference_ffi} is not of the CCD and sector of {plan_.path}")
    if reference.ccd.source != plan_.ccd.source:
        raise ValueError(
            f"--reference-ffi {reference_ffi} is an FFI of {reference.ccd.source.upper()} and {plan_.path} one of "
            f"{plan_.ccd.source.upper()}; their WCS differ by some 0.15 px: give a reference of the same kind"
        )
    apart = _apart(plan_, reference)
    if not apart < LARGEST_DRIFT:
        raise ValueError(
            f"--reference-ffi {reference_ffi} points {apart:.1f} px away from {plan_.path}; more than "
            f"{LARGEST_DRIFT:g} px is not drift: one of the two has a wrong WCS"
        )
    return reference


def may_share(plan_, other, catalog=""):
    """Return whether an FFI can be the `reference_of` a plan."""
    try:
        reference_of(plan_, other, catalog)
    except ValueError:
        return False
    return True


def _apart(one, other):
    """Return how far the corners of a region lie from where another FFI's WCS has them [TESS px]."""
    x, y = np.meshgrid((one.region.x0, one.region.x1), (one.region.y0, one.region.y1))
    there = sky_to_pixel(other.tansip, *pixel_to_sky(one.tansip, x, y))
    return float(np.max(np.hypot(there[0] - x, there[1] - y)))


def roi_label(roi):
    """Return the label that a region ``x0,y0,x1,y1`` gives to the folders of its products, empty for an empty one."""
    return f"roi_{'_'.join(map(str, parse_region(roi)))}" if roi else ""


def roi_of(plan_):
    """Return the region of a plan as ``x0,y0,x1,y1``, empty for the whole FFI."""
    return ",".join(map(str, plan_.region)) if plan_.label else ""


def position(target):
    """Return RA and Dec [deg] of a target as users write it.

    Raises
    ------
    ValueError
        If the text does not hold two numbers.
    """
    try:
        ra, dec = (float(part) for part in target.replace(",", " ").split())
    except ValueError as error:
        raise ValueError(f"--target {target!r}: give RA and Dec in degrees, e.g. --target '210.8 54.3'") from error
    return ra, dec


def tessellation(catalog=""):
    """Return the skycells of the ring table, or those of a CSV file; cached for as long as that stays the same."""
    if not catalog:
        return rings_v3()
    if not os.path.exists(catalog):
        raise ValueError(f"--skycell-catalog {catalog}: no such file; correct the path")
    return _tessellation(catalog, _state_of(catalog))


def _state_of(path):
    """Return what is another once a file was written anew."""
    status = os.stat(path)
    return status.st_mtime_ns, status.st_size, status.st_ino


@functools.lru_cache(maxsize=4)
def _tessellation(catalog, _state):
    try:
        return tessellation_from_table(pd.read_csv(catalog, dtype={"NAME": str}))
    except ValueError as error:
        # pandas' own complaints, of which many are ValueErrors, name no file.
        raise ValueError(f"--skycell-catalog {catalog}: {error}") from error


def _catalog_name(catalog):
    return _digest(Path(catalog).read_text(encoding="utf-8")) if catalog else "rings.v3"


def write_map(plan, name, path):
    """Write one of the products of MapFFI.

    Parameters
    ----------
    plan : Plan
        Of the FFI.
    name : str
        ``list`` (the table of skycells), ``pixels`` (the master map), ``moc.fits`` or ``moc.json`` (the coverage map),
        or a skycell's name (its map).
    path : str
        Where to.
    """
    if name == "list":
        footprints.skycell_rows(plan.footprint).to_csv(path, index=False)
    elif name == "pixels":
        tansip = cropped(plan.tansip, plan.region.x0, plan.region.y0)
        cards = tansip_keywords(tansip) | inverse_keywords(tansip, plan.region.shape)
        products.write_master_map(path, plan.footprint.owner, cards, footprints.skycell_rows(plan.footprint))
    elif name in COVERAGE_MAPS:
        coverage.write_map(plan, path, name.removeprefix("moc."))
    else:
        skycell = plan.skycell(name)
        index_map = mapping.pixel_index_map(plan.tansip, skycell, plan.shape, plan.science)
        products.write_pixel_map(path, index_map, skycell_keywords(skycell), tansip_keywords(plan.tansip))
