import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from syndiff_tasks.pixels.blocks import BRIGHT_SIGMA, MANTISSA_BITS, rounded, to_blocks
from syndiff_tasks.pixels.mask import BRIGHT_RIM, GAP


def planes(shape=(23, 31), seed=0, holes=0.1):
    rng = np.random.default_rng(seed)
    flux = rng.standard_normal(shape).astype(np.float32)
    flux[rng.random(shape) < holes] = np.nan
    variance = rng.uniform(1, 2, shape).astype(np.float32)
    variance[rng.random(shape) < holes / 5] = np.nan
    mask = np.where(rng.random(shape) < 0.3, rng.integers(0, 65536, shape), 0).astype(np.uint16)
    missing = np.where(rng.random(shape) < 0.3, rng.integers(0, 256, shape), 0).astype(np.uint8)
    return flux, variance, mask, missing


def point(shape, x, y):
    flux = np.zeros(shape, np.float32)
    flux[y, x] = 1
    return flux, np.ones(shape, np.float32), np.zeros(shape, np.uint16), np.zeros(shape, np.uint8)


def bspline(t):
    """Quadratic B-spline, from its textbook pieces."""
    t = abs(t)
    return 0.75 - t**2 if t <= 0.5 else (1.5 - t) ** 2 / 2 if t <= 1.5 else 0.0


