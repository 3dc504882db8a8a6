"""Difference images of a made-up field with known stars, sky and one transient."""

from pathlib import Path

import lightcurve_sky
import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from made_up_template import FFI_SHAPE, REGION, SCALE, ffi_header, make_field
from numpy.testing import assert_allclose, assert_array_equal
from scipy import integrate

from syndiff_tasks import cli
from syndiff_tasks.chain import difference as chain_difference
from syndiff_tasks.geometry.tansip import pixel_to_sky, tansip_from_header
from syndiff_tasks.pixels.difference import UNTRUSTED, Difference, Flag, ImagePair, subtract
from syndiff_tasks.pixels.kernel import KernelBasis, middle_scale
from syndiff_tasks.pixels.mask import DQ
from syndiff_tasks.pixels.sky_background import sky_image
from syndiff_tasks.report import difference
from syndiff_tasks.report.product import keep_out_of, pair_of, read_template

ROOT = Path(__file__).parent.parent
TANSIP = tansip_from_header(ffi_header())
PLAIN = KernelBasis(1, (), 0)


@pytest.fixture(scope="module", params=[(0.6, 1), (0.7, 1), (0.6, 2)], ids=["same PSF", "wider PSF", "oversampled"])
def seen(request, tmp_path_factory):
    """A field, its template and what the look finds; PSFs alike or not, the template oversampled or not."""
    path = tmp_path_factory.mktemp("field") / "template.fits"
    ffi_sigma, oversampling = request.param
    field = make_field(path, ffi_sigma=ffi_sigma, oversampling=oversampling)
    template = read_template(path)
    return field, template, difference.preview(template, field.image, field.uncertainty)


def random_pair(rng, shape=(90, 110), scale=0.3, noise=0.5):
    """White noise and a template of random pixels, the FFI `scale` times as bright on a plane."""
    flux = (rng.pareto(1.5, shape) * 20).astype(np.float32)
    y, x = np.ogrid[: shape[0], : shape[1]]
    ffi = scale * flux + 50 + 0.02 * x - 0.03 * y + rng.normal(0, noise, shape)
    return ImagePair(
        ffi.astype(np.float32),
        np.full(shape, noise, dtype=np.float32),
        flux,
        np.zeros(shape, dtype=np.float32),
        np.zeros(shape, dtype=np.int32),
    )


def sky_of(field, x, y):
    return WCS(field.header).all_pix2world(x, y, 0)


def test_the_scale_is_recovered_to_two_per_cent(seen):
    _, _, preview = seen
    assert_allclose(middle_scale(preview.result.kernel), SCALE, rtol=0.02)


def test_the_sky_is_recovered(seen):
    _, template, preview = seen
    x0, y0, x1, y1 = template.region
    y, x = np.mgrid[y0:y1, x0:x1]
    wrong = sky_image(preview.result.sky) - (120 + 0.01 * x - 0.02 * y)
    assert abs(wrong.mean()) < 0.03  # the noise of a pixel is 0.9
    assert np.std(wrong) < 0.1


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
        assert (preview.result.flags[row - 2 : row + 3, column - 2 : column + 3] & Flag.NEAR_DAMAGE).all()
    assert np.mean(preview.result.flags & Flag.NEAR_DAMAGE != 0) < 0.02


def test_a_transient_on_the_wings_of_a_damaged_star_has_its_own_summit():
    pixels = 9000 * difference.point_source(20.2, 20.1, 0.7, (40, 40)) + 300 * difference.point_source(
        24.6, 20.4, 0.7, (40, 40)
    )
    pair = random_pair(np.random.default_rng(14), shape=(40, 40))
    dq = np.zeros((40, 40), dtype=np.int32)
    dq[19:22, 19:22] = int(DQ.SAT_PS1)
    ffi = (pair.ffi + pixels).astype(np.float32)
    result = subtract(pair._replace(ffi=ffi, dq=dq), PLAIN)
    found = difference.find_transients(result, TANSIP)
    assert len(found) == 1
    assert_allclose([found["x"][0], found["y"][0]], [24.6, 20.4], atol=0.1)
    assert_allclose(found["flux"][0], 300, rtol=0.1)


