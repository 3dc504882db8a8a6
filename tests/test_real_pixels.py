"""Real PS1 stack pixels, the host galaxy of SN 2006bh, all the way from the files to a template.

The cut-outs are other people's data and no part of this repository: the tests are skipped where there are none.
"""

import functools
import math
import warnings
from typing import NamedTuple

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning
from numpy.testing import assert_allclose, assert_array_equal
from real_data import present
from scipy.ndimage import gaussian_filter

from syndiff_tasks.demo import affine
from syndiff_tasks.geometry import mapping
from syndiff_tasks.geometry.rings import rings_v3
from syndiff_tasks.geometry.skycell import skycell_wcs
from syndiff_tasks.geometry.tansip import TanSip, tansip_keywords
from syndiff_tasks.io import fits_in
from syndiff_tasks.pixels import bands, blocks, convolution, quadrature, scaling, template
from syndiff_tasks.pixels.mask import DQ

SKYCELL = "skycell.1329.005"
WEIGHTS = {"r": 0.238, "i": 0.344, "z": 0.283, "y": 0.135}
ON_DISK = "realform_demo.stk.r.unconv.fits"
NOISE = 1.0  # no wt file comes with the cut-outs [counts^2]
REACH = 260  # of zeros about the cut-out [native px]: a blur of 40 px and the pixels that it reaches
SIGMA = 40.0


def linear(band):
    return f"hostphot_SN2006bh_PS1_{band}.fits"


def read_band(name):
    stack = fits_in.read_stack(present(name))
    ones = np.full(stack.stored.shape, NOISE, np.float32)
    stored = scaling.scaling_of(stack.keywords)
    plain = scaling.Scaling(0.0, 1.0, None, None, None, stored.exptime)
    return bands.Band(stack.stored, ones, np.zeros(ones.shape, np.uint16), stored, plain), stack.keywords


def counts(name):
    """Counts/s in double precision, read by astropy; the compression is undone by the formula where there is one."""
    with fits.open(present(name)) as hdus:
        hdu = hdus[-1]
        stored, header = np.asarray(hdu.data, np.float64), hdu.header
        if "BSOFTEN" in header:
            scale = 2.5 / math.log(10)
            stored = header["BOFFSET"] + 2 * header["BSOFTEN"] * np.sinh(stored / scale)
        return stored / header["EXPTIME"]


class Galaxy(NamedTuple):
    """Combined bands amid zeros, the native px of the skycell at which they start, and the sum that should come out."""

    combined: bands.Combined
    corner: tuple
    truth: np.ndarray


@pytest.fixture(scope="module")
def galaxy():
    """r, i and z with y missing: the cut-out's flux in double precision is the sum of the others, renormalised."""
    present_bands, keywords = zip(*(read_band(linear(band)) for band in "riz"), strict=True)
    combined = bands.combine(dict(zip("riz", present_bands, strict=True)) | {"y": None}, WEIGHTS)
    truth = sum(WEIGHTS[band] * counts(linear(band)) for band in "riz") / sum(WEIGHTS[band] for band in "riz")
    # The skycell's CRPIX, as the ring table has it, says where in the skycell the cut-out lies.
    whole = rings_v3().skycell(SKYCELL)
    own = keywords[0]
    corner = round(whole.crpix1 - own["CRPIX1"]), round(whole.crpix2 - own["CRPIX2"])
    return Galaxy(combined, corner, truth)


def amid_zeros(plane):
    return np.pad(plane, REACH)


def blurred(galaxy, flux, sigma=SIGMA, bin=4):
    """Blocks of the cut-out amid zeros, with a grid that counts the native px of the whole skycell, blurred."""
    start = tuple(place - REACH for place in galaxy.corner)
    cell = rings_v3().skycell(SKYCELL)
    flux = amid_zeros(flux)
    plain = np.zeros(flux.shape, np.uint16)
    shared = blocks.to_blocks(
        *(flux, np.full(flux.shape, NOISE, np.float32), plain, amid_zeros(galaxy.combined.missing), bin),
        tuple(a + b for a, b in zip(cell.corner, start, strict=True)),
    )
    grid = shared.grid._replace(x0=shared.grid.x0 + start[0], y0=shared.grid.y0 + start[1])
    return convolution.convolve_gaussian(shared._replace(grid=grid), sigma, ignore=0)


