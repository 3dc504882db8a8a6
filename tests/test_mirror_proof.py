"""When "not found" means that PS1 has no such file, and when that an address is wrong."""

import pytest
from fetching import BODY, QUICK, keyed, unseal

from syndiff_tasks.io import archive
from syndiff_tasks.io.archive import UnprovenArchive
from syndiff_tasks.io.mirror_proof import KNOWN_FILE

FILES = archive.stack_files("skycell.2611.044", "riz", ["image"])
NOTHING = dict.fromkeys(FILES)


def fetch_all(bases, folder):
    """Return what has come of each file."""
    fetched = archive.fetch_all(FILES, bases, folder, QUICK, keyed(unseal))
    return {key: file and file.content for key, file in fetched}


def test_an_address_that_has_nothing_is_named_as_wrong(server, tmp_path):
    with pytest.raises(UnprovenArchive, match=f"{server.url} has not given any file yet.*is the address wrong"):
        fetch_all([server.url], tmp_path)


def test_a_page_instead_of_the_known_file_proves_nothing(server, tmp_path):
    server.put(KNOWN_FILE, b"<html>Welcome</html>")
    with pytest.raises(UnprovenArchive):
        fetch_all([server.url], tmp_path)


def test_a_skycell_is_a_hole_in_the_survey_if_the_archive_has_another(server, tmp_path):
    server.put(KNOWN_FILE, BODY)
    assert fetch_all([server.url], tmp_path) == NOTHING
    asked = [path for path, _ in server.asked]
    assert asked.count(f"/{KNOWN_FILE}") == 1
    fetch_all([server.url], tmp_path)
    assert [path for path, _ in server.asked].count(f"/{KNOWN_FILE}") == 1


def test_a_whole_file_proves_its_base_for_this_run_and_later_ones(server, tmp_path):
    server.put(FILES["z_image"], BODY)
    assert fetch_all([server.url], tmp_path) == NOTHING | {"z_image": len(BODY)}
    server.files.clear()
    assert fetch_all([server.url], tmp_path) == NOTHING


def test_every_base_that_denies_a_file_must_be_proven(server, mirror, tmp_path):
    server.put(KNOWN_FILE, BODY)
    with pytest.raises(UnprovenArchive, match=f"{mirror.url} has not given any file yet"):
        fetch_all([server.url, mirror.url], tmp_path)


def test_a_folder_is_proven_by_any_stack_file_in_it(tmp_path):
    (tmp_path / "mirror" / "rings.v3.skycell").mkdir(parents=True)
    with pytest.raises(UnprovenArchive, match="mirror has not given any file yet"):
        fetch_all([str(tmp_path / "mirror")], tmp_path / "incoming")
    file = tmp_path / "mirror" / KNOWN_FILE
    file.parent.mkdir(parents=True)
    file.write_bytes(BODY)
    assert fetch_all([str(tmp_path / "mirror")], tmp_path / "incoming") == NOTHING
