"""What is written into luigi.cfg, or given as --syndiff-NAME, has the effect that its line of comment says."""

import configparser
import contextlib
import math
import re
import shutil
import socket
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from astropy.io import fits
from luigi.interface import core
from luigi.retcodes import retcode
from luigi.scheduler import Scheduler, scheduler
from luigi.worker import worker
from tiny_sky import CELLS, CENTRE, PLAIN, clean_environment, planes, skycell, template_of

from syndiff_tasks.chain import combine
from syndiff_tasks.config import SHIPPED, use_shipped_settings
from syndiff_tasks.demo import archive, frame, sky
from syndiff_tasks.geometry.tansip import pixel_to_sky
from syndiff_tasks.manifest import read_manifest
from syndiff_tasks.pixels import photometry

ONE = f"skycell.2611.{CELLS[0]:03d}"
FAILED, NOT_PLANNED = 30, 35


def of_luigi():
    written = configparser.ConfigParser(interpolation=None)
    written.read(SHIPPED, encoding="utf-8")
    return [(kind, dict(written[kind.__name__])) for kind in (core, worker, scheduler, retcode)]


@pytest.mark.parametrize("kind, written", of_luigi(), ids=lambda part: getattr(part, "__name__", ""))
def test_luigi_knows_every_setting_of_its_own_that_luigi_cfg_has_and_takes_its_value(kind, written):
    use_shipped_settings()
    taken = kind()
    assert written
    for name, text in written.items():
        if (kind, name) == (core, "autoload_range"):  # read without a parameter, tests/test_luigid.py
            continue
        parameter = dict(kind.get_params())[name]
        assert getattr(taken, name) == parameter.parse(text), name


# --- downloads --------------------------------------------------------------------------------------------------------


def most_at_once(said):
    """How many downloads were under way at once, by the log."""
    now = most = 0
    for begun in re.findall(r"Worker .* (running  |done     ) DownloadSkycell\(", said):
        now += 1 if begun.startswith("running") else -1
        most = max(most, now)
    return most


def test_no_more_skycells_are_downloaded_at_once_than_the_archive_is_to_bear(tiny_sky, luigi, said, tmp_path):
    assert most_at_once(said[1]) == 2, "both workers, for eight are allowed"
    (tmp_path / "luigi.cfg").write_text("[resources]\nps1_archive = 1\n")
    ended = luigi.run("Convolve", *tiny_sky.arguments(tmp_path / "data"), workers=2, folder=tmp_path)
    assert ended.code == 0, ended.tail
    assert most_at_once(ended.said) == 1


@pytest.fixture
def silent():
    """An archive that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=20) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def download(tiny_sky, luigi, root, archive, *more, **how):
    one = ["--skycell", ONE, "--skycell-catalog", str(tiny_sky.catalogue), *tiny_sky.settings(root, archive)]
    ended = luigi.run("DownloadSkycell", *one, *more, **how)
    return ended.code, ended.said.rpartition("What went wrong:")[2]


def test_so_many_seconds_of_silence_and_so_many_tries_are_the_end_of_a_file(tiny_sky, luigi, silent, tmp_path):
    (tmp_path / "luigi.cfg").write_text("[worker]\ntimeout = 30\n")  # sooner than the 60 s of silence by default
    impatient = ["--syndiff-read-timeout", "0.1", "--syndiff-download-tries", "2"]
    code, told = download(tiny_sky, luigi, tmp_path / "data", silent, *impatient, folder=tmp_path)
    assert code == FAILED
    assert "TimeoutError: timed out (2 tries)" in told


@pytest.fixture
def deaf():
    """An archive that takes no connections: two wait at its door already, and there is no room for a third."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listening, contextlib.ExitStack() as queue:
        for _ in range(2):
            waiting = queue.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_so_many_seconds_without_a_connection_are_the_end_of_a_try(tiny_sky, luigi, deaf, tmp_path):
    (tmp_path / "luigi.cfg").write_text("[worker]\ntimeout = 15\n")  # sooner than the 20 s by default
    impatient = ["--syndiff-connect-timeout", "0.2", "--syndiff-download-tries", "1"]
    code, told = download(tiny_sky, luigi, tmp_path / "data", deaf, *impatient, folder=tmp_path)
    assert code == FAILED
    assert "could not be reached: TimeoutError: timed out (1 try)" in told


