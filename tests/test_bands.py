import math

import numpy as np
import pytest
from astropy.io import fits
from numpy.testing import assert_allclose, assert_array_equal

from syndiff_tasks.pixels.bands import Band, combine
from syndiff_tasks.pixels.scaling import (
    ASINH_SCALE,
    Scaling,
    linear_flux,
    linear_variance,
    lookup_table,
    scaling_of,
)

WEIGHTS = {"r": 0.238, "i": 0.344, "z": 0.283, "y": 0.135}
BLANK = 32767
# Of rings.v3.skycell.2180.097.stk.y.unconv (docs/facts.md §2).
REAL_Y = {
    "BZERO": 3.632996916771, "BSCALE": 1.908685283002e-04, "BLANK": BLANK, "BSOFTEN": 413.7191922843,
    "BOFFSET": 17.32926559448, "EXPTIME": 500.0, "FPA.ZP": 25.0,
}  # fmt: skip


def band_of(counts, variance, mask, exptime, compressed_variance=False, zero_point=25.0):
    """A band stored as PS1 does, and what it truly holds after int16 rounding, in float64 [counts, counts^2]."""
    soften, offset = 85.4, 2.62
    image_scaling = Scaling(3.6, 1.9e-4, BLANK, offset, soften, exptime, zero_point)
    image, v = _stored(ASINH_SCALE * np.arcsinh((counts - offset) / (2 * soften)), image_scaling)
    true_counts = offset + 2 * soften * np.sinh(v / (2.5 * np.log10(np.e)))
    if compressed_variance:
        variance_scaling = Scaling(5.0, 2e-4, BLANK, 0.0, 900.0, exptime, zero_point)
        wt, v = _stored(ASINH_SCALE * np.arcsinh(variance / 1800.0), variance_scaling)
        true_variance = 1800.0 * np.sinh(v / (2.5 * np.log10(np.e)))
    else:
        variance_scaling = Scaling(2e5, 20.0, BLANK, None, None, exptime, zero_point)
        wt, true_variance = _stored(variance, variance_scaling)
    return Band(image, wt, mask, image_scaling, variance_scaling), true_counts, true_variance


def _stored(values, s):
    good = np.isfinite(values)
    disk = np.where(good, np.rint((np.where(good, values, 0) - s.bzero) / s.bscale), BLANK)
    assert np.abs(disk).max() <= BLANK
    return disk.astype(np.int16), np.where(good, s.bzero + s.bscale * disk, np.nan)


def sky(seed, holes=0.2, shape=(37, 53)):
    """Four bands with noise, stars, holes and mask bits, and their contents in float64."""
    rng = np.random.default_rng(seed)
    bands, truth = {}, {}
    for n, name in enumerate(WEIGHTS):
        counts = 90 * rng.standard_normal(shape) + 1e5 * (rng.random(shape) < 0.02)
        variance = rng.uniform(5e3, 4e5, shape)
        counts[rng.random(shape) < holes] = np.nan
        variance[rng.random(shape) < holes / 4] = np.nan
        mask = rng.integers(0, 65536, shape).astype(np.uint16)
        exptime = 500.0 + 70 * n
        bands[name], c, v = band_of(counts, variance, mask, exptime, compressed_variance=n % 2 == 0)
        truth[name] = c / exptime, v / exptime**2, mask
    return bands, truth


def brute_force(truth, weights):
    """The definition, pixel by pixel in double precision."""
    shape = next(iter(truth.values()))[0].shape
    flux, variance = np.full(shape, np.nan), np.full(shape, np.nan)
    mask, missing = np.zeros(shape, int), np.zeros(shape, int)
    for at in np.ndindex(shape):
        f = v = w = 0.0
        for bit, name in enumerate("rizy"):
            if name in truth:
                mask[at] |= truth[name][2][at]
            if name in truth and np.isfinite(truth[name][0][at]) and np.isfinite(truth[name][1][at]):
                f += weights[name] * truth[name][0][at]
                v += weights[name] ** 2 * truth[name][1][at]
                w += weights[name]
            else:
                missing[at] |= 1 << bit
        if w:
            flux[at] = f * sum(weights.values()) / w
            variance[at] = v * (sum(weights.values()) / w) ** 2
    return flux, variance, mask, missing


