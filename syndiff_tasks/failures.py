"""The failure log: what went wrong in a run, one line of JSON a failure, in ``<data_root>/logs/failures``.

Every process of a run appends to one log. The summary at the end of a command, ``scripts/run_sector`` and
``syndiff_tasks status`` read it. Where the data root cannot be written (or does not exist yet), the log is kept in
memory or in the system's folder of temporary files, so that a full disk is reported too.
"""

import contextlib
import datetime
import errno
import json
import os
import re
import socket
import tempfile
import uuid
from pathlib import Path
from typing import NamedTuple

from . import paths
from .config import readable_data_root

# Environment variable: the run to which a command belongs, where the program that starts it reads the log afterwards.
RUN_VARIABLE = "SYNDIFF_RUN"

# Stands for the task where something failed before there was one.
LUIGI = "luigi"

# Logs kept below a data root; each belongs to a run in which something failed.
KEPT_LOGS = 100

# Lines of a summary, and further products named in one of them.
SHOWN_LINES = 10
NAMED_PRODUCTS = 3

# A folder in memory, on Linux.
_IN_MEMORY = "/dev/shm"

# How Luigi begins its message on a setting that cannot be read; value and reason are in the error's cause.
_UNREADABLE_SETTING = "Error when parsing the default value of"


def new_run():
    """Return the name of a new run: names sort by time."""
    return f"{datetime.datetime.now(datetime.timezone.utc):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"


# Chosen before Luigi forks its workers, so that all of them append to one log.
RUN = os.environ.get(RUN_VARIABLE) or new_run()


class Failure(NamedTuple):
    """One failure of one task.

    Attributes
    ----------
    task : str
        Name of the task; `LUIGI` where something failed before there was one.
    kind : str
        Class of the error; empty where the task's process was ended.
    message : str
        The error's message, on one line.
    product : str
        Path of the product that is missing because of it, relative to the data root; empty where none is known.
    time : str
        When, in UTC (ISO 8601).
    host : str
        Where.
    """

    task: str
    kind: str
    message: str
    product: str = ""
    time: str = ""
    host: str = ""

    def __str__(self):
        return f"{self.task}: {self.message}"


def record(task, product, error):
    """Append a failure to the log of this run.

    Parameters
    ----------
    task : str
        Name of the task that failed.
    product : path-like
        What is missing because of it; empty where that is not known.
    error : Exception or str
        Why it failed; a string where the task's process was ended.
    """
    # What fails before there is a task may be the settings themselves.
    root = None if task == LUIGI else readable_data_root()
    if product and root:
        product = os.path.relpath(product, root)
    kind = "" if isinstance(error, str) else type(error).__name__
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    failure = Failure(task, kind, one_line(error), str(product), now, socket.gethostname())
    line = (json.dumps(failure._asdict()) + "\n").encode()
    if root and os.path.isdir(root):
        with contextlib.suppress(OSError):  # a disk that is full or read-only: the log goes into memory
            _begin_log(paths.failure_logs(root))
            _append(_log_of(root, RUN), line)
            return
    _append(_spare_log(RUN), line)


@contextlib.contextmanager
def recording(task):
    """Record the error that ends a block of a task's code, of which Luigi would show a traceback only.

    Parameters
    ----------
    task : str
        Name of the task.
    """
    try:
        yield
    except Exception as error:
        record(task, "", error)
        raise


def read(data_root, run=None):
    """Read failures.

    Parameters
    ----------
    data_root : path-like or None
        Data root; None where it is not known.
    run : str, optional
        Only those of this run, with those that could not be written below the data root. By default those of all logs.

    Returns
    -------
    failures : list of Failure
        The oldest first.
    """
    if run:
        logs = [_log_of(data_root, run)] * bool(data_root) + [_spare_log(run)]
    else:
        logs = sorted(paths.failure_logs(data_root).glob("*.jsonl"))
    return [failure for log in logs for failure in _read(log)]


