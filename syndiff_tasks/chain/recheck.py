"""The re-check of skycells: which of them the archive is to be asked for again, since it had not all their files."""

import datetime
from pathlib import Path
from typing import NamedTuple

from syndiff_tasks import paths
from syndiff_tasks.manifest import ProductDamaged, ProductNotRead, read_manifest, withdraw

from .stack_files import days_since_request


class Rechecked(NamedTuple):
    """What a re-check found.

    Attributes
    ----------
    withdrawn : list of Path
        Raw skycells that the next run requests again: only the files that they lack.
    without_raw : list of Path
        Combined skycells that lack files, too, but have no raw pixels any more (keep_raw = false). They stay as they
        are, since all of their files would have to be fetched again.
    unread : tuple of str
        What is wrong with manifests that cannot be read, a sentence each.
    """

    withdrawn: list
    without_raw: list
    unread: tuple = ()


def recheck(data_root, days):
    """Withdraw raw skycells whose absent or unusable files have not been requested for some days.

    The next run requests these files, and remakes what was made without them if one has come.

    Parameters
    ----------
    data_root : path-like
    days : float

    Returns
    -------
    rechecked : Rechecked
    """
    today = datetime.datetime.now(datetime.timezone.utc).date()
    unread = []
    raw = [path for path in paths.raw_skycells(data_root) if _is_due(path, today, days, unread)]
    combined = [path for path in paths.combined_skycells(data_root) if not paths.raw(data_root, path.name).exists()]
    without_raw = [path for path in combined if _is_due(path, today, days, unread)]
    for path in raw:
        withdraw(path)
    return Rechecked(raw, without_raw, tuple(unread))


def _is_due(path: Path, today, days, unread):
    try:
        made = read_manifest(path)
    except (ProductDamaged, ProductNotRead) as error:
        unread.append(str(error))
        return False
    return made is not None and 0 <= (since := days_since_request(made["notes"], today)) and since >= days
