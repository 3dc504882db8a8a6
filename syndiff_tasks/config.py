"""What luigi.cfg may say: name, type, unit and meaning of each setting of ``[syndiff]``.

The values stand in ``luigi.cfg``, none here: the copy that comes with the package holds where the user's own file
(``./luigi.cfg``, or the one that ``LUIGI_CONFIG_PATH`` names) is silent.
"""

import argparse
import difflib
import math
import os
from configparser import ConfigParser
from pathlib import Path
from typing import NamedTuple

import luigi
from luigi.cmdline_parser import CmdlineParser
from luigi.configuration import LuigiConfigParser, get_config
from luigi.parameter import ParameterException

SHIPPED = Path(__file__).with_name("luigi.cfg")

BANDS = ("r", "i", "z", "y")


class Weights(luigi.Parameter):
    """Weights of the PS1 bands, ``r=0.238, i=0.344, …``."""

    def parse(self, text):
        """Return a tuple of (band, weight).

        Raises
        ------
        ValueError
            If a band is unknown, named twice, or its weight is no positive number.
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


class Places(luigi.Parameter):
    """A comma separated list of URLs or folders."""

    def parse(self, text):
        """Return a tuple of places, without the empty ones."""
        return tuple(place.strip() for place in text.split(",") if place.strip())

    def serialize(self, places):
        """Return the text that `parse` reads."""
        return ", ".join(places)


class Bits(luigi.Parameter):
    """A comma separated list of bit numbers 0..15, or nothing."""

    def parse(self, text):
        """Return the bits as a sorted tuple.

        Raises
        ------
        ValueError
            If one is no whole number in 0..15.
        """
        bits = {part.strip() for part in text.split(",") if part.strip()}
        wrong = sorted(bit for bit in bits if not (bit.isdecimal() and int(bit) <= 15))
        if wrong:
            raise ValueError(f"ignore_mask_bits: {', '.join(wrong)} in {text!r}; PS1 masks have bits 0 to 15")
        return tuple(sorted({int(bit) for bit in bits}))

    def serialize(self, bits):
        """Return the text that `parse` reads."""
        return ",".join(str(bit) for bit in bits)


class Auto(NamedTuple):
    """Offsets that follow from the pointing of all FFIs of a CCD, to within so many TESS pixels."""

    within: float


class Offsets(luigi.Parameter):
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
            raise ValueError(f"multi_offset_array: {text!r} holds a number that is not finite")
        # Adding 0.0 makes 0.0 of -0.0: they are one offset.
        pairs = zip(numbers[::2], numbers[1::2], strict=True)
        return tuple(dict.fromkeys((dx + 0.0, dy + 0.0) for dx, dy in pairs))

    def serialize(self, offsets):
        """Return the text that `parse` reads."""
        if isinstance(offsets, Auto):
            return f"auto:{offsets.within!r}"
        return ",".join(repr(number) for offset in offsets for number in offset)


class Detectors(luigi.Parameter):
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


class Number(luigi.Parameter):
    """A finite number within limits.

    Parameters
    ----------
    name : str
        What error messages call it.
    low, high : float
        The limits, both allowed.
    **keywords
        As `luigi.Parameter` takes them.
    """

    kind, called = float, "a number"

    def __init__(self, name, low, high, **keywords):
        super().__init__(**keywords)
        self.name, self.low, self.high = name, low, high

    def parse(self, text):
        """Return the number.

        Raises
        ------
        ValueError
            If the text is no such number, or one outside the limits.
        """
        value = _number(self.name, text, self.kind, self.called)
        if not self.low <= value <= self.high:
            raise ValueError(f"{self.name}: {text} is not within {self.low:g} to {self.high:g}")
        return value


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
    **keywords
        As `luigi.Parameter` takes them.
    """

    def __init__(self, name, choices, **keywords):
        super().__init__(choices=choices, var_type=type(choices[0]), **keywords)
        self.name, self.among = name, {str(choice): choice for choice in choices}

    def parse(self, text):
        """Return the choice.

        Raises
        ------
        ValueError
            If the text is none of them.
        """
        if text not in self.among:
            raise ValueError(f"{self.name}: {text!r} is none of {', '.join(self.among)}")
        return self.among[text]


