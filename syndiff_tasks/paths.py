"""Where each product lives: the only module that spells a path.

``ccd`` is what `geometry.ffi.parse_ffi_name` returns (sector, camera, ccd, stem); ``region`` is the label of a region,
empty for the whole FFI.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

# Longer lists of offsets stand in names as a digest: a name has at most 255 bytes.
_LONGEST_OFFSETS = 60


class CCD(NamedTuple):
    """One of the 16 CCDs, in one sector."""

    sector: int
    camera: int
    ccd: int

    def __str__(self):
        return f"{self.camera}-{self.ccd}"


def _ccd_folder(root, product, ccd):
    return Path(f"{root}/{product}/sector_{ccd.sector:04d}/camera_{ccd.camera}/ccd_{ccd.ccd}")


def _label(ccd):
    return f"s{ccd.sector:04d}_{ccd.camera}_{ccd.ccd}"


def skycells_list(root, ccd, region):
    """Return the path of the table of skycells under an FFI (CSV)."""
    return _ccd_folder(root, "mapping_output", ccd) / region / f"tess_{_label(ccd)}_master_skycells_list.csv"


def master_map(root, ccd, region):
    """Return the path of the map TESS pixel → skycell index (FITS)."""
    return _ccd_folder(root, "mapping_output", ccd) / region / f"tess_{_label(ccd)}_master_pixels2skycells.fits.gz"


def coverage_map(root, ccd, region, form):
    """Return the path of the coverage map of an FFI (MOC), its form ``fits`` or ``json``."""
    return _ccd_folder(root, "mapping_output", ccd) / region / f"tess_{_label(ccd)}_coverage.moc.{form}"


def pixel_map(root, ccd, region, skycell):
    """Return the path of the map PS1 pixel → TESS pixel of one skycell (FITS)."""
    return _ccd_folder(root, "mapping_output", ccd) / region / f"TESS_{_label(ccd)}_{skycell}.fits.gz"


def _projection(skycell):
    return skycell.split(".")[1]


def raw(root, skycell):
    """Return the Zarr group of one skycell as the archive has it."""
    return Path(f"{root}/ps1_skycells_zarr/ps1_skycells.zarr/{_projection(skycell)}/{skycell}")


def raw_skycells(root):
    """Return the Zarr groups of all raw skycells, sorted."""
    return sorted(Path(root).glob("ps1_skycells_zarr/ps1_skycells.zarr/*/skycell.*"))


def incoming(root):
    """Return the folder of files being downloaded, and of those that failed every try (quarantine)."""
    return Path(root) / "ps1_skycells_zarr" / "incoming"


def gaia_stars(root, skycell):
    """Return the file that keeps Gaia's stars of one skycell (CSV)."""
    return Path(root) / "star_catalogs" / f"gaia_{skycell}.csv"


def gaia_down(root):
    """Return the file that records, by its date, when Gaia's archive last failed to answer."""
    return Path(root) / "star_catalogs" / ".gaia_down"


def resolved_names(root):
    """Return the folder of the positions of named targets (JSON), as a service gave them."""
    return Path(root) / "targets"


def combined(root, label, skycell):
    """Return the Zarr group of one skycell's combined blocks."""
    return Path(f"{root}/combined_skycells_zarr/{label}/{_projection(skycell)}/{skycell}")


def combined_skycells(root):
    """Return the Zarr groups of all combined skycells, of all configurations, sorted."""
    return sorted(Path(root).glob("combined_skycells_zarr/*/*/skycell.*"))


def recipes(root):
    """Return the folders of combined skycells, one for each configuration."""
    return [folder for folder in Path(root).glob("combined_skycells_zarr/*") if folder.is_dir()]


def convolved(root, ccd, skycell, *neighbors):
    """Return the Zarr group of one convolved skycell, named after the neighbors too that widened its frame."""
    own = f"skycell.{_projection(skycell)}."
    added = [name.removeprefix(own).removeprefix("skycell.") for name in neighbors]
    return _ccd_folder(root, "convolved_results", ccd) / "convolved_images.zarr" / "_".join([skycell, *added])


def cell_metadata(root, ccd, region, of_reference=True, wide=False):
    """Return the path of the summary of an FFI's convolved skycells (JSON); those of wide frames have their own."""
    name = f"cell_metadata{'_wide' if wide else ''}{'' if of_reference else f'_{ccd.stem}'}.json"
    return _ccd_folder(root, "convolved_results", ccd) / region / name


