import numpy as np
import pandas as pd
import pytest
import real_data
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from syndiff_tasks.geometry import rings

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
SURVEY = rings.rings_v3()


def sky_points(count, seed, south=-31.98):
    rng = np.random.default_rng(seed)
    dec = np.degrees(np.arcsin(rng.uniform(np.sin(np.radians(south)), 1, count)))
    return rng.uniform(0, 360, count), dec


def pixels_in_cell_zero(projection, ra, dec):
    """Position [native px, 0-based] in the grid of a projection, by astropy."""
    return rings.wcs(rings.ring_skycell(projection, 0)).all_world2pix(ra, dec, 0)


def cores_holding(ra, dec):
    """All skycells whose core holds a position, by the rule of the survey read literally."""
    (ring,) = [ring for ring in rings.RINGS if ring.dec_min <= dec < ring.dec_max]
    centres = 360 / ring.count * np.arange(ring.count)
    distance = np.abs((ra - centres + 180) % 360 - 180)
    projection = ring.first + int(np.argmin(distance))
    gx, gy = pixels_in_cell_zero(projection, ra, dec)
    first = np.arange(10)
    x = gx - first * (ring.nx - 480)
    y = gy - first * (ring.ny - 480)
    columns = np.flatnonzero((x >= 239.5) & (x < ring.nx - 240.5))
    rows = np.flatnonzero((y >= 239.5) & (y < ring.ny - 240.5))
    return [f"skycell.{projection:04d}.{row * 10 + column:03d}" for row in rows for column in columns]


def depth(skycell, ra, dec):
    """Distance from a position to the edge of an image [native px], by astropy; negative outside."""
    x, y = rings.wcs(skycell).all_world2pix(ra, dec, 0)
    return np.min([x + 0.5, skycell.nx - 0.5 - x, y + 0.5, skycell.ny - 0.5 - y], axis=0)


def as_table(skycells):
    return pd.DataFrame(skycells, columns=rings.COLUMNS)


def test_world_coordinates_of_2180_097_are_those_of_the_real_header():
    skycell = SURVEY.skycell("skycell.2180.097")
    real = WCS(REAL_2180_097)
    ours = rings.wcs(skycell)
    assert (skycell.nx, skycell.ny) == (REAL_2180_097["NAXIS1"], REAL_2180_097["NAXIS2"])
    # Reference position, corners and centre.
    x = np.array([-11441.5, 0, 6319, 6319, 0, 3160])
    y = np.array([-22977.0, 0, 0, 6283, 6283, 3142])
    there, here = (SkyCoord(*w.all_pix2world(x, y, 0), unit="deg") for w in (real, ours))
    assert there.separation(here).arcsec.max() < 1e-6


def test_matrices_agree_with_astropy():
    for name in ("skycell.2180.097", "skycell.0635.000", "skycell.2643.012", "skycell.1322.099"):
        skycell = SURVEY.skycell(name)
        x, y = np.array([0.0, 6000.0, 17.5]), np.array([0.0, 12.25, 6100.0])
        expected = SkyCoord(*rings.wcs(skycell).all_pix2world(x, y, 0), unit="deg")
        ra, dec = rings.positions(np.stack([x, y, np.ones(3)], axis=1) @ rings.pixel_to_vector(skycell).T)
        assert expected.separation(SkyCoord(ra, dec, unit="deg")).arcsec.max() < 1e-7
        px, py, w = rings.vector_to_pixel(skycell) @ rings.unit_vectors(ra, dec).T
        assert_allclose((px / w, py / w), (x, y), atol=1e-6)


def test_ring_table_is_that_of_the_survey():
    table = fits.getdata(real_data.present("ps1grid.fits"))
    names = ("PROJCELL", "NBAND", "DEC", "DEC_MIN", "DEC_MAX", "XCELL", "YCELL", "CRPIX1", "CRPIX2")
    rows = [tuple(row[name] for name in names) for row in table if 15 <= row["ZONE"] <= 45]
    assert [tuple(ring) for ring in rings.RINGS] == rows


def test_survey_has_200900_skycells_in_2009_projections():
    assert sum(ring.count for ring in rings.RINGS) == 2009
    assert all(a.first + a.count == b.first for a, b in zip(rings.RINGS, rings.RINGS[1:], strict=False))


def test_polar_projection_has_ra_zero_towards_its_first_rows():
    # With LONPOLE = 180 and CRVAL2 = 90 the north of CRVAL1 = 0 is away from the pole along -y (Calabretta & Greisen).
    polar = SURVEY.skycell("skycell.2643.055")
    header = rings.wcs_keywords(polar)
    assert header["LONPOLE"] == 180
    x, y = rings.wcs(polar).all_world2pix([0.0, 90.0], [89.9, 89.9], 0)
    assert_allclose(x, (polar.crpix1 - 1, polar.crpix1 - 1 - 1440), atol=0.1)
    assert_allclose(y, (polar.crpix2 - 1 - 1440, polar.crpix2 - 1), atol=0.1)


