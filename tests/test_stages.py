import datetime
import math
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from astropy.time import Time
from hypothesis import given
from hypothesis import strategies as st
from made_up_chain import RECIPE, blurred, notes_of, plain, quiet, sources_at, stars_on, templates, write_ffi
from numpy.testing import assert_allclose, assert_array_equal
from test_ffi import tess_wcs

from syndiff_tasks import paths, stages
from syndiff_tasks.demo import archive as demo_archive
from syndiff_tasks.demo import frame, sky
from syndiff_tasks.geometry import ffi, mapping, rings
from syndiff_tasks.io import fitsfile, store
from syndiff_tasks.io.archive import ArchiveUnavailable, Politeness
from syndiff_tasks.pixels import blocks, psf, template
from syndiff_tasks.starlist import KEEP, Care
from syndiff_tasks.targets import WholeTarget

SURVEY = rings.rings_v3()
# Two skycells of one projection and two of another meet in it.
ROI = "1711,755,1717,761"
GAUSS = stages.Blur("gauss", 40.0, None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("stages")


@pytest.fixture(scope="module")
def path(folder):
    return write_ffi(folder)


@pytest.fixture(scope="module")
def plan(path):
    return stages.plan(path, ROI)


# --- plan -------------------------------------------------------------------------------------------------------------


def test_a_plan_tells_detector_region_owners_and_skycells(plan):
    assert (plan.ccd.sector, plan.ccd.camera, plan.ccd.ccd) == (20, 3, 3)
    assert plan.shape == (2078, 2136)
    assert plan.region == (1711, 755, 1717, 761)
    y, x = np.indices((6, 6))
    owners = SURVEY.owner(*ffi.pixel_to_sky(frame.TANSIP, x + 1711, y + 755))
    names = np.array([skycell.name for skycell in plan.footprint.skycells])
    assert names[plan.footprint.owner].ravel().tolist() == [SURVEY.name_of(number) for number in owners.ravel()]
    assert [plan.skycell(name) for name in names] == list(plan.footprint.skycells)


def test_a_plan_is_made_once_until_the_file_changes(tmp_path):
    path = write_ffi(tmp_path)
    first = stages.plan(path, ROI)
    assert stages.plan(path, ROI) is first
    os.remove(path)
    write_ffi(tmp_path, ffi.shifted(frame.TANSIP, 0.5, 0.0))
    os.utime(path, ns=(1, 1))
    assert stages.plan(path, ROI).tansip.crpix1 == frame.TANSIP.crpix1 + 0.5


def test_a_catalogue_that_is_written_anew_is_read_anew_and_another_plan_made(plan, tmp_path):
    path, skycells = tmp_path / "some.csv", list(plan.footprint.skycells)
    plans, tessellations = [], []
    for rows in (skycells, skycells[:1], None):
        if rows:
            pd.DataFrame(rows, columns=rings.COLUMNS).to_csv(path, index=False)
        plans.append(stages.plan(plan.path, ROI, catalogue=str(path)))
        tessellations.append(stages.tessellation(str(path)))
    assert [len(one.footprint.skycells) for one in plans] == [len(skycells), 1, 1]
    assert plans[0].settings()["skycells"] != plans[1].settings()["skycells"]
    assert plans[1] is plans[2] and tessellations[1] is tessellations[2] is plans[2].tessellation


def test_a_target_gives_the_region_about_it_under_the_label_of_that_region(path, plan):
    ra, dec = (float(value) for value in ffi.pixel_to_sky(frame.TANSIP, 1716.0, 760.0))
    about = stages.plan(path, target=f"{ra} {dec}", size=4)
    assert about.region.shape == (4, 4)
    assert about.region.x0 <= 1716 <= about.region.x1 and about.region.y0 <= 760 <= about.region.y1
    same = stages.plan(path, ",".join(map(str, about.region)))
    assert about.label == same.label != ""
    assert stages.plan(path, target=f"{ra}, {dec}", size=4).region == about.region
    assert stages.plan(path, "1711,755,1717,762").label != plan.label


def test_the_whole_ffi_has_no_label(path):
    whole = stages.plan(path)
    assert (whole.label, whole.region) == ("", (0, 0, 2136, 2078))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"roi": ROI, "target": "1 2"}, "give one of them"),
        ({"target": "12h 13d"}, "give RA and Dec in degrees"),
        ({"target": "12.5"}, "give RA and Dec in degrees"),
        ({"roi": "0,0,44,20"}, "collateral|science"),
        ({"catalogue": "/no/such.csv"}, "/no/such.csv: there is no such file"),
    ],
)
def test_what_makes_no_plan_is_refused_by_name(path, arguments, message):
    with pytest.raises(ValueError, match=message):
        stages.plan(path, **arguments)


