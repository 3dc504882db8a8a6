"""Disk space, temporary files, and the leftovers of killed processes."""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path

from syndiff_tasks.io.liveness import abandoned, owner

QUARANTINE = "quarantine"

# The largest a stack product can be: 16 bits for each pixel of the largest skycell of rings.v3. A real r-band file
# has 69 MB of 79 MB, since noise hardly compresses.
LARGEST_FILE = 6501 * 6429 * 2
# Masks are mostly runs of equal numbers.
TYPICAL_FILE = {"image": 69_000_000, "wt": 69_000_000, "mask": 10_000_000, "num": 10_000_000, "exp": 40_000_000}


def temporary_file(folder, name):
    """Return the path of a hidden file that names its owner; it ends with the real name and extension."""
    return folder / f".fetching+{owner()}+{uuid.uuid4().hex[:8]}+{name}"


def quarantine(suspect, name, reason):
    """Keep a refused file with the reason; only the last one of each name, so that days of retries fill no disk."""
    folder = suspect.parent / QUARANTINE
    folder.mkdir(exist_ok=True)
    kept = folder / name
    # Replaced, not rewritten: the last one may belong to another user.
    note = temporary_file(folder, f"{name}.reason.txt")
    note.write_text(f"{reason}\n", encoding="utf-8")
    os.replace(note, kept.with_name(f"{name}.reason.txt"))
    os.replace(suspect, kept)
    return kept


def sweep(folder: str | os.PathLike, days: float) -> list[Path]:
    """Delete the temporary files of killed processes.

    Parameters
    ----------
    folder : path-like
        The `folder` of `fetch_all`; may be missing.
    days : float
        Age from which temporary files of other hosts and containers, whose processes are not visible, are deleted too.

    Returns
    -------
    removed : list of Path
        Temporary files of processes that have ended, and those older than `days` of processes that are not visible.
    """
    removed = []
    for temporary in sorted(Path(folder).glob(".fetching+*")):
        # Its owner or another process deleted it first, or it belongs to another user, whose runs will delete it.
        with contextlib.suppress(FileNotFoundError, PermissionError):
            if abandoned(temporary.name.split("+")[1], temporary, days * 86400):
                temporary.unlink()
                removed.append(temporary)
    return removed


def needed_bytes(
    n_skycells: int,
    bands: Iterable[str],
    kinds: Iterable[str],
    at_once: int,
    keep_raw: bool,
    combined: int = 0,
) -> int:
    """Estimate the disk space that a run needs.

    Parameters
    ----------
    n_skycells : int
        Skycells that do not exist yet.
    bands, kinds : iterable of str
        As in `stack_files`.
    at_once : int
        Simultaneous downloads; each has two temporary files.
    keep_raw : bool
        Whether raw skycells are kept after they are combined.
    combined : int
        Size of one combined skycell [bytes].

    Returns
    -------
    size : int
        [bytes]

    Notes
    -----
    69 MB per image is measured on real r-band files (docs/facts.md, 2); variances are noise as well, masks compress.
    """
    raw = len(tuple(bands)) * sum(TYPICAL_FILE[kind] for kind in kinds)
    at_once = min(at_once, n_skycells)
    kept = n_skycells if keep_raw else at_once
    return kept * raw + n_skycells * combined + 2 * at_once * LARGEST_FILE


def demand_space(folder: str | os.PathLike, needed: int) -> None:
    """Raise if a disk has less free space than a run needs.

    Parameters
    ----------
    folder : path-like
        Destination of the products; may not exist yet.
    needed : int
        [bytes], from `needed_bytes`.

    Raises
    ------
    ValueError
        If the free space is smaller.
    """
    place = Path(folder).absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed:
        raise ValueError(
            f"{folder} has {free / 1e9:.1f} GB free, but this run needs about {needed / 1e9:.1f} GB; free some space,"
            " ask for a smaller region (--roi), or set keep_raw = false in luigi.cfg"
        )
