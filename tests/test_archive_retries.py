import itertools
import socket
from datetime import datetime, timezone

import numpy as np
import pytest
from bad_server import XML, Answer, status
from fetching import BODY, FILES, PATH, QUICK, fetch, keyed, ranges_asked, sealed, unseal

from syndiff_tasks.io import archive, retries, transfer
from syndiff_tasks.io.archive import ArchiveUnavailable

# --- retries and mirrors ----------------------------------------------------------------------------------------------


def test_waits_grow_from_try_to_try_with_full_jitter(server, tmp_path, clock):
    server.put(PATH, BODY, always=status(500))
    polite = QUICK._replace(tries=6, first_wait=1.0, longest_wait=8.0)
    for _ in range(30):
        with pytest.raises(ArchiveUnavailable, match="status 500"):
            fetch(PATH, [server.url], tmp_path, polite, unseal)
    waits = np.reshape(clock.waits, (30, 5))
    longest = [1, 2, 4, 8, 8]
    assert np.all((waits >= 0) & (waits <= longest))
    # Uniform from nothing to the whole: the mean of 30 lies within 4.5 standard errors of the middle.
    assert np.all(abs(waits.mean(axis=0) / longest - 0.5) < 4.5 / np.sqrt(12 * 30))


@pytest.mark.parametrize("code", [408, 425, 429, 500, 503])
def test_retry_after_is_honoured(server, tmp_path, clock, code):
    server.put(PATH, BODY, status(code, Retry_After="7"))
    fetch(PATH, [server.url], tmp_path, QUICK._replace(longest_wait=60), unseal)
    assert 7 <= sum(clock.waits) < 7.1


def test_retry_after_is_honoured_as_a_date(server, tmp_path, clock):
    clock.now = datetime(2026, 11, 22, 12, 0, 0, tzinfo=timezone.utc).timestamp()
    server.put(PATH, BODY, status(503, Retry_After="Sun, 22 Nov 2026 12:00:09 GMT"))
    fetch(PATH, [server.url], tmp_path, QUICK._replace(longest_wait=60), unseal)
    assert 9 <= sum(clock.waits) < 9.1


def test_no_server_can_make_us_wait_longer_than_the_longest_wait(server, tmp_path, clock):
    server.put(PATH, BODY, status(503, Retry_After="86400"))
    fetch(PATH, [server.url], tmp_path, QUICK._replace(longest_wait=60), unseal)
    assert 60 <= sum(clock.waits) < 60.1


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("120", 120),
        ("Sun, 22 Nov 2026 12:02:00 GMT", 120),
        ("Sun, 22 Nov 2026 12:02:00 -0000", 120),
        ("Sun, 22 Nov 2026 11:00:00 GMT", 0),
        ("soon", None),
        ("-5", None),
        ("Sun, 99 Nov 99999 12:00:00 GMT", None),
    ],
)
def test_every_form_of_retry_after_is_understood(clock, header, seconds):
    clock.now = datetime(2026, 11, 22, 12, 0, 0, tzinfo=timezone.utc).timestamp()
    assert retries.seconds_to_wait(header) == seconds


def test_a_mirror_that_fails_is_followed_by_the_next(server, mirror, tmp_path):
    server.put(PATH, BODY, always=status(502))
    mirror.put(PATH, BODY)
    file = fetch(PATH, [server.url, mirror.url], tmp_path, QUICK, unseal)
    assert file.url.startswith(mirror.url)
    assert len(server.asked) == QUICK.tries


def test_a_status_that_trying_again_cannot_mend_is_asked_once(server, mirror, tmp_path):
    server.put(PATH, BODY, always=status(403))
    mirror.put(PATH, BODY)
    assert fetch(PATH, [server.url, mirror.url], tmp_path, QUICK, unseal).url.startswith(mirror.url)
    assert len(server.asked) == 1


def test_when_all_mirrors_fail_each_url_and_its_last_error_are_named(server, mirror, tmp_path):
    server.put(PATH, BODY, status(503), always=status(502))
    mirror.put(PATH, BODY, always=Answer(body=XML))
    with pytest.raises(ArchiveUnavailable) as caught:
        fetch(PATH, [server.url, mirror.url], tmp_path, QUICK, unseal)
    assert f"{server.url}/{PATH}: status 502" in str(caught.value)
    assert f"{mirror.url}/{PATH}: the body is not a FITS file" in str(caught.value)


