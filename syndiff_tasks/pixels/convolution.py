"""The convolution of one skycell's blocks with a Gaussian or with a TESS PRF.

A convolved skycell is stored as coarse samples, between which `template.sample` interpolates with cubic B-splines, and
blocks hold native pixels shared out with quadratic ones (TSC). Both splines smooth the sky by a known amount. The
kernel is made narrower by as much: its transform is divided by the splines'.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numba
import numpy as np
from scipy import fft

from syndiff_tasks.pixels.blocks import Blocks, Grid
from syndiff_tasks.pixels.mask import BANDS_MISSING, BRIGHT_RIM, DQ, GAP, PS1, REPAIRED
from syndiff_tasks.pixels.quadrature import LARGEST_SPACING

#: Fewest samples per sigma in the narrowest stored plane, the variance, of width sigma/sqrt(2). The flux then has 2.8,
#: which interpolates to 1e-4 of the peak at a point.
SAMPLES_PER_SIGMA = 2.0

#: Smallest sigma [blocks]: below it, interpolation between blocks errs by more than 1e-3 of the peak.
LEAST_BLOCKS_PER_SIGMA = 2.0

#: The Gaussian is truncated at this many sigma, beyond which 1e-6 of its integral lies.
KERNEL_REACH = 5.0

#: Half the largest distance between nodes [native px]; added to sigma, so that a flag spreads by sigma from *every*
#: point of a pixel.
DQ_HALF_GAP = LARGEST_SPACING / 2

#: Flags of lost or doubtful light spread by this many sigma: a saturated star, or one under a gap, lacks most of its
#: light, which shows this far out (1 % of a star of 100 times the brightness of its surroundings).
FAR_REACH = 3.0
FAR_REACHING = DQ.SAT_PS1 | DQ.SUSPECT_PS1 | DQ.PS1_GAP

#: Flags of a PRF spread by this many of its sigma, because it is sampled at the pixel's center only: half a pixel
#: (41 px) and the sigma of the optics (53 px) are 1.6 of their combined sigma of 58 px.
DQ_PRF_REACH = 1.6

#: Allowed rms error of interpolation between the stored samples of a PRF, relative to the PRF; a single pixel may err
#: by 1.5 times as much of the peak. Real PRFs are not smooth (their uncertainty HDU gives some 5e-2 of the peak): with
#: their 9 samples a TESS pixel they need one every block of 4 native px, where a Gaussian of the same width is content
#: with a third as many along each axis.
PRF_SAMPLING_ERROR = 3e-4


class Convolved(NamedTuple):
    """A convolved skycell; arrays of shape (ny, nx).

    Attributes
    ----------
    flux : ndarray of float32
        Convolved flux [counts/s per native px]; blank pixels count as 0.
    valid : ndarray of float32
        Convolved share of valid pixels, 1 where all are.
    masked : ndarray of float32
        Convolved share of valid pixels with a counted mask bit (`blocks.to_blocks`).
    variance : ndarray of float32
        Variance of `flux` [(counts/s per native px)^2]: the variance per native px convolved with the squared kernel.
    dq : ndarray of uint16
        `DQ` bits of the blocks around each sample.
    grid : Grid
        Positions of the samples [native px].
    sigma : float or None
        Sigma of the Gaussian [native px]; None for a PRF, which includes the TESS pixel.
    """

    flux: np.ndarray
    valid: np.ndarray
    masked: np.ndarray
    variance: np.ndarray
    dq: np.ndarray
    grid: Grid
    sigma: float | None


def convolve_gaussian(blocks: Blocks, sigma: float, ignore: int, suspect: int = 0) -> Convolved:
    """Convolve a skycell with a Gaussian.

    Parameters
    ----------
    blocks : Blocks
        The skycell, or one widened by its neighbors (`widening.widen`). Beyond it there is no flux and no valid weight.
    sigma : float
        Standard deviation [native px]. 0 keeps PS1's own sharpness; only the two splines widen stars, by bin/2 and
        bin/sqrt(3) in quadrature, and ``Convolved.sigma`` is 0.76 bin. A star is then hardly wider than a block: its
        flux in TESS pixels is right to 0.5 % and each pixel to 1 % of the peak. A sigma of 2 blocks, still much
        narrower than a TESS pixel, gives 0.1 %.
    ignore, suspect : int
        PS1 mask *values* that set IGNORED_BIT and SUSPECT_PS1, see `mask.bit_mask`.

    Returns
    -------
    convolved : Convolved
        Sampled every k blocks (`SAMPLES_PER_SIGMA`), to one sample beyond the blocks on each side.

    Raises
    ------
    ValueError
        If `sigma` is negative, or positive but too narrow for blocks of this size.

    Notes
    -----
    The sums run along columns, then rows, and only stored samples are computed: five times faster than a fast Fourier
    transform of all blocks, and identical to the last bit on every processor, unlike a linear algebra library. The
    variance is convolved with the squared kernel, a Gaussian of sigma/sqrt(2) over 4 pi sigma^2. There the splines are
    subtracted as variances (bin^2/4 and step^2/3), which keeps the kernel, and so every variance, positive.

    A sample has the flags of the blocks in a square of half-width sigma + `DQ_HALF_GAP` around it; those of
    `FAR_REACHING` spread by `FAR_REACH` sigma.
    """
    bin = blocks.grid.step
    every = 1
    signal = spread = np.ones(1)
    if sigma != 0:
        _require_wide(sigma, bin)
        every = _samples_apart(sigma / bin)
        signal, spread = _kernel(sigma / bin, every), _positive_kernel(sigma / bin, every)
    width = sigma or bin * math.sqrt(1 / 4 + 1 / 3)
    flux, valid, masked = (_convolve(p, signal / bin, every) for p in (blocks.flux, blocks.valid, blocks.masked))
    variance = _convolve(blocks.variance, spread / (bin * width * math.sqrt(4 * math.pi)), every)
    dq = _spread_flags(blocks, (ignore, suspect), width, DQ_HALF_GAP, every)
    return Convolved(flux, valid, masked, variance, dq, _sample_grid(blocks.grid, every), width)


def _require_wide(sigma, bin):
    if not sigma >= LEAST_BLOCKS_PER_SIGMA * bin:
        largest = math.floor(sigma / LEAST_BLOCKS_PER_SIGMA) if sigma > 0 else 0
        cure = f"choose a bin of {largest} or less, " if largest else ""
        raise ValueError(
            f"psf_sigma {sigma:.4g} px is too narrow for blocks of {bin:.4g} px: {cure}"
            f"a sigma of at least {LEAST_BLOCKS_PER_SIGMA * bin:.4g}, or 0 for no convolution"
        )


def _samples_apart(sigma):
    """Return the blocks from sample to sample for a sigma in blocks."""
    return max(1, math.floor(sigma / math.sqrt(2) / SAMPLES_PER_SIGMA))


def _sample_grid(grid, every):
    return Grid(grid.x0 - every * grid.step, grid.y0 - every * grid.step, every * grid.step)


def _samples(blocks, every):
    """Count the samples along an axis of so many blocks: at -k, 0, k, … to one past the last block, as TSC needs."""
    return math.ceil((blocks - 1) / every) + 3


def _spline_transform(frequency, every):
    """Return the transform of the deposit and interpolation splines at frequencies in cycles per block.

    Beyond half a cycle per sample, which the samples cannot represent, it is infinite: the quotient becomes 0.
    """
    transform = np.sinc(frequency) ** 3 * np.sinc(frequency * every) ** 4
    return np.where(np.abs(frequency) * every < 0.5, transform, np.inf)


def _kernel(sigma, every):
    """Return the kernel (2 reach + 1,) for flux: a Gaussian of `sigma` blocks less the two splines, of sum 1."""
    reach = math.ceil(KERNEL_REACH * sigma)
    length = 8 * reach
    frequency = fft.rfftfreq(length)
    transform = np.exp(-2 * (math.pi * sigma * frequency) ** 2) / _spline_transform(frequency, every)
    half = fft.irfft(transform, length)[: reach + 1]
    kernel = np.concatenate([half[:0:-1], half])
    return kernel / kernel.sum()


def _positive_kernel(sigma, every):
    """Return the kernel for the variance: a Gaussian of sigma/sqrt(2) blocks less the splines' variances, of sum 1."""
    squared = sigma**2 / 2 - 1 / 4 - every**2 / 3
    reach = math.ceil(KERNEL_REACH * math.sqrt(squared))
    kernel = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * squared))
    return kernel / kernel.sum()


