"""What luigi.cfg may set: name, type, unit and meaning of each setting of ``[syndiff]``.

The values are in ``luigi.cfg``, none are here: the copy that comes with the package holds where the user's own files
(``./luigi.cfg``, the one that ``LUIGI_CONFIG_PATH`` names) do not set a value.
"""

import contextlib
import difflib
import math
import operator
import os
from configparser import ConfigParser, InterpolationError
from configparser import Error as ConfigError
from pathlib import Path
from typing import NamedTuple

import luigi
from luigi.cmdline_parser import CmdlineParser
from luigi.configuration import get_config
from luigi.parameter import ParameterException

from . import paths, sky_target
from .pixels.mask import bits_named

SHIPPED = Path(__file__).with_name("luigi.cfg")

# The files that Luigi reads, the later before the earlier (its documentation, "Configuration"); LUIGI_CONFIG_PATH last.
FILES_OF_LUIGI = ("/etc/luigi/client.cfg", "/etc/luigi/luigi.cfg", "client.cfg", "luigi.cfg")
CONFIG_PATH = "LUIGI_CONFIG_PATH"

BANDS = ("r", "i", "z", "y")


class _Readable(luigi.Parameter):
    """A parameter whose value may be given as text in Python too, as it is on the command line."""

    def normalize(self, value):
        """Return the value, which `parse` has read if it was text."""
        return self.parse(value) if isinstance(value, str) else value


class Weights(_Readable):
    """Weights of the PS1 bands, ``r=0.238, i=0.344, …``."""

    def parse(self, text):
        """Return a tuple of (band, weight).

        Raises
        ------
        ValueError
            If a band is unknown, named twice, or its weight is not a positive number.
        """
        weights = {}
        for item in text.split(","):
            band, _, value = (part.strip() for part in item.partition("="))
            if band not in BANDS or band in weights:
                raise ValueError(
                    f"weights: {item.strip()!r} in {text!r}; give bands of r, i, z, y once each, band=weight"
                )
            weights[band] = _number("weights", value)
            if not weights[band] > 0:
                raise ValueError(f"weights: {item.strip()!r} must be positive; leave the band out to do without it")
        return tuple((band, weights[band]) for band in BANDS if band in weights)

    def serialize(self, weights):
        """Return the text that `parse` reads."""
        return ", ".join(f"{band}={weight!r}" for band, weight in weights)


class Places(_Readable):
    """A comma separated list of URLs or folders."""

    def parse(self, text):
        """Return a tuple of places, without the empty ones."""
        return tuple(place.strip() for place in text.split(",") if place.strip())

    def serialize(self, places):
        """Return the text that `parse` reads."""
        return ", ".join(places)


class Bits(_Readable):
    """A comma separated list of PS1 mask bits, or nothing.

    Parameters
    ----------
    name : str
        What error messages call it.
    **keywords
        As `luigi.Parameter` takes them.
    """

    def __init__(self, name="ignore_mask_bits", **keywords):
        super().__init__(**keywords)
        self.name = name

    def parse(self, text):
        """Return the bits as a sorted tuple.

        Raises
        ------
        ValueError
            If one is not a number in 0..15, a name or a hexadecimal value of PS1 mask bits.
        """
        bits = set()
        for word in filter(None, map(str.strip, text.split(","))):
            try:
                bits |= bits_named(word)
            except ValueError as error:
                raise ValueError(
                    f"{self.name}: {word} in {text!r}; PS1 masks have bits 0 to 15, given as numbers, names (STARCORE) "
                    "or values (0x1000)"
                ) from error
        return tuple(sorted(bits))

    def normalize(self, bits):
        """Return the bits as a sorted tuple, from text or from a sequence of numbers and names."""
        return self.parse(bits if isinstance(bits, str) else ",".join(map(str, bits)))

    def serialize(self, bits):
        """Return the text that `parse` reads."""
        return ",".join(str(bit) for bit in bits)


class Auto(NamedTuple):
    """Offsets that follow from the pointing of all FFIs of a CCD, to within so many TESS pixels."""

    within: float


