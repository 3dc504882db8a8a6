"""Native pixels shared among blocks of bin x bin, which keeps centroids exact."""

from typing import NamedTuple

import numba
import numpy as np
from numcodecs.bitround import BitRound

from .mask import BRIGHT_RIM, GAP

#: Mantissa bits stored of each plane (`rounded`), which bring a skycell under 8 MB. The relative error is at most
#: 2^-(bits + 1): flux 6e-5; variance 0.4 %; the count of valid pixels 0.1 %, none in full blocks; masked ones 1.6 %.
MANTISSA_BITS = {"flux": 13, "variance": 7, "valid": 9, "masked": 5}

#: The side of a block [native px] for which the kernel is compiled specially: the default of luigi.cfg.
_USUAL_BIN = 4

#: A pixel beside a blank one is bright above this many standard deviations. A PS1 star of 5 sigma at its peak has some
#: 20 counts/s, as much as the noise of a TESS pixel after convolution with 40 px.
BRIGHT_SIGMA = 5.0

_GAP, _BRIGHT_RIM = np.uint8(GAP), np.uint8(BRIGHT_RIM)


class Grid(NamedTuple):
    """Positions of the samples of a coarse plane in the native plane of their skycell.

    Attributes
    ----------
    x0, y0 : float
        0-based native position of the center of the first sample [native px].
    step : int
        Distance between samples [native px].
    """

    x0: float
    y0: float
    step: int


class Blocks(NamedTuple):
    """A skycell on blocks; all planes of shape (nby, nbx).

    Attributes
    ----------
    flux : ndarray of float32
        Flux shared into the block [counts/s]; 0 without valid pixels near (`valid` is 0 there).
    variance : ndarray of float32
        Variance of the native pixels, shared like the flux [(counts/s)^2]. It is a density of variance, to be
        convolved with squared kernels; the variance of `flux` itself is smaller, because neighboring blocks share
        noise.
    valid : ndarray of float32
        Number of valid native pixels, shared likewise: bin^2 inside, less at gaps and borders.
    masked : ndarray of float32
        The part of `valid` with one of the PS1 mask bits that are counted.
    bits : ndarray of uint16
        OR of the PS1 mask bits of the block's own bin x bin pixels, blank ones included.
    missing : ndarray of uint8
        OR of the `missing` bits of the block's own valid pixels, and GAP and BRIGHT_RIM of the blank ones.
    grid : Grid
        Of the blocks.
    """

    flux: np.ndarray
    variance: np.ndarray
    valid: np.ndarray
    masked: np.ndarray
    bits: np.ndarray
    missing: np.ndarray
    grid: Grid


def to_blocks(flux, variance, mask, missing, bin, corner, exclude=0, counted=0xFFFF) -> Blocks:
    """Share each native pixel among the 3 x 3 blocks nearest to it, with quadratic B-spline (TSC) weights.

    Parameters
    ----------
    flux, variance : ndarray of float32, shape (ny, nx)
        Combined flux [counts/s] and its variance. A pixel is valid if both are finite.
    mask : ndarray of uint16, shape (ny, nx)
        PS1 mask bits.
    missing : ndarray of uint8, shape (ny, nx)
        Bits of missing bands and repaired stars (`mask`); those of blank pixels are not used.
    bin : int
        Side of a block [native px]; 1 is the native plane.
    corner : (int, int)
        Global index (gx, gy) of the skycell's first pixel in its projection. Blocks begin at multiples of `bin` of
        that index, so that blocks of neighbouring skycells coincide.
    exclude : int
        PS1 mask *value*: pixels with any of its bits are treated as blank.
    counted : int
        PS1 mask *value*: valid pixels with any of its bits are counted in `Blocks.masked`.

    Returns
    -------
    blocks : Blocks
        From one block before the skycell's first to one after its last, since a border pixel reaches that far.

    Raises
    ------
    ValueError
        If `bin` is not a positive integer, `corner` is not integer, or the planes' shapes differ.

    Notes
    -----
    For a pixel at d blocks from the centre of the nearest block (abs(d) <= 1/2) the weights of the block before, that
    one and the one after are (1/2 - d)^2/2, 3/4 - d^2, (1/2 + d)^2/2 (Hockney & Eastwood 1988, Computer Simulation
    Using Particles, eq. 5-88). They add up to 1 (flux is conserved), their mean is d (the centroid is exact) and their
    variance is 1/4 whatever d: a point source is widened by exactly bin^2/4 native px^2 per axis.
    """
    _check(flux, variance, mask, missing, bin, corner)
    ny, nx = flux.shape
    x_first, x_count = _extent(corner[0], nx, bin)
    y_first, y_count = _extent(corner[1], ny, bin)
    out = _Planes(*(np.zeros((y_count, x_count), dtype) for dtype in (np.float32,) * 4 + (np.uint16, np.uint8)))
    native = _Native(
        np.ascontiguousarray(flux, np.float32),
        np.ascontiguousarray(variance, np.float32),
        np.ascontiguousarray(mask, np.uint16),
        np.ascontiguousarray(missing, np.uint8),
    )
    # The kernel's block (1, 1) is the first with pixels; `lead` is how many of its pixels lie before the skycell.
    lead = int(corner[0]) % bin, int(corner[1]) % bin
    weights = _weights_in_block(bin)
    weights = tuple(map(tuple, weights)) if bin == _USUAL_BIN else weights
    _deposit(native, weights, *lead, (np.uint16(exclude), np.uint16(counted)), out)
    half = (bin - 1) / 2
    return Blocks(*out, Grid(x_first + half, y_first + half, bin))


