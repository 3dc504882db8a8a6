from pathlib import Path

import numpy as np
import pytest
import real_data
from astropy.io import fits
from astropy.wcs import WCS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from syndiff_tasks.geometry import ffi

# The distortion of camera 1 CCD 2 in sector 2, as SPOC's header has it.
A = {(2, 0): -1.922597574056e-05, (1, 1): 1.71293937943375e-05, (0, 2): -2.977617810249e-06,
     (3, 0): -2.631595292456e-09, (2, 1): -7.260739723457e-11, (1, 2): -2.628095234562e-09,
     (0, 3): 1.060597138742e-10, (4, 0): -1.596534515028e-13, (3, 1): 3.522144062319e-13,
     (2, 2): -3.526651092193e-13, (1, 3): 2.248447989712e-13, (0, 4): -4.470441242226e-14}  # fmt: skip
B = {(2, 0): 3.096244798181e-06, (1, 1): -1.640663569347e-05, (0, 2): 1.999955328492e-05,
     (3, 0): 1.365421690014e-10, (2, 1): -2.709520396133e-09, (1, 2): -3.321715459735e-11,
     (0, 3): -2.583669141422e-09, (4, 0): 7.983758702124e-14, (3, 1): -3.278748712958e-13,
     (2, 2): 3.698787097152e-13, (1, 3): -3.573245108101e-13, (0, 4): 1.572937403795e-13}  # fmt: skip
CD = np.array([[0.004994597158881548, -0.002654102364745], [0.002780210987902541, 0.005056177352553207]])


def tess_wcs(ra=216.75, dec=56.4, turn=0.0):
    """World coordinates of a real CCD, pointed elsewhere."""
    polynomials = np.zeros((2, 5, 5))
    for target, terms in zip(polynomials, (A, B), strict=True):
        for place, value in terms.items():
            target[place] = value
    c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    return ffi.TanSip(ra, dec, 1045.0, 1001.0, np.array([[c, -s], [s, c]]) @ CD, *polynomials, 180.0)


def header_of(tansip, shape=ffi.FRAME_SHAPE):
    header = fits.Header({"NAXIS": 2, "NAXIS1": shape[1], "NAXIS2": shape[0], **ffi.keywords(tansip)})
    header.update({"TELESCOP": "TESS", "CAMERA": 1, "CCD": 2})
    return header


def astropy_wcs(tansip):
    return WCS(header_of(tansip))


def science_points(count, seed):
    rng = np.random.default_rng(seed)
    corners = [(44, 0), (2091, 0), (2091, 2047), (44, 2047)]
    x, y = np.concatenate([corners, rng.uniform((43.5, -0.5), (2091.5, 2047.5), (count, 2))]).T
    return x, y


def arcseconds(ra, dec, ra2, dec2):
    return 3600 * np.hypot(((ra - ra2 + 180) % 360 - 180) * np.cos(np.radians(dec)), dec - dec2)


@pytest.mark.parametrize("extension", [".fits", ".fits.gz", ".fits.fz"])
def test_names_of_spoc_and_tica_are_read(extension):
    spoc = ffi.parse_name(f"/some where/tess2020019135923-s0020-3-3-0165-s_ffic{extension}")
    assert spoc == ("tess2020019135923-s0020-3-3-0165-s_ffic", 20, 3, 3, "2020019135923", "spoc")
    tica = ffi.parse_name(Path(f"hlsp_tica_tess_ffi_s0027-o1-00116635-cam1-ccd2_tess_v01_img{extension}"))
    assert tica == ("hlsp_tica_tess_ffi_s0027-o1-00116635-cam1-ccd2_tess_v01_img", 27, 1, 2, "o1-00116635", "tica")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "image.fits",
        "tess2020019135923-s0020-3-3-0165-s_ffic",
        "tess2020019135923-s0020-5-3-0165-s_ffic.fits",
        "tess2020019135923-s0020-3-3-0165-s_ffir.fits.txt",
        "tess2018206045859-s0001-0000000025155310-0120-s_lc.fits",
        "hlsp_tica_tess_ffi_s0027-o1-00116635-cam1-ccd5_tess_v01_img.fits",
        "tess２020019135923-s0020-3-3-0165-s_ffic.fits",
    ],
)
def test_other_names_are_refused_with_an_example(name):
    with pytest.raises(ValueError, match="is not the name of a calibrated FFI.*s0020-3-3-0165"):
        ffi.parse_name(name)


@given(st.text(max_size=60))
def test_any_text_is_an_ffi_name_or_refused(text):
    with pytest.raises(ValueError, match="not the name"):
        ffi.parse_name(text)


