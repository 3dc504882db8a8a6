"""A made-up sky on pieces of skycells, taken through the stages of the program: what tests of the whole chain share.

Pieces, for a whole skycell takes seconds: the native pixels under the region and as far around as light can come from.
"""

import math
from typing import NamedTuple

import numpy as np
from astropy.io import fits

from syndiff_tasks.chain import combine, convolve, downsample, stack_files, template_file
from syndiff_tasks.chain.progress import Progress
from syndiff_tasks.demo import archive, frame, sky, truth
from syndiff_tasks.geometry.skycell import Skycell, skycell_wcs
from syndiff_tasks.geometry.tansip import tansip_keywords
from syndiff_tasks.pixels import bands, blocks
from syndiff_tasks.targets import WholeTarget

# Two skycells of one projection and two of another meet in it.
ROI = "1711,755,1717,761"
SIGMA = 40.0
# Native px around the pixels' centres: 4 sigma of blur, a pixel, an offset and to spare.
REACH = 320
STAR_SIGMA = archive.STAR_FWHM / math.sqrt(8 * math.log(2))
RECIPE = combine.CombineConfig(tuple(sky.WEIGHTS.items()), "none", (12,), "flag", 4)


class Piece(NamedTuple):
    """Native pixels x0 <= x < x1, y0 <= y < y1 of a skycell."""

    skycell: Skycell
    x0: int
    y0: int
    x1: int
    y1: int


def write_ffi(folder, tansip=frame.TANSIP, name=frame.NAME):
    """An FFI without light, whose header has the world coordinates given."""
    header = frame.header_cards("cal")
    del header["AP_*"], header["BP_*"], header["A_*"], header["B_*"]
    header.update(tansip_keywords(tansip))
    path = folder / name
    image = fits.ImageHDU(np.zeros(frame.SHAPE, np.float32), header)
    fits.HDUList([fits.PrimaryHDU(), image]).writeto(path)
    return str(path)


def quiet(total=1000):
    """A progress that nobody looks at."""
    return Progress(total, "step", "test", lambda percentage: None, lambda message: None)


def sources_at(tansip, x, y, magnitude):
    """Stars at 0-based FFI positions, taken to the sky by astropy."""
    ra, dec = truth.astropy_wcs(tansip).all_pix2world(x, y, 0)
    return sky.source_table(ra, dec, np.broadcast_to(magnitude, ra.shape), np.full(len(ra), 5000.0))


def native_places(tansip, skycell, x, y):
    """Native px of a skycell at 0-based FFI positions, by astropy."""
    return skycell_wcs(skycell).all_world2pix(*truth.astropy_wcs(tansip).all_pix2world(x, y, 0), 0)


def pieces(plan, blur):
    """The pieces of all skycells that a plan's blurred ones are made of, clipped to their frames."""
    own = [skycell.name for skycell in plan.footprint.skycells]
    names = blur.skycells(plan)
    for name in names:
        skycell = plan.skycell(name)
        # A neighbour gives light to pixels that it does not own.
        seen = plan.footprint.owner == own.index(name) if names == own else plan.footprint.owner >= 0
        row, column = np.nonzero(seen)
        px, py = native_places(plan.tansip, skycell, column + plan.region.x0, row + plan.region.y0)
        x0, x1 = clipped(px, skycell.nx)
        y0, y1 = clipped(py, skycell.ny)
        yield Piece(skycell, x0, y0, x1, y1)


def clipped(places, size):
    """First and last but one native px about some places in a frame, or a few px of its edge if there are none."""
    first = min(max(math.floor(places.min()) - REACH, 0), size - 64)
    return first, max(min(math.ceil(places.max()) + REACH, size), first + 64)


