"""The graph: what each product needs, and what makes it.

All tasks of an FFI are known before the first one runs: which skycells lie under an FFI follows from its header and
the ring table alone.
"""

import json
import logging
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import luigi

from . import failures, paths, plans, process, stackfiles, stages
from . import sector as sectors
from .config import (
    Auto,
    BitsOfSetting,
    Detectors,
    NumberOfSetting,
    Offsets,
    SkyTarget,
    Whole,
    downloads_at_once,
    syndiff,
)
from .io.archive import ArchiveUnavailable
from .targets import SettingsDiffer, WholeTarget, manifest_path, read_manifest, remember_failure, tried_now, verify

logger = logging.getLogger("luigi-interface")


TARGET = "instead of --roi: center of the region, 'RA Dec' in degrees or sexagesimal, a name, or 'TIC 261136679'"

BITS = "PS1 mask bits to flag, e.g. 12, or a comma alone for none"

OVERWRITE = {
    "default": False,
    "significant": False,
    "description": "make this product again, and what follows from it; of a download, fetch it again",
}


class _Reporting(luigi.Task):
    """A task that tells how far it is, in the terminal and in the web view, and what went wrong last of all."""

    def complete(self):
        """Tell whether the product is there."""
        # Luigi has events with the error for `requires` and `run`, but none for this.
        with failures.recording(self.task_family):
            process.begin_run()
            return self.is_complete()

    def is_complete(self):
        """Tell whether the product is there; the part of `complete` that tasks may have their own of."""
        return super().complete()

    def progress(self, total, unit):
        """Return a `stages.Progress` of `total` steps that also moves the bar of luigid's web view."""
        return stages.Progress(
            total, unit, str(self), self.set_progress_percentage or _nowhere, self.set_status_message or _nowhere
        )

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
    """Take a report where no scheduler listens, as in a task that is run by hand."""


class _OnFFI(_Reporting):
    """What the tasks of one FFI have in common: the FFI, and which part of it."""

    ffi = luigi.Parameter(description="the FFI: tess…_ffic.fits (SPOC) or hlsp_tica_…fits, also .gz or .fz")
    roi = luigi.Parameter(default="", description="region x0,y0,x1,y1 in FFI pixels, half-open, the first pixel is 0,0")
    target = SkyTarget(default="", description=TARGET)
    size = Whole("size", 1, 2048, default=64, description="with --target: width and height of the region [TESS px]")
    skycell_catalog = luigi.Parameter(default="", description="CSV of skycells that replaces the PS1 ring table")

    def plan(self):
        """Return the `plans.Plan` of the FFI: its geometry and the skycells under it."""
        return plans.plan(self.ffi, self.roi, self.target, self.size, self.skycell_catalog)

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
                plans.write_map(plan, name, draft.path)
            progress.step(f"{name} written")


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
        source, target = stackfiles.source(syndiff()), self.output()
        skycell = plans.tessellation(self.skycell_catalog).skycell(self.skycell)
        had = None if self.overwrite or verify(target.path, deep=True) else target.manifest()
        further = had and stackfiles.unasked(had, source.bands)
        there = stackfiles.Had(target.path, had["notes"]["files"] if had else {})
        if had:
            source = stackfiles.with_bands_of(had, source if further else stackfiles.asked_once(source))
        progress = self.progress(len(source.bands) * len(stackfiles.KINDS), "file")
        try:
            with target.writing() as draft:
                stackfiles.download(skycell, source, draft, progress, there)
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
        """Return the `stages.Recipe` of the blocks."""
        return stages.recipe(syndiff(), self.ignore_mask_bits)

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
        skycell = plans.tessellation(self.skycell_catalog).skycell(self.skycell)
        # Where the archive was asked again and had nothing new, what was planned has become needless.
        if not self.output().exists():
            with self.output().writing() as draft:
                shared, treated = stages.combine(self.input().path, skycell, self.recipe(), syndiff().data_root)
                stages.write_blocks(draft.path, shared, skycell)
                draft.notes.update(stackfiles.origin_of(self.input()), stars=treated)
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
    path, settings = paths.raw(root, skycell), {"skycell": skycell, "format": stackfiles.RAW_FORMAT}
    due = partial(_due, path, again)
    return WholeTarget(path, settings, None, again.raw, DownloadSkycell.task_family, due)


