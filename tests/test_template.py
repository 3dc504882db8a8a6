"""TESS pixels out of convolved blocks, against analytic stars and sums over native pixels in double precision.

TESS and PS1 are joined by an affine map made by hand: turned, sheared, 82 native px a TESS pixel.
"""

import math

import numpy as np
import pytest
import real_data
from numpy.testing import assert_allclose, assert_array_equal
from scipy.interpolate import RectBivariateSpline
from scipy.special import erf

from syndiff_tasks.demo.affine import sampled
from syndiff_tasks.pixels import quadrature, template
from syndiff_tasks.pixels.blocks import to_blocks
from syndiff_tasks.pixels.convolution import convolve_gaussian, convolve_prf
from syndiff_tasks.pixels.mask import DQ, bit_mask
from syndiff_tasks.pixels.prf import resample_prf
from syndiff_tasks.pixels.quadrature import quadrature_rule

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


def pixels(frame, convolved, reach, offset=(0.0, 0.0), rule=None):
    """Template of the pixels -reach .. reach, in the order of `grid_of`."""
    return sampled(convolved, frame, (-reach, -reach, reach + 1, reach + 1), offset, rule)


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
    x, y = x - 0.3, y + 0.2
    for star in STARS:
        convolved = convolve_gaussian(blocks_of(star_image(700, star), bin, corner=(6003, 12009)), sigma, ignore=0)
        found = pixels(frame, convolved, 3, (0.3, -0.2))
        truth = star_in_pixels(frame, star, math.hypot(sigma, STAR), x, y)
        flux = found.flux * found.coverage  # the frame ends within reach of the outermost pixels
        assert np.abs(flux - truth).max() < worst * truth.max()
        assert abs(flux.sum() / truth.sum() - 1) < worst
        for axis in (x, y):
            assert abs((flux * axis).sum() / flux.sum() - (truth * axis).sum() / truth.sum()) < 5e-4


def test_a_star_is_integrated_over_small_pixels_too():
    frame, star = affine(scale=20.5, size=200), (93.1, 108.4)
    found = pixels(frame, convolve_gaussian(blocks_of(star_image(200, star), 4), 10, ignore=0), 3).flux
    truth = star_in_pixels(frame, star, math.hypot(10, STAR), *grid_of(3))
    assert np.abs(found - truth).max() < 1e-3 * truth.max()


def test_blocks_of_1_agree_with_blocks_of_4():
    frame = affine()
    image = sum(f * star_image(700, s) for f, s in zip((1, 0.3, 0.7, 0.1), STARS, strict=True))
    one, four = (pixels(frame, convolve_gaussian(blocks_of(image, b), 40, ignore=0), 3).flux for b in (1, 4))
    assert np.abs(one - four).max() < 5e-4 * one.max()


def test_without_convolution_flux_is_right_to_0_5_percent_and_centroid_to_0_01_px():
    frame = affine(size=400)
    x, y = grid_of(1)
    for star in np.array(STARS) - 150:
        convolved = convolve_gaussian(blocks_of(star_image(400, star), 4), 0, ignore=0)
        flux = pixels(frame, convolved, 1).flux
        truth = star_in_pixels(frame, star, math.hypot(convolved.sigma, STAR), x, y)
        assert abs(flux.sum() - 1) < 5e-3
        assert np.abs(flux - truth).max() < 2e-2 * truth.max()
        for axis in (x, y):
            assert abs((flux * axis).sum() - (truth * axis).sum()) < 1e-2


def test_a_sparser_star_field_keeps_its_total_flux():
    frame, rng = affine(scale=41, size=700), np.random.default_rng(7)
    fluxes, stars = rng.uniform(0.1, 1, 20), rng.uniform(280, 420, (20, 2))
    image = sum(f * star_image(700, s) for f, s in zip(fluxes, stars, strict=True))
    found = pixels(frame, convolve_gaussian(blocks_of(image, 4), 20, ignore=0), 5)
    assert abs((found.flux * found.coverage).sum() / fluxes.sum() - 1) < 1e-4


