import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from astropy.time import Time
from hypothesis import given
from hypothesis import strategies as st
from made_up_chain import RECIPE, ROI, blurred, notes_of, plain, sources_at, stars_on, templates
from numpy.testing import assert_allclose

from syndiff_tasks import paths
from syndiff_tasks.chain import combine, convolve, downsample, stack_files, template_file
from syndiff_tasks.chain.plan import plan_ffi
from syndiff_tasks.chain.progress import Progress
from syndiff_tasks.chain.star_catalog import KEEP, StarPolicy
from syndiff_tasks.demo import frame, sky
from syndiff_tasks.geometry import mapping
from syndiff_tasks.geometry.rings import rings_v3
from syndiff_tasks.geometry.skycell import skycell_wcs
from syndiff_tasks.geometry.tansip import pixel_to_sky, sky_to_pixel
from syndiff_tasks.io import store
from syndiff_tasks.pixels import blocks, convolution, template

SURVEY = rings_v3()
GAUSS = convolve.TemplatePsf("gauss", 40.0, None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("stages")


# --- recipe and blocks ------------------------------------------------------------------------------------------------

weights = st.lists(st.sampled_from("rizy"), min_size=1, max_size=4, unique=True).flatmap(
    lambda bands: st.tuples(*(st.tuples(st.just(band), st.floats(1e-3, 1.0)) for band in sorted(bands)))
)
recipes = st.builds(
    combine.CombineConfig,
    weights,
    st.sampled_from(["segment", "mesh", "none"]),
    st.lists(st.integers(0, 15), unique=True, max_size=3).map(sorted).map(tuple),
    st.sampled_from(["flag", "exclude"]),
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from(
        [
            KEEP,
            StarPolicy("repair", "gaia", ""),
            StarPolicy("remove", "gaia", ""),
            StarPolicy("repair", "a.csv", "0123"),
        ]
    ),
)


@given(recipes, recipes)
def test_two_recipes_have_one_label_and_one_manifest_only_if_they_are_the_same(one, other):
    assert (one.label == other.label) == (one == other) == (one.settings() == other.settings())
    assert "/" not in one.label and not one.label.startswith(".")


def test_a_recipe_is_made_of_the_settings_and_the_bits_of_the_task():
    settings = SimpleNamespace(
        **{"weights": (("r", 1.0),), "background": "mesh", "ignored_pixels": "flag", "bin": 8},
        **{"reject_mask_bits": (0, 8), "suspect_mask_bits": (9,)},
        **{"saturated_stars": "remove", "star_catalog": "gaia"},
    )
    stars = StarPolicy("remove", "gaia", "")
    assert combine.CombineConfig.from_settings(settings, [5, 12]) == (
        (("r", 1.0),),
        "mesh",
        (5, 12),
        "flag",
        8,
        stars,
        (0, 8),
        (9,),
    )
    with pytest.raises(ValueError, match="9 .SPIKE. is in both ignore_mask_bits and suspect_mask_bits"):
        combine.CombineConfig.from_settings(settings, [9, 12])


def test_excluded_pixels_are_blank_before_sharing_and_flagged_ones_keep_their_flux(folder):
    side = 600
    skycell, shape = SURVEY.skycell("skycell.2611.081")._replace(nx=side, ny=side), (side, side)
    linear = {"BZERO": 0.0, "BSCALE": 0.01, "EXPTIME": 2.0}
    image, bits = np.full(shape, 400, np.int16), np.zeros(shape, np.uint16)
    bits[200:260, 300:380] = 1 << 12
    image[200:260, 300:380] = 4000
    arrays = {"r_image": image, "r_wt": np.full(shape, 100, np.int16), "r_mask": bits}
    store.write_arrays(folder / "plain", arrays, {"keywords": {key: linear for key in arrays}})
    recipe = combine.CombineConfig((("r", 1.0),), "none", (12,), "flag", 4)
    flagged, excluded = (
        combine.combine(str(folder / "plain"), skycell, recipe._replace(ignored_pixels=how), folder)[0]
        for how in ("flag", "exclude")
    )
    # 400 * 0.01 / 2 = 2 counts/s, ten times as much in the box.
    assert flagged.flux.sum(dtype=float) == pytest.approx(2.0 * (side**2 + 9 * 60 * 80), rel=1e-6)
    assert flagged.valid.sum(dtype=float) == pytest.approx(side**2, rel=1e-6)
    assert excluded.flux.sum(dtype=float) == pytest.approx(2.0 * (side**2 - 60 * 80), rel=1e-6)
    assert excluded.valid.sum(dtype=float) == pytest.approx(side**2 - 60 * 80, rel=1e-6)


# --- blur -------------------------------------------------------------------------------------------------------------


def test_a_blur_of_gauss_needs_a_sigma_and_none_has_none(plan):
    assert convolve.TemplatePsf.from_settings(SimpleNamespace(psf="gauss"), 33.0, plan) == ("gauss", 33.0, None, False)
    assert convolve.TemplatePsf.from_settings(SimpleNamespace(psf="none"), 33.0, plan) == ("none", 0.0, None, False)
    with pytest.raises(ValueError, match="psf_sigma: 0.0 gives no Gaussian"):
        convolve.TemplatePsf.from_settings(SimpleNamespace(psf="gauss"), 0.0, plan)


def test_up_to_sigma_45_a_skycell_is_convolved_alone_and_beyond_with_its_neighbors(plan):
    own = sorted(skycell.name for skycell in plan.footprint.skycells)
    for skycell in plan.footprint.skycells:
        assert convolve.TemplatePsf("gauss", 45.0, None).inputs_of(plan, skycell) == [skycell.name]
    # Each of the four at whose common corner the region lies needs others of them, and none besides.
    wide = {
        skycell.name: convolve.TemplatePsf("gauss", 100.0, None).inputs_of(plan, skycell) for skycell in plan.skycells
    }
    assert all(len(names) > 1 and set(names) <= set(own) and names[0] == name for name, names in wide.items())
    assert GAUSS.skycells(plan) == own


@pytest.mark.parametrize(("sigmas", "told"), [(convolve.SIGMAS, 4e-4), (convolve.SIGMAS_WITH_OFFSET, 1.2e-2)])
def test_light_of_a_star_further_off_than_is_followed_is_so_little_of_its_peak(sigmas, told):
    flux = np.zeros((120, 240), np.float32)
    flux[60, 60] = 1
    blurred = convolution.convolve_gaussian(blocks.to_blocks(*plain(flux), 4, (0, 0)), 10, ignore=0)
    peak, off = template.sample(blurred, np.array([[60.0, 60 + sigmas * 10]]), np.full((1, 2), 60.0)).flux[0]
    assert told / 2 < off / peak < told


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("sigma", [20.0, 40.0, 53.0, 100.0])
def test_the_largest_offset_leaves_three_sigma_and_a_pixel_within_the_frame(plan, sigma, wide):
    """From the edge of a core, 240 px inside the frame; half the diagonal of a TESS pixel is 58 px."""
    blur = convolve.TemplatePsf("gauss", sigma, None, wide)
    skycell = plan.footprint.skycells[0]
    moved = blur.largest_offset(mapping.pixel_scale(plan.tansip, skycell)) * mapping.pixel_scale(plan.tansip, skycell)
    beyond = 240 + blur.widening() - moved - 58
    assert 3 * sigma <= beyond < 3 * sigma + 5


@pytest.mark.parametrize(
    "blur",
    [
        *(convolve.TemplatePsf("gauss", sigma, None, True) for sigma in (10.0, 40.0, 53.0)),
        convolve.TemplatePsf("none", 0.0, None, True),
        convolve.TemplatePsf("prf", math.nan, (), True),
    ],
)
def test_wide_frames_allow_offsets_of_one_and_a_half_pixels_for_every_psf(plan, blur):
    assert downsample.largest_offset(plan, blur) >= 1.5
    downsample.check_offsets(plan, blur, [(0.0, 0.0), (1.0, -1.1), (-1.49, 0.0)])


def test_offsets_up_to_the_largest_are_taken_and_others_refused_by_name(plan):
    downsample.check_offsets(plan, GAUSS, [(0.0, 0.0), (0.5, -0.5), (-0.7, 0.0)])
    with pytest.raises(ValueError, match=r"offset \(0\.6, 0\.6\).*at most 0\.7\d px"):
        downsample.check_offsets(plan, GAUSS, [(0.0, 0.0), (0.6, 0.6)])
    assert downsample.beyond(plan, GAUSS, [(0.0, 0.0), (0.6, 0.6)]) == (0.6, 0.6)
    assert downsample.beyond(plan, GAUSS._replace(wide=True), [(0.0, 0.0), (0.6, 0.6)]) is None


def test_a_convolved_skycell_is_named_after_the_neighbors_that_widened_it():
    ccd = paths.CCD(20, 3, 3)
    alone = paths.convolved("data", ccd, "skycell.2611.073")
    assert alone.name == "skycell.2611.073"
    widened = paths.convolved("data", ccd, "skycell.2611.073", "skycell.2611.074", "skycell.2612.005")
    assert widened == alone.with_name("skycell.2611.073_074_2612.005")


# --- the template -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def groups(folder, plan):
    sources = sources_at(plan.tansip, np.array([1713.2]), np.array([758.1]), [15.0])
    return blurred(folder, plan, lambda piece: stars_on(piece, sources))


@given(st.integers(0, 60), st.integers(1, 5000))
def test_batches_hold_every_offset_once_in_order_and_no_more_than_fits(count, side):
    offsets = [(float(number), 0.0) for number in range(count)]
    owner = np.broadcast_to(np.int32(0), (side, side))
    divided = downsample.batches(offsets, SimpleNamespace(owner=owner))
    assert [offset for batch in divided for offset in batch] == offsets
    for batch in divided:
        assert len(batch) == 1 or len(batch) * owner.size * 24 <= 800e6


def test_a_full_frame_goes_in_batches_of_a_few_offsets():
    owner = np.broadcast_to(np.int32(0), (2078, 2136))
    assert len(downsample.batches([(float(n), 0.0) for n in range(9)], SimpleNamespace(owner=owner))[0]) == 7


@pytest.mark.parametrize("oversampling", [1, 2])
def test_a_frame_that_reaches_off_the_science_pixels_knows_which_see_the_sky(ffi_path, oversampling):
    plan = plan_ffi(ffi_path, "40,0,50,4")
    made = downsample.pixel_grid(plan, oversampling)
    assert made.owner.shape == made.science.shape == made.seam.shape == (4 * oversampling, 10 * oversampling)
    assert not made.science[:, : 4 * oversampling].any()
    assert made.science[:, 4 * oversampling :].all()
    assert (made.owner[~made.science] == -1).all()
    x, y = sky_to_pixel(made.tansip, *pixel_to_sky(frame.TANSIP, 40 - 0.5, -0.5))
    assert_allclose((x, y), -0.5, atol=1e-7)


def test_the_table_of_skycells_lists_inputs_and_pixels_given(plan, groups):
    table = template_file.skycells_table(plan, groups, dict(sky.WEIGHTS))
    names = [skycell.name for skycell in plan.footprint.skycells]
    assert table["NAME"].tolist() == names
    assert table["PIXELS"].tolist() == [int((plan.footprint.owner == index).sum()) for index in range(len(names))]
    assert table["PIXELS"].sum() == 36
    assert set(table["BANDS"]) == {"rizy"}
    assert (table["ZEROPT_r"] == 25.0).all() and (table["EXPTIME_y"] == 700.0).all()
    for name, row in table.set_index("NAME").iterrows():
        wcs = skycell_wcs(SURVEY.skycell(name))
        nx, ny = SURVEY.skycell(name).nx, SURVEY.skycell(name).ny
        assert_allclose((row["RA_CENTRE"], row["DEC_CENTRE"]), wcs.all_pix2world((nx - 1) / 2, (ny - 1) / 2, 0))
        assert row["SHA256_z_wt"] == notes_of(SURVEY.skycell(name))["files"]["z_wt"]["sha256"]


def test_a_band_that_a_skycell_lacks_is_told_by_its_row(plan, groups):
    notes = notes_of(plan.footprint.skycells[0])
    for kind in stack_files.KINDS:
        del notes["files"][f"z_{kind}"], notes["keywords"][f"z_{kind}"]
    lacking = {name: SimpleNamespace(manifest=lambda: {"notes": notes}) for name in groups}
    table = template_file.skycells_table(plan, lacking, dict(sky.WEIGHTS))
    assert set(table["BANDS"]) == {"riy"}
    assert table[["ZEROPT_z", "EXPTIME_z"]].isna().all(axis=None)
    assert (table["SHA256_z_image"] == "").all()


def test_the_template_tells_where_it_comes_from(plan, groups, tmp_path):
    (path,) = templates(tmp_path, plan, groups, [(0.25, -0.5)], units="electrons")
    with fits.open(path, checksum=True) as hdus:
        names = [hdu.name for hdu in hdus]
        header, skycells = hdus[0].header, hdus["SKYCELLS"].data
        shapes = {hdus[name].data.shape for name in names[1:7]}
    assert names == [*("PRIMARY", "FLUX_SUM", "VARIANCE", "COVERAGE", "COUNT", "MASKED", "DQ", "SKYCELLS", "STARS")]
    assert shapes == {(6, 6)}
    assert header["SYNDIFF"] is True
    assert (header["DX_SHIFT"], header["DY_SHIFT"], header["ROI"]) == (0.25, -0.5, ROI)
    assert (header["SECTOR"], header["CAMERA"], header["CCD"], header["NSKYCELL"]) == (20, 3, 3, 4)
    assert header["FFI"] == header["REFFFI"] == frame.NAME.removesuffix(".fits")
    # The header's date is barycentric, 216 s (BARYCORR) after the clock at the spacecraft.
    assert header["MJD-OBS"] == pytest.approx(Time("2020-01-19T13:54:38", scale="utc").mjd, abs=1e-9)
    dates = [header[key] for key in ("TIMESYS", "DATE-OBS", "DATE-END")]
    assert dates == ["UTC", "2020-01-19T13:54:38.000", "2020-01-19T14:24:38.000"]
    assert (header["PSF"], header["PSFSIGMA"], header["BINNING"], header["WEIGHT_Z"]) == ("gauss", 40.0, 4, 0.283)
    assert skycells["PIXELS"].sum() == 36


def test_the_summary_names_every_blurred_skycell_with_its_digest(plan, groups, tmp_path):
    convolve.summarize(plan, groups, tmp_path / "summary.json")
    told = pd.read_json(tmp_path / "summary.json", orient="index").to_dict()[0]
    assert told["ffi"] == plan.ccd.stem
    assert [one["digest"] for one in told["skycells"]] == [groups[one["skycell"]].digest() for one in told["skycells"]]
    assert len(told["skycells"]) == 4


# --- progress ---------------------------------------------------------------------------------------------------------


def test_progress_reports_each_percent_once_and_ends_at_a_hundred():
    percentages, messages = [], []
    progress = Progress(1000, "file", "task", percentages.append, messages.append)
    for number in range(1000):
        progress.step(f"number {number}")
    assert percentages == list(range(1, 101))
    assert len(messages) == 100
    assert messages[-1] == "1000 of 1000 files: number 999"


def test_progress_of_few_steps_reports_every_one():
    percentages = []
    progress = Progress(3, "file", "task", percentages.append, lambda message: None)
    for _ in range(3):
        progress.step("one")
    assert percentages == [33, 66, 100]


def test_progress_logs_every_tenth_where_there_is_no_terminal(caplog):
    progress = Progress(200, "skycell", "Convolve(x)", lambda percentage: None, lambda message: None)
    with caplog.at_level("INFO", logger="luigi-interface"):
        for _ in range(200):
            progress.step("one")
    assert [record.getMessage() for record in caplog.records] == [
        f"Convolve(x): {tenth} %, {2 * tenth} of 200 skycells" for tenth in range(10, 101, 10)
    ]


def write_blank(path, plan, groups, data=()):
    """Write a template without data except in some pixels, and return the fraction that has some."""
    frame_ = downsample.pixel_grid(plan, 1)
    sampled = template.blank(frame_.owner.shape)
    for pixel in data:
        sampled.flux[pixel], sampled.variance[pixel], sampled.coverage[pixel] = 1.0, 1.0, 1.0
        sampled.dq[pixel] = 0
    settings = combine_settings(plan)
    described = template_file.TemplateSettings("counts", 1, 0.5, settings, "")
    return template_file.write_template(path, sampled, frame_, plan, (0.0, 0.0), described, groups)


def combine_settings(plan):
    return RECIPE.settings() | convolve.TemplatePsf("gauss", 40.0, None).settings(plan)


def test_a_template_without_any_data_is_refused(plan, groups, tmp_path):
    with pytest.raises(template_file.EmptyTemplate, match="no pixel of the template has data"):
        write_blank(tmp_path / "empty.fits", plan, groups)
    assert not (tmp_path / "empty.fits").exists()


def test_a_template_with_little_data_is_named_with_its_fraction(plan, groups, tmp_path):
    covered = write_blank(tmp_path / "sparse.fits", plan, groups, data=[(3, 4)])
    assert 0 < covered < 0.5
    assert f"sparse.fits: only {100 * covered:.1f} % of the pixels" in str(template_file.sparse("sparse.fits", covered))
    assert template_file.sparse("full.fits", 0.5) is None