def forget_spare_log(run):
    """Delete the log that a run kept outside of the data root, once it has been read."""
    _spare_log(run).unlink(missing_ok=True)


def distinct(failures):
    """Return one failure for each message: of several tasks that met the same error, the first.

    Parameters
    ----------
    failures : list of Failure

    Returns
    -------
    failures : list of Failure
        A failure of a task rather than of Luigi.
    """
    first = {}
    for failure in sorted(failures, key=lambda failure: failure.task == LUIGI):
        first.setdefault(failure.message, failure)
    return list(first.values())


def one_line(error):
    """Return the message of an error on one line, with the error's class where the message is a single word.

    Parameters
    ----------
    error : Exception or str
    """
    if _UNREADABLE_SETTING in str(error):
        error = getattr(error, "__cause__", None) or error
    message = " ".join(str(error).split())
    return message if " " in message else f"{type(error).__name__} {message}".rstrip()


def group_similar(items, text=str):
    """Group what differs in numbers only, such as the number of a skycell.

    Parameters
    ----------
    items : list
    text : callable
        Returns the text by which an item is compared.

    Returns
    -------
    groups : list of list
        The largest first; within each, and among equals, in the order given.
    """
    groups = {}
    for item in items:
        groups.setdefault(re.sub(r"\d+", "#", text(item)), []).append(item)
    return sorted(groups.values(), key=len, reverse=True)


def summarize(lines):
    """Merge messages that differ in numbers only: where an archive is down, a thousand skycells report the same.

    Parameters
    ----------
    lines : list of str
        Messages, all different.

    Returns
    -------
    lines : list of str
        The first message of each group, with the number of the others and what some of them name.
    """
    return [f"{first}{_others(first, others)}" for first, *others in group_similar(lines)]


def _others(first, others):
    if not others:
        return ""
    named = [_changed(first, other).strip(",;:'\"()") for other in others[:NAMED_PRODUCTS]]
    named += ["…"] * (len(others) > NAMED_PRODUCTS)
    tasks = "task" if len(others) == 1 else "tasks"
    return f" (and {len(others)} other {tasks} failed for the same reason: {', '.join(named)})"


def _changed(first, other):
    """Return the first word of `other` that differs from `first`."""
    return next(word for of_first, word in zip(first.split(), other.split(), strict=True) if word != of_first)


def shorten(lines):
    """Return the first `SHOWN_LINES` lines, and one that counts the rest.

    Parameters
    ----------
    lines : list of str

    Returns
    -------
    lines : list of str
    """
    more = len(lines) - SHOWN_LINES
    return [*lines[:SHOWN_LINES], *([f"and {more} more"] if more > 0 else [])]


def summary(data_root, run=RUN):
    """Return the lines that tell a person what failed in a run.

    Parameters
    ----------
    data_root : path-like or None
        Data root; None where it is not known.
    run : str, optional
        By default this one.

    Returns
    -------
    lines : list of str
        Empty where nothing failed.
    """
    return shorten(summarize([str(failure) for failure in distinct(read(data_root, run))]))


def _log_of(root, run):
    return paths.failure_logs(root) / f"{run}.jsonl"


def _spare_log(run):
    folder = _IN_MEMORY if os.access(_IN_MEMORY, os.W_OK) else tempfile.gettempdir()
    return Path(folder) / f"syndiff_failures_{run}.jsonl"


def _begin_log(folder):
    """Make the folder of logs, and delete the oldest of them."""
    folder.mkdir(parents=True, exist_ok=True)
    others = sorted(log for log in folder.glob("*.jsonl") if log.stem != RUN)
    for log in others[: max(0, len(others) - KEPT_LOGS + 1)]:
        log.unlink(missing_ok=True)


def _append(path, line):
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        # One write a line: the kernel does not mix those of two processes.
        written = os.write(log, line)
        if written < len(line):
            os.ftruncate(log, os.lseek(log, 0, os.SEEK_CUR) - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    finally:
        os.close(log)


def _read(path):
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    return [Failure(**json.loads(line)) for line in lines]
