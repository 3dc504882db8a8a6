"""Frames of FFIs and of TESScut behind one interface, and their times."""

import shutil

import numpy as np
import pytest
import real_data
from astropy.io import fits
from made_up_tesscut import linear_wcs, write_tesscut
from numpy.testing import assert_array_equal
from tiny_sky import funpackable, write_ffi, zipped

from syndiff_tasks.chain import series, times
from syndiff_tasks.demo import frame
from syndiff_tasks.geometry.region import Region
from syndiff_tasks.geometry.tansip import pixel_to_sky, shifted
from syndiff_tasks.io import ffi_part, fits_in

SHAPE = (300, 250)
NAMES = [f"tess202001913{minute:02d}23-s0020-3-3-0165-s_ffic.fits" for minute in (29, 59)]
REGION = Region(100, 40, 112, 50)
TIMES = {"TSTART": 1868.0, "TSTOP": 1868.5, "BARYCORR": 2.5e-3, "DQUALITY": 4}
REAL = "real/tess-s0019-1-3_65.489205_28.443210_10x10_astrocut.fits"


@pytest.mark.parametrize("form", [lambda path: path, zipped, funpackable])
def test_a_part_of_an_ffi_is_that_of_the_whole_reading(tmp_path, form):
    path = form(write_ffi(tmp_path / NAMES[0], shape=SHAPE))
    part, whole = ffi_part.read_ffi_part(path, *REGION), fits_in.read_ffi(path)
    assert part.image.dtype == part.uncertainty.dtype == np.float32
    assert_array_equal(part.image, whole.image[40:50, 100:112])
    assert_array_equal(part.uncertainty, whole.uncertainty[40:50, 100:112])
    assert part.header.tostring() == whole.header.tostring()


def test_an_ffi_that_ends_before_the_part_is_an_error_that_names_it(tmp_path):
    path = write_ffi(tmp_path / NAMES[0], shape=SHAPE)
    path.write_bytes(path.read_bytes()[:60000])
    with pytest.raises(ValueError, match=NAMES[0]):
        ffi_part.read_ffi_part(path, 100, 240, 112, 250)


def test_ffis_and_a_target_pixel_file_of_them_give_the_same_frames(tmp_path):
    tansip = shifted(frame.TANSIP, 0.25, 0.0)
    paths = [write_ffi(tmp_path / name, tansip, SHAPE, TIMES) for name in NAMES]
    ffis = series.from_ffis(paths, REGION)
    cut_path, flux = write_tesscut(tmp_path, origin=(1700, 750), changes=linear_wcs((1705.5, 754.5)))
    cut = series.from_tesscut(str(cut_path))
    assert (ffis.count, ffis.shape, ffis.origin) == (2, (10, 12), (100, 40))
    assert (cut.count, cut.shape, cut.origin) == (7, (10, 12), (1700, 750))
    one, other = ffis.read(1), cut.read(3)
    assert (one.ffi, one.time, one.correction, one.quality, one.why) == (NAMES[1][:-5], 1868.25, 2.5e-3, 4, "")
    assert_array_equal(one.image, fits.getdata(paths[1], 1)[40:50, 100:112])
    assert np.allclose(pixel_to_sky(one.tansip, 3, 4), pixel_to_sky(tansip, 103, 44), atol=1e-12)
    assert (other.time, other.quality) == (1900 + 3 / 48, 4)
    assert_array_equal(other.image, flux[3])
    part = series.from_tesscut(str(cut_path), Region(2, 1, 8, 9))
    assert (part.shape, part.origin) == ((8, 6), (1702, 751))
    assert_array_equal(part.read(0).image, flux[0, 1:9, 2:8])
    assert np.allclose(pixel_to_sky(part.read(0).tansip, 0, 0), pixel_to_sky(other.tansip, 2, 1), atol=1e-12)


def test_a_frame_that_cannot_be_used_stays_in_the_series_and_says_why(tmp_path):
    damaged = write_ffi(tmp_path / NAMES[0], shape=SHAPE)
    damaged.write_bytes(damaged.read_bytes()[:5000])
    without_wcs = write_ffi(tmp_path / NAMES[1], shape=SHAPE, changes=TIMES | {"CTYPE1": None})
    frames = series.from_ffis([damaged, without_wcs], REGION)
    first, second = frames.read(0), frames.read(1)
    assert np.isnan(first.image).all() and first.image.shape == (10, 12)
    assert NAMES[0] in first.why and first.tansip is None and np.isnan(first.time)
    assert np.isfinite(second.image).all() and second.time == 1868.25
    assert "has no WCS" in second.why and second.tansip is None


def test_a_target_pixel_file_under_the_name_of_another_detector_is_refused(tmp_path):
    path, _ = write_tesscut(tmp_path)
    other = tmp_path / path.name.replace("3-3", "3-4")
    shutil.copy(path, other)
    with pytest.raises(ValueError, match="the file name says ccd 4, the header CCD = 3"):
        series.from_tesscut(str(other))


def test_times_of_the_real_series_hold_target_frame_and_spacecraft():
    frames = series.from_tesscut(str(real_data.present(REAL)))
    some = [frames.read(index) for index in range(0, frames.count, 100)]
    reference = times.cutout_reference(some[0].tansip, frames.shape, frames.origin, 3)
    when = [np.array([getattr(one, name) for one in some]) for name in ("time", "correction")]
    found = times.times_of(*when, reference, (65.489205, 28.44321))
    good = np.isfinite(found.frame)
    assert frames.origin == (376, 157) and good.sum() > 8
    apart = (found.target - found.frame)[good] * 86400
    assert 1 < np.max(np.abs(apart)) < 15
    # The name of an FFI has the UTC of its beginning, to some seconds: day 332, 13:59:24. The middle of the exposure is
    # half of 30 minutes later; the barycenter is 482 s off, and TDB 69 s.
    assert some[0].ffi.startswith("tess2019332135924")
    assert found.mjd_utc[0] == pytest.approx(58815 + (13 + 59 / 60 + 24 / 3600 + 0.25) / 24, abs=5 / 86400)


def test_the_reference_of_an_ffi_is_the_pixel_that_its_header_names():
    sky = times.ffi_reference(frame.TANSIP, {"BTC_PIX1": 501.0, "BTC_PIX2": 301.0})
    ra, dec = np.radians(pixel_to_sky(frame.TANSIP, 500.0, 300.0))
    assert np.allclose(sky, [np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], atol=1e-12)
