"""Skycell files of the made-up sky, in the form in which the PS1 archive keeps its own."""

import math
import multiprocessing
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from astropy.io import fits

from syndiff_tasks.demo import rice
from syndiff_tasks.demo.gaussians import Mixture, deposit, gaussian_star, sky_jacobian
from syndiff_tasks.demo.sky import BANDS, band_counts, spread
from syndiff_tasks.geometry.skycell import Skycell, skycell_wcs

KINDS = {"image": "unconv", "mask": "unconv.mask", "wt": "unconv.wt"}

STAR_FWHM = 4.4  # native px: 1.1 arcsec
BLANK = 32767
BORDER = 3  # native px without data around every real skycell
ASINH_SCALE = 2.5 * math.log10(math.e)

# The stack's own noise is 1/1.042 of its softening: PS1 IPP wiki, page asinh_compression.
SOFTENING_OVER_SIGMA = 1.042
SATURATION = 2_025_376.0  # counts: CELL.SATURATION of the real skycell.2180.097
STARCORE_FRACTION = 0.25  # of the saturation level, above which a pixel here carries STARCORE

# Bits by value, from the MSKNAM/MSKVAL cards of real GPC1 mask files; 7 and 8 are both 128, as they are there.
MASK_NAMES = (
    ("DETECTOR", 1),
    ("FLAT", 2),
    ("DARK", 4),
    ("BLANK", 8),
    ("CTE", 16),
    ("SAT", 32),
    ("LOW", 64),
    ("SUSPECT", 128),
    ("BURNTOOL", 128),
    ("CR", 256),
    ("SPIKE", 512),
    ("GHOST", 1024),
    ("STREAK", 2048),
    ("STARCORE", 4096),
    ("CONV.BAD", 8192),
    ("CONV.POOR", 16384),
    ("MASK.VALUE", 8575),
    ("MARK.VALUE", 32768),
)
BIT = dict(MASK_NAMES)


class Exposure(NamedTuple):
    """What a band's stack says of itself in its header.

    Attributes
    ----------
    exptime : float
        Seconds.
    bsoften, boffset : float
        Asinh softening and offset, counts.
    mjd : float
        Date of exposure.
    inputs : int
        Number of stacked warps.
    """

    exptime: float
    bsoften: float
    boffset: float
    mjd: float
    inputs: int

    @property
    def sky_variance(self) -> float:
        """Variance of the empty sky [counts squared]."""
        return (self.bsoften / SOFTENING_OVER_SIGMA) ** 2


# r and y are those of real files, i and z lie between.
EXPOSURES = {
    "r": Exposure(640.0, 85.4, 2.62, 55842.61, 16),
    "i": Exposure(675.0, 120.3, 4.17, 55879.54, 15),
    "z": Exposure(510.0, 188.9, 8.05, 55894.33, 17),
    "y": Exposure(500.0, 413.7, 17.3, 55916.82, 15),
}


class Rendering(NamedTuple):
    """How the skycells are drawn.

    Attributes
    ----------
    seed : int
        Of noise and flaws.
    noise : bool
        Whether the stacks are noisy; without it the variances are those of the same noise.
    flaws : bool
        Whether there are gaps, suspect patches and spikes; the blank border of 3 px is always there.
    saturation : float
        Counts above which a pixel is lost; ``math.inf`` for none.
    star : Mixture
        Image of a star, variances in native px squared.
    bands : tuple of str
        Which bands there are.
    window : tuple of int or None
        (x0, y0, x1, y1), half-open native px of each skycell that hold signal and noise; the rest is empty sky, so
        that full-size files for a test are made fast. None is everything.
    """

    seed: int = 1
    noise: bool = True
    flaws: bool = True
    saturation: float = SATURATION
    star: Mixture = gaussian_star(STAR_FWHM)
    bands: tuple = BANDS
    window: tuple | None = None


class Stack(NamedTuple):
    """One band of one skycell.

    Attributes
    ----------
    counts : ndarray of float32, shape (ny, nx)
        Flux times exposure time [counts], NaN where there is none.
    variance : ndarray of float32, shape (ny, nx)
        Its variance [counts squared].
    mask : ndarray of uint16, shape (ny, nx)
        PS1 mask bits.
    """

    counts: np.ndarray
    variance: np.ndarray
    mask: np.ndarray


