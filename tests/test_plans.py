import math
import os

import numpy as np
import pandas as pd
import pytest
from made_up_chain import ROI, write_ffi
from made_up_ffi import tess_wcs
from made_up_tesscut import linear_wcs, write_tesscut
from tiny_sky import write_ffi as write_any_ffi

from syndiff_tasks.chain.plan import plan_ffi, reference_of, tessellation
from syndiff_tasks.demo import frame
from syndiff_tasks.geometry.rings import rings_v3
from syndiff_tasks.geometry.skycell_table import SKYCELL_COLUMNS
from syndiff_tasks.geometry.tansip import cropped, pixel_to_sky, shifted

SURVEY = rings_v3()


def write_cutout(folder, tansip):
    """A cut-out of 60 x 40 px with the physical coordinates of the whole FFI, as astrocut leaves them."""
    physical = {"CRPIX1P": 1, "CRPIX2P": 1, "CRVAL1P": 1, "CRVAL2P": 1}
    return str(write_any_ffi(folder / frame.NAME, tansip, (40, 60), physical))


def test_a_plan_tells_detector_region_owners_and_skycells(plan):
    assert (plan.ccd.sector, plan.ccd.camera, plan.ccd.ccd) == (20, 3, 3)
    assert plan.shape == (2078, 2136)
    assert plan.region == (1711, 755, 1717, 761)
    y, x = np.indices((6, 6))
    owners = SURVEY.owner(*pixel_to_sky(frame.TANSIP, x + 1711, y + 755))
    names = np.array([skycell.name for skycell in plan.footprint.skycells])
    assert names[plan.footprint.owner].ravel().tolist() == [SURVEY.name_of(number) for number in owners.ravel()]
    assert [plan.skycell(name) for name in names] == list(plan.footprint.skycells)


def test_a_plan_is_made_once_until_the_file_changes(tmp_path):
    path = write_ffi(tmp_path)
    first = plan_ffi(path, ROI)
    assert plan_ffi(path, ROI) is first
    os.remove(path)
    write_ffi(tmp_path, shifted(frame.TANSIP, 0.5, 0.0))
    os.utime(path, ns=(1, 1))
    assert plan_ffi(path, ROI).tansip.crpix1 == frame.TANSIP.crpix1 + 0.5


def test_a_catalogue_that_is_written_anew_is_read_anew_and_another_plan_made(plan, tmp_path):
    path, skycells = tmp_path / "some.csv", list(plan.footprint.skycells)
    made, tessellations = [], []
    for rows in (skycells, skycells[:1], None):
        if rows:
            pd.DataFrame(rows, columns=SKYCELL_COLUMNS).to_csv(path, index=False)
        made.append(plan_ffi(plan.path, ROI, catalog=str(path)))
        tessellations.append(tessellation(str(path)))
    assert [len(one.footprint.skycells) for one in made] == [len(skycells), 1, 1]
    assert made[0].settings()["skycells"] != made[1].settings()["skycells"]
    assert made[1] is made[2] and tessellations[1] is tessellations[2] is made[2].tessellation


def test_a_target_gives_the_region_about_it_under_the_label_of_that_region(ffi_path, plan):
    ra, dec = (float(value) for value in pixel_to_sky(frame.TANSIP, 1716.0, 760.0))
    about = plan_ffi(ffi_path, target=f"{ra} {dec}", size=4)
    assert about.region.shape == (4, 4)
    assert about.region.x0 <= 1716 <= about.region.x1 and about.region.y0 <= 760 <= about.region.y1
    same = plan_ffi(ffi_path, ",".join(map(str, about.region)))
    assert about.label == same.label != ""
    assert plan_ffi(ffi_path, target=f"{ra}, {dec}", size=4).region == about.region
    assert plan_ffi(ffi_path, "1711,755,1717,762").label != plan.label


