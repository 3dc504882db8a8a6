"""What there is in the made-up sky: stars and galaxies with positions, colours and magnitudes."""

import math

import numpy as np
import pandas as pd

from syndiff_tasks.demo.gaussians import DISC, POINT, Gaussians, Mixture, displaced

BANDS = ("r", "i", "z", "y")

# PS1 effective wavelengths, metres: Tonry et al. 2012, ApJ 750, 99, table 4.
WAVELENGTH = {"r": 617e-9, "i": 752e-9, "z": 866e-9, "y": 962e-9}

# PS1 to TESS band, 4.4 mmag rms over black bodies; in this sky exact, so that a template has no colour term to excuse.
WEIGHTS = {"r": 0.238, "i": 0.344, "z": 0.283, "y": 0.135}

PS1_ZERO_POINT = 25.0  # mag of 1 count/s
TESS_ZERO_POINT = 20.812  # AB mag of 1 electron/s
ELECTRONS_PER_COUNT = 10 ** (-0.4 * (PS1_ZERO_POINT - TESS_ZERO_POINT))

# Gaia DR3 pivot wavelengths [m] and AB - Vega zero points [mag]: Gaia DR3 documentation, section 5.4.1.
GAIA = {"g": (621.8e-9, 0.1136), "bp": (510.9e-9, 0.0155), "rp": (776.9e-9, 0.3561)}

_HC_OVER_K = 0.014387769  # second radiation constant, m K (CODATA 2018)


def black_body_magnitude(wavelength: float, temperature):
    """AB magnitude of a black body up to a constant that does not depend on the wavelength.

    Parameters
    ----------
    wavelength : float
        Metres.
    temperature : float or ndarray
        Kelvin.

    Returns
    -------
    float or ndarray
        -2.5 log10 of the Planck function per frequency, arbitrary zero point.
    """
    return 2.5 * np.log10(wavelength**3 * np.expm1(_HC_OVER_K / (wavelength * np.asarray(temperature, dtype=float))))


def weighted_counts(sources: pd.DataFrame, weights: dict = WEIGHTS) -> np.ndarray:
    """PS1-weighted flux of each source, float64 array of shape (n,) [counts/s at zero point 25]."""
    return sum(w * 10 ** (-0.4 * (sources[band].to_numpy() - PS1_ZERO_POINT)) for band, w in weights.items())


def band_counts(sources: pd.DataFrame, band: str) -> np.ndarray:
    """Flux of each source in one PS1 band, float64 array of shape (n,) [counts/s at zero point 25]."""
    return 10 ** (-0.4 * (sources[band].to_numpy() - PS1_ZERO_POINT))


def source_table(ra, dec, tess_mag, temperature, shape=None, first_id: int = 1) -> pd.DataFrame:
    """Build the table of sources from where they are, how bright and how hot.

    Parameters
    ----------
    ra, dec : array_like, shape (n,)
        Degrees.
    tess_mag : array_like, shape (n,)
        Magnitude of the PS1-weighted flux: weighted counts/s = 10^(-0.4 (tess_mag - 25)), exactly.
    temperature : array_like, shape (n,)
        Of the black body that gives the colours, kelvin.
    shape : tuple of three array_like, optional
        Half-light radius [arcsec], axis ratio and position angle [deg, north through east]. A radius of 0, the
        default, is a star; anything wider is an exponential disc.
    first_id : int
        source_id of the first row.

    Returns
    -------
    pandas.DataFrame
        Columns source_id, kind, ra, dec, tess_mag, temperature, r, i, z, y, phot_g_mean_mag, phot_bp_mean_mag,
        phot_rp_mean_mag (Gaia DR3 names), half_light, axis_ratio, position_angle.

    Notes
    -----
    Gaia G follows from the TESS magnitude by the relation of Stassun et al. 2019 (AJ 158, 138, equation 1) for the
    black body's BP - RP; so repairing a star from its Gaia magnitudes can be checked.
    """
    tess_mag, temperature = np.atleast_1d(np.asarray(tess_mag, float)), np.atleast_1d(np.asarray(temperature, float))
    bands = {band: black_body_magnitude(WAVELENGTH[band], temperature) for band in BANDS}
    weighted = -2.5 * np.log10(sum(WEIGHTS[band] * 10 ** (-0.4 * bands[band]) for band in BANDS))
    gaia = {name: black_body_magnitude(pivot, temperature) - shift for name, (pivot, shift) in GAIA.items()}
    colour = gaia["bp"] - gaia["rp"]
    g = tess_mag + 0.00522555 * colour**3 - 0.0891337 * colour**2 + 0.633923 * colour - 0.0324473
    half_light, axis_ratio, angle = (0.0, 1.0, 0.0) if shape is None else shape
    table = pd.DataFrame(
        {
            "source_id": first_id + np.arange(tess_mag.size, dtype=np.int64),
            "kind": np.where(np.broadcast_to(half_light, tess_mag.shape) > 0, "galaxy", "star"),
            "ra": np.asarray(ra, float),
            "dec": np.asarray(dec, float),
            "tess_mag": tess_mag,
            "temperature": temperature,
            **{band: bands[band] + tess_mag - weighted for band in BANDS},
            "phot_g_mean_mag": g,
            "phot_bp_mean_mag": g + gaia["bp"] - gaia["g"],
            "phot_rp_mean_mag": g + gaia["rp"] - gaia["g"],
        }
    )
    return table.assign(half_light=half_light, axis_ratio=axis_ratio, position_angle=angle)


