"""Templates from Python: the same as from the command line, without leaving a trace in the process."""

import logging
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from luigi.configuration import get_config
from tiny_sky import CENTRE, ROI, clean_environment, planes, template_of

import syndiff_tasks
from syndiff_tasks import api
from syndiff_tasks.demo import frame
from syndiff_tasks.geometry.tansip import pixel_to_sky

RA, DEC = (float(value) for value in pixel_to_sky(frame.TANSIP, *CENTRE))


def state():
    config = {section: dict(get_config().items(section, raw=True)) for section in get_config().sections()}
    hooks = sys.excepthook, signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGUSR1)
    return config, hooks, os.getcwd(), logging.getLogger().handlers[:], logging.getLogger("luigi-interface").handlers[:]


def make(tiny_sky, root, **more):
    options = {"data_root": root, "archive": str(tiny_sky.archive), "skycell_catalog": str(tiny_sky.catalogue)}
    return syndiff_tasks.template(tiny_sky.ffi, **options | {"pictures": False} | more)


@pytest.fixture(scope="module")
def template(tiny_sky, tmp_path_factory):
    before = state()
    made = make(tiny_sky, tmp_path_factory.mktemp("data"), target=(RA, DEC), size=10)
    assert state() == before
    return made


def test_a_template_from_python_is_that_of_the_command_line(template, finished):
    truth = planes(template_of(finished))
    for plane, name in ((template.flux, "FLUX_SUM"), (template.variance, "VARIANCE"), (template.coverage, "COVERAGE")):
        np.testing.assert_array_equal(plane, truth[name])
    np.testing.assert_array_equal(template.dq, truth["DQ"])
    assert template.path.name == template_of(finished).name and fits.getval(template.path, "ROI") == ROI


def test_a_template_knows_its_place_its_unit_and_its_skycells(template):
    x, y = template.wcs.world_to_pixel(SkyCoord(RA, DEC, unit="deg"))
    assert (x, y) == pytest.approx((CENTRE[0] - 1295, CENTRE[1] - 695), abs=1e-3)
    assert (template.unit, template.zero_point) == ("count/s", 25.0)
    assert sorted(template.skycells["NAME"])[0].strip() == "skycell.2611.044" and len(template.skycells) == 4
    assert template.flux.shape == template.dq.shape == (10, 10) and template.flux.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(template.flux), template.coverage < 0.5)


@pytest.mark.parametrize(
    "place",
    [
        {"target": SkyCoord(RA, DEC, unit="deg"), "size": 10},
        {"target": f"{RA!r}, {DEC!r}", "size": 10},
        {"roi": (1295, 695, 1305, 705)},
    ],
    ids=["SkyCoord", "text", "roi"],
)
def test_the_same_region_by_other_words_is_not_made_again(tiny_sky, template, place):
    written = template.path.stat().st_mtime_ns
    again = make(tiny_sky, template.path.parents[6], **place)
    assert again.path == template.path and again.path.stat().st_mtime_ns == written


def test_settings_and_an_offset_are_keywords(tiny_sky, template):
    more = {"target": (RA, DEC), "size": 10, "offset": (0.25, 0.0), "units": "electrons"}
    moved = make(tiny_sky, template.path.parents[6], **more)
    assert moved.unit == "electron/s" and "dx+0.2500" in moved.path.name
    assert not np.allclose(moved.flux / np.nanmax(moved.flux), template.flux / np.nanmax(template.flux), atol=1e-3)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"psf_sgima": 40}, "psf_sgima: no such option. Did you mean psf_sigma?"),
        ({"psf_sigma": 4000}, "psf_sigma: 4000 is not within 0 to 400"),
        ({"background": "nothing"}, "background: 'nothing' is not one of segment, mesh, none"),
        ({"target": "210.8"}, "this is not a position; give one such as"),
    ],
)
def test_an_option_that_cannot_be_used_is_refused_by_name(tiny_sky, tmp_path, wrong, message):
    before = state()
    with pytest.raises(ValueError, match=message):
        make(tiny_sky, tmp_path, **{"target": (RA, DEC)} | wrong)
    assert state() == before and not list(tmp_path.iterdir())


def test_where_a_task_fails_the_error_says_which_and_why(tiny_sky, tmp_path):
    before = state()
    with pytest.raises(api.TemplateNotMade, match=r"^DownloadSkycell: .*could not be reached"):
        make(tiny_sky, tmp_path, target=(RA, DEC), size=10, archive="http://127.0.0.1:9", download_tries=1)
    with pytest.raises(api.TemplateNotMade, match=r"Downsample: --ffi .*none.fits: no such file;"):
        syndiff_tasks.template(tmp_path / "none.fits", target=(RA, DEC), data_root=tmp_path)
    assert state() == before


def test_a_program_of_ones_own_needs_nothing_but_the_call(tiny_sky, template, tmp_path):
    program = (
        "import sys, syndiff_tasks\n"
        "ffi, archive, catalog, root = sys.argv[1:]\n"
        "made = syndiff_tasks.template(ffi, roi=(1295, 695, 1305, 705), data_root=root, archive=archive,"
        " skycell_catalog=catalog, pictures=False, workers=2)\n"
        "print(made.path)"
    )
    words = [tiny_sky.ffi, tiny_sky.archive, tiny_sky.catalogue, template.path.parents[6]]
    how = {"cwd": tmp_path, "env": clean_environment(), "capture_output": True, "text": True}
    ended = subprocess.run([sys.executable, "-c", program, *map(str, words)], check=False, **how)
    assert ended.stdout.strip() == str(template.path), ended.stderr
