"""TESS pixels out of blurred blocks, against analytic stars and sums over native pixels in double precision.

TESS and PS1 are joined by an affine map made by hand: turned, sheared, 82 native px a TESS pixel.
"""

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.interpolate import RectBivariateSpline
from scipy.special import erf

from syndiff_tasks.pixels import template
from syndiff_tasks.pixels.blocks import to_blocks
from syndiff_tasks.pixels.mask import DQ, bit_mask
from syndiff_tasks.pixels.psf import gaussian_blur, prf_blur, resample_prf
from syndiff_tasks.pixels.template import quadrature_nodes, sample

STAR = 1.87  # PS1 stars, FWHM 4.4 px


def affine(scale=82.0, angle=0.6, size=700, shear=0.01):
    """PS1 = matrix @ TESS + origin, TESS pixel (0, 0) near the middle of the frame."""
    matrix = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle) + shear, math.cos(angle)]])
    return matrix, np.array([size / 2 - 0.3, size / 2 + 0.7])


def grid_of(reach):
    x, y = np.meshgrid(*2 * [np.arange(-reach, reach + 1.0)])
    return x.ravel(), y.ravel()


def nodes(frame, x, y, count):
    matrix, origin = frame
    at, weight = np.polynomial.legendre.leggauss(count)
    u, v = (a.ravel() / 2 for a in np.meshgrid(at, at))
    tess = np.stack([x[:, None] + u, y[:, None] + v])
    px, py = np.tensordot(matrix, tess, axes=1) + origin[:, None, None]
    weights = np.outer(weight, weight).ravel() / 4 * abs(np.linalg.det(matrix))
    return px, py, np.broadcast_to(weights, px.shape)


def scale_of(frame):
    return math.sqrt(abs(np.linalg.det(frame[0])))


def pixels(frame, blurred, x, y):
    scale = scale_of(frame)
    return sample(blurred, *nodes(frame, x, y, quadrature_nodes(blurred.sigma, scale)), scale)


def star_image(size, star, sigma=STAR):
    rows, columns = np.indices((size, size))
    return np.exp(-((columns - star[0]) ** 2 + (rows - star[1]) ** 2) / (2 * sigma**2)) / (2 * math.pi * sigma**2)


def star_in_pixels(frame, star, sigma, x, y):
    """Integrate the Gaussian over TESS pixels: analytic along rows, fine quadrature along columns."""
    matrix, origin = frame
    precision = matrix.T @ matrix / sigma**2
    at, weight = np.polynomial.legendre.leggauss(60)
    where = np.linalg.solve(matrix, np.asarray(star) - origin)
    dx, dy = x[:, None] - where[0], y[:, None] + at / 2 - where[1]
    mean, width = -dy * precision[0, 1] / precision[0, 0], math.sqrt(2 / precision[0, 0])
    rows = (erf((dx + 0.5 - mean) / width) - erf((dx - 0.5 - mean) / width)) / 2
    left = precision[1, 1] - precision[0, 1] ** 2 / precision[0, 0]
    return (rows * np.exp(-(dy**2) * left / 2)) @ weight / 2 * math.sqrt(left / (2 * math.pi))


def blocks_of(flux, bin, variance=None, mask=None, corner=(0, 0)):
    flux = np.asarray(flux, np.float32)
    variance = np.ones_like(flux) if variance is None else variance.astype(np.float32)
    mask = np.zeros(flux.shape, np.uint16) if mask is None else mask
    return to_blocks(flux, variance, mask, np.zeros(flux.shape, np.uint8), bin, corner)


def test_the_analytic_star_of_these_tests_adds_up_to_one():
    frame = affine()
    assert_allclose(star_in_pixels(frame, frame[1] + 5, 40, *grid_of(5)).sum(), 1, atol=1e-12)


STARS = [(350.2, 349.1), (391.0, 352.4), (322.9, 401.7), (349.5, 310.8)]


