import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from made_up_tesscut import linear_wcs, write_tesscut
from tiny_sky import (
    CELLS,
    PLAIN,
    ROI,
    catalogue_rows,
    cutout,
    funpackable,
    planes,
    products,
    remade,
    skycell,
    stars,
    steps,
    template_of,
    the_same,
    write_ffi,
    zipped,
)

from syndiff_tasks.demo import frame
from syndiff_tasks.demo.archive import stack_path
from syndiff_tasks.demo.server import serve
from syndiff_tasks.demo.truth import expected_template
from syndiff_tasks.geometry.region import parse_region
from syndiff_tasks.geometry.tansip import pixel_to_sky, shifted, sky_to_pixel, tansip_keywords
from syndiff_tasks.manifest import read_manifest, verify

TASKS = ("MapFFI", "DownloadSkycell", "CombineBands", "Convolve", "Downsample")
ONE = "skycell.2611.044"
TEMPLATES = "shifted_downsampled/sector_0020/camera_3/ccd_3"
REGION = f"roi_{ROI.replace(',', '_')}"


# --- one command ------------------------------------------------------------------------------------------------------


def test_one_command_makes_every_product_and_a_picture(said):
    root = said[0] / "data"
    assert steps(products(root)) == [
        "combined_skycells_zarr", "convolved_results", "mapping_output", "ps1_skycells_zarr", "shifted_downsampled",
    ]  # fmt: skip
    template = template_of(root)
    assert str(template.relative_to(root)).startswith(f"{TEMPLATES}/{frame.NAME.removesuffix('.fits')}/{REGION}/")
    assert template.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert all(verify(root / name, deep=True) == [] for name in products(root) if not Path(name).name.startswith("."))


def test_the_template_shows_the_stars_where_and_as_bright_as_they_are(said):
    made = planes(template_of(said[0] / "data"))
    region = parse_region(ROI)
    truth = expected_template(stars(), frame.TANSIP, region, 40.0)
    # The sky is cut off by segmentation and has noise: a hundredth, which a wrong pixel or weight would exceed far.
    inner = np.s_[2:-2, 2:-2]
    assert np.abs(made["FLUX_SUM"][inner] - truth[inner]).max() < 0.02 * truth.max()
    assert np.isfinite(made["FLUX_SUM"][inner]).all() and (made["COVERAGE"][inner] > 0.98).all()


def test_all_tasks_are_known_before_the_first_one_runs(said):
    lines = said[1].splitlines()
    known = [number for number, line in enumerate(lines) if "has status   PENDING" in line]
    running = [number for number, line in enumerate(lines) if " running   " in line]
    assert len(known) == len(running) == 3 + 2 * len(CELLS)
    assert max(known) < min(running)


def test_a_second_run_does_nothing_and_says_so(tiny_sky, luigi, made):
    before = products(made)
    ended = luigi.run("Downsample", *tiny_sky.arguments(made))
    assert ended.code == 0
    assert "Did not run any tasks" in ended.tail
    assert products(made) == before


@pytest.mark.parametrize("task", TASKS)
def test_help_of_each_task_tells_all_that_it_takes(luigi, task):
    import syndiff_tasks

    ended = luigi.run(task, "--help")
    assert ended.code == 0
    told = " ".join(ended.said.split())
    for name, parameter in getattr(syndiff_tasks, task).get_params():
        assert f"--{name.replace('_', '-')}" in told
        assert parameter.description and " ".join(parameter.description.split()) in told


def test_each_task_runs_by_itself_and_makes_its_own_product(tiny_sky, luigi, tmp_path):
    one = ["--skycell", ONE, "--skycell-catalog", str(tiny_sky.catalogue), *tiny_sky.settings(tmp_path)]
    all_of_it = tiny_sky.arguments(tmp_path, *PLAIN)
    for task, arguments, made_by_it in (
        ("MapFFI", all_of_it, ["mapping_output"] * 4),
        ("DownloadSkycell", one, ["ps1_skycells_zarr"]),
        ("CombineBands", one, ["combined_skycells_zarr"]),
        ("Convolve", all_of_it, ["combined_skycells_zarr"] * 3 + ["convolved_results"] * 5 + ["ps1_skycells_zarr"] * 3),
        ("Downsample", all_of_it, ["shifted_downsampled"]),
    ):
        before = products(tmp_path)
        assert luigi.run(task, *arguments).code == 0
        made_now = [name.partition("/")[0] for name in remade(before, products(tmp_path))]
        assert made_now == made_by_it, task


