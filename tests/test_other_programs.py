"""What other programs make of our FITS files: astropy's CCDData, WCSTools, Starlink AST."""

import shutil
import subprocess

import numpy as np
import pytest
from astropy import units
from astropy.io import fits
from astropy.nddata import CCDData, VarianceUncertainty
from astropy.wcs import WCS
from made_up_ffi import header_of, tess_wcs
from numpy.testing import assert_allclose, assert_array_equal
from test_fits import SKYCELLS, write_template

from syndiff_tasks.geometry.sip_inverse import inverse_keywords
from syndiff_tasks.geometry.tansip import cropped, oversampled, pixel_to_sky, shifted, tansip_keywords

WHOLE = (2078, 2136)
# Name, world coordinates and shape of the file: a CCD, a corner of it, a shifted one, a fine one.
IMAGES = {
    "whole": (tess_wcs(), WHOLE),
    "pole": (tess_wcs(10.0, 89.0), WHOLE),
    "corner": (cropped(tess_wcs(), 50, 1980), (64, 64)),
    "shifted": (shifted(cropped(tess_wcs(359.99, -12.0, 70.0), 900, 300), 0.3, -0.7), (48, 200)),
    "fine": (oversampled(cropped(tess_wcs(), 1800, 40), 3), (192, 192)),
    "rows": (cropped(tess_wcs(), 44, 7), (3, 2048)),
}


def test_ccddata_reads_a_template_without_a_false_mask_and_with_its_variance(tmp_path):
    given = write_template(tmp_path / "t.fits")["planes"]
    image = CCDData.read(tmp_path / "t.fits", hdu=1)
    assert image.mask is None and image.unit == units.count / units.s
    assert_array_equal(image.data, given["FLUX_SUM"])
    image = CCDData.read(tmp_path / "t.fits", hdu=1, hdu_uncertainty="VARIANCE")
    assert isinstance(image.uncertainty, VarianceUncertainty) and image.mask is None
    assert_array_equal(image.uncertainty.array, given["VARIANCE"])
    doubled = image.multiply(2.0)
    assert_allclose(doubled.uncertainty.array, 4 * np.abs(given["VARIANCE"]), rtol=1e-6)


def test_units_of_a_template_are_those_of_the_fits_standard(tmp_path):
    write_template(tmp_path / "t.fits")
    with fits.open(tmp_path / "t.fits") as hdus:
        read = {hdu.name: units.Unit(hdu.header["BUNIT"], format="fits", parse_strict="raise") for hdu in hdus[1:7]}
    assert read["VARIANCE"] == read["FLUX_SUM"] ** 2
    assert read["COUNT"] == read["MASKED"] == units.pixel
    write_template(tmp_path / "e.fits", unit="electron/s")
    variance = CCDData.read(tmp_path / "e.fits", hdu=2)
    assert variance.unit == units.electron**2 / units.s**2


def test_columns_of_tables_have_units_and_descriptions(tmp_path):
    table = described_table()
    write_template(tmp_path / "t.fits", tables={"SKYCELLS": table, "STARS": table[:0]})
    with fits.open(tmp_path / "t.fits", checksum=True) as hdus:
        for name in ("SKYCELLS", "STARS"):
            header = hdus[name].header
            assert (header["TTYPE2"], header["TUNIT2"], header["TCOMM2"]) == ("EXPTIME", "s", "exposure time")
            assert "TUNIT1" not in header and header["TCOMM1"] == "PS1 skycell"


def described_table():
    table = SKYCELLS.copy()
    table.attrs["units"] = {"EXPTIME": "s"}
    table.attrs["meanings"] = {"NAME": "PS1 skycell", "EXPTIME": "exposure time"}
    return table


# --- sky to pixel by AP and BP ----------------------------------------------------------------------------------------


def points(shape, count=400):
    """Places on an image, its outer corners among them (0-based)."""
    ny, nx = shape
    corners = [(-0.5, -0.5), (nx - 0.5, -0.5), (-0.5, ny - 0.5), (nx - 0.5, ny - 0.5)]
    inside = np.random.default_rng(8).uniform((-0.5, -0.5), (nx - 0.5, ny - 0.5), (count, 2))
    return np.concatenate([corners, inside]).T


def header(tansip, shape):
    made = header_of(tansip, shape)
    made.update(inverse_keywords(tansip, shape))
    return made


@pytest.mark.parametrize("name", IMAGES)
def test_ap_and_bp_lead_back_to_the_pixel_on_each_files_own_pixels(name, tmp_path):
    tansip, shape = IMAGES[name]
    path = tmp_path / "t.fits"
    fits.PrimaryHDU(np.zeros(shape, np.int16), header(tansip, shape)).writeto(path)
    cards = fits.getheader(path)  # with the digits that a card has
    x, y = points(shape)
    linear = tansip_keywords(tansip) | {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"}
    linear = {key: value for key, value in linear.items() if key[:2] not in ("A_", "B_")}
    plane = WCS(fits.Header(linear)).wcs_world2pix(np.transpose(WCS(cards).all_pix2world(np.c_[x, y], 0).T), 0).T
    big_u, big_v = plane[0] + 1 - tansip.crpix1, plane[1] + 1 - tansip.crpix2
    for start, there, axis in (("AP", x, 0), ("BP", y, 1)):
        # The sum of the SIP paper, term by term.
        shift = sum(
            cards[key] * big_u ** int(key.split("_")[1]) * big_v ** int(key.split("_")[2])
            for key in cards
            if key.startswith(f"{start}_") and key != f"{start}_ORDER"
        )
        assert np.abs(plane[axis] + shift - there).max() < 1e-3


def test_an_undistorted_image_has_no_inverse_polynomials():
    tansip = tess_wcs()
    assert inverse_keywords(tansip._replace(a=0 * tansip.a, b=0 * tansip.b), WHOLE) == {}


@pytest.mark.parametrize("name", IMAGES)
def test_wcstools_takes_the_sky_to_the_same_pixel(name, tmp_path):
    if not shutil.which("sky2xy"):
        pytest.skip("sky2xy of WCSTools is not installed")
    tansip, shape = IMAGES[name]
    fits.PrimaryHDU(np.zeros(shape, np.int16), header(tansip, shape)).writeto(tmp_path / "t.fits")
    x, y = points(shape, 40)
    ra, dec = pixel_to_sky(tansip, x, y)
    lines = "".join(f"{a:.9f} {d:.9f} J2000\n" for a, d in zip(ra, dec, strict=True))
    (tmp_path / "sky.txt").write_text(lines)
    command = ["sky2xy", "-n", "5", "-j", "t.fits", "@sky.txt"]
    out = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    got = np.array([line.split("->")[1].split()[:2] for line in out.splitlines()], float)
    # It writes "(off image)" behind places beyond the centers of the outer pixels, and converts them all the same.
    assert_allclose(got, np.c_[x, y] + 1, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", IMAGES)
def test_starlink_ast_takes_the_sky_to_the_same_pixel(name):
    ast = pytest.importorskip("starlink.Ast")
    tansip, shape = IMAGES[name]
    channel = ast.FitsChan(None, None, "SipReplace=0")
    for card in header(tansip, shape).cards:
        channel.putfits(str(card), False)
    channel.clear("Card")
    frames = channel.read()
    x, y = points(shape, 40)
    ra, dec = pixel_to_sky(tansip, x, y)
    assert_allclose(frames.tran(np.radians([ra, dec]), False), np.array([x, y]) + 1, rtol=0, atol=1e-3)