def gaia_catalogue(sources: pd.DataFrame, faintest: float = 20.7) -> pd.DataFrame:
    """Pick the columns and rows that the Gaia DR3 catalogue would have: the stars down to G = `faintest`."""
    seen = (sources["kind"] == "star") & (sources["phot_g_mean_mag"] < faintest)
    columns = ["source_id", "ra", "dec", "phot_g_mean_mag", "phot_bp_mean_mag", "phot_rp_mean_mag"]
    return sources.loc[seen, columns].reset_index(drop=True)


def random_positions(rng: np.random.Generator, n: int, centre: tuple, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Positions spread evenly over a round field.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    n : int
        How many.
    centre : tuple of float
        RA and Dec, degrees.
    radius : float
        Degrees; small enough for a plane, up to some 3.

    Returns
    -------
    ra, dec : ndarray of float64, shape (n,)
        Degrees.
    """
    distance, angle = radius * 3600 * np.sqrt(rng.random(n)), 2 * np.pi * rng.random(n)
    return displaced(np.full(n, centre[0]), np.full(n, centre[1]), distance * np.cos(angle), distance * np.sin(angle))


def random_sky(seed: int, centre: tuple, radius: float, density: float = 20_000.0) -> pd.DataFrame:
    """Stars and galaxies of a round field, from a seed.

    Parameters
    ----------
    seed : int
        Same seed, same sky.
    centre : tuple of float
        RA and Dec, degrees.
    radius : float
        Degrees.
    density : float
        Stars a square degree; 20,000 are some 3,800 in a skycell. One galaxy comes to 250 stars.

    Returns
    -------
    pandas.DataFrame
        As `source_table`. Stars of TESS magnitude 12 to 21, ten times as many for every 3.3 magnitudes (0.3 dex a
        magnitude, as counts run at middle galactic latitude), those above 13 or so saturated in PS1; 3200 to 9000 K.
        Galaxies of 15 to 19.5 mag and half-light radii of 0.7 to 5 arcsec.
    """
    rng = np.random.default_rng(seed)
    n = round(density * math.pi * radius**2)
    bright, faint, slope = 12.0, 21.0, 0.3
    span = 10 ** (slope * (faint - bright)) - 1
    magnitude = bright + np.log10(1 + span * rng.random(n)) / slope
    temperature = 3200 + 5800 * rng.beta(1.5, 3.5, n)
    stars = source_table(*random_positions(rng, n, centre, radius), magnitude, temperature)
    m = round(n / 250)
    shape = (0.7 * (5 / 0.7) ** rng.random(m), rng.uniform(0.3, 1.0, m), rng.uniform(0, 180, m))
    magnitude, temperature = rng.uniform(15, 19.5, m), rng.uniform(3800, 5500, m)
    galaxies = source_table(*random_positions(rng, m, centre, radius), magnitude, temperature, shape, first_id=n + 1)
    return pd.concat([stars, galaxies], ignore_index=True)


def disc_covariance(sources: pd.DataFrame) -> np.ndarray:
    """Covariance of each source on the sky for a round profile of unit variance and half-light radius 1.

    Parameters
    ----------
    sources : pandas.DataFrame
        Columns half_light [arcsec], axis_ratio, position_angle [deg, north through east].

    Returns
    -------
    ndarray of float64, shape (n, 2, 2)
        In (east, north), arcsec squared; zero for a star.
    """
    angle = np.radians(sources["position_angle"].to_numpy())
    major = np.stack([np.sin(angle), np.cos(angle)], axis=-1) * sources["half_light"].to_numpy()[:, None]
    minor = np.stack([-np.cos(angle), np.sin(angle)], axis=-1) * sources["half_light"].to_numpy()[:, None]
    minor *= sources["axis_ratio"].to_numpy()[:, None]
    return major[:, :, None] * major[:, None, :] + minor[:, :, None] * minor[:, None, :]


def spread(sources: pd.DataFrame, x, y, flux, sky_to_image: np.ndarray, blur: tuple[Mixture, np.ndarray]) -> Gaussians:
    """Turn sources with positions on an image into the Gaussians that render them.

    Parameters
    ----------
    sources : pandas.DataFrame
        For the shapes; n rows.
    x, y, flux : ndarray of float64, shape (n,)
        Position [0-based px] and flux on the image.
    sky_to_image : ndarray of float64, shape (n, 2, 2)
        d(x, y)/d(east, north), image px per arcsec: carries the shapes of galaxies.
    blur : tuple of Mixture and ndarray
        Point-spread function and, shape (n, 2, 2), the Jacobian from the plane where it is round to the image.

    Returns
    -------
    Gaussians
        As many a source as its own Gaussians times those of the point-spread function.
    """
    psf, psf_to_image = blur
    round_blur = psf_to_image @ np.swapaxes(psf_to_image, -1, -2)
    own = sky_to_image @ disc_covariance(sources) @ np.swapaxes(sky_to_image, -1, -2)
    is_disc = sources["half_light"].to_numpy() > 0
    parts = []
    for chosen, profile in ((~is_disc, POINT), (is_disc, DISC)):
        for fraction, variance in zip(*profile, strict=True):
            for psf_fraction, psf_variance in zip(*psf, strict=True):
                covariance = variance * own[chosen] + psf_variance * round_blur[chosen]
                parts.append(
                    (
                        x[chosen],
                        y[chosen],
                        flux[chosen] * (fraction * psf_fraction),
                        covariance[:, 0, 0],
                        covariance[:, 0, 1],
                        covariance[:, 1, 1],
                    )
                )
    return Gaussians(*(np.ascontiguousarray(np.concatenate(field)) for field in zip(*parts, strict=True)))
