"""The PS1 skycells: their names, their world coordinates, and who owns a sky position.

The survey's tessellation ``rings.v3`` follows from one table of rings of declination; a user's own catalogue of
skycells can take its place. Positions are ICRS = FK5/J2000 here: PS1 labels its images FK5, but its astrometry hangs on
catalogues in the ICRS, and the two frames differ by some 20 mas, 0.001 TESS pixels.
"""

import functools
import math
import re
from typing import NamedTuple

import numba
import numpy as np
import pandas as pd
from astropy.wcs import WCS
from scipy.spatial import cKDTree

OVERLAP = 480  # native px by which neighbouring skycells of a projection overlap (facts.md section 1)
GRID = 10  # skycells along each axis of a projection
MARGIN = OVERLAP / 2  # native px by which an image goes on beyond the core that it owns, on each side
CDELT = float(np.float32(0.25 / 3600))  # [deg] as real headers have it
LONPOLE = 180.0  # the FITS default would be 0 for the polar projection, which turns it by 180 degrees
COLUMNS = (
    "NAME", "NAXIS1", "NAXIS2", "CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2", "CDELT1", "CDELT2",
    "PC1_1", "PC1_2", "PC2_1", "PC2_2",
)  # fmt: skip
NAME = re.compile(r"skycell\.(\d{4})\.0(\d{2})", re.ASCII)


class Ring(NamedTuple):
    """One row of the ring table: all projections centred on one declination [deg, native px]."""

    first: int
    count: int
    dec: float
    dec_min: float
    dec_max: float
    nx: int
    ny: int
    crpix1: float
    crpix2: float


# Zones 15 to 45 of the survey's own table (PROJCELL, NBAND, DEC, DEC_MIN, DEC_MAX, XCELL, YCELL, CRPIX1, CRPIX2); the
# two rings south of them were never observed.
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


class Skycell(NamedTuple):
    """One PS1 skycell and its TAN world coordinates, as FITS writes them (`crpix` 1-based, angles in degrees)."""

    name: str
    nx: int
    ny: int
    crval1: float
    crval2: float
    crpix1: float
    crpix2: float
    cdelt1: float
    cdelt2: float
    pc1_1: float
    pc1_2: float
    pc2_1: float
    pc2_2: float

    @property
    def projection(self):
        """Projection cell with its leading zeros, ``"0812"``."""
        return self.name[8:12]

    @property
    def cell(self):
        """Number of the skycell in its projection, 0..99."""
        return int(self.name[13:])

    @property
    def corner(self):
        """Index (gx, gy) of the first pixel in the pixel grid that the whole projection shares."""
        row, column = divmod(self.cell, GRID)
        return column * (self.nx - OVERLAP), row * (self.ny - OVERLAP)


def parse_name(text):
    """Split the name of a skycell.

    Parameters
    ----------
    text : str
        For example ``skycell.0812.050``.

    Returns
    -------
    projection, cell : int

    Raises
    ------
    ValueError
        If `text` is not the full name of a skycell.
    """
    match = NAME.fullmatch(str(text))
    if not match:
        raise ValueError(
            f"{text!r} is not the name of a skycell; write it as skycell.PPPP.CCC with all its zeros and CCC from 000 "
            "to 099, for example skycell.0812.050"
        )
    return int(match[1]), int(match[2])


