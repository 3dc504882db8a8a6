"""Further FFIs of a CCD whose skycells are blurred: ``python -m benchmarks.further_ffis`` prints FFIs an hour.

All 1,000 skycells under a whole FFI are sampled, but every one of them is read from the one blurred skycell that is
made up here: the disk's part is that of a cache. What several workers bring together is extrapolated and marked so.
"""

import argparse
import os
import shutil
from pathlib import Path

import numpy as np

from benchmarks import ccd, made_up
from syndiff_tasks import paths
from syndiff_tasks.chain import convolve, template_page
from syndiff_tasks.chain.plan import plan_ffi, reference_of
from syndiff_tasks.demo import frame
from syndiff_tasks.geometry.tansip import shifted
from syndiff_tasks.pixels.convolution import convolve_gaussian
from syndiff_tasks.targets import WholeTarget

FFIS_OF_A_SECTOR = 1200  # of 30 minutes, on one CCD


def blank_image():
    """Return an exposure whose pixels do not matter."""
    return frame.Exposed(*(np.ones(frame.SHAPE, np.float32) for _ in range(2)))


def blurred_skycells(plan, folder):
    """Blur one made-up skycell and let it stand for all; return their targets by name."""
    target = WholeTarget(folder / "blurred", {})
    skycell = plan.footprint.skycells[0]
    origin = tuple(place // 4 * 4 - place - 4 for place in skycell.corner)
    with target.writing() as draft:
        convolve.write_convolved(draft.path, convolve_gaussian(ccd._blocks(skycell, origin)(), made_up.SIGMA, 0))
        draft.notes.update(ccd.NOTES)
    return dict.fromkeys((skycell.name for skycell in plan.footprint.skycells), target)


def further(path, reference, groups, folder, pictures):
    """Make the template of one further FFI, as Downsample does; return the seconds of its parts."""
    plan, planning = ccd.timed("  header, owners of all pixels", plan_ffi, path)
    reference_of(plan, reference)
    missing = {skycell.name for skycell in plan.footprint.skycells} - set(groups)
    groups = groups | dict.fromkeys(missing, next(iter(groups.values())))
    folder = folder / plan.ccd.stem
    folder.mkdir()
    _, sampling = ccd.timed("  sampling and writing", ccd.downsample, plan, groups, [(0.0, 0.0)], folder)
    seconds = planning + sampling
    if pictures:
        template = folder / "template_0.0_0.0.fits"
        targets = [WholeTarget(one, {}) for one in (template, paths.picture(template), paths.page(template))]
        _, drawing = ccd.timed("  picture and page", template_page.draw, plan, targets)
        seconds += drawing
    return seconds


def main():
    """Measure some further FFIs, and print what a night on this machine brings."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.further_ffis", description=__doc__.partition(":")[0])
    parser.add_argument("--folder", type=Path, default=Path("demo_sky/bench_further_ffis"))
    parser.add_argument("--ffis", type=int, default=3)
    parser.add_argument("--pictures", action="store_true", help="draw the picture and the page as well")
    asked = parser.parse_args()
    folder = asked.folder.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tansip = frame.TANSIP
    files = []
    for number in range(asked.ffis + 1):
        # Every further FFI has drifted by a hundredth of a pixel more.
        frame.TANSIP = shifted(tansip, 0.01 * number, 0.0)
        files.append(str(folder / frame.NAME.replace("135923", f"{135923 + number}")))
        frame.write_frame(files[-1], blank_image())
    reference = plan_ffi(files[0])
    groups = blurred_skycells(reference, folder)
    count = len(reference.footprint.skycells)
    seconds = [further(path, files[0], groups, folder, asked.pictures) for path in files[1:]]
    # The first one compiles, or loads what was compiled.
    each, cores = min(seconds), os.cpu_count()
    print(f"\nA further FFI of {count} skycells: {each:.1f} core-seconds, {3600 / each:.0f} FFIs an hour and core;")
    print(f"with {cores} workers {cores * 3600 / each:.0f} FFIs an hour, a CCD's {FFIS_OF_A_SECTOR} FFIs in ", end="")
    print(f"{FFIS_OF_A_SECTOR * each / 3600 / cores:.1f} hours (extrapolated)")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
