"""The tasks of one FFI: map, convolved skycells, templates."""

import logging
import time
from pathlib import Path

import luigi

from syndiff_tasks import chain, failures, paths
from syndiff_tasks.config import downloads_at_once, syndiff
from syndiff_tasks.parameters import Auto, Offsets, Switch
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
        """Write each map that is missing."""
        plan, missing = self.plan(), {name: one for name, one in self.output().items() if not one.exists()}
        progress = self.progress(len(missing), "map")
        for name, target in missing.items():
            with target.writing() as draft:
                chain.plan.write_map(plan, name, draft.path)
            progress.step(f"{name} written")


class _OnConvolved(_OnFFI, ConvolutionMixin, OverwriteMixin):
    """The tasks that depend on the convolved skycells of an FFI."""

    reference_ffi = luigi.Parameter(default="", description="FFI of the same CCD that provides the convolved skycells")

    def template_psf(self):
        """Return the `convolve.TemplatePsf` of the settings."""
        return chain.convolve.TemplatePsf.from_settings(syndiff(), self.psf_sigma, self.plan(), self.needs_wide())

    def reference(self):
        """Return the `Plan` of the FFI that provides the convolved skycells, by default the FFI's own."""
        return chain.plan.reference_of(self.plan(), self.reference_ffi, self.skycell_catalog)

    def convolved_settings(self):
        """Return the settings that shape a convolved skycell."""
        return self.combine_config().settings() | self.template_psf().settings(self.reference())


class Convolve(_OnConvolved):
    """The skycells under an FFI, convolved to the point spread function of the template."""

    wide = Switch("wide", default=False, description="frames wide enough for offsets of up to 1.5 TESS px")

    def needs_wide(self):
        """Return whether wide frames are needed."""
        return self.wide

    def requires(self):
        """Return the combined skycells, and those of the neighbors that a wide frame reaches.

        An FFI that shares its reference's skycells needs only those that the reference did not:
        listing all of them would cost more than sampling them.
        """
        plan, psf = self.plan(), self.template_psf()
        if not self.reference_ffi:
            chain.stack_files.demand_space(syndiff(), self.combine_config(), psf.skycells(plan), downloads_at_once())
            return {name: self._combining(name) for name in psf.skycells(plan)}
        groups = self.groups()
        added = (skycell for skycell in plan.skycells if not groups[skycell.name].exists())
        return {name: self._combining(name) for skycell in added for name in psf.inputs_of(plan, skycell)}

    def _combining(self, name):
        return self.derive(CombineBands, skycell=name)

    def groups(self):
        """Return the target of each convolved skycell, by name."""
        plan, psf, settings, root = self.plan(), self.template_psf(), self.convolved_settings(), syndiff().data_root
        config, combining = self.combine_config(), self._combining(plan.skycells[0].name)
        requests = combining.overwrite, combining.requires().overwrite  # the same for all skycells
        combined = {name: combined_target(root, name, config, *requests) for name in psf.skycells(plan)}
        return {
            skycell.name: WholeTarget(
                paths.convolved(root, plan.ccd, *names),
                settings | {"skycell": skycell.name},
                {name: combined[name] for name in names},
                self.overwrite,
                self.task_family,
            )
            for skycell, names in ((skycell, psf.inputs_of(plan, skycell)) for skycell in plan.skycells)
        }

    def output(self):
        """Return the summary of the convolved skycells."""
        plan = self.plan()
        path = paths.cell_metadata(syndiff().data_root, plan.ccd, plan.label, not self.reference_ffi, self.wide)
        settings = plan.settings() | self.convolved_settings()
        return WholeTarget(path, settings, self.groups(), self.overwrite, self.task_family)

    def is_complete(self):
        """Return whether the summary and every convolved skycell exist."""
        summary = self.output()
        return summary.exists() and all(group.exists() for group in summary.inputs.values())

    def run(self):
        """Convolve each skycell that is missing, and write the summary."""
        plan, combined, groups = self.plan(), self.input(), self.groups()
        psf, config = self.template_psf(), self.combine_config()
        progress = self.progress(len(groups), "skycell")
        for skycell in plan.skycells:
            if not groups[skycell.name].exists():
                with groups[skycell.name].writing() as draft:
                    own = {name: combined[name] for name in psf.inputs_of(plan, skycell)}
                    convolved = chain.convolve.convolve(
                        self.reference(), skycell, own, psf, config.ignore, config.suspect
                    )
                    chain.convolve.write_convolved(draft.path, convolved)
                    draft.notes.update(combined[skycell.name].manifest()["notes"])
                    draft.record_time("blur")
            progress.step(skycell.name)
        with self.output().writing() as draft:
            chain.convolve.summarize(plan, groups, draft.path)


