"""Pages of a made-up template and a made-up sector."""

import re
import shutil
import subprocess
from html.parser import HTMLParser

import matplotlib.image
import numpy as np
import pytest
import tesswcs
from astropy.coordinates import SkyCoord
from astropy.table import Table
from made_up_template import make_field
from numpy.testing import assert_allclose

from syndiff_tasks.geometry import footprint
from syndiff_tasks.geometry.rings import rings_v3
from syndiff_tasks.report import difference, page
from syndiff_tasks.report.product import read_template

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
VOID = {"meta", "img", "br"}


class Checker(HTMLParser):
    """Checks that tags close in order, and gathers links, pictures and text."""

    def __init__(self):
        super().__init__()
        self.open, self.links, self.pictures, self.tags, self.text = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "a":
            self.links.append(dict(attrs)["href"])
        if tag == "img":
            self.pictures.append(dict(attrs)["src"])
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)


def checked(text):
    checker = Checker()
    checker.feed(text)
    checker.close()
    assert checker.open == []
    return checker


def skycell_table():
    table = rings_v3()
    rows = []
    for name, bands in (("skycell.2556.080", "rizy"), ("skycell.2556.081", "riz"), ("skycell.2555.089", "")):
        ra, dec = footprint.corners(table.skycell(name))
        row = {"NAME": name, "BANDS": bands, "PIXELS": 12345}
        for corner in range(1, 5):
            row |= {f"RA_CORNER{corner}": ra[corner], f"DEC_CORNER{corner}": dec[corner]}
        rows.append(row)
    return Table(rows=rows)


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    path = tmp_path_factory.mktemp("field") / "template <&>.fits"
    field = make_field(path)
    template = read_template(path)
    preview = difference.preview(template, field.image, field.uncertainty)
    return template._replace(skycells=skycell_table()), preview


MANIFEST = {
    "settings": {"psf_sigma": 40.0, "weights": "r=0.238 <b>&"},
    "made": "2026-01-01T00:00:00+00:00",
    "notes": {"seconds": {"sampling": 12.34}},
}


@pytest.fixture(scope="module")
def text(seen):
    return page.template_page(*seen, "<script>alert(1)</script>", MANIFEST)


def test_a_page_is_sound_html_with_everything_inside(text):
    checker = checked(text)
    assert len(checker.pictures) == 3
    assert all(source.startswith("data:image/png;base64,") for source in checker.pictures)
    assert checker.links == []
    assert not {"script", "link", "iframe"} & set(checker.tags)


def test_a_page_asks_the_network_for_nothing(text):
    assert not re.search(r"https?://|//[a-z]|@import|url\(", re.sub(r"base64,[A-Za-z0-9+/=]+", "", text))


def test_a_page_escapes_what_it_is_given(text):
    assert "<script" not in text
    joined = "".join(checked(text).text)
    assert "<script>alert(1)</script>" in joined
    assert "r=0.238 <b>&" in joined
    assert "template <&>.fits" in joined


def test_a_page_tells_settings_timings_skycells_and_finds(text):
    joined = " ".join(checked(text).text)
    for told in ("psf_sigma", "40.0", "12.3 s", "skycell.2556.081", "12,345", "1011.29", "SAT_PS1", "made"):
        assert told in joined


def test_missing_bands_are_told_in_sentences(seen):
    template, preview = seen
    sentences = page.warnings(template, preview)
    assert "1 of 3 skycells have no image in Pan-STARRS1 at all: skycell.2555.089." in sentences
    assert any(sentence.startswith("1 of 3 skycells lacks the y band: skycell.2556.081.") for sentence in sentences)
    assert not any("the r band" in sentence for sentence in sentences)


def test_a_band_without_weight_is_not_missed(seen):
    template, preview = seen
    header = template.header.copy()
    for band, weight in zip("RIZY", (0.3, 0.4, 0.3, 0.0), strict=True):
        header[f"HIERARCH WEIGHT_{band}"] = weight
    assert not any("the y band" in sentence for sentence in page.warnings(template._replace(header=header), preview))


def test_many_skycells_are_counted_and_the_first_few_named(seen):
    template, preview = seen
    many = Table({"NAME": [f"skycell.2000.{n:03d}" for n in range(17)], "BANDS": ["ri"] * 8 + ["rizy"] * 9})
    sentences = page.warnings(template._replace(skycells=many), preview)
    assert any(s.startswith("8 of 17 skycells lack the z band:") and "and 3 more" in s for s in sentences)


def test_pixels_and_fits_that_are_not_to_be_trusted_are_told(seen):
    template, preview = seen
    text = " ".join(page.warnings(template, preview))
    assert "18 of 32,000 pixels (0.056 %) hold a star that is saturated" in text
    assert "24 of 32,000 pixels (0.075 %) have no Pan-STARRS1 data" in text
    assert "times as bright" not in text
    wrong = template._replace(zero_point=22.94)  # ten times fainter than 20.44
    assert "0.15 times as bright" in " ".join(page.warnings(wrong, preview))
    assert "times as bright" not in " ".join(page.warnings(wrong, preview, unit="electrons"))
    result = preview.result
    bad = preview._replace(result=result._replace(match=result.match._replace(mismatch=0.2, excess=4.0)))
    text = " ".join(page.warnings(template, bad))
    assert "Stars match to 20 % only" in text
    assert "Empty sky scatters 4.0 times" in text


