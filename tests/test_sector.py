"""A whole sector: its FFIs, their drift, one template an FFI, cron, and the state at a glance."""

import fcntl
import glob
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
import tiny_sky as made_up
from astropy.io import fits
from astropy.wcs import WCS
from luigi.cmdline_parser import CmdlineParser
from numpy.testing import assert_allclose, assert_array_equal

from syndiff_tasks import failures, paths, status, tasks
from syndiff_tasks.chain import drift as drifts
from syndiff_tasks.chain import ffi_folder, frame_header, pointing
from syndiff_tasks.commands import run_sector
from syndiff_tasks.demo import frame
from syndiff_tasks.failures import Failure
from syndiff_tasks.geometry.region import SCIENCE
from syndiff_tasks.geometry.tansip import pixel_to_sky, shifted, tansip_keywords
from syndiff_tasks.parameters import Auto, Detectors, Offsets

SCRIPT = Path(__file__).parents[1] / "scripts" / "run_sector"
ROI = "17,17,19,19"  # of the cut-outs below: 2 x 2 px owned by one of the four skycells
ORIGIN = {"CRPIX1P": 1, "CRPIX2P": 1, "CRVAL1P": 1281, "CRVAL2P": 681}
TANSIP = made_up.cutout()

LATER = "2100-01-01T00:00:00+00:00"


def name_of(hour, camera=3, ccd=3, number=20):
    return f"tess2020019{hour:02d}5814-s{number:04d}-{camera}-{ccd}-0165-s_ffic.fits"


def write(folder, hour, camera=3, ccd=3, tansip=TANSIP, **cards):
    """A cut-out of an FFI, of 60 x 60 px."""
    folder.mkdir(parents=True, exist_ok=True)
    told = {"CAMERA": camera, "CCD": ccd, "DATE-OBS": f"2020-01-19T{hour:02d}:58:14.000Z"}
    return made_up.write_ffi(folder / name_of(hour, camera, ccd), tansip, (60, 60), ORIGIN | told | cards)


def moved(dx, dy):
    return shifted(TANSIP, dx, dy)


