"""Parts of difference images, made again from what was measured on the whole."""

import lightcurve_sky
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from syndiff_tasks.chain import difference
from syndiff_tasks.pixels.cutout import cut_out
from syndiff_tasks.pixels.difference import WINGS, ImagePair, subtract
from syndiff_tasks.pixels.kernel import KernelBasis


@pytest.mark.parametrize("box", [(0, 0, 40, 30), (61, 50, 125, 114), (100, 90, 160, 160)])
@pytest.mark.parametrize(("gaussian", "basis"), [(0, KernelBasis(3, (), 1)), (2, KernelBasis(7, WINGS, 2))])
def test_a_part_made_again_equals_the_whole_image_there(gaussian, basis, box):
    sky = lightcurve_sky.make_sky(160, 2, seed=8, targets=(0, 0, 0, 0, 0, 0), straps=2)
    frame = lightcurve_sky.render(sky, 1, gaussian, scattered=200)
    flux = frame.flux.copy()
    flux[: 12 * max(1, gaussian), : 7 * max(1, gaussian)] = np.nan
    whole = subtract(ImagePair(frame.ffi, frame.uncertainty, flux, frame.variance, frame.dq), basis)
    x0, y0, x1, y1 = box
    part = cut_out(frame.ffi, flux, whole.kernel, whole.sky, whole.straps, box)
    expected = whole.difference[y0:y1, x0:x1]
    assert_array_equal(np.isnan(part), np.isnan(expected))
    photon = frame.photon_noise[y0:y1, x0:x1]
    assert_allclose(np.nan_to_num(part) / photon, np.nan_to_num(expected) / photon, atol=2e-3)


def test_a_box_off_the_image_is_refused():
    sky = lightcurve_sky.make_sky(64, 2, seed=8, targets=(0, 0, 0, 0, 0, 0), straps=0)
    frame = lightcurve_sky.render(sky, 1)
    pair = ImagePair(frame.ffi, frame.uncertainty, frame.flux, frame.variance, frame.dq)
    whole = subtract(pair, KernelBasis(1, (), 0))
    with pytest.raises(ValueError, match="box 60,0,70,10 does not lie on the 64 x 64 px"):
        cut_out(frame.ffi, frame.flux, whole.kernel, whole.sky, whole.straps, (60, 0, 70, 10))


def test_positions_of_variable_stars_are_read_or_refused(tmp_path):
    path = tmp_path / "variables.csv"
    path.write_text("name,ra,dec\nRY Tau,65.4891,28.4432\n")
    assert difference.read_positions(path) == [(65.4891, 28.4432)]
    path.write_text("name,x\nRY Tau,1\n")
    with pytest.raises(ValueError, match=r"needs columns ra and dec \[deg\]"):
        difference.read_positions(path)
    assert difference.read_positions("") == []