def test_a_task_that_hangs_is_ended_after_the_seconds_of_luigi_cfg(tiny_sky, luigi, silent, tmp_path):
    (tmp_path / "luigi.cfg").write_text("[worker]\ntimeout = 2\n")
    code, told = download(tiny_sky, luigi, tmp_path / "data", silent, folder=tmp_path)
    assert code == FAILED
    assert "timed out after 2 seconds and was terminated" in told


def test_a_task_that_fails_is_tried_as_often_as_luigi_cfg_says(tiny_sky, luigi, tmp_path):
    (tmp_path / "luigi.cfg").write_text("[scheduler]\nretry_count = 2\nretry_delay = 0\nprune_on_get_work = true\n")
    one = ["--skycell", ONE, "--skycell-catalog", str(tiny_sky.catalogue)]
    nowhere = tiny_sky.settings(tmp_path / "data", "http://127.0.0.1:9")
    how = ["--syndiff-download-tries", "1", "--worker-keep-alive"]
    ended = luigi.run("DownloadSkycell", *one, *nowhere, *how, folder=tmp_path)
    assert ended.code == FAILED
    assert len(re.findall(r"Worker .* running   DownloadSkycell\(", ended.said)) == 2


class Clock:
    """A scheduler with the settings of luigi.cfg, one worker, and a time that passes when it is told to."""

    def __init__(self, monkeypatch):
        self.now = 1e9
        monkeypatch.setattr("luigi.scheduler.time", SimpleNamespace(time=lambda: self.now))
        self.scheduler = Scheduler(record_task_history=False)

    def after(self, seconds, worker="one"):
        """Let seconds pass in which only one worker says that it lives; return the status of each task."""
        steps = math.ceil(seconds / 30)
        for _ in range(steps):
            self.now += seconds / steps
            self.scheduler.ping(worker=worker)
        self.scheduler.prune()
        return [task["status"] for task in self.scheduler.task_list().values()]

    def begun(self, worker="one"):
        """Return the task that a worker is given."""
        return self.scheduler.get_work(worker=worker)["task_id"]

    def told(self, status, worker="one"):
        self.scheduler.add_task(worker=worker, task_id="Task", family="Task", status=status)


@pytest.fixture
def clock(monkeypatch):
    use_shipped_settings()
    return Clock(monkeypatch)


def fail(clock, times, seconds_between):
    for _ in range(times):
        assert clock.begun() == "Task"
        clock.told("FAILED")
        states = clock.after(seconds_between)
    return states


def test_a_task_that_failed_too_often_is_disabled_for_a_time_and_then_retried(clock):
    said = scheduler()
    clock.told("PENDING")
    between = said.retry_delay + 1
    assert fail(clock, said.retry_count - 1, between) == ["PENDING"]
    assert fail(clock, 1, said.disable_persist - 30) == ["DISABLED"] and clock.begun() is None
    clock.after(60)
    assert clock.after(between) == ["PENDING"] and clock.begun() == "Task"


def test_a_task_is_retried_while_its_failures_in_the_window_are_few_enough(clock):
    said = scheduler()
    clock.told("PENDING")
    assert fail(clock, said.retry_count + 2, said.disable_window / (said.retry_count - 1) + 1) == ["PENDING"]


def test_the_task_of_a_worker_that_is_silent_for_so_many_seconds_is_given_to_another(clock):
    said = scheduler()
    for name in ("one", "other"):
        clock.told("PENDING", name)
    assert clock.begun() == "Task"
    assert clock.after(said.worker_disconnect_delay - 1, "other") == ["RUNNING"]
    clock.after(2, "other")
    clock.after(said.retry_delay + 1, "other")
    assert clock.begun("other") == "Task"


