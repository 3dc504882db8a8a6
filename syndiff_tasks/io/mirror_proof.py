"""Proof that a base holds PS1 stack files: before, its "not found" may as well be the answer of a wrong address.

A base is proven by its first whole file, which a hidden file in the folder of downloads records, or by a stack file
that is known to exist. A folder is proven by any stack file in it.
"""

import hashlib
import os
import urllib.parse
from pathlib import Path

from syndiff_tasks.io.disk import temporary_file
from syndiff_tasks.io.retries import RetryPolicy
from syndiff_tasks.io.transfer import begins_as_fits

KNOWN_FILE = "rings.v3.skycell/2180/097/rings.v3.skycell.2180.097.stk.r.unconv.fits"
"""A file of the survey (docs/facts.md, 2), which every whole copy of the archive holds."""


def record_proof(folder: Path, base: str) -> None:
    """Record that a whole file has come from a base.

    Parameters
    ----------
    folder : Path
        Of the downloads.
    base : str
        From the setting `archive`.
    """
    proof = _proof_file(folder, base)
    if not proof.exists():
        temporary = temporary_file(folder, proof.name)
        temporary.touch()
        os.replace(temporary, proof)


def is_proven(base: str, known_file: str | Path, folder: Path, policy: RetryPolicy) -> bool:
    """Return whether a base is known to hold PS1 stack files, or turns out to.

    Parameters
    ----------
    base : str
        From the setting `archive`.
    known_file : str or Path
        Where this base keeps `KNOWN_FILE`; a Path where the base is a folder.
    folder : Path
        Of the downloads.
    policy : RetryPolicy
        Timeouts.
    """
    if isinstance(known_file, Path):
        return any(Path(base).expanduser().glob("rings.v3.skycell/*/*/rings.v3.skycell.*.fits"))
    if _proof_file(folder, base).exists():
        return True
    if proven := begins_as_fits(known_file, policy):
        record_proof(folder, base)
    return proven


def _proof_file(folder, base):
    """Return the file that proves a base, without its user info: a new password proves nothing anew."""
    parts = urllib.parse.urlsplit(base)
    address = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return folder / f".proven+{hashlib.sha256(address.encode()).hexdigest()[:16]}"
