"""A task's process dies with its worker; a command ends with a summary of what failed."""

import atexit
import contextlib
import ctypes
import functools
import importlib
import logging
import os
import pkgutil
import signal
import sys

from . import failures
from .config import SHIPPED, refuse_empty_options, settings_files

logger = logging.getLogger("luigi-interface")

# Packages whose modules import the libraries that take seconds.
ROOMS = ("geometry", "pixels", "io", "report", "chain")

PR_SET_PDEATHSIG = 1  # linux/prctl.h

# The shell's exit codes of a process that SIGINT or SIGPIPE ended.
ENDED_BY_CTRL_C = 128 + signal.SIGINT
ENDED_BY_CLOSED_PIPE = 128 + signal.SIGPIPE

ENDED_BY_USER = "\nEnded by Ctrl-C: all finished products are kept, and the same command continues from there."


class DiesWithWorker:
    """The ``[worker] task_process_context`` of luigi.cfg: the kernel ends the process when its parent dies.

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
        """Keep it in force, since the process ends after its task; after Ctrl-C it ends without a traceback."""
        if self.forked and kind is KeyboardInterrupt:
            raise SystemExit(ENDED_BY_CTRL_C) from None


@functools.cache
def begin_run():
    """Prepare this process to run tasks, once: before Luigi forks its workers, the libraries are imported.

    Raises
    ------
    ValueError
        If an option of the command line is empty, or a file of settings cannot be used.
    """
    refuse_empty_options()
    # The later file over the earlier, all of them over the packaged one.
    files = [str(SHIPPED), *map(os.path.abspath, settings_files())]
    logger.info("Settings are read from %s", ", over ".join(reversed(files)))
    for package in ROOMS:
        folder = importlib.import_module(f".{package}", __package__).__path__
        for module in pkgutil.iter_modules(folder):
            importlib.import_module(f".{package}.{module.name}", __package__)


class _Listener(logging.Handler):
    """Record what fails before there is a task, as when a parameter cannot be read."""

    def emit(self, record):
        if record.exc_info:
            failures.record(failures.LUIGI, "", record.exc_info[1])


def end_with_a_message(messages):
    """Have errors that need a person, not a programmer, end this program with a message and without a traceback.

    Parameters
    ----------
    messages : dict
        By class of the error, what returns its message. Ctrl-C has one already.
    """
    messages = {KeyboardInterrupt: lambda error: ENDED_BY_USER} | messages

    def end(kind, error, traceback):
        if kind in messages:
            sys.stderr.write(f"{messages[kind](error)}\n")
        else:
            sys.__excepthook__(kind, error, traceback)

    sys.excepthook = end


def summarize_failures_at_exit(data_root):
    """Have this program end with a summary of what failed in its tasks: a log of a thousand tasks hides it.

    Parameters
    ----------
    data_root : callable
        Returns the data root.
    """
    logger.addHandler(_Listener(logging.ERROR))
    atexit.register(_print_summary, data_root, os.getpid())


def _print_summary(data_root, started_as):
    if os.getpid() != started_as:
        return  # a process that was forked to run a task
    lines = failures.summary(data_root())
    if failures.RUN_VARIABLE not in os.environ:
        failures.forget_spare_log(failures.RUN)
    if lines:
        sys.stderr.write("\n".join(["\nWhat went wrong:", *lines, ""]))


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
