"""What luigi.cfg may set: name, type, unit and meaning of each setting of ``[syndiff]``.

The values are in ``luigi.cfg``, none are here: the copy that comes with the package holds where the user's own files
(``./luigi.cfg``, the one that ``LUIGI_CONFIG_PATH`` names) do not set a value.
"""

import contextlib
import difflib
import os
from configparser import ConfigParser, InterpolationError
from configparser import Error as ConfigError
from pathlib import Path

import luigi
from luigi.cmdline_parser import CmdlineParser
from luigi.configuration import get_config
from luigi.parameter import ParameterException

from . import paths, sky_target
from .parameters import Bits, Choice, Number, Places, Readable, Switch, Weights, Whole

SHIPPED = Path(__file__).with_name("luigi.cfg")

# The files that Luigi reads, the later before the earlier (its documentation, "Configuration"); LUIGI_CONFIG_PATH last.
FILES_OF_LUIGI = ("/etc/luigi/client.cfg", "/etc/luigi/luigi.cfg", "client.cfg", "luigi.cfg")
CONFIG_PATH = "LUIGI_CONFIG_PATH"


class SkyTarget(Readable):
    """A position on the sky as people write it, or a name; carried as ``RA Dec`` in degrees, empty for none."""

    def parse(self, text):
        """Return the position as text; names are looked up, and kept in the data root.

        Raises
        ------
        ValueError
            If the text is neither a position nor a name that a service knows, or the service does not answer.
        """
        return self.normalize(text)

    def normalize(self, target):
        """Return the position as text, from text, a pair of numbers or a `SkyCoord`."""
        if isinstance(target, str) and not target.strip():
            return ""
        return sky_target.as_text(sky_target.position_of(target, _resolve))


def _resolve(name):
    # astropy takes a second, which a target in degrees need not wait for.
    from .io import name_resolver

    return name_resolver.resolve(name, paths.resolved_names(syndiff().data_root), syndiff().tic_lookup)


class _OfSetting(luigi.Parameter):
    """A task's parameter that has the value of the setting of the same name unless it is given another one."""

    def has_task_value(self, task_name, param_name):
        """Return True: the setting always has a value."""
        return True

    def task_value(self, task_name, param_name):
        """Return the task's own value, else that of the setting."""
        if super().has_task_value(task_name, param_name):
            return super().task_value(task_name, param_name)
        return getattr(syndiff(), param_name)


class NumberOfSetting(_OfSetting, Number):
    """A `Number` whose default is the setting of the same name."""


class BitsOfSetting(_OfSetting, Bits):
    """`Bits` whose default is the setting of the same name."""


def _read(path):
    """Return the sections of a file of settings, names and values as they are written."""
    parser = ConfigParser(interpolation=None)
    parser.optionxform = str
    parser.read(path, encoding="utf-8")
    return parser


_SHIPPED = _read(SHIPPED)


def _setting(kind, name, *limits, description):
    """Declare a setting: the default is its value in the packaged luigi.cfg."""
    named = (name,) if issubclass(kind, (Number, Choice, Switch, Bits)) else ()
    return kind(*named, *limits, default=_SHIPPED["syndiff"][name], description=description, always_in_help=True)


