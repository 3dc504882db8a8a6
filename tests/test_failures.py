"""The failure log: written by every process of a run, read by whoever has to act on it."""

import json
import os
import subprocess
import sys

import pytest

from syndiff_tasks import failures, paths
from syndiff_tasks.failures import Failure, distinct, one_line, read, record, summarize


@pytest.fixture
def root(tmp_path, monkeypatch):
    """The data root of the settings in a folder of its own, and a run of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(failures, "RUN", failures.new_run())
    folder = tmp_path / "data"
    folder.mkdir()
    yield folder
    failures.forget_spare_log(failures.RUN)


def down(cell):
    return f"DownloadSkycell: skycell.2611.{cell:03d}.stk.r.fits: the host a.b could not be reached (5 tries)"


def test_failures_of_many_tasks_are_one_line_with_their_number_and_some_names():
    bad_wcs = "Convolve: the FFI has no WCS"
    (once, other) = summarize([bad_wcs, *(down(cell) for cell in range(986))])
    assert other == bad_wcs
    named = ", ".join(f"skycell.2611.{cell:03d}.stk.r.fits" for cell in (1, 2, 3))
    assert once == f"{down(0)} (and 985 other tasks failed for the same reason: {named}, …)"


def test_of_two_tasks_that_failed_for_one_reason_each_is_named():
    (once,) = summarize([down(3), down(7)])
    assert once == f"{down(3)} (and 1 other task failed for the same reason: skycell.2611.007.stk.r.fits)"


def test_a_message_is_listed_once_with_the_first_task_that_met_it():
    error = "no WCS"
    met = [Failure(task, "ValueError", error) for task in ("luigi", "MapFFI", "Convolve")]
    killed = Failure("CombineBands", "", "died unexpectedly with exit code -9")
    assert distinct([*met, killed]) == [met[1], killed]
    assert str(killed) == "CombineBands: died unexpectedly with exit code -9"


@pytest.mark.parametrize(
    "error, line",
    [
        (ValueError("the disk\n is full"), "the disk is full"),
        (KeyError("BSOFTEN"), "KeyError 'BSOFTEN'"),
        (AssertionError(), "AssertionError"),
    ],
)
def test_a_message_is_one_line_with_the_class_where_it_is_a_single_word(error, line):
    assert one_line(error) == line


def test_a_failure_is_read_as_it_was_recorded_with_its_product_below_the_data_root(root):
    record("CombineBands", root / "combined" / "skycell.2611.044", ValueError("no\n EXPTIME"))
    record("Convolve", "", "Task Convolve_1 died unexpectedly with exit code -9")
    (log,) = paths.failure_logs(root).iterdir()
    assert log.name == f"{failures.RUN}.jsonl" and len(log.read_text().splitlines()) == 2
    first, second = read(root, failures.RUN)
    assert first[:4] == ("CombineBands", "ValueError", "no EXPTIME", "combined/skycell.2611.044")
    assert first.time.endswith("+00:00") and first.host == os.uname().nodename
    assert second[:4] == ("Convolve", "", "Task Convolve_1 died unexpectedly with exit code -9", "")
    assert read(root) == [first, second] and read(root, failures.new_run()) == []


def test_a_failure_is_kept_without_making_a_data_root_that_does_not_exist(root):
    root.rmdir()
    record("MapFFI", root / "map.fits", ValueError("no such FFI"))
    assert not root.exists()
    assert [str(failure) for failure in read(root, failures.RUN)] == ["MapFFI: no such FFI"]
    failures.forget_spare_log(failures.RUN)
    assert read(root, failures.RUN) == []


def test_on_a_full_disk_the_failure_is_kept_elsewhere_and_the_log_stays_readable(root):
    record("MapFFI", "", ValueError("comes first"))
    (log,) = paths.failure_logs(root).iterdir()
    log.unlink()
    log.symlink_to("/dev/full")
    record("MapFFI", "", ValueError("the disk is full"))
    log.unlink()
    assert [failure.message for failure in read(root, failures.RUN)] == ["the disk is full"]


def test_a_line_that_fits_only_in_part_leaves_the_lines_before_it(root, monkeypatch):
    record("MapFFI", "", ValueError("comes first"))
    whole = os.write
    with monkeypatch.context() as full, pytest.raises(OSError, match="No space left"):
        full.setattr(os, "write", lambda file, line: whole(file, line[:10]))
        failures._append(paths.failure_logs(root) / f"{failures.RUN}.jsonl", b"0123456789abcdef")
    assert [failure.message for failure in read(root, failures.RUN)] == ["comes first"]


def test_processes_that_record_at_once_lose_no_line(root):
    code = "import sys; from syndiff_tasks.failures import record\n"
    code += "for number in range(200): record('MapFFI', '', ValueError(f'{sys.argv[1]} {number} ' + 2000 * 'x'))"
    environment = os.environ | {failures.RUN_VARIABLE: failures.RUN}
    words = [sys.executable, "-c", code]
    writers = [subprocess.Popen([*words, name], cwd=root.parent, env=environment) for name in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert len({failure.message for failure in read(root, failures.RUN)}) == 400


def test_the_oldest_logs_go_when_a_new_one_begins(root):
    folder = paths.failure_logs(root)
    folder.mkdir(parents=True)
    line = json.dumps(Failure("MapFFI", "", "old")._asdict())
    for number in range(failures.KEPT_LOGS + 3):
        (folder / f"2020{number:04d}T000000-0.jsonl").write_text(line + "\n")
    record("MapFFI", "", "new")
    names = sorted(log.name for log in folder.iterdir())
    assert len(names) == failures.KEPT_LOGS
    assert names[-1] == f"{failures.RUN}.jsonl" and names[0] == "20200004T000000-0.jsonl"
