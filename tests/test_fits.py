import gzip
import os
import re
import warnings

import numpy as np
import pandas as pd
import pytest
import real_data
from astropy.io import fits
from astropy.table import Table
from astropy.utils.exceptions import AstropyUserWarning
from astropy.wcs import WCS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from syndiff_tasks.io import fits_in, products

RNG = np.random.default_rng(20260102)
NOISE = np.clip(RNG.normal(-20000, 3000, (21, 130)), -32767, 32766).astype(np.int16)
NOISE[:3] = NOISE[8, 100:] = 32767
BITS = RNG.integers(0, 65536, (21, 130)).astype(np.uint16) * (RNG.random((21, 130)) < 0.1).astype(np.uint16)
SCALED = {"BZERO": 3.632996916771, "BSCALE": 1.908685283002e-04, "BLANK": 32767}
CARDS = {
    "BSOFTEN": 413.7191922843,
    "BOFFSET": 17.32926559448,
    "EXPTIME": 500.0,
    "MJD-OBS": 55916.822668887,
    "HIERARCH FPA.ZP": 25.0,
    "HIERARCH FPA.FILTER": "y.00000",
    "SKYCELL": "skycell.2180.097",
    "CTYPE1": "RA---TAN",
    "CTYPE2": "DEC--TAN",
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
}
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read_stack(path, read=fits_in.read_stack):
    """A stack file with all its pixels."""
    stack = read(path)
    return stack.stored[:], stack.keywords


def read_mask(path):
    return read_stack(path, fits_in.read_mask)


def add_cards(path, number, cards):
    """Put cards (BZERO among them) into a header as it is on disk, and stamp it."""
    with fits.open(path, mode="update", disable_image_compression=True, do_not_scale_image_data=True) as hdus:
        hdus[number].header.update(cards)
        hdus[number].add_checksum()


def write_compressed(path, stored, cards, tile=None, **kind):
    """A tile-compressed file whose stored integers and scaling are those given."""
    hdu = fits.CompImageHDU(stored, tile_shape=tile or (1, stored.shape[1]), **({"compression_type": "RICE_1"} | kind))
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
    add_cards(path, 1, cards)
    return path


def unstamp(path):
    """Take DATASUM and CHECKSUM out of a file; astropy puts them back into one that it updates."""
    with fits.open(path, disable_image_compression=True) as hdus:
        for hdu in hdus:
            for card in ("CHECKSUM", "DATASUM"):
                hdu.header.remove(card, ignore_missing=True)
        hdus.writeto(path.with_name("unstamped"), overwrite=True)
    os.replace(path.with_name("unstamped"), path)


def write_plain(path, stored, cards):
    """A funpacked file: the same image in HDU 0."""
    fits.PrimaryHDU(stored).writeto(path)
    add_cards(path, 0, cards)
    return path


@pytest.fixture
def stack(tmp_path):
    return write_compressed(tmp_path / "r.fits", NOISE, SCALED | CARDS)


def test_a_stack_in_the_archives_form_gives_stored_integers_and_cards(stack):
    stored, keywords = read_stack(stack)
    assert stored.dtype == np.int16 and stored.dtype.isnative
    assert_array_equal(stored, NOISE)
    expected = SCALED | CARDS | {"NAXIS1": 130, "NAXIS2": 21}
    for i in (1, 2):
        for j in (1, 2):
            expected[f"PC{i}_{j}"] = expected.pop(f"PC00{i}00{j}")
    assert keywords == {key.removeprefix("HIERARCH "): value for key, value in expected.items()}


def test_a_strip_of_rows_is_that_of_the_whole_image(stack, tmp_path):
    mask = write_compressed(tmp_path / "m.fits", (BITS ^ 0x8000).view(np.int16), {"BZERO": 32768, "BSCALE": 1})
    plain = write_plain(tmp_path / "p.fits", NOISE, SCALED | CARDS)
    for whole, rows in (
        (NOISE, fits_in.read_stack(stack).stored),
        (NOISE, fits_in.read_stack(plain).stored),
        (BITS, fits_in.read_mask(mask).stored),
    ):
        assert (rows.shape, rows.dtype) == (whole.shape, whole.dtype)
        for first, last in ((0, 21), (0, 1), (5, 12), (20, 40)):
            assert_array_equal(rows[first:last], whole[first:last])


