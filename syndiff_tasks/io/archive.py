"""Fetching PS1 stack files from mirrors that fail in every way: whole and checked, or not at all.

A file is streamed to a hidden temporary, hashed on the way, read by the caller's own reader, and only then handed
on. What PS1 has not, or has with numbers that give no flux (`Unusable`), is a fact about the archive and kept apart
from what it does not give just now (`ArchiveUnavailable`, to be tried later). Whatever happens, SIGKILL excepted,
the temporaries go; `sweep` takes those that a killed process left.
"""

import contextlib
import datetime
import email.utils
import functools
import hashlib
import importlib.metadata
import logging
import math
import os
import random
import re
import shutil
import socket
import threading
import time
import urllib.parse
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import requests
import requests.adapters
import urllib3.exceptions

logger = logging.getLogger(__name__)

KINDS = {"image": "", "mask": ".mask", "wt": ".wt", "num": ".num", "exp": ".exp"}  # stack products and their infix

QUARANTINE = "quarantine"
PIECE = 1 << 20  # bytes read, hashed and written at a time

FITS_MAGIC = b"SIMPLE  ="  # FITS standard 4.0, 4.4.1.1: the first keyword of every file
FITS_RECORD = 2880  # bytes; the shortest FITS file is one record

RETRIED = {408, 425, 429}  # besides every 5xx
CROWDED = {429, 503}  # the server asks everybody to wait, not only this request

# The largest a stack product can be: 16 bits for each pixel of the largest skycell of rings.v3. A real r-band file
# has 69 MB of 79 MB, since noise hardly compresses.
LARGEST_FILE = 6501 * 6429 * 2
# Masks are mostly runs of equal numbers.
TYPICAL_FILE = {"image": 69_000_000, "wt": 69_000_000, "mask": 10_000_000, "num": 10_000_000, "exp": 40_000_000}

# Header reference and ring table agree to 1e-10 deg; a wrong skycell is off by degrees or thousands of pixels.
WCS_TOLERANCE = {"NAXIS": 0, "CRVAL": 1e-6, "CRPIX": 1e-3, "CDELT": 1e-11, "PC": 1e-6}


class NoFlux(ValueError):
    """A file is whole and the one asked for, but its numbers give no flux."""


class ArchiveUnavailable(RuntimeError):
    """No mirror gave the file whole just now; the message names the URLs and their last errors."""


class Politeness(NamedTuple):
    """How an archive is asked: how often, how patiently, and under which name."""

    tries: int  # of one file at one mirror
    connect_timeout: float  # [s]
    read_timeout: float  # [s] of silence before a transfer counts as dead
    first_wait: float  # [s] longest wait before the second try; doubles from try to try
    longest_wait: float  # [s] no wait is longer, whatever a server or a clock says
    slowest: float = 0.0  # [bytes/s] a transfer that stays below it is broken off and resumed
    contact: str = ""  # project page, for the archive's operators; goes into the User-Agent


class Unusable(NamedTuple):
    """A file that every mirror that has it gives whole, with numbers that give no flux; it is in quarantine."""

    url: str
    reason: str


class FetchedFile(NamedTuple):
    """A whole file, what its server said about it, and what its reader made of it."""

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
        If the name, a band or a kind is none.
    """
    match = re.fullmatch(r"skycell\.(\d{4})\.(\d{3})", skycell)
    if match is None:
        raise ValueError(f"{skycell!r} is no skycell; write it as skycell.PPPP.CCC with all leading zeros")
    bands, kinds = tuple(bands), tuple(kinds)
    for band in bands:
        if band not in tuple("grizy"):
            raise ValueError(f"{band!r} is no PS1 filter; choose from g, r, i, z, y")
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"{kind!r} is no stack product; choose from {', '.join(KINDS)}")
    folder = f"rings.v3.skycell/{match[1]}/{match[2]}"
    return {
        f"{band}_{kind}": f"{folder}/rings.v3.{skycell}.stk.{band}.unconv{KINDS[kind]}.fits"
        for band in bands
        for kind in kinds
    }


def source_of(base: str, path: str) -> str | Path:
    """Find where a mirror keeps a file.

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
        raise ValueError(f"archive {base!r}: cannot fetch by {scheme}; give http(s)://…, s3://… or a folder")
    if "?uri=" in base:
        name = path.rpartition("/")[2]
        return f"{base}{name}" if base.endswith(("/", "=")) else f"{base}/{name}"
    return f"{base.rstrip('/')}/{path}"


