"""From stored PS1 pixels to flux, and the weighted sum of the bands with its variance and masks."""

import functools
import math
from collections.abc import Mapping
from typing import NamedTuple

import numba
import numpy as np

from .photometry import PS1_ZERO_POINT

#: Scale of PS1's asinh compression, 2.5 log10(e) [PS1 IPP wiki, ``asinh_compression``]. A Python float: a NumPy one
#: would turn float32 skycells into float64.
ASINH_SCALE = 2.5 * math.log10(math.e)


#: Bands and their bit in the `missing` plane, in the order of wavelength; g last, for it is not in the TESS band.
BAND_BITS = {"r": 1, "i": 2, "z": 4, "y": 8, "g": 16}

_TABLE_SIZE = 65_536
#: Rows worked on at once: those of a stored chunk, so that each is read once.
_STRIP_ROWS = 64
_FLOAT32_MAX = float(np.finfo(np.float32).max)


class Scaling(NamedTuple):
    """How the stored numbers of one file become counts/s.

    Attributes
    ----------
    bzero, bscale : float
        FITS linear scaling; 0 and 1 where the file has none.
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


class Band(NamedTuple):
    """One band of a skycell as stored: arrays, or what has `shape` and `dtype` and gives strips of rows by slices.

    Attributes
    ----------
    image, variance : ndarray of int16 or float32, shape (ny, nx)
        Stored pixels of the stack and of its ``wt`` file.
    mask : ndarray of uint16, shape (ny, nx)
        PS1 mask bits.
    image_scaling, variance_scaling : Scaling
        Of `image` and `variance`, each from its own header.
    """

    image: np.ndarray
    variance: np.ndarray
    mask: np.ndarray
    image_scaling: Scaling
    variance_scaling: Scaling


class Combined(NamedTuple):
    """The weighted sum of the bands.

    Attributes
    ----------
    flux : ndarray of float32, shape (ny, nx)
        Flux [counts/s at zero point 25]; NaN where no band has data.
    variance : ndarray of float32, shape (ny, nx)
        Variance of `flux` [(counts/s)^2], finite and positive exactly where `flux` is finite.
    mask : ndarray of uint16, shape (ny, nx)
        OR of the bands' PS1 mask bits.
    missing : ndarray of uint8, shape (ny, nx)
        Bit of `BAND_BITS` for each weighted band that has no data there.
    """

    flux: np.ndarray
    variance: np.ndarray
    mask: np.ndarray
    missing: np.ndarray


def scaling(keywords: Mapping[str, float | None]) -> Scaling:
    """Choose the scaling of a stack file from its header's numbers.

    The asinh compression is undone if and only if BSOFTEN and BOFFSET are both there: cutouts and warps are linear,
    and for a ``wt`` file nothing else tells.

    Parameters
    ----------
    keywords : mapping of str to number
        BZERO, BSCALE, BLANK (or ZBLANK), BOFFSET, BSOFTEN, EXPTIME and FPA.ZP; absent or None means "no such card".

    Returns
    -------
    scaling : Scaling
        Zero point 25 where there is no FPA.ZP.

    Raises
    ------
    ValueError
        If EXPTIME is absent or not positive, or another number makes no scaling. An image without any good pixel
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
        raise ValueError(f"FPA.ZP is {chosen.zero_point}, not a zero point in magnitudes; repair the header")
    if not _is_empty(chosen):
        _check_exptime(chosen.exptime)
        if not (math.isfinite(chosen.bzero) and math.isfinite(chosen.bscale)):
            raise ValueError(f"BZERO {chosen.bzero}, BSCALE {chosen.bscale} scale no pixel; fetch the file again")
    return chosen