def test_a_source_half_under_the_mask_is_found():
    result = noise_result(np.random.default_rng(15), (40, 40))
    pixels = result.difference + np.float32(400) * difference.point_source(20.3, 20.0, 0.65, (40, 40))
    result.flags[:, 21:] = Flag.NEAR_DAMAGE
    result.flags[:, 20] = 0
    found = difference.find_transients(result._replace(difference=pixels.astype(np.float32)), TANSIP)
    assert len(found) == 1
    assert_allclose([found["x"][0], found["y"][0], found["flux"][0] / 400], [20.3, 20.0, 1], atol=0.1)


def test_the_residuals_off_stars_scatter_as_the_noise_tells(seen):
    _, _, preview = seen
    pulls = (preview.result.difference / preview.result.noise)[preview.result.flags == 0]
    assert_allclose(1.4826 * np.median(np.abs(pulls)), 1, atol=0.03)
    assert abs(np.median(pulls)) < 0.03


def test_pixels_without_template_have_no_difference(seen):
    _, template, preview = seen
    blank = np.isnan(template.flux)
    assert blank.any()
    assert np.isnan(preview.result.difference[blank]).all()
    assert np.isnan(preview.result.noise[blank]).all()
    assert (preview.result.flags[blank] & Flag.NO_DATA).all()
    assert (preview.result.flags[blank] & Flag.TEMPLATE_UNTRUSTED).all()


def test_a_source_that_faded_is_found_with_negative_flux():
    pair = random_pair(np.random.default_rng(10))
    quiet = pair._replace(flux=np.minimum(pair.flux, 60))
    ffi = quiet.flux * np.float32(0.3) + 50 + np.random.default_rng(11).normal(0, 0.5, pair.ffi.shape)
    ffi[37:46, 57:66] -= 40 * difference.point_source(4.2, 3.7, 0.65, (9, 9))
    result = subtract(quiet._replace(ffi=ffi.astype(np.float32)), PLAIN)
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
    flags = np.zeros(shape, dtype=np.int16)
    nothing = np.zeros_like(noise)
    return Difference(pixels, noise, nothing, nothing, flags, None, None, None, 0.0, 0.0, 1.0, 2.0, 0)


def test_a_point_source_is_the_integral_of_a_gaussian_over_its_pixels():
    def gaussian(y, x):
        return np.exp(-((x - 3.3) ** 2 + (y - 2.6) ** 2) / (2 * 0.65**2)) / (2 * np.pi * 0.65**2)

    image = difference.point_source(3.3, 2.6, 0.65, (6, 7))
    for row, column in ((2, 3), (3, 3), (3, 5)):
        truth = integrate.dblquad(gaussian, column - 0.5, column + 0.5, row - 0.5, row + 0.5)[0]
        assert_allclose(image[row, column], truth, rtol=1e-7)


def test_a_template_without_data_gives_a_look_with_a_reason(tmp_path):
    path = tmp_path / "template.fits"
    field = make_field(path)
    template = read_template(path)
    preview = difference.preview(template._replace(flux=np.full_like(template.flux, np.nan)), field.image, None)
    assert preview.result is None
    assert "no pixel has data of FFI and template" in preview.reason


def test_the_target_and_variable_stars_are_kept_out_of_the_fit(seen):
    field, template, _ = seen
    places = [sky_of(field, REGION[0] + 30.2, REGION[1] + 40.9), sky_of(field, REGION[0] - 40, REGION[1])]
    marked = template._replace(target=tuple(map(float, sky_of(field, REGION[0] + 1.0, REGION[1] + 77.0))))
    truth = np.zeros(template.flux.shape, bool)
    truth[38:45, 27:34] = truth[74:81, :5] = True
    assert_array_equal(keep_out_of(marked, places), truth)


