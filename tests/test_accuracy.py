"""How right a template is: the stages from native pixels to the written file, against truth that needs none of them."""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from made_up_chain import (
    RECIPE,
    SIGMA,
    blurred,
    native_places,
    pieces,
    quiet,
    sources_at,
    stars_on,
    templates,
    write_ffi,
)
from made_up_ffi import tess_wcs
from numpy.testing import assert_allclose
from scipy.special import ndtr

from syndiff_tasks.chain import combine, convolve, downsample, stack_files
from syndiff_tasks.chain.plan import Plan, plan_ffi, write_map
from syndiff_tasks.demo import archive, frame, sky, truth
from syndiff_tasks.demo.gaussians import gaussian_star
from syndiff_tasks.geometry import footprint
from syndiff_tasks.geometry.region import Region, parse_region
from syndiff_tasks.geometry.rings import rings_v3
from syndiff_tasks.geometry.skycell import skycell_wcs
from syndiff_tasks.geometry.skycell_table import SKYCELL_COLUMNS
from syndiff_tasks.io.archive import RetryPolicy
from syndiff_tasks.pixels.mask import DQ
from syndiff_tasks.targets import WholeTarget

OFFSETS = [(0.0, 0.0), (0.3, -0.2), (0.003, 0.0)]
SURVEY = rings_v3()

POLAR = tess_wcs(40.9, 87.1, 250.0)
# World coordinates of an FFI, region, and how many skycells meet there.
JUNCTION = "four skycells of two projections"
PLACES = {
    JUNCTION: (frame.TANSIP, "1706,750,1726,770", 4),
    "three projections": (frame.TANSIP, "1583,1293,1601,1309", 3),
    "four skycells at the pole": (POLAR, "538,1071,554,1087", 4),
    "four projections at RA 0": (tess_wcs(0.3, 12.0, 130.0), "762,885,778,901", 4),
    "first corner of a CCD": (frame.TANSIP, "44,0,60,16", 1),
    "last corner of a CCD": (frame.TANSIP, "2076,2032,2092,2048", 1),
}


class Made(NamedTuple):
    """A region's stars, and the written template of each offset."""

    plan: Plan
    sources: pd.DataFrame
    x: np.ndarray
    y: np.ndarray
    groups: dict
    files: dict


def star_grid(region, spacing=5.3):
    """Stars from corner to corner of a region, the middle included, none nearer to another than 4.5 px."""
    rng = np.random.default_rng(list(region))
    x, y = (
        np.append(np.arange(low + 0.2, high - 1, spacing), high - 1.2)
        for low, high in ((region.x0, region.x1), (region.y0, region.y1))
    )
    x, y = (grid.ravel() + rng.uniform(-0.4, 0.4, grid.size) for grid in np.meshgrid(x, y))
    middle = (region.x0 + region.x1) / 2, (region.y0 + region.y1) / 2
    far = np.hypot(x - middle[0], y - middle[1]) > 4.5
    return np.append(x[far], middle[0]), np.append(y[far], middle[1])


def make(root, place, x=None, y=None):
    tansip, roi, _ = PLACES[place]
    plan = plan_ffi(write_ffi(root, tansip), roi)
    if x is None:
        x, y = star_grid(plan.region)
    sources = sources_at(plan.tansip, x, y, np.random.default_rng(2).uniform(14, 18, x.size))
    groups = blurred(root, plan, lambda piece: stars_on(piece, sources))
    files = dict(zip(OFFSETS, templates(root, plan, groups, OFFSETS), strict=True))
    return Made(plan, sources, x, y, groups, files)


@pytest.fixture(scope="module", params=PLACES)
def anywhere(request, tmp_path_factory):
    return make(tmp_path_factory.mktemp("place"), request.param)


@pytest.fixture(scope="module")
def junction(tmp_path_factory):
    """Stars that keep 4 px from the edges of the region, so that all of their light is in it."""
    x, y = (grid.ravel() for grid in np.meshgrid([1710.3, 1716.1, 1721.8], [754.4, 760.0, 765.7]))
    return make(tmp_path_factory.mktemp("junction"), JUNCTION, x, y)


