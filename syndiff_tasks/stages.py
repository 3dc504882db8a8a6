"""From a skycell's pixels to templates: what the tasks do, as plain functions that join the rooms and know no Luigi.

A task reads its parameters and settings, calls one of these, and publishes what it wrote.
"""

import functools
import json
import logging
import math
import os
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import ndimage
from tqdm import tqdm

from . import __version__, stackfiles, starlist
from .geometry import footprint as footprints
from .geometry import mapping
from .geometry.ffi import parse_ffi_name
from .geometry.region import Region, clip
from .geometry.skycell import MARGIN
from .geometry.tansip import TanSip, cropped, oversampled, shifted, tansip_keywords
from .io import fits_in, products, store
from .io import prf as prf_files
from .pixels import (
    background,
    bands,
    blocks,
    convolution,
    mask,
    photometry,
    prf,
    quadrature,
    scaling,
    template,
    widening,
)

logger = logging.getLogger("luigi-interface")

# Layout and meaning of the combined and the blurred groups; another number is another product.
COMBINED_FORMAT = 1
BLURRED_FORMAT = 2

# SPOC PRFs reach 6.5 TESS px, corners included [native px].
PRF_REACH = 6.5 * 82 * math.sqrt(2)
# Half the diagonal of a TESS pixel [native PS1 px]: 20.5" / 0.25" / sqrt(2), and 3 % for the corners of a camera.
PIXEL_REACH = 60.0
# A Gaussian is followed to 4 sigma (3e-4 of its flux lies beyond); an offset may eat the last one.
SIGMAS, SIGMAS_WITH_OFFSET = 4.0, 3.0

# Arrays of templates held at once, in bytes: bounds a worker's memory whatever the number of offsets.
TEMPLATES_IN_MEMORY = 800e6

# Of one pixel: five float32 planes and an int32.
BYTES_PER_PIXEL = 24

# Blurred light reaches 3 sigma = 120 px = 1.5 TESS px: pixels that near to another projection see its border.
SEAM_REACH = 1.5

BLURRED_PLANES = ("flux", "valid", "masked", "variance", "dq")