@functools.lru_cache(maxsize=65536)  # shared by the thousands of FFIs of a sector, and asked for again and again
def ring_skycell(projection, cell):
    """Skycell of the survey's tessellation, computed from the ring table.

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
        If the survey has no such skycell.

    Notes
    -----
    The reference right ascension is a product in single precision because the survey's own program computes it so; in
    double precision it is off by up to 0.087 arcsec (facts.md section 1).
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


def wcs_keywords(skycell):
    """FITS world coordinate keywords of a skycell.

    Parameters
    ----------
    skycell : Skycell

    Returns
    -------
    dict
        Keyword to value, LONPOLE and LATPOLE included: see `LONPOLE`.
    """
    return {
        "WCSAXES": 2,
        "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN",
        "CUNIT1": "deg",
        "CUNIT2": "deg",
        "CRVAL1": skycell.crval1,
        "CRVAL2": skycell.crval2,
        "CRPIX1": skycell.crpix1,
        "CRPIX2": skycell.crpix2,
        "CDELT1": skycell.cdelt1,
        "CDELT2": skycell.cdelt2,
        "PC1_1": skycell.pc1_1,
        "PC1_2": skycell.pc1_2,
        "PC2_1": skycell.pc2_1,
        "PC2_2": skycell.pc2_2,
        "LONPOLE": LONPOLE,
        "LATPOLE": skycell.crval2,
        "RADESYS": "FK5",
        "EQUINOX": 2000.0,
    }


def wcs(skycell):
    """World coordinates of a skycell for astropy.

    Parameters
    ----------
    skycell : Skycell

    Returns
    -------
    astropy.wcs.WCS
    """
    result = WCS(wcs_keywords(skycell))
    result.array_shape = (skycell.ny, skycell.nx)
    return result


def unit_vectors(ra, dec):
    """Convert sky positions to unit vectors.

    Parameters
    ----------
    ra, dec : array_like of float, shape (...)
        Degrees.

    Returns
    -------
    ndarray of float64, shape (..., 3)
    """
    ra, dec = np.broadcast_arrays(np.radians(np.asarray(ra, float)), np.radians(np.asarray(dec, float)))
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)


def positions(vectors):
    """Sky positions of vectors of any length.

    Parameters
    ----------
    vectors : array_like of float, shape (..., 3)

    Returns
    -------
    ra, dec : ndarray of float64, shape (...)
        Degrees, `ra` in [0, 360).
    """
    x, y, z = np.moveaxis(np.asarray(vectors, float), -1, 0)
    ra = np.degrees(np.arctan2(y, x)) % 360
    # A tiny negative angle is rounded up to 360 itself by the remainder.
    return np.where(ra >= 360, 0.0, ra), np.degrees(np.arctan2(z, np.hypot(x, y)))


def tangent_frame(ra, dec, lonpole=LONPOLE):
    """Axes of the gnomonic projection about a sky position.

    Parameters
    ----------
    ra, dec : float
        Reference position CRVAL [deg].
    lonpole : float, optional
        LONPOLE [deg]; 180 means that the second axis points north.

    Returns
    -------
    ndarray of float64, shape (3, 3)
        Rows: unit vectors of the first axis, the second axis and the reference position. ``frame @ vector`` is
        proportional to (xi, eta, 1) with xi, eta the projection plane coordinates in radians.

    Notes
    -----
    Calabretta & Greisen 2002, A&A 395, 1077, equations 2, 12, 13 and 54 for the TAN projection.
    """
    sin_ra, cos_ra = math.sin(math.radians(ra)), math.cos(math.radians(ra))
    sin_dec, cos_dec = math.sin(math.radians(dec)), math.cos(math.radians(dec))
    east = np.array([-sin_ra, cos_ra, 0.0])
    north = np.array([-sin_dec * cos_ra, -sin_dec * sin_ra, cos_dec])
    turn = math.radians(lonpole - 180)
    first = math.cos(turn) * east - math.sin(turn) * north
    second = math.sin(turn) * east + math.cos(turn) * north
    return np.array([first, second, [cos_dec * cos_ra, cos_dec * sin_ra, sin_dec]])


def pixel_to_plane(cd, crpix1, crpix2):
    """Matrix from pixels to the projection plane.

    Parameters
    ----------
    cd : array_like of float, shape (2, 2)
        Degrees per pixel.
    crpix1, crpix2 : float
        Reference pixel, 1-based.

    Returns
    -------
    ndarray of float64, shape (3, 3)
        Takes (x, y, 1), 0-based, to (xi, eta, 1) in radians.
    """
    matrix = np.identity(3)
    matrix[:2, :2] = np.radians(cd)
    matrix[:2, 2] = -matrix[:2, 0] * (crpix1 - 1) - matrix[:2, 1] * (crpix2 - 1)
    return matrix


def plane_to_pixel(cd, crpix1, crpix2):
    """Matrix from the projection plane to pixels, the inverse of `pixel_to_plane`.

    Parameters
    ----------
    cd, crpix1, crpix2
        As for `pixel_to_plane`.

    Returns
    -------
    ndarray of float64, shape (3, 3)
        Takes (xi, eta, 1) in radians to (x, y, 1), 0-based.
    """
    (a, b), (c, d) = np.radians(cd)
    return np.array([[d, -b, 0], [-c, a, 0], [0, 0, 0]]) / (a * d - b * c) + np.array(
        [[0, 0, crpix1 - 1], [0, 0, crpix2 - 1], [0, 0, 1]]
    )


def product(left, right):
    """Product of two matrices whose last bit does not depend on the processor, as a library of linear algebra's does.

    Templates are to be the same to the last bit on every host, and all that they know of the sky goes through these.

    Parameters
    ----------
    left, right : ndarray of float64, shapes (i, j), (j, k)

    Returns
    -------
    ndarray of float64, shape (i, k)
    """
    return (left[:, :, None] * right).sum(axis=1)


def skycell_cd(skycell):
    """CD matrix of a skycell.

    Parameters
    ----------
    skycell : Skycell

    Returns
    -------
    ndarray of float64, shape (2, 2)
        Degrees per pixel.
    """
    return np.array(
        [
            [skycell.cdelt1 * skycell.pc1_1, skycell.cdelt1 * skycell.pc1_2],
            [skycell.cdelt2 * skycell.pc2_1, skycell.cdelt2 * skycell.pc2_2],
        ]
    )


def pixel_to_vector(skycell):
    """Matrix from the pixels of a skycell to the sky.

    Parameters
    ----------
    skycell : Skycell

    Returns
    -------
    ndarray of float64, shape (3, 3)
        Takes (x, y, 1), 0-based, to a vector along the sky position.
    """
    frame = tangent_frame(skycell.crval1, skycell.crval2)
    return product(frame.T, pixel_to_plane(skycell_cd(skycell), skycell.crpix1, skycell.crpix2))


def vector_to_pixel(skycell):
    """Matrix from the sky to the pixels of a skycell.

    Parameters
    ----------
    skycell : Skycell

    Returns
    -------
    ndarray of float64, shape (3, 3)
        Takes a vector to (x w, y w, w), x and y 0-based; w is positive in the hemisphere about the reference position
        and the projection means nothing elsewhere.
    """
    to_pixel = plane_to_pixel(skycell_cd(skycell), skycell.crpix1, skycell.crpix2)
    return product(to_pixel, tangent_frame(skycell.crval1, skycell.crval2))


def centre_vector(skycell):
    """Vector to the centre of a skycell's image.

    Parameters
    ----------
    skycell : Skycell

    Returns
    -------
    ndarray of float64, shape (3,)
        Of length one.
    """
    vector = pixel_to_vector(skycell) @ ((skycell.nx - 1) / 2, (skycell.ny - 1) / 2, 1)
    return vector / np.linalg.norm(vector)


def radius(skycell):
    """Angle from the centre of a skycell to its corners.

    Parameters
    ----------
    skycell : Skycell

    Returns
    -------
    float
        Degrees. Measured in the projection plane, where it is never smaller than on the sky.
    """
    cd = skycell_cd(skycell)
    return max(math.hypot(*(cd @ (skycell.nx / 2, sign * skycell.ny / 2))) for sign in (-1, 1))


class Tessellation:
    """A set of skycells, and the one skycell that owns each position of the sky.

    An *id* is a whole number from 0 to ``size - 1``; not every number need be a skycell. No corner of a skycell lies
    further from its centre than `largest_radius` [deg].
    """

    size: int
    largest_radius: float

    def skycell(self, name):
        """Skycell of a name.

        Parameters
        ----------
        name : str

        Returns
        -------
        Skycell

        Raises
        ------
        ValueError
            If there is no such skycell.
        """
        raise NotImplementedError

    def name_of(self, number):
        """Name of a skycell.

        Parameters
        ----------
        number : int
            Its id.

        Returns
        -------
        str
        """
        raise NotImplementedError

    def owner_of_vectors(self, vectors):
        """Owner of each sky position.

        Parameters
        ----------
        vectors : ndarray of float64, shape (n, 3)
            Unit vectors.

        Returns
        -------
        ndarray of int64, shape (n,)
            Ids; -1 where no skycell owns the position.
        """
        raise NotImplementedError

    def near(self, vector, angle):
        """Skycells with their centre near a sky position.

        Parameters
        ----------
        vector : ndarray of float64, shape (3,)
            Unit vector.
        angle : float
            Largest distance of the centre [deg].

        Returns
        -------
        list of Skycell
            Sorted by name.
        """
        raise NotImplementedError

    def margin(self, skycell):
        """Native px by which the image of a skycell goes on beyond all that it owns, on the side where that is least.

        Parameters
        ----------
        skycell : Skycell

        Returns
        -------
        float
            `MARGIN`, or less; negative where a skycell owns sky beyond its image. A user's table is taken to be laid
            out as the survey's. The slivers of up to 31 px between projections are left out of account.
        """
        return MARGIN

    def owner(self, ra, dec):
        """Owner of each sky position.

        Parameters
        ----------
        ra, dec : array_like of float, shape (...)
            Degrees.

        Returns
        -------
        ndarray of int64, shape (...)
            Ids; -1 where no skycell owns the position.
        """
        vectors = unit_vectors(ra, dec)
        return self.owner_of_vectors(vectors.reshape(-1, 3)).reshape(vectors.shape[:-1])


class RingsV3(Tessellation):
    """The survey's tessellation rings.v3; an id is 100 times the projection plus the cell.

    The owner is found by the survey's rule: the ring that holds the declination, on it the projection nearest in right
    ascension, in its plane the skycell whose core, 240 px inside its image, holds the position. In the slivers between
    the rings that no such core holds, it is the skycell of this or a neighbouring projection that goes on furthest.
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
        # Normals, pointing inwards, of the two meridians that bound a projection; the single one of the pole has none.
        ring = _ring_of(number)
        if ring.count == 1:
            return 0.0, 0.0, 0.0, 0.0
        west, east = (2 * math.pi * (number - ring.first + side) / ring.count for side in (-0.5, 0.5))
        return -math.sin(west), math.cos(west), math.sin(east), -math.cos(east)

    @staticmethod
    def _grid_matrix(number):
        # Skycell 0 starts the projection's pixel grid; half an overlap further starts the first core. Unit: cores.
        first = ring_skycell(number, 0)
        to_cores = np.diag([1 / (first.nx - OVERLAP), 1 / (first.ny - OVERLAP), 1])
        to_cores[:2, 2] = np.diag(to_cores)[:2] * (0.5 - OVERLAP / 2)
        return to_cores @ vector_to_pixel(first)

    def skycell(self, name):
        """See `Tessellation.skycell`."""
        return ring_skycell(*parse_name(name))

    def name_of(self, number):
        """See `Tessellation.name_of`."""
        return ring_skycell(*divmod(int(number), GRID * GRID)).name

    def owner_of_vectors(self, vectors):
        """See `Tessellation.owner_of_vectors`."""
        vectors = np.ascontiguousarray(vectors, np.float64)
        return _ring_owners(vectors, self._edges, self._counts, self._firsts, self._walls, self._to_grid)

    def margin(self, skycell):
        """See `Tessellation.margin`; it is less than the usual around Dec 87.97, where the last two rings meet."""
        return _margin_near_pole(skycell) if _ring_of(int(skycell.projection)) in RINGS[-2:] else MARGIN

    @functools.cached_property
    def _projections(self):
        firsts = [ring_skycell(number, 0) for number in range(FIRST_PROJECTION, LAST_PROJECTION + 1)]
        return cKDTree(unit_vectors([c.crval1 for c in firsts], [c.crval2 for c in firsts]))

    def near(self, vector, angle):
        """See `Tessellation.near`."""
        # No centre of a skycell lies further than 3.2 degrees from the middle of its projection.
        indices = self._projections.query_ball_point(vector, _chord(angle + 3.2))
        skycells = (ring_skycell(FIRST_PROJECTION + i, cell) for i in sorted(indices) for cell in range(GRID * GRID))
        return [skycell for skycell in skycells if centre_vector(skycell) @ vector >= math.cos(math.radians(angle))]


