"""By how much each FFI of a CCD is offset from the reference, and which FFIs share a template."""

import numpy as np
import pandas as pd

from syndiff_tasks.geometry.ffi import parse_ffi_name
from syndiff_tasks.geometry.region import parse_region

from .frame_header import by_time
from .pointing import LARGEST_JUMP, displacement, jumps

PLACES = ("", "_corner1", "_corner2", "_corner3", "_corner4")

OFFSET_COLUMNS = tuple(f"d{axis}{place}" for place in PLACES for axis in "xy")

# Why a frame is no reference; a frame without a WCS, or with one that jumps, is given no template either.
BAD_QUALITY, NO_WCS, JUMP = "DQUALITY", "NO_WCS", "JUMP"

# The offset of a frame comes from the frames before and after it, not from its own WCS.
INTERPOLATED = "INTERPOLATED"


def drift(frames, reference, region):
    """Return by how much each FFI of a CCD is offset from the reference.

    Parameters
    ----------
    frames : list of FrameHeader
    reference : FrameHeader
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


def interpolate(table):
    """Interpolate the offsets of flagged FFIs linearly in time between those before and after them.

    Parameters
    ----------
    table : pandas.DataFrame
        As `drift` makes it.

    Returns
    -------
    table : pandas.DataFrame
        A copy. Each FFI with a flag (DQUALITY, NO_WCS, JUMP) that has a time and lies between two FFIs without flags
        has the offsets interpolated between these two, the flag INTERPOLATED besides its own, and a `why` that names
        the two. All others are as they were: nothing is extrapolated.
    """
    table, good = table.copy(), (table["flags"] == "").to_numpy() & np.isfinite(table["mjd"].to_numpy(float))
    mjd, places = table["mjd"].to_numpy(float), np.flatnonzero(good)
    after = np.searchsorted(mjd[places], mjd)
    for row in np.flatnonzero((table["flags"] != "").to_numpy() & (after > 0) & (after < len(places))):
        first, second = places[after[row] - 1], places[after[row]]
        known = table.loc[[first, second], list(OFFSET_COLUMNS)].to_numpy(float)
        part = (mjd[row] - mjd[first]) / (mjd[second] - mjd[first])
        table.loc[row, list(OFFSET_COLUMNS)] = (known[0] + part * (known[1] - known[0])).round(6) + 0.0
        table.loc[row, "flags"] += f"|{INTERPOLATED}"
        note = f"offset interpolated in time between {table.loc[first, 'ffi']} and {table.loc[second, 'ffi']}"
        table.loc[row, "why"] = "; ".join(filter(None, (table.loc[row, "why"], note)))
    return table


def read_drift(path):
    """Return the table that `drift` made, from its CSV file."""
    numbers = {name: [""] for name in ("mjd", *OFFSET_COLUMNS)}
    return pd.read_csv(path, keep_default_na=False, na_values=numbers, float_precision="round_trip")


def usable(table):
    """Return which FFIs of a drift table point where their WCS says, ndarray of bool; bad quality is no hindrance."""
    return ~table["flags"].str.contains(f"{NO_WCS}|{JUMP}", regex=True).to_numpy(bool)


def _has_offset(table):
    return usable(table) | table["flags"].str.contains(INTERPOLATED, regex=False).to_numpy(bool)


def group(table, within, largest):
    """Give each FFI a template whose offset is its own to within so many pixels.

    The offsets are the multiples of `within` nearest to the mean displacement of centre and corners: at most
    within / sqrt(2) from it, and the same ones when further FFIs come.

    Parameters
    ----------
    table : pandas.DataFrame
        As `drift` or `interpolate` makes it.
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
    given = _has_offset(table) & reached
    snapped[~given] = np.nan
    worst = np.hypot(*np.moveaxis(places - snapped[:, None], -1, 0)).max(axis=1)
    grouped = table[["ffi", "mjd"]].copy()
    for name, values in (("dx", mean[:, 0]), ("dy", mean[:, 1]), ("worst", worst)):
        grouped[name] = values.round(6)
    grouped.insert(4, "template_dx", snapped[:, 0])
    grouped.insert(5, "template_dy", snapped[:, 1])
    grouped["flags"] = table["flags"]
    too_far = f"offset beyond {largest:.2f} px, the most that skycells allow: give this FFI a template of its own"
    grouped["why"] = np.where(_has_offset(table) & ~reached, too_far, table["why"])
    return grouped


def offsets(grouped):
    """Return the offsets of the templates that `group` calls for, a sorted tuple of (dx, dy)."""
    pairs = grouped[["template_dx", "template_dy"]].dropna().drop_duplicates().itertuples(index=False, name=None)
    return tuple(sorted((float(dx), float(dy)) for dx, dy in pairs))


def with_templates(grouped, names):
    """Return the table of `group` with a column of the templates' file names, by their offsets, empty for none."""
    pairs = grouped[["template_dx", "template_dy"]].itertuples(index=False, name=None)
    return grouped.assign(template=[names.get(pair, "") for pair in pairs])