def test_a_row_that_does_not_decode_is_named_by_the_strip_that_holds_it(stack):
    with fits.open(stack, disable_image_compression=True) as hdus:
        row = hdus[1].data["COMPRESSED_DATA"][13].tobytes()
    unstamp(stack)
    stack.write_bytes(stack.read_bytes().replace(row, row[:4] + bytes(len(row) - 4)))
    rows = fits_in.read_stack(stack).stored
    assert_array_equal(rows[:13], NOISE[:13])
    with pytest.raises(ValueError, match=r"r.fits: does not decompress \(counted from row 10, row 3 does not decode"):
        rows[10:]


def test_stored_integers_with_their_scaling_are_what_astropy_makes_of_the_file(stack):
    stored, keywords = read_stack(stack)
    scaled = np.where(stored == keywords["BLANK"], np.nan, keywords["BZERO"] + keywords["BSCALE"] * stored)
    assert_allclose(scaled, fits.getdata(stack, 1), rtol=0, atol=1e-6)  # astropy's are float32


def test_the_real_cutout_decodes_as_by_astropy():
    path = real_data.present("realform_demo.stk.r.unconv.fits")
    stored, keywords = read_stack(path)
    with fits.open(path, do_not_scale_image_data=True) as hdus:
        assert_array_equal(stored, hdus[1].data)
    assert keywords["FPA.FILTER"] == "r.00000" and keywords["PC1_1"] == -1 and keywords["BLANK"] == 32767


