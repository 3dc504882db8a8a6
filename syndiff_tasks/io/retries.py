"""Retries: how often, the waits between them, and the pauses that all processes share."""

import os
import random
import time
import urllib.parse
from typing import NamedTuple

import urllib3
import urllib3.exceptions

from syndiff_tasks.io.disk import temporary_file


class RetryPolicy(NamedTuple):
    """How often, how patiently and under which name requests are sent to an archive."""

    tries: int  # of one file at one mirror
    connect_timeout: float  # [s]
    read_timeout: float  # [s] without data before a transfer counts as dead
    first_wait: float  # [s] longest wait before the second try; doubles from try to try
    longest_wait: float  # [s] upper bound of every wait, whatever a server or a clock says
    slowest: float = 0.0  # [bytes/s] a slower transfer is broken off and resumed
    forbidden_is_absent: bool = False  # status 403 means that a mirror has no such file
    contact: str = ""  # project page, for the archive's operators; goes into the User-Agent


class Stopped(Exception):
    """The caller has closed the generator; the download thread ends."""


def seconds_to_wait(retry_after: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for (RFC 9110, 10.2.3), None where it is absent or invalid."""
    if retry_after is None:
        return None
    try:
        return urllib3.Retry().parse_retry_after(retry_after)
    except (urllib3.exceptions.InvalidHeader, ValueError, OverflowError):
        return None


def wait_after(failure, attempt, policy):
    """Return the seconds until the next try: exponential back-off with full jitter, at least Retry-After; bounded."""
    backoff = min(policy.longest_wait, policy.first_wait * 2 ** (attempt - 1))
    asked = failure.retry_after
    if asked is None:
        asked = backoff if failure.crowded else 0.0
    return min(policy.longest_wait, max(random.uniform(0, backoff), asked))


def wait(seconds, stop):
    """Wait; raise `Stopped` as soon as the caller closes the generator."""
    if stop.wait(seconds):
        raise Stopped


def pause_file(part):
    """Return the file that makes all processes of a data folder pause requests to the host of a part."""
    host = urllib.parse.urlsplit(part.shown).netloc
    return part.path.with_name(f".pause+{host}")


def pause_everyone(pause, seconds):
    """Make all processes pause requests to a host for some seconds."""
    until = time.time() + seconds
    if until > _paused_until(pause):
        temporary = temporary_file(pause.parent, pause.name)
        temporary.write_text(f"{until:.3f}\n")
        os.replace(temporary, pause)


def _paused_until(pause):
    """Return the Unix time at which the pause of a host ends; 0 without a pause."""
    try:
        return float(pause.read_text())
    except (FileNotFoundError, ValueError):  # a power failure can leave the file empty
        return 0.0


def await_turn(pause, policy, stop):
    """Wait for the end of a host's pause; one longer than any server can cause means that a clock jumped."""
    began = time.monotonic()
    while 0 < (left := _paused_until(pause) - time.time()) <= policy.longest_wait:
        if time.monotonic() - began > policy.longest_wait:
            return
        # All processes wait for the same moment: spread them out.
        wait(left + random.uniform(0, policy.first_wait), stop)
