"""Every stage at full size, beside a peer on the same input: ``make bench``, some ten minutes on a quiet machine."""

import argparse
import datetime
import platform
import re
import sys
from pathlib import Path
from typing import NamedTuple

from benchmarks import made_up, stages
from benchmarks.measure import measure

REPORT = Path(__file__).with_name("README.md")
MARK = re.compile(r"(<!-- results -->).*(<!-- end of results -->)", re.DOTALL)


class Stage(NamedTuple):
    """A stage: ours and its peers, each (name, function, arguments); `scripts` is what the scripts in use took [s]."""

    name: str
    ours: tuple
    peers: tuple
    scripts: float | None


def plan(folder):
    """Return the stages in their order."""
    in_folder = (folder,)
    return [
        Stage(
            "owner of each science pixel of a CCD",
            (stages.owners, ()),
            ((stages.owners_by_astropy_and_shapely, ()),),
            10.8,
        ),
        Stage("PS1 to TESS index map", (stages.index_map, ()), ((stages.index_map_by_astropy, ()),), 2.1),
        Stage("the same written as .fits.gz", (stages.write_map, (False,)), ((stages.write_map, (True,)),), 4.0),
        Stage(
            "12 files: decode and combine",
            (stages.decode_and_combine, in_folder),
            ((stages.decode_and_combine_by_astropy, in_folder), (stages.decode_by_astropy_alone, in_folder)),
            23.5,
        ),
        Stage(
            "12 files: fetch, check and store",
            (stages.fetch_and_store, (folder, False)),
            ((stages.fetch_by_curl, in_folder), (stages.digest_by_hashlib, in_folder)),
            None,
        ),
        Stage("12 files: fetch, store, combine, store", (stages.fetch_and_store, (folder, True)), (), 45.0),
        Stage("the task CombineBands, from the raw group", (stages.combine_stored, in_folder), (), None),
        Stage("sources against sky", (stages.sources, in_folder), ((stages.sources_by_sep, in_folder),), 4.4),
        Stage(
            "sources, crowded field",
            (stages.sources, (folder, made_up.crowded)),
            ((stages.sources_by_sep, (folder, made_up.crowded)),),
            54.0,
        ),
        Stage("native pixels to blocks", (stages.to_blocks, in_folder), (), None),
        Stage(
            "blur",
            (stages.blur, in_folder),
            ((stages.blur_by_scipy, in_folder), (stages.blur_by_dask, in_folder)),
            240.0,
        ),
        *(
            Stage(f"downsample, {n} offset{'s' * (n > 1)}", (stages.downsample, (folder, n)), (), scripts)
            for n, scripts in ((1, 7.1), (10, 13.5), (50, 42.0))
        ),
        *(
            Stage(f"the same from disk, {n} offset{'s' * (n > 1)}", (stages.read_and_downsample, (folder, n)), (), None)
            for n in (1, 50)
        ),
        Stage(
            "one skycell to TESS pixels",
            (stages.downsample, (folder, 1)),
            tuple((stages.downsample_by_reproject, (folder, method)) for method in ("interp", "adaptive", "exact")),
            107.0,
        ),
        Stage("files to template, 1 offset", (stages.whole_skycell, (folder, 1)), (), None),
        Stage("files to template, 10 offsets", (stages.whole_skycell, (folder, 10)), (), 287.0),
        Stage("products of a skycell [MB]", (stages.products, in_folder), (), None),
    ]


def report(stage, quick):
    """Measure a stage and its peers; return lines of the table."""
    ours = measure(stage.ours[0], *stage.ours[1], repeat=3)
    against = f"{stage.scripts:g} s, {stage.scripts / ours.cpu:.0f} x" if stage.scripts else ""
    lines = [f"| {stage.name} | **ours** | {_time(ours.cpu)} | {ours.memory:.0f} | | {_told(ours)} | {against} |"]
    for function, arguments in () if quick else stage.peers:
        peer = measure(function, *arguments, warm=False)
        cpu = peer.cpu * peer.told.pop("times", 1)
        name = _peer(function, arguments)
        lines.append(f"| | {name} | {_time(cpu)} | {peer.memory:.0f} | {cpu / ours.cpu:.0f} x | {_told(peer)} | |")
    return lines


def _peer(function, arguments):
    words = function.__name__.partition("_by_")[2] or "astropy"
    return f"{words} {arguments[-1]}" if "reproject" in words else words


def _time(seconds):
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _told(measured):
    return "; ".join(
        f"{name} {value:.2g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in measured.told.items()
    )


def main():
    """Print the table, and put it into the README of this folder."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--folder", default="demo_sky/bench", help="where the made-up skycell is built and kept")
    parser.add_argument("--quick", action="store_true", help="leave the peers out")
    parser.add_argument("--only", default="", help="stages whose name holds these words")
    chosen = parser.parse_args()
    folder = str(Path(made_up.build(chosen.folder)).resolve())
    lines = [
        "| stage | who | CPU time | peak memory [MB] | peer / ours | accuracy, sizes | scripts in use, ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for stage in plan(folder):
        if chosen.only in stage.name:
            measured = report(stage, chosen.quick)
            print("\n".join(measured), flush=True)
            lines += measured
    if not (chosen.only or chosen.quick):
        _keep(lines)


def _keep(lines):
    where = f"{datetime.date.today()}, {_processor()}, Python {platform.python_version()}, `make bench`:"
    text = MARK.sub(lambda match: "\n\n".join([match[1], where, "\n".join(lines), match[2]]), REPORT.read_text())
    REPORT.write_text(text, encoding="utf-8")


def _processor():
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.processor()


if __name__ == "__main__":
    sys.exit(main())
