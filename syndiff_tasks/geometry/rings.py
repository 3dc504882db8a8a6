"""The PS1 tessellation ``rings.v3``: 200,900 skycells, computed from one table of rings of declination."""

import functools
import math
from typing import NamedTuple

import numba
import numpy as np
from scipy.spatial import cKDTree

from .skycell import (
    GRID,
    MARGIN,
    OVERLAP,
    Skycell,
    parse_skycell_name,
    skycell_center,
    skycell_to_vector,
    vector_to_skycell,
)
from .tangent import chord, unit_vectors
from .tessellation import Tessellation

CDELT = float(np.float32(0.25 / 3600))  # [deg], in single precision as in real headers (docs/facts.md §1)


class Ring(NamedTuple):
    """Row of the ring table: the projections centered on one declination. Angles [deg], sizes [native px]."""

    first: int
    count: int
    dec: float
    dec_min: float
    dec_max: float
    nx: int
    ny: int
    crpix1: float
    crpix2: float


# Zones 15 to 45 of the table published by PS1 (docs/facts.md §1): PROJCELL, NBAND, DEC, DEC_MIN, DEC_MAX, XCELL, YCELL,
# CRPIX1, CRPIX2. The two rings south of them were not observed.
RINGS = tuple(
    Ring(*row)
    for row in (
        (635, 79, -30.0, -31.988947843740302, -27.990585819085737, 6274, 6269, 239.5, 241.5),
        (714, 82, -26.0, -27.990585819085737, -23.991856317278298, 6255, 6265, 241.5, 240.5),
        (796, 84, -22.0, -23.991856317278298, -19.99333106003115, 6279, 6261, 241.0, 242.0),
        (880, 86, -18.0, -19.99333106003115, -15.994464100667857, 6274, 6258, 241.5, 238.0),
        (966, 88, -14.0, -15.994464100667857, -11.995671545879146, 6242, 6254, 240.5, 239.5),
        (1054, 89, -10.0, -11.995671545879146, -7.997014822849273, 6248, 6250, 240.0, 242.0),
        (1143, 89, -6.0, -7.997014822849273, -3.998086931795508, 6291, 6247, 237.5, 240.0),
        (1232, 90, -2.0, -3.998086931795508, 1.3877787807814457e-17, 6240, 6243, 240.0, 242.0),
        (1322, 90, 2.0, 1.3877787807814457e-17, 3.998086931795508, 6240, 6243, 240.0, 242.0),
        (1412, 89, 6.0, 3.998086931795508, 7.997014822849273, 6291, 6247, 237.5, 240.0),
        (1501, 89, 10.0, 7.997014822849273, 11.995671545879146, 6248, 6250, 240.0, 242.0),
        (1590, 88, 14.0, 11.995671545879146, 15.994464100667857, 6242, 6254, 240.5, 239.5),
        (1678, 86, 18.0, 15.994464100667857, 19.99333106003115, 6274, 6258, 241.5, 238.0),
        (1764, 84, 22.0, 19.99333106003115, 23.991856317278298, 6279, 6261, 241.0, 242.0),
        (1848, 82, 26.0, 23.991856317278298, 27.990585819085737, 6255, 6265, 241.5, 240.5),
        (1930, 79, 30.0, 27.990585819085737, 31.988947843740302, 6274, 6269, 239.5, 241.5),
        (2009, 76, 34.0, 31.988947843740302, 35.98748871852416, 6265, 6274, 237.5, 237.5),
        (2085, 72, 38.0, 35.98748871852416, 39.98569922229713, 6305, 6279, 239.5, 238.0),
        (2157, 68, 42.0, 39.98569922229713, 43.98384988850235, 6320, 6284, 239.5, 240.0),
        (2225, 64, 46.0, 43.98384988850235, 47.98179099058205, 6307, 6289, 238.0, 242.0),
        (2289, 60, 50.0, 47.98179099058205, 51.97972846465295, 6261, 6295, 241.0, 239.5),
        (2349, 55, 54.0, 51.97972846465295, 55.97676677254534, 6283, 6302, 239.0, 242.0),
        (2404, 50, 58.0, 55.97676677254534, 59.97411834356914, 6278, 6311, 238.5, 237.5),
        (2454, 45, 62.0, 59.97411834356914, 63.97005521318337, 6240, 6319, 240.0, 241.0),
        (2499, 39, 66.0, 63.97005521318337, 67.96475284198297, 6307, 6333, 239.5, 240.0),
        (2538, 33, 70.0, 67.96475284198297, 71.95817764373305, 6365, 6350, 238.5, 240.0),
        (2571, 27, 74.0, 71.95817764373305, 75.94974140116577, 6413, 6371, 240.5, 242.0),
        (2598, 21, 78.0, 75.94974140116577, 79.93968190571101, 6452, 6398, 240.0, 242.0),
        (2619, 15, 82.0, 79.93968190571101, 83.93610604798963, 6481, 6429, 241.0, 242.0),
        (2634, 9, 86.0, 83.93610604798963, 87.96940975734594, 6501, 6419, 239.0, 239.5),
        (2643, 1, 90.0, 87.96940975734594, 90.0001, 6240, 6240, 239.5, 240.0),
    )
)
FIRST_PROJECTION = RINGS[0].first
LAST_PROJECTION = RINGS[-1].first


