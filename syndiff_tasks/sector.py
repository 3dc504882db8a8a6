"""A whole sector: its FFIs in a folder, where each of them points, and which one is the reference of its CCD."""

import functools
import hashlib
import json
import math
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from astropy.time import Time

from .geometry.ffi import FFI_EXTENSIONS, check_detector, parse_ffi_name, science_region
from .geometry.region import SCIENCE, Region, parse_region
from .geometry.tansip import TanSip, pixel_to_sky, pixel_to_vector, sky_to_pixel, tansip_from_header
from .io import fits_in
from .paths import CCD

# A frame is compared with the median of so many frames about it in time: three bad ones in a row do not spoil it.
NEIGHBOURS = 7

# Pointing drifts by some 0.1 px within a sector and wanders by 0.05 px within hours; a WCS that was fitted to the wrong
# stars is off by pixels [TESS px].
LARGEST_JUMP = 0.5

PLACES = ("", "_corner1", "_corner2", "_corner3", "_corner4")
OFFSET_COLUMNS = tuple(f"d{axis}{place}" for place in PLACES for axis in "xy")

# Why a frame is no reference; a frame without a WCS, or with one that jumps, is given no template either.
BAD_QUALITY, NO_WCS, JUMP = "DQUALITY", "NO_WCS", "JUMP"


class Circumstances(NamedTuple):
    """What a product depends on beside other products: it is remade, not refused, when that has changed."""

    told: tuple
    outdated: bool = False  # what is told is always of today

    def digest(self):
        """Return a digest of what is told."""
        return hashlib.sha256(json.dumps(self.told).encode()).hexdigest()[:16]


def files_there(paths):
    """Return the `Circumstances` of FFIs by name, size and date: reading the 40 GB of a CCD would take minutes."""
    return Circumstances(tuple((path.name, (now := path.stat()).st_size, now.st_mtime_ns) for path in paths))


@functools.cache
def find(folder, sector):
    """Find the calibrated FFIs of a sector in a folder and all folders below it.

    What comes into the folder while a run is under way is the next run's: the answer holds for the process.

    Parameters
    ----------
    folder : str
    sector : int

    Returns
    -------
    found : dict of CCD to tuple of Path
        Sorted by name; of an FFI that is there twice, as .fits and .fits.gz, the first.

    Raises
    ------
    ValueError
        If there is no such folder, or no FFI of the sector in it.
    """
    if not Path(folder).is_dir():
        raise ValueError(f"--ffi-dir {folder}: there is no such folder; give the one that holds the sector's FFIs")
    found, others = {}, set()
    for where, _, files in os.walk(folder, followlinks=True):
        for file in sorted(files):
            if not file.endswith(FFI_EXTENSIONS):
                continue
            try:
                name = parse_ffi_name(file)
            except ValueError:
                continue  # a folder of FFIs holds other FITS files as well
            if name.sector == sector:
                found.setdefault(CCD(*name[1:4]), {}).setdefault(name.stem, Path(where, file).absolute())
            else:
                others.add(name.sector)
    if not found:
        held = f"FFIs of sector {', '.join(map(str, sorted(others)))}" if others else "no FFI"
        raise ValueError(
            f"--ffi-dir {folder}: no calibrated FFI of sector {sector} in it or below it ({held} found); FFIs keep the "
            "names that the archive gave them, tess…_ffic.fits or hlsp_tica_…fits"
        )
    return {ccd: tuple(found[ccd][stem] for stem in sorted(found[ccd])) for ccd in sorted(found)}


# --- where the frames point -------------------------------------------------------------------------------------------


class Frame(NamedTuple):
    """What the header of one FFI says of its time, quality and pointing; `why` it has no WCS, or empty."""

    path: Path
    mjd: float
    quality: int
    science: Region
    tansip: TanSip | None
    why: str


def read_frame(path):
    """Read the pointing of an FFI off its header.

    Parameters
    ----------
    path : Path

    Returns
    -------
    frame : Frame
        `quality` is DQUALITY, 0 where there is none, as in TICA's.
    """
    mjd, quality, science = math.nan, 0, SCIENCE
    try:
        header = fits_in.read_ffi_header(path)
        mjd, quality = start(header), int(header.get("DQUALITY", 0) or 0)
        check_detector(parse_ffi_name(path), header)
        science = science_region(header, (header["NAXIS2"], header["NAXIS1"]))
        return Frame(path, mjd, quality, science, tansip_from_header(header), "")
    except ValueError as error:
        return Frame(path, mjd, quality, science, None, str(error))


