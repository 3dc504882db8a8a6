import math
import os
import re
import subprocess
import sys

import luigi
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syndiff_tasks.config import SHIPPED, Bits, Number, Offsets, Places, Weights, syndiff

finite = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(st.tuples(finite, finite), min_size=1, unique=True))
def test_offsets_read_what_they_write(pairs):
    offsets = tuple(dict.fromkeys((dx + 0.0, dy + 0.0) for dx, dy in pairs))
    assert Offsets().parse(Offsets().serialize(offsets)) == offsets


@pytest.mark.parametrize("text", ["", "0.1", "0,0,1", "a,b", "nan,0", "0,inf", "0;0", "1,2,,3"])
def test_malformed_offsets_are_refused_by_name(text):
    with pytest.raises(ValueError, match="multi_offset_array"):
        Offsets().parse(text)


@given(st.text())
def test_offsets_of_any_text_are_finite_pairs_or_refused(text):
    try:
        offsets = Offsets().parse(text)
    except ValueError:
        return
    assert offsets and all(math.isfinite(number) for pair in offsets for number in pair)


def test_mask_bits_are_sorted_and_single():
    assert Bits().parse("12, 5,12") == (5, 12)
    assert Bits().parse("") == Bits().parse(",") == ()


@pytest.mark.parametrize("text", ["16", "-1", "five", "1.0", "²"])
def test_mask_bits_out_of_range_are_refused(text):
    with pytest.raises(ValueError, match="PS1 masks have bits 0 to 15"):
        Bits().parse(text)


@pytest.mark.parametrize("text", ["nan", "-1", "401", "wide"])
def test_an_absurd_sigma_is_refused_by_name(text):
    with pytest.raises(ValueError, match="psf_sigma"):
        Number("psf_sigma", 0.0, 400.0).parse(text)


@pytest.mark.parametrize("text", ["g=1", "r=0.5, r=0.5", "r=-1", "r=nan", "r", "0.2,0.3"])
def test_weights_that_are_none_are_refused(text):
    with pytest.raises(ValueError, match="weights"):
        Weights().parse(text)


@pytest.mark.parametrize(
    "name, text, told",
    [
        ("download_tries", "0", "download_tries: 0 is not within 1 to 1000"),
        ("download_tries", "many", "download_tries: 'many' is not a whole number"),
        ("ccds_at_once", "2.5", "ccds_at_once: '2.5' is not a whole number"),
        ("bin", "3", "bin: '3' is not one of 1, 2, 4, 8"),
        ("psf", "GAUSS", "psf: 'GAUSS' is not one of gauss, prf, none"),
        ("keep_raw", "perhaps", "keep_raw: 'perhaps' is neither true nor false"),
        ("keep_raw", "", "keep_raw: '' is neither true nor false"),
    ],
)
def test_a_setting_that_cannot_be_read_is_refused_by_name(name, text, told):
    with pytest.raises(ValueError, match=f"^{re.escape(told)}$"):
        dict(syndiff.get_params())[name].parse(text)


def test_every_parameter_of_numbers_choices_or_switches_has_the_name_that_its_errors_tell():
    import syndiff_tasks

    classes = [getattr(syndiff_tasks, name) for name in (*syndiff_tasks.TASKS, "syndiff")]
    named = {(p.name, name) for task in classes for name, p in task.get_params() if hasattr(p, "name")}
    assert len(named) > 20 and all(told == name for told, name in named)
    unnamed = {type(p).__name__ for task in classes for _, p in task.get_params() if not hasattr(p, "name")}
    assert unnamed <= {
        "Parameter",
        "BoolParameter",
        "Bits",
        "BitsOfSetting",
        "Offsets",
        "Detectors",
        "Places",
        "SkyTarget",
        "Weights",
    }


def test_weights_and_places_read_what_they_write():
    weights = (("r", 0.238), ("z", 0.283))
    assert Weights().parse(Weights().serialize(weights)) == weights
    places = ("https://a.b/c", "/data/ps1")
    assert Places().parse(Places().serialize(places)) == places


def test_every_setting_stands_in_luigi_cfg_behind_a_comment():
    lines = SHIPPED.read_text(encoding="utf-8").splitlines()
    pairs = zip(lines, lines[1:], strict=False)
    assert not [line for above, line in pairs if "=" in line and line[0] not in "#[" and not above.startswith("# ")]
    section = lines[lines.index("[syndiff]") + 1 : lines.index("[resources]")]
    written = {line.partition("=")[0].strip() for line in section if "=" in line and not line.startswith("#")}
    assert written == {name for name, _ in syndiff.get_params()}


def test_no_value_carries_a_comment_behind_it():
    lines = SHIPPED.read_text(encoding="utf-8").splitlines()
    assert not [line for line in lines if not line.startswith("#") and "#" in line]


def test_each_setting_says_what_it_means():
    assert all(parameter.description for _, parameter in syndiff.get_params())
    assert all(isinstance(parameter, luigi.Parameter) for _, parameter in syndiff.get_params())


def run_luigi(folder, *arguments):
    command = [sys.executable, "-m", "luigi", "--module", "syndiff_tasks", *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "LUIGI_CONFIG_PATH"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "text, told",
    [
        (
            "[syndiff]\npsf_sgima = 40",
            "[syndiff] psf_sgima in luigi.cfg: no such setting. Did you mean psf_sigma? The se",
        ),
        ("[syndif]\npsf_sigma = 40", "[syndif] in luigi.cfg: no such section. Did you mean syndiff? Correct its name."),
        ("[Worker]\ntimeout = 40", "[Worker] in luigi.cfg: no such section. Did you mean worker? Correct its name."),
    ],
)
def test_what_luigi_cfg_cannot_say_ends_the_command_in_one_sentence_with_the_nearest_name(tmp_path, text, told):
    (tmp_path / "luigi.cfg").write_text(text)
    ended = run_luigi(tmp_path, "Downsample", "--ffi", "none.fits", "--local-scheduler")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith(told) and ended.stderr.count("\n") == 1


def test_a_program_of_ones_own_gets_the_error_of_an_unknown_setting_and_can_handle_it(tmp_path):
    (tmp_path / "luigi.cfg").write_text("[syndiff]\npsf_sgima = 40\n")
    program = (
        "import syndiff_tasks\ntry: syndiff_tasks.use_shipped_settings()\nexcept ValueError as error: print(error)"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ended.stdout.startswith("[syndiff] psf_sgima in luigi.cfg: no such setting. Did you mean psf_sigma?")


def test_sections_of_luigi_and_of_others_are_nobodys_business(tmp_path):
    (tmp_path / "luigi.cfg").write_text("[smtp]\nhost = a\n[MapFFI]\nroi = 1,2,3,4\n[hadoop]\n[my_own]\nx = 1\n")
    ended = run_luigi(tmp_path, "MapFFI", "--help")
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    "text, told", [("ps1_archive = 3", "3"), ("", "8"), ("ps1_archive = 0", "[resources] ps1_archive: 0 is not within")]
)
def test_the_downloads_at_once_are_those_that_luigi_allows(tmp_path, text, told):
    (tmp_path / "luigi.cfg").write_text(f"[resources]\n{text}\n")
    program = "from syndiff_tasks import config; print(config.downloads_at_once())"
    ended = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert told in (ended.stdout or ended.stderr)


def test_help_of_a_task_names_its_parameters_and_the_settings(tmp_path):
    said = run_luigi(tmp_path, "Downsample", "--help").stdout
    for option in ("--ffi", "--roi", "--target", "--multi-offset-array", "--psf-sigma", "--syndiff-data-root"):
        assert option in said
