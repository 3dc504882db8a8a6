"""A file or folder that is there whole or not at all, with the settings and inputs that made it.

A product is written under a hidden name beside its final one, flushed to disk, and renamed. A small manifest,
written last, publishes it: a product without manifest does not exist. The manifest holds what made the product
(settings, inputs, code version) and what it is made of (sizes and digests), so that a product made otherwise is
never taken for this one and a changed byte can be found.
"""

import contextlib
import datetime
import errno
import functools
import json
import os
import re
import shutil
import socket
import time
import uuid
from pathlib import Path
from typing import NamedTuple

import luigi
import xxhash

from . import __version__
from .io.liveness import alive

MANIFEST = "manifest.json"

TEMPORARY = re.compile(r"^\.tmp-(?P<pid>\d+)-[0-9a-f]{8}@(?P<host>[^@]+)@")

# A product that could not be made is told of beside where it will be.
FAILED = re.compile(r"^\.(?P<product>.+)\.failed$")

# One run of a luigi command and all processes that it forks: what `--overwrite` remade in this run is done.
INVOCATION = os.environ.setdefault("SYNDIFF_INVOCATION", uuid.uuid4().hex)


class SettingsDiffer(ValueError):
    """A product is there, but it was made with other settings."""


class ProductDamaged(ValueError):
    """A product's bytes are not those that were published."""


class ProductNotWritten(OSError):
    """The folder of a product cannot be written, or its disk is full."""


class ProductNotRead(OSError):
    """A product belongs to another user, who does not let us read it."""


class Draft(NamedTuple):
    """A product being written: where to, and what its manifest shall remember beside the settings."""

    path: str
    notes: dict
    begun: float = 0.0

    def took(self, step):
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
    overwrite : bool, optional
        Take the product for missing until this invocation has made it.
    task : str, optional
        Name of the task that makes it, for messages.
    due : callable, optional
        Takes the product's manifest, and tells whether to make it again though nothing that it is made of was remade.
    """

    def __init__(self, path, settings, inputs=None, overwrite=False, task="the task", due=None):
        self.path = str(path)
        self.task = task
        self.told = settings
        self.inputs = inputs or {}
        self.overwrite = overwrite
        self.due = due

    @functools.cached_property
    def settings(self):
        """The settings as a manifest has them; of a thousand inputs nobody asks for them."""
        return json.loads(json.dumps(self.told))

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
        """Tell whether the product is there, whole, and made of today's inputs.

        Raises
        ------
        SettingsDiffer
            If a product of other settings has this name.
        """
        manifest = self.manifest()
        if manifest is None:
            return False
        if self.overwrite:
            return manifest["invocation"] == INVOCATION
        self._refuse_other_settings(manifest)
        return not self._stale(manifest)

    @contextlib.contextmanager
    def writing(self):
        """Give a `Draft` with a temporary path to write to, and publish what was written there.

        A failed run leaves nothing, and what killed runs left beside the product goes. Where another writer was first
        with the same settings and inputs, its product stays and ours is dropped.

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
            self._publish(temporary, final, draft.notes)
            failure_path(final).unlink(missing_ok=True)
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
            "made": _now(),
            "host": socket.gethostname(),
            "invocation": INVOCATION,
        }

    def _publish(self, temporary, final, notes):
        files = _content(temporary)
        manifest = self.record() | {"notes": notes, "files": files, "digest": _digest_of(files)}
        if not self.overwrite and self._made_by_another_writer():
            return
        if temporary.is_dir():
            _write_json(temporary / MANIFEST, manifest)
            _flush_tree(temporary)
            self._replace_folder(temporary, final)
        else:
            _flush(temporary)
            # Between the two renames the old manifest must not vouch for other bytes than those that it tells of.
            if self.digest() not in (None, manifest["digest"]):
                manifest_path(final).unlink(missing_ok=True)
            os.replace(temporary, final)
            _write_json(manifest_path(final), manifest)
        _flush(final.parent)

    def _made_by_another_writer(self):
        manifest = self.manifest()
        if manifest is None:
            return False
        self._refuse_other_settings(manifest)
        return not self._stale(manifest)

    def _replace_folder(self, temporary, final):
        """Move a folder into place; where another writer was first, its folder stays: it may be being read."""
        aside = temporary_path(final)
        while True:
            try:
                os.rename(temporary, final)
                break
            except OSError:
                if not final.is_dir():
                    raise
                if not self.overwrite and self._made_by_another_writer():
                    break
                with contextlib.suppress(FileNotFoundError):  # another writer was quicker at moving it aside
                    os.rename(final, aside)
                _remove(aside)

    def _stale(self, manifest):
        if self.due and self.due(manifest):
            return True
        now = {name: target.digest() for name, target in self.inputs.items()}
        then = manifest["inputs"]
        if set(now) != set(then) or any(now[name] not in (None, then[name]) for name in now):
            return True
        return any(target.outdated for target in self.inputs.values())

    @functools.cached_property
    def outdated(self):
        """Whether the product is there but will be remade, as it was asked for or for something far up its inputs.

        Asked once of each object, since a thousand skycells stand behind each of a hundred templates.
        """
        manifest = self.manifest()
        if manifest is None:
            return False
        return self.overwrite and manifest["invocation"] != INVOCATION or self._stale(manifest)

    def _refuse_other_settings(self, manifest):
        made = manifest["settings"]
        for name in sorted(set(made) | set(self.settings)):
            if made.get(name) != self.settings.get(name):
                # Of two FFIs of one CCD, the second does with the skycells of the first.
                share = (
                    f"share its skycells with --reference-ffi <path of {made[name]}> (from Sector or EveryFFI: put "
                    "that FFI into --ffi-dir), "
                    if name == "ffi"
                    else ""
                )
                raise SettingsDiffer(
                    f"{self.path} was made with {name} = {made.get(name)!r}, and {name} = "
                    f"{self.settings.get(name)!r} is asked for now; {share}run {self.task} with --overwrite to remake "
                    f"it (from another task: --{self.task}-overwrite), or keep both by giving another "
                    "--syndiff-data-root"
                )


