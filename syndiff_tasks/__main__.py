"""``python -m syndiff_tasks …``: the same as ``syndiff_tasks …``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
