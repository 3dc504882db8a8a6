"""Times of a target, against astropy's own barycentric correction, real headers and measured WCS."""

import numpy as np
import pytest
import real_data
from astropy.coordinates import EarthLocation, SkyCoord
from astropy.time import Time
from numpy.testing import assert_allclose

from syndiff_tasks.geometry import light_travel
from syndiff_tasks.geometry.tangent import unit_vectors
from syndiff_tasks.geometry.tansip import pixel_to_sky, tansip_from_header
from syndiff_tasks.io import fits_in

tesswcs = pytest.importorskip("tesswcs")
REAL = "real/tess-s0019-1-3_65.489205_28.443210_10x10_astrocut.fits"
CENTER = EarthLocation.from_geocentric(0, 0, 0, unit="m")


def by_astropy(ra, dec, btjd):
    """Light travel time [d] from a geocenter in astropy's machinery."""
    times = Time(2457000, btjd, format="jd", scale="tdb", location=CENTER)
    return times.light_travel_time(SkyCoord(ra, dec, unit="deg"), ephemeris="builtin").to_value("day")


@pytest.mark.parametrize("target", [(10.0, -60.0), (65.49, 28.44), (271.0, 66.5)])
def test_light_travel_is_that_of_astropy_within_a_microsecond(target):
    btjd = np.linspace(1354.1, 3400.7, 50)
    ours = light_travel.light_travel_days(unit_vectors(*target), btjd)
    assert_allclose(ours * 86400, by_astropy(*target, btjd) * 86400, atol=1e-6)


def test_the_barycentric_correction_of_a_real_header_is_matched_to_the_orbit():
    path = real_data.present("tess2018235142941-s0002-1-2-0121-s_ffic.ext1.txt")
    cards = dict(line.split("=", 1) for line in path.read_text().splitlines() if line[8:9] == "=")
    number = {key.strip(): value.split("/")[0].strip() for key, value in cards.items()}
    header = {key: float(number[key]) for key in ("TSTART", "TSTOP", "BARYCORR")}
    wcs = tesswcs.WCS.from_sector(sector=2, camera=1, ccd=2)
    direction = unit_vectors(*wcs.all_pix2world(*light_travel.REFERENCE_PIXEL, 0))
    middle = (header["TSTART"] + header["TSTOP"]) / 2 - header["BARYCORR"]
    apart = (light_travel.light_travel_days(direction, middle) - header["BARYCORR"]) * 86400
    assert np.all(np.abs(apart) < light_travel.BEYOND_EARTH)
    # DATE-OBS is TSTART in UTC, still at the barycenter.
    at_barycenter = light_travel.spacecraft_mjd_utc(header["TSTART"], 0.0)
    assert Time(at_barycenter, format="mjd", scale="utc").isot[0].startswith("2018-08-23T14:36:54.29")


@pytest.mark.parametrize("corner", [(60, 20), (2070, 2030), (60, 2030), (2070, 20)])
def test_time_moved_from_the_reference_pixel_to_a_corner_is_right_to_0_2_s(corner):
    # The satellite in a made-up orbit of 60 Earth radii, which `move_to_target` knows nothing of.
    wcs = tesswcs.WCS.from_sector(sector=19, camera=2, ccd=1)
    reference, target = (wcs.all_pix2world(*place, 0) for place in (light_travel.REFERENCE_PIXEL, corner))
    spacecraft = np.linspace(1816.0, 1842.0, 40)
    phase = 2 * np.pi * spacecraft / 13.7
    tess = 1.28 * np.stack([np.cos(phase), np.sin(phase), np.zeros(40)], -1)
    corrections = [
        by_astropy(*place, spacecraft) + tess @ unit_vectors(*place) / 86400 for place in (reference, target)
    ]
    moved = light_travel.move_to_target(
        spacecraft + corrections[0], corrections[0], unit_vectors(*reference), unit_vectors(*target)
    )
    assert np.ptp(corrections[0] - corrections[1]) * 86400 > 1
    assert np.max(np.abs(moved - spacecraft - corrections[1])) * 86400 < 0.2


def test_the_spacecrafts_utc_is_that_of_the_moment_before_the_correction():
    mjd = light_travel.spacecraft_mjd_utc([1816.5, np.nan], 399 / 86400)
    # 69.184 s is TDB - UTC in 2019 (37 leap seconds and 32.184 s), to 2 ms.
    assert mjd[0] == pytest.approx(58816.0 - (399 + 69.184) / 86400, abs=0.003 / 86400)
    assert np.isnan(mjd[1])


@pytest.mark.parametrize("camera", [1, 3])
@pytest.mark.parametrize("ccd", [1, 2, 3, 4])
def test_a_small_corner_of_any_ccd_gives_its_reference_direction(camera, ccd):
    wcs = tesswcs.WCS.from_sector(sector=19, camera=camera, ccd=ccd)
    truth = unit_vectors(*wcs.all_pix2world(*light_travel.REFERENCE_PIXEL, 0))
    for x, y in ((60, 20), (2060, 2020), (60, 2020), (2060, 20), (1000, 1000)):
        places = np.array([(x, y), (x + 9, y), (x, y + 9), (x + 9, y + 9)], float)
        sky = np.transpose(wcs.all_pix2world(*places.T, 0))
        found = light_travel.reference_direction(ccd, places, sky)
        assert np.degrees(np.linalg.norm(found - truth)) * 60 < 6  # [arcmin]; 6 are 0.9 s at most


def test_times_of_the_real_cutout_are_those_of_its_target_within_a_second():
    cut = fits_in.read_tesscut(real_data.present(REAL))
    places = np.array([(0, 0), (9, 0), (0, 9), (9, 9)], float)
    sky = np.transpose(pixel_to_sky(tansip_from_header(cut.header), *places.T))
    reference = light_travel.reference_direction(3, places + (376, 157), sky)
    target = cut.header["RA_OBJ"], cut.header["DEC_OBJ"]
    moved = light_travel.move_to_target(cut.time, cut.time_correction, reference, unit_vectors(*target))
    good = np.isfinite(moved)
    assert good.sum() > 1100
    # By the full light travel time from the geocenter, TESS being within 1.3 s of it; the measured WCS says where the
    # reference pixel points, so the part that TIMECORR has of the satellite's orbit is known.
    wcs = tesswcs.WCS.from_sector(sector=19, camera=1, ccd=3)
    spacecraft = cut.time[good] - cut.time_correction[good]
    orbit = cut.time_correction[good] - by_astropy(*wcs.all_pix2world(*light_travel.REFERENCE_PIXEL, 0), spacecraft)
    truth = spacecraft + by_astropy(*target, spacecraft) + orbit
    assert np.max(np.abs(moved[good] - truth)) * 86400 < 0.3
    assert np.max(np.abs(moved - cut.time)[good]) * 86400 > 5
