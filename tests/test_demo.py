import http.client
import json
import math

import numpy as np
import pandas as pd
import pytest
import real_data
from astropy.io import fits
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import integrate, stats

from syndiff_tasks.demo import __main__ as command
from syndiff_tasks.demo import archive, field, frame, gaussians, rice, server, sky, truth
from syndiff_tasks.geometry.ffi import parse_ffi_name
from syndiff_tasks.geometry.region import Region
from syndiff_tasks.geometry.rings import rings_v3
from syndiff_tasks.geometry.skycell import skycell_wcs
from syndiff_tasks.geometry.tansip import pixel_to_sky

SKYCELL = rings_v3().skycell("skycell.2611.071")
FLAWLESS = archive.Rendering(noise=False, flaws=False, saturation=math.inf)


def cutout(skycell, x0, y0, nx, ny):
    """A small skycell: part of a real one, with its own frame."""
    return skycell._replace(nx=nx, ny=ny, crpix1=skycell.crpix1 - x0, crpix2=skycell.crpix2 - y0)


def stars_at(skycell, x, y, mag):
    ra, dec = skycell_wcs(skycell).wcs_pix2world(np.atleast_1d(x), np.atleast_1d(y), 0)
    return sky.source_table(ra, dec, np.broadcast_to(mag, ra.shape), np.full(ra.shape, 5000.0))


def moments(image):
    rows, columns = np.indices(image.shape)
    total = image.sum(dtype=float)
    return total, (image * columns).sum(dtype=float) / total, (image * rows).sum(dtype=float) / total


# What is drawn


def test_a_gaussian_deposited_in_pixels_agrees_with_quadrature_in_two_dimensions():
    covariance = np.array([[2.3, 0.9], [0.9, 1.1]])
    image = np.zeros((12, 14))
    gaussians.deposit(image, gaussians.Gaussians(*(np.array([v]) for v in (6.3, 5.8, 100.0, 2.3, 0.9, 1.1))))
    density = stats.multivariate_normal([6.3, 5.8], covariance).pdf
    for row, column in ((6, 6), (5, 9), (8, 7)):
        expected, _ = integrate.dblquad(
            lambda y, x: 100 * density([x, y]), column - 0.5, column + 0.5, row - 0.5, row + 0.5, epsabs=1e-10
        )
        assert_allclose(image[row, column], expected, atol=1e-8)


@pytest.mark.parametrize("sigma", [0.02, 0.5, 3.0])
def test_a_gaussian_of_any_width_keeps_its_flux_and_place(sigma):
    image = np.zeros((61, 61))
    one = (np.array([v]) for v in (30.2, 29.7, 5.0, sigma**2, 0.3 * sigma**2, sigma**2))
    gaussians.deposit(image, gaussians.Gaussians(*one))
    if sigma > 0.4:
        assert_allclose(moments(image), (5.0, 30.2, 29.7), rtol=1e-3 if sigma < 1 else 1e-8)
    assert_allclose(image.sum(), 5.0, rtol=2e-9)


def test_a_gaussian_without_width_is_refused():
    flat = gaussians.Gaussians(*(np.array([v]) for v in (1.0, 1.0, 1.0, 1.0, 1.0, 1.0)))
    with pytest.raises(ValueError, match="positive definite"):
        gaussians.deposit(np.zeros((3, 3)), flat)


def test_a_disc_of_gaussians_encloses_the_flux_of_an_exponential_disc():
    radius = np.array([0.2, 0.5, 1.0, 2.0, 4.0])
    disc = gaussians.DISC
    mixed = (disc.fractions * (1 - np.exp(-(radius[:, None] ** 2) / (2 * disc.variances)))).sum(axis=1)
    slope = 1.67834699  # of an exponential disc whose half-light radius is 1
    assert_allclose(mixed, 1 - (1 + slope * radius) * np.exp(-slope * radius), atol=0.013)


