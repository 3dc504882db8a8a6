"""Coverage maps against the exact footprint: WCS by astropy, HEALPix cells by mocpy's own look-up."""

import numpy as np
import pytest
from astropy import units
from astropy.coordinates import Latitude, Longitude
from made_up_ffi import astropy_wcs, tess_wcs
from numpy.testing import assert_array_equal

from syndiff_tasks.chain import coverage
from syndiff_tasks.geometry.outline import healpix_order, outline, outlines, rectangles
from syndiff_tasks.geometry.region import Region
from syndiff_tasks.io import coverage_map

POINTINGS = [tess_wcs(), tess_wcs(0.0, 20.0, 40.0), tess_wcs(100.0, 89.0), tess_wcs(250.0, -89.5)]
CELL = 12.9 / 20.5  # side of a cell of order 14 [px]


def holds(moc, tansip, x, y):
    ra, dec = astropy_wcs(tansip).all_pix2world(x, y, 0)
    return moc.contains_lonlat(Longitude(ra, units.deg), Latitude(dec, units.deg))


def along_edges(region, outside, count=2000):
    """Places at a distance beyond the outer edge of a region [px], spread along its four sides."""
    t = np.random.default_rng(3).uniform(0, 1, count)
    x0, y0, x1, y1 = np.array(region) - 0.5
    side = np.arange(count) % 4
    x = np.choose(side, [x0 + t * (x1 - x0), x0 + t * (x1 - x0), x0 - outside, x1 + outside])
    y = np.choose(side, [y0 - outside, y1 + outside, y0 + t * (y1 - y0), y0 + t * (y1 - y0)])
    return x, y


@pytest.mark.parametrize("tansip", POINTINGS, ids=["middle", "ra 0", "north pole", "south pole"])
def test_a_map_covers_all_of_a_ccd_and_ends_within_a_cell_of_its_edge(tansip):
    region = Region(44, 0, 2092, 2048)
    moc = coverage_map.moc_of([outline(tansip, region)], coverage.order(tansip))
    assert moc.max_order == 14
    x, y = np.random.default_rng(4).uniform((43.5, -0.5), (2091.5, 2047.5), (20000, 2)).T
    assert holds(moc, tansip, x, y).all()
    assert holds(moc, tansip, *along_edges(region, -0.05)).all()
    # The diagonal of a cell is less than 2.5 of its sides, even near the poles, where cells are drawn out.
    assert not holds(moc, tansip, *along_edges(region, 2.5 * CELL)).any()


def test_pixels_without_a_skycell_are_not_covered():
    tansip = tess_wcs()
    y, x = np.indices((60, 80))
    chosen = (y > 0.4 * x) & ~((x > 20) & (x < 26) & (y > 40))
    moc = coverage_map.moc_of(outlines(tansip, chosen, 700, 300), 14)
    assert holds(moc, tansip, x[chosen] + 700, y[chosen] + 300).all()
    grown = chosen.copy()
    for axis in (0, 1):
        for shift in (-2, -1, 1, 2):
            grown |= np.roll(grown, shift, axis)
    assert (~grown).sum() > 500
    assert not holds(moc, tansip, x[~grown] + 700, y[~grown] + 300).any()


def test_rectangles_hold_each_chosen_pixel_once():
    rng = np.random.default_rng(5)
    for chosen in (rng.random((30, 40)) < 0.7, np.ones((5, 7), bool), np.zeros((5, 7), bool)):
        count = np.zeros(chosen.shape, int)
        for x0, y0, x1, y1 in rectangles(chosen):
            count[y0:y1, x0:x1] += 1
        assert_array_equal(count, chosen)
    assert rectangles(np.ones((5, 7), bool)) == [Region(0, 0, 7, 5)]


def test_both_forms_are_read_back_and_other_files_refused(tmp_path):
    moc = coverage_map.moc_of([outline(tess_wcs(), Region(100, 100, 164, 164))], 14)
    for form in ("fits", "json"):
        coverage_map.write(moc, tmp_path / form, form)
        assert coverage_map.read(tmp_path / form) == moc
    coverage_map.write(moc, tmp_path / "again", "fits")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "fits").read_bytes()
    for content in (b"", b"junk", b"{]"):
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(ValueError, match="bad: cannot be read as a coverage map .*give a MOC as FITS or JSON"):
            coverage_map.read(tmp_path / "bad")
    with pytest.raises(ValueError, match="none: cannot be read as a coverage map"):
        coverage_map.read(tmp_path / "none")


def test_the_order_is_that_of_cells_no_wider_than_a_pixel():
    assert healpix_order(20.5 / 3600) == 14
    for k in (0, 5, 14):
        side = np.degrees(np.sqrt(4 * np.pi / (12 * 4**k)))
        assert healpix_order(side * 1.001) == k and healpix_order(side * 0.999) == k + 1
