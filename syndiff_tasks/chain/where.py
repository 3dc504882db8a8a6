"""Which CCDs of the FFIs at hand see a position or a region of the sky, and which templates of it exist."""

import os
from pathlib import Path
from typing import NamedTuple

from syndiff_tasks import paths
from syndiff_tasks.geometry import outline
from syndiff_tasks.geometry.ffi import parse_ffi_name
from syndiff_tasks.geometry.region import Region
from syndiff_tasks.geometry.tansip import sky_to_pixel

from . import coverage
from .frame_header import read_frame_header


class Sighting(NamedTuple):
    """A CCD that sees a place, its first FFI with a WCS, the pixel of a position (or None), and the templates of it."""

    ccd: paths.CCD
    ffi: Path
    pixel: tuple | None
    templates: tuple


class Position(NamedTuple):
    """A sky position [deg]."""

    ra: float
    dec: float

    def pixel(self, tansip):
        """Return the pixel of an FFI (0-based)."""
        return tuple(float(value) for value in sky_to_pixel(tansip, self.ra, self.dec))

    def on(self, tansip, region):
        """Return whether the position is on some pixels of an FFI."""
        x, y = self.pixel(tansip)
        return region.x0 - 0.5 <= x < region.x1 - 0.5 and region.y0 - 0.5 <= y < region.y1 - 0.5


class Area(NamedTuple):
    """A region of the sky, as a mocpy.MOC."""

    moc: object

    def pixel(self, tansip):
        """Return None: a region has no single pixel."""
        return None

    def on(self, tansip, region):
        """Return whether the region touches some pixels of an FFI, to the cells of a coverage map."""
        # Imported here: mocpy takes two seconds to import.
        from syndiff_tasks.io import coverage_map

        own = coverage_map.moc_of([outline.outline(tansip, region)], coverage.order(tansip))
        return not own.intersection(self.moc).empty()


def where(place, ffi_dir, root):
    """Find the CCDs that see a place.

    Parameters
    ----------
    place : Position or Area
    ffi_dir : path-like
        Folder of FFIs; folders below it are searched, too.
    root : path-like
        Data root whose templates are listed.

    Returns
    -------
    sightings : list of Sighting
        Sorted by CCD. A CCD is judged by its first FFI with a usable WCS.

    Raises
    ------
    ValueError
        If the folder has no FFI.
    """
    by_ccd = {}
    for folder, _, files in os.walk(ffi_dir, followlinks=True):
        for file in sorted(files):
            try:
                name = parse_ffi_name(file)
            except ValueError:
                continue  # a folder of FFIs holds other files as well
            by_ccd.setdefault(paths.CCD(name.sector, name.camera, name.ccd), []).append(Path(folder, file))
    if not by_ccd:
        raise ValueError(
            f"--ffi-dir {ffi_dir}: no FFI in it or below it; give a folder of FFIs named as in the archive"
        )
    sightings = []
    for ccd in sorted(by_ccd):
        frame = next((one for one in map(read_frame_header, by_ccd[ccd]) if one.tansip is not None), None)
        if frame is not None and place.on(frame.tansip, frame.science):
            candidates = _templates(root, ccd)
            made = tuple(path for path, region in candidates if place.on(frame.tansip, region or frame.science))
            sightings.append(Sighting(ccd, frame.path, place.pixel(frame.tansip), made))
    return sightings


def _templates(root, ccd):
    """Return the templates of a CCD, and the region of each, None for a whole frame."""
    folder = paths.templates_of(root, ccd)
    for path in sorted(folder.rglob("syndiff_template_*.fits")):
        label = path.parent.name
        numbers = label.removeprefix("roi_").split("_") if label.startswith("roi_") else ()
        yield path, Region(*map(int, numbers)) if numbers else None
