import contextlib
import errno
import hashlib
import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import tracemalloc
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
from bad_server import HONEST, HTML, LAST_MODIFIED, XML, Answer, BadServer, etag_of, status

from syndiff_tasks.io import archive, disk, retries, transfer
from syndiff_tasks.io.archive import ArchiveUnavailable, RetryPolicy, Unusable
from syndiff_tasks.io.stack_header import NoFlux, check_keywords

QUICK = RetryPolicy(tries=3, connect_timeout=0.3, read_timeout=0.1, first_wait=0.001, longest_wait=0.002)
FILES = archive.stack_files("skycell.2180.097", "riz", ["image"])
PATH = FILES["r_image"]
NAME = PATH.rpartition("/")[2]


def sealed(seed, size=30_000):
    """Make a body that begins like FITS and ends with its own digest, so that any damage shows."""
    rest = random.Random(seed).randbytes(size)
    body = b"SIMPLE  =                    T" + rest
    return body + hashlib.sha256(body).digest()


def unseal(path):
    body = Path(path).read_bytes()
    if hashlib.sha256(body[:-32]).digest() != body[-32:]:
        raise ValueError(f"{path}: the seal is broken")
    return len(body)


BODY = sealed(1)


def keyed(read):
    """A reader that asks for the path alone, as `archive.fetch_all` wants it."""
    return lambda _, path: read(path)


def fetch(path, bases, folder, policy, read):
    """Fetch one file and keep it under its name; what else was said of it where it did not come."""
    with contextlib.closing(archive.fetch_all({"it": path}, bases, folder, policy, keyed(read))) as came:
        _, file = next(came)
        if not isinstance(file, archive.FetchedFile):
            return file
        return file._replace(path=file.path.replace(Path(folder) / path.rpartition("/")[2]))


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with BadServer() as server:
        yield server
    transfer.session.cache_clear()


@pytest.fixture
def mirror(monkeypatch):
    with BadServer() as server:
        yield server


def leftovers(folder):
    """List what is in the folder besides finished files: temporaries above all."""
    return sorted(path.name for path in Path(folder).iterdir() if not path.name.startswith(("rings.v3", ".pause+")))


def ranges_asked(server):
    return [headers.get("Range") for _, headers in server.asked]


class Clock:
    """A clock of its own, which goes on only by waiting; keeps the waits."""

    def __init__(self, now=1_700_000_000.0):
        self.now, self.since, self.waits = now, 0.0, []

    def time(self):
        return self.now

    def monotonic(self):
        return self.since

    def wait(self, seconds, stop):
        self.waits.append(seconds)
        self.now += seconds
        self.since += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(retries, "time", clock)
    monkeypatch.setattr(transfer, "time", clock)
    monkeypatch.setattr("urllib3.util.retry.time", clock)
    monkeypatch.setattr(archive, "wait", clock.wait)
    monkeypatch.setattr(retries, "wait", clock.wait)
    return clock


# --- names ----------------------------------------------------------------------------------------------------