@pytest.mark.parametrize(
    ("bin", "sigma", "worst"),
    [(1, 40, 3e-4), (4, 20, 1e-4), (4, 40, 3e-4), (4, 53, 3e-4), (8, 40, 2e-4), (8, 20, 6e-4), (4, 8, 1e-3)],
)
def test_star_agrees_with_the_analytic_one(bin, sigma, worst):
    frame = affine()
    x, y = grid_of(3)
    x, y = x - 0.3, y + 0.2  # the offset moves stars the other way
    for star in STARS:
        blurred = gaussian_blur(blocks_of(star_image(700, star), bin, corner=(6003, 12009)), sigma, ignore=0)
        found = pixels(frame, blurred, x, y)
        truth = star_in_pixels(frame, star, math.hypot(sigma, STAR), x, y)
        flux = found.flux * found.coverage  # the frame ends within reach of the outermost pixels
        assert np.abs(flux - truth).max() < worst * truth.max()
        assert abs(flux.sum() / truth.sum() - 1) < worst
        for axis in (x, y):
            assert abs((flux * axis).sum() / flux.sum() - (truth * axis).sum() / truth.sum()) < 5e-4


def test_blocks_of_1_agree_with_blocks_of_4():
    frame = affine()
    image = sum(f * star_image(700, s) for f, s in zip((1, 0.3, 0.7, 0.1), STARS, strict=True))
    one, four = (pixels(frame, gaussian_blur(blocks_of(image, b), 40, ignore=0), *grid_of(3)).flux for b in (1, 4))
    assert np.abs(one - four).max() < 5e-4 * one.max()


def test_without_a_blur_flux_is_right_to_half_a_percent_and_centroid_to_a_hundredth_of_a_pixel():
    frame = affine(size=400)
    x, y = grid_of(1)
    for star in np.array(STARS) - 150:
        blurred = gaussian_blur(blocks_of(star_image(400, star), 4), 0, ignore=0)
        flux = pixels(frame, blurred, x, y).flux
        truth = star_in_pixels(frame, star, math.hypot(4 / math.sqrt(2), STAR), x, y)
        assert abs(flux.sum() - 1) < 5e-3
        assert np.abs(flux - truth).max() < 2e-2 * truth.max()
        for axis in (x, y):
            assert abs((flux * axis).sum() - (truth * axis).sum()) < 1e-2


def test_a_sparser_star_field_keeps_its_total_flux():
    frame, rng = affine(scale=41, size=700), np.random.default_rng(7)
    fluxes, stars = rng.uniform(0.1, 1, 20), rng.uniform(280, 420, (20, 2))
    image = sum(f * star_image(700, s) for f, s in zip(fluxes, stars, strict=True))
    found = pixels(frame, gaussian_blur(blocks_of(image, 4), 20, ignore=0), *grid_of(5))
    assert abs((found.flux * found.coverage).sum() / fluxes.sum() - 1) < 1e-4


def test_a_constant_sky_is_constant_up_to_its_holes_and_coverage_tells_them():
    frame = affine()
    sky = np.full((700, 700), 2.5)
    sky[300:420, 330:400] = np.nan
    sky[:150] = np.nan
    blurred = gaussian_blur(blocks_of(sky, 4), 40, ignore=0)
    x, y = grid_of(2)
    found = pixels(frame, blurred, x, y)
    area = abs(np.linalg.det(frame[0]))
    seen = found.coverage > 0.01
    assert_allclose(found.flux[seen], 2.5 * area, rtol=2e-5)
    coverage = covered(frame, np.isfinite(sky), 40, x, y)
    assert_allclose(found.coverage, coverage, atol=5e-4)
    assert_allclose(found.count, coverage * area, atol=5e-4 * area)
    assert coverage.min() < 0.4


def covered(frame, valid, sigma, x, y):
    """Sum of each native pixel's share in each TESS pixel, over the pixel's area."""
    px, py, w = nodes(frame, x, y, 8)
    line = np.arange(len(valid))
    result = []
    for a, b in zip(px, py, strict=True):
        gx, gy = (np.exp(-((line - c[:, None]) ** 2) / (2 * sigma**2)) for c in (a, b))
        result.append((w[0] * ((gy @ valid) * gx).sum(axis=1)).sum() / (2 * math.pi * sigma**2))
    return np.array(result) / w[0].sum()