def test_a_magnitude_is_that_of_the_weighted_flux_and_hot_stars_are_blue():
    table = sky.source_table([0, 0], [0, 0], [15.0, 18.0], [3500.0, 9000.0])
    assert_allclose(sky.weighted_counts(table), 10 ** (-0.4 * (np.array([15.0, 18.0]) - 25)), rtol=1e-12)
    assert_allclose(sky.ELECTRONS_PER_COUNT, 0.02113, atol=5e-5)
    colour = table["r"] - table["z"]
    assert colour[0] > 0.8
    assert -0.3 < colour[1] < 0.1
    # Between two wavelengths a black body's magnitudes differ by the Planck function, here from astropy's constants.
    from astropy import constants, units

    frequency = [constants.c / (sky.WAVELENGTH[band] * units.m) for band in "rz"]
    planck = [f**3 / np.expm1((constants.h * f / (constants.k_B * 3500 * units.K)).to_value("")) for f in frequency]
    assert_allclose(colour[0], -2.5 * np.log10((planck[0] / planck[1]).to_value("")), rtol=1e-6)


def test_gaia_magnitudes_lead_back_to_the_tess_magnitude():
    table = sky.source_table(np.zeros(5), np.zeros(5), np.full(5, 12.0), np.linspace(3300, 9000, 5))
    c = table["phot_bp_mean_mag"] - table["phot_rp_mean_mag"]
    tess = table["phot_g_mean_mag"] - 0.00522555 * c**3 + 0.0891337 * c**2 - 0.633923 * c + 0.0324473
    assert_allclose(tess, 12.0, atol=1e-10)
    assert_allclose(c[2], 0.9, atol=0.4)  # a star of 6150 K


def test_the_same_seed_gives_the_same_sky_within_its_radius():
    one, two, other = (sky.random_sky(seed, (10.0, 89.8), 0.4) for seed in (4, 4, 5))
    pd.testing.assert_frame_equal(one, two)
    assert not np.allclose(one["ra"], other["ra"])
    pole = np.radians(one[["ra", "dec"]].to_numpy())
    centre = np.radians([10.0, 89.8])
    cosine = np.sin(pole[:, 1]) * np.sin(centre[1]) + np.cos(pole[:, 1]) * np.cos(centre[1]) * np.cos(
        pole[:, 0] - centre[0]
    )
    assert np.degrees(np.arccos(cosine)).max() < 0.4
    assert one["source_id"].is_unique
    assert set(one["kind"]) == {"star", "galaxy"}
    catalogue = sky.gaia_catalogue(one)
    assert len(catalogue) < (one["kind"] == "star").sum()
    assert catalogue["phot_g_mean_mag"].max() < 20.7


# Compression and the on-disk form


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_compressed_rows_are_what_astropy_makes_of_them(data):
    seed, spread = data.draw(st.integers(0, 2**32 - 1)), data.draw(st.sampled_from([0, 1, 3, 300, 8000, 40000]))
    shape = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 200))
    rng = np.random.default_rng(seed)
    image = np.clip(rng.standard_cauchy(shape) * spread, -32768, 32767).astype(np.int16)
    heap, ends = rice.encode_rows(image)
    hdu = fits.CompImageHDU(image, compression_type="RICE_1", tile_shape=(1, shape[1]))
    written = fits.HDUList.fromstring(_bytes(hdu), disable_image_compression=True)[1].data["COMPRESSED_DATA"]
    for row, (start, stop) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        assert_array_equal(heap[start:stop], written[row])