def test_an_ffi_that_is_not_there_is_refused_by_name():
    with pytest.raises(ValueError, match="--ffi /nowhere/tess.fits: there is no such file"):
        stages.plan("/nowhere/tess.fits")


def test_an_ffi_south_of_ps1_is_refused_with_its_declination(tmp_path):
    with pytest.raises(ValueError, match=r"no PS1 coverage at declination -6\d"):
        stages.plan(write_ffi(tmp_path, tess_wcs(80.0, -65.0)), "900,900,910,910")


def test_settings_of_a_plan_differ_by_pointing_region_and_catalogue(plan, tmp_path):
    pointed = stages.plan(write_ffi(tmp_path, ffi.shifted(frame.TANSIP, 1e-6, 0.0)), ROI)
    elsewhere = stages.plan(plan.path, "1711,755,1717,762")
    pd.DataFrame(plan.footprint.skycells, columns=rings.COLUMNS).to_csv(tmp_path / "some.csv", index=False)
    chosen = stages.plan(plan.path, ROI, catalogue=str(tmp_path / "some.csv"))
    for other, names in ((pointed, {"wcs"}), (elsewhere, {"region"}), (chosen, {"skycells"})):
        here, there = plan.settings(), other.settings()
        assert {name for name in here if here[name] != there[name]} == names


def test_a_catalogue_that_lacks_a_column_is_refused_by_file_and_column(plan, tmp_path):
    table = pd.DataFrame(plan.footprint.skycells, columns=rings.COLUMNS)
    table.drop(columns="CRPIX2").to_csv(tmp_path / "some.csv", index=False)
    with pytest.raises(ValueError, match="some.csv: .*no column CRPIX2"):
        stages.plan(plan.path, ROI, catalogue=str(tmp_path / "some.csv"))


# --- reference --------------------------------------------------------------------------------------------------------


def ffi_beside(folder, name, tansip, stem="tess2020020135923-s0020-3-3-0165-s_ffic.fits"):
    (folder / name).mkdir()
    return write_ffi(folder / name, tansip, stem)


def test_without_a_reference_an_ffi_is_its_own(plan):
    assert stages.reference_of(plan, "") is plan


@pytest.mark.parametrize("whole", [False, True])
def test_a_reference_that_drifted_is_planned_for_the_same_region(plan, tmp_path, whole):
    mine = stages.plan(plan.path) if whole else plan
    other = ffi_beside(tmp_path, "drifted", ffi.shifted(frame.TANSIP, 0.3, -0.1))
    reference = stages.reference_of(mine, other)
    assert reference.path == other
    assert reference.region == mine.region
    assert reference.tansip.crpix1 == frame.TANSIP.crpix1 + 0.3


def test_a_reference_that_looks_elsewhere_is_refused_with_the_distance(plan, tmp_path):
    other = ffi_beside(tmp_path, "astray", ffi.shifted(frame.TANSIP, 3.0, -4.5))
    with pytest.raises(ValueError, match=r"looks 5\.4 px elsewhere"):
        stages.reference_of(plan, other)


def test_a_reference_that_is_turned_is_refused_though_its_centre_is_right(plan, tmp_path):
    c, s = math.cos(math.radians(1)), math.sin(math.radians(1))
    turned = frame.TANSIP._replace(cd=frame.TANSIP.cd @ np.array([[c, -s], [s, c]]))
    with pytest.raises(ValueError, match="px elsewhere"):
        stages.reference_of(plan, ffi_beside(tmp_path, "turned", turned))


def test_a_reference_of_another_sector_is_refused(plan, tmp_path):
    other = ffi_beside(tmp_path, "later", frame.TANSIP, "tess2020050135923-s0021-3-3-0167-s_ffic.fits")
    with pytest.raises(ValueError, match="not of the CCD and sector"):
        stages.reference_of(plan, other)