def test_masked_counts_native_pixels_with_a_bit():
    frame, rng = affine(), np.random.default_rng(3)
    marked = rng.random((700, 700)) < 0.15
    marked[350:] = False
    blurred = gaussian_blur(blocks_of(np.zeros(marked.shape), 4, mask=marked.astype(np.uint16) * 64), 40, ignore=0)
    x, y = grid_of(2)
    found = pixels(frame, blurred, x, y)
    area = abs(np.linalg.det(frame[0]))
    assert_allclose(found.masked, covered(frame, marked, 40, x, y) * area, atol=5e-4 * area)


def test_without_data_flux_is_nan_and_dq_says_so():
    frame = affine(size=300)
    blurred = gaussian_blur(blocks_of(np.ones((300, 300)), 4), 20, ignore=0)
    x, y = np.array([0.0, 40.0, np.nan]), np.zeros(3)
    found = pixels(frame, blurred, x, y)
    assert np.isfinite(found.flux[0]) and found.dq[0] == 0
    for plane in (found.flux, found.variance):
        assert np.isnan(plane[1:]).all()
    for plane in (found.coverage, found.count, found.masked):
        assert_array_equal(plane[1:], 0)
    assert_array_equal(found.dq[1:], DQ.NO_PS1)
    assert {a.dtype for a in found[:-1]} == {np.dtype(np.float32)} and found.dq.dtype == np.uint8


def test_every_pixel_within_sigma_of_a_flagged_one_is_flagged_and_none_far_off():
    frame, rng = affine(), np.random.default_rng(11)
    matrix, origin = frame
    x, y = grid_of(3)
    for _ in range(12):
        star = rng.uniform(250, 450, 2).astype(int)
        mask = np.zeros((700, 700), np.uint16)
        mask[star[1], star[0]] = bit_mask([12])
        found = pixels(frame, gaussian_blur(blocks_of(np.zeros(mask.shape), 4, mask=mask), 40, bit_mask([12])), x, y)
        u, v = np.linalg.solve(matrix, star - origin)
        far = 82 * np.hypot(np.maximum(np.abs(x - u) - 0.5, 0), np.maximum(np.abs(y - v) - 0.5, 0))
        flagged = (found.dq & DQ.IGNORED_BIT) > 0
        assert flagged[far < 40].all()
        assert not flagged[far > 1.5 * (40 + 14 + 12)].any()


def star_error(count, sigma, frame):
    """Worst error of Gauss-Legendre, of the peak, for Gaussians all over a TESS pixel."""
    x, y = grid_of(2)
    worst = 0.0
    for u in np.linspace(0, 0.5, 6):
        for v in np.linspace(0, 0.5, 6):
            star = frame[0] @ [u, v] + frame[1]
            px, py, w = nodes(frame, x, y, count)
            summed = (w * np.exp(-((px - star[0]) ** 2 + (py - star[1]) ** 2) / (2 * sigma**2))).sum(axis=1)
            truth = star_in_pixels(frame, star, sigma, x, y)
            worst = max(worst, np.abs(summed / (2 * math.pi * sigma**2) - truth).max() / truth.max())
    return worst


@pytest.mark.parametrize("sigma", [15, 28, 40, 53])
def test_the_chosen_nodes_integrate_stars_and_fewer_do_not(sigma):
    frame = affine(shear=0)
    count = quadrature_nodes(sigma, 82.0)
    assert star_error(count, sigma, frame) < 2.5e-4 < 5 * star_error(count - 1, sigma, frame)
    assert template._quadrature_error(count, sigma / 82) < template._quadrature_error(count - 1, sigma / 82)


def test_four_nodes_suffice_for_the_default_blur_more_are_taken_without_and_one_for_a_prf():
    assert quadrature_nodes(40, 82.0) == 4
    assert 24 <= quadrature_nodes(4 / math.sqrt(2), 82.0) <= 32
    assert quadrature_nodes(40, 20.5) <= 3
    assert quadrature_nodes(None, 82.0) == 1
    with pytest.raises(ValueError, match="both positive"):
        quadrature_nodes(0, 82.0)


