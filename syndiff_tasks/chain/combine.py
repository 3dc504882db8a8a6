"""The combined image of a skycell: its bands summed, stars repaired, sky subtracted, binned to blocks."""

from typing import NamedTuple

from syndiff_tasks import paths
from syndiff_tasks.io import store
from syndiff_tasks.pixels import background, bands, blocks, mask, scaling

from . import stack_files, star_catalog

# Layout and meaning of the combined groups; another number is another product.
COMBINED_FORMAT = 2


class CombineConfig(NamedTuple):
    """What shapes the blocks of a skycell; products of two configurations lie side by side."""

    weights: tuple
    background: str
    ignore: tuple
    ignored_pixels: str
    bin: int
    stars: star_catalog.StarPolicy = star_catalog.KEEP
    reject: tuple = ()
    suspect: tuple = ()

    @classmethod
    def from_settings(cls, settings, ignore_mask_bits):
        """Return the configuration of the settings and the mask bits of a task.

        Raises
        ------
        ValueError
            If two lists share a mask bit.
        """
        mask.check_disjoint(
            reject_mask_bits=settings.reject_mask_bits,
            ignore_mask_bits=ignore_mask_bits,
            suspect_mask_bits=settings.suspect_mask_bits,
        )
        return cls(
            settings.weights,
            settings.background,
            tuple(ignore_mask_bits),
            settings.ignored_pixels,
            settings.bin,
            star_catalog.star_policy(settings.saturated_stars, settings.star_catalog),
            settings.reject_mask_bits,
            settings.suspect_mask_bits,
        )

    @property
    def label(self):
        """Name of the folder: every value in it, so that no two configurations share one."""
        weights = "_".join(f"{band}{weight!r}" for band, weight in self.weights)
        bits = "_".join(
            f"{name}{'-'.join(map(str, some)) or 'none'}"
            for name, some in ((self.ignored_pixels, self.ignore), ("reject", self.reject), ("suspect", self.suspect))
        )
        return f"{weights}_{self.background}_{bits}_bin{self.bin}{self.stars.label()}"

    def settings(self):
        """Return what shaped the blocks, for manifests."""
        return {
            "weights": dict(self.weights),
            "background": self.background,
            "ignore_mask_bits": list(self.ignore),
            "ignored_pixels": self.ignored_pixels,
            "reject_mask_bits": list(self.reject),
            "suspect_mask_bits": list(self.suspect),
            "bin": self.bin,
            "saturated_stars": self.stars.how,
            "star_catalog": self.stars.digest or self.stars.catalog,
            "combined_format": COMBINED_FORMAT,
        } | ({} if self.stars.how == "keep" else {"star_epoch": star_catalog.PS1_EPOCH})


def combine(raw, skycell, config, data_root):
    """Combine the bands of a skycell, repair its saturated stars, subtract its sky, and share the pixels among blocks.

    Parameters
    ----------
    raw : str
        The skycell's raw group.
    skycell : rings.Skycell
    config : CombineConfig
    data_root : path-like
        Where fetched star catalogs are kept.

    Returns
    -------
    blocks : blocks.Blocks
    repaired : list of dict
        The stars that were repaired or removed, see `star_catalog.repair_saturated_stars`.
    """
    planes = _combined(raw, skycell, dict(config.weights), mask.bit_mask(config.reject))
    exclude = mask.bit_mask(config.ignore) if config.ignored_pixels == "exclude" else 0
    repaired = star_catalog.repair_saturated_stars(planes, skycell, config.stars, exclude, data_root)
    flux, variance = background.remove_background(planes.flux, planes.variance, planes.mask, config.background)
    counted = mask.bit_mask((*config.ignore, *config.suspect))
    shared = blocks.to_blocks(flux, variance, planes.mask, planes.missing, config.bin, skycell.corner, exclude, counted)
    return shared, repaired


def _combined(raw, skycell, weights, reject):
    """Return the weighted sum of a raw skycell, read strip by strip because its bands would not fit into memory."""
    keywords = store.read_attributes(raw)["keywords"]
    have = [band for band in weights if all(f"{band}_{kind}" in keywords for kind in stack_files.KINDS)]
    stored = {
        band: bands.Band(
            store.open_array(raw, f"{band}_image"),
            store.open_array(raw, f"{band}_wt"),
            store.open_array(raw, f"{band}_mask"),
            scaling.scaling_of(keywords[f"{band}_image"]),
            scaling.scaling_of(keywords[f"{band}_wt"]),
        )
        for band in have
    }
    return bands.combine(stored, weights, (skycell.ny, skycell.nx), reject)


# Of the planes of combined skycells; the others are counts of pixels, or bits.
UNITS = {"flux": "count/s", "variance": "count**2/s**2"}


def write_blocks(path, combined, skycell):
    """Write a skycell's blocks, rounded to what their noise leaves of them, so that they compress."""
    planes = {name: getattr(combined, name) for name in combined._fields if name != "grid"}
    for name, kept in blocks.MANTISSA_BITS.items():
        planes[name] = blocks.rounded(planes[name], kept)
    attributes = {"skycell": skycell.name, "grid": list(combined.grid)}
    store.write_arrays(path, planes, attributes, units=UNITS)
    for folder in paths.zarr_roots(path):
        store.write_root(folder)


def read_blocks(path):
    """Return the `blocks.Blocks` that `write_blocks` wrote."""
    grid = blocks.Grid(*store.read_attributes(path)["grid"])
    return blocks.Blocks(**store.read_arrays(path), grid=grid)