def test_header_and_name_must_agree_on_camera_and_ccd():
    name = ffi.parse_name("tess2020019135923-s0020-3-4-0165-s_ffic.fits")
    ffi.check_detector(name, {"TELESCOP": "TESS", "CAMERA": 3, "CCD": 4})
    ffi.check_detector(name, {"CAMNUM": 3, "CCDNUM": 4})
    for header, message in (
        ({"CAMERA": 2, "CCD": 4}, "camera 3, the header CAMERA = 2"),
        ({"CAMNUM": 3, "CCDNUM": 1}, "ccd 4, the header CCDNUM = 1"),
        ({"CCD": 4}, "neither CAMERA nor CAMNUM"),
        ({"TELESCOP": "PS1", "CAMERA": 3, "CCD": 4}, "not a TESS image"),
    ):
        with pytest.raises(ValueError, match=message):
            ffi.check_detector(name, header)


@given(st.tuples(*[st.integers(0, 3000)] * 4))
def test_a_region_is_read_back_or_refused(numbers):
    text = ",".join(map(str, numbers))
    x0, y0, x1, y1 = numbers
    if x0 < x1 and y0 < y1:
        region = ffi.parse_region(text)
        assert region == numbers
        assert region.shape == (y1 - y0, x1 - x0)
    else:
        with pytest.raises(ValueError, match="empty"):
            ffi.parse_region(text)


@pytest.mark.parametrize(
    "text", ["", "1,2,3", "1,2,3,4,5", "1,2,3,x", "1.5,2,3,4", "-1,2,3,4", "nan,0,1,1", "0,0,1e9,1"]
)
def test_a_malformed_region_is_refused(text):
    with pytest.raises(ValueError, match="x0,y0,x1,y1"):
        ffi.parse_region(text)


@given(st.text("0123456789,. -", max_size=30))
def test_any_text_is_a_region_or_refused(text):
    try:
        region = ffi.parse_region(text)
    except ValueError as error:
        assert "region" in str(error)
    else:
        assert ffi.parse_region(",".join(map(str, region))) == region


def test_labels_of_regions_differ():
    assert str(ffi.Region(1, 23, 45, 67)) != str(ffi.Region(12, 3, 45, 67))


def test_a_region_must_be_inside_the_frame_and_see_sky():
    ffi.check_region(ffi.Region(0, 0, 45, 10), ffi.FRAME_SHAPE)
    for region, message in (((0, 0, 2137, 10), "not inside"), ((0, 2048, 100, 2078), "no science pixel")):
        with pytest.raises(ValueError, match=message):
            ffi.check_region(ffi.Region(*region), ffi.FRAME_SHAPE)


@pytest.mark.parametrize(("ra", "dec", "turn"), [(216.75, 56.4, 0), (0.01, 10, 130), (40.9, 87.1, 250), (300, -26, 77)])
def test_pixel_to_sky_is_that_of_astropy(ra, dec, turn):
    tansip = tess_wcs(ra, dec, turn)
    x, y = science_points(2000, seed=1)
    expected = astropy_wcs(tansip).all_pix2world(x, y, 0)
    ours = ffi.pixel_to_sky(tansip, x, y)
    assert np.all((ours[0] >= 0) & (ours[0] < 360))
    assert arcseconds(*expected, *ours).max() < 1e-7


@pytest.mark.parametrize(("ra", "dec", "turn"), [(216.75, 56.4, 0), (0.01, 10, 130), (40.9, 87.1, 250)])
def test_sky_to_pixel_is_that_of_astropy_iterated_and_the_way_back(ra, dec, turn):
    tansip = tess_wcs(ra, dec, turn)
    x, y = science_points(500, seed=2)
    sky = astropy_wcs(tansip).all_pix2world(x, y, 0)
    theirs = astropy_wcs(tansip).all_world2pix(*sky, 0, tolerance=1e-8, maxiter=60)
    ours = ffi.sky_to_pixel(tansip, *sky)
    assert_allclose(ours, theirs, atol=2e-8)
    assert_allclose(ours, (x, y), atol=1e-8)


def test_a_real_header_is_read_as_astropy_reads_it():
    header = fits.Header.fromtextfile(real_data.present("tess2018235142941-s0002-1-2-0121-s_ffic.ext1.txt"))
    tansip = ffi.from_header(header)
    made_up = tess_wcs(1.2049088954883924, -26.0576271210793)
    for ours, known in zip(tansip, made_up, strict=True):
        assert_allclose(ours, known, rtol=1e-15)
    x, y = science_points(2000, seed=3)
    # astropy warns of the dates it mends.
    del header["DATE-*"]
    sky = WCS(header).all_pix2world(x, y, 0)
    assert arcseconds(*sky, *ffi.pixel_to_sky(tansip, x, y)).max() < 1e-7
    assert_allclose(ffi.sky_to_pixel(tansip, *sky), (x, y), atol=1e-8)
    assert ffi.science_region(header, ffi.FRAME_SHAPE) == ffi.SCIENCE