def _now():
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def temporary_path(final):
    """Return a hidden name beside `final`; the extensions stay last, since writers choose compression by them."""
    final = Path(final)
    return final.with_name(f".tmp-{os.getpid()}-{uuid.uuid4().hex[:8]}@{socket.gethostname()}@{final.name}")


def failure_path(path):
    """Return where the last failure to make the product `path` is told: hidden beside it, until it is published."""
    path = Path(path)
    return path.with_name(f".{path.name}.failed")


def remember_failure(path, task, sentence):
    """Leave a record of a failed try beside a product, for `syndiff_tasks status`.

    Parameters
    ----------
    path : path-like
        What could not be made.
    task : str
        Name of the task that should have made it.
    sentence : str
        What it failed of.
    """
    told = {"task": task, "product": Path(path).name, "error": sentence, "failed": _now(), "host": socket.gethostname()}
    told["invocation"] = INVOCATION
    # Where not even this can be written, as on a full disk, the terminal and luigid have told it.
    with contextlib.suppress(OSError):
        _write_json(failure_path(path), told)


def tried_now(path, manifest):
    """Tell whether this invocation has made the product `path`, of this manifest, or has tried to in vain."""
    try:
        failed = json.loads(failure_path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        failed = {}
    return INVOCATION in (manifest["invocation"], failed.get("invocation"))


def manifest_path(path):
    """Return where the manifest of the product `path` is: inside a folder, hidden beside a file."""
    path = Path(path)
    return path / MANIFEST if path.is_dir() else path.with_name(f".{path.name}.{MANIFEST}")


def read_manifest(path):
    """Return the manifest of the product `path` as a dict, None where nothing whole is published.

    Raises
    ------
    ProductDamaged
        If the manifest is there and is none.
    ProductNotRead
        If it belongs to somebody who does not let us read it.
    """
    if not os.path.exists(path):
        return None
    where = manifest_path(path)
    try:
        text = where.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise ProductNotRead(
            f"{where}: cannot be read ({error.strerror}); mend its permissions, or give another folder with "
            "--syndiff-data-root"
        ) from error
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ProductDamaged(f"{where}: not a manifest ({error}); delete {path} and run its task again") from error


def verify(path, deep=False):
    """Compare a published product with its manifest.

    Parameters
    ----------
    path : path-like
        A product with a manifest.
    deep : bool, optional
        Compare digests, not sizes alone.

    Returns
    -------
    complaints : list of str
        What is wrong, a sentence each; empty where all is well.
    """
    manifest = read_manifest(path)
    if manifest is None:
        return [f"{path}: has no manifest, so it was never published whole; delete it and run its task again"]
    root = Path(path)
    complaints = []
    for name, told in manifest["files"].items():
        file = root / name if root.is_dir() else root
        if not file.exists():
            complaints.append(f"{file}: is missing")
        elif file.stat().st_size != told["size"]:
            complaints.append(f"{file}: has {file.stat().st_size} bytes, was published with {told['size']}")
        elif deep and _content_digest(file) != told["xxh3_128"]:
            complaints.append(f"{file}: its bytes are not those that were published (digest differs)")
    if root.is_dir():
        found = {str(file.relative_to(root)) for file in _files(root)}
        complaints += [f"{root / name}: was not published" for name in sorted(found - set(manifest["files"]))]
    return complaints


def sweep(folder, seconds_old=86400.0):
    """Remove the temporary files and folders in `folder` that dead runs left behind.

    Those of this host go when their process is gone; those of other hosts, and what is told of failures, when nothing
    touched them for `seconds_old`.

    Returns
    -------
    removed : list of str
        What was removed.
    """
    here = socket.gethostname()
    now = datetime.datetime.now().timestamp()
    removed = []
    for path in sorted(Path(folder).glob(".*")):
        made_by = TEMPORARY.match(path.name)
        if not (made_by or FAILED.match(path.name)):
            continue
        # Its owner, or another sweeper, was first; or it is another user's, who will sweep it.
        with contextlib.suppress(FileNotFoundError, PermissionError):
            if made_by and made_by["host"] == here:
                dead = not alive(int(made_by["pid"]))
            else:
                dead = now - path.lstat().st_mtime > seconds_old
            if dead:
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
        told = f"{place}: the disk is full; free some space, {elsewhere}, and run again: what is finished stays"
        return ProductNotWritten(told)
    unreadable = os.path.exists(place) and not os.access(place, os.R_OK)
    kind, done = (ProductNotRead, "read") if unreadable else (ProductNotWritten, "written")
    return kind(f"{place}: cannot be {done} ({error.strerror}); mend its permissions, {elsewhere}")


def _is_full(error):
    while error is not None:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__ or error.__context__
    return False


def _files(root):
    return [file for file in sorted(root.rglob("*")) if file.is_file() and file != root / MANIFEST]


def _content(path):
    files = {str(f.relative_to(path)): f for f in _files(path)} if path.is_dir() else {"": path}
    return {name: {"size": file.stat().st_size, "xxh3_128": _content_digest(file)} for name, file in files.items()}


def _digest_of(files):
    return xxhash.xxh3_128_hexdigest(json.dumps(files, sort_keys=True).encode())


def _content_digest(path):
    # Against damage, not against forgery: 20 times faster than sha256, which would cost as much as the decoding.
    digest = xxhash.xxh3_128()
    with open(path, "rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _write_json(path, content):
    temporary = temporary_path(path)
    temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
    _flush(temporary)
    os.replace(temporary, path)


def _flush(path):
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _flush_tree(root):
    for path in [*root.rglob("*"), root]:
        _flush(path)


def _remove(path):
    if path.is_dir() and not path.is_symlink():
        with contextlib.suppress(FileNotFoundError):  # another run sweeps the same
            shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
