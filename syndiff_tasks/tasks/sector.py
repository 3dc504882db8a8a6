"""The tasks of a whole sector, and of every FFI of a CCD."""

from syndiff_tasks import chain, manifest, paths
from syndiff_tasks.config import syndiff
from syndiff_tasks.parameters import Auto, Detectors, Offsets, Whole
from syndiff_tasks.targets import SettingsDiffer, WholeTarget

from .base import ConvolutionMixin, FolderMixin, RegionMixin, _nowhere, _OfCCD, _Reporting
from .pointing import DriftOffsets, ReferenceFFI, _laid_out_by
from .template import Downsample


class _TemplateOptions(_Reporting, RegionMixin, ConvolutionMixin):
    """The options of the templates: region, combination and convolution."""

    def to_share(self, plan, files):
        """Return the path of another FFI of the CCD that already has skycells of a plan's region, or an empty string.

        Otherwise products of another FFI, made before this one was chosen, would stop the run.
        """
        stem = _laid_out_by(plan.ccd, plan.label)
        others = [str(path) for path in files if chain.ffi_folder.stem_of(path) == stem != plan.ccd.stem]
        return next((path for path in others if chain.plan.may_share(plan, path, self.skycell_catalog)), "")

    def options(self):
        """Return the `manifest.Fingerprint` of the options; a report is remade when they change."""
        own = self.to_str_params(only_significant=True)
        return manifest.Fingerprint(tuple(sorted((name, own[name]) for name in own if name != "ffi_dir")))

    def target_label(self):
        """Return the label of the target and the size of its region, empty where none is given."""
        # Which pixels these are is known only once the reference is chosen.
        return f"target_{self.target.replace(' ', '_')}_size_{self.size}" if self.target else ""


class Sector(_TemplateOptions, FolderMixin):
    """Templates of every CCD of a sector, a few CCDs at a time, and a report on them."""

    sector = Whole("sector", 1, 9999, description="TESS sector")
    cameras = Detectors(default=(1, 2, 3, 4), description="cameras, e.g. 1,3 (default: all)")
    ccds = Detectors(default=(1, 2, 3, 4), description="CCDs of each camera, e.g. 2 (default: all)")
    multi_offset_array = Offsets(
        default=((0.0, 0.0),), description="dx,dy pairs [TESS px], a template each, or auto:0.01 (default 0,0)"
    )

    def found(self):
        """Return the paths of the FFIs of each selected CCD; none where the folder has none."""
        there = chain.ffi_folder.find(self.ffi_dir, self.sector, self.began)
        selected = [paths.CCD(self.sector, camera, ccd) for camera in self.cameras for ccd in self.ccds]
        return {ccd: there.get(ccd, ()) for ccd in selected}

    def requires(self):
        """Return the choice of each CCD's reference FFI."""
        return {ccd: self.derive(ReferenceFFI, **ccd._asdict()) for ccd, files in self.found().items() if files}

    def plans(self):
        """Return for each CCD its `sector_report.Planned`; the references must have been chosen."""
        chosen = {ccd: task.output().path for ccd, task in self.requires().items()}
        return {ccd: self._planned(files, chosen.get(ccd)) for ccd, files in self.found().items()}

    def _planned(self, files, choice):
        if not files:
            return chain.sector_report.Planned("no FFI", 0, "", None, "the folder has no FFI of this CCD")
        ffi, why = chain.pointing.read_choice(choice)
        if not ffi:
            return chain.sector_report.Planned("no good FFI", len(files), "", None, why)
        path = chain.ffi_folder.path_of(ffi, files)
        if self.target and not chain.frame_header.sees(path, chain.plan.position(self.target)):
            return chain.sector_report.Planned(
                "target elsewhere", len(files), ffi, None, "the target is not on this CCD"
            )
        folder = self.ffi_dir if isinstance(self.multi_offset_array, Auto) else ""
        task = self.derive(Downsample, ffi=str(path), ffi_dir=folder)
        try:
            shared = self.to_share(task.plan(), files)
        except chain.plan.NoCoverage as error:
            return chain.sector_report.Planned("no PS1 coverage", len(files), ffi, None, str(error))
        return chain.sector_report.Planned("made", len(files), ffi, task.clone(reference_ffi=shared), why)

    def output(self):
        """Return the report and the page."""
        path = paths.sector_report(syndiff().data_root, self.sector, self._label())
        choices = {str(ccd): task.output() for ccd, task in self.requires().items()}
        report = WholeTarget(path, {"sector": self.sector}, choices | {"asked": self.options()})
        # Drawn later, the templates have pages to be linked.
        drawn = manifest.Fingerprint((("pictures", str(syndiff().pictures)),))
        return {"report": report, "page": WholeTarget(paths.sector_page(path), {}, {"report": report, "drawn": drawn})}

    def _label(self):
        own = self.to_str_params()
        partly = [f"{name}_{own[name].replace(',', '_')}" for name in ("cameras", "ccds") if own[name] != "1,2,3,4"]
        partly += [chain.plan.roi_label(self.roi), self.target_label()]
        if self.multi_offset_array != ((0.0, 0.0),):
            partly.append(paths.offsets_label(own["multi_offset_array"]))
        return "_".join(filter(None, partly))

    def is_complete(self):
        """Return whether the report, the page and every template exist."""
        return not self.left() and super().is_complete()

    def left(self):
        """Return the CCDs whose reference is not chosen yet, else those of which templates are missing."""
        unchosen = [ccd for ccd, task in self.requires().items() if not task.complete()]
        return unchosen or [ccd for ccd, planned in self.plans().items() if planned.task and not _is_made(planned.task)]

    def run(self):
        """Run the templates, some CCDs at a time, and write the report."""
        planned = self.plans()
        tasks = [one.task for one in planned.values() if one.task]
        # Luigi runs this from the top after each batch; a finished batch costs only a check of its products.
        for start in range(0, len(tasks), syndiff().ccds_at_once):
            (self.set_status_message or _nowhere)(f"{start} of {len(tasks)} CCDs are done")
            yield tasks[start : start + syndiff().ccds_at_once]
        report, page = self.output()["report"], self.output()["page"]
        with report.writing() as draft:
            chain.sector_report.report(planned).to_csv(draft.path, index=False)
        with page.writing() as draft:
            chain.sector_report.write_page(draft.path, self.sector, planned)
        self.link_to(page.path)