def stack_path(folder, skycell: str, band: str, kind: str) -> Path:
    """Path of a file in an archive folder; kind is image, mask or wt."""
    projection, cell = skycell.split(".")[-2:]
    name = f"rings.v3.skycell.{projection}.{cell}.stk.{band}.{KINDS[kind]}.fits"
    return Path(folder) / "rings.v3.skycell" / projection / cell / name


def header_cards(skycell: Skycell, band: str, exposure: Exposure) -> fits.Header:
    """Header of a stack file, in the words of real ones: old-style PC keywords, no RADESYS, no LONPOLE."""
    cards = [
        ("CTYPE1", "RA---TAN"),
        ("CTYPE2", "DEC--TAN"),
        ("CRVAL1", skycell.crval1),
        ("CRVAL2", skycell.crval2),
        ("CRPIX1", skycell.crpix1),
        ("CRPIX2", skycell.crpix2),
        ("CDELT1", skycell.cdelt1),
        ("CDELT2", skycell.cdelt2),
        ("PC001001", skycell.pc1_1),
        ("PC001002", skycell.pc1_2),
        ("PC002001", skycell.pc2_1),
        ("PC002002", skycell.pc2_2),
        ("HISTORY", "made up by syndiff_tasks.demo; no observation"),
        ("NINPUTS", exposure.inputs, "Number of input images"),
        ("STK_TYPE", "DEEP_STACK", "type of stack"),
        ("STK_ID", "4498579", "type of stack"),
        ("SKYCELL", skycell.name, "type of stack"),
        ("TESS_ID", "RINGS.V3", "type of stack"),
        ("PSCAMERA", "GPC1", "Camera name"),
        ("PSFORMAT", "SKYCELL", "Camera format"),
        ("HIERARCH FPA.TELESCOPE", "PS1", "Telescope of origin"),
        ("HIERARCH FPA.INSTRUMENT", "GPC1", "Instrument name"),
        ("AIRMASS", 1.0, "Airmass at boresight"),
        ("HIERARCH FPA.FILTERID", f"{band}.00000", "Filter used (parsed, abstract name)"),
        ("HIERARCH FPA.FILTER", f"{band}.00000", "Filter used (instrument name)"),
        ("HIERARCH FPA.ZP", 25.0, "Magnitude zero point"),
        ("HIERARCH CELL.GAIN", 1.0, "CCD gain (e/count)"),
        ("HIERARCH CELL.SATURATION", SATURATION, "Saturation level (counts)"),
        ("EXPTIME", exposure.exptime, "Exposure time (sec)"),
        ("MJD-OBS", exposure.mjd, "Time of exposure"),
        ("HIERARCH CELL.TRIMSEC", f"[1:{skycell.nx},1:{skycell.ny}]", "Trim section"),
    ]
    return fits.Header([fits.Card(*card) for card in cards])


def _strips(ny: int) -> list[slice]:
    """Cut rows into strips that stay in a processor's cache from one step to the next."""
    return [slice(start, min(start + 64, ny)) for start in range(0, ny, 64)]