def _bytes(hdu):
    import io

    buffer = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One band of a small noisy skycell with a star that saturates, written; and what was written."""
    cell = cutout(SKYCELL, 3000, 3000, 700, 640)
    stars = stars_at(cell, [350.3, 120.0], [300.6, 500.0], [12.0, 18.0])
    stack = archive.render_stack(cell, stars, "r", archive.Rendering())
    paths = archive.write_skycell_band(tmp_path_factory.mktemp("archive"), cell, "r", stack, archive.EXPOSURES["r"])
    return cell, stack, paths


def test_files_lie_and_are_named_as_in_the_archive(files):
    _, _, paths = files
    assert [path.name for path in paths] == [
        "rings.v3.skycell.2611.071.stk.r.unconv.fits",
        "rings.v3.skycell.2611.071.stk.r.unconv.mask.fits",
        "rings.v3.skycell.2611.071.stk.r.unconv.wt.fits",
    ]
    assert paths[0].parts[-4:-1] == ("rings.v3.skycell", "2611", "071")


def test_headers_have_the_form_of_the_archive(files):
    cell, _, paths = files
    with fits.open(paths[0], disable_image_compression=True, checksum=True) as hdus:
        assert hdus[0].data is None
        header = hdus[1].header
    expected = {
        **{"ZCMPTYPE": "RICE_1", "ZBITPIX": 16, "ZTILE1": cell.nx, "ZTILE2": 1, "BLANK": 32767, "ZBLANK": 32767},
        **{"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"},
        **{"PC001001": -1.0, "PC002002": 1.0, "BSOFTEN": 85.4, "BOFFSET": 2.62, "EXPTIME": 640.0},
        **{"FPA.ZP": 25.0, "FPA.FILTER": "r.00000", "SKYCELL": "skycell.2611.071", "STK_TYPE": "DEEP_STACK"},
    }
    assert {key: header[key] for key in expected} == expected
    assert_allclose([header["CDELT1"], header["CDELT2"]], np.float32(0.25 / 3600), rtol=1e-7)
    assert {"BZERO", "BSCALE", "MJD-OBS", "CHECKSUM", "DATASUM"} <= set(header)
    assert not {"RADESYS", "LONPOLE", "PC1_1", "CD1_1"} & set(header)


def test_no_structural_keyword_of_the_real_cutout_is_missing(files):
    _, _, paths = files
    real, ours = (
        fits.getheader(path, 1, disable_image_compression=True)
        for path in (real_data.present("realform_demo.stk.r.unconv.fits"), paths[0])
    )
    assert set(real) <= set(ours)
    fixed = ("TTYPE1", "ZCMPTYPE", "ZNAME1", "ZVAL1", "ZNAME2", "ZVAL2", "EXTNAME", "BLANK", "ZBITPIX", "PC001001")
    assert {key: ours[key] for key in fixed} == {key: real[key] for key in fixed}


def test_astropy_reads_back_what_was_rendered(files):
    _, stack, paths = files
    image, mask, variance = (fits.getdata(path, 1) for path in paths)
    header = fits.getheader(paths[0], 1, disable_image_compression=True)
    counts = header["BOFFSET"] + 2 * header["BSOFTEN"] * np.sinh(image.astype(float) / 1.0857362)
    half_step = header["BSCALE"] / 2 / 1.0857362 * np.hypot(2 * header["BSOFTEN"], stack.counts - header["BOFFSET"])
    assert_array_equal(np.isnan(counts), np.isnan(stack.counts))
    worst = np.nanmax(np.abs(counts - stack.counts) / half_step)
    assert 0.9 < worst < 1.05
    assert_array_equal(mask, stack.mask)
    assert mask.dtype == np.uint16
    header = fits.getheader(paths[2], 1, disable_image_compression=True)
    variance = header["BOFFSET"] + 2 * header["BSOFTEN"] * np.sinh(variance.astype(float) / 1.0857362)
    assert_allclose(variance, stack.variance, rtol=1e-3)


def test_variances_of_y_are_linear_and_say_so(tmp_path):
    cell = cutout(SKYCELL, 0, 0, 60, 50)
    stack = archive.render_stack(cell, stars_at(cell, 30.0, 25.0, 15.0), "y", archive.Rendering())
    path = archive.write_skycell_band(tmp_path, cell, "y", stack, archive.EXPOSURES["y"])[2]
    with fits.open(path) as hdus:
        assert "BSOFTEN" not in hdus[1].header
        assert_allclose(hdus[1].data, stack.variance, rtol=1e-3)


def test_the_empty_sky_comes_back_as_zero_exactly():
    values = np.zeros((40, 50), np.float32)
    values[3, 4], values[5, 6] = 2.3e5, -17.0
    stored, keywords = archive.quantise(values, 0.0, (85.4, 2.62))
    v = keywords["BZERO"] + keywords["BSCALE"] * stored[0, 0]
    assert_allclose(2.62 + 2 * 85.4 * math.sinh(v / archive.ASINH_SCALE), 0.0, atol=1e-10)
    assert stored.min() >= -32768
    assert stored.max() < archive.BLANK


def test_a_star_lies_where_its_files_own_header_says_with_its_flux(files):
    cell, _, paths = files
    stars = stars_at(cell, [123.4, 500.0], [345.6, 100.25], [15.0, 16.0])
    signal, wide = (archive.render_signal(cell, stars, band, archive.Rendering()) for band in "ry")
    header = fits.getheader(paths[0], 1)
    for i, j in ((1, 1), (1, 2), (2, 1), (2, 2)):
        header[f"PC{i}_{j}"] = header.pop(f"PC00{i}00{j}")
    del header["MJD-OBS"]  # astropy warns that it sets DATE-OBS from it
    x, y = WCS(header).wcs_world2pix(stars["ra"], stars["dec"], 0)
    for index, window in enumerate((np.s_[300:400, 80:180], np.s_[60:140, 450:550])):
        total, column, row = moments(signal[window])
        assert_allclose(total, 10 ** (-0.4 * (stars["r"][index] - 25)), rtol=1e-6)
        assert_allclose((column + window[1].start, row + window[0].start), (x[index], y[index]), atol=1e-4)
        assert_allclose(wide[window].sum(), 10 ** (-0.4 * (stars["y"][index] - 25)), rtol=1e-6)
    width = (signal[300:400, 80:180].sum(axis=0) * (np.arange(80, 180) - 123.4) ** 2).sum() / signal[300:400].sum()
    assert_allclose(width, (4.4 / math.sqrt(8 * math.log(2))) ** 2 + 1 / 12, rtol=1e-4)


def test_a_galaxy_is_drawn_along_its_position_angle():
    cell = cutout(SKYCELL, 3000, 3000, 401, 401)
    wcs = skycell_wcs(cell)
    ra, dec = wcs.wcs_pix2world([200.0], [200.0], 0)
    table = sky.source_table(ra, dec, [15.0], [5000.0], ([4.0], [0.5], [30.0]))
    image = archive.render_signal(cell, table, "i", archive.Rendering())
    rows, columns = np.indices(image.shape) - 200.0
    second = np.array([[(image * a * b).sum(dtype=float) for a in (columns, rows)] for b in (columns, rows)])
    _, axes = np.linalg.eigh(second)
    along = wcs.wcs_pix2world([[200.0, 200.0], [200 + 20 * axes[0, 1], 200 + 20 * axes[1, 1]]], 0)
    east, north = (along[1] - along[0]) * (math.cos(math.radians(dec[0])), 1)
    assert_allclose(math.degrees(math.atan2(east, north)) % 180, 30.0, atol=0.1)


def test_noise_has_the_variance_that_the_wt_file_states():
    cell = cutout(SKYCELL, 100, 200, 500, 480)
    star = stars_at(cell, 250.0, 240.0, 14.0)
    noisy = archive.render_stack(cell, star, "z", archive.Rendering(flaws=False))
    clean = archive.render_stack(cell, star, "z", FLAWLESS)
    pulls = ((noisy.counts - clean.counts) / np.sqrt(noisy.variance))[3:-3, 3:-3]
    assert_allclose((pulls.mean(), pulls.std()), (0, 1), atol=0.01)
    sky_pixels = noisy.counts[10:200, 10:-10]
    assert_allclose(sky_pixels.std(), archive.EXPOSURES["z"].bsoften / 1.042, rtol=0.01)
    again = archive.render_stack(cell, star, "z", archive.Rendering(flaws=False, seed=2))
    assert not np.array_equal(again.counts, noisy.counts, equal_nan=True)


def test_saturated_pixels_are_lost_and_flagged_inside_a_star_core(files):
    _, stack, _ = files
    saturated, core = (stack.mask & 32) > 0, (stack.mask & 4096) > 0
    assert 5 < saturated.sum() < core.sum() < 400
    assert core[saturated].all()
    assert np.isnan(stack.counts[saturated]).all()
    assert np.isfinite(stack.counts[core & ~saturated & ((stack.mask & 8) == 0)]).all()
    assert saturated[301, 350]
    assert (stack.mask[301, 300:400] & 512).all()
    _, x, y = moments(core.astype(float))
    assert_allclose((x, y), (350.3, 300.6), atol=0.5)


def test_border_and_gaps_are_blank_in_image_variance_and_mask(files):
    cell, stack, _ = files
    blank = (stack.mask & 8) > 0
    border = np.ones(blank.shape, bool)
    border[3:-3, 3:-3] = False
    assert blank[border].all()
    for box, bit in archive.flaw_boxes(cell, "r", 1):
        assert ((stack.mask[box] & bit) == bit).all()
    assert np.isnan(stack.counts[blank]).all()
    assert np.isnan(stack.variance[blank]).all()
    shared = {str(archive.flaw_boxes(cell, band, 1)[0]) for band in sky.BANDS}
    assert len(shared) == 1
    assert len({str(archive.flaw_boxes(cell, band, 1)[1]) for band in sky.BANDS}) == 4


def test_outside_the_window_there_is_only_empty_sky():
    cell = cutout(SKYCELL, 100, 200, 300, 280)
    stars = stars_at(cell, [60.0, 250.0], [80.0, 230.0], 15.0)
    windowed = archive.render_stack(cell, stars, "i", archive.Rendering(flaws=False, window=(20, 30, 120, 140)))
    outside = np.ones(windowed.counts.shape, bool)
    outside[30:140, 20:120] = False
    outside &= windowed.mask == 0
    assert (windowed.counts[outside] == 0).all()
    assert (windowed.variance[outside] == np.float32(archive.EXPOSURES["i"].sky_variance)).all()
    assert windowed.counts[60:100, 40:80].max() > 1000
    assert windowed.counts[30:60, 90:120].std() > 50


def test_two_processes_write_the_pixels_that_one_does(tmp_path):
    cell = cutout(SKYCELL, 100, 200, 130, 120)
    stars = stars_at(cell, 60.0, 80.0, 15.0)
    rendering = archive.Rendering(bands=("r", "z"))
    seen = []
    one = archive.build_archive(tmp_path / "1", [cell], stars, rendering, done=seen.append)
    two = archive.build_archive(tmp_path / "2", [cell], stars, rendering, processes=2)
    assert len(one) == 6
    assert len(seen) == 2
    for a, b in zip(one, two, strict=True):
        assert a.relative_to(tmp_path / "1") == b.relative_to(tmp_path / "2")
        assert_array_equal(fits.getdata(a, 1), fits.getdata(b, 1))


# The truth


@pytest.mark.parametrize("pixel", [(1715.3, 760.2), (60.4, 2030.7)], ids=["inside", "corner"])
def test_the_expected_template_is_the_convolved_star_through_both_exact_wcs(pixel):
    sky_position = truth.astropy_wcs(frame.TANSIP).all_pix2world([pixel], 0)[0]
    star = sky.source_table(*sky_position[:, None], [14.0], [5000.0])
    x0, y0 = (math.floor(v) - 3 for v in pixel)
    region = Region(x0, y0, x0 + 7, y0 + 7)
    made = truth.expected_template(star, frame.TANSIP, region, 40.0)
    tessellation = rings_v3()
    owner = skycell_wcs(tessellation.skycell(tessellation.name_of(int(tessellation.owner(*sky_position)))))
    # 12 x 12 Gauss-Legendre nodes a pixel, each carried to the skycell's plane, where the blurred star is round.
    nodes, weights = np.polynomial.legendre.leggauss(12)
    x = (x0 + np.arange(7)[:, None] + nodes / 2).ravel()
    y = (y0 + np.arange(7)[:, None] + nodes / 2).ravel()

    def native(x, y):
        return owner.wcs_world2pix(truth.astropy_wcs(frame.TANSIP).all_pix2world(np.stack([x, y], -1), 0), 0).T

    gx, gy = (g.ravel() for g in np.meshgrid(x, y))
    place, h = native(gx, gy), 0.01
    along_x = (native(gx + h, gy) - native(gx - h, gy)) / (2 * h)
    along_y = (native(gx, gy + h) - native(gx, gy - h)) / (2 * h)
    area = np.abs(along_x[0] * along_y[1] - along_x[1] * along_y[0])
    at = owner.wcs_world2pix([sky_position], 0)[0]
    variance = 40.0**2 + 4.4**2 / (8 * math.log(2))
    density = np.exp(-((place[0] - at[0]) ** 2 + (place[1] - at[1]) ** 2) / (2 * variance)) / (2 * math.pi * variance)
    density = (density * area).reshape(7, 12, 7, 12) * np.multiply.outer(weights, weights)[None, :, None, :] / 4
    # The truth is linear about the star; the distortion's own curvature is what is left.
    assert_allclose(made, 10 ** (0.4 * 11) * density.sum(axis=(1, 3)), atol=3e-4 * made.max())


def test_the_expected_template_moves_with_the_offset_and_scales_with_the_units():
    region = Region(1700, 750, 1721, 771)
    ra, dec = pixel_to_sky(frame.TANSIP, 1710.2, 760.4)
    star = sky.source_table([ra], [dec], [15.0], [5000.0])
    still = truth.expected_template(star, frame.TANSIP, region, 40.0)
    one_pixel = truth.expected_template(star, frame.TANSIP, region, 40.0, offset=(1.0, -2.0))
    part = truth.expected_template(star, frame.TANSIP, region, 40.0, offset=(0.3, -0.2))
    ra, dec = pixel_to_sky(frame.TANSIP, 1710.5, 760.2)
    beside = truth.expected_template(star.assign(ra=ra, dec=dec), frame.TANSIP, region, 40.0)
    electrons = truth.expected_template(star, frame.TANSIP, region, 40.0, units="electrons")
    assert_allclose(one_pixel, np.roll(still, (-2, 1), axis=(0, 1)), atol=1e-9 * still.max())
    assert_allclose(part, beside, atol=1e-4 * still.max())
    assert np.abs(part - still).max() > 0.1 * still.max()
    assert_allclose(still.sum(), 1e4, rtol=1e-6)
    assert_allclose(electrons.sum(), 10 ** (-0.4 * (15 - 20.812)), rtol=1e-6)
    with pytest.raises(ValueError, match="magnitudes"):
        truth.expected_template(star, frame.TANSIP, region, 40.0, units="magnitudes")


def test_the_expected_template_of_an_empty_sky_is_zero():
    nowhere = sky.source_table([10.0], [10.0], [15.0], [5000.0])
    assert not truth.expected_template(nowhere, frame.TANSIP, Region(100, 100, 110, 120), 40.0).any()


# The FFI


@pytest.fixture(scope="module")
def written_frame(tmp_path_factory):
    ra, dec = (np.atleast_1d(v) for v in pixel_to_sky(frame.TANSIP, 1710.2, 760.4))
    exposed = frame.expose(sky.source_table(ra, dec, [13.0], [5000.0]), 40.0)
    path = tmp_path_factory.mktemp("frame") / frame.NAME
    frame.write_frame(path, exposed)
    return path, exposed, (ra, dec)


def spoc_wcs(path):
    header = fits.getheader(path, 1)
    # astropy warns that it sets MJD-OBS from them, as it does for real FFIs.
    del header["DATE-OBS"], header["DATE-END"]
    return WCS(header)


def test_the_ffi_has_the_form_of_spocs(written_frame):
    path, exposed, _ = written_frame
    with fits.open(path, checksum=True) as hdus:
        assert [None if hdu.data is None else hdu.data.shape for hdu in hdus] == [None, (2078, 2136), (2078, 2136)]
        assert_array_equal(hdus[1].data, exposed.image)
        assert_array_equal(hdus[2].data, exposed.uncertainty)
        header = hdus[1].header
        assert header["BITPIX"] == -32
    assert (header["CAMERA"], header["CCD"], header["BUNIT"]) == (3, 3, "electrons/s")
    assert (header["CRPIX1"], header["CRPIX2"], header["A_ORDER"], header["CTYPE1"]) == (1045, 1001, 4, "RA---TAN-SIP")
    assert "SECTOR" not in header
    cd = np.array([[header[f"CD{i}_{j}"] for j in (1, 2)] for i in (1, 2)])
    assert np.linalg.det(cd) > 0
    assert_allclose(3600 * math.sqrt(np.linalg.det(cd)), 20.5, atol=0.3)
    name = parse_ffi_name(path)
    assert (name.sector, name.camera, name.ccd) == (20, 3, 3)


def test_the_ffis_inverse_polynomials_are_as_wrong_as_real_ones(written_frame):
    path, _, _ = written_frame
    sip = spoc_wcs(path).sip
    polynomial = np.polynomial.polynomial.polyval2d
    u, v = np.meshgrid(np.linspace(44, 2091, 20) - 1044, np.linspace(0, 2047, 20) - 1000)
    plane = u + polynomial(u, v, sip.a), v + polynomial(u, v, sip.b)
    error = np.hypot(plane[0] + polynomial(*plane, sip.ap) - u, plane[1] + polynomial(*plane, sip.bp) - v)
    assert 0.005 < error.max() < 0.5


def test_the_ffi_shows_a_star_at_its_place_with_its_flux_above_noise(written_frame):
    path, exposed, (ra, dec) = written_frame
    x, y = spoc_wcs(path).all_world2pix(ra, dec, 0)
    assert_allclose((x[0], y[0]), (1710.2, 760.4), atol=1e-3)
    stamp = exposed.image[754:767, 1704:1717].astype(float)
    total, column, row = moments(stamp - np.median(stamp))
    assert_allclose(total, 10 ** (-0.4 * (13 - 20.812)), rtol=0.03)
    assert_allclose((column + 1704, row + 754), (x[0], y[0]), atol=0.05)
    empty = np.s_[1000:1400, 300:800]
    plane = np.add.outer(-0.002 * np.arange(400), 0.004 * np.arange(500))
    assert_allclose((exposed.image[empty] - plane).std(), exposed.uncertainty[empty].mean(), rtol=0.01)
    assert abs(exposed.image[:, :40]).max() < 3
    assert abs(exposed.image[2050:]).max() < 3


# The field and the command


def test_the_field_straddles_two_projection_cells_and_a_skycell_border():
    skycells = field.demo_skycells()
    assert [skycell.name for skycell in skycells] == [
        "skycell.2611.071",
        "skycell.2611.081",
        "skycell.2612.078",
        "skycell.2612.088",
    ]
    x, y = (g.ravel() for g in np.meshgrid(np.arange(1692, 1740), np.arange(736, 784)))
    tessellation = rings_v3()
    owner = tessellation.owner(*truth.astropy_wcs(frame.TANSIP).all_pix2world(x, y, 0))
    names, pixels = np.unique(owner, return_counts=True)
    assert [tessellation.name_of(name) for name in names] == [skycell.name for skycell in skycells]
    assert pixels.min() > 0.2 * len(x)


def test_the_field_has_stars_to_the_corners_and_a_transient_in_a_quiet_place():
    made = field.make_field(1, density=2000.0)
    for skycell in made.skycells:
        x, y = skycell_wcs(skycell).wcs_world2pix(made.sources["ra"], made.sources["dec"], 0)
        for left in (x < skycell.nx / 4, x > skycell.nx * 3 / 4):
            for low in (y < skycell.ny / 4, y > skycell.ny * 3 / 4):
                inside = (x > 0) & (x < skycell.nx) & (y > 0) & (y < skycell.ny)
                assert (left & low & inside).sum() > 5
    described = field.describe(made, 1)
    place = described["transient"]
    assert 1700 <= place["x"] <= 1731
    assert 744 <= place["y"] <= 775
    light = truth.expected_template(made.sources, frame.TANSIP, made.region, 40.0, units="electrons")
    near = light[round(place["y"]) - 736 - 1 :, round(place["x"]) - 1692 - 1 :][:3, :3]
    assert near.sum() < 0.05 * place["electrons_per_second"]


def test_the_command_builds_archive_ffi_catalogues_and_description(tmp_path, monkeypatch, capsys):
    small = tuple(cutout(skycell, 3000, 3000, 90, 80) for skycell in field.demo_skycells()[1:3])
    monkeypatch.setattr(field, "demo_skycells", lambda *_: small)
    out = tmp_path / "sky"
    command.main(["--out", str(out), "--seed", "3", "--processes", "1"])
    described = json.loads((out / "demo.json").read_text(encoding="utf-8"))
    assert described["seed"] == 3
    assert len(list((out / "archive").rglob("*.fits"))) == 2 * 4 * 3
    stars, gaia = (pd.read_csv(out / described[name]) for name in ("stars", "gaia"))
    assert set(gaia["source_id"]) <= set(stars["source_id"])
    assert (out / described["ffi"]).stat().st_size > 2 * 4 * 2078 * 2136
    with fits.open(out / described["ffi"]) as hdus:
        shown = hdus[1].data[736:784, 1692:1740].astype(float)
    transient = described["transient"]
    rest = shown - truth.expected_template(stars, frame.TANSIP, field.REGION, described["psf_sigma"], units="electrons")
    row, column = np.unravel_index(np.argmax(rest), rest.shape)
    assert (column + 1692, row + 736) == (round(transient["x"]), round(transient["y"]))
    flux = (rest[row - 3 : row + 4, column - 3 : column + 4] - np.median(rest)).sum()
    assert_allclose(flux, transient["electrons_per_second"], rtol=0.1)
    said = capsys.readouterr().out
    assert "--roi 1692,736,1740,784" in said
    assert described["ffi"] in said


@pytest.mark.slow
def test_a_full_size_skycell_is_built_in_the_true_form(tmp_path):
    sources = field.make_field(1).sources
    paths = archive.build_archive(tmp_path, [SKYCELL], sources, archive.Rendering(bands=("r",)))
    image = fits.getdata(paths[0], 1)
    assert image.shape == (SKYCELL.ny, SKYCELL.nx)
    assert 55e6 < paths[0].stat().st_size < 80e6


# The server


@pytest.fixture
def served(tmp_path):
    (tmp_path / "a").mkdir()
    content = bytes(range(256)) * 40
    (tmp_path / "a" / "b.fits").write_bytes(content)
    (tmp_path.parent / "secret").write_text("x", encoding="utf-8")
    seen = []
    with server.serve(tmp_path, requests=seen) as base:
        connection = http.client.HTTPConnection(base.removeprefix("http://"), timeout=5)

        def ask(path="/a/b.fits", method="GET", **headers):
            connection.request(method, path, headers={key.replace("_", "-"): value for key, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()

        yield ask, content, seen
        connection.close()


def test_the_server_gives_whole_files_and_ranges_on_one_connection(served):
    ask, content, seen = served
    status, headers, body = ask()
    assert (status, body, headers["Accept-Ranges"]) == (200, content, "bytes")
    for wanted, part in (("bytes=5-9", content[5:10]), ("bytes=10000-", content[10000:]), ("bytes=-7", content[-7:])):
        status, answer, body = ask(Range=wanted)
        assert (status, body) == (206, part)
        assert int(answer["Content-Length"]) == len(part)
    assert answer["Content-Range"] == f"bytes {len(content) - 7}-{len(content) - 1}/{len(content)}"
    assert ask(Range="bytes=99999-")[0] == 416
    for ignored in ("bytes=9-5", "lines=1-2", "bytes=0-1,4-5", "bytes=-"):
        assert ask(Range=ignored)[::2] == (200, content)
    assert ask(method="HEAD")[0::2] == (200, b"")
    assert [request.status for request in seen] == [200, 206, 206, 206, 416, 200, 200, 200, 200, 200]


def test_the_server_knows_what_the_client_has(served):
    ask, content, _ = served
    _, headers, _ = ask()
    assert ask(If_None_Match=headers["ETag"])[::2] == (304, b"")
    assert ask(If_None_Match='"other"')[0] == 200
    assert ask(If_Modified_Since=headers["Last-Modified"])[0] == 304
    assert ask(If_Modified_Since="Thu, 01 Jan 1970 00:00:00 GMT")[0] == 200
    assert ask(Range="bytes=0-3", If_Range=headers["ETag"])[::2] == (206, content[:4])
    assert ask(Range="bytes=0-3", If_Range='"other"')[::2] == (200, content)


def test_the_server_gives_nothing_from_outside_its_folder(served):
    ask, _, _ = served
    assert ask("/a/missing.fits")[::2] == (404, b"")
    assert ask("/a/")[0] == 404
    assert ask("/../secret")[0] == 404
    assert ask("/%2e%2e/secret")[0] == 404
