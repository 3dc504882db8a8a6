"""Whether pixels look like those of an image or of a variance, which no header of PS1 tells for sure."""

import numpy as np

from .spread import SIGMA_PER_MAD

# A sky-subtracted image is half negative; a variance is never.
NEGATIVE_IN_IMAGES = 0.1
NEGATIVE_IN_VARIANCES = 0.001

# The sky of an image lies within its noise, the level of a variance far above its own scatter.
LEVEL_OF_VARIANCES = 5.0


def doubt_about(pixels, kind):
    """Return why pixels may not be of a kind, empty where they may.

    Parameters
    ----------
    pixels : ndarray of float, shape (ny, nx)
        Flux or variance, linear; NaN where blank. Some dozens of rows suffice.
    kind : str
        ``"image"`` or ``"wt"`` (variance).

    Returns
    -------
    doubt : str
        A large galaxy that fills the pixels of an image gives rise to doubt too.
    """
    good = pixels[np.isfinite(pixels)]
    steps = np.diff(pixels, axis=1)
    steps = steps[np.isfinite(steps)]
    if not steps.size:
        return ""
    negative, median = float((good < 0).mean()), float(np.median(good))
    noise = float(SIGMA_PER_MAD * np.median(np.abs(steps)) / np.sqrt(2))
    if kind == "wt" and negative > NEGATIVE_IN_IMAGES:
        return f"{100 * negative:.0f} % of its pixels are negative, as in an image, where a variance has none"
    if kind == "image" and negative < NEGATIVE_IN_VARIANCES and median > LEVEL_OF_VARIANCES * noise:
        return f"no pixel is negative, and the median is {median:.3g} for a noise of {noise:.3g}, as in a variance"
    return ""
