"""How right a template is: the pictures of docs/method.md, and the numbers quoted there, from the code itself.

Small frames of noise and analytic stars; about a minute. `python scripts/plot_accuracy.py [--out docs]`
"""

import argparse
import math
import os
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from astropy.io import fits
from scipy.special import erf

from syndiff_tasks.demo import affine
from syndiff_tasks.demo import frame as demo_frame
from syndiff_tasks.demo.gaussians import DISC, Gaussians, Mixture, deposit
from syndiff_tasks.geometry import mapping
from syndiff_tasks.geometry.footprint import footprint_of
from syndiff_tasks.geometry.region import SCIENCE
from syndiff_tasks.geometry.rings import rings_v3
from syndiff_tasks.pixels import background, quadrature
from syndiff_tasks.pixels.blocks import to_blocks
from syndiff_tasks.pixels.convolution import convolve_gaussian

DOCS = Path(__file__).resolve().parent.parent / "docs"

SIDE = 82.0  # native px a TESS pixel
STAR = 4.4 / math.sqrt(8 * math.log(2))  # sigma of a PS1 star, native px
SIZE = 900  # of a frame, native px


class Pixels(NamedTuple):
    """A block of TESS-like pixels, turned against the native ones."""

    matrix: np.ndarray
    origin: np.ndarray
    x: np.ndarray
    y: np.ndarray


def sampled(sky, pixels, rule=None):
    """Template of these pixels, as `template.Sampled` of 1-D arrays."""
    half = round(pixels.x.max())
    return affine.sampled(sky, (pixels.matrix, pixels.origin), (-half, -half, half + 1, half + 1), rule=rule)


def turned(half, angle=0.6, size=SIZE):
    """Pixels (2 half + 1)^2 in the middle of a frame."""
    x, y = (a.ravel() for a in np.meshgrid(*2 * [np.arange(-half, half + 1.0)]))
    matrix = SIDE * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return Pixels(matrix, np.array([size / 2 - 0.3, size / 2 + 0.7]), x, y)


def one_star(x, y, size=SIZE):
    """Draw a PS1 star of flux 1, integrated over native pixels."""
    image = np.zeros((size, size))
    deposit(image, Gaussians(*(np.array([value]) for value in (x, y, 1.0, STAR**2, 0.0, STAR**2))))
    return image.astype(np.float32)


def blocks_of(flux, variance=None, bin=4):
    """Blocks of a frame without flaws."""
    plain = np.zeros(flux.shape, np.uint16)
    variance = np.ones_like(flux) if variance is None else variance
    return to_blocks(flux, variance, plain, plain.astype(np.uint8), bin, (0, 0))


def analytic(pixels, star, sigma):
    """Integrals of a Gaussian star, blurred by `sigma`, over turned square pixels: error functions in both axes."""
    width = math.sqrt(sigma**2 + STAR**2) / SIDE * math.sqrt(2)
    u, v = np.linalg.solve(pixels.matrix, np.asarray(star) - pixels.origin)
    along = [(erf((a + 0.5) / width) - erf((a - 0.5) / width)) / 2 for a in (pixels.x - u, pixels.y - v)]
    return along[0] * along[1]


def star_error(u, v=0.0, bin=4, sigma=40.0, density=None):
    """Largest error of any pixel [of the star's brightest], for a star (u, v) from the middle of one [TESS px]."""
    pixels = turned(3)
    star = pixels.matrix @ [u, v] + pixels.origin
    sky = convolve_gaussian(blocks_of(one_star(*star), bin=bin), sigma, 0)
    rule = quadrature.quadrature_rule(sky.sigma, SIDE)
    if density:
        rule = rule._replace(density=density, nodes=density + 2 * quadrature.BEYOND)
    found = sampled(sky, pixels, rule)
    truth = analytic(pixels, star, sigma)
    return np.abs(found.flux - truth).max() / truth.max(), abs(found.flux.sum(dtype=float) / truth.sum() - 1)


def worst(places, **settings):
    """Largest error of a pixel over stars at several places."""
    return max(star_error(*place, **settings)[0] for place in places)


