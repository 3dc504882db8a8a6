"""The convolution, against double precision at native resolution."""

import math

import numpy as np
import pytest
import real_data
from numpy.testing import assert_allclose, assert_array_equal
from scipy import fft
from scipy.interpolate import NdBSpline
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve

from syndiff_tasks.pixels import convolution, widening
from syndiff_tasks.pixels.blocks import to_blocks
from syndiff_tasks.pixels.convolution import convolve_gaussian, convolve_prf
from syndiff_tasks.pixels.mask import DQ, REPAIRED, bit_mask
from syndiff_tasks.pixels.prf import interpolate_prf, resample_prf
from syndiff_tasks.pixels.widening import widen

STAR = 1.87  # PS1 stars, FWHM 4.4 px


def star_image(shape, x, y, sigma=STAR):
    rows, columns = np.indices(shape)
    return np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2)) / (2 * math.pi * sigma**2)


def blocks_of(flux, bin, variance=None, mask=None, missing=None, corner=(0, 0)):
    return to_blocks(
        np.asarray(flux, np.float32),
        np.ones(flux.shape, np.float32) if variance is None else np.asarray(variance, np.float32),
        np.zeros(flux.shape, np.uint16) if mask is None else mask,
        np.zeros(flux.shape, np.uint8) if missing is None else missing,
        bin,
        corner,
    )


def read(plane, grid, x, y):
    """Sum of cubic B-splines centred on the samples, by scipy, at native positions."""
    knots = tuple(np.arange(n + 4) - 2.0 for n in plane.shape)
    spline = NdBSpline(knots, plane.astype(float), k=3)
    return spline(np.stack([(y - grid.y0) / grid.step, (x - grid.x0) / grid.step], axis=-1))


def inner(shape, edge, step=7):
    return np.meshgrid(np.arange(edge, shape[1] - edge, step), np.arange(edge, shape[0] - edge, step))


def centroid(plane, grid):
    rows, columns = np.indices(plane.shape)
    x, y = (plane * columns).sum(dtype=float), (plane * rows).sum(dtype=float)
    return np.array([x, y]) / plane.sum(dtype=float) * grid.step + [grid.x0, grid.y0]


@pytest.fixture(scope="module")
def sky():
    rng = np.random.default_rng(1)
    image = rng.normal(0, 1e-6, (400, 420))
    for x, y, flux in zip(rng.uniform(60, 360, 12), rng.uniform(60, 340, 12), rng.uniform(0.1, 1, 12), strict=True):
        image += flux * star_image(image.shape, x, y)
    return image


@pytest.mark.parametrize(("bin", "sigma"), [(1, 20), (4, 20), (4, 40), (8, 40), (4, 53)])
def test_convolved_blocks_agree_with_a_gaussian_filter_at_native_resolution(sky, bin, sigma):
    convolved = convolve_gaussian(blocks_of(sky, bin, corner=(1203, 77)), sigma, ignore=0)
    x, y = inner(sky.shape, 20)
    truth = gaussian_filter(sky, sigma, mode="constant", truncate=7)[y, x]
    assert np.abs(read(convolved.flux, convolved.grid, x, y) - truth).max() < 1.5e-4 * truth.max()


def test_the_convolution_alone_is_right_to_a_few_times_1e_6(sky):
    blocks, sigma, every = blocks_of(sky, 4), 10.0, 3
    convolved = convolve_gaussian(blocks, 4 * sigma, ignore=0)
    assert convolved.grid.step == 4 * every
    padded = np.pad(blocks.flux.astype(float), 150)
    f = [fft.fftfreq(n) for n in padded.shape]
    response = [np.exp(-2 * (math.pi * sigma * k) ** 2) / (np.sinc(k) ** 3 * np.sinc(every * k) ** 4) for k in f]
    response = [np.where(np.abs(k) < 0.5 / every, r, 0) for k, r in zip(f, response, strict=True)]
    truth = fft.ifft2(fft.fft2(padded) * np.outer(*response)).real / 16
    truth = truth[150 - every :: every, 150 - every :: every][: len(convolved.flux), : convolved.flux.shape[1]]
    assert_allclose(convolved.flux, truth, atol=5e-6 * truth.max())


