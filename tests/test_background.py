import numpy as np
import pytest
import sep
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage

from syndiff_tasks.pixels.background import (
    COARSE_BIN,
    DETECTION_MESH,
    DETECTION_PIXELS,
    DETECTION_SIGMA,
    compact_sources,
    extended_sources,
    remove_background,
    sources,
)
from syndiff_tasks.pixels.mask import PS1


def star(shape, x, y, flux, sigma=1.87):
    yy, xx = np.indices(shape)
    return flux / (2 * np.pi * sigma**2) * np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / (2 * sigma**2))


def field(seed, stars, shape=(300, 260), holes=True):
    rng = np.random.default_rng(seed)
    flux = rng.standard_normal(shape) + 0.002 * np.arange(shape[1])
    for x, y, peak in zip(*rng.uniform(0, shape[::-1], (stars, 2)).T, rng.pareto(0.9, stars), strict=True):
        flux += star(shape, x, y, 60 * min(peak, 1e4))
    if holes:
        flux[:3] = np.nan
        flux[100:130, 20:90] = np.nan
        flux[rng.random(shape) < 0.01] = np.nan
    return flux.astype(np.float32)


def sky_of(flux):
    return sep.Background(flux, mask=np.isnan(flux), bw=DETECTION_MESH, bh=DETECTION_MESH)


def compact(flux):
    sky = sky_of(flux)
    return compact_sources(flux, sky.back(dtype=np.float32), sky.globalrms)


def sep_pixels(flux, **settings):
    blank = np.isnan(flux)
    sky = sky_of(flux)
    limits = sep.get_extract_pixstack(), sep.get_sub_object_limit()
    sep.set_extract_pixstack(max(flux.size, limits[0]))
    sep.set_sub_object_limit(100_000)
    try:
        _, segments = sep.extract(
            flux - sky.back(), DETECTION_SIGMA, err=sky.globalrms, minarea=DETECTION_PIXELS, mask=blank,
            segmentation_map=True, **settings,
        )  # fmt: skip
    finally:
        sep.set_extract_pixstack(limits[0])
        sep.set_sub_object_limit(limits[1])
    return segments > 0


def unmasked(flux):
    return np.zeros(flux.shape, np.uint16)


@pytest.mark.parametrize("stars", [0, 20, 600])
def test_sources_are_exactly_the_pixels_that_sep_finds(stars):
    flux = field(stars, stars)
    ours = compact(flux)
    assert_array_equal(ours, sep_pixels(flux, clean=False, deblend_cont=1.0))
    assert ours.any() == (stars > 0)


def test_sep_with_deblending_and_cleaning_keeps_99_percent_of_these_pixels():
    flux = field(5, 40)
    ours, theirs = compact(flux), sep_pixels(flux)
    assert not (theirs & ~ours).any()
    assert (ours & ~theirs).sum() < 0.01 * ours.sum()


def test_a_sky_from_every_fourth_row_moves_only_the_rims_of_sources():
    flux = field(9, 120, shape=(640, 600))
    ours, exact = sources(flux, unmasked(flux)), sources(flux, unmasked(flux), every=1)
    differ = ours != exact
    assert 0 < differ.sum() < 0.02 * exact.sum()
    rim = ndimage.binary_dilation(exact) & ~ndimage.binary_erosion(exact, np.ones((3, 3)))
    assert (differ & rim).sum() > 0.8 * differ.sum()
    assert abs(np.nansum(flux[ours]) / np.nansum(flux[exact]) - 1) < 1e-3


def test_a_field_too_full_for_the_stack_of_sep_is_no_matter():
    flux = field(6, 1500)
    before = sep.get_extract_pixstack()
    sep.set_extract_pixstack(1000)
    try:
        with pytest.raises(Exception, match="pixel buffer full"):
            sep.extract(flux, 0.1, mask=np.isnan(flux))
        ours = compact(flux)
    finally:
        sep.set_extract_pixstack(before)
    assert_array_equal(ours, sep_pixels(flux, clean=False, deblend_cont=1.0))


