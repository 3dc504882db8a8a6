"""A file or folder that is there whole or not at all, with the settings and inputs that made it.

A product is written under a hidden name beside its final one, flushed to disk, and renamed. A small manifest,
written last, publishes it: a product without manifest does not exist. The manifest holds what made the product
(settings, inputs, code version) and what it is made of (sizes and digests), so that a product made otherwise is
never taken for this one and a changed byte can be found.
"""

import contextlib
import errno
import functools
import json
import os
import shutil
import socket
import time
from pathlib import Path
from typing import NamedTuple

import luigi

from . import __version__
from .io.liveness import abandoned
from .manifest import (
    MANIFEST,
    TEMPORARY,
    ProductNotRead,
    content_of,
    digest_of,
    flush,
    flush_tree,
    is_withdrawn,
    manifest_path,
    now,
    read_manifest,
    sealed,
    temporary_path,
    write_json,
)


class SettingsDiffer(ValueError):
    """A product is there, but it was made with other settings."""


class ProductNotWritten(OSError):
    """The folder of a product cannot be written, or its disk is full."""


class Draft(NamedTuple):
    """A product being written: where to, and what its manifest shall remember beside the settings."""

    path: str
    notes: dict
    begun: float = 0.0

    def record_time(self, step):
        """Note how long the product has taken until now [s], under the name of its step."""
        seconds = self.notes.setdefault("seconds", {})
        seconds[step] = round(time.monotonic() - self.begun, 2)


class WholeTarget(luigi.Target):
    """A file or a folder that is published whole or not at all.

    Parameters
    ----------
    path : path-like
        Final name of the product.
    settings : dict
        What shaped the product, by name; values as JSON knows them.
    inputs : dict of str to WholeTarget, optional
        The products that this one is made of. Remade with another content, they make this one stale; gone, they
        do not.
    overwrite : str, optional
        Time of a request to make the product again (UTC, ISO 8601): treat it as missing until it was made for this
        request or a later one. Empty for none.
    task : str, optional
        Name of the task that makes it, for messages.
    """

    def __init__(self, path, settings, inputs=None, overwrite="", task="the task"):
        self.path = str(path)
        self.task = task
        self.raw_settings = settings
        self.inputs = inputs or {}
        self.overwrite = overwrite

    @functools.cached_property
    def settings(self):
        """The settings as in a manifest; computed lazily, since most inputs never need them."""
        return json.loads(json.dumps(self.raw_settings))

    def __repr__(self):
        return f"WholeTarget({self.path!r})"

    def __str__(self):
        return self.path

    def manifest(self):
        """Return the published manifest, None where there is no whole product."""
        return read_manifest(self.path)

    def digest(self):
        """Return the digest of the published content, None where there is no whole product."""
        manifest = self.manifest()
        return manifest and manifest["digest"]

    def exists(self):
        """Return whether the product is there, whole, and made of today's inputs.

        Raises
        ------
        SettingsDiffer
            If a product of other settings has this name.
        """
        manifest = self.manifest()
        if manifest is None:
            return False
        if self.overwrite:
            return self._made_on_request(manifest)
        self._refuse_other_settings(manifest)
        return not self._stale(manifest)

    @contextlib.contextmanager
    def writing(self, replace=False):
        """Give a `Draft` with a temporary path to write to, and publish what was written there.

        A failed run leaves nothing, and what killed runs left beside the product goes. Where another writer was first
        with the same settings and inputs, its product stays and ours is dropped, unless `replace` is set.

        Raises
        ------
        ProductNotWritten
            If the folder cannot be written, or its disk is full.
        ProductNotRead
            If something that the product is made of cannot be read.
        """
        final = Path(self.path)
        _demand_writable(final.parent)
        sweep(final.parent)
        temporary = temporary_path(final)
        draft = Draft(str(temporary), {}, time.monotonic())
        try:
            yield draft
            self._publish(temporary, final, draft.notes, replace)
        except PermissionError as error:
            raise _refused(error, error.filename or final) from error
        except OSError as error:
            if not _is_full(error):
                raise
            raise _refused(error, final) from error
        finally:
            _remove(temporary)

    def remove(self):
        """Delete the product, if it is still there."""
        aside = temporary_path(self.path)
        if not os.path.isdir(self.path):
            manifest_path(self.path).unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):  # another run was first
            # Renamed first: a half deleted folder must not look whole.
            os.rename(self.path, aside)
            _remove(aside)

    def record(self):
        """Return what a product made now has to say of itself, without its content."""
        return {
            "product": Path(self.path).name,
            "settings": self.settings,
            "inputs": {name: target.digest() for name, target in self.inputs.items()},
            "syndiff_tasks": __version__,
            "made": now(),
            "host": socket.gethostname(),
            "requested": max(self.overwrite, (self.manifest() or {}).get("requested", "")),
        }

    def _publish(self, temporary, final, notes, replace):
        files = content_of(temporary)
        manifest = sealed(self.record() | {"notes": notes, "files": files, "digest": digest_of(files)})
        if not replace and self._made_by_another_writer():
            return
        if temporary.is_dir():
            write_json(temporary / MANIFEST, manifest)
            flush_tree(temporary)
            self._replace_folder(temporary, final, replace)
        else:
            flush(temporary)
            # Between the two renames the old manifest must not vouch for other bytes than those that it tells of.
            if self.digest() not in (None, manifest["digest"]):
                manifest_path(final).unlink(missing_ok=True)
            os.replace(temporary, final)
            write_json(manifest_path(final), manifest)
        flush(final.parent)

    def _made_on_request(self, manifest):
        # Times of requests are compared, never the time when it was made: clocks of hosts differ.
        return manifest.get("requested", "") >= self.overwrite

    def _made_by_another_writer(self):
        manifest = self.manifest()
        if manifest is None:
            return False
        if self.overwrite:
            return self._made_on_request(manifest)
        self._refuse_other_settings(manifest)
        return not self._stale(manifest)

    def _replace_folder(self, temporary, final, replace):
        """Move a folder into place; where another writer was first, its folder stays: it may be being read."""
        aside = temporary_path(final)
        while True:
            try:
                os.rename(temporary, final)
                break
            except OSError:
                if not final.is_dir():
                    raise
                if not replace and self._made_by_another_writer():
                    break
                with contextlib.suppress(FileNotFoundError):  # another writer was quicker at moving it aside
                    os.rename(final, aside)
                _remove(aside)

    def _stale(self, manifest):
        now = {name: target.digest() for name, target in self.inputs.items()}
        then = manifest["inputs"]
        if set(now) != set(then) or any(now[name] not in (None, then[name]) for name in now):
            return True
        return any(target.outdated for target in self.inputs.values())

    @functools.cached_property
    def outdated(self):
        """Whether the product will be remade, on request, because it was withdrawn, or for something far up its inputs.

        Asked once of each object, since a thousand skycells stand behind each of a hundred templates.
        """
        manifest = self.manifest()
        if manifest is None:
            return is_withdrawn(self.path)
        return not self._made_on_request(manifest) or self._stale(manifest)

    def _refuse_other_settings(self, manifest):
        made = manifest["settings"]
        # Formats first: products of another format may differ in any other setting too.
        formats = {name for name in set(made) & set(self.settings) if name.endswith("format")}
        for name in sorted(set(made) | set(self.settings), key=lambda name: (name not in formats, name)):
            if made.get(name) != self.settings.get(name):
                if name in formats:
                    raise SettingsDiffer(
                        f"{self.path} was written in {name} {made[name]} "
                        f"(syndiff_tasks {manifest['syndiff_tasks']}), and this version reads and writes "
                        f"{name} {self.settings[name]}; run {self.task} with --overwrite "
                        f"to remake it (from another task: --{self.task}-overwrite), or keep it by giving another "
                        "--syndiff-data-root"
                    )
                # Of two FFIs of one CCD, the second does with the skycells of the first.
                share = (
                    f"share its skycells with --reference-ffi <path of {made[name]}> (from Sector or EveryFFI: put "
                    "that FFI into --ffi-dir), "
                    if name == "ffi"
                    else ""
                )
                raise SettingsDiffer(
                    f"{self.path} was made with {name} = {made.get(name)!r}, and {name} = "
                    f"{self.settings.get(name)!r} is requested now; {share}run {self.task} with --overwrite to remake "
                    f"it (from another task: --{self.task}-overwrite), or keep both by giving another "
                    "--syndiff-data-root"
                )