def test_linear_flux_inverts_the_archive_compression():
    counts = np.array([-3.0, 0.0, 12.5, 4e4])
    stored = ASINH_SCALE * np.arcsinh((counts - 2.2) / (2 * 95.4))
    assert_allclose(linear_flux(stored, 2.2, 95.4, exptime=10.0), counts / 10.0, atol=1e-12)


def test_linear_variance_is_divided_by_the_square_of_the_exposure_time():
    assert_allclose(linear_variance(np.array([50.0, np.nan]), None, None, 10.0), [0.5, np.nan])
    stored = ASINH_SCALE * np.arcsinh(50.0 / 200)
    assert_allclose(linear_variance(stored, 0.0, 100.0, 10.0), 0.5, rtol=1e-12)


def test_float32_pixels_stay_float32():
    stored = np.array([0.5, np.nan], np.float32)
    assert linear_flux(stored, 2.62, 85.4, 640.0).dtype == np.float32
    assert linear_variance(stored, None, None, 640.0).dtype == np.float32


def test_the_table_gives_what_astropy_and_the_formula_give_for_every_stored_number():
    disk = np.arange(-32768, 32768).astype(np.int16)
    hdu = fits.ImageHDU(disk)
    hdu.header.update({"BZERO": REAL_Y["BZERO"], "BSCALE": REAL_Y["BSCALE"], "BLANK": BLANK})
    raw = fits.HDUList([fits.PrimaryHDU(), hdu])
    physical = np.array(raw[1].data, np.float64)
    physical = np.where(disk == BLANK, np.nan, REAL_Y["BZERO"] + REAL_Y["BSCALE"] * physical)
    expected = (17.32926559448 + 2 * 413.7191922843 * np.sinh(physical / 1.085736204758)) / 500
    table = lookup_table(scaling_of(REAL_Y), 1)
    assert_allclose(table[disk.view(np.uint16)], expected, rtol=1e-10)
    assert np.isnan(table).sum() == 1


def test_the_combination_is_the_double_precision_one_pixel_by_pixel():
    bands, truth = sky(1)
    combined = combine(bands, WEIGHTS)
    flux, variance, mask, missing = brute_force(truth, WEIGHTS)
    assert np.isnan(flux).any()
    assert (missing == 0).any()
    assert_allclose(combined.flux, flux, rtol=1e-6, atol=0)
    assert_allclose(combined.variance, variance, rtol=1e-6, atol=0)
    assert_array_equal(combined.mask, mask)
    assert_array_equal(combined.missing, missing)
    assert [plane.dtype for plane in combined] == [np.float32, np.float32, np.uint16, np.uint8]


def test_relative_error_is_within_1e_6_even_where_the_bands_cancel():
    bands, truth = sky(2, holes=0, shape=(400, 500))
    flux, *_ = [sum(WEIGHTS[n] * truth[n][0] for n in WEIGHTS)]
    assert np.abs(flux).min() < 1e-5
    assert_allclose(combine(bands, WEIGHTS).flux, flux, rtol=1e-6, atol=0)


def test_float32_files_give_what_int16_files_give():
    bands, _ = sky(3)
    as_float = {}
    for name, band in bands.items():
        image, wt = (
            np.where(disk == BLANK, np.nan, s.bzero + s.bscale * disk.astype(float)).astype(np.float32)
            for disk, s in ((band.image, band.image_scaling), (band.variance, band.variance_scaling))
        )
        plain = [s._replace(bzero=0.0, bscale=1.0, blank=None) for s in (band.image_scaling, band.variance_scaling)]
        as_float[name] = Band(image.astype(">f4"), wt, band.mask, *plain)
    as_float["z"] = bands["z"]  # and a mixture of both
    ours, theirs = combine(as_float, WEIGHTS), combine(bands, WEIGHTS)
    # float32 knows v = asinh(...) to 6e-8 of up to 8, so that sinh(v) is known to 5e-7 of itself, and less of a sum.
    assert_allclose(ours.flux, theirs.flux, rtol=1e-6, atol=3e-7)
    assert_allclose(ours.variance, theirs.variance, rtol=2e-6)
    assert_array_equal(ours.mask, theirs.mask)
    assert_array_equal(ours.missing, theirs.missing)


