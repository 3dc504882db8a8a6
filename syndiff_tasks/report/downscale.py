"""Images reduced block by block to a size that can be drawn."""

import math

import numpy as np

from syndiff_tasks.report.flags import FLAGS
from syndiff_tasks.report.product import blocks_of

LONGEST_SIDE = 600


def block_side(shape, longest_side=LONGEST_SIDE):
    """Return the side of the blocks that make an image small enough to draw.

    Parameters
    ----------
    shape : tuple of int
        (ny, nx).
    longest_side : int, default 600
        Largest number of blocks along an axis.

    Returns
    -------
    int
        [px]
    """
    return max(1, math.ceil(max(shape) / longest_side))


def _blocks(image, side, fill):
    """View an image as side x side blocks, padded with `fill`: shape (ny, nx, side * side)."""
    ny, nx = image.shape
    return blocks_of(np.pad(image, ((0, -ny % side), (0, -nx % side)), constant_values=fill), side)


def block_mean(image, side):
    """Return the mean of the finite pixels of each block.

    Parameters
    ----------
    image : ndarray of float, shape (ny, nx)
        May contain NaN.
    side : int
        Side of a block [px].

    Returns
    -------
    ndarray of float, shape (ceil(ny / side), ceil(nx / side))
        NaN where no pixel of a block is finite.
    """
    if side == 1:
        return image
    blocks = _blocks(image, side, np.nan)
    finite = np.isfinite(blocks)
    count = finite.sum(axis=-1)
    total = np.where(finite, blocks, 0).sum(axis=-1)
    return np.divide(total, count, out=np.full(count.shape, np.nan, dtype=image.dtype), where=count > 0)


def block_significance(difference, noise, side):
    """Return the difference of each block in units of its noise.

    Parameters
    ----------
    difference, noise : ndarray of float32, shape (ny, nx)
        Difference image and its standard deviation, in the same unit; NaN where there is no data.
    side : int
        Side of a block [px].

    Returns
    -------
    ndarray of float32, shape (ceil(ny / side), ceil(nx / side))
        Sum over the block divided by the square root of its summed variance; NaN where a block has no data.
    """
    mean, variance = block_mean(difference, side), block_mean(noise**2, side)
    if side == 1:
        return mean / np.sqrt(variance)
    return mean / np.sqrt(variance / np.isfinite(_blocks(difference, side, np.nan)).sum(axis=-1).clip(1))


def most_serious_flag(dq, side, bits=tuple(int(flag.bit) for flag in FLAGS)):
    """Return the index into `bits` of the most serious flag of each block.

    Parameters
    ----------
    dq : ndarray of int, shape (ny, nx)
        Flags.
    side : int
        Side of a block [px]. The bits of a block are OR-ed, so that the flag of a single pixel is visible.
    bits : sequence of int, optional
        Values of the bits, the most serious first; by default those of `FLAGS`.

    Returns
    -------
    ndarray of float32, shape (ceil(ny / side), ceil(nx / side))
        0, 1, ... or NaN where no flag is set.
    """
    joined = np.bitwise_or.reduce(_blocks(dq, side, 0), axis=-1)
    index_of_flag = np.full(joined.shape, np.nan, dtype=np.float32)
    for index in reversed(range(len(bits))):
        index_of_flag[(joined & bits[index]) != 0] = index
    return index_of_flag
