"""Arrays and attributes on disk: one plain directory is one Zarr v3 group.

Every array is a single shard (sharding codec) of chunks of whole rows: two files an array, so that the thousand
skycells of a CCD do not eat a file system's inodes, and strips of rows can be read alone. Each chunk carries a CRC-32C,
and a group lists its arrays, so that a missing or damaged array raises an error: by Zarr's own rule it
would read back as the fill value.

The format is plain Zarr v3, which zarr-python reads and writes; only its pipeline is left out. That takes 0.22 s of CPU
to write and 0.18 s to read a noise image of 6320 x 6284 int16, and the same codecs called directly 0.09 s and 0.08 s.
It also keeps an event loop and threads in the process, which Luigi forks for every task.

Codecs, measured on such an image (archive's RICE file 67.7 MB; seconds of CPU to write, read):

=======================  =======  =====  =====
int16 image                   MB  write   read
=======================  =======  =====  =====
lz4 5, bit shuffle          70.0   0.09   0.04
lz4 5, byte shuffle         79.2   0.08   0.02
zstd 1, bit shuffle         70.2   0.21   0.06
zstd 3, bit shuffle         69.9   0.24   0.04
zstd 1, byte shuffle        73.0   0.18   0.10
blosclz 1, bit shuffle      71.0   0.17   0.04
=======================  =======  =====  =====

Floats of few mantissa bits compress best with bytes shuffled: a 1575 x 1575 image of sources on exact zeros takes
0.41 MB with zstd 5 (0.82 MB with bits shuffled, 0.70 MB with lz4), and level 9 saves a tenth of that for 30 x the time.
"""

import contextlib
import json
import math
import os
import re
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
import numcodecs.blosc
import numpy as np

# Blosc's own threads would outnumber the cores under Luigi's workers, and do not survive a fork.
numcodecs.blosc.use_threads = False

ROWS = 64
"""Rows a chunk, unless asked otherwise: 0.8 MB of a skycell, which stay in a core's cache from one step to the next;
with 256, a skycell takes a fifth longer to decode and write, and as much longer to read."""

_METADATA = "zarr.json"
_LISTED = "arrays"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_CRC_BYTES = 4
_NO_CHUNK = 2**64 - 1


def _blosc(dtype):
    """Return the fastest codec for a type, by the measurements above."""
    if dtype.kind in "iu" and dtype.itemsize == 2:
        return numcodecs.blosc.Blosc("lz4", clevel=5, shuffle=numcodecs.blosc.BITSHUFFLE)
    return numcodecs.blosc.Blosc("zstd", clevel=5, shuffle=numcodecs.blosc.SHUFFLE)


def _array_metadata(shape, dtype, rows):
    """Describe an array as the Zarr v3 specification has it."""
    codec = _blosc(dtype)
    shuffle = {numcodecs.blosc.BITSHUFFLE: "bitshuffle", numcodecs.blosc.SHUFFLE: "shuffle"}[codec.shuffle]
    endian = {"name": "bytes", "configuration": {"endian": "little"}}
    blosc = {"cname": codec.cname, "clevel": codec.clevel, "shuffle": shuffle}
    blosc |= {"typesize": dtype.itemsize, "blocksize": 0}
    sharding = {
        "chunk_shape": [rows, *shape[1:]],
        "codecs": [endian, {"name": "blosc", "configuration": blosc}, {"name": "crc32c"}],
        "index_codecs": [endian, {"name": "crc32c"}],
        "index_location": "end",
    }
    shard_shape = [-(-shape[0] // rows) * rows, *shape[1:]]
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shard_shape}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": {"f": "NaN", "b": False}.get(dtype.kind, 0),
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        # xarray opens no array without.
        "dimension_names": ["z", "y", "x"][-len(shape) :] if len(shape) <= 3 else None,
        "attributes": {},
        "storage_transformers": [],
    }


