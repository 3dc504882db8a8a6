import contextlib
import errno
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time

import pytest
from bad_server import Answer
from fetching import BODY, FILES, NAME, PATH, QUICK, fetch, keyed, leftovers, sealed, unseal

from syndiff_tasks.io import archive, disk, transfer


class FullDisk:
    """A file on a disk with `room` bytes left."""

    def __init__(self, file, room, error):
        self.file, self.room, self.error = file, room, error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def write(self, data):
        self.room -= len(data)
        if self.room < 0:
            raise OSError(self.error, os.strerror(self.error))
        return self.file.write(data)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_stops_us_and_keeps_only_what_is_finished(server, tmp_path, monkeypatch, code):
    for path in FILES.values():
        server.put(path, BODY)
    fetch(PATH, [server.url], tmp_path, QUICK, unseal)
    monkeypatch.setattr(transfer, "open", lambda path, mode: FullDisk(open(path, mode), 10_000, code), raising=False)
    with pytest.raises(OSError, match=os.strerror(code)) as caught:
        fetch(FILES["i_image"], [server.url], tmp_path, QUICK, unseal)
    assert caught.value.errno == code
    with pytest.raises(OSError, match=os.strerror(code)):
        list(archive.fetch_all(FILES, [server.url], tmp_path, QUICK, keyed(unseal)))
    assert len(server.asked) == 3  # trying again fills no disk
    assert leftovers(tmp_path) == []
    assert [path.name for path in tmp_path.glob("rings*")] == [NAME]
    assert (tmp_path / NAME).read_bytes() == BODY


@contextlib.contextmanager
def unprivileged():
    """Be nobody for a while if we are root, who may write everywhere."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_read_only_folder_is_named_in_the_error_and_stays_as_it_is(server):
    server.put(PATH, BODY)
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        with unprivileged(), pytest.raises(PermissionError, match=folder):
            fetch(PATH, [server.url], folder, QUICK, unseal)
        assert os.listdir(folder) == []


def test_an_interruption_while_the_thread_is_being_started_stays_an_interruption(server, tmp_path, monkeypatch):
    server.put(FILES["r_image"], BODY, always=Answer(sent=20_000, end="stall"))
    start = threading.Thread.start

    def start_and_interrupt(thread):
        start(thread)
        if thread.name.startswith("archive"):
            while not leftovers(tmp_path):  # it is at work on the first body
                time.sleep(0.001)
            raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", start_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        next(archive.fetch_all(FILES, [server.url], tmp_path, QUICK, keyed(unseal)))
    assert leftovers(tmp_path) == []


PROGRAM = textwrap.dedent("""
    import os, sys, pathlib
    from syndiff_tasks.io import archive
    base, folder = sys.argv[1:]
    polite = archive.RetryPolicy(3, 5.0, 20.0, 0.001, 0.002)
    path = archive.stack_files("skycell.2180.097", "r", ["image"])["r_image"]
    for _, file in archive.fetch_all({"it": path}, [base], folder, polite, lambda _, body: body.read_bytes()):
        os.replace(file.path, pathlib.Path(folder) / path.rpartition("/")[2])
""")


def start(server, folder):
    return subprocess.Popen([sys.executable, "-c", PROGRAM, server.url, str(folder)])


def test_a_killed_process_leaves_hidden_files_only_and_the_next_run_finishes(server, tmp_path):
    server.put(PATH, BODY, Answer(sent=20_000, end="stall"))
    process = start(server, tmp_path)
    deadline = time.monotonic() + 30
    while not list(tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.01)
    alive = disk.sweep(tmp_path, days=7)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(f".fetching+{process.pid}-")
    assert alive == []  # what a living process writes is not swept
    assert disk.sweep(tmp_path, days=7) == [left]
    assert list(tmp_path.iterdir()) == []
    assert fetch(PATH, [server.url], tmp_path, QUICK, unseal).path.read_bytes() == BODY


def test_two_processes_after_one_file_both_end_well_and_the_file_is_the_same(server, tmp_path):
    body = sealed(8, 1 << 20)
    server.put(PATH, body, Answer(sent=1 << 19, end="close"))
    processes = [start(server, tmp_path) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert leftovers(tmp_path) == []
    assert (tmp_path / NAME).read_bytes() == body
