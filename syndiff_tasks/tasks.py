"""The graph: what each product needs, and what makes it.

All tasks of an FFI are known before the first one runs: which skycells lie under an FFI follows from its header and
the ring table alone.
"""

import luigi

from . import paths, process, stages
from .config import Bits, Number, Offsets, setting, syndiff
from .targets import WholeTarget

OVERWRITE = {
    "default": False,
    "significant": False,
    "description": "make this product again, and what follows from it; of a download, fetch it again",
}


class _Reporting(luigi.Task):
    """A task that tells how far it is, in the terminal and in the web view, and what went wrong last of all."""

    def progress(self, total, unit):
        """Return a `stages.Progress` of `total` steps that also moves the bar of luigid's web view."""
        return stages.Progress(
            total, unit, str(self), self.set_progress_percentage or _nowhere, self.set_status_message or _nowhere
        )


@_Reporting.event_handler(luigi.Event.FAILURE)
@_Reporting.event_handler(luigi.Event.BROKEN_TASK)
@_Reporting.event_handler(luigi.Event.PROCESS_FAILURE)
def _remember(task, error):
    process.last_words(task.task_family, error)


def _nowhere(value):
    """Take a report where no scheduler listens, as in a task that is run by hand."""


class _OnFFI(_Reporting):
    """What the tasks of one FFI have in common: the FFI, and which part of it."""

    ffi = luigi.Parameter(description="the FFI: tess…_ffic.fits (SPOC) or hlsp_tica_…fits, also .gz or .fz")
    roi = luigi.Parameter(default="", description="region x0,y0,x1,y1 in FFI pixels, half-open, the first pixel is 0,0")
    target = luigi.Parameter(default="", description="instead of --roi: centre of the region, 'RA Dec' in degrees")
    size = luigi.IntParameter(default=64, description="with --target: width and height of the region [TESS px]")
    skycell_catalog = luigi.Parameter(default="", description="CSV of skycells that replaces the PS1 ring table")

    def plan(self):
        """Return the `stages.Plan` of the FFI: its geometry and the skycells under it."""
        return stages.plan(self.ffi, self.roi, self.target, self.size, self.skycell_catalog)

    def part(self):
        """Return the parameters that name the same part of the same FFI to another task."""
        names = ("ffi", "roi", "target", "size", "skycell_catalog")
        return {name: getattr(self, name) for name in names}


class MapFFI(_OnFFI):
    """Which PS1 skycells lie under an FFI, and which of them owns each TESS pixel."""

    overwrite = luigi.BoolParameter(**OVERWRITE)

    def output(self):
        """Return the table of skycells, the master map, and with `pixel_maps` a map a skycell."""
        plan, root = self.plan(), syndiff().data_root
        made = {"list": paths.skycells_list(root, plan.ccd, plan.label)}
        made["pixels"] = paths.master_map(root, plan.ccd, plan.label)
        if syndiff().pixel_maps:
            for skycell in plan.footprint.skycells:
                made[skycell.name] = paths.pixel_map(root, plan.ccd, plan.label, skycell.name)
        made_by = (self.overwrite, self.task_family)
        return {name: WholeTarget(path, plan.settings(), None, *made_by) for name, path in made.items()}

    def run(self):
        """Write each map that is not there yet."""
        plan, missing = self.plan(), {name: one for name, one in self.output().items() if not one.exists()}
        progress = self.progress(len(missing), "map")
        for name, target in missing.items():
            with target.writing() as draft:
                stages.write_map(plan, name, draft.path)
            progress.step(f"{name} written")


class DownloadSkycell(_Reporting):
    """The r, i, z, y files of one skycell (image, mask, variance), at the archive's own precision."""

    skycell = luigi.Parameter(description="PS1 skycell, e.g. skycell.2556.080")
    skycell_catalog = luigi.Parameter(default="", description="CSV of skycells that replaces the PS1 ring table")
    overwrite = luigi.BoolParameter(**OVERWRITE)

    resources = {"ps1_archive": 1}

    def output(self):
        """Return the Zarr group of the skycell."""
        path = paths.raw(syndiff().data_root, self.skycell)
        settings = {"skycell": self.skycell, "format": stages.RAW_FORMAT}
        return WholeTarget(path, settings, None, self.overwrite, self.task_family)

    def complete(self):
        """Tell whether all is there that the archive had when it was asked last, not too long ago."""
        target = self.output()
        return target.exists() and not stages.recheck_is_due(target.manifest(), syndiff().recheck_absent_days)

    def run(self):
        """Fetch, check and store every file of the skycell."""
        source = stages.source(syndiff())
        skycell = stages.tessellation(self.skycell_catalog).skycell(self.skycell)
        with self.output().writing() as draft:
            stages.download(skycell, source, draft, self.progress(len(source.bands) * len(stages.KINDS), "file"))


