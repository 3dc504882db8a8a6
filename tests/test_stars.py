import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import roots_genlaguerre

from syndiff_tasks.demo import sky
from syndiff_tasks.demo.gaussians import Gaussians, Mixture, deposit, gaussian_star
from syndiff_tasks.pixels.bands import Combined
from syndiff_tasks.pixels.mask import PS1, REPAIRED
from syndiff_tasks.pixels.photometry import expected_counts, tess_magnitude
from syndiff_tasks.pixels.saturated_stars import repair_saturated_stars
from syndiff_tasks.pixels.star_psf import build_psf
from syndiff_tasks.pixels.stars import RADIUS, Stars

SHAPE = (300, 320)
SATURATION = 3300.0  # counts/s: that of real PS1 stacks in r, 2,025,376 counts in 640 s
SKY_NOISE = 0.16  # counts/s per pixel, as the weighted sum of r, i, z, y of docs/facts.md §2
CENTRE = (160.3, 149.6)


def moffat_star(fwhm, beta):
    """Star image with the wings of a Moffat profile, as a sum of Gaussians.

    (1 + r^2/a^2)^-beta is the integral of exp(-t r^2/a^2) over a gamma distribution in t; generalised Gauss-Laguerre
    quadrature of that integral gives the Gaussians.
    """
    t, weight = roots_genlaguerre(8, beta - 2)
    return Mixture(weight / weight.sum(), fwhm**2 / (4 * (2 ** (1 / beta) - 1)) / (2 * t))


GAUSSIAN, MOFFAT = gaussian_star(4.4), moffat_star(4.4, beta=3)


def test_the_moffat_star_of_these_tests_encloses_the_flux_of_a_moffat_profile():
    radius = np.array([1.0, 2.2, 5.0, 10.0, 20.0])
    mixed = (MOFFAT.fractions * (1 - np.exp(-(radius[:, None] ** 2) / (2 * MOFFAT.variances)))).sum(axis=1)
    core_squared = 4.4**2 / (4 * (2 ** (1 / 3) - 1))
    assert_allclose(mixed, 1 - (1 + radius**2 / core_squared) ** -2, atol=0.01)


def field(seed=0):
    """Stars for the PSF, 14.3 to 16.5 mag, on a loose grid that leaves the middle free."""
    rng = np.random.default_rng(seed)
    places = [(x, y) for y in range(48, 270, 50) for x in range(48, 290, 50) if math.hypot(x - 160, y - 150) > 75]
    jitter = rng.uniform(-4, 4, (len(places), 2))
    return [(x + a, y + b, m) for (x, y), (a, b), m in zip(places, jitter, rng.uniform(14.3, 16.5, 99), strict=False)]


def light(rows, star=GAUSSIAN, shape=SHAPE):
    """The stars' noiseless image."""
    x, y, magnitude = np.array(rows, float).reshape(-1, 3).T
    parts = [
        (x, y, fraction * 10 ** (-0.4 * (magnitude - 25)), *(np.full(x.size, v) for v in (variance, 0.0, variance)))
        for fraction, variance in zip(*star, strict=True)
    ]
    image = np.zeros(shape, np.float32)
    deposit(image, Gaussians(*(np.ascontiguousarray(np.concatenate(column)) for column in zip(*parts, strict=True))))
    return image.astype(np.float64)


def observed(truth, seed=0):
    """Planes of a noiseless image: noise, saturation, a blank border of 3 px."""
    variance = SKY_NOISE**2 + truth / 2000
    flux = truth + np.sqrt(variance) * np.random.default_rng(seed).standard_normal(truth.shape)
    mask = np.where(truth > SATURATION, PS1.SAT | PS1.STARCORE, 0) | np.where(truth > SATURATION / 4, PS1.STARCORE, 0)
    mask = mask.astype(np.uint16)
    frame = np.ones(truth.shape, bool)
    frame[3:-3, 3:-3] = False
    mask[frame] |= PS1.BLANK.value
    flux[frame | (truth > SATURATION)] = np.nan
    variance[np.isnan(flux)] = np.nan
    missing = np.where(np.isnan(flux), 15, 0).astype(np.uint8)
    return Combined(flux.astype(np.float32), variance.astype(np.float32), mask, missing)


def catalog(rows):
    x, y, magnitude = np.array(rows, float).reshape(-1, 3).T
    return Stars(np.arange(100, 100 + x.size), x, y, magnitude)


def copied(planes):
    return Combined(*(plane.copy() for plane in planes))


def about(place, radius, shape=SHAPE):
    return np.hypot(np.arange(shape[1])[None, :] - place[0], np.arange(shape[0])[:, None] - place[1]) <= radius


