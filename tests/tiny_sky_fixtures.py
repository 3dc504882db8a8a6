"""Fixtures of the tiny sky, one a session; a test module asks for them by `pytest_plugins`."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_sky import WarmLuigi, build, clean_environment


@pytest.fixture(scope="session")
def tiny_sky(tmp_path_factory):
    return build(tmp_path_factory.mktemp("tiny_sky"))


@pytest.fixture(scope="session")
def luigi(tmp_path_factory):
    warm = WarmLuigi(tmp_path_factory.mktemp("luigi"))
    yield warm
    warm.close()


@pytest.fixture(scope="session")
def said(tiny_sky, luigi, tmp_path_factory):
    """What the real command said when it was run as users do, from a folder that is not the project's."""
    folder = tmp_path_factory.mktemp("home")
    command = [Path(sys.executable).with_name("luigi"), "--module", "syndiff_tasks", "Downsample", "--local-scheduler"]
    ended = subprocess.run(
        [*command, *tiny_sky.arguments("data"), "--workers", "2"],
        **{"cwd": folder, "env": clean_environment(), "capture_output": True, "text": True, "check": False},
    )
    assert ended.returncode == 0, ended.stderr
    return folder, ended.stderr


@pytest.fixture
def made(said, tmp_path):
    """A data root with everything in it, and the command's own copy of it to change."""
    return Path(shutil.copytree(said[0] / "data", tmp_path / "data"))


@pytest.fixture(scope="session")
def finished(said):
    """The data root of that run, to be looked at only."""
    return said[0] / "data"
