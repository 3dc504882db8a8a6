"""The page of a made-up sector, and the thumbnails on it."""

import io
import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest
import tesswcs
from astropy.io import fits
from html_checker import CHROMIUM, checked, screenshot
from made_up_template import make_field

from syndiff_tasks.report import sector_page
from syndiff_tasks.report.html import data_uri
from syndiff_tasks.report.thumbnail import thumbnail


def test_ccds_are_arranged_as_on_the_sky():
    for sector in (2, 20):
        center = {
            (camera, ccd): tesswcs.WCS.from_sector(sector, camera, ccd).pixel_to_world(1068, 1024).cartesian.xyz.value
            for camera in sector_page.ARRANGEMENT
            for ccd in (1, 2, 3, 4)
        }
        middle = sum(center.values())
        to_pole = sum(center[4, ccd] - center[1, ccd] for ccd in (1, 2, 3, 4))
        down = np.cross(middle, to_pole)  # of a viewer inside the sphere with the pole to the right
        for camera, rows in sector_page.ARRANGEMENT.items():
            (top_left, top_right), (low_left, low_right) = ([center[camera, ccd] for ccd in row] for row in rows)
            assert (top_right - top_left) @ to_pole > 0 < (low_right - low_left) @ to_pole
            assert (low_left - top_left) @ down > 0 < (low_right - top_right) @ down


ENTRIES = [
    sector_page.Entry(3, 3, "template_dx+0.5.fits", "dx +0.5 <b>", "camera_3/ccd_3/a+b #1.html"),
    sector_page.Entry(3, 3, "template_dx+0.0.fits", "dx +0.0", "camera_3/ccd_3/c.html", b"a thumbnail"),
    sector_page.Entry(1, 4, "template_without_page.fits", "dx +0.0", ""),
]


def test_a_sector_page_names_shows_and_links_its_templates():
    checker = checked(sector_page.sector_page(20, ENTRIES))
    joined = " ".join(checker.text)
    assert "2 of 16 CCDs have a template" in joined
    assert joined.count("not yet") == 14
    links = ["camera_3/ccd_3/c.html", "camera_3/ccd_3/a%2Bb%20%231.html"]
    assert checker.links == [links[0], *links, *links]  # thumbnail, focal plane and table
    assert checker.pictures == [data_uri(b"a thumbnail")]
    for name in ("template_dx+0.5.fits", "template_dx+0.0.fits", "template_without_page.fits"):
        assert name in joined
    assert "dx +0.5 <b>" in joined


def test_a_ccd_without_template_says_why():
    joined = " ".join(checked(sector_page.sector_page(20, ENTRIES, {(1, 1): "no <FFI>", (1, 4): "made"})).text)
    assert joined.count("no <FFI>") == 1 and "CCD 1 no <FFI>" in " ".join(joined.split())
    assert joined.count("not yet") == 13 and "made" not in joined.lower().split()


def test_an_empty_sector_is_shown_empty():
    assert " ".join(checked(sector_page.sector_page(1, [])).text).count("not yet") == 16


@pytest.mark.parametrize(("shape", "height", "width"), [((40, 64), 80, 128), ((2078, 2136), 149, 153)])
def test_a_thumbnail_shows_a_bright_source_dark_at_its_place_with_y_up(tmp_path, shape, height, width):
    flux = np.random.default_rng(1).normal(5, 1, shape).astype(np.float32)
    y, x, side = shape[0] // 4, shape[1] // 2, shape[0] // 5
    flux[y : y + side, x : x + side] = 1e5
    flux[-shape[0] // 8 :] = np.nan
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(flux, name="FLUX_SUM")]).writeto(tmp_path / "template.fits")
    gray = matplotlib.image.imread(io.BytesIO(thumbnail(tmp_path / "template.fits")), format="png")
    assert gray.shape == (height, width)
    rows, columns = np.nonzero(gray < 0.05)
    assert abs((height - 0.5 - rows.mean()) / height - (y + side / 2) / shape[0]) < 0.01
    assert abs((columns.mean() + 0.5) / width - (x + side / 2) / shape[1]) < 0.01
    assert np.ptp(gray[: height // 9]) == 0  # no data


def test_a_template_without_data_has_a_blank_thumbnail(tmp_path):
    image = fits.ImageHDU(np.full((8, 8), np.nan, np.float32), name="FLUX_SUM")
    fits.HDUList([fits.PrimaryHDU(), image]).writeto(tmp_path / "template.fits")
    assert np.ptp(matplotlib.image.imread(io.BytesIO(thumbnail(tmp_path / "template.fits")), format="png")) == 0


def test_tasks_and_the_page_of_a_sector_import_no_matplotlib():
    program = (
        "import sys, syndiff_tasks.tasks, syndiff_tasks.report.sector_page, syndiff_tasks.report.thumbnail\n"
        "sys.exit('matplotlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed here: apt-get install chromium")
def test_a_browser_shows_the_page_of_a_sector_on_a_narrow_screen(tmp_path):
    make_field(tmp_path / "template.fits")
    entry = sector_page.Entry(3, 3, "template.fits", "dx 0", "template.html", thumbnail(tmp_path / "template.fits"))
    sector_page.write(tmp_path / "sector.html", 20, [entry])
    finished = (230, 241, 238)  # background of a CCD that is done
    assert np.count_nonzero(np.abs(screenshot(tmp_path, "sector.html", width=390) - finished).max(axis=-1) < 3) > 1000
