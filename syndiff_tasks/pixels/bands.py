"""The weighted sum of a skycell's bands, with its variance and masks."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numba
import numpy as np

from .scaling import Scaling, lookup_table, weighted_terms

#: Bands and their bit in the `missing` plane, in the order of wavelength; g last, because it is outside the TESS band.
BAND_BITS = {"r": 1, "i": 2, "z": 4, "y": 8, "g": 16}

#: Rows combined at once: those of a stored chunk, so that each chunk is read once.
_STRIP_ROWS = 64


class Band(NamedTuple):
    """One band of a skycell as stored: arrays, or objects with `shape` and `dtype` that slice rows into arrays.

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
        OR of the bands' PS1 mask bits, those of rejected pixels included.
    missing : ndarray of uint8, shape (ny, nx)
        Bit of `BAND_BITS` of each weighted band without data there.
    """

    flux: np.ndarray
    variance: np.ndarray
    mask: np.ndarray
    missing: np.ndarray


def combine(bands: Mapping[str, Band | None], weights: Mapping[str, float], shape=None, reject=0) -> Combined:
    """Sum the weighted bands pixel by pixel, strip by strip, so that no whole band need be in memory.

    Parameters
    ----------
    bands : mapping of str to Band or None
        By name; None or absent for a band of which the archive lacks the image, wt or mask.
    weights : mapping of str to float
        Of each band, by name (`BAND_BITS`); not negative. Bands of weight 0 are ignored.
    shape : (int, int), optional
        Needed only if every band may be missing.
    reject : int
        PS1 mask *value*: a band is blank in a pixel where its own mask has any of these bits.

    Returns
    -------
    combined : Combined
        ``sum(w f) * sum(all w) / sum(valid w)``, and ``sum(w^2 v)`` times the square of the same factor. A band is
        valid in a pixel if it has a flux *and* a positive variance there, and none of the bits of `reject`: a flux of
        unknown variance would need an invented one. Where no band is valid, the flux is NaN, never 0.

    Raises
    ------
    ValueError
        If a weight belongs to an unknown band, is negative or not finite, if no weight is positive, if a band's arrays
        differ in shape or have another dtype than above, or if the shape is unknown.
    """
    used = _used_weights(weights)
    present = {name: bands[name] for name in used if bands.get(name) is not None}
    shape = _common_shape(present, shape)
    out = Combined(*(np.empty(shape, dtype) for dtype in (np.float32, np.float32, np.uint16, np.uint8)))
    for start in range(0, shape[0], _STRIP_ROWS):
        rows = slice(start, start + _STRIP_ROWS)
        strips = {name: _rows_of(band, rows) for name, band in present.items()}
        _fill(Combined(*(plane[rows] for plane in out)), strips, used, np.uint16(reject))
    return out


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
            raise ValueError("every band is missing and the size of the skycell is unknown: give `shape`")
        shape = next(iter(shapes.values()))
    wrong = {kind: got for kind, got in shapes.items() if got != tuple(shape)}
    if wrong:
        raise ValueError(f"bands of one skycell must have one shape {tuple(shape)}, got {wrong}; download them again")
    return tuple(shape)


def _rows_of(band, rows):
    return band._replace(image=band.image[rows], variance=band.variance[rows], mask=band.mask[rows])


def _fill(out, present, used, reject):
    """Combine a strip of the bands that exist into `out`."""
    patterns = _Patterns(*_renormalization(list(present), used))
    out.mask[...] = 0
    for band in present.values():
        np.bitwise_or(out.mask, band.mask, out=out.mask)
    out.missing[...] = patterns.missing[-1]
    images = [(band.image, band.image_scaling, 1, used[name]) for name, band in present.items()]
    variances = [(band.variance, band.variance_scaling, 2, used[name]) for name, band in present.items()]
    masks = tuple(band.mask for band in present.values())
    if {_kind(stored) for stored, *_ in images + variances} == {"int16"}:
        _fill_by_table(out, _by_table(images), _by_table(variances), patterns, (masks, reject))
    else:
        flux, variance = (np.array([weighted_terms(*one) for one in some]) for some in (images, variances))
        for one, mask in zip(flux, masks, strict=True):
            one[(mask & reject) != 0] = np.nan
        out.flux[...], out.variance[...], out.missing[...] = _renormalized(flux, variance, patterns)


def _kind(stored):
    kind = stored.dtype.newbyteorder("=").name
    if kind not in ("int16", "float32"):
        raise ValueError(f"stored pixels of a PS1 stack are int16 or float32, got {kind}; download the file again")
    return kind


class _ByTable(NamedTuple):
    """Images or variances of the bands that exist: stored numbers, and the value of each number."""

    numbers: tuple
    tables: tuple

    def at(self, places):
        """Return the terms of some pixels, shape (bands, pixels)."""
        return np.array([table[numbers[places]] for numbers, table in zip(*self, strict=True)])


def _by_table(some):
    numbers = tuple(np.ascontiguousarray(stored, np.int16).view(np.uint16).reshape(-1) for stored, *_ in some)
    return _ByTable(numbers, tuple(lookup_table(*how) for _, *how in some))


def _fill_by_table(out, images, variances, patterns, rejected):
    """Sum as if all bands that exist were valid everywhere, then redo the few pixels where one is not."""
    flux, variance, missing = (plane.reshape(-1) for plane in (out.flux, out.variance, out.missing))
    factor = patterns.factor[-1]
    _sum_by_table(*images, factor, flux)
    _sum_by_table(*variances, factor**2, variance)
    masks, reject = rejected
    places = np.flatnonzero(np.isnan(flux) | np.isnan(variance) | ((out.mask.reshape(-1) & reject) != 0))
    terms = images.at(places)
    for one, mask in zip(terms, masks, strict=True):
        one[(mask.reshape(-1)[places] & reject) != 0] = np.nan
    again = _renormalized(terms, variances.at(places), patterns)
    flux[places], variance[places], missing[places] = again


@numba.njit(cache=True, nogil=True)
def _sum_by_table(numbers, tables, factor, out):
    for k in range(out.size):
        total = 0.0
        for b in range(len(numbers)):
            total += tables[b][numbers[b][k]]
        out[k] = total * factor


class _Patterns(NamedTuple):
    """Values by pattern of valid bands; bit b of an index is set if the b-th band that exists is valid."""

    factor: np.ndarray  # float64, sum(all w) / sum(valid w)
    missing: np.ndarray  # uint8


def _renormalization(names, used):
    """Return the factor and the `missing` byte for each pattern of valid bands (bit b: names[b] is valid)."""
    patterns = range(1 << len(names))
    valid = [[name for b, name in enumerate(names) if pattern >> b & 1] for pattern in patterns]
    total = math.fsum(used.values())
    factors = [total / math.fsum(used[n] for n in some) if some else math.nan for some in valid]
    missing = [sum(bit for n, bit in BAND_BITS.items() if n in used and n not in some) for some in valid]
    return np.array(factors), np.array(missing, np.uint8)


def _renormalized(flux, variance, patterns):
    """Sum the valid terms (bands first) of each pixel: flux, variance, and the `missing` byte."""
    valid = ~np.isnan(flux + variance)
    pattern = sum((one.astype(np.uint8) << b for b, one in enumerate(valid)), np.zeros(flux.shape[1:], np.uint8))
    factor = patterns.factor[pattern]
    flux, variance = (np.where(valid, terms, 0).sum(axis=0) for terms in (flux, variance))
    return flux * factor, variance * factor**2, patterns.missing[pattern]
