"""Plain functions that join the rooms for the tasks: from a skycell's files to templates. None of them knows Luigi.

``chain.plan`` and the others are imported when they are first used (PEP 562): the tasks are declared, and ``--help`` is
shown, without the libraries that take seconds. `process.begin_run` imports them all before Luigi forks.
"""

import importlib
import pkgutil

_MODULES = frozenset(module.name for module in pkgutil.iter_modules(__path__))


def __getattr__(name):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f".{name}", __name__)
