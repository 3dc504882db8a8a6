"""Two workers with one luigid and one data root: the work is shared, and one may die.

Once as two processes of this host, and once, where root and `ip` allow it, as three hosts: luigid and the archive in a
network namespace, the workers in two others with names of their own. These reach one another over a bridge, and nothing
else.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from test_luigid import CONFIG, answer, luigid
from test_sector import write
from tiny_sky import planes, template_of, the_same

from syndiff_tasks.demo.server import FolderHandler
from syndiff_tasks.manifest import TEMPORARY, read_manifest
from syndiff_tasks.provenance import check, products

# A dead worker is noticed, and its task given away, within seconds rather than minutes.
SOON = CONFIG.replace("[scheduler]", "[scheduler]\nworker_disconnect_delay = 4\nretry_delay = 2").replace(
    "retry_count = 1", "retry_count = 4\nprune_on_get_work = true"
)
WITHIN = 120  # seconds in which the survivor has done it all

CLONE_NEWNET = 0x40000000  # linux/sched.h
NETWORK = "10.213.77"  # private (RFC 1918), and seen by nobody outside the three namespaces


class Host(NamedTuple):
    """A network namespace, or this host's own where it has no name; address of it; how a command gets its name."""

    name: str
    address: str

    def words(self):
        """Return what stands before a command that is to see the name as that of its host."""
        return ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', self.name] if self.name else []

    @contextlib.contextmanager
    def inside(self):
        """Let this thread open its sockets, and begin its processes, on the host."""
        with open("/proc/thread-self/ns/net") as ours:
            _enter(f"/run/netns/{self.name}" if self.name else ours.name)
            try:
                yield self
            finally:
                _enter(f"/proc/self/fd/{ours.fileno()}")


def _enter(path):
    with open(path) as namespace:
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {path}")


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@pytest.fixture
def one_host():
    return [Host("", "127.0.0.1")] * 3


@pytest.fixture
def three_hosts():
    """Luigid's host and the two of the workers, on a network of their own."""
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("network namespaces need root and ip (apt-get install iproute2)")
    hosts = [Host(f"syndiff{number}-{os.getpid()}", f"{NETWORK}.{number + 1}") for number in range(3)]
    with contextlib.ExitStack() as made:
        try:
            for host in hosts:
                ip("netns", "add", host.name)
                made.callback(ip, "netns", "delete", host.name)
                ip("-n", host.name, "link", "set", "lo", "up")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr}")
        hub, *others = hosts
        ip("-n", hub.name, "link", "add", "bridge", "type", "bridge")
        ip("-n", hub.name, "address", "add", f"{hub.address}/24", "dev", "bridge")
        ip("-n", hub.name, "link", "set", "bridge", "up")
        for number, host in enumerate(others):
            ip("-n", hub.name, "link", "add", f"to{number}", "type", "veth", "peer", "name", "eth", "netns", host.name)
            ip("-n", hub.name, "link", "set", f"to{number}", "master", "bridge", "up")
            ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", "eth")
            ip("-n", host.name, "link", "set", "eth", "up")
        yield hosts


@pytest.fixture
def hosts(request):
    return request.getfixturevalue(request.param)


@contextlib.contextmanager
def served(folder, address):
    """Serve the archive on an address of the hosts' network."""
    make = partial(FolderHandler, folder=folder.resolve(), requests=[])
    with ThreadingHTTPServer((address, 0), make) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://{address}:{server.server_address[1]}"
        finally:
            server.shutdown()


def worker(host, folder, url, arguments, task="Downsample"):
    """Start `luigi` on a host: it stays while there is something that another one has."""
    words = [*host.words(), sys.executable, "-m", "luigi", "--module", "syndiff_tasks", task]
    words += ["--scheduler-url", url, "--worker-keep-alive", "--worker-max-keep-alive-idle-duration", "120s"]
    log = folder / f"worker{time.monotonic_ns()}.log"
    with host.inside(), open(log, "w", encoding="utf-8") as stream:
        process = subprocess.Popen([*words, *arguments], cwd=folder, stdout=stream, stderr=stream)
        return process, log


def drafts(root, process):
    """Return what the tasks of a worker are writing, by the final name."""
    children = {child.pid for child in psutil.Process(process.pid).children()}
    found = [(TEMPORARY.match(path.name), path) for path in root.rglob(".tmp-*@*")]
    final = [
        path.with_name(path.name[made.end() :])
        for made, path in found
        if made and int(made["owner"].partition("-")[0]) in children
    ]
    return [path for path in final if not path.name.endswith(".manifest.json")]


