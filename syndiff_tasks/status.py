"""How far each CCD is, from the names of files alone: no manifest is read, so that a sector takes under a second.

A product's final name is proof that it was published (`targets`): folders are renamed into place whole, and a file's
manifest lies beside it. What failed is in the failure logs (`failures`).
"""

import csv
import operator
import os
from pathlib import Path
from typing import NamedTuple

from . import paths
from .failures import group_similar, read
from .io.liveness import abandoned
from .manifest import TEMPORARY, manifest_path

STEPS = ("map", "download", "combine", "convolve", "template")

# Skycells of one kind have similar sizes: this many are measured, and the sum is marked as estimated.
MEASURED = 3

# A temporary of another host or container, whose process cannot be seen, counts as running if it was modified within
# this time [s].
SECONDS_ALIVE = 3600.0


class Step(NamedTuple):
    """How far one step of one CCD is: numbers of products, and their size [bytes].

    Attributes
    ----------
    done, running : int
    absent : int
        Needed, but neither made nor begun nor failed; 0 while it is not known what is needed.
    failed : int
        The last try failed, and none is running.
    died : int
        Begun by processes that were killed.
    size : int
    estimated : bool
        Whether the size is that of some products, scaled to their number.
    """

    done: int
    running: int
    absent: int
    failed: int
    died: int
    size: int
    estimated: bool


class Row(NamedTuple):
    """One CCD, or one region of it: its steps by name, and the products that failed, as paths."""

    ccd: paths.CCD
    region: str
    steps: dict
    failures: frozenset


class _Folder(NamedTuple):
    """Names in a folder: finished products, temporaries of living and of dead processes, and what failed."""

    done: set
    running: set
    died: set
    failed: set

    def among(self, names):
        """Return only these names, each under the first state that holds: done, running, failed, died."""
        done = names & self.done
        running = (names & self.running) - done
        failed = (names & self.failed) - done - running
        return _Folder(done, running, (names & self.died) - done - running - failed, failed)


_NOTHING = _Folder(frozenset(), frozenset(), frozenset(), frozenset())


def survey(root, recipe, sector=None):
    """Count the products of each CCD.

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
    look = _Looker(root)
    return [_row(Path(root), recipe, ccd, region, look) for ccd, region in _parts(Path(root), sector)]


def latest_recipe(root):
    """Return the label of the recipe that was used last, empty where none was.

    Parameters
    ----------
    root : path-like
        Data root.
    """
    folders = {folder.name: [folder, *folder.iterdir()] for folder in paths.recipes(root)}
    worked_on = {name: max(place.stat().st_mtime for place in places) for name, places in folders.items()}
    return max(worked_on, key=worked_on.get, default="")


def _parts(root, sector):
    """Find the CCDs and regions that have maps, or for which making one has begun."""
    found = set()
    for ccd, folder in paths.mapped_ccds(root, sector):
        with os.scandir(folder) as entries:
            found |= {(ccd, entry.name if entry.is_dir() else "") for entry in entries}
    return sorted(found)


class _Looker:
    """Reads each folder once: the 16 CCDs of a sector share projection cells."""

    def __init__(self, root):
        self.seen = {}
        self.failed = {}
        for failure in read(root):
            if failure.product:
                path = Path(root, failure.product)
                self.failed.setdefault(str(path.parent), set()).add(path.name)

    def __call__(self, folder):
        folder = str(folder)
        if folder not in self.seen:
            self.seen[folder] = self._read(folder)
        return self.seen[folder]

    def _read(self, folder):
        found = _Folder(set(), set(), set(), self.failed.get(folder, set()))
        if not os.path.isdir(folder):
            return found
        with os.scandir(folder) as entries:
            for entry in entries:
                if made_by := TEMPORARY.match(entry.name):
                    name = _without_neighbors(entry.name[made_by.end() :])
                    (found.running if _is_written(made_by, entry) else found.died).add(name)
                elif not entry.name.startswith("."):
                    found.done.add(_without_neighbors(entry.name))
        return found


def _is_written(made_by, entry):
    try:
        return not abandoned(made_by["owner"], entry, SECONDS_ALIVE)
    except FileNotFoundError:
        return False  # finished in the meantime


def _without_neighbors(name):
    """Return the name of a skycell without those of the neighbors that widened its frame, see `paths.convolved`."""
    return name.partition("_")[0] if name.startswith("skycell.") else name


def _row(root, recipe, ccd, region, look):
    table = paths.skycells_list(root, ccd, region)
    names = _names(table)
    places = {
        "download": lambda name: paths.raw(root, name),
        "combine": lambda name: paths.combined(root, recipe, name),
        "convolve": lambda name: paths.convolved(root, ccd, name),
    }
    found = {"map": _files([table, paths.master_map(root, ccd, region)], look)}
    found |= {step: _skycells(names, place, look) for step, place in places.items()}
    found["download"] = _without_combined(found["download"], lambda path: paths.combined(root, recipe, path.name))
    found["convolve"] = _with_summary(found["convolve"], paths.cell_metadata(root, ccd, region).parent, look)
    found["template"] = _templates(root, ccd, region, look)
    steps = {step: found[step][0] for step in STEPS}
    return Row(ccd, region, steps, frozenset().union(*(failures for _, failures in found.values())))


def _names(table):
    """Return the names of the skycells in a CCD's map; none before the map is written."""
    if not (table.exists() and manifest_path(table).exists()):
        return []
    with open(table, newline="", encoding="utf-8") as stream:
        rows = csv.reader(stream)
        column = next(rows).index("NAME")
        return [row[column] for row in rows]


