"""``python -m syndiff_tasks.demo --out demo_sky``: build the made-up sky and say what to do with it."""

import argparse
import os
import sys
from pathlib import Path

from tqdm import tqdm

from syndiff_tasks.demo import field
from syndiff_tasks.demo.sky import BANDS


def main(arguments=None) -> None:
    """Build the demo sky from the command line."""
    parser = argparse.ArgumentParser(prog="python -m syndiff_tasks.demo", description=__doc__.partition(": ")[2])
    parser.add_argument("--out", type=Path, default=Path("demo_sky"), help="folder to build in (default: demo_sky)")
    parser.add_argument("--seed", type=int, default=1, help="same seed, same sky (default: 1)")
    parser.add_argument(
        "--processes", type=int, default=min(4, os.cpu_count() or 1), help="images rendered at once, 1 GB each"
    )
    chosen = parser.parse_args(arguments)
    images = len(field.demo_skycells()) * len(BANDS)
    with tqdm(total=images, unit="image", desc="skycells", disable=None) as bar:
        made = field.build(chosen.out, chosen.seed, chosen.processes, lambda path: bar.update())
    sys.stdout.write(next_steps(chosen.out, made))


def next_steps(folder: Path, made: dict) -> str:
    """Return what a user can do with a built demo sky, as text to print."""
    transient = made["transient"]
    return (
        f"The demo sky is in {folder}: {len(made['skycells'])} skycells in {folder / made['archive']}, the FFI, "
        f"{made['stars']} and {made['gaia']}.\n"
        f"A transient of {transient['electrons_per_second']:.1f} electrons/s that PS1 never saw is at pixel "
        f"({transient['x']:.2f}, {transient['y']:.2f}).\n"
        f"Now make the template:\n"
        f"  luigi --module syndiff_tasks Downsample --local-scheduler --workers 2 \\\n"
        f"    --ffi {folder / made['ffi']} --roi {made['roi']} --syndiff-archive {folder / made['archive']}\n"
    )


if __name__ == "__main__":
    main()
