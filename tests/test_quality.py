"""The DQ bits: each is set where its cause is and nowhere else, and no other bit with it."""

import numpy as np
import pytest
from astropy.io import fits
from made_up_chain import (
    RECIPE,
    SIGMA,
    blurred,
    blurred_planes,
    native_places,
    plain,
    sources_at,
    stars_on,
    templates,
    write_ffi,
)
from numpy.testing import assert_array_equal
from scipy.spatial import cKDTree
from test_accuracy import holes_under, read, true_coverage

from syndiff_tasks.chain.plan import plan_ffi
from syndiff_tasks.demo import truth
from syndiff_tasks.geometry.rings import rings_v3
from syndiff_tasks.pixels import bands, saturated_stars, scaling, stars, template
from syndiff_tasks.pixels.mask import DQ, PS1

ALONE = "1727,752,1739,764"  # all of one skycell, and no other projection near
FLAWED = (1732.7, 757.6)  # FFI pixel, not the middle of one
NO_OFFSET = [(0.0, 0.0)]
# Flags travel at least a sigma, and at most so much further: half the gap between points (14 native px) twice, since
# the next point may lie beyond the pixel, half a sample of the blurred plane (6), the block in which the flaw lies and
# the one up to which distances are rounded (4 each).
FURTHER = 2 * 14 + 6 + 4 + 4
LINEAR = scaling.Scaling(0.0, 1.0, None, None, None, 1.0)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    plan = plan_ffi(write_ffi(tmp_path_factory.mktemp("ffi")), ALONE)
    assert len(plan.footprint.skycells) == 1
    return plan


def native_place(plan, x, y):
    """Native pixel of the only skycell of a plan at FFI positions, by astropy."""
    (skycell,) = plan.footprint.skycells
    return native_places(plan.tansip, skycell, x, y)


def flaw(plan, piece):
    """Rows and columns, on a piece, of 3 x 5 native pixels."""
    x, y = (round(float(value)) for value in native_place(plan, *FLAWED))
    return slice(y - piece.y0 - 1, y - piece.y0 + 2), slice(x - piece.x0 - 2, x - piece.x0 + 3)


def distance(plan, flawed):
    """How far each pixel of a plan is, along native x or y, from the nearest flawed native pixel (n, 2) [native px]."""
    inner = np.linspace(-0.5, 0.5, 21)
    region = plan.region
    y, x = np.mgrid[region.y0 : region.y1, region.x0 : region.x1][..., None, None]
    px, py = native_place(plan, *np.broadcast_arrays(x + inner, y + inner[:, None]))
    nearest, _ = cKDTree(flawed).query(np.stack([px, py], axis=-1), p=np.inf)
    return nearest.min(axis=(2, 3)) - 0.5


def written(root, plan, groups, oversampling=1):
    (path,) = templates(root, plan, groups, NO_OFFSET, oversampling)
    return path


def bands_of(piece):
    """The four bands of a piece of even sky."""
    shape = piece.y1 - piece.y0, piece.x1 - piece.x0
    one, good = np.ones(shape, np.float32), np.zeros(shape, np.uint16)
    return {name: bands.Band(one.copy(), one.copy(), good.copy(), LINEAR, LINEAR) for name, _ in RECIPE.weights}


def saturate(band, where):
    band["i"].mask[where] = PS1.SAT


def starcore(band, where):
    band["y"].mask[where] = PS1.STARCORE


def lose_image(band, where):
    band["z"].image[where] = np.nan


def lose_variance(band, where):
    band["r"].variance[where] = np.nan


def suspect(band, where):
    for one in band.values():
        one.mask[where] = PS1.SUSPECT | PS1.GHOST


def marked(band, where):
    for one in band.values():
        one.mask[where] = PS1.MARK


def blank(band, where):
    for one in band.values():
        one.image[where] = np.nan


def reject_one(band, where):
    band["i"].mask[where] = PS1.CR
    band["i"].image[where] = 5


def reject_all(band, where):
    for one in band.values():
        one.mask[where] = PS1.DETECTOR
        one.image[where] = 5


CAUSES = {
    saturate: (DQ.SAT_PS1, 3 * SIGMA),
    starcore: (DQ.IGNORED_BIT, SIGMA),
    lose_image: (DQ.BAND_MISSING, SIGMA),
    lose_variance: (DQ.BAND_MISSING, SIGMA),
    suspect: (DQ.SUSPECT_PS1, 3 * SIGMA),
    marked: (DQ(0), SIGMA),
    reject_one: (DQ.BAND_MISSING, SIGMA),
    # The even sky of these tests is bright: its noise is as large as itself, so a gap has no bright rim.
    blank: (DQ.PS1_GAP, 3 * SIGMA),
    reject_all: (DQ.PS1_GAP, 3 * SIGMA),
}