def shares(frame, x, y, size, sigma):
    """Share of each native pixel's flux that each TESS pixel receives, (n, size, size)."""
    px, py, w = nodes(frame, x, y, 8)
    line = np.arange(size)
    gx, gy = (np.exp(-((line - c[..., None]) ** 2) / (2 * sigma**2)) for c in (px, py))
    return np.einsum("nm,nmj,nmi->nji", w, gy, gx) / (2 * math.pi * sigma**2)


def noisy_frame():
    """A small frame with holes, a blank border and uneven noise, in the proportions of sigma 40."""
    rng = np.random.default_rng(8)
    variance = rng.uniform(0.5, 1.5, (200, 200))
    variance[:, 120:] *= 3
    blank = rng.random(variance.shape) < 0.02
    blank[90:104, 60:90] = True
    blank[:, :40] = True
    return variance, blank


@pytest.mark.parametrize(("scale", "sigma", "bin"), [(20.5, 10, 4), (20.5, 10, 1), (10.25, 10, 4), (41, 10, 4)])
def test_variance_is_the_sum_of_squared_shares(scale, sigma, bin):
    variance, blank = noisy_frame()
    frame = affine(scale=scale, size=200, shear=0)
    x, y = grid_of(int(70 / scale))
    found = pixels(frame, gaussian_blur(blocks_of(np.where(blank, np.nan, 0), bin, variance), sigma, ignore=0), x, y)
    share = shares(frame, x, y, 200, sigma) * ~blank
    coverage = share.sum(axis=(1, 2)) / scale**2
    truth = (share**2 * variance).sum(axis=(1, 2)) / coverage**2
    assert_allclose(found.variance[coverage > 0.1], truth[coverage > 0.1], rtol=0.03)
    assert abs(np.mean(found.variance / truth) - 1) < 0.01


def test_scatter_of_noise_is_what_variance_says_at_holes_and_borders_too():
    variance, blank = noisy_frame()
    frame = affine(scale=20.5, size=200, shear=0)
    x, y = grid_of(3)
    rng = np.random.default_rng(9)
    values = []
    for _ in range(400):
        noise = rng.normal(0, np.sqrt(variance))
        blocks = blocks_of(np.where(blank, np.nan, noise), 4, variance)
        found = pixels(frame, gaussian_blur(blocks, 10, ignore=0), x, y)
        values.append(found.flux)
    pulls = np.array(values) / np.sqrt(found.variance)
    width = pulls.std(axis=0)
    assert found.coverage.min() < 0.8
    assert abs(width.mean() - 1) < 0.05
    partly = found.coverage < 0.97
    assert partly.sum() > 8 and abs(width[partly].mean() - 1) < 0.05
    assert abs(pulls.mean()) < 0.05


def made_up_prf():
    """Pixel-integrated image of a lopsided pair of Gaussians, 9 samples a pixel, by erf."""

    def response(u, v):
        total = 0.0
        for part, cx, cy, width in ((0.7, 0.1, -0.05, 0.6), (0.3, 0.5, 0.3, 1.1)):
            x, y = (
                (erf((a + 0.5) / (width * math.sqrt(2))) - erf((a - 0.5) / (width * math.sqrt(2)))) / 2
                for a in (u - cx, v - cy)
            )
            total = total + part * x * y
        return total

    at = (np.arange(117) - 58) / 9
    return response(at[None, :], at[:, None]), response


def prf_template(prf, star, size=1000, bin=4, x=0, y=0):
    frame = affine(size=size)
    kernel = resample_prf(prf, np.linalg.inv(frame[0]), bin)
    point = star_image(size, star, sigma=0.8)  # as good as a point beside a TESS pixel, and well sampled itself
    blurred = prf_blur(blocks_of(point, bin), kernel, ignore=0)
    return frame, pixels(frame, blurred, x, y)


