"""Fork a `luigi` command for each line of JSON on the standard input, with the libraries already imported.

Importing them takes some three seconds, and everything else in a test of the graph less than one. Nothing of
`syndiff_tasks` is imported before the fork: settings, luigi.cfg and all, each command starts as it does from a shell.
"""

import ctypes
import functools
import gc
import importlib
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "syndiff_tasks"
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
    os.environ |= order["environment"]
    said = os.open(order["said"], os.O_WRONLY | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for ours, standard in ((nothing, 0), (said, 1), (said, 2)):
        os.dup2(ours, standard)
    sys.stdin = open(0)
    if order["user"]:
        become(*order["user"])
    # As the installed `luigi` script starts.
    sys.argv = ["luigi", *order["arguments"]]
    from luigi.cmdline import luigi_run

    luigi_run(order["arguments"])


def become(uid, gid, umask, home):
    """Go on as another user, who finds Python where root has it, and a copy of this package of his own in its place."""
    own, package = Path(home) / PACKAGE.name, str(PACKAGE)
    if not own.exists():
        # With what numba has compiled, which takes a minute and is kept where the package may be written.
        shutil.copytree(PACKAGE, own)
        for path in (own, *own.rglob("*")):
            os.chown(path, uid, gid)
    # CLONE_NEWNS of linux/sched.h: the mounts below are for this process alone.
    if ctypes.CDLL(None).unshare(0x20000):
        sys.exit("the mounts of other processes cannot be kept apart")
    run = functools.partial(subprocess.run, check=True)
    run(["mount", "--make-rprivate", "/"])
    seen = {path: tempfile.mkdtemp(dir=home) for path in (sys.base_prefix, sys.prefix)} | {package: str(own)}
    for path in (sys.base_prefix, sys.prefix):
        run(["mount", "--bind", path, seen[path]])
    for hidden in {up for path in seen for up in Path(path).parents if not up.stat().st_mode & stat.S_IXOTH}:
        run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", hidden])
    for path, place in seen.items():
        Path(path).mkdir(parents=True, exist_ok=True)
        run(["mount", "--bind", place, path])
    os.umask(umask)
    os.setgroups([gid])
    os.setgid(gid)
    os.setuid(uid)
    os.environ |= {"HOME": home, "LOGNAME": str(uid), "XDG_CACHE_HOME": home}


def main():
    for library in LIBRARIES:
        importlib.import_module(library)
    # The first function that numba compiles in a process makes it load all that it knows, for two seconds.
    sys.modules["numba"].njit(lambda array: array.size)(sys.modules["numpy"].zeros(3))
    # Else each fork visits all these objects at its end, and their pages are copied for it: 0.9 s a command.
    gc.freeze()
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