def assert_exactly(dq, bit, away, reach):
    """The bit, and nothing else, within reach of the flaw; nothing beyond; both are there."""
    near, far = away <= reach, away > reach + FURTHER
    assert near.sum() >= 4 and far.sum() >= 50
    assert_array_equal(dq[near], bit)
    assert_array_equal(dq[far], 0)
    assert set(np.unique(dq)) <= {0, int(bit)}


@pytest.mark.parametrize("cause", CAUSES)
def test_a_flaw_of_a_band_sets_its_bit_as_far_as_its_light_reaches(alone, tmp_path, cause):
    flawed = []

    def planes(piece):
        band, where = bands_of(piece), flaw(alone, piece)
        cause(band, where)
        rows, columns = np.mgrid[where]
        flawed.append(np.stack([columns.ravel() + piece.x0, rows.ravel() + piece.y0], axis=-1))
        return bands.combine(band, dict(RECIPE.weights), reject=int(PS1.CR | PS1.DETECTOR))

    path = written(tmp_path, alone, blurred_planes(tmp_path, alone, planes))
    bit, reach = CAUSES[cause]
    assert_exactly(fits.getdata(path, "DQ"), bit, distance(alone, flawed[0]), reach)
    assert np.isfinite(read(path)).all()


def test_a_repaired_star_sets_its_bit_and_a_kept_one_tells_that_it_is_saturated(alone, tmp_path):
    sources = sources_at(alone.tansip, [FLAWED[0]], [FLAWED[1]], 11.0)
    lost = []

    def planes(piece, how):
        flux = stars_on(piece, sources)
        saturated = flux > 3000
        whole = plain(np.where(saturated, np.float32(np.nan), flux))
        whole.mask[saturated] = PS1.SAT
        x, y = native_place(alone, *([value] for value in FLAWED))
        star = stars.Stars(np.array([7]), x - piece.x0, y - piece.y0, np.array([11.0]))
        repaired = saturated_stars.repair_saturated_stars(whole, star, how)
        assert len(repaired) == (how == "repair")
        rows, columns = np.nonzero(saturated)
        lost.append(np.stack([columns + piece.x0, rows + piece.y0], axis=-1))
        return whole

    for how, bit, reach in (("repair", DQ.STAR_REPAIRED, SIGMA), ("keep", DQ.SAT_PS1 | DQ.PS1_GAP, 3 * SIGMA)):
        root = tmp_path / how
        root.mkdir()
        path = written(root, alone, blurred_planes(root, alone, lambda piece, how=how: planes(piece, how)))
        assert_exactly(fits.getdata(path, "DQ"), bit, distance(alone, lost[-1]), reach)


def test_coverage_that_is_low_or_none_is_told_by_its_bit_and_takes_the_flux(alone, tmp_path):
    holes = holes_under(alone, {(1730, 755): (600, 560)})
    (box,) = holes[alone.footprint.skycells[0].name]

    def painted(piece):
        flux = np.ones((piece.y1 - piece.y0, piece.x1 - piece.x0), np.float32)
        x0, y0, x1, y1 = box
        flux[y0 - piece.y0 : y1 - piece.y0, x0 - piece.x0 : x1 - piece.x0] = np.nan
        return flux

    path = written(tmp_path, alone, blurred(tmp_path, alone, painted))
    covered = true_coverage(alone, holes, NO_OFFSET[0])
    dq = fits.getdata(path, "DQ")
    assert ((dq[covered < 0.999] & DQ.PS1_GAP) != 0).all()
    dq &= ~np.int32(DQ.PS1_GAP)
    # On either side of 1e-4 and of min_coverage, 0.5, by more than coverage may be wrong.
    for low, high, bit in ((-1, 1e-5, DQ.NO_PS1), (1e-3, 0.499, DQ.LOW_COVERAGE), (0.501, 2, DQ(0))):
        some = (covered > low) & (covered < high)
        assert some.sum() >= 4
        assert_array_equal(dq[some], bit)
    assert_array_equal(np.isnan(read(path)), dq != 0)
    assert_array_equal(np.isnan(read(path, "VARIANCE")), dq != 0)


@pytest.mark.parametrize("oversampling", [1, 2])
def test_pixels_that_see_no_sky_are_collateral_and_nothing_else(tmp_path, oversampling):
    plan = plan_ffi(write_ffi(tmp_path), "40,0,50,6")  # science begins at column 44
    even = blurred(tmp_path, plan, lambda piece: np.ones((piece.y1 - piece.y0, piece.x1 - piece.x0), np.float32))
    path = written(tmp_path, plan, even, oversampling)
    dq = fits.getdata(path, "DQ")
    assert_array_equal(dq[:, : 4 * oversampling], DQ.COLLATERAL)
    assert_array_equal(dq[:, 4 * oversampling :], 0)
    assert_array_equal(np.isnan(read(path)), dq != 0)