def start(header):
    """Return the start of an exposure as its header has it, MJD [d] in UTC, NaN where it has none."""
    for keyword in ("MJD-OBS", "MJD-BEG"):
        if keyword in header:
            return float(header[keyword])
    if "DATE-OBS" in header:
        return float(Time(str(header["DATE-OBS"]).removesuffix("Z"), format="isot", scale="utc").mjd)
    # TICA's; TESS Julian Date 0 is JD 2457000.
    return float(header["STARTTJD"]) + 56999.5 if "STARTTJD" in header else math.nan


def by_time(frames):
    """Return the frames in the order of time; those that do not say when come last, by name."""
    return sorted(frames, key=lambda frame: (math.isnan(frame.mjd), frame.mjd, frame.path.name))


def displacement(tansip, other, region):
    """Return by how much stars of one frame are displaced in another.

    Parameters
    ----------
    tansip, other : TanSip
    region : Region
        Of the first frame: the displacement is told at its centre and its four corners.

    Returns
    -------
    displacement : ndarray of float64, shape (5, 2)
        dx, dy [TESS px]; NaN where the other frame looks quite elsewhere.
    """
    x0, y0, x1, y1 = region.x0, region.y0, region.x1 - 1, region.y1 - 1
    x = np.array([(x0 + x1) / 2, x0, x1, x1, x0], float)
    y = np.array([(y0 + y1) / 2, y0, y0, y1, y1], float)
    there = sky_to_pixel(other, *pixel_to_sky(tansip, x, y))
    return np.stack([there[0] - x, there[1] - y], axis=-1)


def jumps(frames, region):
    """Tell how far each frame points from where the frames about it in time do.

    Parameters
    ----------
    frames : list of Frame
        In the order of time, each with a WCS.
    region : Region

    Returns
    -------
    from_neighbours, from_all : ndarray of float64, shape (n,)
        Largest distance of centre and corners from the running median, and from the median of all [TESS px];
        infinite for a frame that looks quite elsewhere.
    """
    middle = _middle_of(frames, region)
    moved = np.stack([displacement(middle, frame.tansip, region) for frame in frames]).reshape(len(frames), -1)
    running = pd.DataFrame(moved).rolling(NEIGHBOURS, center=True, min_periods=1).median().to_numpy()
    return tuple(_farthest(moved - median) for median in (running, np.nanmedian(moved, axis=0)))


def _middle_of(frames, region):
    """Return the WCS of the frame whose centre is nearest to the median of all: no one bad frame is it."""
    centre = (region.x0 + region.x1 - 1) / 2, (region.y0 + region.y1 - 1) / 2
    vectors = np.concatenate([pixel_to_vector(frame.tansip, *([c] for c in centre)) for frame in frames])
    return frames[int(np.argmin(np.linalg.norm(vectors - np.median(vectors, axis=0), axis=1)))].tansip


def _farthest(moved):
    distance = np.hypot(moved[:, 0::2], moved[:, 1::2]).max(axis=1)
    return np.where(np.isfinite(distance), distance, np.inf)


# --- the reference ----------------------------------------------------------------------------------------------------


class Choice(NamedTuple):
    """The reference FFI of a CCD: its stem, empty where no FFI is fit to be it, and why it was chosen."""

    ffi: str
    why: str


def choose(frames, preferred=()):
    """Choose the FFI on whose pixels the templates of a CCD are made.

    Parameters
    ----------
    frames : list of Frame
        All of the CCD.
    preferred : sequence of str
        Stems of FFIs of which products are there: the first one that is good is chosen.

    Returns
    -------
    choice : Choice
        Of the frames with DQUALITY 0 and a WCS that agrees with those before and after it, the one that points nearest
        to the median of all, so that the offsets of the others are small; of equal ones the first.
    """
    pointed = [frame for frame in by_time(frames) if frame.tansip is not None]
    bad = len(frames) - len(pointed)
    if not pointed:
        return Choice("", f"none of {len(frames)} FFIs has a usable WCS; the first: {frames[0].why}")
    from_neighbours, from_all = jumps(pointed, pointed[0].science)
    good = [n for n, frame in enumerate(pointed) if frame.quality == 0 and from_neighbours[n] < LARGEST_JUMP]
    told = (
        f"of {len(frames)} FFIs {bad} have no usable WCS, {sum(frame.quality != 0 for frame in pointed)} a DQUALITY "
        f"other than 0, {int((from_neighbours >= LARGEST_JUMP).sum())} a WCS more than {LARGEST_JUMP} px from that of "
        "the frames about it in time"
    )
    if not good:
        return Choice("", f"no FFI is good: {told}")
    already = [n for stem in preferred for n in good if stem_of(pointed[n].path) == stem]
    best = already[0] if already else min(good, key=lambda n: round(from_all[n], 4))
    reason = "products of it are there" if already else f"it is {from_all[best]:.3f} px from the median pointing"
    return Choice(stem_of(pointed[best].path), f"{reason}; {told}")


