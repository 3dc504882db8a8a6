"""A task's process dies with its worker; a command ends with a summary of what failed."""

import atexit
import contextlib
import ctypes
import logging
import os
import signal
import sys

from . import failures
from .config import data_root_of

PR_SET_PDEATHSIG = 1  # linux/prctl.h

# As a shell tells of a process that SIGINT or SIGPIPE ended.
ENDED_BY_CTRL_C = 128 + signal.SIGINT
ENDED_BY_CLOSED_PIPE = 128 + signal.SIGPIPE


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


class _Listener(logging.Handler):
    """Record what fails before there is a task, as when a parameter cannot be read."""

    def emit(self, record):
        if record.exc_info:
            failures.record(failures.LUIGI, "", record.exc_info[1])


logging.getLogger("luigi-interface").addHandler(_Listener(logging.ERROR))


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


_STARTED_BY_HAND = os.getpid()


@atexit.register
def _print_summary():
    if os.getpid() != _STARTED_BY_HAND:
        return
    lines = failures.summary(data_root_of(sys.argv[1:]))
    if failures.RUN_VARIABLE not in os.environ:
        failures.forget_spare_log(failures.RUN)
    if lines:
        sys.stderr.write("\n".join(["\nWhat went wrong:", *lines, ""]))
