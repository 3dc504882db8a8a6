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
from syndiff_tasks.pixels.mask import DQ

logger = logging.getLogger("luigi-interface")

# Columns of the STARS table of a template.
COLUMNS = ("SOURCE_ID", "RA", "DEC", "TMAG", "FLUX", "TOTAL", "HOW", "SKYCELL", "PM", "MOVED")

# Middle of the years in which PS1's 3pi survey was observed, 2009 to 2014.
PS1_EPOCH = 2012.0

# Stars that moved farther between PS1 and the FFI are flagged; a dipole of some 5 % of the peak [TESS px].
FLAGGED_MOTION = 0.05

# Scale of a TESS pixel [arcsec].
TESS_PIXEL = 21.0

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
        Of `COLUMNS` without MOVED, a star each; PM is None where the catalog has no proper motion.
    """
    if policy.how == "keep" or not np.isfinite(planes.flux).any():
        return []
    table = at_epoch(_stars_near(skycell, policy, data_root), PS1_EPOCH)
    motion = dict(zip(table["source_id"], np.hypot(table["pmra"], table["pmdec"]), strict=True))
    x, y = skycell_wcs(skycell).wcs_world2pix(table["ra"], table["dec"], 0)
    names = ("phot_g_mean_mag", "phot_bp_mean_mag", "phot_rp_mean_mag")
    magnitude = photometry.tess_magnitude(*(table[name].to_numpy() for name in names))
    on_it = stars.Stars(table["source_id"].to_numpy(), np.asarray(x), np.asarray(y), magnitude)
    repaired = saturated_stars.repair_saturated_stars(planes, on_it, policy.how, exclude)
    sky = skycell_wcs(skycell).wcs_pix2world([one.x for one in repaired], [one.y for one in repaired], 0)
    return [
        dict(zip(COLUMNS[:-2], (int(t.source_id), ra, dec, *map(float, t[3:6]), t.how, skycell.name), strict=True))
        | {"PM": float(motion[t.source_id]) if np.isfinite(motion[t.source_id]) else None}
        for t, ra, dec in zip(repaired, *(place.tolist() for place in sky), strict=True)
    ]


def at_epoch(table, year):
    """Return a star catalog with the positions of a year; a star without proper motion stays where it is.

    Parameters
    ----------
    table : pandas.DataFrame
        As `catalog.read_stars` returns it, positions of `catalog.EPOCH`.
    year : float
        Julian year.
    """
    motion = table[list(catalog.PROPER_MOTION)].fillna(0.0).to_numpy() * (year - catalog.EPOCH) / 3.6e6
    return table.assign(
        ra=table["ra"] + motion[:, 0] / np.cos(np.radians(table["dec"])), dec=table["dec"] + motion[:, 1]
    )


def moved(motion, mjd):
    """Return how far stars moved between PS1 and an FFI [TESS px].

    Parameters
    ----------
    motion : ndarray of float64
        Total proper motion [mas/yr]; NaN where unknown.
    mjd : float
        Of the FFI [d].
    """
    year = 2000.0 + (mjd - 51544.5) / 365.25
    return motion / 1000 * abs(year - PS1_EPOCH) / TESS_PIXEL


def flag_moved(dq, table, tansip, oversampling):
    """Set SUSPECT_PS1 within 2 TESS px of the stars that moved by more than `FLAGGED_MOTION`, in place.

    Parameters
    ----------
    dq : ndarray of uint16, shape (ny, nx)
        Of a template.
    table : pandas.DataFrame
        As `on_template` returns it.
    tansip : TanSip
        Of the template's pixels.
    oversampling : int
        Template pixels along one TESS pixel.
    """
    far = table[table["MOVED"] > FLAGGED_MOTION]
    for x, y in zip(*sky_to_pixel(tansip, far["RA"].to_numpy(), far["DEC"].to_numpy()), strict=True):
        rows, columns = np.ogrid[: dq.shape[0], : dq.shape[1]]
        dq[np.hypot(rows - y, columns - x) <= 2 * oversampling] |= dq.dtype.type(DQ.SUSPECT_PS1)


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
    empty = {name: np.zeros(0) for name in catalog.COLUMNS + catalog.PROPER_MOTION}
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
    table["PM"] = pd.to_numeric(table["PM"]).astype(float)
    table["MOVED"] = moved(table["PM"], plan.mjd)
    if table.empty:
        return table
    x, y = sky_to_pixel(plan.tansip, table["RA"].to_numpy(), table["DEC"].to_numpy())
    column, row = (np.rint(np.nan_to_num(place, nan=-1e6)).astype(int) for place in (x, y))
    region, owner = plan.region, plan.footprint.owner
    inside = (column >= region.x0) & (column < region.x1) & (row >= region.y0) & (row < region.y1)
    owned = owner[np.where(inside, row - region.y0, 0), np.where(inside, column - region.x0, 0)]
    names = np.array([skycell.name for skycell in plan.skycells])
    return table[inside & (names[owned] == table["SKYCELL"].to_numpy()) & (owned >= 0)].reset_index(drop=True)
