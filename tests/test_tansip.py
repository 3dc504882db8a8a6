import numpy as np
import pytest
import real_data
from astropy.io import fits
from astropy.wcs import WCS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_up_ffi import B, arcseconds, astropy_wcs, header_of, science_points, tess_wcs
from numpy.testing import assert_allclose

from syndiff_tasks.geometry.ffi import FRAME_SHAPE, frame_origin, science_region
from syndiff_tasks.geometry.region import SCIENCE, Region
from syndiff_tasks.geometry.tansip import (
    cropped,
    oversampled,
    pixel_to_sky,
    pixel_to_vector,
    region_around,
    region_to_vector,
    shifted,
    sky_to_pixel,
    tansip_from_header,
    tansip_keywords,
)


@pytest.mark.parametrize(("ra", "dec", "turn"), [(216.75, 56.4, 0), (0.01, 10, 130), (40.9, 87.1, 250), (300, -26, 77)])
def test_pixel_to_sky_agrees_with_astropy(ra, dec, turn):
    tansip = tess_wcs(ra, dec, turn)
    x, y = science_points(2000, seed=1)
    expected = astropy_wcs(tansip).all_pix2world(x, y, 0)
    ours = pixel_to_sky(tansip, x, y)
    assert np.all((ours[0] >= 0) & (ours[0] < 360))
    assert arcseconds(*expected, *ours).max() < 1e-7


@pytest.mark.parametrize(("ra", "dec", "turn"), [(216.75, 56.4, 0), (0.01, 10, 130), (40.9, 87.1, 250)])
def test_sky_to_pixel_agrees_with_astropy_and_inverts_pixel_to_sky(ra, dec, turn):
    tansip = tess_wcs(ra, dec, turn)
    x, y = science_points(500, seed=2)
    sky = astropy_wcs(tansip).all_pix2world(x, y, 0)
    theirs = astropy_wcs(tansip).all_world2pix(*sky, 0, tolerance=1e-8, maxiter=60)
    ours = sky_to_pixel(tansip, *sky)
    assert_allclose(ours, theirs, atol=2e-8)
    assert_allclose(ours, (x, y), atol=1e-8)


def test_a_real_header_gives_the_coordinates_that_astropy_gives():
    header = fits.Header.fromtextfile(real_data.present("tess2018235142941-s0002-1-2-0121-s_ffic.ext1.txt"))
    tansip = tansip_from_header(header)
    made_up = tess_wcs(1.2049088954883924, -26.0576271210793)
    for ours, known in zip(tansip, made_up, strict=True):
        assert_allclose(ours, known, rtol=1e-15)
    x, y = science_points(2000, seed=3)
    # astropy warns about dates that it corrects.
    del header["DATE-*"]
    sky = WCS(header).all_pix2world(x, y, 0)
    assert arcseconds(*sky, *pixel_to_sky(tansip, x, y)).max() < 1e-7
    assert_allclose(sky_to_pixel(tansip, *sky), (x, y), atol=1e-8)
    assert science_region(frame_origin(header, FRAME_SHAPE), FRAME_SHAPE) == SCIENCE


def test_vectors_of_a_region_equal_those_of_its_single_pixels():
    tansip = tess_wcs()
    y, x = np.mgrid[1000:1020, 44:90]
    grid = region_to_vector(tansip, Region(44, 1000, 90, 1020))
    assert_allclose(grid.reshape(-1, 3), pixel_to_vector(tansip, x.ravel(), y.ravel()), rtol=0, atol=3e-16)


def test_positions_keep_the_shape_of_the_input():
    tansip = tess_wcs()
    ra, dec = pixel_to_sky(tansip, np.arange(4)[:, None], np.arange(3))
    assert ra.shape == dec.shape == (4, 3)
    x, y = sky_to_pixel(tansip, ra, dec)
    assert x.shape == y.shape == (4, 3)
    assert sky_to_pixel(tansip, float(ra[0, 0]), float(dec[0, 0]))[0].shape == ()