class Catalogue(Tessellation):
    """Skycells of a user's table; an id is the row. The owner is the skycell in which the position lies deepest."""

    def __init__(self, skycells):
        self._skycells = tuple(skycells)
        self._index = {skycell.name: number for number, skycell in enumerate(self._skycells)}
        self.size = len(self._skycells)
        self.largest_radius = max(map(radius, self._skycells))
        self._centres = cKDTree([centre_vector(skycell) for skycell in self._skycells])
        self._to_pixel = np.array([vector_to_pixel(skycell) for skycell in self._skycells])
        scales = [math.sqrt(abs(np.linalg.det(skycell_cd(skycell)))) for skycell in self._skycells]
        self._frames = np.array([(c.nx, c.ny, scale) for c, scale in zip(self._skycells, scales, strict=True)])

    def skycell(self, name):
        """See `Tessellation.skycell`."""
        if name not in self._index:
            raise ValueError(f"{name!r} is not in the skycell catalogue of {self.size} rows; add it, or check the name")
        return self._skycells[self._index[name]]

    def name_of(self, number):
        """See `Tessellation.name_of`."""
        return self._skycells[number].name

    def owner_of_vectors(self, vectors):
        """See `Tessellation.owner_of_vectors`."""
        vectors = np.ascontiguousarray(vectors, np.float64)
        if not len(vectors):
            return np.empty(0, np.int64)
        # Positions in one small cube of space share their candidates, so that the tree is asked once a cube.
        side = _chord(self.largest_radius) / 2
        cubes, cube_of = np.unique(_cube_keys(vectors, side), return_inverse=True)
        first_of = np.zeros(len(cubes), np.int64)
        first_of[cube_of] = np.arange(len(vectors))
        # Any position of the cube is at most its diagonal from this one.
        reach = _chord(self.largest_radius) + math.sqrt(3) * side
        candidates = self._centres.query_ball_point(vectors[first_of], reach, return_sorted=True)
        starts = np.cumsum([0, *map(len, candidates)])
        flat = np.concatenate([np.asarray(c, np.int64) for c in candidates])
        return _deepest(vectors, cube_of, starts, flat, self._to_pixel, self._frames)

    def near(self, vector, angle):
        """See `Tessellation.near`."""
        found = self._centres.query_ball_point(vector, _chord(angle))
        return sorted(self._skycells[number] for number in found)


