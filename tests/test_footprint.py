import numpy as np
import pytest
from astropy_skycell import SURVEY, cores_holding
from made_up_ffi import astropy_wcs, tess_wcs
from numba import config
from numpy.testing import assert_allclose

from syndiff_tasks.geometry import footprint
from syndiff_tasks.geometry.mapping import ps1_to_tess
from syndiff_tasks.geometry.region import SCIENCE, Region
from syndiff_tasks.geometry.skycell import skycell_wcs
from syndiff_tasks.geometry.skycell_table import tessellation_from_table
from syndiff_tasks.geometry.tansip import cropped, pixel_to_sky, region_around

# Uncompiled kernels take minutes for a whole CCD.
compiled = pytest.mark.skipif(bool(config.DISABLE_JIT), reason="a whole CCD needs compiled kernels")


def owner_names(found):
    return np.array([skycell.name for skycell in found.skycells] + [""])[found.owner]


@compiled
@pytest.mark.parametrize(("ra", "dec", "turn"), [(216.75, 56.4, 20), (0.3, 12.0, 130), (40.9, 87.1, 250)])
def test_every_science_pixel_of_a_ccd_has_the_owner_of_a_brute_force_search(ra, dec, turn):
    tansip = tess_wcs(ra, dec, turn)
    found = footprint.footprint_of(tansip, SCIENCE, SURVEY)
    names = owner_names(found)
    assert found.owner.dtype == np.int32
    assert found.owner.shape == (2048, 2048)
    rng = np.random.default_rng(1)
    y, x = rng.integers(0, 2048, (2, 250))
    sky = astropy_wcs(tansip).all_pix2world(x + 44, y, 0)
    expected = [cores_holding(*point) for point in zip(*sky, strict=True)]
    single = [(names[j, i], name[0]) for j, i, name in zip(y, x, expected, strict=True) if name]
    assert len(single) >= 248
    assert all(ours == theirs for ours, theirs in single)
    # A search position by position finds the same owners, also on borders.
    rows = np.arange(0, 2048, 97)
    j, i = np.meshgrid(rows, np.arange(2048), indexing="ij")
    one_by_one = SURVEY.owner(*pixel_to_sky(tansip, i[:, ::-1] + 44, j))[:, ::-1]
    assert [SURVEY.name_of(n) for n in np.unique(one_by_one)] == sorted(set(names[rows].ravel()))
    numbers = np.array([int(skycell.projection) * 100 + skycell.cell for skycell in found.skycells])
    assert np.array_equal(numbers[found.owner[rows]], one_by_one)


@compiled
def test_owners_are_complete_at_the_pole_and_across_ra_zero():
    tansip = tess_wcs(40.9, 87.1, 250)
    polar = footprint.footprint_of(tansip, region_around(tansip, 0.0, 90.0, 301), SURVEY)
    assert polar.skycells[polar.owner[150, 150]].projection == "2643"
    assert (polar.owner >= 0).all()
    crossing = footprint.footprint_of(tess_wcs(0.3, 12.0), Region(900, 900, 1200, 1100), SURVEY)
    assert (crossing.owner >= 0).all()


def test_owners_in_a_region_equal_those_in_a_larger_region():
    tansip = tess_wcs()
    large = footprint.footprint_of(tansip, Region(100, 200, 220, 300), SURVEY)
    small = footprint.footprint_of(tansip, Region(130, 220, 200, 250), SURVEY)
    assert np.array_equal(owner_names(small), owner_names(large)[20:50, 30:100])
    assert list(small.skycells) == sorted(small.skycells)
    assert set(np.unique(small.owner)) == set(range(len(small.skycells)))


def test_pixels_off_the_science_area_have_no_owner():
    found = footprint.footprint_of(tess_wcs(), Region(40, 2040, 50, 2060), SURVEY)
    assert (found.owner[:8, 4:] >= 0).all()
    assert (found.owner[8:] == -1).all()
    assert (found.owner[:, :4] == -1).all()
    none = footprint.footprint_of(tess_wcs(), Region(0, 2050, 50, 2060), SURVEY)
    assert (none.owner == -1).all()
    # The science pixels of a cut-out are elsewhere.
    cut = footprint.footprint_of(cropped(tess_wcs(), 40, 2040), Region(0, 0, 10, 20), SURVEY, Region(4, 0, 10, 8))
    assert np.array_equal(owner_names(cut), owner_names(found))


