"""A tiny sky for tests of the whole graph, and a way to run the `luigi` command on it in a second.

Four skycells of 800 x 800 px of one made-up projection, in the archive's own form, under 10 x 10 pixels of an FFI.
Their cores are 320 px wide, and each carries the 240 px beyond its core that a true skycell carries.
"""

import gzip
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from astropy.io import fits

from syndiff_tasks.demo import archive, frame, sky
from syndiff_tasks.geometry.rings import CDELT
from syndiff_tasks.geometry.skycell import Skycell
from syndiff_tasks.geometry.skycell_table import SKYCELL_COLUMNS
from syndiff_tasks.geometry.tansip import cropped, pixel_to_sky, tansip_keywords

CENTRE = (1300, 700)  # FFI px where the four skycells meet
ROI = "1295,695,1305,705"
PLAIN = ("--syndiff-pictures", "false")
SIZE, CORE = 800, 320
CELLS = (44, 45, 54, 55)
WARM = Path(__file__).with_name("warm_luigi.py")


def skycell(cell, projection="2611", tansip=frame.TANSIP):
    """One of a made-up projection whose tangent point is the FFI's pixel `CENTRE`."""
    ra, dec = (float(value) for value in pixel_to_sky(tansip, *CENTRE))
    row, column = divmod(cell, 10)
    return Skycell(
        name=f"skycell.{projection}.{cell:03d}",
        **{"nx": SIZE, "ny": SIZE, "crval1": ra, "crval2": dec},
        **{"crpix1": 241.0 + (5 - column) * CORE, "crpix2": 241.0 + (5 - row) * CORE},
        **{"cdelt1": CDELT, "cdelt2": CDELT},
        **{"pc1_1": -1.0, "pc1_2": 0.0, "pc2_1": 0.0, "pc2_2": 1.0},
    )


def catalogue_rows(skycells):
    return pd.DataFrame([dict(zip(SKYCELL_COLUMNS, cell, strict=True)) for cell in skycells])


def write_ffi(path, tansip=frame.TANSIP, shape=frame.SHAPE, changes=None):
    """Write a SPOC FFI of plain background; `changes` are cards of its image header, None to leave one out."""
    path = Path(path)
    headers = [frame.header_cards(kind) for kind in ("cal", "uncert")]
    for header in headers:
        header.update(tansip_keywords(tansip))
        for keyword, value in (changes or {}).items():
            if value is None:
                header.remove(keyword, ignore_missing=True)
            else:
                header[keyword] = value
    primary = fits.PrimaryHDU()
    primary.header["TELESCOP"] = "TESS"
    # Noise without which the panels of a picture would have nothing to scale by.
    image = 100 + np.random.default_rng(7).standard_normal(shape, dtype=np.float32).round(2)
    planes = (image, np.full(shape, 0.5, np.float32))
    fits.HDUList([primary, *map(fits.ImageHDU, planes, headers)]).writeto(path, overwrite=True, checksum=True)
    return path


def cutout(tansip=frame.TANSIP, x0=1280, y0=680):
    """World coordinates of a cut-out that begins at (x0, y0)."""
    return cropped(tansip, x0, y0)


def zipped(path):
    """The same FFI as .fits.gz."""
    to = Path(f"{path}.gz")
    to.write_bytes(gzip.compress(Path(path).read_bytes(), 1))
    return to


def funpackable(path):
    """The same FFI as .fits.fz, without loss."""
    to = Path(f"{path}.fz")
    with fits.open(path) as hdus:
        packed = [
            fits.CompImageHDU(hdu.data, hdu.header, compression_type="GZIP_1", quantize_level=0) for hdu in hdus[1:]
        ]
        fits.HDUList([fits.PrimaryHDU(header=hdus[0].header), *packed]).writeto(to)
    return to


class Sky(NamedTuple):
    """What a run needs: FFI, archive and catalogue of skycells."""

    ffi: Path
    archive: Path
    catalogue: Path

    def arguments(self, root, *more, ffi=None, archive=None):
        """Of a task of an FFI that keeps its products in `root`."""
        return [
            *("--ffi", str(ffi or self.ffi), "--roi", ROI, "--skycell-catalog", str(self.catalogue)),
            *self.settings(root, archive),
            *more,
        ]

    def settings(self, root, archive=None):
        return ["--syndiff-data-root", str(root), "--syndiff-archive", str(archive or self.archive)]


