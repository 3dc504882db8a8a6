"""Forced photometry: fluxes that are known by construction, errors, and bad input."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import ndtr

from syndiff_tasks.pixels.difference import Difference, Flag
from syndiff_tasks.pixels.forced_photometry import SourceFlag, empirical_error, find_empty_places, forced_photometry
from syndiff_tasks.pixels.kernel import Kernel, KernelBasis, convolve, fixed_kernel
from syndiff_tasks.pixels.sky_background import MeshSky, Straps

SIDE = 60


def source(x, y, sigma=0.7, shape=(SIDE, SIDE)):
    """Return a Gaussian of unit flux integrated over pixels."""
    along_x = np.diff(ndtr((np.arange(shape[1] + 1) - 0.5 - x) / sigma))
    along_y = np.diff(ndtr((np.arange(shape[0] + 1) - 0.5 - y) / sigma))
    return np.outer(along_y, along_x)


def stamps(x, y, sigma=0.7):
    """Return the template's image of each source on 15 x 15 px about its pixel."""
    return np.array(
        [
            source(a - np.floor(a + 0.5) + 7, b - np.floor(b + 0.5) + 7, sigma, (15, 15))
            for a, b in zip(x, y, strict=True)
        ]
    )


def difference_of(image, noise, kernel=None, model=None, excess=1.0, flux_mismatch=0.0):
    """Return a difference image that consists of the given planes."""
    return Difference(
        difference=image.astype(np.float32),
        noise=np.broadcast_to(np.float32(noise), image.shape).copy(),
        mismatch_noise=np.zeros(image.shape, np.float32),
        model=np.zeros(image.shape, np.float32) if model is None else model.astype(np.float32),
        flags=np.zeros(image.shape, np.int16),
        kernel=kernel or fixed_kernel(1.0, image.shape),
        sky=MeshSky((0.0, 0.0, 0.0), np.zeros((2, 2)), image.shape),
        straps=Straps(np.zeros(0, np.int64), np.zeros((0, 1))),
        mismatch=0.0,
        flux_mismatch=flux_mismatch,
        excess=excess,
        empty=1.0,
        pixels=0,
    )


@pytest.mark.parametrize("prior", [0.0, 0.3])
def test_a_source_convolved_by_the_kernel_is_measured_to_a_millionth(prior):
    rng = np.random.default_rng(2)
    kernel = Kernel(KernelBasis(3, (), 0), rng.uniform(0.5, 1, (1, 9)), (SIDE, SIDE), 1)
    x, y = np.array([30.3]), np.array([20.45])
    image = convolve(kernel, (1000 * source(x[0], y[0])).astype(np.float32))
    result = forced_photometry(difference_of(image, 0.3, kernel), None, stamps(x, y), x, y, prior)
    assert_allclose(result.flux, 1000, rtol=1e-6)
    assert_allclose(result.aperture, 1000, rtol=1e-6)
    assert_allclose(result.scale, kernel.coefficients.sum())
    assert result.flags == 0


def test_a_free_sky_takes_a_constant_off_and_a_known_one_does_not():
    x, y = np.array([30.3]), np.array([20.45])
    image = 50 * source(x[0], y[0]) + 2.0
    free = forced_photometry(difference_of(image, 0.3), None, stamps(x, y), x, y, 0.0)
    assert_allclose([free.flux[0], free.sky[0]], [50, 2], rtol=1e-5)
    assert forced_photometry(difference_of(image, 0.3), None, stamps(x, y), x, y, 1e-3).flux > 52


def test_errors_are_the_scatter_of_fluxes_under_that_noise():
    rng = np.random.default_rng(8)
    y, x = (v.ravel() + 0.2 for v in np.mgrid[10:390:9, 10:390:9].astype(float))
    noise = 0.4 * (1 + np.add.outer(np.arange(400), np.arange(400)) / 800)
    result = forced_photometry(difference_of(rng.normal(0, noise), noise), noise.astype(np.float32), stamps(x, y), x, y)
    for value, error in ((result.flux, result.flux_error), (result.aperture, result.aperture_error)):
        assert_allclose(np.std(value / error), 1.0, atol=3 / np.sqrt(2 * x.size))
    assert_allclose(np.mean(result.chi_square), 1.0, atol=0.02)


def test_the_measured_excess_multiplies_the_errors():
    x, y = np.array([30.0]), np.array([20.0])
    noise = np.full((SIDE, SIDE), 0.3, np.float32)
    plain, more = (
        forced_photometry(difference_of(0 * noise, 0.3 * e, excess=e), noise, stamps(x, y), x, y).flux_error
        for e in (1.0, 1.7)
    )
    assert_allclose(more, 1.7 * plain, rtol=1e-6)


