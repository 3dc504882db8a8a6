"""Fork a `luigi` command for each line of JSON on the standard input, with the libraries already imported.

Importing them takes some three seconds, and everything else in a test of the graph less than one. Nothing of
`syndiff_tasks` is imported before the fork: settings, luigi.cfg and all, each command starts as it does from a shell.
"""

import importlib
import json
import os
import sys

LIBRARIES = (
    *("numpy", "numba", "pandas", "scipy.ndimage", "scipy.spatial", "scipy.fft", "scipy.optimize", "astropy.io.fits"),
    *("astropy.wcs", "astropy.time", "astropy.table", "sep", "shapely", "requests", "tqdm", "xxhash", "isal.igzip"),
    *("numcodecs.blosc", "google_crc32c", "matplotlib.patheffects", "matplotlib.figure"),
    *("matplotlib.backends.backend_agg", "luigi", "luigi.cmdline", "psutil"),
)


def command(order):
    """Become the command: a session of its own, its folder, its output."""
    os.setsid()
    os.chdir(order["folder"])
    said = os.open(order["said"], os.O_WRONLY | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for ours, standard in ((nothing, 0), (said, 1), (said, 2)):
        os.dup2(ours, standard)
    sys.stdin = open(0)
    # As the installed `luigi` script starts.
    sys.argv = ["luigi", *order["arguments"]]
    from luigi.cmdline import luigi_run

    luigi_run(order["arguments"])


def main():
    for library in LIBRARIES:
        importlib.import_module(library)
    # The first function that numba compiles in a process makes it load all that it knows, for two seconds.
    sys.modules["numba"].njit(lambda array: array.size)(sys.modules["numpy"].zeros(3))
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            answer = os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1])
        else:
            answer = os.fork()
            if answer == 0:
                command(order)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