def test_files_are_named_as_the_archive_names_them():
    assert archive.stack_files("skycell.0812.050", ["y"], ["image", "mask", "wt"]) == {
        "y_image": "rings.v3.skycell/0812/050/rings.v3.skycell.0812.050.stk.y.unconv.fits",
        "y_mask": "rings.v3.skycell/0812/050/rings.v3.skycell.0812.050.stk.y.unconv.mask.fits",
        "y_wt": "rings.v3.skycell/0812/050/rings.v3.skycell.0812.050.stk.y.unconv.wt.fits",
    }


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("skycell.812.50", "r", ["image"]), "leading zeros"),
        (("skycell.0812.050", "u", ["image"]), "'u' is no PS1 filter"),
        (("skycell.0812.050", "r", ["psf"]), "'psf' is no stack product"),
    ],
)
def test_a_name_that_the_archive_cannot_know_is_refused(arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        archive.stack_files(*arguments)


@pytest.mark.parametrize(
    ("base", "source"),
    [
        ("https://ps1images.stsci.edu/", f"https://ps1images.stsci.edu/{PATH}"),
        ("s3://stpubdata/panstarrs/ps1/public", f"https://stpubdata.s3.amazonaws.com/panstarrs/ps1/public/{PATH}"),
        (
            "https://mast.stsci.edu/api/v0.1/Download/file?uri=mast:PS1/product/",
            f"https://mast.stsci.edu/api/v0.1/Download/file?uri=mast:PS1/product/{NAME}",
        ),
        (
            "https://mast.stsci.edu/api/v0.1/Download/file?uri=mast:PS1/product",
            f"https://mast.stsci.edu/api/v0.1/Download/file?uri=mast:PS1/product/{NAME}",
        ),
        ("/data/ps1", Path("/data/ps1") / PATH),
    ],
)
def test_every_form_of_mirror_leads_to_the_file(base, source):
    assert archive.source_of(base, PATH) == source


@pytest.mark.parametrize("base", ["ftp://ps1images.stsci.edu", "htps://ps1images.stsci.edu", ""])
def test_a_mirror_of_an_unknown_form_is_refused(base):
    with pytest.raises(ValueError, match="archive"):
        archive.source_of(base, PATH)


def test_an_empty_list_of_mirrors_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`archive` is empty"):
        fetch(PATH, [], tmp_path, QUICK, unseal)


# --- a file that is whole -------------------------------------------------------------------------------------


def test_a_file_arrives_whole_with_what_its_server_said(server, tmp_path):
    server.put(PATH, BODY)
    before = datetime.now(timezone.utc).replace(microsecond=0)
    file = fetch(PATH, [server.url], tmp_path, QUICK, unseal)
    assert file.path == tmp_path / NAME
    assert file.path.read_bytes() == BODY
    assert file.url == f"{server.url}/{PATH}"
    assert (file.size, file.sha256) == (len(BODY), hashlib.sha256(BODY).hexdigest())
    assert (file.etag, file.last_modified) == (etag_of(BODY), LAST_MODIFIED)
    assert before <= datetime.fromisoformat(file.fetched) <= datetime.now(timezone.utc)
    assert file.content == len(BODY)
    assert leftovers(tmp_path) == []


def test_a_file_comes_from_the_download_service_by_its_name_alone(server, tmp_path):
    server.put(f"Download/file?uri=mast:PS1/product/{NAME}", BODY)
    base = f"{server.url}/Download/file?uri=mast:PS1/product/"
    assert fetch(PATH, [base], tmp_path, QUICK, unseal).path.read_bytes() == BODY


def test_a_file_is_copied_out_of_a_folder_and_the_original_stays(tmp_path):
    original = tmp_path / "mirror" / PATH
    original.parent.mkdir(parents=True)
    original.write_bytes(BODY)
    os.utime(original, (1_424_417_641, 1_424_417_641))
    file = fetch(PATH, [str(tmp_path / "mirror")], tmp_path / "data", QUICK, unseal)
    assert original.read_bytes() == file.path.read_bytes() == BODY
    assert (file.url, file.last_modified) == (original.as_uri(), LAST_MODIFIED)


BAD_ANSWERS = {
    "truncated": Answer(sent=20_000, end="close"),
    "truncated_without_length": Answer(sent=20_000, end="close", declared=None),
    "truncated_in_chunks": Answer(sent=20_000, end="close", chunked=True),
    "reset_before_the_answer": Answer(end="reset"),
    "reset_in_the_body": Answer(sent=20_000, end="reset"),
    "stalled_before_the_body": Answer(sent=0, end="stall"),
    "stalled_in_the_body": Answer(sent=20_000, end="stall"),
    "length_too_large": Answer(declared=+17, end="close"),
    "length_too_small": Answer(declared=-17, end="close"),
    "empty": Answer(body=b""),
    "html": Answer(body=HTML, headers={"Content-Type": "text/html"}),
    "xml": Answer(body=XML),
    "json_in_chunks": Answer(body=b'{"error": "try later"}', chunked=True),
    "corrupt": Answer(body=BODY[:5000] + b"?" + BODY[5001:]),
    "partial_unasked": Answer(206, {"Content-Range": "bytes 0-99/100"}),
    **{f"status_{code}": status(code) for code in (408, 416, 425, 429, 500, 502, 503, 504)},
    "redirect_to_itself": status(302, Location=f"/{PATH}"),
}


@pytest.mark.parametrize("bad", BAD_ANSWERS.values(), ids=BAD_ANSWERS)
def test_a_bad_answer_is_asked_again_and_nothing_of_it_remains(server, tmp_path, bad):
    server.put(PATH, BODY, bad)
    assert fetch(PATH, [server.url], tmp_path, QUICK, unseal).path.read_bytes() == BODY
    assert leftovers(tmp_path) == []


ENDLESS = {name: bad for name, bad in BAD_ANSWERS.items() if "redirect" not in name}


@pytest.mark.parametrize("bad", ENDLESS.values(), ids=ENDLESS)
def test_a_server_that_stays_bad_is_given_up_after_a_bounded_number_of_tries(server, tmp_path, bad):
    server.put(PATH, BODY, always=bad._replace(ranges=False))
    with pytest.raises(ArchiveUnavailable, match=f"{server.url}/{PATH}"):
        fetch(PATH, [server.url], tmp_path, QUICK, unseal)
    assert 2 <= len(server.asked) <= QUICK.tries
    assert not (tmp_path / NAME).exists()
    assert set(leftovers(tmp_path)) <= {"quarantine"}


def test_a_transfer_that_only_drips_is_broken_off(server, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "PIECE", 64)
    server.put(PATH, BODY, always=Answer(sent=3000, end="drip"))
    with pytest.raises(ArchiveUnavailable, match="bytes/s came in"):
        fetch(PATH, [server.url], tmp_path, QUICK._replace(tries=1, slowest=1e5, read_timeout=0.05), unseal)


def test_memory_stays_small_however_long_the_file(server, tmp_path):
    body = sealed(2, 40 << 20)
    server.put(PATH, body)
    tracemalloc.start()
    try:
        fetch(PATH, [server.url], tmp_path, QUICK._replace(read_timeout=5), os.path.getsize)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


# --- retries and mirrors --------------------------------------------------------------------------------------


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
    assert f"{mirror.url}/{PATH}: the answer is no FITS file" in str(caught.value)


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


# --- absent is not failed -------------------------------------------------------------------------------------


@pytest.mark.parametrize("codes", [(404, 404), (410, 404), (410, 410)])
def test_gone_from_every_mirror_means_that_ps1_has_no_such_file(server, mirror, tmp_path, codes):
    server.put(PATH, BODY, always=status(codes[0]))
    mirror.put(PATH, BODY, always=status(codes[1]))
    assert fetch(PATH, [server.url, mirror.url], tmp_path, QUICK, unseal) is None
    assert len(server.asked) == len(mirror.asked) == 1
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("code", [403, 429, 500, 503])
@pytest.mark.parametrize("order", [1, -1])
def test_gone_from_one_mirror_while_another_fails_says_nothing_about_ps1(server, mirror, tmp_path, code, order):
    mirror.put(PATH, BODY, always=status(code))
    with pytest.raises(ArchiveUnavailable, match=f"status {code}"):
        fetch(PATH, [server.url, mirror.url][::order], tmp_path, QUICK, unseal)


def test_a_file_that_one_mirror_lacks_comes_from_the_next(server, mirror, tmp_path):
    mirror.put(PATH, BODY)
    (tmp_path / "folder" / "rings.v3.skycell").mkdir(parents=True)
    bases = [str(tmp_path / "folder"), server.url, mirror.url]
    assert fetch(PATH, bases, tmp_path, QUICK, unseal).url.startswith(mirror.url)


def test_a_folder_without_the_file_says_absent_but_a_disk_that_is_not_mounted_says_nothing(tmp_path):
    mirror = tmp_path / "mirror"
    with pytest.raises(ArchiveUnavailable, match="there is no folder .*mirror/rings.v3.skycell; not mounted"):
        fetch(PATH, [str(mirror)], tmp_path / "data", QUICK, unseal)
    mirror.mkdir()  # an empty mount point
    with pytest.raises(ArchiveUnavailable, match="not mounted"):
        fetch(PATH, [str(mirror)], tmp_path / "data", QUICK, unseal)
    (mirror / "rings.v3.skycell").mkdir()
    assert fetch(PATH, [str(mirror)], tmp_path / "data", QUICK, unseal) is None


# --- pages in place of files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [HTML, b"\n\n  " + HTML, XML])
def test_the_first_bytes_of_a_page_served_as_a_file_are_in_the_log(server, tmp_path, caplog, page):
    server.put(PATH, BODY, Answer(body=page))
    fetch(PATH, [server.url], tmp_path, QUICK, unseal)
    assert repr(page[:60])[:-1] in caplog.text
    assert server.url in caplog.text


@pytest.mark.parametrize(
    "bad",
    [Answer(body=b""), Answer(body=BODY[:2000]), Answer(body=b"SIMPLE as that" * 999, chunked=True, piece=3)],
    ids=["empty", "less than a FITS record", "other words in tiny chunks"],
)
def test_what_cannot_be_fits_is_not_shown_to_the_reader_nor_completed(server, tmp_path, bad):
    server.put(PATH, BODY, bad)
    shown = []
    fetch(PATH, [server.url], tmp_path, QUICK, lambda path: shown.append(path.read_bytes()))
    assert shown == [BODY]
    assert ranges_asked(server) == [None, None]


# --- resumed transfers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["close", "reset", "stall"])
def test_an_interrupted_transfer_goes_on_where_it_ended(server, tmp_path, monkeypatch, end):
    monkeypatch.setattr(transfer, "PIECE", 1000)  # what is lost is at most the piece that was under way
    server.put(PATH, BODY, Answer(sent=20_000, end=end))
    file = fetch(PATH, [server.url], tmp_path, QUICK, unseal)
    assert file.path.read_bytes() == BODY
    assert file.sha256 == hashlib.sha256(BODY).hexdigest()
    (_, first), (_, second) = server.asked
    assert "Range" not in first
    start = int(second["Range"].removeprefix("bytes=").removesuffix("-"))
    # A reset may throw away what the client's kernel still held.
    assert start == 20_000 or (end == "reset" and 0 < start <= 20_000)
    assert second["If-Range"] == etag_of(BODY)


def test_a_transfer_interrupted_twice_goes_on_twice(server, tmp_path):
    server.put(PATH, BODY, Answer(sent=20_000, end="close"), Answer(sent=4_000, end="close"))
    assert fetch(PATH, [server.url], tmp_path, QUICK, unseal).path.read_bytes() == BODY
    assert ranges_asked(server) == [None, "bytes=20000-", "bytes=24000-"]


def test_without_an_etag_a_transfer_is_resumed_by_its_date(server, tmp_path):
    server.put(PATH, BODY, Answer(sent=20_000, end="close", etag=False), Answer(etag=False))
    assert fetch(PATH, [server.url], tmp_path, QUICK, unseal).path.read_bytes() == BODY
    assert server.asked[1][1]["If-Range"] == LAST_MODIFIED


CUT = Answer(sent=20_000, end="close")


@pytest.mark.parametrize(
    "first",
    [CUT._replace(headers={"Accept-Ranges": "none"}, ranges=False), CUT._replace(etag=False, modified=False)],
    ids=["ranges refused", "nothing to know it by"],
)
def test_a_transfer_that_cannot_be_resumed_safely_starts_over(server, tmp_path, first):
    server.put(PATH, BODY, first)
    assert fetch(PATH, [server.url], tmp_path, QUICK, unseal).path.read_bytes() == BODY
    assert ranges_asked(server) == [None, None]


def test_a_server_that_ignores_ranges_gives_the_file_from_its_start(server, tmp_path):
    server.put(PATH, BODY, Answer(sent=20_000, end="close"), Answer(ranges=False))
    assert fetch(PATH, [server.url], tmp_path, QUICK, unseal).path.read_bytes() == BODY


def changed(body, answer=HONEST):
    """Make a step at which the server exchanges the file."""

    def step(server):
        server.files[f"/{PATH}"] = body
        return answer

    return step


def test_a_file_that_changes_between_two_ranges_is_fetched_anew(server, tmp_path):
    server.put(PATH, sealed(4), Answer(sent=20_000, end="close"), changed(BODY))
    file = fetch(PATH, [server.url], tmp_path, QUICK, unseal)
    assert file.path.read_bytes() == BODY
    assert file.etag == etag_of(BODY)


def other_version(**changes):
    """Make the answer of a server that ignores If-Range."""
    return changed(BODY, Answer(if_range=False, **changes))


@pytest.mark.parametrize(
    "second",
    [
        other_version(),
        other_version(etag=False, modified=False, headers={"Last-Modified": "Sun, 22 Nov 2026 12:00:00 GMT"}),
        changed(sealed(4), Answer(shift=100)),
    ],
    ids=["another ETag", "another date", "another place"],
)
def test_a_range_that_does_not_continue_the_file_is_found_out_by_its_head(server, tmp_path, second):
    server.put(PATH, sealed(4), Answer(sent=20_000, end="close"), second)
    file = fetch(PATH, [server.url], tmp_path, QUICK, os.path.getsize)  # a reader that would not notice
    assert file.path.read_bytes() == server.files[f"/{PATH}"]
    assert ranges_asked(server) == [None, "bytes=20000-", None]


def test_a_range_that_ends_early_is_followed_by_the_next(server, tmp_path):
    server.put(PATH, BODY, Answer(sent=20_000, end="close"), Answer(at_most=5_000))
    fetch(PATH, [server.url], tmp_path, QUICK, os.path.getsize)
    assert (tmp_path / NAME).read_bytes() == BODY
    assert ranges_asked(server) == [None, "bytes=20000-", "bytes=25000-"]


def test_a_weak_etag_is_no_ground_to_resume_on(server, tmp_path):
    weak = Answer(sent=20_000, end="close", etag=False, headers={"ETag": f"W/{etag_of(BODY)}"})
    server.put(PATH, BODY, weak, weak._replace(sent=None))
    assert fetch(PATH, [server.url], tmp_path, QUICK, unseal).path.read_bytes() == BODY
    assert server.asked[1][1]["If-Range"] == LAST_MODIFIED


@pytest.mark.parametrize("tries", [2, 3])
def test_a_resumed_file_that_fails_its_check_is_fetched_once_more_from_zero(server, tmp_path, tries):
    # Nothing tells the second half from that of another version, and the tries may be used up.
    sly = Answer(if_range=False, etag=False)
    server.put(PATH, sealed(4), sly._replace(sent=20_000, end="close"), changed(BODY, sly))
    file = fetch(PATH, [server.url], tmp_path, QUICK._replace(tries=tries), unseal)
    assert file.path.read_bytes() == BODY
    assert ranges_asked(server) == [None, "bytes=20000-", None]
    assert leftovers(tmp_path) == []


def test_a_file_that_shrank_between_two_ranges_is_fetched_anew(server, tmp_path):
    small = sealed(5, 10_000)
    server.put(PATH, BODY, Answer(sent=20_000, end="close"), changed(small, Answer(if_range=False)))
    assert fetch(PATH, [server.url], tmp_path, QUICK, unseal).path.read_bytes() == small


# --- quarantine -----------------------------------------------------------------------------------------------


def test_a_file_that_fails_every_try_goes_to_quarantine_with_its_reason(server, mirror, tmp_path):
    damaged = BODY[:5000] + b"?" + BODY[5001:]
    server.put(PATH, damaged)
    mirror.put(PATH, BODY, always=status(500))
    with pytest.raises(ArchiveUnavailable, match="quarantine"):
        fetch(PATH, [server.url, mirror.url], tmp_path, QUICK, unseal)
    kept = tmp_path / "quarantine" / NAME
    assert kept.read_bytes() == damaged
    reason = kept.with_name(f"{NAME}.reason.txt").read_text()
    assert f"the file fails its check: {NAME}: the seal is broken" in reason
    assert f"{server.url}/{PATH}" in reason
    assert not (tmp_path / NAME).exists()
    assert leftovers(tmp_path) == ["quarantine"]


def test_the_same_bad_bytes_twice_send_us_to_the_next_mirror(server, mirror, tmp_path):
    server.put(PATH, BODY[:-1] + b"?")
    mirror.put(PATH, BODY)
    fetch(PATH, [server.url, mirror.url], tmp_path, QUICK._replace(tries=10), unseal)
    assert len(server.asked) == 2
    assert leftovers(tmp_path) == []


def test_a_damaged_file_of_a_folder_is_quarantined_as_a_copy(tmp_path):
    original = tmp_path / "mirror" / PATH
    original.parent.mkdir(parents=True)
    original.write_bytes(BODY[:20_000])
    with pytest.raises(ArchiveUnavailable, match="the seal is broken"):
        fetch(PATH, [str(tmp_path / "mirror")], tmp_path / "data", QUICK, unseal)
    assert original.read_bytes() == (tmp_path / "data" / "quarantine" / NAME).read_bytes() == BODY[:20_000]


# --- whole, but of no use -------------------------------------------------------------------------------------


def useless(path):
    unseal(path)
    raise NoFlux("header has EXPTIME = 0.0")


def useless_below(size):
    return lambda path: useless(path) if os.path.getsize(path) < size else unseal(path)


@pytest.mark.parametrize("other", [status(404), HONEST], ids=["lacks it", "has the same"])
def test_a_whole_file_that_gives_no_flux_is_told_with_url_and_reason_once_all_mirrors_were_asked(
    server, mirror, tmp_path, other
):
    server.put(PATH, BODY)
    mirror.put(PATH, BODY, always=other)
    told = fetch(PATH, [server.url, mirror.url], tmp_path, QUICK, useless)
    last = server if other.status == 404 else mirror
    assert told == Unusable(f"{last.url}/{PATH}", "header has EXPTIME = 0.0")
    assert (len(server.asked), len(mirror.asked)) == (2, 1 if other.status == 404 else 2)
    assert (tmp_path / "quarantine" / NAME).read_bytes() == BODY
    assert "header has EXPTIME = 0.0" in (tmp_path / "quarantine" / f"{NAME}.reason.txt").read_text()
    assert leftovers(tmp_path) == ["quarantine"]


def test_a_mirror_whose_file_gives_flux_is_preferred_to_one_whose_file_does_not(server, mirror, tmp_path):
    server.put(PATH, sealed(3, 10_000))
    mirror.put(PATH, BODY)
    assert fetch(PATH, [server.url, mirror.url], tmp_path, QUICK, useless_below(20_000)).url.startswith(mirror.url)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("order", [1, -1])
def test_a_useless_file_is_no_fact_while_another_mirror_fails(server, mirror, tmp_path, order):
    server.put(PATH, BODY)
    mirror.put(PATH, BODY, always=status(500))
    with pytest.raises(ArchiveUnavailable, match="EXPTIME = 0.0.*quarantine"):
        fetch(PATH, [server.url, mirror.url][::order], tmp_path, QUICK, useless)


def test_a_damaged_file_is_no_fact_though_another_copy_is_whole_and_useless(server, tmp_path):
    server.put(PATH, BODY, HONEST, always=Answer(body=BODY[:-1] + b"?"))
    with pytest.raises(ArchiveUnavailable, match="the seal is broken"):
        fetch(PATH, [server.url], tmp_path, QUICK, useless)


def test_the_files_behind_one_of_no_use_come_all_the_same(server, tmp_path):
    for path in FILES.values():
        server.put(path, sealed(3, 10_000) if path == FILES["i_image"] else BODY)
    came = dict(archive.fetch_all(FILES, [server.url], tmp_path, QUICK, keyed(useless_below(20_000))))
    assert [type(file) for file in came.values()] == [archive.FetchedFile, Unusable, archive.FetchedFile]
    assert server.connections == 1


# --- policy -----------------------------------------------------------------------------------------------


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


# --- many files, one ahead ------------------------------------------------------------------------------------


def test_files_come_in_order_and_an_absent_one_as_none(server, tmp_path):
    bodies = {"r_image": sealed(6), "z_image": sealed(7)}
    for key, body in bodies.items():
        server.put(FILES[key], body)
    came = {}
    for key, file in archive.fetch_all(FILES, [server.url], tmp_path, QUICK, keyed(unseal)):
        came[key] = file and file.path.read_bytes()
        assert file is None or file.sha256 == hashlib.sha256(bodies[key]).hexdigest()
    assert list(came) == list(FILES)
    assert came == {**bodies, "i_image": None}
    assert leftovers(tmp_path) == []


def test_no_files_are_fetched_where_none_are_asked_for(tmp_path):
    assert list(archive.fetch_all({}, ["https://ps1images.stsci.edu"], tmp_path, QUICK, keyed(unseal))) == []


def was_asked_for(server, path):
    """Tell whether a file was asked for, within 5 s."""
    deadline = time.monotonic() + 5
    while f"/{path}" not in [asked for asked, _ in server.asked] and time.monotonic() < deadline:
        server.progress.wait(0.05)
        server.progress.clear()
    return f"/{path}" in [asked for asked, _ in server.asked]


def test_the_next_file_and_no_more_is_fetched_while_one_is_being_read(server, tmp_path):
    for path in FILES.values():
        server.put(path, BODY)
    came = archive.fetch_all(
        FILES, [server.url], tmp_path, QUICK, lambda _, path: was_asked_for(server, FILES["i_image"])
    )
    key, file = next(came)
    assert (key, file.content) == ("r_image", True)
    assert f"/{FILES['z_image']}" not in [path for path, _ in server.asked]
    came.close()


def reader_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("archive")]


