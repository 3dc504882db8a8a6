"""Colour terms of the fixed band weights, from real filter curves and spectra: a table, and docs/color_terms.png.

Nothing of this is needed to make templates. The curves and spectra come with two packages of which only the data files
are read, so that neither has to be importable (nor its own dependencies installed):

    pip install --no-deps --target extra pyphot wcc-etc && PYTHONPATH=extra python scripts/color_terms.py
"""

import argparse
import importlib.util
import re
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from astropy.io import fits

from syndiff_tasks.demo.sky import WEIGHTS

DOCS = Path(__file__).resolve().parent.parent / "docs"

# Angstrom. Steps as fine as the curves; from the blue end of Gaia BP to the red end of TESS and PS1 y.
GRID = np.arange(3200.0, 11405.0, 5.0)

# Flux per Angstrom of the AB standard, 3631 Jy, times the wavelength squared [erg/s/cm^2 Angstrom].
AB_STANDARD = 3631e-23 * 2.99792458e18

# Planck's law needs h c / k only [Angstrom K].
RADIATION = 1.4387769e8

# Types of the table: dwarfs, then giants; beyond M5 there is no dwarf but the M6 in the library.
SHOWN = ("O5V", "B8V", "A0V", "F0V", "G0V", "G2V", "K0V", "K5V", "M0V", "M2V", "M3V", "M4V", "M5V", "M6V")
SHOWN += ("G8III", "K2III", "K5III", "M0III", "M3III", "M5III", "M7III")


class Spectrum(NamedTuple):
    """A spectrum on `GRID` [erg/s/cm^2/Angstrom, any scale], its name, and its kind: dwarf, giant, ..."""

    name: str
    kind: str
    flux: np.ndarray


def folder_of(package):
    """Return the folder of a package without importing it; ValueError says how to get it."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise ValueError(f"{package} is not installed: {__doc__.splitlines()[-2].strip()}")
    return Path(spec.submodule_search_locations[0])


def filter_curve(name):
    """Photon response of a filter of pyphot, on `GRID`; the curves are those of the SVO Filter Profile Service.

    That of TESS is marked as one of energy there, but is what the TESS Instrument Handbook gives: electrons a photon.
    """
    text = (folder_of("pyphot") / "libs" / "ascii_sources" / f"{name}.csv").read_text(encoding="utf-8")
    rows = [line.split(",") for line in text.splitlines() if line and not line.startswith(("#", "WAVELENGTH"))]
    wavelength, response = np.array(rows, dtype=float).T
    angstrom = 10 if "WAVELENGTH_UNIT\tnm" in text else 1
    return np.interp(GRID, angstrom * wavelength, response, left=0, right=0)


def read_spectrum(path):
    """Read a table WAVELENGTH [Angstrom], FLUX [erg/s/cm^2/Angstrom] onto `GRID`, and Pickles' spectral type."""
    with fits.open(path) as hdus:
        wavelength, flux = (np.asarray(hdus[1].data[name], float) for name in ("WAVELENGTH", "FLUX"))
        told = [str(hdus[0].header.get(key, "")).partition(":")[2].strip() for key in ("COMMENT1", "COMMENT2")]
    return np.interp(GRID, wavelength, flux), told[0] if told[1] == "solar" else " ".join(told)


def spectra():
    """Pickles' stars, Brown's galaxies, and black bodies."""
    models = folder_of("wcc_etc") / "data" / "astr_obj_models"
    found = []
    for path in sorted((models / "stars" / "pickles_models" / "dat_uvk").glob("pickles_uk_*.fits")):
        flux, name = read_spectrum(path)
        found.append(Spectrum(name, "dwarf" if re.match("[OBAFGKM][0-9.-]*V", name) else "giant", flux))
    for path in sorted((models / "galaxies" / "brown").glob("*_spec.fits")):
        found.append(Spectrum(path.stem.removesuffix("_spec"), "galaxy", read_spectrum(path)[0]))
    for kelvin in np.geomspace(3500, 20000, 40):
        found.append(Spectrum(f"{kelvin:.0f} K", "black body", GRID**-5 / np.expm1(RADIATION / GRID / kelvin)))
    return found


def ab_flux(flux, response):
    """Flux through a photon counter, in units of that of the AB standard."""
    return (flux * GRID * response).sum() / (AB_STANDARD * (response / GRID).sum())


def magnitude(flux):
    """AB magnitude of a flux of `ab_flux`."""
    return -2.5 * np.log10(flux)


