"""A whole CCD: MapFFI, Convolve and Downsample of a thousand skycells, from made-up combined ones: ``make bench-ccd``.

The combined skycells hold stars of random brightness on every block grid that the CCD needs; skycells of one size share
their blocks on disk (hard links), so that the disk holds the CCD's products but not a CCD of input. What cannot be run
here, the download and the combination of a thousand skycells, is extrapolated from one and marked so.
"""

import argparse
import json
import os
import shutil
import time
from pathlib import Path

import numpy as np

from benchmarks import made_up
from benchmarks.measure import peak_memory
from syndiff_tasks.chain import combine, convolve, downsample, stack_files, star_catalog, template_file
from syndiff_tasks.chain.plan import plan_ffi, write_map
from syndiff_tasks.chain.progress import Progress
from syndiff_tasks.demo import frame
from syndiff_tasks.io import disk
from syndiff_tasks.pixels import blocks
from syndiff_tasks.targets import WholeTarget

NOTES = {"files": {}, "absent": {}, "keywords": {}, "stars": []}
PER_SKYCELL = {"download": 5.2, "combine": 3.5}  # core-seconds, `make bench`
STARS_PER_SKYCELL = 4000


def combined_skycells(plan, folder):
    """Write a combined skycell for each of the plan; return their targets by name."""
    made, first = {}, {}
    for skycell in plan.footprint.skycells:
        path = folder / "combined" / skycell.name
        made[skycell.name] = WholeTarget(path, {})
        origin = tuple(place // 4 * 4 - place - 4 for place in skycell.corner)
        shared = _blocks(skycell, origin)
        if (skycell.nx, skycell.ny) not in first:
            first[skycell.nx, skycell.ny] = path
            combine.write_blocks(path, shared(), skycell)
            continue
        _link(first[skycell.nx, skycell.ny], path)
        told = json.loads((path / "zarr.json").read_text())
        told["attributes"]["grid"] = list(shared.grid)
        (path / "zarr.json").write_text(json.dumps(told))
    return made


class _blocks:  # noqa: N801 - a function with a grid
    """Blocks of a made-up skycell: stars of random brightness and place, noise, full coverage."""

    def __init__(self, skycell, origin):
        self.skycell, self.grid = skycell, blocks.Grid(origin[0] + 1.5, origin[1] + 1.5, 4)

    def __call__(self):
        shape = tuple(n // 4 + 3 for n in (self.skycell.ny, self.skycell.nx))
        rng = np.random.default_rng(made_up.SEED)
        flux = rng.normal(0, 1, shape).astype(np.float32)
        y, x = (rng.integers(1, n - 1, STARS_PER_SKYCELL) for n in shape)
        flux[y, x] += 10 ** rng.uniform(0, 4, STARS_PER_SKYCELL)
        full = np.full(shape, 16, np.float32)
        none = np.zeros(shape, np.uint16), np.zeros(shape, np.uint8)
        return blocks.Blocks(flux, np.ones(shape, np.float32), full, full * 0, *none, self.grid)


def _link(source, path):
    for at, _, names in os.walk(source):
        there = path / Path(at).relative_to(source)
        there.mkdir(parents=True)
        for name in names:
            if at == str(source):
                shutil.copy(os.path.join(at, name), there / name)
            else:
                os.link(os.path.join(at, name), there / name)


def timed(words, function, *arguments):
    """Run a function and print what it took."""
    cpu, wall = time.process_time(), time.perf_counter()
    result = function(*arguments)
    spent = time.process_time() - cpu
    print(
        f"{words:44} {spent:8.1f} core-s {time.perf_counter() - wall:8.1f} s, peak {peak_memory():6.0f} MB", flush=True
    )
    return result, spent


def convolve_all(plan, combined, folder):
    """Blur every skycell."""
    blur, groups = convolve.TemplatePsf("gauss", made_up.SIGMA, None), {}
    for skycell in plan.footprint.skycells:
        groups[skycell.name] = WholeTarget(folder / "convolved" / skycell.name, {})
        with groups[skycell.name].writing() as draft:
            convolve.write_convolved(draft.path, convolve.convolve(plan, skycell, combined, blur, (12,)))
            draft.notes.update(NOTES)
    return groups


def downsample_all(plan, groups, offsets, folder):
    """Make the templates of some offsets."""
    on = downsample.pixel_grid(plan, 1)
    settings = combine.CombineConfig(
        tuple(made_up.WEIGHTS.items()), "none", (12,), "flag", 4, star_catalog.KEEP
    ).settings()
    described = template_file.TemplateSettings(
        "counts", 1, 0.5, settings | {"psf": "gauss", "psf_sigma": made_up.SIGMA}, ""
    )
    for batch in downsample.batches(offsets, on):
        for offset, sampled in zip(batch, downsample.integrate(plan, on, groups, batch, 1, _quiet()), strict=True):
            path = folder / f"template_{offset[0]}_{offset[1]}.fits"
            template_file.write_template(str(path), sampled, on, plan, offset, described, groups)


def _quiet():
    return Progress(10**9, "step", "bench", _nothing, _nothing)


def _nothing(value):
    pass


def size(folder):
    """Return the bytes in a folder."""
    return sum(os.path.getsize(os.path.join(at, name)) for at, _, names in os.walk(folder) for name in names)


def main():
    """Plan and run the CCD, and print core-hours and bytes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ccd", description=__doc__.partition(":")[0])
    parser.add_argument("--folder", type=Path, default=Path("demo_sky/bench_ccd"))
    parser.add_argument("--offsets", type=int, default=10)
    folder = parser.parse_args().folder.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    path = folder / frame.NAME
    frame.write_frame(path, frame.Exposed(*(np.zeros(frame.SHAPE, np.float32) for _ in range(2))))
    plan, _ = timed("plan: 2048 x 2048 owners", plan_ffi, str(path))
    count = len(plan.footprint.skycells)
    timed("MapFFI: table and master map", _maps, plan, folder)
    combined, _ = timed(f"made-up input, {count} combined skycells", combined_skycells, plan, folder)
    groups, blurring = timed("Convolve", convolve_all, plan, combined, folder)
    offsets = [(0.002 * n + 0.001, -0.001 * n) for n in range(parser.parse_args().offsets)]
    _, first = timed("Downsample, 1 offset", downsample_all, plan, groups, [(0.0, 0.0)], folder)
    _, many = timed(f"Downsample, {len(offsets)} offsets", downsample_all, plan, groups, offsets, folder)
    raw = disk.needed_bytes(count, made_up.WEIGHTS, stack_files.KINDS, 1, keep_raw=True)
    each = {name: size(folder / name) / count for name in ("combined", "convolved")}
    extrapolated = count * sum(PER_SKYCELL.values())
    print(f"\n{count} skycells; bytes to fetch, and to keep if keep_raw = true (extrapolated): {raw / 1e9:.0f} GB")
    print(f"combined {count * each['combined'] / 1e9:.1f} GB, convolved {count * each['convolved'] / 1e9:.1f} GB")
    print(f"core-hours: download and combine {extrapolated / 3600:.2f} (extrapolated from `make bench`), ", end="")
    print(f"Convolve {blurring / 3600:.2f}, Downsample {first / 3600:.3f}, {len(offsets)} offsets {many / 3600:.3f}")
    shutil.rmtree(folder)


def _maps(plan, folder):
    write_map(plan, "list", str(folder / "list.csv"))
    write_map(plan, "pixels", str(folder / "master.fits.gz"))


if __name__ == "__main__":
    main()
