"""Stars with proper motion between PS1 and an FFI."""

import astropy.units as u
import numpy as np
import pandas as pd
import tiny_sky as made_up
from astropy.coordinates import SkyCoord
from astropy.time import Time
from numpy.testing import assert_allclose, assert_array_equal

from syndiff_tasks.chain import star_catalog
from syndiff_tasks.geometry.tansip import pixel_to_sky
from syndiff_tasks.pixels.mask import DQ


def test_stars_are_put_where_astropy_puts_them_at_the_ps1_epoch():
    table = pd.DataFrame({"ra": [230.0, 10.0], "dec": [79.0, -5.0], "pmra": [900.0, np.nan], "pmdec": [-400.0, np.nan]})
    at_2012 = star_catalog.at_epoch(table, 2012.0)
    motion = {"pm_ra_cosdec": 900 * u.mas / u.yr, "pm_dec": -400 * u.mas / u.yr, "obstime": Time(2016, format="jyear")}
    truth = SkyCoord(230 * u.deg, 79 * u.deg, distance=10 * u.pc, **motion).apply_space_motion(
        Time(2012, format="jyear")
    )
    assert_allclose(
        at_2012.loc[0, ["ra", "dec"]].astype(float), [truth.ra.deg, truth.dec.deg], rtol=0, atol=1e-6
    )  # motion along straight lines: 4 mas
    assert_array_equal(at_2012.loc[1, ["ra", "dec"]], table.loc[1, ["ra", "dec"]])


def test_only_stars_that_moved_farther_than_a_twentieth_of_a_pixel_are_flagged():
    tansip, mjd = made_up.cutout(), Time(2020, format="jyear").mjd
    ra, dec = pixel_to_sky(tansip, np.array([10.2, 30.0, 45.0]), np.array([20.1, 30.0, 5.0]))
    moved = star_catalog.moved(np.array([1050.0, 100.0, np.nan]), mjd)
    assert_allclose(moved, [0.4, 0.8 / 21, np.nan], rtol=1e-3)
    dq = np.zeros((60, 60), np.uint16)
    star_catalog.flag_moved(dq, pd.DataFrame({"RA": ra, "DEC": dec, "MOVED": moved}), tansip, 1)
    near = {(y, x) for y in range(60) for x in range(60) if (y - 20.1) ** 2 + (x - 10.2) ** 2 < 4}
    assert set(zip(*(places.tolist() for places in np.nonzero(dq)), strict=True)) == near
    assert set(np.unique(dq)) == {0, DQ.SUSPECT_PS1}
