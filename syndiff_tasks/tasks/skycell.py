"""The tasks of one skycell, which know no FFI: download, and combination of its bands."""

import logging
from functools import partial
from typing import NamedTuple

import luigi

from syndiff_tasks import chain, failures, paths
from syndiff_tasks.config import BitsOfSetting, syndiff
from syndiff_tasks.io.archive import ArchiveUnavailable
from syndiff_tasks.manifest import remember_failure, tried_now, verify
from syndiff_tasks.targets import WholeTarget

from .base import BITS, OVERWRITE, _Reporting

logger = logging.getLogger("luigi-interface")


class DownloadSkycell(_Reporting):
    """The r, i, z, y files of one skycell (image, mask, variance), at the archive's own precision."""

    skycell = luigi.Parameter(description="PS1 skycell, e.g. skycell.2556.080")
    skycell_catalog = luigi.Parameter(default="", description="CSV of skycells that replaces the PS1 ring table")
    overwrite = luigi.BoolParameter(**OVERWRITE)

    resources = {"ps1_archive": 1}

    def output(self):
        """Return the Zarr group of the skycell, which the archive may have to be asked for again, see `_due`."""
        return _raw(syndiff().data_root, self.skycell, _again(False, self.overwrite))

    def run(self):
        """Fetch, check and store every file of the skycell that is not there already."""
        source, target = chain.stack_files.source(syndiff()), self.output()
        skycell = chain.plan.tessellation(self.skycell_catalog).skycell(self.skycell)
        had = None if self.overwrite or verify(target.path, deep=True) else target.manifest()
        further = had and chain.stack_files.unasked(had, source.bands)
        there = chain.stack_files.Had(target.path, had["notes"]["files"] if had else {})
        if had:
            source = chain.stack_files.with_bands_of(had, source if further else chain.stack_files.asked_once(source))
        progress = self.progress(len(source.bands) * len(chain.stack_files.KINDS), "file")
        try:
            with target.writing() as draft:
                chain.stack_files.download(skycell, source, draft, progress, there)
                draft.took("download")
        except ArchiveUnavailable as error:
            if further or not had:
                raise
            logger.warning("%s was asked for again in vain, and stays as it is: %s", self.skycell, error)
            remember_failure(target.path, self.task_family, failures.one_line(error))


class CombineBands(_Reporting):
    """The TESS-band image, variance and mask of one skycell, on blocks."""

    skycell = luigi.Parameter(description="PS1 skycell, e.g. skycell.2556.080")
    ignore_mask_bits = BitsOfSetting(description=BITS)
    skycell_catalog = luigi.Parameter(default="", description="CSV of skycells that replaces the PS1 ring table")
    overwrite = luigi.BoolParameter(**OVERWRITE)

    def recipe(self):
        """Return the `combine.Recipe` of the blocks."""
        return chain.combine.recipe(syndiff(), self.ignore_mask_bits)

    def requires(self):
        """Return the download of the skycell."""
        return DownloadSkycell(skycell=self.skycell, skycell_catalog=self.skycell_catalog)

    def output(self):
        """Return the Zarr group of the combined skycell, in the folder of its recipe."""
        return _combined(syndiff().data_root, self.skycell, self.recipe(), self.again())

    def again(self):
        """Return when the combined skycells and the raw ones are to be made again."""
        return _again(self.overwrite, self.requires().overwrite)

    def run(self):
        """Combine the bands, take the sky off, and share the pixels among blocks."""
        skycell = chain.plan.tessellation(self.skycell_catalog).skycell(self.skycell)
        # Where the archive was asked again and had nothing new, what was planned has become needless.
        if not self.output().exists():
            with self.output().writing() as draft:
                shared, treated = chain.combine.combine(self.input().path, skycell, self.recipe(), syndiff().data_root)
                chain.combine.write_blocks(draft.path, shared, skycell)
                draft.notes.update(chain.stack_files.origin_of(self.input()), stars=treated)
                draft.took("combine")
        if not syndiff().keep_raw:
            self.input().remove()


class _Again(NamedTuple):
    """Which skycells are to be made again: all combined ones, all raw ones, else raw ones by their bands and age."""

    combined: bool
    raw: bool
    bands: tuple
    days: float


def _again(combined, raw):
    settings = syndiff()
    return _Again(combined, raw, tuple(band for band, _ in settings.weights), settings.recheck_absent_days)


def _raw(root, skycell, again):
    path, settings = paths.raw(root, skycell), {"skycell": skycell, "format": chain.stack_files.RAW_FORMAT}
    due = partial(_due, path, again)
    return WholeTarget(path, settings, None, again.raw, DownloadSkycell.task_family, due)


def _due(path, again, manifest):
    """Return whether a raw skycell lacks bands that it was not fetched with, or files that may have come since then."""
    if chain.stack_files.unasked(manifest, again.bands):
        return True
    return chain.stack_files.recheck_is_due(manifest, again.days) and not tried_now(path, manifest)


def _combined(root, skycell, recipe, again):
    path, settings = paths.combined(root, recipe.label, skycell), recipe.settings() | {"skycell": skycell}
    inputs = {"raw": _raw(root, skycell, again)}
    return WholeTarget(path, settings, inputs, again.combined, CombineBands.task_family)
