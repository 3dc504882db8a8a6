"""PS1 mask bits and our own data-quality (DQ) bits, each defined once.

PS1 mask planes (`PS1`, uint16), by *value*. The ``MSKNAM`` index of the headers is not the bit number: indices 7
and 8 are both the value 128, so that every later index is one too high.

=========  =====  =========  ==================================================================
bit        value  name       meaning
=========  =====  =========  ==================================================================
0              1  DETECTOR   a detector defect
1              2  FLAT       no usable flat field
2              4  DARK       no usable dark
3              8  BLANK      no detector there
4             16  CTE        poor charge transfer
5             32  SAT        saturated
6             64  LOW        too low to be true
7            128  SUSPECT    suspect, or trailed by the burn tool
8            256  CR         cosmic ray
9            512  SPIKE      diffraction spike
10          1024  GHOST      optical ghost
11          2048  STREAK     a streak, e.g. of a satellite
12          4096  STARCORE   core of a bright star (what "ignore bit 12" means)
13          8192  CONV_BAD   bad after convolution with a bad pixel
14         16384  CONV_POOR  poor after convolution with a bad pixel
15         32768  MARK       a mark for internal use of the PS1 pipeline
=========  =====  =========  ==================================================================

Our DQ bits of a template pixel (`DQ`); 0 is good.

=====  ===============  =======================================================================
value  name             meaning
=====  ===============  =======================================================================
1      NO_PS1           no PS1 data at all
2      LOW_COVERAGE     less data than asked for
4      SAT_PS1          PS1 saturated here, so its flux is a lower limit or absent
8      IGNORED_BIT      native pixels with one of the ``ignore_mask_bits``
16     BAND_MISSING     one or more of r, i, z, y absent, the others standing in
32     STAR_REPAIRED    the flux of a bright star was put in from elsewhere
64     PROJECTION_SEAM  the pixel takes from two projection cells
128    COLLATERAL       outside the science area of the FFI: sees no sky
=====  ===============  =======================================================================
"""

from collections.abc import Iterable
from enum import IntFlag

import numpy as np


class PS1(IntFlag):
    """Mask bits of PS1 stacks (``MSKVAL`` cards of a GPC1 mask header); the module's docstring explains each."""

    DETECTOR = 1 << 0
    FLAT = 1 << 1
    DARK = 1 << 2
    BLANK = 1 << 3
    CTE = 1 << 4
    SAT = 1 << 5
    LOW = 1 << 6
    SUSPECT = 1 << 7
    CR = 1 << 8
    SPIKE = 1 << 9
    GHOST = 1 << 10
    STREAK = 1 << 11
    STARCORE = 1 << 12
    CONV_BAD = 1 << 13
    CONV_POOR = 1 << 14
    MARK = 1 << 15


class DQ(IntFlag):
    """Data-quality bits of a template pixel; the module's docstring explains each."""

    NO_PS1 = 1
    LOW_COVERAGE = 2
    SAT_PS1 = 4
    IGNORED_BIT = 8
    BAND_MISSING = 16
    STAR_REPAIRED = 32
    PROJECTION_SEAM = 64
    COLLATERAL = 128


#: A sentence for each bit, for the headers of templates.
DQ_MEANING = {
    DQ.NO_PS1: "no PS1 data at all",
    DQ.LOW_COVERAGE: "less data than min_coverage: FLUX_SUM is NaN",
    DQ.SAT_PS1: "PS1 saturated here: the flux is a lower limit or absent",
    DQ.IGNORED_BIT: "native pixels with one of the ignore_mask_bits",
    DQ.BAND_MISSING: "one or more of r, i, z, y absent, the others standing in",
    DQ.STAR_REPAIRED: "the flux of a bright star was put in from elsewhere",
    DQ.PROJECTION_SEAM: "the blurred light crosses into another projection cell",
    DQ.COLLATERAL: "outside the science area of the FFI: sees no sky",
}

#: Bit of the `missing` plane (bands 0..3 are r, i, z, y) that carries "this pixel belongs to a repaired star".
REPAIRED = 1 << 7


def bit_mask(bits: Iterable[int]) -> int:
    """Mask value of some PS1 bit numbers.

    Parameters
    ----------
    bits : iterable of int
        Bit numbers, 0 to 15.

    Returns
    -------
    mask : int
        The OR of ``1 << bit``; 0 for no bits.

    Raises
    ------
    ValueError
        If a bit is not a whole number from 0 to 15.
    """
    mask = 0
    for bit in bits:
        if isinstance(bit, bool) or bit not in range(16):
            raise ValueError(
                f"{bit!r} is not the number of a PS1 mask bit: give numbers, not values, from 0 to 15 (12 is STARCORE)"
            )
        mask |= 1 << int(bit)
    return mask


def dq_of_bits(bits: np.ndarray, missing: np.ndarray, ignore: int) -> np.ndarray:
    """DQ bits that follow from PS1 mask bits and missing bands.

    Parameters
    ----------
    bits : ndarray of uint16
        OR of the PS1 mask bits.
    missing : ndarray of uint8, same shape
        A bit for each missing band (r, i, z, y = 1, 2, 4, 8), and `REPAIRED`.
    ignore : int
        PS1 mask *value* that sets IGNORED_BIT, see `bit_mask`.

    Returns
    -------
    dq : ndarray of uint8, same shape
        SAT_PS1, IGNORED_BIT, BAND_MISSING and STAR_REPAIRED of `DQ`.
    """
    dq = np.zeros(np.shape(bits), np.uint8)
    dq[(bits & PS1.SAT.value) != 0] |= DQ.SAT_PS1.value
    dq[(bits & ignore) != 0] |= DQ.IGNORED_BIT.value
    dq[(missing & (REPAIRED - 1)) != 0] |= DQ.BAND_MISSING.value
    dq[(missing & REPAIRED) != 0] |= DQ.STAR_REPAIRED.value
    return dq
