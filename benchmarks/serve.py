"""Serve a folder on 127.0.0.1 until the reader of our output has gone: ``python -m benchmarks.serve FOLDER``."""

import os
import sys
import time

from syndiff_tasks.demo.server import serve

if __name__ == "__main__":
    parent = os.getppid()
    with serve(sys.argv[1]) as base:
        print(base, flush=True)
        while os.getppid() == parent:
            time.sleep(0.5)