# --- what is remade, and what is not ----------------------------------------------------------------------------------


def test_a_template_deleted_by_hand_is_remade_bit_for_bit_and_only_it(tiny_sky, luigi, made):
    template, before = template_of(made), products(made)
    bytes_before = template.read_bytes()
    template.unlink()
    assert luigi.run("Downsample", *tiny_sky.arguments(made)).code == 0
    assert [Path(name).name for name in remade(before, products(made))] == [f".{template.name}"]
    assert template.read_bytes() == bytes_before


def test_a_blurred_skycell_deleted_by_hand_is_remade_and_only_it(tiny_sky, luigi, made):
    (gone,) = made.rglob(f"convolved_images.zarr/{ONE}")
    shutil.rmtree(gone)
    before = products(made)
    assert luigi.run("Convolve", *tiny_sky.arguments(made)).code == 0
    assert [Path(name).name for name in remade(before, products(made))] == [ONE]
    # The same content as before: what was made of it stands.
    assert "Did not run any tasks" in luigi.run("Downsample", *tiny_sky.arguments(made)).tail


def test_a_finished_template_does_not_miss_deleted_raw_and_combined_skycells(tiny_sky, luigi, made):
    shutil.rmtree(made / "ps1_skycells_zarr")
    shutil.rmtree(made / "combined_skycells_zarr")
    template_of(made).unlink()
    ended = luigi.run("Downsample", *tiny_sky.arguments(made, *PLAIN))
    assert ended.code == 0
    assert not (made / "ps1_skycells_zarr").exists()


def test_overwrite_remakes_its_task_and_nothing_before_it(tiny_sky, luigi, made):
    before, content = products(made), template_of(made).read_bytes()
    assert luigi.run("Downsample", *tiny_sky.arguments(made, "--overwrite", *PLAIN)).code == 0
    assert steps(remade(before, products(made))) == ["shifted_downsampled"]
    assert template_of(made).read_bytes() == content
    before = products(made)
    assert luigi.run("Downsample", *tiny_sky.arguments(made, "--Convolve-overwrite", *PLAIN)).code == 0
    # The blurred skycells came out the same: what follows from them stands.
    assert steps(remade(before, products(made))) == ["convolved_results"]


def test_a_target_pixel_file_has_the_template_of_its_part_of_the_ffi(tiny_sky, luigi, made, tmp_path):
    region, before = parse_region(ROI), products(made)
    wcs = linear_wcs((1299.5, 699.5)) | {"CRPIX1": 5.5, "CRPIX2": 5.5}
    path, _ = write_tesscut(tmp_path, (5, 10, 10), (region.x0, region.y0), changes=wcs)
    arguments = ["--ffi", str(path), "--skycell-catalog", str(tiny_sky.catalogue), *tiny_sky.settings(made)]
    ended = luigi.run("Downsample", *arguments)
    assert ended.code == 0, ended.tail
    assert steps(remade(before, products(made))) == ["convolved_results", "mapping_output", "shifted_downsampled"]
    (cut,) = made.rglob(f"{path.stem}/**/syndiff_template*.fits")
    (whole,) = made.rglob(f"{REGION}/syndiff_template*.fits")
    assert cut.with_suffix(".png").exists()
    flux, expected = planes(cut)["FLUX_SUM"], planes(whole)["FLUX_SUM"]
    # The linear WCS leaves out the distortion within 10 px.
    assert np.nanmax(np.abs(flux - expected)) < 2e-3 * np.nanmax(expected)


