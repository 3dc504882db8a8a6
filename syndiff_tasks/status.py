"""How far each CCD is, from the names of files alone: no manifest is read, so that a sector takes under a second.

A product's final name is proof that it was published (`targets`): folders are renamed into place whole, and a file's
manifest lies beside it.
"""

import csv
import os
import socket
import time
from pathlib import Path
from typing import NamedTuple

from . import paths
from .sector import CCD
from .targets import TEMPORARY, manifest_path

STEPS = ("map", "download", "combine", "blur", "template")

# Skycells of one kind are of much the same size: so many are looked at, and the sum is marked as estimated.
MEASURED = 3

# A temporary of another host, whose processes cannot be seen, is taken for alive when touched within so many seconds.
SECONDS_ALIVE = 3600.0


class Step(NamedTuple):
    """How far one step of one CCD is; `wanted` is None where it is not known yet, `size` in bytes."""

    done: int
    wanted: int | None
    running: int
    died: int
    size: int
    estimated: bool


class Row(NamedTuple):
    """One CCD, or one region of it, and its steps by name."""

    ccd: CCD
    region: str
    steps: dict


class _Folder(NamedTuple):
    """Names in a folder: finished products, and temporaries of living and of dead processes."""

    done: set
    running: set
    died: set


def survey(root, recipe, sector=None):
    """Count what is there of each CCD.

    Parameters
    ----------
    root : path-like
        Data root.
    recipe : str
        Label of the recipe whose combined skycells are counted.
    sector : int, optional
        Of which; by default of all.

    Returns
    -------
    rows : list of Row
        Sorted; a CCD with products of regions has a row for each of them.
    """
    look = _Looker()
    return [_row(Path(root), recipe, ccd, region, look) for ccd, region in _parts(Path(root), sector)]


def _parts(root, sector):
    """Find the CCDs and regions that have maps."""
    found = set()
    for *which, folder in paths.mapped_ccds(root, sector):
        with os.scandir(folder) as entries:
            found |= {(CCD(*which), entry.name if entry.is_dir() else "") for entry in entries}
    return sorted(found)


class _Looker:
    """Reads each folder once: the 16 CCDs of a sector share projections."""

    def __init__(self):
        self.seen = {}
        self.here = socket.gethostname()

    def __call__(self, folder):
        folder = str(folder)
        if folder not in self.seen:
            self.seen[folder] = self._read(folder)
        return self.seen[folder]

    def _read(self, folder):
        found = _Folder(set(), set(), set())
        if not os.path.isdir(folder):
            return found
        with os.scandir(folder) as entries:
            for entry in entries:
                if made_by := TEMPORARY.match(entry.name):
                    name = entry.name[made_by.end() :]
                    (found.running if self._lives(made_by, entry) else found.died).add(name)
                elif not entry.name.startswith("."):
                    found.done.add(entry.name)
        return found

    def _lives(self, made_by, entry):
        if made_by["host"] == self.here:
            return os.path.exists(f"/proc/{made_by['pid']}")
        try:
            return time.time() - entry.stat().st_mtime < SECONDS_ALIVE
        except FileNotFoundError:
            return False  # finished while we looked


def _row(root, recipe, ccd, region, look):
    table = paths.skycells_list(root, ccd, region)
    names = _names(table)
    steps = {"map": _files([table, paths.master_map(root, ccd, region)], look)}
    where = {
        "download": lambda name: paths.raw(root, name),
        "combine": lambda name: paths.combined(root, recipe, name),
        "blur": lambda name: paths.convolved(root, ccd, name),
    }
    for step, place in where.items():
        steps[step] = _skycells(names, place, look)
    steps["template"] = _templates(root, ccd, region, look)
    return Row(ccd, region, steps)


def _names(table):
    """Return the skycells of a CCD by its map, None where there is no map yet."""
    if not (table.exists() and manifest_path(table).exists()):
        return None
    with open(table, newline="", encoding="utf-8") as stream:
        rows = csv.reader(stream)
        column = next(rows).index("NAME")
        return [row[column] for row in rows]


def _files(files, look):
    there = [file for file in files if file.exists() and manifest_path(file).exists()]
    folder, names = look(files[0].parent), {file.name for file in files}
    counts = (len(folder.running & names), len(folder.died & names))
    return Step(len(there), len(files), *counts, sum(file.stat().st_size for file in there), False)


def _skycells(names, place, look):
    if names is None:
        return Step(0, None, 0, 0, 0, False)
    # Skycells of one projection lie in one folder: a path for each of 50,000 would take a second.
    one_of_each = {name.rpartition(".")[0]: name for name in names}
    folders = {projection: look(place(name).parent) for projection, name in one_of_each.items()}
    found = {name: folders[name.rpartition(".")[0]] for name in names}
    done = [name for name, folder in found.items() if name in folder.done]
    running = sum(name in folder.running for name, folder in found.items())
    died = sum(name in folder.died for name, folder in found.items())
    measured = [_size(place(name)) for name in done[:: max(1, len(done) // MEASURED)][:MEASURED]]
    size = round(sum(measured) / len(measured) * len(done)) if measured else 0
    return Step(len(done), len(names), running, died, size, len(done) > len(measured))


def _size(folder):
    return sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())


def _templates(root, ccd, region, look):
    done = running = died = size = 0
    of_ccd = paths.templates_of(root, ccd)
    for ffi in look(of_ccd).done:
        folder = look(of_ccd / ffi / region)
        made = [of_ccd / ffi / region / name for name in folder.done if name.endswith(".fits")]
        made = [path for path in made if manifest_path(path).exists()]
        done, size = done + len(made), size + sum(path.stat().st_size for path in made)
        running += sum(name.endswith(".fits") for name in folder.running)
        died += sum(name.endswith(".fits") for name in folder.died)
    return Step(done, None, running, died, size, False)


def table(rows):
    """Write the rows as text.

    Parameters
    ----------
    rows : list of Row

    Returns
    -------
    text : str
        A line a row, a column a step: done/wanted, size, and what is running or died.
    """
    head = ("CCD", "region", *STEPS)
    cells = [
        (f"s{row.ccd.sector:04d} {row.ccd}", row.region or "whole", *(_cell(row.steps[step]) for step in STEPS))
        for row in rows
    ]
    widths = [max(len(line[column]) for line in (head, *cells)) for column in range(len(head))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in (head, *cells)]
    return "\n".join(line.rstrip() for line in lines)


def _cell(step):
    text = str(step.done) if step.wanted is None else f"{step.done}/{step.wanted}"
    if step.size:
        text += f" {'~' if step.estimated else ''}{_readable(step.size)}"
    for count, what in ((step.running, "running"), (step.died, "died")):
        if count:
            text += f", {count} {what}"
    return text


def _readable(size):
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