@pytest.mark.parametrize(
    "kind",
    [
        {"tile": (7, 130)},
        {"tile": (1, 50)},
        {"compression_type": "GZIP_1"},
        {"compression_type": "GZIP_2"},
        {"compression_type": "HCOMPRESS_1", "tile": (21, 130)},
        {"compression_type": "PLIO_1"},
        {"compression_type": "NOCOMPRESS"},
    ],
)
def test_any_other_compression_gives_the_same(tmp_path, kind):
    stored = NOISE if kind.get("compression_type") != "PLIO_1" else np.abs(NOISE // 2)
    path = write_compressed(tmp_path / "r.fits", stored, SCALED | CARDS, **kind)
    read, keywords = read_stack(path)
    assert_array_equal(read, stored)
    assert keywords["BSCALE"] == SCALED["BSCALE"]


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32])
def test_other_types_of_pixels_come_as_stored(tmp_path, dtype):
    image = (NOISE // 200 + 164).astype(dtype)
    kind = {"compression_type": "GZIP_2", "quantize_level": 0} if dtype == np.float32 else {}
    path = write_compressed(tmp_path / "c.fits", image, {}, **kind)
    for file in (path, write_plain(tmp_path / "p.fits", image, {})):
        stored, keywords = read_stack(file)
        assert stored.dtype == dtype
        assert_array_equal(stored, image)
        assert (keywords["BZERO"], keywords["BSCALE"], "BLANK" in keywords) == (0, 1, False)


def test_a_funpacked_or_zipped_file_gives_the_same(stack, tmp_path):
    plain = write_plain(tmp_path / "plain.fits", NOISE, SCALED | CARDS)
    zipped = tmp_path / "plain.fits.gz"
    zipped.write_bytes(gzip.compress(plain.read_bytes()))
    whole = read_stack(stack)
    for path in (plain, zipped):
        stored, keywords = read_stack(path)
        assert_array_equal(stored, whole[0])
        assert keywords == whole[1]


@pytest.mark.parametrize("write", [write_compressed, write_plain])
def test_mask_bits_are_the_same_however_the_file_keeps_them(tmp_path, write):
    unsigned = {"BZERO": 32768, "BSCALE": 1}
    with_bzero = write(tmp_path / "a.fits", (BITS ^ 0x8000).view(np.int16), unsigned)
    without = write(tmp_path / "b.fits", BITS.view(np.int16), {})
    for path in (with_bzero, without):
        mask, keywords = read_mask(path)
        assert mask.dtype == np.uint16 and (keywords["BZERO"], keywords["BSCALE"]) == (0, 1)
        assert_array_equal(mask, BITS)
    assert_array_equal(fits.getdata(with_bzero, 0 if write is write_plain else 1), BITS)


def test_a_mask_of_eight_bits_is_refused_since_it_lost_the_upper_ones(tmp_path):
    with pytest.raises(ValueError, match="c.fits holds uint8 .*were its upper bits kept"):
        read_mask(write_plain(tmp_path / "c.fits", BITS.astype(np.uint8), {}))


def test_a_mask_packed_by_plio_is_refused(tmp_path):
    unsigned = {"BZERO": 32768, "BSCALE": 1}
    low = (BITS & 0x0FFF) | 0x8000
    path = write_compressed(tmp_path / "m.fits", (low ^ 0x8000).view(np.int16), unsigned, compression_type="PLIO_1")
    with pytest.raises(ValueError, match="m.fits: .*PLIO_1.*unpack it with funpack"):
        read_mask(path)


def test_a_stack_file_with_two_images_is_refused(tmp_path):
    path = tmp_path / "two.fits"
    images = [fits.ImageHDU(NOISE, name=name) for name in ("SCI", "OTHER")]
    fits.HDUList([fits.PrimaryHDU(), *images]).writeto(path)
    with pytest.raises(ValueError, match="two.fits has 2 images .*fetch it again"):
        read_stack(path)


@pytest.mark.parametrize(
    ("content", "name"),
    [(b"", "empty"), (b"\n<!DOCTYPE html><p>no", "HTML"), (b'<?xml version="1.0"?><Error/>', "XML")],
)
def test_what_came_instead_of_an_ffi_is_named(tmp_path, content, name):
    path = tmp_path / "tess_ffic.fits"
    path.write_bytes(content)
    for read in (fits_in.read_ffi, fits_in.read_ffi_header):
        with pytest.raises(ValueError, match=f"tess_ffic.fits: .*{name}.* instead of a FITS file; fetch it again"):
            read(path)


def test_a_mask_that_is_scaled_or_of_floats_is_refused(stack, tmp_path):
    with pytest.raises(ValueError, match="r.fits holds int16 with BZERO 3.6.* is it a mask file"):
        read_mask(stack)
    with pytest.raises(ValueError, match="holds float32"):
        read_mask(write_plain(tmp_path / "f.fits", NOISE.astype(np.float32), {}))


def test_bsoften_of_an_image_without_good_pixels_is_nan(tmp_path):
    path = write_compressed(tmp_path / "r.fits", NOISE, SCALED | CARDS | {"BSOFTEN": "NaN     "})
    assert np.isnan(read_stack(path)[1]["BSOFTEN"])


@pytest.mark.parametrize("card", [{"BSCALE": 0.0}, {"BZERO": "NaN"}, {"EXPTIME": "long"}, {"BLANK": 1.5}])
def test_a_card_that_says_nothing_usable_is_an_error_that_names_it(tmp_path, card):
    path = write_compressed(tmp_path / "r.fits", NOISE, SCALED | CARDS | card)
    with pytest.raises(ValueError, match=f"r.fits: .*{next(iter(card))}"):
        read_stack(path)


@QUICK
@given(st.floats(0, 1, exclude_max=True))
def test_a_file_cut_anywhere_is_an_error_that_names_it(stack, fraction):
    whole = stack.read_bytes()
    cut = stack.with_name("cut.fits")
    cut.write_bytes(whole[: int(fraction * len(whole))])
    with pytest.raises(ValueError, match="cut.fits.*fetch it again"):
        read_stack(cut)


@QUICK
@given(st.data())
def test_a_flipped_bit_anywhere_but_in_the_name_of_the_checksum_is_an_error(stack, data):
    damaged = bytearray(stack.read_bytes())
    name = damaged.index(b"CHECKSUM")
    at = data.draw(st.integers(2880, len(damaged) - 1).filter(lambda at: not name <= at < name + 10))
    damaged[at] ^= 1 << data.draw(st.integers(0, 7))
    path = stack.with_name("damaged.fits")
    path.write_bytes(damaged)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyUserWarning)  # of the damaged card, beside our error
        with pytest.raises(ValueError, match="damaged.fits: .*fetch it again"):
            read_stack(path)


@settings(QUICK, max_examples=100)
@given(st.data())
def test_damage_without_a_checksum_is_an_error_with_the_files_name_or_an_image(tmp_path, data):
    path = tmp_path / "fuzz.fits"
    if path.exists():
        path.unlink()
    kind = data.draw(st.sampled_from([{}, {"tile": (7, 130)}, {"compression_type": "GZIP_1"}]))
    write_compressed(path, NOISE, SCALED, **kind)
    unstamp(path)
    damaged = bytearray(path.read_bytes())
    # Only cards that astropy's own decoder of other forms does not trust blindly; ours gets every byte.
    begin = 2880 if not kind else 2 * 2880
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(begin, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(damaged)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyUserWarning)  # of the damaged card, beside our error
        try:
            stored, _ = read_stack(path)
        except ValueError as error:
            assert "fuzz.fits" in str(error)
        else:
            assert stored.ndim == 2


