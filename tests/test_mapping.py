import numpy as np
import pytest
import shapely
from astropy_skycell import SURVEY
from made_up_chain import native_places
from made_up_ffi import astropy_wcs, tess_wcs
from numba import config
from numpy.testing import assert_allclose, assert_array_equal

from syndiff_tasks.geometry import mapping
from syndiff_tasks.geometry.ffi import FRAME_SHAPE
from syndiff_tasks.geometry.region import Region
from syndiff_tasks.geometry.skycell import skycell_wcs
from syndiff_tasks.geometry.tansip import cropped, pixel_to_sky

POINTINGS = [(216.75, 56.4, 20.0), (0.3, 12.0, 130.0), (40.9, 87.1, 250.0)]
CORNERS = [(44, 0), (2091, 0), (2091, 2047), (44, 2047), (1000, 1000)]


def skycell_at(tansip, x, y):
    return SURVEY.skycell(SURVEY.name_of(SURVEY.owner(*pixel_to_sky(tansip, x, y))))


@pytest.mark.parametrize("pointing", POINTINGS)
def test_ps1_to_tess_inverts_the_mapping_of_astropy(pointing):
    tansip = tess_wcs(*pointing)
    rng = np.random.default_rng(1)
    for corner in CORNERS:
        skycell = skycell_at(tansip, *corner)
        x, y = np.array(corner)[:, None] + rng.uniform(-60, 60, (2, 100))
        px, py = native_places(tansip, skycell, x, y)
        assert_allclose(mapping.ps1_to_tess(tansip, skycell, px, py), (x, y), atol=3e-8)


def test_homography_converts_undistorted_offsets_to_native_pixels():
    plain = tess_wcs()._replace(a=np.zeros((1, 1)), b=np.zeros((1, 1)))
    skycell = skycell_at(plain, 300, 400)
    matrix = mapping.homography(plain, skycell)
    u, v = 310.25 - 1044, 390.5 - 1000
    px, py, w = matrix @ (u, v, 1)
    assert_allclose((px / w, py / w), native_places(plain, skycell, 310.25, 390.5), atol=1e-6)


@pytest.mark.parametrize("pointing", POINTINGS)
def test_interpolation_between_nodes_is_within_5e_6_tess_pixels(pointing):
    tansip = tess_wcs(*pointing)
    rng = np.random.default_rng(2)
    for corner in CORNERS:
        skycell = skycell_at(tansip, *corner)
        grid = mapping.ps1_to_tess_nodes(tansip, skycell)
        px, py = rng.uniform(0, (skycell.nx - 1, skycell.ny - 1), (3000, 2)).T
        px[:4], py[:4] = [0, 0, skycell.nx - 1, skycell.nx - 1], [0, skycell.ny - 1, 0, skycell.ny - 1]
        sky = skycell_wcs(skycell).all_pix2world(px, py, 0)
        exact = np.array(astropy_wcs(tansip).all_world2pix(*sky, 0, tolerance=1e-8, maxiter=60))
        error = np.hypot(*(np.array(mapping.interpolate(grid, px, py)) - exact)).max()
        # A template needs 1e-3; the index map needs the close nodes.
        assert error < 5e-6


@pytest.mark.skipif(bool(config.DISABLE_JIT), reason="a whole skycell needs compiled kernels")
@pytest.mark.parametrize("corner", [(60, 20), (1000, 1000)])
def test_at_most_1e_5_of_the_pixels_of_an_index_map_differ_from_the_exact_map(corner):
    tansip = tess_wcs(*POINTINGS[0])
    skycell = skycell_at(tansip, *corner)
    index = mapping.pixel_index_map(tansip, skycell, FRAME_SHAPE)
    assert index.dtype == np.int32
    assert index.shape == (skycell.ny, skycell.nx)
    rows = np.arange(0, skycell.ny, 17)
    py, px = np.meshgrid(rows, np.arange(skycell.nx), indexing="ij")
    x, y = (np.floor(c + 0.5).astype(int) for c in mapping.ps1_to_tess(tansip, skycell, px, py))
    seen = (x >= 44) & (x < 2092) & (y >= 0) & (y < 2048)
    expected = np.where(seen, y * 2136 + x, -1)
    assert (index[rows] != expected).mean() <= 1e-5
    # The skycell at the corner is partly off the science pixels.
    assert seen.all() == (corner == (1000, 1000))


def test_index_map_is_minus_one_where_the_ffi_is_far_away():
    skycell = SURVEY.skycell("skycell.1322.055")._replace(nx=700, ny=500)
    index = mapping.pixel_index_map(tess_wcs(), skycell, FRAME_SHAPE)
    assert (index == -1).all()


def test_index_map_of_a_cutout_counts_pixels_of_the_cutout():
    tansip = tess_wcs()
    skycell = skycell_at(tansip, 700, 800)._replace(nx=320, ny=289)
    x, y = (int(round(float(c))) for c in mapping.ps1_to_tess(tansip, skycell, 160, 144))
    cut = cropped(tansip, x - 1, y - 1)
    index = mapping.pixel_index_map(cut, skycell, (3, 2), Region(0, 0, 2, 3))
    full = mapping.pixel_index_map(tansip, skycell, FRAME_SHAPE)
    j, i = np.divmod(full, 2136)
    inside = (i >= x - 1) & (i < x + 1) & (j >= y - 1) & (j < y + 2)
    assert np.array_equal(index, np.where(inside, (j - y + 1) * 2 + i - x + 1, -1))
    assert set(np.unique(index)) == set(range(-1, 6)) and index[144, 160] == 1 * 2 + 1


