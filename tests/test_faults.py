import contextlib
import datetime
import errno
import glob
import json
import math
import os
import random
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from luigi.configuration import get_config
from owners import DEAD
from tiny_sky import (
    CELLS,
    CENTRE,
    PLAIN,
    ROI,
    User,
    catalogue_rows,
    clean_environment,
    cutout,
    planes,
    products,
    remade,
    skycell,
    steps,
    template_of,
    the_same,
    write_ffi,
)

from syndiff_tasks import failures, provenance
from syndiff_tasks.chain.plan import plan_ffi, position, tessellation
from syndiff_tasks.config import SHIPPED
from syndiff_tasks.demo import archive, frame, sky
from syndiff_tasks.demo.truth import expected_template
from syndiff_tasks.geometry.region import parse_region
from syndiff_tasks.geometry.tansip import cropped, pixel_to_sky, shifted
from syndiff_tasks.io import disk
from syndiff_tasks.io.liveness import alive
from syndiff_tasks.manifest import read_manifest, sealed, temporary_path, verify
from syndiff_tasks.parameters import Bits, Places, Weights
from syndiff_tasks.pixels.mask import DQ

ONE = skycell(44)
TASKS = ("MapFFI", "DownloadSkycell", "CombineBands", "Convolve", "Downsample")
RUN_ELSEWHERE, NOT_RUN, FAILED, NOT_PLANNED, UNREADABLE = 10, 25, 30, 35, 40
SMALL = (40, 50)  # shape of a cut-out, written in no time

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk takes root")


def sentence(ended, lines=1):
    """What the command says last, under a heading of its own: a line a fault, however many tasks met with it."""
    _, heading, words = ended.said.rpartition("\nWhat went wrong:\n")
    assert heading, ended.tail
    assert words.count("\n") == lines, words
    return words


def with_words(arguments, **changed):
    """The arguments with the values of some options changed."""
    arguments = list(arguments)
    for option, value in changed.items():
        flag = f"--{option.replace('_', '-')}"
        if flag in arguments:
            at = arguments.index(flag)
            arguments[at : at + 2] = []
        if value is not None:
            arguments += [flag, str(value)]
    return arguments


# --- inputs: FFIs -----------------------------------------------------------------------------------------------------


def no_wcs(folder):
    return write_ffi(folder / frame.NAME, cutout(), SMALL, {"CTYPE1": None})


def folded(folder):
    return write_ffi(folder / frame.NAME, cutout(), SMALL, {"A_2_0": 0.05})


def truncated(folder):
    path = write_ffi(folder / frame.NAME, cutout(), SMALL)
    path.write_bytes(path.read_bytes()[:9000])
    return path


def no_fits(folder):
    (folder / frame.NAME).write_text("<html>please log in</html>" * 200)
    return folder / frame.NAME


def a_skycell(folder):
    stack = archive.Stack(*(np.ones((ONE.ny, ONE.nx), dtype) for dtype in (np.float32, np.float32, np.uint16)))
    image, *_ = archive.write_skycell_band(folder / "archive", ONE, "r", stack, archive.EXPOSURES["r"])
    return image.rename(folder / frame.NAME)


def other_name(folder):
    return write_ffi(folder / "my_image.fits", cutout(), SMALL)


def other_camera(folder):
    return write_ffi(folder / frame.NAME, cutout(), SMALL, {"CAMERA": 2})


def absent(folder):
    return folder / frame.NAME


@pytest.mark.parametrize(
    "make, told",
    [
        (no_wcs, "the FFI has no WCS (no CTYPE1"),
        (folded, "does not invert"),
        (truncated, "the file is damaged, incomplete or another one"),
        (no_fits, "a web page (HTML), such as a login or error page, instead of a FITS file"),
        (a_skycell, "is it a TESS FFI?"),
        (other_name, "'my_image.fits' is not the name of a calibrated FFI"),
        (other_camera, "the file name says camera 3, the header CAMERA = 2"),
        (absent, "no such file"),
    ],
)
def test_an_ffi_that_cannot_be_used_is_refused_before_anything_is_made(tiny_sky, luigi, tmp_path, make, told):
    path = make(tmp_path)
    ended = luigi.run("Downsample", *tiny_sky.arguments(tmp_path / "data", ffi=path))
    assert ended.code == NOT_PLANNED
    assert told in sentence(ended) and path.stem in sentence(ended)
    assert not (tmp_path / "data").exists()


def test_an_ffi_with_damaged_pixels_has_a_template_and_its_picture_says_why_not(tiny_sky, luigi, made, tmp_path):
    path = write_ffi(tmp_path / frame.NAME)
    with open(path, "r+b") as file:
        file.seek(1_000_000)
        file.write(b"damage")
    shutil.rmtree(made / "shifted_downsampled")
    ended = luigi.run("Downsample", *tiny_sky.arguments(made, ffi=path))
    assert ended.code == FAILED
    assert f"{path}: DATASUM of HDU 1" in sentence(ended)
    assert verify(template_of(made), deep=True) == []


def without_catalogue(arguments):
    return with_words(arguments, skycell_catalog=None)


def test_an_ffi_south_of_the_survey_is_told_so_before_any_download(tiny_sky, luigi, tmp_path):
    south = cutout()._replace(crval2=-60.0)
    path = write_ffi(tmp_path / frame.NAME, south, SMALL)
    arguments = with_words(without_catalogue(tiny_sky.arguments(tmp_path / "data", ffi=path)), roi="10,10,20,20")
    ended = luigi.run("Downsample", *arguments)
    assert ended.code == NOT_PLANNED
    assert re.search(r"no PS1 coverage at declination -\d\d\.\d", sentence(ended))
    assert not (tmp_path / "data").exists()


def test_an_ffi_partly_off_the_survey_has_nan_no_ps1_and_a_figure_of_coverage(tiny_sky, luigi, made):
    arguments = with_words(tiny_sky.arguments(made, *PLAIN), roi="1280,690,1305,700")
    assert luigi.run("Downsample", *arguments).code == 0
    (path,) = made.rglob("roi_1280_690_1305_700/syndiff_template*.fits")
    found = planes(path)
    nowhere = (found["DQ"] & DQ.NO_PS1) > 0
    assert nowhere.any() and np.isnan(found["FLUX_SUM"][nowhere]).all() and (found["COVERAGE"][nowhere] == 0).all()
    assert np.isfinite(found["FLUX_SUM"][~nowhere & (found["COVERAGE"] > 0.5)]).all()
    assert fits.getval(path, "COVERED") == pytest.approx(np.isfinite(found["FLUX_SUM"]).mean(), abs=1e-4)