@functools.cache
def _margin_near_pole(skycell):
    # On a lattice of 16 px about the core, as far out as the survey's rule gives sky to a skycell (450 px).
    step, beyond, sliver = 16, 480, 31
    x, y = np.meshgrid(np.arange(-beyond, skycell.nx + beyond, step), np.arange(-beyond, skycell.ny + beyond, step))
    inside = np.minimum(np.minimum(x, skycell.nx - 1 - x), np.minimum(y, skycell.ny - 1 - y))
    about = inside < MARGIN
    vectors = np.column_stack([x[about], y[about], np.ones(about.sum())]) @ pixel_to_vector(skycell).T
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    tessellation = rings_v3()
    owned = tessellation.owner_of_vectors(vectors) == int(skycell.projection) * GRID * GRID + skycell.cell
    least = float(np.min(inside[about][owned], initial=MARGIN)) - step
    return least if least < MARGIN - sliver else MARGIN


@functools.cache
def rings_v3():
    """Tessellation of the survey, all 200,900 skycells.

    Returns
    -------
    Tessellation
    """
    return RingsV3()


def catalogue(table):
    """Tessellation of a user's own table.

    Parameters
    ----------
    table : pandas.DataFrame
        One row a skycell with the columns of `COLUMNS`; others are left alone.

    Returns
    -------
    Tessellation

    Raises
    ------
    ValueError
        If a column is missing, a cell is not a number, a name is malformed or stands twice, or a skycell has no size.
    """
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise ValueError(
            f"the skycell catalogue has no column {', '.join(missing)}; it needs {', '.join(COLUMNS)}, "
            f"and has {', '.join(map(str, table.columns))}"
        )
    if table.empty:
        raise ValueError("the skycell catalogue has no rows; give it one row a skycell")
    numbers = [_numbers(table, name) for name in COLUMNS[1:]]
    skycells = [
        _catalogue_skycell(row, name, cells)
        for row, (name, *cells) in enumerate(zip(table["NAME"], *numbers, strict=True))
    ]
    twice = table["NAME"][table["NAME"].duplicated()]
    if len(twice):
        raise ValueError(f"the skycell catalogue has {twice.iloc[0]} twice; keep one row for each skycell")
    return Catalogue(skycells)