class Progress:
    """Tells how far a task is: a bar in a terminal, log lines elsewhere, and the reports to the scheduler.

    Parameters
    ----------
    total : int
        Steps of the task.
    unit : str
        What a step is.
    title : str
        What the bar is called.
    report_percentage, report_message : callable
        Take an int 0..100 and a text, for luigid's web view.
    """

    def __init__(self, total, unit, title, report_percentage, report_message):
        self.total, self.unit, self.title, self.done = total, unit, title, 0
        self.report_percentage, self.report_message = report_percentage, report_message
        self.percentage = 0
        self.bar = tqdm(total=total, unit=unit, desc=title.partition("(")[0]) if sys.stderr.isatty() else None

    def step(self, message):
        """Count one step as done, and say what it was."""
        self.done += 1
        percentage = 100 * self.done // self.total
        if self.bar is not None:
            self.bar.update()
            self.bar.set_postfix_str(message)
            if self.done == self.total:
                self.bar.close()
        # Requests to luigid cost milliseconds: one a percent, not one a step.
        if percentage > self.percentage:
            self.report_percentage(percentage)
            self.report_message(f"{self.done} of {self.total} {self.unit}s: {message}")
            if self.bar is None and (percentage // 10 > self.percentage // 10):
                logger.info("%s: %d %%, %d of %d %ss", self.title, percentage, self.done, self.total, self.unit)
            self.percentage = percentage


# --- how much: bands to blocks ---------------------------------------------------------------------------------------


class Recipe(NamedTuple):
    """What shapes the blocks of a skycell; two recipes live side by side."""

    weights: tuple
    background: str
    ignore: tuple
    ignored_pixels: str
    bin: int
    stars: starlist.StarPolicy = starlist.KEEP

    @property
    def label(self):
        """Name of the recipe's folder: every value in it, so that no two recipes share one."""
        weights = "_".join(f"{band}{weight!r}" for band, weight in self.weights)
        bits = "-".join(map(str, self.ignore)) or "none"
        return f"{weights}_{self.background}_{self.ignored_pixels}{bits}_bin{self.bin}{self.stars.label()}"

    def settings(self):
        """Return what shaped the blocks, for manifests."""
        return {
            "weights": dict(self.weights),
            "background": self.background,
            "ignore_mask_bits": list(self.ignore),
            "ignored_pixels": self.ignored_pixels,
            "bin": self.bin,
            "saturated_stars": self.stars.how,
            "star_catalog": self.stars.digest or self.stars.catalogue,
            "combined_format": COMBINED_FORMAT,
        }


def recipe(settings, ignore_mask_bits):
    """Return the `Recipe` of the settings and the mask bits of a task."""
    return Recipe(
        settings.weights,
        settings.background,
        tuple(ignore_mask_bits),
        settings.ignored_pixels,
        settings.bin,
        starlist.star_policy(settings.saturated_stars, settings.star_catalog),
    )


def combine(raw, skycell, recipe, data_root):
    """Combine the bands of a skycell, repair its saturated stars, subtract its sky, and share the pixels among blocks.

    Parameters
    ----------
    raw : str
        The skycell's raw group.
    skycell : rings.Skycell
    recipe : Recipe
    data_root : path-like
        Where fetched star catalogues are kept.

    Returns
    -------
    blocks : blocks.Blocks
    repaired : list of dict
        The stars that were repaired or removed, see `starlist.repair_saturated_stars`.
    """
    planes = _combined(raw, skycell, dict(recipe.weights))
    exclude = mask.bit_mask(recipe.ignore) if recipe.ignored_pixels == "exclude" else 0
    repaired = starlist.repair_saturated_stars(planes, skycell, recipe.stars, exclude, data_root)
    flux, variance = background.remove_background(planes.flux, planes.variance, planes.mask, recipe.background)
    shared = blocks.to_blocks(flux, variance, planes.mask, planes.missing, recipe.bin, skycell.corner, exclude)
    return shared, repaired


def _combined(raw, skycell, weights):
    """Return the weighted sum of a raw skycell, which is read strip by strip: its bands would not fit the memory."""
    keywords = store.read_attributes(raw)["keywords"]
    have = [band for band in weights if all(f"{band}_{kind}" in keywords for kind in stackfiles.KINDS)]
    stored = {
        band: bands.Band(
            store.open_array(raw, f"{band}_image"),
            store.open_array(raw, f"{band}_wt"),
            store.open_array(raw, f"{band}_mask"),
            scaling.scaling_of(keywords[f"{band}_image"]),
            scaling.scaling_of(keywords[f"{band}_wt"]),
        )
        for band in have
    }
    return bands.combine(stored, weights, (skycell.ny, skycell.nx))


def write_blocks(path, combined, skycell):
    """Write a skycell's blocks, rounded to what their noise leaves of them, so that they compress."""
    planes = {name: getattr(combined, name) for name in combined._fields if name != "grid"}
    for name, kept in blocks.MANTISSA_BITS.items():
        planes[name] = blocks.rounded(planes[name], kept)
    store.write_arrays(path, planes, {"skycell": skycell.name, "grid": list(combined.grid)})


def read_blocks(path):
    """Return the `blocks.Blocks` that `write_blocks` wrote."""
    grid = blocks.Grid(*store.read_attributes(path)["grid"])
    return blocks.Blocks(**store.read_arrays(path), grid=grid)


# --- how much: the blur ----------------------------------------------------------------------------------------------


class Blur(NamedTuple):
    """The point spread function of the template, and how far it reaches."""

    psf: str
    sigma: float
    prfs: prf_files.Grid | None

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


def blur(settings, sigma, ccd):
    """Return the `Blur` of the settings and the sigma of a task, for the FFIs of a CCD.

    Raises
    ------
    ValueError
        If the sigma or the PRF files of the settings make no PSF.
    """
    if settings.psf == "prf":
        return Blur("prf", math.nan, prf_files.read(settings.prf_folder, ccd.camera, ccd.ccd))
    if settings.psf == "gauss" and not sigma > 0:
        raise ValueError(
            f"psf_sigma: {sigma} gives no Gaussian; give one above 0, or psf = none for PS1's own sharpness"
        )
    return Blur(settings.psf, sigma if settings.psf == "gauss" else 0.0, None)


def convolve(plan, skycell, combined, blur, ignore):
    """Blur one skycell.

    Parameters
    ----------
    plan : Plan
        Of the reference FFI, which way a PRF is turned.
    skycell : rings.Skycell
    combined : dict of str to targets.WholeTarget
        The combined skycells by name, neighbours included.
    blur : Blur
    ignore : tuple of int
        PS1 mask bits that set IGNORED_BIT.

    Returns
    -------
    blurred : convolution.Convolved
    """
    frame = read_blocks(combined[skycell.name].path)
    names = blur.made_of(plan, skycell)[1:]
    if names:
        neighbours = [
            (read_blocks(combined[name].path), mapping.plane_homography(plan.skycell(name), skycell)) for name in names
        ]
        frame = widening.widen(frame, blur.widening(plan.tessellation.margin(skycell)), neighbours)
    if blur.prfs is None:
        return convolution.convolve_gaussian(frame, blur.sigma, mask.bit_mask(ignore))
    centre = (skycell.nx - 1) / 2, (skycell.ny - 1) / 2
    column, row = (float(value[0]) for value in mapping.ps1_to_tess(plan.tansip, skycell, *([c] for c in centre)))
    image = prf.interpolate_prf(blur.prfs.images, blur.prfs.rows, blur.prfs.columns, row + 1, column + 1)
    jacobian = mapping.jacobian(plan.tansip, skycell, *centre)
    turned = prf.resample_prf(image, jacobian, frame.grid.step, blur.prfs.oversampling)
    return convolution.convolve_prf(frame, turned, mask.bit_mask(ignore))


def write_blurred(path, blurred):
    """Write a blurred skycell."""
    planes = {name: getattr(blurred, name) for name in BLURRED_PLANES}
    told = {"grid": list(blurred.grid), "sigma": blurred.sigma}
    store.write_arrays(path, planes, told, rows=len(blurred.flux))


def read_blurred(path):
    """Return the `convolution.Convolved` that `write_blurred` wrote."""
    told = store.read_attributes(path)
    return convolution.Convolved(**store.read_arrays(path), grid=blocks.Grid(*told["grid"]), sigma=told["sigma"])


def summarise(plan, groups, path):
    """Write which blurred skycells an FFI needs, where they are as seen from there, and their digests (JSON)."""
    folder = Path(path).parent
    cells = [
        {"skycell": skycell.name, "path": os.path.relpath(group.path, folder), "digest": group.digest()}
        | store.read_attributes(group.path)
        for skycell, group in ((skycell, groups[skycell.name]) for skycell in plan.skycells)
    ]
    Path(path).write_text(json.dumps({"ffi": plan.ccd.stem, "skycells": cells}, indent=1), encoding="utf-8")


# --- the template ----------------------------------------------------------------------------------------------------


class Frame(NamedTuple):
    """The pixels of a template: their WCS without offset, owners, and what lies beneath them."""

    tansip: TanSip
    owner: np.ndarray
    science: np.ndarray
    seam: np.ndarray


def frame(plan, oversampling):
    """Return the `Frame` of an FFI's template, each TESS pixel divided into `oversampling` x `oversampling`."""
    tansip = cropped(plan.tansip, plan.region.x0, plan.region.y0)
    science = np.zeros(plan.region.shape, bool)
    seeing = clip(plan.science, plan.region)
    science[
        max(seeing.y0 - plan.region.y0, 0) : max(seeing.y1 - plan.region.y0, 0),
        max(seeing.x0 - plan.region.x0, 0) : max(seeing.x1 - plan.region.x0, 0),
    ] = True
    planes = (plan.footprint.owner, science, _seam(plan))
    fine = (np.repeat(np.repeat(plane, oversampling, 0), oversampling, 1) for plane in planes)
    return Frame(oversampled(tansip, oversampling), *fine)


def _seam(plan):
    """Return which pixels have another projection near them, be it beyond the edge of the region."""
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


def largest_offset(plan, blur):
    """Return the largest offset [TESS px] for which the frames of all skycells of an FFI hold the sky."""
    return min(blur.largest_offset(mapping.pixel_scale(plan.tansip, skycell)) for skycell in plan.skycells)


def check_offsets(plan, blur, offsets):
    """Refuse offsets for which the skycells' frames do not hold the sky.

    Raises
    ------
    ValueError
        Naming the offset and the largest one allowed.
    """
    # A thousand skycells are asked only where the answer matters.
    largest = largest_offset(plan, blur) if any(map(any, offsets)) else 0.0
    for offset in offsets:
        if math.hypot(*offset) > largest:
            raise ValueError(
                f"--multi-offset-array: offset {offset} TESS px reaches beyond the sky that skycells carry, at most "
                f"{largest:.2f} px for this PSF; shift the FFI's own WCS instead"
            )


def integrate(plan, frame, groups, offsets, oversampling, progress):
    """Integrate the blurred skycells over the pixels of a template, at several offsets.

    Parameters
    ----------
    plan : Plan
    frame : Frame
        Of the template.
    groups : dict of str to targets.WholeTarget
        The blurred skycells by name.
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
        blurred = read_blurred(groups[skycell.name].path)
        rule = quadrature.quadrature_rule(blurred.sigma, mapping.pixel_scale(plan.tansip, skycell) / oversampling)
        lattice = quadrature.quadrature_grid(frame.owner[box] == index, (box[1].start, box[0].start), rule, fine)
        positions = functools.partial(mapping.native_positions, frame.tansip, skycell)
        parts = [template.Sampled(*(plane[box] for plane in planes)) for planes in templates]
        template.integrate(blurred, lattice, positions, parts)
        progress.step(skycell.name)
    return templates


def write_template(path, sampled, frame, plan, offset, described, groups):
    """Write a template file.

    Parameters
    ----------
    path : str
        Where to.
    sampled : template.Sampled
        Counts/s, as `integrate` gives them.
    frame : Frame
    plan : Plan
    offset : (float, float)
        [TESS px]
    described : Described
        The settings that a template's file tells.
    groups : dict of str to targets.WholeTarget
        The blurred skycells, whose manifests tell what they are made of.
    """
    factor = 10 ** (-0.4 * (photometry.PS1_ZERO_POINT - photometry.UNITS[described.units].zero_point))
    judged = template.apply_quality_flags(sampled, frame.science, frame.seam, described.min_coverage)
    fine = tuple(described.oversampling * value for value in offset)
    planes = {
        "FLUX_SUM": judged.flux * np.float32(factor),
        "VARIANCE": judged.variance * np.float32(factor**2),
        "COVERAGE": judged.coverage,
        "COUNT": judged.count,
        "MASK": judged.masked,
        "DQ": judged.dq,
    }
    tables = {
        "SKYCELLS": skycells_table(plan, groups, described.settings["weights"]),
        "STARS": stars_table(plan, groups),
    }
    wcs_cards = tansip_keywords(shifted(frame.tansip, *fine))
    unit, zero_point = photometry.UNITS[described.units]
    covered = float(np.isfinite(judged.flux[frame.science]).mean())
    products.write_template(
        path,
        _provenance(plan, offset, described) | {"COVERED": (covered, "fraction of science pixels with a flux")},
        planes,
        wcs_cards,
        tables,
        unit=unit,
        zero_point=zero_point,
        dq_bits={bit.name: (bit.value, mask.DQ_MEANING[bit]) for bit in mask.DQ},
    )


class Described(NamedTuple):
    """The settings that a template's file tells, beside those of its recipe and blur."""

    units: str
    oversampling: int
    min_coverage: float
    settings: dict
    reference: str


def chosen(described):
    """Return the settings that shape a template beside those of its blurred skycells, for manifests."""
    return {name: getattr(described, name) for name in ("units", "oversampling", "min_coverage")}


def _provenance(plan, offset, described):
    made_of = described.settings
    weights = made_of["weights"]
    return {
        "ORIGIN": ("syndiff_tasks", "deep PS1 sky in the TESS band"),
        "SYNDIFF": (True, "a template, not an observation"),
        "VERSION": (__version__, "of syndiff_tasks"),
        "TELESCOP": ("TESS", "whose pixels these are"),
        "SURVEY": ("PS1 3pi, rings.v3 stacks", "whose sky this is"),
        "FFI": (plan.ccd.stem, "whose pixels these are"),
        "REFFFI": (parse_ffi_name(described.reference or plan.path).stem, "whose skycells were shared"),
        "SECTOR": (plan.ccd.sector, "TESS sector, from the file name"),
        "CAMERA": (plan.ccd.camera, "TESS camera"),
        "CCD": (plan.ccd.ccd, "TESS CCD"),
        "MJD-OBS": (plan.mjd, "[d] start of the FFI (UTC)"),
        **_target_cards(plan.target),
        "DX_SHIFT": (offset[0], "[TESS px] stars are moved to larger x by this"),
        "DY_SHIFT": (offset[1], "[TESS px] stars are moved to larger y by this"),
        "ROI": (",".join(map(str, plan.region)), "x0,y0,x1,y1 of the FFI, half-open, from 0"),
        "OVERSAMP": (described.oversampling, "template pixels along one TESS pixel"),
        "NSKYCELL": (len(plan.skycells), "PS1 skycells that own pixels here"),
        "SKYCAT": (plan.catalogue, "rings.v3, or digest of a catalogue"),
        "PSF": (made_of["psf"], "gauss, prf or none"),
        "PSFSIGMA": (made_of.get("psf_sigma", ""), "[PS1 px] sigma of the Gaussian"),
        "PRFFILES": (made_of.get("prf_files", ""), "digest of the PRF files"),
        **{f"WEIGHT_{band.upper()}": (value, f"weight of PS1 {band}") for band, value in weights.items()},
        "BACKGRND": (made_of["background"], "what was done with the sky"),
        "BINNING": (made_of["bin"], "[PS1 px] side of a block"),
        "IGNBITS": (",".join(map(str, made_of["ignore_mask_bits"])), "PS1 mask bits that are flagged"),
        "IGNPIX": (made_of["ignored_pixels"], "what happened to pixels with such bits"),
        "MINCOV": (described.min_coverage, "below this coverage FLUX_SUM is NaN"),
    }


def _target_cards(target):
    """Return the header cards of the target around which a region was chosen, none for a region or a whole FFI."""
    if target is None:
        return {}
    return {
        "RA_TARG": (target[0], "[deg] target at the center of the region"),
        "DEC_TARG": (target[1], "[deg] target at the center of the region"),
    }


def skycells_table(plan, groups, bands_wanted):
    """Return the SKYCELLS table of a template: what each skycell is made of, and what it gave."""
    given = np.bincount(plan.footprint.owner[plan.footprint.owner >= 0], minlength=len(plan.skycells))
    return pd.DataFrame(
        [
            _skycell_row(skycell, groups[skycell.name].manifest()["notes"], bands_wanted) | {"PIXELS": int(pixels)}
            for skycell, pixels in zip(plan.skycells, given, strict=True)
        ]
    )


def _skycell_row(skycell, notes, bands_wanted):
    files, numbers = notes["files"], notes["keywords"]
    have = [band for band in bands_wanted if all(f"{band}_{kind}" in files for kind in stackfiles.KINDS)]
    row = {"NAME": skycell.name, "PROJECTION": skycell.projection, "BANDS": "".join(have)}
    ra, dec = footprints.corners(skycell)
    for place, one_ra, one_dec in zip(("CENTRE", "CORNER1", "CORNER2", "CORNER3", "CORNER4"), ra, dec, strict=True):
        row |= {f"RA_{place}": float(one_ra), f"DEC_{place}": float(one_dec)}
    for band in bands_wanted:
        of_band = numbers.get(f"{band}_image", {})
        row |= {f"EXPTIME_{band}": float(of_band.get("EXPTIME", math.nan))}
        row |= {f"ZEROPT_{band}": float(of_band.get("FPA.ZP", photometry.PS1_ZERO_POINT)) if of_band else math.nan}
        row |= {f"SHA256_{band}_{kind}": files.get(f"{band}_{kind}", {}).get("sha256", "") for kind in stackfiles.KINDS}
    return row


def seconds_of(groups):
    """Return how long the steps of a template's skycells took in all [s], by step."""
    spent = {}
    for group in groups.values():
        for step, seconds in group.manifest()["notes"].get("seconds", {}).items():
            spent[f"{step}, all skycells"] = spent.get(f"{step}, all skycells", 0.0) + seconds
    return spent


def stars_table(plan, groups):
    """Return the STARS table of a template: what was repaired or removed on it."""
    return starlist.on_template(plan, [row for group in groups.values() for row in group.manifest()["notes"]["stars"]])


def draw(plan, targets):
    """Draw the picture and write the page of a template, unless they exist."""
    finished, *beside = targets
    if all(target.exists() for target in beside):
        return
    # Imported here: matplotlib takes half a second, which only drawing is worth.
    from .report import difference, figure, picture, product, template_page

    template_file = product.read_template(finished.path)
    ffi = fits_in.read_ffi(plan.path)
    preview = difference.preview(template_file, ffi.image, ffi.uncertainty)
    unit = str(ffi.header.get("BUNIT", "electrons/s")).strip()
    drawing, page = beside
    if not drawing.exists():
        with drawing.writing() as draft:
            figure.save(picture.draw(template_file, preview, plan.ccd.stem, unit), draft.path)
    if not page.exists():
        with page.writing() as draft:
            png = Path(drawing.path).read_bytes()
            template_page.write(draft.path, template_file, preview, png, finished.manifest(), unit)