def draw_stars(path):
    """Draw errors against analytic stars: sub-pixel position, size of blocks, blur, points along a pixel."""
    figure, axes = plt.subplots(1, 4, figsize=(11, 3), layout="constrained", sharey=True)
    at = np.linspace(0, 1, 11)
    for sigma in (40.0, 53.0):
        found = np.array([star_error(u, 0.2, sigma=sigma) for u in at])
        print(f"sigma {sigma}: worst pixel {found[:, 0].max():.1e} of the peak, total flux {found[:, 1].max():.1e}")
        axes[0].semilogy(at, found[:, 0], ".-", label=f"pixel, $\\sigma$ = {sigma:g}")
        axes[0].semilogy(at, found[:, 1], ".--", label=f"total, $\\sigma$ = {sigma:g}")
    axes[0].set(xlabel="star to pixel centre [TESS px]", ylabel="error [of peak, of total]")
    axes[0].legend(fontsize=7)
    places = [(0.0, 0.0), (0.37, 0.21), (0.5, 0.5), (0.13, -0.42)]
    bins = (1, 2, 4, 8, 12, 16, 20)
    by_bin = [worst(places, bin=bin) for bin in bins]
    print("blocks:", dict(zip(bins, (f"{e:.1e}" for e in by_bin), strict=True)))
    axes[1].semilogy(bins, by_bin, "o-")
    axes[1].set(xlabel="block [native px]", title="$\\sigma$ = 40")
    sigmas = (8.0, 12.0, 20.0, 30.0, 40.0, 53.0, 65.0)
    by_sigma = [worst(places, sigma=sigma) for sigma in sigmas]
    print("sigma:", dict(zip(sigmas, (f"{e:.1e}" for e in by_sigma), strict=True)))
    axes[2].semilogy(sigmas, by_sigma, "o-")
    axes[2].set(xlabel="$\\sigma$ of the blur [native px]", title="blocks of 4")
    counts = range(1, 7)
    for sigma in (20.0, 40.0, 53.0):
        by_points = [worst(places, sigma=sigma, density=count) for count in counts]
        print(f"points, sigma {sigma}:", dict(zip(counts, (f"{e:.1e}" for e in by_points), strict=True)))
        axes[3].semilogy(counts, by_points, "o-", label=f"$\\sigma$ = {sigma:g}")
    axes[3].set(xlabel="points along a pixel")
    axes[3].legend(fontsize=7)
    for one in axes:
        one.grid(alpha=0.3)
    figure.savefig(path, dpi=90)


def noise_frame():
    """Variance of uneven depth, with a blank border, a hole and scattered blanks, in the proportions of sigma 40."""
    rng = np.random.default_rng(3)
    variance = rng.uniform(0.5, 1.5, (240, 240))
    variance[:, 140:] *= 3
    blank = rng.random(variance.shape) < 0.02
    blank[100:116, 60:100] = True
    blank[:, :50] = True
    return variance, blank


def draw_noise(path, realisations=400):
    """Draw pulls of noise-only templates at quarter scale (sigma 10, pixels of 20.5), and how noise is correlated."""
    variance, blank = noise_frame()
    rng = np.random.default_rng(4)
    quarter = turned(3, size=240)._replace(matrix=turned(3).matrix / 4)
    values = []
    for _ in range(realisations):
        flux = np.where(blank, np.nan, rng.normal(0, np.sqrt(variance))).astype(np.float32)
        sky = convolve_gaussian(blocks_of(flux, variance.astype(np.float32)), 10.0, 0)
        found = sampled(sky, quarter)
        values.append(found.flux)
    values = np.array(values)
    pulls = values / np.sqrt(found.variance)
    width = pulls.std(axis=0)
    whole = found.coverage > 0.97
    print(f"pulls: width {width.mean():.3f} +- {width.std() / math.sqrt(width.size):.3f}, mean {pulls.mean():+.3f}")
    print(f"coverage > 0.97: {width[whole].mean():.3f} ({whole.sum()} pixels), less: {width[~whole].mean():.3f}")
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
    at = np.linspace(-4, 4, 81)
    axes[0].hist(pulls.ravel(), at[::4], density=True, color="0.75")
    axes[0].plot(at, np.exp(-(at**2) / 2) / math.sqrt(2 * math.pi), "k")
    axes[0].set(xlabel="template / $\\sqrt{\\mathrm{VARIANCE}}$ of pure noise", title=f"{realisations} realisations")
    axes[1].errorbar(found.coverage, width, width / math.sqrt(2 * realisations), fmt=".", lw=0.8)
    axes[1].axhline(1, color="k", lw=0.8)
    axes[1].set(xlabel="coverage (hole, border)", ylabel="width of the pulls", ylim=(0.8, 1.2))
    draw_correlation(axes[2])
    figure.savefig(path, dpi=90)


