"""RICE_1 tiles of 16-bit integers, one row a tile: the form of every PS1 stack file.

Decoding is the CPU floor of a skycell. On one 2.5 GHz core an image of 6320 x 6284 noise pixels takes astropy 0.73 s,
fitsio 1.23 s, ``imagecodecs.rcomp_decode`` (cfitsio's own loop, called per row) 0.50 s, and the loop below 0.14 s: each
pixel's position in the stream depends on the one before, so a single row waits on its own latency, and two rows decoded
side by side fill the wait.
"""

import numba
import numpy as np

SLACK = 256
"""Bytes that must follow the last row in the buffer: a block of 32 pixels that has already left its row reads at most
32 x (16 + 8) bits and 8 bytes more before the check at its end."""

BLOCK = 32
"""Pixels a RICE block (cfitsio's default and the only one decoded here)."""

_PADDING = 3
"""Unused bytes tolerated at the end of a row: some encoders fill up to a 32-bit word; cfitsio's writes none."""

_LEADING_ZEROS = np.array([8 - int(byte).bit_length() for byte in range(256)], dtype=np.uint8)

# Unsigned 64-bit constants: numba makes uint64 with a Python int a float64.
_U0, _U1, _U3, _U7, _U8 = (np.uint64(n) for n in (0, 1, 3, 7, 8))
_U4, _U16, _U32, _U56, _U63 = (np.uint64(n) for n in (4, 16, 32, 56, 63))
_U2, _U5, _U6, _U24, _U40, _U48, _U60 = (np.uint64(n) for n in (2, 5, 6, 24, 40, 48, 60))


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


@numba.njit(cache=True, nogil=True)
def _long_run(stream, position, end):
    """Measure a run of zero bits of any length; one that has no end leads past the end of the row."""
    # LLVM keeps this out of line only while it returns from within the loop; inlined, it slows every pixel 5 times.
    run = _U0
    while position + run <= end:
        zeros = np.uint64(_LEADING_ZEROS[_bits(stream, position + run) >> _U56])
        run += zeros
        if zeros < _U8:
            return run
    return max(position, end + _U1) - position


@numba.njit(cache=True, nogil=True, inline="always")
def _step(folded):
    """Unfold a difference from its folded form 0, -1, 1, -2, ..."""
    folded = np.int64(folded)
    return (folded >> 1) ^ -(folded & 1)


@numba.njit(cache=True, nogil=True, inline="always")
def _pixel(stream, position, end, low_bits):
    """Read one folded difference: a run of zeros, a one, then `low_bits` bits as they are."""
    word = _bits(stream, position)
    run = np.uint64(_LEADING_ZEROS[word >> _U56])
    if run == _U8:
        run = _long_run(stream, position, end)
        word = _bits(stream, position + run)
        word <<= _U1
    else:
        word <<= run + _U1
    # Two shifts, because a shift by 64 is undefined and low_bits may be 0.
    folded = (run << low_bits) | ((word >> _U1) >> (_U63 - low_bits))
    return position + run + _U1 + low_bits, folded


@numba.njit(cache=True, nogil=True)
def _block(stream, position, end, code, last, row, x, stop):
    """Decode one block of one row, of any of its three kinds."""
    excess = _U0
    if code == _U0:
        value = np.uint16(last)
        for k in range(x, stop):
            row[k] = value
    elif code == _U16 - _U1:
        for k in range(x, stop):
            last = (last + _step(_bits(stream, position) >> _U48)) & 0xFFFF
            position += _U16
            row[k] = last
    else:
        for k in range(x, stop):
            position, folded = _pixel(stream, position, end, code - _U1)
            excess |= folded
            last = (last + _step(folded)) & 0xFFFF
            row[k] = last
    return position, last, excess


@numba.njit(cache=True, nogil=True)
def _decode(stream, starts, lengths, rows):
    """Fill `rows`, and return the number of the first broken row, or -1."""
    ny, nx = rows.shape
    width = np.uint64(nx)
    for j in range(0, ny, 2):
        j2 = min(j + 1, ny - 1)  # an odd last row is its own partner
        row, row2 = rows[j], rows[j2]
        at, at2 = np.uint64(starts[j]) << _U3, np.uint64(starts[j2]) << _U3
        end, end2 = at + (np.uint64(lengths[j]) << _U3), at2 + (np.uint64(lengths[j2]) << _U3)
        last, last2 = np.int64(_bits(stream, at) >> _U48), np.int64(_bits(stream, at2) >> _U48)
        at += _U16
        at2 += _U16
        excess = excess2 = _U0
        x = _U0
        while x < width:
            if at > end:
                return j
            if at2 > end2:
                return j2
            stop = min(x + _U32, width)
            code, code2 = _bits(stream, at) >> _U60, _bits(stream, at2) >> _U60
            at += _U4
            at2 += _U4
            if code != _U0 and code2 != _U0 and code != _U16 - _U1 and code2 != _U16 - _U1:
                low_bits, low_bits2 = code - _U1, code2 - _U1
                for k in range(x, stop):
                    at, folded = _pixel(stream, at, end, low_bits)
                    at2, folded2 = _pixel(stream, at2, end2, low_bits2)
                    excess |= folded
                    excess2 |= folded2
                    last = (last + _step(folded)) & 0xFFFF
                    last2 = (last2 + _step(folded2)) & 0xFFFF
                    row[k] = last
                    row2[k] = last2
            else:
                at, last, more = _block(stream, at, end, code, last, row, x, stop)
                at2, last2, more2 = _block(stream, at2, end2, code2, last2, row2, x, stop)
                excess |= more
                excess2 |= more2
            x = stop
        if at > end or (end - at) >> _U3 > np.uint64(_PADDING) or excess >> _U16:
            return j
        if at2 > end2 or (end2 - at2) >> _U3 > np.uint64(_PADDING) or excess2 >> _U16:
            return j2
    return -1


def decode_rows(stream, starts, lengths, nx):
    """Decode an image whose rows are RICE_1 tiles of 16-bit integers in blocks of 32 pixels.

    Parameters
    ----------
    stream : ndarray of uint8, shape (n,)
        Bytes that hold all rows; the last `SLACK` of them belong to none.
    starts, lengths : ndarray of int64, shape (ny,)
        First byte of each row in `stream`, and its number of bytes.
    nx : int
        Pixels a row.

    Returns
    -------
    rows : ndarray of int16, shape (ny, nx)
        Pixels as stored: no BZERO or BSCALE applied, blank ones not marked.

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
    broken = _decode(stream, starts, lengths, rows)
    if broken >= 0:
        raise ValueError(f"row {broken} does not decode to {nx} pixels from its {lengths[broken]} bytes")
    return rows.view(np.int16)
