import numpy as np
import pytest
import real_data
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy_skycell import SURVEY, cores_holding, depth

from syndiff_tasks.geometry.rings import RINGS, ring_skycell
from syndiff_tasks.geometry.skycell import skycell_wcs
from syndiff_tasks.geometry.tangent import unit_vectors


def sky_points(count, seed, south=-31.98):
    rng = np.random.default_rng(seed)
    dec = np.degrees(np.arcsin(rng.uniform(np.sin(np.radians(south)), 1, count)))
    return rng.uniform(0, 360, count), dec


def test_ring_table_equals_the_published_one():
    table = fits.getdata(real_data.present("ps1grid.fits"))
    names = ("PROJCELL", "NBAND", "DEC", "DEC_MIN", "DEC_MAX", "XCELL", "YCELL", "CRPIX1", "CRPIX2")
    rows = [tuple(row[name] for name in names) for row in table if 15 <= row["ZONE"] <= 45]
    assert [tuple(ring) for ring in RINGS] == rows


def test_survey_has_200900_skycells_in_2009_projections():
    assert sum(ring.count for ring in RINGS) == 2009
    assert all(a.first + a.count == b.first for a, b in zip(RINGS, RINGS[1:], strict=False))


def test_random_positions_have_the_one_owner_that_the_ps1_rule_gives():
    ra, dec = sky_points(300, seed=3)
    names = [SURVEY.name_of(number) for number in SURVEY.owner(ra, dec)]
    holding = [cores_holding(*point) for point in zip(ra, dec, strict=True)]
    # One core, or a gap between cores.
    assert all(len(cores) <= 1 for cores in holding)
    held = [(name, cores[0]) for name, cores in zip(names, holding, strict=True) if cores]
    assert len(held) >= 299
    assert all(name == core for name, core in held)


def test_owner_is_found_at_ra_zero_at_the_pole_and_at_the_southern_edge():
    assert SURVEY.name_of(SURVEY.owner(0.0, 90.0)) in {f"skycell.2643.0{cell}" for cell in (44, 45, 54, 55)}
    either_side = SURVEY.owner([359.9999999, 0.0, 1e-7, 360.0], 10.0)
    assert len(set(either_side // 100)) == 1
    assert SURVEY.owner([10.0, 10.0, 10.0], [-31.98, -31.99, -90.0]).tolist()[1:] == [-1, -1]
    assert SURVEY.owner(10.0, -31.98) >= 0
    assert SURVEY.owner(np.nan, np.nan) == -1


def test_owner_of_a_position_does_not_depend_on_the_previous_positions():
    rng = np.random.default_rng(8)
    # Steps of 0.05 degrees: many neighbors in one core, and borders of cores, projections and rings.
    ra, dec = (grid.ravel() for grid in np.meshgrid(np.arange(100, 112, 0.05), np.arange(40, 48, 0.05)))
    order = rng.permutation(ra.size)
    in_rows = SURVEY.owner(ra, dec)
    shuffled = SURVEY.owner(ra[order], dec[order])
    assert np.array_equal(in_rows[order], shuffled)
    assert len(np.unique(in_rows)) > 200


def test_image_of_the_owner_extends_beyond_positions_on_borders_of_projections():
    rng = np.random.default_rng(4)
    ra, dec = sky_points(150, seed=5)
    chosen = [RINGS[n] for n in rng.integers(1, len(RINGS) - 2, 150)]
    meridians = [(rng.integers(ring.count) + 0.5) * 360 / ring.count for ring in chosen]
    edges = [ring.dec_max - 1e-9 for ring in chosen]
    ra, dec = np.concatenate([ra, meridians, meridians]), np.concatenate([dec, dec, edges])
    depths = [
        depth(SURVEY.skycell(SURVEY.name_of(number)), *point)
        for number, *point in zip(SURVEY.owner(ra, dec), ra, dec, strict=True)
    ]
    # 240 px in a core, up to 31 px less in the gaps between the cores of adjacent projections.
    assert np.mean(np.array(depths) >= 239.99) > 0.8
    assert min(depths) > 205


def test_every_image_extends_beyond_the_sky_it_owns_by_at_least_its_margin():
    rng = np.random.default_rng(9)
    ra, dec = rng.uniform(0, 360, 4000), rng.uniform(87.85, 88.06, 4000)
    numbers = SURVEY.owner(ra, dec)
    margins = {}
    for number in np.unique(numbers):
        owner, own = SURVEY.skycell(SURVEY.name_of(number)), numbers == number
        margins[owner.name] = SURVEY.margin(owner)
        assert depth(owner, ra[own], dec[own]).min() - margins[owner.name] > -31
    short = [margin for margin in margins.values() if margin < 240]
    assert len(short) == 12 and min(short) < -200 and max(short) < 200
    assert min(SURVEY.margin(ring_skycell(1400, cell)) for cell in range(100)) == 240


def test_owner_in_a_gap_between_cores_is_the_skycell_that_extends_farthest():
    # Between two projections of the ring at Dec -2, at their southern corner.
    ra, dec = 2.0, -3.9980869
    owner = SURVEY.skycell(SURVEY.name_of(SURVEY.owner(ra, dec)))
    assert cores_holding(ra, dec) == []
    rivals = SURVEY.near(unit_vectors(ra, dec), 1.0)
    assert depth(owner, ra, dec) == max(depth(rival, ra, dec) for rival in rivals)


def test_near_finds_every_skycell_with_its_center_within_the_angle():
    # Each deep in one ring, so that only these projections are near.
    for ra, dec, some in ((0.1, 10.0, (1501, 1502, 1589)), (200.0, 89.0, (2643,)), (30.0, -31.0, (641, 642))):
        point = SkyCoord(ra, dec, unit="deg")
        skycells = [ring_skycell(projection, cell) for projection in some for cell in range(100)]
        middles = [skycell_wcs(c).wcs_pix2world((c.nx - 1) / 2, (c.ny - 1) / 2, 0) for c in skycells]
        near = SkyCoord(middles, unit="deg").separation(point).deg <= 0.8
        found = SURVEY.near(unit_vectors(ra, dec), 0.8)
        assert len(found) > 5
        assert [skycell.name for skycell in found] == [
            c.name for c, inside in zip(skycells, near, strict=True) if inside
        ]


@pytest.mark.parametrize("name", ["skycell.0634.000", "skycell.2644.000", "skycell.1000.100", "skycell.812.050", ""])
def test_skycells_that_are_not_in_the_survey_are_rejected(name):
    with pytest.raises(ValueError, match=name.replace(".", r"\.") or "''"):
        SURVEY.skycell(name)
