"""The stack files of a skycell: fetched, checked and stored as one raw group, and when to ask the archive again.

None of it knows an FFI: all FFIs share what is fetched.
"""

import contextlib
import datetime
import functools
import logging
import os
import shutil
from typing import NamedTuple

from syndiff_tasks import paths
from syndiff_tasks.geometry.skycell import skycell_keywords
from syndiff_tasks.io import archive, disk, fits_in, stack_header, store
from syndiff_tasks.pixels import bands, file_kind, scaling

logger = logging.getLogger("luigi-interface")

KINDS = ("image", "mask", "wt")

# What is kept of a file's origin.
ORIGIN = ("url", "size", "sha256", "etag", "last_modified", "fetched")

# Layout and meaning of the raw groups; another number is another product.
RAW_FORMAT = 1

# Waits between two tries of a file [s], and the least speed [bytes/s] that is not taken for a dead line.
FIRST_WAIT, LONGEST_WAIT, SLOWEST = 2.0, 300.0, 1000.0

# For the estimate of disk space: a combined and blurred skycell [bytes].
COMBINED_BYTES = 12_000_000

# From the middle of an image or variance, to see whether it is one.
ROWS_LOOKED_AT = 64

# Temporaries of other hosts, whose processes cannot be asked, go when they are so old [days].
DAYS_OLD = 1.0


class Source(NamedTuple):
    """Where files come from, and what is wanted of them."""

    bases: tuple
    data_root: str
    bands: tuple
    retry_policy: archive.RetryPolicy
    require_all_bands: bool


class Existing(NamedTuple):
    """A raw group of the skycell that is there already: its folder, and the origin of each of its files."""

    path: str
    files: dict


NOTHING = Existing("", {})


def source(settings):
    """Return the `Source` that the settings describe."""
    retry_policy = archive.RetryPolicy(
        tries=settings.download_tries,
        connect_timeout=settings.connect_timeout,
        read_timeout=settings.read_timeout,
        first_wait=FIRST_WAIT,
        longest_wait=LONGEST_WAIT,
        slowest=SLOWEST,
        forbidden_is_absent=settings.forbidden_is_absent,
    )
    bands_wanted = tuple(band for band, _ in settings.weights)
    return Source(settings.archive, settings.data_root, bands_wanted, retry_policy, settings.require_all_bands)


def demand_space(settings, recipe, names, at_once):
    """Compare what the skycells that are not there yet will need with what the disk has, before the first is fetched.

    Parameters
    ----------
    settings : config.syndiff
    recipe : CombineConfig
    names : list of str
        The skycells of a run.
    at_once : int
        How many of them may be on their way from the archive at once.

    Raises
    ------
    ValueError
        If the disk is too small.
    """
    root = settings.data_root
    missing = [name for name in names if not os.path.exists(paths.combined(root, recipe.label, name))]
    unfetched = [name for name in missing if not os.path.exists(paths.raw(root, name))]
    if missing:
        bands_wanted = [band for band, _ in settings.weights]
        needed = disk.needed_bytes(len(unfetched), bands_wanted, KINDS, at_once, settings.keep_raw)
        disk.demand_space(root, needed + len(missing) * COMBINED_BYTES)


def download(skycell, source, draft, progress, existing=NOTHING):
    """Fetch, check and store every file of a skycell that is not there already.

    Parameters
    ----------
    skycell : rings.Skycell
        Which, and what its headers must say.
    source : Source
        Where from.
    draft : targets.Draft
        Where to; its notes get the origin of each file, the date on which absent ones were asked for, and of those
        whose numbers give no flux the date, the URL and the reason.
    progress : Progress
        One step a file.
    existing : Existing, optional
        What is taken over, whatever the archive has of it now.

    Raises
    ------
    archive.ArchiveUnavailable
        If a file cannot be fetched just now.
    ValueError
        If a file is absent or gives no flux and `source.require_all_bands` is set, the image and variance of a band
        are the same file, or the disk is too full.
    """
    folder = paths.incoming(source.data_root)
    disk.sweep(folder, DAYS_OLD)
    disk.demand_space(folder, disk.needed_bytes(1, source.bands, KINDS, 1, keep_raw=True))
    files = archive.stack_files(skycell.name, source.bands, KINDS)
    expected = skycell_keywords(skycell) | {"NAXIS1": skycell.nx, "NAXIS2": skycell.ny}
    read = functools.partial(_store_checked, skycell.name, expected, draft.path)
    notes = {"files": dict(existing.files), "absent": {}, "unusable": {}}
    described = {"skycell": skycell.name, "keywords": _taken_over(existing, draft.path), "absent": []}
    for key in existing.files:
        progress.step(f"{key} is there")
    asked = {key: path for key, path in files.items() if key not in existing.files}
    with contextlib.closing(archive.fetch_all(asked, source.bases, folder, source.retry_policy, read)) as fetched:
        for key, file in fetched:
            progress.step(f"{key} {_came(key, file, notes, described)}")
    store.write_group(draft.path, [key for key in files if key in notes["files"]], described)
    _demand_distinct(skycell.name, notes["files"])
    for folder in paths.zarr_roots(draft.path):
        store.write_root(folder)
    lacking = [*notes["absent"], *(f"{key} that gives flux" for key in notes["unusable"])]
    if lacking and source.require_all_bands:
        raise ValueError(
            f"{skycell.name}: the archive has no {', '.join(lacking)}, and require_all_bands is set in luigi.cfg; "
            "unset it to go on without"
        )
    draft.notes.update(notes)


