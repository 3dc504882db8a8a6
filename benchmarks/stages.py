"""Each stage beside a peer on the same input: functions that prepare, and return what is to be timed."""

import functools
import hashlib
import os
import subprocess
import sys
import tempfile

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from scipy import ndimage

from benchmarks import made_up
from syndiff_tasks.chain import combine, convolve, stack_files
from syndiff_tasks.chain.progress import Progress
from syndiff_tasks.demo import frame
from syndiff_tasks.demo.truth import astropy_wcs
from syndiff_tasks.geometry import footprint, mapping
from syndiff_tasks.geometry.rings import rings_v3
from syndiff_tasks.geometry.skycell import skycell_keywords, skycell_wcs
from syndiff_tasks.io import archive as names
from syndiff_tasks.io import products as fits_out
from syndiff_tasks.io import store
from syndiff_tasks.pixels import background, blocks, convolution, quadrature, template
from syndiff_tasks.targets import Draft

SHAPE = frame.SHAPE
RETRY_POLICY = names.RetryPolicy(3, 5.0, 60.0, 0.1, 1.0)


# --- where -----------------------------------------------------------------------------------------------------------


def owners():
    """Own: the owner of each science pixel of the CCD."""
    return lambda: {"skycells": len(footprint.footprint_of(frame.TANSIP, made_up.FRAME, rings_v3()).skycells)}


def owners_by_astropy_and_shapely():
    """Peer: astropy's WCS, and shapely's tree of core polygons; one row in 16, extrapolated."""
    import shapely

    cells = rings_v3()
    found = footprint.footprint_of(frame.TANSIP, made_up.FRAME, cells)
    polygons = [shapely.Polygon(np.stack(footprint.corners(one), axis=1)[1:]) for one in found.skycells]
    wcs, rows = astropy_wcs(frame.TANSIP), np.arange(0, 2048, 16)

    def run():
        x, y = np.meshgrid(np.arange(44, 2092), rows)
        points = shapely.points(*wcs.all_pix2world(x.ravel(), y.ravel(), 0))
        shapely.STRtree(polygons).query(points, predicate="within")
        return {"times": 2048 / len(rows)}

    return run


def index_map():
    """Own: FFI pixel of every native pixel."""
    skycell = made_up.skycell()
    rows = slice(0, skycell.ny, 40)
    exact = _exact_index(skycell, np.arange(skycell.ny)[rows])

    def run():
        made = mapping.pixel_index_map(frame.TANSIP, skycell, SHAPE)
        return {"differ": float(np.mean(made[rows] != exact))}

    return run


def _exact_index(skycell, rows):
    x, y = np.meshgrid(np.arange(skycell.nx), rows)
    sky = skycell_wcs(skycell).all_pix2world(x, y, 0)
    fx, fy = (np.floor(place + 0.5).astype(int) for place in astropy_wcs(frame.TANSIP).all_world2pix(*sky, 0))
    inside = (fx >= 44) & (fx < 2092) & (fy >= 0) & (fy < 2048)
    return np.where(inside, fy * SHAPE[1] + fx, -1)


def index_map_by_astropy():
    """Peer: astropy's WCS both ways; one row in 40, extrapolated."""
    skycell = made_up.skycell()
    rows = np.arange(0, skycell.ny, 40)

    def run():
        _exact_index(skycell, rows)
        return {"times": skycell.ny / len(rows)}

    return run


def write_map(by_astropy):
    """Either: the index map written as .fits.gz."""
    skycell = made_up.skycell()
    made = mapping.pixel_index_map(frame.TANSIP, skycell, SHAPE)

    def run():
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/map.fits.gz"
            if by_astropy:
                fits.PrimaryHDU(made).writeto(path, checksum=True)
            else:
                fits_out.write_pixel_map(path, made, skycell_keywords(skycell), {})
            return {"MB": os.path.getsize(path) / 1e6}

    return run


# --- how much: bands -------------------------------------------------------------------------------------------------


def decode_and_combine(folder):
    """Own: twelve files to the combined image, variance and mask."""
    return lambda: {"finite": int(np.isfinite(made_up.combined(folder).flux).sum())}


def decode_and_combine_by_astropy(folder):
    """Peer: astropy's decompression and the same sums in float64, plainly written; tells our errors against it."""
    ours = made_up.combined(folder)

    def run():
        flux, variance, bits = _plain_combine(folder)
        good = np.isfinite(flux)
        # Where the bands' noise cancels, the flux is no scale to measure an error by; its noise is.
        scale = np.maximum(np.abs(flux[good]), np.sqrt(variance[good]))
        return {
            "relative error of ours": float(np.max(np.abs(ours.flux[good] - flux[good]) / scale)),
            "NaN equal": bool(np.array_equal(good, np.isfinite(ours.flux))),
            "masks equal": bool(np.array_equal(bits, ours.mask)),
            "variance": float(np.nanmax(np.abs(ours.variance / variance - 1))),
        }

    return run


