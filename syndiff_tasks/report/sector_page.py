"""The page of a sector: which of its 16 CCDs have a template, as a self-contained HTML file."""

import datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from syndiff_tasks.report.html import data_uri, render

# CCDs as seen on the sky, with the camera of the ecliptic (1) at the left and that of the pole (4) at the right: rows
# from the top. Read from the WCS of sectors 1, 20 and 30 of tesswcs; cameras 3 and 4 are rotated by 180 degrees.
ARRANGEMENT = {1: ((4, 1), (3, 2)), 2: ((4, 1), (3, 2)), 3: ((2, 3), (1, 4)), 4: ((2, 3), (1, 4))}


class Entry(NamedTuple):
    """A finished template as the page of a sector lists it.

    Attributes
    ----------
    camera, ccd : int
        1 to 4.
    name : str
        File name of the template.
    offset : str
        Its offset, for example "dx +0.0, dy +0.0 px".
    page : str
        Path of its page, relative to the page of the sector; empty where it has none.
    thumbnail : bytes
        Content of a PNG file; empty where it has none.
    """

    camera: int
    ccd: int
    name: str
    offset: str
    page: str
    thumbnail: bytes = b""


def sector_page(sector, entries, states=None):
    """Return the page of a sector: which CCDs have a template, with links to their pages.

    Parameters
    ----------
    sector : int
        TESS sector.
    entries : iterable of Entry
        The finished templates; those of one CCD (offsets) are listed below each other.
    states : dict of (int, int) to str, optional
        Why a camera and CCD has no template, "not yet" where it is not given.

    Returns
    -------
    str
        HTML.
    """
    finished, states = {}, states or {}
    for entry in sorted(entries, key=lambda entry: (entry.camera, entry.ccd, entry.name)):
        shown = entry._asdict() | {"page": quote(entry.page)}
        shown["thumbnail"] = data_uri(entry.thumbnail) if entry.thumbnail else ""
        finished.setdefault((entry.camera, entry.ccd), []).append(shown)
    cameras = {
        camera: [
            (ccd, finished.get((camera, ccd), []), states.get((camera, ccd), "not yet")) for row in rows for ccd in row
        ]
        for camera, rows in ARRANGEMENT.items()
    }
    return render(
        "sector.html",
        title=f"Templates of sector {sector}",
        done=len(finished),
        now=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        cameras=cameras,
        templates=[shown for ccd in finished.values() for shown in ccd],
    )


def write(path, sector, entries, states=None):
    """Write the page of a sector.

    Parameters
    ----------
    path : str or Path
        Destination; the caller sees to it that the file appears whole or not at all.
    sector, entries, states
        As in `sector_page`.
    """
    Path(path).write_text(sector_page(sector, entries, states), encoding="utf-8")