class Downsample(_OnConvolved, FolderMixin):
    """Templates of an FFI: the convolved skycells integrated over its pixels, one template an offset."""

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
        """Return the task that convolves the skycells of this FFI."""
        return self.derive(Convolve, wide=self.needs_wide())

    def requires(self):
        """Return the map and the convolved skycells.

        Raises
        ------
        ValueError
            If an offset is too large: raised here, before the first download.
        """
        if not isinstance(self.multi_offset_array, Auto):
            chain.downsample.check_offsets(self.plan(), self.template_psf(), self.multi_offset_array)
        other = (
            {"ffi": self.reference_ffi, "roi": chain.plan.roi_of(self.plan()), "target": ""}
            if self.reference_ffi
            else {}
        )
        needed = {"map": self.derive(MapFFI, **other), "convolved": self.convolve()}
        return needed | ({"drift": self.drift()} if isinstance(self.multi_offset_array, Auto) else {})

    def drift(self):
        """Return the task that measures the offsets of the CCD's other FFIs from this one."""
        plan = self.plan()
        if not self.ffi_dir:
            raise ValueError("--multi-offset-array auto: give the folder of the FFIs to be grouped with --ffi-dir")
        ccd = {name: getattr(plan.ccd, name) for name in ("sector", "camera", "ccd")}
        return self.derive(DriftOffsets, **ccd, reference_ffi=self.ffi, roi=chain.plan.roi_of(plan))

    def grouped(self):
        """Return the table FFI → offset of its template, grouped from the measured drift."""
        table = chain.drift.read_drift(self.drift().output()["table"].path)
        return chain.drift.group(
            table, self.multi_offset_array.within, chain.downsample.largest_offset(self.plan(), self.template_psf())
        )

    def offsets(self):
        """Return the offsets: the given ones, or those of the FFIs for ``auto``."""
        return (
            chain.drift.offsets(self.grouped())
            if isinstance(self.multi_offset_array, Auto)
            else self.multi_offset_array
        )

    def is_complete(self):
        """Return whether every template exists; with ``auto`` the drift decides which are needed."""
        return (not isinstance(self.multi_offset_array, Auto) or self.drift().complete()) and super().is_complete()

    def template_settings(self):
        """Return the `template_file.TemplateSettings` that the template files record."""
        settings = syndiff()
        values = (settings.units, settings.oversampling, settings.min_coverage)
        return chain.template_file.TemplateSettings(*values, self.convolved_settings(), self.reference_ffi)

    def output(self):
        """Return the templates, and with offsets auto a table of the template of each FFI."""
        if not isinstance(self.multi_offset_array, Auto):
            return self.templates()
        plan = self.plan()
        path = paths.ffi_templates(syndiff().data_root, plan.ccd, plan.label, self.multi_offset_array.within)
        return self.templates() | {"ffis": WholeTarget(path, {}, {"drift": self.drift().output()["table"]})}

    def templates(self):
        """Return a template for each offset, with its picture and page."""
        plan, made_with, convolved = self.plan(), self.template_settings(), self.convolve().output()
        settings = plan.settings() | made_with.convolved | chain.template_file.own_settings(made_with)
        made = {}
        for offset in self.offsets():
            path = paths.template(syndiff().data_root, plan.ccd, plan.label, offset)
            made_by = (self.overwrite, self.task_family)
            template = WholeTarget(path, settings | {"offset": offset}, {"convolved": convolved}, *made_by)
            beside = (paths.picture(path), paths.page(path)) if syndiff().pictures else ()
            made[offset] = [template, *(WholeTarget(one, {}, {"template": template}, *made_by) for one in beside)]
        return made

    def run(self):
        """Integrate over the pixels, some offsets at a time; write and draw each template."""
        plan, made, groups = self.plan(), self.templates(), self.convolve().groups()
        missing = [offset for offset, (template, *_) in made.items() if not template.exists()]
        chain.downsample.check_offsets(plan, self.template_psf(), missing)
        frame = chain.downsample.pixel_grid(plan, syndiff().oversampling)
        batches = chain.downsample.batches(missing, frame)
        progress = self.progress(len(batches) * len(groups) + len(made), "step")
        for batch in batches:
            begun = time.monotonic()
            templates = chain.downsample.integrate(plan, frame, groups, batch, syndiff().oversampling, progress)
            for offset, sampled in zip(batch, templates, strict=True):
                with made[offset][0].writing() as draft:
                    covered = chain.template_file.write_template(
                        draft.path, sampled, frame, plan, offset, self.template_settings(), groups
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
