"""The tasks of one FFI: map, convolved skycells, templates."""

import logging
import time
from pathlib import Path

import luigi

from syndiff_tasks import chain, failures, paths
from syndiff_tasks.config import Auto, Offsets, Switch, downloads_at_once, syndiff
from syndiff_tasks.targets import WholeTarget

from .base import ConvolutionMixin, FolderMixin, OverwriteMixin, _OnFFI
from .pointing import DriftOffsets
from .skycell import CombineBands, combined_target

logger = logging.getLogger("luigi-interface")


class MapFFI(_OnFFI, OverwriteMixin):
    """Which PS1 skycells lie under an FFI, and which of them owns each TESS pixel."""

    def output(self):
        """Return the table of skycells, the master map, the coverage maps, and with `pixel_maps` a map a skycell."""
        plan, root = self.plan(), syndiff().data_root
        made = {"list": paths.skycells_list(root, plan.ccd, plan.label)}
        made["pixels"] = paths.master_map(root, plan.ccd, plan.label)
        for name in chain.plan.COVERAGE_MAPS:
            made[name] = paths.coverage_map(root, plan.ccd, plan.label, name.removeprefix("moc."))
        if syndiff().pixel_maps:
            for skycell in plan.skycells:
                made[skycell.name] = paths.pixel_map(root, plan.ccd, plan.label, skycell.name)
        made_by = (self.overwrite, self.task_family)
        return {name: WholeTarget(path, plan.settings(), None, *made_by) for name, path in made.items()}

    def run(self):
        """Write each map that is not there yet."""
        plan, missing = self.plan(), {name: one for name, one in self.output().items() if not one.exists()}
        progress = self.progress(len(missing), "map")
        for name, target in missing.items():
            with target.writing() as draft:
                chain.plan.write_map(plan, name, draft.path)
            progress.step(f"{name} written")


class _Blurring(_OnFFI, ConvolutionMixin, OverwriteMixin):
    """What decides about the blurred skycells of an FFI."""

    reference_ffi = luigi.Parameter(default="", description="FFI of the same CCD whose blurred skycells are shared")

    def blur(self):
        """Return the `convolve.TemplatePsf` that is asked for."""
        return chain.convolve.TemplatePsf.from_settings(syndiff(), self.psf_sigma, self.plan(), self.needs_wide())

    def reference(self):
        """Return the `Plan` of the FFI whose blurred skycells are shared, which is the FFI's own as a rule."""
        return chain.plan.reference_of(self.plan(), self.reference_ffi, self.skycell_catalog)

    def shaped_by(self):
        """Return the settings that shape a blurred skycell."""
        return self.recipe().settings() | self.blur().settings(self.reference())


