"""The blur of one skycell's blocks, by a Gaussian or by a TESS PRF, and the kernels for it.

A blurred skycell is stored as coarse samples between which `template.read` interpolates with cubic B-splines, and
blocks hold native pixels that were shared out with quadratic ones (TSC). Both smooth the sky a little, by known
amounts, and the blur is made that much narrower: its transform is divided by those of the two splines.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numba
import numpy as np
from scipy import fft
from scipy.ndimage import map_coordinates

from syndiff_tasks.pixels.blocks import Blocks, Grid, tsc_weights
from syndiff_tasks.pixels.mask import DQ, dq_of_bits
from syndiff_tasks.pixels.template import LARGEST_SPACING

#: Samples per sigma in the narrowest stored plane (the variance, blurred by sigma/sqrt(2)) that a coarser sampling
#: must leave. Then the blurred flux has 2.8, which interpolates to 1e-4 of the peak at a point.
SAMPLES_PER_SIGMA = 2.0

#: A blur must be this many blocks wide: below it interpolation between blocks is wrong by more than 1e-3 of the peak.
LEAST_BLOCKS_PER_SIGMA = 2.0

#: The Gaussian is cut at this many sigma, where its integral lacks 1e-6.
KERNEL_REACH = 5.0

#: Half the largest distance between the points at which a skycell is read [native px]. With it a flag spreads by sigma
#: from *every* point of a pixel.
DQ_HALF_GAP = LARGEST_SPACING / 2

#: A saturated star lacks its core, most of its light: unlike other flaws, one that shows in the blurred light as far
#: as this many sigma (1 % of a star of 100 times the brightness of its surroundings).
SATURATED_REACH = 3.0

#: A PRF is read at the centre of the pixel alone, so its flags spread by this many of its sigma: half a pixel (41 px)
#: and the sigma of the optics (53 px) are 1.6 of the 58 px that both have together.
DQ_PRF_REACH = 1.6

#: Interpolation between stored samples may miss this part of a PRF (root mean square). Real PRFs are not smooth (nor
#: known to better than some 5e-2 of the peak, says their uncertainty HDU): they want samples as fine as their own 9 a
#: TESS pixel, where a Gaussian as wide would do with half as many.
PRF_SAMPLING_ERROR = 2e-3

#: Blank border of a PS1 stack [native px], which neighbours fill when a frame is widened.
BLANK_BORDER = 4


class Blurred(NamedTuple):
    """A blurred skycell; arrays of shape (ny, nx).

    Attributes
    ----------
    flux : ndarray of float32
        Blurred flux [counts/s per native px], blank pixels counting as 0.
    valid : ndarray of float32
        Blurred share of valid pixels, 1 where all are.
    masked : ndarray of float32
        Blurred share of valid pixels with any mask bit.
    variance : ndarray of float32
        Variance of `flux` at each point [(counts/s per native px)^2], that is the variance per native px blurred with
        the kernel squared.
    dq : ndarray of uint8
        `DQ` bits of the blocks around each sample.
    grid : Grid
        Where the samples are [native px].
    sigma : float or None
        Gaussian sigma of the blurred sky [native px]; None for a PRF, which has the TESS pixel in it already.
    """

    flux: np.ndarray
    valid: np.ndarray
    masked: np.ndarray
    variance: np.ndarray
    dq: np.ndarray
    grid: Grid
    sigma: float | None


def gaussian_blur(blocks: Blocks, sigma: float, ignore: int) -> Blurred:
    """Blur a skycell with a Gaussian.

    Parameters
    ----------
    blocks : Blocks
        The skycell, or one widened by its neighbours. Nothing is assumed beyond it: no flux, no valid weight.
    sigma : float
        Standard deviation [native px]. 0 leaves PS1's own sharpness; what remains are the two splines, which widen
        stars by bin/2 and bin/sqrt(3) in quadrature, so that ``Blurred.sigma`` is 0.76 bin. A star is hardly wider
        than a block then: its flux in TESS pixels is right to 0.5 % and each of them to 1 % of the peak, where a sigma
        of 2 blocks, much narrower than a TESS pixel still, gives 0.1 %.
    ignore : int
        PS1 mask value that sets IGNORED_BIT, see `mask.bit_mask`.

    Returns
    -------
    blurred : Blurred
        Sampled every k blocks, see `SAMPLES_PER_SIGMA`, to one sample beyond the blocks on each side.

    Raises
    ------
    ValueError
        If `sigma` is negative, or positive but too narrow for blocks of this size.

    Notes
    -----
    Sums along columns, then rows, of which the kept samples only are computed: five times faster than a fast Fourier
    transform of all blocks, and the same to the last bit on every processor, which a library of linear algebra is not.
    The variance takes the square of the kernel, a Gaussian of sigma/sqrt(2) over 4 pi sigma^2; there the splines are
    taken off as variances (bin^2/4 and step^2/3), which keeps the kernel, and so every variance, positive.

    A sample's flags are those of the blocks in a square of half-width sigma + `DQ_HALF_GAP` around it; SAT_PS1 reaches
    `SATURATED_REACH` sigma.
    """
    bin = blocks.grid.step
    every = 1
    signal = spread = np.ones(1)
    if sigma != 0:
        _require_wide(sigma, bin)
        every = _samples_apart(sigma / bin)
        signal, spread = _taps(sigma / bin, every), _positive_taps(sigma / bin, every)
    width = sigma or bin * math.sqrt(1 / 4 + 1 / 3)
    flux, valid, masked = (_convolve(p, signal / bin, every) for p in (blocks.flux, blocks.valid, blocks.masked))
    variance = _convolve(blocks.variance, spread / (bin * width * math.sqrt(4 * math.pi)), every)
    dq = _spread_flags(blocks, ignore, width, DQ_HALF_GAP, every)
    return Blurred(flux, valid, masked, variance, dq, _sample_grid(blocks.grid, every), width)


def _require_wide(sigma, bin):
    if not sigma >= LEAST_BLOCKS_PER_SIGMA * bin:
        largest = math.floor(sigma / LEAST_BLOCKS_PER_SIGMA) if sigma > 0 else 0
        cure = f"choose a bin of {largest} or less, " if largest else ""
        raise ValueError(
            f"a blur of sigma {sigma:.4g} px is too narrow for blocks of {bin:.4g} px: {cure}"
            f"a sigma of at least {LEAST_BLOCKS_PER_SIGMA * bin:.4g}, or 0 for no blur"
        )


def _samples_apart(sigma):
    """Blocks from sample to sample, for a blur of `sigma` blocks."""
    return max(1, math.floor(sigma / math.sqrt(2) / SAMPLES_PER_SIGMA))


def _sample_grid(grid, every):
    return Grid(grid.x0 - every * grid.step, grid.y0 - every * grid.step, every * grid.step)


def _samples(blocks, every):
    """Count the samples along an axis of so many blocks: at -k, 0, k, ... to one past the last block, as TSC needs."""
    return math.ceil((blocks - 1) / every) + 3


def _spline_transform(frequency, every):
    """Transform of deposit and interpolation splines; frequencies in cycles per block, none past the sampling's own.

    Beyond half a cycle per sample nothing can be represented: infinity there makes the quotient 0.
    """
    transform = np.sinc(frequency) ** 3 * np.sinc(frequency * every) ** 4
    return np.where(np.abs(frequency) * every < 0.5, transform, np.inf)


def _taps(sigma, every):
    """Kernel (2 reach + 1,) for flux: a Gaussian of `sigma` blocks less the two splines, of sum 1."""
    reach = math.ceil(KERNEL_REACH * sigma)
    length = 8 * reach
    frequency = fft.rfftfreq(length)
    transform = np.exp(-2 * (math.pi * sigma * frequency) ** 2) / _spline_transform(frequency, every)
    half = fft.irfft(transform, length)[: reach + 1]
    taps = np.concatenate([half[:0:-1], half])
    return taps / taps.sum()


def _positive_taps(sigma, every):
    """Kernel for the variance: a Gaussian of sigma/sqrt(2) blocks, less the splines' own variances, of sum 1."""
    squared = sigma**2 / 2 - 1 / 4 - every**2 / 3
    reach = math.ceil(KERNEL_REACH * math.sqrt(squared))
    taps = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * squared))
    return taps / taps.sum()