def test_a_region_of_directions_is_the_same_as_its_pixels_one_by_one():
    tansip = tess_wcs()
    y, x = np.mgrid[1000:1020, 44:90]
    grid = ffi.region_to_vector(tansip, ffi.Region(44, 1000, 90, 1020))
    assert_allclose(grid.reshape(-1, 3), ffi.pixel_to_vector(tansip, x.ravel(), y.ravel()), rtol=0, atol=3e-16)


def test_positions_keep_the_shape_of_the_input():
    tansip = tess_wcs()
    ra, dec = ffi.pixel_to_sky(tansip, np.arange(4)[:, None], np.arange(3))
    assert ra.shape == dec.shape == (4, 3)
    x, y = ffi.sky_to_pixel(tansip, ra, dec)
    assert x.shape == y.shape == (4, 3)
    assert ffi.sky_to_pixel(tansip, float(ra[0, 0]), float(dec[0, 0]))[0].shape == ()


def test_positions_far_off_the_chip_are_nan_not_a_pixel():
    tansip = tess_wcs(30.0, 20.0)
    ra = np.array([30.0, 210.0, 30.0, 45.0, 30.0, np.nan])
    dec = np.array([-20.0, -20.0, 33.0, 20.0, 90.0, 20.0])
    assert np.isnan(ffi.sky_to_pixel(tansip, ra, dec)).all()


def test_an_unusual_lonpole_turns_the_image_as_in_astropy():
    tansip = tess_wcs()._replace(lonpole=150.0)
    x, y = science_points(100, seed=4)
    sky = astropy_wcs(tansip).all_pix2world(x, y, 0)
    assert arcseconds(*sky, *ffi.pixel_to_sky(tansip, x, y)).max() < 1e-7


def test_keywords_lead_back_to_the_same_coordinates():
    tansip = tess_wcs()
    for original in (tansip, tansip._replace(a=np.zeros((1, 1)), b=np.zeros((1, 1)))):
        for ours, back in zip(ffi.from_header(header_of(original)), original, strict=True):
            assert_allclose(ours, back, rtol=1e-14)


def test_shifted_cropped_and_oversampled_coordinates_show_the_same_sky():
    tansip = tess_wcs()
    x, y = science_points(50, seed=5)
    sky = ffi.pixel_to_sky(tansip, x, y)
    assert_allclose(ffi.sky_to_pixel(ffi.shifted(tansip, 0.3, -0.2), *sky), (x + 0.3, y - 0.2), atol=1e-8)
    assert_allclose(ffi.sky_to_pixel(ffi.cropped(tansip, 600, 500), *sky), (x - 600, y - 500), atol=1e-8)
    # The outer edge of the first pixel stays where it is.
    fine = astropy_wcs(ffi.oversampled(tansip, 3))
    assert_allclose(
        fine.all_world2pix(*sky, 0, tolerance=1e-8, maxiter=60), (3 * (x + 0.5) - 0.5, 3 * (y + 0.5) - 0.5), atol=1e-7
    )


def test_region_around_a_position_holds_it_in_its_middle_pixel_and_is_clipped():
    tansip = tess_wcs()
    sky = [float(c) for c in ffi.pixel_to_sky(tansip, 700.2, 800.9)]
    assert ffi.region_around(tansip, *sky, 5) == (698, 799, 703, 804)
    sky = [float(c) for c in ffi.pixel_to_sky(tansip, 44.2, 2047.1)]
    assert ffi.region_around(tansip, *sky, 11) == (44, 2042, 50, 2048)


def test_region_around_refuses_what_is_not_on_the_chip():
    tansip = tess_wcs(30.0, 20.0)
    off = [float(c) for c in ffi.pixel_to_sky(tansip, 30.0, 100.0)]
    for position, size, message in (
        (off, 10, r"at pixel \(30.0, 100.0\), not on its science pixels"),
        ((210.0, 20.0), 10, "far off this CCD"),
        ((30.0, 95.0), 10, "no sky position"),
        ((float("nan"), 5.0), 10, "no sky position"),
        ((30.0, 20.0), 0, "size 0"),
        ((30.0, 20.0), 2.5, "size 2.5"),
    ):
        with pytest.raises(ValueError, match=message):
            ffi.region_around(tansip, *position, size)


