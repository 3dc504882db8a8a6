"""An FFI, and the plan of a piece of it, one a session; a test module asks for them by `pytest_plugins`."""

import pytest
from made_up_chain import ROI, write_ffi

from syndiff_tasks import plans


@pytest.fixture(scope="session")
def path(tmp_path_factory):
    return write_ffi(tmp_path_factory.mktemp("planned"))


@pytest.fixture(scope="session")
def plan(path):
    return plans.plan(path, ROI)