def test_closing_half_way_ends_the_thread_and_leaves_no_temporary(server, tmp_path):
    server.put(FILES["r_image"], BODY)
    server.put(FILES["i_image"], BODY, always=Answer(sent=20_000, end="stall"))
    came = archive.fetch_all(
        FILES, [server.url], tmp_path, QUICK._replace(first_wait=60, longest_wait=60), keyed(unseal)
    )
    next(came)
    assert len(leftovers(tmp_path)) >= 1
    assert len(reader_threads()) == 1
    came.close()
    assert leftovers(tmp_path) == []
    assert reader_threads() == []


def test_closing_does_not_wait_for_the_end_of_a_long_transfer(server, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "PIECE", 10)
    server.put(FILES["r_image"], BODY)
    server.put(FILES["i_image"], BODY, Answer(sent=len(BODY) - 300, end="drip"))
    came = archive.fetch_all(FILES, [server.url], tmp_path, QUICK, keyed(unseal))
    next(came)
    assert was_asked_for(server, FILES["i_image"])
    came.close()
    assert server.dripped < 300
    assert reader_threads() == []


def test_an_error_of_the_caller_ends_the_thread_and_leaves_no_temporary(server, tmp_path):
    for path in FILES.values():
        server.put(path, BODY)
    came = archive.fetch_all(FILES, [server.url], tmp_path, QUICK, keyed(lambda path: 1 / 0))
    with pytest.raises(ZeroDivisionError):
        next(came)
    assert leftovers(tmp_path) == []
    assert reader_threads() == []