def test_template_with_a_prf_is_what_each_pixel_receives_of_the_star():
    prf, response = made_up_prf()
    star = (512.3, 488.9)
    x, y = grid_of(3)
    frame, found = prf_template(prf, star, x=x, y=y)
    u, v = np.linalg.solve(frame[0], np.array(star) - frame[1])
    truth = response(x - u, y - v) / (prf.sum() / 81)
    flux = found.flux * found.coverage
    assert np.abs(flux - truth).max() < 5e-4 * truth.max()
    assert abs(flux.sum() / truth.sum() - 1) < 5e-4
    for axis in (x, y):
        assert abs((flux * axis).sum() / flux.sum() - (truth * axis).sum() / truth.sum()) < 2e-3


def test_template_with_a_real_prf_is_the_prf_at_the_pixel_centres():
    folder = Path("/work/shared/data/tess_prf")
    if not folder.is_dir():
        pytest.skip("no real PRFs here")
    fits = pytest.importorskip("astropy.io.fits")
    for path in sorted(folder.glob("*.fits")):
        prf = fits.getdata(path).astype(float)
        star = (480.4, 521.7)
        x, y = grid_of(3)
        frame, found = prf_template(prf, star, x=x, y=y)
        u, v = np.linalg.solve(frame[0], np.array(star) - frame[1])
        at = (np.arange(117) - 58) / 9
        truth = RectBivariateSpline(at, at, prf)(y - v, x - u, grid=False) / (prf.sum() / 81)
        flux = found.flux * found.coverage
        assert np.abs(flux - truth).max() < 3e-3 * truth.max()
        assert abs(flux.sum() / truth.sum() - 1) < 1e-3
        for axis in (x, y):
            assert abs((flux * axis).sum() / flux.sum() - (truth * axis).sum() / truth.sum()) < 2e-3


def test_variance_with_a_kernel_is_the_sum_of_squared_shares():
    frame = affine(scale=20.5, size=200, shear=0)
    variance, blank = noisy_frame()
    line = np.exp(-((np.arange(-15, 16) * 4) ** 2) / (2 * 12**2))
    blurred = prf_blur(blocks_of(np.where(blank, np.nan, 0), 4, variance), np.outer(line, line), ignore=0)
    x, y = grid_of(3)
    found = pixels(frame, blurred, x, y)
    px, py, w = nodes(frame, x, y, 1)
    gx, gy = (np.exp(-((np.arange(200) - c) ** 2) / (2 * 12**2)) for c in (px, py))
    share = w[:, :, None] * gy[:, :, None] * gx[:, None, :] / (2 * math.pi * 12**2) * ~blank
    coverage = share.sum(axis=(1, 2)) / 20.5**2
    assert_allclose(found.variance, (share**2 * variance).sum(axis=(1, 2)) / coverage**2, rtol=0.03)


def test_nodes_that_are_no_square_grid_are_refused():
    blurred = gaussian_blur(blocks_of(np.ones((100, 100)), 4), 20, ignore=0)
    for shape in ((5, 3), (5,), (5, 0)):
        with pytest.raises(ValueError, match="q x q nodes"):
            sample(blurred, *3 * [np.ones(shape)], 82.0)
    with pytest.raises(ValueError, match="q x q nodes"):
        sample(blurred, np.ones((5, 4)), np.ones((5, 4)), np.ones((1, 4)), 82.0)


def test_a_prf_is_read_at_pixel_centres_only():
    line = np.exp(-(np.arange(-15, 16) ** 2) / 32)
    blurred = prf_blur(blocks_of(np.ones((100, 100)), 4), np.outer(line, line), ignore=0)
    with pytest.raises(ValueError, match="1 node a pixel, not 4 x 4"):
        sample(blurred, *3 * [np.ones((2, 16))], 82.0)


def test_the_kernel_does_the_same_without_numba(monkeypatch):
    blocks = blocks_of(np.random.default_rng(0).random((60, 60)), 4)
    blurred = gaussian_blur(blocks, 8, ignore=0)
    frame = affine(scale=16, size=60)
    compiled = pixels(frame, blurred, *grid_of(3))
    monkeypatch.setattr(template, "_integrate", getattr(template._integrate, "py_func", template._integrate))
    for one, other in zip(compiled, pixels(frame, blurred, *grid_of(3)), strict=True):
        assert_allclose(one, other, rtol=1e-5)