def stars():
    """Eight stars near the four skycells' meeting point."""
    x = CENTRE[0] + np.array([-3.1, -2.2, 0.3, 1.7, 3.4, -0.6, 2.2, -4.0])
    y = CENTRE[1] + np.array([-1.3, 2.9, 0.4, -3.2, 2.1, 3.8, -0.7, -3.9])
    ra, dec = pixel_to_sky(frame.TANSIP, x, y)
    return sky.source_table(ra, dec, np.linspace(13.5, 17.0, x.size), np.linspace(3500, 8000, x.size))


def build(folder):
    """Make the whole of it in a few seconds."""
    folder = Path(folder)
    skycells = [skycell(cell) for cell in CELLS]
    rendering = archive.Rendering(flaws=False)
    archive.build_archive(folder / "archive", skycells, stars(), rendering)
    catalogue_rows(skycells).to_csv(folder / "skycells.csv", index=False)
    return Sky(write_ffi(folder / frame.NAME), folder / "archive", folder / "skycells.csv")


# --- commands ---------------------------------------------------------------------------------------------------------


class Ended(NamedTuple):
    """How a command ended: exit code (negative: killed by that signal) and all it said."""

    code: int
    said: str

    @property
    def tail(self):
        """What a user sees without scrolling."""
        return "\n".join(self.said.splitlines()[-60:])


class User(NamedTuple):
    """Another user than ours, who must be root to be one."""

    uid: int
    gid: int
    umask: int
    home: str


class Running(NamedTuple):
    """A command under way, in a process group of its own."""

    luigi: "WarmLuigi"
    pid: int
    said: Path

    def kill(self, number=signal.SIGKILL):
        os.kill(self.pid, number)

    def press_ctrl_c(self):
        """As the terminal does: to every process of the group."""
        os.killpg(self.pid, signal.SIGINT)

    def wait(self):
        code = self.luigi.ask({"wait": self.pid})
        return Ended(code, self.said.read_text(encoding="utf-8", errors="replace"))


def clean_environment():
    """The shell's, without what would steer Luigi or this package, or keep Python from compiling once for all."""
    unwanted = ("LUIGI_", "SYNDIFF_", "PYTHONDONTWRITEBYTECODE")
    return {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}


class WarmLuigi:
    """Runs the `luigi` command in forks of a process that has imported the libraries, but nothing of ours."""

    def __init__(self, folder):
        self.folder, self.count = Path(folder), 0
        self.elsewhere = self.folder / "elsewhere"
        self.elsewhere.mkdir()
        self.server = subprocess.Popen(
            [sys.executable, WARM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=clean_environment()
        )

    def ask(self, order):
        self.server.stdin.write(json.dumps(order) + "\n")
        self.server.stdin.flush()
        return json.loads(self.server.stdout.readline())

    def start(
        self, task, *arguments, folder=None, workers=1, scheduler=("--local-scheduler",), user=None, environment=None
    ):
        """Start ``luigi --module syndiff_tasks TASK …`` from a folder that is not the project's, or as a `User`."""
        self.count += 1
        said = self.folder / f"said{self.count}.txt"
        said.touch()
        command = ["--module", "syndiff_tasks", task, *scheduler, "--workers", str(workers), *arguments]
        order = {"arguments": command, "folder": str(folder or self.elsewhere), "said": str(said), "user": user}
        order["environment"] = environment or {}
        return Running(self, self.ask(order), said)

    def run(self, task, *arguments, **how):
        return self.start(task, *arguments, **how).wait()

    def close(self):
        self.server.stdin.close()
        self.server.stdout.close()
        self.server.wait()


# --- what a run left --------------------------------------------------------------------------------------------------


def products(root):
    """Every published product below a data root, by its path in it: when its content was put there."""
    made = {}
    for manifest in Path(root).rglob("*manifest.json"):
        if ".tmp-" in str(manifest.relative_to(root)):
            continue
        path = manifest.parent if manifest.name == "manifest.json" else manifest
        made[str(path.relative_to(root)).removesuffix(".manifest.json")] = manifest.stat().st_mtime_ns
    return made


def remade(before, after):
    return sorted(name for name in after if before.get(name) != after[name])


def steps(names):
    """First folder of each product: which step made it."""
    return sorted({name.partition("/")[0] for name in names})


def template_of(root, offset="dx+0.0000_dy+0.0000"):
    (path,) = Path(root).rglob(f"syndiff_template_*_{offset}.fits")
    return path


def planes(path):
    with fits.open(path) as hdus:
        return {hdu.name: hdu.data.copy() for hdu in hdus[1:7]}


def the_same(one, other):
    return all(np.array_equal(one[name], other[name], equal_nan=True) for name in one)