def test_a_constant_sky_is_constant_up_to_its_holes_and_coverage_tells_them():
    frame = affine()
    sky = np.full((700, 700), 2.5)
    sky[300:420, 330:400] = np.nan
    sky[:150] = np.nan
    convolved = convolve_gaussian(blocks_of(sky, 4), 40, ignore=0)
    x, y = grid_of(2)
    found = pixels(frame, convolved, 2)
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
    convolved = convolve_gaussian(
        blocks_of(np.zeros(marked.shape), 4, mask=marked.astype(np.uint16) * 64), 40, ignore=0
    )
    x, y = grid_of(2)
    found = pixels(frame, convolved, 2)
    area = abs(np.linalg.det(frame[0]))
    assert_allclose(found.masked, covered(frame, marked, 40, x, y) * area, atol=5e-4 * area)


def test_without_data_flux_is_nan_and_dq_says_so():
    frame = affine(size=300)
    convolved = convolve_gaussian(blocks_of(np.ones((300, 300)), 4), 20, ignore=0)
    found = sampled(convolved, frame, (0, 0, 41, 1))
    assert np.isfinite(found.flux[0]) and found.dq[0] == 0
    for plane in (found.flux, found.variance):
        assert np.isnan(plane[10:]).all()
    for plane in (found.coverage, found.count, found.masked):
        assert_array_equal(plane[10:], 0)
    assert_array_equal(found.dq[10:], DQ.NO_PS1)
    assert {a.dtype for a in found[:-1]} == {np.dtype(np.float32)} and found.dq.dtype == np.uint16


def test_every_pixel_within_sigma_of_a_flagged_one_is_flagged_and_none_far_off():
    frame, rng = affine(), np.random.default_rng(11)
    matrix, origin = frame
    x, y = grid_of(3)
    for _ in range(12):
        star = rng.uniform(250, 450, 2).astype(int)
        mask = np.zeros((700, 700), np.uint16)
        mask[star[1], star[0]] = bit_mask([12])
        found = pixels(frame, convolve_gaussian(blocks_of(np.zeros(mask.shape), 4, mask=mask), 40, bit_mask([12])), 3)
        u, v = np.linalg.solve(matrix, star - origin)
        far = 82 * np.hypot(np.maximum(np.abs(x - u) - 0.5, 0), np.maximum(np.abs(y - v) - 0.5, 0))
        flagged = (found.dq & DQ.IGNORED_BIT) > 0
        assert flagged[far < 40].all()
        assert not flagged[far > 1.5 * (40 + 14 + 12)].any()


def star_error(density, sigma, frame):
    """Worst error of the sum over points, of the peak, for Gaussians all over a TESS pixel."""
    chosen = quadrature_rule(sigma, 82.0)
    trial = chosen._replace(density=density, nodes=density + 2 * quadrature.BEYOND)
    x, y = grid_of(3)
    worst = 0.0
    for u in np.linspace(-0.5, 0.5, 7):
        for v in np.linspace(-0.5, 0.5, 7):
            star = frame[0] @ [u, v] + frame[1]
            total = 0.0
            for (along, across), at in summed_points(trial, x, y):
                px, py = np.tensordot(frame[0], at, axes=1) + frame[1][:, None]
                value = np.exp(-((px - star[0]) ** 2 + (py - star[1]) ** 2) / (2 * sigma**2))
                total = total + along * across * value
            truth = star_in_pixels(frame, star, sigma, x, y)
            found = total * 82.0**2 / (2 * math.pi * sigma**2)
            worst = max(worst, np.abs(found - truth).max() / truth.max())
    return worst


def summed_points(trial, x, y):
    """Weights (x, y) and places of each of the points that are summed for the pixels x, y."""
    weights = quadrature.node_weights(trial, 0.0)
    line = (weights.first + np.arange(trial.nodes) + 0.5) / trial.density - 0.5
    for along, u in zip(weights.flux, line, strict=True):
        for across, v in zip(weights.flux, line, strict=True):
            yield (along, across), np.stack([x + u, y + v])


