"""What the manifests of finished products tell: how each was made, and whether it is still whole."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from .manifest import MANIFEST, ProductDamaged, ProductNotRead, manifest_path, read_manifest, verify


def products(root) -> Iterator[Path]:
    """Find every published product under a folder.

    Parameters
    ----------
    root : path-like
        The data root, a folder in it, or one product.

    Yields
    ------
    product : Path
        Sorted by name within each folder; temporaries of running tasks are left out.
    """
    root = Path(root)
    if root.exists() and manifest_path(root).exists():
        yield root
        return
    for folder, subfolders, files in os.walk(root):
        if MANIFEST in files:
            yield Path(folder)
            subfolders.clear()
            continue
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(files):
            if name.startswith(".") and name.endswith(f".{MANIFEST}") and not name.startswith(".tmp-"):
                yield Path(folder) / name[1 : -len(MANIFEST) - 1]


def explain(path) -> str:
    """Describe how a product was made.

    Parameters
    ----------
    path : path-like
        A product: a template, a map, a Zarr group.

    Returns
    -------
    text : str
        Code version, settings, inputs with their digests, and origin of the files, one a line.

    Raises
    ------
    ValueError
        If nothing was published under that name, or its manifest is damaged.
    ProductNotRead
        If the manifest belongs to somebody who does not let us read it.
    """
    manifest = read_manifest(path)
    if manifest is None:
        raise ValueError(
            f"{path}: not a product of syndiff_tasks (no manifest); give a template, a map or a Zarr group"
        )
    lines = [
        f"{path}",
        f"made      {manifest['made']} on {manifest['host']} by syndiff_tasks {manifest['syndiff_tasks']}",
        f"digest    {manifest['digest']}",
        "settings",
        *(f"  {name} = {json.dumps(value)}" for name, value in sorted(manifest["settings"].items())),
        "inputs",
        *(f"  {name}  {digest}" for name, digest in sorted(manifest["inputs"].items())),
    ]
    notes = manifest["notes"]
    if "files" in notes:
        lines.append("files")
        lines += [f"  {key}  {file['sha256']}  {file['url']}" for key, file in sorted(notes["files"].items())]
        lines += [f"  {key}  absent on {date}" for key, date in sorted(notes["absent"].items())]
        lines += [
            f"  {key}  unusable on {one['asked']}: {one['reason']}  {one['url']}"
            for key, one in sorted(notes.get("unusable", {}).items())
        ]
    return "\n".join(lines)


def check(root, deep=False) -> Iterator[tuple[Path, list[str]]]:
    """Compare every product under a folder with its manifest.

    Parameters
    ----------
    root : path-like
        As in `products`.
    deep : bool, optional
        Compare digests, not sizes alone.

    Yields
    ------
    product : Path
    wrong : list of str
        Sentences; empty where all is well.
    """
    for product in products(root):
        try:
            yield product, verify(product, deep)
        except (ProductDamaged, ProductNotRead) as error:
            yield product, [str(error)]
        except OSError as error:
            yield product, [f"{error.filename or product}: cannot be read ({error.strerror})"]