def test_a_missing_band_is_stood_in_for_by_the_others_and_told():
    flat = np.full((2, 3), 640.0)
    band, counts, variance = band_of(flat, flat * 1e3, np.zeros((2, 3), np.uint16), 640.0)
    whole = combine(dict.fromkeys(WEIGHTS, band), WEIGHTS)
    without = combine({"r": band, "i": None, "y": band}, WEIGHTS)
    assert_allclose(without.flux, whole.flux, rtol=1e-6)
    assert_array_equal(whole.missing, 0)
    assert_array_equal(without.missing, 2 | 4)
    left = WEIGHTS["r"], WEIGHTS["y"]
    expected = variance / 640**2 * (left[0] ** 2 + left[1] ** 2) / sum(left) ** 2
    assert_allclose(without.variance, expected, rtol=1e-6)


def test_no_band_at_all_gives_nan_and_never_zero():
    combined = combine(dict.fromkeys(WEIGHTS), WEIGHTS, shape=(4, 5))
    assert np.isnan(combined.flux).all()
    assert np.isnan(combined.variance).all()
    assert_array_equal(combined.missing, 15)
    assert_array_equal(combined.mask, np.zeros((4, 5), np.uint16))
    with pytest.raises(ValueError, match="shape"):
        combine(dict.fromkeys(WEIGHTS), WEIGHTS)


def test_a_skycell_of_blanks_only_gives_nan():
    blank = np.full((3, 4), np.nan)
    band, *_ = band_of(blank, blank, np.full((3, 4), 32, np.uint16), 640.0)
    combined = combine(dict.fromkeys(WEIGHTS, band), WEIGHTS)
    assert np.isnan(combined.flux).all()
    assert_array_equal(combined.missing, 15)
    assert_array_equal(combined.mask, 32)


@pytest.mark.parametrize("bad", [0.0, -70.0, np.nan])
def test_a_flux_without_a_positive_variance_takes_no_part(bad):
    flat = np.full((1, 2), 640.0)
    variance = np.array([[70_000.0, bad]])
    doubtful, *_ = band_of(10 * flat, variance, np.zeros((1, 2), np.uint16), 640.0)
    doubtful = doubtful._replace(variance_scaling=doubtful.variance_scaling._replace(bzero=0.0))
    doubtful = doubtful._replace(variance=np.where(np.isfinite(variance), variance / 20, BLANK).astype(np.int16))
    sound, *_ = band_of(flat, flat * 1e3, np.zeros((1, 2), np.uint16), 640.0)
    combined = combine({"r": doubtful, "i": sound}, {"r": 0.5, "i": 0.5})
    assert_array_equal(combined.missing, [[0, 1]])
    assert_allclose(combined.flux, [[5.5, 1.0]], rtol=1e-3)
    alone = combine({"r": doubtful}, {"r": 1.0})
    assert_array_equal(np.isnan(alone.flux), [[False, True]])
    assert_array_equal(np.isnan(alone.variance), [[False, True]])


def test_a_band_of_weight_zero_counts_for_nothing():
    bands, _ = sky(4)
    weights = {"r": 0.6, "i": 0.4}
    assert_array_equal(combine(bands, weights | {"z": 0.0, "g": 0.0}).flux, combine(bands, weights).flux)
    assert_array_equal(combine(bands, weights | {"z": 0.0}).missing & 0xFC, 0)


def test_any_strip_of_rows_combines_to_the_same_rows():
    bands, _ = sky(5, shape=(300, 11))
    whole = combine(bands, WEIGHTS)
    rows = slice(100, 277)
    strip = {n: b._replace(image=b.image[rows], variance=b.variance[rows], mask=b.mask[rows]) for n, b in bands.items()}
    for part, plane in zip(combine(strip, WEIGHTS), whole, strict=True):
        assert_array_equal(part, plane[rows])


def test_another_zero_point_is_brought_to_25():
    flat = np.full((1, 1), 640.0)
    shallow, *_ = band_of(flat, flat * 1e3, np.zeros((1, 1), np.uint16), 640.0, zero_point=22.5)
    usual, *_ = band_of(flat, flat * 1e3, np.zeros((1, 1), np.uint16), 640.0)
    ours, theirs = combine({"r": shallow}, {"r": 1.0}), combine({"r": usual}, {"r": 1.0})
    assert_allclose(ours.flux, 10 * theirs.flux, rtol=1e-6)
    assert_allclose(ours.variance, 100 * theirs.variance, rtol=1e-6)


