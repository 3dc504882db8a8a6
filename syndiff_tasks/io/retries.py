"""How often an archive is asked, how long one waits in between, and the pauses that processes share."""

import os
import random
import time
import urllib.parse
from typing import NamedTuple

import urllib3
import urllib3.exceptions

from syndiff_tasks.io.disk import temporary_file


class RetryPolicy(NamedTuple):
    """How an archive is asked: how often, how patiently, and under which name."""

    tries: int  # of one file at one mirror
    connect_timeout: float  # [s]
    read_timeout: float  # [s] of silence before a transfer counts as dead
    first_wait: float  # [s] longest wait before the second try; doubles from try to try
    longest_wait: float  # [s] no wait is longer, whatever a server or a clock says
    slowest: float = 0.0  # [bytes/s] a transfer that stays below it is broken off and resumed
    contact: str = ""  # project page, for the archive's operators; goes into the User-Agent


class Stopped(Exception):
    """The caller has gone; the reader thread ends."""


def seconds_to_wait(retry_after: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for (RFC 9110, 10.2.3), None where it is absent or invalid."""
    if retry_after is None:
        return None
    try:
        return urllib3.Retry().parse_retry_after(retry_after)
    except (urllib3.exceptions.InvalidHeader, ValueError, OverflowError):
        return None


def wait_after(failure, attempt, policy):
    """Seconds before the next try: exponential back-off with full jitter, or what the server asks; bounded."""
    backoff = min(policy.longest_wait, policy.first_wait * 2 ** (attempt - 1))
    asked = failure.retry_after
    if asked is None:
        asked = backoff if failure.crowded else 0.0
    return min(policy.longest_wait, max(random.uniform(0, backoff), asked))


def wait(seconds, stop):
    """Wait; raise `Stopped` where the caller has gone."""
    if stop.wait(seconds):
        raise Stopped


def pause_file(part):
    """Name the file by which the processes of a data folder tell one another to leave a host alone."""
    host = urllib.parse.urlsplit(part.url).netloc
    return part.path.with_name(f".pause+{host}")


def pause_everyone(pause, seconds):
    """Have all processes leave a host alone for so many seconds."""
    until = time.time() + seconds
    if until > _paused_until(pause):
        temporary = temporary_file(pause.parent, pause.name)
        temporary.write_text(f"{until:.3f}\n")
        os.replace(temporary, pause)


def _paused_until(pause):
    """Unix time until which a host is to be left alone; 0 where nobody asked for it."""
    try:
        return float(pause.read_text())
    except (FileNotFoundError, ValueError):  # a power cut can leave the file empty
        return 0.0


def await_turn(pause, policy, stop):
    """Wait out a pause that another process was told; a pause no server can have caused is a clock that jumped."""
    began = time.monotonic()
    while 0 < (left := _paused_until(pause) - time.time()) <= policy.longest_wait:
        if time.monotonic() - began > policy.longest_wait:
            return
        # All were told the same moment: spread out.
        wait(left + random.uniform(0, policy.first_wait), stop)
