"""Which part of the sky the template of an FFI covers, as a coverage map (MOC)."""

import math

import numpy as np

from syndiff_tasks.geometry import outline


def write_map(plan, path, form):
    """Write the coverage map of the pixels of a plan that have a PS1 skycell.

    Parameters
    ----------
    plan : Plan
    path : path-like
        Where to.
    form : {"fits", "json"}
    """
    # Imported here: mocpy takes longer to import than a plan to make.
    from syndiff_tasks.io import coverage_map

    region = plan.region
    polygons = outline.outlines(plan.tansip, plan.footprint.owner >= 0, region.x0, region.y0)
    coverage_map.write(coverage_map.moc_of(polygons, order(plan.tansip)), path, form)


def order(tansip):
    """Return the order of the cells of a coverage map: no wider than a pixel, 14 (12.9") for TESS."""
    return outline.healpix_order(math.sqrt(abs(np.linalg.det(tansip.cd))))
