"""The page of a made-up template, its caveats and its two drawings."""

import re

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import Table
from html_checker import CHROMIUM, checked, screenshot
from made_up_template import make_field
from numpy.testing import assert_allclose

from syndiff_tasks.geometry import footprint
from syndiff_tasks.geometry.rings import rings_v3
from syndiff_tasks.geometry.tansip import pixel_to_sky
from syndiff_tasks.pixels.mask import DQ
from syndiff_tasks.report import difference, template_page
from syndiff_tasks.report.caveats import caveats
from syndiff_tasks.report.coverage_histogram import draw_coverage
from syndiff_tasks.report.figure import png
from syndiff_tasks.report.footprint_drawing import draw_footprint, tangent_plane
from syndiff_tasks.report.html import data_uri
from syndiff_tasks.report.picture import draw
from syndiff_tasks.report.product import read_template


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


PICTURE = b"\x89PNG, as far as a page is concerned"

MANIFEST = {
    "settings": {"psf_sigma": 40.0, "weights": "r=0.238 <b>&"},
    "made": "2026-01-01T00:00:00+00:00",
    "notes": {"seconds": {"sampling": 12.34}},
}


@pytest.fixture(scope="module")
def text(seen):
    return template_page.template_page(*seen, PICTURE, "<script>alert(1)</script>", MANIFEST)


def test_a_page_is_well_formed_html_with_everything_inside(text):
    checker = checked(text)
    assert len(checker.pictures) == 3
    assert all(source.startswith("data:image/png;base64,") for source in checker.pictures)
    assert checker.links == []
    assert not {"script", "link", "iframe"} & set(checker.tags)


def test_a_page_requests_nothing_from_the_network(text):
    assert not re.search(r"https?://|//[a-z]|@import|url\(", re.sub(r"base64,[A-Za-z0-9+/=]+", "", text))


def test_a_page_embeds_the_given_picture_byte_by_byte(text):
    assert checked(text).pictures[0] == data_uri(PICTURE)


def test_a_page_escapes_every_value(text):
    assert "<script" not in text
    joined = "".join(checked(text).text)
    assert "<script>alert(1)</script>" in joined
    assert "r=0.238 <b>&" in joined
    assert "template <&>.fits" in joined


def test_a_page_shows_settings_timings_skycells_and_detections(text):
    joined = " ".join(checked(text).text)
    for expected in ("psf_sigma", "40.0", "12.3 s", "skycell.2556.081", "12,345", "1011.29", "SAT_PS1", "Production"):
        assert expected in joined


def test_caveats_name_the_skycells_that_lack_bands(seen):
    template, preview = seen
    sentences = caveats(template, preview)
    assert "Pan-STARRS1 has no image of 1 of 3 skycells: skycell.2555.089." in sentences
    assert any(sentence.startswith("1 of 3 skycells lacks the y band: skycell.2556.081.") for sentence in sentences)
    assert not any("the r band" in sentence for sentence in sentences)


def test_a_band_without_weight_is_not_missing(seen):
    template, preview = seen
    header = template.header.copy()
    for band, weight in zip("RIZY", (0.3, 0.4, 0.3, 0.0), strict=True):
        header[f"HIERARCH WEIGHT_{band}"] = weight
    assert not any("the y band" in sentence for sentence in caveats(template._replace(header=header), preview))


def test_many_skycells_are_counted_and_the_first_few_named(seen):
    template, preview = seen
    many = Table({"NAME": [f"skycell.2000.{n:03d}" for n in range(17)], "BANDS": ["ri"] * 8 + ["rizy"] * 9})
    sentences = caveats(template._replace(skycells=many), preview)
    assert any(s.startswith("8 of 17 skycells lack the z band:") and "and 3 more" in s for s in sentences)


def test_a_page_warns_that_excluding_starcore_costs_bright_stars_their_cores(seen):
    template, preview = seen
    for bits, pixels, warned in (("12", "exclude", True), ("5,12", "exclude", True), ("12", "flag", False)):
        header = template.header.copy()
        header["IGNBITS"], header["IGNPIX"] = bits, pixels
        text = " ".join(caveats(template._replace(header=header), preview))
        assert ("Bright stars lack their cores" in text) == warned


def test_caveats_name_bad_pixels_and_a_bad_difference(seen):
    template, preview = seen
    text = " ".join(caveats(template, preview))
    assert "18 of 32,000 pixels (0.056 %) are affected by a bright star that is saturated" in text
    assert "24 of 32,000 pixels (0.075 %) have no Pan-STARRS1 data" in text
    assert "times as bright" not in text
    # 1 e/s at 23.312 where it is 20.812, and 0.0211 e/s a count: 0.0211 / 0.1.
    wrong = template._replace(zero_point=23.312)
    assert "0.21 times as bright" in " ".join(caveats(wrong, preview))
    assert "times as bright" not in " ".join(caveats(wrong, preview, unit="electrons"))
    result = preview.result
    bad = preview._replace(result=result._replace(mismatch=0.2, excess=4.0))
    text = " ".join(caveats(template, bad))
    assert "Stars are subtracted to 20 % of their brightness only" in text
    assert "Empty sky scatters 4.0 times" in text


