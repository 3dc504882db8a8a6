"""A small HTTP server of a folder on 127.0.0.1, with what an archive's server has: ranges, ETag, keep-alive."""

import contextlib
import re
import shutil
import threading
from collections.abc import Iterator
from email.utils import formatdate, parsedate_to_datetime
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit


class Request(NamedTuple):
    """A request that was answered.

    Attributes
    ----------
    method, path : str
        As asked.
    range : str or None
        Its Range header.
    status : int
        Of the answer.
    """

    method: str
    path: str
    range: str | None
    status: int


def byte_range(text: str | None, size: int) -> tuple[int, int] | None:
    """Read a Range header of one range.

    Parameters
    ----------
    text : str or None
        ``bytes=first-last``, ``bytes=first-`` or ``bytes=-count``.
    size : int
        Of the file.

    Returns
    -------
    tuple of int or None
        (start, stop), half-open. None for no header, or one to be disregarded (RFC 9110, section 14.2): another unit,
        several ranges, last before first.

    Raises
    ------
    ValueError
        If the range starts beyond the end of the file: to be answered with 416.
    """
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", (text or "").strip())
    if not match or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if first and last and int(last) < int(first):
        return None
    start = int(first) if first else max(0, size - int(last))
    stop = min(size, int(last) + 1) if first and last else size
    if start >= size:
        raise ValueError(f"range {text!r} starts beyond the end of a file of {size} bytes")
    return start, stop


class FolderHandler(BaseHTTPRequestHandler):
    """Answer GET and HEAD for the files of one folder; subclasses may override `do_GET` to misbehave."""

    protocol_version = "HTTP/1.1"
    # Nagle's algorithm would hold back the last piece of every answer on a kept-alive connection.
    disable_nagle_algorithm = True

    def __init__(self, *args, folder: Path, requests: list, **kwargs):
        self.folder, self.requests = folder, requests
        super().__init__(*args, **kwargs)

    def do_GET(self):  # noqa: N802  the name is http.server's
        """Answer with the file, a range of it, or 304, 404 or 416."""
        self.answer(body=True)

    def do_HEAD(self):  # noqa: N802
        """Answer as to GET, without the body."""
        self.answer(body=False)

    def file(self) -> Path | None:
        """File asked for, or None: there is none, or it lies outside the folder."""
        path = (self.folder / unquote(urlsplit(self.path).path).lstrip("/")).resolve()
        return path if path.is_file() and path.is_relative_to(self.folder) else None

    def answer(self, body: bool) -> None:
        """Send status, headers and, if `body`, the bytes."""
        path = self.file()
        if path is None:
            self.close_with(HTTPStatus.NOT_FOUND, {})
            return
        stat = path.stat()
        etag = f'"{stat.st_size:x}-{stat.st_mtime_ns:x}"'
        known = {
            "ETag": etag,
            "Last-Modified": formatdate(int(stat.st_mtime), usegmt=True),
            "Accept-Ranges": "bytes",
        }
        if self.is_known(etag, stat.st_mtime):
            self.close_with(HTTPStatus.NOT_MODIFIED, known)
            return
        wanted = self.headers.get("Range")
        if self.headers.get("If-Range", etag) not in (etag, known["Last-Modified"]):
            wanted = None
        try:
            part = byte_range(wanted, stat.st_size)
        except ValueError:
            known["Content-Range"] = f"bytes */{stat.st_size}"
            self.close_with(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, known)
            return
        start, stop = part or (0, stat.st_size)
        if part:
            known["Content-Range"] = f"bytes {start}-{stop - 1}/{stat.st_size}"
        known |= {"Content-Type": "application/fits", "Content-Length": str(stop - start)}
        self.head(HTTPStatus.PARTIAL_CONTENT if part else HTTPStatus.OK, known)
        if body:
            self.send_part(path, start, stop)

    def is_known(self, etag: str, modified: float) -> bool:
        """Whether the client says that it has this file already."""
        if "If-None-Match" in self.headers:
            return etag in self.headers["If-None-Match"] or self.headers["If-None-Match"].strip() == "*"
        since = self.headers.get("If-Modified-Since")
        return since is not None and int(modified) <= parsedate_to_datetime(since).timestamp()

    def send_part(self, path: Path, start: int, stop: int) -> None:
        """Send the bytes [start, stop) of a file."""
        with path.open("rb") as file:
            file.seek(start)
            if stop == path.stat().st_size:
                shutil.copyfileobj(file, self.wfile, 1 << 18)
            else:
                self.wfile.write(file.read(stop - start))

    def head(self, status: HTTPStatus, headers: dict) -> None:
        """Send status and headers, and note the request."""
        self.requests.append(Request(self.command, self.path, self.headers.get("Range"), int(status)))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def close_with(self, status: HTTPStatus, headers: dict) -> None:
        """Send an answer that has no body."""
        self.head(status, headers if status == HTTPStatus.NOT_MODIFIED else {**headers, "Content-Length": "0"})

    def log_message(self, *args):
        """Keep the terminal clean: `requests` has them all."""


@contextlib.contextmanager
def serve(folder, port: int = 0, requests: list | None = None, handler=FolderHandler) -> Iterator[str]:
    """Serve a folder on 127.0.0.1 while the block runs.

    Parameters
    ----------
    folder : path-like
        Whose files.
    port : int
        0 takes a free one.
    requests : list, optional
        Gets a `Request` for each answer.
    handler : type
        Subclass of `FolderHandler`, for tests of servers that misbehave.

    Yields
    ------
    str
        Base URL, without a slash at the end.
    """
    noted = [] if requests is None else requests
    make = partial(handler, folder=Path(folder).resolve(), requests=noted)
    with ThreadingHTTPServer(("127.0.0.1", port), make) as server:
        # A kept-alive connection of a client that is still running must not hold up the end.
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
