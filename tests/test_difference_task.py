"""The task Difference on a tiny sky whose FFI shows the template's own stars, and a supernova."""

import numpy as np
import pytest
import tiny_sky
from astropy.io import fits
from numpy.testing import assert_allclose

from syndiff_tasks import provenance
from syndiff_tasks.chain import difference
from syndiff_tasks.io.fits_in import read_ffi
from syndiff_tasks.pixels.difference import FLAG_MEANING, Flag
from syndiff_tasks.report.product import read_template

SCALE = 0.0117
TEMPLATES, DIFFERENCES = "shifted_downsampled", "differences"


def product(root, folder):
    """Return the one FITS file in a folder of a data root."""
    (path,) = (root / folder).rglob("*.fits")
    return path


@pytest.fixture(scope="module")
def made(luigi, tmp_path_factory):
    """A sky, a data root with its template and difference, and how the run ended."""
    folder = tmp_path_factory.mktemp("difference")
    sky, root = tiny_sky.build(folder / "sky"), folder / "data"
    assert luigi.run("Downsample", *sky.arguments(root, *tiny_sky.PLAIN)).code == 0
    template = read_template(product(root, TEMPLATES))
    x0, y0, x1, y1 = template.region
    noise = np.random.default_rng(3).standard_normal(template.flux.shape) * 0.5
    with fits.open(sky.ffi, mode="update") as hdus:
        hdus[1].data[y0:y1, x0:x1] = 100 + SCALE * np.nan_to_num(template.flux) + noise
        hdus[1].data[y0 + 2, x0 + 7] += 60
    return sky, root, luigi.run("Difference", *sky.arguments(root))


def test_the_file_holds_what_it_says_and_how_it_was_made(made):
    _, root, ended = made
    assert ended.code == 0, ended.tail
    path = product(root, DIFFERENCES)
    with fits.open(path, checksum=True) as hdus:  # a bad checksum is a warning, and that an error
        names = [hdu.name for hdu in hdus]
        assert names == ["PRIMARY", "DIFFERENCE", "NOISE", "FLAGS", "KERNEL", "SKY", "STRAPS"]
        header = hdus[0].header
        # Of 10 x 10 px under eight stars, with a supernova, neither sky nor scale is known better.
        assert_allclose(header["SCALE"], SCALE, rtol=0.06)
        assert_allclose(header["KERNSUM"], header["SCALE"], rtol=1e-6)
        assert header["PSF"] == "gauss" and header["OVERSAMP"] == 1 and header["NFITTED"] > 50
        assert {"MU", "EXCESS", "EMPTY", "TEMPLATE", "FFI", "MJD-OBS"} <= set(header)
        assert_allclose(hdus["DIFFERENCE"].data[2, 7], 60, atol=10)
        flags = hdus["FLAGS"].header
        for bit in Flag:
            assert flags[f"FLGBIT{bit.value.bit_length() - 1:02d}"] == bit.name
            assert f"FLAGS {bit.value} {bit.name}: {FLAG_MEANING[bit]}" in "".join(flags["COMMENT"]).replace("\n", "")
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert "Difference image of tess" in path.with_suffix(".html").read_text(encoding="utf-8")


def test_explain_and_verify_know_the_difference(made):
    _, root, _ = made
    path = product(root, DIFFERENCES)
    assert "sky_mesh" in provenance.explain(path)
    checked = dict(provenance.check(root / DIFFERENCES, deep=True))
    assert len(checked) == 3 and not any(checked.values())


def test_a_part_made_again_from_kernel_and_sky_equals_the_stored_image(made):
    sky, root, _ = made
    path = product(root, DIFFERENCES)
    template, image = read_template(product(root, TEMPLATES)), read_ffi(sky.ffi).image
    x0, y0, _, _ = template.region
    again = difference.cut_out(path, template, image, (x0 + 1, y0 + 2, x0 + 9, y0 + 8))
    stored = fits.getdata(path, "DIFFERENCE")[2:8, 1:9]
    assert_allclose(again, stored, atol=1e-4)


def test_a_second_run_does_nothing_and_overwrite_makes_the_difference_alone_again(made, luigi):
    sky, root, _ = made
    again = luigi.run("Difference", *sky.arguments(root))
    assert "Did not run any tasks" in again.tail
    before = product(root, TEMPLATES).stat().st_mtime_ns
    ended = luigi.run("Difference", *sky.arguments(root, "--kernel", "1", *tiny_sky.PLAIN))
    assert "kernel" in ended.tail and ended.code != 0  # another setting: refused with the cure
    ended = luigi.run("Difference", *sky.arguments(root, "--kernel", "1", "--overwrite", *tiny_sky.PLAIN))
    assert ended.code == 0, ended.tail
    assert product(root, TEMPLATES).stat().st_mtime_ns == before
