"""Difference images of a made-up field with known stars, sky and one transient."""

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from made_up_template import FFI_SHAPE, REGION, SCALE, ffi_header, make_field
from numpy.testing import assert_allclose, assert_array_equal
from scipy import integrate

from syndiff_tasks import cli
from syndiff_tasks.geometry.tansip import pixel_to_sky, tansip_from_header
from syndiff_tasks.pixels.mask import DQ
from syndiff_tasks.report import difference
from syndiff_tasks.report.product import read_template

ROOT = Path(__file__).parent.parent
TANSIP = tansip_from_header(ffi_header())


@pytest.fixture(scope="module", params=[(0.6, 1), (0.7, 1), (0.6, 2)], ids=["same PSF", "wider PSF", "oversampled"])
def seen(request, tmp_path_factory):
    """A field, its template and what the look finds; PSFs alike or not, the template oversampled or not."""
    path = tmp_path_factory.mktemp("field") / "template.fits"
    ffi_sigma, oversampling = request.param
    field = make_field(path, ffi_sigma=ffi_sigma, oversampling=oversampling)
    template = read_template(path)
    return field, template, difference.preview(template, field.image, field.uncertainty)


def random_frames(rng, shape=(90, 110), scale=0.3, noise=0.5):
    """Frames of white noise and a template of random pixels, the FFI `scale` times as bright on a plane."""
    flux = (rng.pareto(1.5, shape) * 20).astype(np.float32)
    y, x = np.ogrid[: shape[0], : shape[1]]
    ffi = scale * flux + 50 + 0.02 * x - 0.03 * y + rng.normal(0, noise, shape)
    return difference.Frames(
        ffi.astype(np.float32),
        np.full(shape, noise, dtype=np.float32),
        flux,
        np.zeros(shape, dtype=np.float32),
        np.zeros(shape, dtype=np.int32),
    )


def sky_of(field, x, y):
    return WCS(field.header).all_pix2world(x, y, 0)


def test_the_scale_is_recovered_to_one_per_cent(seen):
    _, _, preview = seen
    assert_allclose(preview.result.match.scale, SCALE, rtol=0.01)


def test_the_background_plane_is_recovered(seen):
    _, template, preview = seen
    b0, b1, b2 = preview.result.match.background
    x0, y0, _, _ = template.region
    assert_allclose([b1, b2], [0.01, -0.02], atol=5e-4)
    assert_allclose(b0, 120 + 0.01 * x0 - 0.02 * y0, atol=0.1)


def test_the_transient_is_found_at_its_place_with_its_flux_and_nothing_else_is(seen):
    field, _, preview = seen
    assert len(preview.detections) == 1
    found, (x, y, flux) = preview.detections[0], field.transient
    assert np.hypot(found["x"] - x, found["y"] - y) < 0.1
    assert_allclose(found["flux"], flux, rtol=0.1)
    assert abs(found["flux"] - flux) < 4 * found["flux_error"]
    ra, dec = sky_of(field, x, y)
    assert np.hypot((found["ra"] - ra) * np.cos(np.radians(dec)), found["dec"] - dec) * 3600 < 2.1  # 0.1 px of 20.3"


def test_stars_without_their_cores_are_masked_with_their_wings(seen):
    field, template, preview = seen
    for x, y in field.saturated:
        row, column = round(y) - template.region.y0, round(x) - template.region.x0
        assert (preview.result.mask[row - 2 : row + 3, column - 2 : column + 3] & difference.NEAR_DAMAGE).all()
    assert np.mean(preview.result.mask & difference.NEAR_DAMAGE != 0) < 0.02


