"""Options as people type them, on the command line of Luigi: what it drops, misreads or refuses without a hint."""

import argparse
import importlib
import os
import re
import sys

from luigi.cmdline_parser import CmdlineParser
from luigi.configuration import get_config
from luigi.scheduler import Scheduler
from luigi.task_register import TaskClassNotFoundException
from luigi.worker import Worker

from . import TASKS, process
from .config import SettingsError, did_you_mean, use_shipped_settings

# A value, not an option: a number or a list of them, as in ``--multi-offset-array -0.3,0.2``.
_NEGATIVE = re.compile(r"^-[\d.]")


def begin(program):
    """Prepare this process to be one of Luigi's commands: settings, tasks, and how it ends.

    Parameters
    ----------
    program : str
        ``luigi``, or ``luigid``, which runs no tasks.
    """
    # One pool of processes, Luigi's: a matrix product that splits over the cores would compete with the other workers
    # for them, and the order of its sums would depend on their number. NumPy reads this once, when it is imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        use_shipped_settings()
    except SettingsError as error:
        sys.exit(str(error))
    if program == "luigi":
        improve()
        process.end_with_a_message({TaskClassNotFoundException: _no_such_task})
        process.summarize_failures_at_exit(lambda: data_root_of(sys.argv[1:]))
        # Luigi finds a task by name once its class exists.
        importlib.import_module(".tasks", __package__)


def _no_such_task(error):
    """Return the error message for an unknown task name."""
    message = str(error).partition(". ")[0]
    return f"{message}. {did_you_mean(message.removeprefix('No task '), TASKS)}The tasks are {', '.join(TASKS)}."


class _Parser(argparse.ArgumentParser):
    """Luigi's parser, which reads negative numbers in lists and names the nearest option to an unknown one."""

    def error(self, message):
        unknown = message.removeprefix("unrecognized arguments: ")
        if unknown != message:
            known = [option for action in self._actions for option in action.option_strings]
            meant = did_you_mean(unknown.split()[0].partition("=")[0], known).strip()
            message = f"{message}. {meant or 'The options are shown by --help'}"
        self.exit(2, f"{self.prog}: {message}\n")


def improve():
    """Make Luigi's command line read what `_Parser` reads, in this process."""
    if getattr(CmdlineParser, "build_without_hints", None) is None:
        CmdlineParser.build_without_hints = staticmethod(CmdlineParser._build_parser)
        CmdlineParser._build_parser = staticmethod(_build)


def _build(*arguments, **keywords):
    parser = CmdlineParser.build_without_hints(*arguments, **keywords)
    parser.__class__ = _Parser
    parser._negative_number_matcher = _NEGATIVE
    return parser


def build(task, workers):
    """Run a task and what it requires with Luigi's local scheduler, as Python programs do.

    Parameters
    ----------
    task : luigi.Task
    workers : int
        With 1, in this process.

    Returns
    -------
    made : bool
        Whether the task is complete.
    """
    # What luigi.build does, but for the logging, which is the program's.
    scheduler = Scheduler(prune_on_get_work=True, record_task_history=False)
    with Worker(scheduler=scheduler, worker_processes=workers) as worker:
        return worker.add(task) and worker.run() and task.complete()


def data_root_of(arguments):
    """Return the data root of a command of Luigi, also after Luigi has discarded its command line.

    Parameters
    ----------
    arguments : list of str
        The command line without the program's name.
    """
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--syndiff-data-root", default=get_config().get("syndiff", "data_root"))
    return parser.parse_known_args(arguments)[0].syndiff_data_root
