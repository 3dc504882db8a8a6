"""Difference images and photometry on an independent sky: the bounds of the benchmark, on a small one."""

from typing import NamedTuple

import lightcurve_sky
import numpy as np
import pytest
from numpy.testing import assert_allclose

from syndiff_tasks.pixels.difference import ImagePair, subtract
from syndiff_tasks.pixels.forced_photometry import SourceFlag, forced_photometry
from syndiff_tasks.pixels.kernel import KernelBasis
from syndiff_tasks.pixels.series import series_residual

BASIS = KernelBasis(3, (), 1)
UNMEASURED = int(SourceFlag.NO_FLUX | SourceFlag.MASKED_PIXELS | SourceFlag.FEW_PIXELS)


class Series(NamedTuple):
    """Frames of a sky, their differences, and fluxes [e/s], errors and truth of shape (frames, targets)."""

    sky: lightcurve_sky.Sky
    frames: list
    differences: list
    residuals: np.ndarray
    rate: np.ndarray
    error: np.ndarray
    systematic: np.ndarray
    truth: np.ndarray
    kind: np.ndarray
    keep_out: np.ndarray


def subtract_frame(frame, keep_out):
    """Subtract the template of a frame."""
    pair = ImagePair(frame.ffi, frame.uncertainty, frame.flux, frame.variance, frame.dq)
    return subtract(pair, BASIS, keep_out=keep_out)


@pytest.fixture(scope="module")
def series():
    """Six frames of 256 x 256 px."""
    sky = lightcurve_sky.make_sky(256, 6, seed=5, targets=(40, 8, 12, 40, 5, 40))
    keep_out = lightcurve_sky.surroundings(sky)
    frames = [lightcurve_sky.render(sky, t) for t in range(sky.frames)]
    differences = [subtract_frame(frame, keep_out) for frame in frames]
    measured = [forced_photometry(d, f.uncertainty, f.psf, f.x, f.y) for d, f in zip(differences, frames, strict=True)]
    flagged = np.array([(m.flags & UNMEASURED) != 0 for m in measured])
    rate, error, systematic = (
        np.array([np.where(bad, np.nan, getattr(m, name) * m.scale) for m, bad in zip(measured, flagged, strict=True)])
        for name in ("flux", "flux_error", "flux_systematic")
    )
    return Series(
        sky,
        frames,
        differences,
        np.where(keep_out, np.nan, [d.difference for d in differences]),
        rate,
        error,
        systematic,
        np.array([f.rate for f in frames]),
        sky.sources.kind[lightcurve_sky.is_target(sky)],
        keep_out,
    )


def star_residual(series, images, low, high):
    """Return the median over stars and frames of the rms residual on 5 x 5 px, in units of the photon noise."""
    s = series.sky.sources
    chosen = np.flatnonzero((s.kind == lightcurve_sky.STAR) & (s.magnitude > low) & (s.magnitude < high))
    heights = []
    for frame, image in zip(series.frames, images, strict=True):
        ratio = image / frame.photon_noise
        for k in chosen:
            x, y = round(s.x[k]), round(s.y[k])
            if min(x, y) > 6 and max(x, y) < series.sky.size - 7:
                heights.append(np.sqrt(np.mean(ratio[y - 2 : y + 3, x - 2 : x + 3] ** 2)))
    return np.nanmedian(heights)


def test_stars_leave_little_in_a_frame_and_less_than_that_with_the_series(series):
    assert star_residual(series, series.residuals, 13, 14) < 2.3
    common = series_residual(series.residuals, np.ones(6, bool), series.keep_out)
    assert star_residual(series, series.residuals - common, 13, 14) < 1.25
    assert star_residual(series, series.residuals - common, 9, 11) < 6


@pytest.mark.parametrize("kind", [lightcurve_sky.SUPERNOVA, lightcurve_sky.HOSTED, lightcurve_sky.NEAR_BRIGHT])
def test_supernovae_rise_as_they_do_in_truth(series, kind):
    of_kind = (series.kind == kind) & np.isfinite(series.rate).all(axis=0)
    truth, rate = series.truth[:, of_kind], series.rate[:, of_kind]
    centered = truth - truth.mean(axis=0)
    slopes = (centered * rate).sum(axis=0) / (centered**2).sum(axis=0)
    assert_allclose(np.mean(slopes), 1, atol=0.01 + 3 * np.std(slopes) / np.sqrt(of_kind.sum()))


@pytest.mark.parametrize(
    ("kind", "most"),
    [(lightcurve_sky.SUPERNOVA, 1.15), (lightcurve_sky.EMPTY, 1.15), (lightcurve_sky.NEAR_BRIGHT, 1.5)],
)
def test_errors_are_the_scatter_in_time(series, kind, most):
    of_kind = (series.kind == kind) & np.isfinite(series.rate).all(axis=0)
    wrong = (series.rate - series.truth)[:, of_kind]
    changing = (wrong - wrong.mean(axis=0)) / series.error[:, of_kind] * np.sqrt(6 / 5)
    assert 0.85 < np.sqrt(np.mean(changing**2)) < most


def test_with_the_systematic_error_fluxes_are_right_where_nothing_is(series):
    empty = (series.kind == lightcurve_sky.EMPTY) & np.isfinite(series.rate).all(axis=0)
    pulls = ((series.rate - series.truth) / np.hypot(series.error, series.systematic))[:, empty]
    assert_allclose(1.4826 * np.median(np.abs(pulls)), 1, atol=0.25)


def test_faint_steady_sources_have_their_flux(series):
    steady = (series.kind == lightcurve_sky.STEADY) & np.isfinite(series.rate).all(axis=0)
    ratio = (series.rate[:, steady] / series.truth[:, steady]).mean(axis=0)
    assert_allclose(np.mean(ratio), 1, atol=3 * np.std(ratio) / np.sqrt(steady.sum()))


def test_straps_are_found(series):
    for result in series.differences:
        assert set(series.sky.straps[0]) <= set(result.straps.columns)


def test_scattered_light_hides_no_supernova():
    sky = lightcurve_sky.make_sky(256, 6, seed=9, targets=(24, 0, 0, 0, 0, 0))
    keep_out = lightcurve_sky.surroundings(sky)
    found, excess = [], []
    for strength in (0, 300):
        frame = lightcurve_sky.render(sky, 4, scattered=strength)
        assert 20 < frame.rate[0] < 30
        result = subtract_frame(frame, keep_out)
        flux = forced_photometry(result, frame.uncertainty, frame.psf, frame.x, frame.y)
        found.append(np.count_nonzero(flux.flux > 5 * np.hypot(flux.flux_error, flux.flux_systematic)))
        excess.append(result.excess)
    assert found == [24, 24]
    assert_allclose(excess, 1, atol=0.15)


def test_a_gaussian_template_of_half_pixels_is_matched_by_a_kernel_of_half_pixels():
    # As a kernel of order 0 assumes, the PSF hardly changes over so small a piece of a CCD.
    sky = lightcurve_sky.make_sky(160, 6, seed=3, targets=(0, 0, 0, 0, 0, 0), field=2048)
    frame = lightcurve_sky.render(sky, 2, gaussian=2)
    pair = ImagePair(frame.ffi, frame.uncertainty, frame.flux, frame.variance, frame.dq)
    plain, matched = (
        np.nanmedian(np.abs(subtract(pair, basis).difference / frame.photon_noise))
        for basis in (KernelBasis(1, (), 0), KernelBasis(9, (1.5, 3.0, 6.0), 0))
    )
    assert matched < 1.1 < plain