def test_names_keep_their_zeros_and_projections_below_1000_work():
    skycell = SURVEY.skycell("skycell.0812.050")
    assert (skycell.projection, skycell.cell, skycell.name) == ("0812", 50, "skycell.0812.050")
    assert SURVEY.name_of(81250) == "skycell.0812.050"


def test_corners_of_one_projection_share_a_pixel_grid():
    first, other = SURVEY.skycell("skycell.2180.000"), SURVEY.skycell("skycell.2180.097")
    ra, dec = rings.wcs(other).all_pix2world(10, 20, 0)
    gx, gy = rings.wcs(first).all_world2pix(ra, dec, 0)
    assert_allclose((gx, gy), np.add(other.corner, (10, 20)), atol=1e-5)
    assert first.corner == (0, 0)


def test_random_positions_have_exactly_one_owner_and_it_is_the_one_of_the_rule():
    ra, dec = sky_points(300, seed=3)
    names = [SURVEY.name_of(number) for number in SURVEY.owner(ra, dec)]
    holding = [cores_holding(*point) for point in zip(ra, dec, strict=True)]
    # One core, or a sliver of the border that none holds.
    assert all(len(cores) <= 1 for cores in holding)
    held = [(name, cores[0]) for name, cores in zip(names, holding, strict=True) if cores]
    assert len(held) >= 299
    assert all(name == core for name, core in held)


