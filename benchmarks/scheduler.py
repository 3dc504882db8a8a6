"""What Luigi costs: core-seconds beside the work itself, for one CCD and a sector (`python -m benchmarks.scheduler`).

The tasks do nothing, so that all the time is Luigi's. One CCD is planned and run to its end, a process a task, once by
the local scheduler and once by a luigid. Sixteen would take an hour, so for them a luigid is started with the state
that it has in the middle of a sector, and the requests of some tasks are timed. Counted are core-seconds, of luigid,
worker and tasks together, which change less than seconds do when others use the machine.
"""

import contextlib
import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import luigi
import psutil
import requests
from luigi.rpc import RemoteScheduler
from luigi.scheduler import Scheduler
from luigi.worker import Worker

import syndiff_tasks  # noqa: F401 - a real worker has it in memory, and a larger process is dearer to fork

SKYCELLS = 1000
TASKS = 2 * SKYCELLS + 2
CCDS = 16
AT_A_TIME = 4
# A skycell from the archive to its share of the template, as `python -m benchmarks` measures: fetched and stored 4.5,
# combined 3.1, blurred and sampled 0.2, less what a quicker machine would save.
CORE_SECONDS_PER_SKYCELL = 6.0
# Tasks whose requests are timed at each moment of a sector.
SAMPLE = 40
LUIGID = Path(__file__).parents[1] / "scripts" / "luigid"


class _Idle(luigi.Task):
    """A task that only says that it is done."""

    root = luigi.Parameter(significant=False)
    name = luigi.Parameter()

    def output(self):
        """Return an empty file."""
        return luigi.LocalTarget(Path(self.root) / f"{type(self).__name__}-{self.name}")

    def run(self):
        """Make it."""
        Path(self.output().path).touch()


class Download(_Idle):
    """One skycell's files."""

    resources = {"ps1_archive": 1}


class Combine(_Idle):
    """One skycell's blocks."""

    def requires(self):
        """Return the skycell's files."""
        return Download(root=self.root, name=self.name)


class Convolve(_Idle):
    """One CCD's blurred skycells."""

    def requires(self):
        """Return every skycell's blocks."""
        return [Combine(root=self.root, name=f"{self.name}.{number:04}") for number in range(SKYCELLS)]


class Downsample(_Idle):
    """One CCD's template."""

    def requires(self):
        """Return the blurred skycells."""
        return Convolve(root=self.root, name=self.name)


class CountedScheduler(RemoteScheduler):
    """A connection to luigid that counts its requests."""

    count = 0

    def _request(self, *arguments, **keywords):
        self.count += 1
        return super()._request(*arguments, **keywords)


def run(scheduler, task):
    """Plan and run a task with all that it needs; return core-seconds of this process and its children."""
    with Worker(scheduler=scheduler, worker_processes=os.cpu_count()) as worker:
        before = os.times()
        worker.add(task)
        if not worker.run():
            sys.exit(f"{task} did not run, so this is no measure of it; see the log above")
        after = os.times()
    return sum(after[:4]) - sum(before[:4])


@contextlib.contextmanager
def luigid(folder):
    """Run scripts/luigid in a folder, and give its URL and its process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with open(Path(folder) / "log", "w", encoding="utf-8") as log:
        server = subprocess.Popen([sys.executable, LUIGID, "--port", str(port)], cwd=folder, stdout=log, stderr=log)
    try:
        while not _answers(url):
            if server.poll() is not None:
                sys.exit(f"luigid did not start:\n{(Path(folder) / 'log').read_text(encoding='utf-8')}")
            time.sleep(0.2)
        yield url, psutil.Process(server.pid)
    finally:
        server.terminate()
        server.wait()


def _answers(url):
    try:
        return requests.head(url, timeout=5).ok
    except requests.ConnectionError:
        return False


def _core_seconds(process):
    return sum(process.cpu_times()[:2])


def tell(scheduler, ccd, status):
    """Report the tasks of one CCD to a scheduler, as a worker that plans does."""
    downloads = [f"Download_{ccd}_{number}" for number in range(SKYCELLS)]
    combines = [f"Combine_{ccd}_{number}" for number in range(SKYCELLS)]
    shared = {"worker": "a", "status": status, "module": __name__}
    limited = {"resources": {"ps1_archive": 1}}
    for download, combine in zip(downloads, combines, strict=True):
        skycell = {"name": download}
        scheduler.add_task(task_id=download, family="Download", params=skycell, **limited, **shared)
        scheduler.add_task(task_id=combine, family="Combine", params=skycell, deps=[download], **shared)
    whole = {"name": ccd}
    scheduler.add_task(task_id=f"Convolve_{ccd}", family="Convolve", params=whole, deps=combines, **shared)
    deps = [f"Convolve_{ccd}"]
    scheduler.add_task(task_id=f"Downsample_{ccd}", family="Downsample", params=whole, deps=deps, **shared)


def moment(pending, finished):
    """Return the core-seconds of a task's requests, and the pages of the web view, where so many CCDs are and were."""
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "luigid" / "state.pickle"
        state.parent.mkdir()
        scheduler = Scheduler(state_path=str(state), record_task_history=False)
        for number in range(pending + finished):
            tell(scheduler, f"ccd{number:02}", "PENDING" if number < pending else "DONE")
        scheduler.add_worker("a", [("workers", 4)])
        scheduler.dump()
        with luigid(folder) as (url, process):
            seconds = _seconds_a_task(RemoteScheduler(url), process)
            return seconds, [_timed(url, process, *page) for page in PAGES]


