"""``syndiff_tasks demo``: build the made-up sky, make a template of it, and compare it with the truth."""

import json
import os
import subprocess
import sys
from pathlib import Path

from ..demo import __main__ as builder
from ..demo.judge import judge
from ..demo.server import serve

SETTINGS = """# The settings of the demo, for commands that are run in this folder.
[syndiff]
data_root = data
archive = {archive}
star_catalog = {gaia}
background = none
"""


def run(options):
    """Build the sky in a folder, serve it on 127.0.0.1, and run the same command as a user does.

    Parameters
    ----------
    options : argparse.Namespace
        As `cli` declares them.

    Returns
    -------
    code : int
        Luigi's exit code.
    """
    folder = Path(options.folder)
    if not (folder / "demo.json").exists():
        builder.main(["--out", str(folder)])
    made = json.loads((folder / "demo.json").read_text(encoding="utf-8"))
    (folder / "luigi.cfg").write_text(SETTINGS.format(**made), encoding="utf-8")
    with serve(folder / made["archive"]) as base:
        command = ["luigi", "--module", "syndiff_tasks", "Downsample", "--local-scheduler", "--workers", "2"]
        command += ["--ffi", made["ffi"], "--roi", made["roi"], "--psf-sigma", str(made["psf_sigma"])]
        command += ["--syndiff-archive", base]
        sys.stdout.write(f"\n$ cd {folder}\n$ {' '.join(command)}\n")
        sys.stdout.flush()
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        code = subprocess.run(command, cwd=folder, env=os.environ | {"PATH": path}, check=False).returncode
    if not code:
        sys.stdout.write(_verdict(folder, made))
    return code


def _verdict(folder, made):
    template = next((folder / "data").glob("shifted_downsampled/**/*.fits"))
    verdict, transient = judge(folder, template), made["transient"]
    lines = [
        "\nThe known stars: flux in 5 x 5 pixels, truth against template",
        verdict.stars.round(4).to_string(index=False),
        f"\nSum over all pixels with full data: {verdict.total:.5f} of the truth, PS1's noise included;",
        f"the worst pixel is off by {verdict.worst_pixel:.1e} of the brightest.",
        f"The transient at ({transient['x']:.1f}, {transient['y']:.1f}) is not in PS1: the picture shows it.",
    ]
    for name, path in (("Template", template), ("Picture", template.with_suffix(".png"))):
        lines.append(f"{name:9} {path}")
    lines.append(f"{'Page':9} {template.with_suffix('.html')}")
    return "".join(f"{line}\n" for line in lines)