def test_a_transient_on_the_wings_of_a_damaged_star_has_its_own_summit():
    pixels = 9000 * difference.point_source(20.2, 20.1, 0.7, (40, 40)) + 300 * difference.point_source(
        24.6, 20.4, 0.7, (40, 40)
    )
    frames = random_frames(np.random.default_rng(14), shape=(40, 40))
    dq = np.zeros((40, 40), dtype=np.int32)
    dq[19:22, 19:22] = int(DQ.SAT_PS1)
    ffi = (frames.ffi + pixels).astype(np.float32)
    result = difference.subtract(frames._replace(ffi=ffi, dq=dq), 1)
    found = difference.find_transients(result, TANSIP)
    assert len(found) == 1
    assert_allclose([found["x"][0], found["y"][0]], [24.6, 20.4], atol=0.1)
    assert_allclose(found["flux"][0], 300, rtol=0.1)


def test_a_source_half_under_the_mask_is_found():
    result = noise_result(np.random.default_rng(15), (40, 40))
    pixels = result.difference + np.float32(400) * difference.point_source(20.3, 20.0, 0.65, (40, 40))
    result.mask[:, 21:] = difference.NEAR_DAMAGE
    result.mask[:, 20] = 0
    found = difference.find_transients(result._replace(difference=pixels.astype(np.float32)), TANSIP)
    assert len(found) == 1
    assert_allclose([found["x"][0], found["y"][0], found["flux"][0] / 400], [20.3, 20.0, 1], atol=0.1)


def test_the_residuals_off_stars_scatter_as_the_noise_tells(seen):
    _, _, preview = seen
    pulls = (preview.result.difference / preview.result.noise)[preview.result.mask == 0]
    assert_allclose(1.4826 * np.median(np.abs(pulls)), 1, atol=0.03)
    assert abs(np.median(pulls)) < 0.03


def test_pixels_without_template_have_no_difference(seen):
    _, template, preview = seen
    blank = np.isnan(template.flux)
    assert blank.any()
    assert np.isnan(preview.result.difference[blank]).all()
    assert np.isnan(preview.result.noise[blank]).all()
    assert (preview.result.mask[blank] & difference.NO_DIFFERENCE).all()
    assert (preview.result.mask[blank] & difference.NOT_TRUSTED).all()


def test_an_offset_template_is_matched_by_the_kernel():
    frames = random_frames(np.random.default_rng(5), noise=0.2)
    # A kernel of the correct parity puts its weight where the FFI's light comes from: one pixel to the left, two up.
    shifted = frames._replace(ffi=np.roll(frames.ffi, (-2, 1), axis=(0, 1)))
    kernel = difference.match(shifted, 5).kernel
    assert np.unravel_index(kernel.argmax(), kernel.shape) == (4, 1)
    assert_allclose(kernel[4, 1], 0.3, rtol=0.01)
    assert np.abs(np.delete(kernel.ravel(), 4 * 5 + 1)).max() < 0.003


def test_the_fit_agrees_with_plain_least_squares_where_nothing_is_unusual():
    frames = random_frames(np.random.default_rng(3))
    flux, ffi = frames.flux, frames.ffi
    y, x = np.mgrid[: flux.shape[0], : flux.shape[1]]
    columns = np.stack([flux, np.ones_like(flux), x, y], axis=-1).reshape(-1, 4)
    truth = np.linalg.lstsq(columns.astype(float), ffi.ravel().astype(float), rcond=None)[0]
    fit = difference.match(frames, 1)
    assert_allclose([fit.scale, *fit.background], truth, rtol=0.01, atol=2e-4)


def test_outliers_and_damaged_pixels_do_not_move_the_scale():
    frames = random_frames(np.random.default_rng(4))
    rng = np.random.default_rng(5)
    hit = rng.random(frames.ffi.shape) < 0.02
    damaged = rng.random(frames.ffi.shape) < 0.02
    ffi = frames.ffi + np.where(hit | damaged, 5000, 0).astype(np.float32)
    ffi[rng.random(ffi.shape) < 0.01] = np.nan
    dq = np.where(damaged, int(DQ.SAT_PS1), 0).astype(np.int32)
    fit = difference.match(frames._replace(ffi=ffi, dq=dq), 1)
    assert_allclose(fit.scale, 0.3, rtol=0.01)
    assert_allclose(fit.background[0], 50, rtol=0.01)