def pointed_at(x, y):
    """World coordinates of a made-up FFI turned against the sky, with a SIP term, the galaxy near pixel (20, 20)."""
    ra, dec = skycell_wcs(rings_v3().skycell(SKYCELL)).all_pix2world(x, y, 0)
    scale, turn = 20.5 / 3600, 0.7
    cd = scale * np.array([[-math.cos(turn), math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    bend = np.zeros((3, 3))
    bend[2, 0], bend[1, 1], bend[0, 2] = 2e-5, 1.7e-5, 3e-6
    return TanSip(float(ra), float(dec), 21.0, 21.0, cd, bend, bend.T.copy(), 180.0)


def sampled(galaxy, sky, offset=(0.0, 0.0), half=4):
    """Template pixels (2 half + 1)^2 about the galaxy, in an FFI with a real scale."""
    cell = rings_v3().skycell(SKYCELL)
    tansip = pointed_at(*(place + 120 for place in galaxy.corner))
    x, y = (a.ravel() for a in np.meshgrid(*2 * [np.arange(20 - half, 21 + half)]))
    planes = template.blank((2 * half + 1, 2 * half + 1))
    rule = quadrature.quadrature_rule(sky.sigma, mapping.pixel_scale(tansip, cell))
    lattice = quadrature.quadrature_grid(np.ones(planes.dq.shape, bool), (20 - half, 20 - half), rule, [offset])
    template.integrate(sky, lattice, functools.partial(mapping.native_positions, tansip, cell), [planes])
    return x, y, tansip, template.Sampled(*(plane.ravel() for plane in planes))


def test_the_cutout_lies_in_its_skycell_where_its_own_header_says(galaxy):
    cell = skycell_wcs(rings_v3().skycell(SKYCELL))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)  # DATE-OBS of the cut-outs is no date
        own = WCS(fits.getheader(present(linear("r"))))
    sky = own.all_pix2world([0, 239], [0, 239], 0)
    here = cell.all_world2pix(*sky, 0)
    assert_allclose(np.transpose(here), [galaxy.corner, np.add(galaxy.corner, 239)], atol=1e-3)


def test_a_missing_band_is_renormalised_in_real_pixels(galaxy):
    assert_allclose(galaxy.combined.flux, galaxy.truth, rtol=1e-6, atol=1e-7)
    assert_array_equal(galaxy.combined.missing, bands.BAND_BITS["y"])
    weight = sum(WEIGHTS[band] for band in "riz")
    seconds = {band: fits_in.read_stack(present(linear(band))).keywords["EXPTIME"] for band in "riz"}
    variance = sum((WEIGHTS[band] / seconds[band] / weight) ** 2 for band in seconds)
    assert_allclose(galaxy.combined.variance, NOISE * variance, rtol=1e-6)


@pytest.mark.parametrize("radius", [60, 110])
@pytest.mark.parametrize("bin", [4, 8])
@pytest.mark.parametrize("offset", [(0.0, 0.0), (0.3, -0.2)])
def test_flux_of_the_galaxy_is_the_plain_aperture_sum_of_its_native_pixels(galaxy, radius, bin, offset):
    rows, columns = np.indices(galaxy.truth.shape)
    aperture = np.hypot(columns - 118, rows - 126) < radius  # about its nucleus
    alone = np.where(aperture, galaxy.combined.flux, 0)
    found = sampled(galaxy, blurred(galaxy, alone, bin=bin), offset)[-1]
    assert found.coverage.max() > 0.999
    inside = found.coverage > 0
    # Beyond the zeros nothing is known: give back what the normalisation puts there.
    total = (found.flux * found.coverage)[inside].sum(dtype=float)
    assert_allclose(total, galaxy.truth[aperture].sum(), rtol=1e-3)


def in_squares(galaxy, sky, blank):
    """Template pixels of 82 x 82 whole native px, 7 x 7 about the cut-out, and plain sums of blurred native pixels."""
    side, first = 82, REACH + 120 - 82 * 7 // 2
    x, y = (a.ravel() for a in np.meshgrid(*2 * [first + side * np.arange(7)]))
    origin = np.add(galaxy.corner, first + (side - 1) / 2 - REACH)
    found = affine.sampled(sky, (side * np.eye(2), origin), (0, 0, 7, 7))

    def plain(plane):
        smooth = gaussian_filter(amid_zeros(plane), SIGMA, mode="constant", truncate=7)
        return np.array([smooth[j : j + side, i : i + side].sum() for i, j in zip(x, y, strict=True)])

    covered = 1 - plain(blank.astype(float)) / side**2
    return found, plain(np.where(blank, 0, galaxy.truth)) / covered, covered


def test_each_template_pixel_is_the_sum_of_the_blurred_native_pixels_in_it(galaxy):
    found, plain, _ = in_squares(galaxy, blurred(galaxy, galaxy.combined.flux), np.zeros(galaxy.truth.shape, bool))
    inner = found.coverage > 0.9999
    assert inner.sum() >= 25
    assert np.abs(found.flux - plain)[inner].max() < 5e-4 * plain.max()
    assert (found.dq[24] & DQ.BAND_MISSING) != 0


def test_the_galaxy_stands_where_the_cutouts_own_coordinates_put_it(galaxy):
    light = np.where(galaxy.truth > 0.05, galaxy.truth, 0)
    rows, columns = np.indices(light.shape)
    middle = [(light * place).sum() / light.sum() for place in (columns, rows)]
    offset = (0.4, -0.7)
    x, y, tansip, found = sampled(galaxy, blurred(galaxy, light.astype(np.float32)), offset)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        ra, dec = WCS(fits.getheader(present(linear("r")))).all_pix2world(*middle, 0)
    there = np.array(WCS(fits.Header(tansip_keywords(tansip))).all_world2pix(ra, dec, 0)) + offset
    flux = np.where(found.coverage > 0, found.flux * found.coverage, 0).astype(float)
    assert_allclose([(flux * place).sum() / flux.sum() for place in (x, y)], there, atol=2e-3)


def test_a_file_in_the_form_of_the_archive_holds_the_pixels_of_the_linear_cutout():
    band, _ = read_band(ON_DISK)
    flux = bands.combine({"r": band}, {"r": 1.0}).flux
    assert_allclose(flux, counts(ON_DISK), rtol=1e-5, atol=1e-5)
    plain, blank = counts(linear("r")), np.isnan(flux)
    assert 0 < blank.sum() < 0.06 * blank.size
    # The compression is as fine as its integers: 1e-4 of the noise or, of what is brighter, of itself.
    assert np.abs((flux - plain) / np.hypot(plain, 2 * 263.5 / 720))[~blank].max() < 1.5e-4


def test_blank_native_pixels_are_filled_from_their_neighbours_and_told(galaxy):
    band, _ = read_band(ON_DISK)
    combined = bands.combine({"r": band}, {"r": 1.0})
    real = Galaxy(combined, galaxy.corner, counts(ON_DISK))
    found, plain, covered = in_squares(real, blurred(real, combined.flux), np.isnan(real.truth))
    inner = [7 * row + column for row in range(1, 6) for column in range(1, 6)]
    assert 0.9 < covered[24] < 0.999
    assert_allclose(found.coverage[inner], covered[inner], atol=1e-3)
    assert np.abs(found.flux - plain)[inner].max() < 1e-3 * plain.max()
    assert (found.dq[24] & DQ.BAND_MISSING) == 0
