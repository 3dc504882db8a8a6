from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_ffi import header_of, tess_wcs

from syndiff_tasks.geometry.ffi import FRAME_SHAPE, check_detector, parse_ffi_name, science_region
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


def test_science_pixels_of_whole_ffis_and_cutouts_are_found():
    full = header_of(tess_wcs())
    physical = {"CRPIX1P": 1, "CRPIX2P": 1, "CRVAL1P": 1, "CRVAL2P": 1}
    full.update(physical)
    assert science_region(full, FRAME_SHAPE) == SCIENCE
    # From the physical coordinates ...
    cut = {**physical, "CRVAL1P": 21, "CRVAL2P": 1901, "CRPIX1": 1025.2, "CRPIX2": -899.3}
    assert science_region(cut, (178, 200)) == (24, 0, 200, 148)
    # ... or, where those of the whole FFI were kept, from CRPIX ...
    cut = {**physical, "CRPIX1": 1045.0 - 600, "CRPIX2": 1001.0 - 500}
    assert science_region(cut, (300, 400)) == (0, 0, 400, 300)
    cut = {"CRPIX1": 1045.0 - 20, "CRPIX2": 1001.0 - 500}
    assert science_region(cut, (300, 400)) == (24, 0, 400, 300)
    # ... or from nothing.
    assert science_region({"CRPIX1": 1024.3, "CRPIX2": 1024.8}, (2048, 2048)) == (0, 0, 2048, 2048)


def test_a_cutout_without_science_pixels_is_rejected():
    header = {"CRPIX1P": 1, "CRPIX2P": 1, "CRVAL1P": 2100, "CRVAL2P": 1}
    with pytest.raises(ValueError, match="only collateral pixels"):
        science_region(header, (100, 30))