def test_a_file_that_cannot_be_had_ends_the_rest(server, tmp_path):
    server.put(FILES["r_image"], BODY)
    server.put(FILES["i_image"], BODY, always=status(500))
    server.put(FILES["z_image"], BODY)
    came = archive.fetch_all(FILES, [server.url], tmp_path, QUICK, keyed(unseal))
    assert next(came)[0] == "r_image"
    with pytest.raises(ArchiveUnavailable, match="status 500"):
        next(came)
    assert leftovers(tmp_path) == []
    assert reader_threads() == []


def test_a_refused_file_is_fetched_again_behind_the_one_under_way(server, tmp_path):
    for path in FILES.values():
        server.put(path, BODY, Answer(body=BODY[:-1] + b"?"))
    came = dict(archive.fetch_all(FILES, [server.url], tmp_path, QUICK, keyed(unseal)))
    assert {file.content for file in came.values()} == {len(BODY)}
    assert server.connections == 1
    assert leftovers(tmp_path) == []


# --- disks and deaths -----------------------------------------------------------------------------------------


class FullDisk:
    """A file on a disk with `room` bytes left."""

    def __init__(self, file, room, error):
        self.file, self.room, self.error = file, room, error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def write(self, data):
        self.room -= len(data)
        if self.room < 0:
            raise OSError(self.error, os.strerror(self.error))
        return self.file.write(data)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_stops_us_and_keeps_only_what_is_finished(server, tmp_path, monkeypatch, code):
    for path in FILES.values():
        server.put(path, BODY)
    fetch(PATH, [server.url], tmp_path, QUICK, unseal)
    monkeypatch.setattr(transfer, "open", lambda path, mode: FullDisk(open(path, mode), 10_000, code), raising=False)
    with pytest.raises(OSError, match=os.strerror(code)) as caught:
        fetch(FILES["i_image"], [server.url], tmp_path, QUICK, unseal)
    assert caught.value.errno == code
    with pytest.raises(OSError, match=os.strerror(code)):
        list(archive.fetch_all(FILES, [server.url], tmp_path, QUICK, keyed(unseal)))
    assert len(server.asked) == 3  # trying again fills no disk
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    assert (tmp_path / NAME).read_bytes() == BODY


