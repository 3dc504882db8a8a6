"""RICE_1 tiles of 16-bit integers, one row a tile: the form of every PS1 stack file.

Decoding is the CPU floor of a skycell. On one 2.5 GHz core an image of 6320 x 6284 noise pixels takes astropy 0.73 s,
fitsio 1.23 s, ``imagecodecs.rcomp_decode`` (cfitsio's own loop, called per row) 0.50 s, and the loop below 0.10 s: each
pixel's position in the stream depends on the one before, so a single row waits on its own latency, and two rows decoded
side by side fill the wait; two pixels a load spare half of the loads, and zeros are counted in one instruction.
"""

import numba
import numba.extending
import numpy as np
from llvmlite import ir

SLACK = 256
"""Bytes that must follow the last row in the buffer: a block of 32 pixels that has already left its row reads at most
32 x (16 + 8) bits and 8 bytes more before the check at its end."""

BLOCK = 32
"""Pixels a RICE block (cfitsio's default and the only one decoded here)."""

_PADDING = 3
"""Unused bytes tolerated at the end of a row: some encoders fill up to a 32-bit word; cfitsio's writes none."""

# Unsigned 64-bit constants: numba makes uint64 with a Python int a float64.
_U0, _U1, _U2, _U3, _U4, _U5, _U6, _U7 = (np.uint64(n) for n in range(8))
_U8, _U14, _U15, _U16, _U24, _U32 = (np.uint64(n) for n in (8, 14, 15, 16, 24, 32))
_U40, _U48, _U56, _U60, _U63, _U64 = (np.uint64(n) for n in (40, 48, 56, 60, 63, 64))


@numba.extending.intrinsic
def _count_leading_zeros(_, word):
    """Make the processor's own instruction of it."""

    def generate(context, builder, signature, arguments):
        return builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return word(word), generate


def _zeros(word):
    """Count the zero bits at the top of a 64-bit word, 64 of them in 0."""
    return np.uint64(64 - int(word).bit_length())


@numba.extending.overload(_zeros, inline="always")
def _zeros_compiled(word):
    return lambda word: _count_leading_zeros(word)


@numba.njit(cache=True, nogil=True, inline="always")
def _bits(stream, position):
    """Load at least 57 bits from bit `position` on, at the top of a 64-bit word."""
    i = position >> _U3
    word = (
        (np.uint64(stream[i]) << _U56)
        | (np.uint64(stream[i + _U1]) << _U48)
        | (np.uint64(stream[i + _U2]) << _U40)
        | (np.uint64(stream[i + _U3]) << _U32)
        | (np.uint64(stream[i + _U4]) << _U24)
        | (np.uint64(stream[i + _U5]) << _U16)
        | (np.uint64(stream[i + _U6]) << _U8)
        | np.uint64(stream[i + _U7])
    )
    return word << (position & _U7)


@numba.njit(cache=True, nogil=True, inline="always")
def _step(folded):
    """Unfold a difference from its folded form 0, -1, 1, -2, ..."""
    folded = np.int64(folded)
    return (folded >> 1) ^ -(folded & 1)


@numba.njit(cache=True, nogil=True, inline="always")
def _folded(word, run, size, low_bits):
    """Take a difference of `size` bits, still folded, off the top of a word: `run` zeros, a one, `low_bits` bits."""
    return (run << low_bits) + (word >> (_U64 - size)) - (_U1 << low_bits)


@numba.njit(cache=True, nogil=True)
def _any_pixel(stream, position, end, code):
    """Read one folded difference with a run of zeros of any length; one without end leads past the end of the row."""
    run = _U0
    while position + run <= end:
        zeros = min(_zeros(_bits(stream, position + run)), _U56)
        run += zeros
        if zeros < _U56:
            word = _bits(stream, position + run)
            folded = (run << (code - _U1)) | ((word << _U1 >> _U1) >> (_U64 - code))
            return position + run + code, folded
    return end + _U1, _U0


@numba.njit(cache=True, nogil=True)
def _block(stream, position, end, code, last, row, x, stop):
    """Decode one block of one row, of any of its three kinds, pixel by pixel."""
    excess = _U0
    if code == _U0:
        for k in range(x, stop):
            row[k] = last & 0xFFFF
    elif code == _U15:
        for k in range(x, stop):
            last += _step(_bits(stream, position) >> _U48)
            position += _U16
            row[k] = last & 0xFFFF
    else:
        for k in range(x, stop):
            position, folded = _any_pixel(stream, position, end, code)
            excess |= folded
            last = (last + _step(folded)) & 0xFFFF
            row[k] = last
    return position, last, excess


@numba.njit(cache=True, nogil=True)
def _fill(row, row2, last, last2, x, stop):
    """Continue two rows that do not change."""
    for k in range(x, stop):
        row[k] = last & 0xFFFF
        row2[k] = last2 & 0xFFFF