# Single pixels, lines and mazes: p = 0.4 is where 8-connected pixels begin to hang together across the image.
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.05, 0.2, 0.4, 0.5, 0.8, 1.0]), st.integers(1, 40), st.integers(1, 40))
def test_groups_of_pixels_are_those_of_ndimage_label(seed, density, ny, nx):
    from syndiff_tasks.pixels.background import _drop_small, _run_count

    above = np.random.default_rng(seed).random((ny, nx)) < density
    groups, _ = ndimage.label(above, np.ones((3, 3)))
    large = np.bincount(groups.ravel()) >= 5
    large[0] = False
    _drop_small(above, _run_count(above), 5)
    assert_array_equal(above, large[groups])


def test_segment_makes_the_sky_exactly_zero_and_leaves_sources_and_nan_alone():
    flux = field(1, 40)
    variance = np.where(np.isnan(flux), np.nan, 2).astype(np.float32)
    source = sources(flux, unmasked(flux))
    blank = np.isnan(flux)
    new_flux, new_variance = remove_background(flux, variance, unmasked(flux), "segment")
    assert_array_equal(new_flux[source], flux[source])
    assert_array_equal(new_variance[source], variance[source])
    sky = ~source & ~blank
    assert sky.mean() > 0.5
    assert not new_flux[sky].any()
    assert not new_variance[sky].any()
    assert np.isnan(new_flux[blank]).all()
    assert np.isnan(new_variance[blank]).all()
    assert new_flux.dtype == new_variance.dtype == np.float32


@pytest.mark.parametrize("peak", [20.0, 200.0])
def test_segment_cuts_a_star_off_where_it_sinks_into_the_noise(peak):
    """A Gaussian has the fraction t / peak of its flux outside its contour at t; smoothing adds 1/2 px^2."""
    flux = field(8, 0, shape=(400, 400), holes=False)
    sky_only = flux.copy()
    truth = np.zeros(flux.shape)
    for y, x in np.stack(np.meshgrid(np.arange(40, 400, 40), np.arange(40, 400, 40))).reshape(2, -1).T:
        truth += star(flux.shape, x, y, peak * 2 * np.pi * 1.87**2)
    flux = (sky_only + truth).astype(np.float32)
    kept = sources(flux, unmasked(flux))
    widening = (1.87**2 + 0.5) / 1.87**2
    lost = (DETECTION_SIGMA / peak * widening) ** widening
    assert_allclose(1 - truth[kept].sum() / truth.sum(), lost, rtol=0.1)


def test_mesh_takes_a_slope_off_and_leaves_a_star():
    shape = (1024, 1024)
    rng = np.random.default_rng(2)
    slope = 3 + 0.004 * np.arange(1024)
    flux = rng.standard_normal(shape) + slope + star(shape, 500.2, 530.7, 1e5)
    flux[50:60, 70:90] = np.nan
    flux = flux.astype(np.float32)
    ours, variance = remove_background(flux, np.ones_like(flux), unmasked(flux), "mesh")
    # 1/sqrt(256^2 px) of the noise, a few times over, for the level; half a mesh of slope is lost at the borders.
    middle = ours[200:400, 200:-200]
    assert abs(np.nanmean(middle)) < 0.02
    assert abs(np.nanmean(middle[:, :200]) - np.nanmean(middle[:, -200:])) < 0.04
    near = np.s_[520:542, 490:511]
    assert_allclose(ours[near].sum(dtype=float), 1e5, rtol=2e-3)
    assert_array_equal(np.isnan(ours), np.isnan(flux))
    assert_array_equal(variance, 1)
    assert ours.dtype == np.float32


def test_pixels_of_stars_and_streaks_do_not_raise_the_sky():
    flux = field(3, 0, shape=(256, 256), holes=False)
    flux[60:200, :] += 50
    mask = unmasked(flux)
    mask[60:200, :] = PS1.STREAK.value
    told, _ = remove_background(flux, np.ones_like(flux), mask, "mesh")
    assert_allclose(told[60:200].mean(), 50, atol=0.3)