def test_error_grows_with_sample_distance_and_is_small_at_the_chosen_one(sky, monkeypatch):
    x, y = inner(sky.shape, 60)
    truth = gaussian_filter(sky, 40, mode="constant", truncate=7)[y, x]
    errors = {}
    for samples, every in ((7, 1), (convolution.SAMPLES_PER_SIGMA, 3), (1.4, 5), (0.8, 8)):
        monkeypatch.setattr(convolution, "SAMPLES_PER_SIGMA", samples)
        convolved = convolve_gaussian(blocks_of(sky, 4), 40, ignore=0)
        assert convolved.grid.step == 4 * every
        errors[every] = np.abs(read(convolved.flux, convolved.grid, x, y) - truth).max() / truth.max()
    assert errors[1] < 3e-5 and errors[3] < 1e-4
    assert errors[1] < errors[3] < errors[5] < errors[8]


def test_the_truncated_kernel_lacks_less_than_1e_6_and_a_shorter_one_more(monkeypatch):
    kernels = {}
    for reach in (4.0, convolution.KERNEL_REACH, 9.0):
        monkeypatch.setattr(convolution, "KERNEL_REACH", reach)
        kernels[reach] = convolution._kernel(10.0, 3)
    whole = kernels.pop(9.0)
    lacking = [np.abs(whole - np.pad(cut, (len(whole) - len(cut)) // 2)).sum() for cut in kernels.values()]
    assert lacking[1] < 1e-6 < 1e-5 < lacking[0]


@pytest.mark.parametrize(
    ("blocks_per_sigma", "least", "most"), [(convolution.LEAST_BLOCKS_PER_SIGMA, 0, 1e-3), (1.5, 2e-3, 1)]
)
def test_the_narrowest_sigma_allowed_is_right_to_1e_3_and_a_narrower_one_is_not(
    blocks_per_sigma, least, most, monkeypatch
):
    monkeypatch.setattr(convolution, "LEAST_BLOCKS_PER_SIGMA", blocks_per_sigma)
    image = star_image((160, 160), 80.2, 71.7)
    convolved = convolve_gaussian(blocks_of(image, 4), 4 * blocks_per_sigma, ignore=0)
    x, y = inner(image.shape, 40, step=1)
    truth = gaussian_filter(image, 4 * blocks_per_sigma, mode="constant", truncate=7)[y, x]
    assert least < np.abs(read(convolved.flux, convolved.grid, x, y) - truth).max() / truth.max() < most


def test_a_skycell_of_full_size_is_stored_in_some_530_samples_a_side():
    assert convolution._samples(1580, convolution._samples_apart(40 / 4)) == 530


def test_flux_and_centroid_are_conserved():
    convolved = convolve_gaussian(blocks_of(star_image((400, 400), 190.3, 207.9), 4), 30, ignore=0)
    assert_allclose(convolved.flux.sum(dtype=float) * convolved.grid.step**2, 1, atol=1e-5)
    assert_allclose(centroid(convolved.flux, convolved.grid), [190.3, 207.9], atol=1e-3)


@pytest.mark.parametrize("sigma", [0, 16, 40])
def test_a_constant_sky_stays_constant_up_to_its_holes(sigma):
    sky = np.full((300, 300), 3.5)
    sky[120:150, 90:210] = np.nan
    sky[:, :7] = np.nan
    convolved = convolve_gaussian(blocks_of(sky, 4), sigma, ignore=0)
    seen = convolved.valid > 1e-3
    assert_allclose(convolved.flux[seen] / convolved.valid[seen], 3.5, rtol=1e-5)
    x, y = inner(sky.shape, 5)
    truth = gaussian_filter(np.isfinite(sky).astype(float), math.hypot(sigma, 0 if sigma else 3.055), mode="constant")
    assert_allclose(read(convolved.valid, convolved.grid, x, y), truth[y, x], atol=1e-3 if sigma else 0.03)


def test_masked_is_the_convolved_share_of_pixels_with_a_bit():
    rng = np.random.default_rng(5)
    mask = (rng.random((300, 300)) < 0.2).astype(np.uint16) * 4096
    convolved = convolve_gaussian(blocks_of(np.zeros(mask.shape), 4, mask=mask), 16, ignore=0)
    x, y = inner(mask.shape, 20)
    truth = gaussian_filter((mask > 0).astype(float), 16, mode="constant", truncate=7)[y, x]
    assert_allclose(read(convolved.masked, convolved.grid, x, y), truth, atol=1e-4)


@pytest.mark.parametrize("sigma", [16, 40])
def test_variance_is_that_of_the_convolved_flux(sigma):
    rng = np.random.default_rng(2)
    variance = rng.uniform(0.5, 2, (400, 400))
    variance[150:250, 120:180] *= 20
    flux = np.where(rng.random(variance.shape) < 0.1, np.nan, 0.0)
    flux[:, 300:310] = np.nan
    convolved = convolve_gaussian(blocks_of(flux, 4, variance), sigma, ignore=0)
    kernel = np.exp(-(np.arange(-200, 201) ** 2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi))
    squared = np.outer(kernel, kernel) ** 2
    truth = fftconvolve(np.where(np.isnan(flux), 0, variance), squared, mode="same")
    x, y = inner(flux.shape, 5)
    assert_allclose(read(convolved.variance, convolved.grid, x, y), truth[y, x], rtol=5e-3)
    assert convolved.variance.min() >= 0


def test_without_convolution_a_star_is_wider_by_the_two_splines_only():
    blocks = blocks_of(star_image((160, 160), 80.4, 77.7), 4)
    convolved = convolve_gaussian(blocks, 0, ignore=0)
    assert convolved.grid.step == 4 and convolved.sigma == pytest.approx(4 * math.sqrt(1 / 4 + 1 / 3))
    x, y = np.meshgrid(*2 * [np.arange(40, 120, 0.5)])
    profile = read(convolved.flux, convolved.grid, x, y) / 4
    assert_allclose(profile.sum(), 1, atol=1e-5)
    assert_allclose([(profile * x).sum(), (profile * y).sum()], [80.4, 77.7], atol=1e-3)
    assert_allclose((profile * (x - 80.4) ** 2).sum(), STAR**2 + 4**2 / 4 + 4**2 / 3, rtol=2e-3)


@pytest.mark.parametrize("sigma", [7.9, -1, math.nan])
def test_a_sigma_too_narrow_for_the_blocks_is_refused_naming_the_bin_that_fits(sky, sigma):
    with pytest.raises(ValueError, match="bin of 3 or less" if sigma > 0 else "or 0 for no convolution"):
        convolve_gaussian(blocks_of(sky, 4), sigma, ignore=0)


def test_flags_spread_as_far_as_the_kernel_and_no_further():
    mask, missing = np.zeros((400, 400), np.uint16), np.zeros((400, 400), np.uint8)
    mask[200, 100], mask[200, 200] = bit_mask([5]), bit_mask([12])
    missing[200, 300], missing[100, 200] = 8, REPAIRED
    convolved = convolve_gaussian(blocks_of(np.zeros(mask.shape), 4, mask=mask, missing=missing), 20, bit_mask([12]))
    rows, columns = np.indices(convolved.dq.shape) * convolved.grid.step + convolved.grid.x0
    near, far_off = 20 + convolution.DQ_HALF_GAP, convolution.FAR_REACH * 20 + convolution.DQ_HALF_GAP
    for bit, x, y, reach in (
        (DQ.SAT_PS1, 100, 200, far_off),
        (DQ.IGNORED_BIT, 200, 200, near),
        (DQ.BAND_MISSING, 300, 200, near),
        (DQ.STAR_REPAIRED, 200, 100, near),
    ):
        far = np.maximum(np.abs(columns - x), np.abs(rows - y))
        assert (convolved.dq[far <= reach - 4] & bit).all()
        assert not (convolved.dq[far > reach + 8] & bit).any()


def gaussian_kernel(sigma, half):
    line = np.exp(-(np.arange(-half, half + 1) ** 2) / (2 * sigma**2))
    return np.outer(line, line)


def test_a_gaussian_given_as_a_kernel_image_does_what_the_gaussian_convolution_does(sky):
    rng = np.random.default_rng(3)
    flux = np.where(rng.random(sky.shape) < 0.1, np.nan, sky)
    blocks = blocks_of(flux, 4, rng.uniform(1, 2, sky.shape), mask=(rng.random(sky.shape) < 0.1).astype(np.uint16))
    one, two = convolve_prf(blocks, [(gaussian_kernel(10, 60), 1.0)], ignore=0), convolve_gaussian(blocks, 40, ignore=0)
    assert one.sigma is None and one.grid == two.grid
    for name in ("flux", "valid", "masked"):
        peak = getattr(two, name).max()
        assert_allclose(getattr(one, name), getattr(two, name), atol=1e-5 * peak, err_msg=name)
    assert_allclose(one.variance, two.variance, atol=2e-3 * two.variance.max())


def test_a_lopsided_kernel_is_not_turned_round(sky):
    rows, columns = np.indices((401, 401)) - 200
    kernel = np.exp(-(columns**2 + 1.5 * rows**2) / (2 * 40**2)) + 0.3 * np.exp(
        -((columns - 50) ** 2 + (rows + 20) ** 2) / (2 * 30**2)
    )
    kernel /= kernel.sum()
    convolved = convolve_prf(blocks_of(sky, 4), [(kernel[::4, ::4], 1.0)], ignore=0)
    x, y = inner(sky.shape, 20)
    truth = fftconvolve(sky, kernel, mode="same")[y, x]
    assert np.abs(read(convolved.flux, convolved.grid, x, y) - truth).max() < 5e-4 * truth.max()


def test_a_kernel_with_fine_structure_is_sampled_more_finely(sky):
    smooth, rng = gaussian_kernel(14, 70), np.random.default_rng(6)
    rough = smooth + 0.02 * fftconvolve(rng.normal(size=smooth.shape), gaussian_kernel(2, 8), mode="same") * smooth
    steps = [convolve_prf(blocks_of(sky, 4), [(k, 1.0)], ignore=0).grid.step for k in (smooth, rough)]
    assert steps[1] < steps[0] == convolve_gaussian(blocks_of(sky, 4), 56, ignore=0).grid.step


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (np.ones((4, 4)), "no central pixel"),
        (np.ones((3, 5)), "no central pixel"),
        (np.zeros((5, 5)), "sums to 0"),
        (np.full((5, 5), np.nan), "sums to nan"),
        (gaussian_kernel(1, 8), "too narrow"),
    ],
)
def test_a_kernel_that_cannot_be_used_is_refused(sky, kernel, message):
    with pytest.raises(ValueError, match=message):
        convolve_prf(blocks_of(sky, 4), [(kernel, 1.0)], ignore=0)


def test_prf_between_grid_points_is_bilinear_and_beyond_them_the_nearest():
    rows, cols = np.repeat([1, 1025, 2048], 3), np.tile([45, 1069, 2092], 3)
    shape = np.arange(6.0).reshape(2, 3)
    prfs = [shape + 2 * r - 3 * c + r * c for r, c in zip(rows, cols, strict=True)]
    order = np.random.default_rng(0).permutation(9)
    prfs, rows, cols = np.array(prfs)[order], rows[order], cols[order]
    at = interpolate_prf(prfs, rows, cols, 300.5, 1500.25)
    assert_allclose(at, shape + 2 * 300.5 - 3 * 1500.25 + 300.5 * 1500.25)
    assert_allclose(interpolate_prf(prfs, rows, cols, -50, 2200), shape + 2 - 3 * 2092 + 2092)
    assert_allclose(interpolate_prf(prfs[:1], rows[:1], cols[:1], 9, 9), prfs[0])


def test_prfs_that_are_not_a_full_grid_are_refused():
    with pytest.raises(ValueError, match="one for each crossing.*1069"):
        interpolate_prf(np.ones((3, 5, 5)), [1, 1, 1025], [45, 1069, 45], 10, 60)
    with pytest.raises(ValueError, match="complete the folder"):
        interpolate_prf(np.ones((0, 5, 5)), [], [], 10, 60)


ANGLE = 0.6
TO_TESS = np.array([[math.cos(ANGLE), math.sin(ANGLE)], [-math.sin(ANGLE) * 1.02, math.cos(ANGLE)]]) / 82


def test_a_resampled_prf_has_the_moments_of_the_prf_taken_through_the_jacobian():
    rows, columns = (np.indices((117, 117)) - 58) / 9
    prf = np.exp(-((columns - 0.2) ** 2 / 0.6 + (rows + 0.1) ** 2 / 0.9 + 0.3 * columns * rows))
    kernel = resample_prf(prf, TO_TESS, 4)
    y, x = (np.indices(kernel.shape) - kernel.shape[0] // 2) * 4.0
    sky = np.array([(kernel * x).sum(), (kernel * y).sum()])
    tess = np.array([(prf * columns).sum(), (prf * rows).sum()]) / prf.sum()
    assert_allclose(TO_TESS @ sky, tess, atol=1e-6)
    dx, dy = x - sky[0], y - sky[1]
    spread = [[(kernel * a * b).sum() for a in (dx, dy)] for b in (dx, dy)]
    dx, dy = columns - tess[0], rows - tess[1]
    expected = np.array([[(prf * a * b).sum() for a in (dx, dy)] for b in (dx, dy)]) / prf.sum()
    assert_allclose(TO_TESS @ spread @ TO_TESS.T, expected, rtol=1e-5)


def test_a_prf_that_cannot_be_resampled_is_refused():
    with pytest.raises(ValueError, match="middle sample"):
        resample_prf(np.ones((116, 117)), TO_TESS, 4)
    with pytest.raises(ValueError, match="singular"):
        resample_prf(np.ones((117, 117)), np.ones((2, 2)), 4)


def test_no_real_prf_is_touched_by_resampling_but_for_its_plane():
    for prf in real_data.prfs():
        kernel = resample_prf(prf, np.eye(2) / 36, bin=4)  # a sample of the PRF is exactly a block
        assert_allclose(kernel, prf / prf.sum(), atol=1e-12)


def shift(dx, dy):
    return np.array([[1, 0, dx], [0, 1, dy], [0, 0, 1.0]])


def test_a_frame_widened_by_aligned_neighbours_is_the_frame_cut_larger(sky):
    mask = (np.random.default_rng(4).random(sky.shape) < 0.01).astype(np.uint16) * 32
    missing = np.zeros(sky.shape, np.uint8)
    missing[:, 260:] = 2
    corner = (2401, 1203)

    def cut(x0, x1):
        part = np.s_[:, x0:x1]
        return blocks_of(sky[part], 4, mask=mask[part], missing=missing[part], corner=(corner[0] + x0, corner[1]))

    whole, left, right = cut(0, 420), cut(0, 243), cut(163, 420)
    wide = widen(left, 100, [(right, shift(163, 0))])
    assert wide.grid.x0 == left.grid.x0 - 100
    row, column = (round((whole.grid[i] - wide.grid[i]) / 4) for i in (1, 0))
    for name in ("flux", "variance", "valid", "masked", "bits", "missing"):
        found = getattr(wide, name)[row + 8 : row + 90, column + 8 : column + 80]
        assert_array_equal(found.shape, (82, 72))
        assert_allclose(found, getattr(whole, name)[8:90, 8:80], rtol=1e-5, atol=1e-6, err_msg=name)


def test_a_frame_widened_from_another_projection_has_its_stars_where_they_belong():
    angle, star = 0.3, np.array([370.2, 120.6])
    to_here = np.array(
        [[math.cos(angle), -math.sin(angle), 250], [math.sin(angle), math.cos(angle), -60], [1e-7, 0, 1]]
    )
    there = np.linalg.inv(to_here) @ [*star, 1]
    there = there[:2] / there[2]
    own = blocks_of(star_image((300, 300), *star), 4)
    other = blocks_of(star_image((400, 400), *there), 4, mask=np.full((400, 400), 32, np.uint16))
    wide = widen(own, 160, [(other, to_here)])
    edge = widening._edge(4)
    assert_array_equal(wide.flux[40 + edge : -40 - edge, 40 + edge : -40 - edge], own.flux[edge:-edge, edge:-edge])
    assert_allclose(wide.flux.sum(dtype=float), 1, atol=1e-4)
    assert_allclose(centroid(wide.flux, wide.grid), star, atol=1e-2)
    convolved = convolve_gaussian(wide, 30, ignore=0)
    x, y = np.meshgrid(np.arange(240, 300, 10), np.arange(60, 200, 10))
    seen = read(convolved.flux, convolved.grid, x, y) / read(convolved.valid, convolved.grid, x, y)
    width = math.hypot(30, STAR)
    truth = np.exp(-((x - star[0]) ** 2 + (y - star[1]) ** 2) / (2 * width**2)) / (2 * math.pi * width**2)
    assert_allclose(seen, truth, atol=0.01 / (2 * math.pi * width**2))
    column, row = (round((star[i] - wide.grid[i]) / 4) for i in (0, 1))
    assert wide.bits[row, column] == 32


def test_the_first_of_two_neighbours_gives_what_both_hold():
    own, first, second = (blocks_of(np.full((160, 160), v), 4) for v in (1.0, 2.0, 3.0))
    wide = widen(own, 80, [(first, shift(100, 0)), (second, shift(100, 0)), (second, shift(-100, 0))])
    middle = wide.flux[len(wide.flux) // 2] / 16
    assert middle[-15] == 2 and middle[30] == 1 and middle[15] == 3


def test_blocks_of_another_size_do_not_widen(sky):
    with pytest.raises(ValueError, match="blocks of 8 px cannot widen blocks of 4 px"):
        widen(blocks_of(sky, 4), 100, [(blocks_of(sky, 8), np.eye(3))])


def test_a_neighbour_out_of_reach_changes_nothing():
    own = blocks_of(np.ones((80, 80)), 4)
    alone = widen(own, 40, [])
    for far in (shift(4000, 0), [[0.9, 0.1, 4000], [-0.1, 0.9, 0], [0, 0, 1]]):
        for a, b in zip(widen(own, 40, [(own, np.array(far))])[:-1], alone[:-1], strict=True):
            assert_array_equal(a, b)