# --- fetching -------------------------------------------------------------------------------------------------


def fetch_all(
    files: Mapping[str, str],
    bases: Iterable[str],
    folder: str | os.PathLike,
    politeness: Politeness,
    read: Callable[[str, Path], Any],
) -> Iterator[tuple[str, FetchedFile | Unusable | None]]:
    """Fetch files one after another, each while the one before is read and used.

    One thread, which ends with the generator, keeps one connection busy, one file ahead. Close the generator (it
    closes itself when exhausted or when anything raises) and no temporary stays.

    Parameters
    ----------
    files : mapping of str to str
        Key to path below the archive's base, from `stack_files`.
    bases : iterable of str
        Mirrors, tried in turn; see `source_of`.
    folder : path-like
        Where the temporaries go, the pauses and ``quarantine/``. Made if missing.
    politeness : Politeness
        Tries, timeouts, waits.
    read : callable
        Called in the caller's thread with the key and the path of a finished download; reads all of it and raises
        ValueError if it is not whole or not the one asked for, NoFlux if it is but cannot be used.

    Yields
    ------
    key : str
        In the order of `files`.
    file : FetchedFile, Unusable or None
        None where PS1 has no such file: every mirror answered 404 or 410. Its `path` is a temporary that goes with
        the next step; its `content` is what `read` returned.

    Raises
    ------
    ArchiveUnavailable
        If no mirror gives a file now; what was yielded before stays good.
    OSError
        If the disk is full or not writable; nothing is left behind.
    """
    if not files:
        return
    stop, folder, bases = threading.Event(), Path(folder), tuple(bases)
    bodies = {key: _bodies(path, bases, folder, politeness, stop) for key, path in files.items()}
    keys = list(bodies)
    reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="archive")
    try:
        ahead = reader.submit(next, bodies[keys[0]])
        for key, following in zip(keys, [*keys[1:], None], strict=True):
            try:
                body = ahead.result()
            except _Absent:
                body = None
            if following is not None:
                ahead = reader.submit(next, bodies[following])
            if body is None:
                yield key, None
                continue
            # A refused body is fetched again behind the one already under way: one connection, whatever happens.
            again = functools.partial(_in_thread, reader, bodies[key].throw)
            try:
                file = _first_readable(body, again, functools.partial(read, key))
            except _Useless as useless:
                file = Unusable(useless.url, str(useless))
            yield key, file
            bodies[key].close()
    finally:
        stop.set()
        reader.shutdown(wait=True, cancel_futures=True)
        for unfinished in bodies.values():
            # Ctrl-C while the thread was being started: the executor does not know it, and did not wait for it.
            while unfinished.gi_running:
                time.sleep(0.01)
            unfinished.close()


def _in_thread(reader, function, *arguments):
    return reader.submit(function, *arguments).result()


def _first_readable(body, refuse, read):
    """Read a body; hand a bad one back to its generator, which fetches another or raises."""
    while True:
        try:
            content = read(body.path)
        except ValueError as error:
            kind, reason = (NoFlux if isinstance(error, NoFlux) else ValueError), str(error)
        else:
            fetched = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
            return FetchedFile(
                body.path, body.url, body.size, body.digest.hexdigest(), body.etag, body.last_modified, fetched, content
            )
        # Outside the handler, with the words alone: the error's traceback holds the reader's arrays.
        body = refuse(kind(reason))


# --- one file, all mirrors ------------------------------------------------------------------------------------