@contextlib.contextmanager
def unprivileged():
    """Be nobody for a while if we are root, who may write everywhere."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_read_only_folder_is_named_in_the_error_and_stays_as_it_is(server):
    server.put(PATH, BODY)
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        with unprivileged(), pytest.raises(PermissionError, match=folder):
            fetch(PATH, [server.url], folder, QUICK, unseal)
        assert os.listdir(folder) == []


def test_an_interruption_while_the_thread_is_being_started_stays_an_interruption(server, tmp_path, monkeypatch):
    server.put(FILES["r_image"], BODY, always=Answer(sent=20_000, end="stall"))
    start = threading.Thread.start

    def start_and_interrupt(thread):
        start(thread)
        if thread.name.startswith("archive"):
            while not leftovers(tmp_path):  # it is at work on the first body
                time.sleep(0.001)
            raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", start_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        next(archive.fetch_all(FILES, [server.url], tmp_path, QUICK, keyed(unseal)))
    assert leftovers(tmp_path) == []


PROGRAM = textwrap.dedent("""
    import os, sys, pathlib
    from syndiff_tasks.io import archive
    base, folder = sys.argv[1:]
    polite = archive.RetryPolicy(3, 5.0, 20.0, 0.001, 0.002)
    path = archive.stack_files("skycell.2180.097", "r", ["image"])["r_image"]
    for _, file in archive.fetch_all({"it": path}, [base], folder, polite, lambda _, body: body.read_bytes()):
        os.replace(file.path, pathlib.Path(folder) / path.rpartition("/")[2])