def turned(tansip, degrees):
    """The same camera, rolled about its reference pixel."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return tansip._replace(cd=np.array([[c, -s], [s, c]]) @ tansip.cd)


def frames(*described):
    """Frames an hour apart, without files: offsets, or None for no WCS; a third number is DQUALITY."""
    return [
        frame_header.FrameHeader(
            Path(name_of(hour)),
            58867.0 + hour / 24,
            one[2] if one and len(one) > 2 else 0,
            SCIENCE,
            shifted(frame.TANSIP, *one[:2]) if one else None,
            "" if one else "it has none",
        )
        for hour, one in enumerate(described)
    ]


def stem(hour):
    return Path(name_of(hour)).stem


def test_reports_of_other_regions_targets_and_offsets_have_other_names(tmp_path):
    (tmp_path / name_of(0)).touch()
    of_ccd, of_sector = {"sector": 20, "camera": 3, "ccd": 3}, {"sector": 20}
    parts = [{}, {"roi": "0,0,9,9"}, {"roi": "0,0,9,8"}, {"target": "1 2"}, {"target": "1 2", "size": 8}]
    parts.append({"target": "1 -2"})
    offsets = ["0.5,0", "auto:0.01", "auto:0.02"] + [",".join(map(str, range(n, n + 60))) for n in (1, 2)]
    every = [tasks.EveryFFI(**of_ccd, **part, ffi_dir=str(tmp_path)).output() for part in parts]
    sector = [{"multi_offset_array": some} for some in offsets] + [{"cameras": "1"}, {"ccds": "1"}] + parts
    sectors = [tasks.Sector(**of_sector, **part, ffi_dir=str(tmp_path)).output()["report"] for part in sector]
    names = [target.path for target in every + sectors]
    assert len(set(names)) == len(names) == len(parts) + len(sector)
    assert every[0].path.endswith("ccd_3/every_ffi.csv") and sectors[-6].path.endswith("sector_0020/report.csv")
    assert max(len(part) for name in names for part in Path(name).parts) < 120


# --- FFIs in a folder -------------------------------------------------------------------------------------------------


def test_ffis_of_a_sector_are_found_below_the_folder_once_each(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    names = ["a/" + name_of(1), "a/b/" + name_of(1) + ".gz", name_of(0), name_of(2, 1, 4), name_of(3, number=21)]
    for name in [*names, "a/calibration.fits", "notes.txt"]:
        (tmp_path / name).touch()
    found = ffi_folder.find(str(tmp_path), 20, LATER)
    assert found == {
        paths.CCD(20, 1, 4): (tmp_path / name_of(2, 1, 4),),
        paths.CCD(20, 3, 3): (tmp_path / name_of(0), tmp_path / "a" / name_of(1)),
    }


def test_a_run_sees_the_ffis_of_its_begin_and_the_next_run_sees_all(tmp_path):
    (tmp_path / name_of(0)).touch()
    first = tasks.Sector(sector=20, ffi_dir=str(tmp_path))
    time.sleep(0.05)  # the clock that dates files ticks every few milliseconds
    (tmp_path / name_of(1)).touch()
    os.utime(tmp_path / name_of(1), (0, 0))  # a copy may keep its dates
    ccd = paths.CCD(20, 3, 3)
    assert first.found()[ccd] == (tmp_path / name_of(0),)
    assert first.derive(tasks.DriftOffsets, camera=3, ccd=3).ffis() == (tmp_path / name_of(0),)
    assert len(tasks.Sector(sector=20, ffi_dir=str(tmp_path)).found()[ccd]) == 2


def test_a_folder_without_ffis_of_the_sector_is_refused_with_what_it_holds(tmp_path):
    (tmp_path / name_of(3, number=21)).touch()
    with pytest.raises(ValueError, match="no calibrated FFI of sector 20 .*FFIs of sector 21 found"):
        ffi_folder.find(str(tmp_path), 20, LATER)
    with pytest.raises(ValueError, match="no such folder"):
        ffi_folder.find(str(tmp_path / "none"), 20, LATER)


def test_cutouts_in_a_folder_are_not_taken_for_ffis_of_their_ccd(tmp_path):
    path = write(tmp_path, 3)
    path.with_name(f"{path.stem}_230.6_79.1_48-x-40_astrocut.fits").write_bytes(path.read_bytes())
    (found,) = ffi_folder.find(str(tmp_path), 20, LATER).values()
    assert found == (path,)


def test_a_header_gives_time_quality_and_pointing_and_a_bad_one_the_reason(tmp_path):
    good = frame_header.read_frame_header(write(tmp_path, 3, DQUALITY=32))
    assert (good.quality, good.why) == (32, "")
    assert_allclose(good.mjd, 58867 + 3 / 24 + (58 + 14 / 60) / 1440 - 2.5e-3, atol=1e-9)  # BARYCORR comes off
    bad = frame_header.read_frame_header(write(tmp_path, 4, CTYPE1=None))
    assert bad.tansip is None and "has no WCS" in bad.why
    assert_allclose(bad.mjd - good.mjd, 1 / 24, atol=1e-9)


def test_coarse_pointing_and_desaturation_of_tica_count_as_dquality(tmp_path):
    flags = {"COARSE": True, "RW_DESAT": True, "FINE": False}
    assert frame_header.read_frame_header(write(tmp_path, 3, **flags)).quality == 4 | 32
    assert frame_header.read_frame_header(write(tmp_path, 4, COARSE=False, RW_DESAT=False)).quality == 0


def test_spoc_and_tica_ffis_of_one_ccd_are_never_one_series(tmp_path):
    tica = "hlsp_tica_tess_ffi_s0020-o1-00116635-cam3-ccd{}_tess_v01_img.fits"
    for name in (name_of(1), tica.format(4)):
        (tmp_path / name).touch()
    assert len(ffi_folder.find(str(tmp_path), 20, LATER)) == 2
    ffi_folder.find.cache_clear()
    (tmp_path / tica.format(3)).touch()
    with pytest.raises(ValueError, match="FFIs of both SPOC and TICA for CCD 3-3"):
        ffi_folder.find(str(tmp_path), 20, LATER)


# --- drift and the reference ------------------------------------------------------------------------------------------


def test_displacements_are_those_of_astropy_for_a_moved_and_rolled_camera():
    other = turned(frame.TANSIP._replace(crval1=216.7521, crval2=76.3926), 0.003)
    found = pointing.displacement(frame.TANSIP, other, SCIENCE)
    x, y = [1067.5, 44, 2091, 2091, 44], [1023.5, 0, 0, 2047, 2047]
    here, there = (WCS(fits.Header(tansip_keywords(one))) for one in (frame.TANSIP, other))
    sky = here.all_pix2world(x, y, 0)
    expected = np.stack(there.all_world2pix(*sky, 0, tolerance=1e-9), axis=-1) - np.stack([x, y], axis=-1)
    assert_allclose(found, expected, atol=1e-6)
    assert np.abs(found).max() > 0.05


def test_the_reference_is_good_and_points_to_the_middle():
    choice = pointing.choose_reference(
        frames((0.2, 0), (0.01, 0, 4), (0.02, 0), (-0.1, 0), (4, 0), None, (0.05, 0.01), (-0.2, 0))
    )
    assert choice.ffi == stem(2)
    assert "1 have no usable WCS, 1 a DQUALITY" in choice.why and "1 a WCS more than 0.5 px" in choice.why


@pytest.mark.parametrize("bad", [0, 3, 6])
@pytest.mark.parametrize("elsewhere", [(2, 0), (-300, 40), (50000, 0)])
def test_one_frame_that_jumps_is_told_from_its_neighbours_wherever_it_is(bad, elsewhere):
    wandering = [(0.01 * hour, -0.005 * hour) for hour in range(7)]
    wandering[bad] = elsewhere
    from_neighbours, _ = pointing.jumps(frames(*wandering), SCIENCE)
    assert_array_equal(from_neighbours >= pointing.LARGEST_JUMP, np.arange(7) == bad)


def test_a_jump_between_two_orbits_is_no_bad_wcs():
    orbits = [(0, 0)] * 8 + [(0.9, 0.4)] * 8
    table = drifts.drift(frames(*orbits), frames((0, 0))[0], "")
    assert set(table["flags"]) == {""}
    assert_allclose(table["dx"][8:], 0.9, atol=1e-5)


def test_without_a_good_ffi_there_is_no_choice_and_the_reason_is_told():
    assert pointing.choose_reference(frames((0, 0, 1), None)).ffi == ""
    assert (
        "none of 2 FFIs has a usable WCS; the first: it has none" in pointing.choose_reference(frames(None, None)).why
    )


def test_an_ffi_of_which_there_are_products_is_preferred_if_it_is_good():
    described = frames((0, 0), (0.1, 0), (0.1, 0, 8))
    assert pointing.choose_reference(described).ffi == pointing.choose_reference(described, [stem(2)]).ffi == stem(1)
    assert pointing.choose_reference(described, ["", stem(2), stem(0)]).ffi == stem(0)


def test_the_drift_table_flags_bad_frames_in_the_order_of_time_and_survives_its_file(tmp_path):
    described = frames((0, 0), (0.1, -0.2), None, (7, 0), (0, 0.05, 16), (0.3, 0))
    table = drifts.drift(described[::-1], described[0], "100,100,200,200")
    assert list(table["ffi"]) == [stem(hour) for hour in range(6)]
    assert list(table["flags"]) == ["", "", "NO_WCS", "JUMP", "DQUALITY", ""]
    assert_allclose(table[["dx", "dy"]].iloc[1], [0.1, -0.2], atol=1e-3)
    assert table.loc[2, ["dx", "dy_corner4"]].isna().all()
    table.to_csv(tmp_path / "drift.csv", index=False)
    pd.testing.assert_frame_equal(drifts.read_drift(tmp_path / "drift.csv"), table)


def test_flagged_ffis_inside_a_series_get_the_offsets_of_their_neighbors_in_time():
    still, end = 3 * [(0, 0)], 3 * [(0.05, 0.1)]
    described = frames(None, *still, None, (7, 0), (0.15, -0.3), (0, 0.1, 16), *end, None)
    untimed = described[4]._replace(mjd=math.nan, path=Path(name_of(20)))
    before = drifts.drift([*described, untimed], described[1], "100,100,200,200")
    table = drifts.interpolate(before)
    assert list(table["flags"][[4, 5, 7]]) == [f"{flag}|INTERPOLATED" for flag in ("NO_WCS", "JUMP", "DQUALITY")]
    assert_allclose(table.loc[[4, 5, 7], ["dx", "dy"]], [[0.05, -0.1], [0.1, -0.2], [0.1, -0.1]], atol=1e-3)
    assert table.loc[[0, 11, 12], "dx"].isna().all()
    assert table["why"][4].startswith("it has none; ") and f"between {stem(3)} and {stem(6)}" in table["why"][4]
    others = [0, 1, 2, 3, 6, 8, 9, 10, 11, 12]
    pd.testing.assert_frame_equal(table.loc[others], before.loc[others])
    grouped = drifts.group(table, 0.05, largest=0.7)
    assert_allclose(grouped.loc[4, ["template_dx", "template_dy"]].astype(float), [0.05, -0.1])
    assert list(grouped["flags"]) == list(table["flags"])
    assert list(drifts.usable(table)) == list(drifts.usable(before))  # no template through a bad WCS of its own


def test_each_ffi_gets_a_template_within_the_tolerance():
    rng = np.random.default_rng(3)
    described = frames((0, 0), *(0.03 * rng.standard_normal((39, 2))).tolist(), None, (0.3, 0.3))
    grouped = drifts.group(drifts.drift(described, described[0], ""), 0.02, largest=0.3)
    given = grouped["template_dx"].notna()
    assert given.sum() == 40
    distance = np.hypot(grouped["dx"] - grouped["template_dx"], grouped["dy"] - grouped["template_dy"])[given]
    assert distance.max() <= 0.02 / math.sqrt(2) + 1e-6
    assert grouped["flags"].iloc[40] == "NO_WCS" and "beyond 0.30 px" in grouped["why"].iloc[41]
    offsets = drifts.offsets(grouped)
    assert len(offsets) < 40 and all(float(f"{value:.2f}") == value for pair in offsets for value in pair)


def test_offsets_auto_and_detectors_read_what_they_write():
    assert Offsets().parse("auto:0.01") == Auto(0.01)
    assert Offsets().serialize(Auto(0.01)) == "auto:0.01"
    assert Detectors().parse(Detectors().serialize((1, 3))) == (1, 3)
    for wrong in ("auto:0", "auto:", "auto:nan", "auto:-1"):
        with pytest.raises(ValueError, match="multi_offset_array"):
            Offsets().parse(wrong)
    for wrong in ("", "0", "1,5", "a"):
        with pytest.raises(ValueError, match="numbered 1 to 4"):
            Detectors().parse(wrong)


# --- the graph --------------------------------------------------------------------------------------------------------


class Made:
    """A sector with two CCDs on the tiny sky and one far south of PS1, and one run of Sector."""

    def __init__(self, sky, luigi, folder):
        self.luigi, self.ffis, self.root = luigi, folder / "ffis", folder / "data"
        self.more = ["--skycell-catalog", str(sky.catalogue), "--syndiff-pictures", "false"]
        self.more += ["--syndiff-archive", str(sky.archive)]
        self.reference = write(self.ffis, 2)
        write(self.ffis / "deep", 1, tansip=moved(0.11, 0.02))
        write(self.ffis / "deep", 3, tansip=moved(-0.06, 0.0), DQUALITY=4)
        # Beyond the corner where the four skycells meet: its region is another skycell's.
        self.far = write(self.ffis / "deep", 4, tansip=moved(-3, -3))
        write(self.ffis, 2, ccd=4)
        write(self.ffis, 2, camera=1, ccd=1, tansip=TANSIP._replace(crval2=-60.0))
        self.first = self.run("Sector", "--sector", "20")

    def run(self, task, *arguments, root=None):
        where = ["--ffi-dir", str(self.ffis), "--roi", ROI, "--syndiff-data-root", str(root or self.root)]
        return self.luigi.run(task, *where, *arguments, *self.more)

    def report(self):
        path = next(self.root.glob("sectors/sector_0020/*/report.csv"))
        return pd.read_csv(path, keep_default_na=False).set_index(["camera", "ccd"])

    def templates(self, ccd=3):
        return sorted(self.root.glob(f"shifted_downsampled/sector_0020/camera_3/ccd_{ccd}/**/syndiff*.fits"))


@pytest.fixture(scope="module")
def made(tiny_sky, luigi, tmp_path_factory):
    return Made(tiny_sky, luigi, tmp_path_factory.mktemp("sector"))


@pytest.fixture(scope="module")
def further(made):
    """FFIs that came after the first run: of a CCD that has its template, and of another."""
    for hour in (6, 7, 8):
        write(made.ffis, hour, tansip=moved(0.11, 0.02))
    write(made.ffis, 2, camera=2, ccd=2)
    return made


def test_a_sector_makes_the_templates_of_its_ccds_and_reports_those_that_have_none(made):
    assert made.first.code == 0, made.first.tail
    report = made.report()
    assert len(report) == 16
    assert dict(report["state"].value_counts()) == {"made": 2, "no PS1 coverage": 1, "no FFI": 13}
    assert report.loc[(1, 1), "state"] == "no PS1 coverage"
    row = report.loc[(3, 3)]
    assert (row["reference"], row["ffis"], row["templates"], row["skycells"]) == (made.reference.stem, 4, 1, 1)
    assert row["bytes"] == sum(path.stat().st_size for path in made.templates())
    assert len(made.templates(4)) == 1


def test_a_target_is_made_on_the_ccds_that_see_it_and_the_others_are_told(made, tmp_path):
    ra, dec = (float(value) for value in pixel_to_sky(TANSIP, 18.0, 18.0))
    where = ["--ffi-dir", str(made.ffis), "--target", f"{ra} {dec}", "--size", "2"]
    where += ["--syndiff-data-root", str(tmp_path)]
    ended = made.luigi.run("Sector", "--sector", "20", "--cameras", "1,3", *where, *made.more)
    assert ended.code == 0, ended.tail
    (path,) = tmp_path.glob("sectors/sector_0020/*/report.csv")
    report = pd.read_csv(path).set_index(["camera", "ccd"])
    assert report.loc[(1, 1), "state"] == "target elsewhere"
    assert report.loc[(3, 3), "state"] == report.loc[(3, 4), "state"] == "made"
    assert len(list(tmp_path.rglob("syndiff_template_*.fits"))) == 2


@pytest.mark.filterwarnings("ignore:The use of the configuration:DeprecationWarning")
@pytest.mark.parametrize("at_once", [1, 2])
def test_so_many_ccds_are_begun_at_once_as_luigi_cfg_says(made, at_once):
    command = ["--module", "syndiff_tasks", "Sector", "--sector", "20", "--ffi-dir", str(made.ffis), "--roi", ROI]
    command += [*made.more, "--cameras", "3", "--syndiff-data-root", str(made.root)]
    with CmdlineParser.global_instance([*command, "--syndiff-ccds-at-once", str(at_once)]) as asked:
        first_lot = next(asked.get_task_obj().run())
    assert len(first_lot) == at_once


def shown(path):
    """What the page of a sector says of each camera and CCD, and its links."""
    text = path.read_text()
    said = {}
    for part in text.split("camera ")[1:]:
        cells = re.findall(r'<div class="(ccd[^"]*)"><strong>CCD (\d)</strong>(.*?)</div>', part, re.S)
        said |= {(int(part[0]), int(ccd)): (kind == "ccd done", inner.strip()) for kind, ccd, inner in cells}
    return said, re.findall(r'href="([^"]*)"', text)


def test_the_page_of_a_sector_names_every_ccd_and_what_became_of_it(made):
    (path,) = made.root.glob("sectors/sector_0020/*/index.html")
    said, links = shown(path)
    assert sorted(said) == [(camera, ccd) for camera in (1, 2, 3, 4) for ccd in (1, 2, 3, 4)]
    assert {ccd for ccd, (done, _) in said.items() if done} == {(3, 3), (3, 4)}
    assert said[1, 1][1] == "no PS1 coverage"
    assert sum(inner == "no FFI" for _, inner in said.values()) == 13
    assert links == []  # of templates without pictures
    assert "2 of 16 CCDs have a template" in path.read_text()


def test_further_ffis_keep_the_reference_and_a_further_ccd_remakes_the_report(further):
    made = further
    chosen = paths.reference_ffi(made.root, paths.CCD(20, 3, 3)).read_text()
    before = [path.stat().st_mtime_ns for path in made.templates()]
    assert made.run("Sector", "--sector", "20").code == 0
    assert paths.reference_ffi(made.root, paths.CCD(20, 3, 3)).read_text() == chosen
    assert [path.stat().st_mtime_ns for path in made.templates()] == before
    assert made.report().loc[(2, 2), "state"] == "made"
    (path,) = made.root.glob("sectors/sector_0020/*/index.html")
    assert "3 of 16 CCDs have a template" in path.read_text()


def test_a_further_ffi_equals_one_made_alone_and_adds_the_skycells_it_needs(made, tmp_path):
    shared = made.run("Downsample", "--ffi", str(made.far), "--reference-ffi", str(made.reference))
    assert shared.code == 0, shared.tail
    alone = made.run("Downsample", "--ffi", str(made.far), root=tmp_path)
    assert alone.code == 0, alone.tail
    (one,), (two,) = (list(root.glob(f"shifted*/**/{made.far.stem}/**/*.fits")) for root in (made.root, tmp_path))
    with fits.open(one) as here, fits.open(two) as there:
        assert here[0].header["REFFFI"] == made.reference.stem
        assert there[0].header["REFFFI"] == made.far.stem
        for plane in ("FLUX_SUM", "VARIANCE", "COVERAGE", "COUNT", "MASKED", "DQ"):
            assert here[plane].data.tobytes() == there[plane].data.tobytes()
        names = set(here["SKYCELLS"].data["NAME"])
        assert np.nanmax(here["COVERAGE"].data) > 0.9
    (reference,) = made.root.glob(f"shifted*/**/{made.reference.stem}/**/*dx+0.0000_dy+0.0000.fits")
    assert not names <= set(fits.getdata(reference, "SKYCELLS")["NAME"])


def test_a_reference_that_looks_elsewhere_is_refused(made):
    elsewhere = write(made.ffis.parent / "odd", 5, tansip=moved(-5.5, 0))
    ended = made.run("Downsample", "--ffi", str(elsewhere), "--reference-ffi", str(made.reference))
    assert ended.code == 35
    assert "one of the two has a wrong WCS" in ended.said


def test_offsets_auto_make_one_template_a_group_and_a_table_of_who_has_which(further):
    made = further
    ended = made.run("Downsample", "--ffi", str(made.reference), "--multi-offset-array", "auto:0.05")
    assert ended.code == 0, ended.tail
    (path,) = made.root.glob(f"shifted*/**/{made.reference.stem}/**/ffi_templates_0.05.csv")
    table = pd.read_csv(path, keep_default_na=False).set_index("ffi")
    offsets = {hour: tuple(table.loc[stem(hour), ["template_dx", "template_dy"]]) for hour in (1, 2, 3, 6)}
    assert {hour: tuple(map(float, pair)) for hour, pair in offsets.items()} == {
        **{1: (0.1, 0.0), 6: (0.1, 0.0)},
        **{2: (0.0, 0.0), 3: (-0.05, 0.0)},
    }
    assert table.loc[made.far.stem, "flags"] == "JUMP" and table.loc[made.far.stem, "template"] == ""
    for name, dx in zip(table["template"], table["template_dx"], strict=True):
        if name:
            assert fits.getheader(path.with_name(name))["DX_SHIFT"] == float(dx)
    again = made.run("Downsample", "--ffi", str(made.reference), "--multi-offset-array", "auto:0.05")
    assert again.code == 0 and "ran successfully" not in again.said


def test_every_ffi_with_a_good_wcs_gets_a_template_of_its_own(made):
    ended = made.run("EveryFFI", "--sector", "20", "--camera", "3", "--ccd", "3")
    assert ended.code == 0, ended.tail
    (path,) = made.root.glob("shifted*/**/every_ffi.csv")
    table = pd.read_csv(path, keep_default_na=False).set_index("ffi")
    assert list(table.index[table["template"] == ""]) == [made.far.stem]
    told = {name: fits.getheader(file)["FFI"] for name, file in table["template"].items() if file}
    assert all(name == ffi for name, ffi in told.items()) and len(told) == len(table) - 1
    assert (made.root / "drift_offsets/sector_0020/camera_3/ccd_3/drift_offsets.png").stat().st_size > 5000


ONE_CCD = ("Sector", "--sector", "20", "--cameras", "3", "--ccds", "3")


def map_by_hand(made, ffi, root):
    where = ["--ffi", str(ffi), "--roi", ROI, "--syndiff-data-root", str(root)]
    return made.luigi.run("MapFFI", *where, *made.more).code


@pytest.fixture
def three(tmp_path):
    """A folder of three FFIs: one good, one in the middle, one of bad quality."""
    write(tmp_path / "ffis", 1, tansip=moved(0.11, 0.02))
    write(tmp_path / "ffis", 2)
    write(tmp_path / "ffis", 3, tansip=moved(-0.06, 0.0), DQUALITY=4)
    return tmp_path / "ffis"


def test_a_region_made_by_hand_of_a_good_ffi_makes_it_the_reference_of_its_sector(made, three, tmp_path):
    where = ["--ffi-dir", str(three)]
    assert map_by_hand(made, three / name_of(1), tmp_path) == 0
    ended = made.run(*ONE_CCD, *where, root=tmp_path)
    assert ended.code == 0, ended.tail
    assert pointing.read_choice(paths.reference_ffi(tmp_path, paths.CCD(20, 3, 3))).ffi == stem(1)
    (template,) = tmp_path.rglob("syndiff_template_*.fits")
    assert fits.getval(template, "REFFFI") == stem(1)


def test_a_sector_continues_with_skycells_made_by_hand_from_another_ffi(made, three, tmp_path):
    where, by_hand = ["--ffi-dir", str(three)], stem(3)
    assert made.run("Downsample", "--ffi", str(three / name_of(3)), root=tmp_path).code == 0
    (blurred,) = tmp_path.glob("convolved_results/**/convolved_images.zarr/skycell*")
    before = blurred.stat().st_mtime_ns
    ended = made.run(*ONE_CCD, *where, root=tmp_path)
    assert ended.code == 0, ended.tail
    assert pointing.read_choice(paths.reference_ffi(tmp_path, paths.CCD(20, 3, 3))).ffi == stem(2)
    (path,) = tmp_path.rglob(f"{stem(2)}/**/syndiff_template_*.fits")
    (alone,) = made.root.rglob(f"{made.reference.stem}/**/syndiff_template_*dx+0.0000_dy+0.0000.fits")
    assert made.reference.stem == stem(2) == fits.getval(alone, "REFFFI") and fits.getval(path, "REFFFI") == by_hand
    with fits.open(path) as one, fits.open(alone) as other:
        for plane in ("FLUX_SUM", "VARIANCE", "COVERAGE", "COUNT", "MASKED", "DQ"):
            assert one[plane].data.tobytes() == other[plane].data.tobytes()
    assert made.run("EveryFFI", "--sector", "20", "--camera", "3", "--ccd", "3", *where, root=tmp_path).code == 0
    of = {fits.getval(one, "FFI"): fits.getval(one, "REFFFI") for one in tmp_path.rglob("syndiff_template_*.fits")}
    assert of == dict.fromkeys((stem(1), stem(2), by_hand), by_hand) and blurred.stat().st_mtime_ns == before


def test_a_sector_that_cannot_share_products_made_by_hand_names_the_remedies(made, three, tmp_path):
    by_hand, where = write(tmp_path / "elsewhere", 5), ["--ffi-dir", str(three)]
    assert map_by_hand(made, by_hand, tmp_path) == 0
    refused = made.run(*ONE_CCD, *where, root=tmp_path)
    assert refused.code == 35
    words = refused.said.rpartition("What went wrong:")[2]
    assert f"<path of {by_hand.stem}> (from Sector or EveryFFI: put that FFI into --ffi-dir)" in words
    assert "(from another task: --MapFFI-overwrite)" in words
    assert made.run(*ONE_CCD, *where, "--MapFFI-overwrite", root=tmp_path).code == 0


# --- the state at a glance --------------------------------------------------------------------------------------------


def test_status_agrees_with_what_a_sector_made(made):
    rows = {(row.ccd.camera, row.ccd.ccd): row for row in status.survey(made.root, "", 20)}
    assert set(rows) >= {(3, 3), (3, 4)}
    step = rows[3, 4].steps
    assert (step["map"].done, step["download"].done, step["convolve"].done, step["template"].done) == (2, 1, 1, 1)
    assert status.survey(made.root, "", 21) == []


# --- cron -------------------------------------------------------------------------------------------------------------


# Luigi's word for a default that stands in another section of luigi.cfg, as ours do.
quietly = pytest.mark.filterwarnings("ignore:The use of the configuration:DeprecationWarning")


@pytest.fixture
def script():
    return run_sector


def arguments(made, root):
    folder = ["--sector", "20", "--ffi-dir", str(made.ffis), "--ccds", "4", "--roi", ROI, "--local-scheduler"]
    return [*folder, *made.more, "--syndiff-data-root", str(root)]


@quietly
def test_run_sector_resumes_what_was_killed_and_then_finds_nothing_to_do(made, script, tmp_path, capfd):
    root = tmp_path / "data"
    command = [sys.executable, SCRIPT, *arguments(made, root)]
    fresh = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    folder = paths.raw(root, "skycell.2611.044").parent
    while fresh.poll() is None and not (folder.exists() and any(folder.iterdir())):
        time.sleep(0.02)
    fresh.send_signal(signal.SIGKILL)
    assert (fresh.communicate()[0], fresh.returncode) == ("", -signal.SIGKILL)
    resumed = script.main(arguments(made, root))
    assert (resumed, capfd.readouterr().out) == (0, "")
    (template,) = root.glob("shifted_downsampled/**/*.fits")
    (log,) = root.glob("logs/sector_0020_*.log")
    before = template.stat().st_mtime_ns, log.stat().st_size
    finished = script.main(arguments(made, root))
    assert (finished, capfd.readouterr().out) == (0, "")
    assert (template.stat().st_mtime_ns, log.stat().st_size) == before


@quietly
def test_run_sector_leaves_at_once_when_another_is_at_work_unless_that_one_hangs(made, script, tmp_path, capsys):
    folder = paths.logs(tmp_path)
    folder.mkdir()
    with open(folder / "sector_0020.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert script.main(arguments(made, tmp_path)) == 4
        assert capsys.readouterr().out == ""
        hours_ago = time.time() - 3600 * (script.HOURS_OF_SILENCE + 1)
        os.utime(lock.fileno(), (hours_ago, hours_ago))
        assert script.main(arguments(made, tmp_path)) == 1
        assert "has logged nothing for 6 hours; look at it" in capsys.readouterr().out
        (folder / "sector_0020_2026-01-01.log").touch()
        assert script.main(arguments(made, tmp_path)) == 4


AWAY = Failure("DownloadSkycell", "ArchiveUnavailable", "HTTP 503")
NEEDS_IT = Failure("CombineBands", "RuntimeError", "Unfulfilled dependency at run time: DownloadSkycell_1")
KILLED = Failure("Convolve", "", "Task Convolve_1 died unexpectedly with exit code -9")


@quietly
def test_run_sector_prints_what_a_person_must_do_and_only_that(made, script, tmp_path, capsys, monkeypatch):
    failed = [AWAY, NEEDS_IT]
    monkeypatch.setattr(script, "luigi", lambda command, log: (30, failed))
    assert script.main(arguments(made, tmp_path)) == 3
    assert capsys.readouterr().out == ""
    refused = AWAY._replace(message="r.fits fails its check; the last refused body is in /suspect")
    differs = Failure("Convolve", "SettingsDiffer", "x was made with sigma 40")
    failed += [differs, differs, KILLED, refused]
    failed += [Failure("CombineBands", "ValueError", f"skycell.{cell}: no EXPTIME") for cell in range(12)]
    assert script.main(arguments(made, tmp_path)) == 1
    lines = capsys.readouterr().out.splitlines()
    others = "(and 11 other tasks failed for the same reason: skycell.1, skycell.2, skycell.3, …)"
    assert lines[:4] == [f"CombineBands: skycell.0: no EXPTIME {others}", *map(str, (differs, KILLED, refused))]
    assert len(lines) == 5 and str(tmp_path / "logs") in lines[4]


@quietly
def test_run_sector_does_not_ask_a_silent_luigid_for_each_ccd_again(made, script, tmp_path, capsys, monkeypatch):
    asked = []
    silent = Failure("luigi", "RPCError", "Errors (3 attempts) when connecting to remote scheduler")
    monkeypatch.setattr(script, "luigi", lambda command, log: asked.append(command) or (40, [silent]))
    both = [word for word in arguments(made, tmp_path) if word not in ("--ccds", "4")]
    assert script.main(both) == 1
    assert len(asked) == 1 and "connecting to remote scheduler" in capsys.readouterr().out


@quietly
def test_run_sector_keeps_the_last_logs(made, script, tmp_path, monkeypatch):
    folder = paths.logs(tmp_path)
    folder.mkdir()
    for name in [*(f"sector_0020_2020-01-{day:02d}" for day in range(1, 32)), "sector_0021_2020-01-01"]:
        (folder / f"{name}.log").touch()
    monkeypatch.setattr(script, "luigi", lambda command, log: log.touch() or (30, []))
    assert script.main(arguments(made, tmp_path)) == 3
    left = sorted(path.name for path in folder.glob("*.log"))
    assert len(left) == script.LOGS + 1 and left[0] == "sector_0020_2020-01-03.log"
    assert left[-1] == "sector_0021_2020-01-01.log"


def test_run_sector_tells_of_a_disk_that_is_too_full_for_its_log(script, tmp_path):
    failed = Failure("MapFFI", "ProductNotWritten", "the disk is full")
    before = glob.glob(f"{failures._spare_log('*')}")
    log = f"{failures._spare_log('')}".replace(".jsonl", "{os.environ['SYNDIFF_RUN']}.jsonl")
    line = f"print({json.dumps(failed._asdict())!r}, file=open(f{log!r}, 'a'))"
    (tmp_path / "luigi.py").write_text(f"import os\nprint('a line for the log')\n{line}\n")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", str(tmp_path))
        assert script.luigi([], Path("/dev/full")) == (0, [failed])
    assert glob.glob(f"{failures._spare_log('*')}") == before


@quietly
def test_run_sector_makes_the_other_ccds_where_one_fails_and_the_next_run_goes_on(
    made, script, tmp_path, capsys, monkeypatch
):
    root, ffis, archive = tmp_path / "data", tmp_path / "ffis", tmp_path / "archive"
    write(ffis, 2, ccd=3)
    write(ffis, 2, ccd=4, tansip=moved(-3, -3))  # in the corner of another skycell
    shutil.copytree(made.more[-1], archive)
    (bad,) = archive.glob("rings*/2611/044/*.stk.r.unconv.fits")
    whole = bad.read_bytes()
    (other,) = archive.glob("rings*/2611/045/*.stk.r.unconv.fits")
    bad.write_bytes(other.read_bytes())

    def luigi(command, log):
        run = failures.new_run()
        ended = made.luigi.run("Sector", *command[3:], environment={failures.RUN_VARIABLE: run})
        return ended.code, failures.distinct(failures.read(root, run))

    monkeypatch.setattr(script, "luigi", luigi)
    command = ["--sector", "20", "--ffi-dir", str(ffis), "--roi", ROI, *made.more, "--syndiff-data-root", str(root)]
    command += ["--syndiff-ccds-at-once", "1", "--syndiff-download-tries", "1", "--syndiff-archive"]

    def templates():
        return {path.parts[-4]: path.stat().st_mtime_ns for path in root.glob("shifted_downsampled/**/*.fits")}

    assert script.main([*command, str(archive)]) == 1
    assert list(templates()) == ["ccd_4"], "the CCD that would have come after the one that fails"
    one, last = capsys.readouterr().out.splitlines()
    assert "2611.044.stk.r.unconv.fits: the file fails its check" in one and "is not complete" in last
    first = templates()
    # Now what fails is what the next run may find mended.
    assert script.main([*command, "http://127.0.0.1:9"]) == 3
    assert capsys.readouterr().out == ""
    bad.write_bytes(whole)
    assert script.main([*command, str(archive)]) == 0
    assert capsys.readouterr().out == ""
    assert set(templates()) == {"ccd_3", "ccd_4"} and templates()["ccd_4"] == first["ccd_4"]


def test_the_help_of_run_sector_has_options_exit_codes_environment_and_example(script, capsys):
    for asked in ("--help", "-h"):
        assert script.main(["--sector", "20", asked]) == 0
        told = " ".join(capsys.readouterr().out.split())
        for part in ("Make the templates of a sector", "0 every template that", "LUIGI_CONFIG_PATH", "--syndiff-NAME"):
            assert part in told
        for name, parameter in tasks.Sector.get_params():
            assert f"--{name.replace('_', '-')} {' '.join(parameter.description.split())}" in told
        example = re.search(r"For example.*? run-sector (--.*?) It takes", told)[1]
        known = {f"--{name.replace('_', '-')}" for name, _ in tasks.Sector.get_params()}
        assert set(re.findall("--[-a-z]+", example)) - known == {
            "--local-scheduler",
            "--workers",
            "--syndiff-data-root",
        }


@quietly
def test_run_sector_says_what_is_wrong_with_its_command(made, script, tmp_path, capsys):
    assert script.main([*arguments(made, tmp_path), "--ccds", "5"]) == 2
    assert "numbered 1 to 4" in capsys.readouterr().out
    assert script.main([*arguments(made, tmp_path), "--ffi-dir", str(tmp_path / "none")]) == 2
    assert "no such folder" in capsys.readouterr().out
    assert script.main(["--sector", "20"]) == 2
    assert "requires the 'ffi_dir' parameter" in capsys.readouterr().out
    assert script.main([*arguments(made, tmp_path), "--syndiff-units", "electron"]) == 2
    assert "units: 'electron' is not one of counts, electrons" in capsys.readouterr().out


def test_the_choice_of_a_reference_tells_why(made):
    choice = json.loads(paths.reference_ffi(made.root, paths.CCD(20, 3, 3)).read_text())
    assert choice["ffi"] == made.reference.stem and "of 4 FFIs 0 have no usable WCS, 1 a DQUALITY" in choice["why"]


def test_the_page_of_a_sector_links_the_pages_of_its_templates_once_they_are_drawn(made):
    part = ["--sector", "20", "--cameras", "3", "--ccds", "4"]
    assert made.run("Sector", *part).code == 0
    (path,) = made.root.glob("sectors/sector_0020/cameras*ccds*/index.html")
    assert shown(path)[1] == []
    made.more[made.more.index("--syndiff-pictures") + 1] = "true"
    try:
        drawn = made.run("Sector", *part)
    finally:
        made.more[made.more.index("--syndiff-pictures") + 1] = "false"
    assert drawn.code == 0, drawn.tail
    said, links = shown(path)
    (link,) = set(links)  # of thumbnail, focal plane and table
    assert [ccd for ccd, (done, _) in said.items() if done] == [(3, 4)]
    assert "Template of sector 20, camera 3, CCD 4" in (path.parent / unquote(link)).read_text()