class CombineBands(_Reporting):
    """The TESS-band image, variance and mask of one skycell, on blocks."""

    skycell = luigi.Parameter(description="PS1 skycell, e.g. skycell.2556.080")
    ignore_mask_bits = Bits(config_path=setting("ignore_mask_bits"), description="PS1 mask bits to flag, e.g. 12")
    skycell_catalog = luigi.Parameter(default="", description="CSV of skycells that replaces the PS1 ring table")
    overwrite = luigi.BoolParameter(**OVERWRITE)

    def recipe(self):
        """Return the `stages.Recipe` of the blocks."""
        return stages.recipe(syndiff(), self.ignore_mask_bits)

    def requires(self):
        """Return the download of the skycell."""
        return DownloadSkycell(skycell=self.skycell, skycell_catalog=self.skycell_catalog)

    def output(self):
        """Return the Zarr group of the combined skycell, in the folder of its recipe."""
        recipe = self.recipe()
        path = paths.combined(syndiff().data_root, recipe.label, self.skycell)
        made_of = {"raw": self.requires().output()}
        settings = recipe.settings() | {"skycell": self.skycell}
        return WholeTarget(path, settings, made_of, self.overwrite, self.task_family)

    def run(self):
        """Combine the bands, take the sky off, and share the pixels among blocks."""
        skycell = stages.tessellation(self.skycell_catalog).skycell(self.skycell)
        with self.output().writing() as draft:
            stages.write_blocks(draft.path, stages.combine(self.input().path, skycell, self.recipe()), skycell)
            draft.notes.update(stages.origin_of(self.input()))
        if not syndiff().keep_raw:
            self.input().remove()


class _Blurring(_OnFFI):
    """What decides about the blurred skycells of an FFI."""

    psf_sigma = Number(
        "psf_sigma", 0.0, 400.0, config_path=setting("psf_sigma"), description="sigma of the Gaussian PSF [PS1 px]"
    )
    ignore_mask_bits = Bits(config_path=setting("ignore_mask_bits"), description="PS1 mask bits to flag, e.g. 12")
    reference_ffi = luigi.Parameter(default="", description="FFI of the same CCD whose blurred skycells are shared")

    def blur(self):
        """Return the `stages.Blur` that is asked for."""
        return stages.blur(syndiff(), self.psf_sigma, self.plan().ccd)

    def recipe(self):
        """Return the `stages.Recipe` of the combined skycells."""
        return stages.recipe(syndiff(), self.ignore_mask_bits)

    def reference(self):
        """Return the `stages.Plan` of the FFI whose blurred skycells are shared, which is the FFI's own as a rule."""
        return stages.reference_of(self.plan(), self.reference_ffi, self.skycell_catalog)

    def shaped_by(self):
        """Return the settings that shape a blurred skycell."""
        return self.recipe().settings() | self.blur().settings(self.reference())