class syndiff(luigi.Config):  # noqa: N801 - Luigi makes the section's name of the class's
    """Settings of syndiff_tasks, section ``[syndiff]`` of luigi.cfg."""

    data_root = _setting(luigi.Parameter, "data_root", description="folder under which every product lies")
    archive = _setting(Places, "archive", description="PS1 base URLs or folders in the archive's layout, tried in turn")
    download_tries = _setting(Whole, "download_tries", 1, 1000, description="tries of a file at one mirror")
    forbidden_is_absent = _setting(Switch, "forbidden_is_absent", description="status 403 means: no such file (S3)")
    connect_timeout = _setting(Number, "connect_timeout", 0.1, 3600.0, description="seconds to connect")
    read_timeout = _setting(Number, "read_timeout", 0.1, 3600.0, description="seconds of silence allowed")
    weights = _setting(Weights, "weights", description="weights of the bands, e.g. r=0.238, i=0.344, z=0.283, y=0.135")
    background = _setting(
        Choice, "background", ["segment", "mesh", "none"], description="what is done with the sky of a skycell"
    )
    bin = _setting(Choice, "bin", [1, 2, 4, 8], description="native pixels along one side of a block")
    reject_mask_bits = _setting(Bits, "reject_mask_bits", description="PS1 mask bits that blank a pixel of a band")
    ignore_mask_bits = _setting(Bits, "ignore_mask_bits", description="default of --ignore-mask-bits")
    suspect_mask_bits = _setting(Bits, "suspect_mask_bits", description="PS1 mask bits that flag a pixel SUSPECT_PS1")
    ignored_pixels = _setting(
        Choice, "ignored_pixels", ["flag", "exclude"], description="what happens to pixels with an ignored mask bit"
    )
    psf = _setting(Choice, "psf", ["gauss", "prf", "none"], description="the point spread function of the template")
    psf_sigma = _setting(
        Number, "psf_sigma", 0.0, 400.0, description="default of --psf-sigma [native PS1 px of 0.25 arcsec]"
    )
    prf_folder = _setting(luigi.Parameter, "prf_folder", description="folder of SPOC PRF files, for psf = prf")
    units = _setting(Choice, "units", ["counts", "electrons"], description="counts/s or electrons/s (AB 25, AB 20.812)")
    oversampling = _setting(Choice, "oversampling", [1, 2, 4], description="template pixels along one TESS pixel")
    min_coverage = _setting(Number, "min_coverage", 0.0, 1.0, description="below this fraction of data a pixel is NaN")
    pixel_maps = _setting(Switch, "pixel_maps", description="write the maps of every skycell")
    keep_raw = _setting(Switch, "keep_raw", description="keep a skycell's raw pixels once it is combined")
    require_all_bands = _setting(Switch, "require_all_bands", description="stop where a band is missing")
    star_catalog = _setting(
        luigi.Parameter, "star_catalog", description="CSV of stars (Gaia DR3 columns), gaia, or empty"
    )
    saturated_stars = _setting(
        Choice,
        "saturated_stars",
        ["auto", "repair", "remove", "keep"],
        description="what is done with saturated stars; auto repairs where there is a catalog",
    )
    missing_wcs = _setting(
        Choice, "missing_wcs", ["skip", "interpolate"], description="offsets of FFIs without a WCS, or flagged"
    )
    tic_lookup = _setting(luigi.Parameter, "tic_lookup", description="MAST service that finds TIC numbers (--target)")
    ccds_at_once = _setting(Whole, "ccds_at_once", 1, 16, description="CCDs of a sector that are worked on at once")
    difference_images = _setting(
        Switch, "difference_images", description="write the images of a difference of a whole CCD"
    )
    pictures = _setting(Switch, "pictures", description="draw a picture and a page")


def readable_data_root():
    """Return the data root, None where the settings cannot be read."""
    try:
        return syndiff().data_root
    except (ValueError, ParameterException):
        return None


def downloads_at_once():
    """Return how many skycells may be downloaded at once, over all workers: ``[resources] ps1_archive``.

    Raises
    ------
    ValueError
        If it is not a whole number above 0.
    """
    text = get_config().get("resources", "ps1_archive", _SHIPPED["resources"]["ps1_archive"])
    return Whole("[resources] ps1_archive", 1, 1000).parse(text)


class SettingsError(ValueError):
    """A file of settings is missing, or has an unknown section or key, or a value that cannot be read."""


def settings_files():
    """Return the files that Luigi merges, those that exist, the later before the earlier.

    Returns
    -------
    files : list of str

    Raises
    ------
    SettingsError
        If ``LUIGI_CONFIG_PATH`` names no file.
    """
    files = [path for path in FILES_OF_LUIGI if os.path.exists(path)]
    if named := os.environ.get(CONFIG_PATH):
        if not os.path.isfile(named):
            raise SettingsError(f"{CONFIG_PATH} = {named}: no such file; correct the path or unset the variable")
        files.append(named)
    return files


def use_shipped_settings():
    """Put the settings that come with the package beneath those of the user, in the configuration of this process.

    A command does so when it begins. A program of your own that runs Luigi calls it once to have ``[worker]`` and the
    other sections of the packaged ``luigi.cfg``.

    Raises
    ------
    SettingsError
        If a file of settings cannot be used.
    """
    written = _written(settings_files())
    _refuse_unknown(written)
    config = get_config()
    for section in _SHIPPED.sections():
        for key, value in _SHIPPED[section].items():
            place = None
            if (section, key) in written:
                # Luigi knows the keys with dashes too, but not beside the packaged ones.
                value, place = written[section, key]
            elif config.has_option(section, key):
                continue
            try:
                config.set(section, key, value)
                config.get(section, key)
            except (ValueError, InterpolationError) as error:
                raise SettingsError(
                    f"[{section}] {key} = {value} in {place}: a percent sign must be written %%, and an environment "
                    f"variable in ${{}} must exist ({' '.join(str(error).split())})"
                ) from error


