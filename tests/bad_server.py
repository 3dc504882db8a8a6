"""An HTTP server on 127.0.0.1 that serves its files honestly, except where it is told to misbehave."""

import hashlib
import socket
import struct
import threading
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

LAST_MODIFIED = "Fri, 20 Feb 2015 07:34:01 GMT"
HTML = b"<!DOCTYPE html><html><body>The archive is down for maintenance</body></html>"
XML = b'<?xml version="1.0"?><Error><Code>SlowDown</Code></Error>'


class Answer(NamedTuple):
    """One answer; the defaults are those of an honest server."""

    status: int = 200
    headers: dict = {}
    body: bytes | None = None  # instead of the file's
    declared: int | None = 0  # added to Content-Length; None leaves the header out
    sent: int | None = None  # so many bytes of the body, and then:
    end: str = "keep"  # keep (the connection), close, reset, stall, drip (a byte now and then)
    chunked: bool = False
    piece: int = 1 << 16  # bytes of a chunk
    ranges: bool = True  # honours Range
    shift: int = 0  # gives a range that begins so much later than asked for
    at_most: int | None = None  # gives a range that ends early, which is legal
    if_range: bool = True  # looks at If-Range
    etag: bool = True  # gives an ETag
    modified: bool = True  # gives a Last-Modified


HONEST = Answer()


def status(code, **headers):
    return Answer(code, {name.replace("_", "-"): value for name, value in headers.items()}, HTML)


def etag_of(body):
    return f'"{hashlib.md5(body).hexdigest()}"'


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16  # head and body of a small file in one segment

    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server
        server.asked.append((self.path, dict(self.headers)))
        server.progress.set()
        queue = server.answers.get(self.path, ())
        answer = queue.popleft() if queue else server.always.get(self.path, HONEST)
        if callable(answer):
            answer = answer(server)
        body = answer.body if answer.body is not None else server.files.get(self.path)
        if body is None:
            answer, body = answer._replace(status=404), HTML
        self.give(answer, body)

    def give(self, answer, body):
        start = self.start_of(answer, body)
        if start is not None and start >= len(body):
            answer, body, start = answer._replace(status=416), b"", None
        code = answer.status
        if start is not None:
            code = 206
        if answer.end == "reset" and answer.sent is None:
            self.hang_up(reset=True)
            return
        self.send_response(code)
        if code in (200, 206):
            if answer.etag:
                self.send_header("ETag", etag_of(body))
            if answer.modified:
                self.send_header("Last-Modified", LAST_MODIFIED)
            if answer.ranges:
                self.send_header("Accept-Ranges", "bytes")
        if start is not None:
            end = len(body) if answer.at_most is None else min(start + answer.at_most, len(body))
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(body)}")
            body = body[start:end]
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif answer.declared is not None:
            self.send_header("Content-Length", str(len(body) + answer.declared))
        self.end_headers()
        self.send_body(answer, body)

    def start_of(self, answer, body):
        wanted = self.headers.get("Range")
        if wanted is None or not answer.ranges or answer.status != 200:
            return None
        if answer.if_range and self.headers.get("If-Range") not in (None, etag_of(body), LAST_MODIFIED):
            return None
        return int(wanted.removeprefix("bytes=").partition("-")[0]) + answer.shift

    def send_body(self, answer, body):
        whole = memoryview(body)[: answer.sent]
        for begin in range(0, len(whole), answer.piece):
            piece = whole[begin : begin + answer.piece]
            if answer.chunked:
                self.wfile.write(f"{len(piece):x}\r\n".encode() + bytes(piece) + b"\r\n")
            else:
                self.wfile.write(piece)
        if answer.chunked and answer.sent is None:
            self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()
        if answer.end == "stall":
            self.server.closing.wait(20)
        elif answer.end == "drip":
            for number in range(len(body) - len(whole)):
                self.server.dripped += 1
                drop = bytes(body[len(whole) + number : len(whole) + number + 1])
                self.wfile.write(b"1\r\n" + drop + b"\r\n" if answer.chunked else drop)
                self.wfile.flush()
                if self.server.closing.wait(0.02):
                    return
        if answer.end != "keep" or answer.declared is None:
            self.hang_up(reset=answer.end == "reset")

    def hang_up(self, reset):
        self.close_connection = True
        if reset:  # lingering for 0 s turns the close into a RST
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.rfile.close()
            self.connection.close()


class BadServer(ThreadingHTTPServer):
    """Context manager; `url` is its address, `asked` what it was asked, `connections` how often it was rung up."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {}
        self.answers = {}  # path -> deque of answers, one a request
        self.always = {}  # path -> answer to all requests after those
        self.asked = []
        self.dripped = 0  # bytes
        self.connections = 0
        self.progress = threading.Event()
        self.closing = threading.Event()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def put(self, path, body, *answers, always=None):
        """Serve `body`, after these answers (an Answer or a function of the server)."""
        self.files[f"/{path}"] = body
        self.answers[f"/{path}"] = deque(answers)
        if always is not None:
            self.always[f"/{path}"] = always

    def process_request(self, request, client_address):
        self.connections += 1
        super().process_request(request, client_address)

    def handle_error(self, request, client_address):
        """Clients that hang up are part of the game."""

    def __enter__(self):
        # A short poll lets the server stop at once.
        self.thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.closing.set()
        self.shutdown()
        self.thread.join()
        self.server_close()