def correlation(sigma, lag, side=SIDE):
    """Correlation of the noise of two pixels `lag` (x, y) TESS px apart, for even noise.

    White native noise blurred by sigma has the covariance exp(-d^2 / 4 sigma^2); its integral over two pixels is a
    second difference of F(t) = t erf(t / 2 sigma) + (2 sigma / sqrt(pi)) exp(-t^2 / 4 sigma^2) along each axis.
    """

    def integral(t):
        return t * erf(t / (2 * sigma)) + 2 * sigma / math.sqrt(math.pi) * np.exp(-((t / (2 * sigma)) ** 2))

    def shared(n):
        return integral((n + 1) * side) - 2 * integral(n * side) + integral((n - 1) * side)

    return shared(lag[0]) * shared(lag[1]) / shared(0) ** 2


def draw_correlation(axes, realisations=150):
    """Draw theory, and the scatter of whole templates of noise."""
    lags = np.arange(0, 5)
    fine = np.linspace(0, 4, 100)
    pixels = turned(4, angle=0.0)
    square = 2 * 4 + 1
    rng = np.random.default_rng(5)
    noise = {40.0: [], 53.0: []}
    for _ in range(realisations):
        blocks = blocks_of(rng.standard_normal((SIZE, SIZE), np.float32))
        for sigma, images in noise.items():
            sky = convolve_gaussian(blocks, sigma, 0)
            images.append(sampled(sky, pixels).flux.reshape(square, square))
    for (sigma, images), shade in zip(noise.items(), ("tab:blue", "tab:orange"), strict=True):
        images = np.array(images)[:, 1:-1, 1:-1]  # the outermost may miss sky
        count = images.shape[2]
        same = (images**2).mean()
        along = [(images[:, :, : count - lag] * images[:, :, lag:]).mean() / same for lag in lags]
        axes.plot(fine, correlation(sigma, (fine, 0 * fine)), color=shade, label=f"$\\sigma$ = {sigma:g}")
        axes.plot(lags, along, "o", color=shade)
        total = sum(correlation(sigma, (i, j)) for i in range(-6, 7) for j in range(-6, 7))
        told = {lag: round(float(correlation(sigma, lag)), 4) for lag in ((1, 0), (1, 1), (2, 0), (2, 1), (3, 0))}
        measured = [round(float(one), 3) for one in along]
        print(f"noise, sigma {sigma}: {told}, sum {total:.2f}, measured along a row {measured}")
        growth = {n: round(math.sqrt(_aperture(sigma, n)), 2) for n in (2, 3, 5, 9)}
        print(f"noise, sigma {sigma}: true over naive noise of n x n pixels {growth}")
    axes.axhline(0, color="0.8", lw=0.8)
    axes.set(xlabel="distance along a row [TESS px]", ylabel="correlation of noise")
    axes.legend(fontsize=7)


def _aperture(sigma, n):
    """Divide the variance of a sum over n x n pixels by the sum of their variances."""
    return sum(correlation(sigma, (i - k, j - m))
               for i in range(n) for j in range(n) for k in range(n) for m in range(n)) / n**2  # fmt: skip


def draw_nodes(path):
    """Draw the error over a CCD of the bilinear grid of nodes, which the index maps alone use."""
    region = SCIENCE
    cells = footprint_of(demo_frame.TANSIP, region, rings_v3()).skycells
    rng = np.random.default_rng(6)
    places, errors = [], []
    for cell in cells[::2]:
        grid = mapping.ps1_to_tess_nodes(demo_frame.TANSIP, cell)
        px, py = rng.uniform(0, cell.nx - 1, 100), rng.uniform(0, cell.ny - 1, 100)
        exact = mapping.ps1_to_tess(demo_frame.TANSIP, cell, px, py)
        near = mapping.interpolate(grid, px, py)
        on = (exact[0] > region.x0) & (exact[0] < region.x1) & (exact[1] > region.y0) & (exact[1] < region.y1)
        places.append(np.array(exact)[:, on])
        errors.append(np.hypot(near[0] - exact[0], near[1] - exact[1])[on])
    (x, y), error = np.hstack(places), np.hstack(errors)
    print(f"nodes: {len(cells)} skycells, worst {error.max():.1e} TESS px, rms {np.sqrt((error**2).mean()):.1e}")
    figure, axes = plt.subplots(figsize=(5.6, 4.4), layout="constrained")
    shown = axes.hexbin(x, y, C=1e6 * error, reduce_C_function=np.max, gridsize=28)
    figure.colorbar(shown, label="largest error of the node grid [$10^{-6}$ TESS px]")
    axes.set(xlabel="x [TESS px]", ylabel="y [TESS px]", aspect="equal")
    figure.savefig(path, dpi=80)


