"""How cost and memory grow: with offsets, region, skycells and workers: ``python -m benchmarks.growth``.

Offsets and regions: Downsample of the demo's FFI, every skycell being the one that is made up here. Skycells: Convolve
of made-up combined ones. Workers: `luigi Downsample` on the demo's sky, from the archive's files to the template.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import ccd, further_ffis, made_up
from benchmarks.measure import measure
from syndiff_tasks.chain.plan import plan_ffi
from syndiff_tasks.demo import __main__ as demo
from syndiff_tasks.demo import frame

CENTRE = 1068, 1024
ROI_OF_DEMO, SIGMA_OF_DEMO = "1692,736,1740,784", "40"


def _plan(folder, side):
    """Return the plan of a square of the demo's FFI, from a file with a blank image."""
    path = Path(folder) / frame.NAME
    if not path.exists():
        frame.write_frame(path, further_ffis.blank_image())
    x0, y0 = (middle - side // 2 for middle in CENTRE)
    return plan_ffi(str(path), f"{x0},{y0},{x0 + side},{y0 + side}")


def downsample(folder, side, offsets):
    """Own: the templates of a square region at so many offsets, from blurred skycells on disk."""
    kept = tempfile.TemporaryDirectory(dir=folder)
    plan = _plan(folder, side)
    groups = further_ffis.blurred_skycells(plan, Path(kept.name))
    moved = [(0.002 * n, -0.001 * n) for n in range(offsets)]

    def run():
        with tempfile.TemporaryDirectory(dir=kept.name) as made:
            ccd.downsample(plan, groups, moved, Path(made))
        return {"skycells": len(plan.footprint.skycells)}

    return run


def convolve(folder, side):
    """Own: the blur of all skycells of a square region."""
    kept = tempfile.TemporaryDirectory(dir=folder)
    plan = _plan(folder, side)
    combined = ccd.combined_skycells(plan, Path(kept.name))

    def run():
        shutil.rmtree(Path(kept.name) / "convolved", ignore_errors=True)
        ccd.convolve(plan, combined, Path(kept.name))
        return {"skycells": len(plan.footprint.skycells)}

    return run


def workers(folder, count):
    """Own: `luigi Downsample --workers N` on the demo's sky; memory is that of the largest process."""
    with tempfile.TemporaryDirectory(dir=folder) as root:
        made = Path(folder) / "demo"
        command = [Path(sys.executable).with_name("luigi"), "--module", "syndiff_tasks", "Downsample"]
        command += ["--local-scheduler", "--workers", str(count), "--ffi", made / frame.NAME, "--roi", ROI_OF_DEMO]
        command += ["--psf-sigma", SIGMA_OF_DEMO, "--syndiff-data-root", root, "--syndiff-archive", made / "archive"]
        started, before = time.perf_counter(), os.times()
        subprocess.run([str(word) for word in command], check=True, capture_output=True)
        wall, after = time.perf_counter() - started, os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return spent, wall, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def main():
    """Print a table a question."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__.partition(":")[0])
    parser.add_argument("--folder", default="demo_sky/bench_growth")
    folder = Path(parser.parse_args().folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    print("| what | skycells | core-s | core-s a skycell | peak memory [MB] |\n|---|---|---|---|---|")
    asked = [(f"Downsample, 500 x 500 px, {n} offsets", downsample, (str(folder), 500, n)) for n in (1, 10, 50)]
    asked += [(f"Downsample, {n} x {n} px, 1 offset", downsample, (str(folder), n, 1)) for n in (60, 250, 1000, 2000)]
    asked += [(f"Convolve, skycells of {n} x {n} px", convolve, (str(folder), n)) for n in (60, 250, 500, 1000)]
    for name, function, arguments in asked:
        found = measure(function, *arguments)
        count = found.told["skycells"]
        print(f"| {name} | {count} | {found.cpu:.2f} | {found.cpu / count:.3f} | {found.memory:.0f} |", flush=True)
    if not (folder / "demo" / "demo.json").exists():
        demo.main(["--out", str(folder / "demo")])
    print("\n| files to template of 4 skycells | core-s | wall [s] | largest process [MB] |\n|---|---|---|---|")
    for count in (1, 2, 4):
        print("| --workers {} | {:.1f} | {:.1f} | {:.0f} |".format(count, *workers(str(folder), count)), flush=True)
    print(f"\n{os.cpu_count()} cores; sigma {made_up.SIGMA:g}, blocks of 4")


if __name__ == "__main__":
    main()