@dataclass
class _Part:
    """What has arrived of one file, and what its server says the whole is."""

    path: Path
    url: str = ""
    size: int = 0
    digest: Any = field(default_factory=hashlib.sha256)
    total: int | None = None
    etag: str | None = None
    last_modified: str | None = None
    resumable: bool = False
    resumed: bool = False

    def clear(self) -> None:
        """Forget everything but the place; the file is truncated by its next writer."""
        self.size, self.digest, self.total = 0, hashlib.sha256(), None
        self.etag = self.last_modified = None
        self.resumable = self.resumed = False

    def validator(self) -> str | None:
        """Name the state of the file on the server: a strong ETag or, failing that, its date (RFC 9110, 13.1.5)."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.last_modified


class _Absent(Exception):
    """The mirror, or every mirror, says that there is no such file."""


class _Useless(Exception):
    """No mirror has a file of which there is flux; the message says why not."""

    def __init__(self, reason, url):
        super().__init__(reason)
        self.url = url


class _Stopped(Exception):
    """The caller has gone; the reader thread ends."""


class _MirrorFailed(Exception):
    """The mirror was given up; the message is a clause of the final sentence."""

    def __init__(self, url, last, tries):
        super().__init__(f"{url}: {last} ({tries})")
        self.url, self.unreached, self.useless = url, last.unreached, last.useless


class _TryFailed(Exception):
    """One request came to nothing."""

    def __init__(self, reason, again=True, retry_after=None, crowded=False, unreached=False, useless=None):
        super().__init__(reason)
        self.again = again  # the same mirror may do better next time
        self.retry_after = retry_after  # [s]
        self.crowded = crowded
        self.unreached = unreached
        self.useless = useless  # why the file, which came whole, gives no flux


def _bodies(path, bases, folder, politeness, stop):
    """Yield a whole body; on a ValueError thrown in, another one; raise when the mirrors are at their end.

    The body's file belongs to this generator and goes when it ends.
    """
    name = path.rpartition("/")[2]
    sources = [source_of(base, path) for base in bases]
    if not sources:
        raise ValueError("`archive` is empty; give base URLs or folders in the [syndiff] section of luigi.cfg")
    folder.mkdir(parents=True, exist_ok=True)
    part, suspect = _Part(_temporary(folder, name)), _temporary(folder, name)
    failures = []
    try:
        for source, base in zip(sources, bases, strict=True):
            part.clear()
            part.url = source.absolute().as_uri() if isinstance(source, Path) else source
            root = Path(base).expanduser() / path.partition("/")[0] if isinstance(source, Path) else None
            transfer = functools.partial(_copy, source, root) if root else _get
            with contextlib.suppress(_Absent):
                try:
                    yield from _bodies_of_mirror(transfer, part, suspect, politeness, stop)
                except _MirrorFailed as failure:
                    failures.append(failure)
        if not failures:
            raise _Absent
        reason = f"{name} could not be fetched: {'; '.join(map(str, failures))}"
        if suspect.exists():
            kept = _quarantine(suspect, name, reason)
            reason += f"; the last refused body is in {kept}"
        if all(failure.useless for failure in failures):
            raise _Useless(failures[-1].useless, failures[-1].url)
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


def _bodies_of_mirror(transfer, part, suspect, politeness, stop):
    """Yield whole bodies from one mirror till its tries are used up."""
    attempt, tries, refused = 0, politeness.tries, None
    pause = _pause_file(part)
    while attempt < tries:
        attempt += 1
        _await_turn(pause, politeness, stop)
        try:
            transfer(part, politeness, stop)
        except _TryFailed as failure:
            last = failure
        else:
            try:
                yield part
            except ValueError as error:
                # The temporary's name means nothing to who reads this later.
                reason = str(error).replace(str(part.path), part.path.name.rpartition("+")[2])
                useless = reason if isinstance(error, NoFlux) else None
                last = _TryFailed(f"the file fails its check: {reason}", useless=useless)
            os.replace(part.path, suspect)
            digest = part.digest.hexdigest()
            if part.resumed and attempt == tries:
                tries += 1  # the two halves may not belong together: once more, from zero
            # The same bytes twice are the mirror's fault, not the line's.
            last.again = digest != refused
            refused = digest
            part.clear()
        logger.warning("try %d of %d of %s failed: %s", attempt, tries, part.url, last)
        wait = _wait_after(last, attempt, politeness)
        if last.crowded:
            _pause_everyone(pause, wait)
        if not last.again:
            break
        if attempt < tries:
            _wait(wait, stop)
    count = "1 try" if attempt == 1 else f"{attempt} tries"
    raise _MirrorFailed(part.url, last, count)


def _copy(source, root, part, politeness, stop):
    """Copy a file out of a folder; the copy is what gets checked, whatever happens to the original."""
    if not root.is_dir():
        # A disk that is not mounted, or an empty mount point, says nothing about what PS1 has.
        raise _TryFailed(f"there is no folder {root}; not mounted, or not in the archive's layout", again=False)
    part.clear()
    try:
        original = open(source, "rb")
    except FileNotFoundError as error:
        raise _Absent from error
    with original:
        status = os.fstat(original.fileno())
        part.total = status.st_size
        part.last_modified = email.utils.formatdate(status.st_mtime, usegmt=True)
        _append(part, iter(functools.partial(original.read, PIECE), b""), politeness, stop)


def _get(part, politeness, stop):
    """Send one request and append its body to the part."""
    try:
        with _session(os.getpid(), politeness.contact).get(
            part.url,
            headers=_range_headers(part),
            stream=True,
            timeout=(politeness.connect_timeout, politeness.read_timeout),
        ) as response:
            _sort(response, part)
            _append(part, response.raw.stream(PIECE, decode_content=False), politeness, stop)
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        reason = getattr(error.args[0], "reason", None) if error.args else None
        unreached = isinstance(
            reason,
            (
                urllib3.exceptions.NewConnectionError,
                urllib3.exceptions.ConnectTimeoutError,
                urllib3.exceptions.ProxyError,
            ),
        )
        text = _root_of(error)
        if unreached:
            text = f"the host {urllib.parse.urlsplit(part.url).hostname} could not be reached: {text}"
        raise _TryFailed(text, unreached=unreached) from error


@functools.cache
def _session(pid, contact):
    """Make the session of this process; a forked child must not share its parent's sockets, hence the pid."""
    session = requests.Session()
    session.mount("http://", requests.adapters.HTTPAdapter(pool_connections=4, pool_maxsize=1, max_retries=0))
    session.mount("https://", requests.adapters.HTTPAdapter(pool_connections=4, pool_maxsize=1, max_retries=0))
    agent = f"syndiff_tasks/{importlib.metadata.version('syndiff_tasks')}"
    session.headers["User-Agent"] = f"{agent} (+{contact})" if contact else agent
    # Stacks are compressed inside; an encoded body could be neither resumed nor measured against its length.
    session.headers["Accept-Encoding"] = "identity"
    return session