def _plain(value):
    """Convert NumPy values and paths to JSON types."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"attribute {value!r} is a {type(value).__name__}, which JSON cannot store")


def _write_json(path, content):
    with open(path, "x", encoding="utf-8") as file:
        json.dump(content, file, indent=1, default=_plain)


def _write_with_crc(file, content):
    """Write bytes and their CRC-32C, and return how many that were."""
    return file.write(content) + file.write(google_crc32c.value(content).to_bytes(_CRC_BYTES, "little"))


def _shard_name(dimensions):
    return ".".join(["c", *("0" * dimensions)])


def _write_shard(path, array, dtype, rows):
    codec = _blosc(dtype)
    index = []
    with open(path, "xb") as file:
        for row in range(0, array.shape[0], rows):
            chunk = array[row : row + rows]
            lacking = rows - chunk.shape[0]
            if lacking:
                chunk = np.concatenate([chunk, np.zeros((lacking, *array.shape[1:]), dtype=dtype)])
            content = codec.encode(np.ascontiguousarray(chunk, dtype=dtype))
            index.append((file.tell(), _write_with_crc(file, content)))
        _write_with_crc(file, np.array(index, dtype="<u8").tobytes())


def write_array(path, name, array, rows=ROWS, unit=""):
    """Write one array of a group: wholly, or not at all.

    Parameters
    ----------
    path : path-like
        Directory of the group, made if need be. Written plainly: the caller puts it under its final name.
    name : str
        Of the array: letters, digits and _.
    array : ndarray, or anything else that has `shape` and `dtype` and gives strips of rows
        Integers, booleans or floats of at least one dimension and one element. Of an array that is not an
        ndarray, one strip at a time is held.
    rows : int, optional
        Rows (of the first axis) a chunk.
    unit : str, optional
        Of the values, as FITS spells it: becomes the attribute ``units``, which xarray shows.

    Raises
    ------
    ValueError
        If the name or the array cannot be stored, or what gives the strips raises it.
    FileExistsError
        If the directory holds such an array already.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"{path}: array name {name!r} must be letters, digits and _, a letter first")
    shape, dtype = array.shape, array.dtype.newbyteorder("=")
    if dtype.kind not in "biuf" or dtype.itemsize > 8 or not shape or math.prod(shape) == 0:
        raise ValueError(f"{path}: {name} of type {dtype} and shape {shape} cannot be stored as an array")
    rows = min(rows, shape[0])
    folder = Path(path) / name
    folder.mkdir(parents=True)
    with contextlib.ExitStack() as on_failure:
        on_failure.callback(shutil.rmtree, folder)
        _write_shard(folder / _shard_name(len(shape)), array, dtype, rows)
        attributes = {"attributes": {"units": unit}} if unit else {}
        _write_json(folder / _METADATA, _array_metadata(shape, dtype, rows) | attributes)
        on_failure.pop_all()


def write_group(path, names, attributes):
    """Make one Zarr group of the arrays that `write_array` wrote.

    Parameters
    ----------
    path : path-like
        Directory of the group, made if need be.
    names : list of str
        Of its arrays.
    attributes : Mapping
        What JSON knows, NumPy values and paths; NaN is allowed.

    Raises
    ------
    FileExistsError
        If the directory holds a group already.
    """
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    group = {"zarr_format": 3, "node_type": "group", "attributes": {**attributes, _LISTED: names}}
    arrays = {name: _read_json(path / name / _METADATA) for name in names}
    # zarr-python and xarray then list the arrays by it, and do not stumble over other files, such as the manifest.
    group["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": arrays}
    _write_json(path / _METADATA, group)


def write_root(path):
    """Make a folder of groups a group itself; where it is one already, it stays.

    Parameters
    ----------
    path : path-like
        An existing folder. Several processes and hosts may do this at once: each writes the same bytes, by a rename.
    """
    final = Path(path) / _METADATA
    if final.exists():
        return
    draft = final.with_name(f".{_METADATA}.{socket.gethostname()}-{os.getpid()}")
    draft.unlink(missing_ok=True)
    _write_json(draft, {"zarr_format": 3, "node_type": "group", "attributes": {}})
    os.replace(draft, final)


def write_arrays(path, arrays, attributes, rows=ROWS, units=None):
    """Write arrays and attributes as one Zarr group.

    Parameters
    ----------
    path : path-like
        Directory, made if need be; it must hold no group yet. Written plainly: the caller puts it under its final name.
    arrays : Mapping
        Name and array of each, as `write_array` takes them.
    attributes : Mapping
        As `write_group` takes them.
    rows : int, optional
        Rows (of the first axis) a chunk.
    units : Mapping, optional
        Unit of each array that has one, by name.

    Raises
    ------
    ValueError
        If a name or array cannot be stored.
    FileExistsError
        If the directory holds such a group or array already.
    """
    for name, array in arrays.items():
        write_array(path, name, array, rows, (units or {}).get(name, ""))
    write_group(path, list(arrays), attributes)


def _damaged(path, what):
    return ValueError(f"{path}: {what}; delete the folder of this product and rerun the task that makes it")