def decode_by_astropy_alone(folder):
    """Peer: astropy's decompression of the twelve files; the issue's machine took 7.4 s, so this tells ours from it."""
    paths = made_up.files(folder).values()

    def run():
        for path in paths:
            with fits.open(path) as hdus:
                _ = hdus[1].data
        return {"on the machine of the scripts [s]": 7.4}

    return run


def _plain_combine(folder):
    total = spread = weight_of_valid = bits = None
    paths = made_up.files(folder)
    for band, weight in made_up.WEIGHTS.items():
        flux, variance = (_plain_linear(paths[f"{band}_{kind}"], power) for kind, power in (("image", 1), ("wt", 2)))
        with fits.open(paths[f"{band}_mask"]) as hdus:
            mask = hdus[1].data.astype(np.uint16)
        valid = np.isfinite(flux) & (variance > 0)
        terms = np.where(valid, weight * flux, 0), np.where(valid, weight**2 * variance, 0), valid * weight
        if total is None:
            total, spread, weight_of_valid, bits = *terms, mask
        else:
            total, spread, weight_of_valid = total + terms[0], spread + terms[1], weight_of_valid + terms[2]
            bits = bits | mask
    factor = np.where(weight_of_valid > 0, sum(made_up.WEIGHTS.values()), np.nan) / np.maximum(weight_of_valid, 1e-9)
    return total * factor, spread * factor**2, bits


def _plain_linear(path, power):
    # Scaled here, in float64: astropy scales in float32, and the sinh would enlarge its rounding to 1e-6.
    with fits.open(path, do_not_scale_image_data=True) as hdus:
        header, disk = hdus[1].header, hdus[1].data
        stored = np.where(disk == header["BLANK"], np.nan, header["BZERO"] + header["BSCALE"] * disk.astype(np.float64))
    if "BSOFTEN" in header and "BOFFSET" in header:
        scale = 2.5 * np.log10(np.e)
        stored = header["BOFFSET"] + 2 * header["BSOFTEN"] * np.sinh(stored / scale)
    return stored / header["EXPTIME"] ** power


def fetch_and_store(folder, combined):
    """Own: fetched from 127.0.0.1, checked, and stored as the raw group, or combined and stored as blocks besides.

    The server runs in a process of its own.
    """
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.serve", folder], stdout=subprocess.PIPE, text=True, bufsize=1
    )
    base = server.stdout.readline().strip()
    skycell = made_up.skycell()

    def run():
        with tempfile.TemporaryDirectory(dir=folder) as root:
            source = stack_files.Source((base,), root, tuple(made_up.WEIGHTS), RETRY_POLICY, True)
            stack_files.download(skycell, source, Draft(f"{root}/raw", {}), _quiet())
            if combined:
                shared, _ = combine.combine(f"{root}/raw", skycell, made_up.RECIPE, root)
                combine.write_blocks(f"{root}/combined", shared, skycell)

    return run


def fetch_by_curl(folder):
    """Peer: curl, the same twelve files, to disk and no more."""
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.serve", folder], stdout=subprocess.PIPE, text=True, bufsize=1
    )
    base = server.stdout.readline().strip()
    urls = [f"{base}/{path}" for path in names.stack_files(made_up.NAME, made_up.WEIGHTS, stack_files.KINDS).values()]

    def run():
        with tempfile.TemporaryDirectory(dir=folder) as root:
            command = ["curl", "--silent", "--fail", "--remote-name-all", *urls]
            subprocess.run(command, cwd=root, check=True)

    return run


def digest_by_hashlib(folder):
    """Peer: SHA-256 of the twelve files alone, without which no file is stored."""
    paths = made_up.files(folder).values()

    def run():
        for path in paths:
            digest = hashlib.sha256()
            with open(path, "rb") as file:
                while piece := file.read(1 << 18):
                    digest.update(piece)

    return run


def combine_stored(folder):
    """Own: the task CombineBands, from the raw group to the written blocks, strip by strip."""
    skycell = made_up.skycell()
    kept = tempfile.TemporaryDirectory(dir=folder)
    root = kept.name
    _store(made_up.stored(folder), f"{root}/raw")

    def run():
        shared, _ = combine.combine(f"{root}/raw", skycell, made_up.RECIPE._replace(background="segment"), root)
        with tempfile.TemporaryDirectory(dir=kept.name) as made:
            combine.write_blocks(f"{made}/combined", shared, skycell)

    return run


def _store(read, raw):
    arrays = {key: one.stored for key, one in read.items()}
    store.write_arrays(raw, arrays, {"keywords": {key: one.keywords for key, one in read.items()}, "absent": []})


# --- how much: sky and blur ------------------------------------------------------------------------------------------


