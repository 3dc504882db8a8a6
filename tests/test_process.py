import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from syndiff_tasks import process

RUN_SECTOR = Path(__file__).parents[1] / "scripts" / "run_sector"


def away(cell):
    return f"DownloadSkycell: skycell.2611.{cell:03d}.stk.r.fits: the host a.b could not be reached (5 tries)"


def test_what_a_thousand_tasks_failed_of_is_told_once_with_their_number_and_some_of_their_names():
    bad_wcs = "Convolve: the FFI has no WCS"
    (once, other) = process.told_once([bad_wcs, *(away(cell) for cell in range(986))])
    assert other == bad_wcs
    named = ", ".join(f"skycell.2611.{cell:03d}.stk.r.fits" for cell in (1, 2, 3))
    assert once == f"{away(0)} (and 985 other tasks failed of the same: {named}, …)"


def test_of_few_tasks_that_failed_of_the_same_each_is_named():
    (once,) = process.told_once([away(3), away(7)])
    assert once == f"{away(3)} (and 1 other task failed of the same: skycell.2611.007.stk.r.fits)"


@pytest.mark.parametrize(
    "words", [("-u", "-m", "syndiff_tasks", "status"), ("-m", "syndiff_tasks", "--help"), (RUN_SECTOR, "--help")]
)
def test_a_command_whose_words_nobody_reads_any_more_ends_quietly_as_one_that_sigpipe_ended(tmp_path, words):
    read, write = os.pipe()
    os.close(read)
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    how = {"stdout": write, "stderr": subprocess.PIPE, "cwd": tmp_path, "env": buffered}
    ended = subprocess.run([sys.executable, *words], check=False, **how)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGPIPE, b"")


def test_last_words_tell_once_what_several_met_with_of_the_first_task_that_did_with_the_kind_of_error(monkeypatch):
    with process.file_of_words() as words:
        monkeypatch.setattr(process, "_WORDS", words)
        error = ValueError("no\n  WCS")
        for task in ("luigi", "MapFFI", "Convolve"):
            process.last_words(task, error)
        process.last_words("CombineBands", "died unexpectedly with exit code -9")
        killed = process.Failure("CombineBands", "", "died unexpectedly with exit code -9")
        assert process.failures(words) == [process.Failure("MapFFI", "ValueError", "no WCS"), killed]
        assert str(killed) == "CombineBands: died unexpectedly with exit code -9"


@pytest.mark.parametrize(
    "error, told",
    [
        (ValueError("the disk\n is full"), "the disk is full"),
        (KeyError("BSOFTEN"), "KeyError 'BSOFTEN'"),
        (AssertionError(), "AssertionError"),
    ],
)
def test_what_an_error_says_is_told_on_one_line_and_its_kind_where_that_is_no_sentence(error, told):
    assert process.sentence(error) == told