def test_native_positions_of_a_grid_agree_with_astropy():
    tansip = tess_wcs()
    for corner in CORNERS:
        skycell = skycell_at(tansip, *corner)
        x, y = corner[0] + np.array([-0.7, 0.0, 0.3, 40.1]), corner[1] + np.array([0.2, 1.0, -3.0])
        found = mapping.native_positions(tansip, skycell, x, y, np.zeros(3, int), np.full(3, 4))
        px, py = native_places(tansip, skycell, *np.meshgrid(x, y))
        assert_allclose(found.px, px, atol=2e-6)
        assert_allclose(found.py, py, atol=2e-6)


def test_columns_outside_start_and_stop_are_blank():
    tansip = tess_wcs()
    skycell = skycell_at(tansip, 60, 20)
    lattice = np.arange(60.0, 65), np.arange(20.0, 23)
    whole = mapping.native_positions(tansip, skycell, *lattice, np.zeros(3, int), np.full(3, 5))
    some = mapping.native_positions(tansip, skycell, *lattice, np.array([0, 2, 3]), np.array([0, 5, 4]))
    wanted = np.array([[0, 0, 0, 0, 0], [0, 0, 1, 1, 1], [0, 0, 0, 1, 0]], bool)
    for plane, full, blank in zip(some, whole, (np.nan, np.nan, 0.0), strict=True):
        assert_array_equal(plane, np.where(wanted, full, blank))


def test_integrated_areas_equal_the_area_within_the_mapped_edges_of_a_pixel():
    tansip = tess_wcs()
    at, weight = np.polynomial.legendre.leggauss(4)
    for corner in CORNERS:
        skycell = skycell_at(tansip, *corner)
        lattice = corner[0] - 0.2 + at / 2, corner[1] - 0.1 + at / 2
        area = mapping.native_positions(tansip, skycell, *lattice, np.zeros(4, int), np.full(4, 4)).area
        along = np.linspace(-0.5, 0.5, 101)
        edge_x = np.concatenate([along, np.full(101, 0.5), -along, np.full(101, -0.5)]) + corner[0] - 0.2
        edge_y = np.concatenate([np.full(101, -0.5), along, np.full(101, 0.5), -along]) + corner[1] - 0.1
        outline = shapely.Polygon(np.stack(native_places(tansip, skycell, edge_x, edge_y), axis=1))
        assert weight @ area @ weight / 4 == pytest.approx(outline.area, rel=1e-7)


def test_jacobian_and_pixel_scale_agree_with_finite_differences():
    tansip = tess_wcs()
    for corner in CORNERS:
        skycell = skycell_at(tansip, *corner)
        px, py = np.array([3000.0, 3002, 3001, 3001]), np.array([2001.0, 2001, 2000, 2002])
        sky = skycell_wcs(skycell).all_pix2world(px, py, 0)
        x, y = astropy_wcs(tansip).all_world2pix(*sky, 0, tolerance=1e-10, maxiter=60)
        expected = np.array([[x[1] - x[0], x[3] - x[2]], [y[1] - y[0], y[3] - y[2]]]) / 2
        assert_allclose(mapping.jacobian(tansip, skycell, 3001, 2001), expected, atol=1e-8)
        centre = mapping.jacobian(tansip, skycell, (skycell.nx - 1) / 2, (skycell.ny - 1) / 2)
        area = abs(centre[0, 0] * centre[1, 1] - centre[0, 1] * centre[1, 0])
        assert mapping.pixel_scale(tansip, skycell) == pytest.approx(area**-0.5, rel=1e-12)
        # 20.5 arcsec of TESS are 82 native px.
        assert 75 < mapping.pixel_scale(tansip, skycell) < 85


def through(matrix, x, y):
    """Return the points to which a homography takes points, and their weights, positive in front of the plane."""
    px, py, w = np.tensordot(matrix, np.stack([x, y, np.ones_like(x)]), axes=1)
    return px / w, py / w, w


def test_plane_homography_agrees_with_astropy_across_projections():
    rng = np.random.default_rng(3)
    here = SURVEY.skycell("skycell.2180.090")
    for name in ("skycell.2180.091", "skycell.2245.005", "skycell.2181.099"):
        there = SURVEY.skycell(name)
        x, y = rng.uniform(0, 6000, (2, 10, 20))
        expected = skycell_wcs(there).all_world2pix(*skycell_wcs(here).all_pix2world(x, y, 0), 0)
        *ours, w = through(mapping.plane_homography(here, there), x, y)
        assert_allclose(ours, expected, atol=1e-5)
        assert (w > 0).all()
        assert_allclose(through(mapping.plane_homography(there, here), *ours)[:2], (x, y), atol=1e-6)


def test_points_behind_the_plane_have_a_negative_weight():
    matrix = mapping.plane_homography(SURVEY.skycell("skycell.1322.055"), SURVEY.skycell("skycell.1367.055"))
    assert matrix[2, 2] < 0