def boxes(x, y, shape, half=3):
    """Slices of the pixels within `half` px of positions, as far as they are there."""
    for column, row in zip(np.rint(x).astype(int), np.rint(y).astype(int), strict=True):
        rows, columns = (
            slice(max(place - half, 0), min(place + half + 1, size))
            for place, size in ((row, shape[0]), (column, shape[1]))
        )
        if rows.start < rows.stop and columns.start < columns.stop:
            yield rows, columns


def barycentre(image, box):
    """Barycentre x, y of the light in a box of an image [px]."""
    rows, columns = np.mgrid[box]
    light = image[box].astype(float)
    return (columns * light).sum() / light.sum(), (rows * light).sum() / light.sum()


def read(path, name="FLUX_SUM"):
    return fits.getdata(path, name).astype(float)


# --- stars ------------------------------------------------------------------------------------------------------------


def test_the_places_are_what_they_are_called():
    for name, (tansip, roi, count) in PLACES.items():
        region = parse_region(roi)
        assert len(footprint.footprint_of(tansip, region, SURVEY).skycells) >= count, name


@pytest.mark.parametrize("offset", OFFSETS)
def test_each_star_has_flux_place_and_shape_of_the_analytic_truth(anywhere, offset):
    made = read(anywhere.files[offset])
    region = anywhere.plan.region
    expected = truth.expected_template(anywhere.sources, anywhere.plan.tansip, region, SIGMA, offset)
    assert np.isfinite(made).all()
    seen = list(boxes(anywhere.x + offset[0] - region.x0, anywhere.y + offset[1] - region.y0, made.shape))
    assert len(seen) == len(anywhere.x) >= 9
    for box in seen:
        assert np.abs(made[box] - expected[box]).max() < 1e-3 * expected[box].max()
        assert made[box].sum() == pytest.approx(expected[box].sum(), rel=1e-3)
        assert_allclose(barycentre(made, box), barycentre(expected, box), atol=0.002)


@pytest.mark.parametrize("offset", OFFSETS)
def test_stars_have_their_catalogue_flux_one_by_one_and_together(junction, offset):
    made, region = read(junction.files[offset]), junction.plan.region
    flux = sky.weighted_counts(junction.sources)
    # All but 1e-6 of a star is within 2 px, 4 sigma.
    seen = boxes(junction.x - region.x0 + offset[0], junction.y - region.y0 + offset[1], made.shape, half=2)
    assert_allclose([made[box].sum() for box in seen], flux, rtol=1e-3)
    assert made.sum() == pytest.approx(flux.sum(), rel=1e-4)


def near_pole(root, roi):
    """How far a template around Dec 87.97 is off [of its highest peak], its coverage and flags."""
    plan = plan_ffi(write_ffi(root, POLAR), roi)
    sources = sources_at(plan.tansip, *star_grid(plan.region), 15)
    groups = blurred(root, plan, lambda piece: stars_on(piece, sources))
    (path,) = templates(root, plan, groups, OFFSETS[:1])
    expected = truth.expected_template(sources, plan.tansip, plan.region, SIGMA)
    return np.abs(read(path) - expected) / expected.max(), read(path, "COVERAGE"), fits.getdata(path, "DQ")


def test_where_a_skycells_image_ends_too_early_its_neighbours_go_on(tmp_path):
    """Where the last two rings meet, images end 0 to 200 px beyond what is used of them: alone, 0.47 would be wrong."""
    off, coverage, dq = near_pole(tmp_path, "760,1343,776,1359")
    assert coverage.min() > 0.999
    # A star on the very end of an image is shared out twice on one side of it only.
    assert off.max() < 0.01
    assert off[(dq & DQ.PROJECTION_SEAM) == 0].max() < 1e-3


def test_where_all_images_end_too_early_coverage_or_flags_mark_each_wrong_pixel(tmp_path):
    """At RA 180 no image of the two rings reaches a strip of some 200 px."""
    off, coverage, dq = near_pole(tmp_path, "309,1337,327,1355")
    assert 0.3 < (coverage > 0.9999).mean() < 0.8 and np.nanmax(off) > 0.1
    wrong = np.isnan(off) | (off > 1e-3)
    assert coverage[wrong].max() < 0.9999
    assert ((dq[wrong] & DQ.PROJECTION_SEAM) > 0).all()
    assert np.array_equal(np.isnan(off), (dq & (DQ.NO_PS1 | DQ.LOW_COVERAGE)) > 0)


