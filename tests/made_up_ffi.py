"""World coordinates of a real CCD at any pointing, ours and those of astropy."""

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from syndiff_tasks.geometry.ffi import FRAME_SHAPE
from syndiff_tasks.geometry.tansip import TanSip, tansip_keywords

# The distortion of camera 1 CCD 2 in sector 2, as SPOC's header has it.
A = {(2, 0): -1.922597574056e-05, (1, 1): 1.71293937943375e-05, (0, 2): -2.977617810249e-06,
     (3, 0): -2.631595292456e-09, (2, 1): -7.260739723457e-11, (1, 2): -2.628095234562e-09,
     (0, 3): 1.060597138742e-10, (4, 0): -1.596534515028e-13, (3, 1): 3.522144062319e-13,
     (2, 2): -3.526651092193e-13, (1, 3): 2.248447989712e-13, (0, 4): -4.470441242226e-14}  # fmt: skip
B = {(2, 0): 3.096244798181e-06, (1, 1): -1.640663569347e-05, (0, 2): 1.999955328492e-05,
     (3, 0): 1.365421690014e-10, (2, 1): -2.709520396133e-09, (1, 2): -3.321715459735e-11,
     (0, 3): -2.583669141422e-09, (4, 0): 7.983758702124e-14, (3, 1): -3.278748712958e-13,
     (2, 2): 3.698787097152e-13, (1, 3): -3.573245108101e-13, (0, 4): 1.572937403795e-13}  # fmt: skip
CD = np.array([[0.004994597158881548, -0.002654102364745], [0.002780210987902541, 0.005056177352553207]])


def tess_wcs(ra=216.75, dec=56.4, turn=0.0):
    """Return the world coordinates of a real CCD at another pointing."""
    polynomials = np.zeros((2, 5, 5))
    for target, terms in zip(polynomials, (A, B), strict=True):
        for place, value in terms.items():
            target[place] = value
    c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    return TanSip(ra, dec, 1045.0, 1001.0, np.array([[c, -s], [s, c]]) @ CD, *polynomials, 180.0)


def header_of(tansip, shape=FRAME_SHAPE):
    header = fits.Header({"NAXIS": 2, "NAXIS1": shape[1], "NAXIS2": shape[0], **tansip_keywords(tansip)})
    header.update({"TELESCOP": "TESS", "CAMERA": 1, "CCD": 2})
    return header


def astropy_wcs(tansip):
    return WCS(header_of(tansip))


def science_points(count, seed):
    rng = np.random.default_rng(seed)
    corners = [(44, 0), (2091, 0), (2091, 2047), (44, 2047)]
    x, y = np.concatenate([corners, rng.uniform((43.5, -0.5), (2091.5, 2047.5), (count, 2))]).T
    return x, y


def arcseconds(ra, dec, ra2, dec2):
    return 3600 * np.hypot(((ra - ra2 + 180) % 360 - 180) * np.cos(np.radians(dec)), dec - dec2)