def test_a_flag_that_harms_nothing_keeps_its_pixels_in_the_fit():
    frames = random_frames(np.random.default_rng(4))
    flagged = np.full(frames.dq.shape, int(DQ.PROJECTION_SEAM | DQ.BAND_MISSING | DQ.IGNORED_BIT), dtype=np.int32)
    assert difference.match(frames._replace(dq=flagged), 1)[0] == difference.match(frames, 1)[0]


def test_without_uncertainty_the_noise_is_measured_on_empty_sky():
    frames = random_frames(np.random.default_rng(6), noise=0.7)._replace(uncertainty=None)
    result = difference.subtract(frames, 1)
    assert_allclose(np.nanmedian(result.noise), 0.7, rtol=0.05)
    assert_allclose(result.match.scale, 0.3, rtol=0.01)


def test_uncertainties_that_are_too_small_are_scaled_up():
    frames = random_frames(np.random.default_rng(7), noise=0.9)
    result = difference.subtract(frames._replace(uncertainty=frames.uncertainty / 3), 1)
    assert_allclose(result.match.excess, 3, rtol=0.05)
    assert_allclose(np.nanmedian(result.noise), 0.9, rtol=0.05)


def test_the_variance_of_the_template_adds_to_the_noise():
    rng = np.random.default_rng(8)
    frames = random_frames(rng, noise=0.3)
    noisy = frames._replace(
        flux=frames.flux + rng.normal(0, 2, frames.flux.shape).astype(np.float32),
        variance=np.full_like(frames.flux, 4.0),
    )
    result = difference.subtract(noisy, 1)
    assert_allclose(np.median(result.noise), np.hypot(0.3, 0.3 * 2), rtol=0.03)
    assert_allclose(np.std(result.difference[result.mask == 0]), np.hypot(0.3, 0.3 * 2), rtol=0.05)


def test_curved_sky_is_taken_off_on_meshes():
    frames = random_frames(np.random.default_rng(9), shape=(256, 256))
    y, x = np.mgrid[:256, :256]
    curved = frames._replace(ffi=frames.ffi + (4 * np.sin(x / 60) * np.cos(y / 60)).astype(np.float32))
    left = np.nanstd(difference.subtract(curved, 1, mesh=0).difference)
    assert np.nanstd(difference.subtract(curved, 1, mesh=32).difference) < 0.4 * left


def test_a_source_that_faded_is_found_with_negative_flux():
    frames = random_frames(np.random.default_rng(10))
    quiet = frames._replace(flux=np.minimum(frames.flux, 60))
    ffi = quiet.flux * np.float32(0.3) + 50 + np.random.default_rng(11).normal(0, 0.5, frames.ffi.shape)
    ffi[37:46, 57:66] -= 40 * difference.point_source(4.2, 3.7, 0.65, (9, 9))
    result = difference.subtract(quiet._replace(ffi=ffi.astype(np.float32)), 1)
    found = difference.find_transients(result, TANSIP)
    assert len(found) == 1
    assert_allclose([found["x"][0], found["y"][0], found["flux"][0]], [61.2, 40.7, -40], rtol=0.1)
    assert found["snr"][0] < -5


def test_noise_alone_gives_pulls_of_unit_width_and_no_find():
    result = noise_result(np.random.default_rng(12))
    assert_allclose(np.std(difference.significance(result)[5:-5, 5:-5]), 1, rtol=0.02)
    assert len(difference.find_transients(result, TANSIP, threshold=5.5)) == 0


def test_a_threshold_finds_what_a_lower_one_finds_and_no_more():
    result = noise_result(np.random.default_rng(13), (200, 200))
    low, high = (difference.find_transients(result, TANSIP, threshold=t) for t in (3.5, 3.9))
    assert 0 < len(high) < len(low)
    assert set(high["x"]) <= set(low["x"])


