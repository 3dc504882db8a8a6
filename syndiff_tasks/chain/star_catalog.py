"""Catalogue stars between the rooms: which of them lie on a skycell, and which repaired ones on a template."""

import functools
import hashlib
import logging
import math
import os
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from astropy.coordinates import angular_separation

from syndiff_tasks import paths
from syndiff_tasks.geometry.skycell import skycell_center, skycell_radius, skycell_wcs
from syndiff_tasks.geometry.tangent import sky_positions
from syndiff_tasks.geometry.tansip import sky_to_pixel
from syndiff_tasks.io import catalog
from syndiff_tasks.pixels import photometry, saturated_stars, stars

logger = logging.getLogger("luigi-interface")

# Columns of the STARS table of a template.
COLUMNS = ("SOURCE_ID", "RA", "DEC", "TMAG", "FLUX", "TOTAL", "HOW", "SKYCELL")

# A service that did not answer is left alone for so long [s]: a thousand skycells must not wait for it one by one.
SERVICE_PAUSE = 600.0


class StarPolicy(NamedTuple):
    """How saturated stars are handled, and with which catalog.

    Attributes
    ----------
    how : {"repair", "remove", "keep"}
    catalog : str
        Path of a CSV, or ``gaia``; empty for none.
    digest : str
        Of the CSV's content; empty for others.
    """

    how: str
    catalog: str
    digest: str

    def label(self):
        """Return the part of a recipe's name that tells this; empty where stars are kept."""
        return "" if self.how == "keep" else f"_{self.how}-{self.digest or self.catalog}"


KEEP = StarPolicy("keep", "", "")


def star_policy(how, star_catalog):
    """Return the `StarPolicy` of the settings.

    Parameters
    ----------
    how : {"auto", "repair", "remove", "keep"}
        auto repairs if a catalog is given.
    star_catalog : str
        Path of a CSV, ``gaia``, or empty.

    Raises
    ------
    ValueError
        If stars are to be repaired or removed without a catalog, or the file does not exist.
    """
    if how == "keep" or (how == "auto" and not star_catalog):
        return KEEP
    if not star_catalog:
        raise ValueError(f"saturated_stars = {how} needs star_catalog: give a CSV, or gaia, or saturated_stars = keep")
    how = "repair" if how == "auto" else how
    if star_catalog == "gaia":
        return StarPolicy(how, "gaia", "")
    if not os.path.exists(star_catalog):
        raise ValueError(f"star_catalog = {star_catalog}: no such file; correct the path")
    return StarPolicy(how, star_catalog, _digest(star_catalog, os.stat(star_catalog).st_mtime_ns))


@functools.lru_cache(maxsize=4)
def _digest(path, _changed):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:8]


@functools.lru_cache(maxsize=1)
def _table(path, _changed):
    return catalog.read_stars(path)


def repair_saturated_stars(planes, skycell, policy, exclude, data_root):
    """Repair or remove the damaged stars of a combined skycell.

    Parameters
    ----------
    planes : bands.Combined
        Changed in place.
    skycell : rings.Skycell
    policy : StarPolicy
    exclude : int
        PS1 mask value that counts as lost, too.
    data_root : path-like
        Where fetched catalogs are kept.

    Returns
    -------
    rows : list of dict
        Of `COLUMNS`, a star each.
    """
    if policy.how == "keep" or not np.isfinite(planes.flux).any():
        return []
    table = _stars_near(skycell, policy, data_root)
    x, y = skycell_wcs(skycell).wcs_world2pix(table["ra"], table["dec"], 0)
    names = ("phot_g_mean_mag", "phot_bp_mean_mag", "phot_rp_mean_mag")
    magnitude = photometry.tess_magnitude(*(table[name].to_numpy() for name in names))
    on_it = stars.Stars(table["source_id"].to_numpy(), np.asarray(x), np.asarray(y), magnitude)
    repaired = saturated_stars.repair_saturated_stars(planes, on_it, policy.how, exclude)
    sky = skycell_wcs(skycell).wcs_pix2world([one.x for one in repaired], [one.y for one in repaired], 0)
    return [
        dict(zip(COLUMNS, (int(t.source_id), ra, dec, *map(float, t[3:6]), t.how, skycell.name), strict=True))
        for t, ra, dec in zip(repaired, *(place.tolist() for place in sky), strict=True)
    ]


def _stars_near(skycell, policy, data_root):
    """Return the stars on a skycell and about it; the cut comes first, for a tangent plane shows the far side too."""
    radius = skycell_radius(skycell)
    ra, dec = (float(value) for value in sky_positions(skycell_center(skycell)))
    if policy.catalog == "gaia":
        return _fetched(skycell, ra, dec, radius, data_root)
    table = _table(policy.catalog, os.stat(policy.catalog).st_mtime_ns)
    place = np.radians(table[["ra", "dec"]].to_numpy())
    return table[angular_separation(*np.radians([ra, dec]), *place.T) < math.radians(radius)]


def _fetched(skycell, ra, dec, radius, data_root):
    """Return Gaia's stars; none where the service is down, for the template is better late repaired than never made."""
    cache, down = paths.gaia_stars(data_root, skycell.name), paths.gaia_down(data_root)
    cache.parent.mkdir(parents=True, exist_ok=True)
    if cache.exists() or not (down.exists() and abs(time.time() - down.stat().st_mtime) < SERVICE_PAUSE):
        try:
            return catalog.fetch_gaia(ra, dec, radius, cache)
        except catalog.CatalogUnavailable as error:
            down.touch()
            logger.warning("%s: saturated stars stay as they are, flagged SAT_PS1: %s", skycell.name, error)
    empty = {name: np.zeros(0) for name in catalog.COLUMNS}
    return pd.DataFrame({"source_id": np.zeros(0, np.int64)} | empty)


def on_template(plan, rows):
    """Return the STARS table of a template: the repaired stars on it, each once, by the skycell that owns its pixel.

    Parameters
    ----------
    plan : plans.Plan
    rows : list of dict
        What `repair_saturated_stars` returned for its skycells.

    Returns
    -------
    table : pandas.DataFrame
        Of `COLUMNS`.
    """
    table = pd.DataFrame(rows, columns=COLUMNS)
    if table.empty:
        return table
    x, y = sky_to_pixel(plan.tansip, table["RA"].to_numpy(), table["DEC"].to_numpy())
    column, row = (np.rint(np.nan_to_num(place, nan=-1e6)).astype(int) for place in (x, y))
    region, owner = plan.region, plan.footprint.owner
    inside = (column >= region.x0) & (column < region.x1) & (row >= region.y0) & (row < region.y1)
    owned = owner[np.where(inside, row - region.y0, 0), np.where(inside, column - region.x0, 0)]
    names = np.array([skycell.name for skycell in plan.skycells])
    return table[inside & (names[owned] == table["SKYCELL"].to_numpy()) & (owned >= 0)].reset_index(drop=True)
