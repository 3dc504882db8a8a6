"""Two workers with one luigid and one data root, as on two hosts: the work is shared, and one may die."""

import os
import signal
import subprocess
import sys
import time

import pytest
from test_luigid import CONFIG, answer, luigid
from tiny_sky import planes, template_of, the_same

from syndiff_tasks.ledger import complaints

pytest_plugins = "tiny_sky_fixtures"

# A dead worker is noticed, and its task given away, within seconds rather than minutes.
SOON = CONFIG.replace("[scheduler]", "[scheduler]\nworker_disconnect_delay = 4\nretry_delay = 2").replace(
    "retry_count = 1", "retry_count = 4\nprune_on_get_work = true"
)


def worker(folder, url, arguments):
    """Start `luigi` as on a host of its own: it stays while there is something that another one has."""
    words = [sys.executable, "-m", "luigi", "--module", "syndiff_tasks", "Downsample", "--scheduler-url", url]
    words += ["--worker-keep-alive", "--worker-max-keep-alive-idle-duration", "120s", *map(str, arguments)]
    log = folder / f"worker{time.monotonic_ns()}.log"
    with open(log, "w", encoding="utf-8") as stream:
        return subprocess.Popen(words, cwd=folder, stdout=stream, stderr=stream, start_new_session=True), log


@pytest.mark.slow
@pytest.mark.parametrize("one_dies", [False, True])
def test_two_workers_share_a_run_and_one_finishes_what_a_killed_one_began(tmp_path, tiny_sky, made, one_dies):
    (tmp_path / "luigi.cfg").write_text(SOON)
    root = tmp_path / "shared"
    arguments = [word for word in tiny_sky.arguments(root) if word != "--local-scheduler"]
    with luigid(tmp_path) as url:
        workers = [worker(tmp_path, url, arguments) for _ in range(2)]
        if one_dies:
            while not (root / "ps1_skycells_zarr").exists():
                time.sleep(0.05)
            os.killpg(workers[0][0].pid, signal.SIGKILL)
        codes = [process.wait(300) for process, _ in workers]
        statuses = {task["status"] for task in answer(url, "task_list").values()}
    said_by = [log.read_text(encoding="utf-8") for _, log in workers]
    # 10 and 25 say that the other worker did some of it, which is why cron asks the root for its `complete()`.
    assert codes[1] in (0, 10, 25), said_by[1][-3000:]
    assert statuses == {"DONE"}
    # What one worker made alone, to the last bit, and nothing that is half there.
    assert the_same(planes(template_of(made)), planes(template_of(root)))
    assert not [wrong for _product, wrong in complaints(root, deep=True) if wrong]
    if not one_dies:
        done = [line.split(" done      ")[1] for text in said_by for line in text.splitlines() if " done      " in line]
        assert len(done) == len(set(done)), "a task was run twice"
        assert all(" done      " in text for text in said_by), "one worker did all the work"
