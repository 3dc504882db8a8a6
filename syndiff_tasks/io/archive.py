"""Fetch PS1 stack files from mirrors that fail in every way: whole and checked, or not at all.

A file is streamed to a hidden temporary file, hashed as it arrives, checked by the caller's own reader, and only then
passed on. A file that PS1 does not have (None), or has without usable flux (`Unusable`), is a fact about the archive.
A file that no mirror delivers at the moment raises `ArchiveUnavailable`: try it again later. Temporary files are
deleted whatever happens; `disk.sweep` deletes those of killed processes.
"""

import contextlib
import datetime
import functools
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from syndiff_tasks.io.address import public
from syndiff_tasks.io.disk import quarantine, temporary_file
from syndiff_tasks.io.mirror_proof import KNOWN_FILE, is_proven, record_proof
from syndiff_tasks.io.retries import RetryPolicy, await_turn, pause_everyone, pause_file, wait, wait_after
from syndiff_tasks.io.stack_header import NoFlux
from syndiff_tasks.io.transfer import Absent, Part, Refusal, TryFailed, copy, get

logger = logging.getLogger(__name__)

KINDS = {"image": "", "mask": ".mask", "wt": ".wt", "num": ".num", "exp": ".exp"}  # stack products and their infix


class ArchiveUnavailable(RuntimeError):
    """No mirror delivered the whole file this time; the message names the URLs and their last errors."""


class UnprovenArchive(RuntimeError):
    """Files are absent from a base that never gave any; the message names it: its address may be wrong."""


class Unusable(NamedTuple):
    """A file that arrived whole from every mirror that has it, but gives no flux; a copy is in quarantine."""

    url: str
    reason: str


class FetchedFile(NamedTuple):
    """A whole file, the headers of its server, and the result of its reader."""

    path: Path
    url: str
    size: int  # [bytes]
    sha256: str
    etag: str | None
    last_modified: str | None
    fetched: str  # ISO 8601, UTC
    content: Any  # the result of the caller's reader


# --- names and places -----------------------------------------------------------------------------------------


def stack_files(skycell: str, bands: Iterable[str], kinds: Iterable[str]) -> dict[str, str]:
    """Name the stack files of a skycell.

    Parameters
    ----------
    skycell : str
        ``"skycell.2180.097"``.
    bands : iterable of str
        Filters out of g, r, i, z, y.
    kinds : iterable of str
        Out of `KINDS`.

    Returns
    -------
    files : dict of str to str
        ``{"r_image": "rings.v3.skycell/2180/097/rings.v3.skycell.2180.097.stk.r.unconv.fits", ...}``: path below
        the archive's base; bands vary slowest.

    Raises
    ------
    ValueError
        If the name, a band or a kind is not valid.
    """
    match = re.fullmatch(r"skycell\.(\d{4})\.(\d{3})", skycell)
    if match is None:
        raise ValueError(f"{skycell!r} is not a skycell name; write it as skycell.PPPP.CCC with all leading zeros")
    bands, kinds = tuple(bands), tuple(kinds)
    for band in bands:
        if band not in tuple("grizy"):
            raise ValueError(f"{band!r} is not a PS1 filter; choose from g, r, i, z, y")
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"{kind!r} is not a stack product; choose from {', '.join(KINDS)}")
    folder = f"rings.v3.skycell/{match[1]}/{match[2]}"
    return {
        f"{band}_{kind}": f"{folder}/rings.v3.{skycell}.stk.{band}.unconv{KINDS[kind]}.fits"
        for band in bands
        for kind in kinds
    }


def source_of(base: str, path: str) -> str | Path:
    """Return where a mirror keeps a file.

    Parameters
    ----------
    base : str
        ``http(s)://…``; ``s3://bucket/prefix``, read anonymously over https; a URL ending in ``?uri=…``, to which
        the file's name alone is added (MAST's download service); or a folder in the archive's layout.
    path : str
        The file below the archive's base, from `stack_files`.

    Returns
    -------
    source : str or Path
        URL, or path of the file in a folder.

    Raises
    ------
    ValueError
        If the base is empty or of an unknown kind.
    """
    if not base:
        raise ValueError("`archive` holds an empty entry; give base URLs or folders")
    scheme, separator, rest = base.partition("://")
    if not separator:
        return Path(base).expanduser() / path
    if scheme == "s3":
        bucket, _, prefix = rest.partition("/")
        base = f"https://{bucket}.s3.amazonaws.com/{prefix}".rstrip("/")
    elif scheme not in ("http", "https"):
        raise ValueError(f"archive {public(base)!r}: cannot fetch by {scheme}; give http(s)://…, s3://… or a folder")
    if "?uri=" in base:
        name = path.rpartition("/")[2]
        return f"{base}{name}" if base.endswith(("/", "=")) else f"{base}/{name}"
    return f"{base.rstrip('/')}/{path}"


