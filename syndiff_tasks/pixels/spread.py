"""The standard deviation of residuals, unmoved by outliers."""

import numpy as np

#: Standard deviation of normal deviates over their median absolute value, 1 / (sqrt(2) erfinv(1/2)).
SIGMA_PER_MAD = 1.4826


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