def sweep(folder, seconds_old=86400.0):
    """Remove the temporary files and folders in `folder` that dead runs left behind.

    Those of processes that can be seen from here go when their process has ended; those of other hosts and containers
    when they were not modified for `seconds_old`.

    Returns
    -------
    removed : list of str
        What was removed.
    """
    removed = []
    for path in sorted(Path(folder).glob(".*")):
        made_by = TEMPORARY.match(path.name)
        if not made_by:
            continue
        # Its owner, or another sweeper, was first; or it is another user's, who will sweep it.
        with contextlib.suppress(FileNotFoundError, PermissionError):
            if abandoned(made_by["owner"], path, seconds_old):
                _remove(path)
                removed.append(str(path))
    return removed


def _demand_writable(folder):
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
            raise OSError(errno.EROFS if read_only else errno.EACCES, "it may not be written", str(folder))
    except OSError as error:
        raise _refused(error, error.filename or folder) from error


def _refused(error, place):
    """Return the error that names what may not be written, or read while a product is made of it, and the cure."""
    elsewhere = "or give another folder with --syndiff-data-root"
    if _is_full(error):
        used_up, cure = "the disk is full", "free some space"
        if _inodes_used_up(place):
            used_up, cure = "the disk has no room for another file (all inodes are used)", "delete some files"
        told = f"{place}: {used_up}; {cure}, {elsewhere}, and run again: what is finished stays"
        return ProductNotWritten(told)
    if error.errno == errno.EROFS:
        return ProductNotWritten(f"{place}: the file system is read-only; mount it writable, {elsewhere}")
    unreadable = os.path.exists(place) and not os.access(place, os.R_OK)
    kind, done = (ProductNotRead, "read") if unreadable else (ProductNotWritten, "written")
    return kind(f"{place}: cannot be {done} ({error.strerror}); mend its permissions, {elsewhere}")


def _inodes_used_up(place):
    folder = Path(place).absolute()
    while not folder.exists():
        folder = folder.parent
    disk = os.statvfs(folder)
    return disk.f_files > 0 and disk.f_favail == 0


def _is_full(error):
    while error is not None:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__ or error.__context__
    return False


def _remove(path):
    if path.is_dir() and not path.is_symlink():
        with contextlib.suppress(FileNotFoundError):  # another run sweeps the same
            shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