def test_a_page_with_band_missing_pixels_says_where_the_images_end(seen):
    template, preview = seen
    complete = Table({"NAME": ["skycell.2556.080"], "BANDS": ["rizy"], "PIXELS": [32000]})
    dq = template.dq.copy()
    dq[:3, :89] |= int(DQ.BAND_MISSING)

    def shown(dq):
        page = template_page.template_page(template._replace(skycells=complete, dq=dq), preview, PICTURE, "tess_ffic")
        return " ".join("".join(checked(page).text).split())

    assert "images of every skycell in all bands used (r, i, z, y). Parts of these images are blank" in shown(dq)
    assert "267 TESS pixels lack one or more bands there (flag BAND_MISSING)" in shown(dq)
    assert "Parts of these images" not in shown(template.dq)


def test_a_page_shows_the_start_of_the_exposure_and_the_target(seen):
    template, preview = seen
    header = template.header.copy()
    header["MJD-OBS"] = 58867.5851
    marked = template._replace(header=header, target=(121.41234, 63.2))
    joined = " ".join(checked(template_page.template_page(marked, preview, PICTURE, "tess_ffic")).text)
    assert "2020-01-19 14:02 UTC" in joined  # Time(58867.5851, format="mjd").iso, to the minute
    assert "target at RA 121.41234, Dec +63.20000" in joined


def test_a_page_works_without_difference_skycells_and_manifest(seen):
    template, preview = seen
    silent = preview._replace(result=None, detections=None, reason="all is <dark>")
    checker = checked(template_page.template_page(template._replace(skycells=Table()), silent, PICTURE, "tess_ffic"))
    joined = " ".join(checker.text)
    assert len(checker.pictures) == 3
    assert "There is no difference image: all is <dark>." in joined
    assert "PSFSIGMA" in joined
    assert "Production" not in joined


def test_the_tangent_plane_agrees_with_astropy():
    rng = np.random.default_rng(1)
    center = SkyCoord(359.5, 63.0, unit="deg")
    ra, dec = (359.5 + rng.uniform(-8, 8, 50)) % 360, 63 + rng.uniform(-8, 8, 50)
    xi, eta = tangent_plane(ra, dec, 359.5, 63.0)
    there = SkyCoord(ra, dec, unit="deg")
    radius = np.degrees(np.tan(center.separation(there).rad))
    angle = center.position_angle(there).rad
    assert_allclose(xi, radius * np.sin(angle), atol=1e-9)
    assert_allclose(eta, radius * np.cos(angle), atol=1e-9)
    assert np.isnan(tangent_plane(179.5, -60.0, 359.5, 63.0)).all()


def test_the_footprint_shows_each_skycell_and_names_the_projections(seen):
    axes = draw_footprint(seen[0]).axes[0]
    (outlines,) = axes.collections
    assert len(outlines.get_paths()) == 3
    assert {text.get_text() for text in axes.get_legend().get_texts()} == {"projection 2555", "projection 2556"}
    assert axes.xaxis_inverted()  # east is left


def test_the_footprint_marks_the_target_at_its_offset_from_the_center(seen):
    ra0, dec0 = (float(value) for value in pixel_to_sky(seen[0].tansip, 99.5, 79.5))
    axes = draw_footprint(seen[0]._replace(target=(ra0, dec0 + 0.1))).axes[0]
    (mark,) = (line for line in axes.lines if line.get_label() == "target")
    assert_allclose(mark.get_xydata(), [[0, np.degrees(np.tan(np.radians(0.1)))]], atol=1e-9)
    assert "target" in [text.get_text() for text in axes.get_legend().get_texts()]


def test_the_coverage_histogram_counts_every_science_pixel_once(seen):
    heights = [bar.get_height() for bar in draw_coverage(seen[0]).axes[0].patches]
    assert sum(heights) == 32_000
    assert heights[0] == 24


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed here: apt-get install chromium")
@pytest.mark.parametrize("width", [1200, 390])
def test_a_browser_shows_the_page_of_a_template_with_its_pictures(seen, tmp_path, width):
    template_page.write(tmp_path / "template.html", *seen, png(draw(*seen, "tess_ffic")), MANIFEST)
    shot = screenshot(tmp_path, "template.html", width)
    full_coverage = (253, 231, 55)  # the last color of cividis
    assert np.count_nonzero(np.abs(shot - full_coverage).max(axis=-1) < 3) > 1000