# --- downloads --------------------------------------------------------------------------------------------------------


def today(days_ago):
    return (datetime.datetime.now(datetime.timezone.utc).date() - datetime.timedelta(days=days_ago)).isoformat()


@pytest.mark.parametrize(
    ("asked", "due"),
    [({}, False), ({"z_image": 29}, False), ({"z_image": 30}, True), ({"z_image": 3, "y_wt": 31}, True)],
)
def test_absent_files_are_asked_for_again_after_so_many_days(asked, due):
    manifest = {"notes": {"absent": {key: today(days) for key, days in asked.items()}}}
    assert stages.recheck_is_due(manifest, 30) == due
    useless = {key: {"asked": today(days), "url": "", "reason": ""} for key, days in asked.items()}
    assert stages.recheck_is_due({"notes": {"absent": {}, "unusable": useless}}, 30) == due


def test_a_skycell_asked_for_again_is_asked_for_the_bands_that_it_has_and_those_that_are_wanted():
    of_r = {"notes": {"files": {"r_image": {}, "r_mask": {}}, "absent": {"r_wt": "2026-01-01"}}}
    source = stages.Source(("base",), "root", ("g", "i"), None, False)
    assert stages.unasked(of_r, ("r", "g")) == ["g"]
    assert stages.with_bands_of(of_r, source).bands == ("r", "i", "g")


SMALL = 600


@pytest.fixture(scope="module")
def small(folder):
    """A cut-out of a skycell in the archive's form, without z and y, with stars of one colour."""
    whole = SURVEY.skycell("skycell.2611.081")
    skycell = whole._replace(nx=SMALL, ny=SMALL, crpix1=whole.crpix1 - 500, crpix2=whole.crpix2 - 400)
    x, y = mapping.ps1_to_tess(frame.TANSIP, skycell, np.array([150.0, 290, 420]), np.array([200.0, 310, 390]))
    sources = sources_at(frame.TANSIP, x, y, [16.0, 17.0, 18.0])
    rendering = demo_archive.Rendering(noise=False, flaws=False, saturation=math.inf, bands=("r", "i"))
    demo_archive.build_archive(folder / "archive", [skycell], sources, rendering)
    return skycell, sources


def source_of(folder, **changes):
    politeness = Politeness(1, 1, 1, 0, 0, 0)
    settings = {"bases": (str(folder / "archive"),), "data_root": str(folder / "data"), "bands": sky.BANDS}
    return stages.Source(**(settings | {"politeness": politeness, "require_all_bands": False} | changes))


def test_files_that_the_archive_lacks_are_noted_with_the_date_and_the_other_bands_take_their_weight(small, folder):
    skycell, sources = small
    raw = WholeTarget(folder / "raw", {})
    told = []
    progress = stages.Progress(12, "file", "download", lambda percentage: None, told.append)
    with raw.writing() as draft:
        stages.download(skycell, source_of(folder), draft, progress)
    assert progress.done == 12
    assert sum("absent" in message for message in told) == 6
    origin = stages.origin_of(raw)
    lacking = {f"{band}_{kind}" for band in "zy" for kind in stages.KINDS}
    assert origin["absent"] == dict.fromkeys(lacking, today(0))
    assert set(origin["files"]) == {f"{band}_{kind}" for band in "ri" for kind in stages.KINDS}
    assert origin["keywords"]["r_image"]["EXPTIME"] == demo_archive.EXPOSURES["r"].exptime
    combined, treated = stages.combine(raw.path, skycell, RECIPE, folder)
    assert treated == []
    # r and i alone, 0.238 and 0.344 of the weight of all four, 1.
    expected = sum(weight * sky.band_counts(sources, band) for band, weight in (("r", 0.238), ("i", 0.344)))
    assert combined.flux.sum() == pytest.approx(expected.sum() / 0.582, rel=1e-3)
    assert (combined.missing[20:-20, 20:-20] == 0b1100).all()


