"""What the frames of a series have in common, and light curves against their baseline."""

import numpy as np
from numpy.testing import assert_allclose

from syndiff_tasks.pixels.series import flux_against_baseline, orbit_residuals, series_residual


def stack(frames=9, ny=70, nx=20):
    """Return frames of noise with gaps."""
    images = np.random.default_rng(3).normal(size=(frames, ny, nx)).astype(np.float32)
    images[np.random.default_rng(4).random(images.shape) < 0.1] = np.nan
    images[:, 3, 4] = np.nan
    return images


def test_the_residual_is_the_median_of_the_good_frames_whatever_the_strips():
    images = stack()
    good = np.array([True] * 6 + [False] * 3)
    expected = np.full(images.shape[1:], np.nan)
    known = np.isfinite(images[good]).any(axis=0)
    expected[known] = np.nanmedian(images[good][:, known], axis=0)
    for rows in (7, 64, 1000):
        assert_allclose(series_residual(images, good, rows=rows), expected, rtol=1e-6)


def test_the_surroundings_of_targets_are_kept_out():
    keep_out = np.zeros((70, 20), bool)
    keep_out[10:17, 5:12] = True
    residual = series_residual(stack(), np.ones(9, bool), keep_out)
    assert np.isnan(residual[keep_out]).all()
    assert np.isnan(residual).sum() == keep_out.sum() + 1


def test_a_series_is_read_from_a_file_in_strips(tmp_path):
    images = stack()
    np.save(tmp_path / "series.npy", images)
    mapped = np.load(tmp_path / "series.npy", mmap_mode="r")
    good = np.ones(9, bool)
    np.testing.assert_array_equal(series_residual(mapped, good, rows=16), series_residual(images, good))


def test_each_orbit_has_its_own_residual_but_a_short_one_shares_that_of_all():
    images = stack(frames=12)
    orbit = np.array([47] * 8 + [48] * 4)
    good = np.ones(12, bool)
    orbits, residuals = orbit_residuals(images, orbit, good)
    assert list(orbits) == [47, 48]
    np.testing.assert_array_equal(residuals[0], series_residual(images[:8], good[:8]))
    np.testing.assert_array_equal(residuals[1], series_residual(images, good))


def test_no_good_frame_gives_no_residual():
    assert np.isnan(series_residual(stack(), np.zeros(9, bool))).all()


def test_the_baseline_is_the_weighted_mean_of_its_frames():
    flux, error = np.array([5.0, 7.0, np.nan, 50.0]), np.array([1.0, 2.0, 1.0, 1.0])
    relative = flux_against_baseline(flux, error, [True, True, True, False])
    assert_allclose(relative.baseline, 5.4)
    assert_allclose(relative.baseline_error, 1 / np.sqrt(1.25))
    assert_allclose(relative.flux, [-0.4, 1.6, np.nan, 44.6])
    nothing = flux_against_baseline(flux, error, [False, False, True, False])
    assert np.isnan(nothing.flux).all() and np.isnan(nothing.baseline)
