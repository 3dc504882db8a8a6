from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_ffi import header_of, tess_wcs

from syndiff_tasks.geometry.ffi import FRAME_SHAPE, check_detector, frame_origin, parse_ffi_name, science_region
from syndiff_tasks.geometry.region import SCIENCE


@pytest.mark.parametrize("extension", [".fits", ".fits.gz", ".fits.fz"])
def test_spoc_and_tica_names_are_parsed(extension):
    spoc = parse_ffi_name(f"/some where/tess2020019135923-s0020-3-3-0165-s_ffic{extension}")
    assert spoc == ("tess2020019135923-s0020-3-3-0165-s_ffic", 20, 3, 3, "2020019135923", "spoc")
    tica = parse_ffi_name(Path(f"hlsp_tica_tess_ffi_s0027-o1-00116635-cam1-ccd2_tess_v01_img{extension}"))
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
def test_error_for_another_name_shows_an_example(name):
    with pytest.raises(ValueError, match="is not the name of a calibrated FFI.*s0020-3-3-0165"):
        parse_ffi_name(name)


@given(st.text(max_size=60))
def test_random_text_is_rejected_as_an_ffi_name(text):
    with pytest.raises(ValueError, match="not the name"):
        parse_ffi_name(text)


def test_a_header_with_another_camera_or_ccd_than_the_name_is_rejected():
    name = parse_ffi_name("tess2020019135923-s0020-3-4-0165-s_ffic.fits")
    check_detector(name, {"TELESCOP": "TESS", "CAMERA": 3, "CCD": 4})
    check_detector(name, {"CAMNUM": 3, "CCDNUM": 4})
    for header, message in (
        ({"CAMERA": 2, "CCD": 4}, "camera 3, the header CAMERA = 2"),
        ({"CAMNUM": 3, "CCDNUM": 1}, "ccd 4, the header CCDNUM = 1"),
        ({"CCD": 4}, "neither CAMERA nor CAMNUM"),
        ({"TELESCOP": "PS1", "CAMERA": 3, "CCD": 4}, "not a TESS image"),
    ):
        with pytest.raises(ValueError, match=message):
            check_detector(name, header)


SPOC = parse_ffi_name("tess2020019135923-s0020-3-3-0165-s_ffic.fits")
MOVED = SPOC._replace(sector=95)
TICA = parse_ffi_name("hlsp_tica_tess_ffi_s0027-o1-00116635-cam3-ccd3_tess_v01_img.fits")
PHYSICAL = {"CRPIX1P": 1, "CRPIX2P": 1, "CRVAL1P": 1, "CRVAL2P": 1}


def science_of(header, shape, name=None):
    return science_region(frame_origin(header, shape, name), shape)


def crpix(x, y):
    return {"CRPIX1": x, "CRPIX2": y}


def test_a_whole_ffi_has_the_science_pixels_of_the_handbook():
    full = header_of(tess_wcs())
    full.update(PHYSICAL)
    assert science_of(full, FRAME_SHAPE) == SCIENCE


def test_a_cutout_is_placed_by_its_physical_coordinates_if_they_are_shifted():
    cut = PHYSICAL | {"CRVAL1P": 21, "CRVAL2P": 1901} | crpix(1025.2, -899.3)
    assert science_of(cut, (178, 200)) == (24, 0, 200, 148)


@pytest.mark.parametrize("physical", [PHYSICAL, {}])
@pytest.mark.parametrize(
    ("name", "reference"), [(SPOC, (1045.0, 1001.0)), (MOVED, (1069.0, 1025.0)), (TICA, (1069.0, 1024.0))]
)
def test_a_cutout_is_placed_by_crpix_of_its_producer_and_sector(name, reference, physical):
    for x, y, columns in ((20, 500, (24, 400)), (1752, 500, (0, 340)), (600, 500, (0, 400))):
        cut = physical | crpix(reference[0] - x, reference[1] - y)
        assert frame_origin(cut, (300, 384 if x == 1752 else 400), name) == (x, y)
        assert science_of(cut, (300, 384 if x == 1752 else 400), name) == (columns[0], 0, columns[1], 300)


def test_a_tica_header_is_recognized_without_a_name():
    assert frame_origin({"CAMNUM": 3} | crpix(1069.0 - 20, 1024.0 - 500), (300, 400)) == (20, 500)


def test_no_place_is_claimed_where_the_header_determines_none():
    # The reference pixel of another fit, ...
    assert frame_origin(crpix(1024.3, 1024.8), (2048, 2048), SPOC) is None
    # ... also beside physical coordinates that a cut-out keeps, ...
    assert frame_origin(PHYSICAL | crpix(445.2, 500.7), (300, 400), SPOC) is None
    # ... and the sector in which SPOC moved it: two places are possible, except at the edge of the FFI.
    during = SPOC._replace(sector=91)
    assert frame_origin(crpix(445.0, 500.0), (300, 400), during) is None
    assert frame_origin(crpix(1069.0, 1025.0), (300, 400), during) == (0, 0)
    assert science_region(None, (300, 400)) == (0, 0, 400, 300)


def test_a_cutout_without_science_pixels_is_rejected():
    header = {"CRPIX1P": 1, "CRPIX2P": 1, "CRVAL1P": 2100, "CRVAL2P": 1}
    with pytest.raises(ValueError, match="only collateral pixels"):
        science_of(header, (100, 30))