def read_choice(path):
    """Return the `Choice` that was written as JSON."""
    return Choice(**json.loads(Path(path).read_text(encoding="utf-8")))


def chosen(choice_path, files):
    """Return the path of the chosen reference among the FFIs of its CCD, str.

    Raises
    ------
    ValueError
        If none could be chosen, or it is not there any more.
    """
    choice = read_choice(choice_path)
    if not choice.ffi:
        raise ValueError(f"no reference FFI: {choice.why}; add good FFIs of this CCD to --ffi-dir")
    return str(path_of(choice.ffi, files))


def stem_of(path):
    """Return the name of an FFI without folder and extension, empty for an empty path."""
    return parse_ffi_name(path).stem if path else ""


def path_of(stem, files):
    """Return the path of an FFI by its stem.

    Raises
    ------
    ValueError
        If it is not among the files.
    """
    for path in files:
        if parse_ffi_name(path).stem == stem:
            return path
    raise ValueError(
        f"{stem}, the reference FFI of its CCD, is not in --ffi-dir any more; put it back, or choose another one with "
        "the task ReferenceFFI --overwrite (products of the old one then need --overwrite too)"
    )


def sees(path, target):
    """Tell whether a sky position (RA, Dec) [deg] lies on the science pixels of an FFI.

    Raises
    ------
    ValueError
        If the FFI has no usable WCS.
    """
    frame = read_frame(path)
    if frame.tansip is None:
        raise ValueError(frame.why)
    x, y = (float(value) for value in sky_to_pixel(frame.tansip, *target))
    science = frame.science
    return science.x0 - 0.5 <= x < science.x1 - 0.5 and science.y0 - 0.5 <= y < science.y1 - 0.5


# --- drift ------------------------------------------------------------------------------------------------------------


def drift(frames, reference, region):
    """Tell by how much each FFI of a CCD is offset from the reference.

    Parameters
    ----------
    frames : list of Frame
    reference : Frame
    region : str
        ``x0,y0,x1,y1``, at whose centre and corners the offsets are told; empty for the science pixels.

    Returns
    -------
    table : pandas.DataFrame
        A row an FFI, in the order of time: ffi (stem), mjd [d], dx, dy at the centre and dx_corner1 .. dy_corner4 at
        the corners (lower left, lower right, upper right, upper left) [TESS px; positive where stars lie at larger
        x, y than in the reference], dquality, flags (DQUALITY, NO_WCS, JUMP; empty where all is well) and why.

    Raises
    ------
    ValueError
        If the reference has no usable WCS.
    """
    if reference.tansip is None:
        raise ValueError(f"{reference.path} cannot be the reference: {reference.why}")
    region = parse_region(region) if region else reference.science
    frames = by_time(frames)
    pointed = [n for n, frame in enumerate(frames) if frame.tansip is not None]
    jump = np.zeros(len(frames))
    if pointed:
        jump[pointed] = jumps([frames[n] for n in pointed], region)[0]
    return pd.DataFrame([_drift_row(*one, reference, region) for one in zip(frames, jump, strict=True)])


def _drift_row(frame, jump, reference, region):
    moved = np.full((5, 2), np.nan)
    if frame.tansip is not None:
        moved = displacement(reference.tansip, frame.tansip, region)
    flags = {BAD_QUALITY: frame.quality != 0, NO_WCS: frame.tansip is None, JUMP: jump >= LARGEST_JUMP}
    why = frame.why or (f"{jump:.2f} px from the frames about it in time" if flags[JUMP] else "")
    return {
        "ffi": parse_ffi_name(frame.path).stem,
        "mjd": frame.mjd,
        **dict(zip(OFFSET_COLUMNS, moved.ravel().round(6) + 0.0, strict=True)),
        "dquality": frame.quality,
        "flags": "|".join(flag for flag, is_set in flags.items() if is_set),
        "why": why,
    }


def read_drift(path):
    """Return the table that `drift` made, from its CSV file."""
    numbers = {name: [""] for name in ("mjd", *OFFSET_COLUMNS)}
    return pd.read_csv(path, keep_default_na=False, na_values=numbers, float_precision="round_trip")


def usable(table):
    """Tell which FFIs of a drift table point where their WCS says, ndarray of bool; bad quality is no hindrance."""
    return ~table["flags"].str.contains(f"{NO_WCS}|{JUMP}", regex=True).to_numpy(bool)