class Convolve(_Blurring):
    """The skycells under an FFI, blurred to the point spread function of the template."""

    wide = Switch("wide", default=False, description="frames wide enough for offsets of up to 1.5 TESS px")

    def needs_wide(self):
        """Return whether frames are to be wide."""
        return self.wide

    def requires(self):
        """Return the combined skycells, those of the frame's neighbours too where the blur is wide.

        A further FFI needs only what its reference did not: to ask for all would cost more than to sample them.
        """
        plan, blur = self.plan(), self.blur()
        if not self.reference_ffi:
            chain.stack_files.demand_space(syndiff(), self.recipe(), blur.skycells(plan), downloads_at_once())
            return {name: self._combining(name) for name in blur.skycells(plan)}
        groups = self.groups()
        added = (skycell for skycell in plan.skycells if not groups[skycell.name].exists())
        return {name: self._combining(name) for skycell in added for name in blur.made_of(plan, skycell)}

    def _combining(self, name):
        return self.derive(CombineBands, skycell=name)

    def groups(self):
        """Return the target of each blurred skycell, by name."""
        plan, blur, shaped_by, root = self.plan(), self.blur(), self.shaped_by(), syndiff().data_root
        recipe, combining = self.recipe(), self._combining(plan.skycells[0].name)
        requests = combining.overwrite, combining.requires().overwrite  # the same for all skycells
        combined = {name: combined_target(root, name, recipe, *requests) for name in blur.skycells(plan)}
        return {
            skycell.name: WholeTarget(
                paths.convolved(root, plan.ccd, *names),
                shaped_by | {"skycell": skycell.name},
                {name: combined[name] for name in names},
                self.overwrite,
                self.task_family,
            )
            for skycell, names in ((skycell, blur.made_of(plan, skycell)) for skycell in plan.skycells)
        }

    def output(self):
        """Return the summary of the blurred skycells."""
        plan = self.plan()
        path = paths.cell_metadata(syndiff().data_root, plan.ccd, plan.label, not self.reference_ffi, self.wide)
        settings = plan.settings() | self.shaped_by()
        return WholeTarget(path, settings, self.groups(), self.overwrite, self.task_family)

    def is_complete(self):
        """Return whether the summary and every blurred skycell are there."""
        summary = self.output()
        return summary.exists() and all(group.exists() for group in summary.inputs.values())

    def run(self):
        """Blur each skycell that is not there yet, and sum up."""
        plan, combined, groups, blur, recipe = self.plan(), self.input(), self.groups(), self.blur(), self.recipe()
        progress = self.progress(len(groups), "skycell")
        for skycell in plan.skycells:
            if not groups[skycell.name].exists():
                with groups[skycell.name].writing() as draft:
                    own = {name: combined[name] for name in blur.made_of(plan, skycell)}
                    blurred = chain.convolve.convolve(
                        self.reference(), skycell, own, blur, recipe.ignore, recipe.suspect
                    )
                    chain.convolve.write_convolved(draft.path, blurred)
                    draft.notes.update(combined[skycell.name].manifest()["notes"])
                    draft.record_time("blur")
            progress.step(skycell.name)
        with self.output().writing() as draft:
            chain.convolve.summarize(plan, groups, draft.path)


