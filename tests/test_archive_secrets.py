"""Passwords and tokens of an archive reach its server, and nothing that is kept or printed."""

import base64
import logging

import pytest
from bad_server import status
from fetching import BODY, FILES, PATH, QUICK, fetch, keyed, unseal

from syndiff_tasks.io import archive
from syndiff_tasks.io.address import public, without_secrets
from syndiff_tasks.io.archive import ArchiveUnavailable, UnprovenArchive

BASIC = "Basic " + base64.b64encode(b"me:sesame").decode()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://me:se@same@host:80/a/b?token=1#c", "https://host:80/a/b"),
        ("https://host/file?uri=mast:PS1/product/x&key=1", "https://host/file?uri=mast:PS1/product/x"),
        ("https://host", "https://host"),
        ("/data/a@b?c", "/data/a@b?c"),
    ],
)
def test_user_info_and_queries_are_not_shown(url, shown):
    assert public(url) == shown


def test_a_librarys_message_is_shown_without_the_secrets_of_its_url():
    url = "https://me:sesame@host/a?token=17"
    shown = without_secrets(f"cannot parse {url}; retry /a?token=17 as me:sesame", url)
    assert shown == "cannot parse https://host/a; retry /a?… as …"


def with_password(server):
    return server.url.replace("://", "://me:sesame@")


def test_a_password_in_the_url_is_sent_but_not_kept(server, tmp_path):
    server.put(PATH, BODY)
    file = fetch(PATH, [with_password(server)], tmp_path, QUICK, unseal)
    assert server.asked[0][1]["Authorization"] == BASIC
    assert "sesame" not in repr(file)
    assert "sesame" not in " ".join(path.name for path in tmp_path.iterdir())


def test_a_password_in_netrc_is_sent(server, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password sesame\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    server.put(PATH, BODY)
    fetch(PATH, [server.url], tmp_path / "data", QUICK, unseal)
    assert server.asked[0][1]["Authorization"] == BASIC


@pytest.mark.parametrize("code", [403, 503])
def test_no_error_or_pause_holds_the_password(server, tmp_path, caplog, code):
    caplog.set_level(logging.DEBUG)
    server.put(PATH, BODY, always=status(code))
    with pytest.raises(ArchiveUnavailable) as caught:
        fetch(PATH, [with_password(server)], tmp_path, QUICK, unseal)
    assert "sesame" not in f"{caught.value} {caplog.text} {list(tmp_path.iterdir())}"


def test_a_wrong_address_is_named_without_its_password(server, tmp_path):
    with pytest.raises(UnprovenArchive) as caught:
        list(archive.fetch_all(FILES, [with_password(server)], tmp_path, QUICK, keyed(unseal)))
    assert "sesame" not in str(caught.value)