def noise_result(rng, shape=(300, 300)):
    noise = np.full(shape, 2.0, dtype=np.float32)
    pixels = rng.normal(0, 2, shape).astype(np.float32)
    mask = np.zeros(shape, dtype=np.int16)
    return difference.Difference(pixels, noise, np.zeros_like(noise), mask, None)


def test_a_point_source_is_the_integral_of_a_gaussian_over_its_pixels():
    def gaussian(y, x):
        return np.exp(-((x - 3.3) ** 2 + (y - 2.6) ** 2) / (2 * 0.65**2)) / (2 * np.pi * 0.65**2)

    image = difference.point_source(3.3, 2.6, 0.65, (6, 7))
    for row, column in ((2, 3), (3, 3), (3, 5)):
        truth = integrate.dblquad(gaussian, column - 0.5, column + 0.5, row - 0.5, row + 0.5)[0]
        assert_allclose(image[row, column], truth, rtol=1e-7)


def test_too_few_good_pixels_are_told():
    frames = random_frames(np.random.default_rng(1), shape=(8, 8))
    with pytest.raises(difference.NoMatch, match="only 16 pixels"):
        difference.match(frames, 5)
    assert difference.kernel_size(frames) == 1


def test_a_template_of_another_field_is_told():
    frames = random_frames(np.random.default_rng(1))
    with pytest.raises(difference.NoMatch, match="does not follow the template"):
        difference.match(frames._replace(flux=-frames.flux))


def test_a_template_without_data_gives_a_look_with_a_reason(tmp_path):
    path = tmp_path / "template.fits"
    field = make_field(path)
    template = read_template(path)
    preview = difference.preview(template._replace(flux=np.full_like(template.flux, np.nan)), field.image, None)
    assert preview.result is None
    assert "pixels have good template and FFI data" in preview.reason


def test_an_ffi_that_is_smaller_than_the_region_is_refused(seen):
    field, template, _ = seen
    with pytest.raises(ValueError, match="lies off the FFI"):
        difference.frames_of(template, field.image[:800], None)


def test_a_file_that_is_no_template_is_refused(tmp_path):
    path = tmp_path / "other.fits"
    fits.HDUList([fits.PrimaryHDU()]).writeto(path)
    with pytest.raises(ValueError, match="not a SynDiff template: it has no extension FLUX_SUM"):
        read_template(path)


def test_a_region_that_contradicts_the_shape_is_refused(tmp_path):
    path = tmp_path / "template.fits"
    make_field(path)
    with fits.open(path, mode="update") as hdus:
        hdus[0].header["ROI"] = "0,0,137,160"
    with pytest.raises(ValueError, match="not a whole multiple of the region"):
        read_template(path)


def test_the_wcs_of_an_oversampled_template_on_ffi_pixels_is_that_of_the_ffi(seen):
    field, template, _ = seen
    ra, dec = pixel_to_sky(template.tansip, np.array([0.0, 150.0]), np.array([3.0, 120.0]))
    truth = sky_of(field, np.array([0.0, 150.0]) + REGION[0], np.array([3.0, 120.0]) + REGION[1])
    assert_allclose([ra, dec], truth, atol=1e-8)


def write_spoc(path, field):
    header = field.header.copy()
    header["CAMERA"], header["CCD"], header["BUNIT"] = 3, 3, "electrons/s"
    assert field.image.shape == FFI_SHAPE
    fits.HDUList(
        [
            fits.PrimaryHDU(),
            fits.ImageHDU(field.image, header, "CAMERA.CCD 3.3 cal"),
            fits.ImageHDU(field.uncertainty, header, "CAMERA.CCD 3.3 uncert"),
        ]
    ).writeto(path)