class Switch(luigi.BoolParameter):
    """True or false, to be said.

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


def _number(name, text, kind=float, called="a number"):
    try:
        return kind(text)
    except ValueError as error:
        raise ValueError(f"{name}: {text!r} is not {called}") from error


class syndiff(luigi.Config):  # noqa: N801 - Luigi makes the section's name of the class's
    """Settings of syndiff_tasks, section ``[syndiff]`` of luigi.cfg."""

    data_root = luigi.Parameter(always_in_help=True, description="folder under which every product lies")
    archive = Places(always_in_help=True, description="PS1 base URLs or folders in the archive's layout, tried in turn")
    download_tries = Whole("download_tries", 1, 1000, always_in_help=True, description="tries of a file at one mirror")
    connect_timeout = Number("connect_timeout", 0.1, 3600.0, always_in_help=True, description="seconds to connect")
    read_timeout = Number("read_timeout", 0.1, 3600.0, always_in_help=True, description="seconds of silence allowed")
    weights = Weights(always_in_help=True, description="weights of the bands, e.g. r=0.238, i=0.344, z=0.283, y=0.135")
    background = Choice(
        "background",
        ["segment", "mesh", "none"],
        always_in_help=True,
        description="what is done with the sky of a skycell",
    )
    bin = Choice("bin", [1, 2, 4, 8], always_in_help=True, description="native pixels along one side of a block")
    ignore_mask_bits = Bits(description="default of --ignore-mask-bits")
    ignored_pixels = Choice(
        "ignored_pixels",
        ["flag", "exclude"],
        always_in_help=True,
        description="what happens to pixels with an ignored mask bit",
    )
    psf = Choice(
        "psf", ["gauss", "prf", "none"], always_in_help=True, description="the point spread function of the template"
    )
    psf_sigma = Number("psf_sigma", 0.0, 400.0, description="default of --psf-sigma [native PS1 px of 0.25 arcsec]")
    prf_folder = luigi.Parameter(always_in_help=True, description="folder of SPOC PRF files, for psf = prf")
    units = Choice(
        "units", ["counts", "electrons"], always_in_help=True, description="counts/s (ZP 25) or electrons/s (ZP 20.44)"
    )
    oversampling = Choice(
        "oversampling", [1, 2, 4], always_in_help=True, description="template pixels along one TESS pixel"
    )
    min_coverage = Number(
        "min_coverage", 0.0, 1.0, always_in_help=True, description="below this fraction of data a pixel is NaN"
    )
    pixel_maps = Switch("pixel_maps", always_in_help=True, description="write the maps of every skycell")
    keep_raw = Switch("keep_raw", always_in_help=True, description="keep a skycell's raw pixels once it is combined")
    require_all_bands = Switch("require_all_bands", always_in_help=True, description="stop where a band is missing")
    recheck_absent_days = Number(
        "recheck_absent_days",
        0.0,
        36500.0,
        always_in_help=True,
        description="days after which absent files are asked for again",
    )
    star_catalog = luigi.Parameter(always_in_help=True, description="CSV of stars (Gaia DR3 columns), gaia, or empty")
    saturated_stars = Choice(
        "saturated_stars",
        ["auto", "repair", "remove", "keep"],
        always_in_help=True,
        description="what is done with saturated stars; auto repairs where there is a catalogue",
    )
    ccds_at_once = Whole(
        "ccds_at_once", 1, 16, always_in_help=True, description="CCDs of a sector that are worked on at once"
    )
    pictures = Switch("pictures", always_in_help=True, description="draw a picture and a page")


def setting(name):
    """Return the `config_path` that gives a task's parameter the value of ``[syndiff] name`` for its default."""
    return {"section": "syndiff", "name": name}


def readable_data_root():
    """Return the data root, None where the settings cannot be read."""
    try:
        return syndiff().data_root
    except (ValueError, ParameterException):
        return None


def data_root_of(arguments):
    """Return the data root of a command of Luigi, which also holds when Luigi has forgotten its command line.

    Parameters
    ----------
    arguments : list of str
        The command line without the program's name.
    """
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--syndiff-data-root", default=get_config().get("syndiff", "data_root"))
    return parser.parse_known_args(arguments)[0].syndiff_data_root


def downloads_at_once():
    """Return how many skycells may be downloaded at once, over all workers: ``[resources] ps1_archive``.

    Raises
    ------
    ValueError
        If that is no number above 0.
    """
    return Whole("[resources] ps1_archive", 1, 1000).parse(get_config().get("resources", "ps1_archive"))


class UnknownSetting(ValueError):
    """The user's luigi.cfg has a section or a key that there is not."""


def use_shipped_settings():
    """Put the settings that come with the package beneath the user's own luigi.cfg.

    Raises
    ------
    UnknownSetting
        If ``[syndiff]`` of the user's luigi.cfg has a key that is none of ours, or a section has nearly the name of one
        of ours.
    """
    if str(SHIPPED) not in LuigiConfigParser._config_paths:
        LuigiConfigParser._config_paths.insert(0, str(SHIPPED))
    LuigiConfigParser.reload()
    files = ", ".join(path for path in LuigiConfigParser._config_paths[1:] if os.path.exists(path))
    known = sorted(name for name, _ in syndiff.get_params())
    for key in get_config()["syndiff"]:
        name = key.replace("-", "_")
        if name not in known:
            meant, settings = did_you_mean(name, known), f"The settings are {', '.join(known)}."
            raise UnknownSetting(f"[syndiff] {name} in {files}: no such setting. {meant}{settings}")
    ours = ConfigParser(interpolation=None)
    ours.read(SHIPPED, encoding="utf-8")
    # Luigi and other packages have sections of their own; what reads like one of ours would be passed over in silence.
    for section in set(get_config().sections()) - set(ours.sections()):
        if meant := did_you_mean(section, ours.sections(), 0.85):
            raise UnknownSetting(f"[{section}] in {files}: no such section. {meant}Correct its name.")


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