@pytest.mark.parametrize(
    "projection, ra, dec",
    [("2611", 0.0, 78.0), ("2643", 30.0, 90.0), ("0812", 70.0, -22.0)],
    ids=["across RA 0", "on the pole", "south"],
)
def test_a_star_is_in_place_at_ra_zero_at_the_pole_and_in_projections_below_1000(luigi, tmp_path, projection, ra, dec):
    tansip = frame.TANSIP._replace(crval1=ra, crval2=dec, crpix1=CENTRE[0] + 1.0, crpix2=CENTRE[1] + 1.0)
    skycells = [skycell(cell, projection, tansip) for cell in CELLS]
    star = sky.source_table(*map(np.atleast_1d, pixel_to_sky(tansip, 1300.3, 699.8)), [14.0], [5e3])
    plain = archive.Rendering(noise=False, flaws=False, saturation=math.inf, bands=("r",))
    archive.build_archive(tmp_path / "archive", skycells, star, plain)
    catalogue_rows(skycells).to_csv(tmp_path / "skycells.csv", index=False)
    path = write_ffi(tmp_path / frame.NAME, cropped(tansip, 1280, 680), SMALL)
    options = ["--syndiff-archive", str(tmp_path / "archive"), "--syndiff-data-root", str(tmp_path / "data")]
    options += ["--ffi", str(path), "--roi", "15,15,25,25", "--skycell-catalog", str(tmp_path / "skycells.csv")]
    ended = luigi.run("Downsample", *options, *PLAIN, "--syndiff-weights", "r=1", "--syndiff-background", "none")
    assert ended.code == 0, ended.tail
    found = planes(template_of(tmp_path))["FLUX_SUM"]
    truth = expected_template(star, tansip, parse_region(ROI), 40.0)
    truth *= 10 ** (-0.4 * (star["r"].iloc[0] - star["tess_mag"].iloc[0]))
    np.testing.assert_allclose(found, truth, atol=2e-3 * truth.max())


# --- inputs: what is asked for ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code, option, value, told",
    [
        (NOT_PLANNED, "roi", "2100,2000,2200,2100", "region 2100,2000,2200,2100 is not inside the FFI"),
        (NOT_PLANNED, "roi", "1,2,3", "region '1,2,3' is not x0,y0,x1,y1"),
        (NOT_PLANNED, "roi", "", "--roi '': the value is empty; give one, or leave the option out"),
        (UNREADABLE, "target", "210.8", "--target '210.8': this is not a position"),
        (NOT_PLANNED, "multi_offset_array", "", "--multi-offset-array '': the value is empty"),
        (UNREADABLE, "size", "wide", "size: 'wide' is not a whole number"),
        (UNREADABLE, "multi_offset_array", "0,0,1", "multi_offset_array: '0,0,1' has 3 numbers"),
        (UNREADABLE, "multi_offset_array", "nan,0", "multi_offset_array: 'nan,0' has a number that is not finite"),
        (UNREADABLE, "multi_offset_array", ",", "multi_offset_array: '' is not a number"),
        (UNREADABLE, "multi_offset_array", "0;0", "multi_offset_array: '0;0' is not a number"),
        (NOT_PLANNED, "multi_offset_array", "9,0", "offset (9.0, 0.0) TESS px reaches beyond the sky"),
        (UNREADABLE, "ignore_mask_bits", "12,16", "ignore_mask_bits: 16 in '12,16'; PS1 masks have bits 0 to 15"),
        (
            NOT_PLANNED,
            "ignore_mask_bits",
            "9,12",
            "PS1 mask bit 9 (SPIKE) is in both ignore_mask_bits and suspect_mask_bits",
        ),
        (UNREADABLE, "psf_sigma", "-1", "psf_sigma: -1 is not within 0 to 400"),
        (UNREADABLE, "psf_sigma", "1e9", "psf_sigma: 1e9 is not within 0 to 400"),
        (NOT_PLANNED, "psf_sigma", "0", "psf_sigma: 0.0 gives no Gaussian"),
        (UNREADABLE, "syndiff_units", "electron", "units: 'electron' is not one of counts, electrons"),
    ],
)
def test_what_cannot_be_asked_for_is_named_with_its_value_and_nothing_is_made(
    tiny_sky, luigi, tmp_path, code, option, value, told
):
    arguments = tiny_sky.arguments(tmp_path / "data")
    arguments = with_words(arguments, roi=None) if option == "target" else arguments
    ended = luigi.run("Downsample", *with_words(arguments, **{option: value}))
    assert ended.code == code
    assert told in sentence(ended)
    assert not (tmp_path / "data").exists()


def no_column(rows, trap):
    return rows.drop(columns="CRVAL2").to_csv(index=False)


def hostile_cell(rows, trap):
    rows["CRVAL1"] = f"__import__('pathlib').Path('{trap}').touch()"
    return rows.to_csv(index=False)


def no_rows(rows, trap):
    return ""


def binary(rows, trap):
    return "\udcff\udcfe"


@pytest.mark.parametrize(
    "make, told",
    [
        (no_column, "the skycell catalog has no column CRVAL2; it needs NAME"),
        (hostile_cell, "which is not a finite number; correct it"),
        (no_rows, "No columns to parse from file"),
        (binary, "codec can't decode"),
    ],
)
def test_a_catalogue_that_is_none_is_refused_and_never_run(tiny_sky, luigi, tmp_path, make, told):
    trap, path = tmp_path / "trap", tmp_path / "bad.csv"
    path.write_text(make(catalogue_rows([ONE]), trap), encoding="utf-8", errors="surrogateescape")
    ended = luigi.run("Downsample", *tiny_sky._replace(catalogue=path).arguments(tmp_path / "data"))
    assert ended.code == NOT_PLANNED
    assert told in sentence(ended) and f"--skycell-catalog {path}" in sentence(ended)
    assert not trap.exists() and not (tmp_path / "data").exists()


@given(st.text())
def test_any_text_is_a_target_or_refused_by_name(text):
    try:
        place = position(text)
    except ValueError as error:
        assert "--target" in str(error)
    else:
        assert len(place) == 2


@given(st.text())
def test_any_text_is_weights_bits_and_places_or_refused_by_name(text):
    for parameter, name in ((Weights(), "weights"), (Bits(), "ignore_mask_bits"), (Places(), "")):
        try:
            value = parameter.parse(text)
        except ValueError as error:
            assert name in str(error)
        else:
            assert parameter.parse(parameter.serialize(value)) == value


@given(st.binary(max_size=300))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_a_catalogue_or_refused_with_the_files_name(tmp_path, content):
    path = tmp_path / "any.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="--skycell-catalog"):
        tessellation(str(path))


