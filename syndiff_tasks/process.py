"""A task's process dies with its worker."""

import ctypes
import signal

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