def test_finished_tasks_stay_in_the_web_view_for_remove_delay_seconds(clock):
    said = scheduler()
    clock.told("DONE")
    assert clock.after(said.worker_disconnect_delay + 1, "other") == ["DONE"]
    assert clock.after(said.remove_delay - 1, "other") == ["DONE"]
    assert clock.after(2, "other") == []


# --- tasks and their processes ----------------------------------------------------------------------------------------

TWO_TASKS = """
import os
import luigi, syndiff_tasks
syndiff_tasks.use_shipped_settings()

class MakesNothing(luigi.Task):
    def complete(self):
        return False

    def run(self):
        print("own" if os.getpid() != here else "shared")

here = os.getpid()
print(luigi.build([MakesNothing()], local_scheduler=True, workers=1, log_level="CRITICAL"))
"""


@pytest.mark.parametrize(
    "text, process, succeeded",
    [
        ("", "own", "False"),
        ("force_multiprocessing = false\ntimeout = 0", "shared", "False"),
        ("check_complete_on_run = false", "own", "True"),
    ],
)
def test_a_task_has_its_own_process_and_fails_without_its_product_by_default(tmp_path, text, process, succeeded):
    (tmp_path / "luigi.cfg").write_text(f"[worker]\n{text}\n")
    words = [sys.executable, "-u", "-c", TWO_TASKS]
    how = {"cwd": tmp_path, "env": clean_environment(), "capture_output": True, "text": True}
    ended = subprocess.run(words, check=False, **how)
    assert ended.stdout.split() == [process, succeeded], ended.stderr


# --- templates --------------------------------------------------------------------------------------------------------


def again(luigi, tiny_sky, made, *settings, blurred=False):
    for folder in ("shifted_downsampled", *(["convolved_results"] if blurred else [])):
        shutil.rmtree(made / folder)
    ended = luigi.run("Downsample", *tiny_sky.arguments(made, *PLAIN, *settings))
    assert ended.code == 0, ended.tail
    return template_of(made)


def test_units_oversampling_and_least_coverage_shape_a_template(tiny_sky, luigi, made, finished):
    plain = planes(template_of(finished))
    path = again(
        *(luigi, tiny_sky, made),
        *("--syndiff-units", "electrons", "--syndiff-oversampling", "2", "--syndiff-min-coverage", "1"),
    )
    found = planes(path)
    assert fits.getval(path, "BUNIT", "FLUX_SUM") == "electron/s"
    flux = found["FLUX_SUM"].reshape(10, 2, 10, 2)
    whole = np.isfinite(flux).all(axis=(1, 3)) & np.isfinite(plain["FLUX_SUM"])
    factor = 10 ** (-0.4 * (photometry.PS1_ZERO_POINT - photometry.TESS_ZERO_POINT_AB))
    parts = flux.sum(axis=(1, 3))[whole]
    np.testing.assert_allclose(parts, factor * plain["FLUX_SUM"][whole], atol=1e-3 * np.nanmax(parts))
    assert whole.any() and np.isnan(found["FLUX_SUM"][found["COVERAGE"] < 1]).all() and (found["COVERAGE"] < 1).any()


def write_prfs(folder, sigma):
    """PRF files of the four corners of CCD 3-3, as SPOC has them: a pixel's answer to a Gaussian [TESS px]."""
    at = (np.arange(117) - 58) / 9
    edges = (at[:, None] + np.array([-0.5, 0.5])) / (sigma * math.sqrt(2))
    along = np.diff([[math.erf(edge) for edge in pair] for pair in edges])[:, 0] / 2
    for row in (1, 2048):
        for column in (45, 2092):
            cards = {"CCD_RREF": row, "CCD_CREF": column, "NSAMP": 9}
            name = f"tess2019107181900-prf-3-3-row{row:04d}-col{column:04d}.fits"
            fits.PrimaryHDU(np.outer(along, along), fits.Header(cards)).writeto(folder / name)