def test_the_script_prints_the_transient_and_writes_a_sound_file(tmp_path, capsys):
    ffi, template = tmp_path / "tess2020019135923-s0020-3-3-0165-s_ffic.fits", tmp_path / "template.fits"
    field = make_field(template)
    write_spoc(ffi, field)
    out, png = tmp_path / "diff.fits", tmp_path / "diff.png"
    cli.main(["difference", str(ffi), str(template), "--out", str(out), "--png", str(png)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4  # two of the fit, the head of the table, one row
    x, y, ra, dec, flux, *_ = map(float, lines[3].split())
    assert_allclose([x, y], field.transient[:2], atol=0.1)
    assert_allclose(flux, field.transient[2], rtol=0.1)
    assert_allclose([ra, dec], sky_of(field, *field.transient[:2]), atol=1e-3)
    assert png.read_bytes().startswith(b"\x89PNG")
    with fits.open(out, checksum=True) as hdus:  # a bad checksum is a warning, and that an error
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "DIFFERENCE", "NOISE", "MASK"]
        assert_allclose(hdus[0].header["SCALE"], SCALE, rtol=0.01)
        for hdu in hdus[1:]:
            assert hdu.data.shape == (REGION[3] - REGION[1], REGION[2] - REGION[0])
            ra, dec = WCS(hdu.header).all_pix2world(10, 20, 0)
            assert_allclose((ra, dec), sky_of(field, REGION[0] + 10, REGION[1] + 20), atol=1e-8)
        peak = np.nanargmax(np.where(hdus["MASK"].data == 0, hdus["DIFFERENCE"].data / hdus["NOISE"].data, np.nan))
        row, column = np.unravel_index(peak, hdus["MASK"].data.shape)
        assert abs(column + REGION[0] - field.transient[0]) < 1
        assert abs(row + REGION[1] - field.transient[1]) < 1


def test_the_script_works_on_a_plain_scale_too(tmp_path, capsys):
    ffi, template = tmp_path / "tess2020019135923-s0020-3-3-0165-s_ffic.fits", tmp_path / "template.fits"
    write_spoc(ffi, make_field(template))
    cli.main(["difference", str(ffi), str(template), "--kernel", "1", "--mesh", "0", "--threshold", "1000"])
    out = capsys.readouterr().out
    assert "kernel 1 x 1 px" in out
    assert "nothing stands out" in out


def test_the_recipe_for_other_programs_gives_matching_planes_without_nan(tmp_path, monkeypatch):
    ffi, path = tmp_path / "tess2020019135923-s0020-3-3-0165-s_ffic.fits", tmp_path / "template.fits"
    field = make_field(path)
    write_spoc(ffi, field)
    text = (ROOT / "docs" / "difference.md").read_text(encoding="utf-8")
    recipe = text.split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    exec(recipe, {"np": np, "fits": fits, "TEMPLATE": path, "FFI": ffi})
    made = {name: fits.getdata(f"{name}.fits") for name in ("tmpl", "im", "tn", "in", "mask")}
    template = read_template(path)
    bad = made["mask"] == 1
    assert 0 < bad.mean() < 0.5
    assert_array_equal(bad[(template.dq & difference.UNTRUSTED) != 0], True)
    assert_array_equal(bad[np.isnan(template.flux)], True)
    for name, fill in (("tmpl", 0), ("im", 0), ("tn", 1e6), ("in", 1e6)):
        assert made[name].dtype == np.dtype(">f4") and np.isfinite(made[name]).all()
        assert_array_equal(made[name][bad], np.float32(fill))
    good = ~bad
    assert_array_equal(made["tmpl"][good], template.flux[good])
    assert_allclose(made["tn"][good] ** 2, template.variance[good], rtol=1e-5)
    x0, y0, x1, y1 = REGION
    assert_array_equal(made["in"][good], field.uncertainty[y0:y1, x0:x1][good])
    assert np.std(made["im"][good] - field.image[y0:y1, x0:x1][good]) < 1e-3  # but for a constant
    assert_allclose(WCS(fits.getheader("im.fits")).all_pix2world(3, 4, 0), sky_of(field, x0 + 3, y0 + 4), atol=1e-8)