@numba.njit(cache=True, nogil=True)
def _decode(stream, starts, lengths, zero, rows):
    """Fill `rows`, and return the number of the first broken row, or -1."""
    ny, nx = rows.shape
    width = np.uint64(nx)
    for j in range(0, ny, 2):
        j2 = min(j + 1, ny - 1)  # an odd last row is its own partner
        row, row2 = rows[j], rows[j2]
        at, at2 = np.uint64(starts[j]) << _U3, np.uint64(starts[j2]) << _U3
        end, end2 = at + (np.uint64(lengths[j]) << _U3), at2 + (np.uint64(lengths[j2]) << _U3)
        last, last2 = zero + np.int64(_bits(stream, at) >> _U48), zero + np.int64(_bits(stream, at2) >> _U48)
        at += _U16
        at2 += _U16
        excess = excess2 = _U0
        x = _U0
        while x < width:
            if at > end:
                return j
            if at2 > end2:
                return j2
            k, stop = x, min(x + _U32, width)
            code, code2 = _bits(stream, at) >> _U60, _bits(stream, at2) >> _U60
            at += _U4
            at2 += _U4
            if code == _U0 and code2 == _U0:
                _fill(row, row2, last, last2, x, stop)
                k = stop
            elif code != _U0 and code2 != _U0 and code != _U15 and code2 != _U15:
                # Two pixels of each row a load, whose 57 bits hold them while no run of zeros is of 16 bits or, with
                # the longest code, of 8; nor has a difference more than 16 bits then.
                too_long = ~_U15 if max(code, code2) < _U14 else ~_U7
                low_bits, low_bits2 = code - _U1, code2 - _U1
                while k + _U1 < stop:
                    word, word2 = _bits(stream, at), _bits(stream, at2)
                    run, run2 = _zeros(word), _zeros(word2)
                    size, size2 = run + code, run2 + code2
                    rest, rest2 = word << (size & _U63), word2 << (size2 & _U63)
                    next_run, next_run2 = _zeros(rest), _zeros(rest2)
                    if (run | run2 | next_run | next_run2) & too_long:
                        break
                    next_size, next_size2 = next_run + code, next_run2 + code2
                    last += _step(_folded(word, run, size, low_bits))
                    last2 += _step(_folded(word2, run2, size2, low_bits2))
                    row[k] = last & 0xFFFF
                    row2[k] = last2 & 0xFFFF
                    last += _step(_folded(rest, next_run, next_size, low_bits))
                    last2 += _step(_folded(rest2, next_run2, next_size2, low_bits2))
                    row[k + _U1] = last & 0xFFFF
                    row2[k + _U1] = last2 & 0xFFFF
                    at += size + next_size
                    at2 += size2 + next_size2
                    k += _U2
            if k < stop:
                at, last, more = _block(stream, at, end, code, last, row, k, stop)
                at2, last2, more2 = _block(stream, at2, end2, code2, last2, row2, k, stop)
                excess |= more
                excess2 |= more2
            x = stop
        if at > end or (end - at) >> _U3 > np.uint64(_PADDING) or excess >> _U16:
            return j
        if at2 > end2 or (end2 - at2) >> _U3 > np.uint64(_PADDING) or excess2 >> _U16:
            return j2
    return -1


def decode_rows(stream, starts, lengths, nx, zero=0):
    """Decode an image whose rows are RICE_1 tiles of 16-bit integers in blocks of 32 pixels.

    Parameters
    ----------
    stream : ndarray of uint8, shape (n,)
        Bytes that hold all rows; the last `SLACK` of them belong to none.
    starts, lengths : ndarray of int64, shape (ny,)
        First byte of each row in `stream`, and its number of bytes.
    nx : int
        Pixels a row.
    zero : int, optional
        Added to every pixel, as a BZERO is.

    Returns
    -------
    rows : ndarray of uint16, shape (ny, nx)
        The lowest 16 bits of pixels as stored and `zero`; of signed pixels, ``rows.view(np.int16)`` are the numbers. No
        BSCALE is applied, and blank ones are not marked.

    Raises
    ------
    ValueError
        If a row lies outside `stream`, ends early or late, or holds a difference of more than 16 bits; the row's number
        (0-based) is in the message.

    Notes
    -----
    Format: FITS Standard 4.0, section 10.4.1, and cfitsio's ``ricecomp.c``: two bytes of first pixel, then for each
    block 4 bits of code: 0 for no change, 15 for differences of 16 plain bits, else one more than the number of low
    bits of Rice-coded differences.
    """
    starts, lengths = np.asarray(starts, dtype=np.int64), np.asarray(lengths, dtype=np.int64)
    room = stream.size - SLACK
    outside = (starts < 0) | (lengths < 2) | (lengths > room) | (starts > room - lengths)
    if outside.any():
        j = int(outside.argmax())
        raise ValueError(f"row {j} should be {lengths[j]} bytes from byte {starts[j]} on, but the data end at {room}")
    rows = np.empty((starts.size, nx), dtype=np.uint16)
    broken = _decode(stream, starts, lengths, zero, rows)
    if broken >= 0:
        raise ValueError(f"row {broken} does not decode to {nx} pixels from its {lengths[broken]} bytes")
    return rows
