"""The tasks of one skycell, independent of any FFI: download, and combination of its bands."""

import logging

import luigi

from syndiff_tasks import chain, failures, paths
from syndiff_tasks.config import syndiff
from syndiff_tasks.io.archive import ArchiveUnavailable, UnprovenArchive
from syndiff_tasks.manifest import restore, verify
from syndiff_tasks.targets import WholeTarget

from .base import CombinationMixin, OverwriteMixin, SkycellsMixin, _Reporting

logger = logging.getLogger("luigi-interface")


class DownloadSkycell(_Reporting, SkycellsMixin, OverwriteMixin):
    """The r, i, z, y files of one skycell (image, mask, variance), at the archive's own precision."""

    skycell = luigi.Parameter(description="PS1 skycell, e.g. skycell.2556.080")

    resources = {"ps1_archive": 1}

    def output(self):
        """Return the Zarr group of the skycell."""
        return _raw(syndiff().data_root, self.skycell, self.overwrite)

    def is_complete(self):
        """Return whether the skycell exists, and was fetched with all bands that have a weight."""
        target = self.output()
        return target.exists() and not chain.stack_files.unasked(
            target.manifest(), chain.stack_files.source(syndiff()).bands
        )

    def run(self):
        """Fetch, check and store every file of the skycell that is still missing."""
        source, target = chain.stack_files.source(syndiff()), self.output()
        skycell = chain.plan.tessellation(self.skycell_catalog).skycell(self.skycell)
        restore(target.path)
        replace = target.manifest() is not None
        made = None if self.overwrite or verify(target.path, deep=True) else target.manifest()
        unasked = made and chain.stack_files.unasked(made, source.bands)
        existing = chain.stack_files.Existing(target.path, made["notes"]["files"] if made else {})
        if made:
            source = chain.stack_files.with_bands_of(made, source if unasked else chain.stack_files.asked_once(source))
        progress = self.progress(len(source.bands) * len(chain.stack_files.KINDS), "file")
        try:
            with target.writing(replace) as draft:
                chain.stack_files.download(skycell, source, draft, progress, existing)
                draft.record_time("download")
        except (ArchiveUnavailable, UnprovenArchive) as error:
            if unasked or not made:
                raise
            logger.warning("%s: re-check failed; keeping the files already downloaded: %s", self.skycell, error)
            failures.record(self.task_family, target.path, error)


class CombineBands(_Reporting, CombinationMixin, OverwriteMixin):
    """The TESS-band image, variance and mask of one skycell, on blocks."""

    skycell = luigi.Parameter(description="PS1 skycell, e.g. skycell.2556.080")

    def requires(self):
        """Return the download of the skycell."""
        return self.derive(DownloadSkycell)

    def output(self):
        """Return the Zarr group of the combined skycell, in the folder of its configuration."""
        requests = self.overwrite, self.requires().overwrite
        return combined_target(syndiff().data_root, self.skycell, self.combine_config(), *requests)

    def run(self):
        """Combine the bands, subtract the sky, and share the pixels among blocks."""
        skycell = chain.plan.tessellation(self.skycell_catalog).skycell(self.skycell)
        # After a re-check that found nothing new, the product is up to date again.
        if not self.output().exists():
            with self.output().writing() as draft:
                config, root = self.combine_config(), syndiff().data_root
                shared, repaired = chain.combine.combine(self.input().path, skycell, config, root)
                chain.combine.write_blocks(draft.path, shared, skycell)
                draft.notes.update(chain.stack_files.origin_of(self.input()), stars=repaired)
                draft.record_time("combine")
        if not syndiff().keep_raw:
            self.input().remove()


def _raw(root, skycell, overwrite):
    path, settings = paths.raw(root, skycell), {"skycell": skycell, "format": chain.stack_files.RAW_FORMAT}
    return WholeTarget(path, settings, None, overwrite, DownloadSkycell.task_family)


def combined_target(root, skycell, config, overwrite, overwrite_raw):
    """Return the target of a combined skycell; calling `output` of a thousand tasks would take 20 s."""
    path, settings = paths.combined(root, config.label, skycell), config.settings() | {"skycell": skycell}
    inputs = {"raw": _raw(root, skycell, overwrite_raw)}
    return WholeTarget(path, settings, inputs, overwrite, CombineBands.task_family)