def test_pixels_whose_light_crosses_a_border_of_projections_are_told_and_others_not(tmp_path):
    plan = plan_ffi(write_ffi(tmp_path), "1705,752,1721,764")
    even = blurred(tmp_path, plan, lambda piece: np.ones((piece.y1 - piece.y0, piece.x1 - piece.x0), np.float32))
    dq = fits.getdata(written(tmp_path, plan, even), "DQ")
    region = plan.region
    # Two pixels beyond the region as well: its edge is no end of the sky.
    y, x = np.mgrid[region.y0 - 2 : region.y1 + 2, region.x0 - 2 : region.x1 + 2]
    survey = rings_v3()
    owners = survey.owner(*truth.astropy_wcs(plan.tansip).all_pix2world(x.ravel(), y.ravel(), 0))
    projection = np.array([survey.name_of(owner).split(".")[1] for owner in owners]).reshape(x.shape)
    assert len(np.unique(projection)) == 2
    expected = np.zeros(dq.shape, np.uint8)
    for row, column in np.ndindex(dq.shape):
        about = projection[row : row + 5, column : column + 5]
        if len(np.unique(about)) > 1:
            expected[row, column] = DQ.PROJECTION_SEAM
    assert_array_equal(dq, expected)
    assert 20 < np.count_nonzero(dq) < dq.size - 20


# --- blank and apply_quality_flags ------------------------------------------------------------------------------------


def good(shape=(3, 4), coverage=1.0, dq=0):
    """Planes in which every pixel has the same data."""
    flux, variance, covered, count, masked = (np.full(shape, value, np.float32) for value in (5, 2, coverage, 9, 0))
    return template.Sampled(flux, variance, covered, count, masked, np.full(shape, dq, np.uint8))


def flagged(planes, science=None, seam=None, min_coverage=0.5):
    shape = planes.flux.shape
    science = np.ones(shape, bool) if science is None else science
    return template.apply_quality_flags(planes, science, np.zeros(shape, bool) if seam is None else seam, min_coverage)


def test_blank_planes_have_no_data_and_say_so():
    planes = template.blank((2, 5))
    assert {plane.shape for plane in planes} == {(2, 5)}
    assert [plane.dtype for plane in planes] == [np.float32] * 5 + [np.uint16]
    assert np.isnan(planes.flux).all() and np.isnan(planes.variance).all()
    for plane in (planes.coverage, planes.count, planes.masked):
        assert_array_equal(plane, 0)
    assert_array_equal(planes.dq, DQ.NO_PS1)
    assert not any(np.shares_memory(a, b) for n, a in enumerate(planes) for b in planes[:n])


def test_pixels_without_skycell_stay_without_data_and_are_not_called_low():
    planes = flagged(template.blank((2, 3)), min_coverage=1.0)
    assert_array_equal(planes.dq, DQ.NO_PS1)
    assert np.isnan(planes.flux).all()


def test_good_pixels_are_left_alone():
    planes = flagged(good())
    for plane, before in zip(planes, good(), strict=True):
        assert_array_equal(plane, before)


def test_coverage_below_the_least_takes_the_flux_and_the_least_itself_does_not():
    planes = good()
    planes.coverage[0] = [0.25, np.nextafter(np.float32(0.5), np.float32(0)), 0.5, 0.75]
    flagged(planes)
    assert_array_equal(planes.dq[0], [DQ.LOW_COVERAGE, DQ.LOW_COVERAGE, 0, 0])
    assert_array_equal(np.isnan(planes.flux[0]), [True, True, False, False])
    assert_array_equal(np.isnan(planes.variance[0]), [True, True, False, False])
    assert_array_equal(planes.coverage[0, :2] > 0, True)
    assert_array_equal(planes.dq[1:], 0)
    assert_array_equal(flagged(good(coverage=0.01), min_coverage=0.0).dq, 0)


def test_what_a_pixel_without_sky_had_is_not_told():
    science = np.ones((3, 4), bool)
    science[:, 0] = False
    planes = flagged(good(coverage=0.1, dq=DQ.SAT_PS1), science, np.ones((3, 4), bool))
    assert_array_equal(planes.dq[:, 0], DQ.COLLATERAL)
    assert_array_equal(planes.dq[:, 1:], DQ.SAT_PS1 | DQ.LOW_COVERAGE | DQ.PROJECTION_SEAM)
    assert np.isnan(planes.flux).all() and np.isnan(planes.variance).all()
    kept = flagged(good(), science)
    assert_array_equal(np.isnan(kept.flux), ~science)


def test_a_seam_is_told_and_keeps_the_flux():
    seam = np.zeros((3, 4), bool)
    seam[1, 2] = True
    planes = flagged(good(), seam=seam)
    assert_array_equal(planes.dq, np.where(seam, DQ.PROJECTION_SEAM, 0))
    assert np.isfinite(planes.flux).all()


def test_the_header_of_dq_says_what_each_bit_means(alone, tmp_path):
    even = blurred(tmp_path, alone, lambda piece: np.ones((piece.y1 - piece.y0, piece.x1 - piece.x0), np.float32))
    cards = repr(fits.getheader(written(tmp_path, alone, even), "DQ"))
    assert all(bit.name in cards for bit in DQ)