def test_an_ffi_south_of_the_survey_has_no_skycells():
    found = footprint.footprint_of(tess_wcs(80.0, -66.0), Region(44, 0, 144, 100), SURVEY)
    assert found.skycells == ()
    assert (found.owner == -1).all()
    assert not footprint.projection_seam(found, 5).any()
    assert len(footprint.skycell_rows(found)) == 0


def test_an_ffi_partly_south_of_the_survey_has_owners_in_the_north_only():
    tansip = tess_wcs(80.0, -31.9889)
    region = Region(1000, 950, 1100, 1050)
    found = footprint.footprint_of(tansip, region, SURVEY)
    y, x = np.mgrid[950:1050, 1000:1100]
    _, dec = pixel_to_sky(tansip, x, y)
    assert np.array_equal(found.owner >= 0, dec >= -31.988947843740302)
    assert 0.3 < (found.owner >= 0).mean() < 0.7


@compiled
def test_table_of_a_footprint_gives_the_same_owners_away_from_seams():
    tansip = tess_wcs()
    found = footprint.footprint_of(tansip, Region(500, 500, 800, 800), SURVEY)
    again = footprint.footprint_of(tansip, found.region, tessellation_from_table(footprint.skycell_rows(found)))
    away = ~footprint.projection_seam(found, 20)
    # Skycells outside the table own none of these pixels.
    assert np.array_equal(owner_names(found)[away], owner_names(again)[away])
    assert away.mean() > 0.5


def test_seam_is_every_pixel_near_a_pixel_of_another_projection():
    rng = np.random.default_rng(2)
    skycells = tuple(SURVEY.skycell(f"skycell.{p}.000") for p in ("0812", "0813", "2180"))
    owner = np.repeat(np.repeat(rng.integers(-1, 3, (6, 7)), 5, axis=0), 5, axis=1).astype(np.int32)
    found = footprint.Footprint(Region(0, 0, 35, 30), owner, skycells)
    expected = np.zeros(owner.shape, bool)
    for j, i in np.ndindex(*owner.shape):
        around = owner[max(j - 2, 0) : j + 3, max(i - 2, 0) : i + 3]
        expected[j, i] = owner[j, i] >= 0 and bool(np.any((around >= 0) & (around != owner[j, i])))
    assert 0 < expected.sum() < expected.size
    assert np.array_equal(footprint.projection_seam(found, 1.5), expected)


def test_seam_does_not_mark_borders_within_one_projection():
    skycells = tuple(SURVEY.skycell(f"skycell.0812.00{n}") for n in (1, 2))
    owner = np.repeat(np.array([[0, 1]], np.int32), 5, axis=1)
    assert not footprint.projection_seam(footprint.Footprint(Region(0, 0, 10, 1), owner, skycells), 3).any()


def test_center_and_corners_agree_with_astropy():
    for name in ("skycell.2180.097", "skycell.1322.000", "skycell.2643.045"):
        skycell = SURVEY.skycell(name)
        x = np.array([(skycell.nx - 1) / 2, -0.5, skycell.nx - 0.5, skycell.nx - 0.5, -0.5])
        y = np.array([(skycell.ny - 1) / 2, -0.5, -0.5, skycell.ny - 0.5, skycell.ny - 0.5])
        assert_allclose(footprint.corners(skycell), skycell_wcs(skycell).all_pix2world(x, y, 0), atol=1e-10)


REACH = 350.0  # 240 native px are in each skycell's own image


def needs(x0, y0, x1, y1, reach=REACH):
    """The owners of a region, and the names of the neighbors that each needs, without its projection."""
    found = footprint.footprint_of(TANSIP, Region(x0, y0, x1, y1), SURVEY)
    added = footprint.frame_neighbors(TANSIP, found, SURVEY, reach)
    assert list(added) == [skycell.name for skycell in found.skycells]
    return {name[8:]: [other.name[8:] for other in others] for name, others in added.items()}