def rounded(array, bits) -> np.ndarray:
    """Round to nearest at `bits` bits of mantissa, so that the rest is zeros and compresses.

    Parameters
    ----------
    array : ndarray of float32
        Any values; NaN and infinities stay.
    bits : int
        Stored mantissa bits kept, 1 to 23.

    Returns
    -------
    rounded : ndarray of float32, same shape
        Each value off by at most 2^-(bits + 1) of itself, up and down alike (ties to even).

    Raises
    ------
    ValueError
        If `bits` is out of range.

    Notes
    -----
    Klöwer et al. 2021, Nature Computational Science 1, 713: rounding of mantissas before lossless compression.
    """
    if bits not in range(1, 24):
        raise ValueError(f"cannot keep {bits!r} mantissa bits of a float32: give 1 to 23")
    array = np.ascontiguousarray(array, np.float32)
    return BitRound(keepbits=int(bits)).encode(array).view(np.float32).reshape(array.shape)


def _check(flux, variance, mask, missing, bin, corner):
    if isinstance(bin, bool) or not isinstance(bin, (int, np.integer)) or bin < 1:
        raise ValueError(f"bin is {bin!r}: blocks need a whole number of native pixels, 1 or more")
    if any(part != int(part) for part in corner):
        raise ValueError(f"corner {tuple(corner)} is not a pair of whole pixels: take it from Skycell.corner")
    shapes = [np.shape(plane) for plane in (flux, variance, mask, missing)]
    if len(set(shapes)) > 1:
        raise ValueError(f"flux, variance, mask and missing must have one shape, got {shapes}")


def _extent(first, count, bin):
    """0-based native index where the block grid begins, and its number of blocks, along one axis."""
    first = int(first)
    begin = first // bin
    end = (first + count - 1) // bin
    return (begin - 1) * bin - first, end - begin + 3


def tsc_weights(offset):
    """Weigh the blocks before, at and after a point, `offset` blocks (-0.5 to 0.5) from the middle of its own.

    Parameters
    ----------
    offset : float or ndarray

    Returns
    -------
    before, own, after : float or ndarray
        Quadratic B-splines (TSC), of sum 1.
    """
    return 0.5 * (0.5 - offset) ** 2, 0.75 - offset**2, 0.5 * (0.5 + offset) ** 2


def _weights_in_block(bin):
    """`tsc_weights` (axis 0) of each of the bin positions in a block (axis 1), float32."""
    return np.stack(tsc_weights((np.arange(bin) - (bin - 1) / 2) / bin)).astype(np.float32)


class _Native(NamedTuple):
    flux: np.ndarray
    variance: np.ndarray
    mask: np.ndarray
    missing: np.ndarray


class _Planes(NamedTuple):
    flux: np.ndarray
    variance: np.ndarray
    valid: np.ndarray
    masked: np.ndarray
    bits: np.ndarray
    missing: np.ndarray


class _Rows(NamedTuple):
    """One native row, filled up with 0 to whole blocks, and what its row of blocks has seen so far."""

    row: np.ndarray  # float32 (4, n): flux, variance, valid, masked of one native row, 0 where blank
    bits: np.ndarray  # uint16 (n,)
    missing: np.ndarray  # uint8 (n,)


