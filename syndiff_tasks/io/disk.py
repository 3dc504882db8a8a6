"""The disk below a data folder: space, temporaries and what killed processes left."""

import contextlib
import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterable
from pathlib import Path

from syndiff_tasks.io.liveness import alive

QUARANTINE = "quarantine"

# The largest a stack product can be: 16 bits for each pixel of the largest skycell of rings.v3. A real r-band file
# has 69 MB of 79 MB, since noise hardly compresses.
LARGEST_FILE = 6501 * 6429 * 2
# Masks are mostly runs of equal numbers.
TYPICAL_FILE = {"image": 69_000_000, "wt": 69_000_000, "mask": 10_000_000, "num": 10_000_000, "exp": 40_000_000}


def temporary_file(folder, name):
    """Name a hidden file that tells whose it is; the real name comes last, for readers that go by extension."""
    return folder / f".fetching+{socket.gethostname()}+{os.getpid()}+{uuid.uuid4().hex[:8]}+{name}"


def quarantine(suspect, name, reason):
    """Put a refused body aside with its reason; one of each name, so that retries for days fill no disk."""
    folder = suspect.parent / QUARANTINE
    folder.mkdir(exist_ok=True)
    kept = folder / name
    # Replaced, not rewritten: the last one may be another user's.
    told = temporary_file(folder, f"{name}.reason.txt")
    told.write_text(f"{reason}\n", encoding="utf-8")
    os.replace(told, kept.with_name(f"{name}.reason.txt"))
    os.replace(suspect, kept)
    return kept


def sweep(folder: str | os.PathLike, days: float) -> list[Path]:
    """Remove what killed processes left.

    Parameters
    ----------
    folder : path-like
        The `folder` of `fetch_all`; may be missing.
    days : float
        Age from which a temporary of a process that cannot be asked (another host's) goes too.

    Returns
    -------
    removed : list of Path
        The temporaries of dead processes of this host, and all older than `days`.
    """
    removed = []
    for temporary in sorted(Path(folder).glob(".fetching+*")):
        host, pid = temporary.name.split("+")[1:3]
        dead = host == socket.gethostname() and not alive(int(pid))
        # Its owner, or another sweeper, was first; or it is another user's, who will sweep it.
        with contextlib.suppress(FileNotFoundError, PermissionError):
            if dead or time.time() - temporary.stat().st_mtime > days * 86400:
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
    """Estimate what a run puts on the disk.

    Parameters
    ----------
    n_skycells : int
        Skycells that are not there yet.
    bands, kinds : iterable of str
        As in `stack_files`.
    at_once : int
        Downloads at a time; each holds two temporaries.
    keep_raw : bool
        Whether raw skycells stay once they are combined.
    combined : int
        Size of one combined skycell [bytes].

    Returns
    -------
    size : int
        [bytes]

    Notes
    -----
    69 MB an image is measured on real r-band files; variances are noise as well, masks compress.
    """
    raw = len(tuple(bands)) * sum(TYPICAL_FILE[kind] for kind in kinds)
    at_once = min(at_once, n_skycells)
    kept = n_skycells if keep_raw else at_once
    return kept * raw + n_skycells * combined + 2 * at_once * LARGEST_FILE


def demand_space(folder: str | os.PathLike, needed: int) -> None:
    """Compare what a run needs with what the disk has.

    Parameters
    ----------
    folder : path-like
        Where the products will go; may not exist yet.
    needed : int
        [bytes], from `needed_bytes`.

    Raises
    ------
    ValueError
        If there is less.
    """
    place = Path(folder).absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed:
        raise ValueError(
            f"{folder} has {free / 1e9:.1f} GB free but this run needs about {needed / 1e9:.1f} GB; free some space,"
            " ask for a smaller region (--roi), or set keep_raw = false in luigi.cfg"
        )