def linear_flux(stored, boffset, bsoften, exptime):
    """Undo the asinh compression of a PS1 stack.

    Parameters
    ----------
    stored : ndarray of float, any shape
        ``BZERO + BSCALE * disk``; NaN where blank.
    boffset, bsoften : float or None
        Header ``BOFFSET`` and ``BSOFTEN`` [counts]; None for a linear file. NaN: no good pixel, so all is NaN.
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
    """Variance of `linear_flux`, from the pixels of a ``wt`` file.

    Parameters
    ----------
    stored, boffset, bsoften, exptime
        As for `linear_flux`, but from the ``wt`` file and its own header; [counts^2] in place of [counts].

    Returns
    -------
    variance : ndarray of the same shape and dtype
        Variance [(counts/s)^2]: a variance scales with the square of the exposure time.

    Raises
    ------
    ValueError
        If `exptime` is not positive.
    """
    _check_exptime(exptime)
    return _counts(stored, boffset, bsoften) / exptime**2


@functools.lru_cache(maxsize=32)  # the strips of one skycell, 4 bands of an image and a variance, share theirs
def lookup_table(scaling: Scaling, power: int, weight: float = 1.0) -> np.ndarray:
    """Weighted flux or variance at zero point 25 of each of the 65,536 possible int16 numbers.

    Parameters
    ----------
    scaling : Scaling
        Of the file.
    power : int
        1 for an image, 2 for a variance.
    weight : float
        Of the band: a flux counts this often, a variance its square.

    Returns
    -------
    table : ndarray of float64, shape (65536,), read-only
        Entry ``n`` belongs to the stored number whose bits, read as uint16, are ``n`` (``stored.view(uint16)``).
        NaN for BLANK, for what no float32 holds, and for a variance that is not positive. Float64, at the price of
        float32, keeps the combined flux right to float32 rounding even where bands cancel.
    """
    table = _terms(np.arange(_TABLE_SIZE, dtype=np.uint16).view(np.int16), scaling, power, weight)
    table.flags.writeable = False
    return table


def combine(bands: Mapping[str, Band | None], weights: Mapping[str, float], shape=None) -> Combined:
    """Weighted sum of the bands, pixel by pixel and strip by strip, so that no band need be in memory as a whole.

    Parameters
    ----------
    bands : mapping of str to Band or None
        By name; None or absent for a band the archive has not, or not wholly (image, wt and mask).
    weights : mapping of str to float
        Of each band that counts, by name (`BAND_BITS`); not negative. A band of weight 0 counts for nothing.
    shape : (int, int), optional
        Needed only where every band may be missing.

    Returns
    -------
    combined : Combined
        ``sum(w f) * sum(all w) / sum(valid w)``, and ``sum(w^2 v)`` times the square of the same factor. A band is
        valid in a pixel if it has a flux *and* a positive variance there: a flux of unknown variance would have to
        take part with an invented one. Where no band is valid the flux is NaN, never 0.

    Raises
    ------
    ValueError
        If a weight is unknown, negative or not finite, none is positive, a band's arrays differ in shape or have
        another dtype than above, or no shape can be told.
    """
    used = _used_weights(weights)
    present = {name: bands[name] for name in used if bands.get(name) is not None}
    shape = _common_shape(present, shape)
    out = Combined(*(np.empty(shape, dtype) for dtype in (np.float32, np.float32, np.uint16, np.uint8)))
    for start in range(0, shape[0], _STRIP_ROWS):
        rows = slice(start, start + _STRIP_ROWS)
        strips = {name: _rows_of(band, rows) for name, band in present.items()}
        _fill(Combined(*(plane[rows] for plane in out)), strips, used)
    return out


def _check_exptime(exptime):
    if not (exptime > 0 and math.isfinite(exptime)):
        raise ValueError(
            f"EXPTIME must be positive to give counts/s, got {exptime} s; "
            "the header is broken or has no EXPTIME card: fetch the file again, or leave the band out"
        )


def _is_empty(scaling):
    """Whether the file has no good pixel: PS1 then writes BSOFTEN = NaN."""
    return scaling.bsoften is not None and not (math.isfinite(scaling.bsoften) and math.isfinite(scaling.boffset))


def _counts(stored, boffset, bsoften):
    if boffset is None or bsoften is None:
        return stored
    return boffset + 2 * bsoften * np.sinh(stored / ASINH_SCALE)


def _linear(disk, scaling, power):
    """Scale stored numbers to flux or variance at zero point 25, float64."""
    if _is_empty(scaling):
        return np.full(disk.shape, np.nan)
    linear = linear_flux if power == 1 else linear_variance
    rescale = 10 ** (0.4 * (PS1_ZERO_POINT - scaling.zero_point) * power)
    # Far ends of the table, reached by no real pixel, overflow: they end as NaN below.
    with np.errstate(over="ignore", invalid="ignore"):
        stored = scaling.bzero + scaling.bscale * disk.astype(np.float64)
        values = linear(stored, scaling.boffset, scaling.bsoften, scaling.exptime) * rescale
    values[~(np.abs(values) <= _FLOAT32_MAX)] = np.nan
    if power == 2:
        values[~(values > 0)] = np.nan
    if scaling.blank is not None and disk.dtype.kind == "i":
        values[disk == scaling.blank] = np.nan
    return values


def _used_weights(weights):
    for name, weight in weights.items():
        if name not in BAND_BITS:
            raise ValueError(f"weight of an unknown band {name!r}: the bands are {', '.join(BAND_BITS)}")
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"weight of band {name} is {weight}: give a number that is not negative")
    used = {name: float(weights[name]) for name in BAND_BITS if weights.get(name, 0) > 0}
    if not used:
        raise ValueError(f"no band has a weight above 0 in {dict(weights)}: give at least one")
    return used


def _common_shape(present, shape):
    shapes = {
        f"{name} {kind}": getattr(band, kind).shape
        for name, band in present.items()
        for kind in ("image", "variance", "mask")
    }
    if shape is None:
        if not shapes:
            raise ValueError("every band is missing, so that nothing tells the size of the skycell: give `shape`")
        shape = next(iter(shapes.values()))
    wrong = {kind: got for kind, got in shapes.items() if got != tuple(shape)}
    if wrong:
        raise ValueError(f"bands of one skycell must have one shape {tuple(shape)}, got {wrong}; fetch them again")
    return tuple(shape)


def _rows_of(band, rows):
    return band._replace(image=band.image[rows], variance=band.variance[rows], mask=band.mask[rows])


def _fill(out, present, used):
    """Combine the strips of the bands at hand into `out`."""
    patterns = _Patterns(*_renormalisation(list(present), used))
    out.mask[...] = 0
    for band in present.values():
        np.bitwise_or(out.mask, band.mask, out=out.mask)
    out.missing[...] = patterns.missing[-1]
    images = [(band.image, band.image_scaling, 1, used[name]) for name, band in present.items()]
    variances = [(band.variance, band.variance_scaling, 2, used[name]) for name, band in present.items()]
    if {_kind(stored) for stored, *_ in images + variances} == {"int16"}:
        _fill_by_table(out, _by_table(images), _by_table(variances), patterns)
    else:
        flux, variance = (np.array([_terms(*one) for one in some]) for some in (images, variances))
        out.flux[...], out.variance[...], out.missing[...] = _renormalised(flux, variance, patterns)


def _kind(stored):
    kind = stored.dtype.newbyteorder("=").name
    if kind not in ("int16", "float32"):
        raise ValueError(f"stored pixels of a PS1 stack are int16 or float32, got {kind}; fetch the file again")
    return kind


def _terms(stored, scaling, power, weight):
    """Return the weighted flux or variance of the pixels of one band."""
    return weight**power * _linear(stored, scaling, power)


class _ByTable(NamedTuple):
    """Images, or variances, of the bands at hand: stored numbers, and what each is worth."""

    numbers: tuple
    tables: tuple

    def at(self, places):
        """Return the terms of some pixels, shape (bands, pixels)."""
        return np.array([table[numbers[places]] for numbers, table in zip(*self, strict=True)])


def _by_table(some):
    numbers = tuple(np.ascontiguousarray(stored, np.int16).view(np.uint16).reshape(-1) for stored, *_ in some)
    return _ByTable(numbers, tuple(lookup_table(*how) for _, *how in some))


def _fill_by_table(out, images, variances, patterns):
    """Take all bands at hand for valid, and then look again at the few pixels where one is not."""
    flux, variance, missing = (plane.reshape(-1) for plane in (out.flux, out.variance, out.missing))
    factor = patterns.factor[-1]
    _sum_by_table(*images, factor, flux)
    _sum_by_table(*variances, factor**2, variance)
    places = np.flatnonzero(np.isnan(flux) | np.isnan(variance))
    again = _renormalised(images.at(places), variances.at(places), patterns)
    flux[places], variance[places], missing[places] = again


@numba.njit(cache=True, nogil=True)
def _sum_by_table(numbers, tables, factor, out):
    for k in range(out.size):
        total = 0.0
        for b in range(len(numbers)):
            total += tables[b][numbers[b][k]]
        out[k] = total * factor


class _Patterns(NamedTuple):
    """What follows from which bands are valid; index: bit b of it is set if the b-th band at hand is valid."""

    factor: np.ndarray  # float64, sum(all w) / sum(valid w)
    missing: np.ndarray  # uint8


def _renormalisation(names, used):
    """Factor and `missing` byte for each pattern of valid bands (bit b of the pattern: names[b] is valid)."""
    patterns = range(1 << len(names))
    valid = [[name for b, name in enumerate(names) if pattern >> b & 1] for pattern in patterns]
    total = math.fsum(used.values())
    factors = [total / math.fsum(used[n] for n in some) if some else math.nan for some in valid]
    missing = [sum(bit for n, bit in BAND_BITS.items() if n in used and n not in some) for some in valid]
    return np.array(factors), np.array(missing, np.uint8)


def _renormalised(flux, variance, patterns):
    """Sum the valid terms (bands first) of each pixel: flux, variance, and the `missing` byte."""
    valid = ~np.isnan(flux + variance)
    pattern = sum((one.astype(np.uint8) << b for b, one in enumerate(valid)), np.zeros(flux.shape[1:], np.uint8))
    factor = patterns.factor[pattern]
    flux, variance = (np.where(valid, terms, 0).sum(axis=0) for terms in (flux, variance))
    return flux * factor, variance * factor**2, patterns.missing[pattern]
