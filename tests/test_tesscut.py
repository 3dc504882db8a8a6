"""Cut-outs of FFIs as TESScut and astrocut make them, real and made up."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import real_data
from astropy.io import fits
from made_up_tesscut import write_tesscut
from numpy.testing import assert_array_equal

from syndiff_tasks.geometry.ffi import frame_origin, parse_ffi_name, science_region
from syndiff_tasks.geometry.tansip import pixel_to_sky, tansip_from_header
from syndiff_tasks.io import fits_in

REAL = "real/tess-s0019-1-3_65.489205_28.443210_10x10_astrocut.fits"


def test_the_real_file_gives_detector_place_times_and_pixels():
    path = real_data.present(REAL)
    assert parse_ffi_name(path)[1:] == (19, 1, 3, "", "tesscut")
    cut = fits_in.read_tesscut(path)
    with fits.open(path) as hdus:
        assert_array_equal(cut.flux, hdus["PIXELS"].data["FLUX"])
        assert_array_equal(cut.quality, hdus["PIXELS"].data["QUALITY"])
    assert cut.flux.shape == cut.flux_err.shape == (1155, 10, 10)
    assert [cut.header[f"CRVAL{axis}P"] - cut.header[f"CRPIX{axis}P"] for axis in (1, 2)] == [376, 157]
    assert cut.header["CAMERA"] == 1
    assert np.nanmin(cut.time) == pytest.approx(1816.09967)
    ra, dec = pixel_to_sky(tansip_from_header(cut.header), 4.5, 4.5)
    assert (float(ra), float(dec)) == pytest.approx((cut.header["RA_OBJ"], cut.header["DEC_OBJ"]), abs=0.006)
    assert cut.ffi[0].startswith("tess2019332135924-s0019-1-3")


@pytest.mark.parametrize("column", [4, 5, 8])
def test_the_place_is_found_in_the_physical_wcs_of_any_image_column(tmp_path, column):
    path, _ = write_tesscut(tmp_path, column=column)
    assert frame_origin(fits_in.read_ffi_header(path), (10, 12)) == (1700, 750)


@pytest.mark.parametrize(
    ("origin", "science"),
    [((38, 2043), (6, 0, 12, 5)), ((2085, -4), (0, 4, 7, 10)), ((1700, 2074), None), ((-6, 700), None)],
)
def test_only_science_pixels_count_at_the_edge_of_the_chip_and_beyond(tmp_path, origin, science):
    # TESScut fills what lies beyond the FFI with NaN.
    path, _ = write_tesscut(tmp_path, origin=origin)
    place = frame_origin(fits_in.read_ffi_header(path), (10, 12), parse_ffi_name(path))
    assert place == origin
    if science:
        assert science_region(place, (10, 12)) == science
    else:
        with pytest.raises(ValueError, match="has only collateral pixels"):
            science_region(place, (10, 12))


def test_a_file_without_its_place_has_no_physical_coordinates(tmp_path):
    path, _ = write_tesscut(tmp_path, origin=None)
    header = fits_in.read_ffi_header(path)
    assert "CRVAL1P" not in header
    header["CRPIX1"], header["CRPIX2"] = 6.0, 5.0  # as whole as the shift of a cut-out of an FFI
    assert frame_origin(header, (10, 12), parse_ffi_name(path)) is None


def test_the_image_is_the_good_cadence_nearest_to_the_middle(tmp_path):
    path, flux = write_tesscut(tmp_path)
    ffi = fits_in.read_ffi(path)
    assert_array_equal(ffi.image, flux[2])  # the middle one, 3, has QUALITY 4
    assert_array_equal(ffi.uncertainty, 3)
    assert ffi.header.tostring() == fits_in.read_ffi_header(path).tostring()


def test_the_name_of_an_image_cutout_gives_the_ffis_detector_and_its_own_stem():
    name = parse_ffi_name("tess2020019135923-s0020-3-4-0165-s_ffic_230.6474112_-79.1251768_48-x-40_astrocut.fits")
    assert name[1:] == (20, 3, 4, "2020019135923", "spoc")
    assert name.stem.endswith("48-x-40_astrocut")
    tica = "hlsp_tica_tess_ffi_s0027-o1-00116635-cam1-ccd2_tess_v01_img_10_-7.5_48-x-40_astrocut.fits"
    assert parse_ffi_name(tica)[1:] == (27, 1, 2, "o1-00116635", "tica")


def test_a_file_that_lost_its_aperture_or_a_column_is_an_error_that_names_it(tmp_path):
    path, _ = write_tesscut(tmp_path)
    with fits.open(path) as hdus:
        fits.HDUList([hdus[0].copy(), hdus[1].copy()]).writeto(tmp_path / "two.fits")
        table = fits.BinTableHDU.from_columns([c for c in hdus[1].columns if c.name != "QUALITY"], name="PIXELS")
        fits.HDUList([hdus[0].copy(), table, hdus[2].copy()]).writeto(tmp_path / "column.fits")
    for read in (fits_in.read_ffi_header, fits_in.read_ffi, fits_in.read_tesscut):
        with pytest.raises(ValueError, match=r"two\.fits: PIXELS is not followed by APERTURE.*fetch it again"):
            read(tmp_path / "two.fits")
    with pytest.raises(ValueError, match=r"column\.fits: PIXELS has no column QUALITY"):
        fits_in.read_tesscut(tmp_path / "column.fits")


def test_a_file_without_a_good_cadence_is_an_error_that_names_it(tmp_path):
    path, _ = write_tesscut(tmp_path, shape=(1, 10, 12))
    with pytest.raises(ValueError, match="none of its 1 cadences has QUALITY 0"):
        fits_in.read_ffi(path)


def test_edited_pixels_are_refused_with_the_cure_and_accepted_after_it(tmp_path):
    path, flux = write_tesscut(tmp_path)
    content = bytearray(path.read_bytes())
    at = content.find(flux[2].astype(">f4").tobytes()[:40])
    content[at + 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="DATASUM of HDU 1.*If you edited it yourself.*fitscheck --write --force"):
        fits_in.read_ffi(path)
    program = Path(sys.executable).with_name("fitscheck")
    subprocess.run([program, "--write", "--force", path], capture_output=True, check=False)
    assert fits_in.read_ffi(path).image[0, 0] != flux[2, 0, 0]
