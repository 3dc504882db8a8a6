"""A task's process dies with its worker, and what it died of is said last of all."""

import atexit
import ctypes
import os
import signal
import sys
import tempfile

PR_SET_PDEATHSIG = 1  # linux/prctl.h


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

    def __exit__(self, *exception):
        """Leave the wish in force: the process ends after its task."""


# Opened before the tasks are forked: what they write into it, the process that was started by hand can read.
_WORDS = tempfile.TemporaryFile("a+", encoding="utf-8")
_STARTED_BY_HAND = os.getpid()
_SHOWN = 10


def last_words(task, error):
    """Keep what a task failed of, to be said when everything else was: a log of a thousand tasks hides it.

    Parameters
    ----------
    task : str
        Name of the task.
    error : Exception or str
        What it failed of.
    """
    _WORDS.write(f"{task}: {sentence(error)}\n")
    _WORDS.flush()


def sentence(error):
    """Return on one line what an error says of itself, its kind where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


@atexit.register
def _say_last_words():
    if os.getpid() != _STARTED_BY_HAND:
        return
    with _WORDS:
        _WORDS.seek(0)
        words = list(dict.fromkeys(_WORDS))
    if words:
        more = [f"and {len(words) - _SHOWN} more of that kind\n"] if len(words) > _SHOWN else []
        sys.stderr.writelines(["\nWhat went wrong:\n", *words[:_SHOWN], *more])
