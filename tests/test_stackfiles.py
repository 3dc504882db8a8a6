import datetime
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from astropy.io import fits
from made_up_chain import RECIPE, quiet, sources_at
from numpy.testing import assert_array_equal

from syndiff_tasks import cli, paths
from syndiff_tasks.chain import combine, stack_files
from syndiff_tasks.chain.progress import Progress
from syndiff_tasks.chain.recheck import Rechecked, recheck
from syndiff_tasks.demo import archive as demo_archive
from syndiff_tasks.demo import frame, sky
from syndiff_tasks.geometry import mapping
from syndiff_tasks.geometry.rings import rings_v3
from syndiff_tasks.io import fits_in, store
from syndiff_tasks.io.archive import ArchiveUnavailable, RetryPolicy
from syndiff_tasks.io.archive import stack_files as stack_file_names
from syndiff_tasks.manifest import read_manifest
from syndiff_tasks.targets import WholeTarget

SMALL = 600


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("stackfiles")


def today(days_ago):
    return (datetime.datetime.now(datetime.timezone.utc).date() - datetime.timedelta(days=days_ago)).isoformat()


def publish(path, notes):
    with WholeTarget(path, {}).writing() as draft:
        Path(draft.path).mkdir()
        draft.notes.update({"absent": {}} | notes)


@pytest.mark.parametrize(
    ("asked", "due"),
    [({}, False), ({"z_image": 29}, False), ({"z_image": 30}, True), ({"z_image": 3, "y_wt": 31}, True)],
)
@pytest.mark.parametrize("kind", ["absent", "unusable"])
def test_absent_and_unusable_files_are_rechecked_after_so_many_days(tmp_path, asked, due, kind):
    notes = {"absent": {key: today(days) for key, days in asked.items()}}
    if kind == "unusable":
        notes = {kind: {key: {"asked": today(days), "url": "", "reason": ""} for key, days in asked.items()}}
    raw = paths.raw(tmp_path, "skycell.2611.071")
    publish(raw, notes)
    assert recheck(tmp_path, 30) == Rechecked([raw] if due else [], [])
    assert (read_manifest(raw) is None) == due
    assert recheck(tmp_path, 30) == Rechecked([], [])


def test_recheck_names_a_damaged_manifest_and_goes_on(tmp_path, capsys):
    damaged, due = (paths.raw(tmp_path, f"skycell.2611.{cell:03d}") for cell in (70, 71))
    for path in (damaged, due):
        publish(path, {"absent": {"z_image": today(31)}})
    (damaged / "manifest.json").write_bytes(b"\xe8")
    assert cli.main(["recheck", str(tmp_path), "--older-than", "30d"]) == 1
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{tmp_path}: 1 skycells lack files") and read_manifest(due) is None
    assert printed.err.startswith(f"{damaged / 'manifest.json'}: not a whole manifest (")


def test_a_combined_skycell_without_raw_pixels_is_reported_and_left_alone(tmp_path):
    combined = paths.combined(tmp_path, "recipe", "skycell.2611.071")
    publish(combined, {"absent": {"z_image": today(91)}})
    assert recheck(tmp_path, 90) == Rechecked([], [combined])
    assert read_manifest(combined) is not None


def test_a_repeated_download_requests_the_bands_present_and_those_wanted():
    of_r = {"notes": {"files": {"r_image": {}, "r_mask": {}}, "absent": {"r_wt": "2026-01-01"}}}
    source = stack_files.Source(("base",), "root", ("g", "i"), None, False)
    assert stack_files.unasked(of_r, ("r", "g")) == ["g"]
    assert stack_files.with_bands_of(of_r, source).bands == ("r", "i", "g")


@pytest.fixture(scope="module")
def small(folder):
    """A cut-out of a skycell in the archive's form, without z and y, with stars of one colour."""
    whole = rings_v3().skycell("skycell.2611.081")
    skycell = whole._replace(nx=SMALL, ny=SMALL, crpix1=whole.crpix1 - 500, crpix2=whole.crpix2 - 400)
    x, y = mapping.ps1_to_tess(frame.TANSIP, skycell, np.array([150.0, 290, 420]), np.array([200.0, 310, 390]))
    sources = sources_at(frame.TANSIP, x, y, [16.0, 17.0, 18.0])
    rendering = demo_archive.Rendering(noise=False, flaws=False, saturation=math.inf, bands=("r", "i"))
    demo_archive.build_archive(folder / "archive", [skycell], sources, rendering)
    return skycell, sources


def source_of(folder, **changes):
    retry_policy = RetryPolicy(1, 1, 1, 0, 0, 0)
    settings = {"bases": (str(folder / "archive"),), "data_root": str(folder / "data"), "bands": sky.BANDS}
    return stack_files.Source(**(settings | {"retry_policy": retry_policy, "require_all_bands": False} | changes))