def _range_headers(part):
    """Ask for the rest of a part, if the server can say that it is the rest of the same file."""
    if not part.size or not part.resumable or part.validator() is None:
        part.clear()
        return {}
    return {"Range": f"bytes={part.size}-", "If-Range": part.validator()}


def _sort(response, part):
    """Take from the head of an answer what is coming, or raise what one does next."""
    status, headers = response.status_code, response.headers
    if status == 206:
        _continue(response, part)
        return
    if status == 200:
        part.clear()
        length = headers.get("Content-Length", "")
        part.total = int(length) if length.isdigit() else None
        part.etag, part.last_modified = headers.get("ETag"), headers.get("Last-Modified")
        part.resumable = headers.get("Accept-Ranges", "bytes") != "none"
        return
    # Reading a short error page to its end keeps the connection; a long one is not worth it.
    page = response.raw.read(1 << 16, decode_content=False)
    if status in (404, 410):
        raise _Absent
    if status == 416:
        part.clear()
    again = status in RETRIED or status >= 500 or status == 416
    reason = f"status {status} {response.reason}"
    logger.info("%s answered %s, beginning %r", part.url, reason, page[:200])
    pause = seconds_to_wait(headers.get("Retry-After"), time.time())
    raise _TryFailed(reason, again=again, retry_after=pause, crowded=status in CROWDED)