class Convolve(_Blurring):
    """The skycells under an FFI, blurred to the point spread function of the template."""

    overwrite = luigi.BoolParameter(**OVERWRITE)

    def requires(self):
        """Return the combined skycells, those of the frame's neighbours too where the blur is wide."""
        shared = {"ignore_mask_bits": self.ignore_mask_bits, "skycell_catalog": self.skycell_catalog}
        return {name: CombineBands(skycell=name, **shared) for name in self.blur().skycells(self.plan())}

    def groups(self):
        """Return the target of each blurred skycell, by name."""
        plan, blur, shaped_by, root = self.plan(), self.blur(), self.shaped_by(), syndiff().data_root
        # Of what a product is made of only the digest counts; asking a thousand tasks for it would take 20 s.
        recipe = self.recipe().label
        raw = {name: WholeTarget(paths.raw(root, name), {}) for name in blur.skycells(plan)}
        combined = {name: WholeTarget(paths.combined(root, recipe, name), {}, {"raw": raw[name]}) for name in raw}
        return {
            skycell.name: WholeTarget(
                paths.convolved(root, plan.ccd, skycell.name),
                shaped_by | {"skycell": skycell.name},
                {name: combined[name] for name in blur.made_of(plan, skycell)},
                self.overwrite,
                self.task_family,
            )
            for skycell in plan.footprint.skycells
        }

    def output(self):
        """Return the summary of the blurred skycells."""
        plan = self.plan()
        path = paths.cell_metadata(syndiff().data_root, plan.ccd, plan.label, not self.reference_ffi)
        settings = plan.settings() | self.shaped_by()
        return WholeTarget(path, settings, self.groups(), self.overwrite, self.task_family)

    def complete(self):
        """Tell whether the summary and every blurred skycell are there."""
        return self.output().exists() and all(group.exists() for group in self.groups().values())

    def run(self):
        """Blur each skycell that is not there yet, and sum up."""
        plan, combined, groups, blur = self.plan(), self.input(), self.groups(), self.blur()
        progress = self.progress(len(groups), "skycell")
        for skycell in plan.footprint.skycells:
            if not groups[skycell.name].exists():
                blurred = stages.convolve(self.reference(), skycell, combined, blur, self.ignore_mask_bits)
                with groups[skycell.name].writing() as draft:
                    stages.write_blurred(draft.path, blurred)
                    draft.notes.update(combined[skycell.name].manifest()["notes"])
            progress.step(skycell.name)
        with self.output().writing() as draft:
            stages.summarise(plan, groups, draft.path)


class Downsample(_Blurring):
    """Templates of an FFI: the blurred skycells integrated over its pixels, one template an offset."""

    multi_offset_array = Offsets(
        default=((0.0, 0.0),),
        description="dx,dy pairs [TESS px], a template each: 0,0,0.5,0; dx > 0 moves stars to larger x (default 0,0)",
    )
    overwrite = luigi.BoolParameter(**OVERWRITE)

    def convolve(self):
        """Return the task that blurs the skycells of this FFI."""
        shared = ("psf_sigma", "ignore_mask_bits", "reference_ffi")
        return Convolve(**{name: getattr(self, name) for name in shared}, **self.part())

    def requires(self):
        """Return the map and the blurred skycells."""
        mapped = self.part() | ({"ffi": self.reference_ffi} if self.reference_ffi else {})
        return {"map": MapFFI(**mapped), "convolved": self.convolve()}

    def described(self):
        """Return the `stages.Described` that the template files tell."""
        settings = syndiff()
        shown = (settings.units, settings.oversampling, settings.min_coverage)
        return stages.Described(*shown, self.shaped_by(), self.reference_ffi)

    def output(self):
        """Return a template for each offset, with its picture and page."""
        plan, described, convolved = self.plan(), self.described(), self.convolve().output()
        settings = plan.settings() | described.settings | stages.chosen(described)
        made = {}
        for offset in self.multi_offset_array:
            path = paths.template(syndiff().data_root, plan.ccd, plan.label, offset)
            made_by = (self.overwrite, self.task_family)
            template = WholeTarget(path, settings | {"offset": offset}, {"convolved": convolved}, *made_by)
            beside = (paths.picture(path),) if syndiff().pictures else ()
            made[offset] = [template, *(WholeTarget(one, {}, {"template": template}, *made_by) for one in beside)]
        return made

    def run(self):
        """Integrate over the pixels, some offsets at a time, write, and draw."""
        plan, made, groups = self.plan(), self.output(), self.convolve().groups()
        missing = [offset for offset, (template, *_) in made.items() if not template.exists()]
        stages.check_offsets(plan, self.blur(), missing)
        frame = stages.frame(plan, syndiff().oversampling)
        batches = stages.batches(missing, frame)
        progress = self.progress(len(batches) * len(groups) + len(made), "step")
        for batch in batches:
            templates = stages.integrate(plan, frame, groups, batch, syndiff().oversampling, progress)
            for offset, sampled in zip(batch, templates, strict=True):
                with made[offset][0].writing() as draft:
                    stages.write_template(draft.path, sampled, frame, plan, offset, self.described(), groups)
        for offset, targets in made.items():
            stages.draw(plan, targets)
            progress.step(f"dx {offset[0]:+} dy {offset[1]:+} drawn")
