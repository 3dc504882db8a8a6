"""What tells an image from a variance, on skies with Gaussian noise."""

import numpy as np
import pytest

from syndiff_tasks.pixels.file_kind import doubt_about

RANDOM = np.random.default_rng(7)
SKY = RANDOM.normal(0.0, 3.0, (64, 600))
STARS = SKY + 500.0 * (RANDOM.random(SKY.shape) < 0.05)
VARIANCE = RANDOM.normal(9.0, 0.3, SKY.shape)
BLANK = np.where(RANDOM.random(SKY.shape) < 0.5, np.nan, SKY)


@pytest.mark.parametrize("pixels", [SKY, STARS, BLANK, SKY + 3.0, np.full(SKY.shape, np.nan)])
def test_a_sky_with_noise_stars_or_gaps_is_an_image(pixels):
    assert doubt_about(pixels, "image") == ""


def test_a_variance_under_the_name_of_an_image_is_in_doubt():
    assert "no pixel is negative, and the median is 9" in doubt_about(VARIANCE, "image")
    assert doubt_about(VARIANCE, "wt") == ""


def test_an_image_under_the_name_of_a_variance_is_in_doubt():
    assert "% of its pixels are negative" in doubt_about(SKY, "wt")


def test_a_few_negative_pixels_do_not_make_an_image_of_a_variance():
    assert doubt_about(np.where(RANDOM.random(SKY.shape) < 0.05, -1.0, VARIANCE), "wt") == ""