def test_science_pixels_of_full_frames_and_cutouts_are_found():
    full = header_of(tess_wcs())
    physical = {"CRPIX1P": 1, "CRPIX2P": 1, "CRVAL1P": 1, "CRVAL2P": 1}
    full.update(physical)
    assert ffi.science_region(full, ffi.FRAME_SHAPE) == ffi.SCIENCE
    # Told by the physical coordinates ...
    cut = {**physical, "CRVAL1P": 21, "CRVAL2P": 1901, "CRPIX1": 1025.2, "CRPIX2": -899.3}
    assert ffi.science_region(cut, (178, 200)) == (24, 0, 200, 148)
    # ... or, where the full frame's were kept, by CRPIX ...
    cut = {**physical, "CRPIX1": 1045.0 - 600, "CRPIX2": 1001.0 - 500}
    assert ffi.science_region(cut, (300, 400)) == (0, 0, 400, 300)
    cut = {"CRPIX1": 1045.0 - 20, "CRPIX2": 1001.0 - 500}
    assert ffi.science_region(cut, (300, 400)) == (24, 0, 400, 300)
    # ... or by nothing.
    assert ffi.science_region({"CRPIX1": 1024.3, "CRPIX2": 1024.8}, (2048, 2048)) == (0, 0, 2048, 2048)


def test_a_cutout_without_science_pixels_is_refused():
    header = {"CRPIX1P": 1, "CRPIX2P": 1, "CRVAL1P": 2100, "CRVAL2P": 1}
    with pytest.raises(ValueError, match="only collateral pixels"):
        ffi.science_region(header, (100, 30))


def test_a_cutout_with_shifted_crpix_sees_the_same_sky():
    tansip = tess_wcs()
    cut = ffi.from_header(header_of(ffi.cropped(tansip, 1700, 20), shape=(200, 300)))
    assert_allclose(ffi.pixel_to_sky(cut, 10.0, 30.0), ffi.pixel_to_sky(tansip, 1710.0, 50.0), rtol=1e-14)


def test_header_may_have_pc_and_cdelt_in_place_of_cd_and_sip_of_unequal_orders():
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
    ours = ffi.from_header(header)
    assert_allclose(ours.cd, tansip.cd, rtol=1e-15)
    x, y = science_points(20, seed=6)
    assert arcseconds(*WCS(header).all_pix2world(x, y, 0), *ffi.pixel_to_sky(ours, x, y)).max() < 1e-7


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
        ({"A_0_2": 1e152}, "beyond any sense"),
        ({"CRPIX1": -1e200}, "CRPIX1 = -1e.200, beyond any sense"),
        ({"CRVAL2": 91.0}, "WCS of the FFI"),
        ({"RADESYS": "FK4", "EQUINOX": 1950.0}, "RADESYS = 'FK4'"),
        ({"CPDIS1": "LOOKUP"}, "look-up distortion"),
    ],
)
def test_a_bad_wcs_is_refused_with_its_reason(changes, message):
    header = header_of(tess_wcs())
    for keyword, value in changes.items():
        if value is None:
            del header[keyword]
        else:
            header[keyword] = value
    with pytest.raises(ValueError, match=message):
        ffi.from_header(header)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=60)
@given(
    st.sampled_from(sorted(ffi.keywords(tess_wcs()))),
    st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.text("abc01.", max_size=8), st.integers(-9, 9999)),
)
def test_a_damaged_header_gives_coordinates_or_a_sentence(keyword, value):
    header = header_of(tess_wcs())
    header[keyword] = value
    try:
        tansip = ffi.from_header(header)
    except ValueError as error:
        assert "WCS" in str(error)
    else:
        assert np.isfinite(ffi.pixel_to_sky(tansip, 1000.0, 1000.0)).all()


@pytest.mark.slow
def test_real_ccds_of_many_sectors_are_read_as_astropy_reads_them():
    import tesswcs

    x, y = science_points(50, seed=7)
    for sector in (1, 20, 27, 42, 52):
        for camera in (1, 2, 3, 4):
            for ccd in (1, 2, 3, 4):
                theirs = tesswcs.WCS.from_sector(sector, camera, ccd)
                ours = ffi.from_header(theirs.to_header())
                sky = theirs.all_pix2world(x, y, 0)
                assert arcseconds(*sky, *ffi.pixel_to_sky(ours, x, y)).max() < 1e-5
                assert_allclose(ffi.sky_to_pixel(ours, *sky), (x, y), atol=1e-6)
