"""Who owns a temporary: processes of this and of other PID namespaces, of other hosts, and numbers given again."""

import os
import subprocess
import sys
import time

import pytest
from owners import DEAD, owned_by

from syndiff_tasks.io import disk
from syndiff_tasks.io.liveness import OWNER, abandoned, alive, owner
from syndiff_tasks.manifest import temporary_path
from syndiff_tasks.targets import sweep

CONTAINER = ["unshare", "--pid", "--fork"]

# Makes a temporary of both kinds, and keeps running until its standard input is closed.
WRITER = """
import sys
from pathlib import Path
from syndiff_tasks.io.disk import temporary_file
from syndiff_tasks.manifest import temporary_path
folder = Path(sys.argv[1])
for path in (temporary_path(folder / "product"), temporary_file(folder, "file.fits")):
    path.touch()
print("written", flush=True)
sys.stdin.read()
"""

SWEEPER = """
import sys
from syndiff_tasks.io import disk
from syndiff_tasks.targets import sweep
print(len(sweep(sys.argv[1])) + len(disk.sweep(sys.argv[1], days=1)))
"""


def container_or_skip(*options):
    words = [*CONTAINER, *options]
    if subprocess.run([*words, "true"], capture_output=True).returncode:
        pytest.skip("needs the right to make PID namespaces (unshare --pid)")
    return words


def start_writer(folder, words=()):
    words = [*words, sys.executable, "-c", WRITER, str(folder)]
    writer = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert writer.stdout.readline() == "written\n"
    return writer


def end(writer):
    writer.communicate()
    assert writer.returncode == 0


@pytest.mark.parametrize("options", [("--mount-proc",), ()], ids=["own /proc", "/proc of the host"])
def test_containers_of_one_host_name_keep_the_living_temporaries_of_each_other(tmp_path, options):
    container = container_or_skip(*options)
    writer = start_writer(tmp_path, container)
    made = sorted(tmp_path.iterdir())
    other = subprocess.run([*container, sys.executable, "-c", SWEEPER, str(tmp_path)], capture_output=True, text=True)
    assert (other.stdout, sweep(tmp_path), disk.sweep(tmp_path, days=1)) == ("0\n", [], [])
    assert sorted(tmp_path.iterdir()) == made and len(made) == 2
    end(writer)


def test_what_a_container_left_is_swept_by_age(tmp_path):
    end(start_writer(tmp_path, container_or_skip("--mount-proc")))
    assert sweep(tmp_path) == disk.sweep(tmp_path, days=1) == []
    for path in tmp_path.iterdir():
        os.utime(path, (0, 0))
    assert len(sweep(tmp_path)) == len(disk.sweep(tmp_path, days=1)) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [("--mount-proc",), ()], ids=["own /proc", "/proc of the host"])
def test_a_container_sees_that_its_own_processes_have_ended(tmp_path, options):
    program = f"""
import subprocess, sys
words = [sys.executable, "-c", {WRITER!r}, sys.argv[1]]
subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
{SWEEPER}
"""
    words = [*container_or_skip(*options), sys.executable, "-c", program, str(tmp_path)]
    assert subprocess.run(words, capture_output=True, text=True).stdout == "2\n"
    assert list(tmp_path.iterdir()) == []


def test_a_killed_writer_leaves_what_the_next_one_sweeps(tmp_path):
    writer = start_writer(tmp_path)
    assert sweep(tmp_path) == disk.sweep(tmp_path, days=1) == []
    writer.kill()
    writer.communicate()
    assert len(sweep(tmp_path)) == len(disk.sweep(tmp_path, days=1)) == 1


def test_a_forked_task_owns_what_it_writes_itself(tmp_path):
    child = os.fork()
    if child == 0:
        temporary_path(tmp_path / "product").touch()
        os._exit(0)
    os.waitpid(child, 0)
    (left,) = tmp_path.iterdir()
    assert f"@{child}-" in left.name and sweep(tmp_path) == [str(left)]


def test_a_process_number_given_again_does_not_own_what_its_first_bearer_left(tmp_path):
    mine = owner()
    started = int(OWNER.fullmatch(mine)["started"])
    assert started > 0 and not abandoned(mine, tmp_path, 0)
    assert abandoned(mine.replace(f"-{started}-", f"-{started - 1}-"), tmp_path, 1e9)
    assert alive(os.getpid(), started) and not alive(os.getpid(), started - 1)


def test_an_owner_that_cannot_be_seen_is_judged_by_age(tmp_path):
    here = owner()
    elsewhere = here[:-1] + ("0" if here[-1] != "0" else "1")
    for unseen in (elsewhere, "a.host.of.an.earlier.version"):
        os.utime(tmp_path, (time.time() - 100,) * 2)
        assert abandoned(unseen, tmp_path, 90) and not abandoned(unseen, tmp_path, 110)
    assert abandoned(DEAD, tmp_path, 1e9) and not abandoned(owned_by(os.getpid()), tmp_path, 0)
