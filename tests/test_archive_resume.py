import hashlib
import os

import pytest
from bad_server import HONEST, LAST_MODIFIED, Answer, etag_of
from fetching import BODY, NAME, PATH, QUICK, fetch, leftovers, ranges_asked, sealed, unseal


@pytest.mark.parametrize("end", ["close", "reset", "stall"])
def test_an_interrupted_transfer_goes_on_where_it_ended(server, tmp_path, end):
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
