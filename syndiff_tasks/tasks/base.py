"""What all tasks have in common: progress, failures, and the FFI or CCD that they work on."""

from pathlib import Path
from urllib.parse import quote

import luigi

from syndiff_tasks import chain, failures, paths, process
from syndiff_tasks.config import BitsOfSetting, NumberOfSetting, SkyTarget, syndiff
from syndiff_tasks.manifest import manifest_path
from syndiff_tasks.parameters import Whole

from .request import Overwrite, RunBegin


class _Reporting(luigi.Task):
    """A task that reports its progress and, at exit, its failures."""

    def complete(self):
        """Return whether the product exists."""
        # Luigi emits events for errors in `requires` and `run`, but not in `complete`.
        with failures.recording(self.task_family):
            process.begin_run()
            return self.is_complete()

    def is_complete(self):
        """Return whether the product exists; tasks override this part of `complete`."""
        return super().complete()

    def progress(self, total, unit):
        """Return a `progress.Progress` of `total` steps that also moves the bar of luigid's web view."""
        return chain.progress.Progress(
            total, unit, str(self), self.set_progress_percentage or _nowhere, self.set_status_message or _nowhere
        )

    def derive(self, task, **changes):
        """Return a task of another class with this one's parameters, where both have them, and some changes.

        As `clone`, but for `overwrite`, which requests one product.
        """
        shared = (name for name, _ in task.get_params() if name != "overwrite" and hasattr(self, name))
        return task(**{name: getattr(self, name) for name in shared} | changes)

    def link_to(self, page):
        """Link a page of a product to the task in luigid's web view; `scripts/luigid` serves the data root there."""
        place = Path(page).absolute().relative_to(Path(syndiff().data_root).absolute())
        link = f"/products/{quote(place.as_posix())}"
        (self.set_tracking_url or _nowhere)(link)
        # luigid shows the link as an eye that it calls "Track Progress": the message beside it names the page.
        (self.set_status_message or _nowhere)(f"The eye button opens the page of this product: {link}")


@_Reporting.event_handler(luigi.Event.BROKEN_TASK)
def _record_planning_failure(task, error):
    """Record why a task could not be planned."""
    failures.record(task.task_family, "", error)


@_Reporting.event_handler(luigi.Event.FAILURE)
@_Reporting.event_handler(luigi.Event.PROCESS_FAILURE)
@_Reporting.event_handler(luigi.Event.TIMEOUT)
def _record_failure(task, error):
    """Record the failure with the first product that is still missing, by which `syndiff_tasks status` counts it."""
    products = [product.path for product in luigi.task.flatten(task.output())]
    missing = [path for path in products if not manifest_path(path).exists()]
    failures.record(task.task_family, (missing or products)[0], error)


def _nowhere(value):
    """Discard progress reports when there is no scheduler, as in a task that is run by hand."""


TARGET = "instead of --roi: center of the region, 'RA Dec' in degrees or sexagesimal, a name, or 'TIC 261136679'"


class OverwriteMixin:
    """The request to make a product again."""

    overwrite = Overwrite(
        default=False,
        significant=False,
        description="remake this product and those made from it; for a download, fetch the files again",
    )


class SkycellsMixin:
    """The table of skycells."""

    skycell_catalog = luigi.Parameter(default="", description="CSV of skycells that replaces the PS1 ring table")


class RegionMixin(SkycellsMixin):
    """The region of an FFI."""

    roi = luigi.Parameter(default="", description="region x0,y0,x1,y1 in FFI pixels, half-open, the first pixel is 0,0")
    target = SkyTarget(default="", description=TARGET)
    size = Whole("size", 1, 2048, default=64, description="with --target: width and height of the region [TESS px]")


class CombinationMixin(SkycellsMixin):
    """The options of combined skycells that are not settings."""

    ignore_mask_bits = BitsOfSetting(description="PS1 mask bits to flag, e.g. 12, or a comma alone for none")

    def combine_config(self):
        """Return the `combine.CombineConfig` of the combined skycells."""
        return chain.combine.CombineConfig.from_settings(syndiff(), self.ignore_mask_bits)


class ConvolutionMixin(CombinationMixin):
    """The options of convolved skycells that are not settings."""

    psf_sigma = NumberOfSetting("psf_sigma", 0.0, 400.0, description="sigma of the Gaussian PSF [PS1 px]")


class FolderMixin:
    """The folder of a sector's FFIs."""

    ffi_dir = luigi.Parameter(description="folder of the sector's FFIs, searched with the folders below it")
    began = RunBegin(
        default="", significant=False, description="when the run began (UTC): FFIs that come later are left out"
    )


class _OnFFI(_Reporting, RegionMixin):
    """What the tasks of one FFI have in common: the FFI, and its region."""

    ffi = luigi.Parameter(
        description="the FFI: tess…_ffic.fits (SPOC) or hlsp_tica_…fits, also .gz or .fz, or a cut-out"
    )
    origin = luigi.Parameter(
        default="", description="of a cut-out that does not show it: x0,y0 where it begins on the FFI"
    )

    def plan(self):
        """Return the `Plan` of the FFI: its geometry and the skycells under it."""
        return chain.plan.plan_ffi(self.ffi, self.roi, self.target, self.size, self.skycell_catalog, self.origin)


class _OfCCD(_Reporting, FolderMixin, OverwriteMixin):
    """What the tasks of one CCD of a sector have in common: the CCD, and the folder of its FFIs."""

    sector = Whole("sector", 1, 9999, description="TESS sector")
    camera = Whole("camera", 1, 4, description="TESS camera, 1 to 4")
    ccd = Whole("ccd", 1, 4, description="TESS CCD, 1 to 4")

    def which(self):
        """Return the CCD."""
        return paths.CCD(self.sector, self.camera, self.ccd)

    def ffis(self):
        """Return the paths of the FFIs of the CCD."""
        return chain.ffi_folder.find(self.ffi_dir, self.sector, self.began).get(self.which(), ())