class Offsets(_Readable):
    """Pointing offsets, ``dx,dy,dx,dy,…`` in TESS pixels, or ``auto:0.01``."""

    def parse(self, text):
        """Return a tuple of (dx, dy), each pair once, or `Auto`.

        Raises
        ------
        ValueError
            If the text does not hold pairs of finite numbers, nor ``auto:`` and a number above 0.
        """
        if text.startswith("auto:"):
            within = _number("multi_offset_array", text.removeprefix("auto:").strip())
            if not 0 < within < math.inf:
                raise ValueError(
                    f"multi_offset_array: {text!r}; give TESS pixels above 0 behind auto:, as in auto:0.01"
                )
            return Auto(within)
        numbers = [_number("multi_offset_array", part.strip()) for part in text.split(",")]
        if len(numbers) % 2:
            raise ValueError(f"multi_offset_array: {text!r} has {len(numbers)} numbers; give pairs dx,dy,dx,dy,…")
        if not all(math.isfinite(number) for number in numbers):
            raise ValueError(f"multi_offset_array: {text!r} has a number that is not finite")
        # Adding 0.0 makes 0.0 of -0.0: they are one offset.
        pairs = zip(numbers[::2], numbers[1::2], strict=True)
        return tuple(dict.fromkeys((dx + 0.0, dy + 0.0) for dx, dy in pairs))

    def normalize(self, offsets):
        """Return the offsets as `parse` does, from text or from pairs of numbers."""
        if isinstance(offsets, Auto):
            return offsets
        return self.parse(offsets if isinstance(offsets, str) else ",".join(f"{n}" for pair in offsets for n in pair))

    def serialize(self, offsets):
        """Return the text that `parse` reads."""
        if isinstance(offsets, Auto):
            return f"auto:{offsets.within!r}"
        return ",".join(repr(number) for offset in offsets for number in offset)


class SkyTarget(_Readable):
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


class Detectors(_Readable):
    """Numbers of cameras, or of CCDs: a comma separated list of 1 to 4."""

    def parse(self, text):
        """Return the numbers as a sorted tuple.

        Raises
        ------
        ValueError
            If one is not 1 to 4, or there is none.
        """
        numbers = {part.strip() for part in text.split(",") if part.strip()}
        if not numbers or not numbers <= {"1", "2", "3", "4"}:
            raise ValueError(f"cameras and CCDs are numbered 1 to 4, got {text!r}; give a list such as 1,3")
        return tuple(sorted(map(int, numbers)))

    def serialize(self, numbers):
        """Return the text that `parse` reads."""
        return ",".join(map(str, numbers))


class Number(luigi.NumericalParameter):
    """A finite number within limits.

    Parameters
    ----------
    name : str
        What error messages call it.
    low, high : float
        The limits, both allowed.
    description : str
    **keywords
        As `luigi.Parameter` takes them.
    """

    kind, called = float, "a number"

    def __init__(self, name, low, high, description="", **keywords):
        super().__init__(var_type=self.kind, min_value=low, max_value=high, right_op=operator.le, **keywords)
        self.name, self.low, self.high = name, low, high
        self.description = f"{description} ({low:g} to {high:g})"

    def parse(self, text):
        """Return the number.

        Raises
        ------
        ValueError
            If the text is not such a number, or one outside the limits.
        """
        value = _number(self.name, text, self.kind, self.called)
        if not self.low <= value <= self.high:
            raise ValueError(f"{self.name}: {text} is not within {self.low:g} to {self.high:g}")
        return value

    def normalize(self, value):
        """Return the number, from text or from Python, checked alike."""
        return self.parse(value)


class Whole(Number):
    """A whole number within limits, declared as a `Number` is."""

    kind, called = int, "a whole number"


class Choice(luigi.ChoiceParameter):
    """One of a few words or numbers.

    Parameters
    ----------
    name : str
        What error messages call it.
    choices : list of str or of int
    description : str
    **keywords
        As `luigi.Parameter` takes them.
    """

    def __init__(self, name, choices, description="", **keywords):
        super().__init__(choices=choices, var_type=type(choices[0]), **keywords)
        self.name, self.among = name, {str(choice): choice for choice in choices}
        # Luigi appends the choices in a different order in each run.
        self.description = f"{description} ({', '.join(self.among)})"

    def parse(self, text):
        """Return the choice.

        Raises
        ------
        ValueError
            If the text is not one of them.
        """
        if str(text) not in self.among:
            raise ValueError(f"{self.name}: {text!r} is not one of {', '.join(self.among)}")
        return self.among[str(text)]

    def normalize(self, value):
        """Return the choice, from text or from Python, checked alike."""
        return self.parse(value)


class Switch(luigi.BoolParameter):
    """``true`` or ``false``, which must be given.

    Parameters
    ----------
    name : str
        What error messages call it.
    **keywords
        As `luigi.Parameter` takes them.
    """

    def __init__(self, name, **keywords):
        super().__init__(parsing=luigi.BoolParameter.EXPLICIT_PARSING, **keywords)
        self.name = name

    def parse(self, text):
        """Return whether it is true.

        Raises
        ------
        ValueError
            If the text is neither ``true`` nor ``false``.
        """
        try:
            return super().parse(text)
        except ValueError as error:
            raise ValueError(f"{self.name}: {text!r} is neither true nor false") from error

    def normalize(self, value):
        """Return whether it is true, from text or from Python, checked alike."""
        return self.parse(value)


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


def _number(name, text, kind=float, called="a number"):
    try:
        return kind(text)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name}: {text!r} is not {called}") from error


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