# In a program of somebody's own, and in a notebook: one worker runs its tasks in the same process, and the signals are
# the program's.
_IN_PROCESS = {
    ("worker", "force_multiprocessing"): "false",
    ("worker", "timeout"): "0",
    ("worker", "no_install_shutdown_handler"): "true",
}


@contextlib.contextmanager
def settings_for_a_while(values):
    """Have settings of Python hold in a block, with the packaged settings beneath; afterwards all is as it was.

    Parameters
    ----------
    values : dict
        Values by name, as text or as what `syndiff` has.

    Yields
    ------
    settings : syndiff

    Raises
    ------
    ValueError
        If there is no such setting, or its value cannot be read.
    """
    parameters, texts = dict(syndiff.get_params()), {}
    for name, value in values.items():
        if name not in parameters:
            raise ValueError(f"{name}: no such option. {did_you_mean(name, parameters)}".strip())
        value = os.fspath(value) if isinstance(value, os.PathLike) else value
        texts["syndiff", name] = parameters[name].serialize(parameters[name].normalize(value)).replace("%", "%%")
    config = get_config()
    touched = {(section, key) for section in _SHIPPED.sections() for key in _SHIPPED[section]} | set(_IN_PROCESS)
    before = {
        (section, key): config.get(section, key, raw=True)
        for section, key in touched
        if ConfigParser.has_option(config, section, key)
    }
    try:
        use_shipped_settings()
        for (section, key), text in (_IN_PROCESS | texts).items():
            config.set(section, key, text)
        yield syndiff()
    finally:
        for section, key in touched:
            if (section, key) in before:
                config.set(section, key, before[section, key])
            elif config.has_section(section):
                config.remove_option(section, key)


def _written(files):
    """Return value and file of each key that files set, by section and key; dashes in keys of ours are underscores."""
    written = {}
    for path in files:
        try:
            parser = _read(path)
        except (ConfigError, UnicodeDecodeError) as error:
            raise SettingsError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
        for section in parser.sections():
            for key in set(parser[section]) - set(parser.defaults()):
                name = key.replace("-", "_")
                ours = section == "syndiff" or (section in _SHIPPED and name in _SHIPPED[section])
                written[section, name if ours else key] = parser[section][key], path
            written.setdefault((section, ""), ("", path))
    return written


def _refuse_unknown(written):
    known = sorted(name for name, _ in syndiff.get_params())
    for (section, key), (_, path) in written.items():
        if section == "syndiff" and key and key not in known:
            meant, settings = did_you_mean(key, known), f"The settings are {', '.join(known)}."
            raise SettingsError(f"[syndiff] {key} in {path}: no such setting. {meant}{settings}")
        # Luigi and other packages have sections of their own; one that reads like one of ours would be ignored.
        if section not in _SHIPPED and (meant := did_you_mean(section, _SHIPPED.sections(), 0.85)):
            raise SettingsError(f"[{section}] in {path}: no such section. {meant}Correct its name.")


def did_you_mean(word, words, likeness=0.6):
    """Return ``Did you mean …? `` with the nearest of some words, empty where none is near.

    Parameters
    ----------
    word : str
    words : sequence of str
    likeness : float
        0..1, the least that counts as near (`difflib.get_close_matches`).
    """
    by_lower_case = {one.lower(): one for one in words}
    near = difflib.get_close_matches(word.lower(), by_lower_case, 1, likeness)
    return f"Did you mean {by_lower_case[near[0]]}? " if near else ""


def refuse_empty_options():
    """Refuse options of the command line that have an empty value, as ``--roi "$ROI"`` gives where ROI is not set.

    Luigi drops them, so that the default would be taken without a word.

    Raises
    ------
    ValueError
        Naming them.
    """
    parser = CmdlineParser.get_instance()
    empty = [name for name, value in vars(parser.known_args).items() if value == ""] if parser else []
    if empty:
        options = ", ".join(f"--{name.replace('_', '-')} ''" for name in empty)
        raise ValueError(f"{options}: the value is empty; give one, or leave the option out to have the default")