def _due(path, again, manifest):
    """Tell whether a raw skycell lacks bands that it was not fetched with, or files that may have come since then."""
    if stackfiles.unasked(manifest, again.bands):
        return True
    return stackfiles.recheck_is_due(manifest, again.days) and not tried_now(path, manifest)


def _combined(root, skycell, recipe, again):
    path, settings = paths.combined(root, recipe.label, skycell), recipe.settings() | {"skycell": skycell}
    inputs = {"raw": _raw(root, skycell, again)}
    return WholeTarget(path, settings, inputs, again.combined, CombineBands.task_family)


class _Blurring(_OnFFI):
    """What decides about the blurred skycells of an FFI."""

    psf_sigma = NumberOfSetting("psf_sigma", 0.0, 400.0, description="sigma of the Gaussian PSF [PS1 px]")
    ignore_mask_bits = BitsOfSetting(description=BITS)
    reference_ffi = luigi.Parameter(default="", description="FFI of the same CCD whose blurred skycells are shared")

    def blur(self):
        """Return the `stages.Blur` that is asked for."""
        return stages.blur(syndiff(), self.psf_sigma, self.plan().ccd)

    def recipe(self):
        """Return the `stages.Recipe` of the combined skycells."""
        return stages.recipe(syndiff(), self.ignore_mask_bits)

    def reference(self):
        """Return the `plans.Plan` of the FFI whose blurred skycells are shared, which is the FFI's own as a rule."""
        return plans.reference_of(self.plan(), self.reference_ffi, self.skycell_catalog)

    def shaped_by(self):
        """Return the settings that shape a blurred skycell."""
        return self.recipe().settings() | self.blur().settings(self.reference())


class Convolve(_Blurring):
    """The skycells under an FFI, blurred to the point spread function of the template."""

    overwrite = luigi.BoolParameter(**OVERWRITE)

    def requires(self):
        """Return the combined skycells, those of the frame's neighbours too where the blur is wide.

        A further FFI needs only what its reference did not: to ask for all would cost more than to sample them.
        """
        plan, blur = self.plan(), self.blur()
        if not self.reference_ffi:
            stackfiles.demand_space(syndiff(), self.recipe(), blur.skycells(plan), downloads_at_once())
            return {name: self._combining(name) for name in blur.skycells(plan)}
        groups = self.groups()
        added = (skycell for skycell in plan.skycells if not groups[skycell.name].exists())
        return {name: self._combining(name) for skycell in added for name in blur.made_of(plan, skycell)}

    def _combining(self, name):
        shared = {"ignore_mask_bits": self.ignore_mask_bits, "skycell_catalog": self.skycell_catalog}
        return CombineBands(skycell=name, **shared)

    def groups(self):
        """Return the target of each blurred skycell, by name."""
        plan, blur, shaped_by, root = self.plan(), self.blur(), self.shaped_by(), syndiff().data_root
        # What holds for one skycell holds for all: asking a thousand tasks for their output would take 20 s.
        recipe, again = self.recipe(), self._combining(plan.skycells[0].name).again()
        combined = {name: _combined(root, name, recipe, again) for name in blur.skycells(plan)}
        return {
            skycell.name: WholeTarget(
                paths.convolved(root, plan.ccd, skycell.name),
                shaped_by | {"skycell": skycell.name},
                {name: combined[name] for name in blur.made_of(plan, skycell)},
                self.overwrite,
                self.task_family,
            )
            for skycell in plan.skycells
        }

    def output(self):
        """Return the summary of the blurred skycells."""
        plan = self.plan()
        path = paths.cell_metadata(syndiff().data_root, plan.ccd, plan.label, not self.reference_ffi)
        settings = plan.settings() | self.shaped_by()
        return WholeTarget(path, settings, self.groups(), self.overwrite, self.task_family)

    def is_complete(self):
        """Tell whether the summary and every blurred skycell are there."""
        summary = self.output()
        return summary.exists() and all(group.exists() for group in summary.inputs.values())

    def run(self):
        """Blur each skycell that is not there yet, and sum up."""
        plan, combined, groups, blur = self.plan(), self.input(), self.groups(), self.blur()
        progress = self.progress(len(groups), "skycell")
        for skycell in plan.skycells:
            if not groups[skycell.name].exists():
                with groups[skycell.name].writing() as draft:
                    blurred = stages.convolve(self.reference(), skycell, combined, blur, self.ignore_mask_bits)
                    stages.write_blurred(draft.path, blurred)
                    draft.notes.update(combined[skycell.name].manifest()["notes"])
                    draft.took("blur")
            progress.step(skycell.name)
        with self.output().writing() as draft:
            stages.summarise(plan, groups, draft.path)


