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
2      LOW_COVERAGE     less data than ``min_coverage``
4      SAT_PS1          PS1 saturated, or blank beside bright pixels: flux is a lower limit or absent
8      IGNORED_BIT      native pixels with one of the ``ignore_mask_bits``
16     BAND_MISSING     one or more of r, i, z, y absent, replaced by the others
32     STAR_REPAIRED    flux of a saturated star from a PSF fit or the catalog
64     PROJECTION_SEAM  the pixel takes from two projection cells
128    COLLATERAL       outside the science area of the FFI: sees no sky
256    SUSPECT_PS1      native pixels with one of the ``suspect_mask_bits``
512    PS1_GAP          blank native pixels, whatever the cause
=====  ===============  =======================================================================
"""

import itertools
import re
from collections.abc import Iterable
from enum import IntFlag


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
    SUSPECT_PS1 = 256
    PS1_GAP = 512


#: A sentence for each bit, for the headers of templates.
DQ_MEANING = {
    DQ.NO_PS1: "no PS1 data at all",
    DQ.LOW_COVERAGE: "less data than min_coverage: FLUX_SUM is NaN",
    DQ.SAT_PS1: "saturated in PS1, or blank on a star: the flux is too low",
    DQ.IGNORED_BIT: "native pixels with one of the ignore_mask_bits",
    DQ.BAND_MISSING: "one or more of r, i, z, y absent, replaced by the others",
    DQ.STAR_REPAIRED: "saturated star restored by a PSF fit or a catalog",
    DQ.PROJECTION_SEAM: "convolved light from another projection cell",
    DQ.COLLATERAL: "outside the science area of the FFI: sees no sky",
    DQ.SUSPECT_PS1: "native pixels with one of the suspect_mask_bits",
    DQ.PS1_GAP: "blank native pixels within reach of the PSF",
}

#: Bits of the `missing` planes. Bits 0 to 4 are the bands r, i, z, y, g without data (`bands.BAND_BITS`).
BANDS_MISSING = 0b11111
#: A blank pixel with a bright pixel beside it: part of a star is lost.
BRIGHT_RIM = 1 << 5
#: A blank pixel.
GAP = 1 << 6
#: A pixel of a repaired or removed star.
REPAIRED = 1 << 7


def bits_named(text: str) -> set[int]:
    """Return the PS1 bit numbers that a word stands for.

    Parameters
    ----------
    text : str
        A number from 0 to 15, a name such as ``STARCORE`` or ``CONV.BAD`` in either case, or a mask value in
        hexadecimal such as ``0x1000``, which may have several bits.

    Returns
    -------
    bits : set of int

    Raises
    ------
    ValueError
        If the word is none of these.
    """
    name = text.strip().upper().replace(".", "_")
    if name in PS1.__members__:
        return {PS1[name].value.bit_length() - 1}
    if re.fullmatch("0X[0-9A-F]+", name) and 0 < int(name, 16) <= 0xFFFF:
        return {bit for bit in range(16) if int(name, 16) >> bit & 1}
    if name.isdecimal() and int(name) <= 15:
        return {int(name)}
    raise ValueError(f"{text!r} is not a PS1 mask bit: give 0 to 15, a name such as STARCORE, or 0x1000")


def check_disjoint(**lists: Iterable[int]):
    """Refuse lists of PS1 bits that share one.

    Parameters
    ----------
    **lists : iterable of int
        Bit numbers, by the name of their setting.

    Raises
    ------
    ValueError
        Naming the bit and both settings.
    """
    for (one, bits), (other, others) in itertools.combinations(lists.items(), 2):
        if shared := sorted(set(bits) & set(others)):
            named = ", ".join(f"{bit} ({PS1(1 << bit).name})" for bit in shared)
            raise ValueError(f"PS1 mask bit {named} is in both {one} and {other}; leave it in one of them")


def bit_mask(bits: Iterable[int]) -> int:
    """Return the mask value of PS1 bit numbers.

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