def brute_force(flux, variance, mask, missing, bin, corner, exclude, counted):
    """Pixel by pixel and block by block, in double precision, on the projection's own grid."""
    ny, nx = flux.shape
    first = [corner[0] // bin - 1, corner[1] // bin - 1]
    nbx, nby = ((corner[a] + n - 1) // bin + 1 - first[a] + 1 for a, n in ((0, nx), (1, ny)))
    out = {name: np.zeros((nby, nbx)) for name in ("flux", "variance", "valid", "masked")}
    bits, lacking = np.zeros((nby, nbx), int), np.zeros((nby, nbx), int)
    valid = np.isfinite(flux) & np.isfinite(variance) & ((mask & exclude) == 0)
    for y, x in np.ndindex(ny, nx):
        # Position in blocks, on a grid whose block k has its centre at k.
        px = (corner[0] + x + 0.5) / bin - 0.5 - first[0]
        py = (corner[1] + y + 0.5) / bin - 0.5 - first[1]
        own = (corner[1] + y) // bin - first[1], (corner[0] + x) // bin - first[0]
        bits[own] |= int(mask[y, x])
        if not valid[y, x]:
            around = np.s_[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
            bright = valid[around] & (flux[around] > BRIGHT_SIGMA * np.sqrt(variance[around]))
            lacking[own] |= GAP | (BRIGHT_RIM if bright.any() else 0)
            continue
        lacking[own] |= int(missing[y, x])
        for j in range(max(own[0] - 2, 0), min(own[0] + 3, nby)):
            for i in range(max(own[1] - 2, 0), min(own[1] + 3, nbx)):
                weight = bspline(i - px) * bspline(j - py)
                out["flux"][j, i] += weight * flux[y, x]
                out["variance"][j, i] += weight * variance[y, x]
                out["valid"][j, i] += weight
                out["masked"][j, i] += weight * ((mask[y, x] & counted) != 0)
    return out, bits, lacking


@pytest.mark.parametrize("bin", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("corner", [(0, 0), (17461, 5822), (-7, 29101)])
def test_blocks_are_those_of_the_brute_force_sum(bin, corner):
    native = planes()
    native[0][5:8, 11:14] = 9
    ours = to_blocks(*native, bin, corner, exclude=2048 | 32, counted=128 | 4096)
    sums, bits, lacking = brute_force(*native, bin, corner, 2048 | 32, 128 | 4096)
    for name, expected in sums.items():
        assert_allclose(getattr(ours, name), expected, atol=2e-6 * bin**2)
        assert getattr(ours, name).dtype == np.float32
    assert_array_equal(ours.bits, bits)
    assert_array_equal(ours.missing, lacking)
    assert (ours.bits.dtype, ours.missing.dtype) == (np.uint16, np.uint8)


@pytest.mark.parametrize("bin", [1, 4, 5, 12])
@pytest.mark.parametrize("corner", [(0, 0), (6002, 12003)])
def test_a_point_keeps_flux_and_centroid_and_gains_exactly_a_quarter_block_squared(bin, corner):
    for x, y in [(0, 0), (20, 17), (21, 18), (22, 19), (23, 20), (39, 35)]:
        blocks = to_blocks(*point((36, 40), x, y), bin, corner)
        flux = blocks.flux.astype(float)
        jj, ii = np.indices(flux.shape)
        at_x, at_y = blocks.grid.x0 + bin * ii, blocks.grid.y0 + bin * jj
        assert_allclose(flux.sum(), 1, rtol=1e-6)
        assert_allclose((flux * at_x).sum(), x, atol=2e-6 * bin * (1 + x))
        assert_allclose((flux * at_y).sum(), y, atol=2e-6 * bin * (1 + y))
        assert_allclose((flux * (at_x - x) ** 2).sum(), bin**2 / 4, rtol=1e-5)
        assert_allclose((flux * (at_y - y) ** 2).sum(), bin**2 / 4, rtol=1e-5)
        assert abs((flux * (at_x - x) * (at_y - y)).sum()) < 1e-5 * bin**2


def test_native_blocks_spread_a_pixel_over_its_neighbours_by_1_6_1_eighths():
    blocks = to_blocks(*point((5, 6), 3, 2), 1, (100, 200))
    line = np.array([1, 6, 1]) / 8
    assert_allclose(blocks.flux[2:5, 3:6], np.outer(line, line), rtol=1e-6)
    assert (blocks.grid.x0, blocks.grid.y0, blocks.grid.step) == (-1, -1, 1)


def test_totals_are_conserved_and_blank_pixels_add_nothing():
    flux, variance, mask, missing = planes((200, 190), holes=0.3)
    valid = np.isfinite(flux) & np.isfinite(variance)
    blocks = to_blocks(flux, variance, mask, missing, 4, (5823, 17))
    assert_allclose(blocks.flux.sum(dtype=float), flux[valid].sum(dtype=float), rtol=1e-5)
    assert_allclose(blocks.variance.sum(dtype=float), variance[valid].sum(dtype=float), rtol=1e-6)
    assert_allclose(blocks.valid.sum(dtype=float), valid.sum(), rtol=1e-6)
    assert_allclose(blocks.masked.sum(dtype=float), (valid & (mask != 0)).sum(), rtol=1e-6)
    assert np.isfinite(blocks.flux).all()
    assert np.isfinite(blocks.variance).all()


def test_blocks_of_neighbouring_skycells_coincide():
    """Two overlapping cuts of one projection have the same blocks where both see all the pixels."""
    flux, variance, mask, missing = planes((64, 300))
    left = to_blocks(flux[:, :200], variance[:, :200], mask[:, :200], missing[:, :200], 4, (5822, 0))
    right = to_blocks(flux[:, 90:], variance[:, 90:], mask[:, 90:], missing[:, 90:], 4, (5822 + 90, 0))
    shift = (right.grid.x0 + 90 - left.grid.x0) / 4
    assert shift == int(shift)
    shift = int(shift)
    count = left.flux.shape[1] - shift
    for name in ("flux", "variance", "valid", "masked", "bits", "missing"):
        a, b = getattr(left, name)[:, shift:], getattr(right, name)[:, :count]
        assert_allclose(a[:, 3:-3], b[:, 3:-3], atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 13), st.integers(-30000, 60000), st.integers(1, 40))
def test_the_grid_has_a_spare_block_on_every_side_and_begins_at_a_multiple_of_bin(bin, corner, size):
    grid_of = to_blocks(*point((size, size), 0, 0), bin, (corner, corner))
    begin = grid_of.grid.x0 - (bin - 1) / 2
    assert (begin + corner) % bin == 0
    assert -2 * bin < begin <= -bin
    assert size + bin <= begin + bin * grid_of.flux.shape[1] < size + 2 * bin


def test_excluded_pixels_are_blank_before_they_are_shared():
    flux, variance, mask, missing = planes(holes=0)
    star = np.zeros_like(mask)
    star[5:9, 6:12] = 4096
    blank = np.where(star, np.nan, flux)
    excluded = to_blocks(flux, variance, star, missing, 4, (0, 0), exclude=4096)
    expected = to_blocks(blank, variance, star, missing, 4, (0, 0))
    for name in ("flux", "variance", "valid", "masked", "bits", "missing"):
        assert_array_equal(getattr(excluded, name), getattr(expected, name))
    kept = to_blocks(flux, variance, star, missing, 4, (0, 0))
    assert_allclose(kept.valid.sum(), flux.size - np.isnan(variance).sum(), rtol=1e-6)


def test_a_full_block_holds_bin_squared_pixels():
    blocks = to_blocks(*point((64, 64), 0, 0), 4, (0, 0))
    assert_allclose(blocks.valid[2:-2, 2:-2], 16, rtol=1e-6)
    assert_allclose(
        blocks.valid[0, 2:-2], 4 * sum((0.5 - d) ** 2 / 2 for d in (-3 / 8, -1 / 8, 1 / 8, 3 / 8)), rtol=1e-6
    )


@pytest.mark.parametrize("bin", [0, -4, 2.0, True, "4"])
def test_a_bin_that_makes_no_blocks_is_refused(bin):
    with pytest.raises(ValueError, match=f"bin is {bin!r}"):
        to_blocks(*point((4, 4), 0, 0), bin, (0, 0))


def test_a_corner_between_pixels_is_refused():
    with pytest.raises(ValueError, match="corner"):
        to_blocks(*point((4, 4), 0, 0), 4, (0.5, 0))


def test_planes_of_different_shape_are_refused():
    flux, variance, mask, missing = point((4, 4), 0, 0)
    with pytest.raises(ValueError, match="one shape"):
        to_blocks(flux, variance[:3], mask, missing, 4, (0, 0))


@pytest.mark.parametrize("bits", [5, 7, 12, 23])
def test_rounding_is_within_half_of_the_last_bit_and_leans_to_neither_side(bits):
    rng = np.random.default_rng(bits)
    values = (rng.standard_normal(100_000) * 10 ** rng.uniform(-6, 6, 100_000)).astype(np.float32)
    ours = rounded(values, bits)
    error = ours.astype(float) / values - 1
    assert np.abs(error).max() <= 2.0 ** -(bits + 1)
    assert abs(error.mean()) < 6 * 2.0 ** -(bits + 1) / np.sqrt(values.size) + 1e-12
    mantissa = ours.view(np.uint32) & 0x7FFFFF
    assert not (mantissa & ((1 << (23 - bits)) - 1)).any()
    assert_array_equal(rounded(ours, bits), ours)


def test_rounding_leaves_nan_infinity_and_zero_alone_and_its_input_too():
    values = np.array([[np.nan, np.inf], [-np.inf, 0.0]], np.float32)
    before = values.copy()
    assert_array_equal(rounded(values, 5), before)
    assert_array_equal(values, before)
    assert rounded(values, 5).shape == (2, 2)


@pytest.mark.parametrize("bits", [0, 24, 7.5])
def test_a_number_of_bits_that_a_float32_has_not_is_refused(bits):
    with pytest.raises(ValueError, match="1 to 23"):
        rounded(np.zeros(2, np.float32), bits)


def test_the_rounding_of_a_product_moves_a_star_by_less_than_1e_4_of_its_flux():
    """The error of a star's flux, as its blocks are summed: 2^-14 a block at most, with either sign."""
    yy, xx = np.indices((64, 64))
    worst = 0.0
    for dx in np.linspace(0, 4, 9):
        star = np.exp(-((xx - 30 - dx) ** 2 + (yy - 31.3) ** 2) / (2 * 1.87**2)).astype(np.float32)
        blocks = to_blocks(star, np.ones_like(star), *point((64, 64), 0, 0)[2:], 4, (0, 0))
        total = rounded(blocks.flux, MANTISSA_BITS["flux"]).sum(dtype=float)
        worst = max(worst, abs(total / blocks.flux.sum(dtype=float) - 1))
    assert 0 < worst < 1e-4


@pytest.mark.slow
def test_a_product_with_noise_everywhere_is_at_most_8_mb():
    """A full skycell: noise, uneven exposure, single bad pixels, a gap, star cores; zstd of byte-shuffled rows."""
    from numcodecs import Blosc

    n = 6300
    rng = np.random.default_rng(1)
    variance = 0.02 * (1 + 0.05 * rng.standard_normal((n, n), dtype=np.float32))
    for _ in range(12):
        y, x = rng.integers(0, n, 2)
        variance[y : y + 2500, x : x + 2500] *= 0.93
    flux = rng.standard_normal((n, n), dtype=np.float32) * np.sqrt(variance)
    mask = np.where(rng.random((n, n), dtype=np.float32) < 0.001, 128, 0).astype(np.uint16)
    for y, x in rng.integers(25, n - 25, (300, 2)):
        mask[y - 10 : y + 10, x - 10 : x + 10] |= 4096
    flux[rng.random((n, n), dtype=np.float32) < 0.001] = np.nan
    flux[3000:3300, 2000:2040] = np.nan
    blocks = to_blocks(flux, variance, mask, np.zeros((n, n), np.uint8), 4, (12341, 5822))
    size = 0
    codec = Blosc("zstd", 5, Blosc.SHUFFLE)
    for name in ("flux", "variance", "valid", "masked", "bits", "missing"):
        plane = getattr(blocks, name)
        if name in MANTISSA_BITS:
            plane = rounded(plane, MANTISSA_BITS[name])
        size += sum(len(codec.encode(np.ascontiguousarray(plane[i : i + 256]))) for i in range(0, len(plane), 256))
    assert size <= 8e6
