"""Coverage maps of the IVOA (Multi-Order Coverage maps, MOC 2.0), by mocpy."""

from astropy import units
from astropy.coordinates import Latitude, Longitude
from mocpy import MOC


def moc_of(polygons, order):
    """Return the coverage map of polygons.

    Parameters
    ----------
    polygons : list of (ra, dec)
        Corners of each, ndarrays of float [deg], ICRS; smaller than a hemisphere.
    order : int
        HEALPix order of the smallest cells.

    Returns
    -------
    mocpy.MOC
        Every cell that a polygon touches.
    """
    parts = [
        MOC.from_polygon(Longitude(ra, units.deg), Latitude(dec, units.deg), max_depth=order) for ra, dec in polygons
    ]
    return union(parts, order)


def union(parts, order=0):
    """Return the union of coverage maps, an empty map of an order for none."""
    if not parts:
        return MOC.new_empty(order)
    return parts[0].union(*parts[1:]) if len(parts) > 1 else parts[0]


def write(moc, path, form):
    """Write a coverage map as ``fits`` (MOC 2.0, ORDERING = RANGE) or ``json`` (Aladin's form)."""
    moc.save(str(path), format=form)


def read(path):
    """Read a coverage map, FITS or JSON by its content.

    Raises
    ------
    ValueError
        If the file is missing or not a coverage map.
    """
    try:
        with open(path, "rb") as file:
            form = "json" if file.read(80).lstrip().startswith(b"{") else "fits"
        return MOC.load(str(path), format=form)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as a coverage map ({error}); give a MOC as FITS or JSON") from error
