"""The standard deviation of residuals, unmoved by outliers."""

import numpy as np
from astropy.stats import mad_std

#: Standard deviation of normal deviates over their median absolute value, 1.4826: that of these three is 1.
SIGMA_PER_MAD = float(mad_std([-1.0, 0.0, 1.0]))


def robust_sigma(residuals, axis=None):
    """Estimate the standard deviation of residuals from their median absolute value.

    Parameters
    ----------
    residuals : array_like of float, any shape
        Deviations from zero.
    axis : int, optional
        Axis along which to take the median; all of them by default.

    Returns
    -------
    sigma : float64 or ndarray of float64
        Right for normal deviates; in the unit of `residuals`.
    """
    return SIGMA_PER_MAD * np.float64(np.median(np.abs(residuals), axis=axis))