@pytest.mark.parametrize("content", [b"", b"<html>404</html>" * 300, b"SIMPLE  =", bytes(2880), b"\x1f\x8b\x08junk"])
def test_what_is_no_fits_file_is_an_error(tmp_path, content):
    path = tmp_path / "x.fits"
    path.write_bytes(content)
    for read in (read_stack, fits_in.read_ffi, fits_in.read_ffi_header):
        with pytest.raises(ValueError, match="x.fits: .*fetch it again"):
            read(path)


def test_what_follows_the_last_hdu_must_be_zeros(stack):
    whole = stack.read_bytes()
    stack.write_bytes(whole + bytes(1000))
    assert_array_equal(read_stack(stack)[0], NOISE)
    stack.write_bytes(whole + b"tail" * 1000)
    with pytest.raises(ValueError, match="r.fits: it is not a whole FITS file .*HDU #2.*fetch it again"):
        read_stack(stack)


def test_a_file_without_an_image_says_what_it_holds(tmp_path):
    path = tmp_path / "table.fits"
    Table({"a": [1, 2]}).write(path)
    with pytest.raises(
        ValueError, match="table.fits has no two-dimensional image .*HDU 1 BINTABLE.*not a PS1 stack file"
    ):
        read_stack(path)
    with pytest.raises(ValueError, match="table.fits has no two-dimensional image .*is it a TESS FFI"):
        fits_in.read_ffi(path)
    with pytest.raises(ValueError, match="table.fits has no two-dimensional image .*is it a TESS FFI"):
        fits_in.read_ffi_header(path)


# --- FFIs -------------------------------------------------------------------------------------------------------------

SKY = RNG.normal(120, 3, (40, 60)).astype(np.float32)
TESS_WCS = {
    "CTYPE1": "RA---TAN-SIP",
    "CTYPE2": "DEC--TAN-SIP",
    "CRVAL1": 1.2049088954883924,
    "CRVAL2": -26.05762712107930,
    "CRPIX1": 1045.0,
    "CRPIX2": 1001.0,
    "CD1_1": 0.004994597158881548,
    "CD1_2": -0.002654102364745,
    "CD2_1": 0.002780210987902541,
    "CD2_2": 0.005056177352553207,
    "A_ORDER": 2,
    "B_ORDER": 2,
    "A_2_0": -1.922597574056e-05,
    "A_1_1": 1.71293937943375e-5,
    "B_0_2": 2.1e-05,
}


def spoc(path, image=SKY, compress=False, **cards):
    kind = {"compression_type": "GZIP_2", "quantize_level": 0}
    make = (lambda data: fits.CompImageHDU(data, **kind)) if compress else fits.ImageHDU
    first, second = make(image), make(np.sqrt(np.abs(image)))
    first.header.update({"CAMERA": 3, "CCD": 4, "BUNIT": "electrons/s", "IMAGTYPE": "cal"} | TESS_WCS | cards)
    second.header.update({"CAMERA": 3, "CCD": 4, "IMAGTYPE": "uncert"})
    primary = fits.PrimaryHDU()
    primary.header.update({"TELESCOP": "TESS", "NEXTEND": 2})
    fits.HDUList([primary, first, second]).writeto(path, checksum=True)
    return path


def tica(path):
    image = fits.PrimaryHDU(SKY)
    image.header.update({"CAMNUM": 1, "CCDNUM": 2, "STARTTJD": 2036.28, "UNITS": "electrons"} | TESS_WCS)
    table = fits.table_to_hdu(Table({"Q1": [0.1, 0.2]}))
    fits.HDUList([image, table]).writeto(path, checksum=True)
    return path


def zipped(path):
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
    return path.with_name(path.name + ".gz")


def every_form(folder):
    for name in ("spoc", "packed", "tica"):
        (folder / name).mkdir(parents=True)
    one, two = spoc(folder / "spoc/ffi.fits"), tica(folder / "tica/ffi.fits")
    return [one, zipped(one), spoc(folder / "packed/ffi.fits.fz", compress=True), two, zipped(two)]