def _demand_distinct(skycell, files):
    """Raise if the image and the variance of a band are one file under two names."""
    for key in files:
        band, _, kind = key.partition("_")
        if kind == "wt" and files[key]["sha256"] == files.get(f"{band}_image", {}).get("sha256"):
            raise ValueError(
                f"{skycell}: {files[key]['url']} and {files[f'{band}_image']['url']} are the same bytes, so one of them"
                " is not what its name says; replace it in the archive or remove this one from `archive`"
            )


def _taken_over(existing, group):
    """Copy what is there already into a group, and return the cards of its files."""
    for key in existing.files:
        shutil.copytree(os.path.join(existing.path, key), os.path.join(group, key))
    return store.read_attributes(existing.path)["keywords"] if existing.files else {}


def _came(key, file, notes, described):
    """Note what came of a file, and say it."""
    if file is None:
        described["absent"].append(key)
        notes["absent"][key] = _today()
        return "absent"
    if isinstance(file, archive.Unusable):
        notes["unusable"][key] = {"asked": _today(), "url": file.url, "reason": file.reason}
        logger.warning(
            "%s: %s came whole but gives no flux (%s); it is put into quarantine, and its band counts as missing "
            "in this skycell until `syndiff_tasks recheck` has the archive asked again",
            *(described["skycell"], file.url, file.reason),
        )
        return "unusable"
    described["keywords"][key] = file.content
    notes["files"][key] = {name: getattr(file, name) for name in ORIGIN}
    return "stored"


def _store_checked(name, expected, group, key, path):
    """Store the pixels of a fetched file, and return its cards; ValueError if it is damaged or another file."""
    band, _, kind = key.partition("_")
    stack = fits_in.read_mask(path) if kind == "mask" else fits_in.read_stack(path)
    numbers = {card: value for card, value in expected.items() if not isinstance(value, str)}
    stack_header.check_keywords(stack.keywords, numbers, kind, stack.stored.dtype)
    stack_header.check_band(stack.keywords, band)
    if kind != "mask" and (doubt := _doubt_about(stack, kind)):
        logger.warning("%s: %s may not be what its name says: %s; look at the file", name, key, doubt)
    store.write_array(group, key, stack.stored)
    return stack.keywords


def _doubt_about(stack, kind):
    """Return why a file may not be of its kind, from some of its rows."""
    middle = max(0, (stack.stored.shape[0] - ROWS_LOOKED_AT) // 2)
    some = stack.stored[middle : middle + ROWS_LOOKED_AT]
    power = 1 if kind == "image" else 2
    return file_kind.doubt_about(scaling.weighted_terms(some, scaling.scaling_of(stack.keywords), power, 1.0), kind)


def _today():
    return datetime.datetime.now(datetime.timezone.utc).date().isoformat()


def _asked(manifest):
    notes = manifest["notes"]
    return {key.partition("_")[0] for key in (*notes["files"], *notes["absent"], *notes.get("unusable", {}))}


def unasked(manifest, bands_wanted):
    """Return the bands of a skycell that the archive was not asked for, as when it was fetched for other weights."""
    asked = _asked(manifest)
    return [band for band in bands_wanted if band not in asked]


def with_bands_of(manifest, source):
    """Return the source of the wanted bands and of those that a skycell was fetched with: all are stored as one."""
    return source._replace(bands=tuple(sorted({*source.bands, *_asked(manifest)}, key=list(bands.BAND_BITS).index)))


def days_since_request(notes, today):
    """Return for how many days absent or unusable files of a skycell have not been requested, -1 where it has none.

    Parameters
    ----------
    notes : dict
        Of the manifest of a raw or combined skycell.
    today : datetime.date
        In UTC.
    """
    asked = [*notes["absent"].values(), *(one["asked"] for one in notes.get("unusable", {}).values())]
    return max(((today - datetime.date.fromisoformat(day)).days for day in asked), default=-1)


def asked_once(source):
    """Return the source with one try a file and mirror: what is asked for again does well without."""
    return source._replace(retry_policy=source.retry_policy._replace(tries=1))


def origin_of(raw):
    """Return what a combined skycell's manifest remembers of its raw files, which may be deleted."""
    keywords = store.read_attributes(raw.path)["keywords"]
    kept = ("EXPTIME", "FPA.ZP", "MJD-OBS")
    notes = raw.manifest()["notes"]
    return {
        "files": notes["files"],
        "absent": notes["absent"],
        "unusable": notes.get("unusable", {}),
        "seconds": dict(notes.get("seconds", {})),
        "keywords": {key: {name: one[name] for name in kept if name in one} for key, one in keywords.items()},
    }
