"""`syndiff_tasks luigid` as a user runs it: a real one on a free port of 127.0.0.1, and real `luigi` commands."""

import contextlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote

import pytest
import requests

from syndiff_tasks.tasks import MapFFI

LUIGID = Path(__file__).parents[1] / "scripts" / "luigid"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

TASKS = """
import luigi


class CombineBands(luigi.Task):
    skycell = luigi.Parameter()

    def output(self):
        return luigi.LocalTarget(self.skycell)

    def run(self):
        self.set_status_message(f"{self.skycell}: 4 bands combined")
        with self.output().open("w") as stream:
            stream.write("blocks")


class Convolve(luigi.Task):
    ffi = luigi.Parameter()

    def requires(self):
        return [CombineBands(skycell=f"skycell.2611.07{number}") for number in range(3)]

    def output(self):
        return luigi.LocalTarget(self.ffi)

    def run(self):
        self.set_tracking_url("/products/sector_0020/page.html")
        if self.ffi == "without_stars":
            raise ValueError("without_stars: nothing to blur")
        with self.output().open("w") as stream:
            stream.write("blurred")
"""

# A test has no time to wait for second tries.
CONFIG = """
[core]
autoload_range = false
[scheduler]
state_path = luigid/state.pickle
record_task_history = true
retry_count = 1
disable_persist = 3000
[task_history]
db_connection = sqlite:///luigid/history.db
"""


@contextlib.contextmanager
def luigid(folder, address="127.0.0.1", *options):
    """Run scripts/luigid in a folder, and give its URL; it is asked to stop with SIGTERM, as a shutdown does."""
    with socket.create_server((address, 0)) as free:
        port = free.getsockname()[1]
    words = [sys.executable, LUIGID, "--address", address, "--port", str(port), *options]
    with open(folder / "luigid.log", "a", encoding="utf-8") as log:
        server = subprocess.Popen(words, cwd=folder, stdout=log, stderr=log)
    try:
        for _ in range(600):
            with contextlib.suppress(requests.ConnectionError):
                requests.head(f"http://{address}:{port}", timeout=10)
                break
            assert server.poll() is None, (folder / "luigid.log").read_text()
            time.sleep(0.2)
        yield f"http://{address}:{port}"
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)


def convolve(folder, url, ffi):
    """Run Convolve of an FFI as a user does, and return its log."""
    (folder / "made_up_tasks.py").write_text(TASKS)
    words = [sys.executable, "-m", "luigi", "--module", "made_up_tasks", "Convolve", "--ffi", ffi]
    words += ["--scheduler-url", url, "--workers", "2"]
    ran = subprocess.run(words, cwd=folder, env=os.environ | {"PYTHONPATH": "."}, capture_output=True, text=True)
    return ran.stdout + ran.stderr


def answer(url, method, **arguments):
    """Return what luigid answers a worker or a browser."""
    reply = requests.get(f"{url}/api/{method}", {"data": json.dumps(arguments)}, timeout=60)
    reply.raise_for_status()
    return reply.json()["response"]


def told(url):
    """Return name and status of every task, as the web view's list shows them."""
    return {(task["display_name"], task["status"]) for task in answer(url, "task_list").values()}