def _convolve(plane, taps, every):
    """Convolve along both axes, keeping every k-th sample as `_samples` counts them."""
    taps = taps.astype(np.float32)
    down = _convolve_rows(np.ascontiguousarray(plane, np.float32), taps, every, _samples(len(plane), every))
    across = _convolve_rows(np.ascontiguousarray(down.T), taps, every, _samples(plane.shape[1], every))
    return np.ascontiguousarray(across.T)


@numba.njit(cache=True, nogil=True)
def _convolve_rows(plane, taps, every, count):
    reach = len(taps) // 2
    out = np.zeros((count, plane.shape[1]), np.float32)
    for sample in range(count):
        first = (sample - 1) * every - reach
        low, high = max(first, 0), min(first + len(taps), len(plane))
        line, row = out[sample], low
        # Four rows at a time spare three of four times to load and store the sums.
        while row + 4 <= high:
            _add_four(line, plane[row : row + 4], taps[row - first : row - first + 4])
            row += 4
        while row < high:
            weight, one = taps[row - first], plane[row]
            for x in range(len(line)):
                line[x] += weight * one[x]
            row += 1
    return out


@numba.njit(inline="always")
def _add_four(line, rows, weights):
    a, b, c, d = weights[0], weights[1], weights[2], weights[3]
    first, second, third, fourth = rows[0], rows[1], rows[2], rows[3]
    for x in range(len(line)):
        line[x] += (a * first[x] + b * second[x]) + (c * third[x] + d * fourth[x])