def test_half_a_file_of_one_mirror_is_never_completed_from_another(server, mirror, tmp_path):
    server.put(PATH, sealed(3), always=Answer(sent=5_000, end="close"))
    mirror.put(PATH, BODY)
    assert fetch(PATH, [server.url, mirror.url], tmp_path, QUICK, unseal).path.read_bytes() == BODY
    assert ranges_asked(mirror) == [None]


def test_a_newcomer_without_network_reads_which_host_failed_and_what_to_do(tmp_path):
    with socket.socket() as closed:  # bound but not listening: connections are refused
        closed.bind(("127.0.0.1", 0))
        base = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(ArchiveUnavailable) as caught:
            fetch(PATH, [base], tmp_path, QUICK, unseal)
    message = str(caught.value)
    assert "the host 127.0.0.1 could not be reached: ConnectionRefusedError" in message
    assert "give that folder as `archive` in the [syndiff] section of luigi.cfg or as --syndiff-archive" in message
    assert "\n" not in message


# --- one connection, and pauses ---------------------------------------------------------------------------------------


def test_all_files_of_a_skycell_come_through_one_connection_under_our_name(server, tmp_path):
    files = archive.stack_files("skycell.2180.097", "rizy", ["image", "mask", "wt"])
    for path in files.values():
        if "stk.z" not in path:  # the 404 of a missing band must not cost the connection
            server.put(path, BODY)
    polite = QUICK._replace(contact="https://example.org/syndiff")
    assert len(list(archive.fetch_all(files, [server.url], tmp_path, polite, keyed(unseal)))) == 12
    assert server.connections == 1
    agents = {headers["User-Agent"] for _, headers in server.asked}
    assert len(agents) == 1
    assert agents.pop().startswith("syndiff_tasks/")
    assert server.asked[0][1]["User-Agent"].endswith(" (+https://example.org/syndiff)")


def test_a_connection_that_the_server_closes_is_opened_again(server, tmp_path):
    for path in FILES.values():
        server.put(path, BODY, always=Answer(end="close"))
    assert len(list(archive.fetch_all(FILES, [server.url], tmp_path, QUICK, keyed(unseal)))) == 3
    assert server.connections == 3


@pytest.mark.parametrize("code", [429, 503])
def test_a_crowded_server_is_left_alone_by_every_other_process_too(server, mirror, tmp_path, clock, code):
    server.put(PATH, BODY, always=status(code, Retry_After="30"))
    polite = QUICK._replace(tries=1, longest_wait=60)
    with pytest.raises(ArchiveUnavailable):
        fetch(PATH, [server.url], tmp_path, polite, unseal)
    assert clock.waits == []  # nothing to wait for after the last try
    other = FILES["i_image"]
    for served_by in (mirror, server):
        served_by.put(other, BODY)
    fetch(other, [mirror.url], tmp_path, polite, unseal)
    assert clock.waits == []  # the pause is one host's
    fetch(other, [server.url], tmp_path, polite, unseal)
    assert 30 <= sum(clock.waits) < 30.1


def test_a_clock_set_forward_does_not_stall_us(server, tmp_path, clock):
    server.put(PATH, BODY)
    clock.now += 1e8
    retries.pause_everyone(retries.pause_file(transfer.Part(tmp_path / "x", server.url)), 30)
    clock.now -= 1e8  # set right again: the pause now lies three years ahead
    fetch(PATH, [server.url], tmp_path, QUICK._replace(longest_wait=60), unseal)
    assert clock.waits == []


def test_a_clock_that_stands_still_does_not_stall_us_for_ever(server, tmp_path, clock, monkeypatch):
    server.put(PATH, BODY)
    retries.pause_everyone(retries.pause_file(transfer.Part(tmp_path / "x", server.url)), 30)
    monkeypatch.setattr(clock, "time", itertools.repeat(clock.now).__next__)
    fetch(PATH, [server.url], tmp_path, QUICK._replace(longest_wait=60), unseal)
    assert 60 <= sum(clock.waits) < 100


def test_a_pause_file_emptied_by_a_power_cut_is_no_pause(server, tmp_path, clock):
    server.put(PATH, BODY)
    retries.pause_file(transfer.Part(tmp_path / "x", server.url)).write_text("")
    fetch(PATH, [server.url], tmp_path, QUICK, unseal)
    assert clock.waits == []