def template(root, ccd, region, offset):
    """Return the path of a template (FITS) for an offset (dx, dy) [TESS px]; no two offsets share a name."""
    dx, dy = (_exact(value) for value in offset)
    return _templates(root, ccd, region) / f"syndiff_template_{_label(ccd)}_dx{dx}_dy{dy}.fits"


def _exact(value):
    short = f"{value:+.4f}"
    return short if float(short) == value else f"{value:+}"


def _templates(root, ccd, region):
    return _ccd_folder(root, "shifted_downsampled", ccd) / ccd.stem / region


def picture(template_path):
    """Return the path of the picture of a template or difference (PNG)."""
    return Path(template_path).with_suffix(".png")


def page(template_path):
    """Return the path of the page of a template or difference (HTML)."""
    return Path(template_path).with_suffix(".html")


def difference(root, ccd, region):
    """Return the path of a difference image (FITS)."""
    return _ccd_folder(root, "differences", ccd) / ccd.stem / region / f"syndiff_difference_{_label(ccd)}.fits"


def reference_ffi(root, ccd):
    """Return the path of the choice of a CCD's reference FFI (JSON)."""
    return _ccd_folder(root, "reference_ffis", ccd) / "reference_ffi.json"


def drift_offsets(root, ccd, region, reference=""):
    """Return the path of the table of offsets of a CCD's FFIs (CSV), from the chosen reference or another FFI."""
    name = f"drift_offsets_{reference}.csv" if reference else "drift_offsets.csv"
    return _ccd_folder(root, "drift_offsets", ccd) / region / name


def drift_plot(table_path):
    """Return the path of the plot of a table of offsets (PNG)."""
    return Path(table_path).with_suffix(".png")


def ffi_templates(root, ccd, region, within):
    """Return the path of the table FFI → template (CSV) of FFIs grouped to within so many TESS pixels."""
    return _templates(root, ccd, region) / f"ffi_templates_{within!r}.csv"


def offsets_label(offsets):
    """Return the part of a name that tells offsets ``dx,dy,dx,dy,…`` or ``auto:0.01``; of many, number and digest."""
    if len(offsets) <= _LONGEST_OFFSETS:
        return "offsets_" + offsets.replace(",", "_").replace(":", "_")
    return f"offsets_{offsets.count(',') // 2 + 1}_{hashlib.sha256(offsets.encode()).hexdigest()[:8]}"


def sector_report(root, sector, selection):
    """Return the path of the report on a sector (CSV); `selection` labels the cameras, CCDs and region selected."""
    return Path(root) / "sectors" / f"sector_{sector:04d}" / selection / "report.csv"


def sector_page(report):
    """Return the path of the page beside the report on a sector."""
    return Path(report).with_name("index.html")


def every_ffi(root, ccd, region, target=""):
    """Return the path of the report on the templates of all FFIs of a CCD (CSV); `target` labels a target's region."""
    name = f"every_ffi_{target}.csv" if target else "every_ffi.csv"
    return _ccd_folder(root, "shifted_downsampled", ccd) / region / name


def logs(root):
    """Return the folder of the logs of `scripts/run_sector`, and of its lock."""
    return Path(root) / "logs"


def failure_logs(root):
    """Return the folder of the failure logs (JSON lines), one a run in which something failed."""
    return logs(root) / "failures"


def zarr_roots(group):
    """Return the folders above a Zarr group of a skycell that are groups too, up to the root of their tree."""
    above = []
    for folder in Path(group).parents:
        above.append(folder)
        if folder.suffix == ".zarr" or folder.parent.name == "combined_skycells_zarr":
            return above
    return []


def mapped_ccds(root, sector=None):
    """Return the folders of maps of each CCD of a sector, or of all: sorted (CCD, folder)."""
    one = "*" if sector is None else f"{sector:04d}"
    folders = Path(root).glob(f"mapping_output/sector_{one}/camera_?/ccd_?")
    return sorted((CCD(*(int(part.rpartition("_")[2]) for part in folder.parts[-3:])), folder) for folder in folders)


def mapped_regions(root, ccd):
    """Return the labels of the regions of a CCD that have a folder of maps, the whole CCD's first, sorted."""
    folder = _ccd_folder(root, "mapping_output", ccd)
    return ["", *sorted(below.name for below in folder.glob("*") if below.is_dir())]


def templates_of(root, ccd):
    """Return the folder of a CCD's templates: one folder an FFI, and in it one a region."""
    return _ccd_folder(root, "shifted_downsampled", ccd)