def test_only_what_is_downstream_of_a_changed_archive_file_is_remade(tiny_sky, luigi, made, tmp_path):
    archive, flux = shutil.copytree(tiny_sky.archive, tmp_path / "archive"), planes(template_of(made))["FLUX_SUM"]
    one, other = (stack_path(archive, ONE, band, "image") for band in "rz")
    for path in (one, other):
        with fits.open(path, mode="update", do_not_scale_image_data=True, disable_image_compression=True) as hdus:
            hdus[1].header["EXPTIME"] = hdus[1].header["EXPTIME"] * 2
            hdus[1].add_checksum()
    before = products(made)
    arguments = ["--skycell", ONE, "--skycell-catalog", str(tiny_sky.catalogue), *tiny_sky.settings(made, archive)]
    assert luigi.run("Downsample", *tiny_sky.arguments(made)).said.count("Did not run any tasks")
    assert luigi.run("DownloadSkycell", *arguments, "--overwrite").code == 0
    ended = luigi.run("Downsample", *tiny_sky.arguments(made, *PLAIN))
    assert ended.code == 0
    names = remade(before, products(made))
    assert sorted({Path(name).name for name in names}) == [
        ".cell_metadata.json", f".{template_of(made).name}", ONE,
    ]  # fmt: skip
    assert steps(names) == [
        "combined_skycells_zarr", "convolved_results", "ps1_skycells_zarr", "shifted_downsampled",
    ]  # fmt: skip
    assert not np.array_equal(planes(template_of(made))["FLUX_SUM"], flux)


def test_only_a_download_that_is_asked_for_again_goes_to_the_archive(tiny_sky, luigi, made):
    asked = []
    with serve(tiny_sky.archive, requests=asked) as url:
        one = ["--skycell", ONE, "--skycell-catalog", str(tiny_sky.catalogue), *tiny_sky.settings(made, url)]
        for task in ("Downsample", "Convolve"):
            assert luigi.run(task, *tiny_sky.arguments(made, "--overwrite", *PLAIN, archive=url)).code == 0
        assert luigi.run("CombineBands", *one, "--overwrite").code == 0
        assert asked == []
        assert luigi.run("DownloadSkycell", *one, "--overwrite").code == 0
    assert len([request for request in asked if request.status == 200]) == 12


def test_raw_pixels_go_once_they_are_combined_where_they_are_not_to_be_kept(tiny_sky, luigi, made, tmp_path):
    root = tmp_path / "small"
    arguments = tiny_sky.arguments(root, *PLAIN, "--syndiff-keep-raw", "false")
    assert luigi.run("Downsample", *arguments).code == 0
    assert not [name for name in products(root) if name.startswith("ps1_skycells_zarr")]
    assert template_of(root).read_bytes() == template_of(made).read_bytes()
    template_of(root).unlink()
    before = products(root)
    assert luigi.run("Downsample", *arguments).code == 0
    assert steps(remade(before, products(root))) == ["shifted_downsampled"]


# --- regions, offsets, several FFIs -----------------------------------------------------------------------------------


def test_regions_have_folders_of_their_own_and_share_skycells_and_pixels(tiny_sky, luigi, made):
    before = products(made)
    inner = ["1297,696,1303,702" if word == ROI else word for word in tiny_sky.arguments(made, *PLAIN)]
    assert luigi.run("Downsample", *inner).code == 0
    names = remade(before, products(made))
    assert steps(names) == ["convolved_results", "mapping_output", "shifted_downsampled"]
    assert all("roi_1297_696_1303_702" in name for name in names)
    (small,) = made.rglob("roi_1297_696_1303_702/syndiff_template*.fits")
    (large,) = made.rglob(f"{REGION}/syndiff_template*.fits")
    small, large = planes(small), planes(large)
    assert all(np.allclose(small[n], large[n][1:7, 2:8], rtol=1e-6, equal_nan=True) for n in ("FLUX_SUM", "VARIANCE"))


def test_a_target_is_the_region_about_it(tiny_sky, luigi, made):
    ra, dec = pixel_to_sky(frame.TANSIP, 1300.2, 699.9)
    arguments = tiny_sky.arguments(made, *PLAIN)
    at = arguments.index("--roi")
    arguments[at : at + 2] = ["--target", f"{ra} {dec}", "--size", "6"]
    assert luigi.run("Downsample", *arguments).code == 0
    (template,) = made.rglob("roi_1297_697_1303_703/syndiff_template*.fits")
    wcs = WCS(fits.getheader(template, "FLUX_SUM"))
    assert np.allclose(wcs.all_world2pix(ra, dec, 0), (3.2, 2.9), atol=1e-3)