def test_absent_files_are_recorded_with_the_date_and_other_bands_take_their_weight(small, folder):
    skycell, sources = small
    raw = WholeTarget(folder / "raw", {})
    told = []
    progress = Progress(12, "file", "download", lambda percentage: None, told.append)
    with raw.writing() as draft:
        stack_files.download(skycell, source_of(folder), draft, progress)
    assert progress.done == 12
    assert sum("absent" in message for message in told) == 6
    origin = stack_files.origin_of(raw)
    lacking = {f"{band}_{kind}" for band in "zy" for kind in stack_files.KINDS}
    assert origin["absent"] == dict.fromkeys(lacking, today(0))
    assert set(origin["files"]) == {f"{band}_{kind}" for band in "ri" for kind in stack_files.KINDS}
    assert origin["keywords"]["r_image"]["EXPTIME"] == demo_archive.EXPOSURES["r"].exptime
    combined, treated = combine.combine(raw.path, skycell, RECIPE, folder)
    assert treated == []
    # r and i alone, 0.238 and 0.344 of the weight of all four, 1.
    expected = sum(weight * sky.band_counts(sources, band) for band, weight in (("r", 0.238), ("i", 0.344)))
    assert combined.flux.sum() == pytest.approx(expected.sum() / 0.582, rel=1e-3)
    assert (combined.missing[20:-20, 20:-20] == 0b1100).all()


def test_a_missing_band_stops_where_all_are_required(small, folder, tmp_path):
    draft = SimpleNamespace(path=str(tmp_path / "raw"), notes={})
    with pytest.raises(ValueError, match="skycell.2611.081: the archive has no z_image.*require_all_bands"):
        stack_files.download(small[0], source_of(folder, require_all_bands=True), draft, quiet())


def test_the_files_of_another_skycell_are_not_taken_for_the_right_ones(small, folder, tmp_path):
    moved = small[0]._replace(crpix1=small[0].crpix1 + 1)
    draft = SimpleNamespace(path=str(tmp_path / "raw"), notes={})
    with pytest.raises(ArchiveUnavailable, match="CRPIX1"):
        stack_files.download(moved, source_of(folder, data_root=str(tmp_path)), draft, quiet())


def under_another_name(folder, small, tmp_path, old, new):
    """Return a source and an empty draft, where one file of the skycell is a copy of another."""
    copy = shutil.copytree(folder / "archive", tmp_path / "archive")
    names = stack_file_names(small[0].name, "ri", stack_files.KINDS)
    shutil.copy(copy / names[old], copy / names[new])
    source = source_of(folder, bases=(str(copy),), data_root=str(tmp_path), bands=("r", "i"))
    return source, SimpleNamespace(path=str(tmp_path / "raw"), notes={})


def test_a_file_of_another_band_is_not_taken_for_the_right_one(small, folder, tmp_path):
    source, draft = under_another_name(folder, small, tmp_path, "i_image", "r_image")
    with pytest.raises(ArchiveUnavailable, match="FPA.FILTER = i.00000"):
        stack_files.download(small[0], source, draft, quiet())


@pytest.mark.parametrize(("old", "new"), [("r_wt", "r_image"), ("r_image", "r_wt")])
def test_one_file_as_image_and_variance_is_refused(small, folder, tmp_path, old, new):
    source, draft = under_another_name(folder, small, tmp_path, old, new)
    with pytest.raises(ValueError, match="are the same bytes"):
        stack_files.download(small[0], source, draft, quiet())


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
    stack_files.download(small[0], source, draft, quiet())
    from_mirror = {key: "mirror" in file["url"] for key, file in draft.notes["files"].items()}
    assert from_mirror == {
        f"{band}_{kind}": (band, kind) != ("i", "image") for band in "ri" for kind in stack_files.KINDS
    }
    (whole,) = (folder / "archive").rglob("*stk.i.unconv.fits")
    assert_array_equal(store.read_arrays(draft.path)["i_image"], fits_in.read_stack(whole).stored[:])


def test_the_source_is_what_the_settings_say():
    settings = SimpleNamespace(
        **{"archive": ("a", "b"), "data_root": "here", "weights": (("r", 0.4), ("z", 0.6)), "require_all_bands": True},
        **{"download_tries": 3, "connect_timeout": 5.0, "read_timeout": 7.0},
        forbidden_is_absent=True,
    )
    source = stack_files.source(settings)
    assert (source.bases, source.data_root, source.bands, source.require_all_bands) == (
        ("a", "b"),
        "here",
        ("r", "z"),
        True,
    )
    assert (source.retry_policy.tries, source.retry_policy.connect_timeout, source.retry_policy.read_timeout) == (
        3,
        5.0,
        7.0,
    )


def test_a_disk_too_small_for_a_run_is_refused_before_the_first_download(tmp_path, monkeypatch):
    settings = SimpleNamespace(data_root=tmp_path, weights=(("r", 0.5), ("i", 0.5)), keep_raw=True)
    recipe = combine.CombineConfig(settings.weights, "none", (12,), "flag", 4)
    names = [f"skycell.2611.{number:03d}" for number in range(100)]
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=30e9))
    with pytest.raises(ValueError, match=r"30\.0 GB free, but this run needs about \d+\.\d GB"):
        stack_files.demand_space(settings, recipe, names, 8)
    settings.keep_raw = False
    stack_files.demand_space(settings, recipe, names, 8)
    settings.keep_raw = True
    for name in names:
        paths.combined(tmp_path, recipe.label, name).mkdir(parents=True)
    stack_files.demand_space(settings, recipe, names, 8)
