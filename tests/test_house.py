"""The plan of the house: three rooms without doors between them, and Luigi in the hall only."""

import ast
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[1] / "syndiff_tasks"
ROOMS = ("geometry", "pixels", "io")
FILES = sorted(HOUSE.rglob("*.py"))


def imported(path):
    """Return the modules that a file imports, as absolute dotted names."""
    package = path.relative_to(HOUSE.parent).parent.parts
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return names


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_nothing_of_the_others_nor_of_the_hall(room):
    allowed = (f"syndiff_tasks.{room}", "syndiff_tasks.__version__")
    doors = {
        (path.name, name)
        for path in (HOUSE / room).rglob("*.py")
        for name in imported(path)
        if name.startswith("syndiff_tasks.") and not name.startswith(allowed)
    }
    assert not doors


def test_luigi_is_imported_by_tasks_settings_targets_and_commands_only():
    importers = {path for path in FILES if any(name.split(".")[0] == "luigi" for name in imported(path))}
    outside = {path.name for path in importers if path.parent != HOUSE / "tasks"}
    assert outside == {"config.py", "parameters.py", "targets.py", "command_line.py", "luigid.py"}


def test_no_module_has_a_name_that_says_nothing():
    nothing = {"utils", "util", "common", "helpers", "helper", "core", "misc"}
    assert not [path for path in FILES if path.stem in nothing or path.stem.endswith("_v2")]


def test_no_module_has_more_than_600_lines():
    assert not [path for path in FILES if len(path.read_text(encoding="utf-8").splitlines()) > 600]


def test_no_module_catches_everything_or_prints():
    # ruff's BLE and T20 say the same of what they see; this sees `noqa` too.
    assert not [path for path in FILES if "noqa: BLE" in path.read_text() or "noqa: T20" in path.read_text()]


def definitions(folder):
    """Return (file, node) of each function, class and module in a folder of the repository."""
    kinds = (ast.FunctionDef, ast.ClassDef, ast.Module)
    for path in sorted((HOUSE.parent / folder).rglob("*.py")):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        yield from ((path, node) for node in nodes if isinstance(node, kinds))


def test_the_name_of_a_test_has_at_most_80_characters():
    names = [node.name for _, node in definitions("tests") if isinstance(node, ast.FunctionDef)]
    assert not [name for name in names if name.startswith("test_") and len(name) > 80]


@pytest.mark.parametrize("folder", ["syndiff_tasks", "tests", "scripts", "benchmarks", "docs"])
def test_no_docstring_begins_with_tell_or_say(folder):
    docstrings = {(path.name, ast.get_docstring(node) or "") for path, node in definitions(folder)}
    assert not {(name, text) for name, text in docstrings if text.startswith(("Tell", "Say"))}