def _files(files, look):
    there = [file for file in files if file.exists() and manifest_path(file).exists()]
    folder = look(files[0].parent)._replace(done={file.name for file in there})
    found = folder.among({file.name for file in files})
    size = sum(file.stat().st_size for file in there)
    return _step(found, len(files), size, False), {files[0].with_name(name) for name in found.failed}


def _step(found, wanted, size, estimated):
    absent = wanted - sum(map(len, found))
    return Step(len(found.done), len(found.running), absent, len(found.failed), len(found.died), size, estimated)


def _skycells(names, place, look):
    # Skycells of one projection lie in one folder: a path for each of 50,000 would take a second.
    projections = {}
    for name in names:
        projections.setdefault(name.rpartition(".")[0], set()).add(name)
    found, failures = _NOTHING, set()
    for here in projections.values():
        folder = place(next(iter(here))).parent
        those = look(folder).among(here)
        failures |= {folder / name for name in those.failed}
        found = _Folder(*map(operator.or_, found, those))
    done = sorted(found.done)
    measured = [_size(place(name)) for name in done[:: max(1, len(done) // MEASURED)][:MEASURED]]
    size = round(sum(measured) / len(measured) * len(done)) if measured else 0
    return _step(found, len(names), size, len(done) > len(measured)), failures


def _without_combined(downloads, combined):
    """Drop failed downloads that succeeded later: with `keep_raw = false` only the combined skycell remains.

    Such a raw skycell counts as absent.
    """
    step, failures = downloads
    left = {path for path in failures if not combined(path).exists()}
    recovered = len(failures) - len(left)
    return step._replace(failed=step.failed - recovered, absent=step.absent + recovered), left


def _size(folder):
    return sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())


def _with_summary(skycells, folder, look):
    """Add the failures of the one task that convolves all skycells of a CCD, recorded with its summary."""
    step, failures = skycells
    failed = look(folder).failed - look(folder).done
    failures = failures | {folder / name for name in failed}
    return step._replace(failed=step.failed + len(failed)), failures


def _templates(root, ccd, region, look):
    of_ccd = paths.templates_of(root, ccd)
    done = running = died = size = 0
    failures = set()
    for folder in (of_ccd / region, *(of_ccd / ffi / region for ffi in sorted(look(of_ccd).done))):
        found = look(folder)
        made = [folder / name for name in found.done if name.endswith(".fits")]
        made = [path for path in made if manifest_path(path).exists()]
        done, size = done + len(made), size + sum(path.stat().st_size for path in made)
        running += sum(name.endswith(".fits") for name in found.running)
        died += sum(name.endswith(".fits") for name in found.died)
        failures |= {folder / name for name in found.failed - found.done}
    return Step(done, running, 0, len(failures), died, size, False), failures


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
    done = f"{step.done} done"
    if step.size:
        done += f" {'~' if step.estimated else ''}{_readable(step.size)}"
    counts = {name: getattr(step, name) for name in ("running", "absent", "failed", "died")}
    others = [f"{count} {name}" for name, count in counts.items() if count]
    return ", ".join([done] * bool(step.done) + others) or "-"


def failure_lines(root, rows):
    """Describe the last failure of each product that is still missing.

    Parameters
    ----------
    root : path-like
        Data root.
    rows : list of Row

    Returns
    -------
    lines : list of str
        The most frequent first; messages that differ in numbers only are one line, with how often, the last one, and
        when and where that was.
    """
    missing = frozenset().union(*(row.failures for row in rows))
    last = {}
    for failure in read(root):
        last[failure.product] = failure
    failures = [failure for product, failure in last.items() if product and Path(root, product) in missing]
    failures.sort(key=lambda failure: failure.time)
    return [_line(group) for group in group_similar(failures)]


def _line(group):
    last = group[-1]
    return f"{len(group)} x {last} (last {last.time} on {last.host})"


def _readable(size):
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