def test_every_form_of_an_ffi_gives_its_image_header_and_uncertainty(tmp_path):
    for path in every_form(tmp_path):
        image, header, uncertainty = fits_in.read_ffi(path)
        assert image.dtype == np.float32 and image.dtype.isnative
        assert_array_equal(image, SKY)
        assert {key: header[key] for key in TESS_WCS} == TESS_WCS
        assert (header["NAXIS1"], header["NAXIS2"]) == (60, 40)
        if "tica" in str(path):
            assert uncertainty is None and fits_in.camera_and_ccd(header) == (1, 2)
            assert header["BUNIT"] == "electrons"
        else:
            assert_array_equal(uncertainty, np.sqrt(np.abs(SKY)))
            assert fits_in.camera_and_ccd(header) == (3, 4) and header["TELESCOP"] == "TESS"


def test_the_header_alone_is_that_of_the_whole_reading(tmp_path):
    for path in every_form(tmp_path):
        assert fits_in.read_ffi_header(path).tostring() == fits_in.read_ffi(path).header.tostring()


def test_the_header_is_found_without_reading_the_pixels(tmp_path):
    path = spoc(tmp_path / "ffi.fits")
    content = bytearray(path.read_bytes())
    with fits.open(path) as hdus:
        begin = hdus[1].fileinfo()["datLoc"]
    content[begin : begin + 100] = b"\xff" * 100
    path.write_bytes(content)
    assert fits_in.read_ffi_header(path)["CAMERA"] == 3
    with pytest.raises(ValueError, match="DATASUM of HDU 1"):
        fits_in.read_ffi(path)


@QUICK
@given(st.integers(0, 4), st.floats(0, 1, exclude_max=True))
def test_an_ffi_cut_anywhere_is_an_error_that_names_it(tmp_path, form, fraction):
    if not (tmp_path / "all").exists():
        every_form(tmp_path / "all")
    path = sorted((tmp_path / "all").glob("*/ffi*"))[form]
    whole = path.read_bytes()
    if path.parent.name == "tica":
        fraction *= 0.8  # within the image: the table after it is not ours to miss
    # A gzip file may lose some of its last eight bytes (the checksum) and still hold every pixel: they count as well.
    cut = tmp_path / f"cut{path.suffix}"
    cut.write_bytes(whole[: int(fraction * len(whole))])
    with pytest.raises(ValueError, match="cut.*(fetch it again|is it a TESS FFI)"):
        fits_in.read_ffi(cut)


def test_a_checksum_without_a_datasum_as_spoc_writes_it_is_verified(tmp_path):
    path = tmp_path / "ffi.fits"
    image = fits.ImageHDU(SKY, fits.Header(TESS_WCS | {"CAMERA": 1, "CCD": 2}))
    image.add_datasum()
    total = int(image.header.pop("DATASUM"))
    image.header["CHECKSUM"] = "0" * 16
    words = np.frombuffer(image.header.tostring().encode(), ">u4")
    total += int(words.sum(dtype=np.uint64))
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    image.header["CHECKSUM"] = image._char_encode(np.uint32(0xFFFFFFFF - total))
    fits.HDUList([fits.PrimaryHDU(), image]).writeto(path)
    assert "DATASUM" not in fits.getheader(path, 1)
    assert_array_equal(fits_in.read_ffi(path).image, SKY)
    damaged = bytearray(path.read_bytes())
    damaged[-5761] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match="CHECKSUM of HDU 1 does not hold.*fetch it again"):
        fits_in.read_ffi(path)


def test_an_ffi_that_lost_a_whole_extension_is_told_by_its_primary_header(tmp_path):
    path = spoc(tmp_path / "ffi.fits")
    with fits.open(path) as hdus:
        end = hdus[2].fileinfo()["hdrLoc"]
    os.truncate(path, end)
    with pytest.raises(ValueError, match="NEXTEND promises 2 extensions, but the file has 1"):
        fits_in.read_ffi(path)


def test_a_truncated_ffi_is_told_by_its_header_alone(tmp_path):
    path = spoc(tmp_path / "ffi.fits")
    os.truncate(path, 12000)
    with pytest.raises(ValueError, match="ffi.fits: HDU 1 ends at byte"):
        fits_in.read_ffi_header(path)


