"""Tessellation given by a user's table of skycells, in place of rings.v3."""

import math

import numba
import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from .skycell import OVERLAP, Skycell, parse_skycell_name, skycell_cd, skycell_center, skycell_radius, vector_to_skycell
from .tangent import chord
from .tessellation import Tessellation

SKYCELL_COLUMNS = (
    "NAME", "NAXIS1", "NAXIS2", "CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2", "CDELT1", "CDELT2",
    "PC1_1", "PC1_2", "PC2_1", "PC2_2",
)  # fmt: skip


class SkycellTable(Tessellation):
    """Skycells of a user's table; an id is the row. The owner is the skycell with the position deepest inside it."""

    def __init__(self, skycells):
        self._skycells = tuple(skycells)
        self._index = {skycell.name: number for number, skycell in enumerate(self._skycells)}
        self.size = len(self._skycells)
        self.largest_radius = max(map(skycell_radius, self._skycells))
        self._centres = cKDTree([skycell_center(skycell) for skycell in self._skycells])
        self._to_pixel = np.array([vector_to_skycell(skycell) for skycell in self._skycells])
        scales = [math.sqrt(abs(np.linalg.det(skycell_cd(skycell)))) for skycell in self._skycells]
        self._frames = np.array([(c.nx, c.ny, scale) for c, scale in zip(self._skycells, scales, strict=True)])

    def skycell(self, name):
        """See `Tessellation.skycell`."""
        if name not in self._index:
            raise ValueError(f"{name!r} is not in the skycell catalog of {self.size} rows; add it, or correct the name")
        return self._skycells[self._index[name]]

    def name_of(self, number):
        """See `Tessellation.name_of`."""
        return self._skycells[number].name

    def owner_of_vectors(self, vectors):
        """See `Tessellation.owner_of_vectors`."""
        vectors = np.ascontiguousarray(vectors, np.float64)
        if not len(vectors):
            return np.empty(0, np.int64)
        # Positions in the same small cube share their candidates: one query of the tree a cube.
        side = chord(self.largest_radius) / 2
        cubes, cube_of = np.unique(_cube_keys(vectors, side), return_inverse=True)
        first_of = np.zeros(len(cubes), np.int64)
        first_of[cube_of] = np.arange(len(vectors))
        # All positions in the cube are within its diagonal of this one.
        reach = chord(self.largest_radius) + math.sqrt(3) * side
        candidates = self._centres.query_ball_point(vectors[first_of], reach, return_sorted=True)
        starts = np.cumsum([0, *map(len, candidates)])
        flat = np.concatenate([np.asarray(c, np.int64) for c in candidates])
        return _deepest(vectors, cube_of, starts, flat, self._to_pixel, self._frames)

    def near(self, vector, angle):
        """See `Tessellation.near`."""
        found = self._centres.query_ball_point(vector, chord(angle))
        return sorted(self._skycells[number] for number in found)


def tessellation_from_table(table):
    """Return the tessellation given by a user's table.

    Parameters
    ----------
    table : pandas.DataFrame
        One row a skycell, with the columns `SKYCELL_COLUMNS`; other columns are ignored.

    Returns
    -------
    Tessellation

    Raises
    ------
    ValueError
        If a column is missing, a value is not a finite number, a name is malformed or occurs twice, or the size,
        position or matrix of a skycell is not valid.
    """
    missing = [name for name in SKYCELL_COLUMNS if name not in table.columns]
    if missing:
        raise ValueError(
            f"the skycell catalog has no column {', '.join(missing)}; it needs {', '.join(SKYCELL_COLUMNS)}, "
            f"and has {', '.join(map(str, table.columns))}"
        )
    if table.empty:
        raise ValueError("the skycell catalog has no rows; give it one for each skycell")
    numbers = [_numbers(table, name) for name in SKYCELL_COLUMNS[1:]]
    skycells = [
        _skycell_of_row(row, name, cells)
        for row, (name, *cells) in enumerate(zip(table["NAME"], *numbers, strict=True))
    ]
    twice = table["NAME"][table["NAME"].duplicated()]
    if len(twice):
        raise ValueError(f"the skycell catalog has {twice.iloc[0]} twice; keep one row for each skycell")
    return SkycellTable(skycells)


def _numbers(table, name):
    # pandas accepts booleans as numbers; as coordinates they are errors.
    column = table[name]
    values = pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    bad = ~np.isfinite(values) | column.map(lambda cell: isinstance(cell, (bool, np.bool_))).to_numpy(bool)
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(
            f"row {row} of the skycell catalog has {name} = {str(column.iloc[row])[:40]!r}, which is not a finite "
            "number; correct it"
        )
    return values.tolist()


def _skycell_of_row(row, name, cells):
    parse_skycell_name(name)
    skycell = Skycell(name, int(cells[0]), int(cells[1]), *cells[2:])
    if skycell.nx != cells[0] or skycell.ny != cells[1] or min(skycell.nx, skycell.ny) <= OVERLAP:
        raise ValueError(
            f"row {row} of the skycell catalog, {name}, has NAXIS1, NAXIS2 = {cells[0]:g}, {cells[1]:g}; they must "
            f"be whole numbers above the {OVERLAP} px by which skycells overlap"
        )
    if not -90 <= skycell.crval2 <= 90:
        raise ValueError(
            f"row {row} of the skycell catalog, {name}, has CRVAL2 = {skycell.crval2}; a declination is from -90 to 90"
        )
    if not abs(np.linalg.det(skycell_cd(skycell))) > 0:
        raise ValueError(
            f"row {row} of the skycell catalog, {name}, has a singular matrix of CDELT and PC, so that its pixels "
            "have no area; correct these columns"
        )
    return skycell


def _cube_keys(vectors, side):
    # Coordinates are in [-1, 1], so each index has 1 + 2/side values.
    indices = np.floor((vectors + 1) / side).astype(np.int64)
    base = int(2 / side) + 2
    return (indices[:, 0] * base + indices[:, 1]) * base + indices[:, 2]


@numba.njit(cache=True, nogil=True)
def _deepest(vectors, cube_of, starts, candidates, to_pixel, frames):
    owners = np.full(len(vectors), -1, np.int64)
    for n in range(len(vectors)):
        x, y, z = vectors[n, 0], vectors[n, 1], vectors[n, 2]
        deepest = 0.0
        for k in range(starts[cube_of[n]], starts[cube_of[n] + 1]):
            number = candidates[k]
            matrix = to_pixel[number]
            w = matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2] * z
            if not w > 0:
                continue
            px = (matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] * z) / w
            py = (matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] * z) / w
            inside = min(px + 0.5, frames[number, 0] - 0.5 - px, py + 0.5, frames[number, 1] - 0.5 - py)
            if inside * frames[number, 2] > deepest:
                deepest = inside * frames[number, 2]
                owners[n] = number
    return owners