def test_a_missing_band_stops_where_all_are_required(small, folder, tmp_path):
    draft = SimpleNamespace(path=str(tmp_path / "raw"), notes={})
    with pytest.raises(ValueError, match="skycell.2611.081: the archive has no z_image.*require_all_bands"):
        stages.download(small[0], source_of(folder, require_all_bands=True), draft, quiet())


def test_the_files_of_another_skycell_are_not_taken_for_the_right_ones(small, folder, tmp_path):
    moved = small[0]._replace(crpix1=small[0].crpix1 + 1)
    draft = SimpleNamespace(path=str(tmp_path / "raw"), notes={})
    with pytest.raises(ArchiveUnavailable, match="CRPIX1"):
        stages.download(moved, source_of(folder, data_root=str(tmp_path)), draft, quiet())


def break_row(path, number):
    """Leave the pixels of a row undecodable, and no checksum to tell of it."""
    with fits.open(path, disable_image_compression=True) as hdus:
        row = hdus[1].data["COMPRESSED_DATA"][number].tobytes()
        for card in ("CHECKSUM", "DATASUM"):
            hdus[1].header.remove(card, ignore_missing=True)
        hdus.writeto(path.with_name("broken"))
    content = path.with_name("broken").read_bytes()
    assert content.count(row) == 1
    path.write_bytes(content.replace(row, row[:4] + bytes(len(row) - 4)))


def test_a_file_that_breaks_off_while_it_is_stored_is_fetched_from_the_next_mirror(small, folder, tmp_path):
    mirror = tmp_path / "mirror"
    shutil.copytree(folder / "archive", mirror)
    (broken,) = mirror.rglob("*stk.i.unconv.fits")
    break_row(broken, 390)
    draft = SimpleNamespace(path=str(tmp_path / "raw"), notes={})
    source = source_of(folder, bases=(str(mirror), str(folder / "archive")), data_root=str(tmp_path))
    stages.download(small[0], source, draft, quiet())
    from_mirror = {key: "mirror" in file["url"] for key, file in draft.notes["files"].items()}
    assert from_mirror == {f"{band}_{kind}": (band, kind) != ("i", "image") for band in "ri" for kind in stages.KINDS}
    (whole,) = (folder / "archive").rglob("*stk.i.unconv.fits")
    assert_array_equal(store.read_arrays(draft.path)["i_image"], fitsfile.read_stack(whole).stored[:])


def test_the_source_is_what_the_settings_say():
    settings = SimpleNamespace(
        **{"archive": ("a", "b"), "data_root": "here", "weights": (("r", 0.4), ("z", 0.6)), "require_all_bands": True},
        **{"download_tries": 3, "connect_timeout": 5.0, "read_timeout": 7.0},
    )
    source = stages.source(settings)
    assert (source.bases, source.data_root, source.bands, source.require_all_bands) == (
        ("a", "b"),
        "here",
        ("r", "z"),
        True,
    )
    assert (source.politeness.tries, source.politeness.connect_timeout, source.politeness.read_timeout) == (3, 5.0, 7.0)


# --- recipe and blocks ------------------------------------------------------------------------------------------------

weights = st.lists(st.sampled_from("rizy"), min_size=1, max_size=4, unique=True).flatmap(
    lambda bands: st.tuples(*(st.tuples(st.just(band), st.floats(1e-3, 1.0)) for band in sorted(bands)))
)
recipes = st.builds(
    stages.Recipe,
    weights,
    st.sampled_from(["segment", "mesh", "none"]),
    st.lists(st.integers(0, 15), unique=True, max_size=3).map(sorted).map(tuple),
    st.sampled_from(["flag", "exclude"]),
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from([KEEP, Care("repair", "gaia", ""), Care("remove", "gaia", ""), Care("repair", "a.csv", "0123")]),
)


@given(recipes, recipes)
def test_two_recipes_have_one_label_and_one_manifest_only_if_they_are_the_same(one, other):
    assert (one.label == other.label) == (one == other) == (one.settings() == other.settings())
    assert "/" not in one.label and not one.label.startswith(".")


def test_a_recipe_is_made_of_the_settings_and_the_bits_of_the_task():
    settings = SimpleNamespace(
        **{"weights": (("r", 1.0),), "background": "mesh", "ignored_pixels": "flag", "bin": 8},
        **{"saturated_stars": "remove", "star_catalog": "gaia"},
    )
    stars = Care("remove", "gaia", "")
    assert stages.recipe(settings, [5, 12]) == ((("r", 1.0),), "mesh", (5, 12), "flag", 8, stars)


