"""RICE_1 tiles of 16-bit integers, one row a tile: the form of every PS1 stack file.

Decoding is the CPU floor of a skycell. On one 2.5 GHz core an image of 6320 x 6284 noise pixels takes astropy 0.73 s,
fitsio 1.23 s, ``imagecodecs.rcomp_decode`` (cfitsio's own loop, called per row) 0.50 s, and the loop below 0.07 s. Each
pixel's position in the stream depends on the one before, so that a single row waits on its own latency: sixteen rows
are decoded side by side, two pixels of each at a time, by loops over rows that become vector instructions. A block that
is of another kind, or whose runs of zeros are long, as around a star, is then decoded again, pixel by pixel.
"""

import numba
import numba.extending
import numpy as np
from llvmlite import ir

SLACK = 256
"""Bytes that must follow the last row in the buffer: a block of 32 pixels that has already left its row reads at most
32 x (16 + 14) bits and 8 bytes more before the check at its end."""

BLOCK = 32
"""Pixels a RICE block (cfitsio's default and the only one decoded here)."""

_PADDING = np.uint64(3)
"""Unused bytes tolerated at the end of a row: some encoders fill up to a 32-bit word; cfitsio's writes none."""

# Unsigned 64-bit constants: numba makes uint64 with a Python int a float64.
_U0, _U1, _U2, _U3, _U4, _U5, _U6, _U7 = (np.uint64(n) for n in range(8))
_U8, _U14, _U15, _U16, _U24, _U32 = (np.uint64(n) for n in (8, 14, 15, 16, 24, 32))
_U40, _U48, _U56, _U60, _U64 = (np.uint64(n) for n in (40, 48, 56, 60, 64))
_UFFFF = np.uint64(0xFFFF)

_LANES = 16
"""Rows decoded side by side."""

_HALF = _LANES // 2

# What the state of the lanes consists of, a number of each after the other, and last their pixels, four in a word. It
# is one array, for a compiler makes no vector instructions where an array might overlap another. _AT: the next bit,
# _END: the bit after the row, _BYTES: the next bytes, _LAST: the last pixel modulo 2^16; of the block, _KIND: its code,
# _CODE: one to shift by, _RUNS: all runs of zeros joined by or, _BEGIN and _BEFORE: _AT and _LAST at its first pixel;
# _EXCESS: all differences of the row joined by or.
_AT, _END, _BYTES, _LAST, _KIND, _CODE, _RUNS, _BEGIN, _BEFORE, _EXCESS, _PIXELS = (n * _LANES for n in range(11))

_ODD_BYTES, _ODD_PAIRS = np.uint64(0x00FF00FF00FF00FF), np.uint64(0x0000FFFF0000FFFF)

_LONGEST = np.uint64(1 << 47)
"""Bounds a run of zeros to 16, which is already too long for `_ordinary_block`."""


@numba.extending.intrinsic
def _count_leading_zeros(_, word):
    """Emit the processor's own instruction."""

    def generate(context, builder, signature, arguments):
        return builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return word(word), generate


def _zeros(word):
    """Count the zero bits at the top of a 64-bit word, 64 of them in 0."""
    return np.uint64(64 - int(word).bit_length())


@numba.extending.overload(_zeros, inline="always")
def _zeros_compiled(word):
    return lambda word: _count_leading_zeros(word)


@numba.njit(cache=True, nogil=True)
def _eight_bytes(stream, i):
    """Load a little-endian word."""
    return (
        np.uint64(stream[i])
        | (np.uint64(stream[i + _U1]) << _U8)
        | (np.uint64(stream[i + _U2]) << _U16)
        | (np.uint64(stream[i + _U3]) << _U24)
        | (np.uint64(stream[i + _U4]) << _U32)
        | (np.uint64(stream[i + _U5]) << _U40)
        | (np.uint64(stream[i + _U6]) << _U48)
        | (np.uint64(stream[i + _U7]) << _U56)
    )


@numba.njit(cache=True, nogil=True)
def _turned(word):
    """Reverse the bytes of a word."""
    word = ((word & _ODD_BYTES) << _U8) | (word >> _U8 & _ODD_BYTES)
    word = ((word & _ODD_PAIRS) << _U16) | (word >> _U16 & _ODD_PAIRS)
    return (word << _U32) | (word >> _U32)