def quantise(values: np.ndarray, exact: float, softening: tuple | None) -> tuple[np.ndarray, dict]:
    """Turn an image into the 16-bit integers and scaling keywords of a PS1 file.

    Parameters
    ----------
    values : ndarray of float32, shape (ny, nx)
        Counts, or their variance; NaN becomes BLANK.
    exact : float
        A value that must come back without a rounding error: that of the empty sky, whose error would add up over
        the thousands of native pixels in a TESS pixel.
    softening : tuple of float, or None
        BSOFTEN and BOFFSET; None stores linearly.

    Returns
    -------
    stored : ndarray of int16, shape (ny, nx)
        The integers on disk.
    keywords : dict
        BZERO, BSCALE, BLANK, and with a softening BSOFTEN and BOFFSET.

    Notes
    -----
    As in the real files, the integers reach from the least value to the greatest.
    """
    bsoften, boffset = (0.0, 0.0) if softening is None else softening

    def scaled(value):
        return ASINH_SCALE * math.asinh((value - boffset) / (2 * bsoften)) if bsoften else value

    # fmin and fmax skip NaN without the copy that nanmin makes.
    low, high = (float(f.reduce(values, axis=None, initial=exact)) for f in (np.fmin, np.fmax))
    zero, low, high = scaled(exact), scaled(low), scaled(high)
    # Two levels fewer than there are, since the exact one moves all by up to a half.
    bscale = (high - low) / 65532 if high > low else 1e-4
    bzero = zero - bscale * (round((zero - low) / bscale) - 32767)
    stored = np.empty(values.shape, np.int16)
    for rows in _strips(values.shape[0]):
        level = values[rows] - np.float32(boffset)
        if bsoften:
            level *= np.float32(0.5 / bsoften)
            np.arcsinh(level, out=level)
            level *= np.float32(ASINH_SCALE)
        level -= np.float32(bzero)
        level *= np.float32(1 / bscale)
        np.rint(level, out=level)
        level[~np.isfinite(level)] = BLANK
        stored[rows] = level
    keywords = {"BZERO": bzero, "BSCALE": bscale, "BLANK": BLANK}
    return stored, keywords if softening is None else keywords | {"BSOFTEN": bsoften, "BOFFSET": boffset}


def write_stack(path, pixels: np.ndarray, header: fits.Header, exact: float = 0.0, softening: tuple | None = None):
    """Write one archive file: empty primary, RICE_1 compressed image by rows, checksums.

    Parameters
    ----------
    path : path-like
        Where; the folder is made.
    pixels : ndarray, shape (ny, nx)
        uint16 mask bits, stored as they are, or float32 counts or variances, which go through `quantise`.
    header : astropy.io.fits.Header
        What else the file says, see `header_cards`.
    exact, softening
        See `quantise`.
    """
    if pixels.dtype == np.uint16:
        # FITS has no unsigned integers: they are stored less 32768.
        stored, keywords = (pixels ^ np.uint16(0x8000)).view(np.int16), {"BZERO": 32768, "BSCALE": 1}
    else:
        stored, keywords = quantise(pixels, exact, softening)
    rice.write_image(path, stored, fits.Header([*header.cards, *keywords.items()]))


def write_skycell_band(folder, skycell: Skycell, band: str, stack: Stack, exposure: Exposure) -> list[Path]:
    """Write the image, mask and variance of one band of a skycell into an archive folder.

    The image is asinh-scaled, and so are the variances but for y, where they are linear: which of the two the real
    variances are is not known, and a reader must go by the keywords.

    Parameters
    ----------
    folder : path-like
        The archive.
    skycell : syndiff_tasks.geometry.skycell.Skycell
        Its WCS and name.
    band : str
        One of r, i, z, y.
    stack : Stack
        Pixels of shape (skycell.ny, skycell.nx).
    exposure : Exposure
        Header numbers.

    Returns
    -------
    list of pathlib.Path
        Image, mask, wt.
    """
    header = header_cards(skycell, band, exposure)
    mask_header = header.copy()
    for number, (name, value) in enumerate(MASK_NAMES):
        mask_header[f"MSKNAM{number:02d}"] = (name, "Bitmask bit name")
        mask_header[f"MSKVAL{number:02d}"] = (value, "Bitmask bit value")
    mask_header["MSKNUM"] = (len(MASK_NAMES), "Bitmask bit count")
    sky = exposure.sky_variance
    paths = [stack_path(folder, skycell.name, band, kind) for kind in KINDS]
    write_stack(paths[0], stack.counts, header, 0.0, (exposure.bsoften, exposure.boffset))
    write_stack(paths[1], stack.mask, mask_header)
    write_stack(paths[2], stack.variance, header, sky, None if band == "y" else (sky / 10, sky))
    return paths


def _near(sources: pd.DataFrame, skycell: Skycell) -> pd.DataFrame:
    """Choose the sources within a degree of the middle of a skycell, whose half-diagonal is 0.32 degrees."""
    middle = np.atleast_2d(skycell_wcs(skycell).wcs_pix2world([[skycell.nx / 2, skycell.ny / 2]], 0))[0]
    a, d = np.radians(sources["ra"].to_numpy() - middle[0]), np.radians(sources["dec"].to_numpy())
    d0 = math.radians(middle[1])
    return sources[np.sin(d) * math.sin(d0) + np.cos(d) * math.cos(d0) * np.cos(a) > math.cos(math.radians(1))]