def test_excluded_pixels_are_blank_before_they_are_shared_and_flagged_ones_keep_their_flux(small, folder):
    skycell, _ = small
    shape = (SMALL, SMALL)
    linear = {"BZERO": 0.0, "BSCALE": 0.01, "EXPTIME": 2.0}
    image, bits = np.full(shape, 400, np.int16), np.zeros(shape, np.uint16)
    bits[200:260, 300:380] = 1 << 12
    image[200:260, 300:380] = 4000
    arrays = {"r_image": image, "r_wt": np.full(shape, 100, np.int16), "r_mask": bits}
    store.write_arrays(folder / "plain", arrays, {"keywords": {key: linear for key in arrays}})
    recipe = stages.Recipe((("r", 1.0),), "none", (12,), "flag", 4)
    flagged, excluded = (
        stages.combine(str(folder / "plain"), skycell, recipe._replace(ignored_pixels=how), folder)[0]
        for how in ("flag", "exclude")
    )
    # 400 * 0.01 / 2 = 2 counts/s, ten times as much in the box.
    assert flagged.flux.sum(dtype=float) == pytest.approx(2.0 * (SMALL**2 + 9 * 60 * 80), rel=1e-6)
    assert flagged.valid.sum(dtype=float) == pytest.approx(SMALL**2, rel=1e-6)
    assert excluded.flux.sum(dtype=float) == pytest.approx(2.0 * (SMALL**2 - 60 * 80), rel=1e-6)
    assert excluded.valid.sum(dtype=float) == pytest.approx(SMALL**2 - 60 * 80, rel=1e-6)


# --- blur -------------------------------------------------------------------------------------------------------------


def test_a_blur_of_gauss_needs_a_sigma_and_none_has_none(plan):
    assert stages.blur(SimpleNamespace(psf="gauss"), 33.0, plan.ccd) == ("gauss", 33.0, None)
    assert stages.blur(SimpleNamespace(psf="none"), 33.0, plan.ccd) == ("none", 0.0, None)
    with pytest.raises(ValueError, match="psf_sigma: 0.0 gives no Gaussian"):
        stages.blur(SimpleNamespace(psf="gauss"), 0.0, plan.ccd)


def test_up_to_sigma_45_a_skycell_is_blurred_alone_and_beyond_with_its_neighbours(plan):
    inner = SURVEY.skycell("skycell.1405.055")
    assert stages.Blur("gauss", 45.0, None).made_of(plan, inner) == [inner.name]
    wide = stages.Blur("gauss", 46.0, None).made_of(plan, inner)
    around = [f"skycell.1405.{cell:03d}" for cell in (44, 45, 46, 54, 56, 64, 65, 66)]
    assert wide == [inner.name, *around]
    at_border = stages.Blur("gauss", 60.0, None).skycells(plan)
    assert {name[8:12] for name in at_border} >= {"2611", "2612"}
    assert GAUSS.skycells(plan) == sorted(skycell.name for skycell in plan.footprint.skycells)


@pytest.mark.parametrize(("sigmas", "told"), [(stages.SIGMAS, 4e-4), (stages.SIGMAS_WITH_OFFSET, 1.2e-2)])
def test_light_of_a_star_further_off_than_is_followed_is_so_little_of_its_peak(sigmas, told):
    flux = np.zeros((120, 240), np.float32)
    flux[60, 60] = 1
    blurred = psf.gaussian_blur(blocks.to_blocks(*plain(flux), 4, (0, 0)), 10, ignore=0)
    peak, off = template.read(blurred, np.array([[60.0, 60 + sigmas * 10]]), np.full((1, 2), 60.0)).flux[0]
    assert told / 2 < off / peak < told


@pytest.mark.parametrize("sigma", [20.0, 40.0, 53.0, 100.0])
def test_the_largest_offset_leaves_three_sigma_and_a_pixel_within_the_frame(plan, sigma):
    """From the edge of a core, 240 px inside the frame; half the diagonal of a TESS pixel is 58 px."""
    blur = stages.Blur("gauss", sigma, None)
    skycell = plan.footprint.skycells[0]
    moved = blur.largest_offset(mapping.pixel_scale(plan.tansip, skycell)) * mapping.pixel_scale(plan.tansip, skycell)
    beyond = 240 + blur.widening() - moved - 58
    assert 3 * sigma <= beyond < 3 * sigma + 5


