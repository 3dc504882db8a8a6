"""One request for one file: its body is appended to the part that has arrived, and hashed."""

import email.utils
import functools
import hashlib
import http.client
import importlib.metadata
import io
import logging
import os
import re
import time
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import requests
import requests.adapters
import urllib3.exceptions

from syndiff_tasks.io.address import public, without_secrets
from syndiff_tasks.io.retries import Stopped, seconds_to_wait

logger = logging.getLogger(__name__)

PIECE = 1 << 16  # bytes read, hashed and written at a time, at most

FITS_MAGIC = b"SIMPLE  ="  # FITS standard 4.0, 4.4.1.1: the first keyword of every file
GZIP_MAGIC = b"\x1f\x8b"  # RFC 1952, 2.3.1
FITS_RECORD = 2880  # bytes; the shortest FITS file is one record

RETRIED = {408, 425, 429}  # besides every 5xx
CROWDED = {429, 503}  # the server is overloaded: all processes wait, not this request alone


class Refusal(NamedTuple):
    """Why a whole file was refused, and whether only because its numbers give no flux."""

    reason: str
    no_flux: bool


@dataclass
class Part:
    """The part of a file that has arrived, and the whole as its server describes it."""

    path: Path
    url: str = ""
    base: str = ""
    size: int = 0
    digest: Any = field(default_factory=hashlib.sha256)
    total: int | None = None
    etag: str | None = None
    last_modified: str | None = None
    resumable: bool = False
    resumed: bool = False
    refusal: Refusal | None = None

    def clear(self) -> None:
        """Reset everything except path, URL and base; the next writer truncates the file."""
        self.size, self.digest, self.total = 0, hashlib.sha256(), None
        self.etag = self.last_modified = None
        self.resumable = self.resumed = False
        self.refusal = None

    @property
    def shown(self) -> str:
        """The URL as it is logged and kept: without passwords."""
        return public(self.url)

    def validator(self) -> str | None:
        """Return the version of the file on the server: a strong ETag, or its date (RFC 9110, 13.1.5)."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.last_modified


class Absent(Exception):
    """A mirror answers that it has no such file."""


class TryFailed(Exception):
    """A request failed."""

    def __init__(
        self, reason, again=True, retry_after=None, crowded=False, unreached=False, useless=None, forbidden=False
    ):
        super().__init__(reason)
        self.again = again  # another try at the same mirror may succeed
        self.retry_after = retry_after  # [s]
        self.crowded = crowded
        self.unreached = unreached
        self.forbidden = forbidden  # status 403
        self.useless = useless  # why a whole file gives no flux


def copy(source, root, part, policy, stop):
    """Copy a file from a folder; the copy is checked, whatever happens to the original."""
    if not root.is_dir():
        # An unmounted disk or an empty mount point does not prove that PS1 lacks the file.
        raise TryFailed(f"the folder {root} does not exist: not mounted, or not in the archive's layout", again=False)
    part.clear()
    try:
        original = open(source, "rb")
    except FileNotFoundError as error:
        raise Absent from error
    with original:
        status = os.fstat(original.fileno())
        part.total = status.st_size
        part.last_modified = email.utils.formatdate(status.st_mtime, usegmt=True)
        _append(part, iter(functools.partial(original.read, PIECE), b""), stop)


def get(part, policy, stop):
    """Send one request and append its body to the part."""
    try:
        with _request(part.url, policy, _range_headers(part)) as response:
            _sort(response, part, policy)
            # What has arrived, not a whole piece: a slow transfer loses none of it and stops when it is asked to.
            arrived = functools.partial(response.raw.read1, PIECE, decode_content=False)
            _append(part, iter(arrived, b""), stop)
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
        text = without_secrets(_root_of(error), part.url)
        if unreached:
            text = f"the host {urllib.parse.urlsplit(part.url).hostname} could not be reached: {text}"
        raise TryFailed(text, unreached=unreached) from error


def begins_as_fits(url, policy):
    """Return whether a URL gives the beginning of a FITS file."""
    try:
        with _request(url, policy, {"Range": f"bytes=0-{len(FITS_MAGIC) - 1}"}) as response:
            head = response.raw.read(len(FITS_MAGIC), decode_content=False)
            return response.status_code in (200, 206) and head == FITS_MAGIC
    except (requests.RequestException, urllib3.exceptions.HTTPError):
        return False


def _request(url, policy, headers):
    return session(os.getpid(), policy).get(
        url, headers=headers, stream=True, timeout=(policy.connect_timeout, policy.read_timeout)
    )


@functools.cache
def session(pid, policy):
    """Return the session of this process; `pid` keeps a forked child from using the sockets of its parent."""
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter(policy))
    agent = f"syndiff_tasks/{importlib.metadata.version('syndiff_tasks')}"
    session.headers["User-Agent"] = f"{agent} (+{policy.contact})" if policy.contact else agent
    # Stacks are compressed already; a content encoding would prevent resuming and checks of the length.
    session.headers["Accept-Encoding"] = "identity"
    return session


class _Adapter(requests.adapters.HTTPAdapter):
    """Connections on which every answer, head and body, must arrive at the policy's least speed.

    The time-out of a socket is for each packet: a byte now and then would keep a transfer alive for ever.
    """

    def __init__(self, policy):
        answer = functools.partial(_TimedResponse, policy)
        self._pools = {
            "http": _pool(urllib3.HTTPConnectionPool, answer),
            "https": _pool(urllib3.HTTPSConnectionPool, answer),
        }
        super().__init__(pool_connections=4, pool_maxsize=1, max_retries=0)

    def init_poolmanager(self, *arguments, **keywords):
        super().init_poolmanager(*arguments, **keywords)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, *arguments, **keywords):
        manager = super().proxy_manager_for(*arguments, **keywords)
        manager.pool_classes_by_scheme = self._pools
        return manager


def _pool(pool, answer):
    """Return a class of connection pools with this class of answers."""
    connection = type("Connection", (pool.ConnectionCls,), {"response_class": staticmethod(answer)})
    return type("Pool", (pool,), {"ConnectionCls": connection})


class _TimedResponse(http.client.HTTPResponse):
    """An answer that is read through `_TimedSocket`."""

    def __init__(self, policy, sock, *arguments, **keywords):
        super().__init__(sock, *arguments, **keywords)
        # What is buffered is nothing yet: the head is read later.
        self.fp = io.BufferedReader(_TimedSocket(self.fp.detach(), policy))


class _TimedSocket(io.RawIOBase):
    """The bytes of one answer; raises TimeoutError once they have been too slow since the first of them."""

    def __init__(self, raw, policy):
        self._raw, self._policy = raw, policy
        self._began, self._size = None, 0

    def readable(self):
        return True

    def readinto(self, buffer):
        count = self._raw.readinto(buffer)
        now = time.monotonic()
        self._began = now if self._began is None else self._began
        self._size += count or 0
        elapsed = now - self._began
        if count and elapsed > self._policy.read_timeout and self._size < self._policy.slowest * elapsed:
            raise TimeoutError(f"only {self._size / elapsed:.0f} bytes/s arrived")
        return count

    def close(self):
        if not self.closed:
            self._raw.close()
        super().close()


def _range_headers(part):
    """Return headers that request the rest of a part, if the server can prove that the file is the same."""
    if not part.size or not part.resumable or part.validator() is None:
        part.clear()
        return {}
    return {"Range": f"bytes={part.size}-", "If-Range": part.validator()}


def _sort(response, part, policy):
    """Prepare a part for the body of a response, or raise the failure that its status means."""
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
    # Reading a short error page to its end keeps the connection open; a long one is not worth it.
    page = response.raw.read(1 << 16, decode_content=False)
    if status in (404, 410) or (status == 403 and policy.forbidden_is_absent):
        raise Absent
    if status == 416:
        part.clear()
    again = status in RETRIED or status >= 500 or status == 416
    reason = f"status {status} {response.reason}"
    logger.info("%s answered %s, %s", part.shown, reason, described(page))
    pause = seconds_to_wait(headers.get("Retry-After"))
    raise TryFailed(reason, again=again, retry_after=pause, crowded=status in CROWDED, forbidden=status == 403)


def _continue(response, part):
    """Accept a 206 response only if it continues the part, in the same version of the file."""
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
        raise TryFailed(f"status 206 with Content-Range {given!r} and ETag {etag} does not continue the file")
    part.resumed = True


def _append(part, pieces, stop):
    """Write and hash a body; raise if it is not a FITS file or too short."""
    before = part.size
    head = b""
    with open(part.path, "ab" if part.size else "wb") as file:
        for piece in pieces:
            if stop.is_set():
                raise Stopped
            if before == 0 and len(head) < len(FITS_MAGIC):
                head += piece[:200]
                _demand_fits(head, part)
            file.write(piece)
            part.digest.update(piece)
            part.size += len(piece)
    if part.total is not None and part.size != part.total:
        raise TryFailed(f"{part.size} of {part.total} bytes arrived")
    if part.size < FITS_RECORD:
        size = part.size
        part.clear()
        raise TryFailed(f"a body of {size} bytes is not a FITS file")


def _demand_fits(head, part):
    if not head.startswith(FITS_MAGIC[: len(head)]):
        part.clear()
        logger.warning("%s sent something that is not a FITS file, %s", part.shown, described(head))
        raise TryFailed(f"the body is not a FITS file: {described(head[:40])}")


def described(body):
    """Describe the beginning of a body, its text or what compressed it."""
    if body.startswith(GZIP_MAGIC):
        return "gzip-compressed: a server or proxy has compressed it, although that was not accepted"
    return f"beginning {body[:200]!r}"


def _root_of(error):
    """Describe the root cause of a chain of network errors in a few words."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    text = getattr(error, "strerror", None) or str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