def render_signal(skycell: Skycell, sources: pd.DataFrame, band: str, rendering: Rendering) -> np.ndarray:
    """Draw the sources on a skycell without noise, asked for as in `render_stack`.

    Returns
    -------
    ndarray of float32, shape (ny, nx)
        Flux [counts/s], integrated over the pixels; 0 outside the window.
    """
    near = _near(sources, skycell)
    wcs = skycell_wcs(skycell)

    def to_pixel(ra, dec):
        return wcs.wcs_world2pix(ra, dec, 0)

    ra, dec = near["ra"].to_numpy(), near["dec"].to_numpy()
    x, y = to_pixel(ra, dec)
    x0, y0, x1, y1 = rendering.window or (0, 0, skycell.nx, skycell.ny)
    jacobian = sky_jacobian(to_pixel, ra, dec)
    shape = rendering.star, np.broadcast_to(np.eye(2), jacobian.shape)
    image = np.zeros((skycell.ny, skycell.nx), np.float32)
    # A view has its own origin; the rest of the image is not touched.
    deposit(image[y0:y1, x0:x1], spread(near, x - x0, y - y0, band_counts(near, band), jacobian, shape))
    return image


def _random_box(rng, shape, height, width) -> tuple[slice, slice]:
    y, x = (int(rng.integers(0, max(1, size - extent))) for size, extent in zip(shape, (height, width), strict=True))
    return slice(y, y + height), slice(x, x + width)


def flaw_boxes(skycell: Skycell, band: str, seed: int) -> list[tuple[tuple[slice, slice], int]]:
    """Choose where a band has no data or bad data.

    Parameters
    ----------
    skycell : syndiff_tasks.geometry.skycell.Skycell
        Whose shape.
    band : str
        Each has its own flaws, but one hole of 110 x 90 px is the same in all.
    seed : int
        Of the choice.

    Returns
    -------
    list of ((slice, slice), int)
        Boxes (rows, columns) and the mask bit set in them: BLANK for the hole and three gaps of 14 px width,
        SUSPECT for five patches, GHOST for one.
    """
    key = [seed, int(skycell.projection), skycell.cell]
    shape = (skycell.ny, skycell.nx)
    boxes = [(_random_box(np.random.default_rng(key), shape, 90, 110), BIT["BLANK"])]
    rng = np.random.default_rng([*key, 1 + BANDS.index(band)])
    boxes += [(_random_box(rng, shape, 14, 1200), BIT["BLANK"]), (_random_box(rng, shape, 1200, 14), BIT["BLANK"])]
    boxes += [(_random_box(rng, shape, 14, 600), BIT["BLANK"])]
    boxes += [(_random_box(rng, shape, 40, 40), BIT["SUSPECT"]) for _ in range(5)]
    return [*boxes, (_random_box(rng, shape, 200, 200), BIT["GHOST"])]


def mask_bits(skycell: Skycell, band: str, counts: np.ndarray, rendering: Rendering) -> np.ndarray:
    """Mask of a noiseless stack.

    Parameters
    ----------
    skycell : syndiff_tasks.geometry.skycell.Skycell
        Whose shape and flaws.
    band : str
        Which band.
    counts : ndarray of float32, shape (ny, nx)
        Noiseless counts.
    rendering : Rendering
        Saturation, flaws and seed.

    Returns
    -------
    ndarray of uint16, shape (ny, nx)
        BLANK on the border and in gaps, SAT above the saturation, STARCORE above a quarter of it, SPIKE on a cross of
        121 px about each saturated core, and the patches of `flaw_boxes`.
    """
    mask = np.zeros(counts.shape, np.uint16)
    mask[:BORDER] = mask[-BORDER:] = BIT["BLANK"]
    mask[:, :BORDER] = mask[:, -BORDER:] = BIT["BLANK"]
    rows, columns = np.nonzero(counts > rendering.saturation * STARCORE_FRACTION)
    mask[rows, columns] |= BIT["STARCORE"]
    lost = counts[rows, columns] > rendering.saturation
    mask[rows[lost], columns[lost]] |= BIT["SAT"]
    if rendering.flaws:
        for row, column in zip(rows[lost], columns[lost], strict=True):
            mask[row, max(0, column - 60) : column + 61] |= BIT["SPIKE"]
            mask[max(0, row - 60) : row + 61, column] |= BIT["SPIKE"]
        for box, bit in flaw_boxes(skycell, band, rendering.seed):
            mask[box] |= bit
    return mask