@numba.njit(cache=True, nogil=True)
def _deposit(native, weights, lead_x, lead_y, selected, out):
    """Share each row along x, and then its blocks along y.

    Weights that are tuples tell the compiler how many pixels a block has, so that it loads those of many blocks by
    vector instructions; it takes seconds for each such number, though, and does so for the usual one alone.
    """
    ny, nx = native.flux.shape
    bin = len(weights[0])
    count = out.flux.shape[1] - 2
    n = count * bin
    rows = _Rows(np.zeros((4, n), np.float32), np.zeros(n, np.uint16), np.zeros(n, np.uint8))
    shares, line = np.zeros((3, count), np.float32), np.zeros(count + 2, np.float32)
    first = -lead_y
    j = 1
    while first < ny:
        rows.bits[:] = 0
        rows.missing[:] = 0
        for y in range(max(first, 0), min(first + bin, ny)):
            _read_row(native, y, selected, rows, slice(lead_x, lead_x + nx))
            p = y - first
            _share_row(rows.row[0], weights, p, shares, line, out.flux, j)
            _share_row(rows.row[1], weights, p, shares, line, out.variance, j)
            _share_row(rows.row[2], weights, p, shares, line, out.valid, j)
            _share_row(rows.row[3], weights, p, shares, line, out.masked, j)
        _or_row(rows.bits, bin, out.bits[j])
        _or_row(rows.missing, bin, out.missing[j])
        first += bin
        j += 1


@numba.njit(cache=True, nogil=True)
def _read_row(native, y, selected, rows, inside):
    exclude, counted = selected
    nothing, one = np.float32(0), np.float32(1)
    flux, variance, mask, missing = native.flux[y], native.variance[y], native.mask[y], native.missing[y]
    out_flux, out_variance = rows.row[0][inside], rows.row[1][inside]
    out_valid, out_masked = rows.row[2][inside], rows.row[3][inside]
    bits, seen = rows.bits[inside], rows.missing[inside]
    for x in range(flux.size):
        # NaN and infinity do not give 0 when taken from themselves.
        sound = (flux[x] - flux[x]) + (variance[x] - variance[x]) == nothing
        sound &= mask[x] & exclude == 0
        out_valid[x] = one if sound else nothing
    for x in range(flux.size):
        out_flux[x] = flux[x] if out_valid[x] != nothing else nothing
    for x in range(flux.size):
        out_variance[x] = variance[x] if out_valid[x] != nothing else nothing
    for x in range(mask.size):
        out_masked[x] = out_valid[x] if mask[x] & counted != 0 else nothing
    for x in range(mask.size):
        bits[x] |= mask[x]
    for x in range(missing.size):
        seen[x] |= missing[x] if out_valid[x] != nothing else _GAP
    for x in range(flux.size):
        if out_valid[x] == nothing and _has_bright_rim(native, y, x, exclude):
            seen[x] |= _BRIGHT_RIM


@numba.njit(cache=True, nogil=True)
def _has_bright_rim(native, y, x, exclude):
    """Return whether one of the 8 pixels around a pixel is valid and brighter than `BRIGHT_SIGMA`."""
    for row in range(max(y - 1, 0), min(y + 2, native.flux.shape[0])):
        for column in range(max(x - 1, 0), min(x + 2, native.flux.shape[1])):
            flux, variance = native.flux[row, column], native.variance[row, column]
            # NaN fails both comparisons.
            if native.mask[row, column] & exclude == 0 and flux > 0 and flux * flux > BRIGHT_SIGMA**2 * variance:
                return True
    return False


@numba.njit(cache=True, nogil=True)
def _share_row(row, weights, p, shares, line, plane, j):
    """Share a native row, the p-th of its blocks, among the blocks of rows j - 1, j, j + 1 of `plane`."""
    _share_columns(row, weights, shares[0], shares[1], shares[2])
    count = shares.shape[1]
    line[:] = 0
    for k in range(3):
        _add_scaled(np.float32(1), shares[k], line[k : count + k])
    for k in range(3):
        _add_scaled(weights[k][p], line, plane[j - 1 + k])


@numba.njit(cache=True, nogil=True)
def _share_columns(row, weights, before, own, after):
    bin = len(weights[0])
    for i in range(before.size):
        first = second = third = np.float32(0)
        for p in range(bin):
            value = row[i * bin + p]
            first += weights[0][p] * value
            second += weights[1][p] * value
            third += weights[2][p] * value
        before[i], own[i], after[i] = first, second, third


@numba.njit(cache=True, nogil=True)
def _add_scaled(weight, row, total):
    for x in range(row.size):
        total[x] += weight * row[x]


@numba.njit(cache=True, nogil=True)
def _or_row(row, bin, line):
    for i in range(line.size - 2):
        for p in range(bin):
            line[i + 1] |= row[i * bin + p]
