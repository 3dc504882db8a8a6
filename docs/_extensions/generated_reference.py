"""Sphinx directives that print what the code declares: ``settings``, ``tasks`` and ``commands``.

Settings and their comments are read from the packaged ``luigi.cfg``, options from the parameters of the tasks, and
commands from the parser of ``syndiff_tasks``: the site cannot differ from the program.
"""

import argparse
import os
import re
import subprocess
import sys

import luigi
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

import syndiff_tasks
from syndiff_tasks import cli
from syndiff_tasks.config import SHIPPED

WIDTH = "100"


def read_settings(text):
    """Return what a commented ``luigi.cfg`` says.

    Parameters
    ----------
    text : str
        The file; the comment lines above a key belong to it.

    Returns
    -------
    sections : dict
        Of each section, a list of (key, value, meaning).
    """
    sections, comments, entries = {}, [], []
    for line in text.splitlines():
        if line.startswith("#"):
            comments.append(line.lstrip("# "))
        elif section := re.fullmatch(r"\[(.+)\]", line):
            entries = sections.setdefault(section[1], [])
            comments = []
        elif "=" in line:
            key, value = (part.strip() for part in line.split("=", 1))
            entries.append((key, value, " ".join(comments)))
            comments = []
    return sections


def _table(columns, rows, widths):
    """Return a table node; a cell is text or a node."""
    group = nodes.tgroup(cols=len(columns))
    group.extend(nodes.colspec(colwidth=width) for width in widths)
    head, body = nodes.thead(), nodes.tbody()
    head += _row(columns)
    body.extend(_row(cells) for cells in rows)
    group += [head, body]
    return nodes.table("", group)


def _row(cells):
    row = nodes.row()
    for cell in cells:
        content = cell if isinstance(cell, nodes.Node) else nodes.Text(cell)
        row += nodes.entry("", nodes.paragraph("", "", content))
    return row


def _code(text):
    """Return text in a typewriter font that may be broken after a comma or slash; empty text stays empty."""
    return nodes.literal("", text) if text else nodes.Text("")


def _section(title, name, *content):
    section = nodes.section("", nodes.title("", "", nodes.literal("", title)), ids=[name], names=[name])
    section.extend(content)
    return section


class Settings(SphinxDirective):
    """Tables of the settings of luigi.cfg, one a section."""

    def run(self):
        """Return a section a section of the file."""
        self.env.note_dependency(str(SHIPPED))
        return [
            _section(
                f"[{name}]",
                f"settings-{name.replace('_', '-')}",
                _table(
                    ("setting", "default", "meaning"),
                    [(_code(key), _code(value), meaning) for key, value, meaning in entries],
                    (22, 24, 54),
                ),
            )
            for name, entries in read_settings(SHIPPED.read_text(encoding="utf-8")).items()
        ]


class Tasks(SphinxDirective):
    """What each task makes, and its options."""

    def run(self):
        """Return a section a task."""
        return [self._task(getattr(syndiff_tasks, name)) for name in syndiff_tasks.TASKS]

    def _task(self, task):
        first = (task.__doc__ or "").strip().split("\n\n")[0]
        rows = [
            (_code(f"--{name.replace('_', '-')}"), _code(_default(parameter)), parameter.description or "")
            for name, parameter in task.get_params()
            if parameter.visibility == luigi.parameter.ParameterVisibility.PUBLIC
        ]
        name = task.get_task_family()
        paragraph = nodes.paragraph("", " ".join(first.replace("`", "").split()))
        return _section(
            name, f"task-{name.lower()}", paragraph, _table(("option", "default", "meaning"), rows, (26, 20, 54))
        )


def _default(parameter):
    """Return the default as the command line would have it; nothing where it comes from a setting or is required."""
    value = parameter._default
    return "" if value is luigi.Parameter()._default or value in ("", None) else parameter.serialize(value)


class Commands(SphinxDirective):
    """The help of each sub-command."""

    def run(self):
        """Return a section a command."""
        (subparsers,) = (action for action in cli.parser()._actions if isinstance(action, argparse._SubParsersAction))
        return [
            _section(
                f"syndiff_tasks {name}",
                f"command-{name}",
                nodes.literal_block("", _help(name), language="text"),
            )
            for name in subparsers.choices
        ]


def _help(command):
    """Return what ``syndiff_tasks COMMAND --help`` prints."""
    ended = subprocess.run(
        [sys.executable, "-m", "syndiff_tasks", command, "--help"],
        env=os.environ | {"COLUMNS": WIDTH, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return ended.stdout.replace("__main__.py", "syndiff_tasks")


def setup(app):
    """Register the directives."""
    app.add_directive("settings", Settings)
    app.add_directive("tasks", Tasks)
    app.add_directive("commands", Commands)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
