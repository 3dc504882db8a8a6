"""Pictures of a made-up template: what is drawn where, and that nothing is too small, too big or too empty for it."""

import matplotlib.image
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS
from made_up_template import REGION, ffi_header, make_field
from numpy.testing import assert_allclose, assert_array_equal

from syndiff_tasks.geometry.tansip import tansip_from_header
from syndiff_tasks.pixels.mask import DQ
from syndiff_tasks.report import difference, picture
from syndiff_tasks.report.caption import caption
from syndiff_tasks.report.downscale import block_mean, block_significance, most_serious_flag
from syndiff_tasks.report.figure import save
from syndiff_tasks.report.flags import FLAGS
from syndiff_tasks.report.product import read_template

NAME = "tess2020019135923-s0020-3-3-0165-s_ffic"


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    path = tmp_path_factory.mktemp("field") / "template.fits"
    field = make_field(path)
    template = read_template(path)
    return field, template, difference.preview(template, field.image, field.uncertainty)


@pytest.fixture(scope="module")
def figure(seen):
    return picture.draw(*seen[1:], NAME)


def words(figure):
    """Return all text of a figure."""
    figure.canvas.draw()
    return "\n".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))


def test_each_panel_has_a_title_and_a_unit(figure):
    text = words(figure)
    for expected in ("TESS Full Frame Image", "Pan-STARRS1 template", "Difference", "Coverage", "Flags", "electrons/s"):
        assert expected in text
    assert "saturated or blank in Pan-STARRS1 (18 px)" in text
    assert "repaired" not in text  # a flag that is not set has no legend


def test_the_caption_names_ffi_pixels_offset_skycells_and_psf(seen):
    _, template, _ = seen
    line = caption(template, NAME)
    for expected in (NAME, "x 900–1099, y 700–859", "offset (+0, +0) px", "3 skycells", "sigma 40 PS1 px"):
        assert expected in line


def test_the_transient_is_ringed_at_its_ffi_pixel(seen, figure):
    field = seen[0]
    panel = figure.axes[2]
    rings = [line.get_xydata()[0] for line in panel.lines if line.get_marker() == "o"]
    assert rings
    for ring in rings:
        assert_allclose(ring, field.transient[:2], atol=0.1)
    assert_allclose(panel.get_xlim(), (REGION[0] - 0.5, REGION[2] - 0.5))
    assert_allclose(panel.get_ylim(), (REGION[1] - 0.5, REGION[3] - 0.5))


def test_the_target_is_marked_at_its_ffi_pixel_on_three_panels(seen):
    _, template, preview = seen
    wcs = WCS(ffi_header())
    marked = template._replace(target=tuple(float(value) for value in wcs.all_pix2world(950.25, 800.5, 0)))
    figure = picture.draw(marked, preview, NAME)
    for axes in figure.axes[:3]:
        (cross,) = (line for line in axes.lines if line.get_label() == "target")
        assert_allclose(cross.get_xydata(), [[950.25, 800.5]], atol=1e-3)
    assert "green cross: target" in words(figure)


def test_a_target_off_the_pixels_is_not_marked(seen):
    _, template, preview = seen
    elsewhere = template._replace(target=tuple(float(v) for v in WCS(ffi_header()).all_pix2world(1100.0, 800.0, 0)))
    assert "target" not in words(picture.draw(elsewhere, preview, NAME)).replace(caption(elsewhere, NAME), "")


def test_ffi_and_template_are_drawn_on_one_stretch(figure):
    ffi, flux = (axes.images[0] for axes in figure.axes[:2])
    assert (ffi.norm.vmin, ffi.norm.vmax) == (flux.norm.vmin, flux.norm.vmax)


def test_a_bright_pixel_lies_where_its_ffi_coordinates_say(seen, figure):
    field, shown = seen[0], figure.axes[0].images[0]
    left, right, low, high = shown.get_extent()
    data = np.asarray(shown.get_array())
    x, y = field.saturated[0]  # the brightest star of the field
    row, column = np.unravel_index(np.nanargmax(data), data.shape)
    assert abs(left + (column + 0.5) * (right - left) / data.shape[1] - x) < 1
    assert abs(low + (row + 0.5) * (high - low) / data.shape[0] - y) < 1


