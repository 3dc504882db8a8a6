import contextlib
import errno
import glob
import json
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
from owners import DEAD

from syndiff_tasks import cli, targets
from syndiff_tasks.io.liveness import owner
from syndiff_tasks.manifest import (
    ProductDamaged,
    ProductNotRead,
    manifest_path,
    read_manifest,
    restore,
    temporary_path,
    verify,
    withdraw,
)
from syndiff_tasks.targets import ProductNotWritten, SettingsDiffer, WholeTarget, sweep

REQUESTED = "2026-12-01T00:00:00.000000+00:00"


def write_file(target, text):
    with target.writing() as draft:
        Path(draft.path).write_text(text)


def write_folder(target, files):
    with target.writing() as draft:
        for name, text in files.items():
            path = Path(draft.path) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_product_is_there_once_it_was_written_whole(tmp_path):
    target = WholeTarget(tmp_path / "deep" / "map.fits.gz", {"bin": 4})
    assert not target.exists()
    write_file(target, "whole")
    assert target.exists()
    assert Path(target.path).read_text() == "whole"


def test_a_product_of_another_format_is_refused_by_both_formats_and_the_cure(tmp_path):
    write_file(WholeTarget(tmp_path / "p", {"blur_format": 2, "a": 1}), "old")
    with pytest.raises(SettingsDiffer) as refused:
        WholeTarget(tmp_path / "p", {"blur_format": 3, "a": 2}).exists()
    for part in (str(tmp_path / "p"), "blur_format 2 ", "blur_format 3;", "--overwrite", "--syndiff-data-root"):
        assert part in str(refused.value)


def test_a_failed_writer_leaves_nothing(tmp_path):
    target = WholeTarget(tmp_path / "map.fits", {})
    with pytest.raises(RuntimeError, match="half way"), target.writing() as draft:
        Path(draft.path).write_text("half")
        raise RuntimeError("half way")
    assert not target.exists()
    assert names_in(tmp_path) == []


def test_the_temporary_name_keeps_the_extensions_and_is_hidden(tmp_path):
    temporary = temporary_path(tmp_path / "map.fits.gz")
    assert temporary.name.startswith(".") and temporary.name.endswith(".fits.gz")
    temporary.touch()
    assert not glob.glob(f"{tmp_path}/*")


def test_a_file_without_its_manifest_does_not_exist(tmp_path):
    (tmp_path / "map.fits").write_text("who knows")
    assert not WholeTarget(tmp_path / "map.fits", {}).exists()


@pytest.mark.parametrize("write, content", [(write_file, "x"), (write_folder, {"a/b": "x"})])
def test_other_settings_are_refused_with_both_values_and_the_two_ways_on(tmp_path, write, content):
    write(WholeTarget(tmp_path / "p", {"psf_sigma": 40.0}), content)
    with pytest.raises(SettingsDiffer) as refusal:
        WholeTarget(tmp_path / "p", {"psf_sigma": 53.0}).exists()
    for part in (str(tmp_path / "p"), "psf_sigma", "40.0", "53.0", "--overwrite", "--syndiff-data-root"):
        assert part in str(refusal.value)


def test_overwriting_replaces_a_product_of_other_settings_in_one_step(tmp_path):
    write_folder(WholeTarget(tmp_path / "p", {"sigma": 40}), {"old": "1"})
    again = WholeTarget(tmp_path / "p", {"sigma": 53}, overwrite=REQUESTED)
    assert not again.exists()
    write_folder(again, {"new": "2"})
    assert again.exists()
    assert names_in(tmp_path / "p") == ["manifest.json", "new"]
    assert names_in(tmp_path) == ["p"]


def test_a_request_is_fulfilled_by_whoever_makes_the_product_for_it_or_later(tmp_path):
    write_file(WholeTarget(tmp_path / "p", {}, overwrite=REQUESTED), "1")
    assert WholeTarget(tmp_path / "p", {}, overwrite=REQUESTED).exists()
    later = WholeTarget(tmp_path / "p", {}, overwrite=REQUESTED.replace("2026", "2027"))
    assert not later.exists() and later.outdated
    write_file(later, "2")
    write_file(WholeTarget(tmp_path / "p", {}, overwrite=REQUESTED), "of a slower writer")
    assert (tmp_path / "p").read_text() == "2"


