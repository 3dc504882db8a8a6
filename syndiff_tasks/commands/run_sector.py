"""Make the templates of a sector, or continue them: for cron, safe every hour, silent while all is well.

  syndiff_tasks run-sector --sector N --ffi-dir FOLDER [options of the task Sector, of Luigi, and settings]

For example, without luigid and with four processes:

  syndiff_tasks run-sector --sector 20 --ffi-dir /ffis --local-scheduler --workers 4 --syndiff-data-root /data/syndiff

It takes a lock (a second run leaves at once), appends Luigi's log to <data_root>/logs/sector_0020_<date>.log (the
last 30 are kept), asks the task Sector itself whether it is complete, and prints only what a person must act on, so
that cron mails only that. Where a CCD fails, all that are left are tried one by one. Exit codes:

  0  every template that can be made is there
  1  a person must do something: the messages say what
  2  the command is wrong
  3  not complete yet, and the next run goes on by itself: an archive did not answer, or tasks run on another host
  4  another run of this sector is at work
"""

import contextlib
import ctypes
import datetime
import fcntl
import os
import signal
import subprocess
import sys
import textwrap
import time

from .. import Sector, failures, paths, process, syndiff
from ..command_line import CmdlineParser, improve
from ..config import ParameterException, use_shipped_settings
from ..io.archive import ArchiveUnavailable

LOGS = 30
# Luigi says something at every task, and a task is ended after 4 hours ([worker] timeout).
HOURS_OF_SILENCE = 5
# Luigi's code where it could not even begin: luigid does not answer, or a parameter cannot be read ([retcode]).
NOT_BEGUN = 40

OPTIONS_OF_LUIGI = {
    "local-scheduler": "do without luigid (syndiff_tasks luigid), through which several hosts share the work",
    "scheduler-url": "where luigid is (default: http://localhost:8082)",
    "workers": "processes at once (default: 1)",
    "syndiff-NAME": "any setting of [syndiff] in luigi.cfg, e.g. --syndiff-archive /folder --syndiff-pictures false",
}

AND_MORE = """All options: luigi --module syndiff_tasks Sector --help-all

Environment:
  LUIGI_CONFIG_PATH     the luigi.cfg with the settings (default: luigi.cfg in the current folder)
"""


def say(*lines):
    """Print lines on the standard output, which cron mails."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def listed(heading, options):
    """Return a list of options as `--help` shows it."""
    layout = {"initial_indent": " " * 24, "subsequent_indent": " " * 24, "width": 120}
    lines = [f"  --{name:18}  {textwrap.fill(meaning, **layout).lstrip()}" for name, meaning in options.items()]
    return "\n".join([heading, *lines, ""])


def main(arguments):
    """Run the sector under a lock; return the exit code."""
    if {"-h", "--help"} & set(arguments):
        needed_first = sorted(Sector.get_params(), key=lambda one: one[0] not in ("sector", "ffi_dir"))
        own = {name.replace("_", "-"): parameter.description for name, parameter in needed_first}
        options = listed("Options of the sector:", own), listed("Options of Luigi, and settings:", OPTIONS_OF_LUIGI)
        say(__doc__, *options, AND_MORE.rstrip())
        return 0
    command = ["--module", "syndiff_tasks", "Sector", *arguments]
    try:
        use_shipped_settings()
        improve()
        with CmdlineParser.global_instance(command) as parser:
            sector, folder = parser.get_task_obj(), paths.logs(syndiff().data_root)
            sector.found()
            name = f"sector_{sector.sector:04d}"
            folder.mkdir(parents=True, exist_ok=True)
            with open(folder / f"{name}.lock", "a", encoding="utf-8") as lock:
                try:
                    # The kernel frees it when this process ends, however it ends.
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return at_work(folder, name)
                os.utime(lock.fileno())
                return run(sector, command, folder / f"{name}_{datetime.date.today().isoformat()}.log")
    except (ValueError, ParameterException) as error:
        say(failures.one_line(error))
        return 2
    except OSError as error:
        say(f"run-sector cannot write its log: {error}")
        return 1


def at_work(folder, name):
    """Leave another run alone, unless it has logged nothing for hours."""
    last = max(file.stat().st_mtime for file in [folder / f"{name}.lock", *folder.glob(f"{name}_*.log")])
    hours = (time.time() - last) / 3600
    if hours < HOURS_OF_SILENCE:
        return 4
    say(f"another run holds {folder / name}.lock and has logged nothing for {hours:.0f} hours; look at it")
    return 1


def run(sector, command, log):
    """Run Luigi, ask the root task whether it is complete, and print what a person must act on."""
    if sector.complete():
        return 0
    code, failed = luigi(command, log)
    left = sector.left() if code != NOT_BEGUN else []
    if left and len(sector.requires()) > 1:
        for ccd in left:
            failed += luigi([*command, "--cameras", str(ccd.camera), "--ccds", str(ccd.ccd)], log)[1]
    for old in sorted(log.parent.glob(f"{log.name.rpartition('_')[0]}_*.log"))[:-LOGS]:
        old.unlink()
    if sector.complete():
        return 0
    found = dict.fromkeys(str(failure) for failure in failed if not passes(failure))
    if not found:
        return 3
    incomplete = f"Sector {sector.sector} is not complete; the full log is {log}"
    say(*failures.shorten(failures.summarize(list(found))), incomplete)
    return 1


def passes(failure):
    """Return whether the next run may succeed unaided: an archive was down, or a task waited for one that failed."""
    away = failure.kind == ArchiveUnavailable.__name__ and "last refused body" not in failure.message
    return away or (failure.kind == "RuntimeError" and failure.message.startswith("Unfulfilled"))


def luigi(command, log):
    """Run Luigi, which ends when this process does; return its exit code and failures."""
    this_run = failures.new_run()
    environment = os.environ | {failures.RUN_VARIABLE: this_run}
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "preexec_fn": die_too, "env": environment}
    with open(log, "ab", buffering=0) as stream:
        with subprocess.Popen([sys.executable, "-m", "luigi", *command], **how) as ran:
            for line in ran.stdout:
                with contextlib.suppress(OSError):  # a full disk: its message must still be read
                    stream.write(line)
    return ran.returncode, what_failed(this_run)


def what_failed(this_run):
    """Return the failures of a run of Luigi, and delete what it could not write below the data root."""
    failed = failures.distinct(failures.read(syndiff().data_root, this_run))
    failures.forget_spare_log(this_run)
    return failed


def die_too():
    """Have the kernel (Linux) end this process when the one that started it ends."""
    ctypes.CDLL(None).prctl(process.PR_SET_PDEATHSIG, signal.SIGKILL)