def _continue(response, part):
    """Accept a 206 only if it goes on where the part ends, in the same file."""
    given = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", given)
    etag = response.headers.get("ETag", part.etag)
    modified = response.headers.get("Last-Modified", part.last_modified)
    unchanged = etag == part.etag and modified == part.last_modified
    fits = match is not None and int(match[1]) == part.size > 0 and unchanged
    if fits and match[3] != "*":
        fits = part.total in (None, int(match[3]))
        part.total = int(match[3])
    if not fits:
        part.clear()
        raise _TryFailed(f"status 206 with Content-Range {given!r} and ETag {etag} does not continue the file")
    part.resumed = True


def _append(part, pieces, politeness, stop):
    """Write and hash what comes; raise if it is no FITS file, comes too slowly or ends too early."""
    began, before = time.monotonic(), part.size
    head = b""
    with open(part.path, "ab" if part.size else "wb") as file:
        for piece in pieces:
            if stop.is_set():
                raise _Stopped
            if before == 0 and len(head) < len(FITS_MAGIC):
                head += piece[:200]
                _demand_fits(head, part)
            file.write(piece)
            part.digest.update(piece)
            part.size += len(piece)
            elapsed = time.monotonic() - began
            if elapsed > politeness.read_timeout and part.size - before < politeness.slowest * elapsed:
                raise _TryFailed(f"only {(part.size - before) / elapsed:.0f} bytes/s came in")
    if part.total is not None and part.size != part.total:
        raise _TryFailed(f"{part.size} of {part.total} bytes came")
    if part.size < FITS_RECORD:
        size = part.size
        part.clear()
        raise _TryFailed(f"a body of {size} bytes is no FITS file")


def _demand_fits(head, part):
    if not head.startswith(FITS_MAGIC[: len(head)]):
        part.clear()
        logger.warning("%s answered with something that is no FITS file, beginning %r", part.url, head[:200])
        raise _TryFailed(f"the answer is no FITS file but begins {head[:40]!r}")


