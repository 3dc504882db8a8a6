"""The program `syndiff_tasks`, and the scripts that are doors to it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import syndiff_tasks
from syndiff_tasks import cli
from syndiff_tasks.chain import difference

ROOT = Path(__file__).parents[1]
COMMANDS = ("difference", "run-sector", "luigid", "demo", "status", "verify", "recheck", "where", "explain")


def printed(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert not ended.value.code
    return capsys.readouterr().out


def test_the_help_names_every_command(capsys):
    text = printed(capsys, "--help")
    assert [name for name in COMMANDS if not re.search(rf"^    {name} +\w", text, re.M)] == []


def test_the_version_is_stated_once(capsys):
    assert printed(capsys, "--version") == f"syndiff_tasks {syndiff_tasks.__version__}\n"
    files = (ROOT / "setup.py").read_text(), (ROOT / "pyproject.toml").read_text()
    assert not [text for text in files if re.search("^ *version *= *[\"']", text, re.M)]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_shell_completes_every_command(capsys, shell):
    script = printed(capsys, "--print-completion", shell)
    assert [name for name in COMMANDS if name not in script] == []


def test_bash_completes_the_beginning_of_a_command_and_of_an_option(capsys, tmp_path):
    (tmp_path / "completion").write_text(printed(capsys, "--print-completion", "bash"))
    typed = """
complete() { :; }
. ./completion
COMP_WORDS=(syndiff_tasks $1 $2); COMP_CWORD=$#
_shtab_syndiff_tasks; echo "${COMPREPLY[@]}"
"""
    for words, completed in ((["sta"], "status"), (["verify", "--d"], "--deep")):
        ended = subprocess.run(["bash", "-c", typed, "bash", *words], cwd=tmp_path, capture_output=True, text=True)
        assert ended.stdout.split() == [completed], ended.stderr


@pytest.mark.parametrize(
    "script, command",
    [("run_sector", "run-sector"), ("luigid", "luigid"), ("difference.py", "difference"), ("run_demo.py", "demo")],
)
def test_a_script_is_a_thin_door_to_its_command(script, command):
    text = (ROOT / "scripts" / script).read_text()
    assert f'main(["{command}", *sys.argv[1:]])' in text and text.count("\n") < 12


def test_a_door_takes_the_options_of_its_command():
    words = [sys.executable, ROOT / "scripts" / "difference.py", "--help"]
    text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert text.startswith("usage: syndiff_tasks difference") and "--threshold" in text


def test_the_kernels_of_the_options_are_those_of_the_difference():
    commands = cli.parser()._subparsers._group_actions[0].choices
    (kernel,) = [action for action in commands["difference"]._actions if action.dest == "kernel"]
    assert list(kernel.choices) == ["auto", *difference.KERNELS]


def test_a_damaged_settings_file_ends_a_command_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "luigi.cfg").write_text("[syndiff]\npsf_sgima = 40\n")
    with pytest.raises(SystemExit, match="psf_sgima in luigi.cfg: no such setting. Did you mean psf_sigma"):
        cli.main(["status"])