def test_offsets_up_to_the_largest_are_taken_and_others_refused_by_name(plan):
    stages.check_offsets(plan, GAUSS, [(0.0, 0.0), (0.5, -0.5), (-0.7, 0.0)])
    with pytest.raises(ValueError, match=r"offset \(0\.6, 0\.6\).*at most 0\.7\d px"):
        stages.check_offsets(plan, GAUSS, [(0.0, 0.0), (0.6, 0.6)])


# --- the template -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def groups(folder, plan):
    sources = sources_at(plan.tansip, np.array([1713.2]), np.array([758.1]), [15.0])
    return blurred(folder, plan, lambda piece: stars_on(piece, sources))


@given(st.integers(0, 60), st.integers(1, 5000))
def test_batches_hold_every_offset_once_in_order_and_no_more_than_fits(count, side):
    offsets = [(float(number), 0.0) for number in range(count)]
    owner = np.broadcast_to(np.int32(0), (side, side))
    divided = stages.batches(offsets, SimpleNamespace(owner=owner))
    assert [offset for batch in divided for offset in batch] == offsets
    for batch in divided:
        assert len(batch) == 1 or len(batch) * owner.size * 24 <= 800e6


def test_a_full_frame_goes_in_batches_of_a_few_offsets():
    owner = np.broadcast_to(np.int32(0), (2078, 2136))
    assert len(stages.batches([(float(n), 0.0) for n in range(9)], SimpleNamespace(owner=owner))[0]) == 7


@pytest.mark.parametrize("oversampling", [1, 2])
def test_a_frame_of_a_region_that_reaches_off_the_science_pixels_knows_which_see_the_sky(path, oversampling):
    plan = stages.plan(path, "40,0,50,4")
    made = stages.frame(plan, oversampling)
    assert made.owner.shape == made.science.shape == made.seam.shape == (4 * oversampling, 10 * oversampling)
    assert not made.science[:, : 4 * oversampling].any()
    assert made.science[:, 4 * oversampling :].all()
    assert (made.owner[~made.science] == -1).all()
    x, y = ffi.sky_to_pixel(made.tansip, *ffi.pixel_to_sky(frame.TANSIP, 40 - 0.5, -0.5))
    assert_allclose((x, y), -0.5, atol=1e-7)


def test_the_table_of_skycells_tells_what_each_is_made_of_and_how_many_pixels_it_gave(plan, groups):
    table = stages.skycells_table(plan, groups, dict(sky.WEIGHTS))
    names = [skycell.name for skycell in plan.footprint.skycells]
    assert table["NAME"].tolist() == names
    assert table["PIXELS"].tolist() == [int((plan.footprint.owner == index).sum()) for index in range(len(names))]
    assert table["PIXELS"].sum() == 36
    assert set(table["BANDS"]) == {"rizy"}
    assert (table["ZEROPT_r"] == 25.0).all() and (table["EXPTIME_y"] == 700.0).all()
    for name, row in table.set_index("NAME").iterrows():
        wcs = rings.wcs(SURVEY.skycell(name))
        nx, ny = SURVEY.skycell(name).nx, SURVEY.skycell(name).ny
        assert_allclose((row["RA_CENTRE"], row["DEC_CENTRE"]), wcs.all_pix2world((nx - 1) / 2, (ny - 1) / 2, 0))
        assert row["SHA256_z_wt"] == notes_of(SURVEY.skycell(name))["files"]["z_wt"]["sha256"]


def test_a_band_that_a_skycell_lacks_is_told_by_its_row(plan, groups):
    notes = notes_of(plan.footprint.skycells[0])
    for kind in stages.KINDS:
        del notes["files"][f"z_{kind}"], notes["keywords"][f"z_{kind}"]
    lacking = {name: SimpleNamespace(manifest=lambda: {"notes": notes}) for name in groups}
    table = stages.skycells_table(plan, lacking, dict(sky.WEIGHTS))
    assert set(table["BANDS"]) == {"riy"}
    assert table[["ZEROPT_z", "EXPTIME_z"]].isna().all(axis=None)
    assert (table["SHA256_z_image"] == "").all()