def sources(folder, made=made_up.combined):
    """Own: the pixels of sources."""
    combined = made(folder)
    return lambda: {"pixels": float(background.sources(combined.flux, combined.mask).mean())}


def sources_by_sep(folder, made=made_up.combined):
    """Peer: plain sep on the whole image, with its cleaning; tells how many of our pixels differ."""
    import sep

    combined = made(folder)
    ours = background.sources(combined.flux, combined.mask)
    flux, blank = combined.flux.copy(), np.isnan(combined.flux)
    sep.set_extract_pixstack(20_000_000)

    def run():
        sky = sep.Background(flux, mask=blank, bw=background.DETECTION_MESH, bh=background.DETECTION_MESH)
        found = sep.extract(
            flux - sky.back(dtype=np.float32),
            background.DETECTION_SIGMA,
            err=sky.globalrms,
            mask=blank,
            minarea=background.DETECTION_PIXELS,
            segmentation_map=True,
        )
        return {"pixels that differ": float(np.mean((found[1] > 0) != ours))}

    return run


def to_blocks(folder):
    """Own: native pixels shared among blocks."""
    combined, corner = made_up.combined(folder), made_up.skycell().corner
    return lambda: {"blocks": list(blocks.to_blocks(*combined, 4, corner).flux.shape)}


def blur(folder):
    """Own: the blur of all planes; tells its error against a float64 blur at native resolution."""
    native = _filled(folder)
    shared = _blocks_of(native)
    places = np.random.default_rng(1).uniform(300, 6000, (2, 4000))
    reference = _float64_blur(native, places)

    def run():
        blurred = convolution.convolve_gaussian(shared, made_up.SIGMA, 0)
        read = template.sample(blurred, places[:1], places[1:])
        return {"worst error of the peak": float(np.max(np.abs(read.flux - reference)) / reference.max())}

    return run


def _filled(folder):
    """Return the combined flux without blank pixels: peers know none."""
    return np.nan_to_num(made_up.combined(folder).flux)


def _blocks_of(native):
    planes = np.ones_like(native), np.zeros(native.shape, np.uint16), np.zeros(native.shape, np.uint8)
    return blocks.to_blocks(native, *planes, 4, made_up.skycell().corner)


def _float64_blur(native, places):
    """Return the blurred sky at some places by direct sums in float64."""
    reach = 6 * int(made_up.SIGMA)
    out = np.empty(places.shape[1])
    for n, (x, y) in enumerate(places.T):
        columns = np.arange(max(round(x) - reach, 0), min(round(x) + reach + 1, native.shape[1]))
        rows = np.arange(max(round(y) - reach, 0), min(round(y) + reach + 1, native.shape[0]))
        gx, gy = (np.exp(-0.5 * ((p - c) / made_up.SIGMA) ** 2) for p, c in ((columns, x), (rows, y)))
        norm = 2 * np.pi * made_up.SIGMA**2
        out[n] = gy @ native[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float64) @ gx / norm
    return out


def blur_by_scipy(folder):
    """Peer: scipy.ndimage.gaussian_filter at native resolution, one plane of float32."""
    native = _filled(folder)

    def run():
        ndimage.gaussian_filter(native, made_up.SIGMA, mode="constant", truncate=6)

    return run


def blur_by_dask(folder):
    """Peer: dask-image at native resolution, one plane of float32."""
    import dask.array
    import dask_image.ndfilters

    native = dask.array.from_array(_filled(folder), chunks=2200)

    def run():
        made = dask_image.ndfilters.gaussian_filter(native, made_up.SIGMA, mode="constant", truncate=6)
        made.compute(scheduler="synchronous")

    return run


# --- the template ----------------------------------------------------------------------------------------------------


@functools.cache
def _blurred(folder):
    return convolution.convolve_gaussian(_blocks_of(_filled(folder)), made_up.SIGMA, 0)


def _integrated(blurred, offsets):
    """Return templates of the skycell's pixels at so many offsets, in a sub-frame of the FFI; and its box."""
    skycell, (x, y) = made_up.skycell(), made_up.owned_pixels()
    box = slice(y.min(), y.max() + 1), slice(x.min(), x.max() + 1)
    owned = np.zeros((box[0].stop - box[0].start, box[1].stop - box[1].start), bool)
    owned[y - box[0].start, x - box[1].start] = True
    rule = quadrature.quadrature_rule(blurred.sigma, mapping.pixel_scale(frame.TANSIP, skycell))
    moved = [(0.005 * n, -0.003 * n) for n in range(offsets)]
    templates = [template.blank(owned.shape) for _ in moved]
    lattice = quadrature.quadrature_grid(owned, (box[1].start, box[0].start), rule, moved)
    positions = functools.partial(mapping.native_positions, frame.TANSIP, skycell)
    template.integrate(blurred, lattice, positions, templates)
    return templates, box


