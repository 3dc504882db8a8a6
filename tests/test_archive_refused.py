import os

import pytest
from bad_server import HONEST, Answer, status
from fetching import BODY, FILES, NAME, PATH, QUICK, fetch, keyed, leftovers, sealed, unseal

from syndiff_tasks.io import archive
from syndiff_tasks.io.archive import ArchiveUnavailable, Unusable
from syndiff_tasks.io.stack_header import NoFlux

# --- quarantine -------------------------------------------------------------------------------------------------------


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


# --- whole, but of no use ---------------------------------------------------------------------------------------------


def useless(path):
    unseal(path)
    raise NoFlux("header has EXPTIME = 0.0")


def useless_below(size):
    return lambda path: useless(path) if os.path.getsize(path) < size else unseal(path)


@pytest.mark.parametrize("other", [status(404), HONEST], ids=["lacks it", "has the same"])
def test_a_whole_file_without_flux_is_reported_after_all_mirrors_were_asked(server, mirror, tmp_path, other):
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
