"""From stored PS1 pixels to flux, and the weighted sum of the bands with its variance and masks."""

import functools
import math
from collections.abc import Mapping
from typing import NamedTuple

import numba
import numpy as np

#: Scale of PS1's asinh compression, 2.5 log10(e) [PS1 IPP wiki, ``asinh_compression``]. A Python float: a NumPy one
#: would turn float32 skycells into float64.
ASINH_SCALE = 2.5 * math.log10(math.e)

#: AB zero point of the flux this package works in [mag]; PS1 stacks have it already (``FPA.ZP``).
ZERO_POINT = 25.0

#: Bands and their bit in the `missing` plane, in the order of wavelength; g last, for it is not in the TESS band.
BAND_BITS = {"r": 1, "i": 2, "z": 4, "y": 8, "g": 16}

_TABLE_SIZE = 65_536
#: Rows worked on at once: bounds the float64 temporaries of float32 files to some tens of MB.
_STRIP_ROWS = 256
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
    zero_point: float = ZERO_POINT


class Band(NamedTuple):
    """One band of a skycell, or a strip of whole rows of it, as stored.

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
        zero_point=number("FPA.ZP", ZERO_POINT),
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
def lookup_table(scaling: Scaling, power: int) -> np.ndarray:
    """Flux or variance at zero point 25 of each of the 65,536 possible int16 numbers.

    Parameters
    ----------
    scaling : Scaling
        Of the file.
    power : int
        1 for an image, 2 for a variance.

    Returns
    -------
    table : ndarray of float64, shape (65536,), read-only
        Entry ``n`` belongs to the stored number whose bits, read as uint16, are ``n`` (``stored.view(uint16)``).
        NaN for BLANK, for what no float32 holds, and for a variance that is not positive. Float64, at the price of
        float32, keeps the combined flux right to float32 rounding even where bands cancel.
    """
    disk = np.arange(_TABLE_SIZE, dtype=np.uint16).view(np.int16)
    table = _linear(disk, scaling, power)
    if scaling.blank is not None:
        table[disk == scaling.blank] = np.nan
    table.flags.writeable = False
    return table


def combine(bands: Mapping[str, Band | None], weights: Mapping[str, float], shape=None) -> Combined:
    """Weighted sum of the bands, pixel by pixel, so that strips of rows can be given.

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
    """Scale stored numbers (blanks not yet looked for) to flux or variance at zero point 25, float64."""
    if _is_empty(scaling):
        return np.full(disk.shape, np.nan)
    linear = linear_flux if power == 1 else linear_variance
    rescale = 10 ** (0.4 * (ZERO_POINT - scaling.zero_point) * power)
    # Far ends of the table, reached by no real pixel, overflow: they end as NaN below.
    with np.errstate(over="ignore", invalid="ignore"):
        stored = scaling.bzero + scaling.bscale * disk.astype(np.float64)
        values = linear(stored, scaling.boffset, scaling.bsoften, scaling.exptime) * rescale
    values[~(np.abs(values) <= _FLOAT32_MAX)] = np.nan
    if power == 2:
        values[~(values > 0)] = np.nan
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
    weights = np.array([used[name] for name in present])
    patterns = _Patterns(*_renormalisation(list(present), used))
    masks = tuple(np.ascontiguousarray(band.mask, np.uint16) for band in present.values())
    arrays = [(band.image, band.image_scaling, 1) for band in present.values()]
    arrays += [(band.variance, band.variance_scaling, 2) for band in present.values()]
    if not present:
        _blank_rows(patterns, out)
    elif all(_kind(stored) == "int16" for stored, _, _ in arrays):
        numbers = tuple(np.ascontiguousarray(stored, np.int16).view(np.uint16) for stored, _, _ in arrays)
        tables = tuple(lookup_table(scaling, power) for _, scaling, power in arrays)
        _sum_by_table(numbers, tables, masks, weights, patterns, out)
    else:
        _sum_linear(tuple(_linear_rows(*array) for array in arrays), masks, weights, patterns, out)


def _blank_rows(patterns, out):
    out.flux[...] = out.variance[...] = math.nan
    out.mask[...] = 0
    out.missing[...] = patterns.missing[0]