class Downsample(_Blurring, FolderMixin):
    """Templates of an FFI: the blurred skycells integrated over its pixels, one template an offset."""

    multi_offset_array = Offsets(
        default=((0.0, 0.0),),
        description="dx,dy pairs [TESS px], a template each: 0,0,0.5,0; dx > 0 moves stars to larger x (default 0,0); "
        "or auto:0.01 for the offsets of the FFIs in --ffi-dir, to within 0.01 px",
    )
    ffi_dir = luigi.Parameter(default="", description="for offsets auto: folder of the FFIs of this sector and CCD")

    def needs_wide(self):
        """Return whether an offset, or one that may follow from the drift, needs wide frames."""
        if isinstance(self.multi_offset_array, Auto):
            return True
        narrow = chain.convolve.TemplatePsf.from_settings(syndiff(), self.psf_sigma, self.plan())
        return chain.downsample.beyond(self.plan(), narrow, self.multi_offset_array) is not None

    def convolve(self):
        """Return the task that blurs the skycells of this FFI."""
        return self.derive(Convolve, wide=self.needs_wide())

    def requires(self):
        """Return the map and the blurred skycells.

        Raises
        ------
        ValueError
            If an offset is too large: better before the first download than after the last.
        """
        if not isinstance(self.multi_offset_array, Auto):
            chain.downsample.check_offsets(self.plan(), self.blur(), self.multi_offset_array)
        other = (
            {"ffi": self.reference_ffi, "roi": chain.plan.roi_of(self.plan()), "target": ""}
            if self.reference_ffi
            else {}
        )
        needed = {"map": self.derive(MapFFI, **other), "convolved": self.convolve()}
        return needed | ({"drift": self.drift()} if isinstance(self.multi_offset_array, Auto) else {})

    def drift(self):
        """Return the task that tells by how much the other FFIs of the CCD are offset from this one."""
        plan = self.plan()
        if not self.ffi_dir:
            raise ValueError("--multi-offset-array auto: give the folder of the FFIs to be grouped with --ffi-dir")
        ccd = {name: getattr(plan.ccd, name) for name in ("sector", "camera", "ccd")}
        return self.derive(DriftOffsets, **ccd, reference_ffi=self.ffi, roi=chain.plan.roi_of(plan))

    def grouped(self):
        """Return the table FFI → offset of its template, of which the drift is told."""
        table = chain.drift.read_drift(self.drift().output()["table"].path)
        return chain.drift.group(
            table, self.multi_offset_array.within, chain.downsample.largest_offset(self.plan(), self.blur())
        )

    def offsets(self):
        """Return the offsets that are asked for, or that the FFIs have."""
        return (
            chain.drift.offsets(self.grouped())
            if isinstance(self.multi_offset_array, Auto)
            else self.multi_offset_array
        )

    def is_complete(self):
        """Return whether every template is there; which ones there are to be may follow from the drift."""
        return (not isinstance(self.multi_offset_array, Auto) or self.drift().complete()) and super().is_complete()

    def described(self):
        """Return the `template_file.TemplateSettings` that the template files tell."""
        settings = syndiff()
        shown = (settings.units, settings.oversampling, settings.min_coverage)
        return chain.template_file.TemplateSettings(*shown, self.shaped_by(), self.reference_ffi)

    def output(self):
        """Return the templates, and with offsets auto a table of which FFI has which."""
        if not isinstance(self.multi_offset_array, Auto):
            return self.templates()
        plan = self.plan()
        path = paths.ffi_templates(syndiff().data_root, plan.ccd, plan.label, self.multi_offset_array.within)
        return self.templates() | {"ffis": WholeTarget(path, {}, {"drift": self.drift().output()["table"]})}

    def templates(self):
        """Return a template for each offset, with its picture and page."""
        plan, described, convolved = self.plan(), self.described(), self.convolve().output()
        settings = plan.settings() | described.settings | chain.template_file.own_settings(described)
        made = {}
        for offset in self.offsets():
            path = paths.template(syndiff().data_root, plan.ccd, plan.label, offset)
            made_by = (self.overwrite, self.task_family)
            template = WholeTarget(path, settings | {"offset": offset}, {"convolved": convolved}, *made_by)
            beside = (paths.picture(path), paths.page(path)) if syndiff().pictures else ()
            made[offset] = [template, *(WholeTarget(one, {}, {"template": template}, *made_by) for one in beside)]
        return made

    def run(self):
        """Integrate over the pixels, some offsets at a time, write, and draw."""
        plan, made, groups = self.plan(), self.templates(), self.convolve().groups()
        missing = [offset for offset, (template, *_) in made.items() if not template.exists()]
        chain.downsample.check_offsets(plan, self.blur(), missing)
        frame = chain.downsample.pixel_grid(plan, syndiff().oversampling)
        batches = chain.downsample.batches(missing, frame)
        progress = self.progress(len(batches) * len(groups) + len(made), "step")
        for batch in batches:
            begun = time.monotonic()
            templates = chain.downsample.integrate(plan, frame, groups, batch, syndiff().oversampling, progress)
            for offset, sampled in zip(batch, templates, strict=True):
                with made[offset][0].writing() as draft:
                    covered = chain.template_file.write_template(
                        draft.path, sampled, frame, plan, offset, self.described(), groups
                    )
                    draft.notes["seconds"] = chain.template_file.seconds_of(groups)
                    draft._replace(begun=begun).record_time(f"integrate and write, {len(batch)} offsets")
                if warning := chain.template_file.sparse(made[offset][0].path, covered):
                    logger.warning("%s", warning)
                    failures.record(self.task_family, made[offset][0].path, warning)
        for offset, targets in made.items():
            chain.template_page.draw(plan, targets)
            progress.step(f"dx {offset[0]:+} dy {offset[1]:+} drawn")
            self.link_to(targets[-1].path)
        if isinstance(self.multi_offset_array, Auto):
            names = {offset: Path(template.path).name for offset, (template, *_) in made.items()}
            with self.output()["ffis"].writing() as draft:
                chain.drift.with_templates(self.grouped(), names).to_csv(draft.path, index=False)