@pytest.mark.parametrize("sigma", [28, 40])
def test_the_chosen_points_integrate_stars_and_fewer_do_not(sigma):
    frame = affine(shear=0)
    density = quadrature_rule(sigma, 82.0).density
    assert star_error(density, sigma, frame) < 2e-4 < 5 * star_error(density - 1, sigma, frame)


@pytest.mark.parametrize("sigma", [28, 40])
def test_points_beyond_a_pixel_make_the_sum_right_and_fewer_of_them_do_not(sigma, monkeypatch):
    chosen, errors = quadrature_rule(sigma, 82.0), {}
    for beyond in (2, quadrature.BEYOND):
        monkeypatch.setattr(quadrature, "BEYOND", beyond)
        errors[beyond] = quadrature._quadrature_error(chosen.density, chosen.sky)
    assert errors[4] < quadrature.QUADRATURE_ERROR < errors[2]
    assert errors[2] > 6 * errors[4]


@pytest.mark.parametrize(("blur", "oversampling", "most"), [(20, 1, 1e-3), (20, 4, 1e-3), (0, 1, 2e-3), (0, 4, 4e-3)])
def test_a_pixel_scale_of_three_digits_moves_the_variance_by_less_than_stated(blur, oversampling, most, monkeypatch):
    sigma = blur or 4 * math.sqrt(7 / 12)
    scales = np.linspace(79.6, 84.3, 12) / oversampling
    sums = {}
    for digits in (quadrature.SCALE_DIGITS, 9):
        monkeypatch.setattr(quadrature, "SCALE_DIGITS", digits)
        weights = [quadrature.node_weights(quadrature_rule(sigma, scale), 0.0) for scale in scales]
        assert_allclose([one.flux.sum(dtype=float) for one in weights], 1, atol=1e-6)
        sums[digits] = np.array([one.variance.sum(dtype=float) ** 2 for one in weights])
    assert 0 < np.abs(sums[3] / sums[9] - 1).max() < most


def test_a_pixel_has_3_nodes_by_default_more_without_convolution_and_1_for_a_prf():
    assert quadrature_rule(40, 82.0).density == 3
    assert 20 <= quadrature_rule(4 * math.sqrt(7 / 12), 82.0).density <= 34
    assert quadrature_rule(40, 20.5).density == 3
    assert quadrature_rule(None, 82.0).density == 1
    with pytest.raises(ValueError, match="both positive"):
        quadrature_rule(0, 82.0)


@pytest.mark.parametrize("offset", [0.0, 0.1, -0.3, 2.4])
def test_weights_are_right_for_constants_and_slopes_and_repeat_every_pixel(offset):
    chosen = quadrature_rule(40, 82.0)
    weights = quadrature.node_weights(chosen, offset)
    at = (weights.first + np.arange(chosen.nodes) + 0.5) / chosen.density - 0.5
    assert_allclose(weights.flux.sum(dtype=float), 1, atol=1e-6)
    assert_allclose((weights.flux * at).sum(dtype=float), -offset, atol=1e-4)
    assert (weights.variance >= 0).all()
    further = quadrature.node_weights(chosen, offset - 1)
    assert further.first == weights.first + chosen.density
    assert_allclose(further.flux, weights.flux, atol=1e-6)


def test_a_grid_for_more_offsets_holds_the_same_nodes():
    chosen = quadrature_rule(40, 82.0)
    owned = np.tri(7, 9, 2, dtype=bool)
    few = quadrature.quadrature_grid(owned, (50, 60), chosen, [(0.1, -0.2)])
    more = quadrature.quadrature_grid(owned, (50, 60), chosen, [(0.1, -0.2), (1.4, 0.0), (-2.0, 3.0)])
    right, up = few.first_x - more.first_x, few.first_y - more.first_y
    assert_array_equal(more.x[right : right + len(few.x)], few.x)
    assert_array_equal(more.y[up : up + len(few.y)], few.y)


def in_two_pieces():
    """Which pixels are a skycell's: corners cut off, no row of its own in the middle, and one pixel of another's."""
    owned = np.tri(16, 9, 2, dtype=bool)
    owned[4:10] = owned[12, 3] = False
    return owned


