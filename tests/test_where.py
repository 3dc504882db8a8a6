"""`syndiff_tasks where`, with places by astropy on a made-up CCD."""

import pytest
from made_up_chain import write_ffi
from made_up_ffi import astropy_wcs, tess_wcs

from syndiff_tasks import cli, paths
from syndiff_tasks.chain.where import Area, Position, where
from syndiff_tasks.geometry.outline import outline
from syndiff_tasks.geometry.region import Region
from syndiff_tasks.io import coverage_map

NAME = "tess2020019135923-s0020-3-3-0165-s_ffic.fits"
HERE = tess_wcs(216.75, 56.4)
CCD = paths.CCD(20, 3, 3)
STEM = NAME.removesuffix(".fits")


@pytest.fixture(scope="module")
def ffis(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ffis")
    (folder / "below").mkdir()
    write_ffi(folder / "below", HERE, NAME)
    return folder


def sky(x, y):
    return tuple(float(value) for value in astropy_wcs(HERE).all_pix2world(x, y, 0))


def make_templates(root):
    """Empty files in the places of templates of a whole CCD and of two regions."""
    made = []
    for label in ("", "roi_100_200_164_264", "roi_900_900_964_964"):
        path = root / "shifted_downsampled/sector_0020/camera_3/ccd_3" / STEM / label / "syndiff_template_x.fits"
        assert str(path).startswith(str(paths.templates_of(root, CCD)))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        made.append(path)
    return made


def test_a_position_is_seen_by_its_ccd_and_the_templates_that_hold_it(ffis, tmp_path):
    whole, near, _ = make_templates(tmp_path)
    (seen,) = where(Position(*sky(120.0, 230.0)), ffis, tmp_path)
    assert seen.ccd == CCD and seen.ffi.name == NAME
    assert seen.pixel == pytest.approx((120.0, 230.0), abs=1e-6)
    assert set(seen.templates) == {whole, near}
    assert where(Position(*sky(20.0, 230.0)), ffis, tmp_path) == []  # collateral pixels
    assert where(Position(10.0, -60.0), ffis, tmp_path) == []


def test_a_region_is_seen_where_it_touches_science_pixels(ffis, tmp_path):
    whole, _, far = make_templates(tmp_path)
    region = coverage_map.moc_of([outline(HERE, Region(950, 950, 1000, 1000))], 12)
    (seen,) = where(Area(region), ffis, tmp_path)
    assert set(seen.templates) == {whole, far} and seen.pixel is None
    elsewhere = coverage_map.moc_of([outline(tess_wcs(10.0, 0.0), Region(950, 950, 1000, 1000))], 12)
    assert where(Area(elsewhere), ffis, tmp_path) == []


def test_the_command_names_sector_camera_ccd_and_pixel(ffis, capsys):
    ra, dec = sky(120.0, 230.0)
    assert cli.main(["where", "--target", f"{ra:.6f} {dec:.6f}", "--ffi-dir", str(ffis)]) == 0
    assert f"sector 20, camera 3, CCD 3, pixel (120.0, 230.0) ({NAME}):" in capsys.readouterr().out
    assert cli.main(["where", "--target", "10 -60", "--ffi-dir", str(ffis)]) == 1
    assert "10 -60: on no CCD of the FFIs in" in capsys.readouterr().out
    assert cli.main(["where", "--target", "10 -60", "--ffi-dir", str(ffis / "none")]) == 2
    assert "no FFI in it or below it" in capsys.readouterr().err