def downsample(folder, offsets):
    """Own: one blurred skycell integrated over its TESS pixels at so many offsets, all planes."""
    blurred = _blurred(folder)
    return lambda: {"pixels": int((_integrated(blurred, offsets)[0][0].coverage > 0).sum())}


def read_and_downsample(folder, offsets):
    """Own: the same from the blurred skycell on disk, as the task Downsample does it."""
    kept = tempfile.TemporaryDirectory(dir=folder)
    convolve.write_convolved(f"{kept.name}/blurred", _blurred(folder))

    def run():
        _integrated(convolve.read_convolved(f"{kept.name}/blurred"), offsets)

    return run


def _dense(native, places):
    """Integrate a native image over TESS pixels by 40 x 40 Gauss-Legendre points in double precision."""
    at, weight = np.polynomial.legendre.leggauss(40)
    found = []
    for x, y in places:
        lattice = x + at / 2, y + at / 2, np.zeros(40, int), np.full(40, 40)
        seen = mapping.native_positions(frame.TANSIP, made_up.skycell(), *lattice)
        value = ndimage.map_coordinates(native.astype(np.float64), [seen.py, seen.px], order=3, mode="nearest")
        found.append(weight @ (seen.area * value) @ weight / 4)
    return np.array(found)


def downsample_by_reproject(folder, method):
    """Peer: reproject of the image blurred at native resolution, one offset, one plane; tells how both differ."""
    import reproject

    skycell = made_up.skycell()
    native = ndimage.gaussian_filter(_filled(folder), made_up.SIGMA, mode="constant", truncate=6)
    [ours], box = _integrated(_blurred(folder), 1)
    # What PS1 labels FK5 is ICRS (geometry/skycell.py); reproject would move it by 20 mas, worth 6e-4 of the peak.
    source, target = WCS(skycell_keywords(skycell) | {"RADESYS": "ICRS"}), astropy_wcs(frame.TANSIP)[box]
    area = ours.count / np.maximum(ours.coverage, 1e-3)
    # The brightest pixels, where any error is largest.
    rows, columns = np.unravel_index(np.argsort(np.where(ours.coverage > 0, ours.flux, 0), axis=None)[-12:], area.shape)
    truth = _dense(native, zip(columns + box[1].start, rows + box[0].start, strict=True))
    function, options = {
        "interp": (reproject.reproject_interp, {"order": "bilinear"}),
        "adaptive": (reproject.reproject_adaptive, {"conserve_flux": True, "kernel": "gaussian"}),
        "exact": (reproject.reproject_exact, {"parallel": False}),
    }[method]

    def run():
        image, _ = function((native, source), target, shape_out=area.shape, **options)
        theirs = image * (1 if method == "adaptive" else area)
        off = np.abs(ours.flux - theirs)[ours.coverage > 0]
        errors = {name: np.abs(one[rows, columns] - truth) for name, one in (("ours", ours.flux), ("theirs", theirs))}
        peak = np.nanmax(theirs)
        return {"they differ, of the peak": float(np.nanmax(off) / peak)} | {
            f"{name} from a dense sum": float(error.max() / peak) for name, error in errors.items()
        }

    return run


def _quiet():
    return Progress(1000, "step", "bench", _nothing, _nothing)


def _nothing(value):
    pass


def whole_skycell(folder, offsets):
    """Own: twelve files on disk to template values at so many offsets, in one process."""
    skycell = made_up.skycell()

    def run():
        flux, variance, bits, missing = made_up.combined(folder)
        flux, variance = background.remove_background(flux, variance, bits, "segment")
        blurred = convolution.convolve_gaussian(
            blocks.to_blocks(flux, variance, bits, missing, 4, skycell.corner), made_up.SIGMA, 0
        )
        _integrated(blurred, offsets)

    return run


def products(folder):
    """Own: bytes of a skycell's raw and combined products."""
    skycell = made_up.skycell()
    archive_bytes = sum(os.path.getsize(path) for path in made_up.files(folder).values())

    def run():
        with tempfile.TemporaryDirectory(dir=folder) as root:
            _store(made_up.stored(folder), f"{root}/raw")
            combined = blocks.to_blocks(*made_up.combined(folder), 4, skycell.corner)
            combine.write_blocks(f"{root}/combined", combined, skycell)
            convolve.write_convolved(f"{root}/blurred", convolution.convolve_gaussian(combined, made_up.SIGMA, 0))
            sizes = {name: _size(f"{root}/{name}") / 1e6 for name in ("raw", "combined", "blurred")}
        return sizes | {"raw of the archive's": sizes["raw"] / (archive_bytes / 1e6)}

    return run


def _size(folder):
    return sum(os.path.getsize(os.path.join(at, name)) for at, _, names in os.walk(folder) for name in names)