def test_arrows_point_north_and_east():
    north, east = picture.directions(tansip_from_header(ffi_header()), 1000.0, 900.0)
    wcs = WCS(ffi_header())
    here = SkyCoord(*wcs.all_pix2world(1000, 900, 0), unit="deg")
    for arrow, angle in ((north, 0), (east, 90)):
        there = SkyCoord(*wcs.all_pix2world(1000 + arrow[0], 900 + arrow[1], 0), unit="deg")
        turned = (here.position_angle(there).deg - angle + 180) % 360 - 180
        assert abs(turned) < 0.1


def test_a_block_mean_ignores_pixels_that_are_not_finite():
    image = np.arange(35.0).reshape(5, 7)
    image[0, 0] = image[4, 6] = np.nan
    truth = [
        [np.nanmean(image[3 * j : 3 * j + 3, 3 * i : 3 * i + 3]) if (j, i) != (1, 2) else image[3, 6] for i in range(3)]
        for j in range(2)
    ]
    assert_allclose(block_mean(image, 3), truth)


def test_blocks_without_data_are_nan():
    assert np.isnan(block_mean(np.full((4, 4), np.nan), 2)).all()


def test_white_noise_keeps_unit_width_in_blocks():
    rng = np.random.default_rng(1)
    noise = rng.uniform(1, 3, (400, 400)).astype(np.float32)
    pixels = (rng.normal(0, 1, noise.shape) * noise).astype(np.float32)
    pixels[rng.random(noise.shape) < 0.3] = np.nan
    noise[np.isnan(pixels)] = np.nan
    assert_allclose(np.std(block_significance(pixels, noise, 4)), 1, rtol=0.02)


def test_the_most_serious_flag_of_a_block_is_shown():
    dq = np.zeros((4, 4), dtype=np.int32)
    dq[0, 1] = int(DQ.BAND_MISSING)
    dq[1, 0] = int(DQ.SAT_PS1)
    dq[3, 3] = int(DQ.PROJECTION_SEAM | DQ.NO_PS1)
    order = [bit for bit, _, _ in FLAGS]
    expected = [[order.index(DQ.SAT_PS1), np.nan], [np.nan, order.index(DQ.NO_PS1)]]
    assert_array_equal(most_serious_flag(dq, 2), expected)


def test_each_flag_has_a_meaning_and_its_own_color():
    assert {bit for bit, _, _ in FLAGS} == set(DQ)
    assert len({color for _, _, color in FLAGS}) == len(DQ)


@pytest.mark.parametrize("region", [(900, 700, 910, 708), (900, 700, 1500, 740), (900, 700, 920, 900)])
def test_a_tiny_long_or_high_region_can_be_drawn(region, tmp_path):
    path = tmp_path / "template.fits"
    field = make_field(path, region=region, n_stars=20)
    template = read_template(path)
    preview = difference.preview(template, field.image, field.uncertainty)
    save(picture.draw(template, preview, NAME), tmp_path / "picture.png")
    shape = matplotlib.image.imread(tmp_path / "picture.png").shape
    assert shape[1] == 1660
    assert 800 < shape[0] < 1600


def test_the_picture_of_a_template_without_data_says_so(seen):
    field, template, _ = seen
    nothing = np.full_like(template.flux, np.nan)
    empty = template._replace(flux=nothing, variance=nothing, coverage=nothing)
    preview = difference.preview(empty, np.full_like(field.image, np.nan), field.uncertainty)
    text = words(picture.draw(empty, preview, NAME))
    assert text.count("no data") >= 3
    assert "no difference image" in text


def test_a_large_frame_is_drawn_in_blocks(seen):
    field, template, _ = seen
    rng = np.random.default_rng(1)
    shape = (650, 1300)
    flux = (rng.pareto(1.5, shape) * 30).astype(np.float32)
    large = template._replace(
        flux=flux,
        variance=np.ones_like(flux),
        coverage=np.ones_like(flux),
        dq=np.zeros(shape, dtype=np.int32),
        region=template.region._replace(x0=0, y0=0, x1=shape[1], y1=shape[0]),
    )
    preview = difference.preview(large, flux * np.float32(0.015) + rng.normal(0, 1, shape).astype(np.float32))
    figure = picture.draw(large, preview, NAME)
    for axes in figure.axes[:5]:
        assert axes.images[0].get_array().shape == (217, 434)
    assert "no pixel is flagged" in words(figure)
