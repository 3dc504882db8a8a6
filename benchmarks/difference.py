"""Difference images and light curves beside others, on a sky that shares no code with the product.

``python -m benchmarks.difference`` prints the table: some three minutes on a quiet machine. ``--sfft PYTHON`` names the
interpreter of an environment that has SFFT 1.7.3; hotpants is run where it is on PATH.
"""

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from astropy.io import fits
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import lightcurve_sky

from syndiff_tasks.pixels.difference import ImagePair, subtract
from syndiff_tasks.pixels.forced_photometry import SourceFlag, forced_photometry
from syndiff_tasks.pixels.kernel import KernelBasis
from syndiff_tasks.pixels.series import series_residual

BINS = ((9, 11), (11, 13), (13, 14), (14, 15), (15, 16))
TARGETS = (200, 60, 60, 200, 5, 60)
UNMEASURED = int(SourceFlag.NO_FLUX | SourceFlag.MASKED_PIXELS | SourceFlag.FEW_PIXELS)

SFFT = """
import sys, time
from sfft.CustomizedPacket import Customized_Packet
folder = sys.argv[1]
same = dict(FITS_REF=f"{folder}/tmpl.fits", FITS_SCI=f"{folder}/im.fits", FITS_mREF=f"{folder}/mtmpl.fits",
            FITS_mSCI=f"{folder}/mim.fits", FITS_DIFF=f"{folder}/diff.fits")
for _ in range(2):
    start = time.process_time()
    Customized_Packet.CP(**same, ForceConv="REF", GKerHW=2, KerPolyOrder=1, BGPolyOrder=3,
                         BACKEND_4SUBTRACT="Numpy", NUM_CPU_THREADS_4SUBTRACT=1)
    used = time.process_time() - start
print("core-seconds", used)
"""


class Measured(NamedTuple):
    """Fluxes, errors and truth [e/s], each of shape (frames, targets)."""

    rate: np.ndarray
    error: np.ndarray
    systematic: np.ndarray
    truth: np.ndarray


def star_residuals(sky, image, noise):
    """Return, by magnitude, the median over stars of the rms residual on 5 x 5 px over the photon noise."""
    s = sky.sources
    along = ndimage.convolve1d((image / noise) ** 2, np.full(5, 0.2), axis=0)
    squares = ndimage.convolve1d(along, np.full(5, 0.2), axis=1)
    x, y = np.rint(s.x).astype(int), np.rint(s.y).astype(int)
    inside = (np.minimum(x, y) > 8) & (np.maximum(x, y) < sky.size - 9) & (s.kind == lightcurve_sky.STAR)
    medians = []
    for low, high in BINS:
        chosen = inside & (s.magnitude > low) & (s.magnitude < high)
        medians.append(np.sqrt(np.nanmedian(squares[y[chosen], x[chosen]])))
    return medians


def slopes_and_scatter(measured, chosen):
    """Fit rate = slope * truth + baseline for each supernova; return slopes, baselines and scatter over error."""
    slopes, baselines, scatter = [], [], []
    for k in np.flatnonzero(chosen):
        weight = 1 / measured.error[:, k]
        terms = np.stack([measured.truth[:, k], np.ones(len(weight))], axis=1) * weight[:, None]
        fit = np.linalg.lstsq(terms, measured.rate[:, k] * weight, rcond=None)[0]
        rest = measured.rate[:, k] * weight - terms @ fit
        slopes.append(fit[0])
        baselines.append(fit[1])
        scatter.append(np.sqrt((rest**2).sum() / (len(rest) - 2)))
    return np.array(slopes), np.array(baselines), np.array(scatter)


def light_curves(sky, results, frames):
    """Measure all targets in all frames; flagged ones are NaN."""
    measured = [forced_photometry(d, f.uncertainty, f.psf, f.x, f.y) for d, f in zip(results, frames, strict=True)]
    rate, error, systematic = (
        np.array([np.where(m.flags & UNMEASURED, np.nan, getattr(m, name) * m.scale) for m in measured])
        for name in ("flux", "flux_error", "flux_systematic")
    )
    return Measured(rate, error, systematic, np.array([f.rate for f in frames]))


