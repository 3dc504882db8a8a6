"""Damaged template stars and saturated TESS pixels."""

import numpy as np
from numpy.testing import assert_array_equal
from scipy import ndimage
from scipy.special import ndtr

from syndiff_tasks.pixels.damage import near_damage
from syndiff_tasks.pixels.saturation import find_saturated, grow


def star(x, y, sigma, side=50):
    """Return a Gaussian of unit flux integrated over pixels."""
    profiles = [np.diff(ndtr((np.arange(side + 1) - 0.5 - at) / sigma)) for at in (y, x)]
    return np.outer(*profiles)


def test_wings_of_a_damaged_star_are_marked_and_a_transient_on_them_is_not():
    residual = (3000 * star(20, 20, 2.5) + 2000 * star(29, 20, 0.7)).astype(np.float32)
    damaged = np.zeros((50, 50), bool)
    damaged[19:22, 19:22] = True
    marked = near_damage(residual, np.ones_like(residual), damaged)
    assert marked[16:25, 16:24].all()
    assert not marked[19:22, 28:31].any()
    assert not marked[35:].any()


def test_without_damage_nothing_is_marked():
    residual = (3000 * star(20, 20, 0.7)).astype(np.float32)
    assert not near_damage(residual, np.ones_like(residual), np.zeros((50, 50), bool)).any()


def test_a_mask_grows_as_a_maximum_filter_does():
    mask = np.random.default_rng(1).random((40, 70)) < 0.01
    for reach in (0, 1, 3):
        assert_array_equal(grow(mask, reach), ndimage.maximum_filter(mask, 2 * reach + 1, mode="constant"))


def test_charge_is_followed_along_its_column_and_a_bright_neighbor_is_not_charge():
    image = np.full((60, 40), 200, np.float32)
    image[20:30, 15] = 9.5e4
    image[15:20, 15] = 5e4
    image[30:33, 15] = 3e4
    image[40:43, 15] = 6e4
    image[20, 16] = 4e4
    saturated, bleeding = find_saturated(image)
    assert_array_equal(np.flatnonzero(saturated[:, 15]), np.arange(20, 30))
    assert_array_equal(np.flatnonzero(bleeding[:, 15]), [*range(15, 20), *range(30, 33)])
    assert saturated.sum() + bleeding.sum() == 18