@pytest.mark.parametrize("read", [fits_in.read_ffi, fits_in.read_ffi_header])
def test_another_file_than_an_ffi_is_refused(stack, tmp_path, read):
    with pytest.raises(ValueError, match="r.fits has neither CAMERA and CCD"):
        read(stack)
    with pytest.raises(ValueError, match="ffi.fits holds integers .BITPIX 32.: give the calibrated FFI"):
        read(spoc(tmp_path / "ffi.fits", image=SKY.astype(np.int32)))
    with pytest.raises(ValueError, match="odd.fits: CAMERA = 5"):
        read(spoc(tmp_path / "odd.fits", CAMERA=5))


# --- writing ----------------------------------------------------------------------------------------------------------

PS1_WCS = {
    "CTYPE1": "RA---TAN",
    "CTYPE2": "DEC--TAN",
    "CRVAL1": 121.764701843296,
    "CRVAL2": 42.0,
    "CRPIX1": -11440.5,
    "CRPIX2": -22976.0,
    "CDELT1": 6.94444461259988e-05,
    "CDELT2": 6.94444461259988e-05,
    "PC1_1": -1.0,
    "PC2_2": 1.0,
    "RADESYS": "FK5",
    "EQUINOX": 2000.0,
    "LONPOLE": 180.0,
}
SKYCELLS = pd.DataFrame({"NAME": ["skycell.0635.000", "skycell.2180.097"], "EXPTIME": [640.0, 500.0], "PIXELS": [3, 5]})


def planes(shape=(30, 40)):
    made = {name: RNG.normal(size=shape).astype(dtype) for name, (dtype, _) in products.PLANES.items()}
    made["FLUX_SUM"][3, 4] = np.nan
    return made | {"DQ": RNG.integers(0, 255, shape).astype(np.uint8)}


def write_template(path, **changed):
    arguments = {
        "primary": {"SYNDIFF": True, "DX_SHIFT": (0.5, "[px]"), "PSF_SIGMA_OF_BLUR": 40.0, "FFI": "x" * 100},
        "planes": planes(),
        "wcs_cards": TESS_WCS,
        "tables": {"SKYCELLS": SKYCELLS, "STARS": pd.DataFrame({"RA": np.empty(0), "WHY": np.empty(0, dtype=object)})},
        "unit": "count/s",
        "zero_point": 25.0,
        "dq_bits": {"NO_PS1": (1, "no PS1 image here"), "COLLATERAL": (128, "no sky falls on this pixel")},
    }
    arguments |= changed
    products.write_template(path, **arguments)
    return arguments


def test_a_template_holds_its_hdus_in_order_each_with_checksums_that_hold(tmp_path):
    SKYCELLS.attrs["units"] = {"EXPTIME": "s"}
    given_ = write_template(tmp_path / "t.fits")
    # With warnings as errors astropy's verification of every checksum must pass.
    with fits.open(tmp_path / "t.fits", checksum=True) as hdus:
        names = ["PRIMARY", "FLUX_SUM", "VARIANCE", "COVERAGE", "COUNT", "MASKED", "DQ", "SKYCELLS", "STARS"]
        assert [hdu.name for hdu in hdus] == names
        assert all("CHECKSUM" in hdu.header and "DATASUM" in hdu.header for hdu in hdus)
        for hdu in hdus[1:7]:
            assert hdu.header["BITPIX"] == (32 if hdu.name == "DQ" else -32)
            assert_array_equal(hdu.data, given_["planes"][hdu.name])
            assert_allclose(WCS(hdu.header).wcs.crpix, [1045, 1001])
            assert "BUNIT" in hdu.header and hdu.header.comments["EXTNAME"]
        assert hdus["FLUX_SUM"].header["BUNIT"] == "count/s" and hdus["FLUX_SUM"].header["ZEROPNT"] == 25.0
        assert hdus["VARIANCE"].header["BUNIT"] == "count**2/s**2"
        assert hdus["DQ"].header["DQBIT07"] == "COLLATERAL"
        assert "DQ 1 NO_PS1: no PS1 image here" in hdus["DQ"].header["COMMENT"]
        assert hdus[0].header["SYNDIFF"] is True and hdus[0].header["PSF_SIGMA_OF_BLUR"] == 40.0
        assert hdus[0].header["FFI"] == "x" * 100
        assert list(hdus["SKYCELLS"].data["NAME"]) == list(SKYCELLS["NAME"])
        assert hdus["SKYCELLS"].columns["EXPTIME"].unit == "s"
        assert len(hdus["STARS"].data) == 0 and hdus["STARS"].columns.names == ["RA", "WHY"]