def _convolve(plane, kernel, every):
    """Convolve along both axes, keeping every k-th sample as `_samples` counts them."""
    kernel = kernel.astype(np.float32)
    down = _convolve_rows(np.ascontiguousarray(plane, np.float32), kernel, every, _samples(len(plane), every))
    across = _convolve_rows(np.ascontiguousarray(down.T), kernel, every, _samples(plane.shape[1], every))
    return np.ascontiguousarray(across.T)


@numba.njit(cache=True, nogil=True)
def _convolve_rows(plane, kernel, every, count):
    reach = len(kernel) // 2
    out = np.zeros((count, plane.shape[1]), np.float32)
    for sample in range(count):
        first = (sample - 1) * every - reach
        low, high = max(first, 0), min(first + len(kernel), len(plane))
        line, row = out[sample], low
        # Four rows at a time save three of four loads and stores of the sums.
        while row + 4 <= high:
            _add_four(line, plane[row : row + 4], kernel[row - first : row - first + 4])
            row += 4
        while row < high:
            weight, one = kernel[row - first], plane[row]
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


def dq_of_bits(bits: np.ndarray, missing: np.ndarray, ignore: int, suspect: int = 0) -> np.ndarray:
    """Return the DQ bits that follow from PS1 mask bits, missing bands and blank pixels.

    Parameters
    ----------
    bits : ndarray of uint16
        OR of the PS1 mask bits.
    missing : ndarray of uint8, same shape
        OR of the bits of `BANDS_MISSING`, `BRIGHT_RIM`, `GAP` and `REPAIRED`.
    ignore, suspect : int
        PS1 mask *values* that set IGNORED_BIT and SUSPECT_PS1, see `bit_mask`.

    Returns
    -------
    dq : ndarray of uint16, same shape
        SAT_PS1, IGNORED_BIT, BAND_MISSING, STAR_REPAIRED, SUSPECT_PS1 and PS1_GAP of `DQ`.
    """
    dq = np.zeros(np.shape(bits), np.uint16)
    dq[((bits & PS1.SAT.value) != 0) | ((missing & BRIGHT_RIM) != 0)] |= DQ.SAT_PS1.value
    dq[(bits & ignore) != 0] |= DQ.IGNORED_BIT.value
    dq[(bits & suspect) != 0] |= DQ.SUSPECT_PS1.value
    dq[(missing & BANDS_MISSING) != 0] |= DQ.BAND_MISSING.value
    dq[(missing & GAP) != 0] |= DQ.PS1_GAP.value
    dq[(missing & REPAIRED) != 0] |= DQ.STAR_REPAIRED.value
    return dq