def stars_on(piece, sources):
    """Flux of stars on a piece [counts/s], Gaussians sampled at the pixels' centres, placed by astropy."""
    image = np.zeros((piece.y1 - piece.y0, piece.x1 - piece.x0), np.float32)
    x, y = skycell_wcs(piece.skycell).wcs_world2pix(sources["ra"], sources["dec"], 0)
    half = math.ceil(6 * STAR_SIGMA)
    for px, py, flux in zip(x - piece.x0, y - piece.y0, sky.weighted_counts(sources), strict=True):
        rows = np.arange(max(round(py) - half, 0), min(round(py) + half + 1, image.shape[0]))
        columns = np.arange(max(round(px) - half, 0), min(round(px) + half + 1, image.shape[1]))
        along_y, along_x = (
            np.exp(-0.5 * ((place - centre) / STAR_SIGMA) ** 2) for place, centre in ((rows, py), (columns, px))
        )
        if len(rows) and len(columns):
            image[np.ix_(rows, columns)] += flux / (2 * math.pi * STAR_SIGMA**2) * np.outer(along_y, along_x)
    return image


def blank_border(piece, flux):
    """Take the flux off the pixels that every PS1 stack lacks at its edges."""
    x, y = np.arange(piece.x0, piece.x1), np.arange(piece.y0, piece.y1)
    width = archive.BORDER
    flux[(y < width) | (y >= piece.skycell.ny - width)] = np.nan
    flux[:, (x < width) | (x >= piece.skycell.nx - width)] = np.nan
    return flux


def plain(flux):
    """The planes of a flux to which nothing happened."""
    shape = flux.shape
    return bands.Combined(flux, np.ones_like(flux), np.zeros(shape, np.uint16), np.zeros(shape, np.uint8))


def blocks_of(piece, planes, bin):
    """A piece on the blocks of its skycell."""
    corner = piece.skycell.corner[0] + piece.x0, piece.skycell.corner[1] + piece.y0
    shared = blocks.to_blocks(*planes, bin, corner)
    return shared._replace(grid=blocks.Grid(shared.grid.x0 + piece.x0, shared.grid.y0 + piece.y0, bin))


def notes_of(skycell):
    """What the manifest of a combined skycell would tell of its files."""
    kinds = [f"{band}_{kind}" for band in sky.BANDS for kind in stack_files.KINDS]
    files = {key: {"url": f"{skycell.name}.{key}", "sha256": f"{len(key):064x}"} for key in kinds}
    keywords = {key: {"EXPTIME": 700.0, "FPA.ZP": 25.0} for key in kinds}
    return {"files": files, "absent": {}, "keywords": keywords, "stars": []}


def blurred(root, plan, painted, bin=4, sigma=SIGMA):
    """The groups of blurred skycells of a plan, written and published.

    `painted` takes a Piece and gives its flux, NaN where there is none.
    """
    return blurred_planes(root, plan, lambda piece: plain(painted(piece)), bin, sigma)


def blurred_planes(root, plan, planes_of, bin=4, sigma=SIGMA):
    """As `blurred`, of all planes of each Piece."""
    blur, combined, groups = convolve.TemplatePsf("gauss", sigma, None), {}, {}
    for piece in pieces(plan, blur):
        name = piece.skycell.name
        combined[name] = WholeTarget(root / f"combined{bin}" / name, {})
        with combined[name].writing() as draft:
            planes = planes_of(piece)
            blank_border(piece, planes.flux)
            combine.write_blocks(draft.path, blocks_of(piece, planes, bin), piece.skycell)
    for skycell in plan.footprint.skycells:
        made_from = {name: combined[name] for name in blur.inputs_of(plan, skycell)}
        groups[skycell.name] = WholeTarget(root / f"convolved{bin}" / skycell.name, {})
        with groups[skycell.name].writing() as draft:
            convolve.write_convolved(
                draft.path, convolve.convolve(plan, skycell, made_from, blur, (12,), (7, 9, 10, 11, 14))
            )
            draft.notes.update(notes_of(skycell))
    return groups


def templates(root, plan, groups, offsets, oversampling=1, units="counts"):
    """Paths of the written templates of a plan, one an offset."""
    settings = RECIPE.settings() | convolve.TemplatePsf("gauss", SIGMA, None).settings(plan)
    settings = template_file.TemplateSettings(units, oversampling, 0.5, settings, "")
    frame_ = downsample.pixel_grid(plan, oversampling)
    paths = []
    for sampled, offset in zip(
        downsample.integrate(plan, frame_, groups, offsets, oversampling, quiet()), offsets, strict=True
    ):
        paths.append(root / f"template_{offset}_{oversampling}_{units}.fits")
        template_file.write_template(paths[-1], sampled, frame_, plan, offset, settings, groups)
    return paths