def test_the_whole_ffi_has_no_label(ffi_path):
    whole = plan_ffi(ffi_path)
    assert (whole.label, whole.region) == ("", (0, 0, 2136, 2078))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"roi": ROI, "target": "1 2"}, "give one of them"),
        ({"target": "12h 13d"}, "give RA and Dec in degrees"),
        ({"target": "12.5"}, "give RA and Dec in degrees"),
        ({"roi": "0,0,44,20"}, "collateral|science"),
        ({"catalog": "/no/such.csv"}, "/no/such.csv: no such file"),
    ],
)
def test_what_makes_no_plan_is_refused_by_name(ffi_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        plan_ffi(ffi_path, **arguments)


def test_a_cutout_of_unknown_place_is_warned_about_and_all_of_it_seen(tmp_path, caplog):
    cut = cropped(frame.TANSIP, 1700, 740)
    path = write_cutout(tmp_path, cut._replace(crpix1=cut.crpix1 + 0.25))
    unknown = plan_ffi(path, "11,15,17,21")
    assert (unknown.origin, unknown.science) == (None, (0, 0, 60, 40))
    assert "which part of the FFI this image shows" in caplog.text and path in caplog.text


def test_a_cutout_knows_its_place(tmp_path, caplog):
    known = plan_ffi(write_cutout(tmp_path, cropped(frame.TANSIP, 1700, 740)), "11,15,17,21")
    assert (known.origin, known.science) == ((1700, 740), (0, 0, 60, 40))
    assert not caplog.text


def test_an_ffi_that_is_not_there_is_refused_by_name():
    with pytest.raises(ValueError, match="--ffi /nowhere/tess.fits: no such file"):
        plan_ffi("/nowhere/tess.fits")


def test_an_ffi_south_of_ps1_is_refused_with_its_declination(tmp_path):
    with pytest.raises(ValueError, match=r"no PS1 coverage at declination -6\d"):
        plan_ffi(write_ffi(tmp_path, tess_wcs(80.0, -65.0)), "900,900,910,910")


def test_settings_of_a_plan_differ_by_pointing_region_and_catalogue(plan, tmp_path):
    pointed = plan_ffi(write_ffi(tmp_path, shifted(frame.TANSIP, 1e-6, 0.0)), ROI)
    elsewhere = plan_ffi(plan.path, "1711,755,1717,762")
    pd.DataFrame(plan.footprint.skycells, columns=SKYCELL_COLUMNS).to_csv(tmp_path / "some.csv", index=False)
    chosen = plan_ffi(plan.path, ROI, catalog=str(tmp_path / "some.csv"))
    for other, names in ((pointed, {"wcs"}), (elsewhere, {"region"}), (chosen, {"skycells"})):
        here, there = plan.settings(), other.settings()
        assert {name for name in here if here[name] != there[name]} == names


def test_a_catalogue_that_lacks_a_column_is_refused_by_file_and_column(plan, tmp_path):
    table = pd.DataFrame(plan.footprint.skycells, columns=SKYCELL_COLUMNS)
    table.drop(columns="CRPIX2").to_csv(tmp_path / "some.csv", index=False)
    with pytest.raises(ValueError, match="some.csv: .*no column CRPIX2"):
        plan_ffi(plan.path, ROI, catalog=str(tmp_path / "some.csv"))


# --- reference --------------------------------------------------------------------------------------------------------


def ffi_beside(folder, name, tansip, stem="tess2020020135923-s0020-3-3-0165-s_ffic.fits"):
    (folder / name).mkdir()
    return write_ffi(folder / name, tansip, stem)


def test_without_a_reference_an_ffi_is_its_own(plan):
    assert reference_of(plan, "") is plan


@pytest.mark.parametrize("whole", [False, True])
def test_a_reference_that_drifted_is_planned_for_the_same_region(plan, tmp_path, whole):
    mine = plan_ffi(plan.path) if whole else plan
    other = ffi_beside(tmp_path, "drifted", shifted(frame.TANSIP, 0.3, -0.1))
    reference = reference_of(mine, other)
    assert reference.path == other
    assert reference.region == mine.region
    assert reference.tansip.crpix1 == frame.TANSIP.crpix1 + 0.3


def test_a_reference_that_looks_elsewhere_is_refused_with_the_distance(plan, tmp_path):
    other = ffi_beside(tmp_path, "astray", shifted(frame.TANSIP, 3.0, -4.5))
    with pytest.raises(ValueError, match=r"points 5\.4 px away"):
        reference_of(plan, other)


def test_a_reference_that_is_turned_is_refused_though_its_centre_is_right(plan, tmp_path):
    c, s = math.cos(math.radians(1)), math.sin(math.radians(1))
    turned = frame.TANSIP._replace(cd=frame.TANSIP.cd @ np.array([[c, -s], [s, c]]))
    with pytest.raises(ValueError, match="px away"):
        reference_of(plan, ffi_beside(tmp_path, "turned", turned))


def test_a_reference_of_another_sector_is_refused(plan, tmp_path):
    other = ffi_beside(tmp_path, "later", frame.TANSIP, "tess2020050135923-s0021-3-3-0167-s_ffic.fits")
    with pytest.raises(ValueError, match="not of the CCD and sector"):
        reference_of(plan, other)


def test_a_reference_of_tica_is_refused_for_an_ffi_of_spoc(plan, tmp_path):
    tica = "hlsp_tica_tess_ffi_s0020-o1-00116635-cam3-ccd3_tess_v01_img.fits"
    with pytest.raises(ValueError, match="an FFI of TICA and .* one of SPOC"):
        reference_of(plan, ffi_beside(tmp_path, "tica", frame.TANSIP, tica))


CORNER = (1711, 751)


def test_a_cutout_has_the_skycells_of_its_part_of_the_ffi_and_a_label_of_its_own(ffi_path, tmp_path):
    path, _ = write_tesscut(tmp_path, origin=CORNER, changes=linear_wcs((1716.5, 755.5)))
    cut, part = plan_ffi(str(path)), plan_ffi(ffi_path, "1711,751,1723,761")
    assert cut.footprint.owner.tolist() == part.footprint.owner.tolist()
    assert cut.region == (0, 0, 12, 10)
    assert cut.label == path.stem
    ra, dec = (float(value) for value in pixel_to_sky(frame.TANSIP, 1716.0, 757.0))
    about = plan_ffi(str(path), target=f"{ra} {dec}", size=4)
    assert about.region == (3, 4, 7, 8)
    assert about.label == f"{path.stem}_roi_3_4_7_8"


def test_the_place_of_a_cutout_is_found_in_the_ffi_beside_it(ffi_path, tmp_path):
    name = os.path.basename(ffi_path)
    changes = linear_wcs((43.5, 505.5)) | {"WCS_FFI": name.removesuffix(".fits")}
    path, _ = write_tesscut(tmp_path, origin=None, changes=changes)
    os.symlink(ffi_path, tmp_path / name)
    assert plan_ffi(str(path)).science == (6, 0, 12, 10)  # it begins at FFI pixel (38, 501)
    assert plan_ffi(str(path), origin="40,501").science == (4, 0, 12, 10)


def test_a_cutout_that_does_not_show_its_place_is_refused_with_the_cure(tmp_path):
    path, _ = write_tesscut(tmp_path, origin=None, changes=linear_wcs((1716.5, 755.5)))
    with pytest.raises(ValueError, match=r"does not show its place.*tess\.fits is not beside it.*--origin x0,y0"):
        plan_ffi(str(path))
    assert plan_ffi(str(path), origin="1711,751").science == (0, 0, 12, 10)
    with pytest.raises(ValueError, match="is not x0,y0 in whole FFI pixels"):
        plan_ffi(str(path), origin="1711.5,751")


def test_a_place_is_given_to_cutouts_only_and_they_share_no_skycells(ffi_path, tmp_path):
    with pytest.raises(ValueError, match="is a whole FFI"):
        plan_ffi(ffi_path, origin="0,0")
    path, _ = write_tesscut(tmp_path, origin=CORNER, changes=linear_wcs((1716.5, 755.5)))
    with pytest.raises(ValueError, match="cut-outs share no skycells"):
        reference_of(plan_ffi(str(path)), ffi_path)