def print_fluxes(sky, measured):
    """Print what the light curves are worth."""
    kind = sky.sources.kind[lightcurve_sky.is_target(sky)]
    whole = np.isfinite(measured.rate).all(axis=0)
    names = (
        (lightcurve_sky.SUPERNOVA, "supernovae, isolated"),
        (lightcurve_sky.HOSTED, "on cores of T = 13 galaxies"),
        (lightcurve_sky.NEAR_BRIGHT, "3 px from stars of T 10-12"),
    )
    print("\n| sources | number | slope | baseline: median, MAD [e/s] | scatter / error: median, rms |")
    print("|---|---|---|---|---|")
    for number, name in names:
        chosen = (kind == number) & whole
        slopes, baselines, scatter = slopes_and_scatter(measured, chosen)
        mad = 1.4826 * np.median(np.abs(baselines - np.median(baselines)))
        print(
            f"| {name} | {chosen.sum()} | {np.median(slopes):.4f} ± {np.std(slopes) / np.sqrt(chosen.sum()):.4f} | "
            f"{np.median(baselines):+.2f}, {mad:.2f} | {np.median(scatter):.2f}, {np.sqrt(np.mean(scatter**2)):.2f} |"
        )
    wrong = measured.rate - measured.truth
    total = np.hypot(measured.error, measured.systematic)
    steady, empty = ((kind == n) & whole for n in (lightcurve_sky.STEADY, lightcurve_sky.EMPTY))
    means = wrong[:, steady].mean(axis=0)
    truth = measured.truth[0, steady][0]
    frames = len(wrong)
    in_time = (wrong - wrong.mean(axis=0))[:, empty] / measured.error[:, empty] * np.sqrt(frames / (frames - 1))
    print(
        f"\nsteady T = 19 ({steady.sum()}): bias {100 * np.mean(means) / truth:+.1f} "
        f"± {100 * np.std(means) / np.sqrt(steady.sum()) / truth:.1f} %, error in one frame "
        f"{np.median(measured.error[:, steady]):.2f} e/s, systematic "
        f"{np.median(measured.systematic[:, steady]):.2f} e/s"
    )
    print(
        f"empty places ({empty.sum()}): width of pulls in time {np.std(in_time):.3f}, with the systematic error "
        f"{np.std(wrong[:, empty] / total[:, empty]):.3f}"
    )


def sky_of(frame, result):
    """Return the sky, straps included, that was taken off a frame."""
    return frame.ffi - result.model - np.nan_to_num(result.difference)


def tess_only(frames, results):
    """Subtract the median of the series, each frame moved to the first by cubic splines; the sky is ours."""
    flat = [frame.ffi - sky_of(frame, result) for frame, result in zip(frames, results, strict=True)]
    shifts = [(np.median(f.y - frames[0].y), np.median(f.x - frames[0].x)) for f in frames]
    moved = [ndimage.shift(i, (-dy, -dx), order=3, mode="nearest") for i, (dy, dx) in zip(flat, shifts, strict=True)]
    median = np.median(moved, axis=0)
    return [i - ndimage.shift(median, s, order=3, mode="nearest") for i, s in zip(flat, shifts, strict=True)]


def write_for_others(folder, frame, result, keep_out):
    """Write the files that docs/difference.md describes, our own sky taken off; masks are grown by 5 px."""
    bad = ndimage.maximum_filter((frame.dq != 0) | (frame.ffi > 9e4), 11)
    image = frame.ffi - sky_of(frame, result)
    planes = {
        "tmpl": frame.flux * lightcurve_sky.SCALE,
        "im": image,
        "mtmpl": np.where(bad | keep_out, 0, frame.flux * lightcurve_sky.SCALE),
        "mim": np.where(bad | keep_out, 0, image),
        "tn": np.sqrt(frame.variance) * lightcurve_sky.SCALE,
        "in": frame.uncertainty,
        "mask": bad.astype(np.int16),
    }
    for name, plane in planes.items():
        plane = plane if name == "mask" else plane.astype(np.float32)
        fits.writeto(Path(folder) / f"{name}.fits", plane, overwrite=True)
    return bad


def run_sfft(interpreter, folder):
    """Run SFFT and return its difference and core-seconds."""
    done = subprocess.run([interpreter, "-c", SFFT, folder], capture_output=True, text=True, check=True)
    used = float(done.stdout.split("core-seconds")[1].split()[0])
    return fits.getdata(Path(folder) / "diff.fits").astype(float), used


