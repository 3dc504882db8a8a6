"""Compare templates of two commits bit by bit: ``python -m benchmarks.identical OLD [NEW]``.

Both commits make the demo's template and those of three regions, with other settings each, from the same files, in this
environment. Every image plane is compared as bytes, every table column by column; the command fails if one differs.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from astropy.io import fits

from syndiff_tasks.demo import __main__ as builder
from syndiff_tasks.demo import field, frame

CATALOG = "--syndiff-star-catalog gaia.csv"
# Every way of sampling, blurring and sky subtraction that a template can take at least once.
RUNS = {
    "demo": f"--roi {','.join(map(str, field.REGION))} --syndiff-background none {CATALOG}",
    "segment, two offsets": (
        f"--roi 1696,740,1728,772 --multi-offset-array 0,0,0.3,-0.2 --syndiff-background segment {CATALOG}"
    ),
    "mesh, oversampled, excluded, wide": (
        "--roi 1700,750,1732,782 --psf-sigma 47 --syndiff-background mesh --syndiff-oversampling 2 "
        "--syndiff-ignored-pixels exclude --syndiff-units electrons"
    ),
    "no blur, large blocks": "--roi 1692,736,1716,760 --syndiff-psf none --syndiff-bin 8 --syndiff-background none",
}


def checked_out(commit, folder):
    """Check a commit out into a folder; return the folder."""
    subprocess.run(["git", "worktree", "add", "--quiet", "--detach", folder, commit], check=True)
    return folder


def make_templates(tree, sky, root):
    """Run Downsample of one tree for each of `RUNS`; return label -> paths of its templates."""
    made, before = {}, set()
    for label, options in RUNS.items():
        command = [sys.executable, "-m", "luigi", "--module", "syndiff_tasks", "Downsample", "--local-scheduler"]
        command += ["--workers", "2", "--ffi", frame.NAME, "--syndiff-archive", "archive"]
        command += ["--syndiff-data-root", str(root / label.replace(" ", "_")), "--syndiff-pictures", "false"]
        command += options.split()
        environment = os.environ | {"PYTHONPATH": str(tree)}
        subprocess.run(command, cwd=sky, env=environment, check=True, capture_output=True)
        found = set(root.glob("*/shifted_downsampled/**/*.fits")) - before
        made[label], before = sorted(found, key=lambda path: path.name), before | found
    return made


def differences(old, new):
    """Return what differs between two templates, a line each; extensions are compared by their order."""
    with fits.open(old) as one, fits.open(new) as other:
        if len(one) != len(other):
            return [f"{len(one)} extensions against {len(other)}"]
        lines = []
        for before, after in zip(one[1:], other[1:], strict=True):
            if isinstance(before, fits.BinTableHDU):
                names = before.columns.names
                same = names == after.columns.names and all(
                    np.array_equal(before.data[name], after.data[name], equal_nan=before.data[name].dtype.kind == "f")
                    for name in names
                )
            else:
                same = before.data.dtype == after.data.dtype and before.data.tobytes() == after.data.tobytes()
            if not same:
                lines.append(f"{before.name} differs from {after.name}")
        return lines


def main():
    """Make and compare the templates; exit with 1 where a plane differs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.identical", description=__doc__.partition(":")[0])
    parser.add_argument("old", help="commit to compare with")
    parser.add_argument("new", nargs="?", default="HEAD", help="commit to be compared (default: HEAD)")
    parser.add_argument("--sky", type=Path, default=Path("demo_sky"), help="demo sky, built where it is missing")
    asked = parser.parse_args()
    if not (asked.sky / "demo.json").exists():
        builder.main(["--out", str(asked.sky)])
    different = 0
    with tempfile.TemporaryDirectory() as folder:
        trees = [
            checked_out(commit, str(Path(folder, name))) for name, commit in (("old", asked.old), ("new", asked.new))
        ]
        try:
            old, new = (make_templates(tree, asked.sky, Path(tree, "made")) for tree in trees)
            for label in RUNS:
                for one, other in zip(old[label], new[label], strict=True):
                    lines = differences(one, other)
                    different += len(lines)
                    print(f"{label:36} {one.name:50} {'; '.join(lines) or 'identical'}", flush=True)
        finally:
            for tree in trees:
                subprocess.run(["git", "worktree", "remove", "--force", tree], check=True)
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
