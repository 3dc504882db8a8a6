import json
import multiprocessing
import os
import shutil

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from syndiff_tasks import paths
from syndiff_tasks.io import store

RNG = np.random.default_rng(20260101)
ARRAYS = {
    "r_image": RNG.normal(-20000, 3000, (700, 90)).astype(np.int16),
    "r_mask": RNG.integers(0, 2, (700, 90)).astype(np.uint16) << 12,
    "flux": np.where(RNG.random((100, 7)) < 0.1, np.nan, RNG.normal(size=(100, 7))).astype(np.float32),
    "missing": RNG.integers(0, 255, (31, 33)).astype(np.uint8),
    "owner": RNG.integers(-1, 900, (50, 60)).astype(np.int32),
    "good": RNG.random(10) < 0.5,
    "nodes": RNG.normal(size=(5, 4, 3)),
}
ATTRIBUTES = {"skycell": "skycell.2556.080", "files": {"r_image": {"BSOFTEN": 85.4, "N": [6300, 6250]}}, "absent": {}}


@pytest.fixture
def group(tmp_path):
    store.write_arrays(tmp_path / "group", ARRAYS, ATTRIBUTES)
    return tmp_path / "group"


def test_arrays_and_attributes_come_back_bit_for_bit(group):
    read = store.read_arrays(group)
    assert list(read) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert read[name].dtype == array.dtype
        assert_array_equal(read[name], array)
    assert store.read_attributes(group) == ATTRIBUTES


def tree(root):
    """A root, two projections and three skycells with manifests, as the tasks lay them out."""
    image = {"flux": ARRAYS["r_image"], "mask": ARRAYS["r_mask"]}
    for name in ("skycell.2180.096", "skycell.2180.097", "skycell.2246.006"):
        path = root / "ps1_skycells.zarr" / name.split(".")[1] / name
        store.write_arrays(path, image, {"skycell": name}, units={"flux": "count/s"})
        (path / "manifest.json").write_text("{}")
        for folder in paths.zarr_roots(path):
            store.write_root(folder)
    return root / "ps1_skycells.zarr"


def test_zarr_python_opens_all_skycells_as_one_tree_without_a_warning(tmp_path):
    zarr = pytest.importorskip("zarr", minversion="3")
    opened = zarr.open_group(tree(tmp_path), mode="r")
    # With warnings as errors, an object that is none of Zarr's would raise one.
    assert sorted(name for name, _ in opened.groups()) == ["2180", "2246"]
    assert_array_equal(opened["2180/skycell.2180.097/flux"][:], ARRAYS["r_image"])
    assert sorted(name for name, _ in opened["2246/skycell.2246.006"].members()) == ["flux", "mask"]


def test_xarray_opens_a_skycell_and_the_tree(tmp_path):
    xarray = pytest.importorskip("xarray")
    root = tree(tmp_path)
    with xarray.open_zarr(root / "2180" / "skycell.2180.097", chunks=None) as opened:
        assert opened["flux"].dims == ("y", "x") and opened["flux"].attrs == {"units": "count/s"}
        assert_array_equal(opened["mask"], ARRAYS["r_mask"])
    with xarray.open_datatree(root, engine="zarr", chunks=None, consolidated=False) as opened:
        assert_array_equal(opened["2246/skycell.2246.006/flux"], ARRAYS["r_image"])


def test_tensorstore_reads_an_array(tmp_path):
    tensorstore = pytest.importorskip("tensorstore")
    path = tree(tmp_path) / "2180" / "skycell.2180.097" / "flux"
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}}
    opened = tensorstore.open(spec).result()
    assert opened.domain.labels == ("y", "x")
    assert_array_equal(opened.read().result(), ARRAYS["r_image"])


def test_many_writers_make_one_root(tmp_path):
    with multiprocessing.Pool(4) as pool:
        pool.map(store.write_root, [tmp_path] * 40)
    assert json.loads((tmp_path / "zarr.json").read_text())["node_type"] == "group"
    assert [file.name for file in tmp_path.iterdir()] == ["zarr.json"]


