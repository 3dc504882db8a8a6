"""Build the made-up sky, serve it on 127.0.0.1, make a template of it, and compare it with the truth (`make demo`)."""

import json
import os
import subprocess
import sys
from pathlib import Path

from syndiff_tasks.demo import __main__ as builder
from syndiff_tasks.demo.judge import judge
from syndiff_tasks.demo.server import serve

FOLDER = Path("demo_sky")


def main():
    """Run the demo; exit with Luigi's code."""
    if not (FOLDER / "demo.json").exists():
        builder.main(["--out", str(FOLDER)])
    made = json.loads((FOLDER / "demo.json").read_text(encoding="utf-8"))
    root = FOLDER / "data"
    with serve(FOLDER / made["archive"]) as base:
        options = ["--ffi", FOLDER / made["ffi"], "--roi", made["roi"], "--psf-sigma", made["psf_sigma"]]
        settings = ["--syndiff-archive", base, "--syndiff-data-root", root, "--syndiff-background", "none"]
        settings += ["--syndiff-star-catalog", FOLDER / made["gaia"]]
        command = ["luigi", "--module", "syndiff_tasks", "Downsample", "--local-scheduler", "--workers", "2"]
        command += [str(word) for word in options + settings]
        print("\n$ " + " ".join(command), flush=True)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        code = subprocess.run(command, env=os.environ | {"PATH": path}, check=False).returncode
    if code:
        sys.exit(code)
    template = next(root.glob("shifted_downsampled/**/*.fits"))
    verdict = judge(FOLDER, template)
    transient = made["transient"]
    print("\nThe known stars: flux in 5 x 5 pixels, truth against template")
    print(verdict.stars.round(4).to_string(index=False))
    print(f"\nSum over all pixels with full data: {verdict.total:.5f} of the truth, PS1's noise included;")
    print(f"the worst pixel is off by {verdict.worst_pixel:.1e} of the brightest.")
    print(
        f"PS1 has not the transient at ({transient['x']:.1f}, {transient['y']:.1f}): see the difference in the picture."
    )
    for name, path in (("Template", template), ("Picture", template.with_suffix(".png"))):
        print(f"{name:9} {path}")
    print(f"{'Page':9} {template.with_suffix('.html')}")


if __name__ == "__main__":
    main()