@numba.njit(cache=True, nogil=True)
def _bits(stream, position):
    """Load at least 57 bits from bit `position` on, at the top of a 64-bit word."""
    return _turned(_eight_bytes(stream, position >> _U3)) << (position & _U7)


@numba.njit(cache=True, nogil=True)
def _step(folded):
    """Unfold a difference from its folded form 0, -1, 1, -2, ..., modulo 2^16."""
    odd = folded & _U1
    return (folded >> _U1) ^ ((odd << _U16) - odd)


@numba.njit(cache=True, nogil=True)
def _folded(word, run, size, low_bits):
    """Take a difference of `size` bits, still folded, off the top of a word: `run` zeros, a one, `low_bits` bits."""
    return (run << low_bits) + (word >> (_U64 - size)) - (_U1 << low_bits)


@numba.njit(cache=True, nogil=True)
def _load(stream, state, first):
    """Load the next eight bytes of half of the lanes."""
    for lane in range(first, first + _HALF):
        state[_BYTES + lane] = _eight_bytes(stream, state[_AT + lane] >> _U3)


@numba.njit(cache=True, nogil=True)
def _next_block(stream, state):
    """Read the code of each lane's next block; return how many are Rice-coded, and whether a lane has left its row."""
    _load(stream, state, 0)
    _load(stream, state, _HALF)
    ordinary = over = _U0
    for lane in range(_LANES):
        at = state[_AT + lane]
        code = _turned(state[_BYTES + lane]) << (at & _U7) >> _U60
        over |= np.uint64(at > state[_END + lane])
        ordinary += np.uint64(_U0 < code) & np.uint64(code < _U15)
        state[_KIND + lane] = code
        state[_CODE + lane] = min(max(code, _U1), _U14)
        state[_BEGIN + lane] = state[_AT + lane] = at + _U4
        state[_BEFORE + lane] = state[_LAST + lane]
        state[_RUNS + lane] = _U0
    return ordinary, over


@numba.njit(cache=True, nogil=True)
def _first_over(state):
    """Return the lane with a block that began beyond its row."""
    lane = 0
    while state[_BEGIN + lane] - _U4 <= state[_END + lane]:
        lane += 1
    return lane


@numba.njit(cache=True, nogil=True)
def _two_pixels(state, first, four):
    """Decode the next two pixels of half of the lanes from their bytes: a loop for vector instructions."""
    for lane in range(first, first + _HALF):
        at, code = state[_AT + lane], state[_CODE + lane]
        word = _turned(state[_BYTES + lane]) << (at & _U7)
        run = _zeros(word | _LONGEST)
        size = run + code
        rest = word << size
        next_run = _zeros(rest | _LONGEST)
        next_size = next_run + code
        last = state[_LAST + lane] + _step(_folded(word, run, size, code - _U1))
        following = last + _step(_folded(rest, next_run, next_size, code - _U1))
        state[_AT + lane] = at + size + next_size
        state[_LAST + lane] = following
        state[_RUNS + lane] |= run | next_run
        state[four + lane] = (state[four + lane] >> _U32) | ((last & _UFFFF) << _U32) | (following << _U48)