@pytest.mark.parametrize("star", [GAUSSIAN, MOFFAT], ids=["gaussian", "moffat"])
@pytest.mark.parametrize("magnitude", [10.5, 11.5, 12.2])
def test_a_repaired_star_carries_its_true_flux_to_5_percent(magnitude, star):
    rows = [*field(), (*CENTRE, magnitude)]
    truth = light(rows, star)
    planes = observed(truth)
    lost = np.isnan(planes.flux) & about(CENTRE, 20)
    assert lost.any()
    (row,) = repair_saturated_stars(planes, catalog(rows), "repair")
    near = about(CENTRE, 25)
    assert_allclose(planes.flux[near].sum(), truth[near].sum(), rtol=0.05)
    assert_allclose(row.total, 10 ** (-0.4 * (magnitude - 25)), rtol=0.05)
    assert_allclose(row.flux, truth[lost].sum(), rtol=0.1)
    assert_allclose([row.x, row.y], CENTRE, atol=0.1)
    assert row.how == "psf"
    assert row.source_id == 100 + len(rows) - 1


def test_the_filled_pixels_are_those_of_the_star_itself():
    rows = [*field(), (*CENTRE, 12.0)]
    truth = light(rows)
    planes = observed(truth)
    lost = np.isnan(planes.flux) & about(CENTRE, 20)
    repair_saturated_stars(planes, catalog(rows), "repair")
    assert_allclose(planes.flux[lost], truth[lost], rtol=0.02)


def test_only_lost_pixels_of_the_star_change_and_each_is_marked():
    rows = [*field(), (*CENTRE, 12.0)]
    before = observed(light(rows))
    before.missing[before.missing == 0] = 4  # z is missing everywhere
    after = copied(before)
    repair_saturated_stars(after, catalog(rows), "repair")
    lost = np.isnan(before.flux) & about(CENTRE, 20)
    assert_array_equal(after.flux[~lost], before.flux[~lost])
    assert_array_equal(after.variance[~lost], before.variance[~lost])
    assert_array_equal(after.mask[~lost], before.mask[~lost])
    assert_array_equal(after.missing[~lost], before.missing[~lost])
    assert_array_equal(after.missing[lost], REPAIRED | 4)
    assert_array_equal(after.mask[lost], PS1.STARCORE.value)
    assert np.isfinite(after.variance[lost]).all()


def test_a_damaged_and_an_undamaged_neighbour_leave_the_flux_right():
    pair = [(*CENTRE, 12.0), (CENTRE[0] + 6.2, CENTRE[1] + 3.1, 12.7), (CENTRE[0] - 7.0, CENTRE[1] + 4.4, 14.2)]
    rows = [*field(), *pair]
    truth = light(rows)
    planes = observed(truth)
    repaired = repair_saturated_stars(planes, catalog(rows), "repair")
    assert [row.source_id for row in repaired] == [100 + len(rows) - 3, 100 + len(rows) - 2]
    assert_allclose([row.total for row in repaired], expected_counts([12.0, 12.7]), rtol=0.05)
    near = about(CENTRE, 25)
    assert_allclose(planes.flux[near].sum(), truth[near].sum(), rtol=0.03)


def test_a_neighbour_whose_magnitude_is_wrong_is_fitted_along():
    rows = [*field(), (*CENTRE, 12.0), (CENTRE[0] + 8.0, CENTRE[1], 13.6)]
    planes = observed(light(rows))
    listed = [*rows[:-1], (*rows[-1][:2], 13.9)]
    assert_allclose(
        repair_saturated_stars(planes, catalog(listed), "repair")[0].total, expected_counts(12.0), rtol=0.03
    )


def test_an_unknown_neighbour_and_bright_spikes_do_not_sway_the_flux():
    rows = [*field(), (*CENTRE, 12.0), (CENTRE[0] + 13.0, CENTRE[1] - 5.0, 14.5)]
    planes = observed(light(rows))
    row, column = (round(c) for c in CENTRE[::-1])
    for spike in (np.s_[row - 1 : row + 2, column - 60 : column + 61], np.s_[row - 60 : row + 61, column : column + 2]):
        planes.flux[spike] += 200
        planes.mask[spike] |= PS1.SPIKE.value
    assert_allclose(
        repair_saturated_stars(planes, catalog(rows[:-1]), "repair")[0].total, expected_counts(12.0), rtol=0.05
    )