def _spread_flags(blocks, selected, sigma, gap, every):
    """Return the `DQ` bits of the blocks within sigma + gap native px of each sample, in x and y."""
    flags = dq_of_bits(blocks.bits, blocks.missing, *selected)
    far = _spread(flags & FAR_REACHING.value, math.ceil((FAR_REACH * sigma + gap) / blocks.grid.step), every)
    return far | _spread(flags, math.ceil((sigma + gap) / blocks.grid.step), every)


def _spread(flags, half, every):
    ny, nx = (_samples(n, every) for n in flags.shape)
    rows = _or_rows(flags, half, every, ny)
    return np.ascontiguousarray(_or_rows(np.ascontiguousarray(rows.T), half, every, nx).T)


@numba.njit(cache=True, nogil=True)
def _or_rows(flags, half, every, count):
    out = np.zeros((count, flags.shape[1]), np.uint16)
    for sample in range(count):
        middle = (sample - 1) * every
        for row in range(max(middle - half, 0), min(middle + half + 1, flags.shape[0])):
            out[sample] |= flags[row]
    return out


def convolve_prf(blocks: Blocks, kernels: Sequence[tuple], ignore: int, suspect: int = 0) -> Convolved:
    """Convolve a skycell with a kernel that changes over it, such as a TESS PRF.

    Parameters
    ----------
    blocks : Blocks
        The skycell, widened by its neighbors as far as the kernels reach (`widening.widen`).
    kernels : sequence of (ndarray of shape (2h + 1, 2h + 1), float or ndarray of the shape of the blocks)
        Images of a point at their center, one sample a block (`prf.resample_prf`), each normalized to a sum of 1, and
        the share of each block's light that it spreads (`prf.blend_shares`); the shares of a block sum to 1.
    ignore, suspect : int
        PS1 mask *values* that set IGNORED_BIT and SUSPECT_PS1, see `mask.bit_mask`.

    Returns
    -------
    convolved : Convolved
        With sigma None, to be sampled at pixel centers: a PRF is the response of a whole pixel.

    Raises
    ------
    ValueError
        If a kernel is not odd and square, not finite, of no flux, or too narrow for the blocks.

    Notes
    -----
    Computed in Fourier space, keeping only frequencies that the stored samples can represent. The samples lie as far
    apart as for a Gaussian of the kernel's mean square frequency, or closer (`PRF_SAMPLING_ERROR`). Flux and valid
    weight are spread block by block by their own kernel. The variance and the count of masked pixels, of which 1 %
    matters little, are convolved with the mean kernel, squared for the variance. Flags spread by `DQ_PRF_REACH` times
    its sigma.
    """
    shares = [share for _, share in kernels]
    images = _of_one_size([_normalized(kernel) for kernel, _ in kernels])
    mean = sum(float(np.mean(share)) * image for image, share in zip(images, shares, strict=True))
    mean /= mean.sum()
    bin = blocks.grid.step
    powers = [np.abs(fft.fft2(image)) ** 2 for image in images]
    sigma = max(_kernel_sigma(power) for power in powers)
    _require_wide(min(_kernel_sigma(power) for power in powers) * bin, bin)
    every = _samples_apart(sigma)
    while every > 1 and max(_interpolation_error(power, every) for power in powers) > PRF_SAMPLING_ERROR:
        every -= 1
    blended = [(image / bin**2, share) for image, share in zip(images, shares, strict=True)]
    flux, valid = _convolve_fft((blocks.flux, blocks.valid), blended, every)
    (masked,) = _convolve_fft((blocks.masked,), [(mean / bin**2, 1.0)], every)
    (variance,) = _convolve_fft((blocks.variance,), [(mean**2 / bin**4, 1.0)], every)
    variance = np.maximum(variance, 0)  # the transform rings by some 1e-7 beside a bright star
    dq = _spread_flags(blocks, (ignore, suspect), sigma * bin, (DQ_PRF_REACH - 1) * sigma * bin, every)
    return Convolved(flux, valid, masked, variance, dq, _sample_grid(blocks.grid, every), None)


