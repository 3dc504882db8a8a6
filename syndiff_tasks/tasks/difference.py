"""The task of a difference image: an FFI minus its template."""

from pathlib import Path

import luigi

from syndiff_tasks import chain, paths
from syndiff_tasks.config import syndiff
from syndiff_tasks.parameters import Choice, Whole
from syndiff_tasks.targets import WholeTarget

from .base import ConvolutionMixin, OverwriteMixin, _OnFFI
from .template import Downsample

KERNELS = ("auto", "1", "3", "5", "5+wings", "7+wings", "9+wings")


class Difference(_OnFFI, ConvolutionMixin, OverwriteMixin):
    """An FFI minus its template, matched by a kernel: the difference image, its noise and flags, kernel and sky."""

    reference_ffi = luigi.Parameter(default="", description="FFI of the same CCD whose convolved skycells are shared")
    kernel = Choice(
        "kernel", list(KERNELS), default="auto", description="taps of the kernel; auto chooses by cross-validation"
    )
    sky_mesh = Whole("sky_mesh", 8, 2048, default=32, description="side of the meshes of the sky [TESS px]")
    variables = luigi.Parameter(
        default="", description="CSV with ra, dec [deg] of variable stars, which are kept out of the fit"
    )

    def requires(self):
        """Return the template of the same part of the FFI, without offset."""
        return self.derive(Downsample, multi_offset_array=((0.0, 0.0),))

    def with_images(self):
        """Return whether the file holds images: of a region always, of a whole CCD where the settings have it."""
        return bool(self.plan().label) or syndiff().difference_images

    def output(self):
        """Return the difference file, with its picture and page."""
        plan = self.plan()
        path = paths.difference(syndiff().data_root, plan.ccd, plan.label)
        settings = plan.settings() | {
            "kernel": self.kernel,
            "sky_mesh": self.sky_mesh,
            "variables": chain.difference.digest_of_positions(self.variables),
            "images": self.with_images(),
        }
        made_by = (self.overwrite, self.task_family)
        difference = WholeTarget(path, settings, {"template": self.template()}, *made_by)
        beside = (paths.picture(path), paths.page(path)) if syndiff().pictures else ()
        return [difference, *(WholeTarget(one, {}, {"difference": difference}, *made_by) for one in beside)]

    def template(self):
        """Return the target of the template."""
        ((template, *_),) = self.requires().templates().values()
        return template

    def run(self):
        """Read FFI and template, subtract, write, and draw."""
        (finished, *beside), plan = self.output(), self.plan()
        template, ffi = chain.difference.read_inputs(self.template().path, plan.path)
        positions = chain.difference.read_positions(self.variables)
        result = chain.difference.subtract_template(
            template, ffi.image, ffi.uncertainty, self.kernel, self.sky_mesh, positions
        )
        if not finished.exists():
            with finished.writing() as draft:
                chain.difference.write(
                    draft.path, result, template, plan.ccd.stem, ffi.header, self.sky_mesh, self.with_images()
                )
                draft.record_time("subtract and write")
        if beside:
            chain.difference_page.draw(result, template, ffi, finished, beside)
            self.link_to(Path(beside[-1].path))