def kill_in_the_middle(root, process):
    """Kill a worker without a warning while a task of it is writing; return what that was."""
    while not (under_way := drafts(root, process)):
        assert process.poll() is None, "the worker ended before it had written anything"
        time.sleep(0.01)
    process.kill()
    process.wait()
    return [path for path in under_way if read_manifest(path) is None]


def done(log):
    """Return the tasks that a worker says it has done."""
    return [line.split(" done      ")[1] for line in log.read_text().splitlines() if " done      " in line]


@pytest.mark.slow
@pytest.mark.parametrize("hosts", ["one_host", "three_hosts"], indirect=True)
@pytest.mark.parametrize("one_dies", [False, True])
def test_two_workers_share_a_run_and_one_finishes_what_a_killed_one_began(tmp_path, tiny_sky, made, hosts, one_dies):
    (tmp_path / "luigi.cfg").write_text(SOON)
    root, hub = tmp_path / "shared", hosts[0]
    open_to_others = ["--open-to-others"] if hub.name else []
    with hub.inside(), served(tiny_sky.archive, hub.address) as archive:
        with luigid(tmp_path, hub.address, *open_to_others) as url:
            arguments = tiny_sky.arguments(root, archive=archive)
            workers = [worker(host, tmp_path, url, arguments) for host in hosts[1:]]
            interrupted = kill_in_the_middle(root, workers[0][0]) if one_dies else []
            begun = time.monotonic()
            codes = [process.wait(WITHIN) for process, _ in workers]
            print(f"{hub.name or 'one host'}: {time.monotonic() - begun:.0f} s after all had begun or one was killed")
            statuses = {task["status"] for task in answer(url, "task_list").values()}
    logs = [log for _, log in workers]
    # 10 and 25 say that the other worker did some of it, which is why cron asks the root for its `complete()`.
    assert codes[1] in (0, 10, 25), logs[1].read_text()[-3000:]
    assert statuses == {"DONE"}
    # What one worker made alone, to the last bit, and nothing that is half there.
    assert the_same(planes(template_of(made)), planes(template_of(root)))
    assert not [wrong for _product, wrong in check(root, deep=True) if wrong]
    made_on = {Path(product): read_manifest(product)["host"] for product in products(root)}
    if one_dies:
        assert {made_on[path] for path in interrupted} <= {hosts[2].name or os.uname().nodename}
    else:
        one, other = (done(log) for log in logs)
        assert len({*one, *other}) == len(one) + len(other), "a task was run twice"
        assert one and other, "one worker did all the work"
        assert len(set(made_on.values())) == len({host.name for host in hosts[1:]})


def sector_with_assistant(tiny_sky, folder):
    """Make a sector with a worker and its assistant; return the root, and the tasks that each has done."""
    folder.mkdir()
    (folder / "luigi.cfg").write_text(SOON)
    root, here = folder / "shared", Host("", "127.0.0.1")
    write(folder / "ffis", 2)
    arguments = ["--sector", "20", "--ffi-dir", str(folder / "ffis"), "--roi", "12,12,28,28", "--skycell-catalog"]
    arguments += [str(tiny_sky.catalogue), *tiny_sky.settings(root)]
    with luigid(folder) as url:
        first, its_log = worker(here, folder, url, arguments, "Sector")
        assistant, log = worker(here, folder, url, [*arguments, "--assistant"], "Sector")
        try:
            deadline = time.monotonic() + WITHIN
            while not list(root.glob("sectors/*/*/index.html")) or first.poll() is None:
                assert time.monotonic() < deadline, log.read_text()[-3000:]
                time.sleep(0.2)
            # It stays for whatever comes next, until it is told to take nothing more.
            assistant.send_signal(signal.SIGUSR1)
            assistant.wait(WITHIN)
        finally:
            for process in (first, assistant):
                process.kill()
                process.wait()
    return root, done(its_log), done(log)


@pytest.mark.slow
def test_an_assistant_shares_the_work_of_a_sector_that_another_worker_started(tmp_path, tiny_sky):
    for tried in range(4):  # on a busy machine one of the two may have done it all before the other has started
        root, mine, others = sector_with_assistant(tiny_sky, tmp_path / f"try{tried}")
        assert len({*mine, *others}) == len(mine) + len(others), "a task was run twice"
        assert len(list(root.rglob("syndiff_template_*.fits"))) == 1
        assert not [wrong for _product, wrong in check(root, deep=True) if wrong]
        if mine and others:
            break
    assert mine and others, "one worker did all the work"