def _read_json(path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise _damaged(path, "is missing") from error
    except ValueError as error:
        raise _damaged(path, f"is not JSON ({error})") from error


@dataclass(frozen=True)
class StoredArray:
    """An array on disk: ``array[first:last]`` reads these rows and no others.

    Attributes
    ----------
    path : Path
        The file that holds it.
    shape : tuple of int
        Shape of the whole array.
    dtype : numpy.dtype
        Type of its elements.
    rows : int
        Rows a chunk: strips that begin at a multiple of it are read without waste.
    chunks : tuple of (int, int)
        First byte and number of bytes of each chunk in the file.
    """

    path: Path
    shape: tuple
    dtype: np.dtype
    rows: int
    chunks: tuple

    def __getitem__(self, strip):
        """Read the rows of a slice with step 1.

        Parameters
        ----------
        strip : slice
            Of the first axis.

        Returns
        -------
        rows : ndarray
            A new array.

        Raises
        ------
        ValueError
            If the file is lost or damaged, or the slice has another step.
        """
        first, last, step = strip.indices(self.shape[0])
        if step != 1:
            raise ValueError(f"{self.path} is read in strips of adjacent rows, not every {step}th")
        out = np.empty((max(last - first, 0), *self.shape[1:]), dtype=self.dtype)
        codec = _blosc(self.dtype)
        with _open(self.path) as file:
            for number in range(first // self.rows, -(-last // self.rows) if last > first else 0):
                start = number * self.rows
                content = self._chunk(file, number)
                if first <= start and start + self.rows <= last:
                    codec.decode(content, out=out[start - first : start - first + self.rows])
                    continue
                whole = np.frombuffer(codec.decode(content), dtype=self.dtype).reshape(self.rows, *self.shape[1:])
                begin, end = max(first, start), min(last, start + self.rows)
                out[begin - first : end - first] = whole[begin - start : end - start]
        return out

    def _chunk(self, file, number):
        """Read the compressed bytes of a chunk and verify their checksum."""
        offset, size = self.chunks[number]
        file.seek(offset)
        body, crc = file.read(size - _CRC_BYTES), file.read(_CRC_BYTES)
        if google_crc32c.value(body).to_bytes(_CRC_BYTES, "little") != crc:
            raise _damaged(self.path, f"chunk {number} (bytes {offset}..{offset + size}) does not match its checksum")
        return body


def _open(path):
    try:
        return open(path, "rb")
    except FileNotFoundError as error:
        raise _damaged(path, "is missing") from error


def _read_index(path, chunks):
    """Read where each chunk of a shard lies, and check that all of them are there."""
    with _open(path) as file:
        size = file.seek(0, os.SEEK_END)
        begin = size - 16 * chunks - _CRC_BYTES
        file.seek(max(begin, 0))
        content = file.read()
    body, crc = content[:-_CRC_BYTES], content[-_CRC_BYTES:]
    if begin < 0 or google_crc32c.value(body) != int.from_bytes(crc, "little"):
        raise _damaged(path, f"the index of its {chunks} chunks is damaged or cut off")
    index = tuple((int(offset), int(length)) for offset, length in np.frombuffer(body, dtype="<u8").reshape(-1, 2))
    for number, (offset, length) in enumerate(index):
        if offset == _NO_CHUNK or offset + length > begin or length < _CRC_BYTES:
            raise _damaged(path, f"chunk {number} of {chunks} is missing")
    return index


def _layout(metadata):
    """Return what decides about the bytes of an array; others give it names of dimensions and attributes."""
    return {key: value for key, value in metadata.items() if key not in ("dimension_names", "attributes")}


def open_array(path, name):
    """Open one array of a group to read strips of its rows.

    Parameters
    ----------
    path : path-like
        Directory of the group.
    name : str
        Name of the array.

    Returns
    -------
    array : StoredArray
        All its chunks are known to be there; each is checked when read.

    Raises
    ------
    ValueError
        If the array or a chunk of it is lost, or was not written by `write_arrays`.
    """
    folder = Path(path) / name
    metadata = _read_json(folder / _METADATA)
    try:
        shape, dtype = tuple(metadata["shape"]), np.dtype(metadata["data_type"])
        rows = metadata["codecs"][0]["configuration"]["chunk_shape"][0]
        known = _layout(metadata) == _layout(_array_metadata(shape, dtype, rows))
    except (KeyError, IndexError, TypeError) as error:
        raise _damaged(folder / _METADATA, f"lacks {error}") from error
    if not known:
        raise _damaged(folder / _METADATA, "describes another layout than this program writes")
    file = folder / _shard_name(len(shape))
    return StoredArray(file, shape, dtype, rows, _read_index(file, math.ceil(shape[0] / rows)))


def _read_group(path):
    metadata = _read_json(Path(path) / _METADATA)
    attributes = metadata.get("attributes") if isinstance(metadata, dict) else None
    if not isinstance(attributes, dict) or not isinstance(attributes.get(_LISTED), list):
        raise _damaged(Path(path) / _METADATA, "does not list the arrays of its group")
    return attributes


def read_attributes(path):
    """Read the attributes of a group.

    Parameters
    ----------
    path : path-like
        Directory of the group.

    Returns
    -------
    attributes : dict
        As given to `write_arrays`, in JSON's types: tuples have become lists.

    Raises
    ------
    ValueError
        If the directory holds no such group.
    """
    return {key: value for key, value in _read_group(path).items() if key != _LISTED}


def read_arrays(path, names=None):
    """Read arrays of a group.

    Parameters
    ----------
    path : path-like
        Directory of the group.
    names : iterable of str, optional
        Which ones; all by default.

    Returns
    -------
    arrays : dict
        Name and ndarray of each.

    Raises
    ------
    ValueError
        If an array that the group lists, or a chunk of it, is lost or damaged, or a name is not in the group.
    """
    listed = _read_group(path)[_LISTED]
    names = listed if names is None else list(names)
    unknown = sorted(set(names) - set(listed))
    if unknown:
        raise ValueError(f"{path} has no array {', '.join(unknown)}; it has {', '.join(listed)}")
    return {name: open_array(path, name)[:] for name in names}
