"""Rectangular regions of FFI pixels."""

import re
from typing import NamedTuple


class Region(NamedTuple):
    """Rectangle of FFI pixels, 0-based; x1 and y1 are the first pixels beyond it. ``str`` gives a label for folders."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def shape(self):
        """Number of rows and columns (ny, nx)."""
        return self.y1 - self.y0, self.x1 - self.x0

    def __str__(self):
        """Return a label unique to the region."""
        return f"x{self.x0}-{self.x1}_y{self.y0}-{self.y1}"


SCIENCE = Region(44, 0, 2092, 2048)  # of a whole FFI; the other pixels see no sky (docs/facts.md §3)


def clip(region, bounds):
    """Intersect a region with bounds.

    Parameters
    ----------
    region, bounds : Region

    Returns
    -------
    Region
        Empty where they do not meet: an element of its shape is then zero or negative.
    """
    return Region(
        max(region.x0, bounds.x0), max(region.y0, bounds.y0), min(region.x1, bounds.x1), min(region.y1, bounds.y1)
    )


def parse_region(text):
    """Parse a region given as text.

    Parameters
    ----------
    text : str
        ``"x0,y0,x1,y1"`` in 0-based FFI pixels; x1 and y1 are the first beyond the region.

    Returns
    -------
    Region

    Raises
    ------
    ValueError
        If `text` is not four whole numbers with x0 < x1 and y0 < y1.
    """
    parts = [part.strip() for part in str(text).split(",")]
    if len(parts) != 4 or not all(re.fullmatch(r"\d{1,6}", part, re.ASCII) for part in parts):
        raise ValueError(f"region {text!r} is not x0,y0,x1,y1 in whole 0-based FFI pixels, for example 600,500,900,800")
    region = Region(*map(int, parts))
    if min(region.shape) <= 0:
        raise ValueError(
            f"region {text!r} is empty: x1 must be greater than x0, and y1 greater than y0 (x0,y0 is its first pixel, "
            "x1,y1 the first beyond it)"
        )
    return region


def check_region(region, shape, science=SCIENCE):
    """Raise an error if a region is not inside an image, or sees no sky.

    Parameters
    ----------
    region : Region
    shape : tuple of int
        (ny, nx) of the image.
    science : Region, optional
        Science pixels of the image.

    Raises
    ------
    ValueError
        If the region extends beyond the image or contains no science pixel.
    """
    ny, nx = shape
    if region.x0 < 0 or region.y0 < 0 or region.x1 > nx or region.y1 > ny:
        raise ValueError(
            f"region {','.join(map(str, region))} is not inside the FFI of {nx} x {ny} px; "
            f"choose it within 0,0,{nx},{ny}"
        )
    if min(clip(region, science).shape) <= 0:
        raise ValueError(
            f"region {','.join(map(str, region))} contains no science pixel; "
            f"choose one that overlaps {','.join(map(str, science))}"
        )