@functools.lru_cache(maxsize=65536)  # the thousands of FFIs of a sector use the same skycells
def ring_skycell(projection, cell):
    """Compute a skycell of rings.v3 from the ring table.

    Parameters
    ----------
    projection, cell : int
        635..2643 and 0..99.

    Returns
    -------
    Skycell

    Raises
    ------
    ValueError
        If rings.v3 has no such skycell.

    Notes
    -----
    The reference right ascension is computed in single precision, as PS1 did; in double precision it differs by up to
    0.087 arcsec (docs/facts.md §1).
    """
    name = f"skycell.{projection:04d}.{cell:03d}"
    if not (FIRST_PROJECTION <= projection <= LAST_PROJECTION and 0 <= cell < GRID * GRID):
        raise ValueError(
            f"{name} is not in PS1 rings.v3, which has projections {FIRST_PROJECTION:04d}..{LAST_PROJECTION} and "
            "skycells 000..099 in each; check the name"
        )
    ring = _ring_of(projection)
    row, column = divmod(cell, GRID)
    return Skycell(
        name=name,
        nx=ring.nx,
        ny=ring.ny,
        crval1=float(np.float32(projection - ring.first) * np.float32(360 / ring.count)),
        crval2=ring.dec,
        crpix1=ring.crpix1 + (GRID // 2 - column) * (ring.nx - OVERLAP),
        crpix2=ring.crpix2 + (GRID // 2 - row) * (ring.ny - OVERLAP),
        cdelt1=CDELT,
        cdelt2=CDELT,
        pc1_1=-1.0,
        pc1_2=0.0,
        pc2_1=0.0,
        pc2_2=1.0,
    )


def _ring_of(projection):
    return next(ring for ring in reversed(RINGS) if ring.first <= projection)


class RingsV3(Tessellation):
    """Tessellation rings.v3; an id is 100 times the projection plus the cell.

    PS1 defines the owner of a position by the ring that contains its declination, on it the projection nearest in right
    ascension, and in its tangent plane the skycell with the position in its core, 240 px inside the edge of the image
    (docs/facts.md §1). The cores of adjacent rings leave narrow gaps. There the owner is the skycell, of this
    projection or an adjacent one, with its core nearest to the position.
    """

    size = (LAST_PROJECTION + 1) * GRID * GRID
    largest_radius = max(math.hypot(ring.nx, ring.ny) for ring in RINGS) / 2 * CDELT

    def __init__(self):
        numbers = range(FIRST_PROJECTION, LAST_PROJECTION + 1)
        self._edges = np.sin(np.radians([ring.dec_min for ring in RINGS]))
        self._counts = np.array([ring.count for ring in RINGS])
        self._firsts = np.array([ring.first for ring in RINGS]) - FIRST_PROJECTION
        self._walls = np.array([self._projection_walls(number) for number in numbers])
        self._to_grid = np.array([self._grid_matrix(number) for number in numbers])

    @staticmethod
    def _projection_walls(number):
        # Inward normals of the two meridians that bound a projection. The polar projection has none.
        ring = _ring_of(number)
        if ring.count == 1:
            return 0.0, 0.0, 0.0, 0.0
        west, east = (2 * math.pi * (number - ring.first + side) / ring.count for side in (-0.5, 0.5))
        return -math.sin(west), math.cos(west), math.sin(east), -math.cos(east)

    @staticmethod
    def _grid_matrix(number):
        # The pixel grid of the projection begins at skycell 0, and its first core half an overlap later. Unit: cores.
        first = ring_skycell(number, 0)
        to_cores = np.diag([1 / (first.nx - OVERLAP), 1 / (first.ny - OVERLAP), 1])
        to_cores[:2, 2] = np.diag(to_cores)[:2] * (0.5 - OVERLAP / 2)
        return to_cores @ vector_to_skycell(first)

    def skycell(self, name):
        """See `Tessellation.skycell`."""
        return ring_skycell(*parse_skycell_name(name))

    def name_of(self, number):
        """See `Tessellation.name_of`."""
        return ring_skycell(*divmod(int(number), GRID * GRID)).name

    def owner_of_vectors(self, vectors):
        """See `Tessellation.owner_of_vectors`."""
        vectors = np.ascontiguousarray(vectors, np.float64)
        return _ring_owners(vectors, self._edges, self._counts, self._firsts, self._walls, self._to_grid)

    def margin(self, skycell):
        """See `Tessellation.margin`; it is less than `MARGIN` near Dec 87.97, where the last two rings meet."""
        return _margin_near_pole(skycell) if _ring_of(int(skycell.projection)) in RINGS[-2:] else MARGIN

    @functools.cached_property
    def _projections(self):
        firsts = [ring_skycell(number, 0) for number in range(FIRST_PROJECTION, LAST_PROJECTION + 1)]
        return cKDTree(unit_vectors([c.crval1 for c in firsts], [c.crval2 for c in firsts]))

    def near(self, vector, angle):
        """See `Tessellation.near`."""
        # Centers of skycells are at most 3.2 degrees from the center of their projection.
        indices = self._projections.query_ball_point(vector, chord(angle + 3.2))
        skycells = (ring_skycell(FIRST_PROJECTION + i, cell) for i in sorted(indices) for cell in range(GRID * GRID))
        return [skycell for skycell in skycells if skycell_center(skycell) @ vector >= math.cos(math.radians(angle))]


@functools.cache
def _margin_near_pole(skycell):
    # On a grid of 16 px around the core, out to 480 px: the owner rule gives a skycell sky up to 450 px beyond it.
    step, beyond, sliver = 16, 480, 31
    x, y = np.meshgrid(np.arange(-beyond, skycell.nx + beyond, step), np.arange(-beyond, skycell.ny + beyond, step))
    inside = np.minimum(np.minimum(x, skycell.nx - 1 - x), np.minimum(y, skycell.ny - 1 - y))
    about = inside < MARGIN
    vectors = np.column_stack([x[about], y[about], np.ones(about.sum())]) @ skycell_to_vector(skycell).T
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    tessellation = rings_v3()
    owned = tessellation.owner_of_vectors(vectors) == int(skycell.projection) * GRID * GRID + skycell.cell
    least = float(np.min(inside[about][owned], initial=MARGIN)) - step
    return least if least < MARGIN - sliver else MARGIN


@functools.cache
def rings_v3():
    """Return the tessellation rings.v3, with all 200,900 skycells.

    Returns
    -------
    Tessellation
    """
    return RingsV3()


@numba.njit(cache=True, nogil=True)
def _ring_owners(vectors, edges, counts, firsts, walls, to_grid):
    owners = np.empty(len(vectors), np.int64)
    ring, projection, column, row = 0, 0, -1.0, -1.0
    for n in range(len(vectors)):
        x, y, z = vectors[n, 0], vectors[n, 1], vectors[n, 2]
        # Most positions are in the same core as the previous one, which a few products show.
        if _in_projection(x, y, z, edges, ring, walls[projection]):
            grid = to_grid[projection]
            w = grid[2, 0] * x + grid[2, 1] * y + grid[2, 2] * z
            gx = grid[0, 0] * x + grid[0, 1] * y + grid[0, 2] * z
            gy = grid[1, 0] * x + grid[1, 1] * y + grid[1, 2] * z
            if column * w <= gx < (column + 1) * w and row * w <= gy < (row + 1) * w:
                owners[n] = owners[n - 1]
                continue
        column = -1.0
        found = np.searchsorted(edges, z, side="right") - 1
        # NaN sorts last and has no owner.
        if found < 0 or math.isnan(z):
            owners[n] = -1
            continue
        ring = found
        projection = _nearest_projection(x, y, counts[ring], firsts[ring])
        gx, gy = _grid_position(to_grid[projection], x, y, z)
        if 0 <= gx < GRID and 0 <= gy < GRID:
            column, row = math.floor(gx), math.floor(gy)
            owners[n] = ((FIRST_PROJECTION + projection) * GRID + int(row)) * GRID + int(column)
        else:
            owners[n] = _outside_cores(x, y, z, ring, counts, firsts, to_grid)
    return owners


@numba.njit(cache=True, nogil=True)
def _in_projection(x, y, z, edges, ring, wall):
    in_ring = edges[ring] <= z and (ring == len(edges) - 1 or z < edges[ring + 1])
    return in_ring and wall[0] * x + wall[1] * y >= 0 and wall[2] * x + wall[3] * y >= 0


@numba.njit(cache=True, nogil=True)
def _nearest_projection(x, y, count, first):
    turn = math.atan2(y, x) / (2 * math.pi)
    return first + int(math.floor(turn * count + 0.5)) % count


@numba.njit(cache=True, nogil=True)
def _grid_position(matrix, x, y, z):
    w = matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2] * z
    gx = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] * z
    gy = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] * z
    return gx / w, gy / w


