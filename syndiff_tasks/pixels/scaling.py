"""From the stored numbers of one PS1 file to flux or variance in counts/s."""

import functools
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from .photometry import PS1_ZERO_POINT

#: Scale of PS1's asinh compression, 2.5 log10(e) [PS1 IPP wiki, ``asinh_compression``]. A Python float: a NumPy one
#: would turn float32 skycells into float64.
ASINH_SCALE = 2.5 * math.log10(math.e)

_TABLE_SIZE = 65_536
_FLOAT32_MAX = float(np.finfo(np.float32).max)


class Scaling(NamedTuple):
    """Conversion of the stored numbers of one file to counts/s.

    Attributes
    ----------
    bzero, bscale : float
        FITS linear scaling; 0 and 1 in files without one.
    blank : int or None
        The stored integer that means "no data".
    boffset, bsoften : float or None
        Parameters of the asinh compression [counts]; None unless the file has *both*.
    exptime : float
        Exposure time [s].
    zero_point : float
        AB magnitude of one count/s.
    """

    bzero: float
    bscale: float
    blank: int | None
    boffset: float | None
    bsoften: float | None
    exptime: float
    zero_point: float = PS1_ZERO_POINT


def scaling_of(keywords: Mapping[str, float | None]) -> Scaling:
    """Return the scaling of a stack file from its header.

    The file is asinh-compressed if and only if it has both BSOFTEN and BOFFSET: cutouts and warps are linear, and a
    ``wt`` file may be either.

    Parameters
    ----------
    keywords : mapping of str to number
        BZERO, BSCALE, BLANK (or ZBLANK), BOFFSET, BSOFTEN, EXPTIME and FPA.ZP; None counts as absent.

    Returns
    -------
    scaling : Scaling
        With zero point 25 in the absence of FPA.ZP.

    Raises
    ------
    ValueError
        If EXPTIME is absent or not positive, or another keyword is not finite. An image without good pixels
        (BSOFTEN NaN) needs no EXPTIME.
    """

    def number(name, default=None):
        value = keywords.get(name)
        return default if value is None else float(value)

    blank = number("BLANK", number("ZBLANK"))
    boffset, bsoften = number("BOFFSET"), number("BSOFTEN")
    if boffset is None or bsoften is None:
        boffset = bsoften = None
    chosen = Scaling(
        bzero=number("BZERO", 0.0),
        bscale=number("BSCALE", 1.0),
        blank=None if blank is None else int(blank),
        boffset=boffset,
        bsoften=bsoften,
        exptime=number("EXPTIME", 0.0),
        zero_point=number("FPA.ZP", PS1_ZERO_POINT),
    )
    if not math.isfinite(chosen.zero_point):
        raise ValueError(f"FPA.ZP is {chosen.zero_point}, not a zero point in magnitudes; download the file again")
    if not _is_empty(chosen):
        _check_exptime(chosen.exptime)
        if not (math.isfinite(chosen.bzero) and math.isfinite(chosen.bscale)):
            raise ValueError(f"BZERO {chosen.bzero}, BSCALE {chosen.bscale} are not finite; download the file again")
    return chosen


def linear_flux(stored, boffset, bsoften, exptime):
    """Undo the asinh compression of a PS1 stack.

    Parameters
    ----------
    stored : ndarray of float, any shape
        ``BZERO + BSCALE * stored number``; NaN where blank.
    boffset, bsoften : float or None
        Header ``BOFFSET`` and ``BSOFTEN`` [counts]; None for a linear file, NaN in a file without good pixels.
    exptime : float
        Header ``EXPTIME`` [s].

    Returns
    -------
    flux : ndarray of the same shape and dtype
        Flux [counts/s] at the file's own zero point; NaN stays NaN.

    Raises
    ------
    ValueError
        If `exptime` is not positive.

    Notes
    -----
    The inverse is given on the PS1 IPP wiki, page ``asinh_compression``.
    """
    _check_exptime(exptime)
    return _counts(stored, boffset, bsoften) / exptime


def linear_variance(stored, boffset, bsoften, exptime):
    """Return the variance of `linear_flux` from the pixels of a ``wt`` file.

    Parameters
    ----------
    stored, boffset, bsoften, exptime
        As for `linear_flux`, from the ``wt`` file and its own header; [counts^2] in place of [counts].

    Returns
    -------
    variance : ndarray of the same shape and dtype
        [(counts/s)^2]; a variance scales with the square of the exposure time.

    Raises
    ------
    ValueError
        If `exptime` is not positive.
    """
    _check_exptime(exptime)
    return _counts(stored, boffset, bsoften) / exptime**2


@functools.lru_cache(maxsize=32)  # shared by all strips of a skycell: 4 bands of image and variance
def lookup_table(scaling: Scaling, power: int, weight: float = 1.0) -> np.ndarray:
    """Return the weighted flux or variance, at zero point 25, of each of the 65,536 int16 numbers.

    Parameters
    ----------
    scaling : Scaling
        Of the file.
    power : int
        1 for an image, 2 for a variance.
    weight : float
        Of the band: multiplies a flux, its square a variance.

    Returns
    -------
    table : ndarray of float64, shape (65536,), read-only
        Entry ``n`` belongs to the stored number whose bits, read as uint16, are ``n`` (``stored.view(uint16)``).
        NaN for BLANK, for values beyond float32, and for variances that are not positive. Float64 costs no more time
        than float32, and keeps the combined flux right to float32 rounding even where bands cancel.
    """
    table = weighted_terms(np.arange(_TABLE_SIZE, dtype=np.uint16).view(np.int16), scaling, power, weight)
    table.flags.writeable = False
    return table


def _check_exptime(exptime):
    if not (exptime > 0 and math.isfinite(exptime)):
        raise ValueError(
            f"EXPTIME must be positive to give counts/s, got {exptime} s; "
            "download the file again, or leave the band out of weights"
        )


def _is_empty(scaling):
    """Return whether the file has no good pixel: PS1 then writes BSOFTEN = NaN."""
    return scaling.bsoften is not None and not (math.isfinite(scaling.bsoften) and math.isfinite(scaling.boffset))


def _counts(stored, boffset, bsoften):
    if boffset is None or bsoften is None:
        return stored
    return boffset + 2 * bsoften * np.sinh(stored / ASINH_SCALE)


def _linear(disk, scaling, power):
    """Return stored numbers as flux or variance at zero point 25, float64."""
    if _is_empty(scaling):
        return np.full(disk.shape, np.nan)
    linear = linear_flux if power == 1 else linear_variance
    rescale = 10 ** (0.4 * (PS1_ZERO_POINT - scaling.zero_point) * power)
    # The far ends of the table, which no real pixel reaches, overflow and become NaN below.
    with np.errstate(over="ignore", invalid="ignore"):
        stored = scaling.bzero + scaling.bscale * disk.astype(np.float64)
        values = linear(stored, scaling.boffset, scaling.bsoften, scaling.exptime) * rescale
    values[~(np.abs(values) <= _FLOAT32_MAX)] = np.nan
    if power == 2:
        values[~(values > 0)] = np.nan
    if scaling.blank is not None and disk.dtype.kind == "i":
        values[disk == scaling.blank] = np.nan
    return values


def weighted_terms(stored, scaling, power, weight):
    """Return the weighted flux or variance of some pixels of one band.

    Parameters
    ----------
    stored : ndarray of int16 or float32
    scaling, power, weight
        As `lookup_table` takes them.

    Returns
    -------
    terms : ndarray of float64, same shape
        At zero point 25; NaN without data.
    """
    return weight**power * _linear(stored, scaling, power)
