import contextlib
import gzip
import hashlib
import os
import socket
import threading
import time
import tracemalloc
from datetime import datetime, timezone
from pathlib import Path

import pytest
from bad_server import HTML, LAST_MODIFIED, XML, Answer, etag_of, status
from fetching import BODY, FILES, NAME, PATH, QUICK, fetch, keyed, leftovers, ranges_asked, sealed, unseal

from syndiff_tasks.io import archive
from syndiff_tasks.io.archive import ArchiveUnavailable

# --- names ------------------------------------------------------------------------------------------------------------


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
        (("skycell.0812.050", "u", ["image"]), "'u' is not a PS1 filter"),
        (("skycell.0812.050", "r", ["psf"]), "'psf' is not a stack product"),
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


# --- a file that is whole ---------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("chunked", [False, True])
def test_a_transfer_that_only_drips_is_broken_off(server, tmp_path, chunked):
    server.put(PATH, BODY, always=Answer(sent=3000, end="drip", chunked=chunked))
    with pytest.raises(ArchiveUnavailable, match="bytes/s arrived"):
        fetch(PATH, [server.url], tmp_path, QUICK._replace(tries=1, slowest=1e5, read_timeout=0.05), unseal)
    assert server.dripped < 1000


def test_an_answer_whose_head_only_drips_is_broken_off(server, tmp_path):
    closing = threading.Event()

    def drip(listening):
        connection, _ = listening.accept()
        with contextlib.suppress(OSError), connection:
            connection.recv(1 << 16)
            for letter in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"a" * 2000:
                connection.send(bytes([letter]))
                if closing.wait(0.02):
                    return

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=drip, args=(listening,), daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(ArchiveUnavailable, match="bytes/s arrived"):
            fetch(PATH, [url], tmp_path, QUICK._replace(tries=1, slowest=1e5, read_timeout=0.05), unseal)
        closing.set()
        thread.join()


def test_memory_stays_small_however_long_the_file(server, tmp_path):
    body = sealed(2, 40 << 20)
    server.put(PATH, body)
    tracemalloc.start()
    try:
        fetch(PATH, [server.url], tmp_path, QUICK._replace(read_timeout=5), os.path.getsize)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


# --- absent is not failed ---------------------------------------------------------------------------------------------


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


def test_403_beside_404_is_explained_and_a_setting_decides(server, mirror, tmp_path):
    mirror.put(PATH, BODY, always=status(403))
    bases = [server.url, mirror.url]
    with pytest.raises(ArchiveUnavailable, match="another mirror answers .*forbidden_is_absent = true"):
        fetch(PATH, bases, tmp_path, QUICK, unseal)
    assert fetch(PATH, bases, tmp_path, QUICK._replace(forbidden_is_absent=True), unseal) is None


def test_403_alone_is_not_explained_by_another_mirror(server, tmp_path):
    server.put(PATH, BODY, always=status(403))
    with pytest.raises(ArchiveUnavailable) as caught:
        fetch(PATH, [server.url], tmp_path, QUICK, unseal)
    assert "another mirror" not in str(caught.value)


def test_a_compressed_body_is_named_and_not_printed(server, tmp_path, caplog):
    server.put(PATH, BODY, always=Answer(body=gzip.compress(BODY)))
    with pytest.raises(ArchiveUnavailable, match="not a FITS file: gzip-compressed") as caught:
        fetch(PATH, [server.url], tmp_path, QUICK, unseal)
    assert "\\x1f" not in f"{caught.value} {caplog.text}"


def test_a_file_that_one_mirror_lacks_comes_from_the_next(server, mirror, tmp_path):
    mirror.put(PATH, BODY)
    (tmp_path / "folder" / "rings.v3.skycell").mkdir(parents=True)
    bases = [str(tmp_path / "folder"), server.url, mirror.url]
    assert fetch(PATH, bases, tmp_path, QUICK, unseal).url.startswith(mirror.url)


def test_a_file_missing_from_a_folder_is_absent_but_an_unmounted_disk_proves_nothing(tmp_path):
    mirror = tmp_path / "mirror"
    with pytest.raises(ArchiveUnavailable, match="the folder .*mirror/rings.v3.skycell does not exist: not mounted"):
        fetch(PATH, [str(mirror)], tmp_path / "data", QUICK, unseal)
    mirror.mkdir()  # an empty mount point
    with pytest.raises(ArchiveUnavailable, match="not mounted"):
        fetch(PATH, [str(mirror)], tmp_path / "data", QUICK, unseal)
    (mirror / "rings.v3.skycell").mkdir()
    assert fetch(PATH, [str(mirror)], tmp_path / "data", QUICK, unseal) is None


# --- pages in place of files ------------------------------------------------------------------------------------------


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


# --- many files, one ahead --------------------------------------------------------------------------------------------


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
    """Return whether a file was asked for, within 5 s."""
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


def test_closing_does_not_wait_for_the_end_of_a_long_transfer(server, tmp_path):
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