def test_the_point_spread_function_is_that_of_the_settings(tiny_sky, luigi, made, finished, tmp_path):
    gauss = planes(template_of(finished))["FLUX_SUM"]
    (tmp_path / "prfs").mkdir()
    refused = luigi.run("Downsample", *tiny_sky.arguments(tmp_path / "none", "--syndiff-psf", "prf", *PLAIN))
    assert refused.code == NOT_PLANNED and "prf_folder = '' holds no tess*-prf-3-3-row" in refused.said
    write_prfs(tmp_path / "prfs", 40 / 82)
    own = ["--syndiff-psf", "prf", "--syndiff-prf-folder", str(tmp_path / "prfs")]
    path = again(luigi, tiny_sky, made, *own, blurred=True)
    assert (fits.getval(path, "PSF"), bool(fits.getval(path, "PRFFILES"))) == ("prf", True)
    # The scale of the FFI is 82 px a pixel but for a percent.
    inner = np.s_[2:-2, 2:-2]
    np.testing.assert_allclose(planes(path)["FLUX_SUM"][inner], gauss[inner], atol=0.02 * np.nanmax(gauss))
    path = again(luigi, tiny_sky, made, "--syndiff-psf", "none", blurred=True)
    sharp = planes(path)["FLUX_SUM"]
    assert fits.getval(path, "PSF") == "none" and np.nanmax(sharp) > 1.2 * np.nanmax(gauss)


def test_an_offset_beyond_a_pixel_is_made_from_skycells_widened_by_their_neighbors(tiny_sky, luigi, made, finished):
    before = set((made / "convolved_results").rglob("skycell.*"))
    ended = luigi.run("Downsample", *tiny_sky.arguments(made, *PLAIN, "--multi-offset-array", "1,0"))
    assert ended.code == 0, ended.tail
    added = set((made / "convolved_results").rglob("skycell.*")) - before
    assert {"_" in one.name for one in added if one.parent.suffix == ".zarr"} == {True}
    assert list((made / "convolved_results").rglob("cell_metadata_wide.json"))
    # A pixel further to the right, but for the scale that differs over the pixel by 1e-4.
    plain, moved = planes(template_of(finished)), planes(template_of(made, "dx+1.0000_dy+0.0000"))
    plain, moved = plain["FLUX_SUM"], moved["FLUX_SUM"]
    inner = np.s_[2:-2, 2:-3]
    np.testing.assert_allclose(moved[:, 1:][inner], plain[:, :-1][inner], atol=2e-3 * np.nanmax(plain))


def test_saturated_stars_are_kept_removed_or_repaired_as_the_settings_say(tiny_sky, luigi, tmp_path):
    cell = skycell(CELLS[0])
    ra, dec = (float(value) for value in pixel_to_sky(frame.TANSIP, CENTRE[0] - 2, CENTRE[1] - 2))
    star = sky.source_table([ra], [dec], [10.5], [5000.0])
    archive.build_archive(tmp_path / "archive", [cell], star, archive.Rendering(noise=False, flaws=False))
    gaia = tmp_path / "gaia.csv"
    gaia.write_text(f"ra,dec,phot_g_mean_mag,phot_bp_mean_mag,phot_rp_mean_mag\n{ra},{dec},11.0,11.4,10.4\n")
    one = ["--skycell", cell.name, "--skycell-catalog", str(tiny_sky.catalogue), "--syndiff-background", "none"]
    one += [*tiny_sky.settings(tmp_path / "data", tmp_path / "archive"), "--syndiff-star-catalog", str(gaia)]
    flux, treated = {}, {}
    for how, folder in (("keep", "*_bin4"), ("remove", "*_remove-*"), ("auto", "*_repair-*")):
        assert luigi.run("CombineBands", *one, "--syndiff-saturated-stars", how).code == 0
        (path,) = tmp_path.glob(f"data/combined_skycells_zarr/{folder}/*/{cell.name}")
        flux[how], treated[how] = np.nansum(combine.read_blocks(path).flux), len(read_manifest(path)["notes"]["stars"])
    assert treated == {"keep": 0, "remove": 1, "auto": 1}
    assert flux["remove"] < 0.1 * flux["keep"] and flux["keep"] < 0.9 * flux["auto"]