def sources_on_a_grid(rng, peak, profile, apart=128):
    """Draw sources of one peak every `apart` px, each at its own sub-pixel place, and return them and their flux."""
    at = np.arange(apart // 2, 1024, apart, dtype=float)
    x, y = (a.ravel() + rng.uniform(-0.5, 0.5, a.size) for a in np.meshgrid(at, at))
    image = np.zeros((1024, 1024))
    flux = peak / (profile.fractions / (2 * math.pi * profile.variances)).sum()
    for share, variance in zip(*profile, strict=True):
        round_ = (np.full(x.size, value) for value in (flux * share, variance, 0.0, variance))
        deposit(image, Gaussians(x, y, *round_))
    return image, flux * x.size


def kept(how, image, noise):
    """Flux of the sources of an image that a way to treat the sky leaves, noise apart, above the sky around them."""
    plain = np.zeros(image.shape, np.uint16), np.ones(image.shape, np.float32)
    left, _ = background.remove_background((image + noise).astype(np.float32), plain[1], plain[0], how)
    if how == "segment":
        return image[left != 0].sum()
    empty, _ = background.remove_background(noise.astype(np.float32), plain[1], plain[0], how)
    kept_light = left - empty
    return (kept_light - np.median(kept_light) + np.median(image)).sum(dtype=float)


def draw_background(path):
    """Draw the share of its flux that a source keeps, by its peak, with each way to treat the sky."""
    rng = np.random.default_rng(7)
    peaks = np.array([2.0, 3, 5, 7, 10, 20, 50, 100, 200])
    noise = rng.standard_normal((1024, 1024)) + 0.1
    star = Mixture(np.ones(1), np.array([STAR**2]))
    disc = Mixture(DISC.fractions, DISC.variances * 12**2 + STAR**2)
    figure, axes = plt.subplots(figsize=(5.5, 3.4), layout="constrained")
    for name, profile, dash in (("star", star, "-"), ("disc of 3 arcsec", disc, "--")):
        drawn = [sources_on_a_grid(rng, peak, profile) for peak in peaks]
        for how, shade in zip(background.METHODS, ("tab:red", "tab:blue", "tab:green"), strict=True):
            shares = [kept(how, image, noise) / flux for image, flux in drawn]
            print(f"{how}, {name}:", dict(zip(peaks.tolist(), np.round(shares, 3).tolist(), strict=True)))
            axes.semilogx(peaks, shares, "o" + dash, color=shade, ms=3, label=f"{how}, {name}")
    axes.semilogx(peaks, 1 - np.minimum(background.DETECTION_SIGMA / peaks, 1), "k:", label="1 - 1.5 / p")
    axes.set(xlabel="peak p of the source [noise of a native px]", ylabel="flux kept", ylim=(0, 1.05))
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=80)


def native_correlation():
    """Measure how noise is correlated among native pixels, in the corners of real cut-outs, where there are any."""
    folder = Path(os.environ.get("SYNDIFF_REAL_DATA", DOCS.parents[1] / "shared" / "data"))
    near, total = [], []
    for path in sorted(folder.glob("hostphot_*.fits")):
        image = fits.getdata(path).astype(float)
        for box in (image[:45, :45], image[:45, -45:], image[-45:, :45], image[-30:, -45:]):
            row, column = np.indices(box.shape) / 45
            terms = np.array([(row**p * column**q).ravel() for p in range(3) for q in range(3 - p)]).T
            left = box - (terms @ np.linalg.lstsq(terms, box.ravel(), rcond=None)[0]).reshape(box.shape)
            limit = 4 * 1.4826 * np.median(np.abs(left))
            left = np.clip(left, -limit, limit)
            lags = np.ix_(np.arange(-3, 4), np.arange(-3, 4))
            power = (np.abs(np.fft.fft2(one, (128, 128))) ** 2 for one in (left, np.ones(box.shape)))
            product, pairs = (np.fft.ifft2(one).real[lags] for one in power)
            found = product / pairs / (product / pairs)[3, 3]
            near += [found[3, 4], found[4, 3]]
            total.append(found.sum())
    if near:
        print(f"native pixels: correlation of neighbours {np.mean(near):.2f} +- {np.std(near):.2f}, sum over 7 x 7 "
              f"{np.median(total):.2f} ({np.min(total):.2f} to {np.max(total):.2f})")  # fmt: skip


def main():
    """Draw all pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=DOCS, help="folder of the pictures")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    draw_stars(out / "accuracy_stars.png")
    draw_noise(out / "accuracy_noise.png")
    draw_nodes(out / "accuracy_nodes.png")
    draw_background(out / "background.png")
    native_correlation()


if __name__ == "__main__":
    main()
