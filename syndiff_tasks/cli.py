"""The program ``syndiff_tasks``: its sub-commands and their options.

The commands themselves are in `commands`; one is imported when it is run, so that ``status`` needs no second.
"""

import argparse
import importlib
import os
import sys

import shtab

from . import __version__
from .config import SettingsError, use_shipped_settings
from .process import while_it_is_read

# The options of this command are those of Luigi, of the task Sector, and the settings.
RUN_SECTOR = "run-sector"


def main(arguments=None):
    """Run one of the commands.

    Parameters
    ----------
    arguments : list of str, optional
        The command line without the program's name.

    Returns
    -------
    code : int
        0 where all is well; 1 where something is wrong with a product; 2 where the command is wrong. Of ``run-sector``
        and ``demo``, their own codes.
    """
    # NumPy reads it once, when it is imported: one pool of processes is enough, Luigi's.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    with while_it_is_read():
        if arguments[:1] == [RUN_SECTOR]:
            return _command("run_sector").main(arguments[1:])
        options = parser().parse_args(arguments)
        try:
            use_shipped_settings()
        except SettingsError as error:
            sys.exit(str(error))
        return getattr(_command(options.module), options.function)(options)


def _command(name):
    return importlib.import_module(f".commands.{name}", __package__)


def parser():
    """Return the parser of the command line.

    Returns
    -------
    parser : argparse.ArgumentParser
    """
    program = argparse.ArgumentParser(
        prog="syndiff_tasks",
        description="PSF-matched Pan-STARRS1 templates for TESS Full Frame Images. The tasks themselves are run by "
        "`luigi --module syndiff_tasks TASK`.",
    )
    program.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    shtab.add_argument_to(program, help="print a script that completes the commands in this shell")
    commands = program.add_subparsers(required=True, metavar="COMMAND")
    add = _Commands(commands).add
    _add_difference(add("difference", "subtract a template from its FFI, and print what stands out", "difference"))
    add(RUN_SECTOR, "make the templates of a sector, or continue them: for cron", "run_sector", add_help=False)
    _add_luigid(add("luigid", "start Luigi's central scheduler on 127.0.0.1", "luigid"))
    demo = add("demo", "build a made-up sky, make a template of it, and compare it with the truth", "demo")
    demo.add_argument("--folder", default="demo_sky", help="where it is built (default: demo_sky)")
    status = add("status", "how far each CCD is, step by step, from the names of files alone", "products:show_status")
    _file(status.add_argument("folder", nargs="?", help="data root (default: data_root of luigi.cfg)"))
    status.add_argument("--sector", type=int, help="only this sector")
    status.add_argument("--recipe", help="count combined skycells of this recipe (default: the latest)")
    verify = add("verify", "compare products with their manifests, and name what is wrong", "products:verify")
    _file(verify.add_argument("folder", nargs="?", help="data root, folder in it, or one product (default: data_root)"))
    verify.add_argument("--deep", action="store_true", help="compare every byte (digests), not only sizes")
    recheck = add("recheck", "have the next run request files that the archive had not, or not usable", "recheck")
    _file(recheck.add_argument("folder", nargs="?", help="data root (default: data_root of luigi.cfg)"))
    recheck.add_argument(
        "--older-than",
        type=_days,
        default=90.0,
        metavar="DAYS",
        help="only those that were last requested so many days ago, e.g. 30d (default: 90d)",
    )
    _add_where(add("where", "which CCDs of the FFIs at hand see a place, and which templates of it exist", "where"))
    explain = add("explain", "settings, inputs, digests and code version of a product", "products:explain")
    _file(explain.add_argument("product", help="a template, map or Zarr group"))
    return program


class _Commands:
    """The sub-commands; each names the module and function that run it."""

    def __init__(self, commands):
        self.commands = commands

    def add(self, name, meaning, place, **keywords):
        """Add a command and return its parser; `place` is a module of `commands` and, behind a colon, a function."""
        command = self.commands.add_parser(name, help=meaning, description=meaning, **keywords)
        module, _, function = place.partition(":")
        command.set_defaults(module=module, function=function or "run")
        return command


def _days(text):
    """Return days of a text such as 90d or 90; ValueError if it has none."""
    return float(text.removesuffix("d"))


def _mesh(text):
    """Return the side of a mesh; ValueError if it is not a whole number of at least 8."""
    if not (side := int(text)) >= 8:
        raise ValueError
    return side


def _file(action):
    action.complete = shtab.FILE


def _add_difference(command):
    _file(command.add_argument("ffi", help="the FFI, SPOC or TICA"))
    _file(command.add_argument("template", help="its template, of the whole frame or a region"))
    _file(command.add_argument("--out", help="write DIFFERENCE, NOISE, FLAGS, kernel and sky to this FITS file"))
    _file(command.add_argument("--png", help="draw FFI, template, difference and coverage to this PNG file"))
    command.add_argument(
        "--threshold", type=float, default=5.0, help="least significance that is printed [sigma] (default: 5)"
    )
    command.add_argument(
        "--kernel",
        choices=("auto", "1", "3", "5", "5+wings", "7+wings", "9+wings"),
        default="auto",
        help="taps of the matching kernel along each axis; 1 is the scale alone (default: auto, by cross-validation)",
    )
    command.add_argument(
        "--mesh", type=_mesh, default=32, help="side of the meshes on which the sky is measured [px] (default: 32)"
    )


def _add_where(command):
    place = command.add_mutually_exclusive_group(required=True)
    place.add_argument("--target", help="RA and Dec, or a name, as for the tasks")
    _file(place.add_argument("--moc", help="a region of the sky: a coverage map (MOC), FITS or JSON"))
    folder = command.add_argument("--ffi-dir", default=".", help="folder of FFIs, searched to any depth (default: .)")
    folder.complete = shtab.DIRECTORY


def _add_luigid(command):
    command.add_argument("--port", type=int, default=8082, help="where workers and browsers connect (default: 8082)")
    command.add_argument("--address", default="127.0.0.1", help="interface to listen on (default: 127.0.0.1)")
    products = command.add_argument("--products", help="folder of the products to show (default: data_root)")
    products.complete = shtab.DIRECTORY
    command.add_argument(
        "--open-to-others",
        action="store_true",
        help="allow an --address that other hosts reach; put a firewall around it first",
    )