class Downsample(_Blurring):
    """Templates of an FFI: the blurred skycells integrated over its pixels, one template an offset."""

    multi_offset_array = Offsets(
        default=((0.0, 0.0),),
        description="dx,dy pairs [TESS px], a template each: 0,0,0.5,0; dx > 0 moves stars to larger x (default 0,0); "
        "or auto:0.01 for the offsets of the FFIs in --ffi-dir, to within 0.01 px",
    )
    ffi_dir = luigi.Parameter(default="", description="for offsets auto: folder of the FFIs of this sector and CCD")
    overwrite = luigi.BoolParameter(**OVERWRITE)

    def convolve(self):
        """Return the task that blurs the skycells of this FFI."""
        shared = ("psf_sigma", "ignore_mask_bits", "reference_ffi")
        return Convolve(**{name: getattr(self, name) for name in shared}, **self.part())

    def requires(self):
        """Return the map and the blurred skycells.

        Raises
        ------
        ValueError
            If an offset is too large: better before the first download than after the last.
        """
        if not isinstance(self.multi_offset_array, Auto):
            stages.check_offsets(self.plan(), self.blur(), self.multi_offset_array)
        mapped = self.part()
        if self.reference_ffi:
            mapped |= {"ffi": self.reference_ffi, "roi": plans.roi_of(self.plan()), "target": ""}
        needed = {"map": MapFFI(**mapped), "convolved": self.convolve()}
        return needed | ({"drift": self.drift()} if isinstance(self.multi_offset_array, Auto) else {})

    def drift(self):
        """Return the task that tells by how much the other FFIs of the CCD are offset from this one."""
        plan = self.plan()
        if not self.ffi_dir:
            raise ValueError("--multi-offset-array auto: give the folder of the FFIs to be grouped with --ffi-dir")
        ccd = {name: getattr(plan.ccd, name) for name in ("sector", "camera", "ccd")}
        return DriftOffsets(**ccd, ffi_dir=self.ffi_dir, reference_ffi=self.ffi, roi=plans.roi_of(plan))

    def grouped(self):
        """Return the table FFI → offset of its template, of which the drift is told."""
        table = sectors.read_drift(self.drift().output()["table"].path)
        return sectors.group(table, self.multi_offset_array.within, stages.largest_offset(self.plan(), self.blur()))

    def offsets(self):
        """Return the offsets that are asked for, or that the FFIs have."""
        return sectors.offsets(self.grouped()) if isinstance(self.multi_offset_array, Auto) else self.multi_offset_array

    def is_complete(self):
        """Tell whether every template is there; which ones there are to be may follow from the drift."""
        return (not isinstance(self.multi_offset_array, Auto) or self.drift().complete()) and super().is_complete()

    def described(self):
        """Return the `stages.Described` that the template files tell."""
        settings = syndiff()
        shown = (settings.units, settings.oversampling, settings.min_coverage)
        return stages.Described(*shown, self.shaped_by(), self.reference_ffi)

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
        settings = plan.settings() | described.settings | stages.chosen(described)
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
        stages.check_offsets(plan, self.blur(), missing)
        frame = stages.frame(plan, syndiff().oversampling)
        batches = stages.batches(missing, frame)
        progress = self.progress(len(batches) * len(groups) + len(made), "step")
        for batch in batches:
            begun = time.monotonic()
            templates = stages.integrate(plan, frame, groups, batch, syndiff().oversampling, progress)
            for offset, sampled in zip(batch, templates, strict=True):
                with made[offset][0].writing() as draft:
                    stages.write_template(draft.path, sampled, frame, plan, offset, self.described(), groups)
                    draft.notes["seconds"] = stages.seconds_of(groups)
                    draft._replace(begun=begun).took(f"integrate and write, {len(batch)} offsets")
        for offset, targets in made.items():
            stages.draw(plan, targets)
            progress.step(f"dx {offset[0]:+} dy {offset[1]:+} drawn")
            self.link_to(targets[-1].path)
        if isinstance(self.multi_offset_array, Auto):
            names = {offset: Path(template.path).name for offset, (template, *_) in made.items()}
            with self.output()["ffis"].writing() as draft:
                sectors.with_templates(self.grouped(), names).to_csv(draft.path, index=False)