def run_hotpants(folder):
    """Run hotpants and return its difference and core-seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    name = {key: str(Path(folder) / f"{key}.fits") for key in ("im", "tmpl", "diff", "in", "tn", "mask")}
    command = (
        f"hotpants -inim {name['im']} -tmplim {name['tmpl']} -outim {name['diff']} -ini {name['in']} -tni {name['tn']} "
        f"-imi {name['mask']} -tmi {name['mask']} -c t -n i -il -1e6 -tl -1e6 -iu 1e6 -tu 1e8 -r 3 -rss 6 "
        "-ng 2 2 0.5 2 1.0 -ko 2 -bgo 3"
    )
    subprocess.run(command.split(), capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return fits.getdata(name["diff"]).astype(float), after.ru_utime - before.ru_utime


def print_others(sky, frames, results, keep_out, sfft):
    """Print the residuals of other programs, given our sky."""
    programs = {}
    if sfft:
        programs["SFFT 1.7.3, order 1, masks grown by 5 px"] = lambda folder: run_sfft(sfft, folder)
    if shutil.which("hotpants"):
        programs["hotpants, ko 2"] = run_hotpants
    for name, run in programs.items():
        rows, used = [], []
        for frame, result in list(zip(frames, results, strict=True))[:2]:
            with tempfile.TemporaryDirectory() as folder:
                write_for_others(folder, frame, result, keep_out)
                image, seconds = run(folder)
            used.append(seconds)
            rows.append(star_residuals(sky, np.where(keep_out, np.nan, image), frame.photon_noise))
        print_row(f"{name} (2 frames, {np.mean(used):.1f} core-s each)", np.median(rows, axis=0))


def print_row(name, numbers):
    """Print a row of the table of residuals."""
    print(f"| {name} | " + " | ".join(f"{n:.2f}" for n in numbers) + " |", flush=True)


def floor(sky, frame, t):
    """Return what a kernel without any error would leave: wrong fluxes and noise."""
    rng = np.random.default_rng((sky.seed, t, 11))
    return lightcurve_sky.wrong_light(sky, t) + frame.photon_noise * rng.standard_normal(frame.ffi.shape)


def whole_ccd(frame, basis):
    """Return core-seconds of a 2048 x 2048 FFI: the frame side by side."""
    times = -(-2048 // frame.ffi.shape[0])
    pair = ImagePair(
        *(
            np.tile(a, (times, times))[:2048, :2048]
            for a in (frame.ffi, frame.uncertainty, frame.flux, frame.variance, frame.dq)
        )
    )
    used = []
    for _ in range(3):
        start = time.process_time()
        subtract(pair, basis)
        used.append(time.process_time() - start)
    return min(used)


def main():
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sfft", default="", help="interpreter that has SFFT 1.7.3")
    options = parser.parse_args()
    share = (options.size / 512) ** 2
    sky = lightcurve_sky.make_sky(
        options.size, options.frames, options.seed, targets=tuple(max(5, int(n * share)) for n in TARGETS)
    )
    keep_out = lightcurve_sky.surroundings(sky)
    frames = [lightcurve_sky.render(sky, t) for t in range(options.frames)]
    pairs = [ImagePair(f.ffi, f.uncertainty, f.flux, f.variance, f.dq) for f in frames]
    basis = KernelBasis(3, (), 1)
    subtract(pairs[0], basis, keep_out=keep_out)
    start = time.process_time()
    results = [subtract(pair, basis, keep_out=keep_out) for pair in pairs]
    seconds = (time.process_time() - start) / len(pairs)
    differences = np.array([np.where(keep_out, np.nan, d.difference) for d in results], np.float32)
    common = series_residual(differences, np.ones(len(frames), bool), keep_out)

    def row(name, images):
        each = [star_residuals(sky, i, f.photon_noise) for i, f in zip(images, frames, strict=False)]
        print_row(name, np.median(each, axis=0))

    print(
        f"{options.frames} frames of {options.size} x {options.size} px, seed {options.seed}; kernel 3 x 3, order 1\n"
    )
    print("| residual, photon noise = 1 | " + " | ".join(f"T {low}-{high}" for low, high in BINS) + " |")
    print("|---|" + "---|" * len(BINS))
    row(
        "floor: wrong fluxes and noise alone",
        [np.where(keep_out, np.nan, floor(sky, f, t)) for t, f in enumerate(frames)],
    )
    row(f"a frame ({seconds:.2f} core-s)", differences)
    row("a frame less R", differences - common)
    row("TESS only, median of the series", [np.where(keep_out, np.nan, d) for d in tess_only(frames, results)])
    print_others(sky, frames, results, keep_out, options.sfft)
    print_fluxes(sky, light_curves(sky, results, frames))
    del differences, common, results, pairs
    seconds = whole_ccd(frames[0], KernelBasis(3, (), 2))
    print(f"\n2048 x 2048 px: {seconds:.2f} core-s, kernel 3 x 3 of order 2")


if __name__ == "__main__":
    main()