# --- fetching -------------------------------------------------------------------------------------------------


def fetch_all(
    files: Mapping[str, str],
    bases: Iterable[str],
    folder: str | os.PathLike,
    policy: RetryPolicy,
    read: Callable[[str, Path], Any],
) -> Iterator[tuple[str, FetchedFile | Unusable | None]]:
    """Fetch files one after another, each while the one before is read and used.

    One thread, which ends with the generator, downloads one file ahead over one connection. No temporary file is left
    once the generator is closed; it closes itself when it is exhausted or raises.

    Parameters
    ----------
    files : mapping of str to str
        Key to path below the archive's base, from `stack_files`.
    bases : iterable of str
        Mirrors, tried in turn; see `source_of`.
    folder : path-like
        Holds the temporary files, the pauses and ``quarantine/``. Created if missing.
    policy : RetryPolicy
        Tries, timeouts, waits.
    read : callable
        Called in the caller's thread with the key and the path of a finished download; reads all of it and raises
        ValueError if it is damaged or another file, NoFlux if it is the right file but gives no flux.

    Yields
    ------
    key : str
        In the order of `files`.
    file : FetchedFile, Unusable or None
        None where PS1 has no such file: every mirror answered 404 or 410. Its `path` is a temporary file, deleted at
        the next step; its `content` is what `read` returned.

    Raises
    ------
    ArchiveUnavailable
        If no mirror delivers a file now; the files yielded before remain valid.
    UnprovenArchive
        At the end, if a file was absent from a base that has not given any file yet, nor gives one that is known to
        exist: do not record the absence.
    OSError
        If the disk is full or not writable; nothing is left behind.
    """
    if not files:
        return
    stop, folder, bases = threading.Event(), Path(folder), tuple(bases)
    denying = {}  # base to a file that it has not, where no mirror has it
    bodies = {key: _bodies(path, bases, folder, policy, stop, denying) for key, path in files.items()}
    keys = list(bodies)
    reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="archive")
    try:
        ahead = reader.submit(next, bodies[keys[0]], None)
        for key, following in zip(keys, [*keys[1:], None], strict=True):
            file = ahead.result()
            if following is not None:
                ahead = reader.submit(next, bodies[following], None)
            while isinstance(file, Part):
                body = file
                file = _accepted(body, functools.partial(read, key))
                if not body.refusal or body.refusal.no_flux:
                    record_proof(folder, body.base)
                if body.refusal:
                    # After the file that is under way, on the same connection.
                    file = reader.submit(next, bodies[key], None).result()
            yield key, file
            bodies[key].close()
        _demand_proof(denying, folder, policy)
    finally:
        stop.set()
        reader.shutdown(wait=True, cancel_futures=True)
        for unfinished in bodies.values():
            # After Ctrl-C while the thread was starting, the executor does not know it and has not waited for it.
            while unfinished.gi_running:
                time.sleep(0.01)
            unfinished.close()


def _demand_proof(denying, folder, policy):
    """Raise if a base that lacks files may not be an archive of PS1 stack files at all."""
    for base, path in denying.items():
        if not is_proven(base, source_of(base, KNOWN_FILE), folder, policy):
            raise UnprovenArchive(
                f"{public(str(source_of(base, path)))} does not exist, and {public(base)} has not given any file yet,"
                f" not even {KNOWN_FILE.rpartition('/')[2]}, which PS1 has: is the address wrong? Correct or remove it"
                " in `archive` in the [syndiff] section of luigi.cfg (--syndiff-archive). If it holds a part of PS1"
                " only, first download a skycell that it has"
            )


def _accepted(body, read):
    """Return a body that `read` accepts as a `FetchedFile`; else None, with the reason in `body.refusal`."""
    try:
        content = read(body.path)
    except ValueError as error:
        # The text alone: the traceback holds the reader's arrays.
        body.refusal = Refusal(str(error), isinstance(error, NoFlux))
        return None
    fetched = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    return FetchedFile(
        body.path, body.shown, body.size, body.digest.hexdigest(), body.etag, body.last_modified, fetched, content
    )


