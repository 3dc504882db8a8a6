"""The pixels of a template: an FFI's convolved skycells integrated over them, at one or several offsets."""

import functools
import math
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from syndiff_tasks.geometry import footprint as footprints
from syndiff_tasks.geometry import mapping
from syndiff_tasks.geometry.region import Region, clip
from syndiff_tasks.geometry.tansip import TanSip, cropped, oversampled
from syndiff_tasks.pixels import quadrature, template

from .convolve import read_convolved

# Arrays of templates held at once, in bytes: bounds a worker's memory whatever the number of offsets.
TEMPLATES_IN_MEMORY = 800e6

# Of one pixel: five float32 planes and an int32.
BYTES_PER_PIXEL = 24

# Convolved light reaches 3 sigma = 120 px = 1.5 TESS px: pixels that near to another projection see its border.
SEAM_REACH = 1.5


class PixelGrid(NamedTuple):
    """The pixels of a template: their WCS without offset, owners, and what lies beneath them."""

    tansip: TanSip
    owner: np.ndarray
    science: np.ndarray
    seam: np.ndarray


def pixel_grid(plan, oversampling):
    """Return the `PixelGrid` of an FFI's template, each TESS pixel divided into `oversampling` x `oversampling`."""
    tansip = cropped(plan.tansip, plan.region.x0, plan.region.y0)
    science = np.zeros(plan.region.shape, bool)
    seeing = clip(plan.science, plan.region)
    science[
        max(seeing.y0 - plan.region.y0, 0) : max(seeing.y1 - plan.region.y0, 0),
        max(seeing.x0 - plan.region.x0, 0) : max(seeing.x1 - plan.region.x0, 0),
    ] = True
    planes = (plan.footprint.owner, science, _seam(plan))
    fine = (np.repeat(np.repeat(plane, oversampling, 0), oversampling, 1) for plane in planes)
    return PixelGrid(oversampled(tansip, oversampling), *fine)


def _seam(plan):
    """Return which pixels are near another projection, also one beyond the edge of the region."""
    reach = math.ceil(SEAM_REACH)
    x0, y0, x1, y1 = plan.region
    whole = Region(0, 0, *plan.shape[::-1])
    about = clip(Region(x0 - reach, y0 - reach, x1 + reach, y1 + reach), whole)
    wide = plan.footprint
    if about != plan.region:
        wide = footprints.footprint_of(plan.tansip, about, plan.tessellation, plan.science)
    return footprints.projection_seam(wide, SEAM_REACH)[y0 - about.y0 :, x0 - about.x0 :][: y1 - y0, : x1 - x0]


def batches(offsets, frame):
    """Divide the offsets into lists whose templates fit into memory together."""
    at_once = max(1, int(TEMPLATES_IN_MEMORY / (frame.owner.size * BYTES_PER_PIXEL)))
    return [offsets[start : start + at_once] for start in range(0, len(offsets), at_once)]


def largest_offset(plan, psf):
    """Return the largest offset [TESS px] for which the frames of all skycells of an FFI hold the sky."""
    return min(psf.largest_offset(mapping.pixel_scale(plan.tansip, skycell)) for skycell in plan.skycells)


def beyond(plan, psf, offsets):
    """Return the first offset for which the skycells' frames do not hold the sky, None if they hold it for all."""
    # Computed only where an offset is not zero: a CCD has a thousand skycells.
    largest = largest_offset(plan, psf) if any(map(any, offsets)) else 0.0
    return next((offset for offset in offsets if math.hypot(*offset) > largest), None)


def check_offsets(plan, psf, offsets):
    """Refuse offsets for which the skycells' frames do not hold the sky.

    Raises
    ------
    ValueError
        Naming the offset and the largest one allowed.
    """
    offset = beyond(plan, psf, offsets)
    if offset is not None:
        raise ValueError(
            f"--multi-offset-array: offset {offset} TESS px reaches beyond the sky that skycells carry, at most "
            f"{largest_offset(plan, psf):.2f} px for this PSF; shift the FFI's own WCS instead"
        )


def integrate(plan, frame, groups, offsets, oversampling, progress):
    """Integrate the convolved skycells over the pixels of a template, at several offsets.

    Parameters
    ----------
    plan : Plan
    frame : PixelGrid
        Of the template.
    groups : dict of str to targets.WholeTarget
        The convolved skycells by name.
    offsets : list of (float, float)
        [TESS px]
    oversampling : int
    progress : Progress
        One step a skycell.

    Returns
    -------
    templates : list of template.Sampled
        One an offset, each plane of the frame's shape; pixels without owner have no data.
    """
    templates = [template.blank(frame.owner.shape) for _ in offsets]
    fine = [tuple(oversampling * value for value in offset) for offset in offsets]
    for index, box in enumerate(ndimage.find_objects(frame.owner + 1)):
        skycell = plan.skycells[index]
        convolved = read_convolved(groups[skycell.name].path)
        rule = quadrature.quadrature_rule(convolved.sigma, mapping.pixel_scale(plan.tansip, skycell) / oversampling)
        grid = quadrature.quadrature_grid(frame.owner[box] == index, (box[1].start, box[0].start), rule, fine)
        positions = functools.partial(mapping.native_positions, frame.tansip, skycell)
        parts = [template.Sampled(*(plane[box] for plane in planes)) for planes in templates]
        template.integrate(convolved, grid, positions, parts)
        progress.step(skycell.name)
    return templates