def test_pixel_positions_far_off_the_ccd_are_nan():
    tansip = tess_wcs(30.0, 20.0)
    ra = np.array([30.0, 210.0, 30.0, 45.0, 30.0, np.nan])
    dec = np.array([-20.0, -20.0, 33.0, 20.0, 90.0, 20.0])
    assert np.isnan(sky_to_pixel(tansip, ra, dec)).all()


def test_an_unusual_lonpole_rotates_the_image_as_in_astropy():
    tansip = tess_wcs()._replace(lonpole=150.0)
    x, y = science_points(100, seed=4)
    sky = astropy_wcs(tansip).all_pix2world(x, y, 0)
    assert arcseconds(*sky, *pixel_to_sky(tansip, x, y)).max() < 1e-7


def test_keywords_and_header_parser_are_inverse():
    tansip = tess_wcs()
    for original in (tansip, tansip._replace(a=np.zeros((1, 1)), b=np.zeros((1, 1)))):
        for ours, back in zip(tansip_from_header(header_of(original)), original, strict=True):
            assert_allclose(ours, back, rtol=1e-14)


def test_shifted_cropped_and_oversampled_coordinates_show_the_same_sky():
    tansip = tess_wcs()
    x, y = science_points(50, seed=5)
    sky = pixel_to_sky(tansip, x, y)
    assert_allclose(sky_to_pixel(shifted(tansip, 0.3, -0.2), *sky), (x + 0.3, y - 0.2), atol=1e-8)
    assert_allclose(sky_to_pixel(cropped(tansip, 600, 500), *sky), (x - 600, y - 500), atol=1e-8)
    # The outer edge of the first pixel does not move.
    fine = astropy_wcs(oversampled(tansip, 3))
    assert_allclose(
        fine.all_world2pix(*sky, 0, tolerance=1e-8, maxiter=60), (3 * (x + 0.5) - 0.5, 3 * (y + 0.5) - 0.5), atol=1e-7
    )


def test_region_around_a_position_has_it_in_the_central_pixel_and_is_clipped():
    tansip = tess_wcs()
    sky = [float(c) for c in pixel_to_sky(tansip, 700.2, 800.9)]
    assert region_around(tansip, *sky, 5) == (698, 799, 703, 804)
    sky = [float(c) for c in pixel_to_sky(tansip, 44.2, 2047.1)]
    assert region_around(tansip, *sky, 11) == (44, 2042, 50, 2048)


def test_region_around_rejects_positions_off_the_ccd_and_bad_sizes():
    tansip = tess_wcs(30.0, 20.0)
    off = [float(c) for c in pixel_to_sky(tansip, 30.0, 100.0)]
    for position, size, message in (
        (off, 10, r"at pixel \(30.0, 100.0\), not on its science pixels"),
        ((210.0, 20.0), 10, "far off this CCD"),
        ((30.0, 95.0), 10, "not a sky position"),
        ((float("nan"), 5.0), 10, "not a sky position"),
        ((30.0, 20.0), 0, "size 0"),
        ((30.0, 20.0), 2.5, "size 2.5"),
    ):
        with pytest.raises(ValueError, match=message):
            region_around(tansip, *position, size)


def test_a_cutout_with_shifted_crpix_sees_the_same_sky():
    tansip = tess_wcs()
    cut = tansip_from_header(header_of(cropped(tansip, 1700, 20), shape=(200, 300)))
    assert_allclose(pixel_to_sky(cut, 10.0, 30.0), pixel_to_sky(tansip, 1710.0, 50.0), rtol=1e-14)


