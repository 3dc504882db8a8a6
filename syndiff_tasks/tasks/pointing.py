"""The tasks of one CCD: its reference FFI, and the drift of the others."""

import json
from pathlib import Path

import luigi

from syndiff_tasks import chain, paths
from syndiff_tasks.config import syndiff
from syndiff_tasks.manifest import Fingerprint, read_manifest
from syndiff_tasks.targets import WholeTarget

from .base import _OfCCD


class ReferenceFFI(_OfCCD):
    """The FFI of a CCD that defines the pixel grid of its templates: chosen once, and kept."""

    def output(self):
        """Return the choice; the finding that no FFI is usable is redone when the set of FFIs changes."""
        made = read_manifest(paths.reference_ffi(syndiff().data_root, self.which()))
        return self._target(made is not None and bool(made["notes"]["ffi"]))

    def _target(self, chosen):
        path = paths.reference_ffi(syndiff().data_root, self.which())
        inputs = {} if chosen else {"ffis": chain.ffi_folder.files_there(self.ffis())}
        return WholeTarget(path, self.which()._asdict(), inputs, self.overwrite, self.task_family)

    def run(self):
        """Read the headers, choose, and record the choice; an FFI that already has products is preferred."""
        frames = [chain.frame_header.read_frame_header(path) for path in self.ffis()]
        regions = paths.mapped_regions(syndiff().data_root, self.which())
        choice = chain.pointing.choose_reference(frames, [_laid_out_by(self.which(), region) for region in regions])
        with self._target(bool(choice.ffi)).writing() as draft:
            Path(draft.path).write_text(json.dumps(choice._asdict(), indent=1), encoding="utf-8")
            draft.notes.update(choice._asdict())


def _laid_out_by(ccd, region):
    """Return the stem of the FFI that a CCD's region was mapped or convolved for, or an empty string."""
    root = syndiff().data_root
    for path in (paths.skycells_list(root, ccd, region), paths.cell_metadata(root, ccd, region)):
        if made := read_manifest(path):
            return made["settings"]["ffi"]
    return ""


class DriftOffsets(_OfCCD):
    """The offset of each FFI of a CCD from the reference: a table and a plot."""

    reference_ffi = luigi.Parameter(
        default="", description="FFI that has offset 0 (default: the one ReferenceFFI chose)"
    )
    roi = luigi.Parameter(default="", description="region x0,y0,x1,y1; offsets are given at its center and corners")

    def requires(self):
        """Return the choice of the reference, where it is not given."""
        return {} if self.reference_ffi else {"choice": self.derive(ReferenceFFI)}

    def output(self):
        """Return the table and the plot."""
        stem = chain.ffi_folder.stem_of(self.reference_ffi)
        path = paths.drift_offsets(syndiff().data_root, self.which(), chain.plan.roi_label(self.roi), stem)
        inputs = {name: task.output() for name, task in self.requires().items()}
        inputs |= {"ffis": chain.ffi_folder.files_there(self.ffis())}
        if syndiff().missing_wcs != "skip":
            inputs["missing_wcs"] = Fingerprint((("missing_wcs", syndiff().missing_wcs),))
        made_by = (self.overwrite, self.task_family)
        table = WholeTarget(path, {"reference": stem, "region": self.roi}, inputs, *made_by)
        return {"table": table, "plot": WholeTarget(paths.drift_plot(path), {}, {"table": table}, *made_by)}

    def run(self):
        """Read the headers, compare, write and draw."""
        files = self.ffis()
        reference = self.reference_ffi or chain.pointing.reference_path(self.input()["choice"].path, files)
        frames, progress = [], self.progress(len(files), "FFI")
        for path in files:
            frames.append(chain.frame_header.read_frame_header(path))
            progress.step(path.name)
        table = chain.drift.drift(frames, chain.frame_header.read_frame_header(Path(reference)), self.roi)
        if syndiff().missing_wcs == "interpolate":
            table = chain.drift.interpolate(table)
        with self.output()["table"].writing() as draft:
            table.to_csv(draft.path, index=False)
        from syndiff_tasks.report import (  # imported here: matplotlib takes half a second
            drift_plot,
            figure,
        )

        with self.output()["plot"].writing() as draft:
            title = f"Sector {self.sector}, camera {self.camera}, CCD {self.ccd}"
            figure.save(drift_plot.draw(table, chain.drift.usable(table), title), draft.path)