def test_a_product_remade_without_a_request_still_fulfils_the_one_before(tmp_path):
    first = WholeTarget(tmp_path / "p", {}, overwrite=REQUESTED)
    write_file(first, "1")
    with WholeTarget(tmp_path / "p", {}).writing(replace=True) as draft:
        Path(draft.path).write_text("2")
    assert first.exists() and (tmp_path / "p").read_text() == "2"


def test_a_withdrawn_product_is_missing_and_outdates_what_was_made_from_it(tmp_path):
    raw, made = WholeTarget(tmp_path / "raw", {}), tmp_path / "made"
    write_folder(raw, {"a": "1"})
    write_file(WholeTarget(made, {}, {"raw": raw}), "x")
    withdraw(raw.path)
    assert not raw.exists() and not WholeTarget(made, {}, {"raw": WholeTarget(raw.path, {})}).exists()
    restore(raw.path)
    assert raw.exists() and WholeTarget(made, {}, {"raw": WholeTarget(raw.path, {})}).exists()
    restore(raw.path)
    assert verify(raw.path, deep=True) == []


def test_a_product_is_stale_when_an_input_changed_but_not_when_it_is_gone(tmp_path):
    source = WholeTarget(tmp_path / "source", {})
    product = WholeTarget(tmp_path / "product", {}, {"source": source})
    write_file(source, "one")
    write_file(product, "of one")
    assert product.exists()
    Path(source.path).unlink()
    assert product.exists()
    write_file(source, "one")
    assert product.exists()
    Path(source.path).unlink()
    write_file(source, "two")
    assert not product.exists()
    write_file(product, "of two")
    assert product.exists()
    assert Path(product.path).read_text() == "of two"


def test_the_second_of_two_writers_keeps_the_product_of_the_first(tmp_path):
    first, second = (WholeTarget(tmp_path / "p", {"a": 1}) for _ in range(2))
    with second.writing() as late:
        Path(late.path).mkdir()
        (Path(late.path) / "who").write_text("second")
        write_folder(first, {"who": "first"})
    assert (tmp_path / "p" / "who").read_text() == "first"
    assert names_in(tmp_path) == ["p"]


def test_verify_finds_what_is_lost_changed_or_added(tmp_path):
    target = WholeTarget(tmp_path / "p", {})
    write_folder(target, {"c/0": "abcd", "c/1": "efgh", "zarr.json": "{}"})
    assert verify(target.path, deep=True) == []
    (tmp_path / "p" / "c" / "0").unlink()
    (tmp_path / "p" / "c" / "1").write_text("eXgh")
    (tmp_path / "p" / "c" / "2").write_text("?")
    quick, deep = verify(target.path), verify(target.path, deep=True)
    assert len(quick) == 2 and "c/0: is missing" in quick[0] and "c/2: was not published" in quick[1]
    assert len(deep) == 3 and any("c/1: its bytes" in complaint for complaint in deep)


def damaged(manifest, change):
    """Return the text of a manifest in which one thing is another."""
    content = json.loads(manifest)
    if change == "settings":
        content["settings"]["psf_sigma"] = 53.0
    elif change == "digest":
        content["digest"] = "0" * 32
        content.pop("manifest_digest")  # as in the first versions
    elif change == "list":
        content = [content]
    elif change == "key":
        return manifest.replace(b'"notes"', b'"nntes"')
    elif change == "bit":
        return manifest.replace(b'"host"', b'"\xe8ost"')
    return json.dumps(content).encode()