def test_points_that_no_owned_pixel_needs_are_not_asked_for():
    chosen = quadrature_rule(40, 82.0)
    owned = in_two_pieces()
    offsets = [(0.1, -0.2), (0.6, 0.3)]
    laid = quadrature.quadrature_grid(owned, (50, 60), chosen, offsets)
    needed = np.zeros((len(laid.y), len(laid.x)), bool)
    for offset in offsets:
        x, y = (quadrature.node_weights(chosen, value).first for value in offset)
        for row, column in np.argwhere(owned):
            first_x, first_y = x - laid.first_x + 3 * column, y - laid.first_y + 3 * row
            needed[first_y : first_y + chosen.nodes, first_x : first_x + chosen.nodes] = True
    asked = np.zeros_like(needed)
    for row, (start, stop) in enumerate(zip(laid.start, laid.stop, strict=True)):
        asked[row, start:stop] = True
    assert not (needed & ~asked).any()
    assert asked.sum() < 1.1 * needed.sum() < 0.9 * needed.size


def test_owned_pixels_are_filled_in_as_if_all_were_owned_and_others_are_left_alone():
    frame, owned = affine(scale=20.5, size=400), in_two_pieces()
    convolved = convolve_gaussian(blocks_of(star_image(400, (230.1, 220.7)), 4), 10, ignore=0)
    made = []
    for pieces in (owned, np.ones_like(owned)):
        laid = quadrature.quadrature_grid(pieces, (-4, -8), quadrature_rule(10, 20.5), [(0.3, 0.1)])
        made.append(template.blank(owned.shape))

        def positions(x, y, start, stop):
            return *(np.tensordot(frame[0], np.meshgrid(x, y), axes=1) + frame[1][:, None, None]), 20.5**2

        template.integrate(convolved, laid, positions, made[-1:])
    for alone, among, empty in zip(*made, template.blank(owned.shape), strict=True):
        assert_array_equal(alone, np.where(owned, among, empty))
    assert np.isfinite(made[1].flux).all()


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
    reach = int(70 / scale)
    x, y = grid_of(reach)
    found = pixels(
        frame, convolve_gaussian(blocks_of(np.where(blank, np.nan, 0), bin, variance), sigma, ignore=0), reach
    )
    share = shares(frame, x, y, 200, sigma) * ~blank
    coverage = share.sum(axis=(1, 2)) / scale**2
    truth = (share**2 * variance).sum(axis=(1, 2)) / coverage**2
    assert_allclose(found.variance[coverage > 0.1], truth[coverage > 0.1], rtol=0.03)
    assert abs(np.mean(found.variance / truth) - 1) < 0.01


@pytest.mark.parametrize(("points", "least", "most"), [(quadrature.LEAST_POINTS, 0, 0.015), (2, 0.15, 1)])
def test_variance_of_the_fewest_points_is_right_beside_holes_and_of_fewer_it_is_not(points, least, most):
    variance, blank = noisy_frame()
    frame = affine(scale=20.5, size=200, shear=0)
    convolved = convolve_gaussian(blocks_of(np.where(blank, np.nan, 0), 4, variance), 10, ignore=0)
    chosen = quadrature_rule(10, 20.5)._replace(density=points, nodes=points + 2 * quadrature.BEYOND)
    found = pixels(frame, convolved, 3, rule=chosen)
    share = shares(frame, *grid_of(3), 200, 10) * ~blank
    coverage = share.sum(axis=(1, 2)) / 20.5**2
    truth = (share**2 * variance).sum(axis=(1, 2)) / coverage**2
    assert least < np.abs(found.variance / truth - 1)[coverage > 0.1].max() < most


def test_scatter_of_noise_is_what_variance_says_at_holes_and_borders_too():
    variance, blank = noisy_frame()
    frame = affine(scale=20.5, size=200, shear=0)
    rng = np.random.default_rng(9)
    values = []
    for _ in range(400):
        noise = rng.normal(0, np.sqrt(variance))
        blocks = blocks_of(np.where(blank, np.nan, noise), 4, variance)
        found = pixels(frame, convolve_gaussian(blocks, 10, ignore=0), 3)
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