def test_arrays_without_names_of_dimensions_as_first_written_are_read(group):
    for file in group.glob("*/zarr.json"):
        metadata = json.loads(file.read_text())
        del metadata["dimension_names"]
        file.write_text(json.dumps(metadata))
    assert_array_equal(store.read_arrays(group)["flux"], ARRAYS["flux"])


def test_zarr_python_reads_the_same_group(group):
    zarr = pytest.importorskip("zarr", minversion="3")
    opened = zarr.open_group(group, mode="r")
    assert set(opened.array_keys()) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert opened[name].dtype == array.dtype
        assert_array_equal(opened[name][:], array)
    assert opened.attrs["skycell"] == "skycell.2556.080"


@given(st.integers(0, 700), st.integers(0, 700))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_strip_of_rows_is_that_strip(group, first, last):
    assert_array_equal(store.open_array(group, "r_image")[first:last], ARRAYS["r_image"][first:last])


def test_strips_know_shape_and_type_before_a_pixel_is_read(group):
    array = store.open_array(group, "r_image")
    assert (array.shape, array.dtype, array.rows) == ((700, 90), np.int16, store.ROWS)
    with pytest.raises(ValueError, match="adjacent rows"):
        array[::2]


def test_only_the_names_asked_for_are_read(group):
    shutil.rmtree(group / "flux")
    assert list(store.read_arrays(group, ["owner", "good"])) == ["owner", "good"]
    with pytest.raises(ValueError, match="no array g_image; it has r_image, r_mask"):
        store.read_arrays(group, ["g_image"])


def test_an_array_takes_two_files(group):
    assert sum(len(files) for _, _, files in os.walk(group)) == 1 + 2 * len(ARRAYS)


class Strips:
    """An array that is there only strip by strip, and breaks at a row."""

    shape, dtype = (40, 3), np.dtype(np.int16)

    def __init__(self, broken=None):
        self.broken, self.asked = broken, []

    def __getitem__(self, strip):
        self.asked.append((strip.start, strip.stop))
        if self.broken is not None and strip.start >= self.broken:
            raise ValueError("a row is broken")
        return np.arange(120, dtype=np.int16).reshape(40, 3)[strip]


def test_what_gives_strips_is_stored_strip_by_strip(tmp_path):
    strips = Strips()
    store.write_arrays(tmp_path, {"a": strips}, {}, rows=16)
    assert strips.asked == [(0, 16), (16, 32), (32, 48)]
    assert np.array_equal(store.read_arrays(tmp_path)["a"], np.arange(120).reshape(40, 3))


def test_an_array_that_breaks_off_leaves_nothing_and_may_be_written_again(tmp_path):
    with pytest.raises(ValueError, match="a row is broken"):
        store.write_array(tmp_path, "a", Strips(broken=16), rows=16)
    assert list(tmp_path.iterdir()) == []
    store.write_array(tmp_path, "a", Strips(), rows=16)
    store.write_group(tmp_path, ["a"], {})
    assert store.read_arrays(tmp_path)["a"].shape == (40, 3)


def test_nan_and_paths_and_numpy_values_may_be_attributes(tmp_path):
    given_ = {"BSOFTEN": np.float64("nan"), "n": np.int16(3), "path": tmp_path, "list": np.arange(2)}
    store.write_arrays(tmp_path / "g", {}, given_)
    read = store.read_attributes(tmp_path / "g")
    assert np.isnan(read.pop("BSOFTEN"))
    assert read == {"n": 3, "path": str(tmp_path), "list": [0, 1]}
    with pytest.raises(TypeError, match="is a set"):
        store.write_arrays(tmp_path / "h", {}, {"a": {1}})


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".a", "c.0"])
def test_a_name_that_is_no_plain_word_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="array name"):
        store.write_arrays(tmp_path, {name: np.arange(3)}, {})


@pytest.mark.parametrize("array", [np.array(1), np.empty((0, 3)), np.array(["a"]), np.array([1j])])
def test_what_is_no_array_of_numbers_is_refused(tmp_path, array):
    with pytest.raises(ValueError, match="cannot be stored as an array"):
        store.write_arrays(tmp_path, {"a": array}, {})


def test_a_group_is_never_written_over(group):
    with pytest.raises(FileExistsError):
        store.write_arrays(group, ARRAYS, ATTRIBUTES)