def test_each_offset_has_its_template_and_a_further_one_leaves_the_others_alone(tiny_sky, luigi, made):
    before = products(made)
    several = ["--multi-offset-array", "0.5,-0.25,0,0,0.003,0", *PLAIN]
    assert luigi.run("Downsample", *tiny_sky.arguments(made, *several)).code == 0
    names = [Path(name).name for name in remade(before, products(made))]
    assert names == [
        f".syndiff_template_s0020_3_3_{offset}.fits" for offset in ("dx+0.0030_dy+0.0000", "dx+0.5000_dy-0.2500")
    ]
    moved = WCS(fits.getheader(template_of(made, "dx+0.5000_dy-0.2500"), "FLUX_SUM"))
    ra, dec = pixel_to_sky(frame.TANSIP, 1300, 700)
    assert np.allclose(moved.all_world2pix(ra, dec, 0), (5.5, 4.75), atol=1e-3)
    turned = ["--multi-offset-array", "0.003,0,0,0,0.5,-0.25", *PLAIN]
    assert "Did not run any tasks" in luigi.run("Downsample", *tiny_sky.arguments(made, *turned)).tail


def test_two_ffis_of_different_sectors_share_every_skycell(tiny_sky, luigi, made, tmp_path):
    moved = shifted(frame.TANSIP, 0.2, 0.1)
    later = write_ffi(tmp_path / "tess2022019135923-s0047-3-3-0165-s_ffic.fits", moved)
    before, asked = products(made), []
    with serve(tiny_sky.archive, requests=asked) as url:
        assert luigi.run("Downsample", *tiny_sky.arguments(made, *PLAIN, ffi=later, archive=url)).code == 0
    assert asked == []
    names = remade(before, products(made))
    assert steps(names) == ["convolved_results", "mapping_output", "shifted_downsampled"]
    assert all("sector_0047" in name for name in names)


def test_two_ffis_of_one_ccd_share_the_blurred_skycells_of_a_reference(tiny_sky, luigi, made, tmp_path):
    moved = shifted(frame.TANSIP, 0.2, 0.1)
    other = write_ffi(tmp_path / "tess2020019142923-s0020-3-3-0165-s_ffic.fits", moved)
    before = products(made)
    shared = tiny_sky.arguments(made, "--reference-ffi", str(tiny_sky.ffi), *PLAIN, ffi=other)
    assert luigi.run("Downsample", *shared).code == 0
    names = remade(before, products(made))
    assert not [name for name in names if "convolved_images.zarr" in name or "mapping_output" in name]
    alone = tiny_sky.arguments(tmp_path / "alone", *PLAIN, ffi=other)
    assert luigi.run("Downsample", *alone, workers=2).code == 0
    (with_reference,) = (made / TEMPLATES / other.stem).rglob("*.fits")
    assert the_same(planes(with_reference), planes(template_of(tmp_path / "alone")))


# --- forms of an FFI --------------------------------------------------------------------------------------------------


def write_tica(path):
    cards = {"CAMNUM": 3, "CCDNUM": 3, "TELESCOP": "TESS"} | tansip_keywords(frame.TANSIP)
    header = fits.Header(list(cards.items()))
    data = np.full(frame.SHAPE, 1e5, np.float32)
    fits.PrimaryHDU(data, header).writeto(path)
    return path


TICA = "hlsp_tica_tess_ffi_s0020-o1-00116635-cam3-ccd3_tess_v01_img.fits"


@pytest.mark.parametrize("form", ["gz", "fz", "tica", "cutout"])
def test_every_form_of_an_ffi_gives_the_same_template(tiny_sky, luigi, made, tmp_path, form):
    plain = planes(template_of(made))
    arguments = tiny_sky.arguments(made, *PLAIN)
    for made_for_another_ffi in ("shifted_downsampled", "convolved_results", "mapping_output"):
        shutil.rmtree(made / made_for_another_ffi)
    if form == "tica":
        path = write_tica(tmp_path / TICA)
    else:
        # Compressing a full frame would take seconds.
        path = write_ffi(tmp_path / frame.NAME, cutout(), (40, 50))
        path = {"gz": zipped, "fz": funpackable, "cutout": Path}[form](path)
        arguments[arguments.index(ROI)] = "15,15,25,25"
    arguments[arguments.index("--ffi") + 1] = str(path)
    assert luigi.run("Downsample", *arguments).code == 0
    found = planes(template_of(made))
    for name in plain:
        np.testing.assert_allclose(found[name], plain[name], rtol=1e-5, atol=1e-6)


# --- skycells, background, maps ---------------------------------------------------------------------------------------


