"""FFI minus template: sky, kernel, then the sky and the straps of what is left.

The sky comes first, since scattered light of hundreds of e/s is no plane; then the kernel that brings the template to
the PSF of the FFI; then the sky once more, now without stars. What the noise is, is measured on the result.
"""

import math
from enum import IntFlag
from typing import NamedTuple

import numba
import numpy as np

from .damage import near_damage
from .kernel import Kernel, KernelBasis, convolve, convolve_variance, reach, template_planes
from .kernel_fit import (
    BRIGHT,
    SIGMA_PER_MAD,
    NoMatch,
    choose_basis,
    choose_sample,
    fit_kernel,
    measure_mismatch,
    thin_sample,
)
from .mask import DQ
from .saturation import REACH, find_saturated, grow
from .sky_background import MESH, MeshSky, Straps, add_skies, find_straps, measure_sky, sky_image, strap_image

#: What a kernel is not fitted to: a repaired star is right to some 3 %, far outside the noise of a bright one.
UNTRUSTED = int(DQ.NO_PS1 | DQ.LOW_COVERAGE | DQ.SAT_PS1 | DQ.STAR_REPAIRED | DQ.COLLATERAL)
DAMAGED_STAR = int(DQ.SAT_PS1 | DQ.STAR_REPAIRED)

#: Sides of an image [px] below which a kernel is only a number: too few stars for more.
LEAST_SIDE = 40

#: From this side on a kernel varies with the second order over the image.
WHOLE_CCD = 1024

#: Widths of the wings [px].
WINGS = (1.5, 3.0, 6.0)

#: Noise and mismatch are measured on so many pixels: right to 0.5 %.
MEASURED_PIXELS = 100_000


class Flag(IntFlag):
    """Bits of a difference image; 0 is good."""

    NO_DATA = 1
    TEMPLATE_UNTRUSTED = 2
    NEAR_DAMAGE = 4
    SATURATED_TESS = 8
    BLEED = 16
    STRAP = 32
    EDGE_OF_KERNEL = 64
    SCATTERED = 128
    TEMPLATE_GAP = 256


FLAG_MEANING = {
    Flag.NO_DATA: "FFI or template has no data here",
    Flag.TEMPLATE_UNTRUSTED: "template is saturated, repaired or badly covered here",
    Flag.NEAR_DAMAGE: "residual that touches a damaged star",
    Flag.SATURATED_TESS: "saturated in the FFI, or within 3 px of it",
    Flag.BLEED: "charge of a saturated star bled here along the column",
    Flag.STRAP: "column with a strap, its extra sky taken off",
    Flag.EDGE_OF_KERNEL: "kernel reaches off the data here: no difference",
    Flag.SCATTERED: "sky is steeper than the limit",
    Flag.TEMPLATE_GAP: "blank PS1 pixels within reach of the PSF",
}


class ImagePair(NamedTuple):
    """An FFI and its template on the same pixels.

    Attributes
    ----------
    ffi : ndarray of float32, shape (ny, nx)
        Flux of the FFI; NaN = no data.
    uncertainty : ndarray of float32, shape (ny, nx), or None
        One sigma of `ffi`; with None the scatter of the empty sky is taken.
    flux, variance : ndarray of float32, shape (n ny, n nx)
        The template in any unit of flux, n pixels along each of the FFI's, and its variance; NaN = no data.
    dq : ndarray of int32, shape (n ny, n nx)
        The template's DQ bits.
    """

    ffi: np.ndarray
    uncertainty: np.ndarray | None
    flux: np.ndarray
    variance: np.ndarray
    dq: np.ndarray