DONE = {(f"CombineBands(skycell=skycell.2611.07{number})", "DONE") for number in range(3)}
DONE |= {("Convolve(ffi=s0020_3_3)", "DONE"), ("Convolve(ffi=without_stars)", "DISABLED")}


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A folder where a luigid was started, saw a run that went well and one that failed, and was stopped."""
    folder = tmp_path_factory.mktemp("luigid")
    (folder / "luigi.cfg").write_text(CONFIG)
    with luigid(folder) as url:
        assert "This progress looks :)" in convolve(folder, url, "s0020_3_3")
        assert "without_stars: nothing to blur" in convolve(folder, url, "without_stars")
        assert told(url) == DONE
        metrics = requests.get(f"{url}/metrics", timeout=60).text
    return folder, metrics


@pytest.fixture(scope="module")
def restarted(ran):
    """The URL of a second luigid in the same folder."""
    with luigid(ran[0]) as url:
        yield url


def test_a_restarted_luigid_remembers_what_was_done_and_what_failed(restarted):
    assert told(restarted) == DONE


def test_the_list_has_the_message_and_the_graph_what_a_task_needs(restarted):
    tasks = answer(restarted, "task_list", search="2611.071")
    (task_id,) = tasks
    assert tasks[task_id]["status_message"] == "skycell.2611.071: 4 bands combined"
    root = next(name for name in answer(restarted, "task_list", search="s0020_3_3"))
    graph = answer(restarted, "dep_graph", task_id=root)
    assert {node["params"].get("skycell") for node in graph.values()} == {
        None,
        *(f"skycell.2611.07{number}" for number in range(3)),
    }


def test_an_error_can_be_read_where_the_task_failed(restarted):
    (failed,) = answer(restarted, "task_list", status="DISABLED")
    assert "without_stars: nothing to blur" in answer(restarted, "fetch_error", task_id=failed)["error"]


def test_the_history_in_sqlite_tells_when_each_task_was_planned_begun_and_ended(ran):
    with contextlib.closing(sqlite3.connect(ran[0] / "luigid" / "history.db")) as history:
        events = history.execute(
            "SELECT p.value, group_concat(e.event_name) FROM task_events e JOIN task_parameters p"
            " ON p.task_id = e.task_id GROUP BY p.value"
        )
        happened = {name: set(text.split(",")) for name, text in events}
    well = {"PENDING", "RUNNING", "DONE"}
    assert happened["s0020_3_3"] == happened["skycell.2611.071"] == well
    assert happened["without_stars"] == {"PENDING", "RUNNING", "FAILED"}


@pytest.mark.parametrize(
    "page", ["history", "history/by_name/Convolve", "history/by_id/1", "tasklist", "tasklist/Convolve"]
)
def test_the_history_pages_name_the_tasks_after_a_restart(restarted, page):
    reply = requests.get(f"{restarted}/{page}", timeout=60)
    assert reply.ok
    assert "Convolve" in reply.text or "CombineBands" in reply.text


def test_metrics_count_the_tasks_by_name(ran):
    pytest.importorskip("prometheus_client", reason="luigid shows metrics where prometheus_client is installed")
    counted = dict(line.rsplit(" ", 1) for line in ran[1].splitlines() if not line.startswith("#"))
    assert float(counted['luigi_task_done_total{family="CombineBands"}']) == 3
    assert float(counted['luigi_task_disabled_total{family="Convolve"}']) == 1


def test_luigid_links_the_page_of_a_product_and_serves_nothing_but_products(ran, restarted):
    page = ran[0] / "data" / "sector_0020" / "page.html"
    page.parent.mkdir(parents=True)
    page.write_text("<p>a template")
    (task,) = [task for task in answer(restarted, "task_list", search="s0020_3_3").values()]
    assert requests.get(f"{restarted}{task['tracking_url']}", timeout=60).text == "<p>a template"
    for outside in ("/products/../luigi.cfg", "/products/%2e%2e/luigi.cfg", "/products//etc/passwd"):
        assert not requests.get(f"{restarted}{outside}", timeout=60).ok
    (page.parent / ".tmp-folder").mkdir()
    for hidden in (".page.html.manifest.json", ".tmp-folder/page.html"):
        (page.parent / hidden).write_text("hidden")
        for address in (hidden, hidden.replace(".", "%2e", 1)):
            assert requests.get(f"{restarted}/products/sector_0020/{address}", timeout=60).status_code == 404
    for no_name in ("page.html%00", "%00", "sector_0020/%00.html"):
        assert requests.get(f"{restarted}/products/{no_name}", timeout=60).status_code == 404


EVIL = b"cos\nsystem\n(S'touch ran'\ntR."  # a pickle that runs a command


def refused_state(folder):
    """Start luigid, which must refuse its state; return why."""
    (folder / "luigi.cfg").write_text(CONFIG)
    words = [sys.executable, LUIGID, "--port", "1"]  # where nobody but root may listen
    ended = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1 and not (folder / "ran").exists()
    return ended.stderr


@pytest.mark.parametrize("folder_mode, file_mode, why", [(0o755, 0o600, "luigid is open to"), (0o700, 0o666, "others")])
def test_luigid_does_not_read_a_state_that_others_may_have_written(tmp_path, folder_mode, file_mode, why):
    state = tmp_path / "luigid" / "state.pickle"
    state.parent.mkdir()
    state.write_bytes(EVIL)
    state.chmod(file_mode)
    state.parent.chmod(folder_mode)
    message = refused_state(tmp_path)
    assert why in message and "must be yours alone" in message


@pytest.mark.skipif(os.geteuid() != 0, reason="being two users takes root")
@pytest.mark.parametrize("of_another", ["luigid", "luigid/state.pickle"])
def test_luigid_does_not_read_a_state_of_another_user(tmp_path, of_another):
    state = tmp_path / "luigid" / "state.pickle"
    state.parent.mkdir(mode=0o700)
    state.write_bytes(EVIL)
    os.chown(tmp_path / of_another, 12345, 12345)
    assert "belongs to another user" in refused_state(tmp_path)


def test_the_folder_of_the_state_is_closed_to_others(ran):
    assert stat.S_IMODE((ran[0] / "luigid").stat().st_mode) == 0o700


def test_a_task_links_and_names_its_page_by_the_place_below_the_data_root(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    links, messages = [], []
    task = MapFFI(ffi="tess.fits")
    task.set_tracking_url = links.append
    task.set_status_message = messages.append
    task.link_to("data/sector_0020/dx+0.0.html")
    task.link_to(tmp_path / "data" / "page.html")
    assert links == ["/products/sector_0020/dx%2B0.0.html", "/products/page.html"]
    assert messages[-1] == "The eye button opens the page of this product: /products/page.html"


@pytest.mark.parametrize("address", ["0.0.0.0", "", "::"])
def test_luigid_refuses_to_be_reached_by_other_hosts_and_says_why(tmp_path, address):
    refused = subprocess.run(
        [sys.executable, LUIGID, "--address", address], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert refused.returncode == 1
    assert "can be reached by other hosts" in refused.stderr and "run code as you" in refused.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_second_luigid_on_the_port_says_that_one_is_there(tmp_path, restarted):
    words = [sys.executable, LUIGID, "--port", restarted.rsplit(":", 1)[1]]
    second = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert second.returncode == 1
    assert "is another one running there?" in second.stderr


def seen(folder, url):
    """Return a page as headless Chromium makes it of the served one, scripts run."""
    # https://github.com/GoogleChrome/chrome-launcher/blob/main/docs/chrome-flags-for-tools.md
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    flags += ["--disable-background-networking", "--disable-component-update", "--window-size=1280,900"]
    # luigid's history pages ask a content network for a chart library; no test leaves this host.
    flags += ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--virtual-time-budget=20000"]
    words = [CHROMIUM, *flags, f"--user-data-dir={folder / 'profile'}", "--dump-dom", url]
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=300).stdout


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="needs a Chromium (apt-get install chromium)")
def test_a_browser_shows_task_list_graph_and_history(tmp_path, restarted):
    tasks = seen(tmp_path, f"{restarted}/static/visualiser/index.html")
    assert "skycell=skycell.2611.071" in tasks and "without_stars" in tasks
    root = next(name for name in answer(restarted, "task_list", search="s0020_3_3"))
    graph = seen(tmp_path, f"{restarted}/static/visualiser/index.html#tab=graph&taskId={quote(root)}&visType=svg")
    assert graph.count('data-original-title="CombineBands"') == 3 and graph.count('data-original-title="Convolve"') == 1
    history = seen(tmp_path, f"{restarted}/history")
    assert "skycell.2611.071" in history and "FAILED" in history
