"""A task's process dies with its worker, and what it died of is said last of all."""

import atexit
import contextlib
import ctypes
import json
import logging
import os
import signal
import sys
import tempfile
from typing import NamedTuple

from .status import alike, shortened

PR_SET_PDEATHSIG = 1  # linux/prctl.h

# As a shell tells of a process that SIGINT or SIGPIPE ended.
ENDED_BY_CTRL_C = 128 + signal.SIGINT
ENDED_BY_CLOSED_PIPE = 128 + signal.SIGPIPE

# Of those that failed of what the first one said, so many are named.
NAMED = 3


class DiesWithWorker:
    """What ``[worker] task_process_context`` names: the kernel ends the process when its parent dies.

    Without it a task of a SIGKILLed worker goes on writing for hours, beside the worker that took over.

    Parameters
    ----------
    task_process : luigi.worker.TaskProcess
        The process that runs the task.
    """

    def __init__(self, task_process):
        self.forked = task_process.use_multiprocessing

    def __enter__(self):
        """Ask the kernel, where it is Linux and the task has a process of its own."""
        libc = ctypes.CDLL(None)
        if self.forked and hasattr(libc, "prctl"):
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    def __exit__(self, kind, error, traceback):
        """Leave the wish in force, for the process ends after its task; after Ctrl-C without a traceback of its own."""
        if self.forked and kind is KeyboardInterrupt:
            raise SystemExit(ENDED_BY_CTRL_C) from None


class Failure(NamedTuple):
    """What a task failed of.

    Attributes
    ----------
    task : str
        Its name; ``luigi`` where something failed before there was a task.
    kind : str
        Name of the error's class; empty where the task's process was ended.
    sentence : str
    """

    task: str
    kind: str
    sentence: str

    def __str__(self):
        return f"{self.task}: {self.sentence}"


# Environment variable: path of the file of last words, where the program that started this one wants to read them too.
WORDS = "SYNDIFF_LAST_WORDS"

# What stands for a task where there is none yet.
_LUIGI = "luigi"

# Folder of files that are in memory, on Linux.
_IN_MEMORY = "/dev/shm"


def file_of_words():
    """Return a new file for last words, open and without a name: in memory, for they tell of full disks as well."""
    folder = _IN_MEMORY if os.access(_IN_MEMORY, os.W_OK) else None
    return tempfile.TemporaryFile("a+", encoding="utf-8", dir=folder)


def telling(words):
    """Return the environment of a program whose last words are to be read from a file of `file_of_words`."""
    return {WORDS: f"/proc/{os.getpid()}/fd/{words.fileno()}"}


# Opened before the tasks are forked: what they write into it, the process that was started by hand can read.
_WORDS = open(os.environ[WORDS], "a+", encoding="utf-8") if WORDS in os.environ else file_of_words()
_STARTED_BY_HAND = os.getpid()


def last_words(task, error):
    """Keep what a task failed of, to be said when everything else was: a log of a thousand tasks hides it.

    Parameters
    ----------
    task : str
        Name of the task.
    error : Exception or str
        What it failed of.
    """
    kind = "" if isinstance(error, str) else type(error).__name__
    _WORDS.write(json.dumps(Failure(task, kind, sentence(error))) + "\n")
    _WORDS.flush()


def failures(words):
    """Read last words.

    Parameters
    ----------
    words : file
        Of `file_of_words`.

    Returns
    -------
    failures : list of Failure
        One a sentence: of what several met with, the first one is named, the others need its product; a task rather
        than Luigi.
    """
    words.seek(0)
    said = [Failure(*json.loads(line)) for line in words]
    first = {}
    for failure in sorted(said, key=lambda failure: failure.task == _LUIGI):
        first.setdefault(failure.sentence, failure)
    return list(first.values())


class Remembering:
    """A block of a task's code of whose errors Luigi would tell a traceback only.

    Parameters
    ----------
    task : str
        Name of the task.
    """

    def __init__(self, task):
        self.task = task

    def __enter__(self):
        """Begin the block."""

    def __exit__(self, kind, error, traceback):
        """Keep the error, which goes on its way."""
        if isinstance(error, Exception):
            last_words(self.task, error)


class _Listener(logging.Handler):
    """Hears of what goes wrong before there is a task, as when a parameter cannot be read."""

    def emit(self, record):
        if record.exc_info:
            last_words(_LUIGI, record.exc_info[1])


logging.getLogger("luigi-interface").addHandler(_Listener(logging.ERROR))


# How Luigi begins on a setting that cannot be read; value and reason stand in the error that this one comes from.
_UNREADABLE_SETTING = "Error when parsing the default value of"


def sentence(error):
    """Return on one line what an error says of itself; its kind, too, where that alone is no sentence."""
    if _UNREADABLE_SETTING in str(error):
        error = getattr(error, "__cause__", None) or error
    said = " ".join(str(error).split())
    return said if " " in said else f"{type(error).__name__} {said}".rstrip()


# What a command ends of in a sentence and without a traceback: the kind of the error, and what gives the sentence.
SENTENCES = {
    KeyboardInterrupt: lambda error: (
        "\nEnded by Ctrl-C: all that was finished is kept, and the same command goes on from there."
    )
}


def end_in_a_sentence():
    """Have the command that this process is end in a sentence where a person, not the program, has to do something."""
    sys.excepthook = _end


def _end(kind, error, traceback):
    tell = SENTENCES.get(kind)
    if tell is None:
        sys.__excepthook__(kind, error, traceback)
    else:
        sys.stderr.write(f"{tell(error)}\n")


@contextlib.contextmanager
def while_it_is_read():
    """End the program quietly where nobody reads its standard output any more, as behind ``| head -1``.

    Raises
    ------
    SystemExit
        With the code of a process that SIGPIPE ended.

    Notes
    -----
    After the "Note on SIGPIPE" in the documentation of Python's `signal`: the signal itself stays ignored, for it
    would end a program at every lost connection.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # What is still in the buffer is tried again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ENDED_BY_CLOSED_PIPE)


def told_once(lines):
    """Tell once what many tasks failed of: where an archive is away, a thousand skycells say the same.

    Parameters
    ----------
    lines : list of str
        What went wrong, a sentence each, no two of them equal.

    Returns
    -------
    lines : list of str
        The first of those that differ in numbers only, with the number of the others and what some of them named.
    """
    return [f"{first}{_others(first, others)}" for first, *others in alike(lines)]


def _others(first, others):
    if not others:
        return ""
    named = [_changed(first, other).strip(",;:'\"()") for other in others[:NAMED]] + ["…"] * (len(others) > NAMED)
    return f" (and {len(others)} other {'tasks' if others[1:] else 'task'} failed of the same: {', '.join(named)})"


def _changed(first, other):
    """Return the first word of a sentence that is another in the other one."""
    return next(word for of_first, word in zip(first.split(), other.split(), strict=True) if word != of_first)


@atexit.register
def _say_last_words():
    if os.getpid() != _STARTED_BY_HAND:
        return
    with _WORDS:
        said = [str(failure) for failure in failures(_WORDS)]
    if said:
        sys.stderr.write("\n".join(["\nWhat went wrong:", *shortened(told_once(said)), ""]))
