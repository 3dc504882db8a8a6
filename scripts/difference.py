#!/usr/bin/env python3
"""The same as `syndiff_tasks difference`, from a clone."""

import sys

from syndiff_tasks.cli import main

if __name__ == "__main__":
    sys.exit(main(["difference", *sys.argv[1:]]))