@pytest.mark.parametrize("x", [-1.4, 0.3, 4.8])
def test_a_star_at_the_border_is_repaired_inside_the_frame(x):
    rows = [*field(), (x, 97.3, 12.3)]
    truth = light(rows)
    planes = observed(truth)
    (row,) = repair_saturated_stars(planes, catalog(rows), "repair")
    near = about((x, 97.3), 6)
    assert_allclose(planes.flux[near].sum(), truth[near].sum(), rtol=0.05)
    assert_allclose(row.total, expected_counts(12.3), rtol=0.05)


def test_a_star_whose_core_is_all_gone_takes_its_flux_from_the_catalog():
    rows = [*field(), (*CENTRE, 11.0)]
    truth = light(rows)
    planes = observed(truth)
    planes.flux[about(CENTRE, 31)] = np.nan
    (row,) = repair_saturated_stars(planes, catalog(rows), "repair")
    assert row.how == "catalog"
    assert (row.x, row.y) == CENTRE
    assert_allclose(np.nansum(planes.flux[about(CENTRE, 31)]), expected_counts(11.0), rtol=0.05)
    assert np.isnan(planes.flux[about(CENTRE, 31)]).any()  # what the star never outshone stays lost


def test_good_stars_calibrate_the_catalog():
    # A Vega magnitude taken for an AB one is 0.36 mag too bright.
    rows = [*field(), (*CENTRE, 11.5)]
    planes = observed(light(rows))
    planes.flux[about(CENTRE, 31)] = np.nan
    stars = catalog(rows)
    (row,) = repair_saturated_stars(planes, stars._replace(magnitude=stars.magnitude - 0.36), "repair")
    assert row.how == "catalog"
    assert_allclose(row.total, expected_counts(11.5), rtol=0.03)


def test_a_star_that_has_moved_is_repaired_where_it_was():
    rows = [*field(), (*CENTRE, 12.0)]
    planes = observed(light(rows))
    stars = catalog([*rows[:-1], (CENTRE[0] + 1.0, CENTRE[1] - 0.7, 12.0)])
    (row,) = repair_saturated_stars(planes, stars, "repair")
    assert_allclose([row.x, row.y], CENTRE, atol=0.05)
    assert_allclose(row.total, expected_counts(12.0), rtol=0.05)


def test_a_removed_star_leaves_sky_behind_and_its_neighbour_whole():
    friend = (CENTRE[0] + 14.0, CENTRE[1] + 2.0, 15.0)
    rows = [*field(), friend, (*CENTRE, 12.0)]
    before = observed(light(rows))
    after = copied(before)
    (row,) = repair_saturated_stars(after, catalog(rows), "remove")
    rest = light([*field(), friend])
    near = about(CENTRE, 32)
    assert_allclose(after.flux[near].sum(), rest[near].sum(), atol=0.01 * expected_counts(12.0))
    assert_allclose(after.flux[about(friend[:2], 6)].sum(), rest[about(friend[:2], 6)].sum(), rtol=0.05)
    lost = np.isnan(before.flux) & near
    assert_allclose(after.flux[lost], rest[lost], atol=0.5)
    assert row.how == "removed"
    assert_allclose(row.flux, (after.flux - before.flux)[near & ~lost].sum(dtype=np.float64), rtol=1e-4)
    assert (after.missing[near] & REPAIRED).all()
    assert not (after.missing[~about(CENTRE, 34)] & REPAIRED).any()


def test_two_removed_stars_leave_nothing_of_each_other():
    pair = [(*CENTRE, 12.0), (CENTRE[0] + 7.0, CENTRE[1] + 3.0, 12.4)]
    planes = observed(light([*field(), *pair]))
    repair_saturated_stars(planes, catalog([*field(), *pair]), "remove")
    near = about(CENTRE, 20)
    assert abs(planes.flux[near].sum()) < 0.02 * expected_counts(12.0)


def test_keep_changes_nothing():
    rows = [*field(), (*CENTRE, 12.0)]
    before = observed(light(rows))
    after = copied(before)
    assert repair_saturated_stars(after, catalog(rows), "keep") == []
    for one, other in zip(before, after, strict=True):
        assert_array_equal(one, other)


def test_another_word_is_refused():
    with pytest.raises(ValueError, match="saturated_stars is 'mend': choose one of repair, remove, keep"):
        repair_saturated_stars(observed(light(field())), catalog(field()), "mend")


def test_pixels_to_be_excluded_are_lost_ones():
    rows = [*field(), (*CENTRE, 12.6)]
    truth = light(rows)
    planes = observed(truth)
    core = (planes.mask & PS1.STARCORE.value != 0) & about(CENTRE, 20)
    planes.flux[core & np.isfinite(planes.flux)] *= 0.5
    repair_saturated_stars(planes, catalog(rows), "repair", PS1.STARCORE.value)
    assert_allclose(planes.flux[core], truth[core], rtol=0.05)
    assert not (planes.mask[core] & (PS1.STARCORE | PS1.SAT).value).any()