def test_the_template_tells_where_it_comes_from(plan, groups, tmp_path):
    (path,) = templates(tmp_path, plan, groups, [(0.25, -0.5)], units="electrons")
    with fits.open(path, checksum=True) as hdus:
        names = [hdu.name for hdu in hdus]
        header, skycells = hdus[0].header, hdus["SKYCELLS"].data
        shapes = {hdus[name].data.shape for name in names[1:7]}
    assert names == [*("PRIMARY", "FLUX_SUM", "VARIANCE", "COVERAGE", "COUNT", "MASK", "DQ", "SKYCELLS", "STARS")]
    assert shapes == {(6, 6)}
    assert header["SYNDIFF"] is True
    assert (header["DX_SHIFT"], header["DY_SHIFT"], header["ROI"]) == (0.25, -0.5, ROI)
    assert (header["SECTOR"], header["CAMERA"], header["CCD"], header["NSKYCELL"]) == (20, 3, 3, 4)
    assert header["FFI"] == header["REFFFI"] == frame.NAME.removesuffix(".fits")
    assert header["MJD-OBS"] == pytest.approx(Time("2020-01-19T13:58:14", scale="utc").mjd, abs=1e-9)
    assert (header["PSF"], header["PSFSIGMA"], header["BINNING"], header["WEIGHT_Z"]) == ("gauss", 40.0, 4, 0.283)
    assert skycells["PIXELS"].sum() == 36


def test_the_summary_names_every_blurred_skycell_with_its_digest(plan, groups, tmp_path):
    stages.summarise(plan, groups, tmp_path / "summary.json")
    told = pd.read_json(tmp_path / "summary.json", orient="index").to_dict()[0]
    assert told["ffi"] == plan.ccd.stem
    assert [one["digest"] for one in told["skycells"]] == [groups[one["skycell"]].digest() for one in told["skycells"]]
    assert len(told["skycells"]) == 4


# --- progress ---------------------------------------------------------------------------------------------------------


def test_progress_reports_each_percent_once_and_ends_at_a_hundred():
    percentages, messages = [], []
    progress = stages.Progress(1000, "file", "task", percentages.append, messages.append)
    for number in range(1000):
        progress.step(f"number {number}")
    assert percentages == list(range(1, 101))
    assert len(messages) == 100
    assert messages[-1] == "1000 of 1000 files: number 999"


def test_progress_of_few_steps_reports_every_one():
    percentages = []
    progress = stages.Progress(3, "file", "task", percentages.append, lambda message: None)
    for _ in range(3):
        progress.step("one")
    assert percentages == [33, 66, 100]


def test_progress_logs_every_tenth_where_there_is_no_terminal(caplog):
    progress = stages.Progress(200, "skycell", "Convolve(x)", lambda percentage: None, lambda message: None)
    with caplog.at_level("INFO", logger="luigi-interface"):
        for _ in range(200):
            progress.step("one")
    assert [record.getMessage() for record in caplog.records] == [
        f"Convolve(x): {tenth} %, {2 * tenth} of 200 skycells" for tenth in range(10, 101, 10)
    ]


def test_a_disk_too_small_for_the_skycells_of_a_run_is_refused_before_the_first_is_fetched(tmp_path, monkeypatch):
    settings = SimpleNamespace(data_root=tmp_path, weights=(("r", 0.5), ("i", 0.5)), keep_raw=True)
    recipe = stages.Recipe(settings.weights, "none", (12,), "flag", 4)
    names = [f"skycell.2611.{number:03d}" for number in range(100)]
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=30e9))
    with pytest.raises(ValueError, match=r"30\.0 GB free but this run needs about \d+\.\d GB"):
        stages.demand_space(settings, recipe, names, 8)
    settings.keep_raw = False
    stages.demand_space(settings, recipe, names, 8)
    settings.keep_raw = True
    for name in names:
        paths.combined(tmp_path, recipe.label, name).mkdir(parents=True)
    stages.demand_space(settings, recipe, names, 8)