def test_the_compression_is_undone_if_and_only_if_both_its_keywords_are_there():
    both = scaling_of(REAL_Y)
    assert (both.boffset, both.bsoften) == (REAL_Y["BOFFSET"], REAL_Y["BSOFTEN"])
    for gone in ("BOFFSET", "BSOFTEN"):
        one = scaling_of({k: v for k, v in REAL_Y.items() if k != gone})
        assert (one.boffset, one.bsoften) == (None, None)
        table = lookup_table(one, 1)
        assert_allclose(table[100], (REAL_Y["BZERO"] + 100 * REAL_Y["BSCALE"]) / 500, rtol=1e-12)


def test_a_linear_float_cutout_needs_nothing_but_its_exposure_time():
    assert scaling_of({"EXPTIME": 1350.0}) == Scaling(0.0, 1.0, None, None, None, 1350.0, 25.0)
    assert scaling_of({"EXPTIME": 1.0, "ZBLANK": BLANK}).blank == BLANK


def test_an_image_without_good_pixels_is_nan_whatever_else_its_header_says():
    empty = scaling_of(REAL_Y | {"BSOFTEN": math.nan, "EXPTIME": None, "BZERO": math.nan})
    assert np.isnan(lookup_table(empty, 1)).all()
    disk = np.zeros((2, 2), np.int16)
    sound, *_ = band_of(np.full((2, 2), 640.0), np.full((2, 2), 5e4), np.zeros((2, 2), np.uint16), 640.0)
    for stored in (disk, disk.astype(np.float32)):
        band = Band(stored, sound.variance, np.zeros((2, 2), np.uint16), empty, sound.variance_scaling)
        assert np.isnan(combine({"r": band}, {"r": 1.0}).flux).all()
        assert_array_equal(combine({"r": band, "i": sound}, {"r": 0.5, "i": 0.5}).missing, 1)


@pytest.mark.parametrize("exptime", [None, 0, -1.0, math.nan, math.inf])
def test_an_exposure_time_that_gives_no_rate_is_named(exptime):
    with pytest.raises(ValueError, match="EXPTIME"):
        scaling_of(REAL_Y | {"EXPTIME": exptime})


@pytest.mark.parametrize("function", [linear_flux, linear_variance])
def test_the_formulas_refuse_an_exposure_time_of_zero(function):
    with pytest.raises(ValueError, match="EXPTIME"):
        function(np.zeros(1), None, None, 0.0)


@pytest.mark.parametrize(("card", "value"), [("FPA.ZP", math.nan), ("BZERO", math.nan), ("BSCALE", math.inf)])
def test_a_number_that_scales_nothing_is_named(card, value):
    with pytest.raises(ValueError, match=card):
        scaling_of(REAL_Y | {card: value})


@pytest.mark.parametrize(
    ("weights", "told"),
    [({"q": 1.0}, "'q'"), ({"r": -0.1}, "-0.1"), ({"r": math.nan}, "nan"), ({"r": 0.0}, "above 0"), ({}, "{}")],
)
def test_weights_that_make_no_sum_are_refused(weights, told):
    bands, _ = sky(6, shape=(2, 2))
    with pytest.raises(ValueError, match=told):
        combine(bands, weights)


def test_bands_of_different_size_are_refused_by_name():
    bands, _ = sky(7, shape=(4, 4))
    bands["z"] = bands["z"]._replace(mask=bands["z"].mask[:3])
    with pytest.raises(ValueError, match=r"z mask.*\(3, 4\)"):
        combine(bands, WEIGHTS)
    with pytest.raises(ValueError, match="r image"):
        combine(sky(7, shape=(4, 4))[0], WEIGHTS, shape=(5, 4))


def test_pixels_of_another_type_are_refused():
    bands, _ = sky(8, shape=(2, 2))
    bands["r"] = bands["r"]._replace(image=bands["r"].image.astype(np.int32))
    with pytest.raises(ValueError, match="int32"):
        combine(bands, WEIGHTS)