def _expose(counts, variance, rng, structure) -> None:
    """Make the variance uneven and add noise of that variance to the counts, strip by strip, in place."""
    size = structure.shape[0]
    columns = np.arange(counts.shape[1]) % size
    for rows in _strips(counts.shape[0]):
        uneven = structure[np.arange(rows.start, rows.stop)[:, None] % size, columns]
        uneven *= np.float32(0.01)
        uneven += np.float32(1)
        variance[rows] *= uneven
        counts[rows] += np.sqrt(variance[rows]) * rng.standard_normal(uneven.shape, dtype=np.float32)


def render_stack(skycell: Skycell, sources: pd.DataFrame, band: str, rendering: Rendering) -> Stack:
    """Draw one band of a skycell with noise, variance and mask.

    Parameters
    ----------
    skycell : syndiff_tasks.geometry.skycell.Skycell
        Whose pixels.
    sources : pandas.DataFrame
        As `sky.source_table` gives it.
    band : str
        Which.
    rendering : Rendering
        How.

    Returns
    -------
    Stack
        Gaussian noise of variance (sky + counts at a gain of 1), independent from pixel to pixel; the variance is
        uneven by 1 % on a pattern of 997 px that repeats itself.
    """
    exposure = EXPOSURES[band]
    counts = render_signal(skycell, sources, band, rendering)
    counts *= np.float32(exposure.exptime)
    mask = mask_bits(skycell, band, counts, rendering)
    x0, y0, x1, y1 = rendering.window or (0, 0, skycell.nx, skycell.ny)
    inside = (slice(y0, y1), slice(x0, x1))
    variance = counts + np.float32(exposure.sky_variance)
    if rendering.noise:
        rng = np.random.default_rng([rendering.seed, int(skycell.projection), skycell.cell, BANDS.index(band), 7])
        structure = rng.standard_normal((997, 997), dtype=np.float32)
        _expose(counts[inside], variance[inside], rng, structure)
    lost = (mask & (BIT["BLANK"] | BIT["SAT"])) > 0
    counts[lost] = variance[lost] = np.nan
    return Stack(counts, variance, mask)


def _make_band(folder, skycell, band, sources, rendering) -> list[Path]:
    stack = render_stack(skycell, sources, band, rendering)
    return write_skycell_band(folder, skycell, band, stack, EXPOSURES[band])


def build_archive(
    folder,
    skycells: Iterable[Skycell],
    sources: pd.DataFrame,
    rendering: Rendering = Rendering(),  # noqa: B008  an immutable tuple
    processes: int = 1,
    done: Callable[[Path], None] | None = None,
) -> list[Path]:
    """Render skycells into an archive folder: image, mask and wt of each band.

    Parameters
    ----------
    folder : path-like
        The archive's base; ``rings.v3.skycell/PPPP/CCC/`` is made under it.
    skycells : iterable of syndiff_tasks.geometry.skycell.Skycell
        Which.
    sources : pandas.DataFrame
        As `sky.source_table` gives it.
    rendering : Rendering
        How.
    processes : int
        How many bands are rendered at once, each in 1 GB.
    done : callable, optional
        Called with the path of each image finished.

    Returns
    -------
    list of pathlib.Path
        All files, sorted.
    """
    jobs = [(folder, skycell, band, sources, rendering) for skycell in skycells for band in rendering.bands]
    paths = []

    def note(made):
        paths.extend(made)
        if done is not None:
            done(made[0])

    if processes == 1:
        for job in jobs:
            note(_make_band(*job))
    else:
        # Forking would copy the thread of a progress bar in mid-step.
        with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
            for future in as_completed([pool.submit(_make_band, *job) for job in jobs]):
                note(future.result())
    return sorted(paths)
