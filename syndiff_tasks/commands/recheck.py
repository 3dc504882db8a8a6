"""``syndiff_tasks recheck``: have the next run ask the archive for files that it had not when they were requested."""

import sys

from ..chain.recheck import recheck
from ..config import syndiff


def run(options):
    """Withdraw the skycells that are due and print what the next run does about them; return the exit code."""
    root = options.folder or syndiff().data_root
    withdrawn, without_raw, unread = recheck(root, options.older_than)
    sys.stdout.write(f"{root}: {len(withdrawn)} skycells lack files and are requested by the next run\n")
    if without_raw:
        sys.stdout.write(
            f"{len(without_raw)} combined skycells lack files, too, but their raw pixels were not kept (keep_raw = "
            "false), so they stay as they are; to fetch all of their files again, run Downsample with "
            "--DownloadSkycell-overwrite --CombineBands-overwrite\n"
        )
    sys.stderr.writelines(f"{sentence}\n" for sentence in unread)
    return 1 if unread else 0