def test_owner_works_at_ra_zero_the_pole_and_the_southern_edge():
    assert SURVEY.name_of(SURVEY.owner(0.0, 90.0)) in {f"skycell.2643.0{cell}" for cell in (44, 45, 54, 55)}
    either_side = SURVEY.owner([359.9999999, 0.0, 1e-7, 360.0], 10.0)
    assert len(set(either_side // 100)) == 1
    assert SURVEY.owner([10.0, 10.0, 10.0], [-31.98, -31.99, -90.0]).tolist()[1:] == [-1, -1]
    assert SURVEY.owner(10.0, -31.98) >= 0
    assert SURVEY.owner(np.nan, np.nan) == -1


def test_owner_of_a_position_does_not_depend_on_the_positions_before_it():
    rng = np.random.default_rng(8)
    # A raster of 0.2 degrees: many neighbours in one core, and borders of cores, projections and rings.
    ra, dec = (grid.ravel() for grid in np.meshgrid(np.arange(100, 112, 0.05), np.arange(40, 48, 0.05)))
    order = rng.permutation(ra.size)
    in_rows = SURVEY.owner(ra, dec)
    shuffled = SURVEY.owner(ra[order], dec[order])
    assert np.array_equal(in_rows[order], shuffled)
    assert len(np.unique(in_rows)) > 200


def test_owner_image_goes_on_beyond_every_position_even_on_borders_of_projections():
    rng = np.random.default_rng(4)
    ra, dec = sky_points(150, seed=5)
    chosen = [rings.RINGS[n] for n in rng.integers(1, len(rings.RINGS) - 2, 150)]
    meridians = [(rng.integers(ring.count) + 0.5) * 360 / ring.count for ring in chosen]
    edges = [ring.dec_max - 1e-9 for ring in chosen]
    ra, dec = np.concatenate([ra, meridians, meridians]), np.concatenate([dec, dec, edges])
    depths = [
        depth(SURVEY.skycell(SURVEY.name_of(number)), *point)
        for number, *point in zip(SURVEY.owner(ra, dec), ra, dec, strict=True)
    ]
    # 240 px in a core; slivers between projections that no core holds lose up to 31 px.
    assert np.mean(np.array(depths) >= 239.99) > 0.8
    assert min(depths) > 205


def test_no_image_ends_earlier_beyond_what_it_owns_than_its_margin_says():
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
    assert min(SURVEY.margin(rings.ring_skycell(1400, cell)) for cell in range(100)) == 240


def test_owner_in_the_slivers_is_the_skycell_that_goes_on_furthest():
    # Between two projections of the ring at Dec -2, at their corner on the equator side.
    ra, dec = 2.0, -3.9980869
    owner = SURVEY.skycell(SURVEY.name_of(SURVEY.owner(ra, dec)))
    assert cores_holding(ra, dec) == []
    rivals = SURVEY.near(rings.unit_vectors(ra, dec), 1.0)
    assert depth(owner, ra, dec) == max(depth(rival, ra, dec) for rival in rivals)


def test_near_finds_every_skycell_with_its_centre_in_reach():
    # Each deep in one ring, so that its projections are all there are.
    for ra, dec, some in ((0.1, 10.0, (1501, 1502, 1589)), (200.0, 89.0, (2643,)), (30.0, -31.0, (641, 642))):
        point = SkyCoord(ra, dec, unit="deg")
        skycells = [rings.ring_skycell(projection, cell) for projection in some for cell in range(100)]
        middles = [rings.wcs(c).wcs_pix2world((c.nx - 1) / 2, (c.ny - 1) / 2, 0) for c in skycells]
        near = SkyCoord(middles, unit="deg").separation(point).deg <= 0.8
        found = SURVEY.near(rings.unit_vectors(ra, dec), 0.8)
        assert len(found) > 5
        assert [skycell.name for skycell in found] == [
            c.name for c, inside in zip(skycells, near, strict=True) if inside
        ]


@given(st.text(max_size=20) | st.from_regex(r"skycell\.\d{3,5}\.\d{2,4}", fullmatch=True))
def test_a_name_is_understood_whole_or_refused(text):
    try:
        projection, cell = rings.parse_name(text)
    except ValueError as error:
        assert "skycell.0812.050" in str(error)
    else:
        assert f"skycell.{projection:04d}.{cell:03d}" == text


@pytest.mark.parametrize("name", ["skycell.0634.000", "skycell.2644.000", "skycell.1000.100", "skycell.812.050", ""])
def test_skycells_the_survey_has_not_are_refused(name):
    with pytest.raises(ValueError, match=name.replace(".", r"\.") or "''"):
        SURVEY.skycell(name)


def test_owner_in_a_catalogue_is_the_skycell_in_which_the_position_lies_deepest():
    skycells = [rings.ring_skycell(projection, cell) for projection in (2634, 2635, 2643) for cell in range(100)]
    table = rings.catalogue(as_table(skycells))
    rng = np.random.default_rng(6)
    ra, dec = rng.uniform(0, 60, 60), rng.uniform(85, 89, 60)
    depths = np.array([depth(skycell, ra, dec) for skycell in skycells]).T
    assert (depths.max(axis=1) > 0).sum() > 30
    expected = np.where(depths.max(axis=1) > 0, depths.argmax(axis=1), -1)
    assert np.array_equal(table.owner(ra, dec), expected)


def test_catalogue_of_the_survey_itself_agrees_with_the_rings_inside_cores():
    skycells = [rings.ring_skycell(2180, cell) for cell in range(100)]
    table = rings.catalogue(as_table(skycells).astype(str))
    rng = np.random.default_rng(7)
    ra, dec = 121.7647 + rng.uniform(-2, 2, 2000), rng.uniform(40.5, 43.5, 2000)
    ours = [SURVEY.name_of(number) for number in SURVEY.owner(ra, dec)]
    theirs = [table.name_of(number) for number in table.owner(ra, dec)]
    assert theirs == ours
    assert table.skycell("skycell.2180.055") == skycells[55]


def test_catalogue_leaves_positions_it_does_not_cover_without_owner():
    table = rings.catalogue(as_table([rings.ring_skycell(2180, 55)]))
    assert table.owner([[121.7, 301.7], [0.0, 121.7]], [[42.1, -42.1], [42.1, 60.0]]).tolist() == [[0, -1], [-1, -1]]
    assert table.owner([], []).shape == (0,)


@pytest.mark.parametrize("column", rings.COLUMNS)
def test_a_catalogue_without_a_column_is_refused_by_name(column):
    with pytest.raises(ValueError, match=f"no column {column};"):
        rings.catalogue(as_table([rings.ring_skycell(2180, 55)]).drop(columns=column))


@pytest.mark.parametrize(
    "cell", ["__import__('os').system('touch /tmp/hostile')", "nan", np.inf, None, "", True, "1;2"]
)
def test_a_catalogue_cell_that_is_not_a_number_is_refused_with_row_and_column(cell):
    table = as_table([rings.ring_skycell(2180, 55), rings.ring_skycell(2180, 56)]).astype(object)
    table.loc[1, "CRVAL1"] = cell
    with pytest.raises(ValueError, match="row 1 .* CRVAL1 = "):
        rings.catalogue(table)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("NAME", "skycell.812.050", "not the name of a skycell"),
        ("NAME", 812.05, "not the name of a skycell"),
        ("NAME", "skycell.2180.056", "twice"),
        ("NAXIS1", 0, "NAXIS1, NAXIS2 = 0"),
        ("NAXIS2", 6240.5, "6240.5"),
        ("CRVAL2", 91, "CRVAL2 = 91"),
        ("PC1_1", 0, "singular"),
    ],
)
def test_a_catalogue_row_that_is_no_skycell_is_refused(column, value, message):
    table = as_table([rings.ring_skycell(2180, 56), rings.ring_skycell(2180, 55)]).astype(object)
    table.loc[1, column] = value
    with pytest.raises(ValueError, match=message):
        rings.catalogue(table)


def test_an_empty_catalogue_is_refused():
    with pytest.raises(ValueError, match="no rows"):
        rings.catalogue(as_table([]))


def test_a_skycell_missing_in_the_catalogue_is_named():
    with pytest.raises(ValueError, match="skycell.0812.050"):
        rings.catalogue(as_table([rings.ring_skycell(2180, 55)])).skycell("skycell.0812.050")