def test_wrong_fluxes_of_the_template_are_the_systematic_error():
    x, y = np.array([30.2]), np.array([20.1])
    star = 5000 * source(31.0, 21.0)
    seen = forced_photometry(difference_of(0.03 * star, 0.3), None, stamps(x, y), x, y).flux
    result = forced_photometry(
        difference_of(0 * star, 0.3, model=star, flux_mismatch=0.03),
        np.full(star.shape, 0.3, np.float32),
        stamps(x, y),
        x,
        y,
    )
    assert_allclose(result.flux_systematic, np.abs(seen), rtol=1e-4)


def test_noise_of_the_template_is_counted_with_its_correlation():
    rng = np.random.default_rng(4)
    n = 300
    points = np.zeros((n, n))
    points[:] = rng.normal(0, 2.0, (n, n))
    kernel = source(7, 7, shape=(15, 15))
    blurred = np.fft.irfft2(
        np.fft.rfft2(points) * np.fft.rfft2(np.roll(np.pad(kernel, (0, n - 15)), (-7, -7), (0, 1))), s=(n, n)
    )
    variance = 4.0 * (kernel**2).sum()
    y, x = (v.ravel() for v in np.mgrid[10 : n - 10 : 8, 10 : n - 10 : 8].astype(float))
    uncertainty = np.full((n, n), 1.0, np.float32)
    result = forced_photometry(
        difference_of(blurred, np.sqrt(1 + variance)), uncertainty, stamps(x, y), x, y, sky_prior=0.0
    )
    assert_allclose(np.std(result.flux / result.flux_systematic), 1.0, atol=0.07)


@pytest.mark.parametrize(
    ("x", "y", "flag"),
    [
        (-50.0, 20.0, SourceFlag.NO_FLUX),
        (np.nan, 20.0, SourceFlag.NO_FLUX),
        (0.2, 20.0, SourceFlag.MASKED_PIXELS),
        (-1.2, 20.0, SourceFlag.FEW_PIXELS),
    ],
)
def test_a_source_at_or_beyond_the_edge_is_flagged(x, y, flag):
    image = 100 * source(np.nan_to_num(x), y)
    psf = stamps([np.nan_to_num(x)], [y])
    result = forced_photometry(difference_of(image, 0.3), None, psf, [x], [y])
    assert result.flags[0] & flag
    if not flag & SourceFlag.NO_FLUX:
        assert_allclose(result.flux, 100, rtol=1e-5)


def test_pixels_without_data_and_saturated_ones_are_left_out_and_flagged():
    x, y = np.array([30.3]), np.array([20.45])
    result = difference_of(70 * source(x[0], y[0]), 0.3)
    result.difference[22, 31] = np.nan
    result.difference[19, 28] = 1e4
    result.flags[19, 28] = Flag.SATURATED_TESS
    measured = forced_photometry(result, None, stamps(x, y), x, y)
    assert_allclose(measured.flux, 70, rtol=1e-5)
    assert measured.flags[0] & SourceFlag.MASKED_PIXELS
    result.difference[:] = np.nan
    nothing = forced_photometry(result, None, stamps(x, y), x, y)
    assert np.isnan(nothing.flux[0])
    assert nothing.flags[0] & SourceFlag.NO_FLUX


def test_a_psf_stamp_that_is_too_small_is_refused():
    with pytest.raises(ValueError, match="give at least 7"):
        forced_photometry(difference_of(np.zeros((SIDE, SIDE)), 0.3), None, np.zeros((1, 5, 5)), [30.0], [30.0])


def test_empty_places_are_empty_apart_and_as_far_from_the_middle_of_their_pixel():
    model = 1e4 * source(40, 40) + 5e3 * source(22, 31)
    flags = np.zeros(model.shape, np.int16)
    flags[:20] = Flag.NO_DATA
    x, y = find_empty_places(model, flags, 30.3, 32.8)
    assert len(x) == 12
    assert_allclose([np.round(x - 30.3), np.round(y - 32.8)], [x - 30.3, y - 32.8], atol=1e-9)
    assert (y > 22).all()
    at = np.round(np.stack([y, x])).astype(int)
    assert model[tuple(at)].max() < 1e-3
    gaps = np.maximum(np.abs(at[0][:, None] - at[0]), np.abs(at[1][:, None] - at[1])) + 99 * np.eye(12)
    assert gaps.min() >= 6


def test_the_empirical_error_does_not_mind_one_variable_star():
    fluxes = np.random.default_rng(1).normal(0, 3.0, 2000)
    assert_allclose(empirical_error(np.append(fluxes, [1e6, np.nan])), 3.0, rtol=0.06)
    assert np.isnan(empirical_error([1.0, np.nan, 2.0]))
