"""``syndiff_tasks explain``, ``verify`` and ``status``: ask finished products how they were made."""

import sys
from pathlib import Path

from .. import failures, provenance, status
from ..config import syndiff
from ..manifest import ProductNotRead


def explain(options):
    """Print settings, inputs, digests and code version of a product; return the exit code."""
    try:
        text = provenance.explain(options.product)
    except (ValueError, ProductNotRead) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(text + "\n")
    return 0


def verify(options):
    """Compare products with their manifests and print what is wrong; return the exit code."""
    root = options.folder or syndiff().data_root
    if not Path(root).exists():
        sys.stderr.write(f"{root}: no such file or folder; give a data root, a folder in it, or one product\n")
        return 2
    count, damaged = 0, 0
    for _product, wrong in provenance.check(root, options.deep):
        count += 1
        damaged += bool(wrong)
        sys.stdout.writelines(f"{line}\n" for line in wrong)
    how = "every byte compared" if options.deep else "sizes compared"
    sys.stdout.write(f"{root}: {count} products, {damaged} damaged ({how})\n")
    if damaged:
        sys.stdout.write("Delete what is damaged and run its task again: only that is remade.\n")
    return 1 if damaged else 0


def show_status(options):
    """Print how far each CCD is, and what failed; return the exit code."""
    root = options.folder or syndiff().data_root
    recipe = options.recipe or status.latest_recipe(root)
    rows = status.survey(root, recipe, options.sector)
    if not rows:
        where = root if options.sector is None else f"{root}, sector {options.sector}"
        hint = "" if options.folder else "; for another data root than luigi.cfg's: syndiff_tasks status FOLDER"
        sys.stdout.write(f"{where}: no CCD has a map yet; nothing was begun{hint}\n")
        return 0
    sys.stdout.write(
        f"{status.table(rows)}\n\n~ sizes are estimated from {status.MEASURED} products; died: left by a killed "
        f"process.\nCombined skycells of the recipe {recipe or '(none yet)'}\n"
    )
    if failed := status.failure_lines(root, rows):
        lines = "\n".join(failures.shorten(failed))
        sys.stdout.write(f"\nWhat failed (messages that differ in numbers only are one line):\n{lines}\n")
    return 0