@pytest.mark.parametrize("lost", ["zarr.json", "flux", "flux/zarr.json", "flux/c.0.0"])
def test_whatever_is_lost_raises_with_its_name_and_the_cure(group, lost):
    shutil.rmtree(group / lost) if (group / lost).is_dir() else (group / lost).unlink()
    with pytest.raises(ValueError, match=f"{lost}.* is missing; delete the folder .* rerun the task"):
        store.read_arrays(group)


def test_a_chunk_that_another_program_left_out_raises_and_does_not_read_as_fill(tmp_path):
    zarr = pytest.importorskip("zarr", minversion="3")
    store.write_arrays(tmp_path, {"a": np.ones((40, 3), np.int16)}, {}, rows=10)
    array = zarr.open_group(tmp_path, mode="r+")["a"]
    array[10:20] = 0  # the fill value: zarr-python drops the chunk
    with pytest.raises(ValueError, match="chunk 1 of 4 is missing"):
        store.read_arrays(tmp_path)


@given(st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_flipped_bit_or_a_cut_anywhere_in_a_shard_raises(group, data):
    path = group / "r_image" / "c.0.0"
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    flipped = bytearray(whole)
    flipped[at] ^= 1 << data.draw(st.integers(0, 7))
    for damaged in (flipped, whole[:at]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"c\.0\.0: .*(checksum|lost|cut off); delete the folder"):
            store.read_arrays(group)
    path.write_bytes(whole)


def test_a_strip_is_read_where_only_other_chunks_are_damaged(group):
    path = group / "r_image" / "c.0.0"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    array = store.open_array(group, "r_image")
    assert_array_equal(array[store.ROWS :], ARRAYS["r_image"][store.ROWS :])
    with pytest.raises(ValueError, match="chunk 0"):
        array[: store.ROWS]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"attributes": 3}', '{"attributes": {}}'])
def test_a_group_file_that_says_something_else_raises(group, content):
    (group / "zarr.json").write_text(content)
    with pytest.raises(ValueError, match="zarr.json: "):
        store.read_attributes(group)


@pytest.mark.parametrize("key", ["shape", "data_type", "codecs", "fill_value"])
def test_an_array_of_another_layout_raises(group, key):
    path = group / "flux" / "zarr.json"
    metadata = json.loads(path.read_text())
    for changed in ({k: v for k, v in metadata.items() if k != key}, metadata | {key: [3]}):
        path.write_text(json.dumps(changed))
        with pytest.raises(ValueError, match="flux/zarr.json: "):
            store.open_array(group, "flux")


def test_an_image_of_the_archive_takes_at_most_1_15_of_its_rice_bytes(tmp_path):
    # Noise of one sky as the archive's: 13.7 bits a pixel (a real r image is 67.7 MB), between neighbours correlated.
    white = RNG.normal(size=(513, 1501))
    noise = white[1:, 1:] + 0.6 * white[:-1, 1:] + 0.6 * white[1:, :-1]
    image = np.clip(-23600 + 2900 * noise / noise.std(), -32767, 32766).astype(np.int16)
    image[100:110, 300:500] = 32767
    fits.CompImageHDU(image, compression_type="RICE_1", tile_shape=(1, 1500)).writeto(tmp_path / "image.fits")
    store.write_arrays(tmp_path / "group", {"image": image}, {})
    ours = (tmp_path / "group/image/c.0.0").stat().st_size
    theirs = (tmp_path / "image.fits").stat().st_size
    assert 13 < 8 * theirs / image.size < 14.2
    assert ours <= 1.15 * theirs


def _read_write(group, to, answer):
    read = store.read_arrays(group)
    store.write_arrays(to, read, {})
    answer.put(all(np.array_equal(read[name], ARRAYS[name], equal_nan=read[name].dtype.kind == "f") for name in read))


def test_a_forked_child_reads_and_writes_after_its_parent_did(group, tmp_path):
    store.read_arrays(group)
    fork = multiprocessing.get_context("fork")
    answer = fork.Queue()
    children = [fork.Process(target=_read_write, args=(group, tmp_path / f"child{n}", answer)) for n in range(3)]
    for child in children:
        child.start()
    assert [answer.get(timeout=60) for _ in children] == [True] * 3
    for child in children:
        child.join()
