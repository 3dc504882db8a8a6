"""``syndiff_tasks status``, ``explain FILE``, ``verify FOLDER``: what is there, how it was made, is it still whole."""

import argparse
import sys
from pathlib import Path

from . import failures, ledger, status
from .config import syndiff
from .process import while_it_is_read
from .targets import read_manifest


def main(arguments=None):
    """Run one of the commands.

    Parameters
    ----------
    arguments : list of str, optional
        The command line without the program's name.

    Returns
    -------
    code : int
        0 where all is well, 1 where something is wrong with a product, 2 where the question was.
    """
    parser = argparse.ArgumentParser(prog="syndiff_tasks", description="Ask finished products how they were made.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    explain = commands.add_parser("explain", help="settings, inputs, digests and code version of a product")
    explain.add_argument("product", help="a template, map or Zarr group")
    explain.set_defaults(run=_explain)
    verify = commands.add_parser("verify", help="compare products with their manifests, and name what is wrong")
    verify.add_argument("folder", nargs="?", help="data root, a folder in it, or one product (default: data_root)")
    verify.add_argument("--deep", action="store_true", help="compare every byte (digests), not sizes alone")
    verify.set_defaults(run=_verify)
    state = commands.add_parser("status", help="how far each CCD is, step by step, from the names of files alone")
    state.add_argument("folder", nargs="?", help="data root (default: data_root of luigi.cfg)")
    state.add_argument("--sector", type=int, help="only this sector")
    state.add_argument("--recipe", help="count combined skycells of this recipe (default: the one worked on last)")
    state.set_defaults(run=_status)
    with while_it_is_read():
        asked = parser.parse_args(arguments)
        return asked.run(asked)


def _explain(asked):
    try:
        text = ledger.explain(asked.product)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(text + "\n")
    return 0


def _verify(asked):
    root = asked.folder or syndiff().data_root
    if not Path(root).exists() and read_manifest(root) is None:
        sys.stderr.write(f"{root}: there is no such file or folder; give a data root, a folder in it, or one product\n")
        return 2
    count, damaged = 0, 0
    for _product, wrong in ledger.complaints(root, asked.deep):
        count += 1
        damaged += bool(wrong)
        sys.stdout.writelines(f"{complaint}\n" for complaint in wrong)
    how = "every byte compared" if asked.deep else "sizes compared"
    sys.stdout.write(f"{root}: {count} products, {damaged} damaged ({how})\n")
    if damaged:
        sys.stdout.write("Delete what is damaged and run its task again: only that is remade.\n")
    return 1 if damaged else 0


def _status(asked):
    root = asked.folder or syndiff().data_root
    recipe = asked.recipe or status.latest_recipe(root)
    rows = status.survey(root, recipe, asked.sector)
    if not rows:
        where = root if asked.sector is None else f"{root}, sector {asked.sector}"
        elsewhere = "" if asked.folder else "; for another data root than luigi.cfg's: syndiff_tasks status FOLDER"
        sys.stdout.write(f"{where}: no map of any CCD is there; nothing was begun{elsewhere}\n")
        return 0
    sys.stdout.write(
        f"{status.table(rows)}\n\n~ sizes are estimated from {status.MEASURED} products; died: left by a killed "
    )
    sys.stdout.write(f"process.\nCombined skycells of the recipe {recipe or '(none yet)'}\n")
    if failed := status.failure_lines(root, rows):
        shown = "\n".join(failures.shorten(failed))
        sys.stdout.write(f"\nWhat failed (messages that differ in numbers only are one line):\n{shown}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