class _OfCCD(_Reporting):
    """What the tasks of one CCD of a sector have in common: which, and where its FFIs are."""

    sector = Whole("sector", 1, 9999, description="TESS sector")
    camera = Whole("camera", 1, 4, description="TESS camera, 1 to 4")
    ccd = Whole("ccd", 1, 4, description="TESS CCD, 1 to 4")
    ffi_dir = luigi.Parameter(description="folder of FFIs, searched with the folders below it")
    overwrite = luigi.BoolParameter(**OVERWRITE)

    def which(self):
        """Return the CCD."""
        return paths.CCD(self.sector, self.camera, self.ccd)

    def ffis(self):
        """Return the paths of the FFIs of the CCD."""
        return sectors.find(self.ffi_dir, self.sector).get(self.which(), ())


class ReferenceFFI(_OfCCD):
    """The FFI of a CCD on whose pixels its templates are made: chosen once, and kept."""

    def output(self):
        """Return the choice; that there is nothing to choose holds for the FFIs of today only."""
        made = read_manifest(paths.reference_ffi(syndiff().data_root, self.which()))
        return self._target(made is not None and bool(made["notes"]["ffi"]))

    def _target(self, chosen):
        path = paths.reference_ffi(syndiff().data_root, self.which())
        inputs = {} if chosen else {"ffis": sectors.files_there(self.ffis())}
        return WholeTarget(path, self.which()._asdict(), inputs, self.overwrite, self.task_family)

    def run(self):
        """Read the headers, choose, and record the choice; an FFI of which there are products is preferred."""
        frames = [sectors.read_frame(path) for path in self.ffis()]
        regions = paths.mapped_regions(syndiff().data_root, self.which())
        choice = sectors.choose(frames, [_laid_out_by(self.which(), region) for region in regions])
        with self._target(bool(choice.ffi)).writing() as draft:
            Path(draft.path).write_text(json.dumps(choice._asdict(), indent=1), encoding="utf-8")
            draft.notes.update(choice._asdict())


def _laid_out_by(ccd, region):
    """Return the stem of the FFI by which the skycells of a CCD's region were mapped or blurred, empty for none."""
    root = syndiff().data_root
    for path in (paths.skycells_list(root, ccd, region), paths.cell_metadata(root, ccd, region)):
        if made := read_manifest(path):
            return made["settings"]["ffi"]
    return ""


class DriftOffsets(_OfCCD):
    """By how much each FFI of a CCD is offset from the reference: a table and a plot."""

    reference_ffi = luigi.Parameter(
        default="", description="FFI that has offset 0 (default: the one ReferenceFFI chose)"
    )
    roi = luigi.Parameter(default="", description="region x0,y0,x1,y1 at whose centre and corners offsets are told")

    def requires(self):
        """Return the choice of the reference, where it is not given."""
        chosen = {name: getattr(self, name) for name in ("sector", "camera", "ccd", "ffi_dir")}
        return {} if self.reference_ffi else {"choice": ReferenceFFI(**chosen)}

    def output(self):
        """Return the table and the plot."""
        stem = sectors.stem_of(self.reference_ffi)
        path = paths.drift_offsets(syndiff().data_root, self.which(), plans.roi_label(self.roi), stem)
        made_of = {name: task.output() for name, task in self.requires().items()}
        made_of |= {"ffis": sectors.files_there(self.ffis())}
        made_by = (self.overwrite, self.task_family)
        table = WholeTarget(path, {"reference": stem, "region": self.roi}, made_of, *made_by)
        return {"table": table, "plot": WholeTarget(paths.drift_plot(path), {}, {"table": table}, *made_by)}

    def run(self):
        """Read the headers, compare, write and draw."""
        files = self.ffis()
        reference = self.reference_ffi or sectors.chosen(self.input()["choice"].path, files)
        frames, progress = [], self.progress(len(files), "FFI")
        for path in files:
            frames.append(sectors.read_frame(path))
            progress.step(path.name)
        table = sectors.drift(frames, sectors.read_frame(Path(reference)), self.roi)
        with self.output()["table"].writing() as draft:
            table.to_csv(draft.path, index=False)
        from .report import drift_plot, figure  # matplotlib takes half a second, which only drawing is worth

        with self.output()["plot"].writing() as draft:
            title = f"Sector {self.sector}, camera {self.camera}, CCD {self.ccd}"
            figure.save(drift_plot.draw(table, sectors.usable(table), title), draft.path)


