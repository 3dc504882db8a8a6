"""Positions of objects by name: CDS Sesame (SIMBAD, NED, VizieR) through astropy, and MAST for TIC numbers.

An answer is kept in a file, so that a name means the same position in every run, with network or without.
"""

import json
import os
import re
import uuid
from pathlib import Path
from urllib.parse import quote

import requests
from astropy.coordinates import name_resolve

_TIC = re.compile(r"TIC[ -]?(\d+)", re.IGNORECASE)

SECONDS_TO_ANSWER = 20


def resolve(name, folder, tic_lookup):
    """Return the position of a named object.

    Parameters
    ----------
    name : str
        A name that SIMBAD, NED or VizieR know, or ``TIC`` and a number.
    folder : path-like
        Where answers are kept, a file a name.
    tic_lookup : str
        URL of MAST's ``invoke`` (service ``Mast.Name.Lookup``), for TIC numbers.

    Returns
    -------
    ra, dec : float
        ICRS [deg].

    Raises
    ------
    ValueError
        If nobody knows the name, or the service does not answer.

    Notes
    -----
    MAST's service is documented at https://mast.stsci.edu/api/v0/_services.html.
    """
    kept = Path(folder) / f"{quote(name.lower(), safe='')}.json"
    if kept.exists():
        answer = json.loads(kept.read_text(encoding="utf-8"))
        return answer["ra"], answer["dec"]
    tic = _TIC.fullmatch(name)
    ra, dec = _ask_mast(f"TIC {tic[1]}", tic_lookup) if tic else _ask_sesame(name)
    _keep(kept, {"name": name, "ra": ra, "dec": dec})
    return ra, dec


def _ask_sesame(name):
    try:
        coord = name_resolve.get_icrs_coordinates(name)
    except name_resolve.NameResolveError as error:
        if "Unable to find coordinates" in str(error):
            raise _unknown(name, "SIMBAD, NED and VizieR") from error
        raise _silent(name, "the name resolver of CDS (Sesame)", error) from error
    return float(coord.ra.deg), float(coord.dec.deg)


def _ask_mast(name, url):
    request = {"service": "Mast.Name.Lookup", "params": {"input": name, "format": "json"}}
    try:
        reply = requests.get(url, {"request": json.dumps(request)}, timeout=SECONDS_TO_ANSWER)
        reply.raise_for_status()
        found = reply.json().get("resolvedCoordinate")
    except (requests.RequestException, ValueError) as error:
        raise _silent(name, url, error) from error
    if not found:
        raise _unknown(name, "MAST")
    return float(found[0]["ra"]), float(found[0]["decl"])


def _unknown(name, services):
    return ValueError(
        f"--target {name!r}: not a position, and not a name that {services} know; check it, or give RA and Dec, e.g. "
        "'210.8023 54.3489'"
    )


def _silent(name, service, error):
    reason = " ".join(str(error).split())
    return ValueError(
        f"--target {name!r}: {service} does not answer; try again with a network, or give RA and Dec, e.g. "
        f"'210.8023 54.3489' ({reason})"
    )


def _keep(path, answer):
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}.json")
    temporary.write_text(json.dumps(answer), encoding="utf-8")
    os.replace(temporary, path)
