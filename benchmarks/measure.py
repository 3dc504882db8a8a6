"""One measurement: CPU seconds and peak memory of a function, in a process of its own."""

import json
import multiprocessing
import os
import re
import time
from pathlib import Path
from typing import NamedTuple

# Peers are given this long; a slower one is reported as such.
PATIENCE = 1200


class Measured(NamedTuple):
    """CPU seconds and wall seconds of the best run, peak memory of the process [MB], and what the function told."""

    cpu: float
    wall: float
    memory: float
    told: dict


def measure(function, *arguments, repeat=1, warm=True):
    """Measure a function in a fresh process.

    Parameters
    ----------
    function : callable
        Prepares what is not to be timed, and returns the callable to be timed; that one returns a dict of plain values
        (errors, sizes), or None. Importable by name.
    *arguments
        Of `function`.
    repeat : int
        The best of so many runs counts.
    warm : bool
        Run once before, so that compiling is not timed.

    Returns
    -------
    Measured
    """
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(
        target=_run, args=(sender, function, arguments, repeat, warm), daemon=True
    )
    process.start()
    sender.close()
    told = receiver.recv() if receiver.poll(PATIENCE) else None
    process.kill() if told is None else process.join()
    if told is None:
        raise TimeoutError(f"{function.__name__} took longer than {PATIENCE} s")
    return Measured(**json.loads(told))


def _run(sender, function, arguments, repeat, warm):
    timed = function(*arguments)
    if warm:
        timed()
    best = None
    for _ in range(repeat):
        cpu, wall = _cpu_seconds(), time.perf_counter()
        result = timed()
        spent = _cpu_seconds() - cpu, time.perf_counter() - wall
        best = min(best or spent, spent)
    sender.send(json.dumps({"cpu": best[0], "wall": best[1], "memory": peak_memory(), "told": result or {}}))


def _cpu_seconds():
    """Return the CPU seconds of this process and of the commands that it waited for."""
    of_commands = os.times()
    return time.process_time() + of_commands.children_user + of_commands.children_system


def peak_memory():
    """Return the peak memory of this process [MB]; getrusage would count that of the process it was forked from."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
