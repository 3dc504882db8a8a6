"""Where the FFIs of a CCD point, and which of them is the reference of the CCD."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from syndiff_tasks.geometry.tansip import pixel_to_sky, pixel_to_vector, sky_to_pixel

from .ffi_folder import path_of, stem_of
from .frame_header import by_time

# A frame is compared with the median of so many frames about it in time: three bad ones in a row do not spoil it.
NEIGHBOURS = 7

# Pointing drifts by some 0.1 px within a sector and wanders by 0.05 px within hours; a WCS that was fitted to the wrong
# stars is off by pixels [TESS px].
LARGEST_JUMP = 0.5


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
    """Return how far each frame points from where its neighbors in time point.

    Parameters
    ----------
    frames : list of FrameHeader
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


class ReferenceChoice(NamedTuple):
    """The reference FFI of a CCD: its stem, empty where no FFI is fit to be it, and why it was chosen."""

    ffi: str
    why: str


def choose_reference(frames, preferred=()):
    """Choose the FFI on whose pixels the templates of a CCD are made.

    Parameters
    ----------
    frames : list of FrameHeader
        All of the CCD.
    preferred : sequence of str
        Stems of FFIs of which products are there: the first one that is good is chosen.

    Returns
    -------
    choice : ReferenceChoice
        Of the frames with DQUALITY 0 and a WCS that agrees with those before and after it, the one that points nearest
        to the median of all, so that the offsets of the others are small; of equal ones the first.
    """
    pointed = [frame for frame in by_time(frames) if frame.tansip is not None]
    bad = len(frames) - len(pointed)
    if not pointed:
        return ReferenceChoice("", f"none of {len(frames)} FFIs has a usable WCS; the first: {frames[0].why}")
    from_neighbours, from_all = jumps(pointed, pointed[0].science)
    good = [n for n, frame in enumerate(pointed) if frame.quality == 0 and from_neighbours[n] < LARGEST_JUMP]
    told = (
        f"of {len(frames)} FFIs {bad} have no usable WCS, {sum(frame.quality != 0 for frame in pointed)} a DQUALITY "
        f"other than 0, {int((from_neighbours >= LARGEST_JUMP).sum())} a WCS more than {LARGEST_JUMP} px from that of "
        "the frames about it in time"
    )
    if not good:
        return ReferenceChoice("", f"no FFI is good: {told}")
    already = [n for stem in preferred for n in good if stem_of(pointed[n].path) == stem]
    best = already[0] if already else min(good, key=lambda n: round(from_all[n], 4))
    reason = "products of it are there" if already else f"it is {from_all[best]:.3f} px from the median pointing"
    return ReferenceChoice(stem_of(pointed[best].path), f"{reason}; {told}")


def read_choice(path):
    """Return the `ReferenceChoice` that was written as JSON."""
    return ReferenceChoice(**json.loads(Path(path).read_text(encoding="utf-8")))


def reference_path(choice_path, files):
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