def test_faint_stars_in_a_gap_and_whole_bright_ones_are_left_alone():
    rows = [*field(), (*CENTRE, 16.0)]
    before = observed(light(rows))
    before.flux[140:160, :] = np.nan
    after = copied(before)
    assert repair_saturated_stars(after, catalog(rows), "repair") == []
    assert_array_equal(after.flux, before.flux)


def test_the_error_of_what_was_put_in_covers_the_truth():
    pulls = []
    for seed in range(8):
        rows = [*field(seed), (CENTRE[0] + seed / 8, CENTRE[1] - seed / 9, 11.6 + seed / 8)]
        truth = light(rows, MOFFAT)
        planes = observed(truth, seed)
        repair_saturated_stars(planes, catalog(rows), "repair")
        put = (planes.missing & REPAIRED) != 0
        error = math.sqrt(planes.variance[put].sum(dtype=np.float64))
        pulls.append((planes.flux[put].sum(dtype=np.float64) - truth[put].sum()) / error)
        assert 0.01 < error / truth[put].sum() < 0.1
    assert np.abs(pulls).max() < 3


def test_without_good_stars_the_catalog_says_it_all():
    rows = [(*CENTRE, 12.0)]
    truth = light(rows)
    planes = observed(truth)
    (row,) = repair_saturated_stars(planes, catalog(rows), "repair")
    assert row.how == "catalog"
    assert_allclose(planes.flux[about(CENTRE, 25)].sum(), truth[about(CENTRE, 25)].sum(), rtol=0.05)


def test_stars_without_magnitude_and_far_off_the_frame_do_no_harm():
    rows = [*field(), (*CENTRE, 12.0)]
    strange = [(CENTRE[0] + 1, CENTRE[1], math.nan), (-4000.0, 1e6, 5.0), (math.nan, math.nan, 8.0)]
    one, other = observed(light(rows)), observed(light(rows))
    assert repair_saturated_stars(one, catalog(rows), "repair") == repair_saturated_stars(
        other, catalog([*rows, *strange]), "repair"
    )
    assert_array_equal(one.flux, other.flux)


@pytest.mark.parametrize("star", [GAUSSIAN, MOFFAT], ids=["gaussian", "moffat"])
def test_the_psf_is_that_of_the_stars(star):
    rows = [*field(), (160.0, 150.0, 12.0)]
    psf = build_psf(observed(light(rows, star)), catalog(rows))
    alone = light([(32.0, 32.0, 25.0)], star, (65, 65))
    assert_allclose(psf.image, alone, atol=0.005 * alone.max())
    assert_allclose(psf.image.sum(), 1, rtol=1e-12)
    assert_allclose(psf.calibration, 1, atol=0.01)
    assert psf.stars >= 15


def test_galaxies_are_not_taken_for_psf_stars():
    wide = gaussian_star(9.0)
    rows = field()
    truth = light(rows[:-6]) + light(rows[-6:], wide)
    psf = build_psf(observed(truth), catalog(rows))
    assert psf.stars == len(rows) - 6
    alone = light([(32.0, 32.0, 25.0)], GAUSSIAN, (65, 65))
    assert_allclose(psf.image, alone, atol=0.005 * alone.max())


def test_the_tess_magnitude_is_that_of_the_relation_the_demo_inverts():
    magnitude = np.array([8.0, 12.5, 17.0, 20.0])
    table = sky.source_table([1.0] * 4, [2.0] * 4, magnitude, [3200.0, 4000.0, 5772.0, 9000.0])
    gaia = (table[f"phot_{band}_mean_mag"].to_numpy() for band in ("g", "bp", "rp"))
    assert_allclose(tess_magnitude(*gaia), magnitude, atol=1e-12)


def test_without_a_colour_the_tess_magnitude_is_g_less_0_430():
    assert_allclose(tess_magnitude([10.0, 11.0], [np.nan, 10.2], [9.5, np.nan]), [9.57, 10.57])


def test_a_star_of_the_zero_point_gives_one_count_a_second():
    assert_allclose(expected_counts([25.0, 22.5, 20.0]), [1, 10, 100])


def test_the_radius_of_the_psf_holds_a_moffat_star():
    assert light([(100.0, 100.0, 25.0)], MOFFAT, (201, 201))[about((100, 100), RADIUS, (201, 201))].sum() > 0.99