def _spread_flags(blocks, ignore, sigma, gap, every):
    """`DQ` bits (uint8) of the blocks within sigma + gap native px of each sample, in x and y."""
    flags = dq_of_bits(blocks.bits, blocks.missing, ignore)
    saturated = flags & DQ.SAT_PS1.value
    far = _spread(saturated, math.ceil((SATURATED_REACH * sigma + gap) / blocks.grid.step), every)
    return far | _spread(flags, math.ceil((sigma + gap) / blocks.grid.step), every)


def _spread(flags, half, every):
    ny, nx = (_samples(n, every) for n in flags.shape)
    rows = _or_rows(flags, half, every, ny)
    return np.ascontiguousarray(_or_rows(np.ascontiguousarray(rows.T), half, every, nx).T)


@numba.njit(cache=True, nogil=True)
def _or_rows(flags, half, every, count):
    out = np.zeros((count, flags.shape[1]), np.uint8)
    for sample in range(count):
        middle = (sample - 1) * every
        for row in range(max(middle - half, 0), min(middle + half + 1, flags.shape[0])):
            out[sample] |= flags[row]
    return out


def prf_blur(blocks: Blocks, kernel: np.ndarray, ignore: int) -> Blurred:
    """Blur a skycell with any kernel, such as a TESS PRF.

    Parameters
    ----------
    blocks : Blocks
        The skycell, widened by its neighbours as far as the kernel reaches, see `widen`.
    kernel : ndarray, shape (2h + 1, 2h + 1)
        The image of a point at its centre, a sample a block, see `resample_prf`. Its sum is set to 1.
    ignore : int
        PS1 mask value that sets IGNORED_BIT, see `mask.bit_mask`.

    Returns
    -------
    blurred : Blurred
        With sigma None: to be read at pixel centres, for a PRF is the response of a whole pixel.

    Raises
    ------
    ValueError
        If the kernel is not odd and square, not finite, of no flux, or too narrow for the blocks.

    Notes
    -----
    In Fourier space, where only the frequencies that the stored samples can hold are kept. The samples lie as far
    apart as for a Gaussian of the kernel's mean square frequency, or closer, see `PRF_SAMPLING_ERROR`. The variance
    takes the kernel squared. Flags spread by `DQ_PRF_REACH` times the kernel's sigma.
    """
    kernel = np.asarray(kernel, np.float64)
    if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1] or kernel.shape[0] % 2 == 0:
        raise ValueError(f"a kernel of shape {kernel.shape} has no central pixel: give a square one of odd size")
    if not (np.isfinite(kernel).all() and kernel.sum() > 0):
        raise ValueError(f"the kernel sums to {kernel.sum()}: give a PRF of finite, positive total")
    kernel = kernel / kernel.sum()
    bin = blocks.grid.step
    power = np.abs(fft.fft2(kernel)) ** 2
    sigma = _kernel_sigma(power)
    _require_wide(sigma * bin, bin)
    every = _samples_apart(sigma)
    while every > 1 and _interpolation_error(power, every) > PRF_SAMPLING_ERROR:
        every -= 1
    flux, valid, masked = _convolve_fft((blocks.flux, blocks.valid, blocks.masked), kernel / bin**2, every)
    (variance,) = _convolve_fft((blocks.variance,), kernel**2 / bin**4, every)
    variance = np.maximum(variance, 0)  # ringing of some 1e-7 beside a bright star
    dq = _spread_flags(blocks, ignore, sigma * bin, (DQ_PRF_REACH - 1) * sigma * bin, every)
    return Blurred(flux, valid, masked, variance, dq, _sample_grid(blocks.grid, every), None)


