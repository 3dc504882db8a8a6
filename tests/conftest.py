"""Fixtures that several test modules share. Imports are in the fixtures: a run of one module loads what it needs."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def ffi_path(tmp_path_factory):
    """An FFI over the borders of four skycells and two projections."""
    from made_up_chain import write_ffi

    return write_ffi(tmp_path_factory.mktemp("planned"))


@pytest.fixture(scope="session")
def plan(ffi_path):
    """The plan of a small region of that FFI."""
    from made_up_chain import ROI

    from syndiff_tasks.chain.plan import plan_ffi

    return plan_ffi(ffi_path, ROI)


@pytest.fixture(scope="session")
def tiny_sky(tmp_path_factory):
    """An archive of four small skycells and the FFI over them."""
    from tiny_sky import build

    return build(tmp_path_factory.mktemp("tiny_sky"))


@pytest.fixture(scope="session")
def luigi(tmp_path_factory):
    """A server that runs `luigi` commands without importing the libraries for each."""
    from tiny_sky import WarmLuigi

    warm = WarmLuigi(tmp_path_factory.mktemp("luigi"))
    yield warm
    warm.close()


@pytest.fixture(scope="session")
def said(tiny_sky, tmp_path_factory):
    """Folder and stderr of one run of the installed `luigi` command, started outside of the repository."""
    from tiny_sky import clean_environment

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
    """A copy of that run's data root, for a test that changes it."""
    return Path(shutil.copytree(said[0] / "data", tmp_path / "data"))


@pytest.fixture(scope="session")
def finished(said):
    """The data root of that run, for tests that only read it."""
    return said[0] / "data"


@pytest.fixture
def server(monkeypatch):
    """A server that misbehaves on request, and no proxy before it."""
    from bad_server import BadServer

    from syndiff_tasks.io import transfer

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with BadServer() as server:
        yield server
    transfer.session.cache_clear()


@pytest.fixture
def mirror(monkeypatch):
    """A second such server."""
    from bad_server import BadServer

    with BadServer() as server:
        yield server


@pytest.fixture
def clock(monkeypatch):
    """The clock of everything that waits for an archive; it goes on only by waiting."""
    from fetching import Clock

    from syndiff_tasks.io import archive, retries, transfer

    clock = Clock()
    monkeypatch.setattr(retries, "time", clock)
    monkeypatch.setattr(transfer, "time", clock)
    monkeypatch.setattr("urllib3.util.retry.time", clock)
    monkeypatch.setattr(archive, "wait", clock.wait)
    monkeypatch.setattr(retries, "wait", clock.wait)
    return clock
