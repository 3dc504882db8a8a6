"""The sky on meshes, and straps."""

import numpy as np
from numpy.testing import assert_allclose

from syndiff_tasks.pixels.sky_background import (
    MeshSky,
    Straps,
    add_skies,
    find_straps,
    measure_sky,
    sky_gradient,
    sky_image,
    strap_image,
)


def everything(image):
    """Use every pixel."""
    return np.ones(image.shape, bool)


def test_a_plane_is_itself_whatever_pixels_are_used():
    y, x = np.mgrid[:100, :140].astype(np.float32)
    plane = 200 + 2.5 * x - 1.5 * y
    use = np.random.default_rng(1).random(plane.shape) < 0.5
    use[20:50, 30:90] = False
    assert_allclose(sky_image(measure_sky(plane, use)), plane, atol=2e-3)


def test_a_curved_sky_is_followed_better_the_second_time():
    y, x = np.mgrid[:256, :256] / 256
    image = (300 * np.exp(-((x - 0.3) ** 2 + (y - 0.6) ** 2) / 0.15)).astype(np.float32)
    sky = measure_sky(image, everything(image))
    assert_allclose(sky_image(sky), image, atol=2)
    sky = add_skies(sky, measure_sky(image - sky_image(sky), everything(image)))
    assert_allclose(sky_image(sky), image, atol=1.5)
    assert_allclose(sky_image(sky)[16:-16, 16:-16], image[16:-16, 16:-16], atol=0.7)


def test_stars_and_holes_do_not_move_the_sky():
    rng = np.random.default_rng(2)
    image = rng.normal(100, 0.3, (200, 200)).astype(np.float32)
    image[rng.random(image.shape) < 0.02] += 500
    use = everything(image)
    use[60:130, 60:130] = False
    image[~use] = np.nan
    assert_allclose(sky_image(measure_sky(image, use)), 100, atol=0.2)


def test_no_sky_is_zero():
    image = np.ones((50, 50), np.float32)
    assert (sky_image(measure_sky(image, ~everything(image))) == 0).all()


def test_the_slope_of_the_sky_is_that_of_a_plane():
    sky = MeshSky((10.0, 3.0, -4.0), np.zeros((4, 4)), (128, 128))
    for x, y in ((64, 64), (0, 0), (127, 5)):
        assert_allclose(sky_gradient(sky, x, y), 5.0, rtol=1e-4)


def test_a_part_of_the_rows_is_that_part_of_the_image():
    sky = MeshSky((10.0, 3.0, -4.0), np.random.default_rng(1).normal(size=(5, 4)), (160, 128))
    assert_allclose(sky_image(sky, slice(30, 50)), sky_image(sky)[30:50], rtol=1e-6)


def test_straps_are_found_and_followed_along_their_columns():
    rng = np.random.default_rng(5)
    residual = rng.normal(0, 0.3, (256, 128)).astype(np.float32)
    rise = np.linspace(1, 4, 256).astype(np.float32)
    residual[:, 30] += rise
    residual[:, 31] += 2
    straps = find_straps(residual, everything(residual))
    assert list(straps.columns) == [30, 31]
    assert_allclose(strap_image(straps, 256)[:, 0], rise, atol=0.35)
    assert_allclose(strap_image(straps, 256)[:, 1], 2, atol=0.35)


def test_noise_alone_has_no_straps():
    residual = np.random.default_rng(6).normal(0, 0.3, (256, 256)).astype(np.float32)
    assert find_straps(residual, everything(residual)).columns.size == 0
    narrow = find_straps(residual[:, :5], everything(residual[:, :5]))
    assert strap_image(narrow, 256).shape == (256, 0)
    assert isinstance(narrow, Straps)
