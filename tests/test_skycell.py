import numpy as np
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS
from astropy_skycell import SURVEY
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from syndiff_tasks.geometry.skycell import (
    parse_skycell_name,
    skycell_keywords,
    skycell_to_vector,
    skycell_wcs,
    vector_to_skycell,
)
from syndiff_tasks.geometry.tangent import sky_positions, unit_vectors

# From the header of rings.v3.skycell.2180.097.stk.y.unconv.fits in the archive.
REAL_2180_097 = {
    "NAXIS1": 6320,
    "NAXIS2": 6284,
    "CTYPE1": "RA---TAN",
    "CTYPE2": "DEC--TAN",
    "CRVAL1": 121.764701843296,
    "CRVAL2": 41.9999999999986,
    "CRPIX1": -11440.5,
    "CRPIX2": -22976.0,
    "CDELT1": 6.94444461259988e-05,
    "CDELT2": 6.94444461259988e-05,
    "PC1_1": -1.0,
    "PC1_2": 0.0,
    "PC2_1": 0.0,
    "PC2_2": 1.0,
}


def test_world_coordinates_of_2180_097_equal_those_of_the_real_header():
    skycell = SURVEY.skycell("skycell.2180.097")
    real = WCS(REAL_2180_097)
    ours = skycell_wcs(skycell)
    assert (skycell.nx, skycell.ny) == (REAL_2180_097["NAXIS1"], REAL_2180_097["NAXIS2"])
    # Reference position, corners and center.
    x = np.array([-11441.5, 0, 6319, 6319, 0, 3160])
    y = np.array([-22977.0, 0, 0, 6283, 6283, 3142])
    there, here = (SkyCoord(*w.all_pix2world(x, y, 0), unit="deg") for w in (real, ours))
    assert there.separation(here).arcsec.max() < 1e-6


def test_matrices_agree_with_astropy():
    for name in ("skycell.2180.097", "skycell.0635.000", "skycell.2643.012", "skycell.1322.099"):
        skycell = SURVEY.skycell(name)
        x, y = np.array([0.0, 6000.0, 17.5]), np.array([0.0, 12.25, 6100.0])
        expected = SkyCoord(*skycell_wcs(skycell).all_pix2world(x, y, 0), unit="deg")
        ra, dec = sky_positions(np.stack([x, y, np.ones(3)], axis=1) @ skycell_to_vector(skycell).T)
        assert expected.separation(SkyCoord(ra, dec, unit="deg")).arcsec.max() < 1e-7
        px, py, w = vector_to_skycell(skycell) @ unit_vectors(ra, dec).T
        assert_allclose((px / w, py / w), (x, y), atol=1e-6)


def test_polar_projection_has_ra_zero_towards_its_first_rows():
    # With LONPOLE = 180 and CRVAL2 = 90, RA 0 is along -y from the pole (Calabretta & Greisen 2002).
    polar = SURVEY.skycell("skycell.2643.055")
    header = skycell_keywords(polar)
    assert header["LONPOLE"] == 180
    x, y = skycell_wcs(polar).all_world2pix([0.0, 90.0], [89.9, 89.9], 0)
    assert_allclose(x, (polar.crpix1 - 1, polar.crpix1 - 1 - 1440), atol=0.1)
    assert_allclose(y, (polar.crpix2 - 1 - 1440, polar.crpix2 - 1), atol=0.1)


def test_names_keep_leading_zeros():
    skycell = SURVEY.skycell("skycell.0812.050")
    assert (skycell.projection, skycell.cell, skycell.name) == ("0812", 50, "skycell.0812.050")
    assert SURVEY.name_of(81250) == "skycell.0812.050"


def test_corners_of_one_projection_share_a_pixel_grid():
    first, other = SURVEY.skycell("skycell.2180.000"), SURVEY.skycell("skycell.2180.097")
    ra, dec = skycell_wcs(other).all_pix2world(10, 20, 0)
    gx, gy = skycell_wcs(first).all_world2pix(ra, dec, 0)
    assert_allclose((gx, gy), np.add(other.corner, (10, 20)), atol=1e-5)
    assert first.corner == (0, 0)


@given(st.text(max_size=20) | st.from_regex(r"skycell\.\d{3,5}\.\d{2,4}", fullmatch=True))
def test_a_skycell_name_is_parsed_completely_or_rejected(text):
    try:
        projection, cell = parse_skycell_name(text)
    except ValueError as error:
        assert "skycell.0812.050" in str(error)
    else:
        assert f"skycell.{projection:04d}.{cell:03d}" == text
