"""The state at a glance: what the command line tells of files alone, and how little it needs for that."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from luigi import Event
from owners import owned_by
from tiny_sky import CELLS, PLAIN

from syndiff_tasks import cli, failures, paths, status, tasks
from syndiff_tasks.manifest import manifest_path

CCD = paths.CCD(20, 3, 3)
NAMES = [f"skycell.2611.{cell:03d}" for cell in range(10)]


def mapped(root, names=NAMES):
    """A data root with the map of a CCD, whose manifest nobody may read."""
    table = paths.skycells_list(root, CCD, "")
    table.parent.mkdir(parents=True)
    pd.DataFrame({"NAME": names}).to_csv(table, index=False)
    manifest_path(table).write_text("not a manifest")
    return table


def group(path):
    path.mkdir(parents=True)
    (path / "bytes").write_bytes(bytes(1000))


def failed(root, product, task, message):
    """Add a failure to the log of a run."""
    failure = failures.Failure(task, "", message, str(product.relative_to(root)), "2026-01-01T00:00:00+00:00", "host")
    paths.failure_logs(root).mkdir(parents=True, exist_ok=True)
    with open(paths.failure_logs(root) / "20260101T000000-0.jsonl", "a") as log:
        log.write(json.dumps(failure._asdict()) + "\n")


def said(capsys, *arguments):
    capsys.readouterr()
    assert cli.main(["status", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def test_status_counts_each_product_once_without_reading_a_manifest(tmp_path):
    table = mapped(tmp_path)
    for name in NAMES[:5]:
        group(paths.raw(tmp_path, name))
    folder = paths.raw(tmp_path, NAMES[0]).parent
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for pid, name in ((os.getpid(), NAMES[6]), (dead.pid, NAMES[7]), (os.getpid(), NAMES[0]), (dead.pid, NAMES[8])):
        (folder / f".tmp-0123abcd@{owned_by(pid)}@{name}").mkdir()
    for name in (NAMES[4], NAMES[6], NAMES[8]):  # made since then; tried again just now; failed and then killed
        failed(tmp_path, folder / name, "DownloadSkycell", "no answer")
    (row,) = status.survey(tmp_path, "any")
    assert (row.ccd, row.region) == (CCD, "")
    assert row.steps["map"] == status.Step(1, 0, 1, 0, 0, table.stat().st_size, False)
    assert row.steps["download"] == status.Step(
        **{"done": 5, "running": 1, "absent": 2, "failed": 1, "died": 1, "size": 5000, "estimated": True}
    )
    assert row.steps["convolve"] == status.Step(0, 0, 10, 0, 0, 0, False)
    assert "5 done ~5 kB, 1 running, 2 absent, 1 failed, 1 died" in status.table([row])


def test_what_a_zombie_was_writing_counts_as_died(tmp_path):
    mapped(tmp_path)
    zombie = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    folder = paths.raw(tmp_path, NAMES[0]).parent
    (folder / f".tmp-0123abcd@{owned_by(zombie.pid)}@{NAMES[0]}").mkdir(parents=True)
    (row,) = status.survey(tmp_path, "any")
    zombie.wait()
    assert (row.steps["download"].running, row.steps["download"].died) == (0, 1)


def test_sentences_that_differ_in_numbers_only_are_told_once_with_their_count(tmp_path, capsys):
    mapped(tmp_path)
    for name in NAMES[:7]:
        failed(tmp_path, paths.raw(tmp_path, name), "DownloadSkycell", f"{name}: no mirror answers (status 503)")
    failed(tmp_path, paths.raw(tmp_path, NAMES[7]), "DownloadSkycell", f"{NAMES[7]}: the header has no EXPTIME")
    summary = paths.cell_metadata(tmp_path, CCD, "")
    failed(tmp_path, summary, "Convolve", "Task Convolve_1 died unexpectedly with exit code -9")
    lines = said(capsys, tmp_path).splitlines()
    (at,) = (number for number, line in enumerate(lines) if line.startswith("What failed"))
    assert lines[at + 1].startswith("7 x DownloadSkycell: skycell.2611.00") and "status 503" in lines[at + 1]
    assert lines[at + 2].startswith("1 x DownloadSkycell: skycell.2611.007: the header has no EXPTIME")
    assert lines[at + 3].startswith("1 x Convolve: Task Convolve_1 died unexpectedly with exit code -9 (last 20")
    assert len(lines) == at + 4


def test_where_nothing_is_the_status_says_how_to_ask_for_another_data_root(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    nothing = "no CCD has a map yet; nothing was begun"
    hint = "for another data root than luigi.cfg's: syndiff_tasks status FOLDER"
    assert said(capsys, "--sector", "20") == f"data, sector 20: {nothing}; {hint}\n"
    assert said(capsys, tmp_path) == f"{tmp_path}: {nothing}\n"


def test_combined_skycells_are_counted_for_the_latest_or_the_requested_recipe(tmp_path, capsys):
    mapped(tmp_path)
    assert "recipe (none yet)" in said(capsys, tmp_path)
    for age, (recipe, count) in enumerate((("new", 2), ("old", 4))):
        for name in NAMES[:count]:
            group(paths.combined(tmp_path, recipe, name))
        for folder in (paths.combined(tmp_path, recipe, NAMES[0]).parent, tmp_path / "combined_skycells_zarr" / recipe):
            os.utime(folder, (0, 1000 - age))
    assert "2 done" in said(capsys, tmp_path) and "recipe new" in said(capsys, tmp_path)
    assert "4 done" in said(capsys, tmp_path, "--recipe", "old")


def test_a_failed_download_that_was_combined_later_and_not_kept_is_no_failure(tmp_path):
    mapped(tmp_path)
    for name in NAMES[:2]:
        failed(tmp_path, paths.raw(tmp_path, name), "DownloadSkycell", "no answer")
    group(paths.combined(tmp_path, "any", NAMES[0]))
    (row,) = status.survey(tmp_path, "any")
    assert (row.steps["download"].failed, row.steps["download"].absent) == (1, 9)
    assert row.failures == {paths.raw(tmp_path, NAMES[1])}


def test_a_skycell_that_fails_is_told_with_its_sentence_until_it_is_mended(tiny_sky, luigi, made, tmp_path, capsys):
    one, *others = (f"skycell.2611.{cell:03d}" for cell in CELLS)
    for folder in [*made.rglob(one), made / "shifted_downsampled"]:
        shutil.rmtree(folder)
    archive = Path(shutil.copytree(tiny_sky.archive, tmp_path / "archive"))
    (file,) = archive.glob("rings.v3.skycell/2611/044/*.stk.r.unconv.fits")
    whole = file.read_bytes()
    file.write_bytes(b"<html>moved</html>")
    once = ("--syndiff-download-tries", "1")
    assert "fail" not in said(capsys, made)
    assert luigi.run("Downsample", *tiny_sky.arguments(made, *PLAIN, *once, archive=archive)).code == 30
    told = said(capsys, made)
    assert "3 done" in told and "1 failed" in told
    assert "\n1 x DownloadSkycell: " in told and "2611.044.stk.r.unconv.fits could not be fetched" in told
    file.write_bytes(whole)
    assert luigi.run("Downsample", *tiny_sky.arguments(made, *PLAIN, archive=archive)).code == 0
    assert "fail" not in said(capsys, made)


@pytest.mark.parametrize("event", [Event.PROCESS_FAILURE, Event.TIMEOUT])
def test_a_task_whose_process_was_ended_has_failed_too(tmp_path, monkeypatch, event):
    # Luigi's worker reports it in the parent: the task itself had no time to.
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    task = tasks.DownloadSkycell(skycell="skycell.2611.044")
    task.trigger_event(event, task, "Task died unexpectedly with exit code -9")
    (failure,) = failures.read("data")
    assert "exit code -9" in failure.message and Path("data", failure.product) == Path(task.output().path)


# --- how little it takes ----------------------------------------------------------------------------------------------

HEAVY = ("astropy", "pandas", "scipy", "numba", "matplotlib", "syndiff_tasks.tasks")


def python(code, *arguments):
    words = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()


def test_the_command_line_imports_none_of_the_libraries_that_take_seconds(tmp_path):
    mapped(tmp_path)
    words = [sys.executable, "-X", "importtime", "-m", "syndiff_tasks", "status", str(tmp_path)]
    ended = subprocess.run(words, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines()}
    assert "s0020 3-3" in ended.stdout and "syndiff_tasks.status" in imported
    assert not [name for name in HEAVY if name in imported]


def test_a_folder_that_is_not_there_is_not_called_whole(tmp_path, capsys):
    assert cli.main(["verify", str(tmp_path / "none")]) == 2
    assert f"{tmp_path / 'none'}: no such file or folder" in capsys.readouterr().err