def group(table, within, largest):
    """Give each FFI a template whose offset is its own to within so many pixels.

    The offsets are the multiples of `within` nearest to the mean displacement of centre and corners: at most
    within / sqrt(2) from it, and the same ones when further FFIs come.

    Parameters
    ----------
    table : pandas.DataFrame
        As `drift` makes it.
    within : float
        [TESS px]
    largest : float
        Largest offset that a template can have [TESS px].

    Returns
    -------
    table : pandas.DataFrame
        A row an FFI: ffi, mjd, dx, dy (the mean displacement), template_dx, template_dy (NaN where there is none),
        worst (how far the worst corner is from the template's offset: rotation and drift across the field stay) [TESS
        px], flags and why.
    """
    places = table[list(OFFSET_COLUMNS)].to_numpy(float).reshape(len(table), 5, 2)
    mean = places.mean(axis=1)
    # The rounding of the product makes of 3 * 0.01 the number that a user would write.
    snapped = (np.round(mean / within) * within).round(9) + 0.0
    reached = np.hypot(*snapped.T) <= largest
    given = usable(table) & reached
    snapped[~given] = np.nan
    worst = np.hypot(*np.moveaxis(places - snapped[:, None], -1, 0)).max(axis=1)
    grouped = table[["ffi", "mjd"]].copy()
    for name, values in (("dx", mean[:, 0]), ("dy", mean[:, 1]), ("worst", worst)):
        grouped[name] = values.round(6)
    grouped.insert(4, "template_dx", snapped[:, 0])
    grouped.insert(5, "template_dy", snapped[:, 1])
    grouped["flags"] = table["flags"]
    too_far = f"offset beyond {largest:.2f} px, the most that skycells allow: give this FFI a template of its own"
    grouped["why"] = np.where(usable(table) & ~reached, too_far, table["why"])
    return grouped


def offsets(grouped):
    """Return the offsets of the templates that `group` calls for, a sorted tuple of (dx, dy)."""
    pairs = grouped[["template_dx", "template_dy"]].dropna().drop_duplicates().itertuples(index=False, name=None)
    return tuple(sorted((float(dx), float(dy)) for dx, dy in pairs))


def with_templates(grouped, names):
    """Return the table of `group` with a column of the templates' file names, by their offsets, empty for none."""
    pairs = grouped[["template_dx", "template_dy"]].itertuples(index=False, name=None)
    return grouped.assign(template=[names.get(pair, "") for pair in pairs])


# --- the report -------------------------------------------------------------------------------------------------------


class Planned(NamedTuple):
    """What is to be made of a CCD: its state, number of FFIs, reference, the task (or none) and why."""

    state: str
    ffis: int
    reference: str
    task: object | None
    why: str


def report(plans):
    """Tell what was made of each CCD.

    Parameters
    ----------
    plans : dict of CCD to Planned
        The tasks of which are complete.

    Returns
    -------
    table : pandas.DataFrame
        A row a CCD: camera, ccd, state (made, no PS1 coverage, target elsewhere, no FFI, no good FFI), ffis,
        reference, skycells, templates, bytes (of these), folder and why (of the choice, or of there being nothing).
    """
    return pd.DataFrame([_report_row(ccd, planned) for ccd, planned in plans.items()])


def _report_row(ccd, planned):
    made = [Path(template.path) for template, *_ in planned.task.templates().values()] if planned.task else []
    return {
        "camera": ccd.camera,
        "ccd": ccd.ccd,
        "state": planned.state,
        "ffis": planned.ffis,
        "reference": planned.reference,
        "skycells": len(planned.task.plan().skycells) if planned.task else 0,
        "templates": len(made),
        "bytes": sum(path.stat().st_size for path in made),
        "folder": str(made[0].parent) if made else "",
        "why": planned.why,
    }


def write_page(path, sector, plans):
    """Write the page of a sector: which CCDs are done, with links to the pages of their templates.

    Parameters
    ----------
    path : path-like
        In the folder from which the page is to be read, for its links are relative.
    sector : int
    plans : dict of CCD to Planned
        The tasks of which are complete.
    """
    # Imported here: a plan of an FFI needs this module, and no page.
    from .report import sector_page

    folder = Path(path).parent
    entries = [entry for ccd, planned in plans.items() if planned.task for entry in _entries(ccd, planned.task, folder)]
    states = {(ccd.camera, ccd.ccd): planned.state for ccd, planned in plans.items()}
    sector_page.write(path, sector, entries, states)


def _entries(ccd, task, folder):
    """Return the templates of a CCD for the page, the first with a thumbnail; without pictures they have no pages."""
    from .report import sector_page, thumbnail

    for number, ((dx, dy), (template, *beside)) in enumerate(task.templates().items()):
        yield sector_page.Entry(
            ccd.camera,
            ccd.ccd,
            name=Path(template.path).name,
            offset=f"dx {dx:+}, dy {dy:+} px",
            page=os.path.relpath(beside[-1].path, folder) if beside else "",
            thumbnail=b"" if number else thumbnail.thumbnail(template.path),
        )