def _root_of(error):
    """Say in a few words what lies at the bottom of a chain of network errors."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    text = getattr(error, "strerror", None) or str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


# --- waiting --------------------------------------------------------------------------------------------------


def seconds_to_wait(retry_after: str | None, now: float) -> float | None:
    """Read a Retry-After header (RFC 9110, 10.2.3).

    Parameters
    ----------
    retry_after : str or None
        Seconds or an HTTP date.
    now : float
        Unix time [s].

    Returns
    -------
    seconds : float or None
        From now, never negative; None where the header is missing or means nothing.
    """
    if retry_after is None:
        return None
    if retry_after.strip().isdigit():
        return float(retry_after)
    try:
        date = email.utils.parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=datetime.timezone.utc)
    return max(0.0, date.timestamp() - now)


def _wait_after(failure, attempt, politeness):
    """Seconds before the next try: exponential back-off with full jitter, or what the server asks; bounded."""
    backoff = min(politeness.longest_wait, politeness.first_wait * 2 ** (attempt - 1))
    asked = failure.retry_after
    if asked is None:
        asked = backoff if failure.crowded else 0.0
    return min(politeness.longest_wait, max(random.uniform(0, backoff), asked))


def _wait(seconds, stop):
    if stop.wait(seconds):
        raise _Stopped


def _pause_file(part):
    """Name the file by which the processes of a data folder tell one another to leave a host alone."""
    host = urllib.parse.urlsplit(part.url).netloc
    return part.path.with_name(f".pause+{host}")


def _pause_everyone(pause, seconds):
    until = time.time() + seconds
    if until > _paused_until(pause):
        temporary = _temporary(pause.parent, pause.name)
        temporary.write_text(f"{until:.3f}\n")
        os.replace(temporary, pause)


def _paused_until(pause):
    """Unix time until which a host is to be left alone; 0 where nobody asked for it."""
    try:
        return float(pause.read_text())
    except (FileNotFoundError, ValueError):  # a power cut can leave the file empty
        return 0.0


def _await_turn(pause, politeness, stop):
    """Wait out a pause that another process was told; a pause no server can have caused is a clock that jumped."""
    began = time.monotonic()
    while 0 < (left := _paused_until(pause) - time.time()) <= politeness.longest_wait:
        if time.monotonic() - began > politeness.longest_wait:
            return
        # All were told the same moment: spread out.
        _wait(left + random.uniform(0, politeness.first_wait), stop)


# --- files on disk --------------------------------------------------------------------------------------------


def _temporary(folder, name):
    """Name a hidden file that tells whose it is; the real name comes last, for readers that go by extension."""
    return folder / f".fetching+{socket.gethostname()}+{os.getpid()}+{uuid.uuid4().hex[:8]}+{name}"


def _quarantine(suspect, name, reason):
    """Put a refused body aside with its reason; one of each name, so that retries for days fill no disk."""
    folder = suspect.parent / QUARANTINE
    folder.mkdir(exist_ok=True)
    kept = folder / name
    # Replaced, not rewritten: the last one may be another user's.
    told = _temporary(folder, f"{name}.reason.txt")
    told.write_text(f"{reason}\n", encoding="utf-8")
    os.replace(told, kept.with_name(f"{name}.reason.txt"))
    os.replace(suspect, kept)
    return kept


def sweep(folder: str | os.PathLike, days: float) -> list[Path]:
    """Remove what killed processes left.

    Parameters
    ----------
    folder : path-like
        The `folder` of `fetch_all`; may be missing.
    days : float
        Age from which a temporary of a process that cannot be asked (another host's) goes too.

    Returns
    -------
    removed : list of Path
        The temporaries of dead processes of this host, and all older than `days`.
    """
    removed = []
    for temporary in sorted(Path(folder).glob(".fetching+*")):
        host, pid = temporary.name.split("+")[1:3]
        dead = host == socket.gethostname() and not alive(int(pid))
        # Its owner, or another sweeper, was first; or it is another user's, who will sweep it.
        with contextlib.suppress(FileNotFoundError, PermissionError):
            if dead or time.time() - temporary.stat().st_mtime > days * 86400:
                temporary.unlink()
                removed.append(temporary)
    return removed


def alive(pid: int) -> bool:
    """Tell whether a process of this host can still write: one that waits for its parent to notice its end cannot."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    try:
        # proc(5): the state follows the name, which stands in parentheses and may hold some itself.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1] not in ("Z", "X")
    except OSError:
        return not Path("/proc/self").exists()


def needed_bytes(
    n_skycells: int,
    bands: Iterable[str],
    kinds: Iterable[str],
    at_once: int,
    keep_raw: bool,
    combined: int = 0,
) -> int:
    """Estimate what a run puts on the disk.

    Parameters
    ----------
    n_skycells : int
        Skycells that are not there yet.
    bands, kinds : iterable of str
        As in `stack_files`.
    at_once : int
        Downloads at a time; each holds two temporaries.
    keep_raw : bool
        Whether raw skycells stay once they are combined.
    combined : int
        Size of one combined skycell [bytes].

    Returns
    -------
    size : int
        [bytes]

    Notes
    -----
    69 MB an image is measured on real r-band files; variances are noise as well, masks compress.
    """
    raw = len(tuple(bands)) * sum(TYPICAL_FILE[kind] for kind in kinds)
    at_once = min(at_once, n_skycells)
    kept = n_skycells if keep_raw else at_once
    return kept * raw + n_skycells * combined + 2 * at_once * LARGEST_FILE


def demand_space(folder: str | os.PathLike, needed: int) -> None:
    """Compare what a run needs with what the disk has.

    Parameters
    ----------
    folder : path-like
        Where the products will go; may not exist yet.
    needed : int
        [bytes], from `needed_bytes`.

    Raises
    ------
    ValueError
        If there is less.
    """
    place = Path(folder).absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed:
        raise ValueError(
            f"{folder} has {free / 1e9:.1f} GB free but this run needs about {needed / 1e9:.1f} GB; free some space,"
            " ask for a smaller region (--roi), or set keep_raw = false in luigi.cfg"
        )


# --- what a file says of itself -------------------------------------------------------------------------------


def check_keywords(keywords: Mapping[str, Any], expected: Mapping[str, float], kind: str, dtype: Any) -> None:
    """Check that a stack product is of the skycell that was asked for, and can be turned into flux.

    Parameters
    ----------
    keywords : mapping
        Header of the product.
    expected : mapping of str to float
        ``NAXIS1``, ``NAXIS2``, ``CRVAL1`` [deg], ``CRPIX1`` [px, 1-based], ``CDELT1`` [deg], ``PC1_1``, … out of the
        ring table. Old-style ``PC001001`` is the same as ``PC1_1``. Keywords that real stacks leave out (LONPOLE,
        EQUINOX, …) may be among them and are not looked at.
    kind : str
        Out of `KINDS`. Images must have all of `expected`; in the others, what is there must agree.
    dtype : dtype
        Of the stored pixels.

    Raises
    ------
    ValueError
        Naming the first keyword that is wrong.
    NoFlux
        If the position is right, but the numbers of an image or a variance give no flux.
    """
    for name, value in expected.items():
        if _stem(name) not in WCS_TOLERANCE:
            continue
        _check_position(keywords, name, value, required=kind == "image" or name.startswith("NAXIS"))
    if kind == "mask":
        _check_mask(keywords, np.dtype(dtype))
    elif kind in ("image", "wt"):
        _check_scaling(keywords)


def _stem(name):
    return name.rstrip("0123456789_")


def _check_position(keywords, name, value, required):
    old_style = f"PC00{name[2]}00{name[4]}" if name.startswith("PC") else name
    found = keywords.get(name, keywords.get(old_style))
    if found is None:
        if required:
            raise ValueError(f"header has no {name}, the ring table says {value}: not a whole skycell of PS1")
        return
    off = float(found) - value
    if name == "CRVAL1":
        off = math.remainder(off, 360.0)
    if not abs(off) <= WCS_TOLERANCE[_stem(name)]:
        raise ValueError(f"header has {name} = {found}, the ring table says {value}: not the skycell it is named")


def _check_mask(keywords, dtype):
    if dtype.kind not in "iu" or dtype.itemsize < 2:
        raise ValueError(f"mask pixels are {dtype}, too narrow for the 16 bits of PS1; the upper bits are lost")
    if float(keywords.get("BSCALE", 1)) != 1:
        raise ValueError(f"mask has BSCALE = {keywords['BSCALE']}: its bits have been through a lossy compression")


def _check_scaling(keywords):
    exptime = float(keywords.get("EXPTIME", math.nan))  # IPP writes an undefined number as the text 'NaN'
    if not 0 < exptime < math.inf:
        raise NoFlux(f"header has EXPTIME = {keywords.get('EXPTIME')}: counts/s cannot be computed")
    zero_point = float(keywords.get("FPA.ZP", 25))
    if not math.isfinite(zero_point):
        raise NoFlux(f"header has FPA.ZP = {zero_point}: no zero point in magnitudes")
    present = [name for name in ("BSOFTEN", "BOFFSET") if name in keywords]
    if len(present) == 1:
        raise NoFlux(f"header has {present[0]} without its partner: BSOFTEN and BOFFSET belong together")
    if not present:
        return
    softening, offset = float(keywords["BSOFTEN"]), float(keywords["BOFFSET"])
    if math.isnan(softening):  # legal: an image without a good pixel
        return
    if not 0 < softening < math.inf or not math.isfinite(offset):
        raise NoFlux(f"header has BSOFTEN = {softening}, BOFFSET = {offset}: flux cannot be computed")