def test_electrons_are_counts_times_the_ratio_of_zero_points(junction, tmp_path):
    (path,) = templates(tmp_path, junction.plan, junction.groups, OFFSETS[:1], units="electrons")
    # 10^(-0.4 (25 - 20.812)), docs/facts.md §4.
    for name, power in (("FLUX_SUM", 1), ("VARIANCE", 2)):
        assert_allclose(read(path, name), 0.02112516**power * read(junction.files[OFFSETS[0]], name), rtol=1e-5)
    header = fits.getheader(path, "FLUX_SUM")
    assert (header["BUNIT"], header["ZEROPNT"]) == ("electron/s", 20.812)


@pytest.mark.parametrize("bin", [1, 8])
def test_blocks_of_1_and_of_8_agree_with_blocks_of_4(junction, tmp_path, bin):
    plan = plan_ffi(junction.plan.path, "1714,758,1718,762")
    finer = blurred(tmp_path, plan, lambda piece: stars_on(piece, junction.sources), bin)
    usual = blurred(tmp_path, plan, lambda piece: stars_on(piece, junction.sources), 4)
    for offset in OFFSETS[:2]:
        (tmp_path / "a").mkdir(exist_ok=True)
        one = read(templates(tmp_path, plan, finer, [offset])[0])
        other = read(templates(tmp_path / "a", plan, usual, [offset])[0])
        assert not np.array_equal(one, other)
        assert np.abs(one - other).max() < 5e-4 * other.max()


# --- constant sky -----------------------------------------------------------------------------------------------------


def solid_angles(tansip, region, offset):
    """Solid angle of each pixel of a region [sr], of its corners as astropy has them on the sky."""
    x, y = np.arange(region.x0, region.x1 + 1) - 0.5 - offset[0], np.arange(region.y0, region.y1 + 1) - 0.5 - offset[1]
    ra, dec = np.radians(truth.astropy_wcs(tansip).all_pix2world(*np.meshgrid(x, y), 0))
    corner = np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)
    diagonals = corner[1:, 1:] - corner[:-1, :-1], corner[1:, :-1] - corner[:-1, 1:]
    return np.linalg.norm(np.cross(*diagonals), axis=-1) / 2


# Of a native pixel in the middle of a projection; a mantissa that rounding would not leave alone.
BRIGHTNESS = 1.3 / math.radians(0.25 / 3600) ** 2


def even_sky(piece):
    """Flux of a sky of constant surface brightness: a pixel's solid angle shrinks with cos^3 of the angle off-axis."""
    step = math.radians(piece.skycell.cdelt1)
    x = (np.arange(piece.x0, piece.x1) - (piece.skycell.crpix1 - 1)) * step
    y = (np.arange(piece.y0, piece.y1) - (piece.skycell.crpix2 - 1)) * step
    return (BRIGHTNESS * step**2 * (1 + x**2 + y[:, None] ** 2) ** -1.5).astype(np.float32)


@pytest.mark.parametrize("place", [JUNCTION, "three projections", "first corner of a CCD"])
def test_a_constant_sky_gives_each_pixel_the_light_of_its_solid_angle(tmp_path, place):
    tansip, roi, _ = PLACES[place]
    plan = plan_ffi(write_ffi(tmp_path, tansip), roi)
    groups = blurred(tmp_path, plan, even_sky)
    for offset, path in zip(OFFSETS[:2], templates(tmp_path, plan, groups, OFFSETS[:2]), strict=True):
        light = BRIGHTNESS * solid_angles(tansip, plan.region, offset)
        assert_allclose(read(path), light, rtol=1e-4)
        assert read(path).sum() == pytest.approx(light.sum(), rel=1e-4)
        assert_allclose(read(path, "COVERAGE"), 1, atol=1e-6)


def holes_under(plan, places):
    """Boxes (x0, y0, x1, y1) of native pixels around FFI positions, by the skycell that owns the position."""
    found = {}
    for (x, y), (width, height) in places.items():
        skycell = plan.footprint.skycells[plan.footprint.owner[y - plan.region.y0, x - plan.region.x0]]
        px, py = (round(float(value)) for value in native_places(plan.tansip, skycell, x, y))
        found.setdefault(skycell.name, []).append((px, py, px + width, py + height))
    return found