class Difference(NamedTuple):
    """A difference image and what it was made with.

    Attributes
    ----------
    difference : ndarray of float32, shape (ny, nx)
        FFI minus sky, straps and convolved template [FFI units]; NaN = none.
    noise : ndarray of float32, shape (ny, nx)
        One sigma of it: excess^2 (uncertainty^2 + kernel^2 variance) + (mismatch brightest model pixel of 5 x 5)^2.
    mismatch_noise : ndarray of float32, shape (ny, nx)
        The part of `noise` that is PSF mismatch, which may have one sign all over a star.
    model : ndarray of float32, shape (ny, nx)
        The convolved template that was subtracted [FFI units].
    flags : ndarray of int16, shape (ny, nx)
        Bits of `Flag`.
    kernel : Kernel
        The kernel.
    sky : MeshSky
        The smooth sky.
    straps : Straps
        What some columns have more of it.
    mismatch : float
        Residuals at most stars beyond the noise, as a part of the star's brightest pixel.
    flux_mismatch : float
        Residuals at nearly all stars beyond the noise, colors included, as a part of the model's pixel.
    excess : float
        Scatter of the difference at empty pixels over the noise that FFI and template account for.
    empty : float
        That scatter itself [FFI units].
    pixels : int
        Number of pixels to which the kernel was fitted; 0 for a given kernel.
    """

    difference: np.ndarray
    noise: np.ndarray
    mismatch_noise: np.ndarray
    model: np.ndarray
    flags: np.ndarray
    kernel: Kernel
    sky: MeshSky
    straps: Straps
    mismatch: float
    flux_mismatch: float
    excess: float
    empty: float
    pixels: int


class _Prepared(NamedTuple):
    """The pair on FFI pixels: template without NaN, noise, and what may be used for what."""

    flux: np.ndarray
    whole: np.ndarray
    variance: np.ndarray
    noise: np.ndarray | None
    data: np.ndarray
    complete: np.ndarray
    usable: np.ndarray
    sky_pixels: np.ndarray
    flags: np.ndarray
    oversampling: int


@numba.njit(cache=True, nogil=True)
def _maximum_5(image):
    """Largest value of the 5 x 5 pixels around each."""
    ny, nx = image.shape
    along = np.empty((ny, nx), np.float32)
    for y in range(ny):
        for x in range(nx):
            along[y, x] = image[y, x]
        for i in (1, 2):
            for x in range(nx - i):
                along[y, x] = max(along[y, x], image[y, x + i])
            for x in range(i, nx):
                along[y, x] = max(along[y, x], image[y, x - i])
    out = np.empty((ny, nx), np.float32)
    for y in range(ny):
        for x in range(nx):
            out[y, x] = along[y, x]
        for j in range(max(0, y - 2), min(ny, y + 3)):
            for x in range(nx):
                out[y, x] = max(out[y, x], along[j, x])
    return out


