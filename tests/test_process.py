import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

RUN_SECTOR = Path(__file__).parents[1] / "scripts" / "run_sector"


@pytest.mark.parametrize(
    "words", [("-u", "-m", "syndiff_tasks", "status"), ("-m", "syndiff_tasks", "--help"), (RUN_SECTOR, "--help")]
)
def test_a_command_into_a_closed_pipe_ends_quietly_as_by_sigpipe(tmp_path, words):
    read, write = os.pipe()
    os.close(read)
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    how = {"stdout": write, "stderr": subprocess.PIPE, "cwd": tmp_path, "env": buffered}
    ended = subprocess.run([sys.executable, *words], check=False, **how)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGPIPE, b"")