@pytest.mark.filterwarnings("ignore::astropy.utils.exceptions.AstropyUserWarning")
@given(st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_ffi_with_any_card_changed_is_planned_or_refused(tiny_sky, tmp_path, data):
    path, whole = tmp_path / frame.NAME, tmp_path / "whole.fits"
    content = bytearray((whole if whole.exists() else write_ffi(whole, cutout(), SMALL)).read_bytes())
    card = 80 * data.draw(st.integers(0, 2 * 2880 // 80 + 40))
    text = data.draw(st.binary(min_size=1, max_size=20))
    content[card + data.draw(st.integers(0, 40)) :][: len(text)] = text
    at = card + data.draw(st.integers(0, 40))
    content[at : at + len(text)] = text
    path.write_bytes(content)
    with contextlib.suppress(ValueError):
        plan_ffi(str(path), "15,15,25,25", catalog=str(tiny_sky.catalogue))


# --- data -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def changed(tiny_sky, made, tmp_path):
    """The archive to change, and a data root that lacks all that was made of the one skycell that will change."""
    for folder in [*made.rglob(ONE.name), made / "shifted_downsampled"]:
        shutil.rmtree(folder)
    return Path(shutil.copytree(tiny_sky.archive, tmp_path / "archive")), made


def files_of(folder, band="?", kind="*"):
    return sorted(Path(folder).glob(f"rings.v3.skycell/2611/044/*.stk.{band}.unconv{kind}fits"))


def set_cards(path, **cards):
    with fits.open(path, mode="update", do_not_scale_image_data=True, disable_image_compression=True) as hdus:
        for keyword, value in cards.items():
            hdus[1].header.pop(keyword, None)
            if value is not None:
                hdus[1].header[keyword] = value
        hdus[1].add_checksum()


def blank(folder):
    nothing = np.full((ONE.ny, ONE.nx), np.nan, np.float32)
    stack = archive.Stack(nothing, nothing, np.full(nothing.shape, archive.BIT["BLANK"], np.uint16))
    for band, exposure in archive.EXPOSURES.items():
        archive.write_skycell_band(folder, ONE, band, stack, exposure)


def nothing_there(folder):
    for path in files_of(folder):
        path.unlink()


def without_exposure(folder):
    for path in files_of(folder, "?", "."):
        set_cards(path, EXPTIME=None)


@pytest.mark.parametrize("make", [blank, nothing_there, without_exposure])
def test_a_skycell_without_data_gives_nan_and_a_flag_in_its_own_pixels_only(tiny_sky, luigi, changed, finished, make):
    files, root = changed
    make(files)
    ended = luigi.run("Downsample", *tiny_sky.arguments(root, *PLAIN, archive=files))
    assert ended.code == 0, ended.tail
    found, plain = planes(template_of(root)), planes(template_of(finished))
    lost = np.isnan(found["FLUX_SUM"])
    assert lost.any() and not lost.all()
    assert ((found["DQ"][lost] & (DQ.NO_PS1 | DQ.LOW_COVERAGE)) > 0).all()
    others = owner_of(finished) != 0
    assert not lost[others].any()
    assert np.array_equal(found["FLUX_SUM"][others], plain["FLUX_SUM"][others])


def owner_of(root):
    (path,) = Path(root).rglob("*_master_pixels2skycells.fits.gz")
    return fits.getdata(path)


def no_z(folder):
    for path in files_of(folder, "z"):
        path.unlink()


def no_y(folder):
    for path in files_of(folder, "y"):
        path.unlink()


def z_without_good_pixels(folder):
    for path in files_of(folder, "z", ".") + files_of(folder, "z", ".wt."):
        set_cards(path, BSOFTEN="NaN", BOFFSET="NaN")


@pytest.mark.parametrize("make", [no_z, z_without_good_pixels])
def test_a_band_missing_in_one_skycell_is_replaced_by_the_others_and_flagged(tiny_sky, luigi, changed, finished, make):
    files, root = changed
    make(files)
    ended = luigi.run("Downsample", *tiny_sky.arguments(root, *PLAIN, archive=files))
    assert ended.code == 0, ended.tail
    found, plain = planes(template_of(root)), planes(template_of(finished))
    own = owner_of(finished) == 0
    assert ((found["DQ"] & DQ.BAND_MISSING) > 0)[own].all()
    assert not ((found["DQ"] & DQ.BAND_MISSING) > 0)[~own].any()
    np.testing.assert_allclose(found["FLUX_SUM"][own].sum(), plain["FLUX_SUM"][own].sum(), rtol=0.2)
    assert np.array_equal(found["FLUX_SUM"][~own], plain["FLUX_SUM"][~own])


def test_a_band_that_no_skycell_has_is_flagged_everywhere(tiny_sky, luigi, tmp_path):
    files = shutil.copytree(tiny_sky.archive, tmp_path / "archive")
    for path in files.rglob("*.stk.y.*"):
        path.unlink()
    root = tmp_path / "data"
    assert luigi.run("Downsample", *tiny_sky.arguments(root, *PLAIN, archive=files), workers=2).code == 0
    found = planes(template_of(root))
    assert ((found["DQ"] & DQ.BAND_MISSING) > 0).all() and np.isfinite(found["FLUX_SUM"]).any()
    refused = luigi.run(
        "Downsample",
        *tiny_sky.arguments(tmp_path / "strict", *PLAIN, archive=files),
        *("--syndiff-require-all-bands", "true"),
    )
    assert refused.code == FAILED
    assert "the archive has no y_image, y_mask, y_wt, and require_all_bands is set" in sentence(refused)


def told_of_use(root):
    """The bands of the changed skycell in a template's SKYCELLS, and what is noted of its useless files."""
    (raw,) = (root / "ps1_skycells_zarr").rglob(ONE.name)
    rows = fits.getdata(template_of(root), "SKYCELLS")
    return str(rows["BANDS"][list(rows["NAME"]).index(ONE.name)]), read_manifest(raw)["notes"]["unusable"]


def test_whole_files_without_flux_are_missing_bands_reported_kept_and_fetched_again(tiny_sky, luigi, changed, finished):
    files, root = changed
    (z,), (y,) = files_of(files, "z", "."), files_of(files, "y", ".wt.")
    set_cards(z, EXPTIME=-5.0)
    set_cards(y, BSOFTEN=85.0, BOFFSET="NaN")
    one = ["--skycell", ONE.name, "--skycell-catalog", str(tiny_sky.catalogue), *tiny_sky.settings(root, files)]
    refused = luigi.run("DownloadSkycell", *one, "--syndiff-require-all-bands", "true")
    assert refused.code == FAILED
    assert "has no z_image that gives flux, y_wt that gives flux, and require_all_bands is set" in sentence(refused)

    ended = luigi.run("Downsample", *tiny_sky.arguments(root, *PLAIN, archive=files))
    assert ended.code == 0, ended.tail
    found, own = planes(template_of(root)), owner_of(finished) == 0
    assert np.array_equal((found["DQ"] & DQ.BAND_MISSING) > 0, own) and np.isfinite(found["FLUX_SUM"][own]).any()
    have, useless = told_of_use(root)
    assert have == "ri"
    assert {key: one["url"] for key, one in useless.items()} == {"z_image": z.as_uri(), "y_wt": y.as_uri()}
    told = f"{ONE.name}: {z.as_uri()} came whole but gives no flux (header has EXPTIME = -5.0: counts/s cannot be"
    assert told in ended.said and "header has EXPTIME = -5.0" in useless["z_image"]["reason"]
    assert (root / "ps1_skycells_zarr" / "incoming" / "quarantine" / z.name).read_bytes() == z.read_bytes()
    (raw,) = (root / "ps1_skycells_zarr").rglob(ONE.name)
    assert re.search(r"z_image  unusable on \d{4}-\d\d-\d\d: header has EXPTIME = -5.0", ask("explain", raw).stdout)

    assert recheck(root, 0) == "1 skycells lack files"
    assert luigi.run("DownloadSkycell", *one).code == 0
    assert told_of_use(root) == ("ri", useless)
    for good in (z, y):
        shutil.copy(tiny_sky.archive / good.relative_to(files), good)
    assert luigi.run("DownloadSkycell", *one).said.count("Did not run any tasks") == 1
    assert recheck(root, 0) == "1 skycells lack files"
    assert luigi.run("DownloadSkycell", *one).code == 0
    assert luigi.run("Downsample", *tiny_sky.arguments(root, *PLAIN, archive=files)).code == 0
    assert told_of_use(root) == ("rizy", {})
    assert the_same(planes(template_of(root)), planes(template_of(finished)))


@pytest.fixture
def lacking(tiny_sky, luigi, changed):
    """An archive that has one band less of one skycell, and all that was made of it 91 days ago."""
    files, root = changed
    no_z(files)
    arguments = tiny_sky.arguments(root, *PLAIN, archive=files)
    assert luigi.run("Downsample", *arguments).code == 0
    (raw,) = (root / "ps1_skycells_zarr").rglob(ONE.name)
    days_ago(raw, 91)
    return files, root, raw, arguments


def days_ago(raw, days):
    """Have the archive been asked for what it has not so many days ago."""
    manifest = json.loads((raw / "manifest.json").read_text())
    assert sorted(manifest["notes"]["absent"]) == ["z_image", "z_mask", "z_wt"]
    then = datetime.datetime.now(datetime.timezone.utc).date() - datetime.timedelta(days=days)
    manifest["notes"]["absent"] = dict.fromkeys(manifest["notes"]["absent"], then.isoformat())
    (raw / "manifest.json").write_text(json.dumps(sealed(manifest)))


def recheck(root, days):
    """Withdraw what the archive had not so many days ago, and return the result in words."""
    ended = ask("recheck", root, "--older-than", f"{days}d")
    assert ended.returncode == 0, ended.stderr
    return re.match(rf"{re.escape(str(root))}: (\d+ skycells lack files)", ended.stdout)[1]


def nothing_run(ended):
    return ended.code == 0 and "Did not run any tasks" in ended.said


def test_a_finished_template_is_remade_when_the_archive_has_gained_a_file(tiny_sky, luigi, lacking, finished):
    files, root, _, arguments = lacking
    # What is there already is not fetched again: the archive may have lost it.
    shutil.rmtree(files_of(files, "r", ".")[0].parent)
    for path in files_of(tiny_sky.archive, "z"):
        came = files / path.relative_to(tiny_sky.archive)
        came.parent.mkdir(exist_ok=True)
        shutil.copy(path, came)
    assert recheck(root, 92) == "0 skycells lack files"
    assert nothing_run(luigi.run("Downsample", *arguments))
    assert recheck(root, 90) == "1 skycells lack files"
    ended = luigi.run("Downsample", *arguments)
    assert ended.code == 0, ended.tail
    assert the_same(planes(template_of(root)), planes(template_of(finished)))
    assert recheck(root, 0) == "0 skycells lack files"
    assert nothing_run(luigi.run("Downsample", *arguments))


def test_an_archive_with_nothing_new_is_asked_once_a_period_and_nothing_is_remade(luigi, lacking):
    files, root, raw, arguments = lacking
    before, had = products(root), read_manifest(raw)["notes"]["files"]
    no_y(files)  # what it has no more was had before, and stays
    assert recheck(root, 90) == "1 skycells lack files"
    ended = luigi.run("Downsample", *arguments)
    assert ended.code == 0, ended.tail
    assert remade(before, products(root)) == [str(raw.relative_to(root))]
    assert read_manifest(raw)["notes"]["files"] == had and verify(raw, deep=True) == []
    assert nothing_run(luigi.run("Downsample", *arguments))
    assert recheck(root, 90) == "0 skycells lack files"
    assert recheck(root, 0) == "1 skycells lack files"
    always = luigi.run("Downsample", *arguments)
    assert always.code == 0 and not nothing_run(always)
    shutil.rmtree(raw)  # as keep_raw = false does
    assert recheck(root, 0) == "0 skycells lack files"
    assert nothing_run(luigi.run("Downsample", *arguments))


def test_asked_again_an_archive_that_is_away_takes_nothing_away(luigi, lacking):
    _, root, raw, arguments = lacking
    arguments = with_words(arguments, syndiff_archive=f"http://127.0.0.1:{free_port()}")
    before = products(root)
    for _ in range(2):  # a re-check that failed is due again
        assert recheck(root, 90) == "1 skycells lack files"
        ended = luigi.run("Downsample", *arguments)
        assert ended.code == 0, ended.tail
        assert f"{ONE.name}: re-check failed; keeping the files already downloaded: " in ended.said
        assert products(root) == before and verify(raw, deep=True) == []


def test_a_damaged_skycell_is_fetched_as_a_whole_when_the_archive_is_asked_again(luigi, lacking):
    _, root, raw, arguments = lacking
    damaged = raw / "r_image" / "c.0.0"
    damaged.write_bytes(damaged.read_bytes()[::-1])
    assert recheck(root, 90) == "1 skycells lack files"
    assert luigi.run("Downsample", *arguments).code == 0
    assert verify(raw, deep=True) == []


def other_size(folder):
    other = ONE._replace(nx=700)
    stack = archive.Stack(*(np.ones((other.ny, other.nx), dtype) for dtype in (np.float32, np.float32, np.uint16)))
    archive.write_skycell_band(folder, other, "r", stack, archive.EXPOSURES["r"])


def cut_off(folder):
    (path,) = files_of(folder, "r", ".")
    os.truncate(path, 40_000)


@pytest.mark.parametrize(
    "make, told",
    [
        (other_size, "header has NAXIS1 = 700, the ring table says 800"),
        (cut_off, "File may have been truncated"),
    ],
)
def test_a_file_that_is_not_whole_or_another_one_stops_its_skycell_and_is_named(tiny_sky, luigi, changed, make, told):
    files, root = changed
    make(files)
    ended = luigi.run("Downsample", *tiny_sky.arguments(root, *PLAIN, archive=files))
    assert ended.code == FAILED
    assert told in sentence(ended) and "skycell.2611.044.stk.r.unconv.fits" in sentence(ended)
    assert not (root / "shifted_downsampled").exists()


def test_a_star_brighter_than_anything_is_right_and_spoils_nothing_far_away(tiny_sky, luigi, changed, finished):
    files, root = changed
    ra, dec = pixel_to_sky(frame.TANSIP, 1298.5, 697.0)
    star = sky.source_table([float(ra)], [float(dec)], [-2.0], [5000.0])
    archive.build_archive(files, [ONE], star, archive.Rendering(noise=False, flaws=False, saturation=math.inf))
    ended = luigi.run("Downsample", *tiny_sky.arguments(root, *PLAIN, archive=files))
    assert ended.code == 0, ended.tail
    found, plain = planes(template_of(root)), planes(template_of(finished))
    own = owner_of(finished) == 0
    truth = expected_template(star, frame.TANSIP, parse_region(ROI), 40.0)
    assert np.array_equal(np.isnan(found["FLUX_SUM"]), np.isnan(plain["FLUX_SUM"]))
    seen = own & np.isfinite(found["FLUX_SUM"])
    np.testing.assert_allclose(found["FLUX_SUM"][seen], truth[seen], atol=5e-3 * truth.max())
    assert np.array_equal(found["FLUX_SUM"][~own], plain["FLUX_SUM"][~own], equal_nan=True)


# --- life -------------------------------------------------------------------------------------------------------------


def whole_or_absent(root):
    """Compare every published product with its manifest; whatever a glob finds beside them would be half a product."""
    for name in products(root):
        path = Path(root) / name
        path = path.with_name(path.name[1:]) if path.name.startswith(".") else path
        assert verify(path, deep=True) == []
    for found in [*Path(root).rglob("[!.]*.fits"), *Path(root).rglob("[!.]*.fits.gz")]:
        # Killed between the two renames that publish a file it has no manifest yet, but it is whole.
        with fits.open(found, checksum=True) as hdus:
            assert all(hdu.data is not None for hdu in hdus[1:])


def temporaries(root):
    return [*Path(root).rglob(".tmp-*"), *Path(root).rglob(".fetching+*"), *Path(root).rglob(".deleted*")]


def start_and_await(luigi, task, arguments, patience=120.0, **how):
    """Start the template, and return when this task runs; None where it was done before that."""
    running = luigi.start("Downsample", *arguments, workers=2, **how)
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        said = running.said.read_text(errors="replace")
        if match := re.search(rf"\[pid (\d+)\] Worker .* running   {task}\(", said):
            return running, int(match[1])
        if "Luigi Execution Summary" in said:
            return running, None
        time.sleep(0.01)
    raise AssertionError(f"{task} did not start: {running.said.read_text()}")


@pytest.mark.parametrize("enough", [20, pytest.param(60, marks=pytest.mark.slow)])
def test_killed_at_random_moments_in_all_tasks_the_run_ends_with_the_same_template(
    tiny_sky, luigi, finished, tmp_path, enough
):
    # Ten kills are every task twice: with its worker, and alone.
    rng, kills, rounds = random.Random(20), 0, 0
    while kills < enough:
        root, rounds = tmp_path / f"data{rounds}", rounds + 1
        arguments = tiny_sky.arguments(root, *PLAIN)
        for number, task in enumerate(TASKS):
            running, task_process = start_and_await(luigi, task, arguments)
            time.sleep(rng.uniform(0.0, 0.04 if task == "Downsample" else 0.15))
            # The whole worker, and in turn the process of one task alone, which the worker outlives.
            whole = (number + rounds) % 2 == 0 or task_process is None
            with contextlib.suppress(ProcessLookupError):
                if whole:
                    running.kill()
                else:
                    os.kill(task_process, signal.SIGKILL)
            ended = running.wait()
            kills += ended.code != 0
            assert ended.code in ((0, -signal.SIGKILL) if whole else (0, FAILED))
            whole_or_absent(root)
        assert luigi.run("Downsample", *arguments, workers=2).code == 0
        assert template_of(root).read_bytes() == template_of(finished).read_bytes()
        assert temporaries(root) == []
        shutil.rmtree(root)


@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM"])
def test_after_ctrl_c_or_sigterm_nothing_goes_on_and_the_next_run_finishes(tiny_sky, luigi, finished, tmp_path, how):
    for tried in range(5):  # on a busy machine the run may be over before the signal comes
        root = tmp_path / f"data{tried}"
        arguments = tiny_sky.arguments(root, *PLAIN)
        running, task_process = start_and_await(luigi, "DownloadSkycell", arguments)
        if how == "Ctrl-C":
            running.press_ctrl_c()
        else:
            running.kill(signal.SIGTERM)
        ended = running.wait()
        if ended.code != 0:
            break
    # A shell tells 128 and the number of the signal.
    assert ended.code == -(signal.SIGINT if how == "Ctrl-C" else signal.SIGTERM)
    if how == "Ctrl-C":
        assert "Traceback" not in ended.said
        assert ended.said.endswith(
            "\nEnded by Ctrl-C: all finished products are kept, and the same command continues from there.\n"
        )
    deadline = time.monotonic() + 30
    while os.path.exists(f"/proc/{task_process}") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{task_process}")
    whole_or_absent(root)
    assert luigi.run("Downsample", *arguments, workers=2).code == 0
    assert template_of(root).read_bytes() == template_of(finished).read_bytes()
    assert temporaries(root) == []


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@contextlib.contextmanager
def luigid(folder, port):
    """The scheduler, killed at the end."""
    command = [Path(sys.executable).with_name("luigid"), "--address", "127.0.0.1", "--port", str(port)]
    with open(folder / "luigid.txt", "a") as said:
        server = subprocess.Popen(
            [*command, "--state-path", str(folder / "state")],
            cwd=folder,
            env=clean_environment(),
            stdout=said,
            stderr=said,
        )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            break
        time.sleep(0.05)
    try:
        yield server
    finally:
        server.kill()
        server.wait()


@pytest.mark.slow
@pytest.mark.parametrize("task", ["DownloadSkycell", "Convolve"])
def test_luigid_killed_in_the_middle_loses_nothing_and_no_exit_code_claims_too_much(
    tiny_sky, luigi, finished, tmp_path, task
):
    port, root = free_port(), tmp_path / "data"
    (tmp_path / "luigi.cfg").write_text("[core]\nrpc-retry-wait = 1\n")
    how = {"scheduler": ("--scheduler-port", str(port)), "folder": tmp_path}
    with luigid(tmp_path, port):
        running, _ = start_and_await(luigi, task, tiny_sky.arguments(root, *PLAIN), **how)
    with luigid(tmp_path, port):
        ended = running.wait()
        assert (ended.code == 0) == bool(list(root.rglob("syndiff_template_*.fits")))
        whole_or_absent(root)
        assert luigi.run("Downsample", *tiny_sky.arguments(root, *PLAIN), **how).code == 0
    assert template_of(root).read_bytes() == template_of(finished).read_bytes()
    assert temporaries(root) == []


def test_two_users_with_the_same_ffi_at_once_both_end_with_the_same_whole_template(tiny_sky, luigi, finished, tmp_path):
    root = tmp_path / "data"
    both = [luigi.start("Downsample", *tiny_sky.arguments(root)) for _ in range(2)]
    for ended in [running.wait() for running in both]:
        assert ended.code == 0, ended.tail
    whole_or_absent(root)
    assert template_of(root).read_bytes() == template_of(finished).read_bytes()
    assert temporaries(root) == []


def test_two_ffis_that_share_skycells_at_once_end_as_each_does_alone(tiny_sky, luigi, finished, made, tmp_path):
    moved = shifted(frame.TANSIP, 0.2, 0.1)
    later = write_ffi(tmp_path / "tess2022019135923-s0047-3-3-0165-s_ffic.fits", moved)
    together = tmp_path / "together"
    both = [luigi.start("Downsample", *tiny_sky.arguments(together, *PLAIN, ffi=ffi)) for ffi in (tiny_sky.ffi, later)]
    for ended in [running.wait() for running in both]:
        assert ended.code == 0, ended.tail
    whole_or_absent(together)
    assert luigi.run("Downsample", *tiny_sky.arguments(made, *PLAIN, ffi=later)).code == 0
    first, second = sorted(together.rglob("syndiff_template_*.fits"))
    assert first.read_bytes() == template_of(finished).read_bytes()
    assert second.read_bytes() == next(made.rglob("syndiff_template_s0047*.fits")).read_bytes()
    assert temporaries(together) == []


OTHERS_GROUP = 54321  # of nobody's, so that only what is given to it may be written


@pytest.fixture
def shared(tiny_sky, luigi):
    """A folder that a group may write, with the sky in it, and two users of the group that create for the group."""
    with tempfile.TemporaryDirectory() as folder:
        sky = type(tiny_sky)(*(Path(folder) / path.name for path in tiny_sky))
        for original, copy in zip(tiny_sky, sky, strict=True):
            (shutil.copytree if original.is_dir() else shutil.copy)(original, copy)
        users = []
        for uid in (1, 65534):
            home = Path(folder) / f"home{uid}"
            home.mkdir()
            os.chown(home, uid, OTHERS_GROUP)
            users.append(User(uid, OTHERS_GROUP, 0o002, str(home)))
        (Path(folder) / "data").mkdir()
        os.chown(Path(folder) / "data", 0, OTHERS_GROUP)
        os.chmod(Path(folder) / "data", 0o2775)
        os.chmod(folder, 0o755)
        if luigi.run("MapFFI", "--help", user=users[1], folder=folder).code:
            pytest.skip("no other user can run this program here")
        yield sky, Path(folder) / "data", *users


@pytest.mark.skipif(os.geteuid() != 0, reason="being two users takes root")
def test_two_users_of_one_group_use_add_to_and_replace_the_products_of_each_other(luigi, shared, finished):
    sky, root, one, other = shared
    arguments, how = sky.arguments(root, *PLAIN), {"folder": root.parent}
    assert luigi.run("Downsample", *arguments, user=one, **how).code == 0
    for path in root.rglob("*"):
        mode = path.stat().st_mode
        assert (path.stat().st_uid, path.stat().st_gid) == (one.uid, OTHERS_GROUP)
        assert stat.S_IMODE(mode) == (0o2775 if stat.S_ISDIR(mode) else 0o664), path
    assert "Did not run any tasks" in luigi.run("Downsample", *arguments, user=other, **how).said

    left = next(root.rglob(ONE.name)).with_name(f".tmp-abcdef01@{DEAD}@x")
    (left / "deeper").mkdir(parents=True, mode=0o700)
    for path in (left / "deeper", left):
        os.chown(path, one.uid, OTHERS_GROUP)
        os.chmod(path, 0o700)
    again = ("MapFFI", "DownloadSkycell", "CombineBands", "Convolve")
    words = [f"--{task}-overwrite" for task in again]
    ended = luigi.run("Downsample", *arguments, "--overwrite", *words, user=other, **how)
    assert ended.code == 0, ended.tail
    assert {manifest.stat().st_uid for manifest in root.rglob("*manifest.json")} == {other.uid}
    assert template_of(root).read_bytes() == template_of(finished).read_bytes()
    assert temporaries(root) == [left]


@pytest.mark.skipif(os.geteuid() != 0, reason="being two users takes root")
def test_what_another_user_may_not_write_or_read_is_named_with_the_cure(luigi, shared):
    sky, root, one, other = shared
    arguments, how = sky.arguments(root, *PLAIN), {"folder": root.parent}
    private = one._replace(umask=0o022)
    assert luigi.run("Downsample", *arguments, user=private, **how).code == 0
    ended = luigi.run("Downsample", *arguments, "--multi-offset-array", "0.3,0", user=other, **how)
    assert ended.code == FAILED
    folder = template_of(root).parent
    assert f"{folder}: cannot be written (it may not be written); mend its permissions" in sentence(ended)

    (raw,) = (root / "ps1_skycells_zarr").rglob(ONE.name)
    os.chmod(raw.parent, 0o2775)
    skycell = ["--skycell", ONE.name, "--skycell-catalog", str(sky.catalogue), *sky.settings(root)]
    ended = luigi.run("DownloadSkycell", *skycell, "--overwrite", user=other, **how)
    assert ended.code == FAILED
    assert "incoming/" in sentence(ended)
    assert "cannot be written (Permission denied); mend its permissions" in sentence(ended)

    os.chmod(raw / "manifest.json", 0o600)
    ended = luigi.run("DownloadSkycell", *skycell, user=other, **how)
    assert ended.code == NOT_PLANNED
    assert f"{raw}/manifest.json: cannot be read (Permission denied); mend its permissions" in sentence(ended)


def test_a_process_that_has_ended_is_dead_though_its_parent_has_not_noticed():
    ended = subprocess.Popen(["true"])
    deadline = time.monotonic() + 30
    while alive(ended.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert os.path.exists(f"/proc/{ended.pid}") and not alive(ended.pid)
    ended.wait()
    assert alive(os.getpid()) and not alive(ended.pid)


def test_temporaries_of_dead_runs_are_swept_where_their_task_writes_again(tiny_sky, luigi, changed):
    files, root = changed
    dead = [
        root / "ps1_skycells_zarr" / "incoming" / f".fetching+{DEAD}+abcdef01+a.fits",
        root / "ps1_skycells_zarr" / "ps1_skycells.zarr" / "2611" / f".tmp-abcdef01@{DEAD}@x",
        next(root.glob("combined_skycells_zarr/*/2611")) / f".tmp-abcdef01@{DEAD}@x",
        next(root.rglob("convolved_images.zarr")) / f".tmp-abcdef01@{DEAD}@x",
    ]
    for path in dead:
        path.parent.mkdir(exist_ok=True)
        path.write_text("left behind")
    assert luigi.run("Downsample", *tiny_sky.arguments(root, *PLAIN)).code == 0
    assert [path for path in dead if path.exists()] == []


def seen_by_all(root):
    """What shells and scripts find below a data root, and what this package's own commands do."""
    return sorted(glob.glob(f"{root}/**/*", recursive=True)), sorted(provenance.products(root))


def test_what_dead_runs_left_is_matched_by_no_glob_and_counted_by_nobody(made):
    before = seen_by_all(made)
    for published in (template_of(made), *made.rglob(f"convolved_images.zarr/{ONE.name}"), *made.rglob("*.fits.gz")):
        copy = shutil.copytree if published.is_dir() else shutil.copy
        copy(published, dead_name(temporary_path(published)))
    incoming = disk.temporary_file(made / "ps1_skycells_zarr" / "incoming", "rings.v3.x.fits")
    dead_name(incoming).write_text("left behind")
    assert len(temporaries(made)) == 4
    assert seen_by_all(made) == before
    assert ask("verify", "--deep", made).returncode == 0


def dead_name(path):
    """The same temporary as of a process that is not there."""
    return path.with_name(path.name.replace(str(os.getpid()), "99999999"))


@contextlib.contextmanager
def small_disk(folder, options):
    folder.mkdir(exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no small disk here: {mounted.stderr}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@needs_root
def test_an_output_folder_that_may_not_be_written_is_named_with_the_cure(tiny_sky, luigi, tmp_path):
    with small_disk(tmp_path / "disk", "ro,size=8g") as disk:
        ended = luigi.run("Downsample", *tiny_sky.arguments(disk / "data"))
    assert ended.code == FAILED
    assert re.search(rf"{disk}/data.*: the file system is read-only; mount it writable", sentence(ended))
    assert "--syndiff-data-root" in sentence(ended)


def fill(folder, left):
    """Leave so many bytes of a disk."""
    free = shutil.disk_usage(folder).free
    with open(folder / "ballast", "wb") as file:
        file.write(bytes(max(free - left, 0)))


@needs_root
def test_a_disk_that_fills_during_a_template_is_named_and_nothing_half_stays(tiny_sky, luigi, made, finished, tmp_path):
    shutil.rmtree(made / "shifted_downsampled")
    with small_disk(tmp_path / "disk", "size=60m") as disk:
        root = Path(shutil.copytree(made, disk / "data"))
        before = products(root)
        fill(disk, 16_384)
        ended = luigi.run("Downsample", *tiny_sky.arguments(root, *PLAIN))
        assert ended.code == FAILED
        assert "dx+0.0000_dy+0.0000.fits: the disk is full; free some space" in sentence(ended)
        assert products(root) == before and temporaries(root) == []
        (disk / "ballast").unlink()
        assert luigi.run("Downsample", *tiny_sky.arguments(root, *PLAIN)).code == 0
        assert template_of(root).read_bytes() == template_of(finished).read_bytes()


@needs_root
def test_a_disk_too_small_for_a_skycell_is_told_before_anything_is_fetched(tiny_sky, luigi, tmp_path):
    with small_disk(tmp_path / "disk", "size=20m") as disk:
        ended = luigi.run("Downsample", *tiny_sky.arguments(disk / "data"))
        assert not (disk / "data" / "ps1_skycells_zarr").exists()
    assert ended.code == NOT_PLANNED
    assert re.search(r"has 0\.0 GB free, but this run needs about \d\.\d GB; free some space", sentence(ended))


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, name, was, asked",
    [
        (["--psf-sigma", "45"], "psf_sigma", "40.0", "45.0"),
        (["--syndiff-weights", "r=1"], "weights", "{'r': 0.238, 'i': 0.344, 'z': 0.283, 'y': 0.135}", "{'r': 1.0}"),
        (["--ignore-mask-bits", "5"], "ignore_mask_bits", "[12]", "[5]"),
        (["--syndiff-reject-mask-bits", "CR"], "reject_mask_bits", "[0, 1, 2, 3, 4, 6, 8, 13]", "[8]"),
        (["--syndiff-suspect-mask-bits", "0x80"], "suspect_mask_bits", "[7, 9, 10, 11, 14]", "[7]"),
        (["--syndiff-bin", "2"], "bin", "4", "2"),
        (["--syndiff-background", "segment"], "background", "'none'", "'segment'"),
        (["--syndiff-units", "electrons"], "units", "'counts'", "'electrons'"),
        (["--syndiff-min-coverage", "0.2"], "min_coverage", "0.5", "0.2"),
    ],
)
def test_a_product_of_other_settings_stops_the_run_with_both_values_and_stays(
    tiny_sky, luigi, made, options, name, was, asked
):
    before = products(made)
    ended = luigi.run("Downsample", *tiny_sky.arguments(made, *options))
    assert ended.code == NOT_PLANNED
    told = sentence(ended)
    assert f"{template_of(made)} was made with {name} = {was}, and {name} = {asked} is requested now" in told
    assert "run Downsample with --overwrite" in told and "--syndiff-data-root" in told
    assert products(made) == before


def test_another_ffi_of_the_ccd_does_not_take_over_the_products_of_the_first(tiny_sky, luigi, made, tmp_path):
    other = write_ffi(tmp_path / "tess2020019142923-s0020-3-3-0165-s_ffic.fits")
    before = products(made)
    ended = luigi.run("Downsample", *tiny_sky.arguments(made, *PLAIN, ffi=other))
    assert ended.code == NOT_PLANNED
    first = frame.NAME.removesuffix(".fits")
    assert f"was made with ffi = '{first}', and ffi = '{other.stem}' is requested now" in sentence(ended, 2)
    assert f"share its skycells with --reference-ffi <path of {first}> (from Sector or " in sentence(ended, 2)
    assert products(made) == before
    way = ["--reference-ffi", str(tiny_sky.ffi)]
    assert luigi.run("Downsample", *tiny_sky.arguments(made, *PLAIN, *way, ffi=other)).code == 0


def test_the_ways_on_that_a_refusal_names_lead_on(tiny_sky, luigi, made, tmp_path):
    other = ["--psf-sigma", "45", *PLAIN]
    refused = luigi.run("Downsample", *tiny_sky.arguments(made, *other, "--overwrite"))
    assert refused.code == NOT_PLANNED
    assert "run Convolve with --overwrite to remake it (from another task: --Convolve-overwrite)" in sentence(refused)
    before = products(made)
    both = tiny_sky.arguments(made, *other, "--overwrite", "--Convolve-overwrite")
    assert luigi.run("Downsample", *both).code == 0
    assert steps(remade(before, products(made))) == ["convolved_results", "shifted_downsampled"]
    assert fits.getval(template_of(made), "PSFSIGMA") == 45.0


# --- reproducible -----------------------------------------------------------------------------------------------------


def test_workers_and_the_order_of_tasks_and_offsets_change_no_bit(tiny_sky, luigi, made, tmp_path):
    offsets, turned = "0,0,0.3,-0.2,0.7,0", "0.7,0,0.3,-0.2,0,0"
    assert luigi.run("Downsample", *tiny_sky.arguments(made, *PLAIN), "--multi-offset-array", offsets).code == 0
    root = tmp_path / "other"
    arguments = tiny_sky.arguments(root, *PLAIN)
    one = ["--skycell-catalog", str(tiny_sky.catalogue), *tiny_sky.settings(root)]
    for cell in reversed(CELLS[1:]):
        assert luigi.run("CombineBands", "--skycell", f"skycell.2611.{cell:03d}", *one).code == 0
    assert luigi.run("Downsample", *arguments, "--multi-offset-array", turned, workers=4).code == 0
    for offset in ("dx+0.0000_dy+0.0000", "dx+0.3000_dy-0.2000", "dx+0.7000_dy+0.0000"):
        assert template_of(root, offset).read_bytes() == template_of(made, offset).read_bytes()


# --- asking products, and exit codes ----------------------------------------------------------------------------------


def ask(*arguments):
    command = [Path(sys.executable).with_name("syndiff_tasks"), *map(str, arguments)]
    return subprocess.run(command, env=clean_environment(), capture_output=True, text=True, check=False)


def test_a_template_explains_its_settings_inputs_and_digests(finished):
    ended = ask("explain", template_of(finished))
    assert ended.returncode == 0
    for told in ("psf_sigma = 40.0", '"r": 0.238', "convolved  ", "syndiff_tasks 0.", "digest    "):
        assert told in ended.stdout
    (raw,) = (finished / "ps1_skycells_zarr").rglob(ONE.name)
    files = ask("explain", raw).stdout
    assert len(re.findall(r"[rizy]_(?:image|mask|wt)  [0-9a-f]{64}  file://", files)) == 12


def test_verify_names_the_one_damaged_file_and_only_that_is_remade(tiny_sky, luigi, made):
    (group,) = (made / "convolved_results").rglob(ONE.name)
    (shard,) = (group / "flux").glob("c.*")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 0x40
    shard.write_bytes(content)
    ended = ask("verify", "--deep", made)
    assert ended.returncode == 1
    assert f"{shard}: its bytes are not those that were published" in ended.stdout
    assert "1 damaged (every byte compared)" in ended.stdout
    shutil.rmtree(group)
    assert luigi.run("Convolve", *tiny_sky.arguments(made)).code == 0
    assert ask("verify", "--deep", made).returncode == 0


def told_codes():
    """The exit codes of README, and what it says of each."""
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", readme.partition("## Exit codes")[2].partition("\n## ")[0], re.M)
    return {int(code): meaning for code, meaning in rows}


def test_every_exit_code_that_is_set_or_met_here_is_told_in_the_readme():
    own = dict(get_config()["retcode"])
    assert set(told_codes()) == {0, 1, 2, 130, 137, 143, *map(int, own.values())} - {20}
    assert "no task here" in SHIPPED.read_text().partition("missing_data")[0].rpartition("#")[2]


@pytest.mark.parametrize(
    "code, words, told",
    [
        (1, ["Downsmaple", "--ffi", "x"], "No task Downsmaple. Did you mean Downsample? The tasks are CombineBands, "),
        (1, ["every ffi"], "No task every ffi. Did you mean EveryFFI? The tasks are CombineBands, "),
        (1, ["nonsense"], "No task nonsense. The tasks are CombineBands, Convolve, Difference, DownloadSkycell, "),
        (1, [], "No task specified"),
        (2, ["Downsample", "--no-such-option", "1"], "unrecognized arguments: --no-such-option 1"),
        (UNREADABLE, ["Downsample"], "requires the 'ffi' parameter to be set"),
    ],
)
def test_a_command_that_is_none_ends_with_its_code_and_the_reason(luigi, code, words, told):
    ended = luigi.run(*(words or ["--local-scheduler"]))
    assert ended.code == code
    assert told in "\n".join(ended.said.splitlines()[-2:])
    assert code != 1 or ended.said.startswith(told) and ended.said.count("\n") == 1


def test_of_a_misspelt_module_luigi_itself_tells_and_the_readme_what_to_do(luigi):
    ended = luigi.run("Downsample", "--module", "syndiff_task")
    told = "ModuleNotFoundError: No module named "
    assert ended.said.splitlines()[-1] == f"{told}'syndiff_task'"
    assert told in told_codes()[ended.code]


def test_an_archive_that_is_down_is_one_line_and_in_the_log_for_every_skycell(tiny_sky, luigi, tmp_path):
    away = f"http://127.0.0.1:{free_port()}"
    arguments = tiny_sky.arguments(tmp_path, "--syndiff-download-tries", "1", archive=away)
    ended = luigi.run("Downsample", *arguments)
    assert ended.code == FAILED
    told = sentence(ended)
    assert told.count("the host 127.0.0.1 could not be reached") == 1
    assert f"(and {len(CELLS) - 1} other tasks failed for the same reason: rings.v3.skycell.2611.0" in told
    assert all(f"skycell.2611.{cell:03d}.stk.r.unconv.fits" in told for cell in CELLS)
    kept = [failure for failure in failures.read(tmp_path) if failure.product]
    products = [Path(failure.product).name for failure in kept]
    assert sorted(products) == [f"skycell.2611.{cell:03d}" for cell in CELLS]
    for product, failure in zip(products, kept, strict=True):
        assert product in failure.message and "could not be reached" in failure.message


def test_a_scheduler_that_does_not_answer_is_named(tiny_sky, luigi, tmp_path):
    (tmp_path / "luigi.cfg").write_text("[core]\nrpc-retry-attempts = 1\n")
    how = {"scheduler": ("--scheduler-port", str(free_port())), "folder": tmp_path}
    ended = luigi.run("Downsample", *tiny_sky.arguments(tmp_path / "data"), **how)
    assert ended.code == UNREADABLE
    assert "connecting to remote scheduler 'http://localhost:" in sentence(ended)


def test_a_worker_asked_to_stop_ends_its_tasks_and_reports_that_not_all_was_run(tiny_sky, luigi, tmp_path):
    running, _ = start_and_await(luigi, "DownloadSkycell", tiny_sky.arguments(tmp_path, *PLAIN))
    running.kill(signal.SIGUSR1)
    ended = running.wait()
    assert ended.code == NOT_RUN
    assert "ps1_skycells_zarr" in steps(products(tmp_path)) and not list(tmp_path.rglob("syndiff_template_*"))
    whole_or_absent(tmp_path)


def test_a_run_that_leaves_its_work_to_another_says_so_and_claims_nothing(tiny_sky, luigi, tmp_path):
    port, root = free_port(), tmp_path / "data"
    arguments, how = tiny_sky.arguments(root, *PLAIN), {"scheduler": ("--scheduler-port", str(port))}
    with luigid(tmp_path, port):
        first, _ = start_and_await(luigi, "Convolve", arguments, **how)
        os.killpg(first.pid, signal.SIGSTOP)
        second = luigi.run("Downsample", *arguments, **how)
        os.killpg(first.pid, signal.SIGCONT)
        assert (second.code, first.wait().code) == (RUN_ELSEWHERE, 0)
        assert "were being run by another worker" in second.said
        assert luigi.run("Downsample", *arguments, **how).code == 0


def test_a_disk_is_full_by_whatever_name_the_system_gives_it():
    from syndiff_tasks import targets

    assert all(targets._is_full(OSError(number, "")) for number in (errno.ENOSPC, errno.EDQUOT))
    assert not targets._is_full(OSError(errno.EACCES, ""))
