"""The manifest of a product: what made it, what it is made of, and whether it is still whole."""

import contextlib
import datetime
import hashlib
import json
import os
import re
import uuid
from pathlib import Path
from typing import NamedTuple

import xxhash

from .io.liveness import owner

MANIFEST = "manifest.json"

# The entries of every manifest, and what JSON makes of them.
ENTRIES = {
    "settings": dict,
    "inputs": dict,
    "notes": dict,
    "files": dict,
    "digest": str,
    "made": str,
    "host": str,
    "syndiff_tasks": str,
}

# The entry with the digest of all others; manifests of the first versions have none.
OWN_DIGEST = "manifest_digest"

# What `withdraw` makes of the manifest.
WITHDRAWN = "manifest.withdrawn.json"

TEMPORARY = re.compile(r"^\.tmp-[^@]+@(?P<owner>[^@]+)@")


class ProductDamaged(ValueError):
    """A product's bytes are not those that were published."""


class ProductNotRead(OSError):
    """A product belongs to another user, who does not let us read it."""


class Fingerprint(NamedTuple):
    """What a product depends on beside other products, by its digest: when it changes, the product is remade."""

    content: tuple
    outdated: bool = False  # it is always up to date

    def digest(self):
        """Return a digest of the content."""
        return hashlib.sha256(json.dumps(self.content).encode()).hexdigest()[:16]


def temporary_path(final):
    """Return a hidden name beside `final`; the extensions stay last, since writers choose compression by them."""
    final = Path(final)
    return final.with_name(f".tmp-{uuid.uuid4().hex[:8]}@{owner()}@{final.name}")


def manifest_path(path):
    """Return where the manifest of the product `path` is: inside a folder, hidden beside a file."""
    path = Path(path)
    return path / MANIFEST if path.is_dir() else path.with_name(f".{path.name}.{MANIFEST}")


def read_manifest(path):
    """Return the manifest of the product `path` as a dict, None where nothing whole is published.

    Raises
    ------
    ProductDamaged
        If the manifest is not one, lacks an entry, or is not as it was written.
    ProductNotRead
        If it belongs to somebody who does not let us read it.
    """
    if not os.path.exists(path):
        return None
    where = manifest_path(path)
    try:
        content = where.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise ProductNotRead(
            f"{where}: cannot be read ({error.strerror}); mend its permissions, or give another folder with "
            "--syndiff-data-root"
        ) from error
    try:
        manifest = json.loads(content.decode("utf-8"))
        _demand_whole(manifest)
    except ValueError as error:  # of the encoding, of JSON, or of the content
        cure = f"delete {path} and run its task again"
        raise ProductDamaged(f"{where}: not a whole manifest ({error}); {cure}") from error
    return manifest


def sealed(manifest):
    """Return a manifest with the digest of its own content, by which a change of any entry is found.

    Parameters
    ----------
    manifest : dict

    Returns
    -------
    manifest : dict
        As JSON reads it back.
    """
    content = json.loads(json.dumps({name: value for name, value in manifest.items() if name != OWN_DIGEST}))
    return content | {OWN_DIGEST: digest_of(content)}


def _demand_whole(manifest):
    if not isinstance(manifest, dict):
        raise ValueError("it has no entries")
    if missing := [name for name, kind in ENTRIES.items() if not isinstance(manifest.get(name), kind)]:
        raise ValueError(f"the entry {missing[0]} is missing or has another type")
    if manifest["digest"] != digest_of(manifest["files"]):
        raise ValueError("its digest is not that of its list of files")
    own = {name: value for name, value in manifest.items() if name != OWN_DIGEST}
    if manifest.get(OWN_DIGEST, digest_of(own)) != digest_of(own):
        raise ValueError(f"its content does not match its {OWN_DIGEST}")


def withdraw(path):
    """Let a folder count as missing, and what was made from it as outdated, but keep its content.

    Parameters
    ----------
    path : path-like
        A product that is a folder. Its task makes it again, or calls `restore`.
    """
    os.rename(manifest_path(path), Path(path) / WITHDRAWN)


def is_withdrawn(path):
    """Return whether a product was withdrawn."""
    return (Path(path) / WITHDRAWN).exists()


def restore(path):
    """Undo `withdraw`, where it was done."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        os.rename(Path(path) / WITHDRAWN, Path(path) / MANIFEST)


def verify(path, deep=False):
    """Compare a published product with its manifest.

    Parameters
    ----------
    path : path-like
        A product with a manifest.
    deep : bool, optional
        Compare digests, not sizes alone.

    Returns
    -------
    complaints : list of str
        What is wrong, a sentence each; empty where all is well.
    """
    manifest = read_manifest(path)
    if manifest is None:
        return [f"{path}: has no manifest, so it was never published whole; delete it and run its task again"]
    root = Path(path)
    complaints = []
    for name, told in manifest["files"].items():
        file = root / name if root.is_dir() else root
        if not file.exists():
            complaints.append(f"{file}: is missing")
        elif file.stat().st_size != told["size"]:
            complaints.append(f"{file}: has {file.stat().st_size} bytes, was published with {told['size']}")
        elif deep and content_digest(file) != told["xxh3_128"]:
            complaints.append(f"{file}: its bytes are not those that were published (digest differs)")
    if root.is_dir():
        found = {str(file.relative_to(root)) for file in files_in(root)}
        complaints += [f"{root / name}: was not published" for name in sorted(found - set(manifest["files"]))]
    return complaints


def now():
    """Return the time, in UTC (ISO 8601)."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def files_in(root):
    """Return the files of a product that is a folder, sorted, without its manifest."""
    return [file for file in sorted(root.rglob("*")) if file.is_file() and file != root / MANIFEST]


def content_of(path):
    """Return size and digest of each file of a product, by name; the name of a product that is a file is empty."""
    files = {str(f.relative_to(path)): f for f in files_in(path)} if path.is_dir() else {"": path}
    return {name: {"size": file.stat().st_size, "xxh3_128": content_digest(file)} for name, file in files.items()}


def digest_of(content):
    """Return the digest of a dict that JSON can write, such as that of `content_of`."""
    return xxhash.xxh3_128_hexdigest(json.dumps(content, sort_keys=True).encode())


def content_digest(path):
    """Return the digest of the bytes of a file."""
    # Against damage, not against forgery: 20 times faster than sha256, which would cost as much as the decoding.
    digest = xxhash.xxh3_128()
    with open(path, "rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def write_json(path, content):
    """Write a JSON file whole or not at all, flushed to disk."""
    temporary = temporary_path(path)
    temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
    flush(temporary)
    os.replace(temporary, path)


def flush(path):
    """Flush a file or folder to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flush_tree(root):
    """Flush a folder and all that is in it to disk."""
    for path in [*root.rglob("*"), root]:
        flush(path)
