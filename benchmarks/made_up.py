"""The input of the benchmarks, which others can make again: everything follows from one seed.

One full-size skycell of the demo sky (skycell.2611.071, 6452 x 6398 px) in the archive's on-disk form: 20,000 stars a
square degree (some 4,000 on the skycell), galaxies, saturated stars, noise of real size, gaps and a blank border; r, i,
z and y, each image, mask and variance. The FFI is the demo's.
"""

import functools
from pathlib import Path

import numpy as np

from syndiff_tasks.chain import combine, stack_files
from syndiff_tasks.demo import archive, field, frame
from syndiff_tasks.geometry import footprint
from syndiff_tasks.geometry.region import Region
from syndiff_tasks.geometry.rings import rings_v3
from syndiff_tasks.io import archive as names
from syndiff_tasks.io import fits_in
from syndiff_tasks.pixels import bands, scaling

SEED = 1
NAME = "skycell.2611.071"
CROWDED = 500_000  # stars a square degree, as near the Milky Way's plane: 100,000 on the skycell, a fifth of its pixels
SIGMA = 40.0
WEIGHTS = {"r": 0.238, "i": 0.344, "z": 0.283, "y": 0.135}
RECIPE = combine.CombineConfig(tuple(WEIGHTS.items()), "none", (12,), "flag", 4)
FRAME = Region(0, 0, 2136, 2078)


def skycell():
    """Return the skycell."""
    return rings_v3().skycell(NAME)


def build(folder):
    """Render the skycell's files into an archive folder, unless they are there."""
    done = Path(folder) / "built"
    if not done.exists():
        sources = field.make_field(SEED).sources
        archive.build_archive(folder, [skycell()], sources, archive.Rendering(seed=SEED))
        done.touch()
    return str(folder)


def files(folder):
    """Return key (``r_image``) → path of the twelve files."""
    return {key: str(Path(folder) / path) for key, path in names.stack_files(NAME, WEIGHTS, stack_files.KINDS).items()}


def stored(folder):
    """Return the twelve files as `fits_in.StackFile`, by key."""
    return {
        key: (fits_in.read_mask if key.endswith("mask") else fits_in.read_stack)(path)
        for key, path in files(folder).items()
    }


def strip(read):
    """Return the bands of `stored` as `bands.combine` takes them."""
    return {
        band: bands.Band(
            read[f"{band}_image"].stored,
            read[f"{band}_wt"].stored,
            read[f"{band}_mask"].stored,
            scaling.scaling_of(read[f"{band}_image"].keywords),
            scaling.scaling_of(read[f"{band}_wt"].keywords),
        )
        for band in WEIGHTS
    }


def combined(folder):
    """Return the skycell's `bands.Combined`."""
    return bands.combine(strip(stored(folder)), WEIGHTS)


def crowded(folder):
    """Return the skycell's `bands.Combined` with the stars of a crowded field added to its flux."""
    made, sources = combined(folder), field.make_field(SEED, density=CROWDED).sources
    return made._replace(flux=made.flux + archive.render_signal(skycell(), sources, "i", archive.Rendering()))


@functools.cache
def owned_pixels():
    """Return x and y of the FFI pixels that the skycell owns."""
    found = footprint.footprint_of(frame.TANSIP, FRAME, rings_v3())
    index = [one.name for one in found.skycells].index(NAME)
    y, x = np.nonzero(found.owner == index)
    return x, y