def test_skycells_are_those_of_the_ring_table_where_no_catalogue_is_given(tiny_sky, luigi, tmp_path):
    arguments = tiny_sky.arguments(tmp_path)
    at = arguments.index("--skycell-catalog")
    del arguments[at : at + 2]
    assert luigi.run("MapFFI", *arguments).code == 0
    (rows,) = tmp_path.rglob("*_master_skycells_list.csv")
    names = re.findall(r"skycell\.\d{4}\.\d{3}", rows.read_text())
    assert names and not set(names) & {f"skycell.2611.{cell:03d}" for cell in CELLS}


def test_maps_of_skycells_are_made_on_request_and_agree_with_the_wcs(tiny_sky, luigi, made):
    before = products(made)
    arguments = tiny_sky.arguments(made, "--syndiff-pixel-maps", "true")
    assert luigi.run("MapFFI", *arguments).code == 0
    names = remade(before, products(made))
    assert len(names) == len(CELLS)
    with fits.open(next(made.rglob(f"TESS_*{ONE}.fits.gz"))) as hdus:
        index, header = hdus[0].data, hdus[0].header
        assert (header["BITPIX"], "BLANK" in header) == (32, False)
    ra, dec = WCS(header).all_pix2world(500, 600, 0)
    x, y = (round(float(value)) for value in sky_to_pixel(frame.TANSIP, ra, dec))
    assert index[600, 500] == y * frame.SHAPE[1] + x


def test_recipes_of_different_backgrounds_live_side_by_side(tiny_sky, luigi, made):
    one = ["--skycell", ONE, "--skycell-catalog", str(tiny_sky.catalogue), *tiny_sky.settings(made)]
    before = products(made)
    for how in ("mesh", "segment"):
        assert luigi.run("CombineBands", *one, "--syndiff-background", how).code == 0
    names = remade(before, products(made))
    assert len(names) == 2 and all(name.endswith(ONE) for name in names)
    digests = {read_manifest(path)["digest"] for path in made.glob(f"combined_skycells_zarr/*/2611/{ONE}")}
    assert len(digests) == 3


def test_a_skycell_downloaded_for_fewer_bands_is_completed_and_serves_both(tiny_sky, luigi, finished, tmp_path):
    one = ["--skycell", ONE, "--skycell-catalog", str(tiny_sky.catalogue), *tiny_sky.settings(tmp_path)]
    few = ["--syndiff-weights", "i=0.5,z=0.5"]
    assert luigi.run("CombineBands", *one, *few).code == 0
    (raw,) = tmp_path.glob(f"ps1_skycells_zarr/ps1_skycells.zarr/2611/{ONE}")
    assert len(read_manifest(raw)["notes"]["files"]) == 6
    away = luigi.run("CombineBands", *one, "--syndiff-archive", str(tmp_path / "none"))
    assert away.code == 30 and len(read_manifest(raw)["notes"]["files"]) == 6
    assert luigi.run("CombineBands", *one, "--syndiff-weights", "r=0.5,i=0.5").code == 0
    assert len(read_manifest(raw)["notes"]["files"]) == 9
    assert luigi.run("CombineBands", *one).code == 0
    assert len(read_manifest(raw)["notes"]["files"]) == 12
    (whole,) = tmp_path.glob(f"combined_skycells_zarr/r0.238*/2611/{ONE}")
    (other,) = finished.glob(f"combined_skycells_zarr/*/2611/{ONE}")
    assert read_manifest(whole)["digest"] == read_manifest(other)["digest"]
    before = products(tmp_path)
    assert luigi.run("CombineBands", *one, *few).code == 0
    assert not [name for name in remade(before, products(tmp_path)) if name.startswith("ps1_skycells_zarr")]


def test_a_catalogue_decides_which_skycells_there_are(tiny_sky, luigi, made, tmp_path):
    fewer = tmp_path / "one.csv"
    catalogue_rows([skycell(44)]).to_csv(fewer, index=False)
    shutil.copytree(made / "ps1_skycells_zarr", tmp_path / "one" / "ps1_skycells_zarr")
    arguments = tiny_sky._replace(catalogue=fewer).arguments(tmp_path / "one", *PLAIN)
    assert luigi.run("Downsample", *arguments).code == 0
    found = planes(template_of(tmp_path / "one"))
    outside = found["COVERAGE"] == 0
    assert outside.any() and not outside.all()
    assert np.isnan(found["FLUX_SUM"][outside]).all()