def test_with_every_pixel_flagged_the_sky_is_still_found():
    flux = field(4, 5) + np.float32(10)
    mask = np.full(flux.shape, PS1.STARCORE.value, np.uint16)
    assert_array_equal(sources(flux, mask), sources(flux, unmasked(flux)))


def exponential(shape, x, y, flux, half_light):
    """An exponential disk seen face on; its half-light radius is 1.678 of its scale [px]."""
    scale = half_light / 1.67835
    yy, xx = np.indices(shape)
    return flux / (2 * np.pi * scale**2) * np.exp(-np.hypot(xx - x, yy - y) / scale)


# A galaxy of half-light radius 30" amid white noise of 0.16 counts/s a pixel, that of PS1's weighted sum.
@pytest.mark.parametrize(
    ("magnitude", "segment", "mesh"), [(12.0, 0.96, 0.94), (14.0, 0.85, 0.82)], ids=["12 mag", "14 mag"]
)
def test_a_galaxy_keeps_what_method_md_promises(magnitude, segment, mesh):
    shape = (3000, 3000)
    galaxy = exponential(shape, 1500.3, 1430.7, 10 ** (-0.4 * (magnitude - 25)), 120)
    sky = 0.16 * np.random.default_rng(3).standard_normal(shape)
    flux, alone = (sky + galaxy).astype(np.float32), sky.astype(np.float32)
    variance = np.full(shape, 0.16**2, np.float32)
    assert galaxy[sources(flux, unmasked(flux))].sum() > segment * galaxy.sum()
    kept = {}
    for method in ("mesh", "none"):
        with_it, without = (remove_background(one, variance, unmasked(one), method)[0] for one in (flux, alone))
        kept[method] = (with_it.astype(float) - without).sum() / galaxy.sum()
    assert kept["mesh"] > mesh
    assert kept["none"] > 0.98


def test_white_noise_holds_no_extended_source():
    for seed in range(5):
        flux = np.random.default_rng(seed).standard_normal((1600, 1600)).astype(np.float32)
        assert not extended_sources(flux, np.zeros_like(flux)).any()


def test_a_disk_a_third_of_the_noise_is_an_extended_source_and_blank_pixels_are_not():
    flux = np.random.default_rng(0).standard_normal((1600, 1600)).astype(np.float32)
    yy, xx = np.indices(flux.shape)
    disk = np.hypot(xx - 800, yy - 700) < 100
    flux[disk] += 0.33
    flux[:, 1200:1300] = np.nan
    found = np.repeat(np.repeat(extended_sources(flux, np.zeros_like(flux)), COARSE_BIN, 0), COARSE_BIN, 1)
    assert found[disk].mean() > 0.9
    assert not found[np.hypot(xx - 800, yy - 700) > 140].any()


def test_none_changes_nothing():
    flux = field(1, 5)
    variance = np.ones_like(flux)
    same = remove_background(flux, variance, unmasked(flux), "none")
    assert same[0] is flux
    assert same[1] is variance


@pytest.mark.parametrize("how", ["segment", "mesh", "none"])
def test_a_skycell_without_data_stays_without_data(how):
    blank = np.full((70, 90), np.nan, np.float32)
    flux, variance = remove_background(blank, blank, unmasked(blank), how)
    assert np.isnan(flux).all()
    assert np.isnan(variance).all()


@pytest.mark.parametrize("how", ["segment", "mesh"])
def test_a_star_brighter_than_anything_stays_and_the_rest_is_still_sky(how):
    flux = field(7, 0, holes=False)
    flux[150, 130] = 1e30
    kept, _ = remove_background(flux, np.ones_like(flux), unmasked(flux), how)
    assert_allclose(kept[150, 130], 1e30, rtol=1e-6)
    assert np.median(np.abs(kept)) < 1.5


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (7, 5)])
def test_images_smaller_than_a_mesh_are_images_too(shape):
    flux = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    assert sources(flux, unmasked(flux)).shape == shape


def test_an_unknown_way_is_refused_with_the_ways_there_are():
    with pytest.raises(ValueError, match=r"'sep'.*segment, mesh, none"):
        remove_background(np.zeros((2, 2)), np.zeros((2, 2)), np.zeros((2, 2), np.uint16), "sep")