def prf_of_a_star(prf, star, size=1000, bin=4):
    frame = affine(size=size)
    kernel = resample_prf(prf, np.linalg.inv(frame[0]), bin)
    point = star_image(size, star, sigma=0.8)  # as good as a point beside a TESS pixel, and well sampled itself
    return frame, convolve_prf(blocks_of(point, bin), [(kernel, 1.0)], ignore=0)


def test_template_with_a_prf_is_what_each_pixel_receives_of_the_star():
    prf, response = made_up_prf()
    star = (512.3, 488.9)
    x, y = grid_of(3)
    frame, convolved = prf_of_a_star(prf, star)
    found = pixels(frame, convolved, 3)
    u, v = np.linalg.solve(frame[0], np.array(star) - frame[1])
    truth = response(x - u, y - v) / (prf.sum() / 81)
    flux = found.flux * found.coverage
    assert np.abs(flux - truth).max() < 5e-4 * truth.max()
    assert abs(flux.sum() / truth.sum() - 1) < 5e-4
    for axis in (x, y):
        assert abs((flux * axis).sum() / flux.sum() - (truth * axis).sum() / truth.sum()) < 2e-3


def test_template_with_a_real_prf_is_the_prf_at_the_pixel_centres():
    for prf in real_data.prfs():
        star = (480.4, 521.7)
        x, y = grid_of(3)
        frame, convolved = prf_of_a_star(prf, star)
        found = pixels(frame, convolved, 3)
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
    blocks = blocks_of(np.where(blank, np.nan, 0), 4, variance)
    convolved = convolve_prf(blocks, [(np.outer(line, line), 1.0)], ignore=0)
    found = pixels(frame, convolved, 3)
    px, py, w = nodes(frame, *grid_of(3), 1)
    gx, gy = (np.exp(-((np.arange(200) - c) ** 2) / (2 * 12**2)) for c in (px, py))
    share = w[:, :, None] * gy[:, :, None] * gx[:, None, :] / (2 * math.pi * 12**2) * ~blank
    coverage = share.sum(axis=(1, 2)) / 20.5**2
    assert_allclose(found.variance, (share**2 * variance).sum(axis=(1, 2)) / coverage**2, rtol=0.03)


def points_asked_for(sigma, offsets):
    """Columns and rows of each reading of a sky."""
    laid = quadrature.quadrature_grid(np.ones((2, 3), bool), (10, 20), quadrature_rule(sigma, 82.0), offsets)
    asked = []

    def positions(x, y, start, stop):
        asked.append((x.tolist(), y.tolist()))
        return *np.full((2, len(y), len(x)), np.nan), 82.0**2

    convolved = convolve_gaussian(blocks_of(np.ones((40, 40)), 4), 8, ignore=0)
    template.integrate(convolved, laid, positions, [template.blank((2, 3)) for _ in offsets])
    return asked


def test_a_prf_is_sampled_at_moved_centers_and_a_gaussian_sky_once_for_all_offsets():
    offsets = [(0.25, -0.5), (1.0, 2.0)]
    assert points_asked_for(None, offsets) == [([9.75, 10.75, 11.75], [20.5, 21.5]), ([9, 10, 11], [18, 19])]
    assert len(points_asked_for(40, offsets)) == 1


@pytest.mark.parametrize("offset", [(0.25, -0.5), (-1.0, 0.1)])
def test_an_offset_with_a_prf_is_a_sky_moved_as_far(offset):
    prf, _ = made_up_prf()
    (matrix, origin), convolved = prf_of_a_star(prf, (512.3, 488.9))
    moved = pixels((matrix, origin), convolved, 3, offset)
    for plane, other in zip(moved, pixels((matrix, origin - matrix @ offset), convolved, 3), strict=True):
        assert_allclose(plane, other, rtol=1e-5, atol=1e-6)
