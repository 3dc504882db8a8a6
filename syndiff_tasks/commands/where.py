"""``syndiff_tasks where``: which CCDs of the FFIs at hand see a target or a region, and which templates exist."""

import sys

from ..chain.where import Area, Position, where
from ..config import SkyTarget, syndiff


def run(options):
    """Print a line a CCD, and its templates below it; return the exit code, 1 where no CCD sees the place."""
    try:
        if options.moc:
            from ..io import coverage_map

            place, called = Area(coverage_map.read(options.moc)), options.moc
        else:
            place, called = Position(*map(float, SkyTarget().parse(options.target).split())), options.target
        sightings = where(place, options.ffi_dir, syndiff().data_root)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    for ccd, ffi, pixel, templates in sightings:
        at = "" if pixel is None else f", pixel ({pixel[0]:.1f}, {pixel[1]:.1f})"
        made = f"{len(templates)} templates" if templates else "no template yet"
        sys.stdout.write(f"sector {ccd.sector}, camera {ccd.camera}, CCD {ccd.ccd}{at} ({ffi.name}): {made}\n")
        sys.stdout.writelines(f"  {template}\n" for template in templates)
    if not sightings:
        sys.stdout.write(f"{called}: on no CCD of the FFIs in {options.ffi_dir}\n")
    return 0 if sightings else 1