@numba.njit(cache=True, nogil=True)
def _outside_cores(x, y, z, ring, counts, firsts, to_grid):
    # The cores of a projection leave gaps in its ring, some 30 px wide, and 450 px near the pole, where the image ends
    # after 240 px: the image of an adjacent projection may extend farther. (At Dec 87.97 and RA 0 or 180 no image
    # covers a patch of 200 px. Its owner is the nearest skycell, and the coverage of the template shows the hole.)
    owner, deepest = -1, -math.inf
    for other in range(max(ring - 1, 0), min(ring + 2, len(counts))):
        nearest = _nearest_projection(x, y, counts[other], firsts[other]) - firsts[other]
        for step in range(-1, 2):
            projection = firsts[other] + (nearest + step) % counts[other]
            matrix = to_grid[projection]
            # In a ring with few projections an adjacent one can be behind the plane of projection.
            if matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2] * z < 0.5:
                continue
            gx, gy = _grid_position(matrix, x, y, z)
            column = min(max(math.floor(gx), 0.0), GRID - 1.0)
            row = min(max(math.floor(gy), 0.0), GRID - 1.0)
            # In units of cores: their sizes differ by 4 % from ring to ring, as much as the scale in the plane varies.
            inside = min(gx - column, column + 1 - gx, gy - row, row + 1 - gy)
            if inside > deepest:
                deepest = inside
                owner = ((FIRST_PROJECTION + projection) * GRID + int(row)) * GRID + int(column)
    return owner