def _is_made(task):
    """Return whether a task is complete; not with products of other settings, which its run reports."""
    try:
        return task.is_complete()
    except SettingsDiffer:
        return False


class EveryFFI(_OfCCD, _TemplateOptions):
    """A template for every FFI of a CCD through its own WCS, all sampled from one set of convolved skycells."""

    def requires(self):
        """Return the pointing of all FFIs, and the choice of the one whose skycells are shared."""
        return {"choice": self.derive(ReferenceFFI), "drift": self.derive(DriftOffsets, roi="")}

    def output(self):
        """Return the report: each FFI, with its template or the reason why it has none."""
        path = paths.every_ffi(syndiff().data_root, self.which(), chain.plan.roi_label(self.roi), self.target_label())
        inputs = {"drift": self.requires()["drift"].output()["table"], "asked": self.options()}
        return WholeTarget(path, self.which()._asdict(), inputs, self.overwrite, self.task_family)

    def run(self):
        """Run the template of the reference, then all others, and write the report."""
        files, table = self.ffis(), chain.drift.read_drift(self.input()["drift"]["table"].path)
        reference = chain.pointing.reference_path(self.input()["choice"].path, files)
        first = self.derive(Downsample, ffi=reference, ffi_dir="")
        other = self.to_share(first.plan(), files)
        first = first.clone(reference_ffi=other)
        yield first
        part, shared = {"roi": chain.plan.roi_of(first.plan()), "target": "", "ffi_dir": ""}, other or reference
        pointed = [str(chain.ffi_folder.path_of(stem, files)) for stem in table["ffi"][chain.drift.usable(table)]]
        tasks = {
            path: self.derive(Downsample, ffi=path, reference_ffi="" if path == shared else shared, **part)
            for path in pointed
            if path != reference
        }
        yield list(tasks.values())
        made = {path: next(iter(task.output().values()))[0].path for path, task in (tasks | {reference: first}).items()}
        table["template"] = [made.get(str(chain.ffi_folder.path_of(stem, files)), "") for stem in table["ffi"]]
        with self.output().writing() as draft:
            table[["ffi", "mjd", "template", "flags", "why"]].to_csv(draft.path, index=False)