def main():
    """Print what docs/method.md quotes, and draw its picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=DOCS, help="folder of the picture")
    out = parser.parse_args().out
    curves = {band: filter_curve(f"PS1_{band}") for band in "grizy"}
    tess, blue, red = filter_curve("tess"), filter_curve("gaiadr2v2_bp"), filter_curve("gaiadr2v2_rp")
    vega, _ = read_spectrum(folder_of("pyphot") / "libs" / "alpha_lyr_stis_011.fits")

    every = spectra()
    bands = np.array([[ab_flux(one.flux, curves[band]) for band in WEIGHTS] for one in every])
    truth = np.array([ab_flux(one.flux, tess) for one in every])
    error = 1e3 * magnitude(bands @ list(WEIGHTS.values()) / truth)
    colour = magnitude(bands[:, 0] / bands[:, 1])
    gaia = np.array([magnitude(ab_flux(one.flux, blue) / ab_flux(one.flux, red)) for one in every])
    gaia -= magnitude(ab_flux(vega, blue) / ab_flux(vega, red))
    kind = np.array([one.kind for one in every])

    offset = magnitude(ab_flux(vega, tess))
    print(f"Vega in the TESS band: {offset:.3f} mag AB")
    vega_bands = sum(weight * ab_flux(vega, curves[band]) for band, weight in WEIGHTS.items())
    print(f"Vega: template - TESS {1e3 * magnitude(vega_bands / ab_flux(vega, tess)):+.1f} mmag (AB)")
    print(f"template [electrons/s] / electrons/s that TESS counts: {10 ** (-0.4 * offset):.3f}, where T of Vega is 0")

    print("\ntype    r-i   BP-RP  template - TESS [mmag]")
    for name in SHOWN:
        for index in [i for i, one in enumerate(every) if one.name == name]:
            print(f"{name:7s}{colour[index]:+.2f}  {gaia[index]:+.2f}  {error[index]:+.1f}")
    print("\n r-i           n  mean   rms   least  most [mmag], stars")
    star = (kind == "dwarf") | (kind == "giant")
    for low, high in ((-0.5, -0.2), (-0.2, 0), (0, 0.2), (0.2, 0.5), (0.5, 1), (1, 1.5), (1.5, 2), (2, 4)):
        here = error[star & (colour >= low) & (colour < high)]
        if here.size:
            print(f"{low:+.1f}..{high:+.1f} {here.size:6d} {here.mean():+6.1f} {np.sqrt((here**2).mean()):5.1f} "
                  f"{here.min():+6.1f} {here.max():+6.1f}")  # fmt: skip
    for name in ("dwarf", "giant", "galaxy", "black body"):
        here = error[kind == name]
        print(f"{name}: n {here.size}, mean {here.mean():+.1f}, rms {np.sqrt((here**2).mean()):.1f}, "
              f"scatter {here.std():.1f}, {here.min():+.1f} to {here.max():+.1f} mmag")  # fmt: skip
    fitted = fit(bands[star], truth[star])
    left = 1e3 * magnitude(bands[star] @ fitted / truth[star])
    print(f"weights fitted to the stars: {dict(zip(WEIGHTS, fitted.round(3).tolist(), strict=True))}, ", end="")
    print(f"sum {fitted.sum():.4f}, rms {np.sqrt((left**2).mean()):.1f} mmag, worst {np.abs(left).max():.1f} mmag")
    names = [one.name for one in every]
    few = [names.index(name) for name in ("A0V", "G2V", "K5V", "M0V", "M4V")]
    for missing in WEIGHTS:
        keep = [band != missing for band in WEIGHTS]
        weight = np.array(list(WEIGHTS.values()))[keep]
        without = 1e3 * magnitude(bands[few][:, keep] @ weight / weight.sum() / truth[few])
        print(f"without {missing}: A0V G2V K5V M0V M4V", " ".join(f"{value:+.0f}" for value in without), "mmag")
    draw(out / "color_terms.png", colour, error, kind)


def fit(bands, truth):
    """Weights that make the relative errors least."""
    return np.linalg.lstsq(bands / truth[:, None], np.ones(len(truth)), rcond=None)[0]


def draw(path, colour, error, kind):
    """Draw the error against r - i."""
    figure, axes = plt.subplots(figsize=(7.5, 3.8), layout="constrained")
    looks = {
        "dwarf": ("o", "tab:blue", "dwarfs (Pickles 1998)"),
        "giant": ("^", "tab:red", "other stars (Pickles 1998)"),
        "galaxy": (".", "0.6", "galaxies (Brown et al. 2014)"),
        "black body": ("-", "k", "black bodies, 3500-20000 K"),
    }
    for name, (look, shade, label) in looks.items():
        here = kind == name
        order = np.argsort(colour[here])
        axes.plot(colour[here][order], error[here][order], look, color=shade, ms=5, label=label)
    axes.axhline(0, color="0.8", lw=0.8, zorder=0)
    axes.set(xlabel="PS1 r - i [mag]", ylabel="weighted r, i, z, y - TESS [mmag, AB]")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()
