"""The convolved image of a skycell: blocks, with those of its neighbours, convolved to the PSF of a template."""

import json
import math
import os
from pathlib import Path
from typing import NamedTuple

from syndiff_tasks.geometry import footprint as footprints
from syndiff_tasks.geometry import mapping
from syndiff_tasks.geometry.skycell import MARGIN
from syndiff_tasks.io import prf as prf_files
from syndiff_tasks.io import store
from syndiff_tasks.pixels import blocks, convolution, mask, prf, widening

from .combine import read_blocks

# Layout and meaning of the convolved groups; another number is another product.
BLURRED_FORMAT = 3

# SPOC PRFs reach 6.5 TESS px, corners included [native px].
PRF_REACH = 6.5 * 82 * math.sqrt(2)

# Half the diagonal of a TESS pixel [native PS1 px]: 20.5" / 0.25" / sqrt(2), and 3 % for the corners of a camera.
PIXEL_REACH = 60.0

# A Gaussian is followed to 4 sigma (3e-4 of its flux lies beyond); an offset may eat the last one.
SIGMAS, SIGMAS_WITH_OFFSET = 4.0, 3.0

BLURRED_PLANES = ("flux", "valid", "masked", "variance", "dq")


class TemplatePsf(NamedTuple):
    """The point spread function of the template, and how far it reaches."""

    psf: str
    sigma: float
    prfs: prf_files.Grid | None

    @classmethod
    def from_settings(cls, settings, sigma, ccd):
        """Return the PSF of the settings and the sigma of a task, for the FFIs of a CCD.

        Raises
        ------
        ValueError
            If the sigma or the PRF files of the settings make no PSF.
        """
        if settings.psf == "prf":
            return cls("prf", math.nan, prf_files.read(settings.prf_folder, ccd.camera, ccd.ccd))
        if settings.psf == "gauss" and not sigma > 0:
            raise ValueError(
                f"psf_sigma: {sigma} gives no Gaussian; give one above 0, or psf = none for PS1's own sharpness"
            )
        return cls(settings.psf, sigma if settings.psf == "gauss" else 0.0, None)

    def reach(self):
        """Return how far light is followed [native px]."""
        return PRF_REACH if self.prfs is not None else SIGMAS * self.sigma

    def widening(self, margin=MARGIN):
        """Return by how much a skycell's frame must be widened with its neighbours' blocks [native px].

        `margin` is what its own image holds beyond its core, see `Tessellation.margin`.
        """
        return max(self.reach() + PIXEL_REACH, MARGIN) - margin

    def settings(self, reference):
        """Return what shaped the blurred skycells, for manifests; a PRF is turned as the reference FFI lies."""
        made = {"blurred_format": BLURRED_FORMAT}
        if self.prfs is not None:
            return made | {
                "psf": self.psf,
                "prf_files": self.prfs.digest,
                "prf_wcs": reference.wcs_digest(),
            }
        return made | {"psf": self.psf, "psf_sigma": self.sigma}

    def made_of(self, plan, skycell):
        """Return the names of the combined skycells that one blurred skycell is made of, its own first."""
        widening = self.widening(plan.tessellation.margin(skycell))
        near = footprints.neighbors(skycell, plan.tessellation, widening) if widening else []
        return [skycell.name, *(other.name for other in near)]

    def skycells(self, plan):
        """Return the names of all combined skycells that an FFI's blurred skycells are made of."""
        return sorted({name for skycell in plan.skycells for name in self.made_of(plan, skycell)})

    def largest_offset(self, pixel_scale):
        """Return the largest offset [TESS px] for which the skycells' frames still hold the blurred light."""
        reach = self.reach() if self.prfs is not None else SIGMAS_WITH_OFFSET * self.sigma
        return (MARGIN + self.widening() - reach - PIXEL_REACH) / pixel_scale


def convolve(plan, skycell, combined, blur, ignore, suspect=()):
    """Blur one skycell.

    Parameters
    ----------
    plan : Plan
        Of the reference FFI, which way a PRF is turned.
    skycell : rings.Skycell
    combined : dict of str to targets.WholeTarget
        The combined skycells by name, neighbours included.
    psf_ : TemplatePsf
    ignore, suspect : tuple of int
        PS1 mask bits that set IGNORED_BIT and SUSPECT_PS1.

    Returns
    -------
    blurred : convolution.Convolved
    """
    frame, selected = read_blocks(combined[skycell.name].path), (mask.bit_mask(ignore), mask.bit_mask(suspect))
    names = blur.made_of(plan, skycell)[1:]
    if names:
        neighbours = [
            (read_blocks(combined[name].path), mapping.plane_homography(plan.skycell(name), skycell)) for name in names
        ]
        frame = widening.widen(frame, blur.widening(plan.tessellation.margin(skycell)), neighbours)
    if blur.prfs is None:
        return convolution.convolve_gaussian(frame, blur.sigma, *selected)
    centre = (skycell.nx - 1) / 2, (skycell.ny - 1) / 2
    column, row = (float(value[0]) for value in mapping.ps1_to_tess(plan.tansip, skycell, *([c] for c in centre)))
    image = prf.interpolate_prf(blur.prfs.images, blur.prfs.rows, blur.prfs.columns, row + 1, column + 1)
    jacobian = mapping.jacobian(plan.tansip, skycell, *centre)
    turned = prf.resample_prf(image, jacobian, frame.grid.step, blur.prfs.oversampling)
    return convolution.convolve_prf(frame, turned, *selected)


def write_convolved(path, blurred):
    """Write a blurred skycell."""
    planes = {name: getattr(blurred, name) for name in BLURRED_PLANES}
    told = {"grid": list(blurred.grid), "sigma": blurred.sigma}
    store.write_arrays(path, planes, told, rows=len(blurred.flux))


def read_convolved(path):
    """Return the `convolution.Convolved` that `write_convolved` wrote."""
    told = store.read_attributes(path)
    return convolution.Convolved(**store.read_arrays(path), grid=blocks.Grid(*told["grid"]), sigma=told["sigma"])


def summarize(plan, groups, path):
    """Write which blurred skycells an FFI needs, where they are as seen from there, and their digests (JSON)."""
    folder = Path(path).parent
    cells = [
        {"skycell": skycell.name, "path": os.path.relpath(group.path, folder), "digest": group.digest()}
        | store.read_attributes(group.path)
        for skycell, group in ((skycell, groups[skycell.name]) for skycell in plan.skycells)
    ]
    Path(path).write_text(json.dumps({"ffi": plan.ccd.stem, "skycells": cells}, indent=1), encoding="utf-8")