def _kernel_sigma(power):
    """Sigma [blocks] of the Gaussian with the mean square frequency of this power spectrum, the worse of two axes."""
    frequency = fft.fftfreq(len(power)) ** 2
    mean_square = max((power @ frequency).sum(), (frequency @ power).sum()) / power.sum()
    return 1 / (2 * math.pi * math.sqrt(2 * mean_square))


def _interpolation_error(power, every):
    """Share (rms) of a kernel of this power spectrum that interpolation turns into images at the sampling frequency.

    For a wave of f cycles per sample the spline lets pass its images at 1 - f and 1 + f, (f/(1 - f))^4 and
    (f/(1 + f))^4 as strong as itself.
    """
    f = np.minimum(np.abs(fft.fftfreq(len(power))) * every, 0.5)
    images = (f / (1 - f)) ** 8 + (f / (1 + f)) ** 8
    return math.sqrt(((power @ images).sum() + (images @ power).sum()) / power.sum())


def _convolve_fft(planes, kernel, every):
    """Convolve planes of one shape in float32, keeping every k-th sample as `_samples` counts them."""
    shape = planes[0].shape
    count = [_samples(n, every) for n in shape]
    # A kernel's length beyond the samples, so that nothing wraps round onto them.
    coarse = [fft.next_fast_len(n + len(kernel) // every + 1) for n in count]
    y, x = fft.fftfreq(coarse[0] * every), fft.rfftfreq(coarse[1] * every)
    keep_y, keep_x = (np.flatnonzero(np.abs(f) * every < 0.5) for f in (y, x))
    response = _kernel_response(kernel, y[keep_y], x[keep_x], every)
    padded = np.zeros((coarse[0] * every, coarse[1] * every), np.float32)
    folded = np.zeros((coarse[0], coarse[1] // 2 + 1), np.complex64)
    for plane in planes:
        padded[every : every + shape[0], every : every + shape[1]] = plane
        folded[keep_y - len(padded) * (keep_y > len(padded) // 2), : len(keep_x)] = (
            fft.rfft2(padded)[np.ix_(keep_y, keep_x)] * response
        )
        yield fft.irfft2(folded, s=coarse)[: count[0], : count[1]].copy()


def _kernel_response(kernel, y, x, every):
    """Transform of a kernel about its middle, less the splines, at frequencies (y, x), for k-fold fewer samples."""
    offset = np.arange(len(kernel)) - len(kernel) // 2
    response = np.exp(-2j * math.pi * np.outer(y, offset)) @ kernel @ np.exp(-2j * math.pi * np.outer(offset, x))
    splines = np.outer(_spline_transform(y, every), _spline_transform(x, every))
    return (response / (splines * every**2)).astype(np.complex64)


def interpolate_prf(prfs: np.ndarray, rows: Sequence[float], cols: Sequence[float], row: float, col: float):
    """PRF at a position of the CCD, bilinear between the four that surround it.

    Parameters
    ----------
    prfs : ndarray, shape (n, ny, nx)
        PRF images of one CCD.
    rows, cols : sequence of float, length n
        Where each was measured; together a full grid of rows and columns, in any order.
    row, col : float
        Position, in the same convention. Beyond the outermost PRFs the nearest position is taken.

    Returns
    -------
    prf : ndarray of float64, shape (ny, nx)

    Raises
    ------
    ValueError
        If the positions are not a full grid.
    """
    prfs, rows, cols = np.asarray(prfs, np.float64), np.asarray(rows), np.asarray(cols)
    row_axis, col_axis = np.unique(rows), np.unique(cols)
    full = {(r, c) for r in row_axis for c in col_axis}
    lacking = full - set(zip(rows, cols, strict=True))
    if len(prfs) == 0 or lacking or len(rows) != len(full):
        raise ValueError(
            f"{len(prfs)} PRFs at rows {row_axis.tolist()}, columns {col_axis.tolist()} are not one for each crossing: "
            f"complete the folder of PRF files, e.g. with the one at row, column {min(lacking, default=None)}"
        )
    weights = np.outer(_hat(row_axis, row), _hat(col_axis, col))
    share = weights[np.searchsorted(row_axis, rows), np.searchsorted(col_axis, cols)]
    return np.tensordot(share, prfs, axes=1)


def _hat(axis, position):
    """Weight of each of the increasing points in linear interpolation."""
    return np.array([np.interp(position, axis, unit) for unit in np.eye(len(axis))])


def resample_prf(prf: np.ndarray, jacobian: np.ndarray, bin: float, oversampling: int = 9) -> np.ndarray:
    """PRF in the plane of a skycell, for `prf_blur`.

    Parameters
    ----------
    prf : ndarray, shape (odd, odd)
        Image of a star at the middle sample, `oversampling` samples a TESS pixel in x and y.
    jacobian : ndarray, shape (2, 2)
        d(tess x, y) / d(ps1 x, y) at the skycell [TESS px per native px].
    bin : float
        Side of a block [native px].
    oversampling : int
        9 in the files of SPOC (keyword NSAMP).

    Returns
    -------
    kernel : ndarray of float64, shape (2h + 1, 2h + 1)
        Sum 1, a sample a block, as wide as the PRF reaches.

    Raises
    ------
    ValueError
        If the PRF is not of odd size or not finite, or the Jacobian is singular.

    Notes
    -----
    The value of a SPOC PRF at (u, v) is what a *whole pixel* whose centre lies (u, v) from the star receives: its 9 x 9
    samples a pixel sum to 81. A template pixel is therefore the blurred sky at the pixel's centre times the pixel's
    area, and nothing is left to integrate; taking the pixel out of the PRF only to integrate over it again would
    amplify the PRF's noise for nothing. Cubic splines between samples; 0 beyond the file. The star's offset from the
    middle sample (up to 0.2 px in real files) is part of the PRF and is kept.
    """
    prf, jacobian = np.asarray(prf, np.float64), np.asarray(jacobian, np.float64)
    if prf.ndim != 2 or prf.shape[0] % 2 == 0 or prf.shape[1] % 2 == 0 or not np.isfinite(prf).all():
        raise ValueError(f"a PRF of shape {prf.shape} must be finite and of odd size, so that it has a middle sample")
    if not abs(np.linalg.det(jacobian)) > 0:
        raise ValueError(f"the Jacobian {jacobian.tolist()} is singular: give d(TESS px)/d(PS1 px) at the skycell")
    middle = np.array(prf.shape[::-1]) // 2
    corners = np.linalg.inv(jacobian) @ np.array([[1, 1], [1, -1]]).T * (middle / oversampling)[:, None]
    half = math.ceil(np.abs(corners).max() / bin)
    offset = np.arange(-half, half + 1) * bin
    x, y = np.tensordot(jacobian * oversampling, np.meshgrid(offset, offset), axes=1)
    kernel = map_coordinates(prf, [y + middle[1], x + middle[0]], order=3, mode="constant")
    return kernel / kernel.sum()


def widen(blocks: Blocks, margin: float, neighbours: Sequence[tuple[Blocks, np.ndarray]]) -> Blocks:
    """Widen a skycell's frame with the blocks of its neighbours.

    Parameters
    ----------
    blocks : Blocks
        The skycell.
    margin : float
        How far on every side [native px]; rounded up to whole blocks.
    neighbours : sequence of (Blocks, ndarray of shape (3, 3))
        Blocks of the same size, and the homography that takes their native pixels (x, y, 1) to this skycell's. Where
        two hold the same sky the first is taken.

    Returns
    -------
    widened : Blocks
        Unchanged where the skycell has an image of its own, its blank border of `BLANK_BORDER` px excepted.

    Raises
    ------
    ValueError
        If a neighbour has blocks of another size.

    Notes
    -----
    Neighbours of the same projection have the same block grid, so that theirs are copied. Those of other projections
    are shared out once more with TSC weights at their position here. Flux and valid weight go together, so the
    uneven density of the points cancels; stars there are wider by another bin/2 in quadrature, which matters little
    for wings from beyond the frame. Bits are those of the nearest block.
    """
    step, extra = blocks.grid.step, math.ceil(margin / blocks.grid.step)
    grid = Grid(blocks.grid.x0 - extra * step, blocks.grid.y0 - extra * step, step)
    wide = Blocks(*(np.pad(plane, extra) for plane in blocks[:-1]), grid)
    edge = _edge(step)
    free = np.ones(wide.flux.shape, bool)
    free[extra + edge : -extra - edge or None, extra + edge : -extra - edge or None] = False
    for other, homography in neighbours:
        if other.grid.step != step:
            raise ValueError(f"blocks of {other.grid.step} px cannot widen blocks of {step} px: combine with one bin")
        matrix = _grid_matrix(other.grid, homography, grid)
        shift = np.rint(matrix[:2, 2]).astype(int)
        aligned = np.abs(matrix - [[1, 0, shift[0]], [0, 1, shift[1]], [0, 0, 1]]).max() < 1e-6
        (_copy if aligned else _share_again)(other, shift if aligned else matrix, wide, free)
    return wide


def _edge(step):
    """Blocks of a frame's rim that lack shares of pixels off the frame, or that are blank in PS1."""
    return 3 + math.ceil(BLANK_BORDER / step)


def _grid_matrix(source, homography, target):
    """Homography from block index to block index."""
    to_native = np.array([[source.step, 0, source.x0], [0, source.step, source.y0], [0, 0, 1]])
    to_index = np.linalg.inv([[target.step, 0, target.x0], [0, target.step, target.y0], [0, 0, 1]])
    matrix = to_index @ np.asarray(homography, np.float64) @ to_native
    return matrix / matrix[2, 2]


def _copy(other, shift, wide, free):
    """Copy blocks that lie on the same grid, `shift` blocks (x, y) away, where `free`, which is then no longer so."""
    edge = _edge(other.grid.step)
    here, there = [], []
    for size, length, move in zip(wide.flux.shape, other.flux.shape, shift[::-1], strict=True):
        low, high = max(move + edge, 0), min(move + length - edge, size)
        if low >= high:
            return
        here.append(slice(low, high))
        there.append(slice(low - move, high - move))
    here, there = tuple(here), tuple(there)
    take = free[here]
    for target, source in zip(wide[:-1], other[:-1], strict=True):
        target[here][take] = source[there][take]
    take[:] = False


def _share_again(other, matrix, wide, free):
    """Share blocks out once more at their position here, where `free`, which is then no longer so."""
    edge = _edge(other.grid.step)
    ny, nx = other.flux.shape
    rows, columns = np.nonzero(free)
    x, y, w = np.linalg.inv(matrix) @ np.stack([columns, rows, np.ones(len(rows))])
    x, y = x / w, y / w
    inside = (x >= edge) & (x <= nx - 1 - edge) & (y >= edge) & (y <= ny - 1 - edge) & (w > 0)
    if not inside.any():
        return
    rows, columns = rows[inside], columns[inside]
    nearest = np.rint(y[inside]).astype(int), np.rint(x[inside]).astype(int)
    shared = np.zeros((4, *wide.flux.shape), np.float32)
    _deposit(tuple(other[:4]), matrix, shared)
    for target, source in zip(wide[:4], shared, strict=True):
        target[rows, columns] = source[rows, columns]
    wide.bits[rows, columns] = other.bits[nearest]
    wide.missing[rows, columns] = other.missing[nearest]
    free[rows, columns] = False


_tsc_weights = numba.njit(inline="always")(tsc_weights)


@numba.njit(cache=True, nogil=True)
def _deposit(planes, matrix, shared):
    flux, variance, valid, masked = planes
    ny, nx = shared.shape[1:]
    for row in range(flux.shape[0]):
        for column in range(flux.shape[1]):
            if flux[row, column] == 0 and variance[row, column] == 0 and valid[row, column] == 0:
                continue
            w = matrix[2, 0] * column + matrix[2, 1] * row + matrix[2, 2]
            x = (matrix[0, 0] * column + matrix[0, 1] * row + matrix[0, 2]) / w
            y = (matrix[1, 0] * column + matrix[1, 1] * row + matrix[1, 2]) / w
            if not (w > 0 and x > 1 and y > 1 and x < nx - 2 and y < ny - 2):
                continue
            i, j = int(x + 0.5), int(y + 0.5)
            wx, wy = _tsc_weights(x - i), _tsc_weights(y - j)
            for b in range(3):
                for a in range(3):
                    share = wx[a] * wy[b]
                    shared[0, j + b - 1, i + a - 1] += share * flux[row, column]
                    shared[1, j + b - 1, i + a - 1] += share * variance[row, column]
                    shared[2, j + b - 1, i + a - 1] += share * valid[row, column]
                    shared[3, j + b - 1, i + a - 1] += share * masked[row, column]