class _Wanted(_Reporting):
    """Which part of each CCD is wanted, and how."""

    roi = luigi.Parameter(default="", description="region x0,y0,x1,y1 of each CCD in FFI pixels, half-open")
    target = SkyTarget(default="", description=TARGET)
    size = Whole("size", 1, 2048, default=64, description="with --target: width and height of the region [TESS px]")
    skycell_catalog = luigi.Parameter(default="", description="CSV of skycells that replaces the PS1 ring table")
    psf_sigma = NumberOfSetting("psf_sigma", 0.0, 400.0, description="sigma of the Gaussian PSF [PS1 px]")
    ignore_mask_bits = BitsOfSetting(description=BITS)

    def wanted(self):
        """Return the parameters that name the same to Downsample."""
        names = ("roi", "target", "size", "skycell_catalog", "psf_sigma", "ignore_mask_bits")
        return {name: getattr(self, name) for name in names}

    def to_share(self, plan, files):
        """Return the path of another FFI of the CCD whose skycells of a plan's region are there, empty for none.

        Without it, what somebody made of another FFI before this one was chosen would stop the run.
        """
        stem = _laid_out_by(plan.ccd, plan.label)
        others = [str(path) for path in files if sectors.stem_of(path) == stem != plan.ccd.stem]
        return next((path for path in others if plans.may_share(plan, path, self.skycell_catalog)), "")

    def asked(self):
        """Return the `sectors.Circumstances` of what is asked for: a report is remade when that has changed."""
        own = self.to_str_params(only_significant=True)
        return sectors.Circumstances(tuple(sorted((name, own[name]) for name in own if name != "ffi_dir")))


class Sector(_Wanted):
    """Templates of every CCD of a sector, a few CCDs at a time, and a report on them."""

    sector = Whole("sector", 1, 9999, description="TESS sector")
    ffi_dir = luigi.Parameter(description="folder of the sector's FFIs, searched with the folders below it")
    cameras = Detectors(default=(1, 2, 3, 4), description="cameras, e.g. 1,3 (default: all)")
    ccds = Detectors(default=(1, 2, 3, 4), description="CCDs of each camera, e.g. 2 (default: all)")
    multi_offset_array = Offsets(
        default=((0.0, 0.0),), description="dx,dy pairs [TESS px], a template each, or auto:0.01 (default 0,0)"
    )

    def found(self):
        """Return the paths of the FFIs of each CCD that is asked for; none where the folder has none."""
        there = sectors.find(self.ffi_dir, self.sector)
        asked = [paths.CCD(self.sector, camera, ccd) for camera in self.cameras for ccd in self.ccds]
        return {ccd: there.get(ccd, ()) for ccd in asked}

    def requires(self):
        """Return the choice of each CCD's reference FFI."""
        return {
            ccd: ReferenceFFI(**ccd._asdict(), ffi_dir=self.ffi_dir) for ccd, files in self.found().items() if files
        }

    def plans(self):
        """Return for each CCD its `sectors.Planned`; the choices of the references must have been made."""
        chosen = {ccd: task.output().path for ccd, task in self.requires().items()}
        return {ccd: self._planned(files, chosen.get(ccd)) for ccd, files in self.found().items()}

    def _planned(self, files, choice):
        if not files:
            return sectors.Planned("no FFI", 0, "", None, "the folder has no FFI of this CCD")
        ffi, why = sectors.read_choice(choice)
        if not ffi:
            return sectors.Planned("no good FFI", len(files), "", None, why)
        path = sectors.path_of(ffi, files)
        if self.target and not sectors.sees(path, plans.position(self.target)):
            return sectors.Planned("target elsewhere", len(files), ffi, None, "the target is not on this CCD")
        folder = {"ffi_dir": self.ffi_dir} if isinstance(self.multi_offset_array, Auto) else {}
        task = Downsample(ffi=str(path), multi_offset_array=self.multi_offset_array, **folder, **self.wanted())
        try:
            shared = self.to_share(task.plan(), files)
        except plans.NoCoverage as error:
            return sectors.Planned("no PS1 coverage", len(files), ffi, None, str(error))
        return sectors.Planned("made", len(files), ffi, task.clone(reference_ffi=shared), why)

    def output(self):
        """Return the report and the page."""
        path = paths.sector_report(syndiff().data_root, self.sector, self._label())
        choices = {str(ccd): task.output() for ccd, task in self.requires().items()}
        report = WholeTarget(path, {"sector": self.sector}, choices | {"asked": self.asked()})
        # Drawn later, the templates have pages to be linked.
        drawn = sectors.Circumstances((("pictures", str(syndiff().pictures)),))
        return {"report": report, "page": WholeTarget(paths.sector_page(path), {}, {"report": report, "drawn": drawn})}

    def _label(self):
        own = self.to_str_params()
        partly = [name for name in ("cameras", "ccds") if own[name] != "1,2,3,4"]
        partly += ["roi"] if self.roi else ["target", "size"] if self.target else []
        return "_".join(f"{name}_{own[name]}".replace(" ", "_").replace(",", "_") for name in partly)

    def is_complete(self):
        """Tell whether the report, the page and every template are there."""
        return not self.left() and super().is_complete()

    def left(self):
        """Return the CCDs whose reference is not chosen yet, else those of which templates are missing."""
        unchosen = [ccd for ccd, task in self.requires().items() if not task.complete()]
        return unchosen or [ccd for ccd, planned in self.plans().items() if planned.task and not _is_made(planned.task)]

    def run(self):
        """Have the templates made, some CCDs at a time, and sum up."""
        planned = self.plans()
        tasks = [one.task for one in planned.values() if one.task]
        # Luigi runs this from the top whenever a lot is done; a lot that is there already costs a look.
        for start in range(0, len(tasks), syndiff().ccds_at_once):
            (self.set_status_message or _nowhere)(f"{start} of {len(tasks)} CCDs are done")
            yield tasks[start : start + syndiff().ccds_at_once]
        report, page = self.output()["report"], self.output()["page"]
        with report.writing() as draft:
            sectors.report(planned).to_csv(draft.path, index=False)
        with page.writing() as draft:
            sectors.write_page(draft.path, self.sector, planned)
        self.link_to(page.path)


