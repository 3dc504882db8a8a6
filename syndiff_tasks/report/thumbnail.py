"""A small gray picture of a template, quick enough to make for each CCD of a sector."""

import io

import numpy as np
from astropy.io import fits
from PIL import Image

from syndiff_tasks.report.downscale import block_mean, block_side

SIDE = 160  # of the longer side, at most [px]
BLANK = 220  # gray of pixels without data


def thumbnail(path):
    """Return a small picture of a template.

    Parameters
    ----------
    path : str or Path
        A template that `Downsample` wrote.

    Returns
    -------
    bytes
        Content of a PNG file of at least 80 px and at most 160 px: x to the right, y up, bright sources dark, asinh
        stretch; pixels without data are light gray.
    """
    flux = fits.getdata(path, "FLUX_SUM").astype(np.float32)
    small = block_mean(flux, block_side(flux.shape, SIDE))
    gray = Image.fromarray(np.flipud(_gray(small)))
    enlarged = max(1, SIDE // max(gray.size))
    buffer = io.BytesIO()
    gray.resize((gray.width * enlarged, gray.height * enlarged), Image.Resampling.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()


def _gray(image):
    """Return an image as gray levels, 255 (faint) to 0 (bright), uint8."""
    finite = np.isfinite(image)
    levels = np.full(image.shape, BLANK, dtype=np.uint8)
    if finite.any():
        low, middle, high = np.percentile(image[finite], [1, 50, 99.7])
        stretched = np.arcsinh((image[finite] - low) / max((middle - low) * 3, (high - low) / 100, 1e-30))
        top = max(float(np.arcsinh((high - low) / max((middle - low) * 3, (high - low) / 100, 1e-30))), 1e-30)
        levels[finite] = np.round(255 * (1 - np.clip(stretched / top, 0, 1)))
    return levels