@pytest.mark.parametrize("change", ["settings", "digest", "list", "key", "bit"])
def test_verify_names_a_changed_manifest_and_goes_on(tmp_path, capsys, change):
    for name in ("a", "b", "c"):
        write_folder(WholeTarget(tmp_path / name, {"psf_sigma": 40.0}), {"x": name})
    manifest = tmp_path / "b" / "manifest.json"
    manifest.write_bytes(damaged(manifest.read_bytes(), change))
    (tmp_path / "c" / "x").unlink()
    assert cli.main(["verify", str(tmp_path)]) == 1
    first, second, *others = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{manifest}: not a whole manifest (") and f"delete {tmp_path / 'b'} and run" in first
    assert second == f"{tmp_path / 'c' / 'x'}: is missing" and "3 products, 2 damaged" in others[0]
    with pytest.raises(ProductDamaged, match=str(manifest)):
        WholeTarget(tmp_path / "b", {"psf_sigma": 53.0}).exists()


def test_a_manifest_of_the_first_versions_has_no_digest_of_its_own_and_is_read(tmp_path):
    write_file(WholeTarget(tmp_path / "p", {"bin": 4}), "x")
    manifest = json.loads(manifest_path(tmp_path / "p").read_text())
    del manifest["manifest_digest"]
    manifest_path(tmp_path / "p").write_text(json.dumps(manifest))
    assert read_manifest(tmp_path / "p") == manifest and verify(tmp_path / "p", deep=True) == []


def test_every_flipped_bit_of_a_manifest_is_found_or_changes_nothing(tmp_path):
    write_file(WholeTarget(tmp_path / "p", {"bin": 4, "name": "é"}), "x")
    where, told = manifest_path(tmp_path / "p"), read_manifest(tmp_path / "p")
    whole = where.read_bytes()
    for at in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[at // 8] ^= 1 << at % 8
        where.write_bytes(flipped)
        with contextlib.suppress(ProductDamaged):
            found = read_manifest(tmp_path / "p")
            assert [found[name] for name in told if name != "manifest_digest"] == list(told.values())[:-1]


def test_sweep_removes_what_dead_processes_left_and_nothing_of_the_living(tmp_path):
    alive = temporary_path(tmp_path / "map.fits")
    alive.write_text("being written")
    dead = tmp_path / alive.name.replace(owner(), DEAD)
    dead.write_text("left behind")
    elsewhere = tmp_path / alive.name.replace(owner(), "99999999-0-0123456789abcdef")
    elsewhere.mkdir()
    (tmp_path / "map.fits").write_text("a product")
    assert sweep(tmp_path) == [str(dead)]
    os.utime(elsewhere, (0, 0))
    assert sweep(tmp_path) == [str(elsewhere)]
    assert names_in(tmp_path) == [alive.name, "map.fits"]


WRITER = """
import sys
from pathlib import Path
from syndiff_tasks.targets import WholeTarget
target = WholeTarget(sys.argv[1], {})
while True:
    with target.writing(replace=True) as draft:
        Path(draft.path).mkdir()
        for number in range(20):
            (Path(draft.path) / str(number)).write_text("x" * 1000)
"""


def test_a_writer_killed_at_any_moment_leaves_a_whole_product_or_none(tmp_path):
    for moment in range(8):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "p")])
        deadline = time.monotonic() + 60
        while not (tmp_path / "p").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.003 * moment)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        if read_manifest(tmp_path / "p") is not None:
            assert verify(tmp_path / "p", deep=True) == []
        sweep(tmp_path)
        assert set(names_in(tmp_path)) <= {"p"}


@pytest.mark.parametrize(
    ("readable", "kind", "told"), [(False, ProductNotRead, "cannot be read"), (True, ProductNotWritten, "be written")]
)
def test_an_input_that_may_not_be_read_is_not_called_unwritable(readable, kind, told, tmp_path, monkeypatch):
    refused = tmp_path / "input"
    refused.write_text("")
    monkeypatch.setattr(os, "access", lambda path, mode: readable or mode != os.R_OK)
    with pytest.raises(kind, match=f"{refused}: .*{told} .Permission denied.; mend its permissions"):
        with WholeTarget(tmp_path / "product", {}).writing():
            raise PermissionError(errno.EACCES, "Permission denied", str(refused))
    assert names_in(tmp_path) == ["input"]


def refusal(tmp_path, monkeypatch, error, free_files=10):
    """Return the message of an error of the disk on which so many files can still be made."""
    disk = types.SimpleNamespace(f_files=1000, f_favail=free_files)
    monkeypatch.setattr(targets.os, "statvfs", lambda path: disk)
    return str(targets._refused(OSError(error, os.strerror(error)), tmp_path))


def test_used_inodes_are_not_called_a_full_disk(tmp_path, monkeypatch):
    assert "the disk is full" in refusal(tmp_path, monkeypatch, errno.ENOSPC)
    assert "all inodes are used" in refusal(tmp_path, monkeypatch, errno.ENOSPC, free_files=0)


def test_a_read_only_file_system_is_named(tmp_path, monkeypatch):
    assert "the file system is read-only; mount it writable" in refusal(tmp_path, monkeypatch, errno.EROFS)