# --- one file, all mirrors ------------------------------------------------------------------------------------


class _MirrorFailed(Exception):
    """A mirror has used up its tries; the message becomes a clause of the final sentence."""

    def __init__(self, url, last, tries):
        super().__init__(f"{url}: {last} ({tries})")
        self.url, self.unreached, self.useless = url, last.unreached, last.useless
        self.forbidden = last.forbidden


def _bodies(path, bases, folder, policy, stop, denying):
    """Yield whole bodies of one file, one after another as long as the caller sets `refusal` and asks for the next.

    Ends where no mirror has the file, and enters the mirrors into `denying`; yields `Unusable` where no mirror has it
    with flux, and raises `ArchiveUnavailable` where no mirror gives it now. The body's file is deleted when the
    generator ends.
    """
    name = path.rpartition("/")[2]
    sources = [source_of(base, path) for base in bases]
    if not sources:
        raise ValueError("`archive` is empty; give base URLs or folders in the [syndiff] section of luigi.cfg")
    folder.mkdir(parents=True, exist_ok=True)
    part, suspect = Part(temporary_file(folder, name)), temporary_file(folder, name)
    failures = []
    try:
        for source, base in zip(sources, bases, strict=True):
            part.clear()
            part.base = base
            part.url = source.absolute().as_uri() if isinstance(source, Path) else source
            root = Path(base).expanduser() / path.partition("/")[0] if isinstance(source, Path) else None
            transfer = functools.partial(copy, source, root) if root else get
            with contextlib.suppress(Absent):
                try:
                    yield from _bodies_of_mirror(transfer, part, suspect, policy, stop)
                except _MirrorFailed as failure:
                    failures.append(failure)
        if not failures:
            denying.update(dict.fromkeys(bases, path))
            return
        reason = f"{name} could not be fetched: {'; '.join(map(str, failures))}"
        if suspect.exists():
            kept = quarantine(suspect, name, reason)
            reason += f"; the last refused body is in {kept}"
        if all(failure.useless for failure in failures):
            yield Unusable(failures[-1].url, failures[-1].useless)
            return
        if any(failure.forbidden for failure in failures) and len(failures) < len(bases):
            reason += (
                "; another mirror answers that it does not exist, and S3 answers 403 for a missing file where it may"
                " not be listed: if it is so here, set forbidden_is_absent = true in the [syndiff] section of luigi.cfg"
            )
        if any(failure.unreached for failure in failures):
            reason += (
                "; check the network or, to work without it, put the files into a folder laid out as"
                " rings.v3.skycell/PPPP/CCC/<name> and give that folder as `archive` in the [syndiff] section of"
                " luigi.cfg or as --syndiff-archive"
            )
        raise ArchiveUnavailable(reason)
    finally:
        part.path.unlink(missing_ok=True)
        suspect.unlink(missing_ok=True)


def _bodies_of_mirror(transfer, part, suspect, policy, stop):
    """Yield whole bodies from one mirror until its tries are used up."""
    attempt, tries, refused = 0, policy.tries, None
    pause = pause_file(part)
    while attempt < tries:
        attempt += 1
        await_turn(pause, policy, stop)
        try:
            transfer(part, policy, stop)
        except TryFailed as failure:
            last = failure
        else:
            yield part
            # The name of the temporary means nothing to readers of the log.
            reason = part.refusal.reason.replace(str(part.path), part.path.name.rpartition("+")[2])
            last = TryFailed(f"the file fails its check: {reason}", useless=reason if part.refusal.no_flux else None)
            os.replace(part.path, suspect)
            digest = part.digest.hexdigest()
            if part.resumed and attempt == tries:
                tries += 1  # the two parts may be of different versions: download once more from the start
            # The same bytes twice are a fault of the mirror, not of the transfer.
            last.again = digest != refused
            refused = digest
            part.clear()
        logger.warning("try %d of %d of %s failed: %s", attempt, tries, part.shown, last)
        seconds = wait_after(last, attempt, policy)
        if last.crowded:
            pause_everyone(pause, seconds)
        if not last.again:
            break
        if attempt < tries:
            wait(seconds, stop)
    count = "1 try" if attempt == 1 else f"{attempt} tries"
    raise _MirrorFailed(part.shown, last, count)