def _numbers(table, name):
    # Booleans count as numbers for pandas; in a coordinate they are a sign of a broken table.
    column = table[name]
    values = pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    bad = ~np.isfinite(values) | column.map(lambda cell: isinstance(cell, (bool, np.bool_))).to_numpy(bool)
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(
            f"row {row} of the skycell catalogue has {name} = {str(column.iloc[row])[:40]!r}, which is not a finite "
            "number; correct the cell"
        )
    return values.tolist()


def _catalogue_skycell(row, name, cells):
    parse_name(name)
    skycell = Skycell(name, int(cells[0]), int(cells[1]), *cells[2:])
    if skycell.nx != cells[0] or skycell.ny != cells[1] or min(skycell.nx, skycell.ny) <= OVERLAP:
        raise ValueError(
            f"row {row} of the skycell catalogue, {name}, has NAXIS1, NAXIS2 = {cells[0]:g}, {cells[1]:g}; they must "
            f"be whole numbers above the {OVERLAP} px by which skycells overlap"
        )
    if not -90 <= skycell.crval2 <= 90:
        raise ValueError(f"row {row} of the skycell catalogue, {name}, has CRVAL2 = {skycell.crval2}, no declination")
    if not abs(np.linalg.det(skycell_cd(skycell))) > 0:
        raise ValueError(
            f"row {row} of the skycell catalogue, {name}, has a singular matrix of CDELT and PC, so its pixels have no "
            "area; correct these columns"
        )
    return skycell


