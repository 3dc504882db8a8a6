"""Times that travel with a task to all processes and hosts that run it: of a request, and of the begin of a run."""

import datetime
import weakref

import luigi
from luigi.cmdline_parser import CmdlineParser

# The time of each command line: Luigi parses its options anew for each task that it makes.
_commands = weakref.WeakKeyDictionary()


def _now():
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="microseconds")


def _time_of_command():
    """Return the time of the command line that is being run; in a program that builds tasks itself, the time now."""
    command = CmdlineParser.get_instance()
    return _now() if command is None else _commands.setdefault(command, _now())


class Overwrite(luigi.BoolParameter):
    """A request to make a product again: True when given, and from then on the time of the request (UTC, ISO 8601).

    Each request remakes a product once, whatever processes and hosts of the run look at it; a task that is constructed
    with True anew is another request.
    """

    def parse(self, x):
        """Return the time of the request, empty for none.

        Raises
        ------
        ValueError
            If the text is neither true, false, nor a time.
        """
        text = str(x)
        if text.lower() in ("false", ""):
            return ""
        if text.lower() == "true":
            return _time_of_command()
        datetime.datetime.fromisoformat(text)
        return text

    def normalize(self, x):
        """Return the time of the request, empty for none."""
        return self.parse(x)


class RunBegin(luigi.Parameter):
    """The time when a run began (UTC, ISO 8601): that of the task that was constructed without it."""

    def normalize(self, x):
        """Return the time, now where it is empty."""
        return x or _time_of_command()
