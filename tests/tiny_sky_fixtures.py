"""Fixtures of the tiny sky, one a session; a test module asks for them by `pytest_plugins`."""

import pytest
from tiny_sky import WarmLuigi, build


@pytest.fixture(scope="session")
def tiny_sky(tmp_path_factory):
    return build(tmp_path_factory.mktemp("tiny_sky"))


@pytest.fixture(scope="session")
def luigi(tmp_path_factory):
    warm = WarmLuigi(tmp_path_factory.mktemp("luigi"))
    yield warm
    warm.close()
