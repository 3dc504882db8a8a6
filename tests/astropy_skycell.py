"""Owners and depths of positions in rings.v3, from astropy and the definition of an owner."""

import numpy as np

from syndiff_tasks.geometry.rings import RINGS, ring_skycell, rings_v3
from syndiff_tasks.geometry.skycell import skycell_wcs

SURVEY = rings_v3()


def pixels_in_cell_zero(projection, ra, dec):
    """Return the position in the pixel grid of a projection [native px, 0-based], from astropy."""
    return skycell_wcs(ring_skycell(projection, 0)).all_world2pix(ra, dec, 0)


def cores_holding(ra, dec):
    """Return all skycells with a position in their core, by a literal reading of docs/facts.md §1."""
    (ring,) = [ring for ring in RINGS if ring.dec_min <= dec < ring.dec_max]
    centres = 360 / ring.count * np.arange(ring.count)
    distance = np.abs((ra - centres + 180) % 360 - 180)
    projection = ring.first + int(np.argmin(distance))
    gx, gy = pixels_in_cell_zero(projection, ra, dec)
    first = np.arange(10)
    x = gx - first * (ring.nx - 480)
    y = gy - first * (ring.ny - 480)
    columns = np.flatnonzero((x >= 239.5) & (x < ring.nx - 240.5))
    rows = np.flatnonzero((y >= 239.5) & (y < ring.ny - 240.5))
    return [f"skycell.{projection:04d}.{row * 10 + column:03d}" for row in rows for column in columns]


def depth(skycell, ra, dec):
    """Return the distance from a position to the edge of an image [native px], from astropy; negative outside."""
    x, y = skycell_wcs(skycell).all_world2pix(ra, dec, 0)
    return np.min([x + 0.5, skycell.nx - 0.5 - x, y + 0.5, skycell.ny - 0.5 - y], axis=0)
