"""Star catalogs: a CSV file of the user, or Gaia, queried once and kept on disk."""

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

#: Columns that a catalog must have, as Gaia DR3 names them: degrees (ICRS) and Vega magnitudes (docs/facts.md, 5).
COLUMNS = ("ra", "dec", "phot_g_mean_mag", "phot_bp_mean_mag", "phot_rp_mean_mag")

#: Optional columns: proper motion, of RA with the factor cos(Dec) [mas/yr]; positions are then of `EPOCH`, Gaia DR3's.
PROPER_MOTION = ("pmra", "pmdec")
EPOCH = 2016.0

#: Default limit in G of a Gaia query: a skycell then has some 200 stars for its PSF at high galactic latitude, and
#: the field of a CCD stays below the archive's limit of 3 million rows except in the Milky Way's bulge.
FAINTEST = 17.0

# Runs in a process of its own: astroquery contacts the server when it is imported, has no time-out, and raises even
# bare Exception. argv: query, path.
_ASK = """
import sys
from astroquery.gaia import Gaia
table = Gaia.launch_job_async(sys.argv[1]).get_results()
table.rename_columns(table.colnames, [name.lower() for name in table.colnames])
table.write(sys.argv[2], format="ascii.csv", overwrite=True)
"""


class CatalogUnavailable(RuntimeError):
    """Gaia's archive does not answer; a template can be made without it, its saturated stars kept and flagged."""


def read_stars(path):
    """Read a star catalog.

    Parameters
    ----------
    path : path-like
        CSV with the columns `COLUMNS`, and optionally `PROPER_MOTION` and ``source_id``; others are not
        read. Lines that begin with ``#`` are comments. A color may be missing; a position or G may not.

    Returns
    -------
    stars : pandas.DataFrame
        Columns source_id (int64; the row's number from 1 where the file has none), ra, dec [deg], the magnitudes and
        the proper motion [mas/yr], float64, NaN where missing.

    Raises
    ------
    ValueError
        If the file is missing or not a CSV file, lacks a column, or has an invalid number, position or source_id.
    """
    wanted = (*COLUMNS, *PROPER_MOTION, "source_id")
    try:
        table = pd.read_csv(path, comment="#", index_col=False, usecols=lambda name: name in wanted)
    except FileNotFoundError:
        raise ValueError(
            f"the star catalog {path} does not exist; set star_catalog to a CSV file, to gaia, or to nothing"
        ) from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"the star catalog {path} is not a CSV file with a line of column names: {error}") from error
    absent = [name for name in COLUMNS if name not in table]
    if absent:
        raise ValueError(
            f"the star catalog {path} has no column {', '.join(absent)}; it needs {', '.join(COLUMNS)}, as Gaia DR3 "
            "names them"
        )
    if "source_id" not in table:
        table["source_id"] = np.arange(1, len(table) + 1)
    if len(table) and table["source_id"].dtype != np.int64:
        raise ValueError(
            f"source_id in the star catalog {path} must be an integer in every row; correct it or leave the column out"
        )
    for name in PROPER_MOTION:
        if name not in table:
            table[name] = np.nan
    for name in (*COLUMNS, *PROPER_MOTION):
        table[name] = _numbers(path, table[name])
    _check(path, table)
    return table.astype({"source_id": np.int64})[["source_id", *COLUMNS, *PROPER_MOTION]]


def _numbers(path, column):
    numbers = pd.to_numeric(column, errors="coerce").astype(np.float64)
    strange = column.notna() & numbers.isna()
    if strange.any():
        row = int(strange.to_numpy().argmax())
        raise ValueError(
            f"{column.name} of star {row + 1} in the star catalog {path} is {column.iloc[row]!r}: give a number, or "
            "leave a magnitude empty"
        )
    return numbers


def _check(path, table):
    right = table["ra"].between(-180, 360) & table["dec"].between(-90, 90) & np.isfinite(table["phot_g_mean_mag"])
    if not right.all():
        row = int(right.to_numpy().argmin())
        star = table.iloc[row]
        raise ValueError(
            f"star {row + 1} in the star catalog {path} has ra {star['ra']}, dec {star['dec']} and phot_g_mean_mag "
            f"{star['phot_g_mean_mag']}: give degrees and a magnitude, or leave the star out"
        )


def fetch_gaia(ra, dec, radius, cache_path, faintest=FAINTEST, timeout=600.0):
    """Read the Gaia DR3 stars of a circular field from a file, after fetching them if the file does not have them.

    Parameters
    ----------
    ra, dec : float
        Center of the field [deg].
    radius : float
        Its radius [deg].
    cache_path : path-like
        A CSV as `read_stars` takes it; its first line is the query. Written whole or not at all.
    faintest : float
        G magnitude of the faintest stars [mag].
    timeout : float
        Time after which the archive counts as down [s].

    Returns
    -------
    stars : pandas.DataFrame
        See `read_stars`.

    Raises
    ------
    ValueError
        If astroquery is not installed, or the numbers do not describe a field.
    CatalogUnavailable
        If the archive does not answer within `timeout`, or with an error.
    """
    query, path = _query(ra, dec, radius, faintest), Path(cache_path)
    if not _holds(path, query):
        if importlib.util.find_spec("astroquery") is None:
            raise ValueError(
                "star_catalog = gaia needs astroquery, which is not installed: pip install 'syndiff_tasks[gaia]', or "
                "set star_catalog to a CSV"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            _ask(query, Path(folder) / "answer.csv", timeout)
            whole = Path(folder) / path.name
            whole.write_text(
                f"# {query}\n" + (Path(folder) / "answer.csv").read_text(encoding="utf-8"), encoding="utf-8"
            )
            os.replace(whole, path)
    return read_stars(path)


def _query(ra, dec, radius, faintest):
    if not (-180 <= ra <= 360 and -90 <= dec <= 90 and 0 < radius <= 90 and np.isfinite(faintest)):
        raise ValueError(
            f"ra {ra}, dec {dec}, radius {radius} [deg] and magnitude {faintest} do not describe a field to query "
            "Gaia for: check the WCS of the FFI"
        )
    return (
        f"SELECT source_id, {', '.join(COLUMNS + PROPER_MOTION)} FROM gaiadr3.gaia_source "
        f"WHERE 1 = CONTAINS(POINT(ra, dec), CIRCLE({float(ra)!r}, {float(dec)!r}, {float(radius)!r})) "
        f"AND phot_g_mean_mag < {float(faintest)!r}"
    )


def _holds(path, query):
    if not path.exists():
        return False
    with open(path, encoding="utf-8") as file:
        return file.readline() == f"# {query}\n"


def _ask(query, path, timeout):
    try:
        subprocess.run(
            [sys.executable, "-c", _ASK, query, str(path)],
            timeout=timeout,
            check=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
        )
    except subprocess.TimeoutExpired:
        raise CatalogUnavailable(
            f"Gaia's archive did not answer within {timeout:g} s; try later, or set star_catalog to a CSV file"
        ) from None
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no error message"])[-1]
        raise CatalogUnavailable(
            f"Gaia's archive returned no stars ({last}); try later, or set star_catalog to a CSV file"
        ) from error