def test_a_page_does_without_difference_skycells_and_manifest(seen):
    template, preview = seen
    silent = preview._replace(result=None, detections=None, reason="all is <dark>")
    checker = checked(page.template_page(template._replace(skycells=Table()), silent, "tess_ffic"))
    joined = " ".join(checker.text)
    assert len(checker.pictures) == 3
    assert "There is no difference image: all is <dark>." in joined
    assert "PSFSIGMA" in joined
    assert "Making" not in joined


def test_the_tangent_plane_agrees_with_astropy():
    rng = np.random.default_rng(1)
    centre = SkyCoord(359.5, 63.0, unit="deg")
    ra, dec = (359.5 + rng.uniform(-8, 8, 50)) % 360, 63 + rng.uniform(-8, 8, 50)
    xi, eta = page.tangent_plane(ra, dec, 359.5, 63.0)
    there = SkyCoord(ra, dec, unit="deg")
    radius = np.degrees(np.tan(centre.separation(there).rad))
    angle = centre.position_angle(there).rad
    assert_allclose(xi, radius * np.sin(angle), atol=1e-9)
    assert_allclose(eta, radius * np.cos(angle), atol=1e-9)
    assert np.isnan(page.tangent_plane(179.5, -60.0, 359.5, 63.0)).all()


def test_the_footprint_shows_each_skycell_and_names_the_projections(seen):
    axes = page.draw_footprint(seen[0]).axes[0]
    (outlines,) = axes.collections
    assert len(outlines.get_paths()) == 3
    assert {text.get_text() for text in axes.get_legend().get_texts()} == {"projection 2555", "projection 2556"}
    assert axes.xaxis_inverted()  # east is left


def test_the_coverage_histogram_counts_every_science_pixel_once(seen):
    heights = [bar.get_height() for bar in page.draw_coverage(seen[0]).axes[0].patches]
    assert sum(heights) == 32_000
    assert heights[0] == 24


def test_ccds_are_arranged_as_tess_sees_them():
    for sector in (2, 20):
        centre = {
            (camera, ccd): tesswcs.WCS.from_sector(sector, camera, ccd).pixel_to_world(1068, 1024).cartesian.xyz.value
            for camera in page.ARRANGEMENT
            for ccd in (1, 2, 3, 4)
        }
        middle = sum(centre.values())
        to_pole = sum(centre[4, ccd] - centre[1, ccd] for ccd in (1, 2, 3, 4))
        down = np.cross(middle, to_pole)  # of a viewer inside the sphere who has the pole at the right hand
        for camera, rows in page.ARRANGEMENT.items():
            (top_left, top_right), (low_left, low_right) = ([centre[camera, ccd] for ccd in row] for row in rows)
            assert (top_right - top_left) @ to_pole > 0 < (low_right - low_left) @ to_pole
            assert (low_left - top_left) @ down > 0 < (low_right - top_right) @ down


ENTRIES = [
    page.Entry(3, 3, "dx +0.5 <b>", "camera_3/ccd_3/a+b #1.html"),
    page.Entry(3, 3, "dx +0.0", "camera_3/ccd_3/c.html"),
    page.Entry(1, 4, "no page", ""),
]


def test_a_sector_page_shows_which_ccds_are_done_and_links_them():
    checker = checked(page.sector_page(20, ENTRIES))
    joined = " ".join(checker.text)
    assert "2 of 16 CCDs have a template" in joined
    assert joined.count("not yet") == 14
    assert checker.links == ["camera_3/ccd_3/c.html", "camera_3/ccd_3/a%2Bb%20%231.html"]
    assert "dx +0.5 <b>" in joined


def test_a_ccd_without_template_tells_why():
    joined = " ".join(checked(page.sector_page(20, ENTRIES, {(1, 1): "no <FFI>", (1, 4): "made"})).text)
    assert joined.count("no <FFI>") == 1 and "CCD 1 no <FFI>" in " ".join(joined.split())
    assert joined.count("not yet") == 13 and "made" not in joined.lower().split()


def test_an_empty_sector_is_shown_empty():
    assert " ".join(checked(page.sector_page(1, [])).text).count("not yet") == 16


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed here: apt-get install chromium")
def test_a_browser_shows_the_pages_without_a_broken_picture(seen, tmp_path):
    page.write(tmp_path / "template.html", *seen, MANIFEST)
    page.write_sector(tmp_path / "sector.html", 20, [page.Entry(3, 3, "dx 0", "template.html")])
    # A colour that only a shown picture (cividis at full coverage) or a shown style sheet (a CCD that is done) gives.
    for name, colour in (("template.html", (253, 231, 55)), ("sector.html", (230, 241, 238))):
        log = browse(tmp_path, name, f"--screenshot={tmp_path / 'page.png'}", "--window-size=1200,2600")
        for complaint in ("Content Security Policy", "ERR_", "Uncaught"):
            assert complaint not in log
        shot = matplotlib.image.imread(tmp_path / "page.png")[..., :3] * 255
        assert np.count_nonzero(np.abs(shot - colour).max(axis=-1) < 3) > 1000


def browse(folder, name, *options):
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += ["--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}", *options]
    command.append((folder / name).as_uri())
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stderr