def _kind(stored):
    kind = stored.dtype.newbyteorder("=").name
    if kind not in ("int16", "float32"):
        raise ValueError(f"stored pixels of a PS1 stack are int16 or float32, got {kind}; fetch the file again")
    return kind


def _linear_rows(stored, scaling, power):
    if _kind(stored) == "int16":
        return lookup_table(scaling, power)[np.ascontiguousarray(stored, np.int16).view(np.uint16)]
    return _linear(stored, scaling, power)


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


@numba.njit(cache=True, nogil=True)
def _sum_by_table(numbers, tables, masks, weights, patterns, out):
    """Kernel of `combine` for int16 files; `numbers` and `tables`: the images, then the variances."""
    ny, nx = out.flux.shape
    n = len(masks)
    flux, variance = np.empty(nx), np.empty(nx)
    row = _empty_row(nx)
    for y in range(ny):
        _clear(row)
        for b in range(n):
            # One table at a time, and no arithmetic beside it: 2 x faster than pixel by pixel.
            _look_up(numbers[b][y], tables[b], flux)
            _look_up(numbers[n + b][y], tables[n + b], variance)
            _add_band(flux, variance, weights[b], 1 << b, row)
            _add_mask(masks[b][y], row.mask)
        _finish_row(row, patterns, out, y)


@numba.njit(cache=True, nogil=True)
def _sum_linear(linear, masks, weights, patterns, out):
    """Kernel of `combine` for float32 files, made linear: the images, then the variances."""
    ny, nx = out.flux.shape
    n = len(masks)
    row = _empty_row(nx)
    for y in range(ny):
        _clear(row)
        for b in range(n):
            _add_band(linear[b][y], linear[n + b][y], weights[b], 1 << b, row)
            _add_mask(masks[b][y], row.mask)
        _finish_row(row, patterns, out, y)


class _Row(NamedTuple):
    """Sums over the bands of one row of pixels."""

    flux: np.ndarray  # float64
    variance: np.ndarray  # float64
    valid: np.ndarray  # float64, so that the loop over it is a vector loop; the index into `_Patterns`
    mask: np.ndarray  # uint16


@numba.njit(cache=True, nogil=True)
def _empty_row(nx):
    return _Row(np.empty(nx), np.empty(nx), np.empty(nx), np.empty(nx, np.uint16))


@numba.njit(cache=True, nogil=True)
def _clear(row):
    row.flux[:] = 0
    row.variance[:] = 0
    row.valid[:] = 0
    row.mask[:] = 0


@numba.njit(cache=True, nogil=True)
def _look_up(numbers, table, out):
    for x in range(out.size):
        out[x] = table[numbers[x]]


@numba.njit(cache=True, nogil=True)
def _add_band(flux, variance, weight, bit, row):
    for x in range(flux.size):
        both = flux[x] + variance[x]
        ok = both == both  # neither is NaN
        row.flux[x] += weight * flux[x] if ok else 0.0
        row.variance[x] += weight * weight * variance[x] if ok else 0.0
        row.valid[x] += bit if ok else 0.0


@numba.njit(cache=True, nogil=True)
def _add_mask(mask, out):
    for x in range(out.size):
        out[x] |= mask[x]


@numba.njit(cache=True, nogil=True)
def _finish_row(row, patterns, out, y):
    flux, variance, mask, missing = out.flux[y], out.variance[y], out.mask[y], out.missing[y]
    # A vector loop that takes all bands at hand for valid, then a sparse one: most pixels have them all.
    every = patterns.factor.size - 1
    factor, absent = patterns.factor[every], patterns.missing[every]
    for x in range(flux.size):
        flux[x] = row.flux[x] * factor
        variance[x] = row.variance[x] * (factor * factor)
        mask[x] = row.mask[x]
        missing[x] = absent
    for x in range(flux.size):
        if row.valid[x] != every:
            pattern = int(row.valid[x])
            factor = patterns.factor[pattern]
            flux[x] = row.flux[x] * factor
            variance[x] = row.variance[x] * (factor * factor)
            missing[x] = patterns.missing[pattern]
