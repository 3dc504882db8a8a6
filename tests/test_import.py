"""What importing the package costs, and that it changes nothing."""

import subprocess
import sys
from pathlib import Path

import pytest
from tiny_sky import clean_environment

HEAVY = ("astropy", "pandas", "scipy", "numba", "matplotlib", "shapely", "sep")


def python(code, *arguments, folder=None):
    words = [sys.executable, "-c", code, *map(str, arguments)]
    ended = subprocess.run(words, capture_output=True, text=True, cwd=folder, env=clean_environment())
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.split()


IMPORTED_LATE = """
import pickle, sys
import syndiff_tasks
assert not [name for name in sys.argv[1:] if name in sys.modules]
task = syndiff_tasks.DownloadSkycell(skycell="skycell.2611.044")
assert pickle.loads(pickle.dumps(task)) == task
from syndiff_tasks import *
assert DownloadSkycell is syndiff_tasks.DownloadSkycell and Sector.__name__ == "Sector"
try:
    syndiff_tasks.NoSuchTask
except AttributeError as error:
    print("NoSuchTask" in str(error))
"""


def test_tasks_are_had_by_name_and_survive_pickling_where_they_are_imported_late():
    assert python(IMPORTED_LATE, *HEAVY, "luigi") == ["True"]


UNCHANGED = """
import atexit, glob, logging, os, sys
import luigi.configuration

def state():
    paths = tuple(luigi.configuration.LuigiConfigParser._config_paths)
    config = {name: dict(section) for name, section in luigi.configuration.get_config().items()}
    handlers = logging.getLogger("luigi-interface").handlers[:]
    return dict(os.environ), sys.excepthook, paths, config, handlers, glob.glob("/dev/shm/syndiff*"), os.getcwd()

before, exits = state(), atexit._ncallbacks()
import syndiff_tasks
assert state() == before and atexit._ncallbacks() == exits
import syndiff_tasks.tasks
assert state() == before and atexit._ncallbacks() == exits
from syndiff_tasks import *
assert state() == before
assert not luigi.cmdline_parser.CmdlineParser._build_parser.__module__.startswith("syndiff_tasks")
print(syndiff_tasks.syndiff().psf_sigma, syndiff_tasks.MapFFI(ffi="x").size)
"""


def test_importing_the_package_changes_nothing_and_its_settings_hold(tmp_path):
    (tmp_path / "luigi.cfg").write_text("[syndiff]\npsf_sigma = 53\n[worker]\ntimeout = 7\n")
    assert python(UNCHANGED, folder=tmp_path) == ["53.0", "64"]


def test_importing_the_package_imports_neither_luigi_nor_what_takes_seconds():
    code = "import sys, syndiff_tasks; print(*[name for name in sys.argv[1:] if name in sys.modules])"
    assert python(code, "luigi", "numpy", *HEAVY) == []


@pytest.mark.parametrize("task", ["Downsample", "Sector"])
def test_the_help_of_a_task_imports_nothing_that_takes_seconds(task, tmp_path):
    luigi = Path(sys.executable).with_name("luigi")
    words = [sys.executable, "-X", "importtime", luigi, "--module", "syndiff_tasks", task, "--help"]
    ended = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path, env=clean_environment())
    imported = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines()}
    assert "--syndiff-data-root" in ended.stdout and "syndiff_tasks.tasks.sector" in imported
    assert not [name for name in HEAVY if name in imported]


BEGUN = """
import sys, syndiff_tasks.tasks
from syndiff_tasks.process import begin_run
assert not [name for name in sys.argv[1:] if name in sys.modules]
begin_run()
print(*[name for name in sys.argv[1:] if name not in sys.modules])
"""


def test_all_libraries_are_imported_before_luigi_forks_its_workers():
    assert python(BEGUN, *HEAVY) == []
