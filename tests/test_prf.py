"""Templates with SPOC's PRFs: their files, their pedestal, and their change over a skycell and a CCD."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import real_data
from astropy.io import fits
from made_up_chain import write_ffi
from numpy.testing import assert_allclose, assert_array_equal
from scipy.interpolate import RectBivariateSpline
from tiny_sky import write_ffi as write_any_ffi

from syndiff_tasks.chain import convolve
from syndiff_tasks.chain.plan import plan_ffi
from syndiff_tasks.demo import frame
from syndiff_tasks.geometry import mapping
from syndiff_tasks.geometry.tansip import cropped
from syndiff_tasks.io import prf as prf_files
from syndiff_tasks.pixels import blocks, convolution, prf, template, widening

ROI = "1600,900,1610,910"
ROWS, COLUMNS = (1, 513, 1025, 1536, 2048), (45, 557, 1069, 1580, 2092)
AT = (np.arange(117) - 58) / 9


def pixel_response(sigma, x, y):
    """What a whole pixel receives of a round Gaussian star at (x, y) from its center [TESS px]."""
    along = []
    for place in (AT - x, AT - y):
        edges = np.array([[math.erf((at + half) / (sigma * math.sqrt(2))) for half in (-0.5, 0.5)] for at in place])
        along.append(np.diff(edges)[:, 0] / 2)
    return np.outer(along[1], along[0])


def made_up_prfs(pedestal=0.0):
    """PRFs of a CCD that widen and shift from file to file, unevenly, on a pedestal."""
    images, rows, columns = [], [], []
    for j, row in enumerate(ROWS):
        for i, column in enumerate(COLUMNS):
            sigma, shift = 0.62 + 0.05 * math.sin(2 * i + j), 0.05 * math.cos(3 * j + i)
            images.append(pixel_response(sigma, shift, -shift) + pedestal)
            rows.append(row)
            columns.append(column)
    return prf_files.PrfGrid(np.array(images), tuple(rows), tuple(columns), 9, "made up")


def write_prfs(folder, date="2019107181900", prfs=None):
    """The files of camera 3, CCD 3 as MAST names them."""
    folder.mkdir(parents=True)
    prfs = prfs or made_up_prfs()
    for image, row, column in zip(*prfs[:3], strict=True):
        cards = fits.Header({"CCD_RREF": float(row), "CCD_CREF": float(column), "NSAMP": 9})
        name = f"tess{date}-prf-3-3-row{row:04d}-col{column:04d}.fits"
        fits.PrimaryHDU(image, cards).writeto(folder / name)
    return folder


# --- files ------------------------------------------------------------------------------------------------------------


def test_the_set_of_prf_files_follows_from_the_sector():
    assert [prf_files.prf_set(sector) for sector in (1, 3, 4, 95)] == [
        "start_s0001", "start_s0001", "start_s0004", "start_s0004",
    ]  # fmt: skip


def test_a_folder_with_both_sets_of_prf_files_or_the_wrong_one_is_refused_by_name(tmp_path):
    write_prfs(tmp_path / "start_s0001" / "cam3_ccd3", "2018243163600")
    write_prfs(tmp_path / "start_s0004" / "cam3_ccd3")
    assert len(prf_files.read(tmp_path / "start_s0004", 3, 3, 20).images) == 25
    assert len(prf_files.read(tmp_path / "start_s0001", 3, 3, 2).images) == 25
    for folder, sector, message in (
        (tmp_path, 20, "set start_s0001 .*and start_s0004 .*sector 20 needs start_s0004 alone"),
        (tmp_path, 2, "sector 2 needs start_s0001 alone"),
        (tmp_path / "start_s0001", 4, "set start_s0001 .*sector 4 needs start_s0004"),
        (tmp_path / "start_s0004", 3, "set start_s0004 .*sector 3 needs start_s0001"),
    ):
        with pytest.raises(ValueError, match=message):
            prf_files.read(folder, 3, 3, sector)


def test_two_prf_files_of_one_place_are_refused(tmp_path):
    write_prfs(tmp_path / "one")
    write_prfs(tmp_path / "two", "2019107181901")
    with pytest.raises(ValueError, match="2 PRF files of camera 3, CCD 3 at row0001-col0045"):
        prf_files.read(tmp_path, 3, 3, 20)


# --- pedestal ---------------------------------------------------------------------------------------------------------


def test_the_pedestal_comes_off_and_the_sum_stays():
    plain = pixel_response(0.65, 0.1, 0.0)
    raised = plain + 2e-4 * plain.sum() / 81
    found = prf.remove_pedestal(raised)
    assert_allclose(found.sum(), raised.sum(), rtol=1e-12)
    assert_allclose(found / found.sum(), plain / plain.sum(), atol=1e-9)
    with pytest.raises(ValueError, match="not brighter inside"):
        prf.remove_pedestal(np.ones((117, 117)))


def test_real_prfs_fall_to_zero_once_the_pedestal_is_off():
    for image in real_data.prfs():
        ring = np.ones(image.shape, bool)
        ring[9:-9, 9:-9] = False
        light = 81 / image.sum()
        assert np.median(image[ring]) * light > 1.4e-4
        found = prf.remove_pedestal(image)
        assert abs(np.median(found[ring])) * light < 1e-9
        assert abs(found[ring].sum()) / found.sum() < 0.006


# --- change over a skycell --------------------------------------------------------------------------------------------


def one_star(skycell, x, y):
    """Blocks of a full-size skycell with one point source of unit flux, in the native pixel (x, y)."""
    x0, y0 = 4 * (x // 4) - 8, 4 * (y // 4) - 8
    flux, bits = np.zeros((16, 16), np.float32), np.zeros((16, 16), np.uint16)
    flux[y - y0, x - x0] = 1
    corner = skycell.corner[0] + x0, skycell.corner[1] + y0
    some = blocks.to_blocks(flux, np.ones_like(flux), bits, bits.astype(np.uint8), 4, corner)
    planes = [np.zeros((skycell.ny // 4 + 3, skycell.nx // 4 + 3), plane.dtype) for plane in some[:-1]]
    column, row = x0 // 4, y0 // 4
    for whole, part in zip(planes, some[:-1], strict=True):
        whole[row : row + part.shape[0], column : column + part.shape[1]] = part
    planes[2][:] = 16
    frame = blocks.Blocks(*planes, blocks.Grid(some.grid.x0 + x0 - 4 * column, some.grid.y0 + y0 - 4 * row, 4))
    return widening.widen(frame, convolve.PRF_REACH - 240, [])


def received(plan, skycell, prfs, x, y):
    """The template of a star at native (x, y) on 11 x 11 px around it, and what its own PRF gives there."""
    tx, ty = (float(value[0]) for value in mapping.ps1_to_tess(plan.tansip, skycell, [x], [y]))
    columns, rows = (round(at) + np.arange(-5.0, 6.0) for at in (tx, ty))
    star = one_star(skycell, x, y)
    convolved = convolution.convolve_prf(star, convolve._prf_kernels(plan, skycell, star, prfs), 0)
    zero = np.zeros(11, int)
    positions = mapping.native_positions(plan.tansip, skycell, columns, rows, zero, zero + 11)
    found = template.sample(convolved, *positions).flux
    own = prf.interpolate_prf(prfs.images, prfs.rows, prfs.columns, ty + 1, tx + 1)
    truth = RectBivariateSpline(AT, AT, own)(rows - ty, columns - tx) * 81 / own.sum()
    return columns, rows, found, truth


def errors(columns, rows, found, truth):
    """Worst pixel [peak], flux and centroid [TESS px]."""
    centroids = [(image.sum(0) @ columns / image.sum(), image.sum(1) @ rows / image.sum()) for image in (found, truth)]
    return (
        np.abs(found - truth).max() / truth.max(),
        abs(found.sum() / truth.sum() - 1),
        np.abs(np.subtract(*centroids)).max(),
    )


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    return plan_ffi(write_ffi(tmp_path_factory.mktemp("ffi")), ROI)


@pytest.mark.parametrize("corner", [(241, 243), (-243, 242)])
def test_a_star_at_the_corner_of_a_skycell_has_its_own_prf(plan, corner):
    skycell = plan.skycells[0]
    x, y = (at % size for at, size in zip(corner, (skycell.nx, skycell.ny), strict=True))
    assert max(errors(*received(plan, skycell, made_up_prfs(), x, y))) < 5e-4


def test_a_star_at_the_corner_of_a_skycell_has_its_own_real_prf(plan):
    folder = real_data.present("tess_prf/cam1_ccd2")
    prfs = prf_files.read(folder, 1, 2, 20)
    prfs = prfs._replace(images=np.array([prf.remove_pedestal(image) for image in prfs.images]))
    skycell = plan.skycells[0]
    assert max(errors(*received(plan, skycell, prfs, skycell.nx - 243, 241))) < 5e-4


# --- cut-outs ---------------------------------------------------------------------------------------------------------


def test_a_cutout_has_the_kernels_of_the_whole_ffi_to_the_last_bit(plan, tmp_path):
    physical = {"CRPIX1P": 1, "CRPIX2P": 1, "CRVAL1P": 1, "CRVAL2P": 1}
    path = write_any_ffi(tmp_path / frame.NAME, cropped(frame.TANSIP, 1500, 800), (200, 200), physical)
    cut = plan_ffi(str(path), "100,100,110,110")
    assert cut.origin == (1500, 800) and cut.skycells == plan.skycells
    skycell, prfs = plan.skycells[0], made_up_prfs()
    star = one_star(skycell, 3000, 3000)
    for one, other in zip(*(convolve._prf_kernels(p, skycell, star, prfs) for p in (plan, cut)), strict=True):
        assert_array_equal(one[0], other[0])
        assert_array_equal(one[1], other[1])


def test_a_prf_needs_the_place_of_a_cutout(tmp_path):
    cut = cropped(frame.TANSIP, 1500, 800)
    path = write_any_ffi(tmp_path / frame.NAME, cut._replace(crpix1=cut.crpix1 + 0.3), (200, 200))
    settings = SimpleNamespace(psf="prf", prf_folder=str(tmp_path))
    with pytest.raises(ValueError, match="which part of the FFI this image shows is unknown, and psf = prf"):
        convolve.TemplatePsf.from_settings(settings, 40.0, plan_ffi(str(path), "100,100,110,110"))