def test_the_same_template_is_the_same_file(tmp_path):
    same = planes()
    for name in ("a", "b"):
        write_template(tmp_path / name, planes=same)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert re.search(rb"20\d\d-\d\d-\d\dT", (tmp_path / "a").read_bytes()) is None  # no date of writing


def test_a_template_of_planes_that_do_not_fit_is_refused(tmp_path):
    lacking = planes()
    del lacking["COUNT"]
    for wrong in (lacking, planes() | {"EXTRA": np.zeros((30, 40))}, planes() | {"DQ": np.zeros((30, 41))}):
        with pytest.raises(ValueError, match="t.fits: a template needs the planes FLUX_SUM, VARIANCE"):
            write_template(tmp_path / "t.fits", planes=wrong)
    assert not (tmp_path / "t.fits").exists()


@pytest.mark.parametrize("dtype", [np.int16, np.int32])
def test_the_master_map_opens_everywhere_and_leads_from_pixel_to_name(tmp_path, dtype):
    index = RNG.integers(-1, 2, (30, 40)).astype(dtype)
    products.write_master_map(tmp_path / "m.fits.gz", index, TESS_WCS, SKYCELLS)
    with fits.open(tmp_path / "m.fits.gz", checksum=True) as hdus:
        assert_array_equal(hdus[0].data, index)
        assert hdus[0].header["BITPIX"] == 8 * index.itemsize
        assert hdus["SKYCELLS"].data["NAME"][1] == "skycell.2180.097"
        assert_allclose(WCS(hdus[0].header).wcs.crpix, [1045, 1001])
    with pytest.raises(ValueError, match="indices -1..2 point outside a table of 2 skycells"):
        products.write_master_map(tmp_path / "n.fits.gz", np.array([[-1, 2]]), TESS_WCS, SKYCELLS)


@pytest.mark.parametrize("shape", [(1, 1), (256, 10), (700, 33)])
def test_a_pixel_map_opens_everywhere_with_checksums_that_hold(tmp_path, shape):
    index = RNG.integers(-1, 2136 * 2078, shape).astype(np.int32)
    products.write_pixel_map(tmp_path / "p.fits.gz", index, PS1_WCS, TESS_WCS)
    with fits.open(tmp_path / "p.fits.gz", checksum=True) as hdus:
        assert_array_equal(hdus[0].data, index)
        assert "BLANK" not in hdus[0].header and hdus[0].header["BITPIX"] == 32
    assert len(gzip.decompress((tmp_path / "p.fits.gz").read_bytes())) % 2880 == 0
    first = (tmp_path / "p.fits.gz").read_bytes()
    products.write_pixel_map(tmp_path / "p.fits.gz", index, PS1_WCS, TESS_WCS)
    assert (tmp_path / "p.fits.gz").read_bytes() == first


def test_both_wcs_of_a_pixel_map_can_be_had_back_from_its_header(tmp_path):
    products.write_pixel_map(tmp_path / "p.fits.gz", np.zeros((5, 6), np.int32), PS1_WCS, TESS_WCS)
    header = fits.getheader(tmp_path / "p.fits.gz")
    sky = WCS(fits.Header(PS1_WCS)).pixel_to_world_values([0, 300.0], [0, 200.0])
    assert_allclose(WCS(header).pixel_to_world_values([0, 300.0], [0, 200.0]), sky, rtol=0, atol=1e-12)
    tess = fits.Header({key[:-1]: value for key, value in header.items() if key.endswith("T")})
    for key in ("CTYPE1", "CTYPE2"):
        tess[key] += "-SIP"
    expected = WCS(fits.Header(TESS_WCS)).pixel_to_world_values([44.0, 2000.0], [0.0, 1900.0])
    assert_allclose(WCS(tess).pixel_to_world_values([44.0, 2000.0], [0.0, 1900.0]), expected, rtol=0, atol=1e-12)
    linear = {key: value for key, value in TESS_WCS.items() if key[:2] not in ("A_", "B_")}
    linear |= {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"}
    expected = WCS(fits.Header(linear)).pixel_to_world_values([44.0], [0.0])
    assert_allclose(WCS(header, key="T").pixel_to_world_values([44.0], [0.0]), expected, rtol=0, atol=1e-12)
