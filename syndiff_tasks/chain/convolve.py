"""The convolved image of a skycell: blocks, with those of its neighbours, convolved to the PSF of a template."""

import functools
import json
import math
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from syndiff_tasks import paths
from syndiff_tasks.geometry import mapping
from syndiff_tasks.geometry.ffi import FRAME_SHAPE
from syndiff_tasks.geometry.skycell import MARGIN
from syndiff_tasks.geometry.tansip import cropped
from syndiff_tasks.io import prf as prf_files
from syndiff_tasks.io import store
from syndiff_tasks.pixels import blocks, convolution, mask, prf, widening

from .combine import UNITS, read_blocks

# Layout and meaning of the convolved groups; another number is another product.
BLURRED_FORMAT = 3

# How PRFs are applied: without their pedestal, and blended over a skycell.
PRF_FORMAT = 2

# SPOC PRFs reach 6.5 TESS px, corners included [native px].
PRF_REACH = 6.5 * 82 * math.sqrt(2)

# Half the diagonal of a TESS pixel [native PS1 px]: 20.5" / 0.25" / sqrt(2), and 3 % for the corners of a camera.
PIXEL_REACH = 60.0

# A Gaussian is followed to 4 sigma (3e-4 of its flux lies beyond); an offset may eat the last one.
SIGMAS, SIGMAS_WITH_OFFSET = 4.0, 3.0

# Offset that a widened frame allows for: 1.5 TESS px, in the corners of a camera too [native px].
OFFSET_REACH = 1.5 * 85.0

BLURRED_PLANES = ("flux", "valid", "masked", "variance", "dq")


class TemplatePsf(NamedTuple):
    """The point spread function of the template, and how far it reaches.

    `wide` is for offsets of up to 1.5 TESS px, which need a wider frame of each skycell; always so for PRFs.
    """

    psf: str
    sigma: float
    prfs: prf_files.PrfGrid | None
    wide: bool = False

    @classmethod
    def from_settings(cls, settings, sigma, plan, wide=False):
        """Return the PSF of the settings and the sigma of a task, for an FFI.

        Raises
        ------
        ValueError
            If the sigma or the PRF files of the settings make no PSF, or the place of a cut-out on the CCD is unknown.
        """
        if settings.psf == "prf":
            if plan.origin is None:
                raise ValueError(
                    f"{plan.path}: which part of the FFI this image shows is unknown, and psf = prf depends on it; "
                    "use the whole FFI, or psf = gauss"
                )
            ccd = plan.ccd
            return cls("prf", math.nan, _prfs(settings.prf_folder, ccd.camera, ccd.ccd, ccd.sector), True)
        if settings.psf == "gauss" and not sigma > 0:
            raise ValueError(
                f"psf_sigma: {sigma} gives no Gaussian; give one above 0, or psf = none for PS1's own sharpness"
            )
        return cls(settings.psf, sigma if settings.psf == "gauss" else 0.0, None, wide)

    def reach(self):
        """Return how far light is followed [native px]."""
        return PRF_REACH if self.prfs is not None else SIGMAS * self.sigma

    def reach_with_offset(self):
        """Return how far light is followed for a template with an offset [native px]."""
        return PRF_REACH if self.prfs is not None else SIGMAS_WITH_OFFSET * self.sigma

    def frame_reach(self):
        """Return how far around the centers of the pixels that it owns a skycell's frame holds the sky [native px]."""
        moved = self.reach_with_offset() + OFFSET_REACH if self.wide else 0.0
        return max(max(self.reach(), moved) + PIXEL_REACH, MARGIN)

    def widening(self, margin=MARGIN):
        """Return by how much a skycell's frame must be widened with its neighbors' blocks [native px].

        `margin` is what its own image holds beyond its core, see `Tessellation.margin`.
        """
        return self.frame_reach() - margin

    def settings(self, reference):
        """Return what shaped the blurred skycells, for manifests; a PRF is turned as the reference FFI lies."""
        made = {"blurred_format": BLURRED_FORMAT}
        if self.prfs is not None:
            return made | {
                "psf": self.psf,
                "prf_format": PRF_FORMAT,
                "prf_files": self.prfs.digest,
                "prf_wcs": reference.wcs_digest(),
                "prf_origin": list(reference.origin),
            }
        return made | {"psf": self.psf, "psf_sigma": self.sigma}

    def inputs_of(self, plan, skycell):
        """Return the names of the combined skycells that one convolved skycell is made from, its own first."""
        if not self.widening(plan.tessellation.margin(skycell)):
            return [skycell.name]
        return [skycell.name, *(other.name for other in plan.neighbors(self.frame_reach())[skycell.name])]

    def skycells(self, plan):
        """Return the names of all combined skycells that an FFI's convolved skycells are made from."""
        return sorted({name for skycell in plan.skycells for name in self.inputs_of(plan, skycell)})

    def largest_offset(self, pixel_scale):
        """Return the largest offset [TESS px] for which the skycells' frames still hold the convolved light."""
        return (self.frame_reach() - self.reach_with_offset() - PIXEL_REACH) / pixel_scale