TANSIP = tess_wcs()


@pytest.fixture(scope="module")
def middle():
    """A skycell inside a projection, and the FFI pixel at its center."""
    skycell = SURVEY.skycell("skycell.2434.034")
    x, y = ps1_to_tess(TANSIP, skycell, [(skycell.nx - 1) / 2], [(skycell.ny - 1) / 2])
    return skycell, round(float(x[0])), round(float(y[0]))


def test_a_region_inside_a_skycell_needs_no_neighbor(middle):
    skycell, x, y = middle
    assert needs(x - 5, y - 5, x + 5, y + 5) == {skycell.name[8:]: []}
    assert needs(x - 5, y - 5, x + 5, y + 5, 2500.0)[skycell.name[8:]] == []


@pytest.mark.parametrize("reach", [300.0, 350.0, 900.0])
def test_a_skycell_and_its_neighbors_cover_what_its_pixels_reach(reach):
    region = Region(700, 650, 780, 740)
    found = footprint.footprint_of(TANSIP, region, SURVEY)
    added = footprint.frame_neighbors(TANSIP, found, SURVEY, reach)
    rng, needed = np.random.default_rng(4), 0
    for index, skycell in enumerate(found.skycells):
        rows, columns = np.nonzero(found.owner == index)
        some = rng.integers(len(rows), size=2000)
        turn, far = rng.uniform(0, 2 * np.pi, 2000), reach * np.sqrt(rng.uniform(0, 1, 2000))
        sky = astropy_wcs(TANSIP).all_pix2world(columns[some] + region.x0, rows[some] + region.y0, 0)
        px, py = skycell_wcs(skycell).all_world2pix(*sky, 0)
        place = skycell_wcs(skycell).all_pix2world(px + far * np.cos(turn), py + far * np.sin(turn), 0)
        held = np.zeros(2000, bool)
        for other in (skycell, *added[skycell.name]):
            x, y = skycell_wcs(other).all_world2pix(*place, 0)
            held |= (x > -1) & (x < other.nx) & (y > -1) & (y < other.ny)
        assert held.mean() > 0.999
        needed += len(added[skycell.name])
    assert needed > 0


def test_a_skycell_owned_whole_needs_its_neighbors_all_around(middle):
    skycell, x, y = middle
    found = footprint.footprint_of(TANSIP, Region(x - 80, y - 80, x + 80, y + 80), SURVEY)
    projection, cell = skycell.projection, skycell.cell
    around = {f"skycell.{projection}.{cell + step:03d}" for step in (-11, -10, -9, -1, 1, 9, 10, 11)}
    # The corners are further away from the pixels than the edges.
    some = {other.name for other in footprint.frame_neighbors(TANSIP, found, SURVEY, REACH)[skycell.name]}
    assert some == {f"skycell.{projection}.{cell + step:03d}" for step in (-10, -1, 1, 10)}
    assert {other.name for other in footprint.frame_neighbors(TANSIP, found, SURVEY, 900.0)[skycell.name]} == around


def test_skycell_rows_have_the_catalog_columns_and_the_box_of_owned_pixels():
    region = Region(500, 600, 640, 720)
    found = footprint.footprint_of(tess_wcs(), region, SURVEY)
    rows = footprint.skycell_rows(found)
    assert rows["pixels"].sum() == 140 * 120
    names = owner_names(found)
    for row in rows.itertuples():
        y, x = np.nonzero(names == row.NAME)
        assert (row.x0, row.y0, row.x1, row.y1) == (x.min() + 500, y.min() + 600, x.max() + 501, y.max() + 601)
        assert row.pixels == len(x)
        assert row.NAME == f"skycell.{row.projection}.0{row.y}{row.x}"
    table = tessellation_from_table(rows)
    assert [table.skycell(name) for name in rows["NAME"]] == list(found.skycells)
    assert_allclose(rows[["RA_Corner3", "DEC_Corner3"]].iloc[0], np.array(footprint.corners(found.skycells[0]))[:, 3])