def _normalized(kernel):
    kernel = np.asarray(kernel, np.float64)
    if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1] or kernel.shape[0] % 2 == 0:
        raise ValueError(f"a kernel of shape {kernel.shape} has no central pixel: give a square one of odd size")
    if not (np.isfinite(kernel).all() and kernel.sum() > 0):
        raise ValueError(f"the kernel sums to {kernel.sum()}: give a PRF of finite, positive total")
    return kernel / kernel.sum()


def _of_one_size(kernels):
    largest = max(len(kernel) for kernel in kernels)
    return [np.pad(kernel, (largest - len(kernel)) // 2) for kernel in kernels]


def _kernel_sigma(power):
    """Return the sigma [blocks] of the Gaussian with the mean square frequency of a power spectrum (worse axis)."""
    frequency = fft.fftfreq(len(power)) ** 2
    mean_square = max((power @ frequency).sum(), (frequency @ power).sum()) / power.sum()
    return 1 / (2 * math.pi * math.sqrt(2 * mean_square))


def _interpolation_error(power, every):
    """Return the rms share of a kernel that interpolation turns into images about the sampling frequency.

    The spline passes the images of a wave of f cycles per sample, at 1 - f and 1 + f, with (f/(1 - f))^4 and
    (f/(1 + f))^4 of its amplitude.
    """
    f = np.minimum(np.abs(fft.fftfreq(len(power))) * every, 0.5)
    images = (f / (1 - f)) ** 8 + (f / (1 + f)) ** 8
    return math.sqrt(((power @ images).sum() + (images @ power).sum()) / power.sum())


def _convolve_fft(planes, kernels, every):
    """Convolve planes of one shape in float32, keeping every k-th sample as `_samples` counts them.

    Each kernel spreads its share of every plane; the kernels are of one size.
    """
    shape = planes[0].shape
    count = [_samples(n, every) for n in shape]
    # Padded by the kernel's length, so that nothing wraps around.
    coarse = [fft.next_fast_len(n + len(kernels[0][0]) // every + 1) for n in count]
    y, x = fft.fftfreq(coarse[0] * every), fft.rfftfreq(coarse[1] * every)
    keep_y, keep_x = (np.flatnonzero(np.abs(f) * every < 0.5) for f in (y, x))
    padded = np.zeros((coarse[0] * every, coarse[1] * every), np.float32)
    folded = np.zeros((len(planes), coarse[0], coarse[1] // 2 + 1), np.complex64)
    rows = keep_y - len(padded) * (keep_y > len(padded) // 2)
    for kernel, share in kernels:
        response = _kernel_response(kernel, y[keep_y], x[keep_x], every)
        for plane, spectrum in zip(planes, folded, strict=True):
            np.multiply(
                plane, share, out=padded[every : every + shape[0], every : every + shape[1]], casting="same_kind"
            )
            spectrum[rows, : len(keep_x)] += fft.rfft2(padded)[np.ix_(keep_y, keep_x)] * response
    return [fft.irfft2(spectrum, s=coarse)[: count[0], : count[1]].copy() for spectrum in folded]


def _kernel_response(kernel, y, x, every):
    """Return the transform of a centered kernel, less the splines, at frequencies (y, x) of every k-th sample."""
    offset = np.arange(len(kernel)) - len(kernel) // 2
    response = np.exp(-2j * math.pi * np.outer(y, offset)) @ kernel @ np.exp(-2j * math.pi * np.outer(offset, x))
    splines = np.outer(_spline_transform(y, every), _spline_transform(x, every))
    return (response / (splines * every**2)).astype(np.complex64)
