"""A request to make a product again: fulfilled once, whatever processes and hosts look at it."""

import os

import luigi as luigi_package
import pytest
from made_up_chain import ROI

from syndiff_tasks import paths, tasks
from syndiff_tasks.manifest import read_manifest
from syndiff_tasks.tasks.request import Overwrite


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A data root, and settings as in the repository."""
    from luigi.configuration import get_config

    get_config().set("syndiff", "data_root", str(tmp_path / "data"))
    yield tmp_path / "data"
    get_config().remove_option("syndiff", "data_root")


def made(root, plan):
    """Return what tells apart each making of the list of skycells."""
    return os.stat(paths.skycells_list(root, plan.ccd, plan.label)).st_ino


def test_each_of_three_builds_in_one_process_remakes_the_product(root, ffi_path, plan):
    seen = []
    for _ in range(3):
        task = tasks.MapFFI(ffi=str(ffi_path), roi=ROI, overwrite=True)
        assert luigi_package.build([task], local_scheduler=True, log_level="ERROR")
        seen.append(read_manifest(paths.skycells_list(root, plan.ccd, plan.label))["requested"])
        assert seen[-1] == task.overwrite and task.complete()
    assert len(set(seen)) == 3
    plain = tasks.MapFFI(ffi=str(ffi_path), roi=ROI)
    before = made(root, plan)
    assert luigi_package.build([plain], local_scheduler=True, log_level="ERROR") and made(root, plan) == before


def test_a_request_keeps_its_time_on_the_way_through_the_scheduler():
    task = tasks.MapFFI(ffi="x", overwrite=True)
    assert tasks.MapFFI.from_str_params(task.to_str_params()).overwrite == task.overwrite
    assert task.clone(roi="0,0,9,9").overwrite == task.overwrite
    assert tasks.MapFFI(ffi="x").overwrite == tasks.MapFFI(ffi="x", overwrite=False).overwrite == ""
    assert task.task_id == tasks.MapFFI(ffi="x").task_id


def test_all_tasks_of_a_command_line_share_the_time_of_its_request():
    from luigi.cmdline_parser import CmdlineParser

    line = ["--module", "syndiff_tasks", "MapFFI", "--ffi", "x", "--overwrite", "--DownloadSkycell-overwrite"]
    times = []
    for _ in range(2):
        with CmdlineParser.global_instance(line) as parser:
            downloads = [tasks.DownloadSkycell(skycell=name) for name in ("a", "b")]
            times.append({task.overwrite for task in (parser.get_task_obj(), *downloads)})
    assert [len(each) for each in times] == [1, 1] and times[0] != times[1]


def test_what_is_no_request_is_refused():
    with pytest.raises(ValueError, match="Invalid isoformat"):
        Overwrite().parse("perhaps")