def true_coverage(plan, holes, offset):
    """Share of the blurred area of each pixel outside the holes: error functions on 8 x 8 nodes, places by astropy."""
    node, weight = np.polynomial.legendre.leggauss(8)
    covered = np.ones(plan.region.shape)
    for index, skycell in enumerate(plan.footprint.skycells):
        row, column = np.nonzero(plan.footprint.owner == index)
        v, u = (grid.ravel() / 2 for grid in np.meshgrid(node, node, indexing="ij"))
        x = column[:, None] + plan.region.x0 + u - offset[0]
        y = row[:, None] + plan.region.y0 + v - offset[1]
        px, py = native_places(plan.tansip, skycell, x, y)
        for x0, y0, x1, y1 in holes.get(skycell.name, []):
            across, along = (
                ndtr((high - 0.5 - place) / SIGMA) - ndtr((low - 0.5 - place) / SIGMA)
                for low, high, place in ((x0, x1, px), (y0, y1, py))
            )
            covered[row, column] -= (across * along) @ np.outer(weight, weight).ravel() / 4
    return covered


def test_the_sky_is_constant_up_to_holes_and_coverage_tells_them(tmp_path):
    plan = plan_ffi(write_ffi(tmp_path), PLACES[JUNCTION][1])
    holes = holes_under(plan, {(1710, 754): (35, 50), (1711, 765): (420, 360), (1719, 757): (130, 8)})
    assert len(holes) == 3

    def painted(piece):
        flux = even_sky(piece)
        for x0, y0, x1, y1 in holes.get(piece.skycell.name, []):
            flux[y0 - piece.y0 : y1 - piece.y0, x0 - piece.x0 : x1 - piece.x0] = np.nan
        return flux

    groups = blurred(tmp_path, plan, painted)
    for offset, path in zip(OFFSETS[:2], templates(tmp_path, plan, groups, OFFSETS[:2]), strict=True):
        expected = true_coverage(plan, holes, offset)
        assert expected.min() < 0.01 and (expected > 0.999).any() and ((expected > 0.5) & (expected < 0.95)).sum() > 9
        coverage, flux, dq = read(path, "COVERAGE"), read(path), fits.getdata(path, "DQ")
        assert_allclose(coverage, expected, atol=1e-3)
        kept = np.isfinite(flux)
        assert np.array_equal(kept, coverage >= 0.5)
        assert np.array_equal(~kept, (dq & (DQ.LOW_COVERAGE | DQ.NO_PS1)) > 0)
        assert_allclose(flux[kept], (BRIGHTNESS * solid_angles(plan.tansip, plan.region, offset))[kept], rtol=1e-4)


# --- world coordinates of the products --------------------------------------------------------------------------------


def off_their_pixels(path, sources, half):
    """How far each star's light is from where the file's own header has the star [px], by astropy.

    Pixels of 2 sigma move a barycentre by exp(-2 pi^2 sigma^2) / pi = 0.003 px, though all of them be right.
    """
    with fits.open(path) as hdus:
        image, header = hdus["FLUX_SUM"].data, hdus["FLUX_SUM"].header
    x, y = WCS(header).all_world2pix(sources["ra"], sources["dec"], 0)
    found = np.array([barycentre(image, box) for box in boxes(x, y, image.shape, half)])
    return np.hypot(*(found.T - (x, y)))


@pytest.mark.parametrize("offset", OFFSETS)
def test_stars_fall_on_the_pixels_that_the_written_world_coordinates_say(junction, offset):
    off = off_their_pixels(junction.files[offset], junction.sources, half=2)
    assert len(off) == len(junction.sources)
    assert off.max() < 0.01


def test_oversampled_stars_fall_on_their_pixels_too_and_add_up_to_the_same(junction, tmp_path):
    offset = OFFSETS[1]
    (path,) = templates(tmp_path, junction.plan, junction.groups, [offset], oversampling=2)
    fine, coarse = read(path), read(junction.files[offset])
    assert fine.shape == (2 * coarse.shape[0], 2 * coarse.shape[1])
    assert off_their_pixels(path, junction.sources, half=5).max() < 0.01
    summed = fine.reshape(coarse.shape[0], 2, coarse.shape[1], 2).sum(axis=(1, 3))
    assert np.abs(summed - coarse).max() < 2e-4 * coarse.max()