@functools.lru_cache(maxsize=4)
def _prfs(folder, camera, ccd, sector):
    read = prf_files.read(folder, camera, ccd, sector)
    images = np.array([prf.remove_pedestal(image, read.oversampling) for image in read.images])
    return read._replace(images=images)


def convolve(plan, skycell, combined, blur, ignore, suspect=()):
    """Blur one skycell.

    Parameters
    ----------
    plan : Plan
        Of the reference FFI, which way a PRF is turned.
    skycell : rings.Skycell
    combined : dict of str to targets.WholeTarget
        Its combined skycells by name, see `TemplatePsf.inputs_of`.
    psf_ : TemplatePsf
    ignore, suspect : tuple of int
        PS1 mask bits that set IGNORED_BIT and SUSPECT_PS1.

    Returns
    -------
    blurred : convolution.Convolved
    """
    frame, selected = read_blocks(combined[skycell.name].path), (mask.bit_mask(ignore), mask.bit_mask(suspect))
    neighbors = [
        (read_blocks(target.path), mapping.plane_homography(plan.skycell(name), skycell))
        for name, target in combined.items()
        if name != skycell.name
    ]
    if neighbors:
        frame = widening.widen(frame, blur.widening(plan.tessellation.margin(skycell)), neighbors)
    if blur.prfs is None:
        return convolution.convolve_gaussian(frame, blur.sigma, *selected)
    return convolution.convolve_prf(frame, _prf_kernels(plan, skycell, frame, blur.prfs), *selected)


def _prf_kernels(plan, skycell, frame, prfs):
    """Return the PRFs at several places of a skycell, as seen there, and the share of each block in them.

    The places are the corners of the box of FFI pixels around the skycell, and the rows and columns of PRF files
    within it, between which the PRF is linear.
    """
    # By the FFI's own columns and rows: so a cut-out has the kernels of the whole FFI to the last bit.
    whole = cropped(plan.tansip, -plan.origin[0], -plan.origin[1])
    center = (skycell.nx - 1) / 2, (skycell.ny - 1) / 2
    to_tess, step = mapping.jacobian(whole, skycell, *center), frame.grid.step
    x = frame.grid.x0 + step * np.arange(frame.flux.shape[1], dtype=np.float32) - center[0]
    y = frame.grid.y0 + step * np.arange(frame.flux.shape[0], dtype=np.float32)[:, None] - center[1]
    middle = [float(value[0]) for value in mapping.ps1_to_tess(whole, skycell, *([c] for c in center))]
    # PRF files count columns and rows from 1.
    column, row = (1 + at + along[0] * x + along[1] * y for at, along in zip(middle, to_tess, strict=True))
    columns, rows = (
        prf.blend_places(axis, *np.clip([place.min(), place.max()], 1, size))
        for axis, place, size in zip((prfs.columns, prfs.rows), (column, row), FRAME_SHAPE[::-1], strict=True)
    )
    along_x, along_y = prf.blend_shares(columns, column), prf.blend_shares(rows, row)
    kernels = []
    for j, place_y in enumerate(rows):
        for i, place_x in enumerate(columns):
            image = prf.interpolate_prf(prfs.images, prfs.rows, prfs.columns, place_y, place_x)
            at = mapping.native_position(whole, skycell, place_x - 1, place_y - 1)
            derivatives = mapping.jacobian(whole, skycell, *at), mapping.curvature(whole, skycell, *at)
            kernel = prf.resample_prf(image, derivatives[0], step, prfs.oversampling, derivatives[1])
            kernels.append((kernel, along_x[i] * along_y[j]))
    return kernels


def write_convolved(path, blurred):
    """Write a blurred skycell."""
    planes = {name: getattr(blurred, name) for name in BLURRED_PLANES}
    told = {"grid": list(blurred.grid), "sigma": blurred.sigma}
    store.write_arrays(path, planes, told, rows=len(blurred.flux), units=UNITS)
    for folder in paths.zarr_roots(path):
        store.write_root(folder)


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
