"""A PS1 skycell: its name, its size and its TAN world coordinates.

ICRS and FK5 are treated as one frame: PS1 labels its images FK5, but its astrometry is tied to catalogs in the ICRS.
The frames differ by some 20 mas, 0.001 TESS pixels (docs/facts.md §1).
"""

import math
import re
from typing import NamedTuple

import numpy as np
from astropy.wcs import WCS

from .tangent import LONPOLE, matrix_product, pixel_to_plane, plane_to_pixel, tangent_frame

OVERLAP = 480  # [native px] of neighboring skycells of a projection (docs/facts.md §1)
GRID = 10  # skycells along each axis of a projection (docs/facts.md §1)
MARGIN = OVERLAP / 2  # [native px] between the core of a skycell and the edge of its image, on each side
NAME = re.compile(r"skycell\.(\d{4})\.0(\d{2})", re.ASCII)


class Skycell(NamedTuple):
    """Name, size [px] and TAN world coordinates of a skycell, as in FITS: CRPIX 1-based, angles [deg]."""

    name: str
    nx: int
    ny: int
    crval1: float
    crval2: float
    crpix1: float
    crpix2: float
    cdelt1: float
    cdelt2: float
    pc1_1: float
    pc1_2: float
    pc2_1: float
    pc2_2: float

    @property
    def projection(self):
        """Projection cell with its leading zeros, ``"0812"``."""
        return self.name[8:12]

    @property
    def cell(self):
        """Number of the skycell within its projection, 0..99."""
        return int(self.name[13:])

    @property
    def corner(self):
        """Position (gx, gy) of its first pixel in the pixel grid shared by all skycells of the projection."""
        row, column = divmod(self.cell, GRID)
        return column * (self.nx - OVERLAP), row * (self.ny - OVERLAP)


def parse_skycell_name(text):
    """Parse the name of a skycell.

    Parameters
    ----------
    text : str
        For example ``skycell.0812.050``.

    Returns
    -------
    projection, cell : int

    Raises
    ------
    ValueError
        If `text` is not the full name of a skycell.
    """
    match = NAME.fullmatch(str(text))
    if not match:
        raise ValueError(
            f"{text!r} is not the name of a skycell; write it as skycell.PPPP.CCC with leading zeros and CCC from 000 "
            "to 099, for example skycell.0812.050"
        )
    return int(match[1]), int(match[2])


def skycell_keywords(skycell):
    """Return the FITS world coordinate keywords of a skycell.

    Parameters
    ----------
    skycell : Skycell

    Returns
    -------
    dict
        Keyword to value, with LONPOLE and LATPOLE: see `tangent.LONPOLE`.
    """
    return {
        "WCSAXES": 2,
        "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN",
        "CUNIT1": "deg",
        "CUNIT2": "deg",
        "CRVAL1": skycell.crval1,
        "CRVAL2": skycell.crval2,
        "CRPIX1": skycell.crpix1,
        "CRPIX2": skycell.crpix2,
        "CDELT1": skycell.cdelt1,
        "CDELT2": skycell.cdelt2,
        "PC1_1": skycell.pc1_1,
        "PC1_2": skycell.pc1_2,
        "PC2_1": skycell.pc2_1,
        "PC2_2": skycell.pc2_2,
        "LONPOLE": LONPOLE,
        "LATPOLE": skycell.crval2,
        "RADESYS": "FK5",
        "EQUINOX": 2000.0,
    }


def skycell_wcs(skycell):
    """Return the world coordinates of a skycell as an astropy object.

    Parameters
    ----------
    skycell : Skycell

    Returns
    -------
    astropy.wcs.WCS
    """
    result = WCS(skycell_keywords(skycell))
    result.array_shape = (skycell.ny, skycell.nx)
    return result


def skycell_cd(skycell):
    """Return the CD matrix of a skycell.

    Parameters
    ----------
    skycell : Skycell

    Returns
    -------
    ndarray of float64, shape (2, 2)
        Degrees per pixel.
    """
    return np.array(
        [
            [skycell.cdelt1 * skycell.pc1_1, skycell.cdelt1 * skycell.pc1_2],
            [skycell.cdelt2 * skycell.pc2_1, skycell.cdelt2 * skycell.pc2_2],
        ]
    )


def skycell_to_vector(skycell):
    """Return the matrix from the pixels of a skycell to the sky.

    Parameters
    ----------
    skycell : Skycell

    Returns
    -------
    ndarray of float64, shape (3, 3)
        Takes (x, y, 1), 0-based, to a vector towards the sky position.
    """
    frame = tangent_frame(skycell.crval1, skycell.crval2)
    return matrix_product(frame.T, pixel_to_plane(skycell_cd(skycell), skycell.crpix1, skycell.crpix2))


def vector_to_skycell(skycell):
    """Return the matrix from the sky to the pixels of a skycell.

    Parameters
    ----------
    skycell : Skycell

    Returns
    -------
    ndarray of float64, shape (3, 3)
        Takes a vector to (x w, y w, w), x and y 0-based. The projection is defined where w is positive, the hemisphere
        about the reference position.
    """
    to_pixel = plane_to_pixel(skycell_cd(skycell), skycell.crpix1, skycell.crpix2)
    return matrix_product(to_pixel, tangent_frame(skycell.crval1, skycell.crval2))


def skycell_center(skycell):
    """Return the unit vector towards the center of the image of a skycell.

    Parameters
    ----------
    skycell : Skycell

    Returns
    -------
    ndarray of float64, shape (3,)
    """
    vector = skycell_to_vector(skycell) @ ((skycell.nx - 1) / 2, (skycell.ny - 1) / 2, 1)
    return vector / np.linalg.norm(vector)


def skycell_radius(skycell):
    """Return the angle from the center of a skycell to its corners.

    Parameters
    ----------
    skycell : Skycell

    Returns
    -------
    float
        Degrees, measured in the projection plane, where it is never smaller than on the sky.
    """
    cd = skycell_cd(skycell)
    return max(math.hypot(*(cd @ (skycell.nx / 2, sign * skycell.ny / 2))) for sign in (-1, 1))
