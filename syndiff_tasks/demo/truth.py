"""What a perfect template of the made-up sky holds: the same Gaussians, drawn straight onto TESS pixels.

Nothing of `syndiff_tasks.pixels` is used, and of `syndiff_tasks.geometry` only the skycells and the FFI's keywords: the
world coordinates are astropy's.
"""

import numpy as np
import pandas as pd
from astropy.coordinates import angular_separation
from astropy.io import fits
from astropy.wcs import WCS

from syndiff_tasks.demo.archive import STAR_FWHM
from syndiff_tasks.demo.gaussians import Mixture, deposit, gaussian_star, sky_jacobian
from syndiff_tasks.demo.sky import ELECTRONS_PER_COUNT, WEIGHTS, spread, weighted_counts
from syndiff_tasks.geometry.region import Region
from syndiff_tasks.geometry.rings import rings_v3
from syndiff_tasks.geometry.skycell import skycell_wcs
from syndiff_tasks.geometry.tansip import TanSip, tansip_keywords

NATIVE_PX = 0.25  # arcsec


def astropy_wcs(tansip: TanSip) -> WCS:
    """World coordinates of an FFI for astropy."""
    return WCS(fits.Header(tansip_keywords(tansip)))


def pixel_positions(tansip: TanSip, ra, dec) -> tuple[np.ndarray, np.ndarray]:
    """Positions on an FFI by astropy's iteration.

    Parameters
    ----------
    tansip : TanSip
        World coordinates of the FFI.
    ra, dec : ndarray of float64, shape (n,)
        Degrees; on the chip or near it.

    Returns
    -------
    x, y : ndarray of float64, shape (n,)
        0-based pixels, right to 1e-9.
    """
    x, y = astropy_wcs(tansip).all_world2pix(ra, dec, 0, tolerance=1e-10, maxiter=100, adaptive=True, quiet=True)
    return x, y


def _owner_jacobian(ra, dec) -> np.ndarray:
    """d(native px of the owner) / d(east, north), shape (n, 2, 2); a plain 0.25 arcsec where PS1 has no skycell."""
    tessellation = rings_v3()
    jacobian = np.broadcast_to(np.eye(2) / NATIVE_PX, (len(ra), 2, 2)).copy()
    owner = tessellation.owner(ra, dec)
    for number in np.unique(owner[owner >= 0]):
        wcs = skycell_wcs(tessellation.skycell(tessellation.name_of(number)))
        here = owner == number
        jacobian[here] = sky_jacobian(lambda a, d, wcs=wcs: wcs.wcs_world2pix(a, d, 0), ra[here], dec[here])
    return jacobian


def _seen_from(tansip: TanSip, region: Region, sources: pd.DataFrame) -> pd.DataFrame:
    """Choose the sources within a region and a generous margin of 0.15 degrees about it."""
    corners = [(x, y) for x in (region.x0 - 0.5, region.x1 - 0.5) for y in (region.y0 - 0.5, region.y1 - 0.5)]
    middle = ((region.x0 + region.x1 - 1) / 2, (region.y0 + region.y1 - 1) / 2)
    sky = np.radians(astropy_wcs(tansip).all_pix2world([middle, *corners], 0))
    reach = angular_separation(*sky[0], *sky[1:].T).max() + np.radians(0.15)
    place = np.radians(sources[["ra", "dec"]].to_numpy())
    return sources[angular_separation(*sky[0], *place.T) < reach]


def expected_template(
    sources: pd.DataFrame,
    tansip: TanSip,
    region: Region,
    sigma_psf: float,
    offset: tuple = (0.0, 0.0),
    units: str = "counts",
    star: Mixture | None = None,
    weights: dict = WEIGHTS,
) -> np.ndarray:
    """Template that a perfect pipeline makes of noiseless, undamaged skycells.

    Parameters
    ----------
    sources : pandas.DataFrame
        As `sky.source_table` gives it.
    tansip : TanSip
        World coordinates of the FFI, not moved by the offset.
    region : Region
        Pixels wanted.
    sigma_psf : float
        Blur, native PS1 px; 0 for none.
    offset : tuple of float
        (dx, dy), TESS px; positive moves stars to larger x and y.
    units : str
        "counts" for PS1-weighted counts/s (zero point 25) or "electrons" for electrons/s (zero point 20.812).
    star : Mixture, optional
        Star image of the skycells, variances in native px squared; a Gaussian of 4.4 px FWHM by default.
    weights : dict
        Band weights.

    Returns
    -------
    ndarray of float64, shape (ny, nx)
        Each source is a Gaussian of covariance (sigma_psf^2 + sigma_star^2) J J^T about its place on the FFI, J the
        Jacobian there from its owner's native pixels to TESS pixels, integrated over the pixels to 1e-9 of its flux;
        galaxies have their own shape besides. Left out, 5e-5 of the peak at sigma_psf 40: that the skycells' own
        pixels widen a star by 1/12 native px squared.

    Raises
    ------
    ValueError
        If the units are neither of the two.
    """
    if units not in ("counts", "electrons"):
        raise ValueError(f"units {units!r} are neither 'counts' (PS1-weighted counts/s) nor 'electrons' (electrons/s)")
    star = gaussian_star(STAR_FWHM) if star is None else star
    image = np.zeros(region.shape)
    seen = _seen_from(tansip, region, sources)
    if seen.empty:
        return image
    ra, dec = seen["ra"].to_numpy(), seen["dec"].to_numpy()
    x, y = pixel_positions(tansip, ra, dec)
    sky_to_tess = sky_jacobian(lambda a, d: pixel_positions(tansip, a, d), ra, dec)
    blur = Mixture(star.fractions, star.variances + sigma_psf**2)
    native_to_tess = sky_to_tess @ np.linalg.inv(_owner_jacobian(ra, dec))
    flux = weighted_counts(seen, weights) * (ELECTRONS_PER_COUNT if units == "electrons" else 1.0)
    x, y = x + offset[0] - region.x0, y + offset[1] - region.y0
    deposit(image, spread(seen, x, y, flux, sky_to_tess, (blur, native_to_tess)))
    return image
