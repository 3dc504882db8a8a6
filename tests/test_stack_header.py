import numpy as np
import pytest

from syndiff_tasks.io.stack_header import NoFlux, check_band, check_keywords

# Read off the header of skycell.2180.097, y band (../shared/data).
REAL = {
    "NAXIS1": 6320,
    "NAXIS2": 6284,
    "CRVAL1": 121.764701843296,
    "CRVAL2": 41.9999999999986,
    "CRPIX1": -11440.5,
    "CRPIX2": -22976.0,
    "CDELT1": 6.94444461259988e-05,
    "CDELT2": 6.94444461259988e-05,
    "PC001001": -1.0,
    "PC001002": 0.0,
    "PC002001": 0.0,
    "PC002002": 1.0,
    "EXPTIME": 500.0,
    "BSOFTEN": 413.7191922843,
    "BOFFSET": 17.32926559448,
    "BZERO": 3.632996916771,
    "BSCALE": 1.908685283002e-04,
}
# What the ring table says of it: ring at 42 deg of 68 cells from 2157 on; column 7, row 9.
RING = {
    "NAXIS1": 6320,
    "NAXIS2": 6284,
    "CRVAL1": float(np.float32(2180 - 2157) * np.float32(360 / 68)),
    "CRVAL2": 42.0,
    "CRPIX1": 239.5 + (5 - 7) * (6320 - 480),
    "CRPIX2": 240.0 + (5 - 9) * (6284 - 480),
    "CDELT1": float(np.float32(0.25 / 3600)),
    "CDELT2": float(np.float32(0.25 / 3600)),
    "PC1_1": -1.0,
    "PC1_2": 0.0,
    "PC2_1": 0.0,
    "PC2_2": 1.0,
    "LONPOLE": 180.0,  # which no real stack has
    "EQUINOX": 2000.0,
}


@pytest.mark.parametrize(("kind", "dtype"), [("image", "i2"), ("wt", "f4"), ("mask", "u2")])
def test_a_real_header_agrees_with_the_ring_table(kind, dtype):
    keywords = REAL if kind != "mask" else REAL | {"BSCALE": 1.0, "BZERO": 32768.0}
    check_keywords(keywords, RING, kind, dtype)


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"NAXIS1": 6319, "EXPTIME": 0.0}, "NAXIS1 = 6319"),
        ({"CRVAL1": 121.764703}, "CRVAL1"),
        ({"CRVAL2": 42.0000011}, "CRVAL2"),
        ({"CRVAL2": float("nan")}, "CRVAL2"),
        ({"CRPIX1": -5600.5}, "CRPIX1"),
        ({"CRPIX2": -22976.0011}, "CRPIX2"),
        ({"CDELT1": 1.0}, "CDELT1"),
        ({"PC001001": 1.0}, "PC1_1"),
        ({"CRPIX1": None}, "no CRPIX1"),
    ],
)
def test_a_header_of_something_else_is_refused(changed, complaint):
    keywords = {name: value for name, value in (REAL | changed).items() if value is not None}
    with pytest.raises(ValueError, match=complaint) as refused:
        check_keywords(keywords, RING, "image", "i2")
    assert not isinstance(refused.value, NoFlux)


@pytest.mark.parametrize("kind", ["image", "wt"])
@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"EXPTIME": None}, "EXPTIME = None"),
        ({"EXPTIME": 0.0}, "EXPTIME = 0.0"),
        ({"EXPTIME": -640.0}, "EXPTIME = -640.0"),
        ({"EXPTIME": "NaN"}, "EXPTIME = NaN"),
        ({"BSOFTEN": -1.0}, "BSOFTEN = -1.0"),
        ({"BOFFSET": float("inf")}, "BOFFSET = inf"),
        ({"BOFFSET": float("nan")}, "BOFFSET = nan"),
        ({"FPA.ZP": float("nan")}, "FPA.ZP = nan"),
    ],
)
def test_a_header_without_flux_is_distinguished_from_that_of_another_file(kind, changed, complaint):
    keywords = {name: value for name, value in (REAL | changed).items() if value is not None}
    with pytest.raises(NoFlux, match=complaint):
        check_keywords(keywords, RING, kind, "i2")


def test_right_ascension_has_no_seam():
    check_keywords(REAL | {"CRVAL1": 359.9999999999}, RING | {"CRVAL1": 0.0}, "image", "i2")


def test_half_a_compression_is_refused_and_none_is_legal():
    linear = {name: value for name, value in REAL.items() if name not in ("BSOFTEN", "BOFFSET")}
    check_keywords(linear, RING, "wt", "f4")
    with pytest.raises(ValueError, match="BSOFTEN alone"):
        check_keywords(linear | {"BSOFTEN": 413.7}, RING, "image", "i2")


@pytest.mark.parametrize("nothing", [float("nan"), "NaN"])
def test_an_image_without_a_good_pixel_is_legal(nothing):
    check_keywords(REAL | {"BSOFTEN": nothing, "BOFFSET": nothing}, RING, "image", "i2")


@pytest.mark.parametrize("dtype", ["u1", "i1", "f4"])
def test_a_mask_that_cannot_hold_sixteen_bits_is_refused(dtype):
    with pytest.raises(ValueError, match="16 bits"):
        check_keywords(REAL | {"BSCALE": 1.0}, RING, "mask", dtype)


def test_a_mask_that_was_scaled_is_refused():
    with pytest.raises(ValueError, match="BSCALE"):
        check_keywords(REAL, RING, "mask", "i2")


def test_a_mask_need_not_have_a_position_but_may_not_have_a_wrong_one():
    bare = {"NAXIS1": 6320, "NAXIS2": 6284}
    check_keywords(bare, RING, "mask", "u2")
    with pytest.raises(ValueError, match="CRVAL2"):
        check_keywords(bare | {"CRVAL2": 38.0}, RING, "mask", "u2")


def test_a_file_of_another_band_is_refused():
    check_band({"FPA.FILTER": "y.00000 "}, "y")
    check_band({}, "y")
    with pytest.raises(ValueError, match="FPA.FILTER = y.00000, the name of the file says r"):
        check_band({"FPA.FILTER": "y.00000"}, "r")