def _chord(angle):
    return 2 * math.sin(math.radians(min(angle, 180)) / 2)


def _cube_keys(vectors, side):
    # Coordinates lie in [-1, 1], so each index needs 1 + 2/side values.
    indices = np.floor((vectors + 1) / side).astype(np.int64)
    base = int(2 / side) + 2
    return (indices[:, 0] * base + indices[:, 1]) * base + indices[:, 2]


@numba.njit(cache=True, nogil=True)
def _ring_owners(vectors, edges, counts, firsts, walls, to_grid):
    owners = np.empty(len(vectors), np.int64)
    ring, projection, column, row = 0, 0, -1.0, -1.0
    for n in range(len(vectors)):
        x, y, z = vectors[n, 0], vectors[n, 1], vectors[n, 2]
        # Most positions lie in the same core as the one before them, which three comparisons of products tell.
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
        # A NaN sorts last; it has no owner either.
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
    # The cores of a projection leave slivers of its ring uncovered, some 30 px wide, and 450 px about the pole, where
    # the image itself ends after 240 px: a neighbour may have more to give. (At Dec 87.97 and RA 0 or 180 no image
    # reaches a patch of 200 px: its owner is the nearest, and coverage tells.)
    owner, deepest = -1, -math.inf
    for other in range(max(ring - 1, 0), min(ring + 2, len(counts))):
        nearest = _nearest_projection(x, y, counts[other], firsts[other]) - firsts[other]
        for step in range(-1, 2):
            projection = firsts[other] + (nearest + step) % counts[other]
            matrix = to_grid[projection]
            # A far projection, the neighbour where a ring has few, may lie behind the plane.
            if matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2] * z < 0.5:
                continue
            gx, gy = _grid_position(matrix, x, y, z)
            column = min(max(math.floor(gx), 0.0), GRID - 1.0)
            row = min(max(math.floor(gy), 0.0), GRID - 1.0)
            # In cores, not px: these differ by 4 % from ring to ring, as much as the px differ from those on the sky.
            inside = min(gx - column, column + 1 - gx, gy - row, row + 1 - gy)
            if inside > deepest:
                deepest = inside
                owner = ((FIRST_PROJECTION + projection) * GRID + int(row)) * GRID + int(column)
    return owner


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