def _is_made(task):
    """Tell whether a task is complete; with products of other settings it is not, and says so when it is run."""
    try:
        return task.is_complete()
    except SettingsDiffer:
        return False


class EveryFFI(_OfCCD, _Wanted):
    """A template for every FFI of a CCD through its own WCS, all sampled from one set of blurred skycells."""

    def requires(self):
        """Return the pointing of all FFIs, and the choice of the one whose skycells are shared."""
        ccd = {name: getattr(self, name) for name in ("sector", "camera", "ccd", "ffi_dir")}
        return {"choice": ReferenceFFI(**ccd), "drift": DriftOffsets(**ccd)}

    def output(self):
        """Return the report: each FFI, with its template or the reason why it has none."""
        path = paths.every_ffi(syndiff().data_root, self.which(), plans.roi_label(self.roi))
        made_of = {"drift": self.requires()["drift"].output()["table"], "asked": self.asked()}
        return WholeTarget(path, self.which()._asdict(), made_of, self.overwrite, self.task_family)

    def run(self):
        """Have the reference's template made, then all others, and sum up."""
        files, table = self.ffis(), sectors.read_drift(self.input()["drift"]["table"].path)
        reference = sectors.chosen(self.input()["choice"].path, files)
        first = Downsample(ffi=reference, **self.wanted())
        other = self.to_share(first.plan(), files)
        first = first.clone(reference_ffi=other)
        yield first
        part, shared = self.wanted() | {"roi": plans.roi_of(first.plan()), "target": ""}, other or reference
        pointed = [str(sectors.path_of(stem, files)) for stem in table["ffi"][sectors.usable(table)]]
        tasks = {
            path: Downsample(ffi=path, reference_ffi="" if path == shared else shared, **part)
            for path in pointed
            if path != reference
        }
        yield list(tasks.values())
        made = {path: next(iter(task.output().values()))[0].path for path, task in (tasks | {reference: first}).items()}
        table["template"] = [made.get(str(sectors.path_of(stem, files)), "") for stem in table["ffi"]]
        with self.output().writing() as draft:
            table[["ffi", "mjd", "template", "flags", "why"]].to_csv(draft.path, index=False)
