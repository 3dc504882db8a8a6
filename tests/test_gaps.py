"""Blank native pixels on and beside stars: what they cost, and that the template's DQ says so."""

import numpy as np
import pytest

from syndiff_tasks.demo.affine import sampled
from syndiff_tasks.pixels.blocks import to_blocks
from syndiff_tasks.pixels.convolution import convolve_gaussian, convolve_prf
from syndiff_tasks.pixels.mask import DQ

SIZE, SIDE, SIGMA = 1600, 82.0, 40.0  # native px: the sky, a TESS pixel, the convolution
FRAME = np.array([[SIDE, 0.0], [0.0, SIDE]]), np.array([SIZE / 2, SIZE / 2])  # TESS pixel (0, 0) is in the middle
NOISE = 0.16  # counts/s, that of PS1's weighted sum
FLUX = 10 ** (-0.4 * (13.0 - 25.0))
STAR = SIZE / 2 + 11.3, SIZE / 2 - 7.6
BOX = -5, -5, 6, 6
LOST = DQ.PS1_GAP | DQ.SAT_PS1

yy, xx = np.mgrid[:SIZE, :SIZE]


def star(x, y, flux=FLUX):
    """A Moffat star of PS1's width, 1.1", with beta = 3."""
    core = 4.4**2 / (4 * (2 ** (1 / 3) - 1))
    return flux * 2 / (np.pi * core) * (1 + ((xx - x) ** 2 + (yy - y) ** 2) / core) ** -3


def template_of(flux, blank, kernel=convolve_gaussian, shape=SIGMA):
    flux = (flux + NOISE * np.random.default_rng(5).standard_normal(flux.shape)).astype(np.float32)
    flux[blank] = np.nan
    planes = flux, np.full(flux.shape, NOISE**2, np.float32), np.zeros(flux.shape, np.uint16)
    blocks = to_blocks(*planes, np.zeros(flux.shape, np.uint8), 4, (0, 0))
    return sampled(kernel(blocks, shape, 0), FRAME, BOX)


def within(blank, reach):
    """The TESS pixels that have a blank native pixel within `reach` native px of them, in x and y."""
    y, x = np.nonzero(blank)
    x0, y0, x1, y1 = BOX
    near = np.zeros((y1 - y0, x1 - x0), bool)
    for row, column in np.ndindex(near.shape):
        center = np.array([column + x0, row + y0]) * SIDE + SIZE / 2
        away = np.maximum(np.abs(np.stack([x, y], -1) - center) - SIDE / 2, 0)
        near[row, column] = (away.max(axis=1) <= reach).any()
    return near.ravel()


def disk(radius, place=STAR):
    return np.hypot(xx - place[0], yy - place[1]) <= radius


# How much of the star's flux is left, and whether its wings show at the rim.
@pytest.mark.parametrize(
    ("radius", "left", "bright"), [(4, 0.40, True), (8, 0.10, True), (15, 0.03, True), (25, 0.03, False)]
)
def test_a_blank_disk_on_a_star_takes_its_light_and_dq_says_so(radius, left, bright):
    found = template_of(star(*STAR), disk(radius))
    assert np.nansum(found.flux) / FLUX < left
    near = within(disk(radius), 3 * SIGMA)
    assert ((found.dq[near] & DQ.PS1_GAP) != 0).all()
    assert (((found.dq & DQ.SAT_PS1) != 0) == (((found.dq & DQ.PS1_GAP) != 0) & bright)).all()
    far = ~within(disk(radius), 3 * SIGMA + 60)
    assert far.sum() > 40 and (found.dq[far] == 0).all()


# A stripe of 40 px leaves nothing of the star above the noise.
@pytest.mark.parametrize(("width", "bits"), [(10, LOST), (20, LOST), (40, DQ.PS1_GAP)])
def test_a_blank_stripe_through_a_star_is_a_gap_beside_bright_pixels(width, bits):
    stripe = abs(xx - STAR[0] + 3) <= width / 2
    found = template_of(star(*STAR), stripe)
    near = within(stripe, 3 * SIGMA)
    assert near.any() and (found.dq[near] & DQ.PS1_GAP == DQ.PS1_GAP).all()
    y, x = np.mgrid[BOX[1] : BOX[3], BOX[0] : BOX[2]]
    assert found.dq[(x.ravel() == 0) & (y.ravel() == 0)] == bits


def test_a_star_beside_a_gap_gains_flux_and_is_flagged():
    gap = disk(60)
    beside = STAR[0] + 65, STAR[1]
    alone, changed = (template_of(star(*beside), where) for where in (np.zeros_like(gap), gap))
    assert 1.05 < np.nansum(changed.flux) / np.nansum(alone.flux) < 1.5
    assert (alone.dq == 0).all()
    assert ((changed.dq[within(gap, 3 * SIGMA)] & DQ.PS1_GAP) != 0).all()
    assert ((changed.dq[within(disk(1, beside), 2 * SIGMA)] & LOST) == LOST).all()


def test_a_gap_in_empty_sky_is_a_gap_and_not_a_lost_star():
    found = template_of(np.zeros((SIZE, SIZE)), disk(20))
    assert set(np.unique(found.dq)) == {0, DQ.PS1_GAP}


def test_a_gap_reaches_as_far_through_a_prf():
    offset = np.arange(-75, 76) * 4.0
    kernel = np.exp(-0.5 * (offset / 58.0) ** 2)
    found = template_of(star(*STAR), disk(15), convolve_prf, [(np.outer(kernel, kernel), 1.0)])
    x, y = np.meshgrid(np.arange(BOX[0], BOX[2]), np.arange(BOX[1], BOX[3]))
    # A PRF is sampled at the pixel's center.
    away = np.maximum(abs(x * SIDE - 11.3), abs(y * SIDE + 7.6)).ravel()
    near = away <= 3 * 58.0
    assert near.sum() >= 9 and ((found.dq[near] & LOST) == LOST).all()
    assert (found.dq[away > 3 * 58.0 + 100] == 0).all()
