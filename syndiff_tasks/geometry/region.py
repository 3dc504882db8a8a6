"""Rectangles of FFI pixels."""

import re
from typing import NamedTuple


class Region(NamedTuple):
    """A rectangle of FFI pixels, half-open and 0-based; its text is a label for folders."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def shape(self):
        """Rows and columns (ny, nx)."""
        return self.y1 - self.y0, self.x1 - self.x0

    def __str__(self):
        """Label that no other region has."""
        return f"x{self.x0}-{self.x1}_y{self.y0}-{self.y1}"


SCIENCE = Region(44, 0, 2092, 2048)


def clip(region, bounds):
    """Part of a region within bounds.

    Parameters
    ----------
    region, bounds : Region

    Returns
    -------
    Region
        With no or a negative shape where they do not meet.
    """
    return Region(
        max(region.x0, bounds.x0), max(region.y0, bounds.y0), min(region.x1, bounds.x1), min(region.y1, bounds.y1)
    )


def parse_region(text):
    """Read a region as users write it.

    Parameters
    ----------
    text : str
        ``"x0,y0,x1,y1"``, 0-based FFI pixels, half-open.

    Returns
    -------
    Region

    Raises
    ------
    ValueError
        If it is not four whole numbers with x0 < x1 and y0 < y1.
    """
    parts = [part.strip() for part in str(text).split(",")]
    if len(parts) != 4 or not all(re.fullmatch(r"\d{1,6}", part, re.ASCII) for part in parts):
        raise ValueError(f"region {text!r} is not x0,y0,x1,y1 in whole 0-based FFI pixels, for example 600,500,900,800")
    region = Region(*map(int, parts))
    if min(region.shape) <= 0:
        raise ValueError(
            f"region {text!r} is empty: x0,y0 is its first pixel and x1,y1 the first beyond it, so x1 > x0 and y1 > y0"
        )
    return region


def check_region(region, shape, science=SCIENCE):
    """Refuse a region that an image does not have, or that sees no sky.

    Parameters
    ----------
    region : Region
    shape : tuple of int
        (ny, nx) of the image.
    science : Region, optional
        Its science pixels.

    Raises
    ------
    ValueError
    """
    ny, nx = shape
    if region.x0 < 0 or region.y0 < 0 or region.x1 > nx or region.y1 > ny:
        raise ValueError(
            f"region {','.join(map(str, region))} is not inside the FFI of {nx} x {ny} px; "
            f"choose it within 0,0,{nx},{ny}"
        )
    if min(clip(region, science).shape) <= 0:
        raise ValueError(
            f"region {','.join(map(str, region))} holds no science pixel; these are {','.join(map(str, science))}"
        )
