"""What an option or a setting may be: kinds of Luigi parameters that name a bad value and the cure."""

import math
import operator
from typing import NamedTuple

import luigi

from .pixels.mask import bits_named

BANDS = ("r", "i", "z", "y")


class Readable(luigi.Parameter):
    """A parameter whose value may be given as text in Python too, as it is on the command line."""

    def normalize(self, value):
        """Return the value, which `parse` has read if it was text."""
        return self.parse(value) if isinstance(value, str) else value


class Weights(Readable):
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


class Places(Readable):
    """A comma separated list of URLs or folders."""

    def parse(self, text):
        """Return a tuple of places, without the empty ones."""
        return tuple(place.strip() for place in text.split(",") if place.strip())

    def serialize(self, places):
        """Return the text that `parse` reads."""
        return ", ".join(places)


class Bits(Readable):
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


class Offsets(Readable):
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


class Detectors(Readable):
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


def _number(name, text, kind=float, called="a number"):
    try:
        return kind(text)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name}: {text!r} is not {called}") from error
