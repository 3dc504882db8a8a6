"""The demo field: which piece of sky, what is in it, and everything made of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from astropy.coordinates import angular_separation

from syndiff_tasks.demo import archive, frame, sky
from syndiff_tasks.demo.truth import expected_template, pixel_positions
from syndiff_tasks.geometry.footprint import corners, footprint_of
from syndiff_tasks.geometry.region import Region
from syndiff_tasks.geometry.rings import rings_v3
from syndiff_tasks.geometry.tansip import pixel_to_sky

# Two skycells of projection cell 2611 and two of 2612 meet in its middle, each with a quarter of it.
REGION = Region(1692, 736, 1740, 784)

SIGMA_PSF = 40.0  # native px; the default blur of a template, so that template and FFI match
TRANSIENT_MAG = 15.0


class Field(NamedTuple):
    """The made-up sky of the demo.

    Attributes
    ----------
    sources : pandas.DataFrame
        What PS1 and TESS see.
    transient : pandas.DataFrame
        What TESS alone sees: one row, kind "transient".
    skycells : tuple of syndiff_tasks.geometry.skycell.Skycell
        Those that own pixels of the region.
    region : syndiff_tasks.geometry.region.Region
        The FFI pixels to be looked at.
    """

    sources: pd.DataFrame
    transient: pd.DataFrame
    skycells: tuple
    region: Region


def demo_skycells(region: Region = REGION) -> tuple:
    """Skycells that own the pixels of a region of the demo FFI, sorted by name."""
    return footprint_of(frame.TANSIP, region, rings_v3()).skycells


def _quiet_place(sources: pd.DataFrame, region: Region, rng: np.random.Generator) -> tuple[float, float]:
    """TESS pixel position with the least light about it, away from the border and from what PS1 saturates."""
    light = expected_template(sources, frame.TANSIP, region, SIGMA_PSF)
    x = rng.uniform(region.x0 + 8, region.x1 - 9, 300)
    y = rng.uniform(region.y0 + 8, region.y1 - 9, 300)
    bright = sources[sources["tess_mag"] < 13.5]
    star_x, star_y = pixel_positions(frame.TANSIP, bright["ra"].to_numpy(), bright["dec"].to_numpy())
    clear = np.hypot(x[:, None] - star_x, y[:, None] - star_y).min(axis=1, initial=np.inf) > 6
    columns, rows = np.rint(x).astype(int) - region.x0, np.rint(y).astype(int) - region.y0
    near = [light[row - 2 : row + 3, column - 2 : column + 3].sum() for row, column in zip(rows, columns, strict=True)]
    best = int(np.argmin(np.where(clear, near, np.inf)))
    return float(x[best]), float(y[best])


def make_field(seed: int, region: Region = REGION, density: float = 20_000.0) -> Field:
    """Think up the sky over a region of the demo FFI.

    Parameters
    ----------
    seed : int
        Same seed, same sky.
    region : Region
        FFI pixels.
    density : float
        Stars a square degree.

    Returns
    -------
    Field
        Sources reach beyond the far corners of all its skycells.
    """
    skycells = demo_skycells(region)
    middle = pixel_to_sky(frame.TANSIP, (region.x0 + region.x1 - 1) / 2, (region.y0 + region.y1 - 1) / 2)
    centre = (float(middle[0]), float(middle[1]))
    far = np.radians(np.hstack([np.stack(corners(skycell)) for skycell in skycells]))
    radius = np.degrees(angular_separation(*np.radians(centre), *far).max()) + 0.01
    sources = sky.random_sky(seed, centre, radius, density)
    x, y = _quiet_place(sources, region, np.random.default_rng([seed, 1]))
    ra, dec = (float(value) for value in pixel_to_sky(frame.TANSIP, x, y))
    transient = sky.source_table([ra], [dec], [TRANSIENT_MAG], [9000.0], first_id=len(sources) + 1)
    return Field(sources, transient.assign(kind="transient"), skycells, region)


def build(folder, seed: int = 1, processes: int = 1, done: Callable[[Path], None] | None = None) -> dict:
    """Build the demo sky: archive folder, FFI, catalogues and a description.

    Parameters
    ----------
    folder : path-like
        Gets ``archive/``, the FFI, ``stars.csv``, ``gaia.csv`` and, last of all, ``demo.json``.
    seed : int
        Same seed, same pixels.
    processes : int
        See `archive.build_archive`.
    done : callable, optional
        Called with the path of each image finished.

    Returns
    -------
    dict
        What is in ``demo.json``: seed, ffi, archive, stars and gaia (paths in the folder), roi, psf_sigma, skycells and
        transient (ra, dec, 0-based x and y, tess_mag, flux in electrons/s).
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    field = make_field(seed)
    archive.build_archive(
        folder / "archive", field.skycells, field.sources, archive.Rendering(seed=seed), processes, done
    )
    shown = pd.concat([field.sources, field.transient], ignore_index=True)
    frame.write_frame(folder / frame.NAME, frame.expose(shown, SIGMA_PSF, noise=seed))
    field.sources.to_csv(folder / "stars.csv", index=False)
    sky.gaia_catalogue(field.sources).to_csv(folder / "gaia.csv", index=False)
    description = describe(field, seed)
    (folder / "demo.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    return description


def describe(field: Field, seed: int) -> dict:
    """Contents of ``demo.json``; see `build`."""
    ra, dec, magnitude = (float(field.transient[name].iloc[0]) for name in ("ra", "dec", "tess_mag"))
    x, y = (float(value[0]) for value in pixel_positions(frame.TANSIP, np.array([ra]), np.array([dec])))
    return {
        "seed": seed,
        "ffi": frame.NAME,
        "archive": "archive",
        "stars": "stars.csv",
        "gaia": "gaia.csv",
        "roi": ",".join(str(value) for value in field.region),
        "psf_sigma": SIGMA_PSF,
        "skycells": [skycell.name for skycell in field.skycells],
        "transient": {
            **{"ra": ra, "dec": dec, "x": x, "y": y, "tess_mag": magnitude},
            "electrons_per_second": 10 ** (-0.4 * (magnitude - sky.TESS_ZERO_POINT)),
        },
    }