def test_the_master_map_has_the_owner_of_the_sky_that_its_world_coordinates_say(junction, tmp_path):
    write_map(junction.plan, "pixels", tmp_path / "map.fits.gz")
    with fits.open(tmp_path / "map.fits.gz") as hdus:
        owner, names = hdus[0].data, np.array(hdus["SKYCELLS"].data["NAME"])
        y, x = np.indices(owner.shape)
        sky_positions = WCS(hdus[0].header).all_pix2world(x, y, 0)
    expected = [SURVEY.name_of(number) for number in SURVEY.owner(*sky_positions).ravel()]
    assert names[owner.ravel()].tolist() == expected
    assert len(set(expected)) == 4


# --- from the archive's files to a full frame -------------------------------------------------------------------------


class FullFrame(NamedTuple):
    """Two small skycells of two projections, in the archive's own form, and the full frame made of them."""

    plan: Plan
    sources: pd.DataFrame
    path: str


def cut(name, x, y, size=1300):
    """A skycell cut to a square about an FFI position."""
    whole = SURVEY.skycell(name)
    px, py = (round(float(value)) - size // 2 for value in native_places(frame.TANSIP, whole, x, y))
    return whole._replace(nx=size, ny=size, crpix1=whole.crpix1 - px, crpix2=whole.crpix2 - py)


@pytest.fixture(scope="module")
def full_frame(tmp_path_factory):
    root = tmp_path_factory.mktemp("full_frame")
    skycells = [cut("skycell.2611.081", 1712, 766), cut("skycell.2612.088", 1720, 766)]
    x, y = (grid.ravel() for grid in np.meshgrid([1709.2, 1713.9, 1718.4, 1722.8], [763.6, 768.3]))
    sources = sources_at(frame.TANSIP, x, y, np.linspace(14, 16.5, x.size))
    rendering = archive.Rendering(noise=False, flaws=False, saturation=math.inf)
    archive.build_archive(root / "archive", skycells, sources, rendering)
    pd.DataFrame(skycells, columns=SKYCELL_COLUMNS).to_csv(root / "skycells.csv", index=False)
    plan = plan_ffi(write_ffi(root), catalog=str(root / "skycells.csv"))
    source = stack_files.Source(
        (str(root / "archive"),), str(root / "data"), sky.BANDS, RetryPolicy(1, 1, 1, 0, 0, 0), require_all_bands=True
    )
    blur, groups = convolve.TemplatePsf("gauss", SIGMA, None), {}
    for skycell in plan.footprint.skycells:
        raw, combined, group = (WholeTarget(root / kind / skycell.name, {}) for kind in ("raw", "combined", "blurred"))
        with raw.writing() as draft:
            stack_files.download(skycell, source, draft, quiet())
        with combined.writing() as draft:
            combine.write_blocks(draft.path, combine.combine(raw.path, skycell, RECIPE, root)[0], skycell)
        with group.writing() as draft:
            convolve.write_convolved(
                draft.path, convolve.convolve(plan, skycell, {skycell.name: combined}, blur, (12,))
            )
            draft.notes.update(stack_files.origin_of(raw), stars=[])
        groups[skycell.name] = group
    (path,) = templates(root, plan, groups, OFFSETS[1:2])
    return FullFrame(plan, sources, path)


def test_a_full_frame_from_archive_files_has_each_star_right_in_two_projections(full_frame):
    flux = read(full_frame.path)
    assert flux.shape == (2078, 2136)
    assert set(full_frame.plan.footprint.owner[766, 1709:1724]) == {0, 1}
    offset = OFFSETS[1]
    region = Region(1705, 760, 1727, 772)
    # The demo draws stars integrated over the native pixels, which widens them by 1/12 px^2.
    star = gaussian_star(archive.STAR_FWHM)
    star = star._replace(variances=star.variances + 1 / 12)
    expected = truth.expected_template(full_frame.sources, full_frame.plan.tansip, region, SIGMA, offset, star=star)
    made = flux[region.y0 : region.y1, region.x0 : region.x1]
    x, y = truth.pixel_positions(full_frame.plan.tansip, full_frame.sources["ra"], full_frame.sources["dec"])
    for box in boxes(x + offset[0] - region.x0, y + offset[1] - region.y0, made.shape, half=2):
        assert np.abs(made[box] - expected[box]).max() < 1e-3 * expected[box].max()
        assert made[box].sum() == pytest.approx(expected[box].sum(), rel=1e-3)
        assert_allclose(barycentre(made, box), barycentre(expected, box), atol=0.002)
    assert np.nansum(flux) == pytest.approx(sky.weighted_counts(full_frame.sources).sum(), rel=1e-4)


def test_stars_of_a_full_frame_fall_on_the_pixels_that_its_world_coordinates_say(full_frame):
    assert off_their_pixels(full_frame.path, full_frame.sources, half=2).max() < 0.01


def test_a_full_frame_is_flagged_where_it_has_no_sky_and_where_there_is_no_skycell(full_frame):
    dq, flux = fits.getdata(full_frame.path, "DQ"), read(full_frame.path)
    science = np.zeros(dq.shape, bool)
    science[:2048, 44:2092] = True
    assert (dq[~science] == DQ.COLLATERAL).all()
    unowned = science & (full_frame.plan.footprint.owner < 0)
    assert (dq[unowned] == DQ.NO_PS1).all()
    assert np.isnan(flux[unowned | ~science]).all()
    assert np.isfinite(flux[763:769, 1709:1724]).all()


def test_a_pixel_map_gives_each_star_the_pixel_that_sees_it(full_frame, tmp_path):
    for skycell in full_frame.plan.footprint.skycells:
        write_map(full_frame.plan, skycell.name, tmp_path / "map.fits.gz")
        with fits.open(tmp_path / "map.fits.gz") as hdus:
            index = hdus[0].data
            px, py = WCS(hdus[0].header).all_world2pix(full_frame.sources["ra"], full_frame.sources["dec"], 0)
        # From the middle of the native pixel, which may lie on the other side of a TESS pixel's edge than the star.
        px, py = np.rint(px), np.rint(py)
        inside = (px >= 0) & (px < skycell.nx) & (py >= 0) & (py < skycell.ny)
        assert inside.sum() >= 5
        px, py = px[inside], py[inside]
        sky_positions = skycell_wcs(skycell).all_pix2world(px, py, 0)
        x, y = truth.pixel_positions(full_frame.plan.tansip, *sky_positions)
        expected = np.rint(y).astype(int) * 2136 + np.rint(x).astype(int)
        assert index[py.astype(int), px.astype(int)].tolist() == expected.tolist()


# --- order ------------------------------------------------------------------------------------------------------------


def test_the_order_of_skycells_and_offsets_changes_no_bit_of_the_template(junction):
    plan, groups = junction.plan, junction.groups
    frame_ = downsample.pixel_grid(plan, 1)
    together = downsample.integrate(plan, frame_, groups, OFFSETS, 1, quiet())
    reverse = downsample.integrate(plan, frame_, groups, OFFSETS[::-1], 1, quiet())[::-1]
    alone = [downsample.integrate(plan, frame_, groups, [offset], 1, quiet())[0] for offset in OFFSETS]
    found = plan.footprint
    last = len(found.skycells) - 1
    back = found._replace(owner=last - found.owner, skycells=found.skycells[::-1])
    turned = plan._replace(skycells=back.skycells, footprint_of=lambda: back)
    other = downsample.integrate(turned, downsample.pixel_grid(turned, 1), groups, OFFSETS, 1, quiet())
    for ways in zip(together, reverse, alone, other, strict=True):
        for planes in zip(*ways, strict=True):
            assert len({plane.tobytes() for plane in planes}) == 1
    assert not np.array_equal(together[0].flux, together[2].flux)


def test_pieces_hold_all_the_light_that_whole_skycells_would_give(junction):
    """What these tests rest on: no piece ends nearer to its pixels than light reaches, unless the skycell does."""
    for index, piece in enumerate(pieces(junction.plan, convolve.TemplatePsf("gauss", SIGMA, None))):
        row, column = np.nonzero(junction.plan.footprint.owner == index)
        x, y = column + junction.plan.region.x0, row + junction.plan.region.y0
        edges = np.stack([x + u for u in (-0.8, 0.8)] * 2), np.stack([y + v for v in (-0.8, -0.8, 0.8, 0.8)])
        px, py = native_places(junction.plan.tansip, piece.skycell, *edges)
        for place, low, high, end in (
            (px, piece.x0, piece.x1, piece.skycell.nx),
            (py, piece.y0, piece.y1, piece.skycell.ny),
        ):
            assert low == 0 or place.min() - low > 5 * SIGMA
            assert high == end or high - place.max() > 5 * SIGMA
