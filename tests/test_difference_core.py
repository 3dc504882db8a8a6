"""Difference images: identities that hold exactly, and bad input."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import ndimage
from scipy.special import ndtr

from syndiff_tasks.pixels.difference import Flag, ImagePair, default_bases, subtract
from syndiff_tasks.pixels.kernel import Kernel, KernelBasis, convolve, convolve_psfs, fixed_kernel, kernel_sum
from syndiff_tasks.pixels.kernel_fit import NoMatch, measure_mismatch


def field(size=96, seed=3, stars=250, oversampling=1, sigma=0.7):
    """Return a template of Gaussian stars, by erf over pixels of 1 / oversampling px."""
    rng = np.random.default_rng(seed)
    edges = np.arange(oversampling * size + 1) / oversampling - 0.5
    x, y = rng.uniform(-2, size + 2, (2, stars))
    flux = 50 * rng.pareto(1.2, stars) + 20
    along_x = np.diff(ndtr((edges[None] - x[:, None]) / sigma), axis=1)
    along_y = np.diff(ndtr((edges[None] - y[:, None]) / sigma), axis=1)
    return np.einsum("k,ky,kx->yx", flux, along_y, along_x)


def pair_of(ffi, template, noise=0.1):
    """Put an FFI and a template together as `subtract` takes them."""
    return ImagePair(
        ffi.astype(np.float32),
        np.full(ffi.shape, noise, np.float32),
        template.astype(np.float32),
        np.full(template.shape, 1e-6, np.float32),
        np.zeros(template.shape, np.int32),
    )


def inside(image, rim=3):
    """Return what is not within `rim` px of the edge."""
    return image[rim:-rim, rim:-rim]


@pytest.mark.parametrize("basis", [KernelBasis(1, (), 0), KernelBasis(3), KernelBasis(5, (1.5, 3.0), 0)])
def test_a_scaled_template_and_a_tilted_sky_leave_nothing(basis):
    template = field()
    y, x = np.mgrid[:96, :96]
    ffi = 0.015 * template + 100 + 3.0 * x - 1.2 * y
    result = subtract(pair_of(ffi, template), basis)
    assert np.abs(inside(result.difference)).max() < 1e-5 * ffi.max()
    assert_allclose(kernel_sum(result.kernel, 48, 48), 0.015, rtol=1e-4)


def test_a_kernel_that_varies_over_the_field_is_found():
    template = field(128, stars=900)
    v, u = (np.mgrid[:128, :128] - 63.5) / 64
    width = 1 + 0.3 * u - 0.2 * v
    ffi = template + 0.1 * width * (ndimage.gaussian_laplace(template, 0.6, truncate=8) + 0.2 * template)
    poor = subtract(pair_of(ffi, template), KernelBasis(3, (), 0)).difference
    good = subtract(pair_of(ffi, template), KernelBasis(7, (), 1)).difference
    assert np.abs(inside(good, 6)).max() < 0.01 * np.abs(inside(poor, 6)).max()


def test_half_a_pixel_is_a_tap_of_a_template_of_twice_the_pixels():
    fine = field(64, oversampling=2)
    whole = np.pad(fine, ((0, 0), (0, 1)))
    moved = whole[:, 1:].reshape(64, 2, 64, 2).sum(axis=(1, 3))
    taps = np.zeros((3, 3))
    taps[1, 2] = 1
    kernel = Kernel(KernelBasis(3, (), 0), taps.reshape(1, 9), (64, 64), 2)
    assert_allclose(inside(convolve(kernel, fine.astype(np.float32))), inside(moved), rtol=1e-5, atol=1e-3)


def test_convolving_is_the_double_precision_sum_over_taps_and_terms():
    template = field(40)
    rng = np.random.default_rng(5)
    kernel = Kernel(KernelBasis(3, (), 2), rng.standard_normal((6, 9)), (40, 40), 1)
    v, u = (np.mgrid[:40, :40] - 19.5) / 20
    expected = np.zeros((40, 40))
    for k in range(9):
        j, i = divmod(k, 3)
        shifted = np.pad(template, 1)[j : j + 40, i : i + 40]
        varying = sum(c * t for c, t in zip(kernel.coefficients[:, k], (1, u, v, u * u, u * v, v * v), strict=True))
        expected += varying * shifted
    whole = convolve(kernel, template.astype(np.float32))
    assert_allclose(whole, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    part = convolve(kernel, template[10:30, 5:35].astype(np.float32), origin=(5, 10))
    assert_allclose(inside(part, 1), whole[11:29, 6:34], rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_the_psf_of_a_source_is_what_the_kernel_makes_of_its_image():
    rng = np.random.default_rng(2)
    kernel = Kernel(KernelBasis(5, (1.5,), 1), rng.standard_normal((3, 26)), (50, 60), 2)
    fine = np.zeros((100, 120))
    fine[2 * 20 : 2 * 20 + 2, 2 * 31 : 2 * 31 + 2] = rng.random((2, 2))
    psf = np.zeros((1, 26, 26))
    psf[0, 12:14, 12:14] = fine[40:42, 62:64]
    constant = kernel._replace(coefficients=np.concatenate([kernel.coefficients[:1], np.zeros((2, 26))]))
    image = convolve(constant, fine.astype(np.float32))
    assert_allclose(convolve_psfs(constant, psf, [31.0], [20.0])[0], image[14:27, 25:38], atol=1e-5)


def test_the_target_that_is_kept_out_changes_nothing_of_the_fit():
    template = field()
    ffi = 0.015 * template + np.random.default_rng(1).normal(100, 0.1, template.shape)
    keep_out = np.zeros(template.shape, bool)
    keep_out[40:47, 50:57] = True
    bright = ffi.copy()
    bright[42:45, 52:55] += 500
    without, with_it = (subtract(pair_of(f, template), KernelBasis(3), keep_out=keep_out) for f in (ffi, bright))
    assert_allclose(with_it.kernel.coefficients, without.kernel.coefficients, rtol=1e-9)
    assert_allclose(inside(with_it.difference - without.difference), inside(bright - ffi), atol=2e-4)


def test_the_kernel_chosen_for_equal_psfs_is_a_number_and_for_others_it_is_not():
    template = field(128, stars=900)
    noise = np.random.default_rng(1).normal(100, 0.1, template.shape)
    assert subtract(pair_of(template + noise, template)).kernel.basis.size == 1
    assert subtract(pair_of(ndimage.gaussian_filter(template, 0.5) + noise, template)).kernel.basis.size > 1


def test_a_small_region_has_a_kernel_of_one_number():
    assert default_bases((39, 100), 1) == (KernelBasis(1, (), 0),)
    template = field(32, stars=40)
    result = subtract(pair_of(2 * template + 5, template))
    assert_allclose(result.kernel.coefficients, [[2.0]], rtol=1e-5)


def test_a_given_kernel_is_taken_as_it_is():
    template = field(32, stars=40)
    kernel = fixed_kernel(0.02, (32, 32))
    result = subtract(pair_of(0.02 * template + 7, template), kernel)
    assert result.kernel is kernel
    assert np.abs(result.difference).max() < 1e-3


def test_without_uncertainties_the_scatter_of_the_sky_is_the_noise():
    template = field()
    ffi = template + np.random.default_rng(1).normal(100, 0.5, template.shape)
    result = subtract(pair_of(ffi, template)._replace(uncertainty=None), KernelBasis(3))
    assert_allclose(np.nanmedian(result.noise), 0.5, rtol=0.1)


def test_noise_says_what_the_residuals_are():
    template = field(128, stars=900)
    ffi = template + np.random.default_rng(1).normal(100, 0.5, template.shape)
    result = subtract(pair_of(ffi, template, noise=0.25), KernelBasis(3))
    assert_allclose(result.excess, 2.0, rtol=0.03)
    assert_allclose(np.nanstd(result.difference / result.noise), 1.0, atol=0.02)


def test_mismatch_is_found_where_residuals_grow_with_the_star():
    rng = np.random.default_rng(4)
    peak = 10 ** rng.uniform(1, 4, 20_000)
    residual = rng.normal(0, np.hypot(0.5, 0.02 * peak))
    assert_allclose(measure_mismatch(residual, peak, np.full(peak.shape, 0.25)), 0.02, rtol=0.05)
    assert measure_mismatch(rng.normal(0, 0.4, 20_000), peak, np.full(peak.shape, 0.25)) == 0


def test_a_bleeding_column_is_flagged_and_kept_out_of_the_fit():
    template = field(128, stars=900)
    ffi = template + np.random.default_rng(1).normal(100, 0.1, template.shape)
    clean = subtract(pair_of(ffi, template), KernelBasis(3))
    ffi[30:60, 70] = 9.5e4
    ffi[60:66, 70] = 4e4
    result = subtract(pair_of(ffi, template), KernelBasis(3))
    assert (result.flags[30:60, 70] & Flag.SATURATED_TESS).all()
    assert (result.flags[60:66, 70] & Flag.BLEED).all()
    assert_allclose(kernel_sum(result.kernel, 64, 64), kernel_sum(clean.kernel, 64, 64), rtol=1e-4)


@pytest.mark.parametrize("bad", ["nan frame", "no template", "untrusted", "no stars", "other field"])
def test_what_cannot_be_matched_is_refused_in_a_sentence(bad):
    template = field()
    pair = pair_of(template + np.random.default_rng(1).normal(100, 0.1, template.shape), template)
    if bad == "nan frame":
        pair.ffi[:] = np.nan
    elif bad == "no template":
        pair.flux[:] = np.nan
    elif bad == "untrusted":
        pair.dq[:] = 1
    elif bad == "no stars":
        pair.flux[:] = 0
    else:
        pair = pair._replace(ffi=(200 - pair.ffi).astype(np.float32))
    with pytest.raises(NoMatch, match=r"\w+.*; .*\w+|check"):
        subtract(pair, KernelBasis(3))


def test_a_frame_half_without_data_is_subtracted_in_the_other_half():
    template = field(128, stars=900)
    pair = pair_of(template + np.random.default_rng(1).normal(100, 0.1, template.shape), template)
    pair.ffi[:, :64] = np.nan
    result = subtract(pair, KernelBasis(3))
    assert np.isnan(result.difference[:, :64]).all()
    assert (result.flags[:, :64] & Flag.NO_DATA).all()
    assert np.nanstd(inside(result.difference[:, 64:])) < 0.12


@pytest.mark.parametrize("side", [10, 20, 39, 41])
def test_a_region_of_a_few_pixels_has_a_difference_without_straps(side):
    template = field(side, stars=side * side // 20)
    ffi = template + np.random.default_rng(side).normal(100, 0.1, template.shape)
    result = subtract(pair_of(ffi, template))
    assert 0.05 < np.nanstd(result.difference) < 0.12
    assert result.straps.columns.size == 0


def test_one_star_is_enough_for_a_scale():
    template = field(64, stars=1, seed=6)
    result = subtract(pair_of(template + np.random.default_rng(1).normal(100, 0.1, template.shape), template))
    assert_allclose(kernel_sum(result.kernel, 32, 32), 1, rtol=0.05)
    assert np.nanstd(result.difference) < 0.12


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="does not fit an FFI of shape"):
        subtract(pair_of(field(48, stars=30), field(60, stars=30)))