PAGES = (
    ("running tasks", "/api/task_list", {"data": '{"status": "RUNNING"}'}),
    ("all tasks", "/api/task_list", {"data": "{}"}),
    ("graph of one CCD", "/api/dep_graph", {"data": '{"task_id": "Downsample_ccd00"}'}),
)
HISTORY = ("history of the last day", "/history", {})


def _seconds_a_task(scheduler, process):
    before = _core_seconds(process) + time.process_time()
    for _ in range(SAMPLE):
        task = scheduler.get_work(worker="a", host="here", current_tasks=[])["task_id"]
        scheduler.add_task(worker="a", task_id=task, status="DONE")
    return (_core_seconds(process) + time.process_time() - before) / SAMPLE


def _timed(url, process, name, path, arguments):
    before = _core_seconds(process)
    page = requests.get(url + path, arguments, timeout=300)
    page.raise_for_status()
    return name, _core_seconds(process) - before, len(page.content)


def _print_row(name, seconds, tasks, requests_a_second=None):
    share = seconds / (tasks / TASKS * SKYCELLS * CORE_SECONDS_PER_SKYCELL)
    rate = f"{requests_a_second:13.0f}" if requests_a_second else f"{'-':>13}"
    print(f"{name:46}{seconds:13.0f}{share:8.1%}{1e3 * seconds / tasks:11.1f}{rate}", flush=True)


def main():
    """Print what Luigi costs."""
    # Luigi says a dozen lines a task.
    for name in ("luigi", "luigi-interface"):
        logging.getLogger(name).setLevel(logging.ERROR)
    work = SKYCELLS * CORE_SECONDS_PER_SKYCELL
    print(f"Luigi {luigi.__version__}. The work of a CCD itself is assumed to be {SKYCELLS} skycells x")
    print(f"{CORE_SECONDS_PER_SKYCELL:g} core-seconds = {work:.0f} core-seconds; the share is of that.\n")
    print(f"{'':46}{'core-seconds':>13}{'share':>8}{'ms a task':>11}{'requests/s':>13}")
    with tempfile.TemporaryDirectory() as root:
        local = Scheduler(prune_on_get_work=True, record_task_history=False)  # as luigi --local-scheduler makes it
        _print_row("one CCD, local scheduler", run(local, Downsample(root=root, name="local")), TASKS)
        with luigid(root) as (url, process):
            scheduler, before = CountedScheduler(url), _core_seconds(process)
            ours = run(scheduler, Downsample(root=root, name="luigid"))
            luigids = _core_seconds(process) - before
            _print_row("one CCD, luigid", ours + luigids, TASKS, scheduler.count / luigids)
            _print_row("  of that in luigid itself", luigids, TASKS)
            history = _timed(url, process, *HISTORY)
    first, _ = moment(AT_A_TIME, 0)
    last, pages = moment(AT_A_TIME, CCDS - AT_A_TIME)
    together, _ = moment(CCDS, 0)
    for at_a_time, begun in ((AT_A_TIME, (first + last) / 2), (CCDS, together)):
        # Requests cost as much as there are pending tasks, and these fall to none while the CCDs are worked on.
        seconds = begun / 2 * CCDS * TASKS
        _print_row(f"{CCDS} CCDs, {at_a_time} at a time: requests only", seconds, CCDS * TASKS, 4 / begun)
    print(f"\nluigid's web view, {AT_A_TIME} of {CCDS} CCDs being worked on and the others done (history: one CCD);")
    print("luigid answers nobody else meanwhile:")
    for name, seconds, size in [*pages, history]:
        print(f"{name:46}{seconds:10.2f} s{size / 1e6:8.1f} MB")


if __name__ == "__main__":
    main()