@numba.njit(cache=True, nogil=True)
def _ordinary_block(stream, state):
    """Decode one block of Rice-coded differences of all lanes, right where no run of zeros was too long.

    The bytes of one half of the lanes are loaded before those of the other half are used, since what is just being
    stored cannot yet be loaded as a vector.
    """
    _load(stream, state, 0)
    for pair in range(BLOCK // 2):
        four = _PIXELS + pair // 2 * _LANES
        _load(stream, state, _HALF)
        _two_pixels(state, 0, four)
        _load(stream, state, 0)
        _two_pixels(state, _HALF, four)


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
def _any_block(stream, position, end, code, last, rows, j, x):
    """Decode one block of differences of one row, pixel by pixel."""
    excess = _U0
    stop = min(x + _U32, np.uint64(rows.shape[1]))
    if code == _U15:
        for k in range(x, stop):
            last = (last + _step(_bits(stream, position) >> _U48)) & _UFFFF
            position += _U16
            rows[j, k] = last
    else:
        for k in range(x, stop):
            position, folded = _any_pixel(stream, position, end, code)
            excess |= folded
            last = (last + _step(folded)) & _UFFFF
            rows[j, k] = last
    return position, last, excess


@numba.njit(cache=True, nogil=True)
def _fill(last, rows, j, x):
    """Continue a row that does not change."""
    for k in range(x, min(x + _U32, np.uint64(rows.shape[1]))):
        rows[j, k] = last & _UFFFF


@numba.njit(cache=True, nogil=True)
def _copy(state, lane, rows, j, x):
    """Take the pixels of one lane, four of which lie in a word."""
    for k in range(BLOCK // 4):
        four = state[_PIXELS + k * _LANES + lane]
        rows[j, x] = four & _UFFFF
        rows[j, x + _U1] = four >> _U16 & _UFFFF
        rows[j, x + _U2] = four >> _U32 & _UFFFF
        rows[j, x + _U3] = four >> _U48
        x += _U4


@numba.njit(cache=True, nogil=True)
def _begin(stream, starts, lengths, zero, state):
    """Put each lane at its row's first block."""
    for lane in range(_LANES):
        j = min(lane, starts.size - 1)  # lanes to spare decode the last row once more
        at = np.uint64(starts[j]) << _U3
        state[_END + lane] = at + (np.uint64(lengths[j]) << _U3)
        state[_LAST + lane] = zero + (_bits(stream, at) >> _U48)
        state[_AT + lane] = at + _U16
        state[_EXCESS + lane] = _U0


@numba.njit(cache=True, nogil=True)
def _first_broken(state):
    """Return the lane that did not end with its row, or held a difference of more than 16 bits, or -1."""
    for lane in range(_LANES):
        at, end = state[_AT + lane], state[_END + lane]
        if at > end or (end - at) >> _U3 > _PADDING or state[_EXCESS + lane] >> _U16:
            return lane
    return -1


@numba.njit(cache=True, nogil=True)
def _decode(stream, starts, lengths, zero, rows):
    """Fill at most `_LANES` rows, and return the number of one that is broken, or -1."""
    ny, nx = np.uint64(rows.shape[0]), np.uint64(rows.shape[1])
    state = np.zeros(_PIXELS + BLOCK // 4 * _LANES, dtype=np.uint64)
    _begin(stream, starts, lengths, zero, state)
    for x in range(_U0, nx, _U32):
        ordinary, over = _next_block(stream, state)
        if over:
            return _first_over(state)
        together = ordinary >= _LANES // 4 and x + _U32 <= nx
        if together:
            _ordinary_block(stream, state)
        for lane in range(_LANES):
            j = min(np.uint64(lane), ny - _U1)
            # The 57 bits of a load hold two pixels while no run of zeros is of 16 bits or, with the longest code, of 8;
            # nor has a difference more than 16 bits then.
            kind = state[_KIND + lane]
            too_long = ~_U15 if kind < _U14 else ~_U7
            if together and _U0 < kind < _U15 and not state[_RUNS + lane] & too_long:
                _copy(state, lane, rows, j, x)
                continue
            at, last = state[_BEGIN + lane], state[_BEFORE + lane]
            if kind == _U0:
                _fill(last, rows, j, x)
            else:
                at, last, more = _any_block(stream, at, state[_END + lane], kind, last, rows, j, x)
                state[_EXCESS + lane] |= more
            state[_AT + lane], state[_LAST + lane] = at, last
    return _first_broken(state)


@numba.njit(cache=True, nogil=True)
def _decode_all(stream, starts, lengths, zero, rows):
    """Fill `rows`, and return the number of a broken one in the first group that has any, or -1."""
    for first in range(0, rows.shape[0], _LANES):
        group = slice(first, first + _LANES)
        broken = _decode(stream, starts[group], lengths[group], zero, rows[group])
        if broken >= 0:
            return min(first + broken, rows.shape[0] - 1)
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
        raise ValueError(
            f"row {j} should be {lengths[j]} bytes from byte {starts[j]} on, but the data end at byte {room}"
        )
    rows = np.empty((starts.size, nx), dtype=np.uint16)
    broken = _decode_all(stream, starts, lengths, np.uint64(zero), rows)
    if broken >= 0:
        raise ValueError(f"row {broken} does not decode to {nx} pixels from its {lengths[broken]} bytes")
    return rows