def test_a_part_made_again_from_a_file_without_images_equals_the_difference(seen, tmp_path):
    field, template, preview = seen
    path = tmp_path / "difference.fits"
    chain_difference.write(path, preview.result, template, "tess_ffic", field.header, with_images=False)
    with fits.open(path, checksum=True) as hdus:
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "KERNEL", "SKY", "STRAPS"]
    x0, y0, x1, y1 = REGION
    part = chain_difference.cut_out(path, template, field.image, (x0 + 60, y0 + 90, x1, y1))
    stored = preview.result.difference[90:, 60:]
    assert np.isfinite(stored).mean() > 0.9
    assert_allclose(part[np.isfinite(stored)], stored[np.isfinite(stored)], atol=0.01)  # noise 0.9
    with pytest.raises(ValueError, match="box -1,0,10,10 does not lie on the 200 x 160 px"):
        chain_difference.cut_out(path, template, field.image, (x0 - 1, y0, x0 + 10, y0 + 10))


def number_found(sky, scattered):
    """Return how many of a sky's supernovae, now of 26 e/s, are found under scattered light, and the difference."""
    frame = lightcurve_sky.render(sky, 1, scattered=scattered)
    result = subtract(ImagePair(frame.ffi, frame.uncertainty, frame.flux, frame.variance, frame.dq))
    found = difference.find_transients(result, TANSIP)
    brighter = found[found["flux"] > 0]
    away = np.hypot(brighter["x"] - frame.x[:, None], brighter["y"] - frame.y[:, None])
    return int((away < 1).any(axis=1).sum()), result


def test_as_many_supernovae_are_found_under_a_gradient_of_scattered_light_as_without():
    sky = lightcurve_sky.make_sky(256, 2, seed=3, targets=(12, 0, 0, 0, 0, 0), straps=0)
    assert_allclose(lightcurve_sky.brightness(sky, 1)[sky.sources.kind == lightcurve_sky.SUPERNOVA], 26, atol=0.5)
    light = lightcurve_sky.scattered_light(sky, 1, 300)
    assert np.ptp(light) > 150
    (without, dark), (under, lit) = (number_found(sky, strength) for strength in (0, 300))
    assert without >= 10
    # Scattered light brings photon noise of its own: a source at the threshold may fall below it.
    assert under >= without - 1
    assert lit.excess < 1.15 and dark.excess < 1.15


def test_an_ffi_that_is_smaller_than_the_region_is_refused(seen):
    field, template, _ = seen
    with pytest.raises(ValueError, match="lies off the FFI"):
        pair_of(template, field.image[:800], None)


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
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "DIFFERENCE", "NOISE", "FLAGS", "KERNEL", "SKY", "STRAPS"]
        assert_allclose(hdus[0].header["SCALE"], SCALE, rtol=0.01)
        for hdu in hdus[1:4]:
            assert hdu.data.shape == (REGION[3] - REGION[1], REGION[2] - REGION[0])
            ra, dec = WCS(hdu.header).all_pix2world(10, 20, 0)
            assert_allclose((ra, dec), sky_of(field, REGION[0] + 10, REGION[1] + 20), atol=1e-8)
        peak = np.nanargmax(np.where(hdus["FLAGS"].data == 0, hdus["DIFFERENCE"].data / hdus["NOISE"].data, np.nan))
        row, column = np.unravel_index(peak, hdus["FLAGS"].data.shape)
        assert abs(column + REGION[0] - field.transient[0]) < 1
        assert abs(row + REGION[1] - field.transient[1]) < 1


def test_the_script_works_on_a_plain_scale_too(tmp_path, capsys):
    ffi, template = tmp_path / "tess2020019135923-s0020-3-3-0165-s_ffic.fits", tmp_path / "template.fits"
    write_spoc(ffi, make_field(template))
    cli.main(["difference", str(ffi), str(template), "--kernel", "1", "--mesh", "64", "--threshold", "1000"])
    out = capsys.readouterr().out
    assert "kernel of 1 x 1 taps" in out
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
    assert_array_equal(bad[(template.dq & UNTRUSTED) != 0], True)
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
