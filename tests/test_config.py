import contextlib
import math
import os
import re
import subprocess
import sys

import luigi
import pytest
from hypothesis import given
from hypothesis import strategies as st
from luigi.cmdline_parser import CmdlineParser
from luigi.configuration import get_config

from syndiff_tasks.command_line import improve
from syndiff_tasks.config import SHIPPED, SettingsError, settings_files, settings_for_a_while, syndiff
from syndiff_tasks.parameters import Bits, Number, Offsets, Places, Weights
from syndiff_tasks.tasks import CombineBands, Convolve

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


def test_errors_of_numbers_choices_and_switches_name_their_parameter():
    import syndiff_tasks

    classes = [getattr(syndiff_tasks, name) for name in (*syndiff_tasks.TASKS, "syndiff")]
    named = {(p.name, name) for task in classes for name, p in task.get_params() if hasattr(p, "name")}
    assert len(named) > 20 and all(told == name for told, name in named)
    unnamed = {type(p).__name__ for task in classes for _, p in task.get_params() if not hasattr(p, "name")}
    assert unnamed <= {
        "Parameter",
        "Overwrite",
        "RunBegin",
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
def test_an_unknown_name_in_luigi_cfg_ends_the_command_with_the_nearest_name(tmp_path, text, told):
    (tmp_path / "luigi.cfg").write_text(text)
    ended = run_luigi(tmp_path, "Downsample", "--ffi", "none.fits", "--local-scheduler")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith(told) and ended.stderr.count("\n") == 1


def test_a_program_that_uses_the_package_can_catch_an_unknown_setting(tmp_path):
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


# --- files of settings ------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder for a luigi.cfg, in which the process is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LUIGI_CONFIG_PATH", raising=False)
    return tmp_path


def test_keys_with_dashes_count_as_those_with_underscores_do(folder):
    (folder / "luigi.cfg").write_text(
        "[syndiff]\npsf-sigma = 53\n[scheduler]\nretry-count = 7\n[worker]\ntimeout = 9\n"
    )
    with settings_for_a_while({}) as settings:
        assert settings.psf_sigma == 53 and get_config().get("scheduler", "retry_count") == "7"


def test_the_file_of_luigi_config_path_goes_over_the_one_in_the_folder(folder, monkeypatch):
    (folder / "luigi.cfg").write_text("[syndiff]\npsf-sigma = 53\nunits = electrons\n")
    (folder / "own.cfg").write_text("[syndiff]\npsf_sigma = 41\n")
    monkeypatch.setenv("LUIGI_CONFIG_PATH", str(folder / "own.cfg"))
    with settings_for_a_while({}) as settings:
        assert (settings.psf_sigma, settings.units) == (41, "electrons")


def test_luigi_config_path_must_name_a_file(folder, monkeypatch):
    monkeypatch.setenv("LUIGI_CONFIG_PATH", "/none/luigi.cfg")
    with pytest.raises(SettingsError, match="^LUIGI_CONFIG_PATH = /none/luigi.cfg: no such file; correct"):
        settings_files()


@pytest.mark.parametrize(
    "text, told",
    [
        ("[syndiff]\ndata_root = /data/50%", "[syndiff] data_root = /data/50% in luigi.cfg: a percent sign must be"),
        ("[syndiff]\ndata-root = ${NONE}/data", "[syndiff] data_root = ${NONE}/data in luigi.cfg: a percent sign must"),
        ("[scheduler]\nstate_path = %s", "[scheduler] state_path = %s in luigi.cfg: a percent sign must be written %%"),
        ("psf_sigma = 40", "luigi.cfg cannot be read: File contains no section headers."),
        ("[syndiff]\nbin = 4\nbin = 8", "luigi.cfg cannot be read: While reading from 'luigi.cfg' [line  3]: option"),
    ],
)
def test_a_value_or_file_that_cannot_be_read_is_named(folder, text, told):
    (folder / "luigi.cfg").write_text(f"{text}\n")
    with pytest.raises(SettingsError, match=re.escape(" ".join(told.split()))):
        with settings_for_a_while({}):
            pass


def test_a_percent_sign_written_twice_is_one(folder):
    (folder / "luigi.cfg").write_text("[syndiff]\ndata_root = /data/50%%\n")
    with settings_for_a_while({}) as settings:
        assert settings.data_root == "/data/50%"
    with settings_for_a_while({"data_root": "/data/20%"}) as settings:
        assert settings.data_root == "/data/20%"


def test_the_first_line_of_a_run_names_the_files_that_were_read(tmp_path):
    (tmp_path / "luigi.cfg").write_text("[syndiff]\npsf_sigma = 53\n")
    ended = run_luigi(tmp_path, "MapFFI", "--ffi", "none.fits", "--local-scheduler")
    first = ended.stderr.splitlines()[0]
    assert first == f"INFO: Settings are read from {tmp_path / 'luigi.cfg'}, over {SHIPPED}"


# --- settings on the command line -------------------------------------------------------------------------------------

OTHER = {
    **{"data_root": "/else", "archive": "/a, /b", "download_tries": "2", "connect_timeout": "3.5", "read_timeout": "4"},
    **{"weights": "r=0.5, i=0.5", "background": "mesh", "bin": "2", "ignore_mask_bits": "5,12", "psf": "prf"},
    **{"forbidden_is_absent": "true", "reject_mask_bits": "0,SAT", "suspect_mask_bits": "0x0600"},
    **{
        "ignored_pixels": "exclude",
        "psf_sigma": "46.5",
        "prf_folder": "/prf",
        "units": "electrons",
        "oversampling": "2",
    },
    **{
        "oversampling": "2",
        "min_coverage": "0.25",
        "pixel_maps": "true",
        "keep_raw": "false",
        "require_all_bands": "true",
    },
    **{"star_catalog": "gaia", "saturated_stars": "keep", "ccds_at_once": "4", "missing_wcs": "interpolate"},
    **{"difference_images": "true", "pictures": "false", "tic_lookup": "http://127.0.0.1/mast"},
}


@contextlib.contextmanager
def typed(*options, task="Downsample"):
    """The task of a command line."""
    improve()
    with CmdlineParser.global_instance(["--module", "syndiff_tasks", task, "--ffi", "x", *options]) as parser:
        yield parser.get_task_obj()


@pytest.mark.parametrize("name", [name for name, _ in syndiff.get_params()])
def test_every_setting_counts_when_it_is_given_on_the_command_line(name):
    parameter, given = dict(syndiff.get_params())[name], OTHER.get(name)
    assert given is not None, f"add {name} to OTHER, with a value that is not its default"
    with typed(f"--syndiff-{name.replace('_', '-')}", given) as task:
        assert getattr(syndiff(), name) == parameter.parse(given) != parameter.normalize(parameter._default)
        for one in (task, task.clone(Convolve), CombineBands(skycell="x")):
            assert getattr(one, name, parameter.parse(given)) == parameter.parse(given)


def test_an_option_of_the_task_goes_over_the_setting(folder):
    with typed("--syndiff-psf-sigma", "46.5", "--psf-sigma", "30") as task:
        assert (task.psf_sigma, syndiff().psf_sigma) == (30, 46.5)
    with typed("--syndiff-psf-sigma", "46.5", "--Convolve-psf-sigma", "31") as task:
        assert (task.psf_sigma, Convolve(ffi="x").psf_sigma) == (46.5, 31)


@pytest.mark.parametrize("text", ["-0.3,0.2", "-.5,-1,0,0", "-3,0"])
def test_a_list_that_begins_with_a_negative_number_is_a_value(text):
    with typed("--multi-offset-array", text, "--roi", "-5,0,5,10", "--target", "-0.5 -3") as task:
        assert task.multi_offset_array == Offsets().parse(text)
        assert (task.roi, task.target) == ("-5,0,5,10", "359.5 -3.0")


@pytest.mark.parametrize(
    "option, nearest",
    [
        ("--ffl", "Did you mean --ffi?"),
        ("--psf-sgima", "Did you mean --psf-sigma?"),
        ("--syndiff-dataroot", "Did you mean --syndiff-data-root?"),
        ("--qqqqqq", "The options are shown by --help"),
    ],
)
def test_a_misspelt_option_is_answered_with_the_nearest(capsys, option, nearest):
    with pytest.raises(SystemExit) as ended:
        with typed(option, "1"):
            pass
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith(f"unrecognized arguments: {option} 1. {nearest}\n")


@pytest.mark.parametrize(
    "values, message",
    [
        ({"psf_sigma": "53"}, None),
        ({"psf_sigma": 53}, None),
        ({"psf_sigma": 530}, "psf_sigma: 530 is not within 0 to 400"),
        ({"pictures": "perhaps"}, "pictures: 'perhaps' is neither true nor false"),
        ({"oversampling": 3}, "oversampling: 3 is not one of 1, 2, 4"),
        ({"colour": 3}, "colour: no such option."),
    ],
)
def test_settings_of_python_are_read_and_checked_like_those_of_a_file(folder, values, message):
    if message is None:
        with settings_for_a_while(values) as settings:
            assert settings.psf_sigma == 53
        assert syndiff().psf_sigma != 53
        return
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        with settings_for_a_while(values):
            pass