@numba.njit(cache=True, nogil=True)
def _faint_half(flux, use, mesh):
    """Mark, in each mesh, the usable pixels of the fainter half of the template."""
    ny, nx = flux.shape
    faint = np.zeros((ny, nx), np.bool_)
    for y0 in range(0, ny, mesh):
        for x0 in range(0, nx, mesh):
            y1, x1 = min(y0 + mesh, ny), min(x0 + mesh, nx)
            values = np.empty((y1 - y0) * (x1 - x0), np.float32)
            n = 0
            for y in range(y0, y1):
                for x in range(x0, x1):
                    if use[y, x]:
                        values[n] = flux[y, x]
                        n += 1
            if n == 0:
                continue
            middle = np.partition(values[:n], n // 2)[n // 2]
            for y in range(y0, y1):
                for x in range(x0, x1):
                    faint[y, x] = use[y, x] and flux[y, x] <= middle
    return faint


@numba.njit(cache=True, nogil=True)
def _slopes(ffi, flux, use, mesh):
    """Slope of FFI against template in each mesh, and its weight, the template's variance there."""
    ny, nx = flux.shape
    my, mx = (ny + mesh - 1) // mesh, (nx + mesh - 1) // mesh
    slopes, weights = np.zeros(my * mx), np.zeros(my * mx)
    for j in range(my):
        for i in range(mx):
            n, st, sf, stt, stf = 0, 0.0, 0.0, 0.0, 0.0
            for y in range(j * mesh, min(ny, (j + 1) * mesh)):
                for x in range(i * mesh, min(nx, (i + 1) * mesh)):
                    if use[y, x]:
                        t, f = float(flux[y, x]), float(ffi[y, x])
                        n += 1
                        st += t
                        sf += f
                        stt += t * t
                        stf += t * f
            if n > 1:
                spread = stt - st * st / n
                if spread > 0:
                    slopes[j * mx + i] = (stf - st * sf / n) / spread
                    weights[j * mx + i] = math.sqrt(spread)
    return slopes, weights


def _rough_scale(ffi, flux, use):
    """Median of the slopes of FFI against template on meshes of 16 px, weighted by the template's spread."""
    slopes, weights = _slopes(ffi, flux, use, 16)
    if not weights.sum() > 0:
        raise NoMatch(
            "the template has no stars on the pixels that can be used; choose a larger region or check the template"
        )
    order = np.argsort(slopes)
    middle = np.searchsorted(np.cumsum(weights[order]), weights.sum() / 2)
    return float(slopes[order[middle]])


def _by_ffi_pixel(image, n, join):
    """Join n x n template pixels to one."""
    if n == 1:
        return image
    ny, nx = image.shape[0] // n, image.shape[1] // n
    return join(join(image.reshape(ny, n, nx, n), axis=3), axis=1)


def _prepare(pair, far, keep_out, saturation):
    """Fill what is missing, and decide which pixels may be used for what."""
    ny, nx = pair.ffi.shape
    n = pair.flux.shape[0] // ny
    if n < 1 or pair.flux.shape != (n * ny, n * nx):
        raise ValueError(
            f"a template of shape {pair.flux.shape} does not fit an FFI of shape {pair.ffi.shape}: its pixels must be "
            "those of the FFI or whole parts of them; cut both to the same region"
        )
    blank = ~(np.isfinite(pair.flux) & np.isfinite(pair.variance))
    flux = np.where(blank, np.float32(0), pair.flux)
    variance = _by_ffi_pixel(np.where(blank, np.float32(0), pair.variance), n, np.add.reduce)
    blank = _by_ffi_pixel(blank, n, np.logical_or.reduce)
    dq = _by_ffi_pixel(pair.dq, n, np.bitwise_or.reduce)
    no_data = ~np.isfinite(pair.ffi)
    if pair.uncertainty is not None:
        no_data |= ~(np.isfinite(pair.uncertainty) & (pair.uncertainty > 0))
    saturated, bleeding = find_saturated(pair.ffi, saturation)
    near_saturated = grow(saturated | bleeding, REACH)
    untrusted = (dq & UNTRUSTED) != 0
    edge = grow(blank, far)
    if far:
        edge[:far] = edge[ny - far :] = edge[:, :far] = edge[:, nx - far :] = True
    flags = (
        (no_data | blank) * np.int16(Flag.NO_DATA)
        | untrusted * np.int16(Flag.TEMPLATE_UNTRUSTED)
        | ((dq & DQ.PS1_GAP.value) != 0) * np.int16(Flag.TEMPLATE_GAP)
        | (near_saturated & ~bleeding) * np.int16(Flag.SATURATED_TESS)
        | bleeding * np.int16(Flag.BLEED)
        | edge * np.int16(Flag.EDGE_OF_KERNEL)
    )
    complete = ~(no_data | edge | blank)
    sky_pixels = ~(no_data | blank | near_saturated)
    if keep_out is not None:
        sky_pixels &= ~keep_out
    usable = sky_pixels & ~grow(untrusted, far) & complete
    noise = None if pair.uncertainty is None else np.where(no_data, np.float32(1), pair.uncertainty)
    return _Prepared(
        flux,
        _by_ffi_pixel(flux, n, np.add.reduce),
        variance,
        noise,
        np.where(no_data, np.float32(0), pair.ffi),
        complete,
        usable,
        sky_pixels,
        flags.astype(np.int16),
        n,
    )


def default_bases(shape, oversampling):
    """Return the kernels among which `auto` chooses, from the plainest on.

    Parameters
    ----------
    shape : tuple of int
        (ny, nx) of the image.
    oversampling : int
        Template pixels along an FFI pixel: 1 for a template of the detector's own PSF.

    Returns
    -------
    tuple of KernelBasis
        One, a number, for images with a side below `LEAST_SIDE`.
    """
    if min(shape) < LEAST_SIDE:
        return (KernelBasis(1, (), 0),)
    order = 2 if min(shape) >= WHOLE_CCD else 1
    if oversampling == 1:
        return (
            KernelBasis(1, (), 0),
            KernelBasis(3, (), 0),
            KernelBasis(3, (), order),
            KernelBasis(5, (), order),
            KernelBasis(5, WINGS, order),
        )
    return KernelBasis(1, (), 0), KernelBasis(7, WINGS, order), KernelBasis(9, WINGS, order)


def subtract(pair, kernel="auto", mesh=MESH, keep_out=None, saturation=9e4, steepest=math.inf):
    """Subtract the matched template from the FFI.

    Parameters
    ----------
    pair : ImagePair
        FFI and template.
    kernel : {"auto"}, KernelBasis or Kernel, default "auto"
        A basis is fitted; "auto" chooses one of `default_bases` by cross-validation on stars; a kernel is taken as it
        is.
    mesh : int, default `MESH`
        Side of the meshes of the sky [px].
    keep_out : ndarray of bool, shape (ny, nx), or None
        Pixels kept out of every fit: those of the target and of known variable stars.
    saturation : float, default 9e4
        Flux from which a pixel of the FFI counts as saturated [FFI units].
    steepest : float, default infinite
        Slope of the sky [FFI units per px] from which pixels are flagged SCATTERED.

    Returns
    -------
    Difference

    Raises
    ------
    NoMatch
        If there are too few good pixels, or the FFI does not follow the template.
    ValueError
        If the shapes do not fit.
    """
    n = pair.flux.shape[0] // pair.ffi.shape[0]
    if isinstance(kernel, Kernel):
        bases, far = (kernel.basis,), reach(kernel.basis, n)
    else:
        bases = default_bases(pair.ffi.shape, n) if kernel == "auto" else (kernel,)
        far = reach(bases[-1], n)
    ready = _prepare(pair, far, keep_out, saturation)
    if not ready.complete.any():
        raise NoMatch(
            "no pixel has data of FFI and template and a positive uncertainty; check the region and the frame's quality"
        )
    faint = _faint_half(ready.whole, ready.sky_pixels, mesh)
    given = kernel if isinstance(kernel, Kernel) else None
    scale = _rough_scale(ready.data, ready.whole, ready.usable) if given is None else 1.0
    model = convolve(given, ready.flux) if given else np.float32(scale) * ready.whole
    sky = measure_sky(ready.data - model, faint, mesh)
    rest = ready.data - sky_image(sky)
    noise = _noise_or_scatter(ready, rest - model, faint)
    if given is None:
        fit, sky = _fit_with_sky(ready, bases, sky, noise, scale, faint, mesh)
        kernel, pixels = fit.kernel, fit.pixels
        model = convolve(kernel, ready.flux)
        rest = ready.data - sky_image(sky)
    else:
        pixels = 0
    rest -= model
    straps = find_straps(rest, faint)
    if straps.columns.size:
        rest[:, straps.columns] -= strap_image(straps, rest.shape[0])
        ready.flags[:, straps.columns] |= Flag.STRAP.value
    # What the meshes missed so far of a steep or curved sky, and of straps that pulled them up.
    more = measure_sky(rest, faint, mesh)
    sky = add_skies(sky, more)
    rest -= sky_image(more)
    return _judge(ready, pair, rest, model, noise, kernel, sky, straps, faint, pixels, steepest)


def _noise_or_scatter(ready, residual, faint):
    """Return the FFI's noise, or the scatter of its empty sky at every pixel."""
    if ready.noise is not None:
        return ready.noise
    some = residual[faint]
    scatter = SIGMA_PER_MAD * float(np.median(np.abs(some))) if some.size else 1.0
    return np.full(residual.shape, max(scatter, 1e-30), np.float32)


def _fit_with_sky(ready, bases, sky, noise, scale, faint, mesh):
    """Fit the kernel, measure the sky without stars, and fit the kernel again."""
    rest = ready.data - sky_image(sky)
    n, shape = ready.oversampling, rest.shape
    peak = np.float32(scale) * _maximum_5(ready.whole)

    def planes_of(basis):
        return template_planes(ready.flux, basis, n)

    if len(bases) > 1:
        basis = choose_basis(bases, planes_of, n, ready.usable, peak, noise, rest, ready.variance, scale)
    else:
        basis = bases[0]
    sample = choose_sample(planes_of(basis), basis, n, ready.usable, peak, noise)

    def fit_to(image, sample, **known):
        values = (plane[sample.y, sample.x].astype(float) for plane in (image, noise, ready.variance))
        return fit_kernel(sample, basis, n, shape, *values, scale, **known)

    # A third of the pixels is enough to take the stars off for the sky.
    first = fit_to(rest, thin_sample(sample, basis, 3))
    starless = rest - convolve(first.kernel, ready.flux)
    more = measure_sky(starless, faint, mesh)
    sky = add_skies(sky, more)
    second = fit_to(rest - sky_image(more), sample, mismatch=first.mismatch)
    plane = tuple(a + b for a, b in zip(sky.plane, second.plane, strict=True))
    return second, sky._replace(plane=plane)


def _thinned(mask):
    """Return the flat indices of at most `MEASURED_PIXELS` of the pixels of a mask, evenly spread."""
    at = np.flatnonzero(mask)
    return at[:: 1 + at.size // MEASURED_PIXELS]


def _judge(ready, pair, rest, model, noise, kernel, sky, straps, faint, pixels, steepest):
    """Measure the noise of the difference, and flag what stands out of it without being a transient."""
    peak = _maximum_5(model)
    total = convolve_variance(kernel, ready.variance)
    total += noise**2
    at = _thinned(faint & ready.complete)
    excess, empty = 1.0, 0.0
    if at.size:
        some = np.abs(rest.ravel()[at])
        excess = max(SIGMA_PER_MAD * float(np.median(some / np.sqrt(total.ravel()[at]))), 1e-3)
        empty = SIGMA_PER_MAD * float(np.median(some))
    at = _thinned(ready.usable & (peak > BRIGHT * noise))
    residual, top, light = rest.ravel()[at], peak.ravel()[at], np.maximum(model.ravel()[at], 0)
    variance = excess**2 * total.ravel()[at]
    mismatch = measure_mismatch(residual, top, variance)
    flux_mismatch = measure_mismatch(residual, light, variance, 5 / 6)
    mismatch_noise = np.maximum(peak, 0, out=peak)
    mismatch_noise *= np.float32(mismatch)
    total *= np.float32(excess**2)
    total += mismatch_noise**2
    np.sqrt(total, out=total)
    missing = ~ready.complete
    rest[missing] = np.nan
    total[missing] = np.nan
    flags = ready.flags
    damaged = _by_ffi_pixel((pair.dq & DAMAGED_STAR) != 0, ready.oversampling, np.logical_or.reduce)
    damaged = grow(damaged, max(1, reach(kernel.basis, ready.oversampling)))
    flags |= near_damage(rest, total, damaged) * np.int16(Flag.NEAR_DAMAGE)
    if math.isfinite(steepest):
        slope_y, slope_x = np.gradient(sky_image(sky))
        flags[np.hypot(slope_x, slope_y) > steepest] |= Flag.SCATTERED.value
    return Difference(
        rest, total, mismatch_noise, model, flags, kernel, sky, straps, mismatch, flux_mismatch, excess, empty, pixels
    )