def test_pc_with_cdelt_and_sip_polynomials_of_unequal_order_are_accepted():
    tansip = tess_wcs()
    header = header_of(tansip)
    for axis in (1, 2):
        header[f"CDELT{axis}"] = 2.0
        for other in (1, 2):
            header[f"PC{axis}_{other}"] = header.pop(f"CD{axis}_{other}") / 2
    header["B_ORDER"] = 3
    for p, q in B:
        if p + q == 4:
            del header[f"B_{p}_{q}"]
    del header["LONPOLE"], header["RADESYS"]
    ours = tansip_from_header(header)
    assert_allclose(ours.cd, tansip.cd, rtol=1e-15)
    x, y = science_points(20, seed=6)
    assert arcseconds(*WCS(header).all_pix2world(x, y, 0), *pixel_to_sky(ours, x, y)).max() < 1e-7


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"CTYPE1": None}, "has no WCS .no CTYPE1"),
        ({"CRVAL2": None}, "has no WCS .no CRVAL2"),
        ({"CD1_1": None, "CD1_2": None, "CD2_1": None, "CD2_2": None}, "has no WCS"),
        ({"CTYPE1": "GLON-TAN", "CTYPE2": "GLAT-TAN"}, "expected RA---TAN-SIP"),
        ({"CTYPE1": "RA---ZEA", "CTYPE2": "DEC--ZEA"}, "expected RA---TAN-SIP"),
        ({"CTYPE1": "DEC--TAN", "CTYPE2": "RA---TAN"}, "expected RA---TAN-SIP"),
        ({"CRPIX1": "somewhere"}, "CRPIX1 = 'somewhere'"),
        ({"CD1_1": 0.0, "CD1_2": 0.0}, "(?i)singular"),
        ({"CD1_1": 7e-5, "CD2_2": 7e-5, "CD1_2": 0.0, "CD2_1": 0.0}, "0.252 arcsec per pixel"),
        ({"A_2_0": 5e-4}, "does not invert at pixel"),
        ({"A_2_0": -5e-4}, "does not invert at pixel"),
        ({"B_0_3": -1e-6}, "does not invert at pixel"),
        ({"B_ORDER": None}, "malformed"),
        ({"A_ORDER": 9999}, "A_ORDER = 9999"),
        ({"A_ORDER": "four"}, "A_ORDER = 'four'"),
        ({"A_0_2": 1e152}, "beyond the range of real FFIs"),
        ({"CRPIX1": -1e200}, "CRPIX1 = -1e.200, beyond the range of real FFIs"),
        ({"CRVAL2": 91.0}, "WCS of the FFI"),
        ({"RADESYS": "FK4", "EQUINOX": 1950.0}, "RADESYS = 'FK4'"),
        ({"CPDIS1": "LOOKUP"}, "look-up table of distortion"),
    ],
)
def test_error_for_a_bad_wcs_gives_the_reason(changes, message):
    header = header_of(tess_wcs())
    for keyword, value in changes.items():
        if value is None:
            del header[keyword]
        else:
            header[keyword] = value
    with pytest.raises(ValueError, match=message):
        tansip_from_header(header)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=60)
@given(
    st.sampled_from(sorted(tansip_keywords(tess_wcs()))),
    st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.text("abc01.", max_size=8), st.integers(-9, 9999)),
)
def test_a_damaged_header_gives_finite_coordinates_or_an_error_about_the_wcs(keyword, value):
    header = header_of(tess_wcs())
    header[keyword] = value
    try:
        tansip = tansip_from_header(header)
    except ValueError as error:
        assert "WCS" in str(error)
    else:
        assert np.isfinite(pixel_to_sky(tansip, 1000.0, 1000.0)).all()


@pytest.mark.slow
def test_wcs_of_many_sectors_agree_with_astropy():
    import tesswcs

    x, y = science_points(50, seed=7)
    for sector in (1, 20, 27, 42, 52):
        for camera in (1, 2, 3, 4):
            for ccd in (1, 2, 3, 4):
                theirs = tesswcs.WCS.from_sector(sector, camera, ccd)
                ours = tansip_from_header(theirs.to_header())
                sky = theirs.all_pix2world(x, y, 0)
                assert arcseconds(*sky, *pixel_to_sky(ours, x, y)).max() < 1e-5
                assert_allclose(sky_to_pixel(ours, *sky), (x, y), atol=1e-6)