""")


def start(server, folder):
    return subprocess.Popen([sys.executable, "-c", PROGRAM, server.url, str(folder)])


def test_a_killed_process_leaves_hidden_files_only_and_the_next_run_finishes(server, tmp_path):
    server.put(PATH, BODY, Answer(sent=20_000, end="stall"))
    process = start(server, tmp_path)
    deadline = time.monotonic() + 30
    while not list(tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.01)
    alive = disk.sweep(tmp_path, days=7)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(f".fetching+{socket.gethostname()}+{process.pid}+")
    assert alive == []  # what a living process writes is not swept
    assert disk.sweep(tmp_path, days=7) == [left]
    assert list(tmp_path.iterdir()) == []
    assert fetch(PATH, [server.url], tmp_path, QUICK, unseal).path.read_bytes() == BODY


def test_two_processes_after_one_file_both_end_well_and_the_file_is_the_same(server, tmp_path):
    body = sealed(8, 1 << 20)
    server.put(PATH, body, Answer(sent=1 << 19, end="close"))
    processes = [start(server, tmp_path) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    assert (tmp_path / NAME).read_bytes() == body


def test_temporaries_of_other_hosts_are_swept_only_when_old(tmp_path):
    names = [".fetching+elsewhere+1+0a+new.fits", ".fetching+elsewhere+1+0b+old.fits"]
    names.append(f".fetching+{socket.gethostname()}+{os.getpid()}+0c+mine.fits")
    for name in [*names, NAME]:
        (tmp_path / name).write_bytes(b"")
    eight_days_ago = time.time() - 8 * 86400
    for name in (names[1], NAME):
        os.utime(tmp_path / name, (eight_days_ago, eight_days_ago))
    assert disk.sweep(tmp_path, days=7) == [tmp_path / names[1]]
    assert {path.name for path in tmp_path.iterdir()} == {names[0], names[2], NAME}
    assert disk.sweep(tmp_path / "missing", days=7) == []


# --- space ----------------------------------------------------------------------------------------------------


def test_space_needed_is_that_of_a_ccd_as_measured():
    # 911-1,270 skycells of r, i, z, y images: about 260 GB (docs/facts.md §4).
    images = disk.needed_bytes(950, "rizy", ["image"], at_once=8, keep_raw=True)
    assert images == pytest.approx(262e9, rel=0.03)


def test_a_ccd_fits_on_a_laptop_when_raw_skycells_are_not_kept():
    arguments = dict(bands="rizy", kinds=["image", "mask", "wt"], at_once=4, combined=20_000_000)
    kept = disk.needed_bytes(1000, keep_raw=True, **arguments)
    gone = disk.needed_bytes(1000, keep_raw=False, **arguments)
    assert gone < 25e9 < 500e9 < kept
    assert disk.needed_bytes(0, keep_raw=True, **arguments) == 0


def test_a_disk_too_small_is_told_before_the_run(tmp_path):
    disk.demand_space(tmp_path / "not" / "yet", 1)
    with pytest.raises(ValueError, match=r"GB free but this run needs about 1000000000\.0 GB.*keep_raw = false"):
        disk.demand_space(tmp_path / "not" / "yet", 10**18)


# --- what a file says of itself -------------------------------------------------------------------------------

# Read off the header of skycell.2180.097, y band (../shared/data).
REAL = {
    "NAXIS1": 6320,
    "NAXIS2": 6284,
    "CRVAL1": 121.764701843296,
    "CRVAL2": 41.9999999999986,
    "CRPIX1": -11440.5,
    "CRPIX2": -22976.0,
    "CDELT1": 6.94444461259988e-05,
    "CDELT2": 6.94444461259988e-05,
    "PC001001": -1.0,
    "PC001002": 0.0,
    "PC002001": 0.0,
    "PC002002": 1.0,
    "EXPTIME": 500.0,
    "BSOFTEN": 413.7191922843,
    "BOFFSET": 17.32926559448,
    "BZERO": 3.632996916771,
    "BSCALE": 1.908685283002e-04,
}
# What the ring table says of it: ring at 42 deg of 68 cells from 2157 on; column 7, row 9.
RING = {
    "NAXIS1": 6320,
    "NAXIS2": 6284,
    "CRVAL1": float(np.float32(2180 - 2157) * np.float32(360 / 68)),
    "CRVAL2": 42.0,
    "CRPIX1": 239.5 + (5 - 7) * (6320 - 480),
    "CRPIX2": 240.0 + (5 - 9) * (6284 - 480),
    "CDELT1": float(np.float32(0.25 / 3600)),
    "CDELT2": float(np.float32(0.25 / 3600)),
    "PC1_1": -1.0,
    "PC1_2": 0.0,
    "PC2_1": 0.0,
    "PC2_2": 1.0,
    "LONPOLE": 180.0,  # which no real stack has
    "EQUINOX": 2000.0,
}


@pytest.mark.parametrize(("kind", "dtype"), [("image", "i2"), ("wt", "f4"), ("mask", "u2")])
def test_a_real_header_agrees_with_the_ring_table(kind, dtype):
    keywords = REAL if kind != "mask" else REAL | {"BSCALE": 1.0, "BZERO": 32768.0}
    check_keywords(keywords, RING, kind, dtype)


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"NAXIS1": 6319, "EXPTIME": 0.0}, "NAXIS1 = 6319"),
        ({"CRVAL1": 121.764703}, "CRVAL1"),
        ({"CRVAL2": 42.0000011}, "CRVAL2"),
        ({"CRVAL2": float("nan")}, "CRVAL2"),
        ({"CRPIX1": -5600.5}, "CRPIX1"),
        ({"CRPIX2": -22976.0011}, "CRPIX2"),
        ({"CDELT1": 1.0}, "CDELT1"),
        ({"PC001001": 1.0}, "PC1_1"),
        ({"CRPIX1": None}, "no CRPIX1"),
    ],
)
def test_a_header_of_something_else_is_refused(changed, complaint):
    keywords = {name: value for name, value in (REAL | changed).items() if value is not None}
    with pytest.raises(ValueError, match=complaint) as refused:
        check_keywords(keywords, RING, "image", "i2")
    assert not isinstance(refused.value, NoFlux)


@pytest.mark.parametrize("kind", ["image", "wt"])
@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"EXPTIME": None}, "EXPTIME = None"),
        ({"EXPTIME": 0.0}, "EXPTIME = 0.0"),
        ({"EXPTIME": -640.0}, "EXPTIME = -640.0"),
        ({"EXPTIME": "NaN"}, "EXPTIME = NaN"),
        ({"BSOFTEN": -1.0}, "BSOFTEN = -1.0"),
        ({"BOFFSET": float("inf")}, "BOFFSET = inf"),
        ({"BOFFSET": float("nan")}, "BOFFSET = nan"),
        ({"FPA.ZP": float("nan")}, "FPA.ZP = nan"),
    ],
)
def test_a_header_whose_numbers_give_no_flux_is_told_apart_from_one_of_something_else(kind, changed, complaint):
    keywords = {name: value for name, value in (REAL | changed).items() if value is not None}
    with pytest.raises(NoFlux, match=complaint):
        check_keywords(keywords, RING, kind, "i2")


def test_right_ascension_has_no_seam():
    check_keywords(REAL | {"CRVAL1": 359.9999999999}, RING | {"CRVAL1": 0.0}, "image", "i2")


def test_half_a_compression_is_refused_and_none_is_legal():
    linear = {name: value for name, value in REAL.items() if name not in ("BSOFTEN", "BOFFSET")}
    check_keywords(linear, RING, "wt", "f4")
    with pytest.raises(ValueError, match="BSOFTEN without its partner"):
        check_keywords(linear | {"BSOFTEN": 413.7}, RING, "image", "i2")


@pytest.mark.parametrize("nothing", [float("nan"), "NaN"])
def test_an_image_without_a_good_pixel_is_legal(nothing):
    check_keywords(REAL | {"BSOFTEN": nothing, "BOFFSET": nothing}, RING, "image", "i2")


@pytest.mark.parametrize("dtype", ["u1", "i1", "f4"])
def test_a_mask_that_cannot_hold_sixteen_bits_is_refused(dtype):
    with pytest.raises(ValueError, match="16 bits"):
        check_keywords(REAL | {"BSCALE": 1.0}, RING, "mask", dtype)


def test_a_mask_that_was_scaled_is_refused():
    with pytest.raises(ValueError, match="BSCALE"):
        check_keywords(REAL, RING, "mask", "i2")


def test_a_mask_need_not_have_a_position_but_may_not_have_a_wrong_one():
    bare = {"NAXIS1": 6320, "NAXIS2": 6284}
    check_keywords(bare, RING, "mask", "u2")
    with pytest.raises(ValueError, match="CRVAL2"):
        check_keywords(bare | {"CRVAL2": 38.0}, RING, "mask", "u2")
